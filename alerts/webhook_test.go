package alerts

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"sigtrail/index"
)

var anAlert = index.Alert{ID: "sa_01", Rule: "provenance-lost", Severity: "high", Project: "p", Body: []byte(`{"id":"sa_01"}`)}

func receiver(t *testing.T, h http.HandlerFunc) *httptest.Server {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s
}

func webhook(t *testing.T, address string, secret []byte) *Webhook {
	t.Helper()
	w, err := NewWebhook(address, secret)
	check(t, err)
	w.now = func() time.Time { return epoch }
	return w
}

// The signature is recomputed here from the Standard Webhooks text, not by our own code.
func TestWebhookSignature(t *testing.T) {
	secret := []byte("a key that two share")
	var got *http.Request
	var body []byte
	s := receiver(t, func(_ http.ResponseWriter, r *http.Request) {
		got = r
		body, _ = io.ReadAll(r.Body)
	})
	check(t, webhook(t, s.URL+"/hook", secret).Deliver(t.Context(), anAlert))
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte("sa_01.1772366400." + string(body)))
	for header, want := range map[string]string{
		"webhook-id":        "sa_01",
		"webhook-timestamp": "1772366400",
		"webhook-signature": "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil)),
		"Content-Type":      "application/json",
	} {
		if h := got.Header.Get(header); h != want {
			t.Errorf("%s: %q, want %q", header, h, want)
		}
	}
	if string(body) != string(anAlert.Body) || got.Method != http.MethodPost || got.URL.Path != "/hook" {
		t.Errorf("%s %s %s", got.Method, got.URL, body)
	}
	check(t, webhook(t, s.URL, nil).Deliver(t.Context(), anAlert))
	if h, signed := got.Header["Webhook-Signature"]; signed {
		t.Errorf("signed without a secret: %q", h)
	}
}

// The example that the Standard Webhooks specification's libraries test with.
func TestSignVector(t *testing.T) {
	key, err := base64.StdEncoding.DecodeString("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	check(t, err)
	got := sign(key, "msg_p5jXN8AQM9LWM0D4loKWxJek", "1614265330", []byte(`{"test": 2432232314}`))
	if want := "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestWebhookAnswers(t *testing.T) {
	for name, c := range map[string]struct {
		answer http.HandlerFunc
		want   string // in the error; "": delivered
	}{
		"200":      {func(w http.ResponseWriter, _ *http.Request) {}, ""},
		"204":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }, ""},
		"500":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }, "answered 500"},
		"404":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotFound) }, "answered 404"},
		"410":      {func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }, ErrGone.Error()},
		"redirect": {func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/elsewhere", http.StatusFound) }, "answered 302"},
		"cut": {func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "100")
			_, _ = w.Write([]byte("o"))
		}, "broke off"},
		"cut chunked": {func(w http.ResponseWriter, _ *http.Request) {
			_, _ = w.Write([]byte("o"))
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, "broke off"},
		"hung up": {func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, "EOF"},
		"endless": {func(w http.ResponseWriter, _ *http.Request) {
			for range 1000 {
				if _, err := w.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}, ""},
		"endless headers": {func(w http.ResponseWriter, _ *http.Request) {
			for range 100 {
				w.Header().Add("X", strings.Repeat("x", 4096))
			}
		}, "exceeded"},
	} {
		t.Run(name, func(t *testing.T) {
			var asked atomic.Int32
			s := receiver(t, func(w http.ResponseWriter, r *http.Request) { asked.Add(1); c.answer(w, r) })
			err := webhook(t, s.URL, nil).Deliver(t.Context(), anAlert)
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
			if n := asked.Load(); n != 1 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

func TestWebhookSlow(t *testing.T) {
	release := make(chan struct{})
	s := receiver(t, func(http.ResponseWriter, *http.Request) { <-release })
	defer close(release)
	w := webhook(t, s.URL, nil)
	if w.http.Timeout != 10*time.Second {
		t.Errorf("timeout %s", w.http.Timeout)
	}
	w.http.Timeout = 20 * time.Millisecond
	if err := w.Deliver(t.Context(), anAlert); err == nil {
		t.Error("delivered")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := w.Deliver(ctx, anAlert); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// Whatever goes wrong, neither the address's secrets nor the key are told.
func TestWebhookSecrets(t *testing.T) {
	down := httptest.NewServer(nil)
	down.Close()
	address := strings.Replace(down.URL, "http://", "http://user:hunter2@", 1) + "/hook-hunter2?token=hunter2#hunter2"
	w := webhook(t, address, []byte("hunter2"))
	err := w.Deliver(t.Context(), anAlert)
	if err == nil {
		t.Fatal("delivered")
	}
	other := webhook(t, address+"x", nil)
	if w.Name() == other.Name() {
		t.Error("two addresses share a name")
	}
	for _, text := range []string{err.Error(), w.Name()} {
		if strings.Contains(text, "hunter2") || strings.Contains(text, "user") {
			t.Errorf("told: %s", text)
		}
	}
	if !strings.HasPrefix(w.Name(), "webhook:127.0.0.1:") {
		t.Errorf("name %q", w.Name())
	}
	for _, bad := range []string{"", "hook", "ftp://hunter2/", "http://", "http://:80/hunter2", "http://x/%zzhunter2", "://hunter2"} {
		if _, err := NewWebhook(bad, nil); err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

func TestReadSecret(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hook.key")
	for text, want := range map[string]string{"whsec_aGVsbG8=\n": "hello", " any text \n": "any text", "aGVsbG8=": "aGVsbG8=",
		"": "is empty", "\n": "is empty", "whsec_": "is empty", "whsec_hunter2!": "not base64", strings.Repeat("x", maxSecret+1): "larger"} {
		check(t, os.WriteFile(path, []byte(text), 0o600))
		key, err := ReadSecret(path)
		got := string(key)
		if err != nil {
			got = err.Error()
			if strings.Contains(got, "hunter2") {
				t.Errorf("told: %s", got)
			}
		}
		if err == nil && got != want || err != nil && !strings.Contains(got, want) {
			t.Errorf("%.20q: %q, want %q", text, got, want)
		}
	}
	if _, err := ReadSecret(path + "x"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v", err)
	}
}
