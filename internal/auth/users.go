package auth

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/permission"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Me is how requests name the user who sends them.
const Me = "me"

// resolve finds the id that a reference means: "me", an id, or a user name.
func (s *Service) resolve(ctx context.Context, tx *db.Tx, by *Principal, ref string) (string, error) {
	if strings.EqualFold(ref, Me) {
		return by.UserID(), nil
	}
	id := docstore.CanonicalID(s.users, ref)
	if _, err := s.store.Get(ctx, tx, s.users, "", id); err == nil || !fault.Is(err, fault.NotFound) {
		return id, err
	}
	id, err := s.idOf(ctx, tx, ref)
	if err == nil && id == "" {
		err = fault.Missing(s.users.Noun, ref)
	}
	return id, err
}

// visibleUser returns a user whom by may see: itself, or others with UserView.
func (s *Service) visibleUser(ctx context.Context, tx *db.Tx, by *Principal, ref string) (*known, error) {
	id, err := s.resolve(ctx, tx, by, ref)
	if err != nil {
		return nil, err
	}
	if id != by.UserID() && !by.onSystem(octopus.PermUserView) {
		return nil, fault.Missing(s.users.Noun, ref)
	}
	return s.know(ctx, tx, nil, id)
}

// mayManage refuses to let by change the credentials of another user unless it
// may edit users and holds all that the other one can do on the system: who sets
// a password can sign in with it.
func (s *Service) mayManage(by *Principal, other *known) error {
	if other.user.ID == by.UserID() {
		return nil
	}
	if !by.onSystem(octopus.PermUserEdit) {
		return forbidden(octopus.PermUserEdit)
	}
	if by.onSystem(octopus.PermAdministerSystem) {
		return nil
	}
	for _, p := range other.access.System() {
		if info, ok := permission.Find(p); ok && !info.Looks() && !by.onSystem(p) {
			return fault.New(fault.Forbidden, "You cannot change the user '%s', who holds %s and you do not. Ask an administrator to do it.", other.user.Username, p)
		}
	}
	return nil
}

func forbidden(p octopus.Permission) error {
	return fault.New(fault.Forbidden, "You do not have permission to do this: it needs %s. Ask an administrator for a role that grants it.", p)
}

// User returns the document of a user whom by may see; ref is an id, a user name
// or "me".
func (s *Service) User(ctx context.Context, by *Principal, ref string) (*docstore.Doc, error) {
	var doc *docstore.Doc
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		id, err := s.resolve(ctx, tx, by, ref)
		if err != nil {
			return err
		}
		if id != by.UserID() && !by.onSystem(octopus.PermUserView) {
			return fault.Missing(s.users.Noun, ref)
		}
		doc, err = s.store.Get(ctx, tx, s.users, "", id)
		return err
	})
	return doc, err
}

// UserQuery asks for a page of users.
type UserQuery struct {
	IDs []string // only these, when it is not nil
	// Filter keeps those that have it in their user name, display name or
	// e-mail address, without case.
	Filter string
	Page   ident.Page
}

// FindUsers lists users by their user name, and how many there are in all. Who
// may not see users finds itself.
func (s *Service) FindUsers(ctx context.Context, by *Principal, q UserQuery) (docs []*docstore.Doc, total int64, err error) {
	where, args := `1 = 1`, []any{}
	one := func(clause string, values ...any) {
		where += ` AND ` + clause
		args = append(args, values...)
	}
	if !by.onSystem(octopus.PermUserView) {
		one(`u.user_id = ?`, by.UserID())
	}
	if f := ident.Fold(q.Filter); f != "" {
		like := db.Containing(f)
		one(`(u.username LIKE ? ESCAPE '\' OR u.display LIKE ? ESCAPE '\' OR u.email LIKE ? ESCAPE '\')`, like, like, like)
	}
	const most = 5000
	if q.IDs != nil {
		ids := []any{""}
		for _, id := range q.IDs[:min(len(q.IDs), most)] {
			ids = append(ids, docstore.CanonicalID(s.users, id))
		}
		one(`u.user_id IN (?`+strings.Repeat(", ?", len(ids)-1)+`)`, ids...)
	}
	page := q.Page.Clamp()
	page.Take = min(page.Take, most)
	err = s.db.Read(ctx, func(tx *db.Tx) error {
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM user_search u WHERE `+where, args...).Scan(&total); err != nil {
			return fmt.Errorf("count users: %w", err)
		}
		ids, err := s.userIDs(ctx, tx, where, append(slices.Clone(args), page.Take, page.Skip))
		if err != nil || len(ids) == 0 {
			docs = nil
			return err
		}
		found, _, err := s.store.List(ctx, tx, s.users, docstore.Query{IDs: ids, Page: ident.Page{Take: ident.MaxTake}})
		if err != nil {
			return err
		}
		place := map[string]int{}
		for i, id := range ids {
			place[id] = i
		}
		slices.SortFunc(found, func(a, b *docstore.Doc) int { return place[a.ID] - place[b.ID] })
		docs = found
		return nil
	})
	return docs, total, err
}

func (s *Service) userIDs(ctx context.Context, tx *db.Tx, where string, args []any) ([]string, error) {
	rows, err := tx.Query(ctx, `SELECT u.user_id FROM user_search u WHERE `+where+` ORDER BY u.username, u.seq LIMIT ? OFFSET ?`, args...)
	if err != nil {
		return nil, fmt.Errorf("list users: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err below tells
	var ids []string
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, fmt.Errorf("list users: %w", err)
		}
		ids = append(ids, id)
	}
	return ids, rows.Err()
}

// incoming is a user's document as a client sends it, with the password apart.
type incoming struct {
	tree     resource.Tree
	user     *octopus.User
	password string // "" for none
	hash     string // of it, once it was checked
}

func (s *Service) readUser(body []byte) (*incoming, error) {
	tree, v, err := s.users.Decode(body)
	if err != nil {
		return nil, err
	}
	in := &incoming{tree: tree, user: v.(*octopus.User)}
	if p := in.user.Password; p != nil {
		in.password = string(*p)
	}
	delete(tree, "Password")
	in.user.Password = nil
	return in, nil
}

// prepare checks the password and hashes it, which takes long and must be done
// before the transaction.
func (in *incoming) prepare(ctx context.Context, s *Service, username string, service bool) error {
	if in.password == "" {
		return nil
	}
	if service {
		return fault.InvalidField("Password", "A service account cannot sign in and has no password; leave Password out and create an API key.")
	}
	if err := checkPassword(username, in.password); err != nil {
		return err
	}
	var err error
	in.hash, err = s.hasher.hash(ctx, in.password)
	return err
}

// CreateUser makes a user or a service account from a client's document. An
// IsActive that was left out is true.
func (s *Service) CreateUser(ctx context.Context, by *Principal, body []byte) (*docstore.Doc, error) {
	if !by.onSystem(octopus.PermUserInvite) && !by.onSystem(octopus.PermUserEdit) {
		return nil, forbidden(octopus.PermUserInvite)
	}
	in, err := s.readUser(body)
	if err != nil {
		return nil, err
	}
	if err := in.prepare(ctx, s, in.user.Username, in.user.IsService); err != nil {
		return nil, err
	}
	return s.createUser(ctx, in)
}

func (s *Service) createUser(ctx context.Context, in *incoming) (doc *docstore.Doc, err error) {
	if _, given := in.tree["IsActive"]; !given {
		in.tree["IsActive"] = true
	}
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		doc, err = s.insertUser(ctx, tx, in)
		return err
	})
	return doc, err
}

func (s *Service) insertUser(ctx context.Context, tx *db.Tx, in *incoming) (*docstore.Doc, error) {
	tree := maps.Clone(in.tree)
	tree["Created"] = octopus.NewTime(tx.Now())
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode user: %w", err)
	}
	doc, err := s.store.Create(ctx, tx, s.users, docstore.Input{Body: body, Server: true})
	if err != nil || in.hash == "" {
		return doc, err
	}
	return doc, storePassword(ctx, tx, doc.ID, in.hash)
}

// ReplaceUser stores a client's document in place of a user's. Without UserEdit
// people can change their own display name, e-mail address and password, and all
// else stays as it is. A new password ends the user's other sessions.
func (s *Service) ReplaceUser(ctx context.Context, by *Principal, ref string, body []byte, expect int64) (*docstore.Doc, error) {
	in, err := s.readUser(body)
	if err != nil {
		return nil, err
	}
	var before *known
	err = s.db.Read(ctx, func(tx *db.Tx) error {
		before, err = s.keysOf(ctx, tx, by, ref)
		return err
	})
	if err != nil {
		return nil, err
	}
	if !by.onSystem(octopus.PermUserEdit) {
		in.user.Username, in.user.IsService, in.user.IsActive = before.user.Username, before.user.IsService, before.user.IsActive
	} else if before.user.ID == by.UserID() && (!in.user.IsActive || in.user.IsService) {
		return nil, fault.InvalidField("IsActive", "You cannot lock yourself out; have somebody else deactivate you.")
	}
	if err := in.prepare(ctx, s, in.user.Username, in.user.IsService); err != nil {
		return nil, err
	}
	var doc *docstore.Doc
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		owner, err := s.keysOf(ctx, tx, by, before.user.ID)
		if err != nil {
			return err
		}
		input := docstore.Input{Expect: expect}
		if input.Body, err = s.merge(ctx, tx, by, owner.user.ID, in); err != nil {
			return err
		}
		if doc, err = s.store.Replace(ctx, tx, s.users, "", owner.user.ID, input); err != nil || in.hash == "" {
			return err
		}
		return s.changePassword(ctx, tx, by, owner.user, in.hash)
	})
	return doc, err
}

// merge is what a replacement stores: what the client sent, or of it only what
// people may change of themselves.
func (s *Service) merge(ctx context.Context, tx *db.Tx, by *Principal, id string, in *incoming) ([]byte, error) {
	tree := in.tree
	if !by.onSystem(octopus.PermUserEdit) {
		doc, err := s.store.Get(ctx, tx, s.users, "", id)
		if err != nil {
			return nil, err
		}
		if tree, err = s.store.Tree(s.users, doc); err != nil {
			return nil, err
		}
		tree["DisplayName"], tree["EmailAddress"] = in.user.DisplayName, in.user.EmailAddress
	}
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode user: %w", err)
	}
	return body, nil
}

// changePassword stores a new password, forgets the failures with the old one,
// and ends all sessions but the one in which it is done.
func (s *Service) changePassword(ctx context.Context, tx *db.Tx, by *Principal, user octopus.User, phc string) error {
	if err := storePassword(ctx, tx, user.ID, phc); err != nil {
		return err
	}
	if err := s.forgive(ctx, tx, s.subjects(SignIn{Username: user.Username})); err != nil {
		return err
	}
	const lead = "Password of user "
	tx.Event(db.Event{
		Category: "Modified", Message: lead + user.Username + " was changed", DocumentType: s.users.ItemType,
		Related: []string{user.ID}, References: []db.EventReference{{ID: user.ID, Start: len(lead), Length: len(user.Username)}},
	})
	but := ""
	if by != nil && by.credential == BySession && by.UserID() == user.ID {
		but = by.id
	}
	return endSessions(ctx, tx, user.ID, but)
}

// SetPassword changes the password of a user: by's own, or another one's that by
// may manage.
func (s *Service) SetPassword(ctx context.Context, by *Principal, ref, password string) error {
	if password == "" {
		return fault.InvalidField("Password", "Password is empty; use at least %d characters.", MinPassword)
	}
	var owner *known
	err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
		owner, err = s.keysOf(ctx, tx, by, ref)
		return err
	})
	if err != nil {
		return err
	}
	in := &incoming{password: password}
	if err := in.prepare(ctx, s, owner.user.Username, owner.user.IsService); err != nil {
		return err
	}
	return s.db.Write(ctx, func(tx *db.Tx) error {
		owner, err := s.keysOf(ctx, tx, by, owner.user.ID)
		if err != nil {
			return err
		}
		return s.changePassword(ctx, tx, by, owner.user, in.hash)
	})
}

// DeleteUser deletes a user with their keys and sessions; nobody can delete
// themselves. The audit trail keeps the name.
func (s *Service) DeleteUser(ctx context.Context, by *Principal, ref string) error {
	return s.db.Write(ctx, func(tx *db.Tx) error {
		owner, err := s.keysOf(ctx, tx, by, ref)
		if err != nil {
			return err
		}
		if owner.user.ID == by.UserID() {
			return fault.New(fault.Conflict, "You cannot delete yourself; have somebody else do it.")
		}
		tx.Changed(changesKind)
		return s.store.Delete(ctx, tx, s.users, "", owner.user.ID)
	})
}
