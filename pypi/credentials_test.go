package pypi

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"sigtrail/index"
)

// Credentials go to the index and to nobody else, renewed ones without a restart.
func TestCredentials(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{} // Authorization by server
	answer := func(name string, h http.HandlerFunc) *httptest.Server {
		s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen[name] = r.Header.Get("Authorization")
			mu.Unlock()
			h(w, r)
		}))
		t.Cleanup(s.Close)
		return s
	}
	elsewhere := answer("elsewhere", func(w http.ResponseWriter, r *http.Request) { _, _ = io.WriteString(w, emptyProvenance) })
	mirror := answer("mirror", func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/simple/moved/":
			http.Redirect(w, r, elsewhere.URL+"/simple/moved/", http.StatusFound)
		case "/simple/closed/":
			w.WriteHeader(http.StatusUnauthorized)
		default:
			_, _ = io.WriteString(w, emptyProvenance)
		}
	})
	file := filepath.Join(t.TempDir(), "token")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("robot:s3cret\n")
	host, err := url.Parse(elsewhere.URL)
	if err != nil {
		t.Fatal(err)
	}
	c, err := NewClient(Options{URL: mirror.URL, Rate: 1000, Tries: 1, ProvenanceHosts: []string{host.Host}, Authorization: CredentialsFile(file)})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(server string) index.ProvenanceState {
		t.Helper()
		p, err := c.Provenance(t.Context(), server+"/provenance")
		if err != nil {
			t.Fatal(err)
		}
		return p.State
	}
	for i, step := range []struct{ file, server, name, want string }{
		{"robot:s3cret\n", mirror.URL, "mirror", "Basic cm9ib3Q6czNjcmV0"},
		{"tok-3n\n", mirror.URL, "mirror", "Bearer tok-3n"},
		{"tok-3n", elsewhere.URL, "elsewhere", ""},
	} {
		write(step.file)
		if state := ask(step.server); state != index.ProvenancePresent || seen[step.name] != step.want {
			t.Errorf("step %d: %s was sent %q, want %q (%s)", i, step.name, seen[step.name], step.want, state)
		}
	}
	mu.Lock()
	delete(seen, "elsewhere")
	mu.Unlock()
	if _, err := c.Listing(t.Context(), "moved"); !errors.Is(err, errElsewhere) {
		t.Errorf("redirection to another server: %v", err)
	}
	if sent, asked := seen["elsewhere"]; asked {
		t.Errorf("another server was sent %q", sent)
	}
	if _, err := c.Listing(t.Context(), "closed"); err == nil || strings.Contains(err.Error(), "tok-3n") || !strings.Contains(err.Error(), "401") {
		t.Errorf("refused credentials: %v", err)
	}
	write("two\nlines of secret")
	if _, err := c.Listing(t.Context(), "sample"); err == nil || strings.Contains(err.Error(), "secret") || !strings.Contains(err.Error(), file) {
		t.Errorf("unreadable credentials: %v", err)
	}
}

func TestAuthorization(t *testing.T) {
	for text, want := range map[string]string{
		"a:b":                     "Basic YTpi",
		" a:b c:d \r\n":           "Basic YTpiIGM6ZA==",
		"__token__:pypi-AgEI":     "Basic X190b2tlbl9fOnB5cGktQWdFSQ==",
		"abc.DEF-1_2~3+4/5==":     "Bearer abc.DEF-1_2~3+4/5==",
		"":                        "",
		"\n \n":                   "",
		"a\nb":                    "",
		"a:b\r\nX-Evil: 1":        "",
		"two words":               "",
		"a\x00b":                  "",
		strings.Repeat("a", 17e3): "",
	} {
		got, err := authorization([]byte(text))
		if got != want || (err != nil) != (want == "") {
			t.Errorf("%.20q: %q, %v, want %q", text, got, err, want)
		}
		if err != nil && len(text) > 4 && strings.Contains(err.Error(), strings.TrimSpace(text)) {
			t.Errorf("%.20q: the error repeats it: %v", text, err)
		}
	}
}
