package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// notice is what a webhook gets.
type notice struct {
	Alert     string             `json:"alert"`
	Status    string             `json:"status"`
	Value     float64            `json:"value"`
	Threshold float64            `json:"threshold"`
	Since     time.Time          `json:"since"`
	Unit      string             `json:"unit"`
	Site      string             `json:"site"`
	Server    string             `json:"server"`
	Servers   map[string]float64 `json:"servers"`
}

// TestAlert has an alert fire and end, then again with the server that sends
// dying in between: each is told once.
//
// A notice is told twice only if its sender dies within the second between
// delivering it and the other monitors hearing of that. Here that could be the
// second firing one, so it may come twice, from two servers.
func TestAlert(t *testing.T) {
	ensureUp(t)
	url, notices := webhook(t)
	must(t, "apply", "--site", alertSite(t, url))
	t.Cleanup(func() {
		if _, err := ring.Run(context.Background(), "apply", "--site", ring.Site); err != nil {
			t.Error(err)
		}
	})

	stop := visit(t, 100)
	fires := next(t, notices, "firing")
	stop()
	ends := next(t, notices, "resolved")
	want := notice{Alert: "busy", Threshold: 20, Unit: "requests/s", Site: "foobar", Server: fires.Server}
	for _, n := range []notice{fires, ends} {
		if above := n.Value > 20; above != (n.Status == "firing") || len(n.Servers) != 3 || time.Since(n.Since) > 20*time.Second {
			t.Errorf("notice = %+v", n)
		}
		n.Status, n.Value, n.Since, n.Servers = "", 0, time.Time{}, nil
		if diff := cmp.Diff(want, n); diff != "" {
			t.Errorf("notice (-want +got):\n%s", diff)
		}
	}

	stop = visit(t, 100)
	fires = next(t, notices, "firing")
	must(t, "lab", "kill", fires.Server)
	stop()
	ends = next(t, notices, "resolved", fires.Status)
	if ends.Server == fires.Server {
		t.Errorf("%s sent the end, and is off", ends.Server)
	}
	must(t, "lab", "start", fires.Server) // returns when it is healthy: a further notice would have come
	if len(notices) > 0 {
		t.Errorf("one more notice: %+v", <-notices)
	}
}

// webhook takes notices on the lab's bridge.
func webhook(t *testing.T) (url string, notices chan notice) {
	t.Helper()
	l, err := net.Listen("tcp", ring.Prefix+".1:0")
	if err != nil {
		t.Fatal(err)
	}
	notices = make(chan notice, 20)
	srv := &http.Server{ReadHeaderTimeout: 5 * time.Second, Handler: http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		var n notice
		d := json.NewDecoder(r.Body)
		d.DisallowUnknownFields()
		if err := d.Decode(&n); err != nil || r.Method != http.MethodPost || r.URL.Path != "/hook" || r.Header.Get("Content-Type") != "application/json" {
			t.Errorf("webhook got %s %s: %v", r.Method, r.URL, err)
		}
		notices <- n
	})}
	done := make(chan struct{})
	go func() { defer close(done); _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close(); <-done })
	return "http://" + l.Addr().String() + "/hook", notices
}

// next returns the next notice, which must have that status. Those of a status that may come twice are passed over.
func next(t *testing.T, notices chan notice, status string, twice ...string) notice {
	t.Helper()
	for deadline := time.After(20 * time.Second); ; {
		select {
		case n := <-notices:
			t.Logf("%s: %s by %s at %.0f/s", n.Since.Format("15:04:05"), n.Status, n.Server, n.Value)
			if n.Status == status {
				return n
			}
			if len(twice) == 0 || n.Status != twice[0] {
				t.Fatalf("notice = %+v, want %s", n, status)
			}
			twice = twice[1:]
		case <-deadline:
			t.Fatalf("no notice came, want %s", status)
		}
	}
}

// visit sends requests at a rate until the returned func is called.
func visit(t *testing.T, rate int) (stop func()) {
	t.Helper()
	l := &Load{Client: visitor(t, ring.Floating()), Rate: rate, Tag: fmt.Sprintf("%s-%d", t.Name(), time.Now().UnixNano())}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); l.Run(ctx) }()
	stop = func() { cancel(); <-done }
	t.Cleanup(stop)
	return stop
}

// alertSite writes a copy of the site file whose one alert fires soon, and tells url.
func alertSite(t *testing.T, url string) string {
	t.Helper()
	return editedSite(t, func(text string) string {
		text = regexp.MustCompile(`(?m)^(\s+above:) \d+`).ReplaceAllString(text, "$1 20")
		return regexp.MustCompile(`(?m)^(\s+)for: 10s$`).ReplaceAllString(text, "${1}for: 3s\n${1}webhook: "+url)
	})
}

// editedSite writes an edited copy of the site file.
func editedSite(t *testing.T, edit func(string) string) string {
	t.Helper()
	data, err := os.ReadFile(ring.Site)
	if err != nil {
		t.Fatal(err)
	}
	text := edit(string(data))
	if text == string(data) {
		t.Fatal("the site file has nothing to edit")
	}
	// Beside the original, for its paths are relative.
	f, err := os.CreateTemp(filepath.Dir(ring.Site), "changed-*.yaml")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(f.Name()) })
	if _, err := strings.NewReader(text).WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}
