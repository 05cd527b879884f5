package alerts

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/url"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"sigtrail/index"
	"sigtrail/monitor"
)

var (
	epoch   = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	quiet   = slog.New(slog.NewTextHandler(io.Discard, nil))
	testLog = monitor.Log{Origin: "log.example", KeyID: monitor.Hash{1}, API: monitor.V2, URL: "https://log.example/api/v2/"}
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A signing is a key with a certificate of GitHub's form.
type signing struct {
	key  *ecdsa.PrivateKey
	cert []byte
}

// newSigning signs for "owner/repository"; the ids follow from the names, so that
// the same names have the same ids.
func newSigning(t testing.TB, repository string) signing {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	owner, _, _ := strings.Cut(repository, "/")
	repo := "https://github.com/" + repository
	san, err := url.Parse(repo + "/.github/workflows/release.yml@refs/tags/v1")
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: epoch, NotAfter: epoch.Add(10 * time.Minute), URIs: []*url.URL{san}}
	for n, text := range map[int]string{
		index.ExtIssuer:                   "https://token.actions.githubusercontent.com",
		index.ExtSourceRepositoryURI:      repo,
		index.ExtSourceRepositoryID:       number(repository),
		index.ExtSourceRepositoryOwnerURI: "https://github.com/" + owner,
		index.ExtSourceRepositoryOwnerID:  number(owner),
		index.ExtSourceRepositoryDigest:   "0123456789012345678901234567890123456789",
		index.ExtSourceRepositoryRef:      "refs/tags/v1",
		index.ExtBuildConfigURI:           san.String(),
		index.ExtBuildTrigger:             "release",
		index.ExtRunnerEnvironment:        "github-hosted",
		index.ExtRunInvocationURI:         repo + "/actions/runs/1/attempts/1",
	} {
		value, err := asn1.MarshalWithParams(text, "utf8")
		check(t, err)
		template.ExtraExtensions = append(template.ExtraExtensions, pkix.Extension{Id: asn1.ObjectIdentifier{1, 3, 6, 1, 4, 1, 57264, 1, n}, Value: value})
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	return signing{key, der}
}

func number(name string) string {
	sum := sha256.Sum256([]byte(name))
	return fmt.Sprint(100 + int(sum[0]) + int(sum[1])<<8)
}

func (s signing) signer(t testing.TB) *index.Signer {
	t.Helper()
	signer, err := index.ParseSigner(s.cert)
	check(t, err)
	return &signer
}

func (s signing) publisher(t testing.TB) index.Publisher { return s.signer(t).Publisher() }

// attest is a v2 leaf over the publish statement of a file.
func (s signing) attest(t testing.TB, f index.File) []byte {
	t.Helper()
	payload, err := index.Statement("P1", f.Name, f.SHA256)
	check(t, err)
	digest := sha256.Sum256(index.PAE(payload))
	sig, err := ecdsa.SignASN1(rand.Reader, s.key, digest[:])
	check(t, err)
	b64 := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `{"apiVersion":"0.0.2","kind":"hashedrekord","spec":{"hashedRekordV002":{"data":{"algorithm":"SHA2_256","digest":"%s"},"signature":{"content":"%s","verifier":{"keyDetails":"PKIX_ECDSA_P256_SHA_256","x509Certificate":{"rawBytes":"%s"}}}}}}`,
		b64(digest[:]), b64(sig), b64(s.cert))
}

func aFile(version string) index.File {
	name := "p-" + version + ".tar.gz"
	return index.File{Project: "p", Version: version, Name: name, SHA256: sha256.Sum256([]byte(name)), Size: 1000, Uploaded: epoch, URL: "https://files.example/" + name}
}

func attested(f index.File) index.File {
	f.ProvenanceURL = "https://pypi.example/integrity/" + f.Name
	return f
}

// onlyTrust trusts every certificate but those of the repositories it names.
type onlyTrust []string

func (o onlyTrust) Chain(c *x509.Certificate, _ time.Time) error {
	for _, repository := range o {
		if len(c.URIs) > 0 && strings.Contains(c.URIs[0].String(), repository) {
			return errors.New("signed by an unknown authority")
		}
	}
	return nil
}

func (onlyTrust) SET(monitor.Log, monitor.Leaf) error { return nil }

// A world is a real store, a tailed log, PyPI's list of project p, and the clock.
type world struct {
	t      testing.TB
	path   string
	store  *index.Store
	trust  onlyTrust
	pos    monitor.Position
	listed []index.File
	serial int64

	mu  sync.Mutex
	now time.Time
}

func newWorld(t testing.TB, untrusted ...string) *world {
	t.Helper()
	w := &world{t: t, path: filepath.Join(t.TempDir(), "sigtrail.db"), now: epoch.Add(time.Hour), trust: untrusted}
	w.open()
	t.Cleanup(func() { check(t, w.store.Close()) })
	check(t, w.store.Begin(t.Context(), testLog, monitor.Position{}))
	return w
}

func (w *world) open() {
	w.t.Helper()
	var err error
	w.store, err = index.Open(w.t.Context(), w.path, index.Options{Trust: w.trust, Log: quiet, Now: w.clock})
	check(w.t, err)
}

// clock moves with each look, so that what happens later is raised later.
func (w *world) clock() time.Time {
	return w.advance(time.Millisecond)
}

func (w *world) advance(by time.Duration) time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.now = w.now.Add(by)
	return w.now
}

// log appends leaves and returns their hashes.
func (w *world) log(leaves ...[]byte) []monitor.Hash {
	w.t.Helper()
	b := monitor.Batch{Log: testLog, From: w.pos}
	for i, data := range leaves {
		b.Leaves = append(b.Leaves, monitor.Leaf{Index: w.pos.Next + uint64(i), Data: data})
		b.Hashes = append(b.Hashes, monitor.HashLeaf(data))
	}
	to, err := w.pos.Fold(b.Hashes)
	check(w.t, err)
	root, err := to.Root()
	check(w.t, err)
	text := fmt.Sprintf("%s\n%d\n%s\n", testLog.Origin, to.Next, base64.StdEncoding.EncodeToString(root[:]))
	b.Head = monitor.Head{Origin: testLog.Origin, Size: to.Next, Root: root, Text: text, Note: []byte(text + "\n— log.example AAAA\n"), Seen: epoch}
	b.To, w.pos = to, to
	check(w.t, w.store.Commit(w.t.Context(), b))
	return b.Hashes
}

// publish shows more files on PyPI and returns them as stored.
func (w *world) publish(files ...index.File) []index.File {
	w.t.Helper()
	w.listed = append(w.listed, files...)
	w.serial++
	fresh, err := w.store.PyPI().SaveListing(w.t.Context(), index.Listing{Project: "p", Serial: w.serial, Status: "active", Files: w.listed, Fetched: w.now})
	check(w.t, err)
	return fresh
}

// named stores a provenance object that contains one leaf of the log.
func (w *world) named(f index.File, idx uint64, leaf monitor.Hash) {
	w.t.Helper()
	check(w.t, w.store.PyPI().SaveProvenance(w.t.Context(), f.ID, index.Provenance{State: index.ProvenancePresent, Body: []byte("{}"), Fetched: w.now,
		Leaves: []index.ProvenanceLeaf{{KeyID: testLog.KeyID, Global: idx, Hash: leaf}}}))
	w.verified(f, index.AttestationVerdict{State: index.AttestationHolds, Leaves: []monitor.Hash{leaf}})
}

// verified stores what became of a file's provenance object.
func (w *world) verified(f index.File, verdicts ...index.AttestationVerdict) {
	w.t.Helper()
	for i := range verdicts {
		verdicts[i].At, verdicts[i].Root, verdicts[i].Attestation = w.now, "00ff", i
	}
	check(w.t, w.store.SaveVerification(w.t.Context(), f.ID, index.Verification{Root: "00ff", At: w.now, Verdicts: verdicts}))
}

// release publishes an attested file signed by s and named by PyPI.
func (w *world) release(s signing, version string) index.File {
	w.t.Helper()
	f := w.publish(attested(aFile(version)))[0]
	next := w.pos.Next
	w.named(f, next, w.log(s.attest(w.t, f))[0])
	return f
}

func (w *world) judge(p *Policy, sinks ...string) *Judge {
	return &Judge{Store: w.store, Policy: p, Sinks: sinks, Log: quiet, Now: w.clock, Metrics: NewMetrics(prometheus.NewRegistry())}
}

// raised judges all that waits and returns "rule version" of each new alert.
func (w *world) raised(p *Policy) []string {
	w.t.Helper()
	alerts, err := w.judge(p, "terminal").Once(w.t.Context())
	check(w.t, err)
	var names []string
	for _, a := range alerts {
		names = append(names, strings.TrimSpace(a.Rule+" "+a.Version))
	}
	return names
}

// bodies are the alerts on record, as a receiver gets them.
func (w *world) bodies() []Alert {
	w.t.Helper()
	stored, err := w.store.Alerts(w.t.Context(), "", "")
	check(w.t, err)
	var alerts []Alert
	for _, s := range stored {
		var a Alert
		check(w.t, json.Unmarshal(s.Body, &a))
		alerts = append(alerts, a)
	}
	return alerts
}

func policy(t testing.TB, text string) *Policy {
	t.Helper()
	p, err := parsePolicy("policy.yaml", []byte(text))
	check(t, err)
	return p
}
