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
	// Programs lets it run programs, from the folders that it may read. They stay
	// inside the fence, and behind what is left of the filter of system calls.
	Programs bool
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
	if f.Programs {
		// A database that is restored moves tables from folder to folder.
		rules = append(rules, landlock.RWFiles("/dev/null").IgnoreIfMissing(), landlock.RWDirs(f.Write...).WithRefer().IgnoreIfMissing())
	}
	if err := landlock.V5.BestEffort().RestrictPaths(rules...); err != nil {
		return fmt.Errorf("close Landlock fence: %w", err)
	}
	return nil
}
