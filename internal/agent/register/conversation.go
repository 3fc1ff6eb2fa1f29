package register

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

// Machine is what is to be registered. Everything but Name and Endpoint may be empty;
// names may also be slugs or ids.
type Machine struct {
	// Worker makes it a worker, with Pools; else it is a deployment target, with
	// Environments to Participation.
	Worker bool
	Space  string // the default one for ""
	Name   string
	Policy string
	// ServerProxy is by which proxy the server reaches an agent that listens.
	ServerProxy   string
	Pools         []string
	Environments  []string
	Roles         []string
	Tenants       []string
	TenantTags    []string // "Set/Tag"
	Participation octopus.TenantedDeploymentMode
	Endpoint      octopus.Endpoint
	// Force takes the place of a machine that has the name already.
	Force bool
	// Expect is who was met where the server is polled: a server with another
	// certificate is sent nothing. "" expects nobody.
	Expect halibut.Thumbprint
}

// Registered is what the agent needs of a server that knows it now.
type Registered struct {
	SpaceID, MachineID, Name string
	// Server is to be trusted.
	Server halibut.Thumbprint
}

// root is the first document of a server.
type root struct {
	Application, Version string
	APIVersion           string `json:"ApiVersion"`
	Links                links
}

// open reads the first document, once the server is there.
func (c *Client) open(ctx context.Context) (*root, error) {
	for try := 1; ; try++ {
		var r root
		err := c.call(ctx, http.MethodGet, c.base.Path+"/api", nil, &r)
		if status(err) == http.StatusServiceUnavailable && try < startTries {
			select {
			case <-ctx.Done():
				return nil, ctx.Err()
			case <-time.After(startPause):
			}
			continue
		}
		if err == nil && !strings.HasPrefix(r.APIVersion, "3.0.") {
			err = fmt.Errorf("the server at %s has the API version %q, where 3.0 is needed; check its URL", c.base, r.APIVersion)
		}
		return &r, err
	}
}

// signIn gets a session for a name and a password; keys need none.
func (c *Client) signIn(ctx context.Context, r *root) error {
	if c.cred.APIKey != "" || c.cred.Bearer != "" {
		return nil
	}
	href, err := r.Links.at("SignIn", nil)
	if err != nil {
		return err
	}
	var state struct {
		UsingSecureConnection bool
	}
	state.UsingSecureConnection = c.base.Scheme == "https"
	err = c.call(ctx, http.MethodPost, href, map[string]any{
		"Username": c.cred.Username, "Password": string(c.cred.Password), "RememberMe": true, "State": state,
	}, nil)
	if err != nil {
		return fmt.Errorf("sign in as %q: %w", c.cred.Username, err)
	}
	for _, cookie := range c.http.Jar.Cookies(c.base.JoinPath("/")) {
		if strings.HasPrefix(cookie.Name, csrfCookie) {
			c.csrf = cookie.Value
		}
	}
	if c.csrf == "" {
		return fmt.Errorf("sign in as %q: the server set no cookie %s", c.cred.Username, csrfCookie)
	}
	return nil
}

// session is a conversation that has reached a space.
type session struct {
	*Client

	spaceID string
	space   links
	server  halibut.Thumbprint
}

// start signs in, finds the space and reads which certificate the server has.
func (c *Client) start(ctx context.Context, space string) (*session, error) {
	r, err := c.open(ctx)
	if err != nil {
		return nil, err
	}
	if err := c.signIn(ctx, r); err != nil {
		return nil, err
	}
	s := &session{Client: c}
	home := r.Links
	if _, ok := r.Links["Spaces"]; ok {
		var user document
		if err := c.get(ctx, r.Links, "CurrentUser", nil, &user); err != nil {
			return nil, err
		}
		found, err := c.findSpace(ctx, user.Links, space)
		if err != nil {
			return nil, err
		}
		s.spaceID, home = found.ID, found.Links
	}
	if s.server, err = c.thumbprint(ctx); err != nil {
		return nil, err
	}
	var at document
	if err := c.get(ctx, home, "SpaceHome", nil, &at); err != nil {
		return nil, err
	}
	s.space = at.Links
	return s, nil
}

func (c *Client) findSpace(ctx context.Context, user links, name string) (*document, error) {
	var all []struct {
		document

		IsDefault bool
	}
	if err := c.get(ctx, user, "Spaces", nil, &all); err != nil {
		return nil, err
	}
	names := make([]string, len(all))
	for i, one := range all {
		if name == "" && one.IsDefault || name != "" && fits(one.document, name) {
			return &one.document, nil
		}
		names[i] = one.Name
	}
	if name == "" {
		return nil, fmt.Errorf("this user has no access to the default space; name one by --space: %s", strings.Join(names, ", "))
	}
	return nil, fmt.Errorf("--space %q: this user sees no such space; there are %s", name, strings.Join(names, ", "))
}

func fits(d document, name string) bool {
	return strings.EqualFold(d.Name, name) || strings.EqualFold(d.ID, name) || d.Slug != "" && strings.EqualFold(d.Slug, name)
}

// Thumbprint signs in and reads by which certificate agents know the server.
func (c *Client) Thumbprint(ctx context.Context) (halibut.Thumbprint, error) {
	r, err := c.open(ctx)
	if err != nil {
		return "", err
	}
	if err := c.signIn(ctx, r); err != nil {
		return "", err
	}
	return c.thumbprint(ctx)
}

func (c *Client) thumbprint(ctx context.Context) (halibut.Thumbprint, error) {
	r, err := c.open(ctx) // now with what somebody who is signed in may see
	if err != nil {
		return "", err
	}
	name := "CertificateConfiguration"
	if _, ok := r.Links[name]; !ok {
		name = "Certificates"
	}
	var cert struct{ Thumbprint string }
	if err := c.get(ctx, r.Links, name, url.Values{"id": {octopus.CertificateGlobalID}}, &cert); err != nil {
		return "", err
	}
	return halibut.ParseThumbprint(cert.Thumbprint)
}

// Register makes the machine known to the server. Nothing is sent twice: an error
// after which it cannot be told whether the server has the machine says so.
func (c *Client) Register(ctx context.Context, m Machine) (*Registered, error) {
	s, err := c.start(ctx, m.Space)
	if err != nil {
		return nil, err
	}
	if m.Expect != "" && m.Expect != s.server {
		return nil, fmt.Errorf("where the server is polled is the certificate %s, but its own is %s; is something between, or is it another server's port?", m.Expect, s.server)
	}
	list := "Machines"
	if m.Worker {
		list = "Workers"
	}
	old, err := s.named(ctx, list, m.Name)
	if err != nil {
		return nil, err
	}
	if old != nil && !m.Force {
		return nil, fmt.Errorf("--name %q: the server has a machine of this name already; choose another name, or add --force to take its place", m.Name)
	}
	body, err := s.body(ctx, m, old)
	if err != nil {
		return nil, err
	}
	method, href := http.MethodPost, ""
	if old != nil {
		var was document
		if err := json.Unmarshal(old, &was); err != nil {
			return nil, err
		}
		method = http.MethodPut
		href, err = was.Links.at("Self", nil)
	} else {
		href, err = s.space.at(list, nil)
	}
	if err != nil {
		return nil, err
	}
	var made document
	if err := s.call(ctx, method, href, body, &made); err != nil {
		if status(err) == 0 {
			err = fmt.Errorf("%w; the server may have registered the machine all the same, then run this again with --force", err)
		}
		return nil, err
	}
	if err := s.get(ctx, made.Links, "Self", nil, &made); err != nil {
		return nil, err
	}
	return &Registered{SpaceID: s.spaceID, MachineID: made.ID, Name: made.Name, Server: s.server}, nil
}

// named finds the machine with a name, as the server has it; nil for none.
func (s *session) named(ctx context.Context, list, name string) (found json.RawMessage, err error) {
	err = s.each(ctx, s.space, list, url.Values{"name": {name}}, func(item json.RawMessage) (bool, error) {
		var d document
		if err := json.Unmarshal(item, &d); err != nil {
			return false, err
		}
		if strings.EqualFold(d.Name, name) {
			found = item
		}
		return found == nil, nil
	})
	return found, err
}

// body is the machine as it is sent: what old has beside it stays.
func (s *session) body(ctx context.Context, m Machine, old json.RawMessage) (map[string]any, error) {
	body := map[string]any{}
	if old != nil {
		if err := json.Unmarshal(old, &body); err != nil {
			return nil, err
		}
	} else {
		body["IsDisabled"], body["SkipInitialHealthCheck"] = false, false
	}
	maps.Copy(body, map[string]any{"Name": m.Name, "SpaceId": s.spaceID, "Thumbprint": m.Endpoint.Thumbprint, "Uri": m.Endpoint.URI})
	var err error
	one := func(list, flag, name string) string {
		if name == "" || err != nil {
			return ""
		}
		var ids []string
		if ids, err = s.ids(ctx, list, flag, []string{name}, "name"); err == nil {
			return ids[0]
		}
		return ""
	}
	m.Endpoint.ProxyID = one("Proxies", "--server-proxy", m.ServerProxy)
	body["Endpoint"] = m.Endpoint
	if policy := one("MachinePolicies", "--policy", m.Policy); policy != "" {
		body["MachinePolicyId"] = policy
	}
	if err != nil {
		return nil, err
	}
	if m.Worker {
		body["WorkerPoolIds"], err = s.ids(ctx, "WorkerPools", "--worker-pool", m.Pools, "partialName")
		return body, err
	}
	tags, err := s.tags(ctx, m.TenantTags)
	if err != nil {
		return nil, err
	}
	environments, err := s.environments(ctx, m.Environments)
	if err != nil {
		return nil, err
	}
	tenants, err := s.ids(ctx, "Tenants", "--tenant", m.Tenants, "name")
	if err != nil {
		return nil, err
	}
	maps.Copy(body, map[string]any{
		"EnvironmentIds": environments, "Roles": m.Roles, "TenantIds": tenants, "TenantTags": tags, "TenantedDeploymentParticipation": m.Participation,
	})
	return body, nil
}

// ids finds what has these names, or slugs or ids. by is the parameter that has the
// server look for a name.
func (s *session) ids(ctx context.Context, list, flag string, names []string, by string) ([]string, error) {
	ids := make([]string, 0, len(names))
	for _, name := range names {
		id := ""
		for _, params := range []url.Values{{by: {name}}, {"ids": {name}}, {}} {
			all, err := s.collect(ctx, s.space, list, params)
			if err != nil {
				return nil, err
			}
			for _, d := range all {
				if id == "" && fits(d, name) {
					id = d.ID
				}
			}
			if id != "" {
				break
			}
		}
		if id == "" {
			return nil, fmt.Errorf("%s %q: the space has none with this name, slug or id, or you may not see it", flag, name)
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// environments are found among those of every type, where the server knows of types.
func (s *session) environments(ctx context.Context, names []string) ([]string, error) {
	if len(names) == 0 {
		return []string{}, nil
	}
	home, err := s.space.at("Self", nil)
	if err != nil {
		return nil, err
	}
	var page struct{ Items []document }
	err = s.call(ctx, http.MethodGet, home+"/environments/v2?skip=0&take=2147483647", nil, &page)
	if status(err) == http.StatusNotFound {
		return s.ids(ctx, "Environments", "--environment", names, "name")
	}
	if err != nil {
		return nil, err
	}
	ids := make([]string, 0, len(names))
	for _, name := range names {
		id := ""
		for _, d := range page.Items {
			if id == "" && fits(d, name) {
				id = d.ID
			}
		}
		if id == "" {
			have := make([]string, len(page.Items))
			for i, d := range page.Items {
				have[i] = d.Name
			}
			return nil, fmt.Errorf("--environment %q: the space has none with this name, slug or id, or you may not see it; there are %s", name, strings.Join(have, ", "))
		}
		ids = append(ids, id)
	}
	return ids, nil
}

// tags are canonical names of tags of tag sets, checked and as the server spells them.
func (s *session) tags(ctx context.Context, names []string) ([]string, error) {
	found := make([]string, 0, len(names))
	if len(names) == 0 {
		return found, nil
	}
	known := map[string]string{}
	err := s.each(ctx, s.space, "TagSets", nil, func(item json.RawMessage) (bool, error) {
		var set struct {
			Tags []struct{ CanonicalTagName string }
		}
		err := json.Unmarshal(item, &set)
		for _, t := range set.Tags {
			known[strings.ToLower(t.CanonicalTagName)] = t.CanonicalTagName
		}
		return true, err
	})
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		tag, ok := known[strings.ToLower(name)]
		if !ok {
			return nil, fmt.Errorf("--tenant-tag %q: the space has no such tag; give it as \"Tag set/Tag\"", name)
		}
		found = append(found, tag)
	}
	return found, nil
}

// Deregister deletes the targets and the workers of the space that have a thumbprint,
// and tells their names and which server it was.
func (c *Client) Deregister(ctx context.Context, space string, agent halibut.Thumbprint) (names []string, server halibut.Thumbprint, err error) {
	s, err := c.start(ctx, space)
	if err != nil {
		return nil, "", err
	}
	for _, list := range []string{"Machines", "Workers"} {
		var all []document
		err := s.get(ctx, s.space, list, url.Values{"id": {"all"}, "thumbprint": {string(agent)}}, &all)
		if status(err) == http.StatusForbidden && list == "Workers" {
			continue // who may not see workers has registered none
		}
		if err != nil {
			return names, "", err
		}
		for _, d := range all {
			href, err := d.Links.at("Self", nil)
			if err != nil {
				return names, "", err
			}
			if err := s.call(ctx, http.MethodDelete, href, nil, nil); err != nil && status(err) != http.StatusNotFound {
				return names, "", err
			}
			names = append(names, d.Name)
		}
	}
	return names, s.server, nil
}

// RegisterByToken makes the machine known by a registration token, which says what it
// becomes. It may be sent again: the server knows an agent by its thumbprint.
func (c *Client) RegisterByToken(ctx context.Context, cmd octopus.RegistrationCommand) (*Registered, error) {
	var out octopus.Registration
	var err error
	for range 3 {
		err = c.call(ctx, http.MethodPost, c.base.Path+"/api/registrations", cmd, &out)
		if err == nil || status(err) != 0 && status(err) != http.StatusServiceUnavailable || ctx.Err() != nil {
			break
		}
	}
	if err != nil {
		return nil, err
	}
	thumbprint, err := halibut.ParseThumbprint(out.Thumbprint)
	if err != nil {
		return nil, errors.New("the server does not say by which certificate agents know it")
	}
	return &Registered{SpaceID: out.SpaceID, MachineID: out.MachineID, Name: out.Name, Server: thumbprint}, nil
}
