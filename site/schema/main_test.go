package main

import (
	"os"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestSchema fails when the committed schema is older than the types.
func TestSchema(t *testing.T) {
	want, err := generate("..")
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile("../site.schema.json")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("site.schema.json is stale, run go generate ./site (-want +got):\n%s", diff)
	}
}
