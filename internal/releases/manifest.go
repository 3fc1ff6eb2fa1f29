package releases

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// manifestFormat is the version of manifests that this code writes. It reads this
// one and older ones.
const manifestFormat = 1

// manifest is the frozen set of variables of one deployment: the snapshots of its
// release, and what it has to itself. It is written once.
type manifest struct {
	Format int           `json:"format"`
	Sets   []manifestSet `json:"sets"`
	// ByID and ByName are answers to prompts, each sealed, since whether an
	// answer is a secret is for the variable to say.
	ByID   map[string]string `json:"byId,omitempty"`
	ByName map[string]string `json:"byName,omitempty"`
	// Passed are values that another deployment has handed over, sealed; they go
	// before all others.
	Passed []passedValue `json:"passed,omitempty"`
	// Carried are the outputs of steps that had succeeded in the deployment that this
	// one goes on from.
	Carried []carriedOutput `json:"carried,omitempty"`
	// System are the variables that the server defines.
	System []manifestValue `json:"system"`
	// IgnoreFreezes is that of the deployment's options.
	IgnoreFreezes bool `json:"ignoreFreezes,omitempty"`
}

// manifestSet is a snapshot of variables.
type manifestSet struct {
	ID      string `json:"id"`
	Library bool   `json:"library,omitempty"`
	Order   int64  `json:"order,omitempty"`
}

type passedValue struct {
	Name      string `json:"name"`
	Sealed    string `json:"sealed"`
	Sensitive bool   `json:"sensitive,omitempty"`
	From      string `json:"from"` // the project
}

type manifestValue struct {
	Name  string `json:"name"`
	Value string `json:"value"`
}

// storeManifest writes the manifest of a deployment.
func (s *Service) storeManifest(ctx context.Context, tx *db.Tx, sc *scene, d *octopus.Deployment, o *Options, system []variables.Variable) error {
	m := manifest{Format: manifestFormat, System: make([]manifestValue, len(system)), IgnoreFreezes: o.IgnoreFreezes}
	for _, set := range sc.frozen.sets {
		m.Sets = append(m.Sets, manifestSet{ID: set.id, Library: set.library, Order: set.order})
	}
	for i, v := range system {
		m.System[i] = manifestValue{v.Name, v.Value}
	}
	var err error
	if m.ByID, err = s.sealAnswers(d.ManifestVariableSetID, "id", o.FormValues); err != nil {
		return err
	}
	if m.ByName, err = s.sealAnswers(d.ManifestVariableSetID, "name", o.Variables); err != nil {
		return err
	}
	for _, v := range o.passed {
		sealed, err := s.cfg.Sealer.Seal(d.ManifestVariableSetID, "passed."+v.Name, []byte(v.Value))
		if err != nil {
			return fmt.Errorf("seal the value of %s: %w", v.Name, err)
		}
		m.Passed = append(m.Passed, passedValue{v.Name, sealed, v.Sensitive, o.from})
	}
	if m.Carried, err = s.sealCarried(d.ManifestVariableSetID, o.before); err != nil {
		return err
	}
	body, err := encode(m)
	if err != nil {
		return fmt.Errorf("encode manifest: %w", err)
	}
	if err := tx.Queue(ctx, `INSERT INTO manifest (id, owner, body) VALUES (?, ?, ?)`, d.ManifestVariableSetID, d.ID, body); err != nil {
		return fmt.Errorf("store manifest of %s: %w", d.ID, err)
	}
	return nil
}

func (s *Service) sealAnswers(owner, by string, answers map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(answers))
	for name, text := range answers {
		sealed, err := s.cfg.Sealer.Seal(owner, by+"."+name, []byte(text))
		if err != nil {
			return nil, fmt.Errorf("seal the answer to %s: %w", name, err)
		}
		out[name] = sealed
	}
	return out, nil
}

func (s *Service) openAnswers(ctx context.Context, owner, by string, sealed map[string]string) (map[string]string, error) {
	out := make(map[string]string, len(sealed))
	for name, text := range sealed {
		clear, err := s.cfg.Sealer.Open(ctx, owner, by+"."+name, text)
		if err != nil {
			return nil, fmt.Errorf("open the answer to %s: %w", name, err)
		}
		out[name] = string(clear)
	}
	return out, nil
}

type opened struct {
	PassedValue
	from string
}

func (s *Service) openPassed(ctx context.Context, owner string, m *manifest) ([]opened, error) {
	var out []opened
	for _, v := range m.Passed {
		clear, err := s.cfg.Sealer.Open(ctx, owner, "passed."+v.Name, v.Sealed)
		if err != nil {
			return nil, fmt.Errorf("open the value of %s: %w", v.Name, err)
		}
		out = append(out, opened{PassedValue{v.Name, string(clear), v.Sensitive}, v.From})
	}
	return out, nil
}

func readManifest(ctx context.Context, tx *db.Tx, id string) (*manifest, error) {
	var body string
	err := tx.QueryRow(ctx, `SELECT m.body FROM manifest m WHERE m.id = ?`, id).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Missing("variable manifest", id)
	}
	if err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", id, err)
	}
	var m manifest
	if err := json.Unmarshal([]byte(body), &m); err != nil {
		return nil, fmt.Errorf("read manifest %s: %w", id, err)
	}
	if m.Format > manifestFormat {
		return nil, fmt.Errorf("manifest %s has format %d, this version reads up to %d", id, m.Format, manifestFormat)
	}
	return &m, nil
}

// manifestValues are all values of a manifest, secrets in clear, for a context and the
// steps of a process.
func (s *Service) manifestValues(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string, steps []octopus.Step, c variables.Context) ([]variables.Variable, error) {
	m, err := readManifest(ctx, tx, id)
	if err != nil {
		return nil, err
	}
	var out []variables.Variable
	for _, one := range m.Sets {
		var set resources.VariableSet
		if err := s.store.Reveal(ctx, tx, VariableSnapshots, one.ID, &set); err != nil {
			return nil, err
		}
		f := frozenSet{id: one.ID, library: one.Library, order: one.Order, set: &set}
		src := f.source()
		for _, v := range set.Variables {
			secret := ""
			if v.Secret != nil && v.Secret.NewValue != nil {
				secret = *v.Secret.NewValue
			}
			out = append(out, variables.From(v.Variable, src, secret))
		}
	}
	answers := variables.Answers{}
	if answers.ByID, err = s.openAnswers(ctx, id, "id", m.ByID); err != nil {
		return nil, err
	}
	if answers.ByName, err = s.openAnswers(ctx, id, "name", m.ByName); err != nil {
		return nil, err
	}
	// Blanks were refused when the deployment was made; what a script does
	// without a value is for the script to say.
	out, _, _ = variables.Answer(out, answers, c)
	ofTenant, err := s.tenantValues(ctx, tx, c)
	if err != nil {
		return nil, err
	}
	ofSteps, err := s.templates(space).parameters(ctx, tx, steps)
	if err != nil {
		return nil, err
	}
	out = append(append(out, ofTenant...), ofSteps...)
	expanded, err := s.accounts(ctx, tx, space, out)
	if err != nil {
		return nil, err
	}
	ofCertificates, err := s.certificates(ctx, tx, space, out)
	if err != nil {
		return nil, err
	}
	out = append(append(out, expanded...), ofCertificates...)
	passed, err := s.openPassed(ctx, id, m)
	if err != nil {
		return nil, err
	}
	for _, v := range passed {
		made := variables.Passed(map[string]string{v.Name: v.Value}, v.from)
		made[0].Sensitive = v.Sensitive
		out = append(out, made...)
	}
	carried, err := s.openCarried(ctx, id, m)
	if err != nil {
		return nil, err
	}
	for _, o := range carried {
		out = append(out, o.Variables()...)
	}
	for _, v := range m.System {
		out = append(out, variables.Variable{Name: v.Name, Value: v.Value, Type: octopus.VariableString, Source: variables.Source{Kind: variables.KindSystem}})
	}
	return out, nil
}

// isAccount reports whether the value of a variable of a type is the id of an account.
func isAccount(t octopus.VariableType) bool {
	switch t {
	case octopus.VariableAWSAccount, octopus.VariableAzureAccount, octopus.VariableGoogleAccount, octopus.VariableUserAccount, octopus.VariableOIDCAccount:
		return true
	case octopus.VariableString, octopus.VariableSensitive, octopus.VariableCertificate, octopus.VariableWorkerPool:
	}
	return false
}

// accounts are the parts of the accounts that variables refer to, under names
// such as Database.Username: with the values they have now, not when the release
// was made, so that a changed password needs no new release.
func (s *Service) accounts(ctx context.Context, tx *db.Tx, space ident.SpaceID, all []variables.Variable) ([]variables.Variable, error) {
	var out []variables.Variable
	read := map[string]*octopus.Account{}
	for i := range all {
		v := &all[i]
		id := canonical("Accounts", strings.TrimSpace(v.Value))
		if !isAccount(v.Type) || id == "" || bound(id) {
			continue
		}
		a, ok := read[id]
		if !ok {
			a = new(octopus.Account)
			switch err := s.store.Reveal(ctx, tx, "accounts", id, a); {
			case fault.Is(err, fault.NotFound) || err == nil && a.SpaceID != string(space):
				a = nil // a deleted account, or one of another space: its parts are missing
			case err != nil:
				return nil, err
			}
			read[id] = a
		}
		if a == nil {
			continue
		}
		out = append(out, accountParts(v, a)...)
	}
	return out, nil
}

// accountParts are the members of an account as variables, in the scope of the
// variable that refers to it.
func accountParts(v *variables.Variable, a *octopus.Account) []variables.Variable {
	var out []variables.Variable
	add := func(name, value string, secret bool) {
		if value == "" {
			return
		}
		out = append(out, part(v, name, value, secret))
	}
	secret := func(name string, s *octopus.Sensitive) {
		if s != nil && s.NewValue != nil {
			add(name, *s.NewValue, true)
		}
	}
	add("AccountType", string(a.AccountType), false)
	add("Name", a.Name, false)
	add("Username", a.Username, false)
	secret("Password", a.Password)
	secret("Token", a.Token)
	secret("PrivateKeyFile", a.PrivateKeyFile)
	secret("PrivateKeyPassphrase", a.PrivateKeyPassphrase)
	add("AccessKey", a.AccessKey, false)
	secret("SecretKey", a.SecretKey)
	add("Region", a.Region, false)
	add("RoleArn", a.RoleARN, false)
	add("SessionDuration", a.SessionDuration, false)
	secret("JsonKey", a.JSONKey)
	secret("CertificateBytes", a.CertificateBytes)
	add("SubscriptionNumber", a.SubscriptionNumber, false)
	add("Client", a.ClientID, false)
	add("ClientId", a.ClientID, false)
	add("TenantId", a.TenantID, false)
	add("AzureEnvironment", a.AzureEnvironment, false)
	add("Audience", a.Audience, false)
	return slices.Clip(out)
}
