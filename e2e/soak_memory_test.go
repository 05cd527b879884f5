package e2e

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A sample is what the monitor's process looks like at one moment.
type sample struct {
	at, age    time.Duration // since the soak's beginning, since this process was first looked at
	life       int
	rss        float64 // bytes
	own        float64 // bytes of it that are of no file
	heap       float64 // bytes, in use by Go
	goroutines float64
	descriptor float64
	cpu        float64 // seconds that this process has used
	lag        float64 // entries behind the verified heads, over all logs; -1: not known
}

// memory collects samples.
type memory struct {
	mu      sync.Mutex
	samples []sample
}

// resident is the resident memory of a process in bytes; 0 when it is gone. which is
// VmRSS, VmHWM (the most so far), or RssAnon (without the pages of files, which come
// and go as the kernel pleases).
func resident(pid int, which string) float64 {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	m := regexp.MustCompile(`(?m)^` + which + `:\s+(\d+) kB$`).FindSubmatch(status)
	if m == nil {
		return 0
	}
	kib, err := strconv.ParseFloat(string(m[1]), 64)
	if err != nil {
		return 0
	}
	return kib * 1024
}

// watchMemory takes a sample every few seconds until the returned function is
// called.
func (s *soak) watchMemory() (stop func()) {
	end, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(3 * time.Second)
		defer tick.Stop()
		life, began := 0, time.Time{}
		for {
			select {
			case <-end:
				return
			case <-tick.C:
			}
			s.mu.Lock()
			d, now := s.running, s.life
			s.mu.Unlock()
			if now != life {
				life, began = now, time.Now()
			}
			rss := resident(d.PID(), "VmRSS")
			if rss == 0 {
				continue
			}
			m := d.metrics(s.t)
			s.memory.add(sample{at: time.Since(s.start), age: time.Since(began), life: life, rss: rss, own: resident(d.PID(), "RssAnon"),
				heap: m["go_memstats_heap_inuse_bytes"], goroutines: m["go_goroutines"], descriptor: m["process_open_fds"],
				cpu: m["process_cpu_seconds_total"], lag: lag(m)})
		}
	}()
	return func() {
		close(end)
		<-ended
	}
}

func lag(m samples) float64 {
	behind, known := 0.0, false
	for series, verified := range m {
		if origin, ok := strings.CutPrefix(series, "sigtrail_verified_size"); ok {
			known = true
			behind += verified - m["sigtrail_indexed_size"+origin]
		}
	}
	if !known {
		return -1
	}
	return behind
}

func (m *memory) add(one sample) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.samples = append(m.samples, one)
}

// A trend is what the samples say in sum.
type trend struct {
	samples  int
	peak     float64       // bytes resident, ever
	median   float64       // bytes resident, warm
	longest  time.Duration // the longest life
	slope    float64       // bytes an hour that are of no file, within lives, warm
	own      float64       // median, bytes that are of no file, warm
	watched  time.Duration // warm time that the slope rests on, in the longest life
	middle   float64       // median, bytes, warm, middle third of the run
	late     float64       // the same, last third
	cpu      float64       // share of one processor, over the whole run
	heapPeak float64
	routines float64 // most goroutines, warm
	files    float64 // most file descriptors, warm
	maxLag   float64
}

// warmUp is how long a process may grow for: caches fill, and what it missed while
// it was away is read.
func (s *soak) warmUp() time.Duration { return min(3*time.Minute, s.length/20) }

// trend sums the samples up. The slope is the one that fits all lives at once,
// each at a level of its own: restarts neither hide growth nor look like it.
func (s *soak) trend() trend {
	s.memory.mu.Lock()
	defer s.memory.mu.Unlock()
	var tr trend
	var warm []sample
	lives := make(map[int][]sample)
	for _, one := range s.memory.samples {
		tr.samples++
		tr.peak, tr.heapPeak, tr.maxLag = max(tr.peak, one.rss), max(tr.heapPeak, one.heap), max(tr.maxLag, one.lag)
		tr.longest = max(tr.longest, one.age)
		if one.age < s.warmUp() {
			continue
		}
		warm = append(warm, one)
		lives[one.life] = append(lives[one.life], one)
		tr.routines, tr.files = max(tr.routines, one.goroutines), max(tr.files, one.descriptor)
		tr.watched = max(tr.watched, one.age-s.warmUp())
	}
	var own []float64
	for _, one := range warm {
		own = append(own, one.own)
	}
	tr.own = quantile(own, 0.5)
	rss := func(from, to time.Duration) float64 {
		var all []float64
		for _, one := range warm {
			if one.at >= from && one.at < to {
				all = append(all, one.rss)
			}
		}
		return quantile(all, 0.5)
	}
	end := 2 * s.length // settling comes after the end
	tr.median, tr.middle, tr.late = rss(0, end), rss(s.length/3, 2*s.length/3), rss(2*s.length/3, end)
	used := make(map[int]float64) // seconds, by life
	for _, one := range s.memory.samples {
		used[one.life] = max(used[one.life], one.cpu)
		tr.cpu = one.at.Seconds()
	}
	tr.cpu = sum(used) / max(1, tr.cpu)
	var above, below float64
	for _, life := range lives {
		var x, y float64
		for _, one := range life {
			x += one.age.Hours() / float64(len(life))
			y += one.own / float64(len(life))
		}
		for _, one := range life {
			dx := one.age.Hours() - x
			above += dx * (one.own - y)
			below += dx * dx
		}
	}
	if below > 0 {
		tr.slope = above / below
	}
	return tr
}

func sum(of map[int]float64) (all float64) {
	for _, v := range of {
		all += v
	}
	return all
}

// quantile sorts its values; 0 of none.
func quantile(values []float64, q float64) float64 {
	if len(values) == 0 {
		return 0
	}
	slices.Sort(values)
	return values[int(q*float64(len(values)-1))]
}
