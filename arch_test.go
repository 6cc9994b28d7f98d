package main

import (
	"encoding/json"
	"errors"
	"io"
	"maps"
	"os/exec"
	"slices"
	"strings"
	"testing"
)

// edges are all imports between trivet's own packages: main → cli → {node, lab}
// → parts → {proxy, site, internal}. A new edge is a decision: it is added here,
// and TestLaw says whether it may be.
var edges = map[string][]string{
	"trivet": {"cli"},
	"cli": {
		"balancer", "certificate", "console", "database/backup", "database/router", "database/router/digest", "database/sst", "internal/binary", "internal/part", "internal/release",
		"internal/worker", "lab", "monitor", "node", "site", "web",
	},
	"node": {
		"app", "certificate", "cluster", "database", "database/backup", "firewall", "internal/atomicfile", "internal/floating", "internal/metric",
		"internal/mtls", "internal/pace", "internal/part", "internal/process", "internal/release", "internal/worker", "site",
	},
	"lab":     {"internal/account", "internal/atomicfile", "internal/binary", "internal/link", "internal/netns", "internal/part", "internal/process"},
	"cluster": {"internal/pace", "internal/part"},
	"console": {"internal/overview"},

	"app": {"internal/atomicfile", "internal/pace", "internal/part", "internal/process", "site"},
	"balancer": {
		"internal/metric", "internal/mtls", "internal/pace", "internal/part",
		"proxy", "proxy/access", "proxy/edge", "proxy/hello", "proxy/proxyproto", "proxy/ticket", "proxy/tunnel", "proxy/upstream", "proxy/wire", "site",
	},
	"certificate":            {"internal/atomicfile", "internal/metric", "internal/mtls", "internal/part"},
	"database":               {"database/sst", "internal/atomicfile", "internal/metric", "internal/pace", "internal/part", "internal/process", "site"},
	"database/backup":        {"internal/metric", "internal/mtls", "internal/pace", "internal/part", "site"},
	"database/router":        {"database/router/digest", "database/router/wire", "internal/metric", "internal/mtls", "internal/part"},
	"database/router/digest": {"internal/metric"},
	"database/sst":           {"internal/mtls", "internal/part"},
	"firewall":               {"internal/metric", "internal/part", "site"},
	"monitor":                {"internal/atomicfile", "internal/metric", "internal/mtls", "internal/overview", "internal/part", "internal/process", "site"},
	"web": {
		"internal/metric", "internal/mtls", "internal/part",
		"proxy", "proxy/access", "proxy/edge", "proxy/proxyproto", "proxy/ticket", "proxy/upstream", "proxy/wire", "site",
	},

	"proxy":          {"proxy/crew", "proxy/h2", "proxy/h3", "proxy/socket", "proxy/tunnel", "proxy/upstream", "proxy/wire"},
	"proxy/access":   {"proxy", "proxy/wire"},
	"proxy/bench":    {"internal/host", "proxy", "proxy/upstream", "proxy/wire"},
	"proxy/edge":     {"internal/metric", "proxy", "proxy/wire", "site"},
	"proxy/h2":       {"proxy/crew", "proxy/socket", "proxy/wire"},
	"proxy/h3":       {"proxy/wire"},
	"proxy/tunnel":   {"proxy/socket"},
	"proxy/upstream": {"proxy/socket", "proxy/wire"},

	"internal/floating": {"internal/link"},
	"internal/mtls":     {"internal/part"},
	"internal/part":     {"site"},
	"internal/process":  {"internal/atomicfile"},
	"internal/release":  {"site"},
	"internal/worker":   {"internal/metric", "internal/pace", "internal/part", "internal/process"},
	"site/schema":       {"site"},

	// Only tests import these.
	"e2e":                      {"e2e/history", "internal/netns", "lab"},
	"e2e/bench":                {"e2e", "e2e/measure"},
	"e2e/dbbench":              {"e2e", "e2e/measure", "internal/netns"},
	"e2e/measure":              {"e2e", "internal/host"},
	"e2e/load":                 {"e2e"},
	"e2e/soak":                 {"e2e", "e2e/history"},
	"e2e/wordpress":            {"e2e"},
	"internal/mtls/mtlstest":   {"internal/mtls", "internal/part"},
	"internal/netns/netnstest": {"internal/netns"},
}

// modules of others, each with the one package that may import it. golang.org/x/sys,
// the kernel's own names, is free to all.
var modules = map[string]string{
	"filippo.io/age":                      "database/backup",
	"github.com/anishathalye/porcupine":   "e2e/history", // in no binary
	"github.com/go-sql-driver/mysql":      "database",
	"github.com/google/nftables":          "firewall",
	"github.com/invopop/jsonschema":       "site/schema",
	"github.com/klauspost/compress":       "database/backup",
	"github.com/landlock-lsm/go-landlock": "internal/worker",
	"github.com/mdlayher/netlink":         "firewall",
	"github.com/minio/minio-go/v7":        "database/backup",
	"github.com/prometheus/client_golang": "internal/metric",
	"github.com/prometheus/procfs":        "monitor",
	"github.com/prometheus/prometheus":    "monitor",
	"github.com/prometheus/common":        "monitor",
	"github.com/quic-go/quic-go":          "proxy/h3",
	"github.com/spiffe/go-spiffe/v2":      "internal/mtls",
	"github.com/vishvananda/netlink":      "internal/link",
	"go.etcd.io/etcd":                     "cluster",
	"go.uber.org/zap":                     "cluster", // etcd's own logger
	"go.yaml.in/yaml/v3":                  "site",
	"golang.org/x/net":                    "proxy/h2",
	"golang.org/x/term":                   "cli",
}

const free = "golang.org/x/sys"

// drivers speak the protocol of a part from outside, as an app does; they are in no binary.
var drivers = map[string]string{"e2e/dbbench": "github.com/go-sql-driver/mysql", "e2e/history": "github.com/go-sql-driver/mysql"}

// law says why from may not import to, whatever the table holds; empty: it may.
func law(from, to string) string {
	parts := []string{"app", "balancer", "certificate", "database", "firewall", "monitor", "web"}
	above := []string{"cli", "node", "lab", "cluster", "console", "trivet"}
	a, _, _ := strings.Cut(from, "/")
	b, _, _ := strings.Cut(to, "/")
	isPart := slices.Contains(parts, a)
	switch {
	case b == "trivet" || b == "cli" && a != "trivet":
		return "nothing imports the command line"
	case isPart && a != b && slices.Contains(parts, b):
		return "parts never import each other: what one tells another passes through node"
	case isPart && slices.Contains(above, b):
		return "a part knows nothing of what runs it"
	case slices.Contains([]string{"internal", "proxy", "site", "cluster", "console"}, a) && (slices.Contains(parts, b) || slices.Contains(above, b)):
		return "imports run one way: main → cli → {node, lab} → parts → {proxy, site, internal}"
	case a == "site" && b != "site":
		return "site imports only the standard library and yaml"
	case a == "lab" && b == "node" || a == "node" && (b == "lab" || b == "console"):
		return "node and lab are wired in cli"
	}
	return ""
}

func TestLaw(t *testing.T) {
	for from, all := range edges {
		if !slices.IsSorted(all) {
			t.Errorf("%s: its imports are not sorted", from)
		}
		for _, to := range all {
			if why := law(from, to); why != "" {
				t.Errorf("%s → %s is in the table, but %s", from, to, why)
			}
		}
	}
}

func TestLawRefuses(t *testing.T) {
	tests := []struct{ from, to string }{
		{"web", "app"},
		{"database/router", "balancer"},
		{"monitor", "cluster"},
		{"app", "node"},
		{"internal/mtls", "certificate"},
		{"proxy", "balancer"},
		{"site", "internal/part"},
		{"node", "lab"},
		{"lab", "node"},
		{"console", "monitor"},
		{"node", "cli"},
	}
	for _, tt := range tests {
		if law(tt.from, tt.to) == "" {
			t.Errorf("%s → %s is lawful, want that it is not", tt.from, tt.to)
		}
	}
}

// TestImports compares the tables with what is: an unlisted import fails, and so does a listed one that is gone.
func TestImports(t *testing.T) {
	gotEdges, gotModules := map[string][]string{}, map[string]string{}
	for from, all := range imports(t) {
		for _, path := range all {
			to, own := strings.CutPrefix(path, "trivet/")
			switch module := moduleOf(path); {
			case own:
				gotEdges[from] = append(gotEdges[from], to)
				if !slices.Contains(edges[from], to) {
					t.Errorf("%s imports %s, which the table of edges does not hold. %s", from, to, law(from, to))
				}
			case module == "":
				t.Errorf("%s imports %s, a module that no package is named for", from, path)
			case module == free, drivers[from] == module:
			case modules[module] != from:
				t.Errorf("%s imports %s, which is for %s alone", from, path, modules[module])
			default:
				gotModules[module] = from
			}
		}
	}
	for from, all := range edges {
		for _, to := range all {
			if !slices.Contains(gotEdges[from], to) {
				t.Errorf("%s → %s is in the table, but nothing imports so any more", from, to)
			}
		}
	}
	for _, m := range slices.Sorted(maps.Keys(modules)) {
		if gotModules[m] == "" {
			t.Errorf("module %s is in the table, but %s does not import it any more", m, modules[m])
		}
	}
}

// imports of every package, tests apart, the standard library left out.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "go", "list", "-json=ImportPath,Imports", "./...").Output()
	if err != nil {
		var exit *exec.ExitError
		if errors.As(err, &exit) {
			t.Fatalf("list packages: %v: %s", err, exit.Stderr)
		}
		t.Fatalf("list packages: %v", err)
	}
	all := map[string][]string{}
	for d := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p struct {
			ImportPath string
			Imports    []string
		}
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatalf("list packages: %v", err)
		}
		name := strings.TrimPrefix(p.ImportPath, "trivet/")
		all[name] = slices.DeleteFunc(p.Imports, func(path string) bool {
			first, _, _ := strings.Cut(path, "/")
			return first != "trivet" && !strings.Contains(first, ".")
		})
	}
}

// moduleOf is the module of the table that path belongs to; the longest name wins.
func moduleOf(path string) string {
	best := ""
	for _, m := range append(slices.Collect(maps.Keys(modules)), free) {
		if (path == m || strings.HasPrefix(path, m+"/")) && len(m) > len(best) {
			best = m
		}
	}
	return best
}
