package api

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"testing"
	"time"

	"sigtrail/index"
)

// What is too much at once is refused at once.
func TestBusy(t *testing.T) {
	h := NewHandler(Reader{}, slog.New(slog.DiscardHandler))
	get := func() *httptest.ResponseRecorder {
		rec := httptest.NewRecorder()
		h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, Root+"openapi.json", nil))
		return rec
	}
	for range MaxAtOnce {
		h.turns <- struct{}{}
	}
	if rec := get(); rec.Code != http.StatusServiceUnavailable || rec.Header().Get("Retry-After") == "" {
		t.Errorf("%d %v", rec.Code, rec.Header())
	}
	<-h.turns
	if rec := get(); rec.Code != http.StatusOK || !bytes.Equal(rec.Body.Bytes(), document) || len(h.turns) != MaxAtOnce-1 {
		t.Errorf("%d, %d at work", rec.Code, len(h.turns))
	}
}

// An answer that takes too long is given up, whatever the database does.
func TestTimeout(t *testing.T) {
	store, err := index.Open(t.Context(), filepath.Join(t.TempDir(), "sigtrail.db"), index.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	h := NewHandler(Reader{Store: store}, slog.New(slog.DiscardHandler))
	for timeout, want := range map[time.Duration]int{time.Nanosecond: http.StatusServiceUnavailable, time.Minute: http.StatusOK} {
		h.timeout = timeout
		for _, path := range []string{"projects", "publishers", "alerts", "coverage", "entries?publisher=p1"} {
			rec := httptest.NewRecorder()
			h.ServeHTTP(rec, httptest.NewRequest(http.MethodGet, Root+path, nil))
			if rec.Code != want || want != http.StatusOK && rec.Header().Get("Retry-After") == "" {
				t.Errorf("%s in %s: %d %s", path, timeout, rec.Code, rec.Body)
			}
		}
	}
}
