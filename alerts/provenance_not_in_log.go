package alerts

import (
	"fmt"
)

var provenanceNotInLog = Rule{
	Name:     "provenance-not-in-log",
	Severity: Critical,
	Meaning:  "PyPI shows a log entry for a file, and at that place the log has another",
	Next:     "keep the provenance object and the log's answer; fetch both again from another network; if they stay as they are, tell the log's operator and PyPI, for nobody who reads the log can see what was signed",
	Check:    checkProvenanceNotInLog,
}

func checkProvenanceNotInLog(f Facts) []Alert {
	var all []Alert
	told := make(map[string]bool)
	for _, m := range f.Missing {
		id := alertID("provenance-not-in-log", f.File.Project, f.File.Version, m.KeyID.String())
		if told[id] {
			continue
		}
		told[id] = true
		idx, global := m.Global-m.Log.FirstGlobal, m.Global
		all = append(all, Alert{
			ID:      id,
			Title:   fmt.Sprintf("%s %s: entry %d is not in the log", f.File.Project, f.File.Version, global),
			Reason:  fmt.Sprintf("PyPI shows %s with entry %d of %s by %s, but the leaf there is another than %s.", f.File.Name, global, m.Log.Origin, shownPublisher(m.Publisher), m.Hash),
			Project: f.File.Project, Version: f.File.Version,
			Files: []File{file(f.File)},
			Log:   &LogRef{Origin: m.Log.Origin, Index: &idx, Global: &global, Link: link(m.Log, idx)},
			Times: append(uploaded(f.File), Time{"found to be missing", "sigtrail", m.Since.UTC()}),
		})
	}
	return all
}
