package servers

import (
	"bufio"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"log"
	"math/big"
	"net"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"
)

// GitHubIssuer is the OpenID provider of GitHub Actions. Verifiers look at this
// very name in certificates, so the lab's provider has to bear it.
const GitHubIssuer = "https://token.actions.githubusercontent.com"

// A Job is a run of a GitHub Actions job: what its identity token claims. Zero
// fields take the values of an ordinary release job.
type Job struct {
	Repository        string // "owner/name"
	RepositoryID      string
	RepositoryOwnerID string
	Workflow          string // file in .github/workflows; "release.yml"
	Ref               string // "refs/tags/v1.0.0"
	SHA               string // 40 hex digits
	Event             string // "push"
	Runner            string // "github-hosted"
	RunID             string
	Attempt           string // "1"
	Environment       string // "": none
	Visibility        string // "public"
	Called            string // job_workflow_ref, when the job is in a reusable workflow
}

// claims of the job's token, apart from those of every token.
func (j Job) claims() map[string]string {
	or := func(value, otherwise string) string {
		if value == "" {
			return otherwise
		}
		return value
	}
	owner, _, _ := strings.Cut(j.Repository, "/")
	ref := or(j.Ref, "refs/tags/v1.0.0")
	sha := or(j.SHA, "7f3c1e5a9b2d4f60718293a4b5c6d7e8f9012345")
	file := or(j.Workflow, "release.yml")
	workflow := j.Repository + "/.github/workflows/" + file + "@" + ref
	c := map[string]string{
		"repository": j.Repository, "repository_id": or(j.RepositoryID, "711000001"),
		"repository_owner": owner, "repository_owner_id": or(j.RepositoryOwnerID, "811000001"),
		"repository_visibility": or(j.Visibility, "public"),
		"workflow":              strings.TrimSuffix(file, ".yml"), "workflow_ref": workflow, "workflow_sha": sha,
		"job_workflow_ref": or(j.Called, workflow), "job_workflow_sha": sha,
		"ref": ref, "sha": sha, "event_name": or(j.Event, "push"), "actor": owner,
		"runner_environment": or(j.Runner, "github-hosted"),
		"run_id":             or(j.RunID, "9100000001"), "run_attempt": or(j.Attempt, "1"),
		"sub": "repo:" + j.Repository + ":ref:" + ref,
	}
	if j.Environment != "" {
		c["environment"] = j.Environment
		c["sub"] = "repo:" + j.Repository + ":environment:" + j.Environment
	}
	return c
}

// issuer is an OpenID provider that a client reaches under GitHub's name: it is
// an HTTP proxy that answers CONNECT for that name itself, with a TLS
// certificate of its own, and for every other name refuses.
type issuer struct {
	proxy    string // URL of the proxy
	authPath string // PEM of the certificate that its TLS clients have to trust
	key      *rsa.PrivateKey
}

func startIssuer(t testing.TB) *issuer {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatalf("making the key of the OpenID provider: %v", err)
	}
	i := &issuer{key: key}
	host := mustHost(t, GitHubIssuer)
	pair := selfSigned(t, host)
	i.authPath = writePEM(t, t.TempDir(), "provider.pem", "CERTIFICATE", pair.Certificate[0])

	inside := newConnListener()
	s := &http.Server{Handler: i.handler(), ReadHeaderTimeout: 10 * time.Second, ErrorLog: log.New(testWriter{t}, "", 0)}
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(tls.NewListener(inside, &tls.Config{Certificates: []tls.Certificate{pair}, NextProtos: []string{"http/1.1"}}))
	}()
	t.Cleanup(func() {
		s.Close()
		<-served
	})
	i.proxy = serve(t, connectProxy(host+":443", inside))
	return i
}

// connectProxy hands the connections for one address to a listener.
func connectProxy(address string, to *connListener) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect || r.Host != address {
			http.Error(w, "the lab reaches nothing outside", http.StatusForbidden)
			return
		}
		conn, buffered, err := http.NewResponseController(w).Hijack()
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		if _, err := conn.Write([]byte("HTTP/1.1 200 Connection established\r\n\r\n")); err != nil {
			conn.Close()
			return
		}
		to.add(bufferedConn{conn, buffered.Reader})
	})
}

// handler answers OpenID discovery.
func (i *issuer) handler() http.Handler {
	mux := http.NewServeMux()
	answer := func(v any) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			json.NewEncoder(w).Encode(v)
		}
	}
	mux.Handle("GET /.well-known/openid-configuration", answer(map[string]any{
		"issuer": GitHubIssuer, "jwks_uri": GitHubIssuer + "/.well-known/jwks",
		"subject_types_supported": []string{"public"}, "response_types_supported": []string{"id_token"},
		"id_token_signing_alg_values_supported": []string{"RS256"}, "scopes_supported": []string{"openid"},
	}))
	mux.Handle("GET /.well-known/jwks", answer(map[string]any{"keys": []map[string]string{{
		"kty": "RSA", "use": "sig", "alg": "RS256", "kid": "lab",
		"n": base64.RawURLEncoding.EncodeToString(i.key.N.Bytes()),
		"e": base64.RawURLEncoding.EncodeToString(big.NewInt(int64(i.key.E)).Bytes()),
	}}}))
	return mux
}

// token returns a job's identity token for Sigstore and its subject.
func (i *issuer) token(job Job) (token, subject string, err error) {
	now := time.Now()
	claims := map[string]any{
		"iss": GitHubIssuer, "aud": "sigstore", "jti": rand.Text(),
		"iat": now.Unix(), "nbf": now.Add(-time.Minute).Unix(), "exp": now.Add(10 * time.Minute).Unix(),
	}
	for name, value := range job.claims() {
		claims[name] = value
	}
	header, err := json.Marshal(map[string]string{"alg": "RS256", "typ": "JWT", "kid": "lab"})
	if err != nil {
		return "", "", err
	}
	body, err := json.Marshal(claims)
	if err != nil {
		return "", "", err
	}
	signed := base64.RawURLEncoding.EncodeToString(header) + "." + base64.RawURLEncoding.EncodeToString(body)
	digest := sha256.Sum256([]byte(signed))
	sig, err := rsa.SignPKCS1v15(rand.Reader, i.key, crypto.SHA256, digest[:])
	if err != nil {
		return "", "", fmt.Errorf("signing a token: %w", err)
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sig), claims["sub"].(string), nil
}

// selfSigned makes a TLS certificate that is its own authority.
func selfSigned(t testing.TB, host string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatalf("making a TLS key: %v", err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: host}, DNSNames: []string{host},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatalf("making a TLS certificate: %v", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func mustHost(t testing.TB, address string) string {
	t.Helper()
	u, err := url.Parse(address)
	if err != nil {
		t.Fatalf("an issuer's address: %v", err)
	}
	return u.Hostname()
}

// A connListener is a listener whose connections come from inside the process.
type connListener struct {
	conns  chan net.Conn
	closed chan struct{}
}

func newConnListener() *connListener {
	return &connListener{conns: make(chan net.Conn), closed: make(chan struct{})}
}

func (l *connListener) add(c net.Conn) {
	select {
	case l.conns <- c:
	case <-l.closed:
		c.Close()
	}
}

func (l *connListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.closed:
		return nil, net.ErrClosed
	}
}

// Close is called once, by the server that listens.
func (l *connListener) Close() error {
	close(l.closed)
	return nil
}

func (l *connListener) Addr() net.Addr { return &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)} }

// A bufferedConn reads first what was read ahead of a hijacked connection.
type bufferedConn struct {
	net.Conn
	r *bufio.Reader
}

func (c bufferedConn) Read(p []byte) (int, error) { return c.r.Read(p) }

type testWriter struct{ t testing.TB }

func (w testWriter) Write(p []byte) (int, error) {
	w.t.Logf("OpenID provider: %s", strings.TrimSpace(string(p)))
	return len(p), nil
}
