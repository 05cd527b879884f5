package alerts

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"time"

	"sigtrail/index"
)

// A Webhook posts alerts as JSON, signed as the Standard Webhooks specification
// says: webhook-id is the alert's id, webhook-signature is "v1," and the base64
// HMAC-SHA256 of "ID.TIMESTAMP.BODY".
type Webhook struct {
	url    string
	name   string
	secret []byte // nil: unsigned
	http   *http.Client
	now    func() time.Time
}

// NewWebhook makes a sink for a receiver. Neither its URL, which may hold a
// token, nor the secret ever shows in the sink's name or errors.
func NewWebhook(address string, secret []byte) (*Webhook, error) {
	u, err := url.Parse(address)
	if err != nil || u.Hostname() == "" || u.Scheme != "http" && u.Scheme != "https" {
		return nil, errors.New("webhook: the address is no http or https URL")
	}
	sum := sha256.Sum256([]byte(address))
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxResponseHeaderBytes = maxAnswer
	return &Webhook{url: address, name: "webhook:" + u.Hostname() + ":" + hex.EncodeToString(sum[:4]), secret: secret, now: time.Now,
		http: &http.Client{Transport: transport, Timeout: webhookTimeout,
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}, nil
}

const (
	webhookTimeout = 10 * time.Second // from the dial to the end of the answer
	maxAnswer      = 64 << 10         // bytes of the answer that are read, headers and body each
	maxSecret      = 4 << 10          // bytes
)

// ReadSecret reads a webhook's key: "whsec_" and base64, or any text.
func ReadSecret(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("reading a webhook's secret: %w", err)
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxSecret+1))
	if err != nil {
		return nil, fmt.Errorf("reading a webhook's secret: %w", err)
	}
	text := strings.TrimSpace(string(b))
	if text == "" || text == "whsec_" {
		return nil, fmt.Errorf("webhook secret %s is empty", path)
	}
	if len(b) > maxSecret {
		return nil, fmt.Errorf("webhook secret %s is larger than %d bytes", path, maxSecret)
	}
	if encoded, ok := strings.CutPrefix(text, "whsec_"); ok {
		key, err := base64.StdEncoding.DecodeString(encoded)
		if err != nil {
			return nil, fmt.Errorf("webhook secret %s: not base64 behind whsec_", path)
		}
		return key, nil
	}
	return []byte(text), nil
}

// Name is stable for an address, and bounded as a label.
func (w *Webhook) Name() string { return w.name }

// Deliver posts the alert. Only an answer of 2xx, read to its end, counts.
func (w *Webhook) Deliver(ctx context.Context, a index.Alert) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.url, bytes.NewReader(a.Body))
	if err != nil {
		return errors.New("the address is no URL")
	}
	at := strconv.FormatInt(w.now().Unix(), 10)
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("User-Agent", "sigtrail")
	req.Header.Set("webhook-id", a.ID)
	req.Header.Set("webhook-timestamp", at)
	if w.secret != nil {
		req.Header.Set("webhook-signature", sign(w.secret, a.ID, at, a.Body))
	}
	resp, err := w.http.Do(req)
	if err != nil {
		if u := (*url.Error)(nil); errors.As(err, &u) {
			err = u.Err // its text would repeat the address
		}
		return err
	}
	defer resp.Body.Close()
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxAnswer)); err != nil {
		return fmt.Errorf("the receiver's answer broke off: %w", err)
	}
	switch {
	case resp.StatusCode == http.StatusGone:
		return ErrGone
	case resp.StatusCode/100 != 2:
		return fmt.Errorf("the receiver answered %d", resp.StatusCode)
	}
	return nil
}

func sign(secret []byte, id, at string, body []byte) string {
	mac := hmac.New(sha256.New, secret)
	mac.Write([]byte(id + "." + at + "."))
	mac.Write(body)
	return "v1," + base64.StdEncoding.EncodeToString(mac.Sum(nil))
}
