package rekor

import (
	"crypto/ed25519"
	"crypto/sha256"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"

	protocommon "github.com/sigstore/protobuf-specs/gen/pb-go/common/v1"
	prototrust "github.com/sigstore/protobuf-specs/gen/pb-go/trustroot/v1"
)

// ReadKey makes a log key out of a PEM public key that the operator vouches for,
// for logs that no trusted root names. host is the name on the signature lines.
func ReadKey(host string, text []byte) (Tlog, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != "PUBLIC KEY" {
		return Tlog{}, errors.New("log key: want a PEM block of type PUBLIC KEY")
	}
	key, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		return Tlog{}, fmt.Errorf("log key: %w", err)
	}
	id := sha256.Sum256(block.Bytes)
	if k, ok := key.(ed25519.PublicKey); ok {
		id = keyIDv2(host, k)
	}
	return parseTlog(&prototrust.TransparencyLogInstance{
		BaseUrl:       "https://" + host,
		HashAlgorithm: protocommon.HashAlgorithm_SHA2_256,
		LogId:         &protocommon.LogId{KeyId: id[:]},
		PublicKey: &protocommon.PublicKey{RawBytes: block.Bytes,
			ValidFor: &protocommon.TimeRange{Start: timestamppb.New(time.Unix(0, 0))}},
	})
}
