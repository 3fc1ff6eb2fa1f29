package feed

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

const (
	// retentionPage is how many versions, or how much build information, is looked
	// at at a time: what is in memory of a repository.
	retentionPage = 500
	// retentionBatch is how many versions one transaction deletes.
	retentionBatch = 20
	// BuildDays is how long build information is kept that neither a package of
	// the built-in repository nor a release has.
	BuildDays = 100
)

// Names tells what people call owners of packages (see [Use]), by their ids. One
// that it leaves out is told by its id; one that it calls "" is not told of but counted,
// as all are where there is no Names.
type Names func(ctx context.Context, tx *db.Tx, owners []string) (map[string]string, error)

// PolicyOf is the retention policy that a space's built-in feed has.
func PolicyOf(f *octopus.Feed) RetentionPolicy {
	var p RetentionPolicy
	if f.DeleteUnreleasedPackagesAfterDays != nil {
		p.Days = *f.DeleteUnreleasedPackagesAfterDays
	}
	p.Released = f.DeletePackagesAssociatedWithReleases != nil && *f.DeletePackagesAssociatedWithReleases
	return p
}

// judged is a verdict, and where its version stands in the order of all.
type judged struct {
	Verdict
	folded, key, version string
	published            int64
}

// judge decides about the versions of a space that a condition finds, by package
// and the newest first.
func judge(ctx context.Context, tx *db.Tx, space ident.SpaceID, policy RetentionPolicy, names Names, where string, args []any, limit, skip int64) ([]judged, error) {
	rows, err := tx.Query(ctx, `SELECT p.id, p.package_id, p.version, p.published, p.package_folded, p.version_key, p.version_folded,
			CASE WHEN `+isNewest+`) THEN 1 ELSE 0 END,
			(SELECT count(DISTINCT u.owner)`+uses("p")+`), coalesce((SELECT min(u.owner)`+uses("p")+`), ''), coalesce((SELECT max(u.owner)`+uses("p")+`), '')
		FROM package p WHERE p.space_id = ? AND `+where+` ORDER BY p.package_folded, `+newest+` LIMIT ? OFFSET ?`,
		slices.Concat([]any{string(space)}, args, []any{limit, skip})...)
	if err != nil {
		return nil, fmt.Errorf("list packages for retention: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	type found struct {
		Stored
		judged
		newest bool
	}
	var all []found
	var owners []string
	for rows.Next() {
		var f found
		var isNewest int64
		var first, last string
		if err := rows.Scan(&f.Stored.ID, &f.Stored.PackageID, &f.Stored.Version, &f.judged.published, &f.folded, &f.key, &f.version, &isNewest, &f.Used, &first, &last); err != nil {
			return nil, fmt.Errorf("list packages for retention: %w", err)
		}
		f.Published, f.newest = db.Time(f.judged.published), isNewest == 1
		for _, owner := range slices.Compact([]string{first, last}) {
			if owner != "" && names != nil {
				f.Releases = append(f.Releases, owner)
				owners = append(owners, owner)
			}
		}
		all = append(all, f)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("list packages for retention: %w", err)
	}
	var called map[string]string
	if len(owners) > 0 {
		slices.Sort(owners)
		if called, err = names(ctx, tx, slices.Compact(owners)); err != nil {
			return nil, err
		}
	}
	out := make([]judged, len(all))
	for i := range all {
		f := &all[i]
		var told []string
		for _, owner := range f.Releases {
			name, known := called[owner]
			if !known {
				name = owner
			}
			if name != "" {
				told = append(told, name)
			}
		}
		f.Releases = told
		f.Verdict = policy.decide(tx.Now(), &f.Stored, f.newest)
		out[i] = f.judged
	}
	return out, nil
}

// Verdicts is what retention would make of the versions of a space now, by package
// and the newest first, and how many there are. It changes nothing.
func (r *Repository) Verdicts(ctx context.Context, tx *db.Tx, space ident.SpaceID, policy RetentionPolicy, names Names, page ident.Page) ([]Verdict, int64, error) {
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM package p WHERE p.space_id = ?`, string(space)).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count packages: %w", err)
	}
	page = page.Clamp()
	all, err := judge(ctx, tx, space, policy, names, `1 = 1`, nil, page.Take, page.Skip)
	out := make([]Verdict, len(all))
	for i := range all {
		out[i] = all[i].Verdict
	}
	return out, total, err
}

// Retain deletes the versions of a space that its policy does not keep, with
// their build information, and tells say the reason for each; an error of say ends
// it. Each deletion is decided by what its own transaction reads, so that a
// release that was made meanwhile keeps its packages. deleted counts also when
// there is an error.
func (r *Repository) Retain(ctx context.Context, space ident.SpaceID, policy RetentionPolicy, names Names, say func(Verdict) error) (deleted int, err error) {
	if policy.Days <= 0 {
		return 0, nil
	}
	where, args := `1 = 1`, []any(nil)
	for {
		var page []judged
		err := r.db.Read(ctx, func(tx *db.Tx) (err error) {
			page, err = judge(ctx, tx, space, policy, names, where, args, retentionPage, 0)
			return err
		})
		if err != nil || len(page) == 0 {
			return deleted, err
		}
		var old []judged
		for _, v := range page {
			if err := say(v.Verdict); err != nil {
				return deleted, err
			}
			if v.Delete {
				old = append(old, v)
			}
		}
		for batch := range slices.Chunk(old, retentionBatch) {
			n, err := r.deleteOld(ctx, space, policy, names, batch)
			deleted += n
			if err == nil {
				err = failpoint.Hit("packages-retained")
			}
			if err != nil {
				return deleted, err
			}
		}
		last := page[len(page)-1]
		where = `(p.package_folded > ? OR p.package_folded = ? AND (p.version_key, p.published, p.version_folded) < (?, ?, ?))`
		args = []any{last.folded, last.folded, last.key, last.published, last.version}
	}
}

// deleteOld deletes versions that retention, asked again, still does not keep.
func (r *Repository) deleteOld(ctx context.Context, space ident.SpaceID, policy RetentionPolicy, names Names, batch []judged) (deleted int, err error) {
	err = r.db.Write(ctx, func(tx *db.Tx) error {
		deleted = 0
		e := db.Event{Category: string(octopus.EventRetentionApplied), SpaceID: string(space), DocumentType: "Package"}
		var gone []string
		for _, old := range batch {
			// A transaction of its own for each would be as right, and slower. The
			// newest is asked for anew each time: it may be one of these.
			now, err := judge(ctx, tx, space, policy, names, `p.package_folded = ? AND p.version_folded = ?`, []any{old.folded, old.version}, 1, 0)
			if err != nil {
				return err
			}
			if len(now) == 0 || !now[0].Delete || now[0].published != old.published {
				continue
			}
			if err := remove(ctx, tx, space, old.folded, old.version); err != nil {
				return err
			}
			e.Related = append(e.Related, old.ID)
			gone = append(gone, old.PackageID+" "+old.Verdict.Version)
		}
		if deleted = len(gone); deleted > 0 {
			e.Message = fmt.Sprintf("Retention deleted %d packages: %s", deleted, strings.Join(gone, ", "))
			tx.Event(e)
		}
		return nil
	})
	if err != nil {
		deleted = 0
	}
	return deleted, err
}

// remove deletes a version and its build information.
func remove(ctx context.Context, tx *db.Tx, space ident.SpaceID, folded, version string) error {
	for _, statement := range []string{
		`DELETE FROM package WHERE space_id = ? AND package_folded = ? AND version_folded = ?`,
		`DELETE FROM build_information WHERE space_id = ? AND package_folded = ? AND version_folded = ?`,
	} {
		if _, err := tx.Exec(ctx, statement, string(space), folded, version); err != nil {
			return fmt.Errorf("delete package %s %s: %w", folded, version, err)
		}
	}
	tx.Changed("packages")
	tx.Changed("buildinformation")
	return nil
}

// RetainBuilds deletes what build servers told of versions that are not in the
// built-in repository and that no release uses, once nothing was told of them for
// BuildDays days. deleted counts also when there is an error.
func (r *Repository) RetainBuilds(ctx context.Context, space ident.SpaceID, say func(octopus.BuildInformation) error) (deleted int, err error) {
	after := []any{"", ""}
	for {
		var page []octopus.BuildInformation
		var last []any
		err := r.db.Write(ctx, func(tx *db.Tx) (err error) {
			page, last, err = r.oldBuilds(ctx, tx, space, after)
			return err
		})
		if err != nil || last == nil {
			return deleted, err
		}
		for _, b := range page {
			if err := say(b); err != nil {
				return deleted + len(page), err
			}
		}
		deleted += len(page)
		after = last
	}
}

// oldBuilds deletes the old build information among the next retentionPage that
// nobody has. last is where to go on, nil at the end.
func (r *Repository) oldBuilds(ctx context.Context, tx *db.Tx, space ident.SpaceID, after []any) (gone []octopus.BuildInformation, last []any, err error) {
	before := tx.Now().AddDate(0, 0, -BuildDays)
	rows, err := tx.Query(ctx, `SELECT b.body, b.package_folded, b.version_folded FROM build_information b
		WHERE b.space_id = ? AND (b.package_folded, b.version_folded) > (?, ?) AND b.created < ?
			AND NOT EXISTS (SELECT 1 FROM package p WHERE p.space_id = b.space_id AND p.package_folded = b.package_folded AND p.version_folded = b.version_folded)
			AND NOT EXISTS (SELECT 1`+uses("b")+`)
		ORDER BY b.package_folded, b.version_folded LIMIT ?`, string(space), after[0], after[1], db.Micros(before), int64(retentionBatch))
	if err != nil {
		return nil, nil, fmt.Errorf("list build information for retention: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var body, folded, version string
		if err := rows.Scan(&body, &folded, &version); err != nil {
			return nil, nil, fmt.Errorf("list build information for retention: %w", err)
		}
		last = []any{folded, version}
		b, err := decodeBuild(body)
		if err != nil {
			return nil, nil, err
		}
		if told := b.LastModifiedOn; told == nil || told.Before(before) {
			gone = append(gone, *b) // told again since, it would be young
		}
	}
	if err := rows.Err(); err != nil {
		return nil, nil, fmt.Errorf("list build information for retention: %w", err)
	}
	e := db.Event{Category: string(octopus.EventRetentionApplied), SpaceID: string(space), DocumentType: "BuildInformation"}
	var names []string
	for _, b := range gone {
		if _, err := tx.Exec(ctx, `DELETE FROM build_information WHERE id = ?`, b.ID); err != nil {
			return nil, nil, fmt.Errorf("delete build information %s: %w", b.ID, err)
		}
		e.Related = append(e.Related, b.ID)
		names = append(names, b.PackageID+" "+b.Version)
	}
	if len(gone) > 0 {
		e.Message = fmt.Sprintf("Retention deleted build information for %d versions: %s", len(gone), strings.Join(names, ", "))
		tx.Event(e)
		tx.Changed("buildinformation")
	}
	return gone, last, nil
}
