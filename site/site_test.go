package site_test

import (
	"encoding/json"
	"errors"
	"flag"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.yaml.in/yaml/v3"

	"trivet/site"
)

var update = flag.Bool("update", false, "write the golden files anew")

// TestWrong compares all problems of each wrong file with the text beside it.
func TestWrong(t *testing.T) {
	files, err := filepath.Glob("testdata/wrong/*.yaml")
	if err != nil || len(files) == 0 {
		t.Fatalf("find test files: %v, %v", files, err)
	}
	for _, file := range files {
		t.Run(filepath.Base(file), func(t *testing.T) {
			data := read(t, file)
			_, err := site.Parse("site.yaml", data)
			var problems site.Problems
			if !errors.As(err, &problems) {
				t.Fatalf("got error %v, want Problems", err)
			}
			golden(t, strings.TrimSuffix(file, ".yaml")+".txt", err.Error()+"\n")
		})
	}
}

func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(string(read(t, file)), got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", file, diff)
	}
}

func read(t *testing.T, file string) []byte {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// folder makes a folder with the given files and returns its path; a name that ends in / is a folder.
func folder(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, content := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if strings.HasSuffix(name, "/") {
			_ = os.MkdirAll(path, 0o755)
			continue
		}
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

const minimal = `name: foo-bar
domain: www.foobar.com
servers: [{name: s1}, {name: s2}, {name: s3}]
web: {static: static}
`

func TestDefaults(t *testing.T) {
	got, err := site.Parse("site.yaml", []byte(minimal))
	if err != nil {
		t.Fatal(err)
	}
	want := site.Default()
	want.Name, want.Domain, want.Web.Static = "foo-bar", "www.foobar.com", "static"
	want.Servers = []site.Server{{Name: "s1", Weight: 100}, {Name: "s2", Weight: 100}, {Name: "s3", Weight: 100}}
	want.Database.Name, want.Database.User = "foo_bar", "foo_bar"
	if diff := cmp.Diff(&want, got); diff != "" {
		t.Errorf("defaults (-want +got):\n%s", diff)
	}
}

func TestExample(t *testing.T) {
	dir := folder(t, map[string]string{"site.yaml": string(site.Example), "static/": "", "app/": ""})
	s, err := site.Load(filepath.Join(dir, "site.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	want := site.Default()
	want.Name, want.Dir = "foobar", dir
	got := site.Site{
		Name: s.Name, Dir: s.Dir, Balancer: s.Balancer, Certificate: s.Certificate,
		Web: s.Web, App: s.App, Database: s.Database, Monitor: s.Monitor,
	}
	want.Web.Static, want.App.Source = "static", "app"
	want.App.Build, want.App.Run, want.App.Environment = s.App.Build, s.App.Run, s.App.Environment
	want.Database.Name, want.Database.User = "foobar", "foobar"
	want.Monitor.Alerts = []site.Alert{{Name: "busy", Above: 500, For: site.Duration(10 * time.Second)}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the example differs from the defaults that it shows (-want +got):\n%s", diff)
	}
}

// TestFoobar loads the example site that the lab brings up.
func TestFoobar(t *testing.T) {
	s, err := site.Load("../examples/foobar/site.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if s.Name != "foobar" || s.Domain != "www.foobar.com" || len(s.Servers) != site.ServerCount {
		t.Errorf("got site %s for %s with %d servers", s.Name, s.Domain, len(s.Servers))
	}
}

func TestLoadFiles(t *testing.T) {
	const app = "app: {source: app, run: [./a], build: b, secrets: secrets.env}\n"
	tests := []struct {
		name  string
		text  string
		files map[string]string
		mode  os.FileMode // of secrets.env
		want  string      // with DIR for the folder; empty: no error
	}{
		{name: "good", text: minimal + app, files: map[string]string{"static/": "", "app/": "", "secrets.env": "A=b=c\n# x\n\nB=\n"}, mode: 0o600},
		{
			name: "missing", text: minimal + app,
			want: "DIR/site.yaml:4: web.static: there is no folder DIR/static\n" +
				"DIR/site.yaml:5: app.source: there is no folder DIR/app\n" +
				"DIR/site.yaml:5: app.secrets: there is no file DIR/secrets.env",
		},
		{
			name: "together with other problems", text: minimal + "colour: red\n",
			want: "DIR/site.yaml:4: web.static: there is no folder DIR/static\n" +
				"DIR/site.yaml:5: colour: is not a known key; known here are address, admin, aliases, app, balancer, certificate, database, domain, firewall, monitor, name, servers, web",
		},
		{name: "file for folder", text: minimal, files: map[string]string{"static": ""}, want: "DIR/site.yaml:4: web.static: DIR/static is a file; a folder belongs here"},
		{
			name: "site file in static", text: strings.Replace(minimal, "static: static", "static: .", 1),
			want: "DIR/site.yaml:4: web.static: the folder holds this site file, which visitors could then read; give the files a folder of their own",
		},
		{
			name: "open secrets", text: minimal + app, files: map[string]string{"static/": "", "app/": "", "secrets.env": ""}, mode: 0o640,
			want: "DIR/site.yaml:5: app.secrets: others may read DIR/secrets.env (mode 0640); run: chmod 600 DIR/secrets.env",
		},
		{
			name: "secrets in static", text: minimal + strings.Replace(app, "secrets: ", "secrets: static/", 1),
			files: map[string]string{"static/secrets.env": "", "app/": ""},
			want:  "DIR/site.yaml:5: app.secrets: the file lies in web.static, where visitors could read it",
		},
		{
			name: "bucket without its keys", text: minimal + app + "database: {backup: {s3: {endpoint: \"https://s3.example.com\", bucket: copies}}}\n",
			files: map[string]string{"static/": "", "app/": "", "secrets.env": "TRIVET_S3_KEY_ID=id\n"}, mode: 0o600,
			want: "DIR/site.yaml:6: database.backup.s3: the secrets file (app.secrets) has no line TRIVET_S3_SECRET=…",
		},
		{
			name: "bucket", text: minimal + app + "database: {backup: {s3: {endpoint: \"https://s3.example.com\", bucket: copies}}}\n",
			files: map[string]string{"static/": "", "app/": "", "secrets.env": "TRIVET_S3_KEY_ID=id\nTRIVET_S3_SECRET=s\n"}, mode: 0o600,
		},
		{
			name: "secrets in copied source", text: minimal + "app: {source: app, run: [./a], secrets: app/secrets.env}\n",
			files: map[string]string{"static/": "", "app/secrets.env": ""},
			want:  "DIR/site.yaml:5: app.secrets: the file lies in app.source, which is copied to the servers as it is; move it out",
		},
		{
			name: "bad secrets", text: minimal + app, mode: 0o600,
			files: map[string]string{"static/": "", "app/": "", "secrets.env": "hunter2\nA=1\nA=2\nPORT=3\nx y=4\n"},
			want: "DIR/site.yaml:5: app.secrets: secrets.env: line 1 is not of the form KEY=value; line 3: A is there twice; " +
				"line 4: PORT is set by trivet itself; line 5: what stands before = is not the name of a variable",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := folder(t, tt.files)
			file := filepath.Join(dir, "site.yaml")
			if err := os.WriteFile(file, []byte(tt.text), 0o644); err != nil {
				t.Fatal(err)
			}
			if tt.mode != 0 {
				if err := os.Chmod(filepath.Join(dir, "secrets.env"), tt.mode); err != nil {
					t.Fatal(err)
				}
			}
			_, err := site.Load(file)
			got := ""
			if err != nil {
				got = strings.ReplaceAll(err.Error(), dir, "DIR")
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Errorf("problems (-want +got):\n%s", diff)
			}
		})
	}
}

func TestInLab(t *testing.T) {
	s, err := site.Parse("site.yaml", []byte(minimal+"app: {source: a, run: [x], environment: {A: b}}\n"))
	if err != nil {
		t.Fatal(err)
	}
	before := s.Clone()
	addresses := map[string]string{"s1": "10.77.0.11", "s2": "10.77.0.12", "s3": "10.77.0.13"}
	got := s.InLab(netip.MustParseAddr("10.77.0.1"), netip.MustParseAddr("10.77.0.10"), addresses)
	want := s.Clone()
	want.Address, want.Admin = "10.77.0.10", []string{"10.77.0.1/32"}
	want.Servers = []site.Server{
		{Name: "s1", Address: "10.77.0.11", Weight: 100}, {Name: "s2", Address: "10.77.0.12", Weight: 100}, {Name: "s3", Address: "10.77.0.13", Weight: 100},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("InLab (-want +got):\n%s", diff)
	}
	got.App.Environment["A"], got.App.Run[0] = "changed", "changed"
	if diff := cmp.Diff(before, s); diff != "" {
		t.Errorf("the original changed (-before +after):\n%s", diff)
	}
}

// A site that an earlier release kept lacks the fields that it did not know.
func TestUnmarshalOlder(t *testing.T) {
	const older = `{"name":"foo","servers":[{"name":"s1"},{"name":"s2","weight":7}],"balancer":{"retries":1,"timeout":"5s"},"app":{"health":{"path":"/up"}}}`
	var got site.Site
	if err := json.Unmarshal([]byte(older), &got); err != nil {
		t.Fatal(err)
	}
	want := site.Default()
	want.Name, want.App.Health.Path = "foo", "/up"
	want.Servers = []site.Server{{Name: "s1", Weight: site.DefaultWeight}, {Name: "s2", Weight: 7}}
	want.Balancer.Retries, want.Balancer.Timeout = 1, site.Duration(5*time.Second)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("older site (-want +got):\n%s", diff)
	}
	got = site.Site{}
	data, err := json.Marshal(want)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("round trip (-want +got):\n%s", diff)
	}
}

func TestWell(t *testing.T) {
	tests := []struct {
		status string
		code   int
		want   bool
	}{
		{"200-299", 200, true},
		{"200-299", 299, true},
		{"200-299", 300, false},
		{"200-299", 199, false},
		{"204", 204, true},
		{"204", 200, false},
		{"", 200, true},
		{"", 302, false},
	}
	for _, tt := range tests {
		if got := (site.Health{Status: tt.status}).Well(tt.code); got != tt.want {
			t.Errorf("Health{Status: %q}.Well(%d) = %v, want %v", tt.status, tt.code, got, tt.want)
		}
	}
}

// Passthrough turns the default of HTTP/3 off, without a word needed in the file.
func TestPassthrough(t *testing.T) {
	s, err := site.Parse("site.yaml", []byte(minimal+"balancer: {tls: passthrough}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if s.Balancer.HTTP3 {
		t.Error("http3 is on with passthrough")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(site.Example)
	f.Add([]byte(minimal))
	files, _ := filepath.Glob("testdata/wrong/*.yaml")
	for _, file := range files {
		if data, err := os.ReadFile(file); err == nil {
			f.Add(data)
		}
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := site.Parse("site.yaml", data)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error without text")
			}
			return
		}
		text, err := yaml.Marshal(s)
		if err != nil {
			t.Fatalf("marshal: %v", err)
		}
		again, err := site.Parse("site.yaml", text)
		if err != nil {
			t.Fatalf("parse what was marshalled: %v\n%s", err, text)
		}
		if diff := cmp.Diff(s, again); diff != "" {
			t.Errorf("round trip (-want +got):\n%s", diff)
		}
	})
}

// TestSplitSecrets: the app gets its own lines as they stand, and nothing of trivet's.
func TestSplitSecrets(t *testing.T) {
	app, own := site.SplitSecrets("A=b=c\r\nTRIVET_S3_KEY_ID=id\r\n# x\nTRIVET_S3_SECRET=a=b\nB=")
	if app != "A=b=c\r\n# x\nB=" {
		t.Errorf("app = %q", app)
	}
	if diff := cmp.Diff(map[string]string{site.S3KeyID: "id", site.S3Secret: "a=b"}, own); diff != "" {
		t.Errorf("own (-want +got):\n%s", diff)
	}
}
