// Package resource says what a declared resource is.
//
// Most kinds of thing that people configure differ only in their data: a kind is
// therefore declared, not programmed. The declaration names its path, the prefix
// of its ids, its scope, its unique members, its filters, its references and its
// permissions, and has at most three functions: Prepare (defaults), Check (rules)
// and InTx (what must change with it). The store, the API, the permission checks,
// the audit trail, OpenAPI and the tests all follow from it. There is neither
// HTTP nor SQL here.
package resource

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
)

// Scope says where a kind's documents live.
type Scope uint8

// The scopes.
const (
	InSpace  Scope = iota // every document belongs to one space
	InSystem              // outside all spaces
	InEither              // some belong to a space, some to the system (teams)
)

// Permissions names what a caller needs. Empty Edit, Create or Delete means that
// the API offers no such call for the kind; empty View that everybody who is
// signed in may read.
type Permissions struct{ View, Create, Edit, Delete string }

// Dimensions says where a document names what permissions can be scoped to: a
// path (see Declaration) or "Id" for the document itself. A dimension that is
// empty does not restrict this kind.
type Dimensions struct {
	Project, ProjectGroup, Environment, Tenant string
	// Shared says that a document of no environment, or no tenant, is for all of
	// them: who may see any of them sees it. To change it takes the permission
	// without a limit to some.
	Shared bool
}

// Order of a kind's lists; the number in the id is always the last key.
type Order uint8

// The orders.
const (
	ByName   Order = iota // folded name
	ByNumber              // the SortOrder member, then name
	ByAge                 // the number in the id, oldest first
	ByNewest              // the number in the id, newest first
)

// Unique is a member whose folded value no two documents share.
type Unique struct {
	Field  string // "Name"
	Within string // path of the owner within which it is unique ("ProjectId"); "" is the space
}

// Filter is a query parameter of the kind's list.
type Filter struct {
	Param string // "projectId"; values are comma-separated, any of them matches
	Path  string // what is compared, without case
}

// OnDelete says what a reference does when its target is deleted.
type OnDelete uint8

// What a reference can do.
const (
	Refuse  OnDelete = iota // the target cannot be deleted while it is referred to
	Cascade                 // the referrer is deleted with its target
	Clear                   // the reference is taken out of the referrer
	// Ignore lets the reference stay and dangle. It is for history, and for lists
	// that narrow something where an empty one means everything: taking the last
	// entry out would widen it.
	Ignore
)

// Reference is a member that names documents of another kind by id.
type Reference struct {
	Path     string // "LifecycleId", "Phases.*.OptionalDeploymentTargets"
	To       string // the other kind's name
	OnDelete OnDelete
	Required bool // "" is refused
}

// Declaration declares a kind whose wire type is T.
//
// Secrets need no declaration: every object of the shape of octopus.Sensitive is
// sealed at rest and never served.
//
// Paths are member names joined by dots, as on the wire; `*` stands for every
// element of an array or every value of an object, and a trailing `*key` for
// every key of an object. A path that ends at an array means all its elements.
type Declaration[T any] struct {
	Name        string // the path segment and the kind's key in the store: "projects"
	ItemType    string // "Project"
	Noun        string // how messages name one: "project"
	Prefix      string // of ids: "Projects"
	Scope       Scope
	Permissions Permissions
	Dimensions  Dimensions
	Order       Order
	// Unnamed kinds have no Name: neither required, unique, found nor slugged by it.
	Unnamed bool
	// Slugged kinds have a Slug, made from the name where it is empty.
	Slugged bool
	// SlugWithin is the path of the owner within which slugs are unique; "" is the space.
	SlugWithin string
	Unique     []Unique
	// Search is another name that clients have for the list's parameter partialName.
	Search     string
	Filters    []Filter
	References []Reference
	// Owned members belong to the server: what a client sends there is ignored,
	// what is stored stays.
	Owned []string
	// Measured are paths of members that the server finds out again and again. Where
	// it changes nothing else, the change is nobody's: it is no audit event, and
	// LastModifiedOn and LastModifiedBy stay.
	Measured []string
	// Links of one document beside Self: templates in which {Id} and other
	// top-level members and {space} are replaced, and the rest stays as it is.
	Links map[string]string
	// Versioned kinds have a Version member: a replacement must carry the one it
	// read, else somebody else's change would be lost.
	Versioned bool
	// Hidden kinds have no generic routes: handlers of their own serve them.
	Hidden bool
	// Unaudited kinds write no audit events: what makes their documents has one
	// of its own (the release, for the snapshots that come with it).
	Unaudited bool

	// Prepare fills in defaults. Pure.
	Prepare func(v *T)
	// Check applies the rules that a declaration cannot say, and may complete v
	// from what it reads; old is nil at creation. v has its Id and SpaceId.
	Check func(ctx context.Context, r Reader, old, v *T) error
	// InTx makes the changes that must happen with this one, in its transaction,
	// and may still refuse it. The change itself is done by then: what is Deleted
	// is no longer there, nor is what it took along.
	InTx func(ctx context.Context, w Writer, c Change[T]) error
}

// Op is what happens to a document.
type Op uint8

// The operations.
const (
	Created Op = iota
	Modified
	Deleted
)

// Change is what InTx is told: New is nil for Deleted, Old for Created.
type Change[T any] struct {
	Op       Op
	Space    ident.SpaceID
	ID       string
	Old, New *T
}

// Reader lets rules look at other documents.
type Reader interface {
	// Load decodes the document kind/id into v; fault.NotFound when there is none.
	Load(ctx context.Context, kind, id string, v any) error
	// Each calls fn with every id of a kind in space whose filter path has the
	// value, in the kind's order, as they are before the first call.
	Each(ctx context.Context, kind string, space ident.SpaceID, path, value string, fn func(id string) error) error
	// Tx is the transaction, for tables that are no documents.
	Tx() *db.Tx
}

// Writer lets InTx change other documents by the same rules.
type Writer interface {
	Reader
	// Reveal is Load with secrets in clear, as new values: for a copy, whose
	// secrets are sealed anew. It must not be logged or served.
	Reveal(ctx context.Context, kind, id string, v any) error
	// Create stores v as a new document; id "" takes the next one. It returns the id.
	Create(ctx context.Context, kind string, space ident.SpaceID, id string, v any) (string, error)
	// Replace stores v in place of a document, of which it keeps what the type of
	// v does not know.
	Replace(ctx context.Context, kind, id string, v any) error
	// Delete removes a document and what cascades from it.
	Delete(ctx context.Context, kind, id string) error
}

// Kind is a declared kind with its type erased; Declare makes it.
type Kind struct {
	Name, ItemType, Noun, Prefix string
	Scope                        Scope
	Permissions                  Permissions
	Dimensions                   Dimensions
	Order                        Order
	Unnamed, Slugged             bool
	Versioned, Hidden, Unaudited bool
	SlugWithin, Search           string
	Unique                       []Unique
	Filters                      []Filter
	References                   []Reference
	Owned, Measured              []string
	Links                        map[string]string
	// Type is the wire type, a struct; for decoding and OpenAPI.
	Type reflect.Type

	// Prepare, Check and InTx take pointers to Type; they are never nil.
	Prepare func(v any)
	Check   func(ctx context.Context, r Reader, old, v any) error
	InTx    func(ctx context.Context, w Writer, op Op, space ident.SpaceID, id string, old, v any) error

	schema *schema
	shape  int64
}

// Shape is a fingerprint of the members that the wire type has: documents that
// were stored under another one lack some, or have more.
func (k *Kind) Shape() int64 { return k.shape }

// New returns a pointer to a zero value of the kind's wire type.
func (k *Kind) New() any { return reflect.New(k.Type).Interface() }

// Declare erases the type of d.
func Declare[T any](d Declaration[T]) *Kind {
	k := &Kind{
		Name: d.Name, ItemType: d.ItemType, Noun: d.Noun, Prefix: d.Prefix,
		Scope: d.Scope, Permissions: d.Permissions, Dimensions: d.Dimensions, Order: d.Order,
		Unnamed: d.Unnamed, Slugged: d.Slugged, Versioned: d.Versioned, Hidden: d.Hidden, Unaudited: d.Unaudited, SlugWithin: d.SlugWithin, Search: d.Search,
		Unique: d.Unique, Filters: d.Filters, References: d.References,
		Owned: d.Owned, Measured: d.Measured, Links: d.Links,
		Type:    reflect.TypeFor[T](),
		Prepare: func(any) {},
		Check:   func(context.Context, Reader, any, any) error { return nil },
		InTx:    func(context.Context, Writer, Op, ident.SpaceID, string, any, any) error { return nil },
	}
	k.schema = schemaOf(k.Type, map[reflect.Type]*schema{})
	k.shape = shapeOf(k.Type)
	if k.Noun == "" {
		k.Noun = strings.ToLower(d.ItemType)
	}
	if !k.Unnamed && len(k.Unique) == 0 {
		k.Unique = []Unique{{Field: "Name"}}
	}
	if d.Prepare != nil {
		k.Prepare = func(v any) { d.Prepare(v.(*T)) }
	}
	if d.Check != nil {
		k.Check = func(ctx context.Context, r Reader, old, v any) error {
			return d.Check(ctx, r, typed[T](old), typed[T](v))
		}
	}
	if d.InTx != nil {
		k.InTx = func(ctx context.Context, w Writer, op Op, space ident.SpaceID, id string, old, v any) error {
			return d.InTx(ctx, w, Change[T]{Op: op, Space: space, ID: id, Old: typed[T](old), New: typed[T](v)})
		}
	}
	return k
}

func typed[T any](v any) *T {
	p, _ := v.(*T) // nil stays nil
	return p
}

// Grant is one way in which a permission is held: within the listed projects,
// groups, environments and tenants; an empty list does not restrict.
type Grant struct{ Projects, ProjectGroups, Environments, Tenants []string }

// Unrestricted reports whether g covers everything.
func (g Grant) Unrestricted() bool {
	return len(g.Projects)+len(g.ProjectGroups)+len(g.Environments)+len(g.Tenants) == 0
}

// Set is the kinds a server knows, by name.
type Set map[string]*Kind

// NewSet collects kinds and checks that their declarations fit together.
func NewSet(kinds ...*Kind) (Set, error) {
	s := Set{}
	for _, k := range kinds {
		if s[k.Name] != nil {
			return nil, fmt.Errorf("kind %s is declared twice", k.Name)
		}
		s[k.Name] = k
	}
	var errs []error
	for _, k := range kinds {
		errs = append(errs, k.checkPaths()...)
		for _, r := range k.References {
			switch {
			case s[r.To] == nil:
				errs = append(errs, fmt.Errorf("kind %s refers to kind %q, which nobody declares", k.Name, r.To))
			case r.Required && r.OnDelete == Clear:
				errs = append(errs, fmt.Errorf("kind %s requires %s, which is to be cleared", k.Name, r.Path))
			}
		}
	}
	return s, errors.Join(errs...)
}

// checkPaths finds what a declaration names and the wire type does not have.
// Owned members may be such: the server keeps them beside what clients see.
func (k *Kind) checkPaths() []error {
	d := k.Dimensions
	paths := []string{k.SlugWithin, d.Project, d.ProjectGroup, d.Environment, d.Tenant}
	for _, u := range k.Unique {
		paths = append(paths, u.Field, u.Within)
	}
	for _, f := range k.Filters {
		paths = append(paths, f.Path)
	}
	for _, r := range k.References {
		paths = append(paths, r.Path)
	}
	paths = append(paths, k.Measured...)
	if k.Slugged {
		paths = append(paths, "Slug")
	}
	if k.Versioned {
		paths = append(paths, "Version")
	}
	if !k.Unnamed {
		paths = append(paths, "Name")
	}
	if k.Order == ByNumber {
		paths = append(paths, "SortOrder")
	}
	var errs []error
	for _, path := range paths {
		if path != "" && !k.schema.has(path) {
			errs = append(errs, fmt.Errorf("kind %s declares %q, which %s has not", k.Name, path, k.Type))
		}
	}
	return errs
}
