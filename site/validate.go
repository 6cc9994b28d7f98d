package site

import (
	"net/url"
	"regexp"
	"slices"
	"strings"
	"time"
)

// ServerCount is how many servers a site has: the fewest of which one may die
// while the other two still agree.
const ServerCount = 3

var (
	nameForm     = regexp.MustCompile(`^[a-z]([a-z0-9-]*[a-z0-9])?$`)
	labelForm    = regexp.MustCompile(`^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$`)
	databaseForm = regexp.MustCompile(`^[a-z][a-z0-9_]*$`)
	variableForm = regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`)
)

// fill sets what follows from other fields, and the defaults that depend on what was written.
func (r *report) fill(s *Site) {
	for i := range s.Servers {
		if !r.written(index("servers", i) + ".weight") {
			s.Servers[i].Weight = DefaultWeight
		}
	}
	if s.Balancer.TLS == TLSPassthrough && !r.written("balancer.http3") {
		s.Balancer.HTTP3 = false
	}
	if s.Database.Name == "" {
		s.Database.Name = strings.ReplaceAll(s.Name, "-", "_")
	}
	if s.Database.User == "" {
		s.Database.User = s.Database.Name
	}
}

// validate notes all that is wrong in s, files apart.
func (r *report) validate(s *Site) {
	r.name("name", s.Name)
	r.domains(s)
	r.servers(s.Servers)
	r.floating(s)
	for i, network := range s.Admin {
		r.network(index("admin", i), network)
	}
	r.balancer(s.Balancer)
	r.egress(s.Firewall.Egress)
	r.between("certificate.lifetime", s.Certificate.Lifetime, time.Minute, 365*24*time.Hour)
	r.web(s)
	r.app(s.App)
	r.database(s.Database)
	r.monitor(s.Monitor)
}

// name notes what is wrong in the name of a site or server.
func (r *report) name(key, name string) {
	switch {
	case name == "":
		r.add(key, "is missing")
	case len(name) > 32 || !nameForm.MatchString(name):
		r.add(key, "%q is not a name (at most 32 lower-case letters, digits and hyphens, a letter first)", name)
	}
}

func (r *report) domains(s *Site) {
	if s.Domain == "" {
		r.add("domain", "is missing (the name that visitors use, such as www.foobar.com)")
	} else {
		r.domain("domain", s.Domain)
	}
	seen := map[string]string{s.Domain: "domain"}
	for i, alias := range s.Aliases {
		key := index("aliases", i)
		r.domain(key, alias)
		r.twice(seen, key, alias)
	}
}

func (r *report) domain(key, name string) {
	labels := strings.Split(name, ".")
	bad := slices.ContainsFunc(labels, func(l string) bool { return !labelForm.MatchString(l) })
	if bad || len(labels) < 2 || len(name) > 253 || isAddress(name) {
		r.add(key, "%q is not a domain name (write it like www.foobar.com, in lower case)", name)
	}
}

// twice notes value if seen has it, and remembers it otherwise.
func (r *report) twice(seen map[string]string, key, value string) {
	if value == "" {
		return
	}
	if first, ok := seen[value]; ok {
		r.add(key, "%q is also at %s", value, first)
		return
	}
	seen[value] = key
}

func (r *report) health(key string, h Health) {
	if !isPath(h.Path) {
		r.add(key+".path", "%q is not a path (write it like /healthz)", h.Path)
	}
	if _, _, err := h.statuses(); err != nil {
		r.add(key+".status", "%v", err)
	}
	r.between(key+".interval", h.Interval, 100*time.Millisecond, time.Hour)
	r.between(key+".timeout", h.Timeout, time.Millisecond, time.Hour)
	if h.Timeout > h.Interval {
		r.add(key+".timeout", "%s is longer than the interval of %s; a check must end before the next begins", h.Timeout, h.Interval)
	}
	r.count(key+".rise", h.Rise, 1, 100)
	r.count(key+".fall", h.Fall, 1, 100)
}

// isPath reports whether p is the path of a request, in visible ASCII and without a fragment.
func isPath(p string) bool {
	odd := strings.ContainsFunc(p, func(c rune) bool { return c <= ' ' || c > '~' || c == '#' })
	return strings.HasPrefix(p, "/") && !odd
}

// between notes a duration that is shorter than low or longer than high.
func (r *report) between(key string, d Duration, low, high time.Duration) {
	if d.Std() < low || d.Std() > high {
		r.add(key, "%s is out of range (%s to %s)", d, Duration(low), Duration(high))
	}
}

// count notes a number that is less than low or more than high.
func (r *report) count(key string, n, low, high int) {
	if n < low || n > high {
		r.add(key, "%d is out of range (%d to %d)", n, low, high)
	}
}

func (r *report) web(s *Site) {
	if s.Web.Static == "" && s.App.Source == "" {
		r.add("web.static", "there is nothing to serve: name a folder of files here, or an app at app.source")
	}
	if s.Web.Index == "" || strings.ContainsAny(s.Web.Index, "/\\\x00") || s.Web.Index == "." || s.Web.Index == ".." {
		r.add("web.index", "%q is not the name of a file (write it like index.html)", s.Web.Index)
	}
}

// reservedUsers are accounts that MariaDB or trivet itself has.
var reservedUsers = []string{"root", "mysql", "mariadb", "public"}

// reservedDatabases are those that MariaDB itself has.
var reservedDatabases = []string{"mysql", "sys", "information_schema", "performance_schema", "test"}

func (r *report) database(d Database) {
	if d.Name != "" {
		r.databaseName("database.name", d.Name, reservedDatabases)
	}
	if d.User != "" {
		r.databaseName("database.user", d.User, reservedUsers)
	}
	if d.Memory != 0 || r.written("database.memory") {
		r.count("database.memory", d.Memory, 32, 1<<20)
	}
	r.count("database.connections", d.Connections, 1, 10_000)
	if d.Rotate != 0 {
		r.between("database.rotate", d.Rotate, time.Hour, 10*366*24*time.Hour)
	}
	r.between("database.slow_query", d.SlowQuery, time.Millisecond, time.Hour)
	r.backup(d.Backup)
}

func (r *report) backup(b Backup) {
	for key, d := range map[string]Duration{"database.backup.every": b.Every, "database.backup.drill": b.Drill} {
		if d != 0 {
			r.between(key, d, time.Minute, 366*24*time.Hour)
		}
	}
	r.count("database.backup.keep", b.Keep, 1, 1000)
	if b.S3 == (S3{}) {
		return
	}
	if u, err := url.Parse(b.S3.Endpoint); err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Path != "" && u.Path != "/" || u.User != nil {
		r.add("database.backup.s3.endpoint", "%q is not the URL of a service (write it like https://s3.eu-central-1.amazonaws.com)", b.S3.Endpoint)
	}
	if !bucketForm.MatchString(b.S3.Bucket) {
		r.add("database.backup.s3.bucket", "%q is not the name of a bucket (3 to 63 lower-case letters, digits, dots and hyphens)", b.S3.Bucket)
	}
	if !prefixForm.MatchString(b.S3.Prefix) {
		r.add("database.backup.s3.prefix", "%q is no prefix (letters, digits, dots, hyphens and slashes; write it like foobar/)", b.S3.Prefix)
	}
}

var (
	bucketForm = regexp.MustCompile(`^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$`)
	prefixForm = regexp.MustCompile(`^([A-Za-z0-9_.-]+/)*[A-Za-z0-9_.-]*$`)
)

func (r *report) databaseName(key, name string, reserved []string) {
	// A name that was not written here follows the site's, so that is what to change.
	if !r.written(key) && (r.broken["name"] || r.lost("name")) {
		return
	}
	switch {
	case len(name) > 32 || !databaseForm.MatchString(name):
		r.add(key, "%q is not a name (at most 32 lower-case letters, digits and underscores, a letter first)", name)
	case slices.Contains(reserved, name) || strings.HasPrefix(name, "trivet"):
		r.add(key, "%q is taken by MariaDB or trivet; choose another here", name)
	}
}
