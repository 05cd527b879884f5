package main

import (
	"cmp"
	"context"
	"fmt"
	"strings"

	"sigtrail/index"
	"sigtrail/monitor"
	"sigtrail/pypi"
	"sigtrail/timeline"
)

// A quarry is what a scan looks for: leaves about some files, or by some signer.
type quarry struct {
	text     string
	files    map[[32]byte][]trace    // by the digest that a leaf would hold
	leaves   map[monitor.Hash]string // file names, by the leaf that a provenance object names
	identity string                  // in lower case, without scheme; "": any
	note     string                  // what cannot be recognised; "" nothing
	scratch  index.Scratch
}

// A trace is what a digest says about a file.
type trace struct {
	form, name string
	sha256     [32]byte
}

// newQuarry reads a selector. Files that the database does not have are asked of
// their index, and not stored: nobody wants alerts on them.
func (d *daemon) newQuarry(ctx context.Context, text string) (*quarry, error) {
	q := &quarry{text: text, files: make(map[[32]byte][]trace), leaves: make(map[monitor.Hash]string)}
	on, _, _ := strings.Cut(text, "/")
	if _, isIndex := d.config.source(on); strings.ContainsAny(text, "/@") && !isIndex {
		if len(text) > 512 || strings.ContainsAny(text, " \t\n") {
			return nil, fmt.Errorf("%w: --for %.60q: an identity has no spaces", errUsage, text)
		}
		q.identity = bare(text)
		return q, nil
	}
	selector, err := timeline.ParseSelector(text)
	if err != nil {
		return nil, fmt.Errorf("%w: --for: %w; or an identity, as github.com/OWNER/REPOSITORY", errUsage, err)
	}
	by, version := selector.By()
	files, err := d.store.Files(ctx, by)
	if err != nil {
		return nil, err
	}
	if len(files) == 0 && by.SHA256 == nil {
		if files, err = d.askIndex(ctx, by); err != nil {
			return nil, err
		}
	}
	for _, f := range files {
		if version != "" && !pypi.SameVersion(f.Version, version) || by.Filename != "" && f.Name != by.Filename {
			continue
		}
		if err := d.addFile(ctx, q, f); err != nil {
			return nil, err
		}
	}
	switch {
	case len(q.files) > 0:
	case by.SHA256 != nil:
		sum := [32]byte(by.SHA256)
		q.files[sum] = []trace{{form: "artifact", sha256: sum}}
		q.note = "no file with this SHA-256 is in the database, so its name is not known: attestations of it cannot be recognised, only signatures over the file itself; give its name instead"
	default:
		return nil, fmt.Errorf("neither the database nor the index knows a file of %q; give its name or SHA-256 as PyPI had it", text)
	}
	return q, nil
}

func (d *daemon) addFile(ctx context.Context, q *quarry, f index.File) error {
	for _, x := range index.ExpectedDigests(f.Name, f.SHA256) {
		q.files[x.Digest] = append(q.files[x.Digest], trace{x.Form, f.Name, f.SHA256})
	}
	if f.ID == 0 {
		return nil
	}
	leaves, err := d.store.ProvenanceLeaves(ctx, f.ID)
	for _, l := range leaves {
		q.leaves[l.Hash] = f.Name
	}
	return err
}

// askIndex lists the files of the project. That of a file name ends somewhere
// before a hyphen; the shortest that makes sense and exists is tried first.
func (d *daemon) askIndex(ctx context.Context, by index.Selection) ([]index.File, error) {
	c, ok := d.config.source(cmp.Or(by.Index, index.PyPI))
	if !ok {
		return nil, fmt.Errorf("%w: no index is named %q", errConfig, by.Index)
	}
	client, err := newIndexClient(c.PyPIConfig, nil)
	if err != nil {
		return nil, fmt.Errorf("%w: index %s: %w", errConfig, c.Name, err)
	}
	projects := []string{by.Project}
	if by.Filename != "" {
		projects = nil
		for i, c := range by.Filename {
			if c != '-' || len(projects) == 8 {
				continue
			}
			if _, err := pypi.ParseFilename(by.Filename, by.Filename[:i]); err == nil {
				projects = append(projects, pypi.Normalize(by.Filename[:i]))
			}
		}
	}
	for _, p := range projects {
		var l index.Listing
		if l, err = client.Listing(ctx, p); err == nil {
			return l.Files, nil
		}
	}
	if err == nil {
		err = fmt.Errorf("%q is not the name of a distribution", by.Filename)
	}
	return nil, fmt.Errorf("the database has no such file, and index %s could not be asked: %w", c.Name, err)
}

// bare is an identity as it is compared: repositories are written with and without
// scheme, and in any case.
func bare(identity string) string {
	s := strings.ToLower(identity)
	s = strings.TrimPrefix(strings.TrimPrefix(s, "https://"), "http://")
	return strings.TrimSuffix(s, "/")
}

// signedBy reports whether a certificate names the identity: whole, or up to a
// place where it goes on with a path or a reference.
func (q *quarry) signedBy(s index.Signer) bool {
	p := s.Publisher()
	for _, name := range []string{s.SAN, p.Repository, p.Owner, p.Identity} {
		name = bare(name)
		if rest, ok := strings.CutPrefix(name, q.identity); ok && (rest == "" || rest[0] == '/' || rest[0] == '@') {
			return true
		}
	}
	return false
}

// match reports whether a leaf is looked for. It is called for one leaf at a time.
func (q *quarry) match(leaf monitor.Leaf, hash monitor.Hash) bool {
	if q.identity != "" {
		e, err := index.Decode(leaf.Data)
		if err != nil || e.Cert == nil {
			return false
		}
		s, err := index.ParseSigner(e.Cert)
		return err == nil && q.signedBy(s)
	}
	if _, ok := q.leaves[hash]; ok {
		return true
	}
	_, digest, ok, _, err := index.Peek(leaf.Data, &q.scratch)
	return err == nil && ok && len(q.files[digest]) > 0
}

// A concern is a file that a found leaf is about, and on what that rests.
type concern struct {
	File      string `json:"file,omitempty"` // name; absent: not known
	SHA256    string `json:"sha256,omitempty"`
	Evidence  string `json:"evidence"`            // statement, provenance or artifact
	Form      string `json:"form,omitempty"`      // what the digest is of
	Signature string `json:"signature,omitempty"` // why the signature does not hold over what was rebuilt; absent: it does, or there is nothing to check
}

// concerns says what a found leaf has to do with the files that are looked for.
func (q *quarry) concerns(s index.Stored) []concern {
	var out []concern
	if len(s.Entry.Digest) == 32 {
		for _, t := range q.files[[32]byte(s.Entry.Digest)] {
			if strings.HasSuffix(t.form, "/payload") != (s.Entry.DigestOf == index.DigestPayload) {
				continue
			}
			c := concern{File: t.name, SHA256: fmt.Sprintf("%x", t.sha256), Evidence: string(index.ByStatement), Form: t.form}
			if t.form == "artifact" {
				c.Evidence = string(index.ByArtifact)
			}
			if err := index.VerifySignature(s.Entry, t.form, t.name, t.sha256); err != nil {
				c.Signature = err.Error()
			}
			out = append(out, c)
		}
	}
	if name, ok := q.leaves[s.Hash]; ok && len(out) == 0 {
		out = append(out, concern{File: name, Evidence: string(index.ByProvenance)})
	}
	return out
}
