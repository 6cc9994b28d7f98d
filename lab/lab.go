// Package lab is three servers on one machine: each a "machine" of its own
// with its own network, mounts, processes and host name (network, mount, PID
// and UTS namespaces), joined by a bridge on which this machine is the visitor
// and operator. Power, cables and crashes can be played: Start, Kill, Stop,
// Cut, Lose, Heal.
//
// What a lab is lies in one folder below Root, in lab.json; what runs of it is
// read from the kernel each time, so that every method can be repeated, works
// after a crash of the machine or of the caller, and undoes its own half-done
// work. Methods on one server exclude each other by a lock, also between
// processes.
//
// Nothing outside of the lab is changed: not ip_forward, no firewall of this
// machine, no route but the bridge's own. The package refuses to share a
// network range with anything else on this machine.
package lab

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"trivet/internal/atomicfile"
	"trivet/internal/link"
	"trivet/internal/part"
)

// Root holds a folder for each lab. It is for root only: what lies in a
// server's folders is seen by its processes through mounts, not through Root.
const Root = part.LibDir + "/labs"

// Kinds of folders of a server, for Dir.
const (
	Lib = "lib" // part.LibDir on the server
	Run = "run" // part.RunDir on the server; emptied at power on
	Log = "log" // part.LogDir on the server
)

// Defaults of Create.
const (
	DefaultName   = "lab"
	DefaultSubnet = "10.77.0.0/24"
)

// The lowest address of the network that is the floating one, and the first server's.
const (
	floatingOffset = 10
	serverOffset   = 11
)

var (
	// ErrNone says that there is no lab of that name.
	ErrNone = errors.New("there is no such lab")
	// ErrExists says that a lab of that name is there and runs.
	ErrExists = errors.New("a lab of that name is there already")
	// ErrNoServer says that the lab has no server of that name.
	ErrNoServer = errors.New("the lab has no such server")
	// ErrOff says that what was asked for needs a server that is on.
	ErrOff = errors.New("the server is off")
)

var (
	// A lab's name has no hyphen, so that "<lab>-<server>" is unambiguous.
	labName    = regexp.MustCompile(`^[a-z][a-z0-9]{0,31}$`)
	serverName = regexp.MustCompile(`^[a-z]([a-z0-9-]{0,30}[a-z0-9])?$`)
)

// Lab is a lab that was created. It is a value: what runs is asked by State.
type Lab struct {
	Name    string       `json:"name"`
	Subnet  netip.Prefix `json:"subnet"`
	Servers []string     `json:"servers"` // in the order of their addresses
	// Program is what each server runs in node's place; empty: "node" of the
	// server's own binary, see Install. It is read at power on.
	Program []string `json:"program,omitempty"`
}

// Open returns an existing lab, or ErrNone.
func Open(name string) (*Lab, error) {
	data, err := os.ReadFile(filepath.Join(Root, name, "lab.json"))
	if errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("open lab %q: %w", name, ErrNone)
	}
	if errors.Is(err, os.ErrPermission) {
		return nil, fmt.Errorf("open lab %q: needs root: use sudo", name)
	}
	if err != nil {
		return nil, fmt.Errorf("open lab %q: %w", name, err)
	}
	l := &Lab{}
	if err := json.Unmarshal(data, l); err != nil {
		return nil, fmt.Errorf("open lab %q: read lab.json: %w", name, err)
	}
	return l, nil
}

// Names lists the labs of this machine, those that are off too.
func Names() ([]string, error) {
	files, err := filepath.Glob(filepath.Join(Root, "*", "lab.json"))
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var names []string
	for _, f := range files {
		names = append(names, filepath.Base(filepath.Dir(f)))
	}
	return names, nil
}

// Create makes a lab: its folders and its bridge, with every server off. Data
// that Remove kept is taken over. It refuses, and changes nothing, without
// root, without the kernel's help, on a range in use, and with ErrExists if a
// lab of that name runs.
func Create(name string, subnet netip.Prefix, servers []string) (*Lab, error) {
	l := &Lab{Name: name, Subnet: subnet.Masked(), Servers: slices.Clone(servers)}
	if err := l.validate(); err != nil {
		return nil, fmt.Errorf("create lab %q: %w", name, err)
	}
	if err := able(); err != nil {
		return nil, fmt.Errorf("create lab %q: %w", name, err)
	}
	if err := l.free(); err != nil {
		return nil, fmt.Errorf("create lab %q: %w", name, err)
	}
	if err := l.save(); err != nil {
		return nil, fmt.Errorf("create lab %q: %w", name, err)
	}
	if err := l.ensureBridge(); err != nil {
		return nil, fmt.Errorf("create lab %q: %w", name, err)
	}
	for _, server := range servers {
		if err := l.folders(server); err != nil {
			return nil, fmt.Errorf("create lab %q: server %s: %w", name, server, err)
		}
	}
	return l, nil
}

func (l *Lab) validate() error {
	if !labName.MatchString(l.Name) {
		return errors.New("a lab's name is of lower-case letters and digits, at most 32, a letter first")
	}
	for i, s := range l.Servers {
		if !serverName.MatchString(s) {
			return fmt.Errorf("server %q: a server's name is of lower-case letters, digits and hyphens, at most 32, a letter first", s)
		}
		if slices.Contains(l.Servers[:i], s) {
			return fmt.Errorf("server %q is named twice", s)
		}
	}
	return l.validateSubnet()
}

func (l *Lab) validateSubnet() error {
	if !l.Subnet.IsValid() || !l.Subnet.Addr().Is4() {
		return fmt.Errorf("network %s: must be an IPv4 network such as %s", l.Subnet, DefaultSubnet)
	}
	if last := l.nth(serverOffset + len(l.Servers)); !l.Subnet.Contains(last) {
		return fmt.Errorf("network %s is too small for %d servers: take a /24", l.Subnet, len(l.Servers))
	}
	return nil
}

// free makes sure that neither the name nor the range is in use.
func (l *Lab) free() error {
	old, err := Open(l.Name)
	if errors.Is(err, ErrNone) {
		// A bridge without a lab is what a Remove cut short has left.
		return errors.Join(link.DeleteLink(l.Bridge()), l.freeRange())
	}
	if err != nil {
		return err
	}
	up, err := old.isUp()
	if err != nil {
		return err
	}
	if up {
		return ErrExists
	}
	return l.freeRange()
}

// isUp reports whether the lab's bridge is there, or one of its servers on.
func (l *Lab) isUp() (bool, error) {
	for _, server := range l.Servers {
		if _, err := l.init(server); !errors.Is(err, ErrOff) {
			return true, err
		}
	}
	return link.Exists(l.Bridge())
}

func (l *Lab) save() error {
	if err := os.MkdirAll(Root, 0o700); err != nil {
		return fmt.Errorf("save lab %q: %w", l.Name, err)
	}
	// MkdirAll follows umask, and an older Root may be wider.
	if err := os.Chmod(Root, 0o700); err != nil {
		return fmt.Errorf("save lab %q: %w", l.Name, err)
	}
	if err := os.MkdirAll(l.dir(), 0o700); err != nil {
		return fmt.Errorf("save lab %q: %w", l.Name, err)
	}
	data, err := json.MarshalIndent(l, "", "  ")
	if err != nil {
		return fmt.Errorf("save lab %q: %w", l.Name, err)
	}
	return atomicfile.Write(l.dir("lab.json"), append(data, '\n'), 0o600, -1, -1)
}

// Address returns the server's address: .11 for the first, .12 for the second; the zero Addr for an unknown server.
func (l *Lab) Address(server string) netip.Addr {
	i := slices.Index(l.Servers, server)
	if i < 0 {
		return netip.Addr{}
	}
	return l.nth(serverOffset + i)
}

// Floating returns the address that one of the servers holds: .10.
func (l *Lab) Floating() netip.Addr { return l.nth(floatingOffset) }

// Operator returns this machine's own address on the bridge: .1.
func (l *Lab) Operator() netip.Addr { return l.nth(1) }

func (l *Lab) nth(n int) netip.Addr {
	a := l.Subnet.Masked().Addr()
	for range n {
		a = a.Next()
	}
	return a
}

// Dir returns the folder on this machine that the server sees as part.LibDir,
// part.RunDir or part.LogDir: kind is Lib, Run or Log.
func (l *Lab) Dir(server, kind string) string { return l.dir(server, kind) }

func (l *Lab) dir(elem ...string) string {
	return filepath.Join(append([]string{Root, l.Name}, elem...)...)
}

// Bridge is the name of the interface that joins the servers.
func (l *Lab) Bridge() string { return "trivet-" + fit(l.Name, 8) }

// Namespace is the name of the server's network namespace, for ip-netns(8).
func (l *Lab) Namespace(server string) string { return "trivet-" + l.Name + "-" + server }

// Cable is the name of this machine's end of the server's cable; the other end is the server's eth0.
func (l *Lab) Cable(server string) string { return "tv-" + fit(l.Name+"-"+server, 12) }

// fit shortens s to n bytes; what is cut is replaced by a hash. Interface
// names have at most 15 bytes (IFNAMSIZ, netdevice(7)).
func fit(s string, n int) string {
	if len(s) <= n {
		return s
	}
	sum := sha256.Sum256([]byte(s))
	return s[:n-4] + hex.EncodeToString(sum[:2])
}

func (l *Lab) known(server string) error {
	if !slices.Contains(l.Servers, server) {
		return fmt.Errorf("server %q: %w; it has %v", server, ErrNoServer, l.Servers)
	}
	return nil
}

// lock excludes other work on the folder dir, also by other processes, until
// the returned function is called. A folder that is not there has nothing to protect.
func lock(ctx context.Context, dir string) (unlock func(), err error) {
	f, err := os.Open(dir)
	if errors.Is(err, os.ErrNotExist) {
		return func() {}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	err = until(ctx, func() (bool, error) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return false, nil
		}
		return err == nil, err
	})
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("wait for other work on %s: %w", dir, err)
	}
	return func() { _ = f.Close() }, nil
}

// until asks done, a hundred times a second, until it is true, it fails or ctx ends.
func until(ctx context.Context, done func() (bool, error)) error {
	t := time.NewTicker(10 * time.Millisecond)
	defer t.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-t.C:
		}
	}
}
