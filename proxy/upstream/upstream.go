// Package upstream is where requests go: targets with their kept connections,
// and the choice among them.
//
// A Pool is what the balancer has of web servers and the web server of app
// instances. A request Enters the pool (or is shed), Chooses a target, Takes
// one of its kept connections or Dials a new one, and tells by Release and
// Observe how it went. Retrying is the caller's, within the pool's Budget.
package upstream
