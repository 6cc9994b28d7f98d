package pace

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestNext(t *testing.T) {
	for _, c := range []struct{ into, interval, want time.Duration }{
		{0, time.Second, time.Second},
		{300 * time.Millisecond, time.Second, 700 * time.Millisecond},
		{300 * time.Millisecond, 500 * time.Millisecond, 200 * time.Millisecond},
		{990 * time.Millisecond, time.Second, 1010 * time.Millisecond}, // too near
		{1500 * time.Millisecond, 2 * time.Second, 500 * time.Millisecond},
	} {
		synctest.Test(t, func(t *testing.T) {
			time.Sleep(c.into) // the test's clock begins at a whole second
			if got := Next(c.interval); got != c.want {
				t.Errorf("Next(%s) %s after the whole second = %s, want %s", c.interval, c.into, got, c.want)
			}
		})
	}
}

// Two that have the same interval but began at different moments are due at the same one.
func TestNextMeets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := time.Now().Add(Next(time.Second))
		time.Sleep(400 * time.Millisecond)
		if second := time.Now().Add(Next(time.Second)); !second.Equal(first) {
			t.Errorf("due at %s and at %s, want the same", first, second)
		}
	})
}
