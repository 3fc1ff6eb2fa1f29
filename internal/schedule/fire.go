package schedule

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"unicode/utf16"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/octopus"
)

// progress is what a due time has brought about so far.
type progress struct {
	// Release is the one that was made for it.
	Release string `json:",omitempty"`
	// Done are the parts that are committed: releases deployed, or projects with a
	// new release.
	Done []string `json:",omitempty"`
	// Tasks are what was queued, Said what to tell.
	Tasks []string `json:",omitempty"`
	Said  []string `json:",omitempty"`
}

func (r *row) read() (p progress, err error) {
	if r.progress != "" {
		err = json.Unmarshal([]byte(r.progress), &p)
	}
	return p, err
}

// fire does what a trigger's action says.
func (s *Scheduler) fire(ctx context.Context, r *row) error {
	p, err := r.read()
	if err != nil {
		return err
	}
	a := &r.trigger.Action
	switch a.ActionType {
	case octopus.TriggerDeployLatest:
		err = s.deployLatest(ctx, r, &p)
	case octopus.TriggerDeployNew:
		err = s.deployNew(ctx, r, &p)
	case octopus.TriggerRunRunbook:
		err = fault.New(fault.Unsupported, "This server cannot run runbooks.")
	default:
		err = fault.New(fault.Unsupported, "This server cannot do what triggers of the type %s do.", a.ActionType)
	}
	if err != nil {
		return err
	}
	r.tasks = p.Tasks
	return s.finish(ctx, r, s.told(r, octopus.EventTriggerFired, "has run", p.Said...))
}

// options are how a trigger deploys.
func (s *Scheduler) options(r *row) (releases.Options, error) {
	o := releases.Options{Comments: "Deployed by the trigger '" + r.trigger.Name + "'."}
	if r.trigger.Action.Variables == "" {
		return o, nil
	}
	if err := json.Unmarshal([]byte(r.trigger.Action.Variables), &o.FormValues); err != nil {
		return o, fault.InvalidField("Action.Variables", "Action.Variables is no JSON object of texts; mend the trigger.")
	}
	return o, nil
}

// deploy makes the deployments of one part of a due time.
func (s *Scheduler) deploy(ctx context.Context, r *row, p *progress, part string, in releases.NewDeployments) error {
	var err error
	if in.Options, err = s.options(r); err != nil {
		return err
	}
	in.Space = r.space
	var text string
	var queued []string
	in.Also = func(ctx context.Context, tx *db.Tx, made []octopus.Deployment) error {
		queued = nil
		for i := range made {
			queued = append(queued, made[i].TaskID)
		}
		after := *p
		after.Done = append(slices.Clone(p.Done), part)
		after.Tasks = append(slices.Clone(p.Tasks), queued...)
		body, err := json.Marshal(after)
		if err != nil {
			return err
		}
		text = string(body)
		return r.mark(ctx, tx, text)
	}
	if _, err := s.cfg.Releases.Deploy(ctx, in, nil); err != nil {
		return err
	}
	p.Done, p.Tasks = append(p.Done, part), append(p.Tasks, queued...)
	r.progress = text
	return nil
}

// tenantsOf are for whom a trigger deploys: "" is for nobody. Tenants that are
// gone, disabled or no longer connected to the environment are passed over.
func (s *Scheduler) tenantsOf(ctx context.Context, tx *db.Tx, r *row, environment string) ([]string, error) {
	a := &r.trigger.Action
	if len(a.TenantIDs)+len(a.TenantTags) == 0 {
		return []string{""}, nil
	}
	q := docstore.Query{Space: r.space, Where: []docstore.Match{{Path: "ProjectEnvironments.*key", Any: []string{r.trigger.ProjectID}}}}
	var out []string
	err := s.cfg.Store.Each(ctx, tx, "tenants", q, func(doc *docstore.Doc) error {
		t, err := docstore.Decode[octopus.Tenant](doc)
		if err != nil {
			return err
		}
		chosen := slices.Contains(a.TenantIDs, t.ID) || slices.ContainsFunc(a.TenantTags, func(tag string) bool {
			return slices.ContainsFunc(t.TenantTags, func(has string) bool { return strings.EqualFold(tag, has) })
		})
		if chosen && !t.IsDisabled && slices.Contains(t.ProjectEnvironments[r.trigger.ProjectID], environment) {
			out = append(out, t.ID)
		}
		return nil
	})
	return out, err
}

// deployLatest deploys what was last successful somewhere to somewhere else: for
// each tenant the release that it had there itself.
func (s *Scheduler) deployLatest(ctx context.Context, r *row, p *progress) error {
	a := &r.trigger.Action
	tenants := map[string][]string{} // by release
	var order []string
	versions := map[string]string{}
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) error {
		clear(tenants)
		order = nil
		all, err := s.tenantsOf(ctx, tx, r, a.DestinationEnvironmentID)
		if err != nil {
			return err
		}
		current := map[string]string{}
		found, err := s.cfg.Releases.Currents(ctx, tx, releases.CurrentQuery{Space: r.space, Projects: []string{r.trigger.ProjectID}, Environments: []string{a.DestinationEnvironmentID}})
		if err != nil {
			return err
		}
		for _, c := range found {
			current[c.TenantID] = c.ReleaseID
		}
		again := a.ShouldRedeployWhenReleaseIsCurrent != nil && *a.ShouldRedeployWhenReleaseIsCurrent
		for _, tenant := range all {
			latest, err := s.cfg.Releases.LatestSuccess(ctx, tx, r.trigger.ProjectID, a.ChannelID, tenant, a.SourceEnvironmentIDs)
			if fault.Is(err, fault.NotFound) {
				continue
			}
			if err != nil {
				return err
			}
			if current[tenant] == latest.ID && !again {
				continue
			}
			if tenants[latest.ID] == nil {
				order = append(order, latest.ID)
			}
			tenants[latest.ID] = append(tenants[latest.ID], tenant)
			versions[latest.ID] = latest.Version
		}
		return nil
	})
	if err != nil {
		return err
	}
	for _, id := range order {
		if slices.Contains(p.Done, id) {
			continue
		}
		in := releases.NewDeployments{ReleaseID: id, Environments: []string{a.DestinationEnvironmentID}, Tenants: tenants[id]}
		if slices.Equal(in.Tenants, []string{""}) {
			in.Tenants = nil
		}
		if err := s.deploy(ctx, r, p, id, in); err != nil {
			return err
		}
		p.Said = append(p.Said, "Deployed release "+versions[id]+".")
	}
	if len(p.Done) == 0 {
		p.Said = append(p.Said, "There was nothing to deploy: no release has been deployed to the source with success, or it is at the destination already.")
	}
	return nil
}

// deployNew makes a release and deploys it.
func (s *Scheduler) deployNew(ctx context.Context, r *row, p *progress) error {
	a := &r.trigger.Action
	if p.Release == "" {
		var text string
		in := releases.NewRelease{
			Space: r.space, Project: r.trigger.ProjectID, Channel: a.ChannelID, Notes: "Made by the trigger '" + r.trigger.Name + "'.",
			Also: func(ctx context.Context, tx *db.Tx, made *releases.CreatedRelease) error {
				body, err := json.Marshal(progress{Release: made.Release.ID})
				if err != nil {
					return err
				}
				text = string(body)
				return r.mark(ctx, tx, text)
			},
		}
		made, err := s.cfg.Releases.CreateRelease(ctx, in, nil)
		if err != nil {
			return err
		}
		p.Release, r.progress = made.Release.ID, text
	}
	if slices.Contains(p.Done, p.Release) {
		return nil
	}
	var tenants []string
	err := s.cfg.DB.Read(ctx, func(tx *db.Tx) (err error) {
		tenants, err = s.tenantsOf(ctx, tx, r, a.EnvironmentID)
		return err
	})
	if err != nil {
		return err
	}
	if len(tenants) == 0 {
		p.Said = append(p.Said, "There was nobody to deploy for.")
		return nil
	}
	in := releases.NewDeployments{ReleaseID: p.Release, Environments: []string{a.EnvironmentID}, Tenants: tenants}
	if slices.Equal(tenants, []string{""}) {
		in.Tenants = nil
	}
	return s.deploy(ctx, r, p, p.Release, in)
}

// event tells what became of a trigger.
func event(tx *db.Tx, category octopus.EventCategory, project *octopus.Project, id, name, did string, details []string) {
	const most = 10
	text := "Trigger "
	refs := []db.EventReference{{ID: id, Start: length(text), Length: length(name)}}
	text += name + " of project "
	refs = append(refs, db.EventReference{ID: project.ID, Start: length(text), Length: length(project.Name)})
	text += project.Name + " " + did
	for _, d := range details[:min(len(details), most)] {
		text += ". " + strings.TrimSuffix(d, ".")
	}
	tx.Event(db.Event{
		Category: string(category), SpaceID: project.SpaceID, Message: text, References: refs, Related: []string{id, project.ID},
		ProjectID: project.ID, ProjectGroupID: project.ProjectGroupID, DocumentType: "ProjectTrigger",
	})
}

// length is a text's in the units in which clients count.
func length(text string) int { return len(utf16.Encode([]rune(text))) }
