package certificate_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/certificate"
	"github.com/takodeploy/tako/internal/fault"
)

func file(t *testing.T, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func parse(t *testing.T, data []byte, password string) *certificate.File {
	t.Helper()
	f, err := certificate.Parse(data, password)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestFilesOfOpenSSL reads what another program has written.
func TestFilesOfOpenSSL(t *testing.T) {
	t.Parallel()
	for name, format := range map[string]certificate.Format{"site.pfx": certificate.PKCS12, "site-legacy.pfx": certificate.PKCS12, "site.pem": certificate.PEM} {
		f := parse(t, file(t, name), "hush-pfx")
		if f.Format != format || f.Leaf.Subject.String() != "CN=www.example.com,O=Acme" || !certificate.SelfSigned(f.Leaf) || len(f.Chain) != 0 || (f.Key != nil) != (format == certificate.PKCS12) {
			t.Errorf("%s: %+v", name, f)
		}
		if got := certificate.Thumbprint(f.Leaf); got != "4DD9F93946DFC9A9C11B470748B6028A1B96B95B" {
			t.Errorf("%s: thumbprint %s", name, got)
		}
		if got := certificate.Serial(f.Leaf); got != "06964F17863D149B574F28A9DBA53FD98A8CD5FA" {
			t.Errorf("%s: serial %s", name, got)
		}
		if diff := cmp.Diff([]string{"www.example.com", "10.0.0.1"}, certificate.Names(f.Leaf)); diff != "" {
			t.Errorf("%s: names (-want +got):\n%s", name, diff)
		}
	}
}

// chain makes a root, an authority below it, and a certificate of that.
func chain(t *testing.T, key crypto.Signer) (leaf, authority, root *x509.Certificate) {
	t.Helper()
	make1 := func(name string, n int64, public crypto.PublicKey, parent *x509.Certificate, by crypto.Signer) *x509.Certificate {
		template := &x509.Certificate{SerialNumber: big.NewInt(n), Subject: pkix.Name{CommonName: name}, NotBefore: time.Unix(0, 0), NotAfter: time.Unix(1<<33, 0), IsCA: n < 3, BasicConstraintsValid: true}
		if parent == nil {
			parent = template
		}
		der, err := x509.CreateCertificate(rand.Reader, template, parent, public, by)
		if err != nil {
			t.Fatal(err)
		}
		c, err := x509.ParseCertificate(der)
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	rootKey, subKey := newKey(t), newKey(t)
	root = make1("Root", 1, rootKey.Public(), nil, rootKey)
	authority = make1("Authority", 2, subKey.Public(), root, rootKey)
	return make1("Leaf", 3, key.Public(), authority, subKey), authority, root
}

func newKey(t *testing.T) crypto.Signer {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func toPEM(certificates ...*x509.Certificate) []byte {
	var all []byte
	for _, c := range certificates {
		all = append(all, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	return all
}

// TestChain: the leaf comes first and its issuers in their order, however they stand
// in the file, and every form comes back as it was put in.
func TestChain(t *testing.T) {
	t.Parallel()
	_, edwards, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []crypto.Signer{newKey(t), edwards} {
		leaf, authority, root := chain(t, key)
		want := string(toPEM(leaf, authority, root))
		if got := parse(t, toPEM(root, leaf, authority), "").CertificatePEM(); got != want {
			t.Error("without the key the chain is in another order")
		}
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
		f := parse(t, append(keyPEM, toPEM(authority, root, leaf)...), "")
		if f.CertificatePEM() != want {
			t.Error("with the key the chain is in another order")
		}
		if got, err := f.PrivateKeyPEM(); err != nil || got != string(keyPEM) {
			t.Errorf("the key comes back as another one, %v", err)
		}
		pfx, err := f.PKCS12("secret")
		if err != nil {
			t.Fatal(err)
		}
		again := parse(t, pfx, "secret")
		if again.Format != certificate.PKCS12 || again.CertificatePEM() != want || again.Key == nil {
			t.Errorf("from PKCS#12: %+v", again)
		}
		if one := parse(t, leaf.Raw, ""); one.Format != certificate.DER || one.Leaf.Subject.CommonName != "Leaf" || certificate.SelfSigned(one.Leaf) {
			t.Errorf("from DER: %+v", one)
		}
		store, err := parse(t, toPEM(leaf, authority), "").PKCS12("secret")
		if err != nil {
			t.Fatal(err)
		}
		if f := parse(t, store, "secret"); f.Key != nil || !f.Leaf.Equal(leaf) || len(f.Chain) != 1 {
			t.Errorf("from a store without a key: %+v", f)
		}
	}
}

// TestRefused: what is no certificate is refused with the member and a remedy, and
// nothing of it shows.
func TestRefused(t *testing.T) {
	t.Parallel()
	leaf, _, _ := chain(t, newKey(t))
	der, err := x509.MarshalPKCS8PrivateKey(newKey(t))
	if err != nil {
		t.Fatal(err)
	}
	type parameters struct {
		Salt   []byte
		Rounds *big.Int
	}
	greedy, err := asn1.Marshal(struct {
		V int
		P parameters
	}{3, parameters{[]byte("salt"), big.NewInt(1 << 31)}})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		data           []byte
		password, says string
		field          string
	}{
		"nothing":        {nil, "", "is empty", "CertificateData"},
		"noise":          {[]byte("noise of some sort"), "", "no certificate that can be read", "CertificateData"},
		"too much":       {make([]byte, certificate.MaxSize+1), "", "the limit is", "CertificateData"},
		"password":       {file(t, "site.pfx"), "wrong", "does not open the file", "Password"},
		"no password":    {file(t, "site-legacy.pfx"), "", "does not open the file", "Password"},
		"half":           {file(t, "site.pfx")[:500], "hush-pfx", "no certificate that can be read", "CertificateData"},
		"another key":    {append(toPEM(leaf), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})...), "", "belongs to none", "CertificateData"},
		"a key alone":    {pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), "", "no certificate in it", "CertificateData"},
		"encrypted key":  {append(toPEM(leaf), pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: der})...), "", "is encrypted", "CertificateData"},
		"broken PEM":     {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("noise")}), "", "cannot be read", "CertificateData"},
		"billions round": {greedy, "", "rounds of hashing", "CertificateData"},
	} {
		_, err := certificate.Parse(c.data, c.password)
		faults := fault.Faults(err)
		if len(faults) != 1 || faults[0].Kind != fault.Invalid || faults[0].Field != c.field || !strings.Contains(faults[0].Message, c.says) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, name := range []string{"site.pfx", "site.pem"} {
		data, err := os.ReadFile(filepath.Join("testdata", name))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "hush-pfx")
	}
	f.Fuzz(func(t *testing.T, data []byte, password string) {
		got, err := certificate.Parse(data, password)
		if err == nil && (got.Leaf == nil || got.CertificatePEM() == "") {
			t.Error("no error, and no certificate")
		}
	})
}
