package firewall

import (
	"bytes"
	"errors"
	"fmt"
	"os/user"
	"slices"
	"strconv"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"github.com/google/nftables/userdata"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
)

const (
	tableName  = "trivet"
	counterIn  = "dropped_in"
	counterOut = "dropped_out"
)

var counterNames = []string{counterIn, counterOut}

// Buffers of the connection to the kernel: a policy of a thousand rules, with
// the kernel's echo of each.
const (
	writeBuffer = 1 << 20
	readBuffer  = 8 << 20
)

// kernel is the table in the kernel, of the network namespace in which open was called.
type kernel struct{ conn *nftables.Conn }

// open connects to the kernel once and for all. The library waits for the
// kernel by select(2), which knows no descriptor above 1023 and panics, so the
// connection must be opened before many others are.
func open() (*kernel, error) {
	conn, err := nftables.New(nftables.AsLasting(), nftables.WithSockOptions(prepare))
	if err != nil {
		return nil, fmt.Errorf("connect to nftables: %w", err)
	}
	return &kernel{conn}, nil
}

func prepare(c *netlink.Conn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var descriptor uintptr
	if err := raw.Control(func(fd uintptr) { descriptor = fd }); err != nil {
		return err
	}
	if descriptor >= unix.FD_SETSIZE {
		return errors.Join(fmt.Errorf("descriptor %d is above %d: too many were open before", descriptor, unix.FD_SETSIZE-1), c.Close())
	}
	return errors.Join(c.SetWriteBuffer(writeBuffer), c.SetReadBuffer(readBuffer))
}

func (k *kernel) close() error { return k.conn.CloseLasting() }

func table() *nftables.Table {
	return &nftables.Table{Name: tableName, Family: nftables.TableFamilyINet}
}

// write replaces what the table holds by p, in one step for every packet. The
// chains and counters stay, and the rules use no sets: a packet that is being
// judged while the rules change goes through the old ones to their end. (A
// packet that met a table deleted and made anew, or an anonymous set of the
// old rules, would be dropped, and its sender would wait a second.)
func (k *kernel) write(p Policy) error {
	k.add(p)
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("write firewall rules: %w", err)
	}
	return nil
}

// rewrite makes the table anew, for when somebody made a chain of ours into
// something else: also one step, but it forgets the counters.
func (k *kernel) rewrite(p Policy) error {
	k.conn.AddTable(table())
	k.conn.DelTable(table())
	return k.write(p)
}

// add puts into the batch all that makes the table.
func (k *kernel) add(p Policy) {
	t := k.conn.AddTable(table())
	for _, name := range counterNames {
		k.conn.AddObj(&nftables.NamedObj{Table: t, Name: name, Type: nftables.ObjTypeCounter, Obj: &expr.Counter{}})
	}
	for _, c := range p.chains {
		k.conn.AddChain(c.declaration(t))
	}
	k.conn.FlushTable(t)
	for _, c := range p.chains {
		k.addRules(t, c)
	}
}

func (k *kernel) addRules(t *nftables.Table, c chain) {
	for _, r := range c.rules {
		exprs, ok := r.compiled()
		if !ok {
			continue
		}
		n := &nftables.Rule{Table: t, Chain: &nftables.Chain{Name: c.name}, Exprs: exprs}
		if r.comment != "" {
			n.UserData = userdata.AppendString(nil, userdata.TypeComment, r.comment)
		}
		k.conn.AddRule(n)
	}
}

// remove deletes the table; it is no error if it is not there.
func (k *kernel) remove() error {
	k.conn.AddTable(table())
	k.conn.DelTable(table())
	if err := k.conn.Flush(); err != nil {
		return fmt.Errorf("delete firewall table: %w", err)
	}
	return nil
}

// generation is a number that grows with every change of any table.
func (k *kernel) generation() (uint32, error) {
	g, err := k.conn.GetGen()
	if err != nil {
		return 0, fmt.Errorf("read generation of nftables: %w", err)
	}
	return g.ID, nil
}

// verify compares the kernel's table with p, rule by rule. differs says what
// is not as it should be; it is empty if all is.
func (k *kernel) verify(p Policy) (differs string, err error) {
	t, err := k.conn.ListTableOfFamily(tableName, nftables.TableFamilyINet)
	if errors.Is(err, unix.ENOENT) {
		return "the table is missing", nil
	}
	if err != nil {
		return "", fmt.Errorf("read firewall table: %w", err)
	}
	if t.Flags != 0 {
		return "the table is switched off", nil
	}
	chains, err := k.chains()
	if err != nil {
		return "", err
	}
	if differs := compareChains(p, chains); differs != "" {
		return differs, nil
	}
	for _, c := range p.chains {
		if differs, err := k.verifyRules(c); differs != "" || err != nil {
			return differs, err
		}
	}
	return "", nil
}

func (k *kernel) chains() ([]*nftables.Chain, error) {
	all, err := k.conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	if err != nil {
		return nil, fmt.Errorf("list firewall chains: %w", err)
	}
	return slices.DeleteFunc(all, func(c *nftables.Chain) bool { return c.Table.Name != tableName }), nil
}

func compareChains(p Policy, found []*nftables.Chain) string {
	for _, c := range p.chains {
		i := slices.IndexFunc(found, func(f *nftables.Chain) bool { return f.Name == c.name })
		if i < 0 {
			return "chain " + c.name + " is missing"
		}
		if !sameChain(c.declaration(table()), found[i]) {
			return "chain " + c.name + " is declared differently"
		}
	}
	if len(found) > len(p.chains) {
		return "a chain was added"
	}
	return ""
}

func sameChain(a, b *nftables.Chain) bool {
	return b.Hooknum != nil && b.Priority != nil && b.Policy != nil && a.Type == b.Type &&
		*a.Hooknum == *b.Hooknum && *a.Priority == *b.Priority && *a.Policy == *b.Policy
}

func (k *kernel) verifyRules(c chain) (differs string, err error) {
	found, err := k.conn.GetRules(table(), &nftables.Chain{Name: c.name})
	if err != nil {
		return "", fmt.Errorf("read firewall rules: %w", err)
	}
	for _, r := range c.rules {
		want, ok := r.compiled()
		if !ok {
			continue
		}
		if len(found) == 0 || !bytes.Equal(encode(want), encode(found[0].Exprs)) {
			return fmt.Sprintf("chain %s lacks the rule %q in its place", c.name, r), nil
		}
		found = found[1:]
	}
	if len(found) > 0 {
		return fmt.Sprintf("chain %s has %d more rules than it should", c.name, len(found)), nil
	}
	return "", nil
}

// list writes the kernel's chains with the text of each rule that p knows.
func (k *kernel) list(p Policy) (string, error) {
	texts := map[string]rule{}
	for _, c := range p.chains {
		for _, r := range c.rules {
			exprs, _ := r.compiled()
			texts[c.name+string(encode(exprs))] = r
		}
	}
	var out Policy
	chains, err := k.chains()
	if err != nil {
		return "", err
	}
	for _, c := range chains {
		rules, err := k.conn.GetRules(table(), c)
		if err != nil {
			return "", fmt.Errorf("read firewall rules: %w", err)
		}
		found := chain{name: c.Name}
		for _, n := range rules {
			r, ok := texts[c.Name+string(encode(n.Exprs))]
			if !ok {
				r = rule{verdict: match{text: fmt.Sprintf("# handle %d: not of the policy", n.Handle)}}
			}
			found.rules = append(found.rules, r)
		}
		out.chains = append(out.chains, found)
	}
	return out.String(), nil
}

// dropped reads how many packets were dropped since the table was made.
func (k *kernel) dropped() (in, out uint64, err error) {
	objs, err := k.conn.GetNamedObjects(table())
	if err != nil {
		return 0, 0, fmt.Errorf("read firewall counters: %w", err)
	}
	for _, o := range objs {
		n, ok := o.(*nftables.NamedObj)
		if !ok {
			continue
		}
		c, ok := n.Obj.(*expr.Counter)
		switch {
		case ok && n.Name == counterIn:
			in = c.Packets
		case ok && n.Name == counterOut:
			out = c.Packets
		}
	}
	return in, out, nil
}

// declaration is the chain as the kernel is told of it.
func (c chain) declaration(t *nftables.Table) *nftables.Chain {
	policy := nftables.ChainPolicyDrop
	hook := map[string]*nftables.ChainHook{
		"input": nftables.ChainHookInput, "output": nftables.ChainHookOutput, "forward": nftables.ChainHookForward,
	}[c.name]
	return &nftables.Chain{
		Name: c.name, Table: t, Type: nftables.ChainTypeFilter,
		Hooknum: hook, Priority: nftables.ChainPriorityFilter, Policy: &policy,
	}
}

// compiled is the rule as the kernel runs it; false if it names a user that
// the machine has not, and is to be left out therefore.
func (r rule) compiled() ([]expr.Any, bool) {
	var out []expr.Any
	if r.user != "" {
		id, ok := userID(r.user)
		if !ok && !r.anyone {
			return nil, false
		}
		if ok {
			out = append(out, byUser(id)...)
		}
	}
	for _, m := range r.matches {
		out = append(out, m.exprs...)
	}
	return append(out, r.verdict.exprs...), true
}

func userID(name string) (uint32, bool) {
	u, err := user.Lookup(name)
	if err != nil {
		return 0, false
	}
	id, err := strconv.ParseUint(u.Uid, 10, 32)
	return uint32(id), err == nil
}

// encode writes expressions as on the wire, for comparison.
func encode(exprs []expr.Any) []byte {
	var out []byte
	for _, e := range exprs {
		b, err := expr.Marshal(unix.NFPROTO_INET, e)
		if err != nil {
			return nil // what cannot be written was not written by us
		}
		out = append(out, b...)
	}
	return out
}
