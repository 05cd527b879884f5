package pypi

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/time/rate"

	"sigtrail/index"
	"sigtrail/internal/lab"
)

// A road is a watcher that reads a lab's PyPI through its cache, over HTTP.
type road struct {
	*testing.T
	pypi   *lab.PyPI
	cache  *lab.Cache
	faults lab.Faults
	store  *index.Store
	w      *Watcher
	read   int64 // number of the last event that was looked at
}

func onTheRoad(t *testing.T, project string, drive func(r *road)) {
	path := filepath.Join(t.TempDir(), "sigtrail.db")
	synctest.Test(t, func(t *testing.T) {
		r := &road{T: t, pypi: lab.NewPyPI(time.Now)}
		r.cache = lab.NewCache(r.pypi)
		net := lab.NewNetwork()
		defer net.Close()
		net.Serve(lab.PyPIHost, r.faults.Wrap(r.cache))
		r.pypi.SetBase("https://" + lab.PyPIHost)
		var err error
		if r.store, err = index.Open(t.Context(), path, index.Options{}); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := r.store.Close(); err != nil {
				t.Error(err)
			}
		}()
		client, err := NewClient(Options{URL: "https://" + lab.PyPIHost, Rate: rate.Inf, Tries: 2, HTTP: &http.Client{Transport: net.Transport()}, UserAgent: "sigtrail test"})
		if err != nil {
			t.Fatal(err)
		}
		r.w = &Watcher{Client: client, Store: r.store.PyPI(), Projects: []string{project}, Interval: time.Minute, Log: slog.New(slog.NewTextHandler(t.Output(), nil))}
		drive(r)
	})
}

func (r *road) upload(version, text string) {
	name := "p-" + version + ".tar.gz"
	r.pypi.Upload(lab.Upload{Project: "P", Version: version, Filename: name, SHA256: sha256.Sum256([]byte(text)), Size: int64(len(text)), Provenance: []byte(emptyProvenance)})
}

// round lets the watcher look twice, some minutes apart. What fails may do so once.
func (r *road) round() {
	r.Helper()
	for range 3 {
		time.Sleep(2 * time.Minute)
		if err := r.w.Once(r.Context()); err != nil {
			r.Log(err)
		}
	}
}

// expect holds what has happened since the last time against what should have: kind,
// release and the journal's words for it, in any order.
func (r *road) expect(what string, want ...string) {
	r.Helper()
	r.round()
	var got []string
	err := r.store.Events(r.Context(), index.EventQuery{Project: "p", After: r.read}, func(e index.PyPIEvent) error {
		r.read = e.N
		line := strings.TrimSpace(fmt.Sprintf("%s %s", e.Kind, e.Version))
		if e.Cause != nil {
			line += ": " + e.Cause.Action
		}
		got = append(got, line)
		if e.At.After(time.Now()) || e.At.Before(time.Now().Add(-10*time.Minute)) {
			r.Errorf("%s at %v", line, e.At)
		}
		return nil
	})
	if err != nil {
		r.Fatal(err)
	}
	slices.Sort(got)
	slices.Sort(want)
	if diff := cmp.Diff(want, got); diff != "" {
		r.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// Whatever PyPI does to a project, there is an event of it, with the journal's word
// for it; and what its caches do is none.
func TestEventsOnTheRoad(t *testing.T) {
	onTheRoad(t, "p", func(r *road) {
		r.upload("1", "one")
		r.upload("2", "two")
		r.expect("two uploads", "file-listed 1", "provenance-named 1", "provenance-seen 1", "file-listed 2", "provenance-named 2", "provenance-seen 2")

		r.pypi.Yank("P", "1", "it bites")
		r.expect("yank", "yanked 1: yank release")
		r.pypi.Unyank("P", "1")
		r.expect("unyank", "unyanked 1: unyank release")

		r.cache.Deaf(true)
		r.upload("3", "three")
		r.expect("upload behind a cache that has not heard of it")
		r.cache.Deaf(false)
		r.expect("the cache has heard of it", "file-listed 3", "provenance-named 3", "provenance-seen 3")

		r.pypi.RemoveFile("P", "p-3.tar.gz")
		r.expect("file removed", "removed 3: remove file p-3.tar.gz")
		r.pypi.RemoveRelease("P", "2")
		r.expect("release removed", "removed 2: remove release", "release-removed 2: remove release")

		r.upload("4", "four")
		r.expect("upload", "file-listed 4", "provenance-named 4", "provenance-seen 4")
		r.pypi.QuarantineRelease("P", "4")
		r.expect("release quarantined", "hidden 4: release quarantined", "release-quarantined 4: release quarantined")
		r.pypi.ClearRelease("P", "4")
		r.expect("and cleared", "restored 4: release quarantine cleared", "release-quarantine-cleared 4: release quarantine cleared")

		r.pypi.Quarantine("P")
		r.expect("project quarantined", "quarantined: project quarantined", "status-changed: project quarantined")
		r.pypi.Clear("P")
		r.expect("and cleared", "quarantine-cleared: project quarantine cleared", "status-changed: project quarantine cleared")

		// The journal tells of no archiving: the next row brings it to light.
		r.pypi.Archive("P")
		r.expect("archived, unseen")
		r.pypi.Note("P", "", "add Maintainer bob")
		r.expect("archived", "status-changed")

		r.pypi.RemoveProject("P")
		r.expect("project removed", "project-removed: remove project", "removed 1: remove project", "removed 4: remove project")
		r.pypi.Upload(lab.Upload{Project: "p", Version: "1", Filename: "p-1.tar.gz", SHA256: sha256.Sum256([]byte("another one")), Owner: "mallory"})
		r.expect("the name has another owner", "project-created-again: create", "file-listed 1", "sha256-changed 1", "status-changed")

		roles, err := r.store.RolesAt(r.Context(), "", "p", time.Now())
		if err != nil || len(roles.Holders) != 1 || roles.Holders[0].Who != "mallory" || !roles.Whole {
			r.Errorf("roles: %+v %v", roles, err)
		}
		var changes []string
		if err := r.store.RoleChanges(r.Context(), "", "p", func(c index.RoleChange) error {
			changes = append(changes, fmt.Sprintf("%s %s %s", c.Verb, c.Role, c.Who))
			return nil
		}); err != nil {
			r.Fatal(err)
		}
		if diff := cmp.Diff([]string{"add Maintainer bob", "add Owner mallory"}, changes); diff != "" {
			r.Errorf("changes of roles since the journal is followed: %s", diff)
		}
	})
}

// Without a journal a file that one answer lacks is not removed, until another says so
// too; nor does an answer that differs under the same serial count at once.
func TestSecondLook(t *testing.T) {
	onTheRoad(t, "p", func(r *road) {
		r.faults.Status("/pypi", -1, http.StatusNotFound, "")
		r.upload("1", "one")
		r.upload("2", "two")
		r.expect("two uploads", "file-listed 1", "provenance-named 1", "provenance-seen 1", "file-listed 2", "provenance-named 2", "provenance-seen 2")

		r.faults.Edit("/simple/p/", 1, func(body []byte) []byte {
			var page map[string]any
			if err := json.Unmarshal(body, &page); err != nil {
				panic(err)
			}
			page["files"] = page["files"].([]any)[:1]
			body, _ = json.Marshal(page)
			return body
		})
		r.pypi.Archive("P") // under the same serial
		r.expect("archived, after an answer that lacks a file", "status-changed")
		r.pypi.RemoveFile("P", "p-2.tar.gz")
		r.expect("file removed", "removed 2")
	})
}
