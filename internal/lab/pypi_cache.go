package lab

import (
	"bytes"
	"maps"
	"net/http"
	"strings"
	"sync"
	"time"
)

// A Cache stands in front of a PyPI as its content delivery network does. It keeps
// every answer to a GET, refusals included, until the index says that a project has
// changed; what it then still has it may give once more while it asks (stale while
// revalidate). Nothing of the journal is kept.
type Cache struct {
	next  http.Handler
	clock func() time.Time

	mu      sync.Mutex
	copies  map[string]map[string]*kept // by project, then by what was asked for
	changes int
	stale   time.Duration // how long after a change a copy is given once more
	deaf    bool          // changes are not heard of
	missed  map[string]bool
	hits    int
	answers int
}

// A kept answer.
type kept struct {
	status int
	header http.Header
	body   []byte
	at     time.Time
	old    time.Time // when a change was heard of; zero: it stands
}

// NewCache makes a cache in front of an index.
func NewCache(p *PyPI) *Cache {
	c := &Cache{next: p, clock: p.clock, copies: make(map[string]map[string]*kept), missed: make(map[string]bool)}
	p.OnChange(c.purge)
	return c
}

// StaleFor has a copy that is out of date given once more within that time after
// the change; PyPI's network has five minutes. 0, as in the beginning: never.
func (c *Cache) StaleFor(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stale = d
}

// Deaf keeps changes from reaching the cache: its copies grow old. Once it hears
// again, it catches up with what it has missed.
func (c *Cache) Deaf(deaf bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf = deaf; !deaf {
		for project := range c.missed {
			c.outdate(project)
		}
		clear(c.missed)
	}
}

// purge hears of a change.
func (c *Cache) purge(project string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.deaf {
		c.missed[project] = true
		return
	}
	c.outdate(project)
}

func (c *Cache) outdate(project string) {
	c.changes++
	if c.stale == 0 {
		delete(c.copies, project)
	}
	for _, k := range c.copies[project] {
		if k.old.IsZero() {
			k.old = c.clock()
		}
	}
}

// Hits is how many answers came out of the cache, and how many there were.
func (c *Cache) Hits() (hits, answers int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.hits, c.answers
}

func (c *Cache) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet {
		c.next.ServeHTTP(w, r)
		return
	}
	project, key := cacheKey(r)
	c.mu.Lock()
	k := c.copies[project][key]
	switch {
	case k == nil:
	case k.old.IsZero() && (project != "" || c.clock().Sub(k.at) < namesFor):
	case !k.old.IsZero() && c.clock().Sub(k.old) < c.stale:
		delete(c.copies[project], key) // the next who asks gets what is true
	default:
		k = nil
	}
	c.answers++
	hit := k != nil
	if hit {
		c.hits++
	}
	changes := c.changes
	c.mu.Unlock()
	if !hit {
		k = c.fetch(r)
		c.mu.Lock()
		if changes == c.changes { // or it may be out of date already
			if c.copies[project] == nil {
				c.copies[project] = make(map[string]*kept)
			}
			c.copies[project][key] = k
		}
		c.mu.Unlock()
	}
	k.serve(w, r, hit)
}

// namesFor is how long the list of all projects is kept, which no change outdates.
const namesFor = 30 * time.Minute

// cacheKey is the project that a request is about, "" for none, and the request.
func cacheKey(r *http.Request) (project, key string) {
	if parts := strings.Split(r.URL.Path, "/"); len(parts) > 2 {
		project = normalize(parts[2])
	}
	return project, r.Header.Get("Accept") + " " + r.URL.Path
}

// fetch asks the index itself, unconditionally.
func (c *Cache) fetch(r *http.Request) *kept {
	inner := r.Clone(r.Context())
	inner.Header.Del("If-None-Match")
	rec := &recorder{header: make(http.Header), status: http.StatusOK}
	c.next.ServeHTTP(rec, inner)
	return &kept{at: c.clock(), status: rec.status, header: rec.header, body: rec.body.Bytes()}
}

func (k *kept) serve(w http.ResponseWriter, r *http.Request, hit bool) {
	h := w.Header()
	maps.Copy(h, k.header)
	h.Set("X-Cache", map[bool]string{true: "HIT", false: "MISS"}[hit])
	if tag := h.Get("ETag"); tag != "" && r.Header.Get("If-None-Match") == tag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	w.WriteHeader(k.status)
	w.Write(k.body)
}

// A recorder keeps an answer.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }
