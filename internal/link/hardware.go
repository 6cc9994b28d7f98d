package link

import (
	"crypto/sha256"
	"net"
)

// fixedAddress is a hardware address for an interface, for the same name always the same,
// of the range for local use (IEEE 802, second bit of the first byte). A
// bridge without a fixed one takes on the lowest of its ports', which changes
// as they come and go, and neighbours go on sending to the old one.
func fixedAddress(name string) net.HardwareAddr {
	sum := sha256.Sum256([]byte(name))
	return append(net.HardwareAddr{0x02}, sum[:5]...)
}
