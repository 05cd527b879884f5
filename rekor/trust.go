package rekor

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	formats "github.com/transparency-dev/formats/note"
	"golang.org/x/mod/sumdb/note"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
	"github.com/sigstore/sigstore-go/pkg/root"
	"github.com/sigstore/sigstore-go/pkg/tuf"

	"sigtrail/monitor"
)

// maxTrust bounds a trusted root in bytes; the production one has 6 KB.
const maxTrust = 4 << 20

// A Tlog is one log key of the trusted root.
type Tlog struct {
	Host        string       // of baseUrl: the name on the log's signature lines
	KeyID       monitor.Hash // v1: SHA-256(SPKI); v2: SHA-256(name LF 0x01 key)
	API         monitor.API  // told by the key: ECDSA is v1, Ed25519 is v2
	Key         crypto.PublicKey
	Verifier    note.Verifier
	VKey        string    // the same as text, a C2SP signed-note verifier key
	From, Until time.Time // when it may sign, both inclusive; zero Until: no end
}

// A Trust is a trusted root: which logs, which certificate authorities. It is
// immutable and safe for concurrent use.
type Trust struct {
	raw         []byte
	tlogs       []Tlog
	problems    []error
	authorities []authority
	material    *root.TrustedRoot // what sigstore-go verifies against
	signsV2     []string
}

// LoadTrust reads a trusted_root.json.
func LoadTrust(path string) (*Trust, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading the trusted root: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, maxTrust+1))
	if err != nil {
		return nil, fmt.Errorf("reading the trusted root %s: %w", path, err)
	}
	t, err := ParseTrust(raw)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return t, nil
}

// ParseTrust reads a trusted root of media type version 0.1 or 0.2 (sigstore
// protobuf-specs, sigstore_trustroot.proto). A log key or certificate authority
// that does not hold together is left out and told by Problems; anything else
// amiss is an error.
func ParseTrust(raw []byte) (*Trust, error) {
	if len(raw) > maxTrust {
		return nil, fmt.Errorf("trusted root: more than %d bytes", maxTrust)
	}
	var pb prototrust.TrustedRoot
	if err := (protojson.UnmarshalOptions{DiscardUnknown: true}).Unmarshal(raw, &pb); err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	if !knownMediaType(pb.GetMediaType()) {
		return nil, fmt.Errorf("trusted root: unknown media type %q", pb.GetMediaType())
	}
	t := &Trust{raw: append([]byte(nil), raw...)}
	var usable []*prototrust.TransparencyLogInstance
	for i, log := range pb.GetTlogs() {
		l, err := parseTlog(log)
		if err != nil {
			t.problems = append(t.problems, fmt.Errorf("trusted root: log %d (%.100q): %w", i, log.GetBaseUrl(), err))
			continue
		}
		t.tlogs = append(t.tlogs, l)
		usable = append(usable, log)
	}
	// The logs are read one at a time; sigstore-go would refuse the whole file for
	// one key of a kind it does not know.
	rest := &prototrust.TrustedRoot{
		MediaType:              root.TrustedRootMediaType01,
		CertificateAuthorities: pb.GetCertificateAuthorities(),
		Ctlogs:                 pb.GetCtlogs(),
	}
	for _, log := range usable {
		if readable(&prototrust.TrustedRoot{Tlogs: []*prototrust.TransparencyLogInstance{log}}) {
			rest.Tlogs = append(rest.Tlogs, log)
		}
	}
	for i, tsa := range pb.GetTimestampAuthorities() {
		if readable(&prototrust.TrustedRoot{TimestampAuthorities: []*prototrust.CertificateAuthority{tsa}}) {
			rest.TimestampAuthorities = append(rest.TimestampAuthorities, tsa)
		} else {
			t.problems = append(t.problems, fmt.Errorf("trusted root: time stamp authority %d (%.100q) cannot be read", i, tsa.GetUri()))
		}
	}
	var err error
	if t.material, err = root.NewTrustedRootFromProtobuf(proto.CloneOf(rest)); err != nil {
		return nil, fmt.Errorf("trusted root: %w", err)
	}
	var problems []error
	t.authorities, problems = newAuthorities(t.material)
	t.problems = append(t.problems, problems...)
	return t, nil
}

// readable reports whether sigstore-go reads a part of a root.
func readable(part *prototrust.TrustedRoot) bool {
	part.MediaType = root.TrustedRootMediaType01
	_, err := root.NewTrustedRootFromProtobuf(proto.CloneOf(part))
	return err == nil
}

func knownMediaType(s string) bool {
	switch s {
	case root.TrustedRootMediaType01,
		"application/vnd.dev.sigstore.trustedroot.v0.1+json",
		"application/vnd.dev.sigstore.trustedroot.v0.2+json":
		return true
	}
	return false
}

// Tlogs are the usable log keys in the order of the file. Retired ones are among
// them: their logs are still to be read.
func (t *Trust) Tlogs() []Tlog { return append([]Tlog(nil), t.tlogs...) }

// Problems are the log keys and authorities that were left out, and why.
func (t *Trust) Problems() []error { return append([]error(nil), t.problems...) }

// RawJSON is the file as it was read, to be kept as evidence.
func (t *Trust) RawJSON() []byte { return append([]byte(nil), t.raw...) }

// parseTlog reads one log and recomputes its key id: an id that does not belong to
// its key would let signatures be looked up under the wrong key.
func parseTlog(pb *prototrust.TransparencyLogInstance) (Tlog, error) {
	if h := pb.GetHashAlgorithm(); h != protocommon.HashAlgorithm_SHA2_256 {
		return Tlog{}, fmt.Errorf("tree hash %s is not known", h)
	}
	validFor := pb.GetPublicKey().GetValidFor()
	if validFor.GetStart() == nil {
		return Tlog{}, errors.New("key without a start of validity")
	}
	l := Tlog{From: validFor.GetStart().AsTime()}
	if end := validFor.GetEnd(); end != nil {
		l.Until = end.AsTime()
	}
	spki := pb.GetPublicKey().GetRawBytes()
	key, err := x509.ParsePKIXPublicKey(spki)
	if err != nil {
		return Tlog{}, fmt.Errorf("key: %w", err)
	}
	l.Key = key
	names, err := hostNames(pb.GetBaseUrl())
	if err != nil {
		return Tlog{}, err
	}
	ids := [][]byte{pb.GetLogId().GetKeyId(), pb.GetCheckpointKeyId().GetKeyId()}
	switch k := key.(type) {
	case *ecdsa.PublicKey:
		l.API, l.KeyID, l.Host = monitor.V1, sha256.Sum256(spki), names[0]
		if err := checkIDs(l.KeyID, ids, l.KeyID); err != nil {
			return Tlog{}, err
		}
		l.VKey = verifierKey(l.Host, l.KeyID, 0x02, spki)
	case ed25519.PublicKey:
		l.API = monitor.V2
		for _, name := range names {
			l.Host, l.KeyID = name, keyIDv2(name, k)
			if err = checkIDs(l.KeyID, ids, sha256.Sum256(spki)); err == nil {
				break
			}
		}
		if err != nil {
			return Tlog{}, err
		}
		l.VKey = verifierKey(l.Host, l.KeyID, 0x01, k)
	default:
		return Tlog{}, fmt.Errorf("key of type %T is not known", key)
	}
	// Through its text form, which checks the name.
	if l.Verifier, err = formats.NewVerifier(l.VKey); err != nil {
		return Tlog{}, fmt.Errorf("key: %w", err)
	}
	return l, nil
}

// checkIDs compares the ids that a root gives with the recomputed one. The media
// type 0.2 has a second field, checkpointKeyId, which may be cut to the four
// bytes of a signature line; its logId may then be SHA-256(SPKI) whatever the
// generation.
func checkIDs(want monitor.Hash, given [][]byte, spki monitor.Hash) error {
	logID, checkpoint := given[0], given[1]
	if len(logID) == 0 && len(checkpoint) == 0 {
		return errors.New("key without an id")
	}
	if n := len(checkpoint); n > 0 && (n != 4 && n != len(want) || string(checkpoint) != string(want[:n])) {
		return fmt.Errorf("key id for checkpoints %x is not that of the key, %s", checkpoint, want)
	}
	if len(logID) == 0 || string(logID) == string(want[:]) || len(checkpoint) > 0 && string(logID) == string(spki[:]) {
		return nil
	}
	return fmt.Errorf("key id %x is not that of the key, %s", logID, want)
}

// keyIDv2 is the whole hash whose first four bytes are the key hint of C2SP
// signed-note for Ed25519.
func keyIDv2(name string, key ed25519.PublicKey) monitor.Hash {
	h := sha256.New()
	h.Write([]byte(name + "\n\x01"))
	h.Write(key)
	return monitor.Hash(h.Sum(nil))
}

func verifierKey(name string, id monitor.Hash, kind byte, key []byte) string {
	return fmt.Sprintf("%s+%x+%s", name, id[:4], base64.StdEncoding.EncodeToString(append([]byte{kind}, key...)))
}

// hostNames are the names that a log at this address may sign under: its host
// without the port first, as sigstore-go takes it, then with it.
func hostNames(base string) ([]string, error) {
	if !strings.Contains(base, "://") {
		base = "https://" + base
	}
	u, err := url.Parse(base)
	if err != nil || u.Hostname() == "" {
		return nil, errors.New("base address without a host")
	}
	return []string{u.Hostname(), u.Host}, nil
}

// SET checks a v1 leaf's signed entry timestamp: a signature of the log over
// body, integration time, log id and global index in canonical JSON (RFC 8785).
// The claim it makes good is the time; the tree does not cover that.
func (t *Trust) SET(l monitor.Log, leaf monitor.Leaf) error { return VerifySET(t.tlogs, l, leaf) }

// VerifySET is Trust.SET with keys of the caller's choice.
func VerifySET(keys []Tlog, l monitor.Log, leaf monitor.Leaf) error {
	if len(leaf.SET) == 0 {
		return fmt.Errorf("leaf %d of %s has no signed entry timestamp", leaf.Index, l)
	}
	at := time.Unix(leaf.IntegratedTime, 0)
	for _, k := range keys {
		if k.KeyID != l.KeyID || k.API != monitor.V1 {
			continue
		}
		if at.Before(k.From) || !k.Until.IsZero() && at.After(k.Until) {
			return fmt.Errorf("signed entry timestamp of leaf %d of %s: %s is outside the key's validity", leaf.Index, l, at.UTC().Format(time.RFC3339))
		}
		digest := sha256.Sum256(setMessage(l, leaf))
		if key, ok := k.Key.(*ecdsa.PublicKey); ok && ecdsa.VerifyASN1(key, digest[:], leaf.SET) {
			return nil
		}
		return fmt.Errorf("signed entry timestamp of leaf %d of %s does not verify", leaf.Index, l)
	}
	return fmt.Errorf("signed entry timestamp of leaf %d of %s: no key of that log is trusted", leaf.Index, l)
}

// setMessage is the canonical form. Its keys are in order already and none of its
// values needs escaping.
func setMessage(l monitor.Log, leaf monitor.Leaf) []byte {
	b := make([]byte, 0, base64.StdEncoding.EncodedLen(len(leaf.Data))+180)
	b = append(b, `{"body":"`...)
	b = base64.StdEncoding.AppendEncode(b, leaf.Data)
	b = append(b, `","integratedTime":`...)
	b = strconv.AppendInt(b, leaf.IntegratedTime, 10)
	b = append(b, `,"logID":"`...)
	b = append(b, l.KeyID.String()...)
	b = append(b, `","logIndex":`...)
	b = strconv.AppendUint(b, l.Global(leaf.Index), 10)
	return append(b, '}')
}

// TUFOptions says where the trusted root is fetched from.
type TUFOptions struct {
	CacheDir   string // kept between runs; "": nothing is kept
	Repository string // default: Sigstore's production repository
	Root       []byte // TUF root metadata to start from; default: the one built into sigstore-go
	UserAgent  string
}

// FetchTrust gets the trusted root by TUF.
func FetchTrust(ctx context.Context, o TUFOptions) (*Trust, error) {
	opts := tuf.DefaultOptions().WithContext(ctx).WithFetcher(newTUFFetcher(ctx, o.UserAgent))
	if o.CacheDir == "" {
		opts.WithDisableLocalCache()
	} else {
		opts.WithCachePath(o.CacheDir)
	}
	if o.Repository != "" {
		opts.WithRepositoryBaseURL(o.Repository)
	}
	if len(o.Root) > 0 {
		opts.WithRoot(o.Root)
	}
	raw, config, err := fetchTargets(opts)
	if err != nil {
		return nil, fmt.Errorf("fetching the trusted root from %s: %w; "+
			"without a network, give a trusted_root.json as a file (setting trusted_root)", redact(opts.RepositoryBaseURL), err)
	}
	t, err := ParseTrust(raw)
	if err == nil {
		t.signsV2 = signsV2(config)
	}
	return t, err
}

// fetchTargets gets the trusted root and, where the repository has it, the default
// signing configuration.
func fetchTargets(opts *tuf.Options) (trustedRoot, config []byte, err error) {
	client, err := tuf.New(opts)
	if err != nil {
		return nil, nil, err
	}
	if trustedRoot, err = client.GetTarget("trusted_root.json"); err != nil {
		return nil, nil, err
	}
	config, err = client.GetTarget("signing_config.v0.2.json")
	if err != nil {
		config = nil // nothing is checked against it
	}
	return trustedRoot, config, nil
}

// signsV2 are the v2 logs that a signing configuration names.
func signsV2(config []byte) (urls []string) {
	if config == nil {
		return nil
	}
	c, err := root.NewSigningConfigFromJSON(config)
	if err != nil {
		return nil
	}
	for _, s := range c.RekorLogURLs() {
		if s.MajorAPIVersion == 2 {
			urls = append(urls, s.URL)
		}
	}
	return urls
}

// SignsV2 are the v2 logs of the default signing configuration that came with a root
// by TUF. Once there is one, clients of the defaults write there and no longer to v1,
// and so does what PyPI will show.
func (t *Trust) SignsV2() []string { return t.signsV2 }
