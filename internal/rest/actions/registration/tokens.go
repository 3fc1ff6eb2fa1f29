package registration

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"database/sql"
	"encoding/base32"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

const (
	tokenPrefix = "tako-register-"
	hintLength  = len(tokenPrefix) + 4
	maxToken    = 256 // bytes
	idPrefix    = "RegistrationTokens"
)

// newToken makes one of 160 random bits: they are read aloud and typed at times.
func newToken() string {
	random := make([]byte, 20)
	_, _ = rand.Read(random) // never fails
	return tokenPrefix + strings.ToLower(base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString(random))
}

func hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return hex.EncodeToString(sum[:])
}

// row is a token as it is stored.
type row struct {
	id, space, kind, hint, scope, user string
	created, expires, uses, used       int64
}

const columns = `t.id, t.space_id, t.kind, t.hint, t.scope, t.user_id, t.created, t.expires, t.uses, t.used`

func (t *row) scan(scan func(...any) error) error {
	return scan(&t.id, &t.space, &t.kind, &t.hint, &t.scope, &t.user, &t.created, &t.expires, &t.uses, &t.used)
}

func (t *row) wire(r *rest.Request) (octopus.RegistrationToken, error) {
	out := octopus.RegistrationToken{
		SpaceID: t.space, Hint: t.hint, Uses: int(t.uses), Used: int(t.used), UserID: t.user,
		Created: octopus.NewTime(db.Time(t.created)), Expires: octopus.NewTime(db.Time(t.expires)),
	}
	out.ID = t.id
	out.Links = octopus.Links{"Self": r.SpaceHref("/" + t.kind + "/registration-tokens/" + t.id)}
	if err := json.Unmarshal([]byte(t.scope), &out.RegistrationScope); err != nil {
		return out, fmt.Errorf("read registration token %s: %w", t.id, err)
	}
	return out, nil
}

// machine is the document that a registration makes.
func machine(s sort, scope octopus.RegistrationScope, name string, endpoint octopus.Endpoint) ([]byte, error) {
	base := octopus.MachineBase{Name: name, MachinePolicyID: scope.MachinePolicyID, Endpoint: endpoint}
	if s.kind == "workers" {
		return json.Marshal(octopus.Worker{MachineBase: base, WorkerPoolIDs: scope.WorkerPoolIDs})
	}
	return json.Marshal(octopus.Machine{
		MachineBase: base, EnvironmentIDs: scope.EnvironmentIDs, Roles: scope.Roles,
		TenantedDeploymentParticipation: scope.TenantedDeploymentParticipation, TenantIDs: scope.TenantIDs, TenantTags: scope.TenantTags,
	})
}

// errTried ends the transaction of a trial.
var errTried = errors.New("tried")

// try finds out whether the caller could register a machine as the scope says.
func (a *api) try(r *rest.Request, s sort, scope octopus.RegistrationScope) error {
	k, err := a.Store.Kind(s.kind)
	if err != nil {
		return err
	}
	own, err := a.Thumbprint(r.Context())
	if err != nil {
		return err
	}
	body, err := machine(s, scope, "trial of "+newToken(), octopus.Endpoint{
		CommunicationStyle: octopus.StylePolling, URI: string(halibut.NewSubscription()), Thumbprint: own,
	})
	if err != nil {
		return err
	}
	err = a.DB.Write(r.Context(), func(tx *db.Tx) error {
		doc, err := a.Store.Create(r.Context(), tx, k, docstore.Input{Space: r.Space, Body: body})
		if err == nil {
			err = r.Must(r.Context(), tx, s.kind, doc, string(s.permission))
		}
		if err == nil {
			err = errTried // which leaves nothing of it
		}
		return err
	})
	if errors.Is(err, errTried) {
		return nil
	}
	return err
}

func (a *api) create(r *rest.Request, s sort) (any, error) {
	var in octopus.RegistrationTokenCommand
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	if in.Uses == 0 {
		in.Uses = 1
	}
	if in.Minutes == 0 {
		in.Minutes = int(defaultLife / time.Minute)
	}
	var errs []error
	if in.Uses < 1 || in.Uses > maxUses {
		errs = append(errs, fault.InvalidField("Uses", "Uses is %d; use a number from 1 to %d.", in.Uses, maxUses))
	}
	if most := int(maxLife / time.Minute); in.Minutes < 1 || in.Minutes > most {
		errs = append(errs, fault.InvalidField("Minutes", "Minutes is %d; use a number from 1 to %d.", in.Minutes, most))
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if in.TenantedDeploymentParticipation == "" && s.kind == "machines" {
		in.TenantedDeploymentParticipation = octopus.Untenanted
	}
	if err := a.try(r, s, in.RegistrationScope); err != nil {
		return nil, err
	}
	scope, err := json.Marshal(in.RegistrationScope)
	if err != nil {
		return nil, err
	}
	token := newToken()
	t := row{space: string(r.Space), kind: s.kind, hint: token[:hintLength], scope: string(scope), user: r.Principal.Actor().UserID, uses: int64(in.Uses)}
	err = a.DB.Write(r.Context(), func(tx *db.Tx) error {
		t.created = db.Micros(tx.Now())
		t.expires = db.Micros(tx.Now().Add(time.Duration(in.Minutes) * time.Minute))
		return a.store(r.Context(), tx, &t, token)
	})
	if err != nil {
		return nil, err
	}
	out := octopus.RegistrationTokenCreated{Token: octopus.PlainSecret(token)}
	if out.RegistrationToken, err = t.wire(r); err != nil {
		return nil, err
	}
	out.Commands = a.commands(r, token)
	return rest.Created{Body: out, Location: out.Links["Self"]}, nil
}

// store writes a token, and sweeps those away that expired long ago.
func (a *api) store(ctx context.Context, tx *db.Tx, t *row, token string) error {
	old := db.Micros(tx.Now().Add(-keepExpired))
	for _, query := range []string{
		`DELETE FROM registration_use WHERE token_id IN (SELECT id FROM registration_token WHERE expires < ?)`,
		`DELETE FROM registration_token WHERE expires < ?`,
	} {
		if _, err := tx.Exec(ctx, query, old); err != nil {
			return fmt.Errorf("sweep registration tokens: %w", err)
		}
	}
	var n int
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM registration_token WHERE space_id = ? AND expires > ?`, t.space, t.created).Scan(&n); err != nil {
		return fmt.Errorf("count registration tokens: %w", err)
	}
	if n >= maxTokens {
		return fault.New(fault.Conflict, "The space has %d registration tokens that have not expired; revoke some first.", n)
	}
	seq, err := tx.NextSeq(ctx, idPrefix)
	if err != nil {
		return err
	}
	t.id = ident.ID(idPrefix, seq)
	_, err = tx.Exec(ctx, `INSERT INTO registration_token (id, seq, space_id, kind, hash, hint, scope, user_id, created, expires, uses, used) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)`,
		t.id, seq, t.space, t.kind, hash(token), t.hint, t.scope, t.user, t.created, t.expires, t.uses)
	if err != nil {
		return fmt.Errorf("store registration token %s: %w", t.id, err)
	}
	t.tell(tx, "Created", fmt.Sprintf("was created for %d %s, until %s", t.uses, t.kind, db.Time(t.expires).Format(time.RFC3339)))
	return nil
}

// tell writes an event about the token.
func (t *row) tell(tx *db.Tx, category, did string, related ...string) {
	const lead = "Registration token "
	name := t.hint + "..."
	tx.Event(db.Event{
		Category: category, SpaceID: t.space, Message: lead + name + " " + did, DocumentType: "RegistrationToken",
		Related:    append([]string{t.id}, related...),
		References: []db.EventReference{{ID: t.id, Start: len(lead), Length: len(name)}},
	})
}

// commands are ready to be run. They say nothing that is so without being said.
func (a *api) commands(r *rest.Request, token string) octopus.List[octopus.RegistrationCommandLine] {
	line := "tako-agent install --server " + a.serverURL(r) + " --token " + token
	lines := octopus.List[octopus.RegistrationCommandLine]{
		{Platform: "Linux", CommunicationStyle: octopus.StyleListening, Command: octopus.PlainSecret(line)},
	}
	if a.CommsPort == 0 {
		return lines
	}
	line += " --comms-style " + string(octopus.StylePolling)
	if port := strconv.Itoa(a.CommsPort); port != halibut.DefaultServerPort {
		line += " --server-comms-port " + port
	}
	return append(lines, octopus.RegistrationCommandLine{Platform: "Linux", CommunicationStyle: octopus.StylePolling, Command: octopus.PlainSecret(line)})
}

func (a *api) list(r *rest.Request, s sort) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	var found []octopus.RegistrationToken
	var total int64
	err = a.DB.Read(r.Context(), func(tx *db.Tx) error {
		found = nil
		ctx := r.Context()
		which, args := seen(r, s)
		if err := tx.QueryRow(ctx, `SELECT count(*) FROM registration_token t WHERE `+which, args...).Scan(&total); err != nil {
			return fmt.Errorf("count registration tokens: %w", err)
		}
		rows, err := tx.Query(ctx, `SELECT `+columns+` FROM registration_token t WHERE `+which+` ORDER BY t.seq DESC LIMIT ? OFFSET ?`, append(args, page.Take, page.Skip)...)
		if err != nil {
			return fmt.Errorf("list registration tokens: %w", err)
		}
		defer func() { _ = rows.Close() }() // Err below tells
		for rows.Next() {
			var t row
			if err := t.scan(rows.Scan); err != nil {
				return fmt.Errorf("list registration tokens: %w", err)
			}
			one, err := t.wire(r)
			if err != nil {
				return err
			}
			found = append(found, one)
		}
		return rows.Err()
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "RegistrationToken", page, total, found), nil
}

// seen says which tokens the caller may know of: who may register machines in some
// environments or for some tenants only knows of their own.
func seen(r *rest.Request, s sort) (which string, args []any) {
	which, args = `t.space_id = ? AND t.kind = ?`, []any{string(r.Space), s.kind}
	if r.Grants(string(s.permission)) != nil {
		which, args = which+` AND t.user_id = ?`, append(args, r.Principal.Actor().UserID)
	}
	return which, args
}

func find(r *rest.Request, tx *db.Tx, s sort, id string) (t row, err error) {
	which, args := seen(r, s)
	err = t.scan(tx.QueryRow(r.Context(), `SELECT `+columns+` FROM registration_token t WHERE t.id = ? AND `+which, append([]any{id}, args...)...).Scan)
	switch {
	case errors.Is(err, sql.ErrNoRows):
		err = fault.Missing("registration token", id)
	case err != nil:
		err = fmt.Errorf("read registration token %s: %w", id, err)
	}
	return t, err
}

func (a *api) get(r *rest.Request, s sort) (any, error) {
	var t row
	err := a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		t, err = find(r, tx, s, r.PathValue(s.token))
		return err
	})
	if err != nil {
		return nil, err
	}
	return t.wire(r)
}

func (a *api) revoke(r *rest.Request, s sort) (any, error) {
	return nil, a.DB.Write(r.Context(), func(tx *db.Tx) error {
		t, err := find(r, tx, s, r.PathValue(s.token))
		if err != nil {
			return err
		}
		for _, query := range []string{`DELETE FROM registration_use WHERE token_id = ?`, `DELETE FROM registration_token WHERE id = ?`} {
			if _, err := tx.Exec(r.Context(), query, t.id); err != nil {
				return fmt.Errorf("delete registration token %s: %w", t.id, err)
			}
		}
		t.tell(tx, "Deleted", "was revoked")
		return nil
	})
}
