package releases

import (
	"context"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/octopus"
)

const (
	defectPrefix = "Defects"
	maxDefect    = 1 << 14 // bytes of a description
)

// projectOf reads the project of a release and checks a permission for it.
func (s *Service) projectOf(ctx context.Context, tx *db.Tx, r *octopus.Release, permission octopus.Permission, allow Allow) (*octopus.Project, error) {
	project, err := get[octopus.Project](ctx, s, tx, ident.SpaceID(r.SpaceID), "projects", r.ProjectID)
	if err != nil {
		return nil, err
	}
	return project, allow.check(permission, auth.Target{Project: project.ID, ProjectGroup: project.ProjectGroupID})
}

// Defects lists the defects of a release, the newest first.
func (s *Service) Defects(ctx context.Context, tx *db.Tx, release string, page ident.Page) ([]octopus.Defect, int64, error) {
	var total int64
	if err := tx.QueryRow(ctx, `SELECT count(*) FROM release_defect f WHERE f.release_id = ?`, release).Scan(&total); err != nil {
		return nil, 0, fmt.Errorf("count defects of %s: %w", release, err)
	}
	page = page.Clamp()
	rows, err := tx.Query(ctx, `SELECT f.body FROM release_defect f WHERE f.release_id = ? ORDER BY f.seq DESC LIMIT ? OFFSET ?`, release, page.Take, page.Skip)
	if err != nil {
		return nil, 0, fmt.Errorf("list defects of %s: %w", release, err)
	}
	found, err := bodies[octopus.Defect](rows)
	return found, total, err
}

// ReportDefect keeps a release from going further, for a reason. A release has at
// most one unresolved defect.
func (s *Service) ReportDefect(ctx context.Context, tx *db.Tx, r *octopus.Release, description string, allow Allow) (*octopus.Defect, error) {
	project, err := s.projectOf(ctx, tx, r, octopus.PermDefectReport, allow)
	if err != nil {
		return nil, err
	}
	description = strings.TrimSpace(description)
	switch blocked, err := hasDefect(ctx, tx, r.ID); {
	case err != nil:
		return nil, err
	case blocked:
		return nil, fault.New(fault.Conflict, "The release '%s' is kept from going further already; resolve that defect first.", r.Version)
	case description == "":
		return nil, invalid("Description", "Description is empty; say why the release must not go further.")
	case len(description) > maxDefect:
		return nil, invalid("Description", "Description has %d bytes; use at most %d.", len(description), maxDefect)
	}
	seq, err := tx.NextSeq(ctx, defectPrefix)
	if err != nil {
		return nil, err
	}
	now := octopus.NewTime(tx.Now())
	d := &octopus.Defect{
		Resource:  octopus.Resource{ID: ident.ID(defectPrefix, seq), LastModifiedOn: &now, LastModifiedBy: octopus.NullString(db.ActorFrom(ctx).Username)},
		ReleaseID: r.ID, Description: description, Status: octopus.DefectUnresolved,
	}
	body, err := encode(d)
	if err != nil {
		return nil, fmt.Errorf("encode defect: %w", err)
	}
	if _, err := tx.Exec(ctx, `INSERT INTO release_defect (id, seq, release_id, status, created, body) VALUES (?, ?, ?, ?, ?, ?)`,
		d.ID, seq, r.ID, string(d.Status), db.Micros(tx.Now()), body); err != nil {
		return nil, fmt.Errorf("store defect of %s: %w", r.ID, err)
	}
	tx.Changed("releases")
	tx.Event(releaseEvent(octopus.EventModified, project, r, "was kept from going further: "+description))
	return d, nil
}

// ResolveDefects lets a release go further again, and makes the automatic
// deployments that the defects have held back.
func (s *Service) ResolveDefects(ctx context.Context, tx *db.Tx, r *octopus.Release, allow Allow) (*octopus.Defect, error) {
	project, err := s.projectOf(ctx, tx, r, octopus.PermDefectResolve, allow)
	if err != nil {
		return nil, err
	}
	rows, err := tx.Query(ctx, `SELECT f.body FROM release_defect f WHERE f.release_id = ? AND f.status = 'Unresolved' ORDER BY f.seq`, r.ID)
	if err != nil {
		return nil, fmt.Errorf("read defects of %s: %w", r.ID, err)
	}
	found, err := bodies[octopus.Defect](rows)
	switch {
	case err != nil:
		return nil, err
	case len(found) == 0:
		return nil, fault.New(fault.Conflict, "The release '%s' has no unresolved defect.", r.Version)
	}
	sc, err := s.scene(ctx, tx, ident.SpaceID(r.SpaceID), r)
	if err != nil {
		return nil, err
	}
	now := octopus.NewTime(tx.Now())
	for i := range found {
		d := &found[i]
		d.Status, d.LastModifiedOn, d.LastModifiedBy = octopus.DefectResolved, &now, octopus.NullString(db.ActorFrom(ctx).Username)
		body, err := encode(d)
		if err != nil {
			return nil, fmt.Errorf("encode defect: %w", err)
		}
		if _, err := tx.Exec(ctx, `UPDATE release_defect SET status = ?, body = ? WHERE id = ?`, string(d.Status), body, d.ID); err != nil {
			return nil, fmt.Errorf("resolve %s: %w", d.ID, err)
		}
	}
	tx.Changed("releases")
	tx.Event(releaseEvent(octopus.EventModified, project, r, "may go further again"))
	return &found[len(found)-1], sc.released(ctx, tx)
}

// released makes the automatic deployments that a defect has held back.
func (sc *scene) released(ctx context.Context, tx *db.Tx) error {
	if !automates(sc.lifecycle) {
		return nil
	}
	tenants, err := sc.tenants(ctx, tx, "")
	if err != nil {
		return err
	}
	whom := []*octopus.Tenant{}
	if sc.project.TenantedDeploymentMode != octopus.Tenanted {
		whom = append(whom, nil)
	}
	for i := range tenants {
		if sc.project.TenantedDeploymentMode != octopus.Untenanted {
			whom = append(whom, &tenants[i])
		}
	}
	for _, t := range whom {
		sc.defect = true
		before := sc.progress(t)
		sc.defect = false
		for _, id := range lifecycle.NewlyAutomatic(before, sc.progress(t)) {
			e, err := sc.environment(id)
			if err != nil {
				return err
			}
			p := place{e, t}
			// One that was made before the defect was reported is not made again.
			var n int64
			err = tx.QueryRow(ctx, `SELECT count(*) FROM deployment d WHERE d.release_id = ? AND d.environment_id = ? AND d.tenant_id = ?`,
				sc.release.ID, e.ID, p.tenantID()).Scan(&n)
			if err != nil {
				return fmt.Errorf("count deployments of %s: %w", sc.release.ID, err)
			}
			if n > 0 {
				continue
			}
			if _, err := sc.automatically(ctx, tx, p); err != nil {
				return err
			}
		}
	}
	return nil
}
