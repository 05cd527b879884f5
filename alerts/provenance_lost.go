package alerts

import (
	"fmt"

	"sigtrail/index"
)

var provenanceLost = Rule{
	Name:     "provenance-lost",
	Severity: High,
	Meaning:  "a new file has no attestation although the project's last releases had them",
	Next:     "ask the maintainers how the release was uploaded; an upload with a stolen API token looks just like this",
	Check:    checkProvenanceLost,
}

// lookBack is how many releases before this one are asked whether they were
// attested.
const lookBack = 5

func checkProvenanceLost(f Facts) []Alert {
	if f.File == nil || len(f.Bindings)+len(f.Verdicts)+len(f.Missing) > 0 || f.Provenance != index.ProvenanceAbsent || f.File.FirstListing ||
		f.Policy.Attestations == AttestationsOptional {
		return nil
	}
	if f.File.ProvenanceURL != "" && !f.File.Gone.IsZero() {
		return nil // it had one, which went with the file before anybody asked for it
	}
	this, last, found := compareReleases(f.Releases, f.File.Version)
	reason := ""
	switch {
	case found:
		reason = fmt.Sprintf("%s has no attestation; last attested: %s, %d of %d files; this release: %d of %d.",
			f.File.Name, last.Version, last.Attested, last.Files, this.Attested, this.Files)
	case f.Policy.Attestations == AttestationsRequired:
		reason = fmt.Sprintf("%s has no attestation, and the policy requires them for %s.", f.File.Name, f.File.Project)
	default:
		return nil
	}
	a := Alert{
		ID:      alertID("provenance-lost", f.File.Project, f.File.Version),
		Title:   fmt.Sprintf("%s %s: uploaded without attestation", f.File.Project, f.File.Version),
		Reason:  reason,
		Project: f.File.Project, Version: f.File.Version,
		Files: []File{file(f.File)},
		Times: append(uploaded(f.File), Time{"first seen", "sigtrail", f.File.FirstSeen.UTC()}),
	}
	return []Alert{a}
}

// compareReleases finds the release itself and the newest attested one among the
// few before it.
func compareReleases(releases []index.Release, version string) (this, last index.Release, found bool) {
	at := len(releases)
	for i, r := range releases {
		if r.Version == version {
			this, at = r, i
		}
	}
	for i := at - 1; i >= 0 && i >= at-lookBack; i-- {
		if releases[i].Attested > 0 {
			return this, releases[i], true
		}
	}
	return this, last, false
}
