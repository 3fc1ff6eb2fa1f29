package health

import (
	"context"
	"fmt"
	"strings"
	"time"
	"unicode/utf16"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// cleanUp removes machines that have not been available for as long as their policies
// say, and not only at this check. Machines that are gone already are passed over, so
// that it can be done again.
func (r *run) cleanUp(ctx context.Context) (lines []tasks.Line, err error) {
	for _, m := range r.job.Machines {
		if f := r.p.over[m.ID]; f.Skipped != "" || f.Status != octopus.Unavailable {
			continue
		}
		err := r.remove(ctx, m, func(category octopus.LogCategory, text string) {
			lines = append(lines, r.line(Activity(r.l.ID, m.ID), category, "%s", text))
		})
		if err != nil {
			return nil, err
		}
	}
	return lines, nil
}

// remove removes a machine if it is time.
func (r *run) remove(ctx context.Context, m Machine, say func(octopus.LogCategory, string)) error {
	var refused []string
	did := ""
	err := r.cfg.DB.Write(ctx, func(tx *db.Tx) error {
		did = ""
		var now octopus.MachineBase
		err := r.cfg.Store.Load(ctx, tx, m.Kind, m.ID, &now)
		if fault.Is(err, fault.NotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		policy := resources.HealthPolicyOf(r.policies, now.MachinePolicyID)
		if !policy.Deletes || now.IsDisabled || now.HealthStatus != octopus.Unavailable {
			return nil
		}
		last, err := resources.LastCheckOf(ctx, tx, m.ID)
		if err != nil {
			return err
		}
		// What was found for the first time just now may be back in a moment.
		if last.Away.IsZero() || !last.Away.Before(r.l.Started) || tx.Now().Sub(last.Away) < policy.DeleteAfter {
			return nil
		}
		did = fmt.Sprintf("was deleted by its policy: it has not been available since %s", last.Away.UTC().Format(time.RFC3339))
		tx.Event(r.event(octopus.EventMachineDeleted, m, did))
		return r.cfg.Store.In(tx).Delete(ctx, m.Kind, m.ID)
	})
	if fault.Is(err, fault.Conflict) {
		refused = fault.Messages(err)
		err = r.cfg.DB.Write(ctx, func(tx *db.Tx) error {
			tx.Event(r.event(octopus.EventMachineCleanupFailed, m, "could not be deleted as its policy wants: "+strings.TrimSuffix(strings.Join(refused, " "), ".")))
			return nil
		})
	}
	switch {
	case err != nil:
		return fmt.Errorf("remove %s: %w", m.ID, err)
	case len(refused) > 0:
		say(octopus.LogWarning, m.Name+" has not been available for too long, and could not be deleted: "+strings.Join(refused, " "))
	case did != "":
		say(octopus.LogWarning, m.Name+" "+did+".")
	}
	return nil
}

// event is one about a machine of the task.
func (r *run) event(category octopus.EventCategory, m Machine, did string) db.Event {
	label, document := "Deployment target ", "Machine"
	if m.Kind == resources.WorkerKind {
		label, document = "Worker ", "Worker"
	}
	return db.Event{
		Category: string(category), SpaceID: string(r.l.Space), Message: label + m.Name + " " + did, Related: []string{m.ID, r.l.ID}, DocumentType: document,
		References: []db.EventReference{{ID: m.ID, Start: len(label), Length: len(utf16.Encode([]rune(m.Name)))}},
	}
}
