package rekor

import (
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"
	"time"

	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/verify"
)

// An authority is a certificate authority of the trusted root. That its issuing
// certificate leads to its root is verified once, when the root is loaded: a
// P-384 signature costs about a millisecond, and every certificate would pay
// for it again.
type authority struct {
	issuing     *x509.Certificate // signs the leaves
	anchor      *x509.CertPool    // issuing alone
	from, until time.Time         // when the authority and every certificate above the leaf are valid, inclusive
}

// newAuthorities reads the authorities of a root. One that does not hold together
// is left out: what it issued is then not trusted. The production roots of early
// 2023 list one chain upside down.
func newAuthorities(material *root.TrustedRoot) (out []authority, problems []error) {
	for i, ca := range material.FulcioCertificateAuthorities() {
		fulcio, ok := ca.(*root.FulcioCertificateAuthority)
		if !ok {
			problems = append(problems, fmt.Errorf("trusted root: certificate authority %d: type %T is not known", i, ca))
			continue
		}
		a, err := newAuthority(fulcio)
		if err != nil {
			problems = append(problems, fmt.Errorf("trusted root: certificate authority %d (%.100q): %w", i, fulcio.URI, err))
			continue
		}
		out = append(out, a)
	}
	return out, problems
}

func newAuthority(ca *root.FulcioCertificateAuthority) (authority, error) {
	chain := append(append([]*x509.Certificate(nil), ca.Intermediates...), ca.Root)
	a := authority{issuing: chain[0], anchor: x509.NewCertPool(), from: ca.ValidityPeriodStart, until: ca.ValidityPeriodEnd}
	a.anchor.AddCert(a.issuing)
	for i, c := range chain {
		if err := mayIssue(c, i); err != nil {
			return authority{}, fmt.Errorf("certificate %d of its chain: %w", i, err)
		}
		a.narrow(c.NotBefore, c.NotAfter)
		if i+1 == len(chain) {
			break
		}
		if err := c.CheckSignatureFrom(chain[i+1]); err != nil {
			return authority{}, fmt.Errorf("certificate %d of its chain: %w", i, err)
		}
	}
	return a, nil
}

// mayIssue checks what a path check from the leaf to the root would check of a
// certificate above the leaf, with below other such certificates under it.
// Name constraints are refused because Chain does not look above the issuing
// certificate; no Sigstore authority has any.
func mayIssue(c *x509.Certificate, below int) error {
	switch {
	case !c.BasicConstraintsValid || !c.IsCA:
		return errors.New("is no certificate authority")
	case c.KeyUsage != 0 && c.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("may not sign certificates")
	case (c.MaxPathLen > 0 || c.MaxPathLenZero) && below > c.MaxPathLen:
		return errors.New("stands too high for its path length")
	case len(c.UnhandledCriticalExtensions) > 0:
		return errors.New("has critical extensions that are not known")
	case constrainsNames(c):
		return errors.New("constrains names, which is not supported")
	}
	if len(c.ExtKeyUsage) == 0 && len(c.UnknownExtKeyUsage) == 0 {
		return nil
	}
	for _, u := range c.ExtKeyUsage {
		if u == x509.ExtKeyUsageCodeSigning || u == x509.ExtKeyUsageAny {
			return nil
		}
	}
	return errors.New("is not for code signing")
}

func constrainsNames(c *x509.Certificate) bool {
	return len(c.PermittedDNSDomains)+len(c.ExcludedDNSDomains)+len(c.PermittedIPRanges)+len(c.ExcludedIPRanges)+
		len(c.PermittedEmailAddresses)+len(c.ExcludedEmailAddresses)+len(c.PermittedURIDomains)+len(c.ExcludedURIDomains) > 0
}

// narrow intersects the authority's validity with another span.
func (a *authority) narrow(from, until time.Time) {
	if from.After(a.from) {
		a.from = from
	}
	if a.until.IsZero() || until.Before(a.until) {
		a.until = until
	}
}

var oidSubjectAltName = asn1.ObjectIdentifier{2, 5, 29, 17}

// ErrUntrusted is a certificate that does not lead to the trusted root.
var ErrUntrusted = errors.New("certificate does not lead to the trusted root")

// ErrNoSCT is the part of ErrUntrusted where the issuer is trusted but no
// certificate log promised to show the certificate.
var ErrNoSCT = errors.New("no signed certificate timestamp")

// Chain returns nil when a certificate authority of the trusted root, valid at
// that time, issued the certificate for code signing, valid at that time, and a
// certificate log of the root has signed for it. A root that names no
// certificate logs demands no signature of one.
func (t *Trust) Chain(cert *x509.Certificate, at time.Time) error {
	if at.IsZero() {
		return fmt.Errorf("%w: the time of signing is not known", ErrUntrusted) // x509 would take the present
	}
	leaf := withoutCriticalSAN(cert)
	err := errors.New("issued by no authority of the trusted root")
	for _, a := range t.authorities {
		if string(leaf.RawIssuer) != string(a.issuing.RawSubject) {
			continue
		}
		if e := a.issued(leaf, at); e != nil {
			err = e
			continue
		}
		return t.logged(leaf, a.issuing)
	}
	return fmt.Errorf("%w: %w", ErrUntrusted, err)
}

func (a *authority) issued(leaf *x509.Certificate, at time.Time) error {
	if at.Before(a.from) || at.After(a.until) {
		return fmt.Errorf("the authority was not valid at %s", at.UTC().Format(time.RFC3339))
	}
	_, err := leaf.Verify(x509.VerifyOptions{
		Roots:       a.anchor,
		CurrentTime: at,
		KeyUsages:   []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
	})
	return err
}

func (t *Trust) logged(leaf, issuing *x509.Certificate) error {
	if len(t.material.CTLogs()) == 0 {
		return nil
	}
	err := verify.VerifySignedCertificateTimestamp([][]*x509.Certificate{{leaf, issuing}}, 1, t.material)
	if err != nil {
		return fmt.Errorf("%w: %w: %w", ErrUntrusted, ErrNoSCT, err)
	}
	return nil
}

// withoutCriticalSAN returns the certificate as one whose subject alternative
// name has been handled. Fulcio writes user names as OtherName, which crypto/x509
// does not know, and marks the extension critical. Other readers may hold the
// certificate, so it is not changed in place.
func withoutCriticalSAN(cert *x509.Certificate) *x509.Certificate {
	var rest []asn1.ObjectIdentifier
	for _, oid := range cert.UnhandledCriticalExtensions {
		if !oid.Equal(oidSubjectAltName) {
			rest = append(rest, oid)
		}
	}
	if len(rest) == len(cert.UnhandledCriticalExtensions) {
		return cert
	}
	c := *cert
	c.UnhandledCriticalExtensions = rest
	return &c
}
