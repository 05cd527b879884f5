package lab

import (
	"slices"
	"strings"
	"sync"
	"time"
)

// PyPI is an index with a journal (XML-RPC), simple JSON (PEP 691, 700, 792) and
// the integrity API (PEP 740). It keeps PyPI's habits: serials have gaps, a change
// without a row in the journal (archiving) leaves the serial alone, a deleted file
// takes its provenance with it, and journal rows outlive what they tell of.
//
// It refuses nothing: that a file name cannot be used twice, for one, is up to the
// caller. What a request costs does not grow with the journal, with the number of
// projects, or, unless it asks for a changed page, with the files of its project.
type PyPI struct {
	clock func() time.Time

	mu       sync.Mutex
	base     string
	journal  []journalRow // by serial
	projects map[string]*project
	names    []string // keys of projects in order; nil: to be sorted again
	ballast  ballast
	closed   bool // the integrity API says 403
	limit    rpcLimit
	watchers []func(project string)
}

// A project is one registration of a name. Whoever registers it after its deletion
// makes another one.
type project struct {
	name     string // as registered
	key      string // normalised
	serial   int64
	status   string
	changes  int // of the page, with a serial or without
	releases map[string]*release
	versions []string // keys of releases, in the order of their making
	files    []*file  // in the order of their upload
	byName   map[string]*file
	page     []byte // nil: to be written again
}

type release struct {
	version     string
	files       int
	yanked      *string
	quarantined bool
}

type file struct {
	Upload
	release *release
	text    []byte // its JSON; nil: to be written again
}

// An Upload is a file as it is given to PyPI.
type Upload struct {
	Project    string
	Version    string
	Filename   string
	SHA256     [32]byte
	Size       int64
	Owner      string    // who registers the name, if nobody has it; "": maintainer
	At         time.Time // zero: now, by the lab's clock
	Provenance []byte    // nil: not attested
}

// The states of a project that PyPI serves.
const (
	active      = "active"
	archived    = "archived"
	quarantined = "quarantined"
)

// NewPyPI makes an empty index.
func NewPyPI(clock func() time.Time) *PyPI {
	return &PyPI{clock: clock, projects: make(map[string]*project)}
}

// SetBase tells the index its own address, which its answers contain.
func (p *PyPI) SetBase(url string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.base = url
	for _, pr := range p.projects {
		pr.forgetText()
	}
}

// OnChange has f called with the normalised name of each project whose page
// changes, as PyPI tells its caches.
func (p *PyPI) OnChange(f func(project string)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watchers = append(p.watchers, f)
}

func normalize(name string) string {
	return strings.Join(strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return strings.ContainsRune("-_.", r) }), "-")
}

// Upload publishes a file. The first of a name registers the project, the first of
// a version makes the release.
func (p *PyPI) Upload(u Upload) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if u.At.IsZero() {
		u.At = p.clock()
	}
	pr := p.projects[normalize(u.Project)]
	if pr == nil {
		pr = p.register(u)
	}
	rel := pr.releases[u.Version]
	if rel == nil {
		rel = &release{version: u.Version}
		pr.releases[u.Version] = rel
		pr.versions = append(pr.versions, u.Version)
		p.note(u.Project, u.Version, "new release", u.At)
	}
	f := &file{Upload: u, release: rel}
	rel.files++
	pr.files = append(pr.files, f)
	pr.byName[u.Filename] = f
	p.note(u.Project, u.Version, "add "+pythonTag(u.Filename)+" file "+u.Filename, u.At)
	p.changed(pr)
}

func (p *PyPI) register(u Upload) *project {
	pr := &project{name: u.Project, key: normalize(u.Project), status: active, releases: make(map[string]*release), byName: make(map[string]*file)}
	p.projects[pr.key], p.names = pr, nil
	owner := u.Owner
	if owner == "" {
		owner = "maintainer"
	}
	p.note(u.Project, "", "create", u.At)
	p.note(u.Project, "", "add Owner "+owner, u.At)
	return pr
}

// pythonTag is what the journal says before "file": the Python that a wheel is for,
// or source.
func pythonTag(filename string) string {
	if stem, ok := strings.CutSuffix(filename, ".whl"); ok {
		if parts := strings.Split(stem, "-"); len(parts) >= 5 {
			return parts[len(parts)-3]
		}
		return "py3"
	}
	return "source"
}

// RemoveFile deletes a file with its provenance.
func (p *PyPI) RemoveFile(name, filename string) {
	p.change(name, func(pr *project) {
		f := pr.byName[filename]
		if f == nil {
			return
		}
		pr.drop(func(x *file) bool { return x == f })
		p.note(pr.name, f.Version, "remove file "+filename, p.clock())
	})
}

// RemoveRelease deletes a release with its files and their provenance.
func (p *PyPI) RemoveRelease(name, version string) {
	p.change(name, func(pr *project) {
		rel := pr.releases[version]
		if rel == nil {
			return
		}
		pr.drop(func(x *file) bool { return x.release == rel })
		delete(pr.releases, version)
		pr.versions = slices.DeleteFunc(pr.versions, func(v string) bool { return v == version })
		p.note(pr.name, version, "remove release", p.clock())
	})
}

// RemoveProject deletes a project with everything in it. Anybody may register the
// name again.
func (p *PyPI) RemoveProject(name string) {
	p.change(name, func(pr *project) {
		delete(p.projects, pr.key)
		p.names = nil
		p.note(pr.name, "", "remove project", p.clock())
	})
}

// Yank marks a release; the reason may be empty.
func (p *PyPI) Yank(name, version, reason string) { p.setYanked(name, version, &reason) }

// Unyank takes the mark away.
func (p *PyPI) Unyank(name, version string) { p.setYanked(name, version, nil) }

func (p *PyPI) setYanked(name, version string, reason *string) {
	action := "yank release"
	if reason == nil {
		action = "unyank release"
	}
	p.changeRelease(name, version, action, func(r *release) { r.yanked = reason })
}

// Quarantine hides a project's files.
func (p *PyPI) Quarantine(name string) { p.setStatus(name, quarantined, "project quarantined") }

// Clear ends a project's quarantine.
func (p *PyPI) Clear(name string) { p.setStatus(name, active, "project quarantine cleared") }

// Archive marks a project as one that will see no more releases. The journal does
// not tell.
func (p *PyPI) Archive(name string) { p.setStatus(name, archived, "") }

// Unarchive takes the mark away, which the journal does not tell either.
func (p *PyPI) Unarchive(name string) { p.setStatus(name, active, "") }

func (p *PyPI) setStatus(name, status, action string) {
	p.change(name, func(pr *project) {
		pr.status = status
		if action != "" {
			p.note(pr.name, "", action, p.clock())
		}
	})
}

// QuarantineRelease hides the files of one release; the project stays as it is.
func (p *PyPI) QuarantineRelease(name, version string) {
	p.changeRelease(name, version, "release quarantined", func(r *release) { r.quarantined = true })
}

// ClearRelease ends the quarantine of one release.
func (p *PyPI) ClearRelease(name, version string) {
	p.changeRelease(name, version, "release quarantine cleared", func(r *release) { r.quarantined = false })
}

func (p *PyPI) changeRelease(name, version, action string, f func(*release)) {
	p.change(name, func(pr *project) {
		rel := pr.releases[version]
		if rel == nil {
			return
		}
		f(rel)
		pr.forgetText()
		p.note(pr.name, version, action, p.clock())
	})
}

// Note writes a row to the journal and changes nothing else: roles, invitations,
// actions of old, and what nobody has heard of yet.
func (p *PyPI) Note(name, version, action string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.note(name, version, action, p.clock())
	if pr := p.projects[normalize(name)]; pr != nil {
		p.changed(pr)
	}
}

// AttestationsOff switches the integrity API off for the whole site, or on again.
func (p *PyPI) AttestationsOff(off bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = off
}

// change changes a project that is there.
func (p *PyPI) change(name string, f func(*project)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if pr := p.projects[normalize(name)]; pr != nil {
		f(pr)
		p.changed(pr)
	}
}

// changed has a project's page written again when it is asked for.
func (p *PyPI) changed(pr *project) {
	pr.page = nil
	pr.changes++
	for _, f := range p.watchers {
		f(pr.key)
	}
}

func (pr *project) drop(gone func(*file) bool) {
	pr.files = slices.DeleteFunc(pr.files, func(f *file) bool {
		if !gone(f) {
			return false
		}
		f.release.files--
		if pr.byName[f.Filename] == f {
			delete(pr.byName, f.Filename)
		}
		return true
	})
}

func (pr *project) forgetText() {
	pr.page = nil
	for _, f := range pr.files {
		f.text = nil
	}
}
