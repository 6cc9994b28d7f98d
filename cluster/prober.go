package cluster

import (
	"time"
	_ "unsafe" // for go:linkname
)

// proberInterval is how often etcd measures the round trip to each peer, for
// metrics and log lines that trivet does not use. Each time costs a new
// connection with its TLS handshake, which made up a quarter of an idle
// member's processor time and memory, and etcd has no setting for it. Should a
// later etcd not have the variable, this one is nobody's and nothing is lost.
//
//go:linkname proberInterval go.etcd.io/etcd/server/v3/etcdserver/api/rafthttp.proberInterval
var proberInterval time.Duration

func init() { proberInterval = time.Hour }
