package resources

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
	"unicode/utf16"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// MachineChanges is the kind of due rows for targets that came or changed.
const MachineChanges = "machines"

const (
	// MachineWindow is how long targets that come or change are gathered before
	// triggers deploy to them together.
	MachineWindow = 30 * time.Second
	// mostChanges is how many changes one due row gathers.
	mostChanges = 200
)

// MachineChange is something that happened to a target: the argument of a due row is a
// list of them.
type MachineChange struct {
	MachineID string
	Category  octopus.EventCategory
}

// machineInTx tells of what a change means for deployments, and has triggers look at it.
func machineInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.Machine]) error {
	if c.New == nil {
		return errors.Join(rememberMachine(ctx, w.Tx(), c.Space, c.ID, &c.Old.MachineBase), forgetHealth(ctx, w.Tx(), c.ID))
	}
	var old *octopus.MachineBase
	if c.Old != nil {
		old = &c.Old.MachineBase
	}
	if err := firstCheck(ctx, w.Tx(), TargetKind, c.Space, c.ID, old, &c.New.MachineBase); err != nil {
		return err
	}
	categories := machineCategories(c.Old, c.New)
	for _, category := range categories {
		w.Tx().Event(machineEvent(category, string(c.Space), c.ID, c.New))
	}
	if c.New.IsDisabled || len(categories) == 0 {
		return nil
	}
	return noteChanges(ctx, w.Tx(), c.Space, c.ID, categories)
}

// machineCategories are what a change of a target is, beside one of a document.
func machineCategories(old, v *octopus.Machine) []octopus.EventCategory {
	if old == nil {
		return []octopus.EventCategory{octopus.EventMachineAdded}
	}
	var out []octopus.EventCategory
	switch {
	case old.IsDisabled && !v.IsDisabled:
		out = append(out, octopus.EventMachineEnabled)
	case !old.IsDisabled && v.IsDisabled:
		out = append(out, octopus.EventMachineDisabled)
	}
	if !sameSet(old.Roles, v.Roles) {
		out = append(out, octopus.EventMachineRoleChanged)
	}
	if !sameSet(old.Roles, v.Roles) || !sameSet(old.EnvironmentIDs, v.EnvironmentIDs) || !sameSet(old.TenantIDs, v.TenantIDs) || !sameSet(old.TenantTags, v.TenantTags) ||
		old.TenantedDeploymentParticipation != v.TenantedDeploymentParticipation {
		out = append(out, octopus.EventMachineDeploymentState)
	}
	return out
}

// sameSet reports whether two lists have the same entries, without case.
func sameSet(a, b []string) bool {
	fold := func(list []string) []string {
		out := make([]string, len(list))
		for i, v := range list {
			out[i] = ident.Fold(v)
		}
		slices.Sort(out)
		return slices.Compact(out)
	}
	return slices.Equal(fold(a), fold(b))
}

// machineDid is what happened to a machine, in words.
func machineDid(category octopus.EventCategory) string {
	return map[octopus.EventCategory]string{
		octopus.EventMachineAdded: "was added", octopus.EventMachineEnabled: "was enabled", octopus.EventMachineDisabled: "was disabled",
		octopus.EventMachineRoleChanged: "has other target tags", octopus.EventMachineDeploymentState: "takes part in other deployments",
		octopus.EventMachineHealthy: "is healthy", octopus.EventMachineHasWarnings: "is healthy, with warnings",
		octopus.EventMachineUnhealthy: "is not healthy", octopus.EventMachineUnavailable: "is not available",
	}[category]
}

func machineEvent(category octopus.EventCategory, space, id string, v *octopus.Machine) db.Event {
	const label = "Deployment target "
	e := db.Event{
		Category: string(category), SpaceID: space, Message: label + v.Name + " " + machineDid(category), Related: append([]string{id}, v.EnvironmentIDs...), DocumentType: "Machine",
		References: []db.EventReference{{ID: id, Start: len(label), Length: len(utf16.Encode([]rune(v.Name)))}},
	}
	if len(v.EnvironmentIDs) > 0 {
		e.EnvironmentID = v.EnvironmentIDs[0]
	}
	if len(v.TenantIDs) > 0 {
		e.TenantID = v.TenantIDs[0]
		e.Related = append(e.Related, v.TenantIDs...)
	}
	return e
}

// noteChanges gathers changes for the triggers of a space, if it has any that are set
// off by targets.
func noteChanges(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string, categories []octopus.EventCategory) error {
	var n int64
	err := tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT 1 FROM document_index x WHERE x.kind = ? AND x.field = 'Filter.FilterType' AND x.value = ? AND x.space_id = ? LIMIT 1) q`,
		TriggerKind, ident.Fold(string(octopus.FilterMachine)), string(space)).Scan(&n)
	if err != nil || n == 0 {
		return err
	}
	var row, argument string
	var changes []MachineChange
	err = tx.QueryRow(ctx, `SELECT u.id, u.argument FROM due u WHERE u.kind = ? AND u.space_id = ? AND u.pending = 0 ORDER BY u.at DESC LIMIT 1`+tx.ForUpdate(), MachineChanges, string(space)).Scan(&row, &argument)
	switch {
	case errors.Is(err, sql.ErrNoRows):
	case err != nil:
		return fmt.Errorf("read what targets did: %w", err)
	default:
		if err := json.Unmarshal([]byte(argument), &changes); err != nil {
			return fmt.Errorf("read what targets did: %w", err)
		}
	}
	if len(changes) >= mostChanges {
		row, changes = "", nil
	}
	for _, category := range categories {
		if one := (MachineChange{id, category}); !slices.Contains(changes, one) {
			changes = append(changes, one)
		}
	}
	body, err := json.Marshal(changes)
	if err != nil {
		return err
	}
	if row != "" {
		_, err = tx.Exec(ctx, `UPDATE due SET argument = ? WHERE id = ? AND pending = 0`, string(body), row)
		return err
	}
	seq, err := tx.NextSeq(ctx, "MachineChanges")
	if err != nil {
		return err
	}
	_, err = tx.Exec(ctx, `INSERT INTO due (id, kind, space_id, argument, at, pending, lease, attempts, fired, progress, tasks) VALUES (?, ?, ?, ?, ?, 0, 0, 0, 0, '', '')`,
		ident.ID("MachineChanges", seq), MachineChanges, string(space), string(body), db.Micros(tx.Now().Add(MachineWindow)))
	if err != nil {
		return fmt.Errorf("note what a target did: %w", err)
	}
	return nil
}
