package halibut

import (
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha1" // thumbprints are SHA-1 with every peer
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// Thumbprint names a certificate: SHA-1 over its DER form, 40 upper-case hex digits.
type Thumbprint string

// ParseThumbprint reads a thumbprint as people have it: in any case, with spaces or
// colons. An error is a fault of the member Thumbprint.
func ParseThumbprint(s string) (Thumbprint, error) {
	clean := strings.ToUpper(strings.Map(func(r rune) rune {
		if r == ' ' || r == ':' || r == '\u200e' { // the mark that Windows' dialog copies along
			return -1
		}
		return r
	}, s))
	if b, err := hex.DecodeString(clean); err != nil || len(b) != sha1.Size {
		return "", fault.InvalidField("Thumbprint", "The thumbprint %q must have 40 hexadecimal digits.", s)
	}
	return Thumbprint(clean), nil
}

// ThumbprintOf is that of a certificate in DER form.
func ThumbprintOf(der []byte) Thumbprint {
	sum := sha1.Sum(der)
	return Thumbprint(strings.ToUpper(hex.EncodeToString(sum[:])))
}

// Identity is the certificate, with its key, by which others know a node.
type Identity struct {
	Thumbprint Thumbprint

	cert tls.Certificate
}

const (
	keyBits  = 2048
	validity = 100 // years
)

// NewIdentity makes a self-signed certificate as agents of every age have it: RSA
// of 2048 bits, SHA-256, valid from a day before now for a hundred years.
func NewIdentity(name string, now time.Time) (*Identity, error) {
	key, err := rsa.GenerateKey(rand.Reader, keyBits)
	if err != nil {
		return nil, fmt.Errorf("make key: %w", err)
	}
	return selfSigned(name, now, key)
}

func selfSigned(name string, now time.Time, key crypto.Signer) (*Identity, error) {
	// Positive and not zero: some libraries refuse other serial numbers.
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 126))
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	template := &x509.Certificate{
		SerialNumber:       serial.Add(serial, big.NewInt(1)),
		Subject:            pkix.Name{CommonName: name},
		NotBefore:          now.UTC().AddDate(0, 0, -1),
		NotAfter:           now.UTC().AddDate(validity, 0, 0),
		SignatureAlgorithm: x509.SHA256WithRSA,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, fmt.Errorf("make certificate: %w", err)
	}
	return identity(der, key), nil
}

func identity(der []byte, key crypto.PrivateKey) *Identity {
	return &Identity{ThumbprintOf(der), tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}
}

// Blocks of an identity's PEM form.
const (
	pemCertificate = "CERTIFICATE"
	pemKey         = "PRIVATE KEY"
)

// PEM is the certificate and its key, for a file that only its owner may read.
func (id *Identity) PEM() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(id.cert.PrivateKey)
	if err != nil {
		return nil, fmt.Errorf("write key: %w", err)
	}
	return append(id.CertificatePEM(), pem.EncodeToMemory(&pem.Block{Type: pemKey, Bytes: key})...), nil
}

// CertificatePEM is the certificate without its key.
func (id *Identity) CertificatePEM() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: pemCertificate, Bytes: id.cert.Certificate[0]})
}

// ParseIdentity reads what PEM wrote. The error shows nothing of it.
func ParseIdentity(b []byte) (*Identity, error) {
	pair, err := tls.X509KeyPair(b, b)
	if err != nil {
		return nil, errors.New("read identity: it is no certificate with its private key in PEM form")
	}
	return identity(pair.Certificate[0], pair.PrivateKey), nil
}

// WrongPeerError says that somebody else than expected answered.
type WrongPeerError struct{ Want, Got Thumbprint }

// Error names both thumbprints, so that a changed certificate can be recognised.
func (e *WrongPeerError) Error() string {
	return fmt.Sprintf("the certificate has the thumbprint %s, where %s is trusted", e.Got, e.Want)
}

// serverTLS asks for a certificate and accepts any, or none: whom a connection is
// from is decided after its first bytes, since HTTP probes have no certificate.
func (id *Identity) serverTLS() *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{id.cert},
		ClientAuth:   tls.RequestClientCert,
		MinVersion:   tls.VersionTLS12,
		// A resumed session saves little here and costs memory.
		SessionTicketsDisabled: true,
	}
}

// clientTLS shows the certificate and wants the peer's to have a thumbprint.
// Neither name nor dates nor issuer of a self-signed certificate say anything.
func (id *Identity) clientTLS(host string, want Thumbprint) *tls.Config {
	return &tls.Config{
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &id.cert, nil },
		ServerName:           host,
		MinVersion:           tls.VersionTLS12,
		InsecureSkipVerify:   true, // the thumbprint is verified instead
		VerifyConnection: func(s tls.ConnectionState) error {
			if got := ThumbprintOf(s.PeerCertificates[0].Raw); got != want {
				return &WrongPeerError{Want: want, Got: got}
			}
			return nil
		},
	}
}

// Subscription names a polling agent: "poll://" and a name in lower case, with a
// slash at its end.
type Subscription string

const (
	pollScheme = "poll://"
	subLength  = 20
	maxSubName = 200
)

// NewSubscription makes one that nobody else has.
func NewSubscription() Subscription {
	// 32 letters, so that each byte gives one of them evenly; 100 bits.
	const letters = "abcdefghijklmnopqrstuvwxyz012345"
	b := make([]byte, subLength)
	_, _ = rand.Read(b) // never fails
	for i := range b {
		b[i] = letters[b[i]%32]
	}
	return Subscription(pollScheme + string(b) + "/")
}

// ParseSubscription reads a subscription as an agent names it. An error is a fault
// of the member Uri.
func ParseSubscription(s string) (Subscription, error) {
	lower := strings.ToLower(s)
	name, ok := strings.CutPrefix(lower, pollScheme)
	name = strings.TrimSuffix(name, "/")
	if !ok || name == "" || len(name) > maxSubName || strings.Trim(name, "abcdefghijklmnopqrstuvwxyz0123456789-._") != "" {
		return "", fault.InvalidField("Uri", "The subscription %q must be poll:// and a name of letters, digits, '-', '.' and '_'.", s)
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && !strings.ContainsRune("-._", c) {
			return "", fault.InvalidField("Uri", "The subscription %q must be poll:// and a name of letters, digits, '-', '.' and '_'.", s)
		}
	}
	return Subscription(pollScheme + name + "/"), nil
}
