package alerts

import (
	"fmt"
	"slices"

	"sigtrail/index"
)

var unexpectedSigner = Rule{
	Name:     "unexpected-signer",
	Severity: Critical,
	Meaning:  "a release file was signed by a publisher that is not expected for the project",
	Next:     "ask the project's maintainers whether they know this signer; until then treat the release as compromised and do not install it",
	Check:    checkUnexpectedSigner,
}

func checkUnexpectedSigner(f Facts) []Alert {
	b, ok := believable(f.Case)
	if !ok {
		return nil
	}
	p := b.Entry.Signer.Publisher()
	expected, known := f.expected(p)
	rejected := f.rejected(p)
	if known || len(expected) == 0 && !rejected {
		return nil // expected; or no baseline to hold it against
	}
	if len(f.Shown) > 0 && !named(f.Case) && !rejected {
		// The same bytes published on another index, say on TestPyPI first. Who
		// signs there is judged there.
		return nil
	}
	why := fmt.Sprintf("is not among the publishers expected for %s", f.File.Project)
	if rejected {
		why = fmt.Sprintf("a person has rejected for %s", f.File.Project)
	}
	if named(f.Case) {
		why += "; " + shower(f.File) + " shows it as the file's attestation"
	}
	return []Alert{{
		ID:      alertID("unexpected-signer", f.File.Project, f.File.Version, p.Key()),
		Title:   fmt.Sprintf("%s %s: signed by %s", f.File.Project, f.File.Version, p),
		Reason:  fmt.Sprintf("%s was signed by %s, which %s.", f.File.Name, p, why),
		Project: f.File.Project, Version: f.File.Version,
		Files: []File{file(f.File)},
		Log:   logRef(b.Entry), Seen: seen(b.Entry.Signer), Expected: expected,
		Evidence: string(b.Evidence), Times: times(f.File, b.Entry),
	}}
}

// expected lists who may sign for the project, and whether p is one of them. The
// policy, where it names publishers, wins over pins.
func (f Facts) expected(p index.Publisher) (who []string, known bool) {
	if len(f.Policy.Publishers) > 0 {
		for _, e := range f.Policy.Publishers {
			who = append(who, e.String()+" (policy)")
			known = known || e.Matches(p)
		}
		return who, known
	}
	for _, pin := range f.Pins {
		if pin.State == index.PinLearned || pin.State == index.PinApproved {
			who = append(who, fmt.Sprintf("%s (%s: %s)", pin.Publisher, pin.State, pin.How))
			known = known || pin.Publisher.Same(p)
		}
	}
	return who, known
}

// rejected reports whether a person has said that p must not sign. Where the
// policy names publishers, pins say nothing.
func (f Facts) rejected(p index.Publisher) bool {
	return len(f.Policy.Publishers) == 0 && slices.ContainsFunc(f.Pins, func(pin index.Pin) bool {
		return pin.State == index.PinRejected && pin.Publisher.Same(p)
	})
}

// learn returns the pin that a case teaches: the publisher of an entry that
// PyPI's own provenance names in an attestation that holds, as long as the project
// has no pin at all, and for the history that PyPI listed before we began, until all
// of it has been read.
// Later publishers are never learned silently.
func learn(f Facts) []index.Pin {
	if len(f.Policy.Publishers) > 0 || f.File == nil || !vouched(f.Case) {
		return nil
	}
	b, ok := believable(f.Case)
	if !ok || len(f.Pins) > 0 && !f.File.FirstListing {
		return nil
	}
	p := b.Entry.Signer.Publisher()
	for _, pin := range f.Pins {
		if pin.Publisher.Key() == p.Key() {
			return nil
		}
		if pin.State != index.PinLearned {
			return nil // a person has decided about this project
		}
	}
	return []index.Pin{{Index: f.File.Index, Project: f.File.Project, Publisher: p, State: index.PinLearned,
		How: "first attested history: " + f.File.Name + ", " + shower(f.File) + " provenance", Made: f.Now}}
}
