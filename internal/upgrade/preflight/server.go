package preflight

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// canary is what is sealed and opened again, in memory alone.
const canary = "preflight"

// masterKey looks whether the master key is that of the database: it opens the data keys,
// and these open what they seal.
func (x *examination) masterKey(ctx context.Context) error {
	box, err := x.Keys(ctx)
	var wrong *secret.WrongKeyError
	if errors.As(err, &wrong) {
		x.say(Fail, "Put the right key back, or get it with the recovery kit: tako key recover.", "%s", wrong)
		return nil
	}
	if err != nil {
		return err
	}
	sealed, err := box.Seal(canary, canary, []byte(x.To))
	if err != nil {
		return err
	}
	if plain, err := box.Open(ctx, canary, canary, sealed); err != nil || string(plain) != x.To {
		x.say(Fail, "Look at `tako key check`.", "The data keys do not open what they seal: %v", err)
		return nil
	}
	if open, err := box.Rotating(ctx); err != nil {
		return err
	} else if open {
		x.say(Fail, "Bring it to its end: tako key rotate.", "A rotation of the master key was cut short")
		return nil
	}
	x.say(OK, "", "Master key %s opens the database's keys", box.MasterID())
	return nil
}

// recoveryKit looks whether somebody has shown that they keep the kit: without it, a
// backup is worth nothing on another machine.
func (x *examination) recoveryKit(ctx context.Context) error {
	box, err := x.Keys(ctx)
	if err != nil {
		x.say(Fail, "See the check of the master key.", "Without the master key nobody can tell")
		return nil //nolint:nilerr // the check of the master key says why
	}
	all, err := box.Recoveries(ctx)
	if err != nil {
		return err
	}
	for _, r := range all {
		if !r.Confirmed.IsZero() && r.MasterID == box.MasterID() {
			x.say(OK, "", "Recovery key %.16s was confirmed on %s", r.ID, r.Confirmed.Format(time.DateOnly))
			return nil
		}
	}
	x.say(Fail, "Print it, keep it elsewhere, and confirm it: tako key recovery-kit", "Nobody has confirmed that the recovery kit is kept, so a lost machine would take its backups along")
	return nil
}

// oldBackup is from which age on the last proven backup is worth a word.
const oldBackup = 7 * 24 * time.Hour

// backup tells how old the last proven one is. The upgrade takes one of its own.
func (x *examination) backup(context.Context) error {
	const remedy = "The upgrade takes one and proves it; have the server take them by itself too (Configuration, Backups)."
	switch age := x.Now().Sub(x.Proven); {
	case x.Proven.IsZero():
		x.say(Warn, remedy, "No backup was ever proven")
	case age > oldBackup:
		x.say(Warn, remedy, "The last one that was proven is %d days old, of %s", int(age.Hours()/24), x.Proven.Format(time.RFC3339))
	default:
		x.say(OK, "", "The last one that was proven is of %s", x.Proven.Format(time.RFC3339))
	}
	return nil
}

// resumes tells of tasks that another process goes on with where they are, since what they
// started on a machine has a ticket, or a name of its own there.
func resumes(name octopus.TaskName) bool {
	return name == octopus.TaskDeploy || name == octopus.TaskRunbookRun || name == octopus.TaskAdHocScript || name == octopus.TaskUpgrade
}

// each calls fn for the rows of a query of two texts.
func each(ctx context.Context, tx *db.Tx, query string, fn func(a, b string)) error {
	rows, err := tx.Query(ctx, query)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var a, b string
		if err := rows.Scan(&a, &b); err != nil {
			return err
		}
		fn(a, b)
	}
	return rows.Err()
}

// tasks tells what runs, and what of it would begin anew.
func (x *examination) tasks(ctx context.Context) error {
	running, count, starting := 0, 0, 0
	var anew, unsure []string
	err := x.DB.Read(ctx, func(tx *db.Tx) error {
		running, count, anew = 0, 0, nil
		err := each(ctx, tx, `SELECT t.id, t.name FROM task t WHERE t.state IN ('Executing', 'Cancelling') ORDER BY t.seq`, func(id, name string) {
			if running++; resumes(octopus.TaskName(name)) {
				return
			}
			if count++; len(anew) < maxNamed {
				anew = append(anew, id+" ("+name+")")
			}
		})
		if err != nil {
			return err
		}
		starting, unsure = 0, nil
		return each(ctx, tx, `SELECT k.task, k.place FROM ticket k WHERE k.state = 'open' AND k.contract = '`+string(deploy.ContractV1)+`' AND k.answered = 0 ORDER BY k.task, k.ticket`, func(task, place string) {
			if starting++; len(unsure) < maxNamed {
				unsure = append(unsure, task+" on "+place)
			}
		})
	})
	if err == nil && starting > 0 {
		x.say(Warn, "Wait until they have answered: if their start gets lost, somebody has to say whether it ran.", "%d scripts are being started by agents that remember nothing: %s", starting, named(unsure, starting))
	}
	switch {
	case err != nil:
		return err
	case count > 0:
		x.say(Warn, "Wait until they have ended, or let them begin anew.", "%d tasks run, and %d of them would begin anew in the new version: %s", running, count, named(anew, count))
	case running > 0:
		x.say(OK, "", "%d tasks run, and the new version goes on with all of them", running)
	default:
		x.say(OK, "", "None runs")
	}
	return nil
}

// firstOwn is what versions of Tako's agents begin with: a year. A Tentacle's begin with a
// smaller number.
const firstOwn = "2000.0.0"

// agents looks for agents that are older than what the new version deploys to.
func (x *examination) agents(ctx context.Context) error {
	if x.MinAgent == "" && x.MinTentacle == "" {
		x.say(OK, "", "The new version deploys to agents of any version")
		return nil
	}
	for _, least := range []string{x.MinAgent, x.MinTentacle} {
		if _, err := isOlder(firstOwn, least); err != nil {
			return fmt.Errorf("read the least version %q of agents: %w", least, err)
		}
	}
	known, unknown, count := 0, 0, 0
	var old []string
	err := x.DB.Read(ctx, func(tx *db.Tx) error {
		known, unknown, count, old = 0, 0, 0, nil
		var spaces []string
		if err := x.Store.Each(ctx, tx, "spaces", docstore.Query{}, func(doc *docstore.Doc) error {
			spaces = append(spaces, doc.ID)
			return nil
		}); err != nil {
			return err
		}
		look := func(doc *docstore.Doc) error {
			// What targets and workers both have.
			m, err := docstore.Decode[octopus.MachineBase](doc)
			if err != nil || m.Endpoint.TentacleVersionDetails == nil || m.IsDisabled {
				return err
			}
			v := string(m.Endpoint.TentacleVersionDetails.Version)
			if v == "" {
				unknown++
				return nil
			}
			if known++; !x.tooOld(v) {
				return nil
			}
			if count++; len(old) < maxNamed {
				old = append(old, m.Name+" ("+v+")")
			}
			return nil
		}
		for _, space := range spaces {
			for _, kind := range []string{"machines", "workers"} {
				if err := x.Store.Each(ctx, tx, kind, docstore.Query{Space: ident.SpaceID(space)}, look); err != nil {
					return err
				}
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	least := strings.Join([]string{"Tako's " + orAny(x.MinAgent), "Tentacles " + orAny(x.MinTentacle)}, ", ")
	if count > 0 {
		x.say(Warn, "Upgrade them before or right after: deployments to them fail meanwhile.", "%d agents are older than what version %s deploys to (%s): %s", count, x.To, least, named(old, count))
		return nil
	}
	x.say(OK, "", "%d agents are new enough (%s), of %d the version is not known", known, least, unknown)
	return nil
}

func orAny(least string) string {
	if least == "" {
		return "of any version"
	}
	return least + " or later"
}

func (x *examination) tooOld(v string) bool {
	least := x.MinAgent
	if tentacle, err := isOlder(v, firstOwn); err != nil {
		return false // a version that nobody can read says nothing
	} else if tentacle {
		least = x.MinTentacle
	}
	older, err := isOlder(v, least)
	return err == nil && older
}
