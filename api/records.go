package api

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"time"

	"sigtrail/index"
)

// Files returns a page of the files of a project of an index, "" for PyPI, by their
// names; of one version unless that is "".
func (r Reader) Files(ctx context.Context, of, project, version string, p Page) (Files, error) {
	a := Files{Schema: "sigtrail.files/1", Index: indexNamed(indexStored(of)), Project: project, Files: []File{}}
	var after index.FileKey
	var sum string
	limit, err := p.begin(&after.Name, &sum)
	if err != nil {
		return a, err
	}
	if sum != "" {
		if after.SHA256, err = readSHA256(sum); err != nil {
			return a, err
		}
	}
	files, err := r.Store.FileStates(ctx, indexStored(of), project, version, after, limit+1)
	if err != nil {
		return a, err
	}
	if len(files) == 0 { // is there such a project at all?
		if _, err := r.overview(ctx, of, project); err != nil {
			return a, err
		}
	}
	files, a.Next = cut(files, limit, func(last index.FileState) string { return cursor(last.Name, hex.EncodeToString(last.SHA256[:])) })
	for _, f := range files {
		a.Files = append(a.Files, newFile(f))
	}
	a.Extent, err = r.extent(ctx)
	return a, err
}

func newFile(f index.FileState) File {
	return File{Index: indexNamed(f.Index), Project: f.Project, Version: f.Version, Name: f.Name, SHA256: hex.EncodeToString(f.SHA256[:]), Size: f.Size, URL: f.URL,
		Uploaded: by(clockOf.index, f.Uploaded), FirstSeen: by(clockOf.ours, f.FirstSeen), Gone: by(clockOf.ours, f.Gone), Yanked: f.Yanked, Entries: f.Entries,
		Provenance: Provenance{f.Provenance, by(clockOf.ours, f.Fetched), f.Tries, f.Error, listed(f.Publishers)}}
}

func readSHA256(text string) (sum [32]byte, err error) {
	raw, err := hex.DecodeString(text)
	if err != nil || len(raw) != len(sum) {
		return sum, fmt.Errorf("%w: a hash is 64 hexadecimal digits, not %.80q", ErrAsked, text)
	}
	return [32]byte(raw), nil
}

// File returns the files with a SHA-256, in hex, and what is known of each.
func (r Reader) File(ctx context.Context, sha256 string) (FileDetail, error) {
	a := FileDetail{Schema: "sigtrail.file/1", Files: []FileLookups{}}
	files, err := r.filesOf(ctx, sha256)
	if err != nil {
		return a, err
	}
	for _, f := range files {
		d := FileLookups{File: newFile(f), Leaves: []Leaf{}, Lookups: []Lookup{}}
		if err := r.Store.Presence(ctx, f.ID, func(l index.ProvenanceLeaf, p index.LeafPresence) error {
			d.Leaves = append(d.Leaves, Leaf{l.KeyID.String(), l.Global, hex.EncodeToString(l.Hash[:]), l.Predicate, p})
			return nil
		}); err != nil {
			return a, err
		}
		asked, err := r.Store.LookupsOf(ctx, f.ID)
		if err != nil {
			return a, err
		}
		for _, k := range asked {
			d.Lookups = append(d.Lookups, Lookup{k.Server, k.Answered, by(clockOf.ours, k.At), k.Found, k.Error})
		}
		a.Files = append(a.Files, d)
	}
	entries, err := r.Entries(ctx, EntriesOf{Hash: sha256}, Page{})
	a.Entries, a.Next, a.Extent = entries.Entries, entries.Next, entries.Extent
	return a, err
}

func (r Reader) filesOf(ctx context.Context, sha256 string) ([]index.FileState, error) {
	sum, err := readSHA256(sha256)
	if err != nil {
		return nil, err
	}
	files, err := r.Store.FilesOf(ctx, sum, maxCopies)
	if err == nil && len(files) == 0 {
		err = fmt.Errorf("%w: no watched project has a file with the SHA-256 %s", ErrNotFound, sha256)
	}
	return files, err
}

// Provenance returns the provenance object of a file byte for byte. Where several files
// have the same SHA-256, of and filename say which one, "" for any.
func (r Reader) Provenance(ctx context.Context, sha256, of, filename string) ([]byte, error) {
	files, err := r.filesOf(ctx, sha256)
	if err != nil {
		return nil, err
	}
	var found []index.FileState
	for _, f := range files {
		if (of == "" || indexStored(of) == f.Index) && (filename == "" || filename == f.Name) {
			found = append(found, f)
		}
	}
	switch len(found) {
	case 0:
		return nil, fmt.Errorf("%w: no such file with that SHA-256", ErrNotFound)
	case 1:
	default:
		return nil, fmt.Errorf("%w: %d files have that SHA-256; give index and filename", ErrAsked, len(found))
	}
	body, err := r.Store.ProvenanceBody(ctx, found[0].ID)
	if err == nil && body == nil {
		err = fmt.Errorf("%w: no provenance of %s is kept; its state is %s", ErrNotFound, found[0].Name, found[0].Provenance)
	}
	return body, err
}

// EntriesOf says which entries are asked for: of a project, of a publisher, of a hash,
// or the one at a place of a log.
type EntriesOf struct {
	Index, Project string // "" for PyPI; PEP 503
	Publisher      string // Publisher.ID
	Hash           string // hex: of the leaf, of what was signed, of a file, or of the certificate
	Log            string // origin, or that of all shards
	Number         *uint64
}

func (of EntriesOf) by() (index.EntriesBy, error) {
	var q index.EntriesBy
	ways := 0
	for _, given := range []bool{of.Project != "", of.Publisher != "", of.Hash != "", of.Log != "" || of.Number != nil} {
		if given {
			ways++
		}
	}
	if ways != 1 || (of.Log != "") != (of.Number != nil) || of.Index != "" && of.Project == "" {
		return q, fmt.Errorf("%w: give one of project (and index), publisher, hash, or log with number", ErrAsked)
	}
	var err error
	switch {
	case of.Publisher != "":
		q.Publisher, err = readPublisherID(of.Publisher)
	case of.Hash != "":
		var sum [32]byte
		sum, err = readSHA256(of.Hash)
		q.Hash = sum[:]
	case of.Number != nil:
		q.Origin, q.Number = of.Log, of.Number
	default:
		q.Index, q.Project = indexStored(of.Index), of.Project
	}
	return q, err
}

// Entries returns a page of proven entries in the order in which they were stored.
func (r Reader) Entries(ctx context.Context, of EntriesOf, p Page) (Entries, error) {
	a := Entries{Schema: "sigtrail.entries/1", Entries: []Entry{}}
	q, err := of.by()
	if err != nil {
		return a, err
	}
	var after index.EntryID
	limit, err := p.begin(&after)
	if err != nil {
		return a, err
	}
	entries, err := r.Store.Entries(ctx, q, after, limit+1)
	if err != nil {
		return a, err
	}
	if len(entries) == 0 && q.Project != "" {
		if _, err := r.overview(ctx, of.Index, of.Project); err != nil {
			return a, err
		}
	}
	entries, a.Next = cut(entries, limit, func(last index.BoundEntry) string { return cursor(last.ID) })
	for _, e := range entries {
		a.Entries = append(a.Entries, newEntry(e))
	}
	a.Extent, err = r.extent(ctx)
	return a, err
}

func newEntry(e index.BoundEntry) Entry {
	out := Entry{Origin: e.Log.Origin, Index: e.Leaf.Index, Global: e.Log.Global(e.Leaf.Index), LeafHash: hex.EncodeToString(e.Hash[:]), Kind: e.Entry.Kind,
		Covered: by(clockOf.ours, e.Head.Seen), Trusted: e.Signer != nil && e.Trust == "", Distrust: e.Trust, Files: []Binding{}}
	if e.SETValid {
		out.Logged = by(clockOf.log, time.Unix(e.Leaf.IntegratedTime, 0))
	}
	if e.Signer != nil {
		p := e.Signer.Publisher()
		out.Issued, out.PublisherID, out.Publisher = by(clockOf.certificate, e.Signer.NotBefore), publisherID(e.PublisherID), &p
		out.Run, out.Commit = e.Signer.Fields[index.ExtRunInvocationURI].Value, e.Signer.Fields[index.ExtSourceRepositoryDigest].Value
	}
	for _, f := range e.Files {
		b := Binding{indexNamed(f.Index), f.Project, f.Version, f.Name, hex.EncodeToString(f.SHA256[:]), f.Evidence, f.Form, f.Signature}
		if b.Signature == "" {
			b.Signature = "verified"
		}
		out.Files = append(out.Files, b)
	}
	return out
}

// Alerts returns a page of the alerts about a project of an index, "" for PyPI, or of
// all alerts for project "".
func (r Reader) Alerts(ctx context.Context, of, project string, p Page) (Alerts, error) {
	a := Alerts{Schema: "sigtrail.alerts/1", Alerts: []Alert{}}
	if of != "" && project == "" {
		return a, fmt.Errorf("%w: index is given and no project", ErrAsked)
	}
	var before index.AlertKey
	limit, err := p.begin(&before.Raised, &before.ID)
	if err != nil {
		return a, err
	}
	rows, err := r.Store.AlertPage(ctx, indexStored(of), project, before, limit+1)
	if err != nil {
		return a, err
	}
	rows, a.Next = cut(rows, limit, func(last index.Alert) string { return cursor(last.Raised.UnixMicro(), last.ID) })
	for _, row := range rows {
		alert := Alert{ID: row.ID, Rule: row.Rule, Severity: row.Severity, Project: row.Project, Version: row.Version, Raised: Time{row.Raised.UTC(), clockOf.ours}, Body: row.Body}
		if row.Project != "" {
			alert.Index = indexNamed(row.Index)
		}
		if !json.Valid(alert.Body) {
			alert.Body = json.RawMessage(`{}`)
		}
		a.Alerts = append(a.Alerts, alert)
	}
	return a, nil
}

// Coverage says how far every log and index was looked at.
func (r Reader) Coverage(ctx context.Context) (Coverage, error) {
	now := r.Now
	if now == nil {
		now = time.Now
	}
	a := Coverage{Schema: "sigtrail.api-coverage/1", At: Time{now().UTC(), clockOf.ours}, Logs: []LogCoverage{}, Lookups: []Server{}}
	x, err := r.extent(ctx)
	if err != nil {
		return a, err
	}
	a.Indexes = x.Indexes
	logs, err := r.Store.LogExtents(ctx)
	if err != nil {
		return a, err
	}
	for _, l := range logs {
		c := LogCoverage{LogExtent: newLogExtent(l), Newest: [][2]uint64{}}
		ranges, n, leaves, err := r.Store.CoveredRanges(ctx, l.Log, maxRanges)
		if err != nil {
			return a, err
		}
		c.Ranges, c.Covered = n, leaves
		for _, span := range ranges {
			c.Newest = append(c.Newest, [2]uint64{span.From, span.To})
		}
		a.Logs = append(a.Logs, c)
	}
	servers, err := r.Store.LookupSummary(ctx)
	for _, s := range servers {
		a.Lookups = append(a.Lookups, Server{s.Server, s.Files.Unanswered, s.Files.Empty, s.Files.Found, s.Files.Due, by(clockOf.ours, s.Failing), s.Error})
	}
	return a, err
}
