package pypi

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// A scopeBench is a scope over files that can be rewritten, each as if long ago.
type scopeBench struct {
	*testing.T
	*Scope
	dir     string
	log     bytes.Buffer
	changes [][]string
	writes  int
}

func newScopeBench(t *testing.T, names ...string) *scopeBench {
	b := &scopeBench{T: t, dir: t.TempDir()}
	b.Scope = &Scope{Names: names, Files: []string{filepath.Join(b.dir, "r.txt")}, Log: slog.New(slog.NewTextHandler(&b.log, nil)),
		Changed: func(projects []string) { b.changes = append(b.changes, slices.Clone(projects)) }}
	return b
}

func (b *scopeBench) write(name, text string) {
	b.Helper()
	path := filepath.Join(b.dir, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		b.Fatal(err)
	}
	b.writes++
	b.touch(name, time.Now().Add(-time.Hour+time.Duration(b.writes)*time.Second))
}

func (b *scopeBench) touch(name string, at time.Time) {
	b.Helper()
	if err := os.Chtimes(filepath.Join(b.dir, name), at, at); err != nil {
		b.Fatal(err)
	}
}

// want looks at the files, and compares what is said of it.
func (b *scopeBench) want(changes ...[]string) {
	b.Helper()
	b.changes = nil
	b.look(b.Context())
	if d := cmp.Diff(changes, b.changes); d != "" {
		b.Errorf("changes (-want +got):\n%s", d)
	}
}

func TestScope(t *testing.T) {
	b := newScopeBench(t, "Named.One")
	b.write("r.txt", "b\na\n-r more.txt\n")
	b.write("more.txt", "c==1\n")
	projects, err := b.Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff([]string{"a", "b", "c", "named-one"}, projects); d != "" {
		t.Errorf("projects (-want +got):\n%s", d)
	}
	b.want()

	b.write("more.txt", "c==1\nd\n")
	b.want([]string{"a", "b", "c", "d", "named-one"})
	b.want()
	b.write("r.txt", "b\n-r more.txt\n")
	b.want([]string{"b", "c", "d", "named-one"})

	// The same size, another text.
	b.write("more.txt", "c==1\ne\n")
	b.want([]string{"b", "c", "e", "named-one"})
	// Another version, the same projects; another time, the same text.
	b.write("more.txt", "c==2\ne\n")
	b.want()
	b.write("more.txt", "c==2\ne\n")
	b.want()
	if n := strings.Count(b.log.String(), "requirements have changed"); n != 4 {
		t.Errorf("%d changes are told, want 4:\n%s", n, b.log.String())
	}

	// Nothing is left of it but what was named.
	b.write("r.txt", "# moved\n")
	b.want([]string{"named-one"})
	b.write("r.txt", "NAMED_ONE\n")
	b.want()
}

// While files cannot be read, the projects stay; that is told once.
func TestScopeThroughErrors(t *testing.T) {
	b := newScopeBench(t)
	b.write("r.txt", "a\n")
	if _, err := b.Load(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		b.write("r.txt", "a\n???\n")
		b.want()
	}
	if n := strings.Count(b.log.String(), "r.txt:2"); n != 1 {
		t.Errorf("the error is told %d times, want once:\n%s", n, b.log.String())
	}
	if err := os.Remove(filepath.Join(b.dir, "r.txt")); err != nil {
		t.Fatal(err)
	}
	b.want()
	if !strings.Contains(b.log.String(), "no such file") {
		t.Errorf("nothing about the missing file:\n%s", b.log.String())
	}
	// An include that is missing comes, without a change to what was read.
	b.write("r.txt", "a\n-r b.txt\n")
	b.want()
	b.write("b.txt", "b\n")
	b.want([]string{"a", "b"})
}

// A file that is just being written is read when it has been left alone.
func TestScopeWaitsForWriter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newScopeBench(t)
		writeNow := func(text string) {
			b.write("r.txt", text)
			b.touch("r.txt", time.Now())
		}
		writeNow("a\nb\n")
		if _, err := b.Load(t.Context()); err != nil {
			t.Fatal(err)
		}
		// Of the same time and size as what was read.
		writeNow("a\nc\n")
		b.want()
		time.Sleep(settling)
		b.want([]string{"a", "c"})
		writeNow("a\n")
		b.want()
		time.Sleep(settling / 2)
		b.want()
		writeNow("a\nb\nc\n")
		time.Sleep(settling / 2)
		b.want()
		time.Sleep(settling)
		b.want([]string{"a", "b", "c"})

		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- b.Scope.Run(ctx) }()
		b.changes = nil
		writeNow("z\n")
		time.Sleep(b.Every + settling)
		synctest.Wait()
		if d := cmp.Diff([][]string{{"z"}}, b.changes); d != "" {
			t.Errorf("changes (-want +got):\n%s", d)
		}
		cancel()
		if err := <-done; err != nil {
			t.Errorf("the end: %v", err)
		}
	})
}

func TestScopeRefuses(t *testing.T) {
	b := newScopeBench(t, "no name")
	b.write("r.txt", "a\n")
	if _, err := b.Load(t.Context()); err == nil || !strings.Contains(err.Error(), `"no name"`) {
		t.Errorf("%v", err)
	}
	b = newScopeBench(t, "a")
	if _, err := b.Load(t.Context()); err == nil || !strings.Contains(err.Error(), "r.txt") {
		t.Errorf("%v; want the missing file", err)
	}
}
