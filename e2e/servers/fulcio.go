package servers

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// fulcioConfig has one provider. The templates say which claim becomes which
// extension; they are the public instance's for GitHub.
const fulcioConfig = `
oidc-issuers:
  https://token.actions.githubusercontent.com:
    issuer-url: https://token.actions.githubusercontent.com
    client-id: sigstore
    type: ci-provider
    ci-provider: github-workflow
ci-issuer-metadata:
  github-workflow:
    default-template-values:
      url: "https://github.com"
      environment: ""
    extension-templates:
      github-workflow-trigger: "event_name"
      github-workflow-sha: "sha"
      github-workflow-name: "workflow"
      github-workflow-repository: "repository"
      github-workflow-ref: "ref"
      build-signer-uri: "{{ .url }}/{{ .job_workflow_ref }}"
      build-signer-digest: "job_workflow_sha"
      runner-environment: "runner_environment"
      source-repository-uri: "{{ .url }}/{{ .repository }}"
      source-repository-digest: "sha"
      source-repository-ref: "ref"
      source-repository-identifier: "repository_id"
      source-repository-owner-uri: "{{ .url }}/{{ .repository_owner }}"
      source-repository-owner-identifier: "repository_owner_id"
      build-config-uri: "{{ .url }}/{{ .workflow_ref }}"
      build-config-digest: "workflow_sha"
      build-trigger: "event_name"
      run-invocation-uri: "{{ .url }}/{{ .repository }}/actions/runs/{{ .run_id }}/attempts/{{ .run_attempt }}"
      source-repository-visibility-at-signing: "repository_visibility"
      deployment-environment: "environment"
    subject-alternative-name-template: "{{ .url }}/{{ .job_workflow_ref }}"
`

// A Fulcio is a real certificate authority for jobs of GitHub Actions, without a
// certificate transparency log, and so without SCTs in its certificates.
type Fulcio struct {
	URL                string
	Root, Intermediate *x509.Certificate

	issuer *issuer
}

// StartFulcio runs Fulcio over a fresh root and intermediate.
func StartFulcio(t testing.TB) *Fulcio {
	t.Helper()
	f := &Fulcio{issuer: startIssuer(t)}
	rootKey, key := p384(t), p384(t)
	f.Root = authority(t, "e2e", rootKey, nil, nil)
	f.Intermediate = authority(t, "e2e-intermediate", key, f.Root, rootKey)

	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(config, []byte(fulcioConfig), 0o644); err != nil {
		t.Fatalf("writing the configuration of Fulcio: %v", err)
	}
	args := []string{"serve", "--ca=fileca", "--fileca-watch=false", "--fileca-key-passwd=lab", "--ct-log-url=",
		"--fileca-cert=" + writePEM(t, dir, "chain.pem", "CERTIFICATE", f.Intermediate.Raw, f.Root.Raw),
		"--fileca-key=" + writeKey(t, dir, "key.pem", key), "--config-path=" + config,
		"--host=127.0.0.1", "--grpc-host=127.0.0.1", "--log_type=prod",
		"--legacy-unix-domain-socket=" + filepath.Join(dir, "legacy.sock")}
	env := []string{"HTTPS_PROXY=" + f.issuer.proxy, "NO_PROXY=", "https_proxy=", "no_proxy=", "SSL_CERT_FILE=" + f.issuer.authPath}
	_, port := run(t, binary(t, fulcioServer), env, 3,
		func(port []string) []string {
			return append(args, "--port="+port[0], "--grpc-port="+port[1], "--metrics-port="+port[2])
		},
		func(port []string) error { return answers("http://127.0.0.1:" + port[0] + "/healthz") })
	f.URL = "http://127.0.0.1:" + port[0]
	return f
}

func p384(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	if err != nil {
		t.Fatalf("making a key of the authority: %v", err)
	}
	return key
}

// authority makes a CA certificate, self-signed without a parent.
func authority(t testing.TB, name string, key *ecdsa.PrivateKey, parent *x509.Certificate, parentKey *ecdsa.PrivateKey) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{Organization: []string{"e2e.test"}, CommonName: name},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, MaxPathLen: 1,
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
	if parent == nil {
		parent, parentKey = template, key
	} else {
		template.MaxPathLen, template.MaxPathLenZero = 0, true
		template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, &key.PublicKey, parentKey)
	if err != nil {
		t.Fatalf("making the certificate of %s: %v", name, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("reading the certificate of %s: %v", name, err)
	}
	return cert
}

// Certify has a key certified for a job and returns the certificate's DER.
func (f *Fulcio) Certify(ctx context.Context, job Job, key *ecdsa.PrivateKey) ([]byte, error) {
	token, subject, err := f.issuer.token(job)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, fmt.Errorf("encoding the signer's key: %w", err)
	}
	challenge := sha256.Sum256([]byte(subject))
	possession, err := ecdsa.SignASN1(rand.Reader, key, challenge[:])
	if err != nil {
		return nil, fmt.Errorf("proving possession of the key: %w", err)
	}
	var answer struct {
		Detached struct {
			Chain struct{ Certificates []string }
		} `json:"signedCertificateDetachedSct"`
		Embedded struct {
			Chain struct{ Certificates []string }
		} `json:"signedCertificateEmbeddedSct"`
	}
	err = post(ctx, f.URL+"/api/v2/signingCert", map[string]any{
		"credentials": map[string]any{"oidcIdentityToken": token},
		"publicKeyRequest": map[string]any{
			"publicKey":         map[string]any{"algorithm": "ECDSA", "content": string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: spki}))},
			"proofOfPossession": base64.StdEncoding.EncodeToString(possession),
		},
	}, &answer)
	if err != nil {
		return nil, err
	}
	chain := append(answer.Detached.Chain.Certificates, answer.Embedded.Chain.Certificates...)
	if len(chain) == 0 {
		return nil, errors.New("the answer of Fulcio has no certificate")
	}
	block, _ := pem.Decode([]byte(chain[0]))
	if block == nil {
		return nil, errors.New("the answer of Fulcio is not PEM")
	}
	return block.Bytes, nil
}

// post sends a JSON request and reads a JSON answer of status 200 or 201.
func post(ctx context.Context, url string, request, answer any) error {
	body, err := json.Marshal(request)
	if err != nil {
		return fmt.Errorf("encoding a request: %w", err)
	}
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Accept", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	got, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusCreated {
		return fmt.Errorf("POST %s: %s: %s", url, resp.Status, got)
	}
	if err := json.Unmarshal(got, answer); err != nil {
		return fmt.Errorf("reading the answer of %s: %w", url, err)
	}
	return nil
}
