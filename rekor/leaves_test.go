package rekor

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"sigtrail/internal/lab"
)

// asked are the global indexes that a request for leaves is about.
func asked(t *testing.T, r *http.Request) []uint64 {
	t.Helper()
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Error(err)
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	var q struct {
		Indexes []uint64 `json:"logIndexes"`
	}
	if err := json.Unmarshal(body, &q); err != nil {
		t.Error(err)
	}
	return q.Indexes
}

// Answers that overtake each other, in any order and with strangers among them, make
// a run in order; each window is asked for once.
func TestV1LeavesKeepOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabV1(t, 987, Options{Rate: 1000})
		stranger, err := l.log.LogLeaf([]byte("stranger"))
		if err != nil {
			t.Fatal(err)
		}
		served, head := headOf(t, l.V1)
		l.faults.Edit("/api/v1/log/entries/retrieve", -1, func(b []byte) []byte { return lab.Add(stranger.JSON())(lab.Shuffle(b)) })
		lab := l.crowd.Handler
		var mu sync.Mutex
		var windows []uint64
		l.crowd.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			indexes := asked(t, r)
			mu.Lock()
			windows = append(windows, indexes[0])
			mu.Unlock()
			if len(indexes) != 10 && indexes[len(indexes)-1] != 986 {
				t.Errorf("asked for %v", indexes)
			}
			time.Sleep(rand.N(time.Second))
			lab.ServeHTTP(w, r)
		})
		leaves, err := served.Source.Leaves(t.Context(), head, 3, 987)
		if err != nil || len(leaves) != 984 {
			t.Fatal(len(leaves), err)
		}
		for i, leaf := range leaves {
			if leaf.Index != uint64(3+i) || string(leaf.Data) != string(shortLeaf(3+i)) {
				t.Fatalf("leaf %d is %d, %q", 3+i, leaf.Index, leaf.Data)
			}
		}
		slices.Sort(windows)
		for i, w := range windows {
			if w != uint64(3+10*i) {
				t.Fatalf("window %d begins at %d", i, w)
			}
		}
		if len(windows) != 99 || l.crowd.most.Load() < 2 {
			t.Errorf("%d windows, %d at a time", len(windows), l.crowd.most.Load())
		}
	})
}

// What is under way behind a failed window is cancelled, what is before it finishes,
// and nothing further is asked.
func TestV1LeavesStopAtAFailure(t *testing.T) {
	const refused = 60 // first index of the window that fails
	for name, c := range map[string]struct {
		fail func(w http.ResponseWriter, r *http.Request, next http.Handler)
		run  int
	}{
		"refused": {func(w http.ResponseWriter, _ *http.Request, _ http.Handler) { w.WriteHeader(http.StatusForbidden) }, refused},
		"incomplete": {func(w http.ResponseWriter, r *http.Request, next http.Handler) {
			f := new(lab.Faults)
			f.Edit("", 1, lab.LeaveOut(refused+7))
			f.Wrap(next).ServeHTTP(w, r)
		}, refused + 7},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLabV1(t, 500, Options{Rate: 1000})
				served, head := headOf(t, l.V1)
				next := l.crowd.Handler
				var requests, cancelled atomic.Int64
				l.crowd.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					switch first := asked(t, r)[0]; {
					case first == refused:
						time.Sleep(time.Second)
						c.fail(w, r, next)
					case first < refused: // slower than the failure
						time.Sleep(2 * time.Second)
						next.ServeHTTP(w, r)
					default:
						select {
						case <-r.Context().Done():
							cancelled.Add(1)
						case <-time.After(20 * time.Second):
						}
					}
				})
				began := time.Now()
				leaves, err := served.Source.Leaves(t.Context(), head, 0, 500)
				if len(leaves) != c.run {
					t.Errorf("%d leaves of %d before the failure, %v", len(leaves), c.run, err)
				}
				if took := time.Since(began); took != 2*time.Second {
					t.Errorf("took %v", took)
				}
				synctest.Wait()
				if n := requests.Load(); n != 16 || cancelled.Load() != 9 {
					t.Errorf("%d requests, %d of them cancelled, want 16 and 9", n, cancelled.Load())
				}
				if _, err := served.Source.Leaves(t.Context(), head, uint64(c.run), 500); err == nil {
					t.Error("the failure itself is not told")
				}
			})
		})
	}
}

func TestV1LeavesEndWithTheContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := newLabV1(t, 500, Options{Rate: 5})
		served, head := headOf(t, l.V1)
		l.crowd.Handler = http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			asked(t, r) // else the server does not notice that its client has gone
			<-r.Context().Done()
		})
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		began := time.Now()
		if leaves, err := served.Source.Leaves(ctx, head, 0, 500); !errors.Is(err, context.DeadlineExceeded) || time.Since(began) != 3*time.Second {
			t.Errorf("%d leaves after %v, %v", len(leaves), time.Since(began), err)
		}
	})
}

// A run of large leaves ends early, and the next goes on from there.
func TestV1LeavesBoundMemory(t *testing.T) {
	const size, n, most = 4 << 10, 180, 400 << 10
	synctest.Test(t, func(t *testing.T) {
		l := newLabV1(t, 0, Options{Rate: 1000, Concurrency: 1})
		for i := range n {
			if _, err := l.log.LogLeaf(append(make([]byte, size), byte(i), byte(i>>8))); err != nil {
				t.Fatal(err)
			}
		}
		l.V1.runBytes = most
		served, head := headOf(t, l.V1)
		for at := 0; at < n; {
			leaves, err := served.Source.Leaves(t.Context(), head, uint64(at), n)
			if err != nil {
				t.Fatal(err)
			}
			if len(leaves) > most/size+MaxEntries {
				t.Fatalf("%d leaves from %d on at once", len(leaves), at)
			}
			for i, leaf := range leaves {
				if leaf.Index != uint64(at+i) || leaf.Data[size] != byte(at+i) {
					t.Fatalf("leaf %d is %d", at+i, leaf.Index)
				}
			}
			at += len(leaves)
		}
	})
}
