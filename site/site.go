// Package site is the file that declares a site: its types with their
// defaults, the strict reading of it, and all that can be wrong in it.
//
// A Site that Parse returned is complete (every default filled in), valid, and
// never changed afterwards. The package imports only the standard library and
// yaml, so that every part can depend on it; the JSON Schema for editors is
// made from the types by the program in the folder schema.
package site

//go:generate go run ./schema

import (
	"cmp"
	"encoding/json"
	"fmt"
	"strings"
	"time"
)

// Site is the whole declaration. The tags json and yaml carry the same names;
// a field's comment here is what editors show.
type Site struct {
	// Name of the site: lower-case letters, digits and hyphens. It names the database too, unless database.name does.
	Name string `json:"name" yaml:"name"`
	// Domain is the canonical name that visitors use, such as www.foobar.com.
	Domain string `json:"domain" yaml:"domain"`
	// Aliases are further names; visitors are redirected to domain.
	Aliases []string `json:"aliases,omitempty" yaml:"aliases,omitempty"`
	// Servers are the three servers. In the lab their addresses are given by the lab.
	Servers []Server `json:"servers" yaml:"servers"`
	// Address is the floating address that one of the servers holds. In the lab it is given by the lab.
	Address string `json:"address,omitempty" yaml:"address,omitempty"`
	// Admin lists the networks (CIDR) that may reach SSH and the console.
	Admin []string `json:"admin,omitempty" yaml:"admin,omitempty"`

	Balancer    Balancer    `json:"balancer" yaml:"balancer"`
	Firewall    Firewall    `json:"firewall" yaml:"firewall"`
	Certificate Certificate `json:"certificate" yaml:"certificate"`
	Web         Web         `json:"web" yaml:"web"`
	App         App         `json:"app" yaml:"app"`
	Database    Database    `json:"database" yaml:"database"`
	Monitor     Monitor     `json:"monitor" yaml:"monitor"`

	// Dir is the folder of the site file, to which the paths in it are relative. It is known on the operator's machine only.
	Dir string `json:"-" yaml:"-"`
}

// Server is one of the three machines.
type Server struct {
	// Name is how commands and tables call it: lower-case letters, digits and hyphens.
	Name string `json:"name" yaml:"name"`
	// Address is its IPv4 or IPv6 address, reachable from the two others.
	Address string `json:"address,omitempty" yaml:"address,omitempty"`
	// Weight is its share of the requests, compared with the others'.
	Weight int `json:"weight" yaml:"weight"`
}

// Balancer takes the visitors' traffic.
type Balancer struct {
	// TLS says who opens the visitors' encryption: reencrypt (the balancer, and it encrypts anew to the web servers) or passthrough (the web servers; the balancer goes by the server's name only).
	TLS string `json:"tls" yaml:"tls"`
	// Policy by which a server is chosen: ewma (two at random, the one that answers faster now), least (fewest requests in flight), round-robin, or hash (the same key goes to the same server, with bounded load).
	Policy string `json:"policy" yaml:"policy"`
	// Hash is the key of policy hash: client, path, cookie:NAME or header:NAME.
	Hash string `json:"hash" yaml:"hash"`
	// Sticky is the name of a signed cookie by which a visitor stays with a server; empty: none.
	Sticky string `json:"sticky,omitempty" yaml:"sticky,omitempty"`
	// Health is how each web server is checked.
	Health Health `json:"health" yaml:"health"`
	// Eject takes a server that fails visitors out of the choice for a while, whatever its checks say.
	Eject Eject `json:"eject" yaml:"eject"`
	// SlowStart is how long a server that came back gets less than its share.
	SlowStart Duration `json:"slow_start" yaml:"slow_start"`
	// Retries is how often a safe request is tried on another server.
	Retries int `json:"retries" yaml:"retries"`
	// RetryBudget is how many retries there may be, in per cent of the requests.
	RetryBudget int `json:"retry_budget" yaml:"retry_budget"`
	// Timeout is the longest wait for an answer's head.
	Timeout Duration `json:"timeout" yaml:"timeout"`
	// InFlight is the most requests that one server gets at a time; what is more waits in the queue.
	InFlight int `json:"in_flight" yaml:"in_flight"`
	// Queue is how many requests may wait for a server; one more is answered 503.
	Queue int `json:"queue" yaml:"queue"`
	// Wait is how long a request waits in the queue, or for a server to come back.
	Wait Duration `json:"wait" yaml:"wait"`
	// Adaptive lowers the number of requests in flight when answers become slow, and sheds the newest.
	Adaptive bool `json:"adaptive" yaml:"adaptive"`
	// Drain is how long a WebSocket may go on when its server is drained.
	Drain Duration `json:"drain" yaml:"drain"`
	// Trusted lists networks (CIDR) of proxies before the balancer, whose forwarding headers, request ID and trace are taken over.
	Trusted []string `json:"trusted,omitempty" yaml:"trusted,omitempty"`
	// HSTS is how long browsers stay with HTTPS; 0s: the header is not sent.
	HSTS Duration `json:"hsts" yaml:"hsts"`
	// HTTP3 offers HTTP/3 to visitors; not with passthrough.
	HTTP3 bool `json:"http3" yaml:"http3"`
	// AccessLog is the form of the access log: json, combined or off.
	AccessLog string `json:"access_log" yaml:"access_log"`
	// Maintenance answers every visitor with a page and 503.
	Maintenance Maintenance `json:"maintenance" yaml:"maintenance"`
	// Limits on what a client may send.
	Limits Limits `json:"limits" yaml:"limits"`
}

// Eject is passive health: by what visitors' requests meet.
type Eject struct {
	// Errors (no answer, or 502 to 504) that eject a server, each good answer counting one back; 0: none do.
	Errors int `json:"errors" yaml:"errors"`
	// Slower is how many times slower than the median of the others a server may answer before it is ejected; 0: any.
	Slower int `json:"slower" yaml:"slower"`
	// For is how long it is out the first time; each further time in a row is longer.
	For Duration `json:"for" yaml:"for"`
	// Most is how many of the servers may be ejected at a time, in per cent.
	Most int `json:"most" yaml:"most"`
}

// Maintenance is the page for planned work.
type Maintenance struct {
	// On shows it.
	On bool `json:"on" yaml:"on"`
	// Text that visitors read.
	Text string `json:"text,omitempty" yaml:"text,omitempty"`
}

// Limits on what a client may send, and how slowly.
type Limits struct {
	// Head is the most bytes of a request's head.
	Head int `json:"head" yaml:"head"`
	// Body is the most bytes of a request's body; 0: any.
	Body int64 `json:"body" yaml:"body"`
	// HeadTime is how long a head may take.
	HeadTime Duration `json:"head_time" yaml:"head_time"`
	// Idle is how long a connection without a request is kept.
	Idle Duration `json:"idle" yaml:"idle"`
	// Rate is the slowest that a body may come or an answer may be taken, in bytes a second.
	Rate int `json:"rate" yaml:"rate"`
	// Connections is how many a server takes at a time.
	Connections int `json:"connections" yaml:"connections"`
}

// Health is an active check by HTTP.
type Health struct {
	// Path that is asked for; it answers with the status below when all is well.
	Path string `json:"path" yaml:"path"`
	// Status that counts as well: one, or a range such as 200-299.
	Status string `json:"status" yaml:"status"`
	// Interval between two checks.
	Interval Duration `json:"interval" yaml:"interval"`
	// Timeout of one check.
	Timeout Duration `json:"timeout" yaml:"timeout"`
	// Rise is how many good checks in a row bring it in.
	Rise int `json:"rise" yaml:"rise"`
	// Fall is how many bad checks in a row take it out.
	Fall int `json:"fall" yaml:"fall"`
}

// Firewall adds to what the topology already opens.
type Firewall struct {
	// Egress lists what the servers may reach outside, beyond DNS and time.
	Egress []Egress `json:"egress,omitempty" yaml:"egress,omitempty"`
}

// Egress is one permission to connect outward.
type Egress struct {
	// To is the network (CIDR) that may be reached.
	To string `json:"to" yaml:"to"`
	// Ports that may be reached there, by TCP.
	Ports []int `json:"ports" yaml:"ports"`
}

// Certificate says how long what trivet issues is valid.
type Certificate struct {
	// Lifetime of the servers' identities; renewed after two thirds of it.
	Lifetime Duration `json:"lifetime" yaml:"lifetime"`
}

// Web serves files and hands the rest to the app.
type Web struct {
	// Static is the folder of files to serve, relative to the site file. Names that begin with a dot are left out, .well-known apart.
	Static string `json:"static,omitempty" yaml:"static,omitempty"`
	// Index is the file that answers for a folder.
	Index string `json:"index" yaml:"index"`
}

// App is the user's program.
type App struct {
	// Source is the app's folder, relative to the site file. Empty: the site has no app.
	Source string `json:"source,omitempty" yaml:"source,omitempty"`
	// Build is the command that makes the release, run by sh in source on the operator's machine; it writes into $OUT. Empty: source is copied as it is.
	Build string `json:"build,omitempty" yaml:"build,omitempty"`
	// Run is the program and its arguments, started in the release's folder.
	Run []string `json:"run,omitempty" yaml:"run,omitempty"`
	// Instances on each server.
	Instances int `json:"instances" yaml:"instances"`
	// Listen says how an instance is reached: socket (it listens on $SOCKET) or port (on 127.0.0.1:$PORT).
	Listen string `json:"listen" yaml:"listen"`
	// Health is how each instance is checked.
	Health Health `json:"health" yaml:"health"`
	// Grace is how long an instance may take to finish its requests after SIGTERM.
	Grace Duration `json:"grace" yaml:"grace"`
	// Environment is given to every instance.
	Environment map[string]string `json:"environment,omitempty" yaml:"environment,omitempty"`
	// Secrets is a file of KEY=value lines, mode 0600, given to every instance and never printed; relative to the site file.
	Secrets string `json:"secrets,omitempty" yaml:"secrets,omitempty"`
}

// Database is MariaDB with Galera on all three servers.
type Database struct {
	// Name of the database that the app uses; by default the site's name, with hyphens as underscores.
	Name string `json:"name" yaml:"name"`
	// User that the app signs in as; by default the same as name. Its password is made and kept by trivet.
	User string `json:"user" yaml:"user"`
	// Memory of the buffer pool on each server, in MiB; by default a 64th of the server's memory, and 64 at least.
	Memory int `json:"memory,omitempty" yaml:"memory,omitempty"`
	// Connections that the app may have open on each server at a time; what is more waits in a queue.
	Connections int `json:"connections" yaml:"connections"`
	// Rotate is how old the user's password may become before trivet changes it, and rolls the app's instances; 0s: it is changed by command only.
	Rotate Duration `json:"rotate" yaml:"rotate"`
	// SlowQuery is how long a statement may take before it is noted as slow, and logged without its literals.
	SlowQuery Duration `json:"slow_query" yaml:"slow_query"`
	// Backup is how copies are made from which the past comes back.
	Backup Backup `json:"backup" yaml:"backup"`
}

// Backup says when full backups are made, and where copies go besides the two
// other servers. The binary log is archived continuously between them.
type Backup struct {
	// Every is the time between two full backups; 0s: none are made, and the binary log is not archived.
	Every Duration `json:"every" yaml:"every"`
	// Keep is how many full backups are kept, with the log that leads from them to now.
	Keep int `json:"keep" yaml:"keep"`
	// Drill is the time between two rehearsals of a restore; 0s: there are none.
	Drill Duration `json:"drill" yaml:"drill"`
	// S3 is a bucket that gets a copy too. Its keys are TRIVET_S3_KEY_ID and TRIVET_S3_SECRET in the secrets file.
	S3 S3 `json:"s3,omitzero" yaml:"s3,omitempty"`
}

// S3 is a bucket of S3-compatible storage.
type S3 struct {
	// Endpoint is the service's URL, such as https://s3.eu-central-1.amazonaws.com; empty: no copies go to S3.
	Endpoint string `json:"endpoint,omitempty" yaml:"endpoint,omitempty"`
	// Bucket that exists already.
	Bucket string `json:"bucket,omitempty" yaml:"bucket,omitempty"`
	// Region of the bucket, if the service has such.
	Region string `json:"region,omitempty" yaml:"region,omitempty"`
	// Prefix that the names of all objects get, such as foobar/.
	Prefix string `json:"prefix,omitempty" yaml:"prefix,omitempty"`
}

// Names in the secrets file that are trivet's, not the app's.
const (
	S3KeyID  = "TRIVET_S3_KEY_ID"
	S3Secret = "TRIVET_S3_SECRET"
)

// Monitor watches all of it.
type Monitor struct {
	// Retention is how long measurements of one second are kept.
	Retention Duration `json:"retention" yaml:"retention"`
	// Alerts are thresholds on the site's requests per second.
	Alerts []Alert `json:"alerts,omitempty" yaml:"alerts,omitempty"`
}

// Alert is one rule on QPS, all servers together.
type Alert struct {
	// Name of the rule, shown in the console and sent to the webhook.
	Name string `json:"name" yaml:"name"`
	// Above fires when the requests per second stay above it.
	Above float64 `json:"above" yaml:"above"`
	// For is how long they must stay so.
	For Duration `json:"for" yaml:"for"`
	// Webhook is the URL that gets a JSON POST when the rule fires and when it ends.
	Webhook string `json:"webhook,omitempty" yaml:"webhook,omitempty"`
}

// Default returns a Site that holds every default and nothing else. The
// database's name and user follow the site's name when Parse fills them in.
func Default() Site {
	return Site{
		Balancer:    defaultBalancer(),
		Certificate: Certificate{Lifetime: Duration(24 * time.Hour)},
		Web:         Web{Index: "index.html"},
		App: App{
			Instances: 2,
			Listen:    ListenSocket,
			Health:    Health{Path: "/healthz", Status: "200-299", Interval: seconds(2), Timeout: seconds(1), Rise: 1, Fall: 3},
			Grace:     seconds(10),
		},
		Database: Database{Connections: 150, Rotate: Duration(90 * 24 * time.Hour), SlowQuery: seconds(1), Backup: Backup{Every: Duration(24 * time.Hour), Keep: 7, Drill: Duration(7 * 24 * time.Hour)}},
		Monitor:  Monitor{Retention: Duration(48 * time.Hour)},
	}
}

func defaultBalancer() Balancer {
	return Balancer{
		TLS:         TLSReencrypt,
		Policy:      PolicyEWMA,
		Hash:        HashClient,
		Health:      Health{Path: "/healthz", Status: "200-299", Interval: seconds(1), Timeout: seconds(1), Rise: 2, Fall: 2},
		Eject:       Eject{Errors: 5, Slower: 10, For: seconds(10), Most: 50},
		SlowStart:   seconds(10),
		Retries:     2,
		RetryBudget: 20,
		Timeout:     seconds(30),
		InFlight:    512,
		Queue:       1024,
		Wait:        seconds(3),
		Adaptive:    true,
		Drain:       seconds(30),
		HSTS:        Duration(365 * 24 * time.Hour),
		HTTP3:       true,
		AccessLog:   AccessJSON,
		Limits:      Limits{Head: 64 << 10, HeadTime: seconds(10), Idle: seconds(75), Rate: 240, Connections: 10000},
	}
}

// DefaultWeight is the weight of a Server that names none.
const DefaultWeight = 100

// UnmarshalJSON reads what an earlier release may have written: a field that
// it did not know gets its default.
func (s *Site) UnmarshalJSON(data []byte) error {
	type plain Site // without this method
	p := plain(Default())
	if err := json.Unmarshal(data, &p); err != nil {
		return err
	}
	*s = Site(p)
	for i := range s.Servers {
		s.Servers[i].Weight = cmp.Or(s.Servers[i].Weight, DefaultWeight)
	}
	return nil
}

func seconds(s float64) Duration { return Duration(s * float64(time.Second)) }

// TLS values of a Balancer.
const (
	TLSReencrypt   = "reencrypt"
	TLSPassthrough = "passthrough"
)

// Policy values of a Balancer.
const (
	PolicyEWMA       = "ewma"
	PolicyLeast      = "least"
	PolicyRoundRobin = "round-robin"
	PolicyHash       = "hash"
)

// Hash values of a Balancer; the last two are followed by a name.
const (
	HashClient = "client"
	HashPath   = "path"
	HashCookie = "cookie:"
	HashHeader = "header:"
)

// AccessLog values of a Balancer.
const (
	AccessJSON     = "json"
	AccessCombined = "combined"
	AccessOff      = "off"
)

// Listen values of an App.
const (
	ListenSocket = "socket"
	ListenPort   = "port"
)

// Duration is a time.Duration that is written as "500ms" or "24h".
type Duration time.Duration

// Std returns d as the standard library's type.
func (d Duration) Std() time.Duration { return time.Duration(d) }

// String writes d as the file does: 24h rather than 24h0m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// MarshalText writes d as the file does.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads "500ms", "24h"; a bare number is refused, for its unit would be a guess.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is not a duration such as 500ms or 24h", text)
	}
	*d = Duration(v)
	return nil
}
