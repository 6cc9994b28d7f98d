package firewall

import (
	"fmt"
	"slices"
	"strings"
)

// Policy is what one server lets through: a value, compiled from a State,
// which the kernel then holds word for word. The zero Policy is none at all.
type Policy struct{ chains []chain }

// chain is one of the three places where the kernel asks the policy. What
// none of the rules accepts is dropped.
type chain struct {
	name  string // input, output or forward; the hook has the same name
	rules []rule
}

// rule says what becomes of the packets that all its matches fit.
type rule struct {
	user    string // only packets of this user's processes; empty: everybody's
	anyone  bool   // if the machine has no such user: true, everybody's; false, the rule is left out
	matches []match
	verdict match
	comment string
}

// String writes the policy as nft list table inet trivet shows it.
func (p Policy) String() string {
	if len(p.chains) == 0 {
		return ""
	}
	var b strings.Builder
	b.WriteString("table inet " + tableName + " {\n")
	for _, name := range counterNames {
		fmt.Fprintf(&b, "\tcounter %s {\n\t}\n\n", name)
	}
	for i, c := range p.chains {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(c.String())
	}
	b.WriteString("}\n")
	return b.String()
}

// String writes the chain with its rules, indented as part of a table.
func (c chain) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "\tchain %s {\n", c.name)
	fmt.Fprintf(&b, "\t\ttype filter hook %s priority filter; policy drop;\n", c.name)
	for _, r := range c.rules {
		b.WriteString("\t\t" + r.String() + "\n")
	}
	b.WriteString("\t}\n")
	return b.String()
}

// String writes the rule in nft(8)'s language.
func (r rule) String() string {
	var words []string
	if r.user != "" {
		words = append(words, fmt.Sprintf("meta skuid %q", r.user))
	}
	for _, m := range r.matches {
		words = append(words, m.text)
	}
	words = append(words, r.verdict.text)
	if r.comment != "" {
		words = append(words, fmt.Sprintf("comment %q", r.comment))
	}
	return strings.Join(words, " ")
}

// Diff says in lines what makes old into new: "- input: …" for a rule that
// goes, "+ input: …" for one that comes; nothing if they let through the same.
func Diff(old, new Policy) []string {
	before, after := old.lines(), new.lines()
	var out []string
	for _, line := range without(before, after) {
		out = append(out, "- "+line)
	}
	for _, line := range without(after, before) {
		out = append(out, "+ "+line)
	}
	return out
}

func (p Policy) lines() []string {
	var out []string
	for _, c := range p.chains {
		for _, r := range c.rules {
			out = append(out, c.name+": "+r.String())
		}
	}
	return out
}

// without returns the elements of a that b has not, in a's order.
func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}
