package releases

import (
	"context"
	"encoding/json"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/releases"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// project finds the project that ref names, if the caller may see it.
func (a *api) project(ctx context.Context, tx *db.Tx, r *rest.Request, ref string) (*octopus.Project, error) {
	doc, err := r.Find(ctx, tx, "projects", ref)
	if err != nil {
		return nil, err
	}
	var p octopus.Project
	return &p, json.Unmarshal(doc.Body, &p)
}

// release finds the release of the path, if the caller may see it.
func (a *api) release(tx *db.Tx, r *rest.Request) (*octopus.Release, error) {
	return a.service.FindRelease(r.Context(), tx, r.Space, r.PathValue("id"), r.Grants(string(octopus.PermReleaseView)))
}

// textMap are answers and fields as texts.
func textMap(in octopus.Map[string, octopus.PropertyText]) map[string]string {
	if len(in) == 0 {
		return nil
	}
	out := make(map[string]string, len(in))
	for name, value := range in {
		out[name] = string(value)
	}
	return out
}

func (a *api) createByName(r *rest.Request) (any, error) {
	var c octopus.CreateReleaseCommand
	if err := r.Decode(&c); err != nil {
		return nil, err
	}
	if c.ChannelName == "" {
		c.ChannelName = c.ChannelIDOrName
	}
	made, err := a.make(r, releases.NewRelease{
		Space: r.Space, Project: c.ProjectName, Version: c.ReleaseVersion, Channel: c.ChannelName,
		Packages: c.Packages, PackageVersion: c.PackageVersion, PackagePrerelease: c.PackagePrerelease,
		Notes: c.ReleaseNotes, CustomFields: textMap(c.CustomFields),
		IgnoreChannelRules: c.IgnoreChannelRules, IgnoreIfExists: c.IgnoreIfAlreadyExists,
	})
	if err != nil {
		return nil, err
	}
	names := make([]string, len(made.Deployed))
	for i, e := range made.Deployed {
		names[i] = e.Name
	}
	return rest.Created{
		Body:     octopus.CreateReleaseResponse{ReleaseID: made.Release.ID, ReleaseVersion: made.Release.Version, AutomaticallyDeployedEnvironments: strings.Join(names, ",")},
		Location: r.SpaceHref("/releases/" + made.Release.ID),
	}, nil
}

func (a *api) create(r *rest.Request) (any, error) {
	var doc octopus.Release
	if err := r.Decode(&doc); err != nil {
		return nil, err
	}
	ignore, err := r.QueryBool("ignoreChannelRules", doc.IgnoreChannelRules)
	if err != nil {
		return nil, err
	}
	made, err := a.make(r, releases.NewRelease{
		Space: r.Space, Project: doc.ProjectID, Version: doc.Version, Channel: doc.ChannelID, Selected: doc.SelectedPackages,
		Notes: string(doc.ReleaseNotes), CustomFields: doc.CustomFields, IgnoreChannelRules: ignore,
	})
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: linked(r, &made.Release), Location: r.SpaceHref("/releases/" + made.Release.ID)}, nil
}

// make creates a release of a project that the caller may see.
func (a *api) make(r *rest.Request, in releases.NewRelease) (*releases.CreatedRelease, error) {
	if in.Project != "" {
		err := a.db.Read(r.Context(), func(tx *db.Tx) error {
			p, err := a.project(r.Context(), tx, r, in.Project)
			if err == nil {
				in.Project = p.ID
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return a.service.CreateRelease(r.Context(), in, r.Allow)
}

func (a *api) list(r *rest.Request) (any, error) {
	ids, err := r.QueryList("ids")
	if err != nil {
		return nil, err
	}
	return a.page(r, releases.ReleaseQuery{IDs: ids}, nil)
}

// page answers with a page of releases. narrow completes the query within the
// transaction; it may be nil.
func (a *api) page(r *rest.Request, q releases.ReleaseQuery, narrow func(tx *db.Tx, q *releases.ReleaseQuery) error) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	q.Space, q.Page, q.Version = r.Space, page, r.Query("searchByVersion")
	q.Visible = r.Grants(string(octopus.PermReleaseView))
	var docs []octopus.Release
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		q := q
		if narrow != nil {
			if err := narrow(tx, &q); err != nil {
				return err
			}
		}
		docs, total, err = a.service.Releases(r.Context(), tx, q)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "Release", page, total, each(r, docs, linked)), nil
}

func (a *api) ofProject(r *rest.Request) (any, error) {
	return a.page(r, releases.ReleaseQuery{}, func(tx *db.Tx, q *releases.ReleaseQuery) error {
		p, err := a.project(r.Context(), tx, r, r.PathValue("project"))
		if err == nil {
			q.Project = p.ID
		}
		return err
	})
}

func (a *api) ofChannel(r *rest.Request) (any, error) {
	return a.page(r, releases.ReleaseQuery{}, func(tx *db.Tx, q *releases.ReleaseQuery) error {
		doc, err := r.Find(r.Context(), tx, "channels", r.PathValue("channel"))
		if err != nil {
			return err
		}
		var c octopus.Channel
		if err := json.Unmarshal(doc.Body, &c); err != nil {
			return err
		}
		if ref := r.PathValue("project"); ref != "" {
			p, err := a.project(r.Context(), tx, r, ref)
			if err != nil {
				return err
			}
			if p.ID != c.ProjectID {
				return fault.Missing("channel", r.PathValue("channel"))
			}
		}
		q.Channel = c.ID
		return nil
	})
}

// answer is the release that find finds, with its links.
func (a *api) answer(r *rest.Request, find func(tx *db.Tx) (*octopus.Release, error)) (any, error) {
	var doc *octopus.Release
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = find(tx)
		return err
	})
	if err != nil {
		return nil, err
	}
	return linked(r, doc), nil
}

func (a *api) get(r *rest.Request) (any, error) {
	return a.answer(r, func(tx *db.Tx) (*octopus.Release, error) { return a.release(tx, r) })
}

func (a *api) byVersion(r *rest.Request) (any, error) {
	return a.answer(r, func(tx *db.Tx) (*octopus.Release, error) {
		p, err := a.project(r.Context(), tx, r, r.PathValue("project"))
		if err != nil {
			return nil, err
		}
		found, err := a.service.ReleaseByVersion(r.Context(), tx, p.ID, r.PathValue("version"))
		if err != nil {
			return nil, err
		}
		return a.service.FindRelease(r.Context(), tx, r.Space, found.ID, r.Grants(string(octopus.PermReleaseView)))
	})
}

// change changes the release of the path in a transaction.
func (a *api) change(r *rest.Request, fn func(tx *db.Tx, doc *octopus.Release) error) error {
	return a.db.Write(r.Context(), func(tx *db.Tx) error {
		doc, err := a.release(tx, r)
		if err != nil {
			return err
		}
		return fn(tx, doc)
	})
}

func (a *api) edit(r *rest.Request) (any, error) {
	var to octopus.Release
	if err := r.Decode(&to); err != nil {
		return nil, err
	}
	ignore, err := r.QueryBool("ignoreChannelRules", to.IgnoreChannelRules)
	if err != nil {
		return nil, err
	}
	var out *octopus.Release
	err = a.change(r, func(tx *db.Tx, doc *octopus.Release) error {
		out, err = a.service.Edit(r.Context(), tx, doc, &to, ignore, r.Allow)
		return err
	})
	if err != nil {
		return nil, err
	}
	return linked(r, out), nil
}

func (a *api) delete(r *rest.Request) (any, error) {
	return nil, a.change(r, func(tx *db.Tx, doc *octopus.Release) error {
		return a.service.DeleteRelease(r.Context(), tx, doc, r.Allow)
	})
}

func (a *api) updateVariables(r *rest.Request) (any, error) {
	return a.refresh(r, func(tx *db.Tx, doc *octopus.Release) error { return a.service.UpdateVariables(r.Context(), tx, doc) })
}

// variableNames asks for some variables to be taken anew.
type variableNames struct {
	Variables octopus.List[variableName] `json:"Variables"`
}

type variableName struct {
	Name string `json:"Name"`
	// OwnerID is a project or a library set, "" for the release's project.
	OwnerID string `json:"OwnerId"`
}

func (a *api) updateSomeVariables(r *rest.Request) (any, error) {
	var in variableNames
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	names := make([]releases.VariableName, len(in.Variables))
	for i, v := range in.Variables {
		if strings.TrimSpace(v.Name) == "" {
			return nil, fault.InvalidField("Variables", "Variables[%d].Name is empty; name the variable.", i)
		}
		names[i] = releases.VariableName{OwnerID: v.OwnerID, Name: v.Name}
	}
	return a.refresh(r, func(tx *db.Tx, doc *octopus.Release) error {
		return a.service.UpdateVariablesByName(r.Context(), tx, doc, names)
	})
}

// deleteProject deletes a project, and first what stands in tables of its own.
func (a *api) deleteProject(r *rest.Request) (any, error) {
	expect, err := r.Expects()
	if err != nil {
		return nil, err
	}
	return nil, a.db.Write(r.Context(), func(tx *db.Tx) error {
		doc, err := r.Find(r.Context(), tx, "projects", r.PathValue("id"))
		if err != nil {
			return err
		}
		if err := r.Must(r.Context(), tx, "projects", doc, string(octopus.PermProjectDelete)); err != nil {
			return err
		}
		if expect != 0 && expect != doc.Version {
			return fault.New(fault.Conflict, "The project '%s' was modified by somebody else since it was read; read it again before you delete it.", doc.ID)
		}
		return r.Refusal(r.Context(), tx, a.service.DeleteProject(r.Context(), tx, r.Space, doc.ID))
	})
}

// refresh takes variables of the release of the path anew.
func (a *api) refresh(r *rest.Request, take func(tx *db.Tx, doc *octopus.Release) error) (any, error) {
	var out *octopus.Release
	err := a.change(r, func(tx *db.Tx, doc *octopus.Release) error {
		out = doc
		p, err := a.project(r.Context(), tx, r, doc.ProjectID)
		if err != nil {
			return err
		}
		if err := r.Allow(string(octopus.PermReleaseEdit), rest.Target{Project: p.ID, ProjectGroup: p.ProjectGroupID}); err != nil {
			return err
		}
		return take(tx, doc)
	})
	if err != nil {
		return nil, err
	}
	return linked(r, out), nil
}

func (a *api) missingPackages(r *rest.Request) (any, error) {
	var doc *octopus.Release
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = a.release(tx, r)
		return err
	})
	if err != nil {
		return nil, err
	}
	return a.service.MissingPackages(r.Context(), doc)
}

func (a *api) defects(r *rest.Request) (any, error) {
	page, err := r.Page()
	if err != nil {
		return nil, err
	}
	var docs []octopus.Defect
	var total int64
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		release, err := a.release(tx, r)
		if err != nil {
			return err
		}
		docs, total, err = a.service.Defects(r.Context(), tx, release.ID, page)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "Defect", page, total, each(r, docs, linkedDefect)), nil
}

func (a *api) report(r *rest.Request) (any, error) {
	var in octopus.Defect
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	var out *octopus.Defect
	err := a.change(r, func(tx *db.Tx, doc *octopus.Release) (err error) {
		out, err = a.service.ReportDefect(r.Context(), tx, doc, in.Description, r.Allow)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: linkedDefect(r, out), Location: out.Links["Self"]}, nil
}

func (a *api) resolve(r *rest.Request) (any, error) {
	var out *octopus.Defect
	err := a.change(r, func(tx *db.Tx, doc *octopus.Release) (err error) {
		out, err = a.service.ResolveDefects(r.Context(), tx, doc, r.Allow)
		return err
	})
	if err != nil {
		return nil, err
	}
	return linkedDefect(r, out), nil
}

// template serves both the path by process and the one by project.
func (a *api) template(r *rest.Request) (any, error) {
	ref := r.PathValue("project")
	if ref == "" {
		const prefix = "deploymentprocess-"
		id := r.PathValue("id")
		if len(id) <= len(prefix) || !strings.EqualFold(id[:len(prefix)], prefix) {
			return nil, fault.Missing("deployment process", id)
		}
		ref, _, _ = strings.Cut(id[len(prefix):], "-s-") // a snapshot's project
	}
	var out *octopus.ReleaseTemplate
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		p, err := a.project(r.Context(), tx, r, ref)
		if err != nil {
			return err
		}
		if err := r.Allow(string(octopus.PermProcessView), rest.Target{Project: p.ID, ProjectGroup: p.ProjectGroupID}); err != nil {
			return err
		}
		var of *octopus.Release
		if id := r.Query("releaseId"); id != "" {
			if of, err = a.service.FindRelease(r.Context(), tx, r.Space, id, r.Grants(string(octopus.PermReleaseView))); err != nil {
				return err
			}
			if of.ProjectID != p.ID {
				return fault.Missing("release", id)
			}
		}
		out, err = a.service.NewReleaseTemplate(r.Context(), tx, r.Space, p.ID, r.Query("channel"), of)
		return err
	})
	if err != nil {
		return nil, err
	}
	out.Links = octopus.Links{"Self": r.Href(r.URL.Path)}
	return out, nil
}

// process reads a process as it is, or as a release has frozen it.
func (a *api) process(r *rest.Request) (any, error) {
	id := r.PathValue("id")
	if !strings.Contains(strings.ToLower(id), "-s-") {
		return r.Get("deploymentprocesses", id)
	}
	var out *octopus.DeploymentProcess
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		found, err := a.service.ProcessSnapshot(r.Context(), tx, r.Space, id)
		if err != nil {
			return err
		}
		doc, err := r.Find(r.Context(), tx, "projects", found.ProjectID)
		if err != nil {
			return fault.Missing("deployment process", id)
		}
		if err := r.Must(r.Context(), tx, "projects", doc, string(octopus.PermProcessView)); err != nil {
			return fault.Missing("deployment process", id)
		}
		out = found
		return nil
	})
	if err != nil {
		return nil, err
	}
	out.Links = octopus.Links{"Self": r.SpaceHref("/deploymentprocesses/" + out.ID), "Project": r.SpaceHref("/projects/" + out.ProjectID)}
	return out, nil
}
