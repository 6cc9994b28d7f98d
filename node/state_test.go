package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"trivet/cluster"
	"trivet/internal/part"
	"trivet/site"
)

func foobar() *site.Site {
	s := site.Default()
	s.Name, s.Domain, s.Admin = "foobar", "www.foobar.com", []string{"10.77.0.0/24"}
	s.App.Source, s.App.Run = "app", []string{"./foobar"}
	s.Database.Name, s.Database.User = "foobar", "foobar"
	for i := 1; i <= 3; i++ {
		s.Servers = append(s.Servers, site.Server{Name: fmt.Sprintf("s%d", i), Address: fmt.Sprintf("10.77.0.1%d", i), Weight: site.DefaultWeight})
	}
	return &s
}

func encoded(t *testing.T, v any) cluster.Value {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return cluster.Value{Data: data}
}

// environment is a site's secrets file, in which the app's and trivet's own are.
const environment = "TOKEN=environment-secret\nTRIVET_S3_KEY_ID=bucket-key\nTRIVET_S3_SECRET=bucket-secret\n"

// full is what a cluster that has run for a while agrees on.
func full(t *testing.T) map[string]cluster.Value {
	t.Helper()
	return map[string]cluster.Value{
		keyDeclared:   encoded(t, Declared{Revision: 7, Site: foobar(), Release: strings.Repeat("a", 64), Environment: environment}),
		keyBackup:     encoded(t, part.BackupRole{Last: part.BackupNote{ID: "20261123-143205-s3"}}),
		keyBackupWork: {Data: []byte("s3")},
		keyAddress:    {Data: []byte("s2")},
		keyDatabase:   encoded(t, part.DatabaseRole{Writer: "s1", Epoch: 3, Bootstrap: "s1", UUID: "u"}),
		prefixLive + "s1": encoded(t, live{
			Database: part.DatabaseMember{State: part.DatabaseSynced, UUID: "u"}, Revision: 7,
			Problems: map[string]string{part.Web: "no files"},
		}),
		prefixSecret + part.SecretConsoleKey:  {Data: []byte("console-secret")},
		prefixSecret + part.SecretAppDatabase: {Data: []byte("database-secret")},
		prefixSecret + part.SecretSticky:      {Data: []byte("sticky-secret")},
		prefixSecret + part.SecretReader:      {Data: []byte("reader-secret")},
		keyRotation:                           encoded(t, rotation{Next: "next-secret", Old: "old-secret"}),
		prefixSecret + part.SecretBackup:      {Data: []byte("backup-secret")},
		keyTickets:                            encoded(t, []ticketKey{{Key: []byte("ticket-secret")}}),
	}
}

func mustParse(t *testing.T, last agreed, content map[string]cluster.Value) agreed {
	t.Helper()
	a, err := parse(last, content)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func TestParse(t *testing.T) {
	a := mustParse(t, agreed{}, full(t))
	want := agreed{
		Declared: Declared{Revision: 7, Site: foobar(), Release: strings.Repeat("a", 64), Environment: environment},
		Role:     part.DatabaseRole{Writer: "s1", Epoch: 3, Bootstrap: "s1", UUID: "u"},
		Secrets:  map[string]string{part.SecretConsoleKey: "console-secret", part.SecretAppDatabase: "database-secret", part.SecretSticky: "sticky-secret", part.SecretReader: "reader-secret", part.SecretBackup: "backup-secret"},
		Backup:   part.BackupRole{Holder: "s3", Last: part.BackupNote{ID: "20261123-143205-s3"}},
		Tickets:  []ticketKey{{Key: []byte("ticket-secret")}},
		Rotation: rotation{Next: "next-secret", Old: "old-secret"},
		Holder:   "s2",
		Live: map[string]live{"s1": {
			Database: part.DatabaseMember{State: part.DatabaseSynced, UUID: "u"}, Revision: 7,
			Problems: map[string]string{part.Web: "no files"},
		}},
	}
	if diff := cmp.Diff(want, a); diff != "" {
		t.Errorf("parse (-want +got):\n%s", diff)
	}
}

func TestParseKeepsTheLastGood(t *testing.T) {
	last := mustParse(t, agreed{}, full(t))
	tests := []struct {
		name    string
		content map[string]cluster.Value
		refused bool
	}{
		{"empty cluster", nil, false},
		{"unknown key", map[string]cluster.Value{statePrefix + "later": {Data: []byte("x")}}, false},
		{"damaged site", map[string]cluster.Value{keyDeclared: {Data: []byte(`{"revision":8,`)}}, true},
		{"no site", map[string]cluster.Value{keyDeclared: {Data: []byte(`{"revision":8}`)}}, true},
		{"damaged role", map[string]cluster.Value{keyDatabase: {Data: []byte(`x`)}}, true},
		{"damaged live", map[string]cluster.Value{prefixLive + "s1": {Data: []byte(`x`)}}, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parse(last, tt.content)
			if (err != nil) != tt.refused {
				t.Errorf("err = %v, want one: %v", err, tt.refused)
			}
			// Who is alive and who holds the address is only true now.
			want := agreed{Declared: last.Declared, Role: last.Role, Secrets: last.Secrets, Tickets: last.Tickets, Rotation: last.Rotation, Backup: last.Backup, Live: map[string]live{}}
			want.Backup.Holder = ""
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("parse (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseLeavesTheFormerAlone(t *testing.T) {
	last := mustParse(t, agreed{}, full(t))
	mustParse(t, last, map[string]cluster.Value{prefixSecret + part.SecretConsoleKey: {Data: []byte("another")}})
	if got := last.Secrets[part.SecretConsoleKey]; got != "console-secret" {
		t.Errorf("former secret = %q: it was written over", got)
	}
}

func TestSaveAndLoad(t *testing.T) {
	a := mustParse(t, agreed{}, full(t))
	path := filepath.Join(t.TempDir(), "state.json")
	if err := a.save(path); err != nil {
		t.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := info.Mode().Perm(); got != 0o600 {
		t.Errorf("mode = %o, want 600: it holds secrets", got)
	}
	got, err := load(path)
	if err != nil {
		t.Fatal(err)
	}
	want := a
	want.Holder, want.Live, want.Backup.Holder = "", map[string]live{}, ""
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("load (-want +got):\n%s", diff)
	}
}

func TestLoadRefuses(t *testing.T) {
	tests := map[string]string{"damaged": "{", "no site": "{}"}
	for name, content := range tests {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "state.json")
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := load(path); err == nil {
				t.Error("load = nil, want an error")
			}
		})
	}
	if _, err := load(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("load = %v, want that there is none", err)
	}
}

// ticketSecretText is what parts get of the key in full.
const ticketSecretText = "dGlja2V0LXNlY3JldA=="

// composed is the whole State of server s2.
func composed(t *testing.T) part.State {
	t.Helper()
	return compose(local{
		server: "s2", quorum: true, release: strings.Repeat("b", 64),
		instances: []part.Instance{{Name: "1-1", Network: "unix", Address: "/run/x"}},
		live:      live{Revision: 6, Problems: map[string]string{part.App: "starting"}},
	}, mustParse(t, agreed{}, full(t)))
}

func TestCompose(t *testing.T) {
	want := part.State{
		Revision: 7, Site: foobar(), Server: "s2", Quorum: true, AddressHolder: "s2",
		Members: []part.Member{
			{
				Name: "s1", Address: "10.77.0.11", Alive: true, Revision: 7,
				Database: part.DatabaseMember{State: part.DatabaseSynced, UUID: "u"}, Problems: map[string]string{part.Web: "no files"},
			},
			// This server's own word is the one that it has, not the one that it told.
			{Name: "s2", Address: "10.77.0.12", Alive: true, Revision: 6, Problems: map[string]string{part.App: "starting"}},
			{Name: "s3", Address: "10.77.0.13"},
		},
		Database: part.DatabaseRole{Writer: "s1", Epoch: 3, Bootstrap: "s1", UUID: "u"},
		// What is complete here, not what is declared.
		Release:   part.Release{Hash: strings.Repeat("b", 64), Dir: part.ReleaseDir + "/" + strings.Repeat("b", 64)},
		Instances: []part.Instance{{Name: "1-1", Network: "unix", Address: "/run/x"}},
		Backup:    part.BackupRole{Holder: "s3", Last: part.BackupNote{ID: "20261123-143205-s3"}},
		Secrets: map[string]string{
			part.SecretEnvironment: "TOKEN=environment-secret\n", part.SecretS3KeyID: "bucket-key", part.SecretS3Secret: "bucket-secret",
			part.SecretBackup: "backup-secret", part.SecretConsoleKey: "console-secret", part.SecretAppDatabase: "database-secret",
			part.SecretSticky: "sticky-secret", part.SecretTicketKeys: ticketSecretText,
			part.SecretReader: "reader-secret", part.SecretAppDatabaseNext: "next-secret", part.SecretAppDatabaseOld: "old-secret",
		},
	}
	if diff := cmp.Diff(want, composed(t)); diff != "" {
		t.Errorf("compose (-want +got):\n%s", diff)
	}
}

// Without quorum no planned switch can be agreed, so nothing may be held for it.
func TestComposeWithoutQuorum(t *testing.T) {
	content := full(t)
	content[keyDatabase] = encoded(t, part.DatabaseRole{Writer: "s1", Next: "s2", Epoch: 3})
	for _, quorum := range []bool{true, false} {
		s := compose(local{server: "s2", quorum: quorum}, mustParse(t, agreed{}, content))
		if got, want := s.Database.Next, map[bool]string{true: "s2", false: ""}[quorum]; got != want {
			t.Errorf("quorum %t: planned writer %q, want %q", quorum, got, want)
		}
	}
}

func TestComposeWithoutRelease(t *testing.T) {
	s := compose(local{server: "s1"}, mustParse(t, agreed{}, full(t)))
	if s.Release != (part.Release{}) {
		t.Errorf("release = %v, want none", s.Release)
	}
}

// issued names every key by who it is for.
type issued struct{}

func (issued) Identity(name string) part.KeyPair {
	return part.KeyPair{Certificate: []byte("crt"), Key: []byte("identity-key-" + name)}
}
func (issued) Bundle() []byte { return []byte("roots") }
func (issued) Site() []part.KeyPair {
	return []part.KeyPair{{Certificate: []byte("crt"), Key: []byte("site-key")}}
}

func (issued) Console() part.KeyPair {
	return part.KeyPair{Certificate: []byte("crt"), Key: []byte("console-cert-key")}
}

// TestCutSecrets looks at the bytes that leave node: each secret reaches those that need it, and nobody else.
func TestCutSecrets(t *testing.T) {
	who := []string{
		part.Balancer, part.Firewall, part.Certificate, part.Web, part.App, part.Database, part.Monitor, part.Router, part.Backup, "unheard of",
	}
	knows := map[string][]string{
		"environment-secret": {part.App},
		"database-secret":    {part.App, part.Database, part.Router},
		"next-secret":        {part.Database, part.Router},
		"old-secret":         {part.Database, part.Router},
		"reader-secret":      {part.Database},
		"console-secret":     {part.Monitor},
		"site-key":           {part.Balancer},
		"sticky-secret":      {part.Balancer},
		ticketSecretText:     {part.Balancer},
		"console-cert-key":   {part.Monitor},
		"backup-secret":      {part.Backup},
		"bucket-key":         {part.Backup},
		"bucket-secret":      {part.Backup},
	}
	for _, name := range who {
		data, err := json.Marshal(cut(name, composed(t), issued{}))
		if err != nil {
			t.Fatal(err)
		}
		// Bytes travel as base64; what is searched for must be too.
		var s part.State
		if err := json.Unmarshal(data, &s); err != nil {
			t.Fatal(err)
		}
		text := string(data) + string(s.Identity.Key)
		for _, c := range s.Certificates {
			text += string(c.Key)
		}
		for secret, whose := range knows {
			if got, want := strings.Contains(text, secret), slices.Contains(whose, name); got != want {
				t.Errorf("%s knows %s = %v, want %v", name, secret, got, want)
			}
		}
		for _, other := range who {
			if other != name && (name != part.Backup || other != part.Database) && strings.Contains(text, "identity-key-"+other) {
				t.Errorf("%s has the identity of %s", name, other)
			}
		}
		if name == part.Backup {
			continue // on the wire it is the database
		}
		inNode := name == part.Firewall || name == part.App || name == part.Certificate
		if got := strings.Contains(text, "identity-key-"+name); got == inNode {
			t.Errorf("%s has an identity of its own = %v, want %v", name, got, !inNode)
		}
	}
}

// With passthrough it is web that opens the visitors' encryption.
func TestCutPassthrough(t *testing.T) {
	whole := composed(t)
	whole.Site.Balancer.TLS = site.TLSPassthrough
	s := cut(part.Web, whole, issued{})
	want := map[string]string{part.SecretTicketKeys: ticketSecretText}
	if diff := cmp.Diff(want, s.Secrets); diff != "" || len(s.Certificates) != 1 {
		t.Errorf("web has %d certificates, secrets (-want +got):\n%s", len(s.Certificates), diff)
	}
	if s := cut(part.Balancer, whole, issued{}); len(s.Certificates) != 0 || s.Secrets[part.SecretTicketKeys] != "" {
		t.Error("the balancer, too, could open it")
	}
}

func TestCutSees(t *testing.T) {
	type sees struct{ Instances, Holder, Writer, Problems, Backup bool }
	tests := map[string]sees{
		part.Balancer:    {},
		part.Firewall:    {},
		part.Certificate: {},
		part.App:         {},
		part.Web:         {Instances: true},
		part.Router:      {Writer: true},
		part.Database:    {Writer: true},
		part.Backup:      {Writer: true, Backup: true},
		part.Monitor:     {Holder: true, Writer: true, Problems: true, Backup: true},
	}
	for name, want := range tests {
		s := cut(name, composed(t), issued{})
		got := sees{
			Instances: len(s.Instances) > 0,
			Holder:    s.AddressHolder != "",
			Writer:    s.Database.Writer != "",
			Problems:  s.Members[0].Problems != nil,
			Backup:    s.Backup.Holder != "",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s sees (-want +got):\n%s", name, diff)
		}
		if len(s.Members) != 3 || s.Revision != 7 || s.Server != "s2" || s.Site == nil {
			t.Errorf("%s lacks what all see: %+v", name, s)
		}
	}
}

// Of the others' databases the router knows which are synced, and nothing that changes with every write.
func TestCutSynced(t *testing.T) {
	whole := composed(t)
	whole.Members[0].Database = part.DatabaseMember{State: part.DatabaseSynced, UUID: "u", Seqno: 5, Gcomm: "g"}
	whole.Members[1].Database = part.DatabaseMember{State: part.DatabaseJoining, Seqno: 6}
	var got []part.DatabaseMember
	for _, m := range cut(part.Router, whole, issued{}).Members {
		got = append(got, m.Database)
	}
	want := []part.DatabaseMember{{State: part.DatabaseSynced}, {}, {}}
	if whole.Members[2].Database.State == part.DatabaseSynced {
		want[2].State = part.DatabaseSynced
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// A part is applied anew only for what is its own: these come and go all the time.
func TestCutIsSteady(t *testing.T) {
	before := composed(t)
	after := composed(t)
	after.Members[0].Revision, after.Members[0].Problems = 8, nil
	after.AddressHolder, after.Secrets[part.SecretConsoleKey] = "s3", "another"
	for _, name := range []string{part.Balancer, part.Firewall, part.Certificate, part.Web, part.App, part.Router, part.Database, part.Backup} {
		if diff := cmp.Diff(cut(name, before, issued{}), cut(name, after, issued{})); diff != "" {
			t.Errorf("%s would be applied anew for:\n%s", name, diff)
		}
	}
}

func TestCutLeavesTheWholeAlone(t *testing.T) {
	whole := composed(t)
	for _, name := range append(slices.Clone(part.Names), part.Router) {
		cut(name, whole, issued{})
	}
	if diff := cmp.Diff(composed(t), whole); diff != "" {
		t.Errorf("cut changed the whole (-before +after):\n%s", diff)
	}
}

func TestSame(t *testing.T) {
	base := func() Declared { return Declared{Revision: 1, Site: foobar(), Release: "r", Environment: "A=1"} }
	tests := []struct {
		name   string
		change func(*Declared)
		want   bool
	}{
		{"nothing", func(*Declared) {}, true},
		{"revision and time", func(d *Declared) { d.Revision, d.At = 9, time.Now() }, true},
		{"release", func(d *Declared) { d.Release = "s" }, false},
		{"environment", func(d *Declared) { d.Environment = "A=2" }, false},
		{"site", func(d *Declared) { d.Site.App.Instances++ }, false},
		{"address", func(d *Declared) { d.Site.Servers[2].Address = "10.77.0.99" }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			d := base()
			tt.change(&d)
			if got := same(base(), d); got != tt.want {
				t.Errorf("same = %v, want %v", got, tt.want)
			}
		})
	}
}

func TestPlan(t *testing.T) {
	tests := []struct {
		name   string
		change func(*Declared)
		want   []string
	}{
		{"nothing", func(*Declared) {}, nil},
		{"balancer", func(d *Declared) { d.Site.Balancer.Retries++ }, []string{"balancer: balancer.retries: 2 → 3, without a restart"}},
		{"policy", func(d *Declared) { d.Site.Balancer.Policy = site.PolicyHash }, []string{
			"balancer: balancer.policy: ewma → hash: the same key goes to the same server; most visitors change servers once",
		}},
		{"hash, unused", func(d *Declared) { d.Site.Balancer.Hash = site.HashPath }, []string{
			"balancer: balancer.hash: client → path: nothing changes while policy is ewma",
		}},
		{"maintenance", func(d *Declared) { d.Site.Balancer.Maintenance = site.Maintenance{On: true, Text: "Until noon."} }, []string{
			"balancer: balancer.maintenance.on: false → true: EVERY VISITOR GETS THE MAINTENANCE PAGE and 503, until it is off again",
			"balancer: balancer.maintenance.text: none → Until noon.: visitors read it at once",
		}},
		{"passthrough", func(d *Declared) { d.Site.Balancer.TLS, d.Site.Balancer.HTTP3 = site.TLSPassthrough, false }, []string{
			"balancer: balancer.http3: true → false: HTTP/3 is not offered any more",
			"balancer: balancer.tls: reencrypt → passthrough: the web servers open the visitors' encryption, and balancers choose by connection, not by request; open connections finish as they are",
		}},
		{"sticky", func(d *Declared) { d.Site.Balancer.Sticky = "stay" }, []string{
			"balancer: balancer.sticky: none → stay: a signed cookie keeps each visitor with a server",
		}},
		{"weight", func(d *Declared) { d.Site.Servers[0].Weight = 50 }, []string{"balancer: weight of s1: 100 → 50: it gets 20 % of the requests"}},
		{"body", func(d *Declared) { d.Site.Balancer.Limits.Body = 1 << 20 }, []string{
			"balancer: balancer.limits.body: 0 → 1048576: a larger request than 1048576 bytes is answered 413",
		}},
		{"drain", func(d *Declared) { d.Site.Balancer.Drain *= 2 }, []string{"balancer: balancer.drain: 30s → 1m, without a restart"}},
		{"domain", func(d *Declared) { d.Site.Aliases = []string{"foobar.com"} }, []string{"certificate: issue a certificate for www.foobar.com, foobar.com"}},
		{"lifetime", func(d *Declared) { d.Site.Certificate.Lifetime *= 2 }, []string{"certificate: certificate.lifetime: 24h → 48h: issue all identities anew, without a restart"}},
		{"release", func(d *Declared) { d.Release = strings.Repeat("c", 64) }, []string{
			"web: serve the files of release cccccccccccc, without a restart",
			"app: roll 2 instances to release cccccccccccc: the new ones start beside the old and take over when healthy",
		}},
		{"secrets file", func(d *Declared) { d.Environment = "TOKEN=other" }, []string{"app: roll 2 instances: the secrets file has changed"}},
		{"instances", func(d *Declared) { d.Site.App.Instances = 3 }, []string{"app: roll 3 instances: their settings have changed", "app: app.instances: 2 → 3"}},
		{"no app", func(d *Declared) { d.Site.App.Source, d.Site.App.Run = "", nil }, []string{"app: end 2 instances: the site has no app any more"}},
		{"database", func(d *Declared) { d.Site.Database.Memory = 128 }, []string{"database: database.memory: none → 128, without a restart"}},
		{"monitor", func(d *Declared) { d.Site.Monitor.Retention *= 2 }, []string{"monitor: monitor.retention: 48h → 96h, without a restart"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a := mustParse(t, agreed{}, full(t))
			d := a.Declared
			d.Site = foobar()
			tt.change(&d)
			changes, err := plan("s1", a, d)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, c := range changes {
				if c.Server != "s1" {
					t.Errorf("server = %s, want s1", c.Server)
				}
				if strings.Contains(c.What, "environment-secret") || strings.Contains(c.What, "TOKEN") {
					t.Errorf("a secret is in the plan: %s", c.What)
				}
				got = append(got, c.Part+": "+c.What)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("plan (-want +got):\n%s", diff)
			}
		})
	}
}

func TestPlanShowsFirewallRules(t *testing.T) {
	a := mustParse(t, agreed{}, full(t))
	d := a.Declared
	d.Site = foobar()
	d.Site.Admin = []string{"192.0.2.0/24"}
	changes, err := plan("s1", a, d)
	if err != nil {
		t.Fatal(err)
	}
	if len(changes) == 0 || changes[0].Part != part.Firewall || !strings.Contains(fmt.Sprint(changes), "192.0.2.0/24") {
		t.Errorf("plan = %v, want the rule for the new network", changes)
	}
}

func TestPlanOfSiteWithoutApp(t *testing.T) {
	a := mustParse(t, agreed{}, full(t))
	a.Declared.Site.App.Source = ""
	d := a.Declared
	d.Release = strings.Repeat("c", 64)
	changes, err := plan("s1", a, d)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range changes {
		if c.Part == part.App {
			t.Errorf("plan speaks of an app: %s", c.What)
		}
	}
}

func TestDecide(t *testing.T) {
	long := addressPatience + time.Second
	tests := []struct {
		name string
		view view
		want action
	}{
		{"nobody is named", view{quorum: true}, acquire},
		{"this server is named", view{quorum: true, held: true}, acquire},
		{"another is named", view{quorum: true, other: true}, drop},
		{"holder is drained", view{quorum: true, held: true, spent: true}, resign},
		{"drained, nobody is named", view{quorum: true, spent: true}, resign},
		{"drained, another is named", view{quorum: true, held: true, other: true, spent: true}, drop},
		{"drained and sick", view{quorum: true, held: true, sick: true, spent: true}, giveUp},
		{"drained holder lost the quorum", view{cable: true, held: true, spent: true, lost: long}, stay},
		{"another is named, and this one still has it", view{quorum: true, other: true, held: true}, drop},
		{"holder cannot serve", view{quorum: true, held: true, sick: true}, giveUp},
		{"neither can the other", view{quorum: true, other: true, sick: true}, drop},
		{"holder lost the quorum", view{cable: true, held: true, lost: long}, stay},
		{"sick holder lost the quorum", view{cable: true, held: true, sick: true, lost: long}, stay},
		{"holder was unplugged", view{held: true}, drop},
		{"unplugged for long", view{lost: long}, drop},
		{"quorum just lost", view{cable: true, lost: time.Second}, stay},
		{"quorum long lost", view{cable: true, lost: long}, probe},
		{"quorum long lost, cannot serve", view{cable: true, lost: long, sick: true}, stay},
		{"alone, another was named", view{cable: true, lost: long, other: true}, probe},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := decide(tt.view); got != tt.want {
				t.Errorf("decide = %s, want %s", got, tt.want)
			}
		})
	}
}

// Without quorum no lease ends: what the others said counts for a while, then no more.
func TestAlone(t *testing.T) {
	var n Node
	begun := time.Now()
	steps := []struct {
		after  time.Duration
		quorum bool
		want   bool
	}{
		{0, true, false},
		{time.Minute, false, false},
		{time.Minute + staleAfter - 1, false, false},
		{time.Minute + staleAfter, false, true},
		{2 * time.Minute, true, false},
		{2*time.Minute + 1, false, false},
	}
	for _, s := range steps {
		if got := n.alone(s.quorum, begun.Add(s.after)); got != s.want {
			t.Errorf("after %s, quorum %v: alone = %v, want %v", s.after, s.quorum, got, s.want)
		}
	}
}

func TestComposeAlone(t *testing.T) {
	a := agreed{Live: map[string]live{}, Declared: Declared{Site: &site.Site{Servers: []site.Server{{Name: "s1"}, {Name: "s2"}}}}}
	a.Live["s2"] = live{Database: part.DatabaseMember{State: part.DatabaseSynced}}
	for _, alone := range []bool{false, true} {
		s := compose(local{server: "s1", alone: alone}, a)
		other, _ := s.Member("s2")
		if other.Alive == alone || (other.Database.State == "") != alone {
			t.Errorf("alone %v: the other server is %+v", alone, other)
		}
		if !s.Self().Alive {
			t.Errorf("alone %v: this server is not alive", alone)
		}
	}
}
