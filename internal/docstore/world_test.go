package docstore_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// The spaces of the tests; the store knows no more of them than their ids.
const (
	home  ident.SpaceID = "Spaces-1"
	other ident.SpaceID = "Spaces-2"
)

// Owner is a plain document.
type Owner struct {
	octopus.Resource
	SpaceID     string `json:"SpaceId"`
	Name        string `json:"Name"`
	Slug        string `json:"Slug"`
	Description string `json:"Description"`
}

// Thing has everything that a declaration can speak of.
type Thing struct {
	octopus.Resource
	SpaceID string               `json:"SpaceId"`
	Name    string               `json:"Name"`
	Slug    string               `json:"Slug"`
	Colour  octopus.NullString   `json:"Colour"`
	Tags    octopus.List[string] `json:"Tags"`
	Count   int                  `json:"Count"`
	Stamp   octopus.NullString   `json:"Stamp"` // owned

	RefuseID     octopus.NullString                        `json:"RefuseId"`
	CascadeID    octopus.NullString                        `json:"CascadeId"`
	CascadeTooID octopus.NullString                        `json:"CascadeTooId"`
	ClearID      octopus.NullString                        `json:"ClearId"`
	ClearIDs     octopus.List[string]                      `json:"ClearIds"`
	ClearMap     octopus.Map[string, octopus.List[string]] `json:"ClearMap"`
	LooseIDs     octopus.List[string]                      `json:"LooseIds"`
	FriendIDs    octopus.List[string]                      `json:"FriendIds"`
	Password     *octopus.Sensitive                        `json:"Password,omitempty"`
	Parts        octopus.List[Part]                        `json:"Parts"`
	Properties   octopus.Properties                        `json:"Properties"`
	Boxes        octopus.Map[string, Box]                  `json:"Boxes"`
}

// Part is an element of an array, with a secret and more parts.
type Part struct {
	ID     string             `json:"Id"`
	Name   string             `json:"Name"`
	Secret *octopus.Sensitive `json:"Secret,omitempty"`
	Parts  octopus.List[Part] `json:"Parts"`
}

// Box is the value of a map.
type Box struct {
	Size int `json:"Size"`
}

// Note has no name, and a version that clients must know.
type Note struct {
	octopus.Resource
	SpaceID string `json:"SpaceId"`
	Text    string `json:"Text"`
	Version int    `json:"Version"`
}

// Row is ordered by its number.
type Row struct {
	octopus.Resource
	SpaceID   octopus.NullString `json:"SpaceId"`
	Name      string             `json:"Name"`
	SortOrder int                `json:"SortOrder"`
}

// Child lives below an owner.
type Child struct {
	octopus.Resource
	SpaceID string `json:"SpaceId"`
	OwnerID string `json:"OwnerId"`
	Name    string `json:"Name"`
	Slug    string `json:"Slug"`
	Sort    string `json:"Sort"`
}

// Secured stands in places that permissions speak of.
type Secured struct {
	octopus.Resource
	SpaceID        string               `json:"SpaceId"`
	Name           string               `json:"Name"`
	ProjectID      string               `json:"ProjectId"`
	ProjectGroupID string               `json:"ProjectGroupId"`
	EnvironmentIDs octopus.List[string] `json:"EnvironmentIds"`
	TenantIDs      octopus.List[string] `json:"TenantIds"`
}

// kinds declares the documents above.
func kinds(t testing.TB) resource.Set {
	t.Helper()
	set, err := resource.NewSet(
		resource.Declare(resource.Declaration[Owner]{Name: "owners", ItemType: "Owner", Prefix: "Owners", Slugged: true}),
		resource.Declare(resource.Declaration[Thing]{
			Name: "things", ItemType: "Thing", Prefix: "Things", Slugged: true, Owned: []string{"Stamp"}, Measured: []string{"Stamp"},
			Filters: []resource.Filter{{Param: "colour", Path: "Colour"}, {Param: "tags", Path: "Tags"}},
			References: []resource.Reference{
				{Path: "RefuseId", To: "owners"},
				{Path: "CascadeId", To: "owners", OnDelete: resource.Cascade},
				{Path: "CascadeTooId", To: "owners", OnDelete: resource.Cascade},
				{Path: "ClearId", To: "owners", OnDelete: resource.Clear},
				{Path: "ClearIds", To: "owners", OnDelete: resource.Clear},
				{Path: "ClearMap.*key", To: "owners", OnDelete: resource.Clear},
				{Path: "ClearMap.*", To: "owners", OnDelete: resource.Clear},
				{Path: "LooseIds", To: "owners", OnDelete: resource.Ignore},
				{Path: "FriendIds", To: "things"},
			},
			Prepare: func(v *Thing) {
				if v.Colour == "" {
					v.Colour = "grey"
				}
			},
			Check: func(_ context.Context, _ resource.Reader, _, v *Thing) error {
				for i := range v.Parts {
					if v.Parts[i].ID == "" {
						v.Parts[i].ID = fmt.Sprintf("part-%s-%d", v.Parts[i].Name, i)
					}
				}
				if v.Count < 0 {
					return fault.InvalidField("Count", "Count is %d; use 0 or more.", v.Count)
				}
				return nil
			},
		}),
		resource.Declare(resource.Declaration[Note]{Name: "notes", ItemType: "Note", Prefix: "Notes", Unnamed: true, Versioned: true, Order: resource.ByAge}),
		resource.Declare(resource.Declaration[Note]{Name: "newest", ItemType: "Note", Prefix: "Newest", Unnamed: true, Order: resource.ByNewest, Unaudited: true}),
		resource.Declare(resource.Declaration[Row]{Name: "rows", ItemType: "Row", Prefix: "Rows", Scope: resource.InSystem, Order: resource.ByNumber}),
		resource.Declare(resource.Declaration[Row]{Name: "eithers", ItemType: "Row", Prefix: "Eithers", Scope: resource.InEither}),
		resource.Declare(resource.Declaration[Child]{
			Name: "children", ItemType: "Child", Noun: "child", Prefix: "Children", Slugged: true, SlugWithin: "OwnerId",
			Unique:     []resource.Unique{{Field: "Name", Within: "OwnerId"}, {Field: "Sort", Within: "Sort"}},
			References: []resource.Reference{{Path: "OwnerId", To: "owners", Required: true, OnDelete: resource.Cascade}},
		}),
		resource.Declare(resource.Declaration[Secured]{
			Name: "secured", ItemType: "Secured", Prefix: "Secured",
			Dimensions: resource.Dimensions{Project: "ProjectId", ProjectGroup: "ProjectGroupId", Environment: "EnvironmentIds", Tenant: "TenantIds"},
		}),
		resource.Declare(resource.Declaration[Secured]{
			Name: "projects", ItemType: "Project", Prefix: "Projects",
			Dimensions: resource.Dimensions{Project: "Id", ProjectGroup: "ProjectGroupId"},
		}),
		resource.Declare(resource.Declaration[Secured]{
			Name: "ofprojects", ItemType: "OfProject", Prefix: "OfProjects",
			Dimensions: resource.Dimensions{Project: "ProjectId"},
		}),
	)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// world is a store over a real database, with real sealing.
type world struct {
	*docstore.Store
	t   testing.TB
	d   *db.DB
	as  context.Context
	box *secret.Box
}

func newWorld(t testing.TB, d *db.DB) *world {
	t.Helper()
	box, err := secret.Open(t.Context(), d, secret.Source{Dir: t.TempDir()})
	if err != nil {
		t.Fatal(err)
	}
	as := db.WithActor(t.Context(), db.Actor{UserID: "Users-1", Username: "ada", Identity: "ApiKey"})
	return &world{docstore.New(kinds(t), box), t, d, as, box}
}

// run runs a test on each database.
func run(t *testing.T, fn func(t *testing.T, w *world)) {
	t.Helper()
	dbtest.Run(t, func(t *testing.T, d *db.DB) { fn(t, newWorld(t, d)) })
}

func (w *world) kind(name string) *resource.Kind {
	w.t.Helper()
	k, err := w.Kind(name)
	if err != nil {
		w.t.Fatal(err)
	}
	return k
}

func (w *world) write(fn func(tx *db.Tx) error) error { return w.d.Write(w.as, fn) }

func (w *world) read(fn func(tx *db.Tx) error) {
	w.t.Helper()
	if err := w.d.Read(w.as, fn); err != nil {
		w.t.Fatal(err)
	}
}

// create stores a document as a client would.
func (w *world) create(kind string, space ident.SpaceID, body string) (doc *docstore.Doc, err error) {
	err = w.write(func(tx *db.Tx) error {
		doc, err = w.Create(w.as, tx, w.kind(kind), docstore.Input{Space: space, Body: []byte(body)})
		return err
	})
	return doc, err
}

// made is create that has to succeed, in the home space.
func (w *world) made(kind, body string) *docstore.Doc {
	w.t.Helper()
	doc, err := w.create(kind, home, body)
	if err != nil {
		w.t.Fatalf("create %s %s: %v", kind, body, err)
	}
	return doc
}

func (w *world) replace(kind, ref, body string) (doc *docstore.Doc, err error) {
	return w.replaceIf(kind, ref, body, 0)
}

func (w *world) replaceIf(kind, ref, body string, version int64) (doc *docstore.Doc, err error) {
	err = w.write(func(tx *db.Tx) error {
		doc, err = w.Replace(w.as, tx, w.kind(kind), home, ref, docstore.Input{Body: []byte(body), Expect: version})
		return err
	})
	return doc, err
}

func (w *world) put(kind, ref, body string) *docstore.Doc {
	w.t.Helper()
	doc, err := w.replace(kind, ref, body)
	if err != nil {
		w.t.Fatalf("replace %s with %s: %v", ref, body, err)
	}
	return doc
}

func (w *world) remove(kind, ref string) error {
	return w.write(func(tx *db.Tx) error { return w.Delete(w.as, tx, w.kind(kind), home, ref) })
}

func (w *world) find(kind string, space ident.SpaceID, ref string) (doc *docstore.Doc, err error) {
	readErr := w.d.Read(w.as, func(tx *db.Tx) error {
		doc, err = w.Get(w.as, tx, w.kind(kind), space, ref)
		return nil
	})
	if readErr != nil {
		w.t.Fatal(readErr)
	}
	return doc, err
}

// served is what clients see of a document.
func (w *world) served(kind, ref string) map[string]any {
	w.t.Helper()
	doc, err := w.find(kind, home, ref)
	if err != nil {
		w.t.Fatal(err)
	}
	body, err := w.Served(w.kind(kind), doc)
	if err != nil {
		w.t.Fatal(err)
	}
	return object(w.t, body)
}

func object(t testing.TB, body []byte) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal(body, &v); err != nil {
		t.Fatalf("%v in %s", err, body)
	}
	return v
}

// list returns the ids of a page and how many documents there are.
func (w *world) list(kind string, q docstore.Query) (ids []string, total int64) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error {
		docs, n, err := w.List(w.as, tx, w.kind(kind), q)
		for _, doc := range docs {
			ids = append(ids, doc.ID)
		}
		total = n
		return err
	})
	return ids, total
}

// count counts rows of a table.
func (w *world) count(from string, args ...any) (n int) {
	w.t.Helper()
	w.read(func(tx *db.Tx) error { return tx.QueryRow(w.as, `SELECT count(*) FROM `+from, args...).Scan(&n) })
	return n
}

// wipe deletes all documents.
func (w *world) wipe() {
	w.t.Helper()
	if err := w.write(func(tx *db.Tx) error {
		for _, table := range []string{"documents", "document_index", "document_unique", "document_refs"} {
			if _, err := tx.Exec(w.as, `DELETE FROM `+table); err != nil {
				return err
			}
		}
		return nil
	}); err != nil {
		w.t.Fatal(err)
	}
}

// refused wants a fault of a kind whose sentences have all of these in them.
func refused(t testing.TB, err error, kind fault.Kind, says ...string) {
	t.Helper()
	if !fault.Is(err, kind) {
		t.Fatalf("got %v (%v), want a fault of kind %v", err, fault.KindOf(err), kind)
	}
	said := strings.Join(fault.Messages(err), " ")
	for _, want := range says {
		if !strings.Contains(said, want) {
			t.Errorf("the refusal %q does not say %q", said, want)
		}
	}
}
