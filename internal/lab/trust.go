package lab

import (
	"encoding/json"
	"strings"
	"time"
)

// A TrustedLog is a log as a trusted root names it.
type TrustedLog struct {
	Host       string // of baseUrl; a v2 log's origin
	SPKI       []byte // DER
	KeyDetails string // "PKIX_ECDSA_P256_SHA_256" or "PKIX_ED25519"
	KeyID      [32]byte
	From       time.Time
	Until      time.Time // zero: no end
}

type trustedKey struct {
	RawBytes   []byte   `json:"rawBytes"`
	KeyDetails string   `json:"keyDetails"`
	ValidFor   validFor `json:"validFor"`
}

type validFor struct {
	Start string `json:"start"`
	End   string `json:"end,omitempty"`
}

type logInstance struct {
	BaseURL       string     `json:"baseUrl"`
	HashAlgorithm string     `json:"hashAlgorithm"`
	PublicKey     trustedKey `json:"publicKey"`
	LogID         struct {
		KeyID []byte `json:"keyId"`
	} `json:"logId"`
}

type rawBytes struct {
	RawBytes []byte `json:"rawBytes"`
}

type authorityInstance struct {
	Subject struct {
		Organization string `json:"organization"`
		CommonName   string `json:"commonName"`
	} `json:"subject"`
	URI       string `json:"uri"`
	CertChain struct {
		Certificates []rawBytes `json:"certificates"`
	} `json:"certChain"`
	ValidFor validFor `json:"validFor"`
}

// TrustedRoot is a trusted_root.json (media type version 0.1) that names an
// authority and logs, and neither certificate logs nor timestamp authorities.
func TrustedRoot(ca *CA, logs ...TrustedLog) []byte {
	var root struct {
		MediaType              string              `json:"mediaType"`
		Tlogs                  []logInstance       `json:"tlogs"`
		CertificateAuthorities []authorityInstance `json:"certificateAuthorities"`
	}
	root.MediaType = "application/vnd.dev.sigstore.trustedroot+json;version=0.1"
	for _, l := range logs {
		var t logInstance
		t.BaseURL, t.HashAlgorithm = "https://"+l.Host, "SHA2_256"
		t.PublicKey = trustedKey{RawBytes: l.SPKI, KeyDetails: l.KeyDetails, ValidFor: validFor{Start: l.From.UTC().Format(time.RFC3339)}}
		if !l.Until.IsZero() {
			t.PublicKey.ValidFor.End = l.Until.UTC().Format(time.RFC3339)
		}
		t.LogID.KeyID = l.KeyID[:]
		root.Tlogs = append(root.Tlogs, t)
	}
	var a authorityInstance
	a.Subject.Organization = strings.Join(ca.Root.Subject.Organization, " ")
	a.Subject.CommonName = ca.Root.Subject.CommonName
	a.URI = "https://fulcio.lab.test"
	a.CertChain.Certificates = []rawBytes{{ca.Intermediate.Raw}, {ca.Root.Raw}}
	a.ValidFor.Start = caStart.Format(time.RFC3339)
	root.CertificateAuthorities = []authorityInstance{a}
	return mustJSON(root, "\t")
}

// mustJSON encodes a value made of strings, numbers, slices and byte slices only,
// which encoding/json cannot fail on.
func mustJSON(v any, indent string) []byte {
	var out strings.Builder
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", indent)
	if err := e.Encode(v); err != nil {
		panic("lab: encoding JSON: " + err.Error())
	}
	return []byte(strings.TrimSuffix(out.String(), "\n"))
}
