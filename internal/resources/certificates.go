package resources

import (
	"context"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/certificate"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Certificates are X.509 certificates, perhaps with their key, that variables refer
// to. What the file says about itself is read once, when it comes.
func Certificates() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Certificate]{
		Name: "certificates", ItemType: "Certificate", Prefix: "Certificates", Slugged: true, Search: "search",
		Permissions: resource.Permissions{View: "CertificateView", Create: "CertificateCreate", Edit: "CertificateEdit", Delete: "CertificateDelete"},
		Dimensions:  resource.Dimensions{Environment: "EnvironmentIds", Tenant: "TenantIds"},
		Filters:     []resource.Filter{{Param: "archived", Path: "IsArchived"}, {Param: "tenant", Path: "TenantIds"}, {Param: "thumbprint", Path: "Thumbprint"}},
		References: []resource.Reference{
			{Path: "EnvironmentIds", To: "environments", OnDelete: resource.Ignore},
			{Path: "TenantIds", To: "tenants", OnDelete: resource.Ignore},
		},
		Owned: []string{
			"Archived", "IsArchived", "ReplacedBy", "CertificateDataFormat", "SubjectDistinguishedName", "IssuerDistinguishedName", "Thumbprint", "NotBefore", "NotAfter",
			"Version", "SerialNumber", "SignatureAlgorithmName", "SubjectCommonName", "SubjectOrganization", "IssuerCommonName", "IssuerOrganization",
			"SelfSigned", "IsExpired", "HasPrivateKey", "SubjectAlternativeNames", "CertificateChain",
		},
		Links: map[string]string{
			"Archive":   "/api/{space}/certificates/{Id}/archive",
			"Unarchive": "/api/{space}/certificates/{Id}/unarchive",
			"Replace":   "/api/{space}/certificates/{Id}/replace",
			"Usages":    "/api/{space}/certificates/{Id}/usages",
			"Export":    "/api/{space}/certificates/{Id}/export{?format,includePrivateKey}",
		},
		Prepare: func(v *octopus.Certificate) {
			if v.TenantedDeploymentParticipation == "" {
				v.TenantedDeploymentParticipation = octopus.Untenanted
			}
			v.IsArchived = v.Archived != nil
		},
		Check: checkCertificate,
		InTx: func(ctx context.Context, w resource.Writer, c resource.Change[octopus.Certificate]) error {
			if c.New == nil {
				return dropDue(ctx, w.Tx(), c.ID)
			}
			return certificateDue(ctx, w.Tx(), c.Space, c.ID)
		},
	})
}

// certificateDue has the scheduler look at a certificate: which of its warnings is
// next, and which it has told already, it knows best.
func certificateDue(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) error {
	_, err := tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, 'certificate', ?, '', 0, 0, 0, 0, 0, '', '')
		ON CONFLICT (id) DO UPDATE SET at = 0`, id, string(space))
	if err != nil {
		return fmt.Errorf("note that %s expires: %w", id, err)
	}
	return nil
}

func checkCertificate(ctx context.Context, r resource.Reader, old, v *octopus.Certificate) error {
	if err := checkParticipation("TenantedDeploymentParticipation", &v.TenantedDeploymentParticipation); err != nil {
		return err
	}
	var had octopus.List[string]
	if old != nil {
		had = old.TenantTags
	}
	if err := checkTenantTags(ctx, r, v.SpaceID, had, tagList{"TenantTags", v.TenantTags}); err != nil {
		return err
	}
	given := v.CertificateData.NewValue
	if given == nil || *given == "" {
		if old == nil {
			return fault.InvalidField("CertificateData", "CertificateData is empty; give the file in base64.")
		}
		v.CertificateData.HasValue = true // a certificate is never without its file
		return nil
	}
	password := ""
	if v.Password.NewValue != nil {
		password = *v.Password.NewValue
	} else {
		v.Password = octopus.Sensitive{} // that of the file before
	}
	f, err := ParseCertificate(*given, password)
	if err != nil {
		return err
	}
	describeCertificate(v, f)
	v.IsExpired = r.Tx().Now().After(f.Leaf.NotAfter)
	return nil
}

// ParseCertificate reads a certificate's file from its base64.
func ParseCertificate(encoded, password string) (*certificate.File, error) {
	if len(encoded) > 2*certificate.MaxSize {
		return nil, fault.InvalidField("CertificateData", "CertificateData has %d characters; the limit of a file is %d bytes.", len(encoded), certificate.MaxSize)
	}
	data, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(encoded), ""))
	if err != nil {
		return nil, fault.InvalidField("CertificateData", "CertificateData is no base64; give the file in base64.")
	}
	return certificate.Parse(data, password)
}

func describeCertificate(v *octopus.Certificate, f *certificate.File) {
	v.CertificateInfo = certificateInfo(f.Leaf)
	v.CertificateDataFormat = map[certificate.Format]octopus.CertificateFormat{
		certificate.PKCS12: octopus.CertificatePKCS12, certificate.DER: octopus.CertificateDER, certificate.PEM: octopus.CertificatePEM,
	}[f.Format]
	v.SubjectCommonName, v.IssuerCommonName = f.Leaf.Subject.CommonName, f.Leaf.Issuer.CommonName
	v.SubjectOrganization = octopus.NullString(strings.Join(f.Leaf.Subject.Organization, ", "))
	v.IssuerOrganization = octopus.NullString(strings.Join(f.Leaf.Issuer.Organization, ", "))
	v.SelfSigned, v.HasPrivateKey = certificate.SelfSigned(f.Leaf), f.Key != nil
	v.SubjectAlternativeNames, v.CertificateChain = certificate.Names(f.Leaf), nil
	for _, c := range f.Chain {
		v.CertificateChain = append(v.CertificateChain, certificateInfo(c))
	}
}

func certificateInfo(c *x509.Certificate) octopus.CertificateInfo {
	return octopus.CertificateInfo{
		SubjectDistinguishedName: c.Subject.String(), IssuerDistinguishedName: c.Issuer.String(), Thumbprint: certificate.Thumbprint(c),
		NotBefore: octopus.NewTime(c.NotBefore), NotAfter: octopus.NewTime(c.NotAfter), Version: c.Version,
		SerialNumber: certificate.Serial(c), SignatureAlgorithmName: c.SignatureAlgorithm.String(),
	}
}
