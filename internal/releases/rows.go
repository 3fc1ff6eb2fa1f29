package releases

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
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/internal/version"
	"github.com/takodeploy/tako/octopus"
)

// Prefixes of our ids.
const (
	releasePrefix    = "Releases"
	deploymentPrefix = "Deployments"
)

// texts reads rows of one text.
func texts(rows *sql.Rows) (out []string, err error) {
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			return nil, err
		}
		out = append(out, text)
	}
	return out, rows.Err()
}

// bodies decodes rows of one JSON document.
func bodies[T any](rows *sql.Rows) ([]T, error) {
	defer func() { _ = rows.Close() }() // Err tells
	out := []T{}
	for rows.Next() {
		var body string
		if err := rows.Scan(&body); err != nil {
			return nil, err
		}
		var v T
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			return nil, err
		}
		out = append(out, v)
	}
	return out, rows.Err()
}

// in makes "column IN (...)" and adds the values to args.
func in(column string, values []string, args *[]any) string {
	if len(values) == 0 {
		return `1 = 0`
	}
	for _, v := range values {
		*args = append(*args, v)
	}
	return column + ` IN (?` + strings.Repeat(`, ?`, len(values)-1) + `)`
}

func one[T any](ctx context.Context, tx *db.Tx, noun, ref, query string, args ...any) (*T, error) {
	var body string
	err := tx.QueryRow(ctx, query, args...).Scan(&body)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, fault.Missing(noun, ref)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s %s: %w", noun, ref, err)
	}
	v := new(T)
	if err := json.Unmarshal([]byte(body), v); err != nil {
		return nil, fmt.Errorf("read %s %s: %w", noun, ref, err)
	}
	return v, nil
}

// Release reads a release of a space.
func (s *Service) Release(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) (*octopus.Release, error) {
	return one[octopus.Release](ctx, tx, "release", id, `SELECT r.body FROM release r WHERE r.id = ? AND r.space_id = ?`, canonical(releasePrefix, id), string(space))
}

// ReleaseByVersion reads a project's release by its version, or by its id.
func (s *Service) ReleaseByVersion(ctx context.Context, tx *db.Tx, project, text string) (*octopus.Release, error) {
	return one[octopus.Release](ctx, tx, "release", text, `SELECT r.body FROM release r WHERE r.project_id = ? AND (r.version_folded = ? OR r.id = ?)
		ORDER BY CASE WHEN r.version_folded = ? THEN 0 ELSE 1 END LIMIT 1`, project, ident.Fold(text), canonical(releasePrefix, text), ident.Fold(text))
}

// Deployment reads a deployment of a space.
func (s *Service) Deployment(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) (*octopus.Deployment, error) {
	return one[octopus.Deployment](ctx, tx, "deployment", id, `SELECT d.body FROM deployment d WHERE d.id = ? AND d.space_id = ?`, canonical(deploymentPrefix, id), string(space))
}

func encode(v any) (string, error) {
	body, err := json.Marshal(v)
	return string(body), err
}

// insertRelease stores a new release. The answer is the id of the release that
// has the version: the new one's, or another's.
func insertRelease(ctx context.Context, tx *db.Tx, r *octopus.Release, seq int64) (holder string, err error) {
	v, err := version.Parse(version.Octopus, r.Version)
	if err != nil {
		return "", err
	}
	body, err := encode(r)
	if err != nil {
		return "", fmt.Errorf("encode release: %w", err)
	}
	err = tx.QueryRow(ctx, `INSERT INTO release (id, seq, space_id, project_id, channel_id, version, version_folded, version_key, created, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
		ON CONFLICT (project_id, version_folded) DO UPDATE SET id = release.id RETURNING id`,
		r.ID, seq, r.SpaceID, r.ProjectID, r.ChannelID, r.Version, ident.Fold(r.Version), version.SortKey(v), db.Micros(r.Assembled.Time), body).Scan(&holder)
	if err != nil {
		return "", fmt.Errorf("store release %s: %w", r.Version, err)
	}
	return holder, nil
}

// updateRelease stores a changed release.
func updateRelease(ctx context.Context, tx *db.Tx, r *octopus.Release) error {
	v, err := version.Parse(version.Octopus, r.Version)
	if err != nil {
		return err
	}
	now := octopus.NewTime(tx.Now())
	r.LastModifiedOn, r.LastModifiedBy, r.Links = &now, octopus.NullString(db.ActorFrom(ctx).Username), nil
	body, err := encode(r)
	if err != nil {
		return fmt.Errorf("encode release: %w", err)
	}
	_, err = tx.Exec(ctx, `UPDATE release SET channel_id = ?, version = ?, version_folded = ?, version_key = ?, body = ? WHERE id = ?`,
		r.ChannelID, r.Version, ident.Fold(r.Version), version.SortKey(v), body, r.ID)
	if errors.Is(err, db.ErrUnique) {
		return taken(r.Version)
	}
	if err != nil {
		return fmt.Errorf("store release %s: %w", r.ID, err)
	}
	tx.Changed("releases")
	return nil
}

// taken says that a project has a release of that version.
func taken(text string) error {
	return invalid("Version", "Release '%s' already exists for this project; give another version, or a mask such as 1.2.i, which counts up.", text)
}

// successes are the successful deployments of a release, each place once.
func successes(ctx context.Context, tx *db.Tx, release string) ([]lifecycle.Success, error) {
	rows, err := tx.Query(ctx, `SELECT DISTINCT d.environment_id, d.tenant_id FROM deployment d WHERE d.release_id = ? AND d.state = 'Success'`, release)
	if err != nil {
		return nil, fmt.Errorf("read successes of %s: %w", release, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var out []lifecycle.Success
	for rows.Next() {
		var one lifecycle.Success
		if err := rows.Scan(&one.EnvironmentID, &one.TenantID); err != nil {
			return nil, err
		}
		out = append(out, one)
	}
	return out, rows.Err()
}

// hasDefect reports whether a release has an unresolved defect.
func hasDefect(ctx context.Context, tx *db.Tx, release string) (bool, error) {
	var n int64
	err := tx.QueryRow(ctx, `SELECT count(*) FROM release_defect f WHERE f.release_id = ? AND f.status = 'Unresolved'`, release).Scan(&n)
	return n > 0, err
}
