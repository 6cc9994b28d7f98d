package backup

import (
	"fmt"
	"strconv"
	"strings"
)

// Domain is the one GTID domain of the replicated history (wsrep_gtid_domain_id).
// What a server writes for itself only has another, and is no part of a backup.
const Domain = 77

// gtid names a transaction: MariaDB's DOMAIN-SERVER-SEQUENCE.
type gtid struct {
	domain, server uint32
	seq            uint64
}

func (g gtid) String() string { return fmt.Sprintf("%d-%d-%d", g.domain, g.server, g.seq) }

// position writes a sequence number as the GTID that an operator knows it by;
// the server's number is the same on all servers of a site.
func position(seq uint64) string { return gtid{Domain, 1, seq}.String() }

// parseGTID reads one GTID of the replicated history, or the one of it in a list.
func parseGTID(text string) (gtid, error) {
	for word := range strings.SplitSeq(text, ",") {
		g, err := parseOne(strings.TrimSpace(word))
		if err != nil {
			return g, err
		}
		if g.domain == Domain {
			return g, nil
		}
	}
	return gtid{}, fmt.Errorf("%q names no transaction of the replicated history (write it like %s)", text, position(42))
}

func parseOne(word string) (gtid, error) {
	var n [3]uint64
	fields := strings.Split(word, "-")
	if len(fields) != len(n) {
		return gtid{}, fmt.Errorf("%q is no GTID (write it like %s)", word, position(42))
	}
	for i, f := range fields {
		bits := 32
		if i == 2 {
			bits = 64
		}
		v, err := strconv.ParseUint(f, 10, bits)
		if err != nil {
			return gtid{}, fmt.Errorf("%q is no GTID (write it like %s)", word, position(42))
		}
		n[i] = v
	}
	return gtid{uint32(n[0]), uint32(n[1]), n[2]}, nil
}
