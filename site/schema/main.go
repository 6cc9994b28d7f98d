// Program schema writes site.schema.json, the JSON Schema of the site file for
// editors, from the types in package site, their comments and their defaults.
// It runs in the folder site, by go generate. It is the only importer of the
// schema library, which so stays out of trivet itself.
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"

	"github.com/invopop/jsonschema"

	"trivet/site"
)

func main() {
	data, err := generate(".")
	if err == nil {
		err = os.WriteFile("site.schema.json", data, 0o644)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "schema:", err)
		os.Exit(1)
	}
}

// generate returns the schema; source is the folder of package site.
func generate(source string) ([]byte, error) {
	r := jsonschema.Reflector{
		Anonymous: true, DoNotReference: true, RequiredFromJSONSchemaTags: true,
		FieldNameTag: "yaml", Mapper: duration,
	}
	base := "trivet/site"
	if source != "." {
		base = "trivet/site/schema" // joined with ".." by the library
	}
	if err := r.AddGoComments(base, source); err != nil {
		return nil, fmt.Errorf("read comments of package site: %w", err)
	}
	s := r.Reflect(&site.Site{})
	s.Title = "trivet site file"
	s.Required = []string{"name", "domain", "servers"}
	refine(s)
	if err := addDefaults(s); err != nil {
		return nil, err
	}
	data, err := json.MarshalIndent(s, "", "  ")
	return append(data, '\n'), err
}

// duration describes site.Duration, which is written as text.
func duration(t reflect.Type) *jsonschema.Schema {
	if t != reflect.TypeFor[site.Duration]() {
		return nil
	}
	return &jsonschema.Schema{Type: "string", Pattern: `^([0-9]+(\.[0-9]+)?(ns|us|µs|ms|s|m|h))+$`}
}

// refine adds what the types do not say.
func refine(s *jsonschema.Schema) {
	servers := property(s, "servers")
	n := uint64(site.ServerCount)
	servers.MinItems, servers.MaxItems = &n, &n
	servers.Items.Required = []string{"name"}
	property(servers.Items, "weight").Default = site.DefaultWeight
	balancer := property(s, "balancer")
	property(balancer, "tls").Enum = []any{site.TLSReencrypt, site.TLSPassthrough}
	property(balancer, "policy").Enum = []any{site.PolicyEWMA, site.PolicyLeast, site.PolicyRoundRobin, site.PolicyHash}
	property(balancer, "access_log").Enum = []any{site.AccessJSON, site.AccessCombined, site.AccessOff}
	property(property(s, "app"), "listen").Enum = []any{site.ListenSocket, site.ListenPort}
	property(property(s, "firewall"), "egress").Items.Required = []string{"to", "ports"}
	property(property(s, "monitor"), "alerts").Items.Required = []string{"name", "above", "for"}
}

func property(s *jsonschema.Schema, name string) *jsonschema.Schema {
	p, _ := s.Properties.Get(name)
	return p
}

// addDefaults copies the values of site.Default into s.
func addDefaults(s *jsonschema.Schema) error {
	data, err := json.Marshal(site.Default())
	if err != nil {
		return err
	}
	var defaults map[string]any
	if err := json.Unmarshal(data, &defaults); err != nil {
		return err
	}
	setDefaults(s, defaults)
	return nil
}

func setDefaults(s *jsonschema.Schema, defaults map[string]any) {
	for name, value := range defaults {
		p := property(s, name)
		switch v := value.(type) {
		case nil:
		case map[string]any:
			setDefaults(p, v)
		default:
			if !reflect.ValueOf(v).IsZero() {
				p.Default = v
			}
		}
	}
}
