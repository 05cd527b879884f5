package rekor

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"syscall"
)

// ErrUnusable is an answer that came whole and is not what was asked for.
var ErrUnusable = errors.New("unusable answer")

// unusable counts such an answer and says whose it is.
func (f *fetcher) unusable(err error) error {
	f.metrics.unusable.WithLabelValues(f.name).Inc()
	return fmt.Errorf("%w from %s: %w", ErrUnusable, f.name, err)
}

// Answered reports whether a failure is the log's answer to that one question, so
// that the next question may fare better: a refusal, an answer out of bounds, or one
// that cannot be used. Otherwise the log could not be asked.
func Answered(err error) bool { return !worthRetrying(err) }

// advice is what a person can do about a failure to ask, "" where waiting is all.
func advice(err error) string {
	var status *StatusError
	var name *net.DNSError
	var untrusted *tls.CertificateVerificationError
	var noTLS tls.RecordHeaderError
	switch {
	case errors.As(err, &name):
		return "; check the url of the log, and the name server of this machine"
	case errors.As(err, &untrusted):
		return "; check the url of the log and the clock of this machine, or have the machine trust the authority that issued the certificate"
	case errors.As(err, &noTLS), errors.Is(err, http.ErrSchemeMismatch):
		return "; the server does not speak TLS, check whether the url of the log begins with http://"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "; nothing listens there, check the url of the log"
	case errors.Is(err, ErrTooLarge):
		return "; check that the url is that of the log"
	case !errors.As(err, &status):
		return ""
	}
	switch status.Status {
	case http.StatusTooManyRequests:
		return "; the log limits its clients, lower its rate in the configuration"
	case http.StatusUnauthorized, http.StatusForbidden, http.StatusProxyAuthRequired:
		return "; the server or a proxy does not let this machine in, check the url of the log and the proxy"
	}
	return ""
}
