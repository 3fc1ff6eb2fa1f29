package upgrades_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/localsocket"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/upgrades"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/feedtest"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/lookout"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/octopus"
)

const path = "/api/system/upgrade"

// site is a server with a directory of a supervisor, which does not run.
type site struct {
	*actiontest.World
	t    *testing.T
	root string
	feed *feedtest.Site
}

// each runs fn on each database; bare leaves the supervisor's directory out.
func each(t *testing.T, bare bool, fn func(*testing.T, *site)) {
	t.Helper()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			s := &site{t: t, root: t.TempDir(), feed: feedtest.New(t)}
			s.World = actiontest.On(t, dialect, func(w *actiontest.World) []rest.Route {
				cfg := upgrades.Config{
					DB: w.DB, Version: "2026.4.0", Commit: "abc", CommitDate: "2026-01-01", Node: "here", Started: time.Now(), Root: s.root, Data: filepath.Join(s.root, "data"),
					Store: stage.Open(s.root, nil), Worker: upgrade.Worker{Program: "/bin/true", Environ: os.Environ()}, Life: context.WithoutCancel(t.Context()),
				}
				if bare {
					cfg.Root = ""
				}
				cfg.Lookout = lookout.New(lookout.Config{Store: cfg.Store, File: filepath.Join(s.root, "upgrade", "found.json"), Channel: "stable", Version: cfg.Version, Interval: time.Hour})
				return upgrades.Routes(cfg)
			})
			fn(t, s)
		})
	}
}

func (s *site) status() (out octopus.UpgradeStatus) {
	s.t.Helper()
	s.Get(path).Into(&out)
	return out
}

// begin writes the plan of an upgrade.
func (s *site) begin(to string) string {
	s.t.Helper()
	id, err := upgrade.Begin(s.root, upgrade.Plan{From: "2026.4.0", To: to, Hold: 72 * time.Hour, Probation: time.Minute, By: "somebody"}, time.Now())
	if err != nil {
		s.t.Fatal(err)
	}
	return id
}

// reach writes the entries of steps, as who carries an upgrade out does.
func (s *site) reach(id string, states ...upgrade.State) {
	s.t.Helper()
	for _, state := range states {
		for _, kind := range []string{upgrade.KindIntent, upgrade.KindDone} {
			s.write(id, kind, upgrade.Mark{State: state})
		}
	}
}

// write writes an entry of an upgrade.
func (s *site) write(id, kind string, m upgrade.Mark) {
	s.t.Helper()
	j, err := journal.Open(upgrade.Dir(s.root))
	if err != nil {
		s.t.Fatal(err)
	}
	raw, err := json.Marshal(m)
	if err == nil {
		_, err = j.Append(time.Now(), func([]journal.Entry) (journal.Entry, error) {
			return journal.Entry{Txn: id, Kind: kind, Data: raw}, nil
		})
	}
	if err != nil {
		s.t.Fatal(err)
	}
}

// audit lists the last word of each event of a category, and whose it is.
func (s *site) audit(category octopus.EventCategory) (told []string) {
	s.t.Helper()
	err := s.DB.Read(s.t.Context(), func(tx *db.Tx) error {
		rows, err := tx.Query(s.t.Context(), `SELECT e.message, e.username FROM events e WHERE e.category = ? ORDER BY e.id`, string(category))
		if err != nil {
			return err
		}
		defer func() { _ = rows.Close() }() // Err tells
		told = nil
		for rows.Next() {
			var message, who string
			if err := rows.Scan(&message, &who); err != nil {
				return err
			}
			told = append(told, message[strings.LastIndexByte(message, ' ')+1:]+" by "+who)
		}
		return rows.Err()
	})
	if err != nil {
		s.t.Fatal(err)
	}
	return told
}

var toCommitted = []upgrade.State{upgrade.Staged, upgrade.Preflight, upgrade.BackedUp, upgrade.Rehearsed, upgrade.Expanded, upgrade.Switched, upgrade.Probation, upgrade.Committed}

// TestWithoutSupervisor: what there is can be looked at, and a command says what is
// missing.
func TestWithoutSupervisor(t *testing.T) {
	t.Parallel()
	each(t, true, func(t *testing.T, s *site) {
		var info octopus.SystemInformation
		s.Get("/api/system/info").Into(&info)
		if info.Version != "2026.4.0" || info.Commit != "abc" || info.Node != "here" || info.IsSupervised || info.Level == 0 || info.SchemaLevel != info.Level || info.ActiveLevel == 0 || info.Database != s.DB.Dialect().String() {
			t.Errorf("the system is %+v", info)
		}
		st := s.status()
		if st.Supervisor != nil || !strings.Contains(string(st.Reason), "tako supervise --root") || st.Upgrade != nil || st.Links["Start"] != "" {
			t.Errorf("the status is %+v", st)
		}
		for _, command := range []string{"rollback", "finalize", "abort", "resume"} {
			s.Refused(http.StatusConflict, http.MethodPost, path+"/"+command, `{"Id":"some"}`, "tako supervise --root")
		}
		s.Refused(http.StatusConflict, http.MethodPost, path+"/start", `{"Version":"2026.5.0"}`, "tako supervise --root")
		s.Refused(http.StatusConflict, http.MethodPost, path+"/plan", `{"Version":"2026.5.0"}`, "tako supervise --root")
		s.Refused(http.StatusConflict, http.MethodPost, path+"/bundles", "any", "tako supervise --root")
		s.Refused(http.StatusConflict, http.MethodGet, path+"/events", "", "tako supervise --root")
		var page octopus.Page[octopus.Upgrade]
		s.Get(path + "/history").Into(&page)
		if page.TotalResults != 0 {
			t.Errorf("the history is %+v", page)
		}
		if entries, err := os.ReadDir(s.root); err != nil || len(entries) != 0 {
			t.Errorf("something was written: %v, %v", entries, err)
		}
	})
}

// TestServerThatDoesNotStayAlive: what its supervisor says of that is told.
func TestServerThatDoesNotStayAlive(t *testing.T) {
	t.Parallel()
	each(t, false, func(t *testing.T, s *site) {
		ln, err := localsocket.Listen(t.Context(), supervisor.SocketPath(s.root))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = ln.Close() })
		go func() {
			for {
				c, err := ln.AcceptLocal()
				if err != nil {
					return // the test has ended
				}
				_, _ = bufio.NewReader(c).ReadString('\n') // what it is asked
				_ = json.NewEncoder(c).Encode(supervisor.Report{Format: 1, Current: "2026.4.0", Crashes: 4, Trouble: "version 2026.4.0 has ended by itself: exit status 4", NeedsOperator: true})
				_ = c.Close()
			}
		}()
		got := s.status().Supervisor
		if got == nil || !got.NeedsOperator || got.Crashes != 4 || got.Problem != "Version 2026.4.0 has ended by itself: exit status 4." {
			t.Errorf("%+v", got)
		}
	})
}

// TestFeed: what the feed has is looked at when somebody asks, and nothing is fetched.
func TestFeed(t *testing.T) {
	t.Parallel()
	each(t, true, func(t *testing.T, s *site) {
		s.Refused(http.StatusConflict, http.MethodPost, path+"/check", "", "upgrade_feed")
		store := stage.Open(s.root, nil)
		if err := errors.Join(lookout.Pin(store, s.feed.Root), store.UseFeed(s.feed.URL)); err != nil {
			t.Fatal(err)
		}
		if f := s.status().Feed; string(f.Address) != s.feed.URL || !f.IsCheckedByItself || f.CheckedAt != nil {
			t.Errorf("before: %+v", f)
		}
		free, dear := feedtest.Release("2026.5.0"), feedtest.Release("2026.6.0")
		free.RequiredStop = true
		dear.Rollback, dear.Security, dear.Notes = "restore", true, "Closes a hole."
		s.feed.Publish(t, time.Hour, free, dear)
		var st octopus.UpgradeStatus
		s.Must(http.StatusOK, http.MethodPost, path+"/check", "").Into(&st)
		want := []octopus.UpgradeRelease{
			{Version: "2026.6.0", Published: octopus.OptionalTime(dear.Date), Rollback: "restore", IsSecurity: true, Notes: "Closes a hole.", Level: 1, Size: 5, Reason: "Version 2026.5.0 must be installed first.", Via: "2026.5.0"},
			{Version: "2026.5.0", Published: octopus.OptionalTime(free.Date), Rollback: "free", Level: 1, Size: 5, IsAllowed: true},
		}
		if diff := cmp.Diff(want, []octopus.UpgradeRelease(st.Feed.Releases)); diff != "" || st.Feed.Newest != "2026.5.0" || st.Feed.CheckedAt == nil || st.Feed.Error != "" || st.Feed.IsExpired {
			t.Errorf("the feed is %+v\n%s", st.Feed, diff)
		}
		if err := os.WriteFile(filepath.Join(s.feed.Dir, "feed.json"), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		s.Must(http.StatusOK, http.MethodPost, path+"/check", "").Into(&st)
		if st.Feed.Error == "" || len(st.Feed.Releases) != 2 || st.Feed.FoundAt == nil || !st.Feed.CheckedAt.After(st.Feed.FoundAt.Time) {
			t.Errorf("an unbelieved feed: %+v", st.Feed)
		}
		if got := s.audit(octopus.EventUpgradeChecked); len(got) != 2 {
			t.Errorf("the audit trail has %q", got)
		}
		for _, r := range s.feed.Requests() {
			if !strings.HasSuffix(r.URL.Path, ".json") {
				t.Errorf("%s was fetched", r.URL.Path)
			}
		}
	})
}

// TestWishes: a wish is for the upgrade that it names, and for a state in which it has a
// meaning; each is in the journal and in the audit trail.
func TestWishes(t *testing.T) {
	t.Parallel()
	each(t, false, func(t *testing.T, s *site) {
		st := s.status()
		if st.Upgrade != nil || st.Supervisor == nil || !strings.Contains(string(st.Supervisor.Error), "o supervisor runs") || st.Cursor != "0-0" {
			t.Errorf("before: %+v", st)
		}
		post := func(command string) string { return path + "/" + command }
		s.Refused(http.StatusConflict, http.MethodPost, post("abort"), `{"Id":"none"}`, "no upgrade 'none'")
		s.Refused(http.StatusBadRequest, http.MethodPost, post("start"), `{}`, "Version is missing")
		s.Refused(http.StatusBadRequest, http.MethodPost, post("start"), `{"Version":"2026.5.0","HoldHours":-1}`, "HoldHours is -1")
		s.Refused(http.StatusBadRequest, http.MethodPost, post("plan"), `{"Version":"2026.5.0","ProbationSeconds":100000}`, "ProbationSeconds is 100000")
		s.Refused(http.StatusServiceUnavailable, http.MethodPost, post("start"), `{"Version":"2026.5.0"}`, "No supervisor runs")

		first := s.begin("2026.5.0")
		s.reach(first, upgrade.Staged)
		st = s.status()
		if u := st.Upgrade; u == nil || u.ID != first || u.State != "STAGED" || u.IsEnded || u.IsCarriedOut || u.RequestedBy != "somebody" || !cmp.Equal([]string(u.Allowed), []string{"Abort", "Resume"}) || st.Cursor != "3-0" {
			t.Errorf("STAGED: %+v", st)
		}
		s.Refused(http.StatusConflict, http.MethodPost, post("start"), `{"Version":"2026.6.0"}`, first)
		s.Refused(http.StatusConflict, http.MethodPost, post("plan"), `{"Version":"2026.6.0"}`, first)
		s.Refused(http.StatusBadRequest, http.MethodPost, post("abort"), "", "Id is missing")
		s.Refused(http.StatusBadRequest, http.MethodPost, post("hold"), `{"Id":"`+first+`"}`, "Until is missing")
		s.Refused(http.StatusConflict, http.MethodPost, post("rollback"), `{"Id":"`+first+`"}`, "does not serve yet")
		s.Refused(http.StatusConflict, http.MethodPost, post("abort"), `{"Id":"an-earlier-one"}`, "out of date")
		s.Must(http.StatusBadRequest, http.MethodPost, post("abort"), `{"Id":"`+first+`"}`, "If-Match", `"another"`)
		s.Must(http.StatusConflict, http.MethodPost, post("abort"), "", "If-Match", `"another"`)
		s.Must(http.StatusOK, http.MethodPost, post("abort"), "", "If-Match", `"`+first+`"`)
		s.reach(first, upgrade.Aborted)
		s.Refused(http.StatusConflict, http.MethodPost, post("resume"), `{"Id":"`+first+`"}`, "has ended as ABORTED")

		second := s.begin("2026.6.0")
		s.reach(second, toCommitted...)
		s.Refused(http.StatusConflict, http.MethodPost, post("rollback"), `{"Id":"`+first+`"}`, second)
		u := s.status().Upgrade
		if u.State != "COMMITTED" || u.FinalizesAt == nil || time.Until(u.FinalizesAt.Time) < 71*time.Hour || !cmp.Equal([]string(u.Allowed), []string{"Rollback", "Finalize", "Hold", "Resume"}) || len(u.Steps) != 9 {
			t.Errorf("COMMITTED: %+v", u)
		}
		until := time.Now().Add(200 * time.Hour).UTC().Truncate(time.Second)
		var held octopus.Upgrade
		s.Must(http.StatusOK, http.MethodPost, post("hold"), `{"Id":"`+second+`","Until":"`+until.Format(time.RFC3339)+`"}`).Into(&held)
		if held.FinalizesAt == nil || !held.FinalizesAt.Equal(octopus.NewTime(until)) {
			t.Errorf("held: %+v", held)
		}
		s.Must(http.StatusOK, http.MethodPost, post("rollback"), `{"Id":"`+second+`"}`)
		s.reach(second, upgrade.RolledBack)
		var page octopus.Page[octopus.Upgrade]
		s.Get(path + "/history?take=1").Into(&page)
		if page.TotalResults != 2 || len(page.Items) != 1 || page.Items[0].ID != second || page.Items[0].State != "ROLLED_BACK" || len(page.Items[0].Allowed) != 0 {
			t.Errorf("the history is %+v", page)
		}
		s.Get(path + "/history?skip=1").Into(&page)
		if len(page.Items) != 1 || page.Items[0].ID != first || page.Items[0].State != "ABORTED" {
			t.Errorf("the rest of the history is %+v", page)
		}
		third := s.begin("2026.7.0")
		s.reach(third, append(slices.Clone(toCommitted[:6]), upgrade.NeedsOperator)...)
		s.Refused(http.StatusBadRequest, http.MethodPost, post("rollback"), `{"Id":"`+third+`","Forward":true}`, "Forward is for resume")
		s.Refused(http.StatusConflict, http.MethodPost, post("resume"), `{"Id":"`+third+`","Forward":true}`, "can be kept only while it serves and is well")
		if got := s.status().Upgrade; got.State != "NEEDS_OPERATOR" {
			t.Errorf("it was kept though nobody knows how it is: %+v", got)
		}
		if diff := cmp.Diff([]string{"abort by ada", "hold by ada", "rollback by ada"}, s.audit(octopus.EventUpgradeRequested)); diff != "" {
			t.Errorf("the audit trail (-want +got)\n%s", diff)
		}
	})
}

// TestOnlyARestoreLeadsBack: of an upgrade that cannot be taken back, it is told with what a
// restore of its backup would lose.
func TestOnlyARestoreLeadsBack(t *testing.T) {
	t.Parallel()
	each(t, false, func(t *testing.T, s *site) {
		at := time.Now().Add(-time.Hour).UTC().Truncate(time.Second)
		err := s.DB.Write(t.Context(), func(tx *db.Tx) error {
			for i, minutes := range []int{-10, 0, 1, 2, 50} {
				_, err := tx.Exec(t.Context(), `INSERT INTO deployment (id, seq, space_id, project_id, release_id, channel_id, environment_id, tenant_id, task_id, created, completed, state, body) VALUES (?, ?, '', '', '', '', '', '', '', ?, 0, '', '{}')`,
					"Deployments-"+strconv.Itoa(i+1), i+1, db.Micros(at.Add(time.Duration(minutes)*time.Minute)))
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		id, err := upgrade.Begin(s.root, upgrade.Plan{From: "2026.4.0", To: "2026.5.0", Hold: time.Hour, Restore: true}, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		made, err := json.Marshal(map[string]any{"ID": "20261127T100211Z-k3f9", "Created": at})
		if err != nil {
			t.Fatal(err)
		}
		s.reach(id, upgrade.Staged, upgrade.Preflight)
		s.write(id, upgrade.KindDone, upgrade.Mark{State: upgrade.BackedUp, Result: made})
		s.reach(id, upgrade.Rehearsed, upgrade.Expanded, upgrade.Switched, upgrade.Probation, upgrade.Committed)
		u := s.status().Upgrade
		if u.Rollback != "restore" || u.BackupID != "20261127T100211Z-k3f9" || u.BackupTime == nil || !u.BackupTime.Equal(octopus.NewTime(at)) || !cmp.Equal([]string(u.Allowed), []string{"Finalize", "Hold", "Resume"}) {
			t.Errorf("it is %+v", u)
		}
		loss := "restore its backup 20261127T100211Z-k3f9, which loses 3 deployments, and whatever else was written, since " + at.Format(time.RFC3339) + "."
		s.Refused(http.StatusConflict, http.MethodPost, path+"/rollback", `{"Id":"`+id+`"}`, loss)
		s.reach(id, upgrade.Finalized)
		s.Refused(http.StatusConflict, http.MethodPost, path+"/rollback", `{"Id":"`+id+`"}`, "was finalized")
		s.Refused(http.StatusConflict, http.MethodPost, path+"/rollback", `{"Id":"`+id+`"}`, loss)
		if got := s.audit(octopus.EventUpgradeRequested); len(got) != 0 {
			t.Errorf("the audit trail has %q", got)
		}
	})
}

// listener reads server-sent events.
type listener struct {
	t    *testing.T
	resp *http.Response
	in   *bufio.Scanner
	id   string
}

func (s *site) listen(query, last string) *listener {
	s.t.Helper()
	req, err := http.NewRequestWithContext(s.t.Context(), http.MethodGet, s.URL+path+"/events"+query, http.NoBody)
	if err != nil {
		s.t.Fatal(err)
	}
	req.Header.Set("X-Octopus-ApiKey", actiontest.Admin)
	if last != "" {
		req.Header.Set("Last-Event-ID", last)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = resp.Body.Close() })
	if resp.StatusCode != http.StatusOK {
		s.t.Fatalf("events: %s", resp.Status)
	}
	in := bufio.NewScanner(resp.Body)
	in.Buffer(nil, 1<<20)
	return &listener{t: s.t, resp: resp, in: in}
}

// next is the next event: of an edge its kind and state, of a line its text.
func (l *listener) next() string {
	l.t.Helper()
	name := ""
	for l.in.Scan() {
		key, value, _ := strings.Cut(l.in.Text(), ": ")
		switch key {
		case "id":
			l.id = value
		case "event":
			name = value
		case "data":
			var data struct{ Kind, State, Text, ToVersion, Wish string }
			if err := json.Unmarshal([]byte(value), &data); err != nil {
				l.t.Fatal(err)
			}
			return strings.Join(strings.Fields(strings.Join([]string{name, data.Kind, data.State, data.Wish, data.ToVersion, data.Text}, " ")), " ")
		}
	}
	l.t.Fatalf("the stream has ended: %v", l.in.Err())
	return ""
}

func (l *listener) want(events ...string) {
	l.t.Helper()
	for _, want := range events {
		if got := l.next(); got != want {
			l.t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// TestEvents: edges and lines come as they are written, and who was cut off goes on where
// that was.
func TestEvents(t *testing.T) {
	t.Parallel()
	each(t, false, func(t *testing.T, s *site) {
		old := s.begin("2026.4.9")
		s.reach(old, upgrade.Aborted)
		id := s.begin("2026.5.0")
		log := upgrade.WorkerLog(s.root)
		write := func(text string) {
			t.Helper()
			f, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
			if err == nil {
				_, err = f.WriteString(text)
				err = errors.Join(err, f.Close())
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		write("of an earlier one\n")
		before := s.status().Cursor
		l := s.listen("", "")
		l.want("edge plan 2026.5.0")
		s.reach(id, upgrade.Staged)
		l.want("edge intent STAGED", "edge done STAGED")
		write("fetching\nhalf a ")
		l.want("line fetching")
		at := l.id
		if err := l.resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		write("line\n")
		s.reach(id, upgrade.Preflight)
		l = s.listen("", at)
		l.want("edge intent PREFLIGHT", "edge done PREFLIGHT", "line half a line")
		s.listen("?after="+before, "").want("edge intent STAGED", "edge done STAGED", "edge intent PREFLIGHT", "edge done PREFLIGHT", "line fetching", "line half a line")
		s.Must(http.StatusBadRequest, http.MethodGet, path+"/events?after=yesterday", "")

		// A line that is too long comes in pieces, and of what is too much only the end.
		long := strings.Repeat("x", 100<<10)
		write(long + "\n")
		got := l.next() + strings.TrimPrefix(l.next(), "line ")
		if got != "line "+long {
			t.Errorf("a long line came as %d bytes", len(got))
		}
		if err := l.resp.Body.Close(); err != nil {
			t.Fatal(err)
		}
		at = l.id
		for i := range 3 {
			write(strings.Repeat(strings.Repeat(strconv.Itoa(i), 1023)+"\n", 600))
		}
		l = s.listen("", at)
		if got := l.next(); got == "line "+strings.Repeat("0", 1023) {
			t.Error("all of a long log is told")
		}

		// A journal that begins anew is told from its beginning.
		if err := os.Remove(filepath.Join(upgrade.Dir(s.root), "journal.jsonl")); err != nil {
			t.Fatal(err)
		}
		s.begin("2026.6.0")
		for got := l.next(); got != "edge plan 2026.6.0"; got = l.next() {
			if !strings.HasPrefix(got, "line ") {
				t.Fatalf("got %q", got)
			}
		}
	})
}
