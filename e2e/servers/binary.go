package servers

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// BinDirVar names a folder that holds, or is to hold, the servers' programs. It
// replaces the default, sigtrail-lab in the user's cache folder.
const BinDirVar = "SIGTRAIL_LAB_BIN"

// buildTimeout bounds one cold build: ten minutes on two busy cores is usual for
// the largest server.
const buildTimeout = 30 * time.Minute

// A program is one version of one server.
type program struct {
	file    string // what it is called in the folder of programs
	pkg     string
	version string
}

// The versions are pinned: the ones after them need a newer Go.
var (
	rekorServer   = program{"rekor-server", "github.com/sigstore/rekor/cmd/rekor-server", "v1.5.4"}
	fulcioServer  = program{"fulcio", "github.com/sigstore/fulcio", "v1.8.8"}
	rekorTilesNew = program{"posix-v2.3.0", "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix", "v2.3.0"}
	rekorTilesOld = program{"posix-v2.2.1", "github.com/sigstore/rekor-tiles/v2/cmd/rekor-server/posix", "v2.2.1"}
)

var building sync.Mutex

// binary returns the path of a program. One that is not there yet is built with
// "go install PKG@VERSION", outside every module, so that the servers' many
// dependencies stay out of go.mod.
func binary(t testing.TB, p program) string {
	t.Helper()
	building.Lock()
	defer building.Unlock()
	path, err := find(t.Context(), p, t.Logf)
	if err != nil {
		t.Fatalf("no %s to test against: %v", p.file, err)
	}
	return path
}

// Install makes sure that every program is there, and says what it builds.
func Install(ctx context.Context, logf func(format string, args ...any)) error {
	building.Lock()
	defer building.Unlock()
	for _, p := range []program{rekorTilesNew, rekorTilesOld, fulcioServer, rekorServer} {
		if _, err := find(ctx, p, logf); err != nil {
			return err
		}
	}
	return nil
}

func find(ctx context.Context, p program, logf func(string, ...any)) (string, error) {
	given := os.Getenv(BinDirVar)
	if given != "" {
		// A folder that somebody else filled is taken as it is.
		if path := filepath.Join(given, p.file); executable(path) {
			return path, nil
		}
	}
	dir := given
	if dir == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("finding the cache folder (set %s): %w", BinDirVar, err)
		}
		dir = filepath.Join(cache, "sigtrail-lab")
	}
	dir = filepath.Join(dir, path.Base(p.pkg)+"-"+p.version)
	exe := filepath.Join(dir, path.Base(p.pkg))
	if executable(exe) {
		return exe, nil
	}
	logf("building %s@%s, once", p.pkg, p.version)
	start := time.Now()
	if err := install(ctx, p, dir); err != nil {
		return "", err
	}
	logf("built %s@%s in %s", p.pkg, p.version, time.Since(start).Round(time.Second))
	return exe, nil
}

func executable(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular() && info.Mode()&0o111 != 0
}

// install builds into a folder of its own and moves the program into place: two
// test processes may build at the same time, and one may be killed half-way.
func install(ctx context.Context, p program, dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("making the folder of %s: %w", p.file, err)
	}
	temp, err := os.MkdirTemp(dir, "build-")
	if err != nil {
		return fmt.Errorf("making a folder to build %s in: %w", p.file, err)
	}
	defer os.RemoveAll(temp)
	ctx, cancel := context.WithTimeout(ctx, buildTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, "go", "install", "-trimpath", p.pkg+"@"+p.version)
	cmd.Dir = temp
	cmd.Env = append(os.Environ(), "GOBIN="+temp, "GOFLAGS=", "GOWORK=off", "GO111MODULE=on")
	if out, err := cmd.CombinedOutput(); err != nil {
		if ctx.Err() != nil {
			err = errors.Join(err, ctx.Err())
		}
		return fmt.Errorf("go install %s@%s: %w\n%s\nThe test needs a Go module proxy for the first build; with a program built elsewhere, set %s to its folder and name the file %s",
			p.pkg, p.version, err, strings.TrimSpace(string(out)), BinDirVar, p.file)
	}
	name := path.Base(p.pkg)
	if err := os.Rename(filepath.Join(temp, name), filepath.Join(dir, name)); err != nil {
		return fmt.Errorf("moving %s into place: %w", p.file, err)
	}
	return nil
}
