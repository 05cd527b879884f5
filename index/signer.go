package index

import (
	"crypto/sha256"
	"encoding/asn1"
	"fmt"
	"net"
	"time"
	"unicode/utf8"
)

// Extensions of Fulcio certificates by their last arc, 1.3.6.1.4.1.57264.1.N
// (fulcio docs/oid-info.md). .1 to .6 hold raw bytes, .8 to .24 a DER UTF8String;
// .7 is no extension, it names the OtherName form of a SAN.
const (
	ExtIssuerV1 = iota + 1
	ExtGitHubTrigger
	ExtGitHubSHA
	ExtGitHubWorkflowName
	ExtGitHubRepository
	ExtGitHubRef
	ExtOtherName
	ExtIssuer
	ExtBuildSignerURI
	ExtBuildSignerDigest
	ExtRunnerEnvironment
	ExtSourceRepositoryURI
	ExtSourceRepositoryDigest
	ExtSourceRepositoryRef
	ExtSourceRepositoryID
	ExtSourceRepositoryOwnerURI
	ExtSourceRepositoryOwnerID
	ExtBuildConfigURI
	ExtBuildConfigDigest
	ExtBuildTrigger
	ExtRunInvocationURI
	ExtSourceRepositoryVisibility
	ExtDeploymentEnvironment
	ExtTokenSubject
)

// A Field is one extension: absent, or there with a value that may be empty.
type Field struct {
	Set   bool
	Value string
}

// A Signer is what one certificate says. It is a claim until the certificate is
// traced to the trusted root.
type Signer struct {
	Fingerprint [32]byte // SHA-256 of DER
	DER         []byte
	SAN         string
	SANType     string    // "uri", "email", "dns", "ip", "other"
	Fields      [25]Field // Fields[N] is extension .N
	NotBefore   time.Time
	NotAfter    time.Time
}

// Get is the value of extension .N, "" when absent.
func (s Signer) Get(n int) string { return s.Fields[n].Value }

// Issuer is the OIDC issuer: .8, in old certificates .1.
func (s Signer) Issuer() string {
	if s.Fields[ExtIssuer].Set {
		return s.Fields[ExtIssuer].Value
	}
	return s.Fields[ExtIssuerV1].Value
}

var (
	oidFulcio    = der{0x2b, 0x06, 0x01, 0x04, 0x01, 0x83, 0xbf, 0x30, 0x01} // 1.3.6.1.4.1.57264.1
	oidSAN       = der{0x55, 0x1d, 0x11}
	oidOtherName = append(append(der{}, oidFulcio...), ExtOtherName)
)

// ParseSigner reads a certificate by walking its outline. Signatures and names
// of the issuing authority are not looked at.
func ParseSigner(cert []byte) (Signer, error) {
	s := Signer{Fingerprint: sha256.Sum256(cert), DER: cert}
	seen := uint32(0)
	err := walk(cert, func(validity der) error {
		var err error
		s.NotBefore, s.NotAfter, err = parseValidity(validity)
		return err
	}, func(oid, value der) error {
		switch {
		case string(oid) == string(oidSAN):
			if s.SANType != "" {
				return fmt.Errorf("two subject alternative name extensions")
			}
			return s.parseSAN(value)
		case fulcioArc(oid) != 0:
			n := fulcioArc(oid)
			if seen>>n&1 == 1 {
				return fmt.Errorf("extension .%d twice", n)
			}
			seen |= 1 << n
			text, err := extensionText(n, value)
			if err != nil {
				return err
			}
			s.Fields[n] = Field{Set: true, Value: text}
		}
		return nil
	})
	if err != nil {
		return Signer{}, fmt.Errorf("reading certificate: %w", err)
	}
	return s, nil
}

// fulcioArc is N of 1.3.6.1.4.1.57264.1.N for the extensions we know, else 0.
func fulcioArc(oid der) int {
	if len(oid) != len(oidFulcio)+1 || string(oid[:len(oidFulcio)]) != string(oidFulcio) {
		return 0
	}
	if n := int(oid[len(oidFulcio)]); n >= ExtIssuerV1 && n <= ExtTokenSubject && n != ExtOtherName {
		return n
	}
	return 0
}

func extensionText(n int, value der) (string, error) {
	if n < ExtOtherName {
		if !utf8.Valid(value) {
			return "", fmt.Errorf("extension .%d is not UTF-8", n)
		}
		return string(value), nil
	}
	text, ok := value.only(tagUTF8)
	if !ok || !utf8.Valid(text) {
		return "", fmt.Errorf("extension .%d is no UTF8String", n)
	}
	return string(text), nil
}

// walk visits the validity and each extension of a certificate. RFC 5280 §4.1.
func walk(cert der, onValidity func(der) error, onExtension func(oid, value der) error) error {
	outer, ok := cert.only(tagSequence)
	if !ok {
		return errDER
	}
	tbs, ok := outer.take(tagSequence)
	if !ok {
		return errDER
	}
	if _, ok := tbs.take(tagVersion); !ok {
		return fmt.Errorf("%w: not an X.509 v3 certificate", errDER)
	}
	for _, tag := range []byte{tagInteger, tagSequence, tagSequence} { // serial, algorithm, issuer
		if _, ok := tbs.take(tag); !ok {
			return errDER
		}
	}
	validity, ok := tbs.take(tagSequence)
	if !ok {
		return errDER
	}
	if onValidity != nil {
		if err := onValidity(validity); err != nil {
			return err
		}
	}
	for range 2 { // subject, key
		if _, ok := tbs.take(tagSequence); !ok {
			return errDER
		}
	}
	for len(tbs) > 0 {
		tag, body, ok := tbs.next()
		if !ok {
			return errDER
		}
		if tag == tagExtensions {
			return walkExtensions(body, onExtension)
		}
	}
	return nil
}

func walkExtensions(body der, visit func(oid, value der) error) error {
	list, ok := body.only(tagSequence)
	if !ok {
		return errDER
	}
	for len(list) > 0 {
		ext, ok := list.take(tagSequence)
		if !ok {
			return errDER
		}
		oid, ok := ext.take(tagOID)
		if !ok {
			return errDER
		}
		ext.take(tagBoolean) // critical
		value, ok := ext.only(tagOctets)
		if !ok {
			return errDER
		}
		if err := visit(oid, value); err != nil {
			return err
		}
	}
	return nil
}

func parseValidity(v der) (from, to time.Time, err error) {
	var times [2]time.Time
	for i := range times {
		tag, body, ok := v.next()
		if !ok {
			return from, to, errDER
		}
		layout := "060102150405Z"
		if tag == tagGenTime {
			layout = "20060102150405Z"
		} else if tag != tagUTCTime {
			return from, to, errDER
		}
		if times[i], err = time.Parse(layout, string(body)); err != nil || times[i].Format(layout) != string(body) {
			return from, to, fmt.Errorf("%w: validity %q", errDER, body)
		}
		if tag == tagUTCTime && times[i].Year() >= 2050 { // RFC 5280 §4.1.2.5.1
			times[i] = times[i].AddDate(-100, 0, 0)
		}
	}
	if len(v) != 0 {
		return from, to, errDER
	}
	return times[0], times[1], nil
}

// parseSAN takes the first name of the extension, which for Fulcio is the only one.
func (s *Signer) parseSAN(value der) error {
	names, ok := value.only(tagSequence)
	if !ok {
		return errDER
	}
	tag, body, ok := names.next()
	if !ok {
		return fmt.Errorf("%w: empty subject alternative name", errDER)
	}
	switch tag {
	case 0x81:
		s.SANType, s.SAN = "email", string(body)
	case 0x82:
		s.SANType, s.SAN = "dns", string(body)
	case 0x86:
		s.SANType, s.SAN = "uri", string(body)
	case 0x87:
		s.SANType, s.SAN = "ip", net.IP(body).String()
	case 0xa0:
		return s.parseOtherName(body)
	default:
		s.SANType = "other"
	}
	if !utf8.ValidString(s.SAN) {
		return fmt.Errorf("subject alternative name is not UTF-8")
	}
	return nil
}

// parseOtherName reads Fulcio's username form, [0] { OID .7, [0] UTF8String }.
func (s *Signer) parseOtherName(body der) error {
	s.SANType = "other"
	oid, ok := body.take(tagOID)
	if !ok {
		return errDER
	}
	if string(oid) != string(oidOtherName) {
		return nil
	}
	var text string
	value, ok := body.only(0xa0)
	if !ok {
		return errDER
	}
	if rest, err := asn1.Unmarshal(value, &text); err != nil || len(rest) != 0 {
		return fmt.Errorf("%w: OtherName", errDER)
	}
	s.SAN = text
	return nil
}
