package floating

import (
	"encoding/hex"
	"net"
	"net/netip"
	"testing"
)

func TestPacket(t *testing.T) {
	mac := net.HardwareAddr{2, 0, 0, 0, 0, 7}
	own := netip.MustParseAddr("10.83.2.10")
	got := hex.EncodeToString(packet(arpReply, mac, own.As4(), broadcast(), own.As4()))
	want := "0001080006040002" + "020000000007" + "0a53020a" + "ffffffffffff" + "0a53020a"
	if got != want {
		t.Errorf("packet\n got %s\nwant %s", got, want)
	}
}

// FuzzHeard feeds what any machine on the wire may send to the two readers.
func FuzzHeard(f *testing.F) {
	own := netip.MustParseAddr("10.83.2.10")
	f.Add(packet(arpReply, net.HardwareAddr{2, 0, 0, 0, 0, 7}, own.As4(), broadcast(), own.As4()))
	f.Add([]byte{})
	f.Add(make([]byte, 27))
	f.Add(append([]byte{neighbourAdvert}, make([]byte, 31)...))
	f.Fuzz(func(t *testing.T, p []byte) {
		if mac, ok := claims(p, own); ok && (len(mac) != 6 || p[14] != 10) {
			t.Errorf("claims(%x) = %s", p, mac)
		}
		if mac, ok := advertises(p, netip.IPv6Loopback()); ok && (len(mac) != 6 || p[0] != neighbourAdvert) {
			t.Errorf("advertises(%x) = %s", p, mac)
		}
	})
}
