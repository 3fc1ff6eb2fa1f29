package projects_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// TestPoint30DeleteGuards: what is used cannot be deleted, and the refusal lists by
// what it is used: each user once, the first five by name, and of what the reader may
// not see no more than how many there are.
func TestPoint30DeleteGuards(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		for i := range 6 {
			// Twice in one lifecycle is one user.
			w.Create("/api/lifecycles", fmt.Sprintf(`{"Name":"Cycle %d","Phases":[{"Name":"a","AutomaticDeploymentTargets":[%q]},{"Name":"b","OptionalDeploymentTargets":[%q]}]}`, i, w.dev, w.dev))
		}
		other := w.project("Other")
		for _, owner := range []string{w.web, other} {
			w.mustPut(actiontest.Admin, w.read(actiontest.Admin, owner), value("Greeting", "x", w.dev))
		}
		deletes := func(more ...string) actiontest.Role {
			return actiontest.Role{Space: home, Permissions: append([]string{"EnvironmentView", "EnvironmentDelete"}, more...)}
		}
		ofWeb := deletes("VariableView")
		ofWeb.Scope = octopus.ScopedUserRole{ProjectIDs: []string{w.web}}
		for name, c := range map[string]struct {
			key      string
			has, not []string
		}{
			"everything":  {actiontest.Admin, []string{"lifecycle 'Cycle 0' (", "'Cycle 4'", "3 more"}, []string{"'Cycle 5'", "may not see"}},
			"lifecycles":  {w.Person(deletes("LifecycleView")), []string{"'Cycle 0'", "'Cycle 4'", "3 more"}, []string{"variableset-"}},
			"one project": {w.Person(ofWeb), []string{"variable set 'variableset-" + w.web + "'", "7 more"}, []string{"Cycle", "variableset-" + other}},
			"nothing":     {w.Person(deletes()), []string{"8 others that you may not see"}, []string{"Cycle", "variableset-"}},
		} {
			a := w.MustAs(c.key, 409, "DELETE", "/api/environments/"+w.dev, "")
			for _, want := range c.has {
				if !strings.Contains(string(a.Body), want) {
					t.Errorf("who sees %s is not told %s: %s", name, want, a.Body)
				}
			}
			for _, hidden := range c.not {
				if strings.Contains(string(a.Body), hidden) {
					t.Errorf("who sees %s is told %s: %s", name, hidden, a.Body)
				}
			}
		}
		w.Get("/api/environments/" + w.dev) // is still there

		// Whatever is named by others is kept for them.
		account := w.Create("/api/accounts", `{"Name":"Key","AccountType":"Token"}`)
		policy, proxy, pool := w.Create("/api/machinepolicies", `{"Name":"Policy"}`), w.Create("/api/proxies", `{"Name":"Proxy","Host":"h","Port":1}`), w.Create("/api/workerpools", `{"Name":"Pool"}`)
		group := w.Create("/api/projectgroups", `{"Name":"Group"}`)
		cycle := w.Create("/api/lifecycles", `{"Name":"Own"}`)
		w.Create("/api/machines", `{"Name":"User 1","EnvironmentIds":["`+w.prod+`"],"Roles":["r"],"MachinePolicyId":"`+policy+`","Endpoint":{"CommunicationStyle":"Ssh","AccountId":"`+account+`","ProxyId":"`+proxy+`"}}`)
		w.Create("/api/workers", `{"Name":"User 2","WorkerPoolIds":["`+pool+`"],"Endpoint":{"CommunicationStyle":"None"}}`)
		w.Create("/api/projects", `{"Name":"User 3","ProjectGroupId":"`+group+`","LifecycleId":"`+cycle+`"}`)
		w.Create("/api/projecttriggers", `{"Name":"User 4","ProjectId":"`+w.web+`","Filter":{"FilterType":"OnceDailySchedule","StartTime":"2026-01-01T09:00:00.000+00:00","Timezone":"UTC"},"Action":{"ActionType":"DeployNewRelease","EnvironmentId":"`+w.prod+`","ChannelId":"`+w.channel+`"}}`)
		for path, user := range map[string]string{
			"accounts/" + account: "User 1", "machinepolicies/" + policy: "User 1", "proxies/" + proxy: "User 1", "workerpools/" + pool: "User 2",
			"projectgroups/" + group: "User 3", "lifecycles/" + cycle: "User 3", "channels/" + w.channel: "User 4", "environments/" + w.prod: "box1", "libraryvariablesets/" + w.library: "Web",
		} {
			w.Refused(409, "DELETE", "/api/"+path, "", "'"+user+"'")
		}
	})
}
