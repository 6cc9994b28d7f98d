package cluster

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"
	_ "unsafe" // for go:linkname

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/storage/wal"

	"trivet/internal/part"
)

// The cluster's clockwork, measured on three members: a dead leader is
// replaced after 1.0 to 1.8 s, so that the lease of one who lives, renewed
// each renewInterval, seldom ends by it; and three idle members cost about two
// percent of a core together, most of it the Go scheduler's (BenchmarkIdle).
const (
	tick       = 200 * time.Millisecond  // between the leader's heartbeats
	election   = 1000 * time.Millisecond // without heartbeats until a member stands for leader, at least
	quota      = 64 << 20                // bytes of store
	caInterval = 5 * time.Second         // between looks at the authority's file, at least
)

// resync is etcd's own variable: how often it looks for watches that have fallen
// behind. There is no setting for it, and its tenth of a second is a quarter of
// all that wakes an idle node. A watch that keeps up, as ours do, does not need
// it. If a later etcd names it otherwise, this is a variable that nobody reads.
//
//go:linkname resync go.etcd.io/etcd/server/v3/storage/mvcc.watchResyncPeriod
var resync time.Duration

func init() {
	resync = 500 * time.Millisecond
	// A segment is preallocated on the disk; the default of 64 MB is for clusters with much traffic.
	wal.SegmentSizeBytes = 4 << 20
}

// member is one run of the embedded etcd.
type member struct {
	etcd   *embed.Etcd
	client *clientv3.Client // calls the member in this process, no connection
	caFile string
	ca     []byte
}

// start starts the member. It returns at once; the others need not be there.
func (c *Cluster) start() (*member, error) {
	ca, err := os.ReadFile(c.conf.CA)
	if err != nil {
		return nil, fmt.Errorf("read the authority's certificates: %w", err)
	}
	if err := os.MkdirAll(c.conf.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the cluster's folder: %w", err)
	}
	if err := os.Chmod(c.conf.Dir, 0o700); err != nil {
		return nil, fmt.Errorf("protect the cluster's folder: %w", err)
	}
	conf, err := c.conf.embed()
	if err != nil {
		return nil, err
	}
	etcd, err := embed.StartEtcd(conf)
	if err != nil {
		return nil, fmt.Errorf("start member %s: %w", c.conf.Name, explainStart(err))
	}
	return &member{etcd: etcd, client: v3client.New(etcd.Server), caFile: c.conf.CA, ca: ca}, nil
}

func explainStart(err error) error {
	if strings.Contains(err.Error(), "already been bootstrapped") {
		return fmt.Errorf("the others know this member, but its data folder is empty: %w", err)
	}
	return err
}

// embed translates c for etcd.
func (c Config) embed() (*embed.Config, error) {
	self, list, err := c.urls()
	if err != nil {
		return nil, err
	}
	e := embed.NewConfig()
	e.Name, e.Dir = c.Name, c.Dir
	e.InitialCluster, e.InitialClusterToken, e.ClusterState = list, c.Token, embed.ClusterStateFlagNew
	e.ListenPeerUrls, e.AdvertisePeerUrls = []url.URL{self}, []url.URL{self}
	e.ListenClientUrls, e.AdvertiseClientUrls = nil, nil // nothing but peers is served
	e.EnableGRPCGateway = false
	e.PeerTLSInfo = transport.TLSInfo{
		CertFile: c.Cert, KeyFile: c.Key, TrustedCAFile: c.CA,
		ClientCertAuth: true, AllowedCNs: []string{part.Node},
	}
	e.TlsMinVersion = "TLS1.3"
	e.TickMs, e.ElectionMs = uint(tick.Milliseconds()), uint(election.Milliseconds())
	e.PreVote, e.StrictReconfigCheck = true, true
	tune(e)
	e.ZapLoggerBuilder = embed.NewZapLoggerBuilder(newLogger(c.Log))
	// Connections leave from the member's own address, never the floating one: peers compare it with the certificate.
	if err := e.ServerFeatureGate.(interface{ Set(string) error }).Set("SetMemberLocalAddr=true"); err != nil {
		return nil, fmt.Errorf("set etcd's features: %w", err)
	}
	return e, nil
}

// tune makes etcd small: the store holds a few hundred keys and changes a few times a minute.
func tune(e *embed.Config) {
	e.SnapshotCount, e.SnapshotCatchUpEntries = 1000, 500
	e.MaxSnapFiles, e.MaxWalFiles = 2, 2
	e.QuotaBackendBytes = quota
	e.BackendFreelistType = "map"
	e.BackendBatchInterval = time.Second // to the store's file; the log is synced at every change
	e.AutoCompactionMode, e.AutoCompactionRetention = embed.CompactorModePeriodic, "10m"
}

// urls returns this member's URL and the list of all as etcd wants it.
func (c Config) urls() (self url.URL, list string, err error) {
	var all []string
	for _, m := range c.Members {
		u := url.URL{Scheme: "https", Host: net.JoinHostPort(m.Address, strconv.Itoa(c.Port))}
		if m.Name == c.Name {
			self = u
		}
		all = append(all, m.Name+"="+u.String())
	}
	if self.Host == "" {
		return self, "", fmt.Errorf("start member %s: it is not among the servers", c.Name)
	}
	return self, strings.Join(all, ","), nil
}

// wait returns nil when ctx ends or the authority's file changed, and an error when the member died.
func (m *member) wait(ctx context.Context) error {
	look := time.NewTicker(caInterval + rand.N(caInterval)) // not all members at once
	defer look.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-m.etcd.Server.StopNotify():
			return errors.New("the member stopped by itself")
		case err := <-m.etcd.Err():
			return fmt.Errorf("the member stopped serving: %w", err)
		case <-look.C:
			// etcd reads the roots only when it starts.
			if ca, err := os.ReadFile(m.caFile); err == nil && !bytes.Equal(ca, m.ca) {
				return nil
			}
		}
	}
}

func (m *member) close() {
	_ = m.client.Close()
	m.etcd.Close()
}

func (m *member) leads() bool {
	s := m.etcd.Server
	return s.Lead() == uint64(s.MemberID())
}

// resign hands the leadership to the first other member that takes it.
func (m *member) resign(ctx context.Context) error {
	s := m.etcd.Server
	var err error
	for _, other := range s.Cluster().Members() {
		if !m.leads() {
			return nil
		}
		if other.ID == s.MemberID() {
			continue
		}
		attempt, cancel := context.WithTimeout(ctx, operationTimeout/2)
		err = s.MoveLeader(attempt, s.Lead(), uint64(other.ID))
		cancel()
	}
	if !m.leads() {
		return nil
	}
	return err
}

// unavailable reports whether err means that the cluster could not agree.
func unavailable(err error) bool {
	for _, e := range []error{
		context.DeadlineExceeded, context.Canceled, // of the member when it stops; the caller's own is looked at first
		rpctypes.ErrNoLeader, rpctypes.ErrNotLeader, rpctypes.ErrLeaderChanged, rpctypes.ErrStopped,
		rpctypes.ErrTimeout, rpctypes.ErrTimeoutDueToLeaderFail, rpctypes.ErrTimeoutDueToConnectionLost,
		rpctypes.ErrTimeoutWaitAppliedIndex, rpctypes.ErrUnhealthy,
	} {
		if errors.Is(err, e) || strings.Contains(err.Error(), e.Error()) {
			return true
		}
	}
	return false
}
