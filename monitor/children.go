package monitor

import (
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"trivet/internal/part"
)

// children lists the processes that pid started (proc(5), task/tid/children).
func children(pid int) []int {
	files, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	var out []int
	for _, f := range files {
		data, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		for _, field := range strings.Fields(string(data)) {
			if child, err := strconv.Atoi(field); err == nil {
				out = append(out, child)
			}
		}
	}
	return out
}

// nameOf calls a process by what it is to the site: the app's instances by
// their user, for their program may have any name.
func nameOf(pid int, command string) string {
	info, err := os.Stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return command
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return command
	}
	u, err := user.LookupId(strconv.FormatUint(uint64(stat.Uid), 10))
	if err == nil && u.Username == part.UserApp {
		return part.App
	}
	return command
}
