package library

import (
	"cmp"
	"context"
	"fmt"
	"html"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"unicode"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

const (
	templateKind = "actiontemplates"
	versionKind  = "actiontemplateversions"
	processKind  = "deploymentprocesses"
	templateView = string(octopus.PermActionTemplateView)
	processView  = string(octopus.PermProcessView)
	processEdit  = string(octopus.PermProcessEdit)
)

// actionsUpdate asks for steps to be brought to a version of their template.
type actionsUpdate struct {
	// Version is the template's; the newest unless said.
	Version *int
	// ActionIDsByProcessID names the steps.
	ActionIDsByProcessID octopus.Map[string, octopus.List[string]] `json:"ActionIdsByProcessId"`
	// DefaultPropertyValues are for parameters that a step has no value of.
	DefaultPropertyValues octopus.Properties
}

// actionUpdated is what became of a step.
type actionUpdated struct {
	ID      string `json:"Id"`
	Outcome string
	// NamesOfNewParametersMissingDefaultValue still want a value.
	NamesOfNewParametersMissingDefaultValue octopus.List[string]
	Links                                   octopus.Links
}

func (a *api) templateRoutes() []rest.Route {
	template, community := reflect.TypeFor[octopus.ActionTemplate](), reflect.TypeFor[octopus.CommunityActionTemplate]()
	text := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.Text, About: about} }
	paged := []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}
	cb := []rest.Param{text("cb", "not used: makes browsers ask again")}
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/actiontemplates/{id}/versions/{version}", Permission: templateView, Handler: a.templateVersion, Response: template, Summary: "Reads a step template as it was in a version."},
		{Method: http.MethodGet, Pattern: "/actiontemplates/{id}/usage", Permission: templateView, Handler: a.templateUsage, Response: reflect.TypeFor[[]octopus.ActionTemplateUsage](), Summary: "Lists the steps that were made from a template, of what the caller may see."},
		{Method: http.MethodPost, Pattern: "/actiontemplates/{id}/actionsUpdate", Permission: processEdit, Handler: a.updateActions, Body: reflect.TypeFor[actionsUpdate](), Response: reflect.TypeFor[[]actionUpdated](), Summary: "Brings steps to a version of their template; their values of its parameters stay."},
		{Method: http.MethodGet, Pattern: "/actiontemplates/categories", Permission: templateView, Handler: a.categories, Response: reflect.TypeFor[[]octopus.ActionTemplateCategory](), Summary: "Lists the groups in which step types are shown."},
		{Method: http.MethodGet, Pattern: "/actiontemplates/search", Permission: templateView, Handler: a.searchTemplates, Response: reflect.TypeFor[[]octopus.ActionTemplateSearch](), Query: []rest.Param{text("type", "only of this type")}, Summary: "Lists the step types and templates that a process can use."},
		{Method: http.MethodGet, Pattern: "/actiontemplates/{id}/logo", Permission: templateView, Handler: a.logo, ContentType: "image/svg+xml", Query: cb, Summary: "Draws the sign of a step template or type: its initial."},
		{Method: http.MethodGet, Pattern: "/actiontemplates/{id}/versions/{version}/logo", Permission: templateView, Handler: a.logo, ContentType: "image/svg+xml", Query: cb, Summary: "Draws the sign of a step template or type: its initial."},
		{Method: http.MethodGet, Pattern: "/communityactiontemplates", Mount: rest.InSystem, Permission: rest.SignedIn, Handler: noCommunityPage, Response: reflect.TypeFor[octopus.Page[octopus.CommunityActionTemplate]](), Query: paged, Summary: "Lists the templates of the community's library; none are kept here."},
		{Method: http.MethodGet, Pattern: "/communityactiontemplates/all", Mount: rest.InSystem, Permission: rest.SignedIn, Handler: noCommunity, Response: reflect.SliceOf(community), Summary: "Lists the templates of the community's library; none are kept here."},
	}
}

func noCommunityPage(r *rest.Request) (any, error) {
	p, err := r.Page()
	return rest.PageOf[octopus.CommunityActionTemplate](r, "CommunityActionTemplate", p, 0, nil), err
}

func noCommunity(*rest.Request) (any, error) {
	return octopus.List[octopus.CommunityActionTemplate]{}, nil
}

// findTemplate reads the template that the path names.
func findTemplate(ctx context.Context, tx *db.Tx, r *rest.Request) (*octopus.ActionTemplate, error) {
	doc, err := r.Find(ctx, tx, templateKind, r.PathValue("id"))
	if err != nil {
		return nil, err
	}
	return docstore.Decode[octopus.ActionTemplate](doc)
}

func (a *api) templateVersion(r *rest.Request) (any, error) {
	n, err := strconv.Atoi(r.PathValue("version"))
	if err != nil || n < 0 {
		return nil, fault.Missing("version of a step template", r.PathValue("version"))
	}
	var v resources.ActionTemplateVersion
	err = a.db.Read(r.Context(), func(tx *db.Tx) error {
		t, err := findTemplate(r.Context(), tx, r)
		if err != nil {
			return err
		}
		err = a.store.Load(r.Context(), tx, versionKind, resources.ActionTemplateVersionID(t.ID, n), &v)
		if fault.Is(err, fault.NotFound) {
			err = fault.Missing("version of the step template '"+t.Name+"'", r.PathValue("version"))
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	self := r.SpaceHref("/actiontemplates/" + v.Template.ID)
	v.Template.Links = octopus.Links{"Self": self + "/versions/" + strconv.Itoa(n), "CurrentVersion": self, "Usage": self + "/usage", "Logo": self + "/logo"}
	return v.Template, nil
}

// madeFrom are the processes with steps that were made from a template, of those
// that the caller may see.
func (a *api) madeFrom(ctx context.Context, tx *db.Tx, r *rest.Request, template string) (docs []*docstore.Doc, err error) {
	rows, err := tx.Query(ctx, `SELECT d.id FROM documents d WHERE d.kind = 'deploymentprocesses' AND d.space_id = ? AND d.deleted = 0 AND d.body LIKE ? ORDER BY d.seq`,
		string(r.Space), `%"`+template+`"%`)
	if err != nil {
		return nil, fmt.Errorf("look up uses of a step template: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	ids := []string{}
	for rows.Next() {
		var id string
		if err := rows.Scan(&id); err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	if err := rows.Err(); err != nil {
		return nil, err
	}
	for batch := range slices.Chunk(ids, 1000) {
		err := a.store.Each(ctx, tx, processKind, docstore.Query{Space: r.Space, IDs: batch, Visible: r.Grants(processView)}, func(doc *docstore.Doc) error {
			docs = append(docs, doc)
			return nil
		})
		if err != nil {
			return nil, err
		}
	}
	return docs, nil
}

func (a *api) templateUsage(r *rest.Request) (any, error) {
	out := []octopus.ActionTemplateUsage{}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		out = out[:0]
		t, err := findTemplate(ctx, tx, r)
		if err != nil {
			return err
		}
		docs, err := a.madeFrom(ctx, tx, r, t.ID)
		if err != nil {
			return err
		}
		var projects []string
		for _, doc := range docs {
			p, err := docstore.Decode[octopus.DeploymentProcess](doc)
			if err != nil {
				return err
			}
			projects = append(projects, p.ProjectID)
			for _, step := range p.Steps {
				for i := range step.Actions {
					if action := &step.Actions[i]; strings.EqualFold(action.Properties.Get(octopus.PropTemplateID), t.ID) {
						out = append(out, octopus.ActionTemplateUsage{
							ActionTemplateID: t.ID, DeploymentProcessID: octopus.NullString(p.ID), ProcessID: p.ID, ProcessType: octopus.ProcessDeployment, ProjectID: p.ProjectID,
							ActionID: action.ID, ActionName: action.Name, StepID: step.ID, StepName: step.Name, Version: action.Properties.Get(octopus.PropTemplateVersion),
							Resource: octopus.Resource{ID: p.ID + "/" + action.ID, Links: octopus.Links{"DeploymentProcess": r.SpaceHref("/deploymentprocesses/" + p.ID)}},
						})
					}
				}
			}
		}
		names := map[string]*octopus.Project{}
		for batch := range slices.Chunk(projects, 1000) {
			err := a.store.Each(ctx, tx, "projects", docstore.Query{Space: r.Space, IDs: batch}, func(doc *docstore.Doc) error {
				p, err := docstore.Decode[octopus.Project](doc)
				names[doc.ID] = p
				return err
			})
			if err != nil {
				return err
			}
		}
		for i := range out {
			if p := names[out[i].ProjectID]; p != nil {
				out[i].ProjectName, out[i].ProjectSlug = p.Name, p.Slug
			}
		}
		return nil
	})
	return out, err
}

// updateActions brings steps to a version of the template: what the template says
// takes the place of what it said before, and the values of its parameters stay.
func (a *api) updateActions(r *rest.Request) (any, error) {
	var in actionsUpdate
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	var out []actionUpdated
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		out = []actionUpdated{}
		current, err := findTemplate(ctx, tx, r)
		if err != nil {
			return err
		}
		n := current.Version
		if in.Version != nil {
			n = *in.Version
		}
		var v resources.ActionTemplateVersion
		err = a.store.Reveal(ctx, tx, versionKind, resources.ActionTemplateVersionID(current.ID, n), &v)
		if fault.Is(err, fault.NotFound) {
			return fault.InvalidField("Version", "Version is %d, which the step template '%s' has not; it has versions up to %d.", n, current.Name, current.Version)
		}
		if err != nil {
			return err
		}
		for id, actions := range in.ActionIDsByProcessID {
			updated, err := a.updateProcess(ctx, tx, r, id, &v, actions, in.DefaultPropertyValues)
			if err != nil {
				return err
			}
			out = append(out, updated...)
		}
		slices.SortFunc(out, func(a, b actionUpdated) int { return cmp.Compare(a.ID, b.ID) })
		return nil
	})
	return out, err
}

func (a *api) updateProcess(ctx context.Context, tx *db.Tx, r *rest.Request, id string, v *resources.ActionTemplateVersion, actions []string, defaults octopus.Properties) ([]actionUpdated, error) {
	doc, err := r.Find(ctx, tx, processKind, id)
	if err != nil {
		return nil, err
	}
	if err := r.Must(ctx, tx, processKind, doc, processEdit); err != nil {
		return nil, err
	}
	var p octopus.DeploymentProcess
	if err := a.store.Load(ctx, tx, processKind, doc.ID, &p); err != nil {
		return nil, err
	}
	var out []actionUpdated
	for _, id := range actions {
		action := findAction(&p, id)
		if action == nil || !strings.EqualFold(action.Properties.Get(octopus.PropTemplateID), v.Template.ID) {
			return nil, fault.InvalidField("ActionIdsByProcessId", "ActionIdsByProcessId names '%.100s', which is no step of '%s' that was made from the template '%s'.", id, p.ID, v.Template.Name)
		}
		out = append(out, actionUpdated{ID: action.ID, Outcome: "Success", NamesOfNewParametersMissingDefaultValue: adopt(action, v, defaults)})
	}
	return out, a.store.In(tx).Replace(ctx, processKind, p.ID, &p)
}

func findAction(p *octopus.DeploymentProcess, id string) *octopus.Action {
	for i := range p.Steps {
		for j := range p.Steps[i].Actions {
			if action := &p.Steps[i].Actions[j]; strings.EqualFold(action.ID, id) {
				return action
			}
		}
	}
	return nil
}

// adopt makes an action what a version of its template says, and lists the
// parameters that have no value then.
func adopt(action *octopus.Action, v *resources.ActionTemplateVersion, defaults octopus.Properties) (missing octopus.List[string]) {
	t := &v.Template
	had := action.Properties
	action.Properties = octopus.Properties{}
	for key, value := range t.Properties {
		action.Properties[key] = value
	}
	for i := range t.Parameters {
		p := &t.Parameters[i]
		value, ok := had.Lookup(p.Name)
		if !ok {
			value, ok = defaults.Lookup(p.Name)
		}
		if !ok {
			value = p.DefaultValue
		}
		if !resources.HasText(value) {
			missing = append(missing, p.Name)
			if !ok {
				continue
			}
		}
		action.Properties[p.Name] = value
	}
	// Where it runs is for the process to say.
	if value, ok := had.Lookup(octopus.PropRunOnServer); ok {
		action.Properties[octopus.PropRunOnServer] = value
	}
	action.Properties[octopus.PropTemplateID] = octopus.Plain(t.ID)
	action.Properties[octopus.PropTemplateVersion] = octopus.Plain(strconv.Itoa(v.Version))
	action.Packages, action.GitDependencies = t.Packages, t.GitDependencies
	return missing
}

// builtin is a type of steps that comes with the server.
type builtin struct {
	kind                        octopus.ActionType
	name, description, category string
}

func builtins() []builtin {
	return []builtin{
		{octopus.ActionScript, "Run a script", "Runs a script on targets or on a worker.", "Script"},
		{octopus.ActionPackage, "Deploy a package", "Unpacks a package on targets and runs its scripts.", "Package"},
		{octopus.ActionTransferPackage, "Transfer a package", "Puts a package, as it is, into a directory of targets.", "Package"},
		{octopus.ActionManual, "Manual intervention", "Waits until somebody says that it goes on.", "BuiltInStep"},
		{octopus.ActionEmail, "Send an e-mail", "Sends an e-mail.", "BuiltInStep"},
		{octopus.ActionHealthCheck, "Health check", "Checks the targets of a deployment.", "BuiltInStep"},
		{octopus.ActionDeployRelease, "Deploy a release", "Deploys a release of another project.", "BuiltInStep"},
	}
}

func (a *api) categories(r *rest.Request) (any, error) {
	out := octopus.List[octopus.ActionTemplateCategory]{}
	for i, c := range [][2]string{{"Script", "Script"}, {"Package", "Package"}, {"BuiltInStep", "Other built-in steps"}, {"StepTemplate", "Step templates"}} {
		out = append(out, octopus.ActionTemplateCategory{ID: c[0], Name: c[1], DisplayOrder: i + 1, Links: octopus.Links{"Self": r.SpaceHref("/actiontemplates/categories")}})
	}
	return out, nil
}

func (a *api) searchTemplates(r *rest.Request) (any, error) {
	wanted := r.Query("type")
	out := octopus.List[octopus.ActionTemplateSearch]{}
	add := func(one octopus.ActionTemplateSearch) {
		if wanted == "" || strings.EqualFold(wanted, string(one.Type)) {
			one.Category = octopus.NullString(one.Categories[0])
			one.IsInstalled = true
			out = append(out, one)
		}
	}
	err := a.db.Read(r.Context(), func(tx *db.Tx) error {
		out = out[:0]
		for _, b := range builtins() {
			add(octopus.ActionTemplateSearch{
				ID: string(b.kind), Name: b.name, Description: octopus.NullString(b.description), Type: b.kind, Categories: octopus.List[string]{b.category}, IsBuiltIn: true,
				Links: octopus.Links{"Logo": r.SpaceHref("/actiontemplates/" + string(b.kind) + "/logo")},
			})
		}
		return a.store.Each(r.Context(), tx, templateKind, docstore.Query{Space: r.Space, Visible: r.Grants(templateView)}, func(doc *docstore.Doc) error {
			t, err := docstore.Decode[octopus.ActionTemplate](doc)
			if err != nil {
				return err
			}
			self := r.SpaceHref("/actiontemplates/" + t.ID)
			add(octopus.ActionTemplateSearch{
				ID: t.ID, Name: t.Name, Description: t.Description, Type: t.ActionType, Categories: octopus.List[string]{"StepTemplate"},
				CommunityActionTemplateID: t.CommunityActionTemplateID, Version: octopus.NullString(strconv.Itoa(t.Version)), Links: octopus.Links{"Self": self, "Logo": self + "/logo"},
			})
			return nil
		})
	})
	return out, err
}

// logo draws the initial of a template or a step type on a coloured ground, which
// follows from the name.
func (a *api) logo(r *rest.Request) (any, error) {
	name, newest := "", 0
	for _, b := range builtins() {
		if strings.EqualFold(string(b.kind), r.PathValue("id")) {
			name = b.name
		}
	}
	if name == "" {
		err := a.db.Read(r.Context(), func(tx *db.Tx) error {
			t, err := findTemplate(r.Context(), tx, r)
			if err == nil {
				name, newest = t.Name, t.Version
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if version := r.PathValue("version"); version != "" {
		if n, err := strconv.Atoi(version); err != nil || n < 0 || n > newest {
			return nil, fault.Missing("version of '"+name+"'", version)
		}
	}
	hue := 0
	for _, c := range name {
		hue = (hue*31 + int(c)) % 360
	}
	initial := string(unicode.ToUpper([]rune(name)[0]))
	svg := fmt.Sprintf(`<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 64 64"><rect width="64" height="64" rx="8" fill="hsl(%d,45%%,40%%)"/><text x="32" y="44" font-family="sans-serif" font-size="34" text-anchor="middle" fill="#fff">%s</text></svg>`, hue, html.EscapeString(initial))
	return rest.Raw{ContentType: "image/svg+xml", Content: strings.NewReader(svg), Size: int64(len(svg))}, nil
}
