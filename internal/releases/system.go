package releases

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// maxChanges is of how many releases a deployment lists the changes.
const maxChanges = 50

// system is what the server knows of a place before the deployment is made.
func (sc *scene) system(p place) variables.SystemInput {
	r := sc.release
	in := variables.SystemInput{
		Space:       variables.NamedID{ID: string(sc.space)},
		Project:     variables.NamedID{ID: sc.project.ID, Name: sc.project.Name},
		Environment: variables.EnvironmentInput{ID: p.environment.ID, Name: p.environment.Name, SortOrder: p.environment.SortOrder},
		Release: &variables.ReleaseInput{
			ID: r.ID, Number: r.Version, Notes: string(r.ReleaseNotes), Created: r.Assembled.Time,
			Channel: variables.NamedID{ID: sc.channel.ID, Name: sc.channel.Name}, CustomFields: r.CustomFields,
		},
	}
	if g := r.VersionControlReference; g != nil {
		in.Release.Git = variables.GitSource{Ref: string(g.GitRef), Commit: string(g.GitCommit)}
	}
	if p.tenant != nil {
		in.Tenant = &variables.TenantInput{ID: p.tenant.ID, Name: p.tenant.Name, Tags: p.tenant.TenantTags}
	}
	return in
}

// systemOf is what the server knows of a deployment.
func (sc *scene) systemOf(ctx context.Context, tx *db.Tx, p place, pl *plan, d *octopus.Deployment, o *Options) (variables.SystemInput, error) {
	in := sc.system(p)
	in.Environment.MachinesInRole = map[string][]string{}
	for i := range pl.machines {
		for _, role := range pl.machines[i].Roles {
			in.Environment.MachinesInRole[role] = append(in.Environment.MachinesInRole[role], pl.machines[i].ID)
		}
	}
	in.Deployment = &variables.DeploymentInput{
		ID: d.ID, Name: d.Name, Comments: string(d.Comments), Created: d.Created.Time,
		ForcePackageDownload: d.ForcePackageDownload,
		Machines:             d.DeployedToMachineIDs, SpecificMachines: pl.specific, ExcludedMachines: pl.excluded,
		ChangesMarkdown: d.ChangesMarkdown,
	}
	for _, m := range pl.Machines {
		in.Deployment.Targets = append(in.Deployment.Targets, variables.NamedID{ID: m.ID, Name: m.Name})
	}
	changes, err := json.Marshal(d.Changes)
	if err != nil {
		return in, fmt.Errorf("encode changes: %w", err)
	}
	in.Deployment.Changes = string(changes)
	if err := told(in.Deployment, d.Changes); err != nil {
		return in, err
	}
	in.Task = variables.TaskInput{QueueTime: o.QueueTime, QueueTimeExpiry: o.Expiry, Arguments: map[string]string{"DeploymentId": d.ID}}
	in.Web = sc.web(d)
	if err := sc.people(ctx, tx, &in); err != nil {
		return in, err
	}
	return in, sc.neighbours(ctx, tx, p, &in)
}

// web are the links that scripts put into messages; they are relative to the server.
func (sc *scene) web(d *octopus.Deployment) variables.WebInput {
	base := "/app#/" + string(sc.space)
	project := base + "/projects/" + sc.project.Slug
	release := project + "/deployments/releases/" + url.PathEscape(sc.release.Version)
	uri := strings.TrimRight(sc.s.cfg.ServerURI, "/")
	return variables.WebInput{ServerURI: uri, BaseURL: uri, Project: project, Release: release, Deployment: release + "/deployments/" + d.ID}
}

// people fills in who deploys, and the names of space and project group.
func (sc *scene) people(ctx context.Context, tx *db.Tx, in *variables.SystemInput) error {
	who := db.ActorFrom(ctx)
	in.Deployment.CreatedBy = variables.User{ID: who.UserID, Username: who.Username, DisplayName: who.Username}
	if who.UserID != "" && sc.s.knows("users") {
		u, err := get[octopus.User](ctx, sc.s, tx, "", "users", who.UserID)
		switch {
		case err == nil:
			in.Deployment.CreatedBy.DisplayName, in.Deployment.CreatedBy.Email = u.DisplayName, u.EmailAddress
		case !fault.Is(err, fault.NotFound):
			return err
		}
	}
	group, err := get[octopus.ProjectGroup](ctx, sc.s, tx, sc.space, "projectgroups", sc.project.ProjectGroupID)
	if err != nil {
		return err
	}
	in.ProjectGroup = variables.NamedID{ID: group.ID, Name: group.Name}
	space, err := get[octopus.Space](ctx, sc.s, tx, "", "spaces", string(sc.space))
	if err != nil {
		return err
	}
	in.Space.Name = space.Name
	return nil
}

// neighbours fills in the releases before this one: of the project, and at the place.
func (sc *scene) neighbours(ctx context.Context, tx *db.Tx, p place, in *variables.SystemInput) error {
	pair := func(to *variables.ReleaseNumber, more *string, query string, args ...any) error {
		rows, err := tx.Query(ctx, query, args...)
		if err != nil {
			return fmt.Errorf("read the releases before %s: %w", sc.release.ID, err)
		}
		defer func() { _ = rows.Close() }() // Err tells
		for rows.Next() {
			if err := rows.Scan(&to.ID, &to.Number, more); err != nil {
				return err
			}
		}
		return rows.Err()
	}
	var unused string
	at := []any{sc.project.ID, p.environment.ID, p.tenantID()}
	created := db.Micros(sc.release.Assembled.Time)
	err := pair(&in.Release.Previous, &unused, `SELECT r.id, r.version, '' FROM release r WHERE r.project_id = ? AND r.created <= ? AND r.id <> ? ORDER BY r.created DESC, r.seq DESC LIMIT 1`,
		sc.project.ID, created, sc.release.ID)
	if err == nil {
		err = pair(&in.Release.PreviousForEnvironment, &unused, `SELECT r.id, r.version, '' FROM deployment d JOIN release r ON r.id = d.release_id
			WHERE d.project_id = ? AND d.environment_id = ? AND d.tenant_id = ? ORDER BY d.created DESC, d.seq DESC LIMIT 1`, at...)
	}
	if err == nil {
		err = pair(&in.Release.CurrentForEnvironment, &in.Deployment.PreviousSuccessfulID, `SELECT r.id, r.version, c.deployment_id FROM current_release c JOIN release r ON r.id = c.release_id
			WHERE c.project_id = ? AND c.environment_id = ? AND c.tenant_id = ?`, at...)
	}
	return err
}

// changes are those of the releases that come to a place with this one: what was
// made since the release that is there, and this one; this one alone when an
// older one takes its place, or none is there.
func (sc *scene) changes(ctx context.Context, tx *db.Tx, p place) (octopus.List[octopus.ReleaseChanges], error) {
	// By the columns: the time in the document has no microseconds.
	rows, err := tx.Query(ctx, `SELECT r.body FROM release r JOIN release s ON s.id = ?
		WHERE r.project_id = s.project_id AND r.channel_id = s.channel_id AND (r.created, r.seq) <= (s.created, s.seq)
			AND r.created > (SELECT o.created FROM current_release c JOIN release o ON o.id = c.release_id
				WHERE c.project_id = ? AND c.environment_id = ? AND c.tenant_id = ? AND o.created < s.created)
		ORDER BY r.created DESC, r.seq DESC LIMIT ?`,
		sc.release.ID, sc.project.ID, p.environment.ID, p.tenantID(), maxChanges)
	if err != nil {
		return nil, fmt.Errorf("read the changes of %s: %w", sc.release.ID, err)
	}
	found, err := bodies[octopus.Release](rows)
	if err != nil {
		return nil, fmt.Errorf("read the changes of %s: %w", sc.release.ID, err)
	}
	if len(found) == 0 {
		found = []octopus.Release{*sc.release}
	}
	var out octopus.List[octopus.ReleaseChanges]
	for _, r := range found {
		out = append(out, changesOf(&r))
	}
	return out, nil
}
