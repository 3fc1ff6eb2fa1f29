package rest

import (
	"encoding/json"
	"maps"
	"net/http"
	"reflect"
	"slices"
	"strings"
	"sync"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// apiVersion is the version of the API's form, which has not changed in years;
// some clients check that it is 3.0.x.
const apiVersion = "3.0.0"

// rootDocument is what clients read first.
type rootDocument struct {
	Application          string
	Version              string
	APIVersion           string `json:"ApiVersion"`
	InstallationID       string `json:"InstallationId"`
	IsEarlyAccessProgram bool
	HasLongTermSupport   bool
	// TestInstance is there on a copy that was made to try things out.
	TestInstance bool `json:",omitempty"`
	Links        octopus.Links
}

type capabilities struct{ Capabilities octopus.List[string] }

type featureToggles struct{ FeatureToggles octopus.List[featureToggle] }

type featureToggle struct {
	Name      string
	IsEnabled bool
}

// alwaysOn are the features of newer clients that this server always has. A
// client takes one that is not listed for off.
func alwaysOn() []string {
	return []string{
		"CommonVariableScopingFeatureToggle",
		"DeploymentFreezeByTenantFeatureToggle",
		"ExternalOidcFeedsFeatureToggle",
	}
}

// rootRoutes are the operations that the package itself serves.
func (s *Server) rootRoutes() []Route {
	root := reflect.TypeFor[rootDocument]()
	return []Route{
		{Method: http.MethodGet, Pattern: "/", Mount: InSystem, Group: "root", Permission: Public, Handler: s.root, Response: root, Summary: "Reads the root document: the version, and the link templates of the API."},
		{Method: http.MethodGet, Pattern: "/{space}", Mount: atSpace, Group: "root", Permission: SignedIn, Handler: s.spaceRoot, Response: root, Summary: "Reads the root document of a space: the same templates, within the space."},
		{Method: http.MethodGet, Pattern: "/capabilities", Mount: InSystem, Permission: SignedIn, Handler: s.capabilities, Response: reflect.TypeFor[capabilities](), Summary: "Lists what clients may count on."},
		{Method: http.MethodGet, Pattern: "/configuration/feature-toggles", Mount: InSystem, Permission: SignedIn, Handler: s.toggles, Query: []Param{{"Name", Text, "only this one"}}, Response: reflect.TypeFor[featureToggles](), Summary: "Lists the optional features that are on."},
		{Method: http.MethodGet, Pattern: "/octopusservernodes/ping", Mount: InSystem, Permission: Public, Handler: s.ready, ContentType: "text/plain", Summary: "Tells load balancers whether this node takes requests."},
		{Method: http.MethodGet, Pattern: "/openapi.json", Mount: InSystem, Group: "root", Permission: Public, Handler: s.openAPI, Summary: "Describes this API in the OpenAPI format."},
		{Method: http.MethodGet, Pattern: "/livez", Mount: AtRoot, Group: "root", Permission: Public, Handler: s.live, ContentType: "text/plain", Summary: "Tells whether the process runs."},
		{Method: http.MethodGet, Pattern: "/readyz", Mount: AtRoot, Group: "root", Permission: Public, Handler: s.ready, ContentType: "text/plain", Summary: "Tells whether this node can do its work."},
	}
}

// routes are all operations: the package's own, those of kinds, and the caller's.
func (s *Server) routes() ([]Route, error) {
	routes := s.rootRoutes()
	s.links = map[string]*linkMaker{}
	for _, k := range s.sortedKinds() {
		if err := checkLinks(k); err != nil {
			return nil, err
		}
		s.links[k.Name] = newLinkMaker(k, s.base)
	}
	for _, k := range s.sortedKinds() {
		if k.Hidden {
			continue
		}
		of, err := s.kindRoutes(k, Alias{Kind: k.Name, Pattern: "/" + k.Name})
		if err != nil {
			return nil, err
		}
		routes = append(routes, of...)
	}
	for _, at := range s.Aliases {
		k, err := s.Store.Kind(at.Kind)
		if err != nil {
			return nil, err
		}
		of, err := s.kindRoutes(k, at)
		if err != nil {
			return nil, err
		}
		routes = append(routes, of...)
	}
	return override(routes, s.Config.Routes)
}

func (s *Server) root(*Request) (any, error) { return s.roots.root, nil }

func (s *Server) spaceRoot(r *Request) (any, error) { return s.roots.of(s, r.Space) }

// roots keeps the root documents as JSON: every command of the CLI reads two.
type roots struct {
	root   json.RawMessage
	spaces sync.Map // ident.SpaceID to json.RawMessage
}

func (s *Server) rootJSON(space ident.SpaceID) (json.RawMessage, error) {
	return json.Marshal(rootDocument{
		Application: "Tako", Version: s.Version, APIVersion: apiVersion, InstallationID: s.InstallationID, TestInstance: s.TestInstance,
		Links: rootLinks(s.base, string(space)),
	})
}

func (c *roots) of(s *Server, space ident.SpaceID) (json.RawMessage, error) {
	if body, ok := c.spaces.Load(space); ok {
		return body.(json.RawMessage), nil
	}
	body, err := s.rootJSON(space)
	if err == nil {
		c.spaces.Store(space, body)
	}
	return body, err
}

func (s *Server) capabilities(*Request) (any, error) {
	return capabilities{octopus.List[string]{"GetAllSpacesRequest"}}, nil
}

func (s *Server) toggles(r *Request) (any, error) {
	var out featureToggles
	names := append(alwaysOn(), s.Toggles...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		if want := r.Query("Name"); want == "" || strings.EqualFold(want, name) {
			out.FeatureToggles = append(out.FeatureToggles, featureToggle{Name: name, IsEnabled: true})
		}
	}
	return out, nil
}

func (s *Server) live(*Request) (any, error) { return text("alive\n"), nil }

func (s *Server) ready(r *Request) (any, error) {
	if s.Ready != nil {
		if err := s.Ready(r.Context()); err != nil {
			return nil, err
		}
	}
	return text("ready\n"), nil
}

func text(s string) Raw {
	return Raw{ContentType: "text/plain; charset=utf-8", Content: strings.NewReader(s)}
}

func (s *Server) sortedKinds() []*resource.Kind {
	kinds := make([]*resource.Kind, 0, len(s.Store.Kinds()))
	for _, name := range slices.Sorted(maps.Keys(s.Store.Kinds())) {
		kinds = append(kinds, s.Store.Kinds()[name])
	}
	return kinds
}
