package notify_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// letter is an e-mail that came.
type letter struct {
	to     string
	header textproto.MIMEHeader
	body   string
}

// postOffice is an SMTP server that refuses e-mails to some.
type postOffice struct {
	port int
	mu   sync.Mutex
	got  []letter
	no   string // the recipient that is refused
}

func newPostOffice(t *testing.T) *postOffice {
	t.Helper()
	var cfg net.ListenConfig
	l, err := cfg.Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	p := &postOffice{port: l.Addr().(*net.TCPAddr).Port}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		check(t, l.Close())
		all.Wait()
	})
	return p
}

func (p *postOffice) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	in := textproto.NewReader(bufio.NewReader(c))
	say := func(text string) { _, _ = io.WriteString(c, text+"\r\n") }
	say("220 post.example.com ESMTP")
	var m letter
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		switch verb, rest, _ := strings.Cut(line, " "); strings.ToUpper(verb) {
		case "RCPT":
			m.to = strings.TrimSuffix(strings.TrimPrefix(rest, "TO:<"), ">")
			p.mu.Lock()
			refused := m.to == p.no
			p.mu.Unlock()
			if refused {
				say("550 no such person")
				continue
			}
			say("250 ok")
		case "DATA":
			say("354 go on")
			body, err := in.ReadDotBytes()
			if err != nil {
				return
			}
			r := textproto.NewReader(bufio.NewReader(strings.NewReader(string(body))))
			m.header, _ = r.ReadMIMEHeader() // a test looks at it
			text, _ := io.ReadAll(r.R)       // of a string
			m.body = strings.ReplaceAll(strings.ReplaceAll(string(text), "=\n", ""), "=3D", "=")
			p.mu.Lock()
			p.got = append(p.got, m)
			p.mu.Unlock()
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (p *postOffice) refuses(who string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.no = who
}

// letters are those to somebody.
func (p *postOffice) letters(to string) (out []letter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.got {
		if m.to == to {
			out = append(out, m)
		}
	}
	return out
}

// TestPoint17DigestsShowWhatEachMaySee: of the members of one team each gets the events
// that they may see, in the subscription's time zone, as often as it says.
func TestPoint17DigestsShowWhatEachMaySee(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		office := newPostOffice(t)
		w.Must(http.StatusOK, http.MethodPut, "/api/smtpconfiguration", fmt.Sprintf(`{"SmtpHost":"127.0.0.1","SmtpPort":%d,"SendEmailFrom":"tako@example.com"}`, office.port))
		mine := w.Create("/api/projects", `{"Name":"Mine","ProjectGroupId":"ProjectGroups-1","LifecycleId":"Lifecycles-1"}`)
		user := func(name string, active bool) string {
			return w.Create("/api/users", fmt.Sprintf(`{"Username":%q,"DisplayName":%q,"EmailAddress":"%s@example.com","IsActive":%v,"Password":"correct horse battery"}`, name, name, name, active))
		}
		all, half, none, gone := user("all", true), user("half", true), user("none", true), user("gone", false)
		ctx := t.Context()
		check(t, w.DB.Write(ctx, func(tx *db.Tx) error {
			store := w.Store.In(tx)
			role, err := store.Create(ctx, "userroles", "", "", &octopus.UserRole{Name: "Auditor", GrantedSpacePermissions: octopus.List[octopus.Permission]{"EventView"}})
			if err != nil {
				return err
			}
			for who, projects := range map[string]octopus.List[string]{all: nil, half: {mine}} {
				team, err := store.Create(ctx, "teams", "", "", &octopus.Team{Name: "Of " + who, MemberUserIDs: []string{who}})
				if err != nil {
					return err
				}
				if _, err := store.Create(ctx, "scopeduserroles", resources.DefaultSpace, "", &octopus.ScopedUserRole{TeamID: team, UserRoleID: role, SpaceID: "Spaces-1", ProjectIDs: projects}); err != nil {
					return err
				}
			}
			return nil
		}))
		team := w.Create("/api/teams", fmt.Sprintf(`{"Name":"Readers","MemberUserIds":[%q,%q,%q,%q]}`, all, half, none, gone))
		id := w.subscribe(actiontest.Admin, "Daily", fmt.Sprintf(`"EmailTeams":[%q],"EmailFrequencyPeriod":"01:00:00","EmailPriority":"High","EmailShowDatesInTimeZoneId":"Tokyo Standard Time","Filter":{%s}`, team, only("DeploymentFailed")))
		happens := func(project string, texts ...string) {
			check(t, w.DB.Write(ctx, func(tx *db.Tx) error {
				for _, text := range texts {
					tx.Event(db.Event{Category: "DeploymentFailed", SpaceID: "Spaces-1", Message: text, ProjectID: project})
				}
				return nil
			}))
		}
		happens(mine, "of mine")
		happens("", "of nobody")
		w.sql(`UPDATE events SET occurred = ? WHERE category = 'DeploymentFailed'`, db.Micros(time.Date(2026, 1, 1, 20, 30, 0, 0, time.UTC)))
		w.once() // not yet
		if n := len(office.letters("all@example.com")); n != 0 {
			t.Fatalf("%d e-mails were too early", n)
		}
		w.send()
		w.send()
		got := map[string][]string{}
		for _, who := range []string{"all", "half", "none", "gone"} {
			for _, m := range office.letters(who + "@example.com") {
				got[who] = append(got[who], m.header.Get("Subject"))
			}
		}
		if diff := cmp.Diff(map[string][]string{"all": {"Daily: 2 events"}, "half": {"Daily: 1 event"}}, got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		m := office.letters("half@example.com")[0]
		if !strings.Contains(m.body, "2026-01-02 05:30:00 JST  DeploymentFailed  of mine") || strings.Contains(m.body, "of nobody") || m.header.Get("Importance") != "high" || !strings.Contains(m.body, "https://tako.example.com/api/events?fromAutoId=") {
			t.Errorf("it is %v\n%s", m.header, m.body)
		}

		// One whose address is refused keeps nobody else from theirs, and gets the
		// same e-mail later; the others do not.
		office.refuses("half@example.com")
		happens(mine, "more")
		w.send()
		w.send()
		office.refuses("")
		happens(mine, "even more")
		w.send()
		if a, h := office.letters("all@example.com"), office.letters("half@example.com"); len(a) != 2 || len(h) != 2 || strings.Contains(h[1].body, "even more") || a[1].header.Get("Message-Id") == h[1].header.Get("Message-Id") {
			t.Errorf("they have %d and %d", len(a), len(h))
		}
		outcomes := w.outcomes(id)[2:]
		slices.Sort(outcomes)
		if diff := cmp.Diff([]string{"Delivered", "Delivered", "Failed", "Failed"}, outcomes); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		w.send()
		if h := office.letters("half@example.com"); len(h) != 3 || !strings.Contains(h[2].body, "even more") {
			t.Errorf("half has %d", len(h))
		}

		// A digest has at most 100 events; the next follows at once.
		var many []string
		for i := range 250 {
			many = append(many, fmt.Sprintf("event <%03d>", i))
		}
		happens(mine, many...)
		w.send()
		for range 2 {
			w.once()
		}
		var subjects []string
		text := ""
		for _, m := range office.letters("half@example.com")[3:] {
			subjects = append(subjects, m.header.Get("Subject"))
			text += m.body
		}
		if diff := cmp.Diff([]string{"Daily: 100 events", "Daily: 100 events", "Daily: 50 events"}, subjects); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
		for _, one := range many {
			if strings.Count(text, one) != 1 {
				t.Errorf("%q is there %d times", one, strings.Count(text, one))
			}
		}
	})
}
