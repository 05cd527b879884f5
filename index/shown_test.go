package index

import (
	"encoding/base64"
	"fmt"
	"testing"
	"time"

	"sigtrail/monitor"
)

// A monitor that shows ever more heads of logs that nobody follows does not fill the
// disk, nor does it push out what others show.
func TestShownIsBounded(t *testing.T) {
	s := openTest(t, Options{})
	size := 0
	heads := func(source string, n int) (out []monitor.Shown) {
		for range n {
			size++
			note := fmt.Sprintf("unknown.example\n%d\n%s\n\n— unknown.example AAAAAAAA\n", size, base64.StdEncoding.EncodeToString(make([]byte, 32)))
			out = append(out, monitor.Shown{Note: []byte(note), Source: source, Seen: storeEpoch})
		}
		return out
	}
	ok(t, s.Show(t.Context(), heads("monitor quiet.example", 2)))
	var last []monitor.Shown
	for range 3 {
		last = heads("monitor loud.example", shownAtMost/2+1)
		ok(t, s.Show(t.Context(), last))
	}
	due, err := s.ShownDue(t.Context(), storeEpoch.Add(time.Hour), 10*shownAtMost)
	ok(t, err)
	newest, quiet := false, 0
	for _, h := range due {
		newest = newest || string(h.Note) == string(last[len(last)-1].Note)
		if h.Source == "monitor quiet.example" {
			quiet++
		}
	}
	if len(due) != shownAtMost+2 || quiet != 2 || !newest {
		t.Errorf("%d heads kept, %d of them from the quiet source; the newest is there: %t", len(due), quiet, newest)
	}
}
