// Package host says what machine a benchmark ran on.
package host

import (
	"os"
	"strings"
)

// System is the distribution's own name for itself (os-release(5)).
func System() string {
	for line := range strings.Lines(Content("/etc/os-release")) {
		if name, ok := strings.CutPrefix(line, "PRETTY_NAME="); ok {
			return strings.Trim(strings.TrimSpace(name), `"`)
		}
	}
	return "unknown"
}

// Content returns the content of a file, empty if there is none.
func Content(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(data))
}
