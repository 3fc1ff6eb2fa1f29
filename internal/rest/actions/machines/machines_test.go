package machines_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/egress/proxytest"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/machines"
	"github.com/takodeploy/tako/internal/targets/directory"
	"github.com/takodeploy/tako/octopus"
)

const space = "/api/Spaces-1"

func each(t *testing.T, fn func(t *testing.T, w *actiontest.World)) {
	t.Helper()
	t.Parallel()
	actiontest.Each(t, func(w *actiontest.World) []rest.Route {
		return machines.Routes(w.DB, w.Store, directory.New(w.DB, w.Store))
	}, fn)
}

// listen runs an agent that listens, and returns its port and thumbprint.
func listen(t *testing.T) (port, thumbprint string) {
	t.Helper()
	id, err := halibut.NewIdentity("test", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	node := halibut.New(halibut.Config{Identity: id, TrustCaller: func(halibut.Thumbprint) bool { return false }})
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := node.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
	})
	_, port, _ = net.SplitHostPort(ln.Addr().String())
	return port, string(id.Thumbprint)
}

// TestDiscover: who listens is found out by an agent that does not trust the server yet,
// and everything else is refused.
func TestDiscover(t *testing.T) {
	each(t, func(t *testing.T, w *actiontest.World) {
		port, thumbprint := listen(t)
		for _, kind := range []string{"machines", "workers"} {
			var m octopus.Machine
			w.Get(space + "/" + kind + "/discover?host=127.0.0.1&port=" + port).Into(&m)
			if m.ID != "" || m.Name != "127.0.0.1" || m.Endpoint.CommunicationStyle != octopus.StyleListening || m.Endpoint.Thumbprint != thumbprint || string(m.Thumbprint) != thumbprint || m.Endpoint.URI != "https://127.0.0.1:"+port+"/" {
				t.Errorf("%s: %+v", kind, m)
			}
		}
		// A server that says nothing of TLS, and one that is not there.
		plain := strings.TrimPrefix(w.URL, "http://127.0.0.1:")
		ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		_, gone, _ := net.SplitHostPort(ln.Addr().String())
		if err := ln.Close(); err != nil {
			t.Fatal(err)
		}
		w.Refused(http.StatusServiceUnavailable, http.MethodGet, space+"/machines/discover?host=127.0.0.1&port="+plain, "", "no listening agent")
		w.Refused(http.StatusServiceUnavailable, http.MethodGet, space+"/machines/discover?host=127.0.0.1&port="+gone, "", "Nobody answers")
		for query, says := range map[string]string{
			"": "host", "host=a%20b": "host", "host=a/b": "host", "host=a&port=0": "port", "host=a&port=70000": "port", "host=a&type=TentacleActive": "polls", "host=a&proxyId=Proxies-1": "proxyId",
		} {
			w.Refused(http.StatusBadRequest, http.MethodGet, space+"/machines/discover?"+query, "", says)
		}
		// Through a proxy that wants a password, to what this server would not find itself.
		gate := proxytest.Start(t, "tako", "pr0xy")
		_, at, _ := strings.Cut(gate.Addr, ":")
		id := w.Create(space+"/proxies", `{"Name":"Gate","Host":"127.0.0.1","Port":`+at+`,"Username":"tako","Password":{"HasValue":true,"NewValue":"pr0xy"}}`)
		var m octopus.Machine
		w.Get(space + "/machines/discover?host=127.0.0.1&port=" + port + "&proxyId=" + id).Into(&m)
		if m.Endpoint.Thumbprint != thumbprint || m.Endpoint.ProxyID != id {
			t.Errorf("through a proxy: %+v", m.Endpoint)
		}
		if diff := cmp.Diff([]string{"127.0.0.1:" + port}, gate.Tunnels()); diff != "" {
			t.Errorf("tunnels (-want +got):\n%s", diff)
		}
		wrong := w.Create(space+"/proxies", `{"Name":"Wrong","Host":"127.0.0.1","Port":`+at+`}`)
		w.Refused(http.StatusServiceUnavailable, http.MethodGet, space+"/machines/discover?host=127.0.0.1&port="+port+"&proxyId="+wrong, "", "the proxy Wrong (127.0.0.1:"+at+") does not connect to 127.0.0.1:"+port+": it wants a user name and a password")
		w.Refused(http.StatusServiceUnavailable, http.MethodGet, space+"/machines/discover?type=Ssh&host=127.0.0.1&port="+port+"&proxyId="+wrong, "", "it wants a user name and a password")
		viewer := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"MachineView", "WorkerView"}})
		w.MustAs(viewer, http.StatusForbidden, http.MethodGet, space+"/machines/discover?host=127.0.0.1&port="+port, "")
		w.MustAs(viewer, http.StatusForbidden, http.MethodGet, space+"/workers/discover?host=127.0.0.1&port="+port, "")
	})
}

// TestLastCheck: what the last check has found, and the tasks of a machine.
func TestLastCheck(t *testing.T) {
	each(t, func(t *testing.T, w *actiontest.World) {
		dev := w.Create("/api/environments", `{"Name":"Dev"}`)
		id := w.Create("/api/machines", fmt.Sprintf(`{"Name":"web","EnvironmentIds":[%q],"Roles":["web"],"Endpoint":{"CommunicationStyle":"TentaclePassive","Uri":"https://web:10933/","Thumbprint":"AB"}}`, dev))
		at := space + "/machines/" + id + "/connection"
		var c octopus.MachineConnection
		w.Get(at).Into(&c)
		if c.MachineID != id || c.Status != "Unknown" || len(c.Logs) != 1 || c.CurrentTentacleVersion != "" {
			t.Errorf("before any check: %+v", c)
		}
		err := w.DB.Write(t.Context(), func(tx *db.Tx) error {
			return resources.KeepCheck(t.Context(), w.Store.In(tx), resources.MachineCheck{
				Kind: resources.TargetKind, ID: id, Task: "ServerTasks-1", Status: octopus.HealthyWarnings, Summary: "The disk is nearly full.", Log: []string{"95 %"}, Version: "1.2.3", Outdated: true, System: "Plan 9",
			})
		})
		if err != nil {
			t.Fatal(err)
		}
		w.Get(at).Into(&c)
		if c.Status != "Online" || len(c.Logs) != 2 || c.Logs[0].MessageText != "95 %" || c.Logs[1].Category != octopus.LogWarning || c.CurrentTentacleVersion != "1.2.3" || time.Since(c.LastChecked.Time) > time.Hour {
			t.Errorf("after it: %+v", c)
		}
		// A client that writes back what it knows takes nothing of it away.
		var m octopus.Machine
		w.Must(http.StatusOK, http.MethodPut, space+"/machines/"+id, fmt.Sprintf(`{"Name":"web","EnvironmentIds":[%q],"Roles":["web"],"Endpoint":{"CommunicationStyle":"TentaclePassive","Uri":"https://web:10933/","Thumbprint":"AB"}}`, dev)).Into(&m)
		if d := m.Endpoint.TentacleVersionDetails; m.HealthStatus != octopus.HealthyWarnings || m.OperatingSystem != "Plan 9" || m.HasLatestCalamari || d == nil || d.Version != "1.2.3" || !d.UpgradeSuggested {
			t.Errorf("after a change: %+v", m.MachineBase)
		}
		var page octopus.Page[octopus.Task]
		w.Get(space + "/machines/" + id + "/tasks?take=2147483647").Into(&page)
		if page.TotalResults != 0 || page.Items == nil {
			t.Errorf("tasks: %+v", page)
		}
		w.Refused(http.StatusNotFound, http.MethodGet, space+"/machines/Machines-404/connection", "", "Machines-404")
		w.Refused(http.StatusNotFound, http.MethodGet, space+"/workers/Workers-404/tasks", "", "Workers-404")
	})
}
