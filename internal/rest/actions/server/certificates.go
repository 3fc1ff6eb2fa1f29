package server

import (
	"net/http"
	"reflect"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// certificateName is what the server's certificate is called in lists.
const certificateName = "Server certificate"

// signature is how the certificate is signed, in the words that clients know.
const signature = "sha256RSA"

// certificateRoutes tell by which certificate agents know the server. An agent that
// registers itself reads it with the key of whoever installs it, so that no more is
// needed than to be signed in; a thumbprint is no secret.
func (a *api) certificateRoutes() []rest.Route {
	one := reflect.TypeFor[octopus.CertificateConfiguration]()
	return []rest.Route{
		{
			Method: http.MethodGet, Pattern: "/configuration/certificates", Permission: rest.SignedIn, Handler: a.certificates, Response: reflect.TypeFor[octopus.Page[octopus.CertificateConfiguration]](),
			Query:   paged(rest.Param{Name: "ids", Type: rest.List, About: "only these"}, rest.Param{Name: "partialName", Type: rest.Text, About: "only those with this in their name"}),
			Summary: "Lists the certificates by which agents know the server; there is one.",
		},
		{Method: http.MethodGet, Pattern: "/configuration/certificates/{certificate}", Permission: rest.SignedIn, Handler: a.certificate, Response: one, Summary: "Reads the certificate by which agents know the server: certificate-global."},
	}
}

func (a *api) global(r *rest.Request) (octopus.CertificateConfiguration, error) {
	thumbprint, err := a.Thumbprint(r.Context())
	c := octopus.CertificateConfiguration{Name: certificateName, Thumbprint: thumbprint, SignatureAlgorithm: signature}
	c.ID = octopus.CertificateGlobalID
	c.Links = octopus.Links{"Self": r.Href("/api/configuration/certificates/" + c.ID)}
	return c, err
}

func (a *api) certificates(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	ids, err := r.QueryList("ids")
	if err != nil {
		return nil, err
	}
	var found []octopus.CertificateConfiguration
	named := len(ids) == 0 || slices.ContainsFunc(ids, func(id string) bool { return strings.EqualFold(id, octopus.CertificateGlobalID) })
	if part := strings.ToLower(r.Query("partialName")); named && strings.Contains(strings.ToLower(certificateName), part) {
		c, err := a.global(r)
		if err != nil {
			return nil, err
		}
		found = append(found, c)
	}
	total := int64(len(found))
	if p.Skip > 0 {
		found = nil
	}
	return rest.PageOf(r, "CertificateConfiguration", p, total, found), nil
}

func (a *api) certificate(r *rest.Request) (any, error) {
	if id := r.PathValue("certificate"); !strings.EqualFold(id, octopus.CertificateGlobalID) {
		return nil, fault.New(fault.NotFound, "There is no certificate '%.40s'; the server's own is %s.", id, octopus.CertificateGlobalID)
	}
	return a.global(r)
}
