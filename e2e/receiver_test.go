package e2e

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// A delivery is a webhook request as it came in.
type delivery struct {
	ID, Timestamp, Signature string
	Body                     []byte
	At                       time.Time
	Alert                    alert
}

// alert is the part of an alert's JSON that the tests look at.
type alert struct {
	ID, Rule, Severity, Project, Version string
	Files                                []struct{ Name, SHA256 string }
	Log                                  struct {
		Origin string
		Global int64 `json:"global_index"`
	}
	Seen     struct{ Repository, SAN string }
	Expected []string
	Evidence string
}

// A receiver is an HTTP server that takes alerts. It knows the webhooks' secret,
// not the code that signs.
type receiver struct {
	URL    string
	secret []byte

	mu  sync.Mutex
	got []delivery
	new chan struct{} // capacity 1
}

func startReceiver(t *testing.T, secret []byte) *receiver {
	t.Helper()
	r := &receiver{secret: secret, new: make(chan struct{}, 1)}
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		body, err := io.ReadAll(io.LimitReader(req.Body, 1<<20))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		d := delivery{ID: req.Header.Get("webhook-id"), Timestamp: req.Header.Get("webhook-timestamp"), Signature: req.Header.Get("webhook-signature"), Body: body, At: time.Now()}
		if err := json.Unmarshal(body, &d.Alert); err != nil {
			t.Errorf("a delivery is no JSON: %v\n%s", err, body)
		}
		r.mu.Lock()
		r.got = append(r.got, d)
		r.mu.Unlock()
		select {
		case r.new <- struct{}{}:
		default:
		}
	}))
	t.Cleanup(s.Close)
	r.URL = s.URL + "/hook"
	return r
}

func (r *receiver) deliveries() []delivery {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]delivery(nil), r.got...)
}

// signed checks a delivery's signature as the Standard Webhooks specification
// tells receivers to: base64 HMAC-SHA256 over "ID.TIMESTAMP.BODY", any of the
// space-separated signatures of version 1.
func (r *receiver) signed(d delivery) bool {
	mac := hmac.New(sha256.New, r.secret)
	io.WriteString(mac, d.ID+"."+d.Timestamp+".")
	mac.Write(d.Body)
	for one := range strings.FieldsSeq(d.Signature) {
		encoded, ok := strings.CutPrefix(one, "v1,")
		if !ok {
			continue
		}
		got, err := base64.StdEncoding.DecodeString(encoded)
		if err == nil && hmac.Equal(got, mac.Sum(nil)) {
			return true
		}
	}
	return false
}
