package releases

import (
	"context"
	"encoding/base64"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/certificate"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// certificates are the parts of the certificates that variables refer to, under
// names such as Site.Thumbprint: as they are now, so that one that is replaced needs
// no new release.
func (s *Service) certificates(ctx context.Context, tx *db.Tx, space ident.SpaceID, all []variables.Variable) ([]variables.Variable, error) {
	var out []variables.Variable
	read := map[string]*octopus.Certificate{}
	for i := range all {
		v := &all[i]
		id := canonical("Certificates", strings.TrimSpace(v.Value))
		if v.Type != octopus.VariableCertificate || id == "" || bound(id) {
			continue
		}
		c, ok := read[id]
		if !ok {
			c = new(octopus.Certificate)
			switch err := s.store.Reveal(ctx, tx, "certificates", id, c); {
			case fault.Is(err, fault.NotFound) || err == nil && c.SpaceID != string(space):
				c = nil // a deleted one, or of another space: its parts are missing
			case err != nil:
				return nil, err
			}
			read[id] = c
		}
		if c == nil {
			continue
		}
		parts, err := certificateParts(v, c)
		if err != nil {
			return nil, fmt.Errorf("read certificate %s: %w", c.ID, err)
		}
		out = append(out, parts...)
	}
	return out, nil
}

// certificateParts are what a certificate has, as variables in the scope of the one
// that refers to it. What has the private key in it is a secret.
func certificateParts(v *variables.Variable, c *octopus.Certificate) ([]variables.Variable, error) {
	text := func(s octopus.Sensitive) string {
		if s.NewValue == nil {
			return ""
		}
		return *s.NewValue
	}
	raw, password := text(c.CertificateData), text(c.Password)
	f, err := resources.ParseCertificate(raw, password)
	if err != nil {
		return nil, err
	}
	key, err := f.PrivateKeyDER()
	if err != nil {
		return nil, err
	}
	keyPEM, err := f.PrivateKeyPEM()
	if err != nil {
		return nil, err
	}
	pfx := raw
	if f.Format != certificate.PKCS12 {
		made, err := f.PKCS12(password)
		if err != nil {
			return nil, fmt.Errorf("make a PKCS#12 file: %w", err)
		}
		pfx = base64.StdEncoding.EncodeToString(made)
	}
	var out []variables.Variable
	add := func(name, value string, secret bool) { out = append(out, part(v, name, value, secret)) }
	flag := map[bool]string{true: "True", false: "False"}
	add("Name", c.Name, false)
	add("Type", string(octopus.VariableCertificate), false)
	add("Thumbprint", c.Thumbprint, false)
	add("RawOriginal", raw, f.Key != nil)
	add("Pfx", pfx, f.Key != nil)
	if password != "" {
		add("Password", password, true)
	}
	add("Certificate", base64.StdEncoding.EncodeToString(f.Leaf.Raw), false)
	add("CertificatePem", f.CertificatePEM(), false)
	if f.Key != nil {
		add("PrivateKey", base64.StdEncoding.EncodeToString(key), true)
		add("PrivateKeyPem", keyPEM, true)
	}
	add("HasPrivateKey", flag[f.Key != nil], false)
	add("Subject", c.SubjectDistinguishedName, false)
	add("SubjectCommonName", c.SubjectCommonName, false)
	add("Issuer", c.IssuerDistinguishedName, false)
	add("NotBefore", c.NotBefore.UTC().Format(time.RFC3339), false)
	add("NotAfter", c.NotAfter.UTC().Format(time.RFC3339), false)
	return out, nil
}

// part is a member of what a variable refers to, as a variable in its scope.
func part(v *variables.Variable, name, value string, secret bool) variables.Variable {
	one := *v
	one.ID, one.Prompt, one.Prompted = "", nil, false
	one.Name, one.Value, one.Sensitive, one.Type = v.Name+"."+name, value, secret, octopus.VariableString
	if secret {
		one.Type = octopus.VariableSensitive
	}
	return one
}
