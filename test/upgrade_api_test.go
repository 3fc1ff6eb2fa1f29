package test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/octopus"
)

// told is an event about upgrades.
type told struct {
	id, name                            string
	Kind, State, Error, ToVersion, Text string
}

// ear listens to the events about upgrades as a browser does: when it is cut off it goes
// on after the last that it has heard.
type ear struct {
	t        *testing.T
	p        *apptest.Process
	last     string
	in       *bufio.Scanner
	again    int // how often it had to connect
	sequence []string
}

// next is the next event.
func (e *ear) next() (heard told) {
	e.t.Helper()
	for late := time.Now().Add(2 * time.Minute); time.Now().Before(late); {
		if e.in == nil {
			e.connect()
		}
		for e.in.Scan() {
			key, value, _ := strings.Cut(e.in.Text(), ": ")
			switch key {
			case "id":
				heard.id = value
			case "event":
				heard.name = value
			case "data":
				if err := json.Unmarshal([]byte(value), &heard); err != nil {
					e.t.Fatal(err)
				}
				if heard.id == e.last {
					e.t.Fatalf("%+v was told twice", heard)
				}
				e.last = heard.id
				if heard.name == "edge" {
					e.sequence = append(e.sequence, strings.TrimSuffix(heard.Kind+" "+heard.State, " "))
				}
				return heard
			}
		}
		e.in, heard = nil, told{}
	}
	e.t.Fatal("nothing was heard")
	return heard
}

func (e *ear) connect() {
	e.t.Helper()
	req, err := http.NewRequestWithContext(e.t.Context(), http.MethodGet, e.p.URL+"/api/system/upgrade/events", http.NoBody)
	if err != nil {
		e.t.Fatal(err)
	}
	req.Header.Set("X-Octopus-ApiKey", e.p.Key)
	req.Header.Set("Last-Event-ID", e.last)
	resp, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		e.t.Fatal(err)
	}
	e.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		e.t.Fatalf("events: %s", resp.Status)
	}
	e.in = bufio.NewScanner(resp.Body)
	e.again++
}

// until hears on until a state is reached.
func (e *ear) until(state string) {
	e.t.Helper()
	for {
		heard := e.next()
		if heard.name == "edge" && heard.Kind == "failed" {
			raw, _ := os.ReadFile(filepath.Join(e.p.Root, "upgrade", "worker.log")) // for the reader
			e.t.Fatalf("%s failed: %s\n%s", heard.State, heard.Error, raw)
		}
		if heard.name == "edge" && heard.Kind == "done" && heard.State == state {
			return
		}
	}
}

// TestUpgradeByTheAPI: a supervised server is taken to another version and back by
// requests alone; who listens hears each step once, across both switches.
func TestUpgradeByTheAPI(t *testing.T) {
	t.Parallel()
	const path = "/api/system/upgrade"
	site := newFeedSite(t)
	p := apptest.NewProcess(t, db.SQLite)
	p.Supervised()
	t.Cleanup(func() {
		if pid := upgrade.Attended(p.Root); pid != 0 {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	})
	p.HTTP = &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	trace := filepath.Join(t.TempDir(), "trace")
	p.Within = tracing(t, trace, "-D")
	p.Env = append(p.Env, "TAKO_UPGRADE_FEED="+site.url, "TAKO_UPGRADE_KEYS="+site.root, "TAKO_UPGRADE_CHECK=false")
	p.Start()
	status := func() octopus.UpgradeStatus { return apptest.Get[octopus.UpgradeStatus](t, p.Client, path) }
	before := status()
	old := before.System.Version
	if s := before.Supervisor; before.Reason != "" || s == nil || s.Error != "" || string(s.Current) != old || s.Server == nil || s.Server.Version != old || before.Upgrade != nil || before.Feed.IsCheckedByItself {
		t.Fatalf("before: %+v", before)
	}
	request := fmt.Sprintf(`{"Version":%q,"ProbationSeconds":1}`, next)
	p.Refused(t, http.StatusServiceUnavailable, http.MethodPost, path+"/start", request) // there is no feed yet
	site.publish(t, next, nextProgram(t))
	var checked octopus.UpgradeStatus
	p.Must(t, http.MethodPost, path+"/check", nil, &checked)
	if f := checked.Feed; string(f.Newest) != next || len(f.Releases) != 1 || !f.Releases[0].IsAllowed || f.Releases[0].Rollback != "free" {
		t.Fatalf("the feed is %+v", f)
	}
	if s := apptest.Get[octopus.ServerStatus](t, p.Client, "/api/serverstatus"); !s.IsUpgradeAvailable || !s.IsMajorMinorUpgrade || string(s.MaximumAvailableVersion) != next {
		t.Errorf("the server status is %+v", s)
	}
	p.Must(t, http.MethodPut, "/api/upgradeconfiguration", octopus.UpgradeConfiguration{NotificationMode: octopus.UpgradeNeverShow}, nil)
	if s := apptest.Get[octopus.ServerStatus](t, p.Client, "/api/serverstatus"); s.IsUpgradeAvailable {
		t.Errorf("nobody wants to hear of a newer version, and the server status is %+v", s)
	}
	plan := func() *octopus.UpgradePlan {
		t.Helper()
		p.Must(t, http.MethodPost, path+"/plan", request, nil)
		eventually(t, "it was looked whether anything speaks against it", func() bool { s := status(); return s.Plan != nil && !s.Plan.IsRunning })
		return status().Plan
	}
	if found := plan(); found.IsPossible || !strings.Contains(string(found.Problem), "recovery-kit") || slices.IndexFunc(found.Checks, func(c octopus.UpgradeCheck) bool {
		return c.Name == "recovery-kit" && c.Status == "fail" && strings.Contains(string(c.Remedy), "tako key recovery-kit")
	}) < 0 {
		t.Fatalf("the plan is %+v while nobody keeps the recovery kit", found)
	}
	confirmKit(t, p)
	if found := plan(); !found.IsPossible || found.Version != next || found.Rollback != "free" || found.WayBack != "Until it is finalized, going back loses nothing." || found.Problem != "" || len(found.Checks) < 10 {
		t.Fatalf("the plan is %+v", found)
	}
	if _, err := os.Stat(filepath.Join(p.Root, "versions", next)); err == nil {
		t.Error("a plan has installed the version")
	}

	e := &ear{t: t, p: p, last: before.Cursor}
	// The release is sent, and taken from there.
	var sent octopus.UpgradeBundle
	if r := p.Upload(t, path+"/bundles", "tako.bundle", site.bundle(t)); r.Status != http.StatusCreated || json.Unmarshal(r.Body, &sent) != nil || sent.Version != next {
		t.Fatalf("the bundle: %d %s", r.Status, r.Body)
	}
	var begun octopus.Upgrade
	p.Must(t, http.MethodPost, path+"/start", fmt.Sprintf(`{"Version":%q,"ProbationSeconds":1,"BundleId":%q}`, next, sent.ID), &begun)
	if begun.FromVersion != old || begun.ToVersion != next || begun.RequestedBy != "admin" {
		t.Errorf("begun: %+v", begun)
	}
	if got := p.Refused(t, http.StatusConflict, http.MethodPost, path+"/start", request); !strings.Contains(got, begun.ID) {
		t.Errorf("a second one is refused with %q", got)
	}
	e.until("COMMITTED")
	st := status()
	if st.System.Version != next || !st.System.IsFinalizeDue || st.Upgrade == nil || st.Upgrade.ID != begun.ID || st.Upgrade.State != "COMMITTED" || !st.Upgrade.IsCarriedOut || string(st.Supervisor.Previous) != old {
		t.Errorf("COMMITTED: %+v", st)
	}
	if got := p.Refused(t, http.StatusConflict, http.MethodPost, path+"/rollback", `{"Id":"20200101T000000Z-1"}`); !strings.Contains(got, begun.ID) {
		t.Errorf("a rollback of another one is refused with %q", got)
	}
	p.Must(t, http.MethodPost, path+"/rollback", octopus.UpgradeCommand{ID: begun.ID}, nil)
	e.until("ROLLED_BACK")
	if st = status(); st.System.Version != old || st.Upgrade.State != "ROLLED_BACK" || !st.Upgrade.IsEnded || string(st.Feed.Newest) != next {
		t.Errorf("ROLLED_BACK: %+v", st)
	}
	heard := strings.Join(e.sequence, ", ")
	for _, want := range []string{"plan, intent STAGED, done STAGED, intent PREFLIGHT", "done EXPANDED, intent SWITCHED, supervisor-switched, done SWITCHED, intent PROBATION, done PROBATION, intent COMMITTED, done COMMITTED, ask, intent ROLLED_BACK, supervisor-switched, done ROLLED_BACK"} {
		if strings.Count(heard, want) != 1 {
			t.Errorf("heard was %s", heard)
		}
	}
	if e.again < 2 {
		t.Error("the listener was never cut off: it cannot have heard of the next version from that itself")
	}
	for category, n := range map[string]int64{"UpgradeStarted": 1, "UpgradeRequested": 1, "UpgradeChecked": 3, "UpgradeBundleUploaded": 1} {
		if page := apptest.Get[octopus.Page[octopus.Event]](t, p.Client, "/api/events?eventCategories="+category); page.TotalResults != n {
			t.Errorf("the audit trail has %d events %s, not %d", page.TotalResults, category, n)
		}
	}
	history := apptest.Get[octopus.Page[octopus.Upgrade]](t, p.Client, path+"/history")
	if history.TotalResults != 1 || history.Items[0].State != "ROLLED_BACK" || len(history.Items[0].Steps) < 10 {
		t.Errorf("the history is %+v", history)
	}
	t.Run("order", func(t *testing.T) {
		if p.Within == nil {
			t.Skip("the order of writes was not looked at: strace is not there, or may not trace")
		}
		root, err := filepath.EvalSymlinks(p.Root)
		if err != nil {
			t.Fatal(err)
		}
		ordered(t, trace, root, old, next)
		p.Stop()
		restoredInOrder(t, p, filepath.Join(root, "data"))
	})
}
