package feed

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

const (
	buildPrefix = "BuildInformation"
	// maxCommits is how many commits of a build are kept: the first pushes of
	// some build servers have a repository's whole history.
	maxCommits = 500
	// maxComment bounds the comment of a commit, and maxField any other text, in bytes.
	maxComment = 4 << 10
	maxField   = 2 << 10
)

// PushBuild stores what a build server tells about a version of a package, which
// may be in any feed and need not be there yet. created is false when something
// was known of that version already.
func (r *Repository) PushBuild(ctx context.Context, space ident.SpaceID, in *octopus.BuildInformationCommand, mode Overwrite) (b *octopus.BuildInformation, created bool, err error) {
	fresh, key, err := newBuild(space, in)
	if err != nil {
		return nil, false, err
	}
	err = r.db.Write(ctx, func(tx *db.Tx) error {
		b, created = nil, false
		old, err := oneBuild(ctx, tx, `b.space_id = ? AND b.package_folded = ? AND b.version_folded = ?`, string(space), ident.Fold(in.PackageID), ident.Fold(in.Version))
		switch {
		case err != nil:
			return err
		case old != nil && mode == IgnoreIfExists:
			b = old
			return nil
		case old != nil && mode != Replace:
			return fault.New(fault.Conflict, "Build information for the package %s version %s already exists; use overwriteMode=OverwriteExisting to replace it.", old.PackageID, old.Version)
		}
		b, created = new(octopus.BuildInformation), old == nil
		*b = *fresh
		return storeBuild(ctx, tx, b, old, key)
	})
	if err != nil {
		return nil, false, err
	}
	return b, created, nil
}

// newBuild checks what was sent and makes the document of it.
func newBuild(space ident.SpaceID, in *octopus.BuildInformationCommand) (*octopus.BuildInformation, string, error) {
	in.PackageID, in.Version = strings.TrimSpace(in.PackageID), strings.TrimSpace(in.Version)
	d := &in.OctopusBuildInformation
	var errs []error
	for _, f := range []struct {
		name, value string
		required    bool
	}{
		{"PackageId", in.PackageID, true},
		{"Version", in.Version, true},
		{"BuildEnvironment", d.BuildEnvironment, false},
		{"BuildNumber", d.BuildNumber, false},
		{"BuildUrl", d.BuildURL, false},
		{"Branch", d.Branch, false},
		{"VcsType", d.VcsType, false},
		{"VcsRoot", d.VcsRoot, false},
		{"VcsCommitNumber", d.VcsCommitNumber, false},
	} {
		switch {
		case f.required && f.value == "":
			errs = append(errs, fault.InvalidField(f.name, "%s is empty; build information belongs to a version of a package.", f.name))
		case len(f.value) > maxField:
			errs = append(errs, fault.InvalidField(f.name, "%s has %d bytes; use at most %d.", f.name, len(f.value), maxField))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, "", err
	}
	v, err := version.Parse(version.Octopus, in.Version)
	if err != nil {
		return nil, "", fault.InvalidField("Version", "Version is '%.100s', which is none: %s.", in.Version, err)
	}
	b := &octopus.BuildInformation{
		SpaceID: string(space), PackageID: in.PackageID, Version: in.Version,
		BuildEnvironment: d.BuildEnvironment, BuildNumber: d.BuildNumber, BuildURL: withoutUser(d.BuildURL), Branch: d.Branch,
		VcsType: d.VcsType, VcsRoot: withoutUser(d.VcsRoot), VcsCommitNumber: d.VcsCommitNumber,
	}
	host := hostOf(d.VcsRoot)
	b.VcsCommitURL = host.commit(d.VcsCommitNumber)
	if n := len(d.Commits); n > maxCommits {
		b.IncompleteDataWarning = octopus.NullString(fmt.Sprintf("The build has %d commits, of which the first %d are kept.", n, maxCommits))
		d.Commits = d.Commits[:maxCommits]
	}
	for _, c := range d.Commits {
		c.ID = cutText(c.ID, maxField)
		c.Comment = cutText(c.Comment, maxComment)
		c.LinkURL = host.commit(c.ID)
		b.Commits = append(b.Commits, c)
	}
	b.WorkItems = host.workItems(b.Commits)
	if len(b.WorkItems) > 0 {
		b.IssueTrackerName = octopus.NullString(host.name)
	}
	return b, version.SortKey(v), nil
}

// cutText shortens a text to at most n bytes without breaking a character.
func cutText(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n], "")
}

// storeBuild writes a document, in place of old unless that is nil.
func storeBuild(ctx context.Context, tx *db.Tx, b, old *octopus.BuildInformation, key string) error {
	now := octopus.NewTime(tx.Now())
	b.Created, b.LastModifiedOn, b.LastModifiedBy = &now, &now, octopus.NullString(db.ActorFrom(ctx).Username)
	category, did := "Created", "was added"
	var seq int64
	var err error
	if old == nil {
		if seq, err = tx.NextSeq(ctx, buildPrefix); err != nil {
			return err
		}
		b.ID = ident.ID(buildPrefix, seq)
	} else {
		b.ID, b.PackageID, b.Version, b.Created = old.ID, old.PackageID, old.Version, old.Created
		category, did = "Modified", "was replaced"
	}
	body, err := json.Marshal(b)
	if err != nil {
		return fmt.Errorf("encode build information: %w", err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO build_information (id, seq, space_id, package_folded, version_folded, version_key, created, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (space_id, package_folded, version_folded) DO UPDATE SET body = excluded.body`,
		b.ID, seq, b.SpaceID, ident.Fold(b.PackageID), ident.Fold(b.Version), key, db.Micros(b.Created.Time), string(body))
	if err != nil {
		return fmt.Errorf("store build information %s: %w", b.ID, err)
	}
	tx.Event(buildEvent(category, b, did))
	tx.Changed("buildinformation")
	return nil
}

func buildEvent(category string, b *octopus.BuildInformation, did string) db.Event {
	return db.Event{
		Category: category, SpaceID: b.SpaceID, Message: "Build information for package " + b.PackageID + " version " + b.Version + " " + did,
		Related: []string{b.ID}, DocumentType: "BuildInformation",
	}
}

// oneBuild reads a document, nil when there is none.
func oneBuild(ctx context.Context, tx *db.Tx, where string, args ...any) (*octopus.BuildInformation, error) {
	var body string
	err := tx.QueryRow(ctx, `SELECT b.body FROM build_information b WHERE `+where, args...).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer here
	}
	if err != nil {
		return nil, fmt.Errorf("read build information: %w", err)
	}
	return decodeBuild(body)
}

func decodeBuild(body string) (*octopus.BuildInformation, error) {
	b := new(octopus.BuildInformation)
	if err := json.Unmarshal([]byte(body), b); err != nil {
		return nil, fmt.Errorf("read build information: %w", err)
	}
	return b, nil
}

// Build reads build information by its id; fault.NotFound when there is none.
func (r *Repository) Build(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) (*octopus.BuildInformation, error) {
	b, err := oneBuild(ctx, tx, `b.space_id = ? AND b.id = ?`, string(space), buildID(id))
	if err == nil && b == nil {
		return nil, fault.Missing("build information", fmt.Sprintf("%.100s", id))
	}
	return b, err
}

// buildID spells an id as it is stored, since ids are compared without case.
func buildID(id string) string {
	if n := len(buildPrefix); len(id) > n && strings.EqualFold(id[:n], buildPrefix) {
		return buildPrefix + id[n:]
	}
	return id
}

// BuildOf is what is known of a version of a package of any feed, nil when nothing is.
func BuildOf(ctx context.Context, tx *db.Tx, space ident.SpaceID, packageID, text string) (*octopus.BuildInformation, error) {
	return oneBuild(ctx, tx, `b.space_id = ? AND b.package_folded = ? AND b.version_folded = ?`, string(space), ident.Fold(packageID), ident.Fold(text))
}

// BuildQuery asks for a page of build information, by package and the newest
// version first.
type BuildQuery struct {
	Space     ident.SpaceID
	PackageID string   // "" is any
	Filter    string   // a part of the version, without case
	Latest    bool     // only the newest version of each package that the rest finds
	IDs       []string // these only, when it is not nil
	Page      ident.Page
}

func (q *BuildQuery) where(alias string) (string, []any) {
	where, args := alias+`.space_id = ?`, []any{string(q.Space)}
	if q.PackageID != "" {
		where += ` AND ` + alias + `.package_folded = ?`
		args = append(args, ident.Fold(q.PackageID))
	}
	if q.Filter != "" {
		where += ` AND ` + alias + `.version_folded LIKE ? ESCAPE '\'`
		args = append(args, db.Containing(ident.Fold(q.Filter)))
	}
	return where, args
}

// Builds returns a page of build information and how much there is.
func (r *Repository) Builds(ctx context.Context, tx *db.Tx, q BuildQuery) (out []octopus.BuildInformation, total int64, err error) {
	if len(q.Filter) > maxSought || len(q.PackageID) > maxField {
		return nil, 0, nil
	}
	where, args := q.where("b")
	if q.IDs != nil {
		if len(q.IDs) == 0 {
			return nil, 0, nil
		}
		where += ` AND b.id IN (?` + strings.Repeat(`, ?`, len(q.IDs)-1) + `)`
		for _, id := range q.IDs {
			args = append(args, buildID(id))
		}
	}
	if q.Latest {
		newer, more := q.where("n")
		where += ` AND NOT EXISTS (SELECT 1 FROM build_information n WHERE ` + newer + ` AND n.package_folded = b.package_folded AND (n.version_key, n.seq) > (b.version_key, b.seq))`
		args = append(args, more...)
	}
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM build_information b WHERE `+where, args...).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count build information: %w", err)
	}
	page := q.Page.Clamp()
	rows, err := tx.Query(ctx, `SELECT b.body FROM build_information b WHERE `+where+` ORDER BY b.package_folded, b.version_key DESC, b.seq DESC LIMIT ? OFFSET ?`, append(args, page.Take, page.Skip)...)
	if err != nil {
		return nil, 0, fmt.Errorf("list build information: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var body string
		var b octopus.BuildInformation
		if err := rows.Scan(&body); err != nil {
			return nil, 0, fmt.Errorf("list build information: %w", err)
		}
		if err := json.Unmarshal([]byte(body), &b); err != nil {
			return nil, 0, fmt.Errorf("list build information: %w", err)
		}
		out = append(out, b)
	}
	return out, total, rows.Err()
}

// DeleteBuilds removes build information; what is not there is passed over.
func (r *Repository) DeleteBuilds(ctx context.Context, tx *db.Tx, space ident.SpaceID, ids []string) error {
	for _, id := range ids {
		b, err := r.Build(ctx, tx, space, id)
		if fault.Is(err, fault.NotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if _, err := tx.Exec(ctx, `DELETE FROM build_information WHERE id = ?`, b.ID); err != nil {
			return fmt.Errorf("delete build information %s: %w", b.ID, err)
		}
		tx.Event(buildEvent("Deleted", b, "was deleted"))
		tx.Changed("buildinformation")
	}
	return nil
}
