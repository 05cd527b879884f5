package timeline

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/google/go-cmp/cmp"

	"sigtrail/index"
)

func clock(minutes int) *time.Time {
	t := time.Date(2026, 1, 1, 12, minutes, 0, 0, time.UTC)
	return &t
}

func logged(log string, idx uint64, at *time.Time) Event {
	return Event{Kind: "logged", Log: log, Index: &idx, Global: &idx, At: at, Clock: ClockLog, Text: fmt.Sprint(log, idx)}
}

// Inside a log the index decides, whatever the times say, and the contradiction
// is marked.
func TestOrder(t *testing.T) {
	events := []Event{
		logged("a", 5, clock(10)), logged("a", 6, clock(3)), logged("b", 1, clock(7)),
		{Kind: "uploaded", At: clock(5), Text: "up"}, {Kind: "certificate-issued", At: clock(5), Text: "cert"},
		{Kind: "logged", Log: "c", Index: new(uint64), After: clock(4), Before: clock(20), Clock: ClockNone, Text: "c0"},
	}
	sortEvents(events)
	var got []string
	for _, e := range events {
		got = append(got, e.Text)
		if marked := strings.Contains(e.Note, "smaller index"); marked != (e.Text == "a6") {
			t.Errorf("%s: note %q", e.Text, e.Note)
		}
	}
	if d := cmp.Diff([]string{"c0", "cert", "up", "b1", "a5", "a6"}, got); d != "" {
		t.Error(d)
	}
}

func TestParseSelector(t *testing.T) {
	for text, want := range map[string]Selector{
		"Sample_Project":             {by: index.Selection{Project: "sample-project"}},
		"testpypi/Sample_Project":    {by: index.Selection{Project: "sample-project", Index: "testpypi"}},
		"testpypi/a==2":              {by: index.Selection{Project: "a", Index: "testpypi"}, version: "2"},
		"pypi/a":                     {by: index.Selection{Project: "a"}},
		"a.b==1.0":                   {by: index.Selection{Project: "a-b"}, version: "1.0"},
		"sampleproject-4.0.0.tar.gz": {by: index.Selection{Filename: "sampleproject-4.0.0.tar.gz"}},
		strings.Repeat("AB", 32):     {by: index.Selection{SHA256: bytes.Repeat([]byte{0xab}, 32)}},
	} {
		want.Text = text
		got, err := ParseSelector(text)
		if d := cmp.Diff(want, got, cmp.AllowUnexported(Selector{})); err != nil || d != "" {
			t.Errorf("%s: %v\n%s", text, err, d)
		}
	}
	for _, text := range []string{"", "a b", "==1", "a==", "/b", "a/", "a/b/c", "a/b.whl", "testpypi/==1", strings.Repeat("x", 600)} {
		if s, err := ParseSelector(text); err == nil {
			t.Errorf("%q accepted as %+v", text, s)
		}
	}
}

// No line is longer than the table is wide, however long what it says.
func TestTableWidth(t *testing.T) {
	long := strings.Repeat("x", 300)
	p := index.Publisher{Issuer: long, Identity: long}
	e := logged(long, 1, nil)
	e.Publisher, e.Note, e.Before, e.After = &p, long+" "+long, clock(1), clock(0)
	var out bytes.Buffer
	err := newTable(&out, Options{}).write([]index.File{{Project: long, Version: long, Name: long}}, []index.Pin{{Publisher: p, How: long}},
		[]Event{e, {Kind: "alert", Text: long + "\x1b[31m\u202e", At: clock(2)}}, Coverage{Not: []string{long}, Logs: []LogCoverage{{Origin: long}}})
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > 100 || strings.ContainsAny(line, "\x1b\u202e") {
			t.Errorf("%d columns: %q", n, line)
		}
	}
}

func FuzzSelector(f *testing.F) {
	f.Add("sampleproject==4.0.0")
	f.Add("x.whl")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSelector(text)
		if err != nil {
			return
		}
		named := 0
		for _, set := range []bool{s.by.Project != "", s.by.Filename != "", s.by.SHA256 != nil} {
			if set {
				named++
			}
		}
		if named > 1 {
			t.Fatalf("%q names files in two ways: %+v", text, s)
		}
	})
}
