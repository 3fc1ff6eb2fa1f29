package projects

import (
	"encoding/json"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// settingsOf are how a project deploys. They are members of the project's
// document, most of which older clients read there; so a write to either shows in
// both.
func settingsOf(r *rest.Request, doc *docstore.Doc) (octopus.DeploymentSettings, error) {
	p, err := docstore.Decode[octopus.Project](doc)
	if err != nil {
		return octopus.DeploymentSettings{}, err
	}
	s, err := docstore.Decode[octopus.DeploymentSettings](doc) // what both call the same
	if err != nil {
		return octopus.DeploymentSettings{}, err
	}
	s.ID, s.ProjectID = "deploymentsettings-"+doc.ID, doc.ID
	s.ConnectivityPolicy, s.ProjectConnectivityPolicy = &p.ProjectConnectivityPolicy, &p.ProjectConnectivityPolicy
	s.ChangeDescription = ""
	s.Links = octopus.Links{"Self": r.SpaceHref("/projects/" + doc.ID + "/deploymentsettings"), "Project": r.SpaceHref("/projects/" + doc.ID)}
	return *s, nil
}

func (a *api) settings(r *rest.Request) (any, error) {
	var doc *docstore.Doc
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = r.Find(r.Context(), tx, projectKind, r.PathValue("id"))
		return err
	})
	if err != nil {
		return nil, err
	}
	s, err := settingsOf(r, doc)
	if err != nil {
		return nil, err
	}
	return rest.Tagged{Body: s, Version: doc.Version}, nil
}

func (a *api) putSettings(r *rest.Request) (any, error) {
	var want octopus.DeploymentSettings
	if err := r.Decode(&want); err != nil {
		return nil, err
	}
	expect, err := r.Expects()
	if err != nil {
		return nil, err
	}
	k, err := a.store.Kind(projectKind)
	if err != nil {
		return nil, err
	}
	var fresh *docstore.Doc
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		doc, err := r.Find(ctx, tx, projectKind, r.PathValue("id"))
		if err != nil {
			return err
		}
		if err := r.Must(ctx, tx, projectKind, doc, projectEdit); err != nil {
			return err
		}
		tree, err := a.store.Tree(k, doc)
		if err != nil {
			return err
		}
		if err := applySettings(tree, doc, &want); err != nil {
			return err
		}
		body, err := json.Marshal(tree)
		if err != nil {
			return fmt.Errorf("encode project %s: %w", doc.ID, err)
		}
		fresh, err = a.store.Replace(ctx, tx, k, doc.Space, doc.ID, docstore.Input{Body: body, Expect: expect, Server: true})
		return err
	})
	if err != nil {
		return nil, err
	}
	s, err := settingsOf(r, fresh)
	if err != nil {
		return nil, err
	}
	return rest.Tagged{Body: s, Version: fresh.Version}, nil
}

// applySettings puts settings into the tree of a project.
func applySettings(tree resource.Tree, doc *docstore.Doc, want *octopus.DeploymentSettings) error {
	p, err := docstore.Decode[octopus.Project](doc)
	if err != nil {
		return err
	}
	for member, v := range map[string]any{
		"ProjectConnectivityPolicy":       policyOf(want, p.ProjectConnectivityPolicy),
		"DefaultGuidedFailureMode":        want.DefaultGuidedFailureMode,
		"VersioningStrategy":              want.VersioningStrategy,
		"ReleaseNotesTemplate":            want.ReleaseNotesTemplate,
		"DeploymentChangesTemplate":       want.DeploymentChangesTemplate,
		"DefaultToSkipIfAlreadyInstalled": want.DefaultToSkipIfAlreadyInstalled,
		"ForcePackageDownload":            want.ForcePackageDownload,
		"FailTargetDiscovery":             want.FailTargetDiscovery,
		"CancelQueuedTasks":               want.CancelQueuedTasks,
		"CancelRunningTasks":              want.CancelRunningTasks,
	} {
		tree[member] = v
	}
	return nil
}

// policyOf is the connectivity policy that a client wants: it has two names, and
// a client that changes one sends the other back as it was.
func policyOf(want *octopus.DeploymentSettings, now octopus.ConnectivityPolicy) octopus.ConnectivityPolicy {
	var policy octopus.ConnectivityPolicy
	for _, given := range []*octopus.ConnectivityPolicy{want.ProjectConnectivityPolicy, want.ConnectivityPolicy} {
		if given == nil {
			continue
		}
		if policy.SkipMachineBehavior == "" || !equal(*given, now) {
			policy = *given
		}
	}
	return policy
}

func equal(x, y octopus.ConnectivityPolicy) bool {
	one, errOne := json.Marshal(x)
	two, errTwo := json.Marshal(y)
	return errOne == nil && errTwo == nil && string(one) == string(two)
}
