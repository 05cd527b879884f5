package alerts

import (
	"encoding/json"
	"fmt"

	"sigtrail/index"
)

// High and not critical: PyPI verifies before it takes an upload, so that what it shows
// should hold everywhere, but a trusted root on this machine that is out of date makes
// everything new look like this.
var provenanceInvalid = Rule{
	Name:     "provenance-invalid",
	Severity: High,
	Meaning:  "PyPI shows an attestation for a file that does not hold",
	Next:     "do not install the file; compare its provenance as fetched from another network (an altered answer is somebody between), and look at the age of the trusted root if many projects fire at once",
	Check:    checkProvenanceInvalid,
}

func checkProvenanceInvalid(f Facts) []Alert {
	var all []Alert
	told := make(map[string]bool)
	for _, v := range f.Verdicts {
		if v.State != index.AttestationInvalid || told[v.Failed] {
			continue
		}
		told[v.Failed] = true
		all = append(all, Alert{
			ID:      alertID("provenance-invalid", f.File.Project, f.File.Version, v.Failed),
			Title:   fmt.Sprintf("%s %s: invalid attestation: %s", f.File.Project, f.File.Version, failed(v.Failed)),
			Reason:  fmt.Sprintf("PyPI shows %s with an attestation by %s that does not hold: %s (%s; trusted root %.12s).", f.File.Name, shownPublisher(v.Publisher), failed(v.Failed), v.Error, v.Root),
			Project: f.File.Project, Version: f.File.Version,
			Files: []File{file(f.File)}, Condition: v.Failed,
			Times: append(uploaded(f.File), Time{"verified", "sigtrail", v.At.UTC()}),
		})
	}
	return all
}

// conditions say what each condition of a verdict asks for (rekor.Unverified,
// pypi.Verdict).
var conditions = map[string]string{
	"form":           "its form can be judged",
	"log":            "the trusted root names the log of its entry",
	"set":            "the log has signed the entry's time",
	"inclusion":      "its entry is in the tree that the log has signed",
	"entry":          "its log entry is about the same signature, certificate and statement",
	"time":           "somebody who is trusted says when it was signed",
	"chain":          "its certificate leads to the trusted root",
	"sct":            "a certificate log has promised to show its certificate",
	"signature":      "its signature is over its statement",
	"statement":      "its statement is an in-toto statement",
	"subjects":       "its statement is about one file",
	"subject-name":   "its statement is about this file",
	"subject-digest": "its statement is about these bytes",
	"publisher":      "its certificate is that of the publisher shown",
}

// failed says in words which condition does not hold.
func failed(condition string) string {
	if what, ok := conditions[condition]; ok {
		return condition + ": it is not so that " + what
	}
	return condition
}

// shownPublisher is a publisher object of PyPI in a few words. What is unknown of it
// is left out.
func shownPublisher(object string) string {
	var p struct {
		Kind       string `json:"kind"`
		Repository string `json:"repository"`
		Workflow   string `json:"workflow"`
		Filepath   string `json:"workflow_filepath"`
		Email      string `json:"email"`
	}
	if json.Unmarshal([]byte(object), &p) != nil || p.Kind == "" {
		return "an unreadable publisher"
	}
	text := p.Kind
	for _, s := range []string{p.Repository, p.Workflow, p.Filepath, p.Email} {
		if s != "" {
			text += " " + s
		}
	}
	const most = 300
	if len(text) > most {
		text = text[:most]
	}
	return text
}
