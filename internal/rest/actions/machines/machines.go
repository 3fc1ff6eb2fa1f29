// Package machines serves what is asked about deployment targets and workers beside
// their documents: who listens at an address, what became of the last check, and the
// tasks that have to do with a machine.
package machines

import (
	"net"
	"net/http"
	"reflect"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	taskroutes "github.com/takodeploy/tako/internal/rest/actions/tasks"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/ssh"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

type api struct {
	db      *db.DB
	store   *docstore.Store
	proxies targets.Proxies
}

// Routes are the operations on deployment targets and workers.
func Routes(d *db.DB, store *docstore.Store, proxies targets.Proxies) []rest.Route {
	a := &api{d, store, proxies}
	var all []rest.Route
	for _, k := range []struct {
		kind, noun, view, create string
		document                 reflect.Type
	}{
		{resources.TargetKind, "deployment target", string(octopus.PermMachineView), string(octopus.PermMachineCreate), reflect.TypeFor[octopus.Machine]()},
		{resources.WorkerKind, "worker", string(octopus.PermWorkerView), string(octopus.PermWorkerEdit), reflect.TypeFor[octopus.Worker]()},
	} {
		all = append(all,
			rest.Route{Method: http.MethodGet, Pattern: "/" + k.kind + "/discover", Permission: k.create, Handler: a.discover(k.kind), Query: []rest.Param{
				{Name: "host", About: "the name or address of the machine"},
				{Name: "port", Type: rest.Number, About: "10933 unless said, or 22 for SSH"},
				{Name: "type", About: "TentaclePassive or Ssh; TentaclePassive unless said"},
				{Name: "proxyId", About: "the proxy to connect through; none unless said"},
			}, Response: k.document, Summary: "Asks who listens at an address, and makes the " + k.noun + " of it that can be created."},
			rest.Route{Method: http.MethodGet, Pattern: "/" + k.kind + "/{id}/connection", Permission: k.view, Handler: a.connection(k.kind), Response: reflect.TypeFor[octopus.MachineConnection](), Summary: "Reads what the last health check of a " + k.noun + " has found."},
			rest.Route{Method: http.MethodGet, Pattern: "/" + k.kind + "/{id}/tasks", Permission: k.view, Handler: a.tasks(k.kind), Query: []rest.Param{
				{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}, {Name: "type", Type: rest.List, About: "only those of these types"},
			}, Response: reflect.TypeFor[octopus.Page[octopus.Task]](), Summary: "Lists the tasks that have to do with a " + k.noun + ", those that have not ended first."},
		)
	}
	return all
}

const maxHost = 253 // bytes of a name

// address is where a caller wants to be asked who listens.
func address(r *rest.Request, port int64) (host string, p int, err error) {
	host = strings.TrimSpace(r.Query("host"))
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host = strings.TrimSuffix(inner, "]")
	}
	if host == "" || len(host) > maxHost || strings.ContainsAny(host, " /\\@?#[]\"'<>\t\r\n") {
		return "", 0, fault.InvalidField("host", "host is '%.100s'; give the name or the address of a machine, such as web1.example.com.", host)
	}
	if port, err = r.QueryInt("port", port); err != nil {
		return "", 0, err
	}
	if port < 1 || port > 65535 {
		return "", 0, fault.InvalidField("port", "port is %d; use a number from 1 to 65535.", port)
	}
	return host, int(port), nil
}

// proxy is the one to connect through, zero for none: one that the caller may see.
func (a *api) proxy(r *rest.Request) (p egress.HTTPProxy, id string, err error) {
	if id = r.Query("proxyId"); id == "" {
		return p, "", nil
	}
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		doc, err := r.Find(r.Context(), tx, "proxies", id)
		if err == nil {
			id = doc.ID
		}
		return err
	})
	if fault.Is(err, fault.NotFound) {
		return p, "", fault.InvalidField("proxyId", "proxyId is '%.40s', which is no proxy of this space.", id)
	}
	if err == nil {
		p, err = a.proxies.Proxy(r.Context(), string(r.Space), id)
	}
	return p, id, err
}

// discover connects to the address that somebody names, tells nothing there, and reads
// no more than who answers.
func (a *api) discover(kind string) rest.Handler {
	return func(r *rest.Request) (any, error) {
		e := octopus.Endpoint{}
		proxy, id, err := a.proxy(r)
		if err != nil {
			return nil, err
		}
		var host string
		var port int
		switch style := r.Query("type"); {
		case style == "" || strings.EqualFold(style, string(octopus.StyleListening)):
			if host, port, err = address(r, 10933); err != nil {
				return nil, err
			}
			at := net.JoinHostPort(host, strconv.Itoa(port))
			thumbprint, err := halibut.Discover(r.Context(), at, halibut.ThroughProxy(proxy))
			if err != nil {
				return nil, err
			}
			e = octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://" + at + "/", Thumbprint: string(thumbprint)}
		case strings.EqualFold(style, string(octopus.StyleSSH)):
			if host, port, err = address(r, 22); err != nil {
				return nil, err
			}
			var dial ssh.Dialer
			if id != "" {
				dial = ssh.Dialer(egress.Through(proxy, net.Dialer{}))
			}
			key, err := ssh.Discover(r.Context(), dial, host, port)
			if err != nil {
				return nil, err
			}
			e = octopus.Endpoint{CommunicationStyle: octopus.StyleSSH, Host: host, Port: port, Fingerprint: key.SHA256, HostKeyAlgorithm: key.Algorithm}
		default:
			return nil, fault.InvalidField("type", "type is '%.50s'; use TentaclePassive or Ssh. An agent that polls makes itself known: it is registered from its machine.", style)
		}
		e.ProxyID = id
		base := octopus.MachineBase{
			Name: host, Endpoint: e, Thumbprint: octopus.NullString(e.Thumbprint), URI: octopus.NullString(e.URI),
			HealthStatus: octopus.HealthUnknown, Status: octopus.MachineUnknown, StatusSummary: "This machine has not been checked yet.",
		}
		if kind == resources.WorkerKind {
			return octopus.Worker{Resource: octopus.Resource{Links: octopus.Links{}}, SpaceID: string(r.Space), MachineBase: base}, nil
		}
		return octopus.Machine{Resource: octopus.Resource{Links: octopus.Links{}}, SpaceID: string(r.Space), MachineBase: base, TenantedDeploymentParticipation: octopus.Untenanted}, nil
	}
}

func (a *api) connection(kind string) rest.Handler {
	return func(r *rest.Request) (any, error) {
		var c octopus.MachineConnection
		err := a.db.Read(r.Context(), func(tx *db.Tx) error {
			doc, err := r.Find(r.Context(), tx, kind, r.PathValue("id"))
			if err != nil {
				return err
			}
			m, err := docstore.Decode[octopus.MachineBase](doc)
			if err != nil {
				return err
			}
			last, err := resources.LastCheckOf(r.Context(), tx, doc.ID)
			if err != nil {
				return err
			}
			c = octopus.MachineConnection{MachineID: doc.ID, Status: string(m.Status), CurrentTentacleVersion: octopus.NullString(last.Version), LastChecked: octopus.NewTime(last.At)}
			say := func(category octopus.LogCategory, text string) {
				c.Logs = append(c.Logs, octopus.LogElement{Category: category, OccurredAt: c.LastChecked, MessageText: text, Number: int64(len(c.Logs) + 1)})
			}
			for _, line := range last.Log {
				say(octopus.LogInfo, line)
			}
			category := octopus.LogInfo
			switch m.HealthStatus {
			case octopus.HealthyWarnings:
				category = octopus.LogWarning
			case octopus.Unhealthy, octopus.Unavailable:
				category = octopus.LogError
			case octopus.Healthy, octopus.HealthUnknown:
			}
			say(category, m.StatusSummary)
			self := r.SpaceHref("/" + kind + "/" + doc.ID)
			c.ID = doc.ID
			c.Links = octopus.Links{"Self": self + "/connection", "Machine": self}
			return nil
		})
		return c, err
	}
}

func (a *api) tasks(kind string) rest.Handler {
	return func(r *rest.Request) (any, error) {
		p, err := r.Page()
		if err != nil {
			return nil, err
		}
		q := tasks.Query{Visible: []tasks.Visible{{Space: r.Space, Grants: r.Grants(string(octopus.PermTaskView))}}, Page: p}
		names, err := r.QueryList("type")
		if err != nil {
			return nil, err
		}
		if len(names) > 0 {
			q.Names = names
		}
		var docs []octopus.Task
		var total int64
		err = a.db.Read(r.Context(), func(tx *db.Tx) error {
			doc, err := r.Find(r.Context(), tx, kind, r.PathValue("id"))
			if err != nil {
				return err
			}
			q.Machine = []string{doc.ID}
			found, n, _, err := tasks.List(r.Context(), tx, q)
			if err != nil {
				return err
			}
			total = n
			docs, err = taskroutes.Documents(r.Context(), tx, r, found)
			return err
		})
		if err != nil {
			return nil, err
		}
		return rest.PageOf(r, "Task", p, total, docs), nil
	}
}
