package site

import (
	"maps"
	"math"
	"net/url"
	"slices"
	"strings"
	"time"
)

func (r *report) app(a App) {
	if a.Source == "" {
		r.appless(a)
	} else if len(a.Run) == 0 {
		r.add("app.run", "is missing: how is the app in %s started?", a.Source)
	}
	for i, arg := range a.Run {
		if (i == 0 && arg == "") || strings.ContainsRune(arg, 0) {
			r.add(index("app.run", i), "%q is not a program or argument", arg)
		}
	}
	r.instances(a)
	if a.Listen != ListenSocket && a.Listen != ListenPort {
		r.add("app.listen", "%q is neither %s nor %s", a.Listen, ListenSocket, ListenPort)
	}
	r.health("app.health", a.Health)
	r.between("app.grace", a.Grace, 0, 10*time.Minute)
	r.environment(a.Environment)
}

// appless notes the settings that mean nothing without an app.
func (r *report) appless(a App) {
	for _, f := range []struct {
		key string
		set bool
	}{
		{"app.build", a.Build != ""},
		{"app.run", len(a.Run) > 0},
		{"app.environment", len(a.Environment) > 0},
		{"app.secrets", a.Secrets != ""},
	} {
		if f.set {
			r.add(f.key, "means nothing without app.source, the app's folder")
		}
	}
}

func (r *report) instances(a App) {
	low := 0
	if a.Source != "" {
		low = 1
	}
	r.count("app.instances", a.Instances, low, 64)
}

func (r *report) environment(env map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(env)) {
		key := join("app.environment", name)
		if why := variable(name); why != "" {
			r.add(key, "%s", why)
		}
		if strings.ContainsRune(env[name], 0) {
			r.add(key, "the value holds a NUL byte")
		}
	}
}

// reservedVariables are set by trivet for every instance.
var reservedVariables = []string{"DATABASE_URL", "DATABASE_SOCKET", "DATABASE_READ_URL", "DATABASE_READ_SOCKET", "SOCKET", "PORT"}

// variable says why name may not be set for the app; "" if it may.
func variable(name string) string {
	switch {
	case !variableForm.MatchString(name):
		return "is not the name of a variable (letters, digits and underscores, no digit first)"
	case slices.Contains(reservedVariables, name) || strings.HasPrefix(name, "TRIVET_"):
		return "is set by trivet itself"
	}
	return ""
}

func (r *report) monitor(m Monitor) {
	r.between("monitor.retention", m.Retention, time.Hour, 10*365*24*time.Hour)
	names := map[string]string{}
	for i, a := range m.Alerts {
		key := index("monitor.alerts", i)
		r.alertName(key+".name", a.Name)
		r.twice(names, key+".name", a.Name)
		if !(a.Above > 0) || math.IsInf(a.Above, 0) {
			r.add(key+".above", "%v is not a number of requests per second above 0", a.Above)
		}
		r.between(key+".for", a.For, time.Second, 24*time.Hour)
		if a.Webhook != "" && !isWebhook(a.Webhook) {
			r.add(key+".webhook", "this is not a URL that can be posted to (write it like https://alerts.foobar.com/hook)")
		}
	}
}

func (r *report) alertName(key, name string) {
	odd := strings.ContainsFunc(name, func(c rune) bool { return c < ' ' || c == 0x7f })
	switch {
	case name == "":
		r.add(key, "is missing")
	case len(name) > 64 || odd:
		r.add(key, "%q is not a name (at most 64 characters, on one line)", name)
	}
}

// isWebhook reports whether text is an http or https URL with a host. Such a
// URL often holds a token, so that no message repeats it.
func isWebhook(text string) bool {
	u, err := url.Parse(text)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != ""
}
