package alerts

import (
	"time"

	"sigtrail/index"
)

// Facts are what a rule judges: a case from the index, and what is expected.
type Facts struct {
	index.Case
	Policy ProjectPolicy
	Now    time.Time
}

// A Rule is a small value that turns facts into findings.
type Rule struct {
	Name     string
	Severity Severity
	Meaning  string // one line
	Next     string // what to do
	Check    func(Facts) []Alert
}

// Rules is every rule, in the order in which they are asked.
var Rules = []Rule{logEquivocation, logInconsistent, logKeyChanged, unexpectedSigner, untrustedCertificate, provenanceLost}

// believable reports whether an entry's binding to the file can be held against
// anybody: proven by hash and signature or by PyPI, by a certificate that leads
// to the trusted root. What only a search index claims is a candidate.
func believable(c index.Case) (index.Binding, bool) {
	for _, b := range c.Bindings {
		if b.Entry.Signer == nil || b.Entry.Trust != "" {
			return index.Binding{}, false
		}
		if b.Evidence == index.ByProvenance || (b.Evidence == index.ByStatement || b.Evidence == index.ByArtifact) && b.Signature == "" {
			return b, true
		}
	}
	return index.Binding{}, false
}

// named reports whether PyPI's provenance object contains the entry.
func named(c index.Case) bool {
	for _, b := range c.Bindings {
		if b.Evidence == index.ByProvenance {
			return true
		}
	}
	return false
}
