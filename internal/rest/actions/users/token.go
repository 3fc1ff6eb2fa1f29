package users

import (
	"net/http"
	"reflect"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// What RFC 8693 calls an exchange and its tokens, and where clients ask for one.
const (
	exchangeGrant   = "urn:ietf:params:oauth:grant-type:token-exchange"
	typeJWT         = "urn:ietf:params:oauth:token-type:jwt"
	typeIDToken     = "urn:ietf:params:oauth:token-type:id_token" //nolint:gosec // a name
	typeAccessToken = "urn:ietf:params:oauth:token-type:access_token"
	tokenPath       = "/token/v1"
)

// tokenRoutes exchange tokens of external issuers. Their form is that of OAuth.
func (a *api) tokenRoutes() []rest.Route {
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/.well-known/openid-configuration", Mount: rest.AtRoot, Group: "token", Permission: rest.Public, Handler: a.discovery, Response: reflect.TypeFor[octopus.OpenIDConfiguration](), Summary: "Tells where tokens are exchanged."},
		{Method: http.MethodPost, Pattern: tokenPath, Mount: rest.AtRoot, Group: "token", Permission: rest.Public, Handler: a.exchange, Body: reflect.TypeFor[octopus.TokenRequest](), Response: reflect.TypeFor[octopus.TokenResponse](), Failure: reflect.TypeFor[octopus.TokenError](), Summary: "Gives an access token of a service account for a token of an issuer that the account trusts."},
	}
}

// discovery names this server as the caller reaches it: that is where the caller goes
// on, and nobody else sees the answer.
func (a *api) discovery(r *rest.Request) (any, error) {
	scheme := "http"
	if secure(r) {
		scheme = "https"
	}
	base := scheme + "://" + r.Host
	return octopus.OpenIDConfiguration{Issuer: base + strings.TrimSuffix(r.Href("/"), "/"), TokenEndpoint: base + r.Href(tokenPath)}, nil
}

func (a *api) exchange(r *rest.Request) (any, error) {
	var in octopus.TokenRequest
	if err := r.Decode(&in); err != nil {
		return refuse("invalid_request", err), nil
	}
	switch {
	case in.GrantType != exchangeGrant:
		return refuse("unsupported_grant_type", fault.InvalidField("grant_type", "grant_type is '%.100s'; use %s.", in.GrantType, exchangeGrant)), nil
	case in.SubjectTokenType != typeJWT && in.SubjectTokenType != typeIDToken:
		return refuse("invalid_request", fault.InvalidField("subject_token_type", "subject_token_type is '%.100s'; use %s.", in.SubjectTokenType, typeJWT)), nil
	case in.Audience == "":
		return refuse("invalid_request", fault.InvalidField("audience", "audience is empty; give the id of the service account.")), nil
	case in.SubjectToken == "":
		return refuse("invalid_request", fault.InvalidField("subject_token", "subject_token is empty; give the token of the issuer.")), nil
	}
	actor := db.ActorFrom(r.Context())
	token, err := a.auth.Exchange(r.Context(), auth.Exchange{
		Account: in.Audience, Token: string(in.SubjectToken), Address: actor.IPAddress, UserAgent: actor.UserAgent,
	})
	switch {
	case err == nil:
	case fault.Is(err, fault.Invalid):
		return refuse("invalid_grant", err), nil
	case fault.Is(err, fault.TooMany):
		return refuse("slow_down", err), nil
	case fault.Is(err, fault.Unavailable):
		return refuse("temporarily_unavailable", err), nil
	case fault.Is(err, fault.Unsupported):
		return refuse("unsupported_grant_type", err), nil
	default:
		return nil, err
	}
	return octopus.TokenResponse{
		AccessToken: octopus.PlainSecret(token.Token), IssuedTokenType: typeAccessToken, TokenType: "Bearer", ExpiresIn: int(token.Life.Seconds()),
	}, nil
}

// refuse is a fault as OAuth has it.
func refuse(code string, err error) rest.Failed {
	return rest.Failed{Err: err, Body: octopus.TokenError{Error: code, ErrorDescription: strings.Join(fault.Messages(err), " ")}}
}
