// Package feed is the built-in package repository: what build servers push and
// deployments fetch.
//
// A version is a row, its content an immutable blob; the blob is there before
// the row. Versions are ordered by the key that package version makes of them,
// in SQL. Package ids and versions are compared without case; of versions that
// are equal by the rules ("1.0" and "1.0.0") the one published later is newer.
package feed

import (
	"context"
	"crypto/sha1" //nolint:gosec // the API tells a file's SHA-1; nothing is trusted by it
	"database/sql"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
)

const (
	// MaxPackage bounds one package, in bytes.
	MaxPackage = 16 << 30
	// maxSought bounds a part of an id or a version that is searched for.
	maxSought = 2 * version.MaxLength
	idPrefix  = "packages-"
)

// Blobs keeps the contents of packages.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, limit int64) (blob.Info, error)
	Open(ctx context.Context, h blob.Hash) (io.ReadSeekCloser, int64, error)
}

// Repository is the built-in feed of every space. It is safe for concurrent use.
type Repository struct {
	db    *db.DB
	blobs Blobs
	limit int64 // bytes of one package
	came  func(ctx context.Context, tx *db.Tx, p *Package) error
}

// New makes a repository.
func New(d *db.DB, blobs Blobs) *Repository {
	return &Repository{db: d, blobs: blobs, limit: MaxPackage}
}

// Notify has fn called in every transaction that puts a new version into the
// repository; what it returns keeps the version out. It is called before the
// repository is used.
func (r *Repository) Notify(fn func(ctx context.Context, tx *db.Tx, p *Package) error) { r.came = fn }

// Package is a version of a package.
type Package struct {
	ID          string // "packages-Acme.Web.1.2.0"
	Space       ident.SpaceID
	PackageID   string
	Version     string
	Extension   string // with its dot
	SHA256      string
	SHA1        string
	Size        int64
	Published   time.Time
	PublishedBy string
}

// FileName is the name under which the package was pushed, in its usual form.
func (p *Package) FileName() string { return p.PackageID + "." + p.Version + p.Extension }

// Overwrite says what a push does when the version is there already.
type Overwrite string

// The modes.
const (
	FailIfExists   Overwrite = "FailIfExists"
	Replace        Overwrite = "OverwriteExisting"
	IgnoreIfExists Overwrite = "IgnoreIfExists"
)

// ParseOverwrite reads a mode as clients write it; "" is FailIfExists.
func ParseOverwrite(text string) (Overwrite, error) {
	for _, mode := range []Overwrite{FailIfExists, Replace, IgnoreIfExists} {
		if strings.EqualFold(text, string(mode)) {
			return mode, nil
		}
	}
	if text == "" {
		return FailIfExists, nil
	}
	return "", fault.InvalidField("overwriteMode", "overwriteMode is '%.40s'; use FailIfExists, OverwriteExisting or IgnoreIfExists.", text)
}

// name is what a package file is called.
type name struct{ id, version, extension, key string }

// parseName reads a file's name; a path before it, of either kind, is ignored.
func parseName(fileName string) (name, error) {
	fileName = path.Base(strings.ReplaceAll(fileName, `\`, "/"))
	id, text, ext, err := version.FromFileName(fileName)
	if err != nil {
		return name{}, err
	}
	v, err := version.Parse(version.Octopus, text)
	if err != nil {
		return name{}, fault.InvalidField("file", "The file name '%.200s' has the version '%s', which is none: %s.", fileName, text, err)
	}
	return name{id, text, ext, version.SortKey(v)}, nil
}

// Push stores a package under the id and version that its file name tells; a path
// before the name, of either kind, is ignored. created is false when there was
// that version already. Content that ends early, or is larger than MaxPackage,
// leaves nothing behind.
func (r *Repository) Push(ctx context.Context, space ident.SpaceID, fileName string, content io.Reader, mode Overwrite) (p *Package, created bool, err error) {
	n, err := parseName(fileName)
	if err != nil {
		return nil, false, err
	}
	if old, err := r.refusal(ctx, space, n, mode); old != nil || err != nil {
		return old, false, err
	}
	stored, err := r.keep(ctx, n.id+"."+n.version+n.extension, content)
	if err != nil {
		return nil, false, err
	}
	return r.commit(ctx, space, n, stored, mode)
}

// refusal looks a version up before its content is read, so that what will be
// refused is not stored. It returns the version that an ignored push leaves.
func (r *Repository) refusal(ctx context.Context, space ident.SpaceID, n name, mode Overwrite) (*Package, error) {
	old, err := r.find(ctx, space, n.id, n.version)
	if err != nil || old == nil || mode == Replace {
		return nil, err
	}
	old, _, err = r.existing(old, mode)
	return old, err
}

// kept is content that is stored and belongs to no version yet.
type kept struct {
	blob.Info
	sha1 string
}

func (r *Repository) keep(ctx context.Context, fileName string, content io.Reader) (kept, error) {
	hash := sha1.New() //nolint:gosec // see the import
	stored, err := r.blobs.Put(ctx, io.TeeReader(content, hash), r.limit)
	switch {
	case fault.Is(err, fault.TooLarge):
		return kept{}, fault.New(fault.TooLarge, "The package %s has more than %d bytes, which is the most that one can have; split it.", fileName, r.limit)
	case err != nil:
		return kept{}, fmt.Errorf("store package %s: %w", fileName, err)
	}
	if err := failpoint.Hit("package-stored"); err != nil {
		return kept{}, err
	}
	return kept{stored, hex.EncodeToString(hash.Sum(nil))}, nil
}

// commit gives stored content its version.
func (r *Repository) commit(ctx context.Context, space ident.SpaceID, n name, stored kept, mode Overwrite) (p *Package, created bool, err error) {
	p = &Package{
		ID: idPrefix + n.id + "." + n.version, Space: space, PackageID: n.id, Version: n.version, Extension: n.extension,
		SHA256: string(stored.Hash), SHA1: stored.sha1, Size: stored.Size,
		PublishedBy: db.ActorFrom(ctx).Username,
	}
	var left *Package
	err = r.db.Write(ctx, func(tx *db.Tx) error {
		left, created = nil, true
		if err := stored.Fresh(); err != nil {
			return err
		}
		old, err := get(ctx, tx, space, n.id, n.version)
		if err != nil {
			return err
		}
		if old != nil {
			created = false
			if mode != Replace {
				left = old
				return nil
			}
			p.ID, p.PackageID, p.Version = old.ID, old.PackageID, old.Version // as they were first spelled
		}
		p.Published = tx.Now()
		return r.store(ctx, tx, p, n.key, created)
	})
	if err != nil {
		return nil, false, err
	}
	if left != nil {
		return r.existing(left, mode)
	}
	return p, created, nil
}

func (r *Repository) existing(old *Package, mode Overwrite) (*Package, bool, error) {
	if mode == IgnoreIfExists {
		return old, false, nil
	}
	return nil, false, fault.New(fault.Conflict, "The package %s version %s already exists; push another version, or use overwriteMode=OverwriteExisting.", old.PackageID, old.Version)
}

func (r *Repository) store(ctx context.Context, tx *db.Tx, p *Package, key string, created bool) error {
	_, err := tx.Exec(ctx, `INSERT INTO package (id, space_id, package_id, package_folded, version, version_folded, version_key, extension, sha256, sha1, size, published, published_by)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (space_id, package_folded, version_folded)
		DO UPDATE SET extension = excluded.extension, sha256 = excluded.sha256, sha1 = excluded.sha1, size = excluded.size, published = excluded.published, published_by = excluded.published_by`,
		p.ID, string(p.Space), p.PackageID, ident.Fold(p.PackageID), p.Version, ident.Fold(p.Version), key, p.Extension, p.SHA256, p.SHA1, p.Size, db.Micros(p.Published), p.PublishedBy)
	if err != nil {
		return fmt.Errorf("store package %s: %w", p.ID, err)
	}
	category, did := "Created", "was pushed"
	if !created {
		category, did = "Modified", "was replaced"
	}
	tx.Event(event(category, p, did))
	tx.Changed("packages")
	if created && r.came != nil {
		return r.came(ctx, tx, p)
	}
	return nil
}

const columns = `p.id, p.space_id, p.package_id, p.version, p.extension, p.sha256, p.sha1, p.size, p.published, p.published_by`

func scan(scan func(...any) error) (*Package, error) {
	var p Package
	var published int64
	err := scan(&p.ID, &p.Space, &p.PackageID, &p.Version, &p.Extension, &p.SHA256, &p.SHA1, &p.Size, &published, &p.PublishedBy)
	p.Published = db.Time(published)
	return &p, err
}

// get returns a version, nil when there is none.
func get(ctx context.Context, tx *db.Tx, space ident.SpaceID, id, text string) (*Package, error) {
	p, err := scan(tx.QueryRow(ctx, `SELECT `+columns+` FROM package p WHERE p.space_id = ? AND p.package_folded = ? AND p.version_folded = ?`,
		string(space), ident.Fold(id), ident.Fold(text)).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer here
	}
	return p, err
}

func (r *Repository) find(ctx context.Context, space ident.SpaceID, id, text string) (p *Package, err error) {
	err = r.db.Read(ctx, func(tx *db.Tx) error {
		p, err = get(ctx, tx, space, id, text)
		return err
	})
	return p, err
}

// Find returns a version of a package; fault.NotFound when there is none.
func (r *Repository) Find(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID, text string) (*Package, error) {
	p, err := get(ctx, tx, space, packageID, text)
	if err == nil && p == nil {
		return nil, fault.New(fault.NotFound, "The package %s version %s was not found in the built-in feed; push it first.", packageID, text)
	}
	return p, err
}

// parseID tells the package and the version of an id, "packages-Acme.Web.1.2.0".
func parseID(id string) (packageID, text string, ok bool) {
	if len(id) < len(idPrefix) || !strings.EqualFold(id[:len(idPrefix)], idPrefix) {
		return "", "", false
	}
	packageID, text, _, err := version.FromFileName(id[len(idPrefix):] + ".zip") // the ids of files are made alike
	return packageID, text, err == nil
}

// ByID returns a package by its id, "packages-Acme.Web.1.2.0".
func (r *Repository) ByID(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) (*Package, error) {
	if packageID, text, ok := parseID(id); ok {
		if p, err := get(ctx, tx, space, packageID, text); err != nil || p != nil {
			return p, err
		}
	}
	return nil, fault.Missing("package", fmt.Sprintf("%.200s", id))
}

// Open returns the content of a package.
func (r *Repository) Open(ctx context.Context, p *Package) (io.ReadSeekCloser, int64, error) {
	return r.blobs.Open(ctx, blob.Hash(p.SHA256))
}

// Delete removes versions, with what build servers told of them; those that are
// not there are passed over.
func (r *Repository) Delete(ctx context.Context, tx *db.Tx, space ident.SpaceID, ids []string) error {
	for _, id := range ids {
		p, err := r.ByID(ctx, tx, space, id)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return fmt.Errorf("find package %s: %w", id, err)
		}
		if err := remove(ctx, tx, space, ident.Fold(p.PackageID), ident.Fold(p.Version)); err != nil {
			return err
		}
		tx.Event(event("Deleted", p, "was deleted"))
	}
	return nil
}

// event is a line of the audit trail about a version.
func event(category string, p *Package, did string) db.Event {
	return db.Event{
		Category: category, SpaceID: string(p.Space), Message: "Package " + p.PackageID + " version " + p.Version + " " + did,
		Related: []string{p.ID}, DocumentType: "Package",
	}
}

// Query asks for a page of packages.
type Query struct {
	Space ident.SpaceID
	// PackageID keeps the versions of one package, newest first. Without it the
	// answer has the newest version of every package, by name.
	PackageID string
	// Filter is a part of the id, and VersionFilter of the version, without case.
	Filter, VersionFilter string
	// NoPrerelease keeps the versions without a pre-release part.
	NoPrerelease bool
	// Latest keeps, of the versions of one package, only the newest.
	Latest bool
	// NuGet keeps what NuGet clients can read, by its extension.
	NuGet bool
	// Accept keeps the versions for which it returns true; nil keeps all. It
	// costs reading all that the rest of the query finds.
	Accept func(version string) (bool, error)
	IDs    []string // these only, when it is not nil
	Page   ident.Page
}

// newest orders the versions of a package. Row values compare one column after
// the other.
const (
	newest      = `p.version_key DESC, p.published DESC, p.version_folded DESC`
	isNewest    = `NOT EXISTS (SELECT 1 FROM package n WHERE n.space_id = p.space_id AND n.package_folded = p.package_folded AND (n.version_key, n.published, n.version_folded) > (p.version_key, p.published, p.version_folded)`
	prereleased = `(p.version_folded LIKE '%-%+%' OR p.version_folded LIKE '%-%' AND p.version_folded NOT LIKE '%+%')` // metadata may have dashes too
	isNuGet     = `lower(p.extension) = '.nupkg'`
)

// where compiles a query to its condition.
func (q *Query) where() (string, []any) {
	where, args := `p.space_id = ?`, []any{string(q.Space)}
	switch {
	case q.IDs != nil:
		var pairs []any
		for _, id := range q.IDs {
			if packageID, text, ok := parseID(id); ok {
				pairs = append(pairs, ident.Fold(packageID), ident.Fold(text))
			}
		}
		if len(pairs) == 0 {
			return `1 = 0`, nil
		}
		where += ` AND (p.package_folded, p.version_folded) IN (VALUES (?, ?)` + strings.Repeat(`, (?, ?)`, len(pairs)/2-1) + `)`
		args = append(args, pairs...)
	case q.PackageID != "":
		where += ` AND p.package_folded = ?`
		args = append(args, ident.Fold(q.PackageID))
	}
	if q.IDs == nil && (q.PackageID == "" || q.Latest) {
		newest := isNewest
		for _, only := range q.kinds() {
			newest += ` AND ` + strings.ReplaceAll(only, "p.", "n.")
		}
		where += ` AND ` + newest + `)`
	}
	for _, f := range []struct{ column, part string }{{`p.package_folded`, q.Filter}, {`p.version_folded`, q.VersionFilter}} {
		switch {
		case f.part == "":
		case len(f.part) > maxSought:
			where += ` AND 1 = 0`
		default:
			where += ` AND ` + f.column + ` LIKE ? ESCAPE '\'`
			args = append(args, db.Containing(ident.Fold(f.part)))
		}
	}
	for _, only := range q.kinds() {
		where += ` AND ` + only
	}
	return where, args
}

// kinds are the conditions that count too where the newest version is sought:
// the newest of those that are wanted.
func (q *Query) kinds() (all []string) {
	if q.NoPrerelease {
		all = append(all, `NOT `+prereleased)
	}
	if q.NuGet {
		all = append(all, isNuGet)
	}
	return all
}

// List returns a page of packages and how many there are.
func (r *Repository) List(ctx context.Context, tx *db.Tx, q Query) ([]*Package, int64, error) {
	where, args := q.where()
	page := q.Page.Clamp()
	query := `SELECT ` + columns + ` FROM package p WHERE ` + where + ` ORDER BY p.package_folded, ` + newest
	var all []*Package
	if q.Accept != nil {
		var total int64
		err := each(ctx, tx, query, args, func(p *Package) (bool, error) {
			ok, err := q.Accept(p.Version)
			if !ok || err != nil {
				return err == nil, err
			}
			if total++; total > page.Skip && int64(len(all)) < page.Take {
				all = append(all, p)
			}
			return true, nil
		})
		return all, total, err
	}
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM package p WHERE `+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count packages: %w", err)
	}
	err := each(ctx, tx, query+` LIMIT ? OFFSET ?`, append(args, page.Take, page.Skip), func(p *Package) (bool, error) {
		all = append(all, p)
		return true, nil
	})
	return all, total, err
}

// each calls fn for every package that a query finds, until it returns false.
func each(ctx context.Context, tx *db.Tx, query string, args []any, fn func(*Package) (bool, error)) error {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return fmt.Errorf("list packages: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		p, err := scan(rows.Scan)
		if err != nil {
			return fmt.Errorf("list packages: %w", err)
		}
		if more, err := fn(p); err != nil || !more {
			return err
		}
	}
	return rows.Err()
}

// Versions calls fn for every version of a package, newest first, until it
// returns false. fn must not use tx.
func (r *Repository) Versions(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID string, fn func(*Package) bool) error {
	query := `SELECT ` + columns + ` FROM package p WHERE p.space_id = ? AND p.package_folded = ? ORDER BY ` + newest
	return each(ctx, tx, query, []any{string(space), ident.Fold(packageID)}, func(p *Package) (bool, error) { return fn(p), nil })
}
