// Package verify finds out whether another version of the program does the same with the
// same data: what somebody would try out by hand after an upgrade, done by machine and
// before it.
//
// Both programs, the one that runs and the one that is to, compute the facts of a copy of
// the data, each in a process of its own: what the last deployments would do if they were
// made again, what logs and artifacts read like, who may do what, what the API answers,
// whether one can sign in, push a package and make a release. Diff compares the two
// documents and names what is another.
//
// A document tells no secret. What may be one, or may follow from one, is in it as a
// keyed hash; the key is made for one comparison and thrown away with it, so that the hash
// of a short password says nothing. Images of projects and tenants are not looked at: no
// version so far stores any.
//
// Memory is bounded by counts: of places and deployments, of logs and artifacts, which are
// hashed as they stream by. Both programs choose the same ones by a seed.
package verify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/tasks"
)

// Format is the version of documents.
const Format = 1

// MinKey is the least size of a key, in bytes.
const MinKey = 32

// Limits bound what is looked at. A zero is its default.
type Limits struct {
	// PerPlace is how many deployments of a project to an environment (and for a tenant)
	// are planned again, the last ones; 3.
	PerPlace int
	// Deployments is how many in all, chosen by the seed where there are more; 2000.
	Deployments int
	// Logs and Artifacts are how many are read, chosen by the seed; 200 each.
	Logs, Artifacts int
}

func (l *Limits) defaults() {
	for _, one := range []struct {
		n       *int
		initial int
	}{{&l.PerPlace, 3}, {&l.Deployments, 2000}, {&l.Logs, 200}, {&l.Artifacts, 200}} {
		if *one.n <= 0 {
			*one.n = one.initial
		}
	}
}

// Config is what facts are computed of.
type Config struct {
	DB       *db.DB
	Store    *docstore.Store
	Auth     *auth.Service
	Releases *releases.Service
	Logs     *tasks.LogReader
	Blobs    *blob.Dir
	// API is nil when nothing may be written: then what needs the API is left out.
	API *API

	// Version and Level are those of the program and of its schema, for people.
	Version string
	Level   int
	// Seed chooses, Key (of MinKey bytes or more) hashes: the same for both programs.
	Seed uint64
	Key  []byte
	// Until keeps later tasks and events out, which the first of two programs on one copy
	// may have made; zero for none.
	Until  time.Time
	Limits Limits
	// Progress is told the parts as they begin; may be nil.
	Progress func(part string)
}

// API is where the program's own API answers.
type API struct {
	// URL is on loopback, without a slash at the end; Key is that of an administrator.
	URL, Key string
}

// Probe is what the names of users and spaces begin with that are made to be tried out.
// They are in no facts.
const Probe = "tako-verify"

// Document is the facts of a copy, as one program has found them.
type Document struct {
	Format  int
	Version string
	Level   int
	Seed    uint64
	// Key is the key's name, which does not tell the key.
	Key string
	// ReadOnly tells that what needs the API was left out.
	ReadOnly bool
	// Facts have a value by their part ("plans", "logs") and their name. A value that
	// begins with @ names a table of further facts, which many may share.
	Facts  map[string]map[string]string
	Tables map[string]map[string]string
}

// The parts of a document.
const (
	PartPlans       = "plans"
	PartLogs        = "logs"
	PartArtifacts   = "artifacts"
	PartUsers       = "users"
	PartPermissions = "permissions" // which there are
	PartRead        = "read"        // logs and artifacts, by the API
	PartRoutes      = "routes"
	PartSignIn      = "sign-in"
	PartPush        = "push"
)

// Count is how many facts a document has.
func (d *Document) Count() (n int) {
	for _, facts := range d.Facts {
		n += len(facts)
	}
	return n
}

// Run computes the facts. What cannot be found out (a plan that is refused, a log that
// is damaged) is a fact too; an error is one of the database, or the end of ctx.
func Run(ctx context.Context, cfg Config) (*Document, error) {
	if len(cfg.Key) < MinKey {
		return nil, fault.New(fault.Invalid, "The key has %d bytes; use at least %d random ones, made for this comparison alone.", len(cfg.Key), MinKey)
	}
	cfg.Limits.defaults()
	if cfg.Progress == nil {
		cfg.Progress = func(string) {}
	}
	r := &run{Config: cfg, doc: &Document{
		Format: Format, Version: cfg.Version, Level: cfg.Level, Seed: cfg.Seed, ReadOnly: cfg.API == nil,
		Facts: map[string]map[string]string{}, Tables: map[string]map[string]string{},
	}}
	r.doc.Key = r.hash("the name of the key")
	parts := []struct {
		name string
		run  func(context.Context) error
	}{
		{PartPlans, r.plans},
		{PartLogs, r.logs},
		{PartArtifacts, r.artifacts},
		{PartUsers, r.access},
	}
	if cfg.API != nil {
		c := r.client()
		defer c.close()
		parts = append(parts, []struct {
			name string
			run  func(context.Context) error
		}{
			{PartRead, c.read},
			{PartRoutes, c.routes},
			{PartSignIn, c.signIn},
			{PartPush, c.push},
		}...)
	}
	for _, p := range parts {
		cfg.Progress(p.name)
		r.part(p.name)
		if err := p.run(ctx); err != nil {
			return nil, fmt.Errorf("facts of %s: %w", p.name, err)
		}
	}
	return r.doc, nil
}

// run is one computation.
type run struct {
	Config
	doc *Document
	// readLogs and readArtifacts are the ids of those that were read.
	readLogs, readArtifacts []string
}

// part makes a part of the document, which is there even if it has no fact.
func (r *run) part(name string) map[string]string {
	facts := r.doc.Facts[name]
	if facts == nil {
		facts = map[string]string{}
		r.doc.Facts[name] = facts
	}
	return facts
}

func (r *run) fact(part, name, value string) {
	if strings.HasPrefix(value, "@") {
		value = " " + value // a text of somebody's, and not the name of a table
	}
	r.part(part)[name] = value
}

// refer notes a fact whose value is a table.
func (r *run) refer(part, name string, entries map[string]string) {
	r.part(part)[name] = r.table(entries)
}

// table keeps entries, once for all that have the same, and returns what stands for them.
func (r *run) table(entries map[string]string) string {
	sum := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(entries)) {
		fmt.Fprintf(sum, "%d %s%d %s", len(name), name, len(entries[name]), entries[name])
	}
	id := hex.EncodeToString(sum.Sum(nil)[:12])
	if r.doc.Tables[id] == nil {
		r.doc.Tables[id] = entries
	}
	return "@" + id
}

// hash stands for texts that may be secret. Each is told from the next, and the first
// ones say what it is of, so that the same secret elsewhere is not known by its hash.
func (r *run) hash(texts ...string) string {
	mac := hmac.New(sha256.New, r.Key)
	for _, text := range texts {
		fmt.Fprintf(mac, "%d ", len(text))
		mac.Write([]byte(text))
	}
	return short(mac.Sum(nil))
}

// maxReason bounds the text of an error in a fact, in bytes.
const maxReason = 300

// reason is an error as a fact. Errors tell no secrets.
func reason(err error) string {
	text := err.Error()
	if fault.KindOf(err) != fault.Internal {
		text = strings.Join(fault.Messages(err), " ")
	}
	if len(text) > maxReason {
		text = strings.ToValidUTF8(text[:maxReason], "") + "..."
	}
	return "cannot be made: " + text
}

// ours tells what is wrong with this process or the database's server, and ends the
// computation, from what is wrong with the data, which is a fact.
func ours(ctx context.Context, err error) bool {
	return err != nil && (ctx.Err() != nil || fault.Is(err, fault.Unavailable))
}
