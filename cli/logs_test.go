package cli

import "testing"

func TestLogFormat(t *testing.T) {
	for _, tt := range []struct {
		json bool
		want string
	}{
		{false, `s1 app | it says "no"`},
		{true, `{"server":"s1","part":"app","line":"it says \"no\""}`},
	} {
		if got := (logQuery{json: tt.json}).format("s1", "app")(`it says "no"`); got != tt.want {
			t.Errorf("json %v: %s, want %s", tt.json, got, tt.want)
		}
	}
}
