package main

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"sigtrail/alerts"
	"sigtrail/monitor"
	"sigtrail/rekor"
)

// Exit codes of monitor check-evidence, besides exitUsage and exitCould.
const (
	exitConvicted = 0
	exitAccused   = 1
	exitUnfounded = 4
)

func checkEvidenceCommand(stdout io.Writer) *cobra.Command {
	var trustedRoot, keyFile string
	var asJSON bool
	c := &cobra.Command{
		Use:   "check-evidence FILE",
		Short: "Decide whether evidence convicts a log, from the file alone",
		Long: `check-evidence verifies the signatures and the proof in a file that "monitor evidence"
wrote, and says whether the log is convicted by it. It needs no database and no
network, and believes nothing that the file merely says. FILE may be -, the standard
input.

Whose key signed is the one thing that the file cannot tell. Give the trusted root of
the instance, or the log's public key, from a source of your own.

Exit codes: 0 convicted, 1 accused and not convicted, 2 usage, 3 a file cannot be
read, 4 the evidence does not hold.`,
		Example: "  monitor check-evidence --trusted-root trusted_root.json rekor-fork.json",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := readEvidence(args[0], cmd.InOrStdin())
			if err != nil {
				return &exit{exitCould, err}
			}
			v := e.Check()
			var vouched string
			if v.Outcome != monitor.Unfounded {
				vouched, err = vouch(&v, e.Log.Origin, trustedRoot, keyFile)
			}
			if err != nil {
				return &exit{exitCould, err}
			}
			write := writeVerdict
			if asJSON {
				write = writeVerdictJSON
			}
			if err := write(stdout, e, v, vouched); err != nil {
				return &exit{exitCould, err}
			}
			if code := map[string]int{monitor.Convicted: exitConvicted, monitor.Accused: exitAccused, monitor.Unfounded: exitUnfounded}[v.Outcome]; code != 0 {
				return &exit{code, nil}
			}
			return nil
		},
	}
	c.Flags().StringVar(&trustedRoot, "trusted-root", "", "trusted_root.json that has to name the key for this log")
	c.Flags().StringVar(&keyFile, "key", "", "the log's public key (PEM), which has to be the one in the file")
	c.Flags().BoolVar(&asJSON, "json", false, "answer as one JSON object")
	c.MarkFlagsMutuallyExclusive("trusted-root", "key")
	return c
}

func readEvidence(path string, in io.Reader) (monitor.Evidence, error) {
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return monitor.Evidence{}, fmt.Errorf("reading evidence: %w", err)
		}
		defer f.Close()
		in = f
	}
	b, err := io.ReadAll(io.LimitReader(in, monitor.MaxEvidence+1))
	if err != nil {
		return monitor.Evidence{}, fmt.Errorf("reading evidence: %w", err)
	}
	e, err := monitor.ParseEvidence(b)
	if err != nil {
		return monitor.Evidence{}, fmt.Errorf("%s: %w", alerts.Escape(path), err)
	}
	return e, nil
}

// vouch holds the key in the file against what the caller trusts, and returns the
// name of the file that vouches for it. A key that is not the log's convicts nobody.
func vouch(v *monitor.Verdict, origin, trustedRoot, keyFile string) (by string, err error) {
	var ours bool
	switch {
	case trustedRoot != "":
		by = trustedRoot
		ours, err = namedBy(trustedRoot, v.Key, origin)
	case keyFile != "":
		by = keyFile
		ours, err = sameKey(keyFile, v.Key)
	default:
		return "", nil
	}
	if err != nil || ours {
		return by, err
	}
	v.Outcome, v.Lacks = monitor.Unfounded, ""
	v.Shows = fmt.Sprintf("The key in the file is not the log's: %s does not name it for log %q.", by, origin)
	return "", nil
}

// namedBy reports whether a trusted root names the key, for the log with that origin.
func namedBy(path string, key monitor.LogKey, origin string) (bool, error) {
	root, err := rekor.LoadTrust(path)
	if err != nil {
		return false, err
	}
	for _, t := range root.Tlogs() {
		if t.KeyID == key.ID && t.Host == key.Name && (origin == t.Host || t.API == monitor.V1 && strings.HasPrefix(origin, t.Host+" - ")) {
			return true, nil
		}
	}
	return false, nil
}

func sameKey(path string, key monitor.LogKey) (bool, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("reading the log's key: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return false, fmt.Errorf("%s: want a PEM block of type PUBLIC KEY", path)
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	return bytes.Equal(block.Bytes, key.SPKI), nil
}

// headlines say the outcome in a word.
var headlines = map[string]string{
	monitor.Convicted: "CONVICTED",
	monitor.Accused:   "ACCUSED, NOT CONVICTED",
	monitor.Unfounded: "THE EVIDENCE DOES NOT HOLD",
}

// maxVerdictLine bounds what a file can put on one line of a terminal, in bytes.
const maxVerdictLine = 2000

func writeVerdict(w io.Writer, e monitor.Evidence, v monitor.Verdict, vouched string) error {
	lines := []string{headlines[v.Outcome] + ": log " + e.Log.Origin, v.Shows}
	if v.Lacks != "" {
		lines = append(lines, v.Lacks)
	}
	for _, h := range v.Heads {
		lines = append(lines, fmt.Sprintf("Signed: size %d, root %s%s; seen %s, shown by %s.", h.Size, h.Root, frozenMark(h), when(h.Seen), shower(h.Source)))
	}
	if len(v.Key.SPKI) > 0 {
		lines = append(lines, keyLine(v, vouched))
	}
	lines = append(lines, fmt.Sprintf("The file says, on its own word: %s, found %s, written by %s %s: %s", e.Kind, when(e.Found), e.Exporter, when(e.Exported), e.Detail))
	for _, l := range lines {
		if len(l) > maxVerdictLine {
			l = l[:maxVerdictLine] + " … (--json has all of it)"
		}
		if _, err := fmt.Fprintln(w, alerts.Escape(l)); err != nil {
			return err
		}
	}
	return nil
}

func keyLine(v monitor.Verdict, vouched string) string {
	key := fmt.Sprintf("Key: %q, SHA-256 fingerprint %s", v.Key.Name, v.Key.Fingerprint())
	if v.Key.ID != v.Key.Fingerprint() {
		key += ", log id " + v.Key.ID.String()
	}
	switch {
	case vouched != "":
		return key + ", which " + vouched + " names for this log."
	case v.Outcome == monitor.Unfounded:
		return key + ", which this file names."
	}
	return key + ", which this file names; compare it with the log's (--trusted-root FILE or --key FILE): another key convicts another signer."
}

func frozenMark(h monitor.Head) string {
	if h.Frozen() {
		return ", marked as the log's last"
	}
	return ""
}

func shower(source string) string {
	if source == "" {
		return "the log"
	}
	return source
}

func when(t time.Time) string {
	if t.IsZero() {
		return "at an unknown time"
	}
	return t.UTC().Format(time.RFC3339)
}

// A verdictJSON is the answer for programs. What the file says on its own word is
// under "file".
type verdictJSON struct {
	Verdict string     `json:"verdict"`
	Origin  string     `json:"origin"`
	Shows   string     `json:"shows"`
	Lacks   string     `json:"lacks"`
	Heads   []headJSON `json:"heads"`
	Key     *keyJSON   `json:"key"` // null: unusable
	File    struct {
		Kind     string    `json:"kind"`
		Detail   string    `json:"detail"`
		Found    time.Time `json:"found"`
		Exporter string    `json:"exporter"`
		Exported time.Time `json:"exported"`
	} `json:"file"`
}

type headJSON struct {
	Size   uint64       `json:"size"`
	Root   monitor.Hash `json:"root"`
	Frozen bool         `json:"frozen"`
	Seen   time.Time    `json:"seen,omitzero"`
	Source string       `json:"source"` // "": the log
}

type keyJSON struct {
	Name        string       `json:"name"`
	Fingerprint monitor.Hash `json:"sha256"`
	ID          monitor.Hash `json:"id"`
	VouchedBy   string       `json:"vouched_by"` // "": only the file names it
}

func writeVerdictJSON(w io.Writer, e monitor.Evidence, v monitor.Verdict, vouched string) error {
	out := verdictJSON{Verdict: v.Outcome, Origin: e.Log.Origin, Shows: v.Shows, Lacks: v.Lacks, Heads: []headJSON{}}
	for _, h := range v.Heads {
		out.Heads = append(out.Heads, headJSON{h.Size, h.Root, h.Frozen(), h.Seen, h.Source})
	}
	if len(v.Key.SPKI) > 0 {
		out.Key = &keyJSON{v.Key.Name, v.Key.Fingerprint(), v.Key.ID, vouched}
	}
	out.File.Kind, out.File.Detail, out.File.Found, out.File.Exporter, out.File.Exported = e.Kind, e.Detail, e.Found, e.Exporter, e.Exported
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	return enc.Encode(out)
}
