// Package pace lets what is done regularly fall into the same moments: the
// whole multiples of its interval on the clock. An idle server then wakes up
// once for many things, and most of what idling costs is waking up.
package pace

import "time"

// Next is how long to wait until something is due that is done each interval:
// until the next whole multiple of it, or the one after that if it is nearer
// than an eighth of interval. So it is at most an eighth longer than interval.
func Next(interval time.Duration) time.Duration {
	now := time.Now()
	wait := now.Truncate(interval).Add(interval).Sub(now)
	if wait < interval/8 {
		wait += interval
	}
	return wait
}
