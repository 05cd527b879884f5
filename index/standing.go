package index

import (
	"cmp"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"
)

// A Standing word says how a release is attested. The first six are PyPI's own
// (pypi/warehouse pull request 20326); a release has one of none, partial and full,
// and any of the others.
type StandingWord string

const (
	StandingNone         StandingWord = "none"         // no file has provenance
	StandingPartial      StandingWord = "partial"      // some files have it
	StandingFull         StandingWord = "full"         // all files have it
	StandingInconsistent StandingWord = "inconsistent" // its files come from several repositories or workflows
	StandingLost         StandingWord = "lost"         // none, and an earlier release had it
	StandingChanged      StandingWord = "changed"      // other repositories or workflows than the last attested release before it

	// StandingPending: PyPI names provenance that has not been fetched, of this
	// release or of the one that it is compared with. What that could change is not
	// said: such a release is not called none, lost or changed on half the facts.
	StandingPending StandingWord = "pending"
	// StandingUnreadable: a provenance object was served and does not parse. It
	// counts as provenance, by an unknown publisher.
	StandingUnreadable StandingWord = "unreadable"
)

// A StandingFile is what the standing of a release needs of one file.
type StandingFile struct {
	Version    string
	At         time.Time // upload, or when it was first seen
	Gone       bool      // no longer listed
	Yanked     bool
	Provenance ProvenanceState
	Publishers []string // PyPI's publisher objects of its provenance, JSON as served
}

// A Standing sums up one release. Counts are of the files that are still listed or,
// once a release was removed whole, of those that were.
type Standing struct {
	Version    string
	First      time.Time // first file
	Files      int
	Attested   int
	Pending    int // named and not fetched
	Refused    int // of them, because the index has switched attestations off
	Unreadable int // of those attested
	Yanked     int
	Gone       int  // files that are no longer listed
	Removed    bool // no file is listed any more
	Words      []StandingWord
	Publishers []TrustedPublisher // sorted
	Compared   string             // the attested release that lost and changed refer to; "": none before it
}

// Is reports whether a word applies.
func (s Standing) Is(w StandingWord) bool { return slices.Contains(s.Words, w) }

// A TrustedPublisher is what PyPI's publisher object says and releases are compared
// by. The environment is no part of it, as it is none for PyPI.
type TrustedPublisher struct {
	Kind       string `json:"kind"`
	Repository string `json:"repository,omitempty"` // owner/name, lower case
	Workflow   string `json:"workflow,omitempty"`   // file name, or path for GitLab
	Email      string `json:"email,omitempty"`      // kind Google
}

// ReadTrustedPublisher reads a publisher object. An unknown kind is kept as such; what
// is no object has no kind.
func ReadTrustedPublisher(object string) TrustedPublisher {
	var p struct {
		Kind       string `json:"kind"`
		Repository string `json:"repository"`
		Workflow   string `json:"workflow"`
		Path       string `json:"workflow_filepath"`
		Email      string `json:"email"`
	}
	if json.Unmarshal([]byte(object), &p) != nil {
		return TrustedPublisher{}
	}
	if p.Workflow == "" {
		p.Workflow = p.Path
	}
	return TrustedPublisher{p.Kind, strings.ToLower(p.Repository), p.Workflow, p.Email}
}

func (p TrustedPublisher) String() string {
	return strings.Join(slices.DeleteFunc([]string{p.Kind, p.Repository, p.Workflow, p.Email}, func(s string) bool { return s == "" }), " ")
}

// Standings works out how the releases of one project stand, those with the earliest
// first file first. Releases that were removed count as what came before, because a
// deletion does not make them unhappened.
func Standings(files []StandingFile) []Standing {
	var releases []Standing
	for _, group := range byRelease(files) {
		releases = append(releases, sumUp(group))
	}
	slices.SortFunc(releases, func(a, b Standing) int {
		return cmp.Or(a.First.Compare(b.First), strings.Compare(a.Version, b.Version))
	})
	var last *Standing // the last attested release
	unsure := false    // whether one after it is attested is not known
	for i := range releases {
		r := &releases[i]
		compare(r, last, unsure)
		switch {
		case r.Attested > 0 && r.Unreadable < r.Attested:
			last, unsure = r, r.Pending > 0
		case r.Pending > 0:
			unsure = true
		}
	}
	return releases
}

// byRelease groups files in the order in which their versions come.
func byRelease(files []StandingFile) [][]StandingFile {
	at := make(map[string]int)
	var groups [][]StandingFile
	for _, f := range files {
		i, ok := at[f.Version]
		if !ok {
			i = len(groups)
			at[f.Version] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], f)
	}
	return groups
}

// sumUp says what can be said of a release by itself.
func sumUp(files []StandingFile) Standing {
	s := Standing{Version: files[0].Version, First: files[0].At}
	publishers := make(map[TrustedPublisher]bool)
	s.Removed = !slices.ContainsFunc(files, func(f StandingFile) bool { return !f.Gone })
	for _, f := range files {
		if f.At.Before(s.First) {
			s.First = f.At
		}
		if f.Gone {
			s.Gone++
			if !s.Removed {
				continue
			}
		}
		s.Files++
		if f.Yanked {
			s.Yanked++
		}
		switch f.Provenance {
		case ProvenancePresent:
			s.Attested++
			for _, p := range f.Publishers {
				publishers[ReadTrustedPublisher(p)] = true
			}
		case ProvenanceUnreadable:
			s.Attested, s.Unreadable = s.Attested+1, s.Unreadable+1
		case ProvenanceAbsent:
		case ProvenanceRefused:
			s.Pending, s.Refused = s.Pending+1, s.Refused+1
		default:
			s.Pending++
		}
	}
	s.Publishers = slices.SortedFunc(maps.Keys(publishers), func(a, b TrustedPublisher) int { return strings.Compare(a.String(), b.String()) })
	without := s.Files - s.Attested - s.Pending
	switch {
	case s.Attested > 0 && without > 0:
		s.Words = append(s.Words, StandingPartial)
	case s.Pending > 0:
	case s.Attested > 0:
		s.Words = append(s.Words, StandingFull)
	default:
		s.Words = append(s.Words, StandingNone)
	}
	if len(s.Publishers) > 1 {
		s.Words = append(s.Words, StandingInconsistent)
	}
	if s.Unreadable > 0 {
		s.Words = append(s.Words, StandingUnreadable)
	}
	return s
}

// compare adds what a release is beside the last attested one before it.
func compare(r *Standing, last *Standing, unsure bool) {
	if last != nil {
		r.Compared = last.Version
	}
	pending := r.Pending > 0
	switch {
	case pending:
	case r.Attested == 0 && last != nil:
		r.Words = append(r.Words, StandingLost)
	case unsure:
		pending = true
	case r.Attested > 0 && last != nil && len(r.Publishers) > 0 && len(last.Publishers) > 0 && !slices.Equal(r.Publishers, last.Publishers):
		r.Words = append(r.Words, StandingChanged)
	}
	if pending {
		r.Words = append(r.Words, StandingPending)
	}
}
