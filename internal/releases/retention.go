package releases

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// retentionBatch is how many releases one transaction deletes.
const retentionBatch = 20

// RetentionVerdict is what retention makes of a release.
type RetentionVerdict struct {
	lifecycle.Verdict
	ChannelID string
}

// Retention decides which releases of a project are kept, and why; it changes
// nothing. The newest of a channel come first.
func (s *Service) Retention(ctx context.Context, tx *db.Tx, project *octopus.Project) ([]RetentionVerdict, error) {
	space := ident.SpaceID(project.SpaceID)
	environments, err := all[octopus.Environment](ctx, s, tx, space, "environments")
	if err != nil {
		return nil, err
	}
	channels, err := s.channels(ctx, tx, project)
	if err != nil {
		return nil, err
	}
	byDefault, err := s.defaultRetention(ctx, tx, space)
	if err != nil {
		return nil, err
	}
	candidates, err := candidatesOf(ctx, tx, project.ID)
	if err != nil {
		return nil, err
	}
	lifecycles, err := s.lifecycles(ctx, tx, project, channels)
	if err != nil {
		return nil, err
	}
	var out []RetentionVerdict
	for _, c := range channels {
		for _, v := range lifecycle.Retain(lifecycle.RetentionInput{
			Lifecycle: *lifecycles[lifecycleOf(&c, project)], Environments: environments, Default: byDefault, Now: tx.Now(), Releases: candidates[c.ID],
		}) {
			out = append(out, RetentionVerdict{v, c.ID})
		}
	}
	return out, nil
}

// defaultRetention is the policy of a space for releases; where it has none, all
// are kept.
func (s *Service) defaultRetention(ctx context.Context, tx *db.Tx, space ident.SpaceID) (octopus.RetentionPeriod, error) {
	forever := *octopus.KeepForever()
	if !s.knows("retentionpolicies") {
		return forever, nil
	}
	found, err := all[octopus.RetentionPolicy](ctx, s, tx, space, "retentionpolicies")
	if err != nil {
		return forever, err
	}
	for _, p := range found {
		if p.RetentionType == octopus.RetentionLifecycleRelease {
			return octopus.RetentionPeriod{Strategy: p.Strategy, Unit: p.Unit, QuantityToKeep: p.QuantityToKeep}, nil
		}
	}
	return forever, nil
}

// candidatesOf reads the releases of a project by channel, the newest first, with
// where they were deployed and what needs them.
func candidatesOf(ctx context.Context, tx *db.Tx, project string) (map[string][]lifecycle.RetentionCandidate, error) {
	deployed := map[string]map[string]time.Time{}
	var places []lifecycle.PlaceDeployment
	rows, err := tx.Query(ctx, `SELECT d.release_id, d.environment_id, d.tenant_id, d.created, d.completed, d.state FROM deployment d WHERE d.project_id = ? ORDER BY d.created DESC, d.seq DESC`, project)
	if err != nil {
		return nil, fmt.Errorf("read deployments of %s: %w", project, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var d lifecycle.PlaceDeployment
		var created, completed int64
		var state octopus.TaskState
		if err := rows.Scan(&d.ReleaseID, &d.Place.EnvironmentID, &d.Place.TenantID, &created, &completed, &state); err != nil {
			return nil, err
		}
		d.At, d.Success, d.Ended = db.Time(max(created, completed)), state == octopus.TaskSuccess, state != ""
		places = append(places, d)
		if deployed[d.ReleaseID] == nil {
			deployed[d.ReleaseID] = map[string]time.Time{}
		}
		if at := deployed[d.ReleaseID][d.Place.EnvironmentID]; d.At.After(at) {
			deployed[d.ReleaseID][d.Place.EnvironmentID] = d.At
		}
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil {
		return nil, err
	}
	needed := lifecycle.Needed(places)
	out := map[string][]lifecycle.RetentionCandidate{}
	rows, err = tx.Query(ctx, `SELECT r.id, r.version, r.created, r.channel_id FROM release r WHERE r.project_id = ? ORDER BY r.created DESC, r.seq DESC`, project)
	if err != nil {
		return nil, fmt.Errorf("read releases of %s: %w", project, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var c lifecycle.RetentionCandidate
		var created int64
		var channel string
		if err := rows.Scan(&c.ID, &c.Version, &created, &channel); err != nil {
			return nil, err
		}
		c.Created, c.Deployed, c.Needed = db.Time(created), deployed[c.ID], needed[c.ID]
		out[channel] = append(out[channel], c)
	}
	return out, rows.Err()
}

// deleteOld deletes at most retentionBatch releases that retention does not keep,
// in one transaction with its event, and says which. What was deployed meanwhile
// stays: it is decided anew, by what the transaction itself reads.
func (s *Service) deleteOld(ctx context.Context, project *octopus.Project) (gone []RetentionVerdict, err error) {
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		gone = nil
		verdicts, err := s.Retention(ctx, tx, project)
		if err != nil {
			return err
		}
		for _, v := range verdicts {
			if v.Keep || len(gone) == retentionBatch {
				continue
			}
			if err := s.dropRelease(ctx, tx, &octopus.Release{Resource: octopus.Resource{ID: v.ReleaseID}}); err != nil {
				return err
			}
			gone = append(gone, v)
		}
		if len(gone) > 0 {
			tx.Event(retentionEvent(project, gone))
		}
		return nil
	})
	return gone, err
}

func retentionEvent(project *octopus.Project, gone []RetentionVerdict) db.Event {
	m := message{}
	m.text(fmt.Sprintf("Retention deleted %d releases of project ", len(gone))).ref(project.ID, project.Name).text(": ")
	e := db.Event{
		Category: string(octopus.EventRetentionApplied), SpaceID: project.SpaceID, Related: []string{project.ID},
		ProjectID: project.ID, ProjectGroupID: project.ProjectGroupID, DocumentType: "Release",
	}
	for i, v := range gone {
		if i > 0 {
			m.text(", ")
		}
		m.ref(v.ReleaseID, v.Version)
		e.Related = append(e.Related, v.ReleaseID)
	}
	e.Message, e.References = m.String(), m.refs
	return e
}

// Retainer runs the task Retention: it applies the policies of all projects.
type Retainer struct{ s *Service }

// Retainer is the runner of the task Retention.
func (s *Service) Retainer() *Retainer { return &Retainer{s} }

// Ended is tasks.Runner; nothing is left to do.
func (*Retainer) Ended(context.Context, *db.Tx, *tasks.Task, octopus.TaskState) error { return nil }

// Run is tasks.Runner. What it has done by the time that its process dies need not
// be done again: another process decides anew what is left.
func (t *Retainer) Run(ctx context.Context, l *tasks.Lease) error {
	if _, err := l.Facts(ctx); err != nil {
		return err
	}
	projects, err := t.projects(ctx)
	if err != nil {
		return err
	}
	deleted, failed := 0, 0
	for i := range projects {
		select {
		case <-l.Canceled:
			return l.Finish(ctx, octopus.TaskCanceled, "The task was canceled.", tasks.Batch{})
		default:
		}
		n, err := t.project(ctx, l, &projects[i])
		deleted += n
		if err == nil {
			continue
		}
		if fault.KindOf(err) == fault.Internal || fault.KindOf(err) == fault.Unavailable {
			return err
		}
		failed++
		if err := l.Commit(ctx, tasks.Batch{Warnings: true, Lines: []tasks.Line{line(l, octopus.LogError, "Project "+projects[i].Name+" was left out: "+strings.Join(fault.Messages(err), " "))}}); err != nil {
			return err
		}
	}
	end := tasks.Batch{Lines: []tasks.Line{line(l, octopus.LogInfo, fmt.Sprintf("Deleted %d releases of %d projects.", deleted, len(projects)))}}
	if failed > 0 {
		return l.Finish(ctx, octopus.TaskFailed, fmt.Sprintf("%d projects were left out.", failed), end)
	}
	return l.Finish(ctx, octopus.TaskSuccess, "", end)
}

func line(l *tasks.Lease, category octopus.LogCategory, text string) tasks.Line {
	return tasks.Line{Activity: l.ID, Category: category, At: time.Now().UTC(), Text: text}
}

// projects are those of every space.
func (t *Retainer) projects(ctx context.Context) (found []octopus.Project, err error) {
	err = t.s.db.Read(ctx, func(tx *db.Tx) error {
		found = nil
		spaces, err := all[octopus.Space](ctx, t.s, tx, "", "spaces")
		if err != nil {
			return err
		}
		for _, space := range spaces {
			more, err := all[octopus.Project](ctx, t.s, tx, ident.SpaceID(space.ID), "projects")
			if err != nil {
				return err
			}
			found = append(found, more...)
		}
		return nil
	})
	return found, err
}

// project applies the policies of one project, and logs the reason for each release.
func (t *Retainer) project(ctx context.Context, l *tasks.Lease, project *octopus.Project) (deleted int, err error) {
	var verdicts []RetentionVerdict
	err = t.s.db.Read(ctx, func(tx *db.Tx) error {
		verdicts, err = t.s.Retention(ctx, tx, project)
		return err
	})
	if err != nil {
		return 0, err
	}
	const lines = 500
	for some := range slices.Chunk(verdicts, lines) {
		b := tasks.Batch{}
		for _, v := range some {
			does := "is kept"
			if !v.Keep {
				does = "is deleted"
			}
			b.Lines = append(b.Lines, line(l, octopus.LogInfo, fmt.Sprintf("%s: release %s %s: %s.", project.Name, v.Version, does, v.Reason)))
		}
		if err := l.Commit(ctx, b); err != nil {
			return 0, err
		}
	}
	if !slices.ContainsFunc(verdicts, func(v RetentionVerdict) bool { return !v.Keep }) {
		return 0, nil
	}
	for {
		gone, err := t.s.deleteOld(ctx, project)
		if err != nil || len(gone) == 0 {
			return deleted, err
		}
		deleted += len(gone)
		if err := l.Commit(ctx, tasks.Batch{Lines: []tasks.Line{line(l, octopus.LogVerbose, fmt.Sprintf("%s: deleted %d releases.", project.Name, len(gone)))}}); err != nil {
			return deleted, err
		}
	}
}

var _ tasks.Runner = (*Retainer)(nil)
