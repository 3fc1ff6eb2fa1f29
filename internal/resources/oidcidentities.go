package resources

import (
	"context"
	"net/url"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// OIDCIdentities are the external identities that may stand for service accounts.
func OIDCIdentities() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.OIDCIdentity]{
		Name: "oidcidentities", ItemType: "ServiceAccountOidcIdentity", Noun: "OIDC identity", Prefix: "ServiceAccountOidcIdentities", Scope: resource.InSystem,
		Permissions: resource.Permissions{View: "UserView", Create: "UserEdit", Edit: "UserEdit", Delete: "UserEdit"},
		Hidden:      true, Order: resource.ByAge,
		Unique:     []resource.Unique{{Field: "Name", Within: "ServiceAccountId"}},
		Filters:    []resource.Filter{{Param: "serviceAccountId", Path: "ServiceAccountId"}},
		References: []resource.Reference{{Path: "ServiceAccountId", To: "users", OnDelete: resource.Cascade, Required: true}},
		Links:      map[string]string{"Self": "/api/serviceaccounts/{ServiceAccountId}/oidcidentities/{Id}/v1"},
		Check: func(ctx context.Context, r resource.Reader, _, v *octopus.OIDCIdentity) error {
			var u octopus.User
			if err := r.Load(ctx, "users", v.ServiceAccountID, &u); err != nil {
				return err
			}
			v.Issuer, v.Subject = strings.TrimSpace(v.Issuer), strings.TrimSpace(v.Subject)
			at, err := url.Parse(v.Issuer)
			switch {
			case !u.IsService:
				return fault.InvalidField("ServiceAccountId", "The user '%s' is a person; only service accounts have such identities.", u.Username)
			case err != nil || at.Scheme != "https" || at.Host == "" || at.User != nil:
				return fault.InvalidField("Issuer", "Issuer is '%.200s'; give the address of the provider, such as https://token.actions.githubusercontent.com.", v.Issuer)
			case v.Subject == "":
				return fault.InvalidField("Subject", "Subject is empty; give the subject of the tokens, in which * and ? stand for anything.")
			case strings.Trim(v.Subject, "*?") == "":
				return fault.InvalidField("Subject", "Subject is '%.100s', which lets every token of the issuer in; name more of the subject.", v.Subject)
			}
			return nil
		},
	})
}
