package lab

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"time"
)

// A Day says what becomes of PyPI in a day.
type Day struct {
	Seed     uint64
	Uploads  int // files; the last release may make it a few more
	Projects int // that are there before
}

// How a day's uploads are mixed. A few projects make most releases; most releases are
// a source distribution and a wheel, and a few have a wheel for every platform.
const (
	attestedShare = 0.25 // of projects: who attests, attests every file
	newShare      = 0.03 // of releases: the first of a new project
	yankShare     = 0.01 // of releases, some hours later
	removeShare   = 0.004
	goneShare     = 0.002 // of releases: the project is deleted
)

// An event of a day.
type event struct {
	at     time.Duration // since midnight
	upload *Upload       // without what is signed; nil: do
	do     func(*PyPI)
}

// A Replay is a day that can be played.
type Replay struct {
	Uploads  int
	Attested int

	lab    *Lab
	events []event
}

// Prepare registers the projects that are there before, with a release each, and
// draws the day by lot, the same one for the same seed.
func (l *Lab) Prepare(d Day) (*Replay, error) {
	r := &Replay{lab: l}
	for n := range d.Projects {
		u := loadUpload(n, "0.9", 0)
		if err := l.attest(&u); err != nil {
			return nil, err
		}
		l.PyPI.Upload(u)
	}
	rnd := rand.New(rand.NewPCG(d.Seed, 1))
	zipf := rand.NewZipf(rnd, 1.2, 40, uint64(max(d.Projects, 1)-1))
	versions := make(map[int]int)
	for fresh := d.Projects; r.Uploads < d.Uploads; {
		n := int(zipf.Uint64())
		if rnd.Float64() < newShare || d.Projects == 0 {
			n, fresh = fresh, fresh+1
		}
		versions[n]++
		r.release(rnd, n, fmt.Sprintf("1.%d", versions[n]), timeOfDay(rnd))
	}
	slices.SortStableFunc(r.events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	return r, nil
}

// release draws one release and what becomes of it.
func (r *Replay) release(rnd *rand.Rand, project int, version string, at time.Duration) {
	for i := range filesOfRelease(rnd) {
		u := loadUpload(project, version, i)
		r.events = append(r.events, event{at: at, upload: &u})
		r.Uploads++
		if attests(project) {
			r.Attested++
		}
		at += 500*time.Millisecond + time.Duration(rnd.Int64N(int64(2500*time.Millisecond)))
	}
	later := at + time.Duration(rnd.ExpFloat64()*float64(2*time.Hour))
	name := loadProject(project)
	switch x := rnd.Float64(); {
	case x < goneShare:
		r.events = append(r.events, event{at: later, do: func(p *PyPI) { p.RemoveProject(name) }})
	case x < goneShare+removeShare:
		r.events = append(r.events, event{at: later, do: func(p *PyPI) { p.RemoveRelease(name, version) }})
	case x < goneShare+removeShare+yankShare:
		r.events = append(r.events, event{at: later, do: func(p *PyPI) { p.Yank(name, version, "broken") }})
	}
}

func filesOfRelease(rnd *rand.Rand) int {
	switch x := rnd.Float64(); {
	case x < 0.25:
		return 1
	case x < 0.87:
		return 2
	case x < 0.95:
		return 3 + rnd.IntN(10)
	}
	return 13 + rnd.IntN(48)
}

// timeOfDay draws a time: three times as much happens in the afternoon (UTC) as in
// the early morning.
func timeOfDay(rnd *rand.Rand) time.Duration {
	for {
		t := rnd.Float64()
		if rnd.Float64()*1.5 < 1+0.5*math.Cos(2*math.Pi*(t-15.0/24)) {
			return time.Duration(t * float64(24*time.Hour))
		}
	}
}

func loadProject(n int) string { return fmt.Sprintf("Load_%06d", n) }

func attests(project int) bool { return float64(project*7919%1000) < attestedShare*1000 }

func loadUpload(project int, version string, file int) Upload {
	name := fmt.Sprintf("load_%06d-%s", project, version)
	filename := name + ".tar.gz"
	if file > 0 {
		filename = fmt.Sprintf("%s-cp3%02d-cp3%02d-manylinux_2_%d_x86_64.whl", name, 8+file%6, 8+file%6, 17+file/6)
	}
	return Upload{Project: loadProject(project), Version: version, Filename: filename, SHA256: Digest(filename), Size: 100_000 + int64(file)}
}

// attest signs a file and logs it, if its project does that.
func (l *Lab) attest(u *Upload) error {
	var n int
	if _, err := fmt.Sscanf(u.Project, "Load_%d", &n); err != nil || !attests(n) {
		return err
	}
	id := GitHub{Owner: fmt.Sprintf("owner-%d", n%997), Repo: u.Project, RepoID: fmt.Sprint(100_000_000 + n), OwnerID: fmt.Sprint(2_000_000 + n%997)}
	s, err := l.CA.SignPublish(id, u.Filename, u.SHA256, l.clock())
	if err != nil {
		return err
	}
	e, err := l.V1.Log(s)
	if err != nil {
		return err
	}
	u.Provenance = Provenance(id.Publisher(), s, e)
	return nil
}

// Play lets the day happen, so many times faster than it did, from one time of day up
// to another. before is called for each upload just before PyPI has it. It returns
// how many files were uploaded, and how many of them with an attestation.
func (r *Replay) Play(ctx context.Context, speed float64, from, to time.Duration, before func(Upload)) (uploads, attested int, err error) {
	start := time.Now()
	for _, e := range r.events {
		if e.at < from || e.at >= to {
			continue
		}
		due := start.Add(time.Duration(float64(e.at-from) / speed))
		select {
		case <-ctx.Done():
			return uploads, attested, context.Cause(ctx)
		case <-time.After(time.Until(due)):
		}
		if e.upload == nil {
			e.do(r.lab.PyPI)
			continue
		}
		u := *e.upload
		if err := r.lab.attest(&u); err != nil {
			return uploads, attested, err
		}
		uploads++
		if u.Provenance != nil {
			attested++
		}
		before(u)
		r.lab.PyPI.Upload(u)
	}
	return uploads, attested, nil
}
