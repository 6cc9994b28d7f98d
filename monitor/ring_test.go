package monitor

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"trivet/internal/overview"
)

func times(points []overview.Point) []int64 {
	out := make([]int64, len(points))
	for i, p := range points {
		out[i] = p.Time
	}
	return out
}

func TestRing(t *testing.T) {
	for _, test := range []struct {
		name  string
		add   []int64
		after int64
		want  []int64
	}{
		{"empty", nil, 0, []int64{}},
		{"a gap", []int64{10, 11, 14}, 10, []int64{11, 14}},
		{"twice and late", []int64{10, 12, 12, 11, 13}, 0, []int64{10, 12, 13}},
		{"clock set back", []int64{1000, 1001, 500, 501}, 0, []int64{500, 501}},
		{"only the last hour", []int64{100, 200, 3800}, 0, []int64{3800}},
	} {
		var r Ring
		for _, at := range test.add {
			r.Add(overview.Point{Time: at})
		}
		if diff := cmp.Diff(test.want, times(r.After(test.after))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

func TestRingWraps(t *testing.T) {
	var r Ring
	for i := range int64(2*seconds + 17) {
		r.Add(overview.Point{Time: i})
	}
	last := int64(2*seconds + 16)
	got := times(r.After(0))
	if len(got) != seconds || got[0] != last-seconds+1 || got[len(got)-1] != last {
		t.Errorf("got %d points from %d to %d", len(got), got[0], got[len(got)-1])
	}
	if p, ok := r.At(last - 5); !ok || p.Time != last-5 {
		t.Errorf("point of five seconds ago: got %v %v", p, ok)
	}
	if _, ok := r.At(3); ok {
		t.Error("a point that was overwritten is still there")
	}
}
