// Package certificate reads X.509 certificates as people have them: PKCS#12 files,
// PEM and DER, with or without their private key and their chain. It is pure: it
// reads no clock and no store, and trusts nothing that it reads.
package certificate

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/sha1" //nolint:gosec // thumbprints are SHA-1 everywhere; nothing is trusted by it
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
	"strings"

	"software.sslmate.com/src/go-pkcs12"

	"github.com/takodeploy/tako/internal/fault"
)

// Limits of what is read.
const (
	MaxSize  = 1024 * 1024 // bytes of a file
	maxChain = 100         // certificates in one file
)

// Format is the form of a file.
type Format uint8

// The forms.
const (
	PKCS12 Format = iota + 1
	DER
	PEM
)

// File is what was in a file.
type File struct {
	Format Format
	// Leaf is the certificate that the file is about: that of the key, else the
	// first one that has issued no other.
	Leaf *x509.Certificate
	// Chain are the other certificates, the leaf's issuer first.
	Chain []*x509.Certificate
	// Key is the leaf's private key, nil when there is none.
	Key crypto.Signer
}

// Parse reads a file. The password is that of the PKCS#12 file or of a PEM key;
// "" is none. An error is a fault of the member CertificateData or Password, and
// shows nothing of the file.
func Parse(data []byte, password string) (*File, error) {
	switch {
	case len(data) == 0:
		return nil, invalid("The certificate is empty; give the file in base64.")
	case len(data) > MaxSize:
		return nil, invalid("The certificate has %d bytes; the limit is %d.", len(data), MaxSize)
	}
	f := &File{}
	var all []*x509.Certificate
	var key crypto.Signer
	var err error
	if bytes.Contains(data, []byte("-----BEGIN ")) {
		f.Format = PEM
		all, key, err = fromPEM(data)
	} else if one, failed := x509.ParseCertificate(data); failed == nil {
		f.Format, all = DER, []*x509.Certificate{one}
	} else {
		f.Format = PKCS12
		all, key, err = fromPKCS12(data, password)
	}
	if err != nil {
		return nil, err
	}
	if len(all) == 0 {
		return nil, invalid("The file has no certificate in it; give one as PKCS#12 (PFX), PEM or DER.")
	}
	if len(all) > maxChain {
		return nil, invalid("The file has %d certificates; use at most %d.", len(all), maxChain)
	}
	return f, f.arrange(all, key)
}

func invalid(format string, args ...any) error {
	return fault.InvalidField("CertificateData", format, args...)
}

func fromPEM(data []byte) (all []*x509.Certificate, key crypto.Signer, err error) {
	for len(all) <= maxChain {
		var block *pem.Block
		if block, data = pem.Decode(data); block == nil {
			return all, key, nil
		}
		switch {
		case block.Type == "CERTIFICATE" || block.Type == "X509 CERTIFICATE" || block.Type == "TRUSTED CERTIFICATE":
			one, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, nil, invalid("The PEM file has a certificate in it that cannot be read; give it as its authority has issued it.")
			}
			all = append(all, one)
		case block.Type == "ENCRYPTED PRIVATE KEY" || strings.Contains(block.Headers["Proc-Type"], "ENCRYPTED"):
			return nil, nil, invalid("The key in the PEM file is encrypted; give a PKCS#12 (PFX) file with a password instead, or a PEM file with the key in clear, which is encrypted here.")
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			if key, err = privateKey(block.Bytes); err != nil {
				return nil, nil, err
			}
		}
	}
	return all, key, nil
}

// privateKey reads a key in any of the three forms in which they come.
func privateKey(der []byte) (crypto.Signer, error) {
	var parsed any
	var err error
	if parsed, err = x509.ParsePKCS8PrivateKey(der); err != nil {
		if parsed, err = x509.ParsePKCS1PrivateKey(der); err != nil {
			parsed, err = x509.ParseECPrivateKey(der)
		}
	}
	if err != nil {
		return nil, invalid("The private key cannot be read; give it in the form PKCS#8, PKCS#1 or SEC 1.")
	}
	return signer(parsed)
}

func signer(parsed any) (crypto.Signer, error) {
	switch k := parsed.(type) {
	case nil:
		return nil, nil //nolint:nilnil // no key is no error
	case *rsa.PrivateKey:
		return k, nil
	case *ecdsa.PrivateKey:
		return k, nil
	case ed25519.PrivateKey:
		return k, nil
	default:
		return nil, invalid("The private key is of a kind that is not known here; use RSA, ECDSA or Ed25519.")
	}
}

func fromPKCS12(data []byte, password string) ([]*x509.Certificate, crypto.Signer, error) {
	if tooManyRounds(data, 0) {
		return nil, nil, invalid("The file asks for more than %d rounds of hashing its password; make it anew with fewer.", maxRounds)
	}
	parsed, leaf, others, err := pkcs12.DecodeChain(data, password)
	if err == nil {
		key, err := signer(parsed)
		return append([]*x509.Certificate{leaf}, others...), key, err
	}
	if errors.Is(err, pkcs12.ErrIncorrectPassword) {
		return nil, nil, wrongPassword()
	}
	// A file without a key is a mere store of certificates.
	all, err := pkcs12.DecodeTrustStore(data, password)
	switch {
	case errors.Is(err, pkcs12.ErrIncorrectPassword):
		return nil, nil, wrongPassword()
	case err != nil:
		return nil, nil, invalid("The file is no certificate that can be read; give one as PKCS#12 (PFX), PEM or DER, in base64.")
	}
	return all, nil, nil
}

func wrongPassword() error {
	return fault.InvalidField("Password", "The password does not open the file; give the one that it was made with.")
}

// arrange finds the leaf and puts the others behind it.
func (f *File) arrange(all []*x509.Certificate, key crypto.Signer) error {
	leaf := -1
	if key != nil {
		leaf = slices.IndexFunc(all, func(c *x509.Certificate) bool { return sameKey(c, key) })
		if leaf < 0 {
			return invalid("The private key belongs to none of the certificates in the file; give the certificate that was issued for it.")
		}
	}
	if leaf < 0 {
		leaf = slices.IndexFunc(all, func(c *x509.Certificate) bool {
			return !slices.ContainsFunc(all, func(o *x509.Certificate) bool { return o != c && !o.Equal(c) && bytes.Equal(o.RawIssuer, c.RawSubject) })
		})
	}
	leaf = max(leaf, 0)
	f.Leaf, f.Key = all[leaf], key
	rest := slices.DeleteFunc(slices.Clone(all), f.Leaf.Equal)
	for next := f.Leaf; ; {
		i := slices.IndexFunc(rest, func(c *x509.Certificate) bool { return bytes.Equal(c.RawSubject, next.RawIssuer) })
		if i < 0 {
			f.Chain = append(f.Chain, rest...)
			return nil
		}
		next = rest[i]
		f.Chain = append(f.Chain, next)
		rest = slices.Delete(rest, i, i+1)
	}
}

func sameKey(c *x509.Certificate, key crypto.Signer) bool {
	public, ok := key.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(c.PublicKey)
}

// Thumbprint is a certificate's SHA-1 in upper-case hexadecimal.
func Thumbprint(c *x509.Certificate) string {
	sum := sha1.Sum(c.Raw) //nolint:gosec // as above
	return strings.ToUpper(hex.EncodeToString(sum[:]))
}

// SelfSigned reports whether a certificate has issued itself.
func SelfSigned(c *x509.Certificate) bool {
	return bytes.Equal(c.RawIssuer, c.RawSubject) && c.CheckSignature(c.SignatureAlgorithm, c.RawTBSCertificate, c.Signature) == nil
}

// Names are a certificate's alternative names: of hosts, addresses, mail and URIs.
func Names(c *x509.Certificate) []string {
	names := slices.Clone(c.DNSNames)
	for _, ip := range c.IPAddresses {
		names = append(names, ip.String())
	}
	names = append(names, c.EmailAddresses...)
	for _, u := range c.URIs {
		names = append(names, u.String())
	}
	return names
}

// Serial is a certificate's serial number in upper-case hexadecimal, whole bytes.
func Serial(c *x509.Certificate) string {
	return strings.ToUpper(hex.EncodeToString(c.SerialNumber.Bytes()))
}

// CertificatePEM is the leaf with its chain in PEM.
func (f *File) CertificatePEM() string {
	var b strings.Builder
	for _, c := range append([]*x509.Certificate{f.Leaf}, f.Chain...) {
		_ = pem.Encode(&b, &pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}) // a Builder takes everything
	}
	return b.String()
}

// PrivateKeyDER is the key in PKCS#8, nil when there is none.
func (f *File) PrivateKeyDER() ([]byte, error) {
	if f.Key == nil {
		return nil, nil
	}
	der, err := x509.MarshalPKCS8PrivateKey(f.Key)
	if err != nil {
		return nil, fmt.Errorf("encode private key: %w", err)
	}
	return der, nil
}

// PrivateKeyPEM is the key in PEM, "" when there is none.
func (f *File) PrivateKeyPEM() (string, error) {
	der, err := f.PrivateKeyDER()
	if err != nil || der == nil {
		return "", err
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})), nil
}

// PKCS12 is the file as a PKCS#12 file with a password.
func (f *File) PKCS12(password string) ([]byte, error) {
	if f.Key == nil {
		return pkcs12.Modern2023.EncodeTrustStore(append([]*x509.Certificate{f.Leaf}, f.Chain...), password)
	}
	return pkcs12.Modern2023.Encode(f.Key, f.Leaf, f.Chain, password)
}
