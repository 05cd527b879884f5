package main

import (
	"bytes"
	"strings"
	"testing"
	"unicode/utf8"
)

// The demo ends well, shows both alerts and the timeline, fits in 100 columns and
// writes no colour where there is no terminal.
func TestDemo(t *testing.T) {
	var out bytes.Buffer
	if code := Main(t.Context(), []string{"demo"}, &out, t.Output()); code != exitFine {
		t.Fatalf("exit code %d\n%s", code, out.String())
	}
	for _, want := range []string{"ALERT unexpected-signer (critical): ultralytics 8.3.42", "ALERT provenance-lost (high): ultralytics 8.3.45",
		"not a pinned publisher", "LOOKED AT", "NOT LOOKED AT"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the demo does not say %q", want)
		}
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 || strings.Contains(line, "\x1b") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}
