// Package release makes the site's files into releases and lays them out on
// the servers.
//
// A release is a tar file with the folders app/ and static/, named by the
// SHA-256 of its bytes. It is deterministic: entries sorted, times fixed, owners
// dropped, modes either 0644 or 0755, so that the same files give the same
// name. It holds regular files, folders, and symbolic links that stay inside
// their own top folder; Build refuses anything else, and Unpack trusts no tar
// to have been made by Build. An unpacked release is never written again.
package release

import (
	"regexp"
)

// Top folders of a release.
const (
	AppDir    = "app"
	StaticDir = "static"
)

// Limits on what a release may hold, against a tar that fills the disk.
const (
	MaxFiles = 100_000
	MaxBytes = 2 << 30
)

// hashForm is how a release is called; such a name is safe as part of a path.
var hashForm = regexp.MustCompile(`^[0-9a-f]{64}$`)

// Release is a tar file on the operator's machine.
type Release struct {
	Hash  string // SHA-256 of the tar, hex
	Tar   string // where the tar is; the caller removes it
	Files int    // how many regular files it holds
	Bytes int64  // length of the tar
}
