package ocl

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Names of the files of a project, below its directory, which is ".octopus"
// unless the project says otherwise.
const (
	ProcessFile   = "deployment_process.ocl"
	SettingsFile  = "deployment_settings.ocl"
	VariablesFile = "variables.ocl"
	SchemaFile    = "schema_version.ocl"
	// RunbookFolder has a file per runbook, by slug: "runbooks/restart.ocl".
	RunbookFolder = "runbooks"
)

// SchemaVersion is the version of the files' form that is written.
const SchemaVersion = 10

// WriteSchema writes the file of the version.
func WriteSchema() Body { return Body{Attr("version", Number(SchemaVersion))} }

// WriteProcess writes the steps of a deployment process. It refuses secrets in
// properties: they belong into sensitive variables, which are not in files.
func WriteProcess(steps []octopus.Step, lookup Lookup) (Body, error) {
	steps = slices.Clone(steps)
	return write("the process", lookup, func(c *codec) { describeSteps(c, (*octopus.List[octopus.Step])(&steps)) })
}

// ReadProcess reads the steps of a deployment process. Steps and actions have no
// ids in files; they get their slugs for ids, which must differ. An action that
// comes from a step template may have no type; the template has it.
func ReadProcess(body Body, lookup Lookup) ([]octopus.Step, error) {
	var steps octopus.List[octopus.Step]
	err := read("the process", body, lookup, func(c *codec) { describeSteps(c, &steps) })
	if err != nil {
		return nil, err
	}
	return steps, nil
}

func describeSteps(c *codec, steps *octopus.List[octopus.Step]) {
	blocks(c, "step", steps, describeStep)
	if !c.reading {
		return
	}
	seen, seenAction := map[string]bool{}, map[string]bool{}
	for _, s := range *steps {
		if key := ident.Fold(s.Slug); seen[key] {
			c.fail(Pos{}, "Two steps have the slug %q; give one another.", s.Slug)
		} else {
			seen[key] = true
		}
		for _, a := range s.Actions {
			if key := ident.Fold(a.Slug); seenAction[key] {
				c.fail(Pos{}, "Two actions have the slug %q; give one another.", a.Slug)
			} else {
				seenAction[key] = true
			}
		}
	}
}

func describeStep(c *codec, s *octopus.Step) {
	step := *s
	if !c.reading && step.Slug == "" {
		step.Slug = ident.Slug(step.Name)
	}
	label(c, &step.Slug)
	if c.reading {
		if step.Slug == "" {
			c.fail(c.pos, "A step needs a label with its slug, such as step \"deploy\" { ... }.")
		}
		// Files of old have the name for a label, and no other name.
		step.Name = step.Slug
		if !c.has("name") {
			step.Slug = ident.Slug(step.Slug)
		}
	}
	always(c, "name", &step.Name)
	choice(c, "condition", &step.Condition, octopus.StepConditionSuccess, octopus.StepConditionFailure, octopus.StepConditionAlways, octopus.StepConditionVariable)
	choice(c, "start_trigger", &step.StartTrigger, octopus.StartAfterPrevious, octopus.StartWithPrevious)
	choice(c, "package_requirement", &step.PackageRequirement, octopus.PackageRequirementAuto, octopus.PackageRequirementBefore, octopus.PackageRequirementAfter)
	properties(c, &step.Properties)
	if !c.reading {
		step.Actions = slices.Clone(step.Actions)
	}
	blocks(c, "action", &step.Actions, func(c *codec, a *octopus.Action) { describeAction(c, a, &step) })
	if c.reading {
		step.ID = step.Slug
		if len(step.Actions) == 0 {
			c.fail(c.pos, "The step %q has no action; add one, or remove the step.", step.Name)
		}
		*s = step
	}
}

// describeAction leaves out the label of a step's only action when it is the
// step's slug, and then its name when it is the step's.
func describeAction(c *codec, a *octopus.Action, step *octopus.Step) {
	slug := a.Slug
	if !c.reading {
		if slug == "" {
			slug = ident.Slug(a.Name)
		}
		if len(step.Actions) == 1 && slug == step.Slug {
			slug = ""
		}
	}
	label(c, &slug)
	byDefault := step.Name
	switch {
	case c.reading && slug != "":
		byDefault = slug
		if !c.has("name") {
			slug = ident.Slug(slug)
		}
	case c.reading:
		slug = step.Slug
	case slug != "":
		byDefault = ""
	}
	text(c, "name", &a.Name, byDefault)
	text(c, "action_type", &a.ActionType, "")
	references(c, "channels", &a.Channels, RefChannel)
	choice(c, "condition", &a.Condition, octopus.ActionConditionSuccess, octopus.ActionConditionVariable)
	references(c, "environments", &a.Environments, RefEnvironment)
	references(c, "excluded_environments", &a.ExcludedEnvironments, RefEnvironment)
	flag(c, "is_disabled", &a.IsDisabled)
	flag(c, "is_required", &a.IsRequired)
	text(c, "notes", &a.Notes, "")
	properties(c, &a.Properties)
	text(c, "step_package_version", &a.StepPackageVersion, "")
	references(c, "tenant_tags", &a.TenantTags, refNone)
	reference(c, "worker_pool", &a.WorkerPoolID, RefWorkerPool)
	text(c, "worker_pool_variable", &a.WorkerPoolVariable, "")
	inputs(c, &a.Inputs)
	describeContainer(c, &a.Container)
	blocks(c, "git_dependencies", &a.GitDependencies, describeGitDependency)
	packageKind := refNone
	if a.ActionType == octopus.ActionDeployRelease {
		packageKind = RefProject
	}
	blocks(c, "packages", &a.Packages, func(c *codec, p *octopus.PackageReference) { describePackage(c, p, packageKind) })
	if c.reading {
		a.Slug, a.ID = slug, slug
		a.CanBeUsedForProjectVersioning = len(a.Packages) > 0
		for i := range a.Packages {
			a.Packages[i].ID = stableID("package", a.Slug, a.Packages[i].Name)
		}
	}
}

// inputs keeps the inputs of a step package as the text of their JSON.
func inputs(c *codec, p *json.RawMessage) {
	s := string(*p)
	text(c, "inputs", &s, "")
	if !c.reading {
		return
	}
	*p = nil
	if s == "" {
		return
	}
	if !json.Valid([]byte(s)) {
		_, at, _ := c.get("inputs")
		c.fail(at, "\"inputs\" of %s must be a text that is JSON.", c.what)
		return
	}
	*p = json.RawMessage(s)
}

func describeContainer(c *codec, p **octopus.ActionContainer) {
	var value octopus.ActionContainer
	if *p != nil {
		value = **p
	}
	found := block(c, "container", value != octopus.ActionContainer{}, func(c *codec) {
		text(c, "dockerfile", &value.Dockerfile, "")
		reference(c, "feed", &value.FeedID, RefFeed)
		text(c, "git_url", &value.GitURL, "")
		text(c, "image", &value.Image, "")
	})
	if c.reading {
		*p = nil
		if found {
			*p = &value
		}
	}
}

func describePackage(c *codec, p *octopus.PackageReference, kind Ref) {
	label(c, &p.Name)
	text(c, "acquisition_location", &p.AcquisitionLocation, "")
	reference(c, "feed", &p.FeedID, RefFeed)
	reference(c, "package_id", &p.PackageID, kind)
	dictionary(c, "properties", &p.Properties)
	text(c, "step_package_inputs_reference_id", &p.StepPackageInputsReferenceID, "")
	text(c, "version", &p.Version, "")
}

func describeGitDependency(c *codec, g *octopus.GitDependency) {
	label(c, &g.Name)
	text(c, "default_branch", &g.DefaultBranch, "")
	references(c, "file_path_filters", &g.FilePathFilters, refNone)
	text(c, "git_credential_id", &g.GitCredentialID, "")
	text(c, "git_credential_type", &g.GitCredentialType, "")
	text(c, "github_connection_id", &g.GitHubConnectionID, "")
	text(c, "repository_uri", &g.RepositoryURI, "")
	text(c, "step_package_inputs_reference_id", &g.StepPackageInputsReferenceID, "")
}

// propertyRef is the kind of thing that a property names. A list of them is
// separated by commas.
func propertyRef(key string) Ref {
	switch strings.ToLower(key) {
	case "octopus.action.package.feedid":
		return RefFeed
	case "octopus.action.manual.responsibleteamids":
		return RefTeam
	case "octopus.action.deployrelease.projectid":
		return RefProject
	case "octopus.action.azure.accountid":
		return RefAccount
	}
	return refNone
}

// properties are the settings of a step or an action.
func properties(c *codec, p *octopus.Properties) {
	texts := octopus.Map[string, string]{}
	translate := func(key, value string) string {
		kind := propertyRef(key)
		if kind == refNone || value == "" {
			return value
		}
		parts := strings.Split(value, ",")
		for i, part := range parts {
			_, at, _ := c.get("properties")
			parts[i] = c.translate(at, kind, strings.TrimSpace(part))
		}
		return strings.Join(parts, ",")
	}
	for key, value := range *p {
		if value.IsSensitive() && value.Sensitive.NewValue == nil && !value.Sensitive.HasValue {
			continue
		}
		if value.IsSensitive() {
			c.fail(Pos{}, "The property %q of %s is a secret, which cannot be written to a file; put it into a sensitive variable and use #{its name} here.", key, c.what)
			continue
		}
		texts[key] = translate(key, value.Value)
	}
	dictionary(c, "properties", &texts)
	if !c.reading {
		return
	}
	*p = nil
	if texts == nil {
		return
	}
	*p = make(octopus.Properties, len(texts))
	for _, key := range slices.Sorted(maps.Keys(texts)) {
		(*p)[key] = octopus.Plain(translate(key, texts[key]))
	}
}

// stableID makes an id for something that has none in a file. It stays the same
// as long as what it is made from does.
func stableID(parts ...string) string {
	sum := sha256.Sum256([]byte(strings.Join(parts, "\x00")))
	return hex.EncodeToString(sum[:16])
}
