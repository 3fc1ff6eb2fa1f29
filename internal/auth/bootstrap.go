package auth

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// firstSpace is the space that every server starts with.
const firstSpace = "Spaces-1"

// EnsureBuiltins makes the roles and teams that come with the server, where they
// are missing, and gives built-in roles the permissions that this version grants
// and an older one did not. It takes nothing away, so that two versions can start
// in any order, and can be called at every start.
func (s *Service) EnsureBuiltins(ctx context.Context) error {
	// Most starts find everything in place and write nothing.
	complete := false
	err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
		complete, err = s.ensure(ctx, tx, false)
		return err
	})
	if err != nil || complete {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		_, err := s.ensure(ctx, tx, true)
		return err
	})
}

// ensure looks for everything that is built in, and makes what is missing if it
// may write. complete says that nothing was missing.
func (s *Service) ensure(ctx context.Context, tx *db.Tx, write bool) (complete bool, err error) {
	w := s.store.In(tx)
	complete = true
	for _, r := range permission.Roles() {
		var old octopus.UserRole
		err := w.Load(ctx, s.roles.Name, r.ID, &old)
		fresh := fault.Is(err, fault.NotFound)
		if err != nil && !fresh {
			return false, err
		}
		role := octopus.UserRole{
			Name: r.Name, Description: r.Description,
			GrantedSpacePermissions:  union(old.GrantedSpacePermissions, r.Space),
			GrantedSystemPermissions: union(old.GrantedSystemPermissions, r.System),
		}
		if !fresh {
			role.Name = old.Name
		}
		if !fresh && len(role.GrantedSpacePermissions) == len(old.GrantedSpacePermissions) && len(role.GrantedSystemPermissions) == len(old.GrantedSystemPermissions) {
			continue
		}
		if !write {
			return false, nil // the rest is looked at by whoever may write
		}
		complete = false
		switch {
		case fresh:
			if role.Name, err = s.freeName(ctx, tx, r.Name); err == nil {
				_, err = w.Create(ctx, s.roles.Name, "", r.ID, role)
			}
		default:
			err = w.Replace(ctx, s.roles.Name, r.ID, role)
		}
		if err != nil {
			return false, fmt.Errorf("make the role %s: %w", r.ID, err)
		}
	}
	for _, t := range []octopus.Team{
		{Resource: octopus.Resource{ID: octopus.TeamEveryone}, Name: "Everyone", Description: "Every user and service account of this server."},
		{Resource: octopus.Resource{ID: octopus.TeamAdministrators}, Name: "Tako Administrators", Description: "Those who may do everything outside of spaces."},
		{Resource: octopus.Resource{ID: octopus.TeamManagers}, Name: "Tako Managers", Description: "Those who manage users, teams and spaces, but not the server itself."},
	} {
		var old octopus.Team
		err := w.Load(ctx, s.teams.Name, t.ID, &old)
		if err == nil {
			continue
		}
		if !fault.Is(err, fault.NotFound) {
			return false, err
		}
		if !write {
			return false, nil
		}
		complete = false
		if err := createTeam(ctx, w, s.teams, s.scoped, t); err != nil {
			return false, err
		}
	}
	return complete, nil
}

// freeName is the name for a new built-in role: its own, unless somebody made a
// role of that name before there was a built-in one.
func (s *Service) freeName(ctx context.Context, tx *db.Tx, name string) (string, error) {
	for {
		var n int
		err := tx.QueryRow(ctx, `SELECT count(*) FROM document_unique u WHERE u.kind = ? AND u.field = 'Name' AND u.value = ?`, s.roles.Name, ident.Fold(name)).Scan(&n)
		if err != nil || n == 0 {
			return name, err
		}
		name += " (built in)"
	}
}

// createTeam makes a built-in team with the role that it is there for.
func createTeam(ctx context.Context, w resource.Writer, teams, scoped *resource.Kind, t octopus.Team) error {
	if _, err := w.Create(ctx, teams.Name, "", t.ID, t); err != nil {
		return fmt.Errorf("make the team %s: %w", t.ID, err)
	}
	if role := permission.RoleOf(t.ID); role != "" {
		if _, err := w.Create(ctx, scoped.Name, "", "", octopus.ScopedUserRole{TeamID: t.ID, UserRoleID: role}); err != nil {
			return fmt.Errorf("give the team %s its role: %w", t.ID, err)
		}
	}
	return nil
}

func union(old, more []octopus.Permission) []octopus.Permission {
	all := slices.Concat(old, more)
	slices.Sort(all)
	return slices.Compact(all)
}

// Administrator is the first one of a server.
type Administrator struct {
	Username string
	Password string // "" for one who uses a key alone
	APIKey   string // "" for none; else it has to match ^API-[A-Z0-9]+$
}

// CreateAdministrator makes sure that there is such a user, who administers the
// server and manages its first space, if that is there. Of a user who exists
// already the password is left alone, so that what stands in the environment of a
// server does not undo a change at every start. It answers the user's id.
func (s *Service) CreateAdministrator(ctx context.Context, a Administrator) (string, error) {
	if a.APIKey != "" && !IsAPIKey(a.APIKey) {
		return "", fault.InvalidField("ApiKey", "The administrator's API key does not match ^API-[A-Z0-9]+$; use %s and upper-case letters and digits.", keyPrefix)
	}
	in := &incoming{
		tree:     resource.Tree{"Username": a.Username, "DisplayName": a.Username, "IsActive": true},
		user:     &octopus.User{Username: a.Username},
		password: a.Password,
	}
	var id string
	err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
		id, err = s.idOf(ctx, tx, a.Username)
		return err
	})
	if err != nil {
		return "", err
	}
	if id == "" { // else the password is not looked at, and not hashed at every start
		if err := in.prepare(ctx, s, a.Username, false); err != nil {
			return "", err
		}
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		var err error
		if id, err = s.idOf(ctx, tx, a.Username); err != nil {
			return err
		}
		if id == "" {
			if in.password != "" && in.hash == "" {
				return fault.New(fault.Conflict, "The administrator '%s' was deleted in this moment; start again.", a.Username)
			}
			doc, err := s.insertUser(ctx, tx, in)
			if err != nil {
				return err
			}
			id = doc.ID
		}
		for _, team := range []string{octopus.TeamAdministrators, permission.SpaceManagersTeam(firstSpace)} {
			if err := s.join(ctx, tx, team, id); err != nil {
				return err
			}
		}
		if a.APIKey == "" {
			return nil
		}
		return s.ensureKey(ctx, tx, id, a)
	})
	return id, err
}

// join makes a user a member of a team, if the team is there.
func (s *Service) join(ctx context.Context, tx *db.Tx, id, user string) error {
	w := s.store.In(tx)
	var team octopus.Team
	err := w.Load(ctx, s.teams.Name, id, &team)
	if fault.Is(err, fault.NotFound) && id != octopus.TeamAdministrators {
		return nil
	}
	if err != nil || slices.Contains(team.MemberUserIDs, user) {
		return err
	}
	team.MemberUserIDs = append(team.MemberUserIDs, user)
	return w.Replace(ctx, s.teams.Name, id, team)
}

func (s *Service) ensureKey(ctx context.Context, tx *db.Tx, user string, a Administrator) error {
	var n, others int
	err := tx.QueryRow(ctx, `SELECT count(*), coalesce(sum(CASE WHEN k.user_id <> ? THEN 1 ELSE 0 END), 0) FROM api_key k WHERE k.hash = ?`, user, hash(a.APIKey)).Scan(&n, &others)
	switch {
	case err != nil:
		return fmt.Errorf("look up the administrator's API key: %w", err)
	case others > 0:
		return fault.New(fault.Conflict, "The administrator's API key belongs to another user; choose another key.")
	case n > 0:
		return nil
	}
	_, err = s.addKey(ctx, tx, octopus.User{Resource: octopus.Resource{ID: user}, Username: a.Username}, a.APIKey, "Administrator's key, set at start", time.Time{})
	return err
}

// ResetPassword gives a user a new password, activates them and forgets their
// failed sign-ins: for whoever runs the server and is locked out.
func (s *Service) ResetPassword(ctx context.Context, username, password string) error {
	in := &incoming{password: password}
	if password == "" {
		return fault.InvalidField("Password", "Password is empty; use at least %d characters.", MinPassword)
	}
	if err := in.prepare(ctx, s, username, false); err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		id, err := s.idOf(ctx, tx, username)
		if err != nil {
			return err
		}
		if id == "" {
			return fault.Missing(s.users.Noun, username)
		}
		w := s.store.In(tx)
		var user octopus.User
		if err := w.Load(ctx, s.users.Name, id, &user); err != nil {
			return err
		}
		if user.IsService {
			return fault.New(fault.Invalid, "'%s' is a service account, which has no password; create an API key for it.", username)
		}
		if !user.IsActive {
			user.IsActive = true
			if err := w.Replace(ctx, s.users.Name, id, user); err != nil {
				return err
			}
		}
		return s.changePassword(ctx, tx, nil, user, in.hash)
	})
}

// HasAdministrator reports whether anybody can administer the server: before the
// first one is made, it offers to be set up.
func (s *Service) HasAdministrator(ctx context.Context) (bool, error) {
	var team octopus.Team
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		return s.store.Load(ctx, tx, s.teams.Name, octopus.TeamAdministrators, &team)
	})
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return len(team.MemberUserIDs) > 0, err
}

// IssueAPIKey makes a key for a user and returns it: for whoever runs the server,
// from its own machine.
func (s *Service) IssueAPIKey(ctx context.Context, username, purpose string) (string, error) {
	key := newKey()
	err := s.db.Write(ctx, func(tx *db.Tx) error {
		id, err := s.idOf(ctx, tx, username)
		if err != nil {
			return err
		}
		if id == "" {
			return fault.Missing(s.users.Noun, username)
		}
		_, err = s.addKey(ctx, tx, octopus.User{Resource: octopus.Resource{ID: id}, Username: username}, key, purpose, time.Time{})
		return err
	})
	if err != nil {
		return "", err
	}
	return key, nil
}
