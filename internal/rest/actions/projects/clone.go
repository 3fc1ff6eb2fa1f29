package projects

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// create makes a project as the kind's own operation does, or a copy of one.
func (a *api) create(r *rest.Request) (any, error) {
	body, err := r.ReadBody()
	if err != nil {
		return nil, err
	}
	if !r.HasQuery("clone") {
		return r.Create(projectKind, body)
	}
	var doc *docstore.Doc
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		c := &clone{api: a, r: r, tx: tx, channels: map[string]string{}}
		doc, err = c.run(r.Context(), r.Query("clone"), body)
		return err
	})
	if err != nil {
		return nil, err
	}
	made, err := r.Render(projectKind, doc)
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: rest.Tagged{Body: made, Version: doc.Version}, Location: r.SpaceHref("/projects/" + doc.ID)}, nil
}

// clone copies a project with what belongs to it: channels, process, variables
// and settings, but no releases. Ids of steps stay, for they mean something within
// the process only; channels get new ones, and what names them follows.
type clone struct {
	*api
	r        *rest.Request
	tx       *db.Tx
	from     *octopus.Project
	to       string
	channels map[string]string // new ids by old
}

func (c *clone) run(ctx context.Context, ref string, body []byte) (*docstore.Doc, error) {
	source, err := c.r.Find(ctx, c.tx, projectKind, ref)
	if err != nil {
		return nil, err
	}
	if c.from, err = docstore.Decode[octopus.Project](source); err != nil {
		return nil, err
	}
	if err := c.allowed(ctx); err != nil {
		return nil, err
	}
	doc, err := c.project(ctx, source, body)
	if err != nil {
		return nil, err
	}
	if err := c.copyChannels(ctx); err != nil {
		return nil, err
	}
	if err := c.copyProcess(ctx); err != nil {
		return nil, err
	}
	if err := c.copyVariables(ctx); err != nil {
		return nil, err
	}
	if doc, err = c.followChannels(ctx, doc); err != nil {
		return nil, err
	}
	p, err := docstore.Decode[octopus.Project](doc)
	if err != nil {
		return nil, err
	}
	const lead, middle = "Project ", " was cloned from "
	c.tx.Event(db.Event{
		Category: string(octopus.EventCloned), SpaceID: p.SpaceID, Message: lead + p.Name + middle + c.from.Name, DocumentType: "Project",
		Related: []string{p.ID, c.from.ID, p.ProjectGroupID}, ProjectID: p.ID, ProjectGroupID: p.ProjectGroupID,
		References: []db.EventReference{{ID: p.ID, Start: len(lead), Length: len(p.Name)}, {ID: c.from.ID, Start: len(lead) + len(p.Name) + len(middle), Length: len(c.from.Name)}},
	})
	return doc, nil
}

// allowed refuses to copy what the caller does not see: with the copy they could
// use values that are kept from them.
func (c *clone) allowed(ctx context.Context) error {
	if _, err := c.r.Find(ctx, c.tx, "deploymentprocesses", c.from.DeploymentProcessID); err != nil {
		return fault.New(fault.Forbidden, "You cannot copy the project '%s', whose process you may not see: it needs %s.", c.from.Name, processView)
	}
	pool, err := c.gather(ctx, c.tx, c.r, c.from.ID)
	if err != nil {
		return err
	}
	hidden := len(pool.sets) == 0 || pool.sets[0].owner.library()
	for _, s := range pool.sets {
		for i := range s.value.Variables {
			hidden = hidden || !s.owner.library() && !s.owner.sees(&s.value.Variables[i].Scope)
		}
	}
	if hidden {
		return fault.New(fault.Forbidden, "You cannot copy the project '%s', which has variables that you may not see: it needs %s in all of their environments.", c.from.Name, variableView)
	}
	return nil
}

// project makes the new project: the old one's document with the name, the group,
// the lifecycle and the description that the client gives.
func (c *clone) project(ctx context.Context, source *docstore.Doc, body []byte) (*docstore.Doc, error) {
	k, err := c.store.Kind(projectKind)
	if err != nil {
		return nil, err
	}
	given, _, err := k.Decode(body)
	if err != nil {
		return nil, err
	}
	tree, err := c.store.Tree(k, source)
	if err != nil {
		return nil, err
	}
	for _, member := range []string{"Id", "Slug", "Name", "Description", "IsDisabled", "AutoDeployReleaseOverrides"} {
		delete(tree, member)
	}
	for _, member := range []string{"Name", "Slug", "Description", "ProjectGroupId", "LifecycleId"} {
		if text := resource.Text(given, member); text != "" {
			tree[member] = text
		}
	}
	tree["ClonedFromProjectId"] = c.from.ID
	if c.from.ReleaseCreationStrategy.ChannelID != "" {
		tree["AutoCreateRelease"], tree["ReleaseCreationStrategy"] = false, nil // until its channel is there
	}
	encoded, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode project: %w", err)
	}
	doc, err := c.store.Create(ctx, c.tx, k, docstore.Input{Space: c.r.Space, Body: encoded, Server: true})
	if err != nil {
		return nil, err
	}
	c.to = doc.ID
	return doc, c.r.Must(ctx, c.tx, projectKind, doc, projectCreate)
}

// copyChannels makes the channels anew; the one that came with the new project
// becomes the copy of the default one.
func (c *clone) copyChannels(ctx context.Context) error {
	k, err := c.store.Kind("channels")
	if err != nil {
		return err
	}
	of := func(project string) (docs []*docstore.Doc, err error) {
		q := docstore.Query{Space: c.r.Space, Where: []docstore.Match{{Path: "ProjectId", Any: []string{project}}}}
		return docs, c.store.Each(ctx, c.tx, k.Name, q, func(doc *docstore.Doc) error {
			docs = append(docs, doc)
			return nil
		})
	}
	old, err := of(c.from.ID)
	if err != nil {
		return err
	}
	fresh, err := of(c.to)
	if err != nil {
		return err
	}
	for _, doc := range old {
		tree, err := c.store.Tree(k, doc)
		if err != nil {
			return err
		}
		delete(tree, "Id")
		tree["ProjectId"] = c.to
		w := c.store.In(c.tx)
		if tree["IsDefault"] == true && len(fresh) > 0 {
			c.channels[doc.ID] = fresh[0].ID
			err = w.Replace(ctx, k.Name, fresh[0].ID, tree)
		} else {
			c.channels[doc.ID], err = w.Create(ctx, k.Name, c.r.Space, "", tree)
		}
		if err != nil {
			return fmt.Errorf("copy channel %s: %w", doc.ID, err)
		}
	}
	return nil
}

// reveal reads a document as a tree with its secrets in clear, so that they are
// sealed anew for the copy that they then belong to.
func (c *clone) reveal(ctx context.Context, kind, id string) (resource.Tree, error) {
	tree := resource.Tree{}
	if err := c.store.Reveal(ctx, c.tx, kind, id, &tree); err != nil {
		return nil, err
	}
	for _, member := range []string{"Id", "Version", "LastSnapshotId"} {
		delete(tree, member)
	}
	return tree, nil
}

func (c *clone) copyProcess(ctx context.Context) error {
	tree, err := c.reveal(ctx, "deploymentprocesses", c.from.DeploymentProcessID)
	if err != nil {
		return err
	}
	tree["ProjectId"] = c.to
	for _, step := range objects(tree["Steps"]) {
		for _, action := range objects(step["Actions"]) {
			c.rename(action, "Channels", c.channels)
		}
	}
	return c.store.In(c.tx).Replace(ctx, "deploymentprocesses", "deploymentprocess-"+c.to, tree)
}

func (c *clone) copyVariables(ctx context.Context) error {
	tree, err := c.reveal(ctx, setKind, c.from.VariableSetID)
	if err != nil {
		return err
	}
	tree["OwnerId"] = c.to
	for _, one := range objects(tree["Variables"]) {
		one["Id"] = uuid.NewString()
		if scope, ok := one["Scope"].(map[string]any); ok {
			c.rename(scope, "Channel", c.channels)
			c.rename(scope, "ProcessOwner", map[string]string{c.from.ID: c.to})
		}
	}
	return c.store.In(c.tx).Replace(ctx, setKind, setPrefix+c.to, tree)
}

// followChannels puts back what of the project names a channel.
func (c *clone) followChannels(ctx context.Context, doc *docstore.Doc) (*docstore.Doc, error) {
	id := string(c.from.ReleaseCreationStrategy.ChannelID)
	if c.channels[id] == "" {
		return doc, nil
	}
	k, err := c.store.Kind(projectKind)
	if err != nil {
		return nil, err
	}
	tree, err := c.store.Tree(k, doc)
	if err != nil {
		return nil, err
	}
	strategy := c.from.ReleaseCreationStrategy
	strategy.ChannelID = octopus.NullString(c.channels[id])
	tree["AutoCreateRelease"], tree["ReleaseCreationStrategy"] = c.from.AutoCreateRelease, strategy
	body, err := json.Marshal(tree)
	if err != nil {
		return nil, fmt.Errorf("encode project %s: %w", doc.ID, err)
	}
	return c.store.Replace(ctx, c.tx, k, doc.Space, doc.ID, docstore.Input{Body: body, Server: true})
}

// objects are the elements of an array that are objects.
func objects(list any) []map[string]any {
	var all []map[string]any
	elements, _ := list.([]any)
	for _, e := range elements {
		if object, ok := e.(map[string]any); ok {
			all = append(all, object)
		}
	}
	return all
}

// rename puts new ids in place of old ones in a list.
func (*clone) rename(object map[string]any, member string, ids map[string]string) {
	list, _ := object[member].([]any)
	for i, e := range list {
		if id, ok := e.(string); ok && ids[id] != "" {
			list[i] = ids[id]
		}
	}
}
