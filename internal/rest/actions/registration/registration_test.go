package registration_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/registration"
	"github.com/takodeploy/tako/octopus"
)

const (
	serverPrint = "00112233445566778899AABBCCDDEEFF00112233"
	targets     = "/api/Spaces-1/machines/registration-tokens"
	workers     = "/api/Spaces-1/workers/registration-tokens"
	register    = "/api/registrations"
)

// world is a server with two environments.
type world struct {
	*actiontest.World

	dev, prod   string
	maintenance atomic.Bool
}

func each(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	var locked atomic.Pointer[atomic.Bool]
	actiontest.Each(t, func(w *actiontest.World) []rest.Route {
		return registration.Routes(registration.Config{
			DB: w.DB, Store: w.Store, Auth: w.Auth, Thumbprint: func(context.Context) (string, error) { return serverPrint, nil }, ServerURI: "https://tako.example.com/base/", CommsPort: 10944,
			Maintenance: func(context.Context, *db.Tx) (bool, error) { b := locked.Load(); return b != nil && b.Load(), nil },
		})
	}, func(t *testing.T, a *actiontest.World) {
		w := &world{World: a}
		locked.Store(&w.maintenance)
		w.dev = w.Create("/api/Spaces-1/environments", `{"Name":"Dev"}`)
		w.prod = w.Create("/api/Spaces-1/environments", `{"Name":"Prod"}`)
		fn(t, w)
	})
}

func print(n int) string { return fmt.Sprintf("%040X", n) }

func polling(n int) string {
	return fmt.Sprintf(`{"CommunicationStyle":"TentacleActive","Uri":"poll://agent%d/","Thumbprint":"%s"}`, n, print(n))
}

// token makes one and returns it.
func (w *world) token(path, body string) octopus.RegistrationTokenCreated {
	w.T.Helper()
	var made octopus.RegistrationTokenCreated
	w.Must(http.StatusCreated, http.MethodPost, path, body).Into(&made)
	return made
}

// send registers an agent, as nobody in particular.
func (w *world) send(token octopus.PlainSecret, name, endpoint string) actiontest.Answer {
	w.T.Helper()
	return w.Do(http.MethodPost, register, "", fmt.Sprintf(`{"Token":%q,"Name":%q,"Endpoint":%s}`, string(token), name, endpoint))
}

func (w *world) refused(a actiontest.Answer, status int, says string) {
	w.T.Helper()
	if a.Status != status || !strings.Contains(string(a.Body), says) {
		w.T.Errorf("status %d, want %d with %q: %s", a.Status, status, says, a.Body)
	}
}

func TestTargetRegistersItself(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		made := w.token(targets, `{"EnvironmentIds":["`+w.dev+`"],"Roles":["web"],"Uses":2}`)
		if !strings.HasPrefix(string(made.Token), "tako-register-") || len(made.Token) < 40 || !strings.HasPrefix(string(made.Token), made.Hint) || len(made.Hint) > 20 {
			t.Errorf("%q %q", string(made.Token), made.Hint)
		}
		if life := made.Expires.Sub(made.Created.Time); life.Minutes() != 60 {
			t.Errorf("it is good for %v", life)
		}
		var lines []string
		for _, c := range made.Commands {
			lines = append(lines, strings.ReplaceAll(string(c.Command), string(made.Token), "T"))
		}
		want := []string{
			"tako-agent install --server https://tako.example.com/base --token T",
			"tako-agent install --server https://tako.example.com/base --token T --comms-style TentacleActive --server-comms-port 10944",
		}
		if diff := cmp.Diff(want, lines); diff != "" {
			t.Error(diff)
		}
		a := w.send(made.Token, " web01 ", `{"CommunicationStyle":"TentaclePassive","Uri":"https://web01:10933/","Thumbprint":"`+strings.ToLower(print(10))+`","AccountId":"Accounts-1"}`)
		var got octopus.Registration
		if a.Into(&got); a.Status != http.StatusCreated || got.Name != "web01" || got.SpaceID != "Spaces-1" || got.Thumbprint != serverPrint {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		var m octopus.Machine
		w.Get("/api/Spaces-1/machines/" + got.MachineID).Into(&m)
		if m.Thumbprint != octopus.NullString(print(10)) || m.Endpoint.URI != "https://web01:10933/" || m.Endpoint.AccountID != "" || !slices.Equal(m.EnvironmentIDs, []string{w.dev}) || !slices.Equal(m.Roles, []string{"web"}) {
			t.Errorf("%+v", m)
		}

		// The answer was lost, and the agent's address is another now.
		a = w.send(made.Token, "web01", `{"CommunicationStyle":"TentaclePassive","Uri":"https://web01.new:10933/","Thumbprint":"`+print(10)+`"}`)
		if a.Status != http.StatusCreated || a.Text("MachineId") != got.MachineID {
			t.Errorf("again: %d %s", a.Status, a.Body)
		}
		w.Get("/api/Spaces-1/machines/" + got.MachineID).Into(&m)
		if m.Endpoint.URI != "https://web01.new:10933/" || m.URI != "https://web01.new:10933/" || !slices.Equal(m.Roles, []string{"web"}) {
			t.Errorf("again: %+v", m)
		}
		w.refused(w.send(made.Token, "WEB01", polling(11)), http.StatusBadRequest, "'WEB01' is already used")
		if a := w.send(made.Token, "web02", polling(11)); a.Status != http.StatusCreated {
			t.Errorf("the second: %d %s", a.Status, a.Body)
		}
		w.refused(w.send(made.Token, "web03", polling(12)), http.StatusConflict, "registered the 2 machines")

		var page octopus.Page[octopus.RegistrationToken]
		list := w.Get(targets)
		if list.Into(&page); page.TotalResults != 1 || page.Items[0].Used != 2 || page.Items[0].ID != made.ID || strings.Contains(string(list.Body), string(made.Token)) {
			t.Errorf("%s", list.Body)
		}
		for _, id := range w.Get(workers).IDs() {
			t.Errorf("workers have the token %s", id)
		}
		w.events(t, made, got.MachineID)
	})
}

// events are in the name of who made the token.
func (w *world) events(t *testing.T, made octopus.RegistrationTokenCreated, machine string) {
	t.Helper()
	var said []string
	err := w.DB.Read(t.Context(), func(tx *db.Tx) error {
		said = nil
		rows, err := tx.Query(t.Context(), `SELECT e.message, e.username, e.identity FROM events e WHERE e.message LIKE ? OR e.message LIKE ? ORDER BY e.id`, "Registration token%", "%web01%")
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var message, username, identity string
			if err := rows.Scan(&message, &username, &identity); err != nil {
				return err
			}
			if strings.Contains(message, string(made.Token)) {
				t.Errorf("an event tells the token: %s", message)
			}
			said = append(said, identity+" "+username+": "+strings.ReplaceAll(message, made.Hint, "HINT"))
		}
		return rows.Err()
	})
	if err != nil {
		t.Fatal(err)
	}
	all := strings.Join(said, "\n")
	for _, want := range []string{
		"ApiKey ada: Registration token HINT... was created for 2 machines, until",
		"RegistrationToken ada: Registration token HINT... registered web01, as 1 of 2",
		"RegistrationToken ada: Deployment target web01 was added",
	} {
		if !strings.Contains(all, want) {
			t.Errorf("no event %q in\n%s", want, all)
		}
	}
}

func TestWorkerRegistersItself(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		pool := w.Create("/api/Spaces-1/workerpools", `{"Name":"Builders","WorkerPoolType":"StaticWorkerPool"}`)
		made := w.token(workers, `{"WorkerPoolIds":["`+pool+`"],"EnvironmentIds":["nonsense"]}`)
		a := w.send(made.Token, "builder", polling(1))
		if a.Status != http.StatusCreated {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		var v octopus.Worker
		w.Get("/api/Spaces-1/workers/" + a.Text("MachineId")).Into(&v)
		if v.Endpoint.CommunicationStyle != octopus.StylePolling || v.Endpoint.URI != "poll://agent1/" || !slices.Equal(v.WorkerPoolIDs, []string{pool}) {
			t.Errorf("%+v", v)
		}
		w.refused(w.send(made.Token, "other", polling(2)), http.StatusConflict, "registered the 1 machines")
		// One that was deleted does not come back by a token that is used up.
		w.Must(http.StatusOK, http.MethodDelete, "/api/Spaces-1/workers/"+v.ID, "")
		w.refused(w.send(made.Token, "builder", polling(1)), http.StatusConflict, "registered the 1 machines")
	})
}

func TestWhoMayRegister(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		inDev := actiontest.Role{Space: "Spaces-1", Permissions: []string{"MachineView", "MachineCreate", "EnvironmentView"}, Scope: octopus.ScopedUserRole{EnvironmentIDs: []string{w.dev}}}
		person := w.Person(inDev)
		ask := func(env string) actiontest.Answer {
			return w.Do(http.MethodPost, targets, person, `{"EnvironmentIds":["`+env+`"],"Roles":["web"]}`)
		}
		w.refused(ask(w.prod), http.StatusForbidden, "MachineCreate")
		w.refused(w.Do(http.MethodPost, workers, person, `{"WorkerPoolIds":["WorkerPools-1"]}`), http.StatusForbidden, "WorkerEdit")
		var made octopus.RegistrationTokenCreated
		if a := ask(w.dev); a.Status == http.StatusCreated {
			a.Into(&made)
		} else {
			t.Fatalf("%d %s", a.Status, a.Body)
		}
		// They know of no token but their own.
		hidden := w.token(targets, `{"EnvironmentIds":["`+w.prod+`"],"Roles":["web"]}`)
		if ids := w.Do(http.MethodGet, targets, person, "").IDs(); !slices.Equal(ids, []string{made.ID}) {
			t.Errorf("they see the tokens %v", ids)
		}
		w.refused(w.Do(http.MethodGet, targets+"/"+hidden.ID, person, ""), http.StatusNotFound, "registration token")
		w.refused(w.Do(http.MethodDelete, targets+"/"+hidden.ID, person, ""), http.StatusNotFound, "registration token")
		// Only the trial had a machine, and it is gone.
		if ids := w.Get("/api/Spaces-1/machines").IDs(); len(ids) != 0 {
			t.Errorf("asking for tokens made %v", ids)
		}
		// What its maker lost, the token has lost.
		var roles octopus.Page[octopus.ScopedUserRole]
		w.Get("/api/scopeduserroles?take=1000").Into(&roles)
		for _, r := range roles.Items {
			if slices.Equal(r.EnvironmentIDs, []string{w.dev}) {
				w.Must(http.StatusOK, http.MethodDelete, "/api/scopeduserroles/"+r.ID, "")
			}
		}
		w.refused(w.send(made.Token, "web01", polling(1)), http.StatusForbidden, "MachineCreate")

		other := w.token(targets, `{"EnvironmentIds":["`+w.prod+`"],"Roles":["web"]}`)
		w.maintenance.Store(true)
		w.refused(w.send(other.Token, "web01", polling(1)), http.StatusServiceUnavailable, "maintenance")
		w.maintenance.Store(false)
		late := w.token(targets, `{"EnvironmentIds":["`+w.prod+`"],"Roles":["web"]}`)
		if err := w.DB.Write(t.Context(), func(tx *db.Tx) error {
			_, err := tx.Exec(t.Context(), `UPDATE registration_token SET expires = ? WHERE id = ?`, db.Micros(tx.Now()), late.ID)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		// A space that is deleted takes its tokens along.
		far := w.Create("/api/spaces", `{"Name":"Far","SpaceManagersTeams":["teams-administrators"]}`)
		farDev := w.Create("/api/"+far+"/environments", `{"Name":"Dev"}`)
		gone := w.token("/api/"+far+"/machines/registration-tokens", `{"EnvironmentIds":["`+farDev+`"],"Roles":["web"]}`)
		w.Must(http.StatusOK, http.MethodPut, "/api/spaces/"+far, `{"Name":"Far","SpaceManagersTeams":["teams-administrators"],"TaskQueueStopped":true}`)
		w.Must(http.StatusOK, http.MethodDelete, "/api/spaces/"+far, "")
		w.Must(http.StatusOK, http.MethodDelete, targets+"/"+other.ID, "")
		w.Must(http.StatusNotFound, http.MethodGet, targets+"/"+other.ID, "")
		for _, token := range []octopus.PlainSecret{other.Token, late.Token, gone.Token, "", "tako-register-x", octopus.PlainSecret(strings.Repeat("x", 10_000))} {
			w.refused(w.send(token, "web01", polling(1)), http.StatusUnauthorized, "unknown, revoked or expired")
		}
		if ids := w.Get("/api/Spaces-1/machines").IDs(); len(ids) != 0 {
			t.Errorf("refused registrations made %v", ids)
		}
	})
}

func TestRegistrationIsChecked(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		good := `{"EnvironmentIds":["` + w.dev + `"],"Roles":["web"]`
		for body, says := range map[string]string{
			good + `,"Uses":1001}`:    "Uses is 1001",
			good + `,"Uses":-1}`:      "Uses is -1",
			good + `,"Minutes":1441}`: "Minutes is 1441",
			`{"EnvironmentIds":["Environments-99"],"Roles":["web"]}`: "Environments-99",
			`{"EnvironmentIds":["` + w.dev + `"]}`:                   "Roles is empty",
			good + `,"TenantTags":["No/Tag"]}`:                       "No/Tag",
			good + `,"MachinePolicyId":"MachinePolicies-99"}`:        "MachinePolicies-99",
		} {
			w.Refused(http.StatusBadRequest, http.MethodPost, targets, body, says)
		}
		made := w.token(targets, good+`}`)
		for endpoint, says := range map[string]string{
			`{}`: "Endpoint.CommunicationStyle",
			`{"CommunicationStyle":"Ssh","Thumbprint":"` + print(1) + `"}`:                               "Ssh",
			`{"CommunicationStyle":"TentacleActive","Uri":"https://x/","Thumbprint":"` + print(1) + `"}`: "poll://",
			`{"CommunicationStyle":"TentaclePassive","Uri":"poll://x/","Thumbprint":"` + print(1) + `"}`: "https://host:port/",
			`{"CommunicationStyle":"TentaclePassive","Uri":"https://web01/","Thumbprint":"12"}`:          "40 hexadecimal digits",
		} {
			w.refused(w.send(made.Token, "web01", endpoint), http.StatusBadRequest, says)
		}
		w.refused(w.send(made.Token, " ", polling(1)), http.StatusBadRequest, "Name is empty")
	})
}

// TestTokenIsUsedOnce has many agents use a token at the same time.
func TestTokenIsUsedOnce(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		made := w.token(targets, `{"EnvironmentIds":["`+w.dev+`"],"Roles":["web"],"Uses":3}`)
		const agents = 8
		var registered, full atomic.Int64
		var wg sync.WaitGroup
		for i := range agents {
			wg.Go(func() {
				body, err := json.Marshal(map[string]any{"Token": string(made.Token), "Name": fmt.Sprintf("web%d", i), "Endpoint": json.RawMessage(polling(i + 1))})
				if err != nil {
					t.Error(err)
					return
				}
				switch a := w.Do(http.MethodPost, register, "", string(body)); a.Status {
				case http.StatusCreated:
					registered.Add(1)
				case http.StatusConflict:
					full.Add(1)
				default:
					t.Errorf("%d %s", a.Status, a.Body)
				}
			})
		}
		wg.Wait()
		if registered.Load() != 3 || full.Load() != agents-3 || len(w.Get("/api/Spaces-1/machines").IDs()) != 3 {
			t.Errorf("%d registered, %d refused", registered.Load(), full.Load())
		}
	})
}
