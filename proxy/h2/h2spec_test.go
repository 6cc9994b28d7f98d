package h2

import (
	"encoding/xml"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// buildSpec builds the conformance suite, a module of its own in h2spec/.
func buildSpec(t *testing.T) string {
	t.Helper()
	run := func(args ...string) ([]byte, error) {
		cmd := exec.CommandContext(t.Context(), "go", args...)
		cmd.Dir = "h2spec"
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		return cmd.CombinedOutput()
	}
	if out, err := run("mod", "download"); err != nil {
		t.Skipf("needs h2spec, by the Go module proxy: %v: %s", err, out)
	}
	bin := filepath.Join(t.TempDir(), "h2spec")
	if out, err := run("build", "-o", bin, "github.com/summerwind/h2spec/cmd/h2spec"); err != nil {
		t.Fatalf("build h2spec: %v: %s", err, out)
	}
	return bin
}

// report is what h2spec writes in JUnit's form.
type report struct {
	Suites []struct {
		Cases []struct {
			Package string   `xml:"package,attr"`
			Name    string   `xml:"classname,attr"`
			Failure *outcome `xml:"failure"`
			Error   *outcome `xml:"error"`
			Skipped *outcome `xml:"skipped"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

type outcome struct {
	Text string `xml:",chardata"`
}

// TestSpec runs all cases of h2spec 2.2.1: 145, and the one for strict servers.
func TestSpec(t *testing.T) {
	bin := buildSpec(t)
	b := listen(t, &Config{Handle: consume})
	host, port, err := net.SplitHostPort(b.addr)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "report.xml")
	out, runErr := exec.CommandContext(t.Context(), bin, "--strict", "-o", "10", "-h", host, "-p", port, "-j", file).CombinedOutput()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("%v: %s", runErr, out)
	}
	var r report
	if err := xml.Unmarshal(text, &r); err != nil {
		t.Fatal(err)
	}
	passed, failed, skipped := 0, 0, 0
	for _, s := range r.Suites {
		for _, c := range s.Cases {
			switch {
			case c.Failure != nil || c.Error != nil:
				failed++
				t.Errorf("%s %s", c.Package, c.Name)
			case c.Skipped != nil:
				skipped++
			default:
				passed++
			}
		}
	}
	if passed != 146 || failed != 0 || skipped != 0 {
		t.Errorf("passed %d, failed %d, skipped %d; want 146, 0, 0\n%s", passed, failed, skipped, out)
	}
}

// consume reads the body, then answers with more than one octet.
func consume(s *Stream) {
	p := make([]byte, 1024)
	for {
		if _, err := s.Read(p); err != nil {
			break
		}
	}
	if s.Head(200, nil, -1) == nil {
		_, _ = s.Write([]byte("a body of some octets"))
		_ = s.End(nil)
	}
}
