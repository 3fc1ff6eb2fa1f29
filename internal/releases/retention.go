package releases

import (
	"context"
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/octopus"
)

const (
	// retentionPage is how many releases are decided on at a time.
	retentionPage = 500
	// retentionBatch is how many releases one transaction deletes.
	retentionBatch = 20
)

// RetentionVerdict is what retention makes of a release.
type RetentionVerdict struct {
	lifecycle.Verdict
	ChannelID string
}

// Retention decides which releases of a project are kept, and why, and tells fn of
// each, the newest first, whatever its channel. It changes nothing, and fn may not use
// tx. What is in memory is a page of releases and what is known of each place.
func (s *Service) Retention(ctx context.Context, tx *db.Tx, project *octopus.Project, fn func(RetentionVerdict) error) error {
	j, err := s.judge(ctx, tx, project)
	if err != nil {
		return err
	}
	for {
		page, err := j.next(ctx, tx)
		if err != nil || len(page) == 0 {
			return err
		}
		for i := range page {
			if err := fn(page[i].RetentionVerdict); err != nil {
				return err
			}
		}
	}
}

// judge goes through the releases of a project, the newest first, and decides which
// are kept.
type judge struct {
	s        *Service
	project  *octopus.Project
	rules    map[string]lifecycle.RetentionInput // by channel
	needed   map[string]string
	channels map[string]*lifecycle.Retention // those that had releases so far
	created  int64                           // where the last page ended
	seq      int64
}

func (s *Service) judge(ctx context.Context, tx *db.Tx, project *octopus.Project) (*judge, error) {
	j := &judge{s: s, project: project, channels: map[string]*lifecycle.Retention{}, created: math.MaxInt64, seq: math.MaxInt64}
	var err error
	if j.rules, err = s.retentionRules(ctx, tx, project); err != nil {
		return nil, err
	}
	if j.needed, err = neededReleases(ctx, tx, project.ID); err != nil {
		return nil, err
	}
	return j, nil
}

// retentionRules are what decides in each channel of a project.
func (s *Service) retentionRules(ctx context.Context, tx *db.Tx, project *octopus.Project) (map[string]lifecycle.RetentionInput, error) {
	space := ident.SpaceID(project.SpaceID)
	environments, err := s.allEnvironments(ctx, tx, space)
	if err != nil {
		return nil, err
	}
	channels, err := s.channels(ctx, tx, project)
	if err != nil {
		return nil, err
	}
	byDefault, err := s.defaultRetention(ctx, tx, space, octopus.RetentionLifecycleRelease)
	if err != nil {
		return nil, err
	}
	lifecycles, err := s.lifecycles(ctx, tx, project, channels)
	if err != nil {
		return nil, err
	}
	rules := map[string]lifecycle.RetentionInput{}
	for i := range channels {
		c := &channels[i]
		rules[c.ID] = lifecycle.RetentionInput{Lifecycle: *lifecycles[lifecycleOf(c, project)], Environments: environments, Default: byDefault}
	}
	return rules, nil
}

// judged is a verdict and what it was made from.
type judged struct {
	RetentionVerdict
	created, seq int64
	deployments  int64 // how many, and the last of them
	last         int64
}

// next decides on the next page of releases; none is the end. It may be called in
// one transaction after the other. The channels' releases come together, so that a
// page takes the same few statements however many channels there are.
func (j *judge) next(ctx context.Context, tx *db.Tx) ([]judged, error) {
	rows, err := tx.Query(ctx, `SELECT r.id, r.version, r.channel_id, r.created, r.seq FROM release r WHERE r.project_id = ? AND (r.created, r.seq) < (?, ?)
		ORDER BY r.created DESC, r.seq DESC LIMIT ?`, j.project.ID, j.created, j.seq, int64(retentionPage))
	if err != nil {
		return nil, fmt.Errorf("read releases of %s: %w", j.project.ID, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var page []judged
	at := map[string]int{}
	var ids []string
	for rows.Next() {
		var one judged
		if err := rows.Scan(&one.ReleaseID, &one.Version, &one.ChannelID, &one.created, &one.seq); err != nil {
			return nil, err
		}
		at[one.ReleaseID] = len(page)
		ids = append(ids, one.ReleaseID)
		page = append(page, one)
	}
	if err := errors.Join(rows.Err(), rows.Close()); err != nil || len(page) == 0 {
		return nil, err
	}
	deployed := make([]map[string]time.Time, len(page))
	var args []any
	rows, err = tx.Query(ctx, `SELECT d.release_id, d.environment_id, max(CASE WHEN d.completed > d.created THEN d.completed ELSE d.created END), count(*), max(d.seq)
		FROM deployment d WHERE `+in("d.release_id", ids, &args)+` GROUP BY d.release_id, d.environment_id`, args...)
	if err != nil {
		return nil, fmt.Errorf("read deployments of %s: %w", j.project.ID, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	for rows.Next() {
		var release, environment string
		var when, n, seq int64
		if err := rows.Scan(&release, &environment, &when, &n, &seq); err != nil {
			return nil, err
		}
		i := at[release]
		if deployed[i] == nil {
			deployed[i] = map[string]time.Time{}
		}
		deployed[i][environment] = db.Time(when)
		page[i].deployments, page[i].last = page[i].deployments+n, max(page[i].last, seq)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for i := range page {
		one := &page[i]
		one.Verdict = j.channel(one.ChannelID, tx.Now()).Decide(&lifecycle.RetentionCandidate{
			ID: one.ReleaseID, Version: one.Version, Created: db.Time(one.created), Deployed: deployed[i], Needed: j.needed[one.ReleaseID],
		})
		j.created, j.seq = one.created, one.seq
	}
	return page, nil
}

// channel goes on with the releases of a channel. In one that is gone, as far as that
// can be, everything is kept.
func (j *judge) channel(id string, now time.Time) *lifecycle.Retention {
	r := j.channels[id]
	if r == nil {
		in, known := j.rules[id]
		if !known {
			in.Default = *octopus.KeepForever()
		}
		in.Now = now
		r = lifecycle.NewRetention(in)
		j.channels[id] = r
	}
	return r
}

// defaultRetention is the policy of a space for what is kept; where it has none, all
// is.
func (s *Service) defaultRetention(ctx context.Context, tx *db.Tx, space ident.SpaceID, of octopus.RetentionType) (octopus.RetentionPeriod, error) {
	forever := *octopus.KeepForever()
	if !s.knows("retentionpolicies") {
		return forever, nil
	}
	found, err := all[octopus.RetentionPolicy](ctx, s, tx, space, "retentionpolicies")
	if err != nil {
		return forever, err
	}
	for _, p := range found {
		if p.RetentionType == of {
			return octopus.RetentionPeriod{Strategy: p.Strategy, Unit: p.Unit, QuantityToKeep: p.QuantityToKeep}, nil
		}
	}
	return forever, nil
}

// neededReleases are the releases of a project that are kept whatever its policies
// say, with the reason.
func neededReleases(ctx context.Context, tx *db.Tx, project string) (map[string]string, error) {
	rows, err := tx.Query(ctx, `SELECT d.release_id, d.environment_id, d.tenant_id, d.created, d.completed, d.state FROM deployment d WHERE d.project_id = ? ORDER BY d.created DESC, d.seq DESC`, project)
	if err != nil {
		return nil, fmt.Errorf("read deployments of %s: %w", project, err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	var needs lifecycle.Needs
	for rows.Next() {
		var d lifecycle.PlaceDeployment
		var created, completed int64
		var state octopus.TaskState
		if err := rows.Scan(&d.ReleaseID, &d.Place.EnvironmentID, &d.Place.TenantID, &created, &completed, &state); err != nil {
			return nil, err
		}
		d.At, d.Success, d.Ended = db.Time(max(created, completed)), state == octopus.TaskSuccess, state != ""
		needs.Add(d)
	}
	return needs.Why(), rows.Err()
}

// errRulesChanged says that what decides was changed while releases were deleted.
var errRulesChanged = errors.New("the rules of retention were changed")

// deleteOld deletes those of some releases that retention does not keep, in one
// transaction with its event, and says which. What was deployed, or became current,
// since it was decided stays; when the rules are others by now, nothing is deleted
// and errRulesChanged returned.
func (s *Service) deleteOld(ctx context.Context, j *judge, old []judged) (gone []RetentionVerdict, err error) {
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		gone = nil
		rules, err := s.retentionRules(ctx, tx, j.project)
		if err != nil {
			return err
		}
		for i := range old {
			v := &old[i]
			if !reflect.DeepEqual(rules[v.ChannelID], j.rules[v.ChannelID]) {
				return errRulesChanged
			}
			var same int64
			err := tx.QueryRow(ctx, `SELECT count(*) FROM release r WHERE r.id = ? AND r.channel_id = ?
					AND (SELECT count(*) FROM deployment d WHERE d.release_id = r.id) = ? AND (SELECT coalesce(max(d.seq), 0) FROM deployment d WHERE d.release_id = r.id) = ?
					AND NOT EXISTS (SELECT 1 FROM current_release c WHERE c.release_id = r.id)`,
				v.ReleaseID, v.ChannelID, v.deployments, v.last).Scan(&same)
			if err != nil {
				return fmt.Errorf("read release %s: %w", v.ReleaseID, err)
			}
			if same == 0 {
				continue
			}
			if err := s.dropRelease(ctx, tx, &octopus.Release{Resource: octopus.Resource{ID: v.ReleaseID}}); err != nil {
				return err
			}
			gone = append(gone, v.RetentionVerdict)
		}
		if len(gone) > 0 {
			tx.Event(retentionEvent(j.project, gone))
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return gone, failpoint.Hit("releases-retained")
}

// Retain applies the policies of a project, and tells say the reason for each
// release before any is deleted that say was told of; an error of say ends it.
// deleted counts also when there is an error. Deciding and deleting take time in
// proportion to the releases and deployments there are.
func (s *Service) Retain(ctx context.Context, project *octopus.Project, say func(RetentionVerdict) error) (deleted int, err error) {
	const attempts = 3
	for try := 1; ; try++ {
		n, err := s.retain(ctx, project, say)
		deleted += n
		if !errors.Is(err, errRulesChanged) {
			return deleted, err
		}
		if try == attempts {
			return deleted, nil // they will have settled by the next time
		}
	}
}

func (s *Service) retain(ctx context.Context, project *octopus.Project, say func(RetentionVerdict) error) (deleted int, err error) {
	var j *judge
	for {
		var page []judged
		err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
			if j == nil {
				if j, err = s.judge(ctx, tx, project); err != nil {
					return err
				}
			}
			page, err = j.next(ctx, tx)
			return err
		})
		if err != nil || len(page) == 0 {
			return deleted, err
		}
		var old []judged
		for i := range page {
			if err := say(page[i].RetentionVerdict); err != nil {
				return deleted, err
			}
			if !page[i].Keep {
				old = append(old, page[i])
			}
		}
		for batch := range slices.Chunk(old, retentionBatch) {
			gone, err := s.deleteOld(ctx, j, batch)
			deleted += len(gone)
			if err != nil {
				return deleted, err
			}
		}
	}
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
