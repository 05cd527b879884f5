package alerts

import (
	"fmt"

	"sigtrail/index"
)

var untrustedCertificate = Rule{
	Name:     "untrusted-certificate",
	Severity: Low,
	Meaning:  "somebody logged a signature for a release file with a certificate that does not lead to the trusted root",
	Next:     "look at the entry; anybody can write any name into such a certificate, so it proves nothing about who signed",
	Check:    checkUntrustedCertificate,
}

func checkUntrustedCertificate(f Facts) []Alert {
	if named(f.Case) {
		return nil // then provenance-invalid says so
	}
	for _, b := range f.Bindings {
		if b.Evidence == index.BySubject || b.Signature != "" || b.Entry.Signer == nil || b.Entry.Trust == "" {
			continue
		}
		s := b.Entry.Signer
		return []Alert{{
			ID:      alertID("untrusted-certificate", f.File.Project, f.File.Version), // one: such entries cost nothing to make
			Title:   fmt.Sprintf("%s %s: signature with an untrusted certificate", f.File.Project, f.File.Version),
			Reason:  fmt.Sprintf("An entry for %s carries a certificate that claims %s but is not trusted: %s.", f.File.Name, s.Publisher(), b.Entry.Trust),
			Project: f.File.Project, Version: f.File.Version,
			Files: []File{file(f.File)},
			Log:   logRef(b.Entry), Seen: seen(s), Evidence: string(b.Evidence), Times: times(f.File, b.Entry),
		}}
	}
	return nil
}
