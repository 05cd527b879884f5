package index

import "bytes"

// issuers whose certificates can stand behind a PyPI file: those of PyPI's
// Trusted Publishers that sign, and those of people, whose signature beside a
// project's CI is just what one wants to hear of.
var issuers = [][]byte{
	[]byte("https://token.actions.githubusercontent.com"),
	[]byte("https://gitlab.com"),
	[]byte("https://accounts.google.com"),
	[]byte("https://github.com/login/oauth"),
	[]byte("https://oauth2.sigstore.dev/auth"),
	[]byte("https://login.microsoftonline.com"),
}

// likelyIssuer walks a certificate for its issuer extension and stops there.
func likelyIssuer(cert []byte) bool {
	likely := false
	err := walk(cert, nil, func(oid, value der) error {
		switch fulcioArc(oid) {
		case ExtIssuerV1:
			likely = likely || knownIssuer(value)
		case ExtIssuer:
			text, ok := value.only(tagUTF8)
			likely = likely || ok && knownIssuer(text)
		}
		return nil
	})
	return err == nil && likely
}

// knownIssuer accepts a known issuer and what hangs below it: GitHub gives each
// enterprise an issuer of its own, ISSUER/SLUG.
func knownIssuer(text []byte) bool {
	for _, i := range issuers {
		if rest, ok := bytes.CutPrefix(text, i); ok && (len(rest) == 0 || rest[0] == '/') {
			return true
		}
	}
	return false
}
