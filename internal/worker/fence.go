package worker

import (
	"fmt"

	"github.com/landlock-lsm/go-landlock/landlock"
)

// Fence is what a worker may touch in the file system, besides the files that
// it was handed. All else is refused by the kernel (landlock(7)), also to
// whoever takes the process over. Kernels without Landlock run it unfenced.
type Fence struct {
	Read  []string // folders to read
	Write []string // folders to read and write
}

// close puts the process inside the fence, for good; no_new_privs is set too.
// Every worker may make its metrics socket and ask for names and time zones.
func (f Fence) close(metrics string) error {
	rules := []landlock.Rule{
		landlock.RODirs(f.Read...).IgnoreIfMissing(),
		landlock.RWDirs(f.Write...).IgnoreIfMissing(),
		landlock.RWDirs(metrics).IgnoreIfMissing(),
		landlock.ROFiles("/etc/resolv.conf", "/etc/hosts", "/etc/passwd", "/etc/group", "/etc/nsswitch.conf", "/dev/null").IgnoreIfMissing(),
	}
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("close Landlock fence: %w", err)
	}
	return nil
}
