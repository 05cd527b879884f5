package timeline

import (
	"strings"
	"testing"
	"time"

	"sigtrail/index"
)

func TestLookupCoverage(t *testing.T) {
	for want, l := range map[string]LookupCoverage{
		"s by file digest: asked 4 times about 1 file, last 2026-01-01T12:05:00Z; nothing found, unverifiable":                           {By: "digest", Files: 1, Times: 4, Last: clock(5), Empty: 1},
		"s by digest of the statement: asked 6 times about 3 files, last 2026-01-01T12:05:00Z; 2 found":                                  {By: "payload", Files: 3, Times: 6, Last: clock(5), Found: 2},
		"s by index in the provenance: asked 1 time about 2 files, last 2026-01-01T12:05:00Z; 2 found, nothing for 1 file, unverifiable": {By: "provenance", Files: 2, Times: 1, Last: clock(5), Found: 2, Empty: 1},
		"s by signer x: asked 2 times, last 2026-01-01T12:05:00Z; 300 entries named, 200 not fetched yet":                                {By: "identity", Identity: "x", Times: 2, Last: clock(5), Found: 300, Unread: 200},
		"s by signer x: not asked yet":                                                              {By: "identity", Identity: "x"},
		"s by signer x: asked, last 2026-01-01T12:05:00Z, without an answer: down":                  {By: "identity", Identity: "x", Last: clock(5), Error: "down"},
		"s by signer x: asked 1 time, last 2026-01-01T12:05:00Z; nothing found, unverifiable; down": {By: "identity", Identity: "x", Times: 1, Last: clock(5), Error: "down"},
	} {
		l.Server = "s"
		if got := l.String(); got != want {
			t.Errorf("%+v:\n got %s\nwant %s", l, got, want)
		}
	}
}

// The answers about several files are added up.
func TestLookupsAddUp(t *testing.T) {
	var c Coverage
	for i := range 3 {
		c.asked("s", index.KindAsked{Kind: index.LookupDigest, First: *clock(10 - i), Last: *clock(20 - i), Times: 2, Found: i})
	}
	c.asked("other", index.KindAsked{Kind: index.LookupDigest, First: *clock(1), Last: *clock(1), Times: 1})
	if len(c.Lookups) != 2 {
		t.Fatalf("%+v", c.Lookups)
	}
	l := c.Lookups[0]
	if l.Files != 3 || l.Empty != 1 || l.Times != 6 || l.Found != 3 || !l.First.Equal(*clock(8)) || !l.Last.Equal(*clock(20)) {
		t.Errorf("%+v", l)
	}
	if given(time.Time{}) != nil || !strings.Contains(l.String(), "nothing for 1 file") {
		t.Errorf("%s", l)
	}
}
