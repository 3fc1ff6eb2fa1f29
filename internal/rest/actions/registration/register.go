package registration

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// maker is who made a token, in whose name it registers.
type maker struct {
	actor  db.Actor
	access *auth.Access
}

func (m maker) Actor() db.Actor      { return m.actor }
func (m maker) Access() *auth.Access { return m.access }

// register makes a machine of an agent that has a token. An agent that asks again gets
// the machine that it has, so that a lost answer costs nothing.
func (a *api) register(r *rest.Request) (any, error) {
	var in octopus.RegistrationCommand
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if err := check(&in); err != nil {
		return nil, err
	}
	token := string(in.Token)
	if len(token) > maxToken {
		return nil, unknownToken()
	}
	// Only who has a token gets as far as a transaction that writes, which is done in the
	// name of the token's maker.
	var who db.Actor
	if err := a.DB.Read(r.Context(), func(tx *db.Tx) error {
		t, err := live(r.Context(), tx, token, "")
		if err == nil {
			who, err = a.maker(r.Context(), tx, t)
		}
		return err
	}); err != nil {
		return nil, err
	}
	var out octopus.Registration
	ctx := db.WithActor(r.Context(), who)
	thumbprint, err := a.Thumbprint(r.Context())
	if err != nil {
		return nil, err
	}
	err = a.DB.Write(ctx, func(tx *db.Tx) (err error) {
		out, err = a.admit(ctx, r, tx, token, in)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Thumbprint = thumbprint
	return rest.Created{Body: out}, nil
}

// check reads how the agent is reached.
func check(in *octopus.RegistrationCommand) error {
	var errs []error
	if in.Name = strings.TrimSpace(in.Name); in.Name == "" {
		errs = append(errs, fault.InvalidField("Name", "Name is empty; say what the machine is to be called."))
	}
	thumbprint, err := halibut.ParseThumbprint(in.Endpoint.Thumbprint)
	errs = append(errs, err)
	e := octopus.Endpoint{CommunicationStyle: in.Endpoint.CommunicationStyle, URI: in.Endpoint.URI, Thumbprint: string(thumbprint)}
	switch e.CommunicationStyle {
	case octopus.StyleListening:
		_, err := halibut.ParseAddress(e.URI, halibut.DefaultAgentPort)
		errs = append(errs, err)
	case octopus.StylePolling:
		sub, err := halibut.ParseSubscription(e.URI)
		errs, e.URI = append(errs, err), string(sub)
	default:
		errs = append(errs, fault.InvalidField("Endpoint.CommunicationStyle", "Endpoint.CommunicationStyle is '%.40s'; agents register as %s or %s.", e.CommunicationStyle, octopus.StyleListening, octopus.StylePolling))
	}
	in.Endpoint = e // an agent says no more of itself
	return errors.Join(errs...)
}

func unknownToken() error {
	return fault.New(fault.Unauthenticated, "The registration token is unknown, revoked or expired; ask for a new one.")
}

// live finds a token that has not expired. lock is SQL that keeps others from using it
// meanwhile, or "".
func live(ctx context.Context, tx *db.Tx, token, lock string) (t row, err error) {
	err = t.scan(tx.QueryRow(ctx, `SELECT `+columns+` FROM registration_token t WHERE t.hash = ?`+lock, hash(token)).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		return t, unknownToken()
	case err != nil:
		return t, fmt.Errorf("read a registration token: %w", err)
	case t.expires <= db.Micros(tx.Now()):
		return t, unknownToken()
	}
	return t, nil
}

// admit makes the machine, or finds it, and says everything but the server's thumbprint.
func (a *api) admit(ctx context.Context, r *rest.Request, tx *db.Tx, token string, in octopus.RegistrationCommand) (octopus.Registration, error) {
	var none octopus.Registration
	t, err := live(ctx, tx, token, tx.ForUpdate())
	if err != nil {
		return none, err
	}
	var space octopus.Space
	if err := a.Store.Load(ctx, tx, "spaces", t.space, &space); fault.Is(err, fault.NotFound) {
		return none, unknownToken()
	} else if err != nil {
		return none, err
	}
	if locked, err := a.Maintenance(ctx, tx); err != nil || locked {
		return none, errors.Join(err, fault.New(fault.Unavailable, "The server is in maintenance mode; try again when it is off."))
	}
	s := sorts()[slices.IndexFunc(sorts(), func(s sort) bool { return s.kind == t.kind })]
	k, err := a.Store.Kind(s.kind)
	if err != nil {
		return none, err
	}
	as, err := a.inNameOf(ctx, r, tx, t)
	if err != nil {
		return none, err
	}
	doc, err := a.machineOf(ctx, tx, t, s, in)
	if err != nil {
		return none, err
	}
	if doc == nil {
		if t.used >= t.uses {
			return none, fault.New(fault.Conflict, "The registration token has registered the %d machines that it was made for; ask for a new one.", t.uses)
		}
		var scope octopus.RegistrationScope
		if err := json.Unmarshal([]byte(t.scope), &scope); err != nil {
			return none, fmt.Errorf("read registration token %s: %w", t.id, err)
		}
		body, err := machine(s, scope, in.Name, in.Endpoint)
		if err != nil {
			return none, err
		}
		if doc, err = a.Store.Create(ctx, tx, k, docstore.Input{Space: ident.SpaceID(t.space), Body: body}); err != nil {
			return none, err
		}
		if err := use(ctx, tx, t, in.Endpoint.Thumbprint, doc.ID); err != nil {
			return none, err
		}
		t.tell(tx, "Modified", fmt.Sprintf("registered %s, as %d of %d", in.Name, t.used+1, t.uses), doc.ID)
	}
	if err := as.Must(ctx, tx, s.kind, doc, string(s.permission)); err != nil {
		return none, err
	}
	tree, err := a.Store.Tree(k, doc)
	if err != nil {
		return none, err
	}
	return octopus.Registration{SpaceID: t.space, MachineID: doc.ID, Name: resource.Text(tree, "Name")}, nil
}

// maker tells who made a token, if that is still an active user.
func (a *api) maker(ctx context.Context, tx *db.Tx, t row) (db.Actor, error) {
	actor := db.ActorFrom(ctx) // for where it comes from
	var user octopus.User
	err := a.Store.Load(ctx, tx, "users", t.user, &user)
	if fault.Is(err, fault.NotFound) || err == nil && !user.IsActive {
		err = fault.New(fault.Forbidden, "Who made the registration token is no active user any more; ask for a new one.")
	}
	actor.UserID, actor.Username, actor.Identity = user.ID, user.Username, "RegistrationToken"
	return actor, err
}

// inNameOf is the request as its token's maker would send it.
func (a *api) inNameOf(ctx context.Context, r *rest.Request, tx *db.Tx, t row) (*rest.Request, error) {
	actor, err := a.maker(ctx, tx, t)
	if err != nil {
		return nil, err
	}
	access, err := a.Auth.AccessIn(ctx, tx, t.user)
	if err != nil {
		return nil, err
	}
	as := *r
	as.Principal, as.Space = maker{actor, access}, ident.SpaceID(t.space)
	return &as, nil
}

// machineOf brings the machine up to date that the token has made for the agent already;
// nil when it has made none, or it is gone.
func (a *api) machineOf(ctx context.Context, tx *db.Tx, t row, s sort, in octopus.RegistrationCommand) (*docstore.Doc, error) {
	var id string
	err := tx.QueryRow(ctx, `SELECT machine_id FROM registration_use WHERE token_id = ? AND thumbprint = ?`, t.id, in.Endpoint.Thumbprint).Scan(&id)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the uses of registration token %s: %w", t.id, err)
	}
	k, err := a.Store.Kind(s.kind)
	if err != nil {
		return nil, err
	}
	doc, err := a.Store.Get(ctx, tx, k, ident.SpaceID(t.space), id)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	tree, err := a.Store.Tree(k, doc)
	if err != nil {
		return nil, err
	}
	if tree["Thumbprint"] != in.Endpoint.Thumbprint {
		return nil, fault.New(fault.Conflict, "The machine '%s' that was registered with this token has another agent now; ask for a new token.", resource.Text(tree, "Name"))
	}
	if endpoint, ok := tree["Endpoint"].(map[string]any); ok && endpoint["Uri"] == in.Endpoint.URI {
		return doc, nil
	}
	tree["Endpoint"], tree["Uri"] = in.Endpoint, in.Endpoint.URI
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, err
	}
	return a.Store.Replace(ctx, tx, k, doc.Space, doc.ID, docstore.Input{Body: body, Server: true})
}

func use(ctx context.Context, tx *db.Tx, t row, thumbprint, machine string) error {
	if _, err := tx.Exec(ctx, `UPDATE registration_token SET used = used + 1 WHERE id = ?`, t.id); err != nil {
		return fmt.Errorf("use registration token %s: %w", t.id, err)
	}
	if _, err := tx.Exec(ctx, `DELETE FROM registration_use WHERE token_id = ? AND thumbprint = ?`, t.id, thumbprint); err != nil {
		return fmt.Errorf("use registration token %s: %w", t.id, err)
	}
	_, err := tx.Exec(ctx, `INSERT INTO registration_use (token_id, thumbprint, machine_id, at) VALUES (?, ?, ?, ?)`, t.id, thumbprint, machine, db.Micros(tx.Now()))
	if err != nil {
		return fmt.Errorf("use registration token %s: %w", t.id, err)
	}
	return nil
}
