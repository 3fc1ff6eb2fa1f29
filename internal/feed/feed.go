// Package feed is the built-in package repository: what build servers push and
// deployments fetch.
//
// A version is a row, its content an immutable blob; the blob is there before
// the row. Versions are ordered by the key that package version makes of them,
// in SQL.
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
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
)

// MaxPackage bounds one package, in bytes.
const MaxPackage = 16 << 30

// Blobs keeps the contents of packages.
type Blobs interface {
	Put(ctx context.Context, r io.Reader, limit int64) (blob.Info, error)
	Open(ctx context.Context, h blob.Hash) (io.ReadSeekCloser, int64, error)
}

// Repository is the built-in feed of every space. It is safe for concurrent use.
type Repository struct {
	db    *db.DB
	blobs Blobs
}

// New makes a repository.
func New(d *db.DB, blobs Blobs) *Repository { return &Repository{d, blobs} }

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

// Push stores a package under the id and version that its file name tells.
// created is false when an existing one was kept.
func (r *Repository) Push(ctx context.Context, space ident.SpaceID, fileName string, content io.Reader, mode Overwrite) (p *Package, created bool, err error) {
	fileName = path.Base(strings.ReplaceAll(fileName, `\`, "/"))
	id, text, ext, err := version.FromFileName(fileName)
	if err != nil {
		return nil, false, err
	}
	v, err := version.Parse(version.Octopus, text)
	if err != nil {
		return nil, false, fault.InvalidField("file", "The file name '%.200s' has the version '%s', which is none: %s.", fileName, text, err)
	}
	// Looked up first, so that what will be refused is not stored.
	if old, err := r.find(ctx, space, id, text); err != nil {
		return nil, false, err
	} else if old != nil && mode != Replace {
		return r.existing(old, mode)
	}
	hash := sha1.New() //nolint:gosec // see the import
	stored, err := r.blobs.Put(ctx, io.TeeReader(content, hash), MaxPackage)
	if err != nil {
		return nil, false, fmt.Errorf("store package %s: %w", fileName, err)
	}
	p = &Package{
		ID: "packages-" + id + "." + text, Space: space, PackageID: id, Version: text, Extension: ext,
		SHA256: string(stored.Hash), SHA1: hex.EncodeToString(hash.Sum(nil)), Size: stored.Size,
		PublishedBy: db.ActorFrom(ctx).Username,
	}
	var kept *Package
	err = r.db.Write(ctx, func(tx *db.Tx) error {
		kept, created = nil, true
		old, err := get(ctx, tx, space, id, text)
		if err != nil {
			return err
		}
		if old != nil {
			created = false
			if mode != Replace {
				kept = old
				return nil
			}
		}
		p.Published = tx.Now()
		return r.store(ctx, tx, p, version.SortKey(v), created)
	})
	if err != nil {
		return nil, false, err
	}
	if kept != nil {
		return r.existing(kept, mode)
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
	tx.Event(db.Event{Category: category, SpaceID: string(p.Space), Message: "Package " + p.PackageID + " version " + p.Version + " " + did, Related: []string{p.ID}, DocumentType: "Package"})
	tx.Changed("packages")
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

// ByID returns a package by its id, "packages-Acme.Web.1.2.0".
func (r *Repository) ByID(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) (*Package, error) {
	p, err := scan(tx.QueryRow(ctx, `SELECT `+columns+` FROM package p WHERE p.space_id = ? AND p.id = ?`, string(space), id).Scan)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Missing("package", id)
	}
	return p, err
}

// Open returns the content of a package.
func (r *Repository) Open(ctx context.Context, p *Package) (io.ReadSeekCloser, int64, error) {
	return r.blobs.Open(ctx, blob.Hash(p.SHA256))
}

// Delete removes versions; those that are not there are passed over.
func (r *Repository) Delete(ctx context.Context, tx *db.Tx, space ident.SpaceID, ids []string) error {
	for _, id := range ids {
		n, err := tx.Exec(ctx, `DELETE FROM package WHERE space_id = ? AND id = ?`, string(space), id)
		if err != nil {
			return fmt.Errorf("delete package %s: %w", id, err)
		}
		if n > 0 {
			tx.Event(db.Event{Category: "Deleted", SpaceID: string(space), Message: "Package " + strings.TrimPrefix(id, "packages-") + " was deleted", Related: []string{id}, DocumentType: "Package"})
			tx.Changed("packages")
		}
	}
	return nil
}

// Query asks for a page of packages.
type Query struct {
	Space ident.SpaceID
	// PackageID keeps the versions of one package, newest first. Without it the
	// answer has the newest version of every package, by name.
	PackageID string
	// Filter is a part of the id, without case.
	Filter string
	IDs    []string // these only, when it is not nil
	Page   ident.Page
}

// List returns a page of packages and how many there are.
func (r *Repository) List(ctx context.Context, tx *db.Tx, q Query) ([]*Package, int64, error) {
	where, args := `p.space_id = ?`, []any{string(q.Space)}
	order := `p.package_folded, p.version_key DESC`
	switch {
	case q.IDs != nil:
		where += ` AND p.id IN (''` + strings.Repeat(`, ?`, len(q.IDs)) + `)`
		for _, id := range q.IDs {
			args = append(args, id)
		}
	case q.PackageID != "":
		where += ` AND p.package_folded = ?`
		args = append(args, ident.Fold(q.PackageID))
	default:
		where += ` AND NOT EXISTS (SELECT 1 FROM package n WHERE n.space_id = p.space_id AND n.package_folded = p.package_folded AND n.version_key > p.version_key)`
	}
	if q.Filter != "" {
		where += ` AND p.package_folded LIKE ? ESCAPE '\'`
		args = append(args, "%"+strings.NewReplacer(`\`, `\\`, `%`, `\%`, `_`, `\_`).Replace(ident.Fold(q.Filter))+"%")
	}
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM package p WHERE `+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count packages: %w", err)
	}
	page := q.Page.Clamp()
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM package p WHERE `+where+` ORDER BY `+order+` LIMIT ? OFFSET ?`, append(args, page.Take, page.Skip)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list packages: %w", err)
	}
	defer rows.Close()
	var all []*Package
	for rows.Next() {
		p, err := scan(rows.Scan)
		if err != nil {
			return nil, 0, err
		}
		all = append(all, p)
	}
	return all, total, rows.Err()
}

// Versions calls fn for every version of a package, newest first, until it returns false.
func (r *Repository) Versions(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID string, fn func(*Package) bool) error {
	rows, err := tx.Query(ctx, `SELECT `+columns+` FROM package p WHERE p.space_id = ? AND p.package_folded = ? ORDER BY p.version_key DESC`, string(space), ident.Fold(packageID))
	if err != nil {
		return fmt.Errorf("list versions of %s: %w", packageID, err)
	}
	defer rows.Close()
	for rows.Next() {
		p, err := scan(rows.Scan)
		if err != nil {
			return err
		}
		if !fn(p) {
			return nil
		}
	}
	return rows.Err()
}
