// Package registration has agents register themselves: with a token that somebody made
// for them, which says what they become.
package registration

import (
	"context"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// Config is what the routes need.
type Config struct {
	DB    *db.DB
	Store *docstore.Store
	Auth  *auth.Service
	// Thumbprint is of the certificate by which agents know this server; it waits until
	// there is one.
	Thumbprint func(context.Context) (string, error)
	// ServerURI is where people reach the server; "" takes the address of each request.
	ServerURI string
	// CommsPort is where agents poll this server, 0 where they cannot.
	CommsPort int
	// Maintenance reports whether nobody but administrators may change anything.
	Maintenance func(ctx context.Context, tx *db.Tx) (bool, error)
}

// Limits of tokens.
const (
	defaultLife = time.Hour
	maxLife     = 24 * time.Hour
	maxUses     = 1000
	maxTokens   = 1000 // of a space that have not expired
	keepExpired = 30 * 24 * time.Hour
)

type api struct {
	Config
}

// sort is a sort of machine that agents become.
type sort struct {
	kind       string // of documents
	token      string // parameter of paths
	noun       string
	permission octopus.Permission // to make one
}

func sorts() []sort {
	return []sort{
		{"machines", "targetToken", "deployment target", octopus.PermMachineCreate},
		{"workers", "workerToken", "worker", octopus.PermWorkerEdit},
	}
}

// Routes are the operations on registration tokens, and the one that needs such a token
// and nothing else.
func Routes(cfg Config) []rest.Route {
	a := &api{cfg}
	var routes []rest.Route
	for _, s := range sorts() {
		pattern := "/" + s.kind + "/registration-tokens"
		token := reflect.TypeFor[octopus.RegistrationToken]()
		route := func(method, tail string, h func(r *rest.Request, s sort) (any, error), summary string) rest.Route {
			return rest.Route{
				Method: method, Pattern: pattern + tail, Permission: string(s.permission), Summary: summary,
				Handler: func(r *rest.Request) (any, error) { return h(r, s) },
			}
		}
		list := route(http.MethodGet, "", a.list, "Lists the tokens with which a "+s.noun+" can register itself, the newest first.")
		list.Response = reflect.TypeFor[octopus.Page[octopus.RegistrationToken]]()
		list.Query = []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}
		create := route(http.MethodPost, "", a.create, "Makes a token with which a "+s.noun+" can register itself, and commands that use it.")
		create.Body, create.Response = reflect.TypeFor[octopus.RegistrationTokenCommand](), reflect.TypeFor[octopus.RegistrationTokenCreated]()
		get := route(http.MethodGet, "/{"+s.token+"}", a.get, "Reads such a token, without its secret.")
		get.Response = token
		routes = append(routes, list, create, get, route(http.MethodDelete, "/{"+s.token+"}", a.revoke, "Revokes such a token. What it has registered stays."))
	}
	return append(routes, rest.Route{
		Method: http.MethodPost, Pattern: "/registrations", Mount: rest.InSystem, Permission: rest.Public, Handler: a.register,
		Body: reflect.TypeFor[octopus.RegistrationCommand](), Response: reflect.TypeFor[octopus.Registration](),
		Summary: "Registers an agent by the registration token that it was given.",
	})
}

// serverURL is where an agent finds this server: where it says that people do, else as
// the one who asks has found it.
func (a *api) serverURL(r *rest.Request) string {
	if a.ServerURI != "" {
		return strings.TrimRight(a.ServerURI, "/")
	}
	scheme := "http"
	if r.TLS != nil || strings.EqualFold(r.Header.Get("X-Forwarded-Proto"), "https") {
		scheme = "https"
	}
	return scheme + "://" + r.Host + strings.TrimSuffix(r.Href("/"), "/")
}
