package node

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"trivet/firewall"
	"trivet/internal/part"
)

// Change is one thing that applying a site file would do on a server.
type Change struct {
	Server string `json:"server"`
	Part   string `json:"part"`
	What   string `json:"what"`
}

// handlePlan tells what declaring the body would change on this server.
func (n *Node) handlePlan(r *http.Request) (any, error) {
	var d Declared
	if err := json.NewDecoder(io.LimitReader(r.Body, 8<<20)).Decode(&d); err != nil {
		return nil, fmt.Errorf("read declaration: %w", err)
	}
	if d.Site == nil {
		return nil, fmt.Errorf("read declaration: %w", errNoSite)
	}
	n.mu.Lock()
	a := n.agreed
	n.mu.Unlock()
	return plan(n.name, a, d)
}

// plan is what would change on server between what is agreed and what is declared anew.
func plan(server string, a agreed, d Declared) ([]Change, error) {
	changes := []Change{}
	add := func(name, format string, args ...any) {
		changes = append(changes, Change{Server: server, Part: name, What: fmt.Sprintf(format, args...)})
	}
	rules, err := planFirewall(server, a, d)
	if err != nil {
		return nil, err
	}
	for _, l := range rules {
		add(part.Firewall, "%s", l)
	}
	was, now := a.Declared.Site, d.Site
	section := func(name string, before, after any) {
		for _, l := range different(name, before, after) {
			add(name, "%s, without a restart", l)
		}
	}
	planBalancer(add, was, now)
	if was.Domain != now.Domain || !slices.Equal(was.Aliases, now.Aliases) {
		add(part.Certificate, "issue a certificate for %s", strings.Join(append([]string{now.Domain}, now.Aliases...), ", "))
	}
	if was.Certificate != now.Certificate {
		add(part.Certificate, "certificate.lifetime: %s → %s: issue all identities anew, without a restart", was.Certificate.Lifetime, now.Certificate.Lifetime)
	}
	section(part.Web, was.Web, now.Web)
	if a.Declared.Release != d.Release {
		add(part.Web, "serve the files of release %s, without a restart", short(d.Release))
	}
	planApp(add, a.Declared, d)
	section(part.Database, was.Database, now.Database)
	section(part.Monitor, was.Monitor, now.Monitor)
	return changes, nil
}

func planFirewall(server string, a agreed, d Declared) ([]string, error) {
	before, err := firewall.Compile(cut(part.Firewall, compose(local{server: server}, a), nil))
	if err != nil {
		return nil, err
	}
	a.Declared = d
	after, err := firewall.Compile(cut(part.Firewall, compose(local{server: server}, a), nil))
	if err != nil {
		return nil, err
	}
	return firewall.Diff(before, after), nil
}

func planApp(add func(name, format string, args ...any), was, now Declared) {
	switch {
	case was.Site.App.Source == "" && now.Site.App.Source == "":
	case now.Site.App.Source == "":
		add(part.App, "end %d instances: the site has no app any more", was.Site.App.Instances)
	case was.Release != now.Release:
		add(part.App, "roll %d instances to release %s: the new ones start beside the old and take over when healthy", now.Site.App.Instances, short(now.Release))
	case was.Environment != now.Environment:
		add(part.App, "roll %d instances: the secrets file has changed", now.Site.App.Instances)
	case differ(was.Site.App, now.Site.App):
		add(part.App, "roll %d instances: their settings have changed", now.Site.App.Instances)
	}
	if now.Site.App.Source != "" {
		for _, l := range different(part.App, was.Site.App, now.Site.App) {
			add(part.App, "%s", l)
		}
	}
}

func differ(a, b any) bool {
	x, errX := json.Marshal(a)
	y, errY := json.Marshal(b)
	return errX != nil || errY != nil || string(x) != string(y)
}

func short(hash string) string {
	if len(hash) < 12 {
		return "(none)"
	}
	return hash[:12]
}
