package cli

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"trivet/lab"
	"trivet/node"
)

// labFlag is the flag by which a command is told which lab it is about.
func labFlag(fs *flag.FlagSet) *string {
	return fs.String("lab", lab.DefaultName, "`name` of the lab, where more than one runs on this machine")
}

// openLab opens a lab that exists.
func openLab(name string) (*lab.Lab, error) {
	if err := needRoot(); err != nil {
		return nil, err
	}
	l, err := lab.Open(name)
	if errors.Is(err, lab.ErrNone) {
		return nil, hinted{fmt.Errorf("no lab %q runs on this machine", name), []string{"`trivet up` starts one"}}
	}
	return l, err
}

func needRoot() error {
	if os.Geteuid() == 0 {
		return nil
	}
	return hinted{errors.New("this needs root: namespaces, a bridge and firewall rules are made"), []string{"run it with sudo, or as root"}}
}

func client(l *lab.Lab, server string) *node.Client {
	return node.Dial(server, node.Control(l.Dir(server, lab.Run)))
}

// oneServer checks that args is the name of one server of the lab.
func oneServer(l *lab.Lab, args []string) (string, error) {
	if len(args) != 1 || !slices.Contains(l.Servers, args[0]) {
		return "", usageError{"name one server: " + strings.Join(l.Servers, ", ")}
	}
	return args[0], nil
}

// siteFile finds the site file: the one named, ./site.yaml, or the example beside the binary.
func siteFile(named string) (string, error) {
	if named != "" {
		return named, nil
	}
	candidates := []string{"site.yaml"}
	if exe, err := os.Executable(); err == nil {
		candidates = append(candidates, filepath.Join(filepath.Dir(exe), "examples", "foobar", "site.yaml"))
	}
	for _, c := range candidates {
		if _, err := os.Stat(c); err == nil {
			return c, nil
		}
	}
	return "", hinted{errors.New("there is no site.yaml here"), []string{"`trivet init > site.yaml` writes one; --site names another"}}
}
