package alerts

import (
	"slices"
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
var Rules = []Rule{logEquivocation, logInconsistent, logKeyChanged, closedShardChanged, logStalled, coverageGap, unexpectedSigner, untrustedCertificate, provenanceLost, provenanceInvalid, provenanceNotInLog}

// believable reports whether an entry's binding to the file can be held against
// anybody: proven by hash and signature or by PyPI, by a certificate that leads
// to the trusted root. What only a search index claims is a candidate.
//
// A signature that was checked and does not verify ends it, even for an entry that
// PyPI names: a copied hash ties a certificate to nothing. PyPI's word stands
// alone only for statements that cannot be rebuilt, and only where its attestation
// holds: about this file, by the publisher that PyPI shows.
func believable(c index.Case) (index.Binding, bool) {
	for _, b := range c.Bindings {
		if b.Entry.Signer == nil || b.Entry.Trust != "" {
			return index.Binding{}, false
		}
		switch b.Evidence {
		case index.ByStatement, index.ByArtifact:
			return b, b.Signature == ""
		case index.ByProvenance:
			return b, b.Signature == "" && !slices.ContainsFunc(c.Bindings, func(o index.Binding) bool {
				return o.Evidence == index.ByArtifact && o.Signature != ""
			})
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

// vouched reports whether PyPI's provenance object contains the entry in an
// attestation that holds.
func vouched(c index.Case) bool {
	return slices.ContainsFunc(c.Bindings, func(b index.Binding) bool { return b.Evidence == index.ByProvenance && b.Signature == "" })
}
