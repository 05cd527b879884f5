package pypi

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

// maxCredentials bounds a file of credentials in bytes.
const maxCredentials = 16 << 10

// CredentialsFile returns what Options.Authorization wants, out of a file of one line:
// USER:PASSWORD for Basic authentication (RFC 7617), anything without a colon as a
// bearer token (RFC 6750). It is read for each request, so that a token that is
// renewed needs no restart. Errors name the file and never what is in it.
func CredentialsFile(path string) func() (string, error) {
	return func() (string, error) {
		f, err := os.Open(path)
		if err != nil {
			return "", fmt.Errorf("%w: %w", errCredentials, err)
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, maxCredentials+1))
		if err != nil {
			return "", fmt.Errorf("%w: %w", errCredentials, err)
		}
		value, err := authorization(b)
		if err != nil {
			return "", fmt.Errorf("%w: %s: %w", errCredentials, path, err)
		}
		return value, nil
	}
}

// authorization is the header for a file's content.
func authorization(b []byte) (string, error) {
	line := strings.TrimSpace(string(b))
	odd := func(r rune) bool { return r < ' ' || r == 0x7f }
	switch {
	case len(b) > maxCredentials:
		return "", fmt.Errorf("larger than %d bytes", maxCredentials)
	case line == "":
		return "", errors.New("empty; write USER:PASSWORD or a token")
	case strings.ContainsFunc(line, odd):
		return "", errors.New("more than one line; write USER:PASSWORD or a token")
	case strings.Contains(line, ":"):
		return "Basic " + base64.StdEncoding.EncodeToString([]byte(line)), nil
	case strings.ContainsFunc(line, func(r rune) bool { return r <= ' ' || r > '~' }):
		return "", errors.New("a token has no blanks and no letters beyond ASCII; write USER:PASSWORD or a token")
	}
	return "Bearer " + line, nil
}

// authorize adds credentials to a request to the index itself. Another server never
// sees them: addresses of provenance come out of listings, and redirections are not
// followed off the server.
func (c *Client) authorize(r *http.Request) error {
	if c.o.Authorization == nil || r.URL.Scheme != c.base.Scheme || r.URL.Host != c.base.Host {
		return nil
	}
	value, err := c.o.Authorization()
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", value)
	return nil
}
