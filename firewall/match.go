package firewall

import (
	"encoding/binary"
	"fmt"
	"net/netip"

	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// match is one condition, or the verdict, of a rule: in nft's words and as
// what the kernel runs. The two are made side by side so that they agree.
type match struct {
	text  string
	exprs []expr.Any
}

const (
	tcp = unix.IPPROTO_TCP
	udp = unix.IPPROTO_UDP
)

var protocolNames = map[byte]string{tcp: "tcp", udp: "udp"}

// The TCP flags that the rules look at (RFC 9293, 3.1).
const (
	flagFIN = 0x01
	flagSYN = 0x02
	flagRST = 0x04
	flagACK = 0x10
)

// Conditions without parameters.
var (
	fromLoopback = match{`iifname "lo"`, loopback(expr.MetaKeyIIFNAME)}
	toLoopback   = match{`oifname "lo"`, loopback(expr.MetaKeyOIFNAME)}
	known        = match{"ct state established,related", state(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED)}
	invalid      = match{"ct state invalid", state(expr.CtStateBitINVALID)}
	fresh        = match{"ct state new", state(expr.CtStateBitNEW)}
	notSYN       = match{
		"tcp flags & (fin | syn | rst | ack) != syn",
		flags(flagFIN|flagSYN|flagRST|flagACK, expr.CmpOpNeq, flagSYN),
	}
	midStream = match{
		"tcp flags & (syn | rst | ack) == ack",
		flags(flagSYN|flagRST|flagACK, expr.CmpOpEq, flagACK),
	}
)

// Verdicts.
var (
	accept  = match{"accept", []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}}
	dropIn  = drop(counterIn)
	dropOut = drop(counterOut)
	reset   = match{"reject with tcp reset", []expr.Any{&expr.Reject{Type: unix.NFT_REJECT_TCP_RST}}}
)

func drop(counter string) match {
	return match{fmt.Sprintf("counter name %q drop", counter), []expr.Any{
		&expr.Objref{Type: unix.NFT_OBJECT_COUNTER, Name: counter},
		&expr.Verdict{Kind: expr.VerdictDrop},
	}}
}

// toPort fits what goes to that port.
func toPort(protocol byte, port uint16) match {
	return match{fmt.Sprintf("%s dport %d", protocolNames[protocol], port), portIs(protocol, 2, port)}
}

// fromPort fits what comes from that port.
func fromPort(protocol byte, port uint16) match {
	return match{fmt.Sprintf("%s sport %d", protocolNames[protocol], port), portIs(protocol, 0, port)}
}

// from fits what a network sent, to what is sent to it.
func from(network netip.Prefix) match { return side(network, "saddr", 12, 8) }
func to(network netip.Prefix) match   { return side(network, "daddr", 16, 24) }

// side fits an address of the IP header, at offset4 (RFC 791) or offset6 (RFC 8200).
func side(network netip.Prefix, name string, offset4, offset6 uint32) match {
	family, protocol, offset := "ip", byte(unix.NFPROTO_IPV4), offset4
	if network.Addr().Is6() {
		family, protocol, offset = "ip6", unix.NFPROTO_IPV6, offset6
	}
	text := network.String()
	if network.IsSingleIP() {
		text = network.Addr().String()
	}
	bytes := network.Masked().Addr().AsSlice()
	exprs := append(meta(expr.MetaKeyNFPROTO, protocol), &expr.Payload{
		Base: expr.PayloadBaseNetworkHeader, DestRegister: 1, Offset: offset, Len: uint32(len(bytes)),
	})
	if !network.IsSingleIP() {
		exprs = append(exprs, &expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: uint32(len(bytes)),
			Mask: mask(network.Bits(), len(bytes)), Xor: make([]byte, len(bytes)),
		})
	}
	exprs = append(exprs, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: bytes})
	return match{fmt.Sprintf("%s %s %s", family, name, text), exprs}
}

// icmp4 and icmp6 fit a message by its type: nft's name and the number.
func icmp4(name string, number byte) match {
	return match{"icmp type " + name, icmp(unix.NFPROTO_IPV4, unix.IPPROTO_ICMP, number)}
}

func icmp6(name string, number byte) match {
	return match{"icmpv6 type " + name, icmp(unix.NFPROTO_IPV6, unix.IPPROTO_ICMPV6, number)}
}

func icmp(family, protocol, number byte) []expr.Any {
	out := append(meta(expr.MetaKeyNFPROTO, family), meta(expr.MetaKeyL4PROTO, protocol)...)
	return append(out,
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, DestRegister: 1, Len: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{number}})
}

// atMost fits as long as not more than rate packets a second came, burst apart.
func atMost(rate uint64, burst uint32) match {
	return match{fmt.Sprintf("limit rate %d/second burst %d packets", rate, burst), []expr.Any{
		&expr.Limit{Type: expr.LimitTypePkts, Rate: rate, Unit: expr.LimitTimeSecond, Burst: burst},
	}}
}

// byUser fits what processes of that user send.
func byUser(id uint32) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeySKUID, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binaryutil.NativeEndian.PutUint32(id)},
	}
}

func loopback(key expr.MetaKey) []expr.Any {
	name := make([]byte, unix.IFNAMSIZ)
	copy(name, "lo")
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: name}}
}

func state(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: expr.CtKeySTATE, Register: 1},
		&expr.Bitwise{
			SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4),
		},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}

func flags(mask byte, op expr.CmpOp, value byte) []expr.Any {
	return append(meta(expr.MetaKeyL4PROTO, tcp),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, DestRegister: 1, Offset: 13, Len: 1},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 1, Mask: []byte{mask}, Xor: []byte{0}},
		&expr.Cmp{Op: op, Register: 1, Data: []byte{value}})
}

func portIs(protocol byte, offset uint32, port uint16) []expr.Any {
	return append(meta(expr.MetaKeyL4PROTO, protocol),
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, DestRegister: 1, Offset: offset, Len: 2},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: binary.BigEndian.AppendUint16(nil, port)})
}

func meta(key expr.MetaKey, value byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: 1}, &expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: []byte{value}}}
}

// mask returns size bytes of which the first bits are ones.
func mask(bits, size int) []byte {
	out := make([]byte, size)
	for i := range bits {
		out[i/8] |= 0x80 >> (i % 8)
	}
	return out
}
