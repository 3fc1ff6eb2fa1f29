package test

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// tentacle sends what an agent of another make sends when it is registered, in that
// order, and takes its addresses from the links of the documents as that does.
type tentacle struct {
	t    *testing.T
	url  string // of the server
	http *http.Client
	key  string // "" signs in
	csrf string
	sent []string
}

// doc is any document.
type doc map[string]any

func (d doc) text(name string) string { s, _ := d[name].(string); return s }

// link fills in a template as that agent's client does: what has no value is left out.
func (d doc) link(t *testing.T, name string, values map[string]string) string {
	t.Helper()
	links, _ := d["Links"].(map[string]any)
	template, ok := links[name].(string)
	if !ok {
		t.Fatalf("there is no link %s in %v", name, links)
	}
	return regexp.MustCompile(`\{([/?]?)([^}]*)\}`).ReplaceAllStringFunc(template, func(expr string) string {
		m := regexp.MustCompile(`\{([/?]?)([^}]*)\}`).FindStringSubmatch(expr)
		var parts []string
		for one := range strings.SplitSeq(m[2], ",") {
			switch value, given := values[one]; {
			case given && m[1] == "?":
				parts = append(parts, one+"="+url.QueryEscape(value))
			case given:
				parts = append(parts, m[1]+url.PathEscape(value))
			}
		}
		if m[1] == "?" && len(parts) > 0 {
			return "?" + strings.Join(parts, "&")
		}
		return strings.Join(parts, "")
	})
}

func (a *tentacle) send(method, path string, body any, status int) []byte {
	a.t.Helper()
	var r io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			a.t.Fatal(err)
		}
		r = bytes.NewReader(text)
	}
	req, err := http.NewRequestWithContext(a.t.Context(), method, a.url+path, r)
	if err != nil {
		a.t.Fatal(err)
	}
	req.Header.Set("User-Agent", "OctopusClient-dotnet/18.0 (Linux; x64) NETFramework/8.0 Tentacle/9.1")
	switch {
	case a.key != "":
		req.Header.Set("X-Octopus-ApiKey", a.key)
	case a.csrf != "":
		req.Header.Set("X-Octopus-Csrf-Token", a.csrf)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json; charset=utf-8")
	}
	resp, err := a.http.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		a.t.Fatal(err)
	}
	a.sent = append(a.sent, method+" "+path)
	if resp.StatusCode != status {
		a.t.Fatalf("%s %s: %d, want %d: %s", method, path, resp.StatusCode, status, text)
	}
	return text
}

func fetched[T any](a *tentacle, path string) T {
	a.t.Helper()
	return decode[T](a.t, a.send(http.MethodGet, path, nil, http.StatusOK))
}

// handshake looks whether the server's port for polling agents is open, without a
// certificate and without a body.
func (a *tentacle) handshake(addr string) {
	a.t.Helper()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(a.t.Context(), http.MethodPost, "https://"+addr+"/handshake", http.NoBody)
	if err != nil {
		a.t.Fatal(err)
	}
	resp, err := client.Do(req)
	if err != nil {
		a.t.Fatal(err)
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusBadRequest {
		a.t.Fatalf("POST /handshake: %s", resp.Status)
	}
}

// root is the first document, as every step looks at it.
func (a *tentacle) root() doc {
	a.t.Helper()
	root := fetched[doc](a, "/api")
	if !regexp.MustCompile(`^3\.0\.\d{1,2}$`).MatchString(root.text("ApiVersion")) || root.text("InstallationId") == "" || root.text("Application") == "" || strings.HasPrefix(root.text("Version"), "2.") {
		a.t.Fatalf("%v", root)
	}
	return root
}

// signIn is what comes with a name and a password in the place of a key.
func (a *tentacle) signIn(root doc, name, password string) {
	a.t.Helper()
	a.send(http.MethodPost, root.link(a.t, "SignIn", nil), doc{"Username": name, "Password": password, "RememberMe": true, "State": doc{"UsingSecureConnection": false}}, http.StatusOK)
	at, err := url.Parse(a.url + "/")
	if err != nil {
		a.t.Fatal(err)
	}
	for _, c := range a.http.Jar.Cookies(at) {
		if strings.HasPrefix(c.Name, "Octopus-Csrf-Token") {
			a.csrf = c.Value
		}
	}
	if a.csrf == "" {
		a.t.Fatal("signing in sets no cookie Octopus-Csrf-Token...")
	}
}

// open goes as far as the space: its document, its id, and the server's thumbprint.
func (a *tentacle) open(password string) (home doc, space, thumbprint string) {
	a.t.Helper()
	root := a.root()
	if password != "" {
		a.signIn(root, "admin", password)
	}
	if _, ok := root["Links"].(map[string]any)["Spaces"]; !ok {
		a.t.Fatal("the server has no spaces")
	}
	me := fetched[doc](a, root.link(a.t, "CurrentUser", nil))
	spaces := fetched[[]doc](a, me.link(a.t, "Spaces", nil)) // a bare array
	i := slices.IndexFunc(spaces, func(d doc) bool { return d["IsDefault"] == true })
	if i < 0 {
		a.t.Fatalf("no space is the default one: %v", spaces)
	}
	certificate := fetched[doc](a, a.root().link(a.t, "CertificateConfiguration", map[string]string{"id": "certificate-global"}))
	thumbprint = certificate.text("Thumbprint")
	if !regexp.MustCompile(`^[0-9A-F]{40}$`).MatchString(thumbprint) || certificate.text("SignatureAlgorithm") == "" {
		a.t.Fatalf("%v", certificate)
	}
	return fetched[doc](a, spaces[i].link(a.t, "SpaceHome", nil)), spaces[i].text("Id"), thumbprint
}

// page reads a list, and wants it to be one.
func (a *tentacle) page(path string) []doc {
	a.t.Helper()
	page := fetched[struct {
		Items                      *[]doc
		ItemsPerPage, TotalResults *int
		Links                      map[string]string
	}](a, path)
	if page.Items == nil || page.ItemsPerPage == nil || page.TotalResults == nil || *page.TotalResults > len(*page.Items) {
		a.t.Fatalf("GET %s: no page, or not all of it: %+v", path, page)
	}
	return *page.Items
}

// one finds what has a name.
func (a *tentacle) one(path, name string) string {
	a.t.Helper()
	for _, d := range a.page(path) {
		if strings.EqualFold(d.text("Name"), name) {
			return d.text("Id")
		}
	}
	a.t.Fatalf("GET %s has no %s", path, name)
	return ""
}

// register is the conversation of register-with, or of register-worker with a pool.
func (a *tentacle) register(password, name, pool string, endpoint doc, force bool) doc {
	t := a.t
	t.Helper()
	home, space, _ := a.open(password)
	list := map[bool]string{true: "Machines", false: "Workers"}[pool == ""]
	found := a.page(home.link(t, list, map[string]string{"name": name}))
	if len(found) > 0 != force {
		t.Fatalf("%s has %v", list, found)
	}
	proxy := a.one(home.link(t, "Proxies", map[string]string{"name": "Gate"}), "gate")
	policy := a.one(home.link(t, "MachinePolicies", map[string]string{"name": "Default Machine Policy"}), "Default Machine Policy")
	machine := doc{}
	if force {
		machine = found[0]
	}
	machine["Name"], machine["SpaceId"], machine["MachinePolicyId"], machine["IsDisabled"] = name, space, policy, false
	endpoint["ProxyId"] = nil
	if endpoint["CommunicationStyle"] == "TentaclePassive" {
		endpoint["ProxyId"] = proxy
	}
	machine["Endpoint"] = endpoint
	if pool == "" {
		a.page(home.link(t, "TagSets", nil))
		environments := fetched[struct {
			Items                                     []struct{ ID, Name, Slug, SpaceID, Type string }
			TotalResults, ItemsPerPage, NumberOfPages int
		}](a, "/api/"+space+"/environments/v2?skip=0&take=2147483647")
		i := slices.IndexFunc(environments.Items, func(e struct{ ID, Name, Slug, SpaceID, Type string }) bool {
			return e.Name == "Dev" && e.Slug == "dev" && e.SpaceID == space
		})
		if i < 0 {
			t.Fatalf("%+v", environments)
		}
		tenant := a.one(home.link(t, "Tenants", map[string]string{"name": "Acme"}), "ACME")
		machine["EnvironmentIds"], machine["Roles"] = []string{environments.Items[i].ID}, []string{"web"}
		machine["TenantIds"], machine["TenantTags"], machine["TenantedDeploymentParticipation"] = []string{tenant}, []string{"Size/Large"}, "TenantedOrUntenanted"
	} else {
		machine["WorkerPoolIds"] = []string{a.one(home.link(t, "WorkerPools", map[string]string{"name": pool}), pool)}
	}
	var made doc
	if force {
		made = decode[doc](t, a.send(http.MethodPut, machine.link(t, "Self", nil), machine, http.StatusOK))
	} else {
		made = decode[doc](t, a.send(http.MethodPost, home.link(t, list, nil), machine, http.StatusCreated))
	}
	return fetched[doc](a, made.link(t, "Self", nil))
}

// deregister is the conversation of deregister-from.
func (a *tentacle) deregister(password, thumbprint string, workers bool) int {
	a.t.Helper()
	home, _, _ := a.open(password)
	list := map[bool]string{false: "Machines", true: "Workers"}[workers]
	all := fetched[[]doc](a, home.link(a.t, list, map[string]string{"id": "all", "thumbprint": thumbprint}))
	for _, d := range all {
		a.send(http.MethodDelete, d.link(a.t, "Self", nil), nil, http.StatusOK)
	}
	fetched[doc](a, a.root().link(a.t, "CertificateConfiguration", map[string]string{"id": "certificate-global"}))
	return len(all)
}

// TestConversationOfOtherAgents plays the requests by which agents of other makes
// register themselves and go away again.
func TestConversationOfOtherAgents(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := apptest.StartWith(t, dialect, apptest.Options{NoWorker: true})
			apptest.Post(t, s.Client, space+"/environments", octopus.Environment{Name: "Dev"})
			apptest.Post(t, s.Client, space+"/tenants", octopus.Tenant{Name: "Acme"})
			apptest.Post(t, s.Client, space+"/tagsets", octopus.TagSet{Name: "Size", Tags: octopus.List[octopus.Tag]{{Name: "Large", Color: "#000000"}}})
			s.Must(t, http.MethodPost, space+"/proxies", json.RawMessage(`{"Name":"Gate","Host":"gate.example.com","Port":3128,"ProxyType":"HTTP"}`), nil)
			const password = "correct horse battery"
			me := apptest.Get[octopus.User](t, s.Client, "/api/users/me")
			s.Must(t, http.MethodPut, "/api/users/"+me.ID, json.RawMessage(fmt.Sprintf(`{"Username":"admin","DisplayName":"admin","IsActive":true,"Password":%q}`, password)), nil)

			agent := func(key string) *tentacle {
				jar, err := cookiejar.New(nil)
				if err != nil {
					t.Fatal(err)
				}
				return &tentacle{t: t, url: s.URL, http: &http.Client{Jar: jar}, key: key}
			}
			print := func(n int) string { return fmt.Sprintf("%040X", n) }
			passive := func(n int) doc {
				return doc{"CommunicationStyle": "TentaclePassive", "Uri": fmt.Sprintf("https://host%d:10933/", n), "Thumbprint": print(n)}
			}
			active := func(n int) doc {
				return doc{"CommunicationStyle": "TentacleActive", "Uri": fmt.Sprintf("poll://agent%d/", n), "Thumbprint": print(n)}
			}

			a := agent(apptest.AdminKey)
			first := a.register("", "listening", "", passive(1), false)
			want := []string{
				"GET /api", "GET /api/users/me", "GET /api/users/" + me.ID + "/spaces", "GET /api", "GET /api/configuration/certificates/certificate-global", "GET /api/Spaces-1",
				"GET /api/Spaces-1/machines?name=listening", "GET /api/Spaces-1/proxies?name=Gate", "GET /api/Spaces-1/machinepolicies?name=Default+Machine+Policy", "GET /api/Spaces-1/tagsets",
				"GET /api/Spaces-1/environments/v2?skip=0&take=2147483647", "GET /api/Spaces-1/tenants?name=Acme", "POST /api/Spaces-1/machines", "GET /api/Spaces-1/machines/" + first.text("Id"),
			}
			if diff := cmp.Diff(want, a.sent); diff != "" {
				t.Error(diff)
			}
			made := apptest.Get[octopus.Machine](t, s.Client, space+"/machines/"+first.text("Id"))
			if made.Endpoint.Thumbprint != print(1) || made.Endpoint.URI != "https://host1:10933/" || made.Endpoint.ProxyID == "" || made.TenantTags[0] != "Size/Large" || string(made.Thumbprint) != print(1) {
				t.Errorf("%+v", made)
			}

			b := agent("")
			b.handshake(s.App.AgentAddr().String())
			polling := b.register(password, "polling", "", active(2), false)
			if b.sent[1] != "POST /api/users/login" {
				t.Errorf("%q", b.sent)
			}
			// The same name, by force, from another machine.
			c := agent(apptest.AdminKey)
			c.handshake(s.App.AgentAddr().String())
			if forced := c.register("", "LISTENING", "", active(3), true); forced.text("Id") != first.text("Id") || forced.text("Name") != "LISTENING" {
				t.Errorf("%v", forced)
			}
			d := agent(apptest.AdminKey)
			worker := d.register("", "worker", "Default Worker Pool", passive(4), false)
			if again := agent("").register(password, "worker", "Default Worker Pool", active(4), true); again.text("Id") != worker.text("Id") {
				t.Errorf("%v", again)
			}

			for n, kept := range map[int]int{1: 0, 2: 1, 3: 1} {
				if got := agent(apptest.AdminKey).deregister("", print(n), false); got != kept {
					t.Errorf("%d machines had the thumbprint of agent %d, want %d", got, n, kept)
				}
			}
			if got := agent("").deregister(password, print(4), true); got != 1 {
				t.Errorf("%d workers", got)
			}
			s.Refused(t, http.StatusNotFound, http.MethodGet, space+"/machines/"+polling.text("Id"), nil)
			// The list as such, with id=all in the query, is an array too.
			var all []doc
			s.Must(t, http.MethodGet, space+"/machines?id=all&thumbprint="+print(1), nil, &all)
			if len(all) != 0 {
				t.Errorf("%v", all)
			}
		})
	}
}
