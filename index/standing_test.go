package index

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// The shapes of releases that incidents had (ultralytics, svglib, fast_mail_parser,
// pypi-attestations), and those that have to be told apart from them.
func TestStandings(t *testing.T) {
	const (
		ci    = `{"kind":"GitHub","repository":"Owner/repo","workflow":"publish.yml","environment":null}`
		same  = `{"claims":null,"kind":"GitHub","repository":"owner/repo","workflow":"publish.yml","environment":""}`
		moved = `{"kind":"GitHub","repository":"new/repo","workflow":"publish.yml","environment":"pypi"}`
		other = `{"kind":"GitHub","repository":"owner/repo","workflow":"release.yml"}`
		lab   = `{"kind":"GitLab","repository":"owner/repo","workflow_filepath":".gitlab-ci.yml"}`
	)
	// A letter a file: a attested, n not, p pending, r refused, u unreadable; x: it is
	// gone, y: it is yanked.
	file := func(version string, day int, what, publisher string) StandingFile {
		f := StandingFile{Version: version, At: storeEpoch.AddDate(0, 0, day), Gone: strings.Contains(what, "x"), Yanked: strings.Contains(what, "y")}
		f.Provenance = map[byte]ProvenanceState{'a': ProvenancePresent, 'n': ProvenanceAbsent, 'p': ProvenancePending, 'r': ProvenanceRefused, 'u': ProvenanceUnreadable}[what[0]]
		if what[0] == 'a' {
			f.Publishers = []string{publisher}
		}
		return f
	}
	for _, c := range []struct {
		name     string
		releases [][]string // of each release its files: what, publisher, what, publisher …
		want     []string
	}{
		{"never attested: no baseline", [][]string{{"n", ""}, {"n", "", "n", ""}}, []string{"none", "none"}},
		{"ultralytics: a poisoned build, then a stolen token, then removed", [][]string{{"a", ci, "a", ci}, {"ax", ci, "ax", ci}, {"nx", ""}, {"a", ci}},
			[]string{"full", "full removed", "none lost removed", "full"}},
		{"svglib: another upload tool for two releases", [][]string{{"a", ci}, {"n", ""}, {"n", ""}, {"a", ci}}, []string{"full", "none lost", "none lost", "full"}},
		{"a wheel without provenance", [][]string{{"a", ci, "n", ""}}, []string{"partial"}},
		{"the one without was removed", [][]string{{"a", ci, "nx", ""}}, []string{"full"}},
		{"all yanked", [][]string{{"ay", ci}}, []string{"full"}},
		{"pypi-attestations: moved to another owner", [][]string{{"a", ci}, {"a", moved}, {"a", moved}}, []string{"full", "full changed", "full"}},
		{"the environment and spelling are no change", [][]string{{"a", ci}, {"a", same}}, []string{"full", "full"}},
		{"another workflow", [][]string{{"a", ci}, {"a", other, "n", ""}}, []string{"full", "partial changed"}},
		{"changed since the last attested, not the last", [][]string{{"a", ci}, {"n", ""}, {"a", lab}}, []string{"full", "none lost", "full changed"}},
		{"two workflows in one release", [][]string{{"a", ci, "a", other}}, []string{"full inconsistent"}},
		{"two workflows, one of them new", [][]string{{"a", ci}, {"a", ci, "a", other}}, []string{"full", "full inconsistent changed"}},
		{"not fetched is not none", [][]string{{"p", ""}}, []string{"pending"}},
		{"refused is not none", [][]string{{"a", ci}, {"r", "", "n", ""}}, []string{"full", "pending"}},
		{"partial whatever the rest will say", [][]string{{"a", ci, "n", "", "p", ""}}, []string{"partial pending"}},
		{"what came before is not known: no lost, no first", [][]string{{"p", ""}, {"n", ""}, {"a", ci}, {"a", ci}},
			[]string{"pending", "none pending", "full pending", "full"}},
		{"lost whatever a release in between will say", [][]string{{"a", ci}, {"p", ""}, {"n", ""}}, []string{"full", "pending", "none lost"}},
		{"an object that cannot be read", [][]string{{"a", ci}, {"u", ""}, {"a", moved}}, []string{"full", "full unreadable", "full changed"}},
	} {
		var files []StandingFile
		for i, r := range c.releases {
			for j := 0; j < len(r); j += 2 {
				files = append(files, file(fmt.Sprint(i), i, r[j], r[j+1]))
			}
		}
		var got []string
		for _, s := range Standings(files) {
			var words []string
			for _, w := range s.Words {
				words = append(words, string(w))
			}
			if s.Removed {
				words = append(words, "removed")
			}
			got = append(got, strings.Join(words, " "))
		}
		if fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%s:\n got %q\nwant %q", c.name, got, c.want)
		}
	}
}

// A wheel that is added to an old release does not make it a new one, and what is
// counted adds up.
func TestStandingOrder(t *testing.T) {
	at := func(d int) time.Time { return storeEpoch.AddDate(0, 0, d) }
	got := Standings([]StandingFile{
		{Version: "2", At: at(2), Provenance: ProvenanceAbsent, Yanked: true},
		{Version: "1", At: at(9), Provenance: ProvenanceRefused},
		{Version: "1", At: at(1), Provenance: ProvenancePresent, Publishers: []string{"[]"}},
		{Version: "1", At: at(1), Provenance: ProvenancePresent, Gone: true},
	})
	if len(got) != 2 || got[0].Version != "1" || !got[0].First.Equal(at(1)) || got[0].Files != 2 || got[0].Attested != 1 || got[0].Pending != 1 ||
		got[0].Refused != 1 || got[0].Gone != 1 || got[1].Compared != "1" || got[1].Yanked != 1 || !got[1].Is(StandingLost) {
		t.Errorf("got %+v", got)
	}
}
