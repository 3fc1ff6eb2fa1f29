package auth_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

func TestAPIKeys(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		t := w.t
		bob := w.user(`{"Username": "bob", "Password": "bob's password"}`)
		robot := w.user(`{"Username": "robot", "IsService": true}`)

		key := w.key(w.admin, robot)
		if !regexp.MustCompile(`^API-[A-Z2-7]{52}$`).MatchString(key) {
			t.Errorf("a key looks like %q", key)
		}
		p := w.byKey(key)
		if got := p.Actor(); got.UserID != robot || got.Username != "robot" || got.Identity != "ApiKey" {
			t.Errorf("the key is of %+v", got)
		}

		list, total, err := w.ListAPIKeys(w.ctx, w.admin, robot, ident.Page{})
		w.ok(err)
		if total != 1 || len(list) != 1 || list[0].UserID != robot || list[0].Purpose != "test" || !list[0].APIKey.HasValue || list[0].APIKey.NewValue != nil {
			t.Errorf("%d keys: %+v", total, list)
		}
		if hint := string(list[0].APIKey.Hint); !strings.HasPrefix(key, hint) || len(hint) != 8 {
			t.Errorf("hint %q", hint)
		}
		if n := w.count(`SELECT count(*) FROM api_key WHERE hash LIKE 'API%' OR hash = ?`, key); n != 0 {
			t.Error("the key is stored in clear")
		}

		// People's keys are their own.
		_, err = w.CreateAPIKey(w.as(w.admin), w.admin, bob, octopus.APIKeyCommand{})
		w.refused(err, fault.Forbidden)
		_, _, err = w.ListAPIKeys(w.ctx, p, bob, ident.Page{})
		w.refused(err, fault.NotFound)
		own := w.byKey(w.key(p, "me"))
		if own.UserID() != robot {
			t.Errorf("robot's own key is of %s", own.UserID())
		}

		w.ok(w.RevokeAPIKey(w.as(w.admin), w.admin, robot, list[0].ID))
		_, err = w.ByAPIKey(w.ctx, key)
		w.refused(err, fault.Unauthenticated)
		w.refused(w.RevokeAPIKey(w.as(w.admin), w.admin, robot, list[0].ID), fault.NotFound)

		for _, bad := range []string{"", "API-", "API-lower", "nothing", "API-" + strings.Repeat("A", 300), "API-UNKNOWN"} {
			_, err := w.ByAPIKey(w.ctx, bad)
			w.refused(err, fault.Unauthenticated)
		}
		if n := w.count(`SELECT count(*) FROM events WHERE document_type = 'ApiKey' AND category IN ('Created', 'Deleted') AND message LIKE '%' || ? || '%'`, key); n != 0 {
			t.Error("the key is in the audit trail")
		}
		if n := w.count(`SELECT count(*) FROM events WHERE document_type = 'ApiKey'`); n != 4 { // ada's, robot's two, and the revocation
			t.Errorf("%d events about keys", n)
		}
	})
}

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		robot := w.user(`{"Username": "robot", "IsService": true}`)
		soon := octopus.NewTime(w.clock.now().Add(time.Hour))
		key, err := w.CreateAPIKey(w.as(w.admin), w.admin, robot, octopus.APIKeyCommand{Expires: &soon})
		w.ok(err)
		w.byKey(string(key.APIKey))
		w.clock.add(time.Hour)
		_, err = w.ByAPIKey(w.ctx, string(key.APIKey)) // though it was cached
		w.refused(err, fault.Unauthenticated)
		_, err = w.CreateAPIKey(w.as(w.admin), w.admin, robot, octopus.APIKeyCommand{Expires: &soon})
		w.refused(err, fault.Invalid)
	})
}

func TestInactiveUsersAreRefused(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		id := w.user(`{"Username": "bob", "Password": "bob's password"}`)
		sess, err := w.Login(w.ctx, auth.SignIn{Username: "bob", Password: "bob's password"})
		w.ok(err)
		bob, err := w.BySession(w.ctx, sess.Token)
		w.ok(err)
		key := w.key(bob, "me")
		w.byKey(key)

		_, err = w.ReplaceUser(w.as(w.admin), w.admin, id, []byte(`{"Username": "bob", "IsActive": false}`), 0)
		w.ok(err)
		_, err = w.ByAPIKey(w.ctx, key)
		w.refused(err, fault.Unauthenticated)
		_, err = w.BySession(w.ctx, sess.Token)
		w.refused(err, fault.Unauthenticated)
		_, err = w.Login(w.ctx, auth.SignIn{Username: "bob", Password: "bob's password"})
		w.refused(err, fault.Invalid)

		_, err = w.ReplaceUser(w.as(w.admin), w.admin, id, []byte(`{"Username": "bob", "IsActive": true}`), 0)
		w.ok(err)
		w.byKey(key)
		w.ok(w.DeleteUser(w.as(w.admin), w.admin, "BOB"))
		_, err = w.ByAPIKey(w.ctx, key)
		w.refused(err, fault.Unauthenticated)
		for _, table := range []string{"api_key", "session", "user_password", "user_search"} {
			if n := w.count(`SELECT count(*) FROM `+table+` WHERE user_id = ?`, id); n != 0 {
				w.t.Errorf("%d rows of %s are left", n, table)
			}
		}
	})
}

// TestRequestsCostNoQuery: while nothing changes, keys and sessions are known
// from memory, and a revoked one is not.
func TestRequestsCostNoQuery(t *testing.T) {
	t.Parallel()
	url := dbtest.URL(t, db.SQLite)
	newWorld(t, dbtest.OpenURL(t, url))
	d, err := db.Open(t.Context(), url, db.Options{Log: dbtest.Log(t)})
	if err != nil {
		t.Fatal(err)
	}
	var asked atomic.Int64
	s, _ := service(t, d, func(o *auth.Options) {
		o.Generation = func(context.Context) (uint64, error) { asked.Add(1); return 7, nil }
	})
	if _, err := s.ByAPIKey(t.Context(), adminKey); err != nil {
		t.Fatal(err)
	}
	if err := d.Close(); err != nil { // from here on any query fails
		t.Fatal(err)
	}
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			p, err := s.ByAPIKey(t.Context(), adminKey)
			if err != nil || !p.Can(octopus.PermAdministerSystem, "", auth.Target{}) {
				t.Errorf("from memory: %v", err)
			}
		})
	}
	all.Wait()
	if n := asked.Load(); n != 51 {
		t.Errorf("asked %d times for changes", n)
	}
}

func TestChangesCountAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		robot := w.person("robot")
		key := w.key(robot, "me")
		can := func(p octopus.Permission, space ident.SpaceID) bool { return w.byKey(key).Can(p, space, auth.Target{}) }
		if can(octopus.PermProjectView, "Spaces-1") {
			w.t.Fatal("nothing was granted")
		}
		team := w.team("Viewers", "userroles-projectviewer", "Spaces-1", robot.UserID())
		if !can(octopus.PermProjectView, "Spaces-1") || !can(octopus.PermUserView, "") || can(octopus.PermProjectView, "Spaces-2") {
			w.t.Error("membership in a team with a role counts for nothing, or too much")
		}
		w.ok(change(w, w.admin, "teams", team, func(t *octopus.Team) { t.MemberUserIDs = nil }))
		if can(octopus.PermProjectView, "Spaces-1") {
			w.t.Error("who left the team still holds its permissions")
		}
		w.made(w.admin, "scopeduserroles", "Spaces-1", octopus.ScopedUserRole{TeamID: octopus.TeamEveryone, UserRoleID: "userroles-tenantmanager"})
		if !can(octopus.PermTenantEdit, "Spaces-1") {
			w.t.Error("not everyone is in the team Everyone")
		}
	})
}

func TestOtherProcessesHearOfRevocations(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			first, second := secondProcess(t, dialect)
			robot := first.person("robot")
			key := first.key(robot, "me")
			second.byKey(key)
			keys, _, err := first.ListAPIKeys(first.ctx, robot, "me", ident.Page{})
			first.ok(err)
			first.ok(first.RevokeAPIKey(first.as(robot), robot, "me", keys[0].ID))
			deadline := time.Now().Add(2 * time.Minute) // 200 ms on a machine that has nothing else to do
			for {
				_, err := second.ByAPIKey(second.ctx, key)
				if fault.Is(err, fault.Unauthenticated) {
					return
				}
				if time.Now().After(deadline) {
					t.Fatalf("the other process still takes the revoked key: %v", err)
				}
				<-time.After(5 * time.Millisecond)
			}
		})
	}
}

func TestSignIn(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		t := w.t
		sess, err := w.Login(w.ctx, auth.SignIn{Username: " ADA ", Password: adminPassword, Address: "192.0.2.1", UserAgent: "test"})
		w.ok(err)
		if sess.User.Username != adminName || sess.Persistent || !sess.Expires.Equal(w.clock.now().UTC().Truncate(time.Microsecond).Add(24*time.Hour)) {
			t.Errorf("session %+v", sess)
		}
		p, err := w.FromRequest(w.request(http.MethodGet, sess))
		w.ok(err)
		if p.Actor().Identity != "SessionCookie" || p.Credential() != auth.BySession || p.User().ID != w.admin.UserID() {
			t.Errorf("signed in as %+v", p.Actor())
		}
		if n := w.count(`SELECT count(*) FROM session WHERE id = ?`, sess.Token); n != 0 {
			t.Error("the token is stored in clear")
		}
		if n := w.count(`SELECT count(*) FROM events WHERE category = 'LoginSucceeded' AND username = 'ada' AND ip_address = '192.0.2.1'`); n != 1 {
			t.Errorf("%d events of the sign-in", n)
		}

		// A change needs the second token, of this session.
		_, err = w.FromRequest(w.request(http.MethodPost, sess))
		w.refused(err, fault.Forbidden)
		other, err := w.Login(w.ctx, auth.SignIn{Username: adminName, Password: adminPassword})
		w.ok(err)
		for token, good := range map[string]bool{sess.CSRF: true, other.CSRF: false, "": false, sess.Token: false} {
			r := w.request(http.MethodDelete, sess)
			r.Header.Set(auth.CSRFHeader, token)
			if _, err := w.FromRequest(r); (err == nil) != good {
				t.Errorf("with %q: %v", token, err)
			}
		}

		out := w.request(http.MethodPost, sess)
		w.ok(w.LogoutRequest(out))
		_, err = w.BySession(w.ctx, sess.Token)
		w.refused(err, fault.Unauthenticated)
		_, err = w.BySession(w.ctx, other.Token)
		w.ok(err)
		w.ok(w.LogoutRequest(out)) // once more is no error
		w.ok(w.LogoutRequest(httptest.NewRequestWithContext(w.ctx, http.MethodPost, "/", nil)))
	})
}

func TestSignInFails(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		w.user(`{"Username": "robot", "IsService": true}`)
		w.user(`{"Username": "nobody"}`)
		w.user(`{"Username": "bob", "Password": "bob's password", "IsActive": false}`)
		var messages []string
		for _, in := range []auth.SignIn{
			{Username: adminName, Password: "wrong"},
			{Username: adminName},
			{Username: adminName, Password: strings.Repeat(adminPassword, 100)},
			{Username: "unknown", Password: adminPassword},
			{Username: "", Password: adminPassword},
			{Username: "robot", Password: adminPassword},
			{Username: "nobody", Password: ""},
			{Username: "bob", Password: "bob's password"},
		} {
			_, err := w.Login(w.ctx, in)
			w.refused(err, fault.Invalid)
			messages = append(messages, err.Error())
		}
		for _, m := range messages {
			if m != messages[0] {
				w.t.Errorf("%q and %q tell who exists", m, messages[0])
			}
		}
		if n := w.count(`SELECT count(*) FROM events WHERE category = 'LoginFailed'`); n != len(messages) {
			w.t.Errorf("%d events", n)
		}
		if n := w.count(`SELECT count(*) FROM events WHERE category = 'LoginFailed' AND message LIKE '%unknown user'`); n != 2 {
			w.t.Errorf("%d events about names that nobody has", n)
		}
	})
}

func TestLockout(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		bad := auth.SignIn{Username: "Ada", Password: "wrong", Address: "192.0.2.1"}
		good := auth.SignIn{Username: adminName, Password: adminPassword, Address: "192.0.2.9"}
		for range 9 {
			_, err := w.Login(w.ctx, bad)
			w.refused(err, fault.Invalid)
		}
		_, err := w.Login(w.ctx, good) // the tenth is still tried, and takes the others back
		w.ok(err)
		for range 10 {
			_, err := w.Login(w.ctx, bad)
			w.refused(err, fault.Invalid)
		}
		_, err = w.Login(w.ctx, good)
		w.refused(err, fault.TooMany)
		if !strings.Contains(err.Error(), "15 minutes") {
			w.t.Errorf("the refusal says %q", err)
		}
		w.clock.add(14 * time.Minute)
		_, err = w.Login(w.ctx, good)
		w.refused(err, fault.TooMany)
		w.clock.add(time.Minute)
		_, err = w.Login(w.ctx, good)
		w.ok(err)

		// Unknown names are locked out in the same way.
		for range 10 {
			_, err := w.Login(w.ctx, auth.SignIn{Username: "unknown", Password: "x"})
			w.refused(err, fault.Invalid)
		}
		_, err = w.Login(w.ctx, auth.SignIn{Username: "unknown", Password: "x"})
		w.refused(err, fault.TooMany)

		// Whoever runs the server can let somebody in again.
		for range 10 {
			_, err := w.Login(w.ctx, bad)
			w.refused(err, fault.Invalid)
		}
		w.ok(w.ResetPassword(w.ctx, adminName, "another good one"))
		good.Password = "another good one"
		_, err = w.Login(w.ctx, good)
		w.ok(err)
	})
}

func TestAddressesAreLimited(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	w := newWorld(t, d)
	w.Service, _ = service(t, d, func(o *auth.Options) {
		o.Now = w.clock.now
		o.Lockout = auth.Lockout{User: 3, Address: 5, For: time.Minute}
	})
	try := func(name, from string) error {
		_, err := w.Login(w.ctx, auth.SignIn{Username: name, Password: "wrong password", Address: from})
		return err
	}
	for _, from := range []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:0:ffff::", "2001:db8::4", "2001:db8::5"} {
		w.refused(try("someone at "+from, from), fault.Invalid)
	}
	w.refused(try("one more", "2001:db8::6"), fault.TooMany) // the same network
	w.refused(try("one more", "2001:db8:0:1::6"), fault.Invalid)
	w.refused(try("one more", "192.0.2.1"), fault.Invalid)
	w.clock.add(time.Minute)
	w.refused(try("someone at 2001:db8::1", "2001:db8::6"), fault.Invalid)
}

// TestGuessesAtOnce: attempts that run at the same time are counted one by one.
func TestGuessesAtOnce(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		var tried, locked atomic.Int64
		var all sync.WaitGroup
		for range 25 {
			all.Go(func() {
				switch _, err := w.Login(w.ctx, auth.SignIn{Username: adminName, Password: "wrong"}); fault.KindOf(err) {
				case fault.Invalid:
					tried.Add(1)
				case fault.TooMany:
					locked.Add(1)
				default:
					w.t.Errorf("sign-in: %v", err)
				}
			})
		}
		all.Wait()
		if tried.Load() != 10 || locked.Load() != 15 {
			w.t.Errorf("%d guesses were tried and %d refused", tried.Load(), locked.Load())
		}
	})
}

func TestSessionsEnd(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		start := func(remember bool) string {
			s, err := w.Login(w.ctx, auth.SignIn{Username: adminName, Password: adminPassword, Remember: remember})
			w.ok(err)
			return s.Token
		}
		good := func(token string) bool {
			_, err := w.BySession(w.ctx, token)
			if err != nil {
				w.refused(err, fault.Unauthenticated)
			}
			return err == nil
		}
		idle, busy, kept := start(false), start(false), start(true)
		for range 23 {
			w.clock.add(time.Hour)
			if !good(busy) {
				w.t.Fatal("a session in use ended before its time")
			}
		}
		if good(idle) {
			w.t.Error("a session that nobody used for 23 hours is good")
		}
		w.clock.add(time.Hour)
		if good(busy) {
			w.t.Error("a session is good after 24 hours")
		}
		if !good(kept) {
			w.t.Error("a remembered session ended after a day")
		}
		w.clock.add(19 * 24 * time.Hour)
		if good(kept) {
			w.t.Error("a remembered session is good after 20 days")
		}
		w.ok(w.Sweep(w.ctx))
		if n := w.count(`SELECT count(*) FROM session`); n != 0 {
			w.t.Errorf("%d sessions are left", n)
		}
	})
}

// TestUseIsWrittenDown: the last use reaches the database when the service ends,
// so that a session which is used goes on after a restart.
func TestUseIsWrittenDown(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		s, err := w.Login(w.ctx, auth.SignIn{Username: adminName, Password: adminPassword})
		w.ok(err)
		w.clock.add(11 * time.Hour)
		_, err = w.BySession(w.ctx, s.Token)
		w.ok(err)
		w.byKey(adminKey)
		ctx, cancel := context.WithCancel(w.ctx)
		cancel()
		w.ok(w.Run(ctx))
		if n := w.count(`SELECT count(*) FROM api_key WHERE last_used > 0`); n != 1 {
			w.t.Errorf("the use of %d keys was written down", n)
		}
		again, _ := service(w.t, w.db, func(o *auth.Options) { o.Now = w.clock.now })
		w.clock.add(11 * time.Hour)
		_, err = again.BySession(w.ctx, s.Token)
		w.ok(err)
	})
}

func TestPasswords(t *testing.T) {
	t.Parallel()
	each(t, func(w *world) {
		in := func(name, password string) (*auth.Session, error) {
			return w.Login(w.ctx, auth.SignIn{Username: name, Password: password})
		}
		id := w.user(`{"Username": "bob", "Password": "first password", "DisplayName": "Bob"}`)
		old, err := in("bob", "first password")
		w.ok(err)
		now, err := in("bob", "first password")
		w.ok(err)
		bob, err := w.BySession(w.ctx, now.Token)
		w.ok(err)

		w.ok(w.SetPassword(w.as(bob), bob, "me", "second password"))
		_, err = w.BySession(w.ctx, old.Token)
		w.refused(err, fault.Unauthenticated)
		_, err = w.BySession(w.ctx, now.Token) // where it was done
		w.ok(err)
		_, err = in("bob", "first password")
		w.refused(err, fault.Invalid)
		_, err = in("bob", "second password")
		w.ok(err)

		_, err = w.ReplaceUser(w.as(w.admin), w.admin, id, []byte(`{"Username": "bob", "IsActive": true, "Password": "third password"}`), 0)
		w.ok(err)
		_, err = in("bob", "third password")
		w.ok(err)
		_, err = w.BySession(w.ctx, now.Token)
		w.refused(err, fault.Unauthenticated)

		for _, bad := range []string{"short", "", strings.Repeat("x", 1025), "bob"} {
			w.refused(w.SetPassword(w.as(w.admin), w.admin, id, bad), fault.Invalid)
		}
		robot := w.user(`{"Username": "robot", "IsService": true}`)
		w.refused(w.SetPassword(w.as(w.admin), w.admin, robot, "a robot's password"), fault.Invalid)
		_, err = w.CreateUser(w.as(w.admin), w.admin, []byte(`{"Username": "robot2", "IsService": true, "Password": "a robot's password"}`))
		w.refused(err, fault.Invalid)

		for _, leak := range []string{"first password", "second password", "third password", "argon2id"} {
			if n := w.count(`SELECT count(*) FROM documents WHERE body LIKE '%' || ? || '%'`, leak); n != 0 {
				w.t.Errorf("%q is in a document", leak)
			}
			if n := w.count(`SELECT count(*) FROM events WHERE message LIKE '%' || ? || '%' OR details LIKE '%' || ? || '%'`, leak, leak); n != 0 {
				w.t.Errorf("%q is in the audit trail", leak)
			}
		}
		if n := w.count(`SELECT count(*) FROM user_password WHERE hash NOT LIKE '$argon2id$v=19$m=8,t=1,p=1$%'`); n != 0 {
			w.t.Errorf("%d passwords are no argon2id", n)
		}
	})
}

func TestHashesAreMadeAnew(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	w := newWorld(t, d)
	s, _ := service(t, d, func(o *auth.Options) { o.Argon2 = auth.Argon2{Memory: 16, Time: 2, Threads: 1} })
	for _, p := range []string{"wrong", adminPassword} {
		_, err := s.Login(w.ctx, auth.SignIn{Username: adminName, Password: p})
		changed := w.count(`SELECT count(*) FROM user_password WHERE hash LIKE '%$m=16,t=2,p=1$%'`) == 1
		if good := p == adminPassword; changed != good || (err == nil) != good {
			t.Errorf("with %q: %v, made anew: %v", p, err, changed)
		}
	}
	_, err := w.Login(w.ctx, auth.SignIn{Username: adminName, Password: adminPassword}) // and back
	w.ok(err)
}

func TestCredentialsOfRequests(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite))
	sess, err := w.Login(w.ctx, auth.SignIn{Username: adminName, Password: adminPassword, Remember: true})
	w.ok(err)
	for name, c := range map[string]struct {
		change func(*http.Request)
		want   fault.Kind // of the error; Internal is none
		nobody bool
	}{
		"nothing":                 {func(*http.Request) {}, fault.Internal, true},
		"the header":              {func(r *http.Request) { r.Header.Set("X-Octopus-ApiKey", adminKey) }, fault.Internal, false},
		"a NuGet client's header": {func(r *http.Request) { r.Header.Set("X-NuGet-ApiKey", adminKey) }, fault.Internal, false},
		"a bearer":                {func(r *http.Request) { r.Header.Set("Authorization", "bearer "+adminKey) }, fault.Internal, false},
		"the query":               {func(r *http.Request) { r.URL.RawQuery = "skip=1&apiKey=" + adminKey }, fault.Internal, false},
		"a bad key and a session": {func(r *http.Request) {
			r.Header.Set("X-Octopus-ApiKey", "API-BAD")
			r.AddCookie(w.Cookies(sess, true, "")[0])
		}, fault.Unauthenticated, false},
		"a bearer that is no key": {func(r *http.Request) { r.Header.Set("Authorization", "Bearer eyJhbGciOi") }, fault.Unauthenticated, false},
		"another server's cookie": {func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "OctopusIdentificationToken_other", Value: sess.Token})
		}, fault.Internal, true},
		"a token that nobody gave": {func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "OctopusIdentificationToken_9b1deb4d", Value: "made up"})
		}, fault.Unauthenticated, false},
		"somebody else's scheme": {func(r *http.Request) { r.Header.Set("Authorization", "Basic "+adminKey) }, fault.Internal, true},
		"an endless token": {func(r *http.Request) {
			r.AddCookie(&http.Cookie{Name: "OctopusIdentificationToken_9b1deb4d", Value: strings.Repeat("x", 5000)})
		}, fault.Unauthenticated, false},
	} {
		r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/api/users/me", nil)
		c.change(r)
		p, err := w.FromRequest(r)
		if (err != nil) != (c.want != fault.Internal) || err != nil && !fault.Is(err, c.want) || (p == nil) != (c.nobody || err != nil) {
			t.Errorf("%s: %v, %v", name, p, err)
		}
	}

	cookies := w.Cookies(sess, true, "/deploy/")
	if len(cookies) != 2 || !cookies[0].HttpOnly || cookies[1].HttpOnly {
		t.Fatalf("cookies %v", cookies)
	}
	for i, prefix := range []string{"OctopusIdentificationToken", "Octopus-Csrf-Token"} {
		c := cookies[i]
		if !strings.HasPrefix(c.Name, prefix) || !c.Secure || c.Path != "/deploy/" || c.SameSite != http.SameSiteLaxMode || !c.Expires.Equal(sess.Expires) || c.Valid() != nil {
			t.Errorf("cookie %v", c)
		}
	}
	for _, c := range w.ExpiredCookies(false, "") {
		if c.MaxAge >= 0 || c.Value != "" || c.Path != "/" || c.Secure {
			t.Errorf("cookie %v", c)
		}
	}
}
