package backup

import (
	"context"
	"fmt"
	"net/url"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// Disarmed counts what a copy no longer does by itself.
type Disarmed struct {
	// Tasks that had not ended are canceled.
	Tasks int64
	// Triggers, Subscriptions, Targets and Workers are disabled, Projects do not make
	// releases of packages that come, and Lifecycles do not deploy by themselves.
	Triggers, Subscriptions, Targets, Workers, Projects, Lifecycles int
	// Identities of token issuers are removed.
	Identities int64
}

// forgotten are the tables of what runs, waits and repeats itself, and of who is signed in.
func forgotten() []string {
	return []string{
		"node", "node_setting", "secret_holder", "slot", "tag_holder", "machine_lock", "ticket", "unit_cursor", "answer",
		"due", "subscription_sender", "session", "sign_in_failure", "task_hold", "restored",
		// Agents know the server by its certificate: the copy makes one of its own, secrets
		// kept or not.
		"server_identity", "former_machine", "registration_token", "registration_use",
	}
}

// canceledInCopy is why tasks of a copy have ended.
const canceledInCopy = "The task had not ended when this test instance was made, and does not go on here."

// disarm takes out of a copied database, in one transaction, everything that would speak
// to what its parent speaks to, and marks it as a copy. addresses says that passwords
// within the addresses of feeds go too.
func disarm(ctx context.Context, tx *db.Tx, store *docstore.Store, m *instance.Marker, addresses bool) (out Disarmed, err error) {
	const unended = `('Queued', 'Executing', 'Cancelling')`
	now := db.Micros(tx.Now())
	exec := func(statement string, args ...any) (n int64) {
		if err == nil {
			if n, err = tx.Exec(ctx, statement, args...); err != nil {
				err = fmt.Errorf("%.60s: %w", statement, err)
			}
		}
		return n
	}
	exec(`UPDATE deployment SET state = 'Canceled', completed = ? WHERE task_id IN (SELECT t.id FROM task t WHERE t.state IN `+unended+`)`, now)
	exec(`UPDATE interruption SET pending = 0 WHERE pending = 1`)
	out.Tasks = exec(`UPDATE task SET state = 'Canceled', runnable = 0, waiting = 0, owner = '', completed_time = ?, updated_time = ?, error = ? WHERE state IN `+unended, now, now, canceledInCopy)
	for _, table := range forgotten() {
		exec(`DELETE FROM ` + table)
	}
	const identities = "oidcidentities"
	out.Identities = exec(`DELETE FROM documents WHERE kind = ?`, identities)
	exec(`DELETE FROM document_index WHERE kind = ?`, identities)
	exec(`DELETE FROM document_unique WHERE kind = ?`, identities)
	exec(`DELETE FROM document_refs WHERE from_kind = ?`, identities)
	amend := func(kind string, fn func(tree resource.Tree) bool) (n int) {
		if err == nil {
			n, err = store.Amend(ctx, tx, kind, fn)
		}
		return n
	}
	disable := func(tree resource.Tree) bool { return set(tree, "IsDisabled", true) }
	out.Triggers = amend(resources.TriggerKind, disable)
	out.Subscriptions = amend(resources.SubscriptionKind, disable)
	out.Targets = amend("machines", disable)
	out.Workers = amend("workers", disable)
	out.Projects = amend("projects", func(tree resource.Tree) bool { return set(tree, "AutoCreateRelease", false) })
	out.Lifecycles = amend("lifecycles", byHand)
	amend("smtpconfiguration", func(tree resource.Tree) bool { return set(tree, "SmtpHost", "") })
	amend(resources.BackupConfigurationKind, func(tree resource.Tree) bool { return set(tree, "IsEnabled", false) })
	if addresses {
		amend("feeds", withoutPassword)
	}
	if err != nil {
		return out, err
	}
	tx.Event(db.Event{
		Category: string(octopus.EventModified), DocumentType: "Server",
		Message: fmt.Sprintf("This test instance was made from backup %s of the installation %s", m.Backup, m.Parent),
	})
	return out, m.Mark(ctx, tx)
}

// set changes a member, and reports whether it had another value.
func set(tree resource.Tree, member string, value any) bool {
	if tree[member] == value {
		return false
	}
	tree[member] = value
	return true
}

// byHand has a lifecycle deploy to no environment by itself: people may still.
func byHand(tree resource.Tree) (changed bool) {
	phases, _ := tree["Phases"].([]any)
	for _, one := range phases {
		phase, _ := one.(resource.Tree)
		automatic, _ := phase["AutomaticDeploymentTargets"].([]any)
		if len(automatic) == 0 {
			continue
		}
		optional, _ := phase["OptionalDeploymentTargets"].([]any)
		phase["OptionalDeploymentTargets"] = append(optional, automatic...)
		phase["AutomaticDeploymentTargets"] = []any{}
		changed = true
	}
	return changed
}

// withoutPassword takes user and password out of a feed's address.
func withoutPassword(tree resource.Tree) bool {
	u, err := url.Parse(resource.Text(tree, "FeedUri"))
	if err != nil || u.User == nil {
		return false
	}
	u.User = nil
	tree["FeedUri"] = u.String()
	return true
}
