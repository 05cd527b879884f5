package e2e

import (
	"context"
	"crypto/rand"
	"flag"
	"fmt"
	mathrand "math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"sigtrail/e2e/servers"
)

var (
	soakFor  = flag.Duration("soak", 0, "how long TestSoak runs; 0: not at all")
	soakDir  = flag.String("soak-dir", "", "folder that the monitor works in and that is left behind; empty: a temporary one")
	soakSeed = flag.Uint64("soak-seed", 0, "seed of its plan; 0: another one each time")
)

// TestSoak has the monitor follow every real server there is while entries are
// written all the time, files are released, logs rotate and freeze, servers and the
// monitor itself stop, are killed and come back, and the lines between them fail.
// In the end every alert must be explained, nothing may be missing, and the database
// must equal that of a monitor that came late and saw none of it.
func TestSoak(t *testing.T) {
	if *soakFor == 0 {
		t.Skip("takes as long as it is told to; make soak runs it")
	}
	s := newSoak(t)
	acts := s.plan()
	s.show(acts)
	s.begin()
	for _, p := range append(soakProjects, learner) {
		s.publishFirst(p)
	}
	ctx, stopWriting := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	s.write(ctx, &writers)
	stopWatching := s.watchMemory()

	s.play(acts)

	stopWriting()
	writers.Wait()
	for _, w := range s.allWays() {
		w.set(faultNone)
	}
	s.settle()
	stopWatching()
	s.stop()
	s.check()
}

// soakProjects are named in the policy; anybody else may try to sign for them.
var soakProjects = []string{"soak-alpha", "soak-bravo", "soak-charlie", "soak-delta"}

// learner is a project whose signer is learned. Nobody else signs for it: what a
// late monitor learns from its history would be another thing.
const learner = "soak-learner"

// A soak is a deployment under way.
type soak struct {
	*deployment
	t      *testing.T
	seed   uint64
	length time.Duration
	start  time.Time

	tilesEver []*servers.RekorV2 // every v2 log, frozen ones included, oldest first
	ways      struct {
		v1, pypi, hook *way
		tiles          []*way // of tilesEver, then of those to come
	}
	alerts *receiver
	folder string

	mu      sync.Mutex
	running *daemon
	life    int // how many times the monitor has been started

	// Held for reading while a log is written to; rotation and freezing need
	// a log that nobody writes to.
	writingV1, writingV2 sync.RWMutex
	acknowledged, failed struct{ v1, v2 atomic.Int64 }

	releases int
	done     map[string]int // acts by name
	truth    []logged
	foreign  map[string]time.Time // project and version → when the foreign signature was in a log and the file published
	memory   memory
}

// A logged signature of a file, as its log acknowledged it.
type logged struct {
	origin string
	index  int64 // in the tree
	file   string
}

func newSoak(t *testing.T) *soak {
	s := &soak{t: t, seed: *soakSeed, length: *soakFor, folder: t.TempDir(), done: make(map[string]int), foreign: make(map[string]time.Time)}
	if *soakDir != "" {
		s.folder = *soakDir
	}
	if s.seed == 0 {
		s.seed = mathrand.Uint64()>>1 | 1
	}
	s.deployment = deploy(t)
	s.tilesEver = []*servers.RekorV2{s.v2old, s.v2}
	secret := []byte("a secret of the soak")
	s.alerts = startReceiver(t, secret)
	s.ways.v1 = newWay(t, "v1", s.v1.URL, s.seed)
	s.ways.pypi = newWay(t, "pypi", s.pypi.URL, s.seed)
	s.ways.hook = newWay(t, "webhook", s.alerts.URL, s.seed)
	for _, log := range s.tilesEver {
		s.ways.tiles = append(s.ways.tiles, newWay(t, log.Origin, log.URL, s.seed))
	}
	for range s.rollOvers() { // to a server that is not there yet
		s.ways.tiles = append(s.ways.tiles, newWay(t, shardName(len(s.ways.tiles)), s.v2.URL, s.seed))
	}
	s.pypi.SetBase(s.ways.pypi.URL)
	policy := "projects:\n"
	for _, p := range soakProjects {
		policy += fmt.Sprintf("  %s:\n    publishers: [{repository: github.com/%s, workflow: release.yml, environment: pypi}]\n", p, expected.Repository)
	}
	for name, text := range map[string]string{"policy.yaml": policy, "hook.key": string(secret) + "\n"} {
		if err := os.WriteFile(filepath.Join(s.folder, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	s.start = time.Now()
	return s
}

func (s *soak) allWays() []*way {
	return append([]*way{s.ways.v1, s.ways.pypi, s.ways.hook}, s.ways.tiles[:len(s.tilesEver)]...)
}

// config is the monitor's configuration. It names the logs to come as well, since
// they are read at addresses of their own; each begins when the trusted root gives
// it a key.
func (s *soak) config() string {
	var c strings.Builder
	fmt.Fprintf(&c, "database: sigtrail.db\ntrusted_root: %q\ninterval: 2s\nlogs:\n", s.root)
	fmt.Fprintf(&c, "  - {api: v1, origin: %s, url: %q, follow: tail, start: 0, rate: 50}\n", s.v1.Host, s.ways.v1.URL)
	for _, w := range s.ways.tiles {
		fmt.Fprintf(&c, "  - {api: v2, origin: %s, url: %q, follow: tail, start: 0}\n", w.name, w.URL)
	}
	fmt.Fprintf(&c, "pypi: {url: %q, projects: [%s, %s], interval: 1s, rate: 50}\n", s.ways.pypi.URL, strings.Join(soakProjects, ", "), learner)
	fmt.Fprintf(&c, "policy: %q\n", filepath.Join(s.folder, "policy.yaml"))
	return c.String()
}

func (s *soak) webhook() string {
	return fmt.Sprintf("webhooks: [{url: %q, secret_file: hook.key}]\n", s.ways.hook.URL)
}

// begin starts the monitor.
func (s *soak) begin() {
	d := startMonitor(s.t, s.folder, s.config()+s.webhook())
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running, s.life = d, s.life+1
}

func (s *soak) monitor() *daemon {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.running
}

// stop ends the monitor as its operators do.
func (s *soak) stop() {
	if err := s.monitor().Stop(); err != nil {
		s.t.Errorf("monitor, told to end: %v", err)
	}
}

// kill ends the monitor in the middle of whatever it does. Sometimes a file is
// released, with another signature than the expected one, before it comes back.
func (s *soak) kill(away bool) {
	s.monitor().Kill()
	if away {
		s.release(true)
		s.wait(min(10*time.Second, s.length/60))
	}
	s.begin()
}

// rotate closes the v1 log's shard, with nobody writing.
func (s *soak) rotate() {
	s.writingV1.Lock()
	defer s.writingV1.Unlock()
	s.v1.Rotate(s.t)
}

// tiles is one of the two v2 logs that take entries now.
func (s *soak) tiles(i int) **servers.RekorV2 {
	if i%2 == 0 {
		return &s.v2
	}
	return &s.v2old
}

// rollOvers is how many v2 logs the plan opens.
func (s *soak) rollOvers() int { return max(2, int(s.length/(15*time.Minute))) }

// shardName is the origin of the v2 log that comes after n others.
func shardName(n int) string { return fmt.Sprintf("log-%d.rekor.e2e.test", n+1) }

// rollOver freezes a v2 log and opens another one, with a key and a name of its
// own, which the running monitor learns from the trusted root.
func (s *soak) rollOver(i int) {
	log := s.tiles(i)
	s.writingV2.Lock()
	defer s.writingV2.Unlock()
	(*log).Freeze(s.t)
	n := len(s.tilesEver)
	next := servers.StartRekorV2(s.t, (*log).Version, shardName(n))
	s.ways.tiles[n].lead(s.t, next.URL)
	*log = next
	s.tilesEver = append(s.tilesEver, next)
	trusted := []servers.TrustedLog{s.v1.Trusted(s.t)}
	for _, log := range s.tilesEver {
		trusted = append(trusted, log.Trusted(s.t))
	}
	servers.WriteTrustedRoot(s.t, s.root, s.fulcio, trusted...)
}

// write starts the writers of entries that concern no file that is watched.
func (s *soak) write(ctx context.Context, g *sync.WaitGroup) {
	bystander := func() (servers.Signed, error) {
		w := wheel{name: "unrelated-" + strings.ToLower(rand.Text()) + "-py3-none-any.whl", content: []byte(rand.Text())}
		return s.fulcio.Sign(ctx, bystand, w.name, w.sha256())
	}
	write := func(pace time.Duration, logging *sync.RWMutex, ok, failed *atomic.Int64, upload func(servers.Signed) error) {
		for tick := time.NewTicker(pace); ; {
			select {
			case <-ctx.Done():
				tick.Stop()
				return
			case <-tick.C:
			}
			signed, err := bystander()
			if ctx.Err() != nil {
				return
			}
			if err != nil {
				s.t.Errorf("a bystander's signature: %v", err)
				return
			}
			// A write once begun is waited for: then it is known what came of it.
			logging.RLock()
			err = upload(signed)
			logging.RUnlock()
			if err != nil {
				failed.Add(1) // its server is away, and so whether it is in the log is unknown
			} else {
				ok.Add(1)
			}
		}
	}
	whole := s.t.Context()
	for i := range 2 {
		g.Go(func() {
			write(400*time.Millisecond, &s.writingV1, &s.acknowledged.v1, &s.failed.v1, func(signed servers.Signed) (err error) {
				if i == 0 {
					_, err = s.v1.Upload(whole, signed)
				} else {
					_, err = s.v1.UploadHash(whole, signed)
				}
				return err
			})
		})
	}
	for i := range 10 {
		g.Go(func() {
			write(time.Second, &s.writingV2, &s.acknowledged.v2, &s.failed.v2, func(signed servers.Signed) error {
				_, err := (*s.tiles(i)).Upload(whole, signed)
				return err
			})
		})
	}
}
