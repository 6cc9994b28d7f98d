// Package overview is what the monitor knows of the three servers, in the
// shapes in which it travels: between the monitors, and from a monitor to the
// console. It holds values only.
package overview

// Point is what one server did in one second. Counts are per second; a field
// that could not be measured is zero.
type Point struct {
	Time     int64   `json:"t"`              // Unix seconds, the end of the second
	QPS      float32 `json:"q"`              // visitors' requests that its balancer answered
	Served   float32 `json:"w,omitempty"`    // requests that its web server answered, whichever balancer they came by
	Errors   float32 `json:"e,omitempty"`    // of those, with status 5xx
	P50      float32 `json:"p50,omitempty"`  // median time to answer, milliseconds
	P99      float32 `json:"p99,omitempty"`  // 99th percentile, milliseconds
	CPU      float32 `json:"cpu"`            // of the server, percent of all cores
	Memory   float32 `json:"mem"`            // of the server, percent in use
	Queries  float32 `json:"db,omitempty"`   // database queries
	InFlight float32 `json:"fly,omitempty"`  // requests being answered
	Dropped  float32 `json:"drop,omitempty"` // packets that the firewall refused
}

// Now is the present state of the site as one monitor sees it.
type Now struct {
	Site    string   `json:"site"`
	Domain  string   `json:"domain"`
	Server  string   `json:"server"`  // whose monitor says so
	Quorum  bool     `json:"quorum"`  // whether changes can be agreed on
	Address string   `json:"address"` // the floating address
	Holder  string   `json:"holder"`  // server that holds it; empty: none
	Writer  string   `json:"writer"`  // server that takes the database's writes; empty: none
	Parts   []string `json:"parts"`   // names, in the order to show
	Servers []Server `json:"servers"` // in the site's order
	Alerts  []Alert  `json:"alerts"`
	Events  []Event  `json:"events"` // newest first
}

// Server is one of the three.
type Server struct {
	Name      string            `json:"name"`
	Address   string            `json:"address"`
	Alive     bool              `json:"alive"`              // the cluster hears its node
	Reachable bool              `json:"reachable"`          // its monitor sends points
	Problems  map[string]string `json:"problems,omitempty"` // by part: why it is not healthy
	Processes []Process         `json:"processes,omitempty"`
}

// Process is one process of a server.
type Process struct {
	Name   string  `json:"name"`
	CPU    float32 `json:"cpu"`    // percent of one core
	Memory int64   `json:"memory"` // resident bytes
}

// States of an Alert.
const (
	AlertOK      = "ok"
	AlertPending = "pending" // above the threshold, not yet for long enough
	AlertFiring  = "firing"
)

// Alert is one rule and where it stands.
type Alert struct {
	Name  string  `json:"name"`
	State string  `json:"state"`
	Above float64 `json:"above"` // threshold
	Unit  string  `json:"unit"`  // of it: requests/s, hours
	For   string  `json:"for"`   // such as 30s
	Since int64   `json:"since"` // Unix seconds of the last change of State; 0: never
}

// Event is something that happened, for the list in the console.
type Event struct {
	Time int64  `json:"t"` // Unix seconds
	Text string `json:"text"`
	Told string `json:"told,omitempty"` // the alert and the status that a webhook was told by this
}

// Frame is what a monitor sends once a second on /v1/stream: its newest point,
// its processes when they were measured anew, and what happened on this server
// alone in the second before: the others cannot see it themselves.
type Frame struct {
	Point     Point     `json:"point"`
	Processes []Process `json:"processes,omitempty"`
	Events    []Event   `json:"events,omitempty"`

	Watched map[string]float64 `json:"watched,omitempty"` // by name: gauges that built-in alerts go by
}
