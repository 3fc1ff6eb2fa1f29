package releases

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/lifecycle"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// Limits of a deployment.
const (
	// MaxQueueAhead is how far in the future a deployment can be scheduled.
	MaxQueueAhead = 30 * 24 * time.Hour
	// maxDeployments of one request.
	maxDeployments = 1000
	maxComments    = 1 << 16 // bytes
	maxAnswers     = 5000
	maxFreezeNames = 100
	maxTargetTags  = 1000
)

// Options are how a deployment goes.
type Options struct {
	ForcePackageDownload     bool
	ForcePackageRedeployment bool
	// SkipActions and the two lists of targets have ids or names.
	SkipActions      []string
	Machines         []string // no others, unless empty
	ExcludedMachines []string
	// TargetTags add the targets that have one of them to Machines: no others, unless
	// both are empty. Those with one of ExcludedTargetTags are left out.
	TargetTags, ExcludedTargetTags []string
	// UseGuidedFailure is nil to leave it to the project and the environment.
	UseGuidedFailure    *bool
	DebugMode           string
	FailTargetDiscovery bool
	Priority            octopus.DeploymentPriority
	Comments            string
	// FormValues are answers to prompts by the variable's id, Variables by its name.
	FormValues, Variables map[string]string
	// QueueTime is when to start, zero for now; at Expiry it is given up if it
	// has not started, zero for never.
	QueueTime, Expiry time.Time
	// FreezeNames, by name or id, and FreezeReason override deployment freezes.
	FreezeNames  []string
	FreezeReason string
	// IgnoreFreezes deploys in spite of all freezes: a target that was added is
	// brought to what the others have.
	IgnoreFreezes bool

	// passed are values that another deployment, of the project from, hands over.
	passed []PassedValue
	from   string
	// before is the deployment that has failed and that this one goes on from, nil
	// for none.
	before *progress
}

// NewDeployments asks for deployments of one release: one for each environment
// and tenant. All of them are made, or none.
type NewDeployments struct {
	Space ident.SpaceID
	// ReleaseID names the release; or Project (an id, slug or name) and Version do.
	ReleaseID        string
	Project, Version string
	// Environments, and Tenants, are ids, slugs or names. TenantTags ("Set/Tag")
	// add the connected tenants that have them. With neither tenants nor tags
	// nobody is deployed for.
	Environments []string
	Tenants      []string
	TenantTags   []string
	// UpdateVariables gives the release the variables as they are now, before.
	UpdateVariables bool
	Options         Options
	// Also is called in the transaction that makes the deployments, once they are
	// made; what it returns keeps them from being made. It may run twice. nil is nothing.
	Also func(ctx context.Context, tx *db.Tx, made []octopus.Deployment) error
}

// Deploy makes deployments and queues their tasks.
func (s *Service) Deploy(ctx context.Context, in NewDeployments, allow Allow) ([]octopus.Deployment, error) {
	if err := in.check(); err != nil {
		return nil, err
	}
	known := s.newSnapshots()
	var release *octopus.Release
	var wanted []wanted
	// Everything is asked before feeds are, which may take a while, and once
	// more in the transaction that writes.
	err := s.db.Read(ctx, func(tx *db.Tx) (err error) {
		if release, err = s.named(ctx, tx, &in); err != nil {
			return err
		}
		sc, _, err := s.stage(ctx, tx, &in, release, known, allow)
		if err == nil {
			wanted = packagesOf(sc.frozen.process.Steps, release, in.Options.SkipActions)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	if err := s.allThere(ctx, in.Space, wanted); err != nil {
		return nil, err
	}
	done, err := s.turns.take(ctx, release.ID)
	if err != nil {
		return nil, err
	}
	defer done()
	var made []octopus.Deployment
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		made = nil
		release, err := s.Release(ctx, tx, in.Space, release.ID)
		if err != nil {
			return err
		}
		if in.UpdateVariables {
			if err := s.UpdateVariables(ctx, tx, release); err != nil {
				return err
			}
		}
		sc, places, err := s.stage(ctx, tx, &in, release, known, allow)
		if err != nil {
			return err
		}
		for _, p := range places {
			d, err := sc.deploy(ctx, tx, p, in.Options, allow)
			if err != nil {
				return err
			}
			made = append(made, *d)
		}
		if in.Also != nil {
			return in.Also(ctx, tx, made)
		}
		return nil
	})
	return made, err
}

func (in *NewDeployments) check() error {
	o := &in.Options
	switch n := max(len(in.Environments), 1) * max(len(in.Tenants), 1); {
	case in.ReleaseID == "" && (in.Project == "" || in.Version == ""):
		return invalid("ReleaseId", "ReleaseId is empty; name the release to deploy.")
	case len(in.Environments) == 0:
		return invalid("EnvironmentId", "EnvironmentId is empty; name the environment to deploy to.")
	case n > maxDeployments:
		return fault.New(fault.Invalid, "The request asks for %d deployments; ask for at most %d.", n, maxDeployments)
	case len(o.Comments) > maxComments:
		return invalid("Comments", "Comments has %d bytes; use at most %d.", len(o.Comments), maxComments)
	case len(o.FormValues)+len(o.Variables) > maxAnswers:
		return invalid("FormValues", "FormValues has %d entries; use at most %d.", len(o.FormValues)+len(o.Variables), maxAnswers)
	case !o.Expiry.IsZero() && !o.QueueTime.IsZero() && !o.Expiry.After(o.QueueTime):
		return invalid("QueueTimeExpiry", "QueueTimeExpiry is %s, which is not after QueueTime, %s; give a later time.", octopus.NewTime(o.Expiry), octopus.NewTime(o.QueueTime))
	case len(o.FreezeNames) > maxFreezeNames:
		return invalid("DeploymentFreezeNames", "DeploymentFreezeNames has %d entries; use at most %d.", len(o.FreezeNames), maxFreezeNames)
	case len(o.TargetTags) > maxTargetTags || len(o.ExcludedTargetTags) > maxTargetTags:
		return invalid("SpecificTargetTagIds", "SpecificTargetTagIds has %d entries and ExcludedTargetTagIds %d; use at most %d each.", len(o.TargetTags), len(o.ExcludedTargetTags), maxTargetTags)
	case len(o.FreezeReason) > maxComments:
		return invalid("DeploymentFreezeOverrideReason", "DeploymentFreezeOverrideReason has %d bytes; use at most %d.", len(o.FreezeReason), maxComments)
	case len(o.FreezeNames) > 0 && strings.TrimSpace(o.FreezeReason) == "":
		return invalid("DeploymentFreezeOverrideReason", "DeploymentFreezeOverrideReason is empty; say why the freeze is overridden.")
	case o.Priority != "" && o.Priority != octopus.PriorityOn && o.Priority != octopus.PriorityOff && o.Priority != octopus.PriorityLifecycleDefault:
		return invalid("Priority", "Priority is '%.40s'; use On, Off or LifecycleDefault.", o.Priority)
	}
	return nil
}

// stage reads the scene of a release and where it is to go, and checks that it may.
func (s *Service) stage(ctx context.Context, tx *db.Tx, in *NewDeployments, release *octopus.Release, known *snapshots, allow Allow) (*scene, []place, error) {
	sc, err := s.scene(ctx, tx, in.Space, release)
	if err != nil {
		return nil, nil, err
	}
	if in.UpdateVariables {
		if err := allow.check(octopus.PermReleaseEdit, auth.Target{Project: sc.project.ID, ProjectGroup: sc.project.ProjectGroupID}); err != nil {
			return nil, nil, err
		}
	}
	places, err := sc.places(ctx, tx, in)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range places {
		if err := allow.check(octopus.PermDeploymentCreate, sc.target(p)); err != nil {
			return nil, nil, err
		}
		progress := sc.progress(p.tenant)
		if err := sc.allowed(p, &progress); err != nil {
			return nil, nil, err
		}
		if _, err := sc.thaw(ctx, tx, p, &in.Options, allow); err != nil {
			return nil, nil, err
		}
	}
	return sc, places, sc.freeze(ctx, tx, known)
}

// named finds the release that is to be deployed.
func (s *Service) named(ctx context.Context, tx *db.Tx, in *NewDeployments) (*octopus.Release, error) {
	if in.ReleaseID != "" {
		return s.Release(ctx, tx, in.Space, in.ReleaseID)
	}
	project, err := get[octopus.Project](ctx, s, tx, in.Space, "projects", in.Project)
	if err != nil {
		return nil, err
	}
	return s.ReleaseByVersion(ctx, tx, project.ID, in.Version)
}

// place is where a release goes.
type place struct {
	environment *octopus.Environment
	tenant      *octopus.Tenant // nil for nobody
}

func (p place) tenantID() string {
	if p.tenant == nil {
		return ""
	}
	return p.tenant.ID
}

// name is how messages speak of the place.
func (p place) name() string {
	if p.tenant == nil {
		return p.environment.Name
	}
	return p.environment.Name + " for " + p.tenant.Name
}

func (sc *scene) target(p place) auth.Target {
	return auth.Target{Project: sc.project.ID, ProjectGroup: sc.project.ProjectGroupID, Environment: p.environment.ID, Tenant: p.tenantID()}
}

// places are the environments and tenants that a request names.
func (sc *scene) places(ctx context.Context, tx *db.Tx, in *NewDeployments) ([]place, error) {
	var out []place
	for _, ref := range in.Environments {
		environment, err := sc.environment(ref)
		if err != nil {
			return nil, err
		}
		if len(in.Tenants) == 0 && len(in.TenantTags) == 0 {
			out = append(out, place{environment: environment})
			continue
		}
		seen := map[string]bool{}
		add := func(t *octopus.Tenant) {
			if !seen[t.ID] {
				seen[t.ID] = true
				out = append(out, place{environment, t})
			}
		}
		for _, ref := range in.Tenants {
			t, err := sc.tenant(ctx, tx, ref)
			if err != nil {
				return nil, err
			}
			add(t)
		}
		if len(in.TenantTags) > 0 {
			connected, err := sc.tenants(ctx, tx, environment.ID)
			if err != nil {
				return nil, err
			}
			for i := range connected {
				if deploy.MatchTags(in.TenantTags, connected[i].TenantTags) {
					add(&connected[i])
				}
			}
		}
	}
	if len(out) == 0 {
		return nil, fault.New(fault.Invalid, "No connected tenant of the project '%s' has the tags %s; connect tenants, or name other tags.", sc.project.Name, strings.Join(in.TenantTags, ", "))
	}
	if len(out) > maxDeployments {
		return nil, fault.New(fault.Invalid, "The request asks for %d deployments; ask for at most %d.", len(out), maxDeployments)
	}
	return out, nil
}

// allowed applies the rules for deploying to a place.
func (sc *scene) allowed(p place, progress *lifecycle.Result) error {
	if err := enabled(sc.project); err != nil {
		return err
	}
	switch t := p.tenant; {
	case t == nil && sc.project.TenantedDeploymentMode == octopus.Tenanted:
		return fault.New(fault.Invalid, "The project '%s' is deployed for tenants only; name a tenant.", sc.project.Name)
	case t != nil && sc.project.TenantedDeploymentMode == octopus.Untenanted:
		return invalid("TenantId", "The project '%s' is not deployed for tenants; leave the tenant out, or let the project allow it.", sc.project.Name)
	case t != nil && t.IsDisabled:
		return invalid("TenantId", "The tenant '%s' is disabled; enable it to deploy for it.", t.Name)
	case t != nil && !slices.Contains(t.ProjectEnvironments[sc.project.ID], p.environment.ID):
		return invalid("TenantId", "The tenant '%s' is not connected to the project '%s' in the environment '%s'; connect it first.", t.Name, sc.project.Name, p.environment.Name)
	case t != nil && !deploy.MatchTags(sc.channel.TenantTags, t.TenantTags):
		return invalid("TenantId", "The channel '%s' is not for the tenant '%s': its tenant tags are %s.", sc.channel.Name, t.Name, strings.Join(sc.channel.TenantTags, ", "))
	}
	if ok, reason := lifecycle.CanDeploy(*progress, p.environment.ID); !ok {
		return invalid("EnvironmentId", "%s", reason)
	}
	return nil
}

// deploy makes one deployment, its manifest and its task.
func (sc *scene) deploy(ctx context.Context, tx *db.Tx, p place, o Options, allow Allow) (*octopus.Deployment, error) {
	progress := sc.progress(p.tenant)
	if err := sc.allowed(p, &progress); err != nil {
		return nil, err
	}
	if err := sc.complete(ctx, tx, p); err != nil {
		return nil, err
	}
	if err := o.when(tx.Now()); err != nil {
		return nil, err
	}
	var err error
	if o.FreezeNames, err = sc.thaw(ctx, tx, p, &o, allow); err != nil {
		return nil, err
	}
	if len(o.FreezeNames) == 0 {
		o.FreezeReason = ""
	}
	seq, err := tx.NextSeq(ctx, deploymentPrefix)
	if err != nil {
		return nil, err
	}
	id := ident.ID(deploymentPrefix, seq)
	keep, err := sc.keep(ctx, tx, p.environment.ID)
	if err != nil {
		return nil, err
	}
	pl, err := sc.think(ctx, tx, p, &o, deploy.Plan{OwnerID: id, ManifestID: "variableset-" + id, Keep: keep, Redeploy: o.ForcePackageRedeployment})
	if err != nil {
		return nil, err
	}
	if o.before != nil && pl.ProcessID != o.before.process {
		return nil, fault.New(fault.Conflict, "The process of the release was changed since %s; deploy it from the beginning.", o.before.deployment)
	}
	if err := sc.reach(pl, p); err != nil {
		return nil, err
	}
	pl.answered, _, err = variables.Answer(sc.values.all, variables.Answers{ByID: o.FormValues, ByName: o.Variables}, sc.context(p))
	if err != nil {
		return nil, err
	}
	d, err := sc.document(ctx, tx, p, pl, o, id)
	if err != nil {
		return nil, err
	}
	system, err := sc.systemOf(ctx, tx, p, pl, d, &o)
	if err != nil {
		return nil, err
	}
	task, err := sc.s.cfg.Queue.Create(ctx, tx, tasks.New{
		Space: sc.space, Name: octopus.TaskDeploy,
		Description: fmt.Sprintf("Deploy %s release %s to %s", sc.project.Name, sc.release.Version, p.name()),
		Arguments:   map[string]any{"DeploymentId": id},
		Priority:    o.Priority == octopus.PriorityOn || o.Priority != octopus.PriorityOff && progress.IsPriority(p.environment.ID),
		QueueTime:   o.QueueTime, Expiry: o.Expiry,
		Tag:       sc.tag(p, pl, system, tx.Now()),
		ProjectID: sc.project.ID, EnvironmentID: p.environment.ID, TenantID: p.tenantID(),
		UserID: db.ActorFrom(ctx).UserID, Plan: pl.Plan, Machines: pl.MachineIDs(),
	})
	if err != nil {
		return nil, err
	}
	d.TaskID = task.ID
	system.Task.ID, system.Task.Name = task.ID, string(task.Name)
	if err := sc.s.storeManifest(ctx, tx, sc, d, &o, variables.System(system)); err != nil {
		return nil, err
	}
	if err := insertDeployment(ctx, tx, d, seq); err != nil {
		return nil, err
	}
	tx.Changed("deployments")
	did := o.did()
	if len(o.FreezeNames) > 0 {
		did += fmt.Sprintf(" in spite of the deployment freeze %s (%s)", strings.Join(o.FreezeNames, ", "), o.FreezeReason)
	}
	tx.Event(sc.event(octopus.EventDeploymentQueued, p, d.ID, d.TaskID, did, o.Comments))
	return d, nil
}

// did is what is told of a deployment that was made.
func (o *Options) did() string {
	if o.before == nil {
		return "was queued"
	}
	return "was queued, to go on where " + o.before.deployment + " has failed"
}

// when checks the times of a deployment and forgets a start that has passed.
func (o *Options) when(now time.Time) error {
	switch {
	case o.QueueTime.After(now.Add(MaxQueueAhead)):
		return invalid("QueueTime", "QueueTime is %s, more than %d days ahead; give an earlier time.", octopus.NewTime(o.QueueTime), int(MaxQueueAhead.Hours()/24))
	case !o.Expiry.IsZero() && !o.Expiry.After(now):
		return invalid("QueueTimeExpiry", "QueueTimeExpiry is %s, which has passed; give a time in the future.", octopus.NewTime(o.Expiry))
	}
	if !o.QueueTime.After(now) {
		o.QueueTime = time.Time{}
	}
	return nil
}

// concurrencyTag is the variable by which people group what must not run at the
// same time.
const concurrencyTag = "Octopus.Task.ConcurrencyTag"

// tag groups the deployments that run one after another: those of a project to
// an environment, and for a tenant, unless a variable says otherwise.
func (sc *scene) tag(p place, pl *plan, system variables.SystemInput, now time.Time) string {
	if sc.values.has(concurrencyTag) {
		v := &values{all: pl.answered}
		if text, ok := v.lookup(sc.context(p), now, pairsOf(variables.System(system))...).Get(concurrencyTag); ok && strings.TrimSpace(text) != "" {
			return strings.TrimSpace(text)
		}
	}
	tag := sc.project.ID + "/" + p.environment.ID
	if p.tenant != nil {
		tag += "/" + p.tenant.ID
	}
	return tag
}

// document is the deployment as clients see it.
func (sc *scene) document(ctx context.Context, tx *db.Tx, p place, pl *plan, o Options, id string) (*octopus.Deployment, error) {
	who, now := db.ActorFrom(ctx), octopus.NewTime(tx.Now())
	d := &octopus.Deployment{
		Resource: octopus.Resource{ID: id, LastModifiedOn: &now, LastModifiedBy: octopus.NullString(who.Username)},
		SpaceID:  string(sc.space), ReleaseID: sc.release.ID, ChannelID: sc.channel.ID,
		DeploymentProcessID: sc.release.ProjectDeploymentProcessSnapshotID,
		Execution: octopus.Execution{
			Name: "Deploy to " + p.environment.Name, ProjectID: sc.project.ID, EnvironmentID: p.environment.ID,
			TenantID: octopus.NullString(p.tenantID()), ManifestVariableSetID: pl.ManifestID,
			ForcePackageDownload: o.ForcePackageDownload || sc.project.ForcePackageDownload,
			SkipActions:          pl.skipped, SpecificMachineIDs: pl.specific, ExcludedMachineIDs: pl.excluded,
			UseGuidedFailure: &pl.guided, DebugMode: octopus.NullString(o.DebugMode), FailTargetDiscovery: o.FailTargetDiscovery,
			Priority: o.Priority, Comments: octopus.NullString(o.Comments), FormValues: sc.shownAnswers(o.FormValues),
			QueueTime: octopus.OptionalTime(o.QueueTime), QueueTimeExpiry: octopus.OptionalTime(o.Expiry), Created: now,
			ContinuesDeploymentID: octopus.NullString(o.before.id()),
			DeploymentFreezeNames: o.FreezeNames, DeploymentFreezeOverrideReason: octopus.NullString(o.FreezeReason),
		},
		ForcePackageRedeployment: o.ForcePackageRedeployment,
		SpecificTargetTagIDs:     pl.specificTags, ExcludedTargetTagIDs: pl.excludedTags,
		DeployedBy: octopus.NullString(who.Username), DeployedByID: octopus.NullString(who.UserID),
		TentacleRetentionPeriod: sc.retention(p.environment.ID),
	}
	if d.Priority == "" {
		d.Priority = octopus.PriorityLifecycleDefault
	}
	for _, m := range pl.Machines {
		d.DeployedToMachineIDs = append(d.DeployedToMachineIDs, m.ID)
	}
	var err error
	if d.Changes, err = sc.changes(ctx, tx, p); err != nil {
		return nil, err
	}
	d.ChangesMarkdown = markdown(d.Changes)
	return d, nil
}

// shownAnswers are the answers to prompts that may be read.
func (sc *scene) shownAnswers(answers map[string]string) octopus.Map[string, octopus.PropertyText] {
	out := octopus.Map[string, octopus.PropertyText]{}
	for i := range sc.values.all {
		v := &sc.values.all[i]
		if text, ok := answers[v.ID]; ok && v.Prompt != nil && !v.Sensitive {
			out[v.ID] = octopus.PropertyText(text)
		}
	}
	return out
}

// retention is how long targets keep what is deployed to them here.
func (sc *scene) retention(environment string) *octopus.RetentionPeriod {
	for _, phase := range lifecycle.Phases(*sc.lifecycle, sc.environments) {
		if slices.Contains(phase.AutomaticDeploymentTargets, environment) || slices.Contains(phase.OptionalDeploymentTargets, environment) {
			return phase.TentacleRetentionPolicy
		}
	}
	return sc.lifecycle.TentacleRetentionPolicy
}

// keep is retention as a plan knows it, the space's own policy resolved.
func (sc *scene) keep(ctx context.Context, tx *db.Tx, environment string) (*deploy.Keep, error) {
	period := sc.retention(environment)
	if period == nil || period.Strategy == octopus.RetentionDefault {
		byDefault, err := sc.s.defaultRetention(ctx, tx, sc.space, octopus.RetentionLifecycleTentacle)
		if err != nil {
			return nil, err
		}
		period = &byDefault
	}
	switch {
	case period.Strategy != octopus.RetentionCount || period.QuantityToKeep <= 0:
		return nil, nil //nolint:nilnil // nil keeps all
	case period.Unit == octopus.RetentionItems:
		return &deploy.Keep{Items: period.QuantityToKeep}, nil
	default:
		return &deploy.Keep{Days: period.QuantityToKeep}, nil
	}
}

// event is the audit event of what happened to a deployment.
func (sc *scene) event(category octopus.EventCategory, p place, id, task, did, comments string) db.Event {
	m := message{}
	m.text("Deploy of ").ref(sc.project.ID, sc.project.Name).text(" release ").ref(sc.release.ID, sc.release.Version).text(" to ").ref(p.environment.ID, p.environment.Name)
	related := []string{id, sc.project.ID, sc.release.ID, p.environment.ID, task, sc.channel.ID}
	if p.tenant != nil {
		m.text(" for ").ref(p.tenant.ID, p.tenant.Name)
		related = append(related, p.tenant.ID)
	}
	m.text(" " + did)
	if comments != "" {
		m.text(": " + comments)
	}
	return db.Event{
		Category: string(category), SpaceID: string(sc.space), Message: m.String(), References: m.refs, Related: related,
		ProjectID: sc.project.ID, ProjectGroupID: sc.project.ProjectGroupID, EnvironmentID: p.environment.ID, TenantID: p.tenantID(),
		DocumentType: "Deployment",
	}
}

// insertDeployment stores a new deployment, which as a rule is the latest of its place.
func insertDeployment(ctx context.Context, tx *db.Tx, d *octopus.Deployment, seq int64) error {
	body, err := encode(d)
	if err != nil {
		return fmt.Errorf("encode deployment: %w", err)
	}
	err = tx.Queue(ctx, `INSERT INTO deployment (id, seq, space_id, project_id, release_id, channel_id, environment_id, tenant_id, task_id, created, completed, state, body)
		VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0, '', ?)`,
		d.ID, seq, d.SpaceID, d.ProjectID, d.ReleaseID, d.ChannelID, d.EnvironmentID, string(d.TenantID), d.TaskID, db.Micros(d.Created.Time), body)
	if err != nil {
		return fmt.Errorf("store deployment %s: %w", d.ID, err)
	}
	// Numbers of ids do not tell which was later: each process hands out its own.
	err = tx.Queue(ctx, `INSERT INTO latest_deployment (project_id, environment_id, tenant_id, deployment_id, created, seq) VALUES (?, ?, ?, ?, ?, ?)
		ON CONFLICT (project_id, environment_id, tenant_id) DO UPDATE SET deployment_id = excluded.deployment_id, created = excluded.created, seq = excluded.seq
		WHERE excluded.created > latest_deployment.created OR excluded.created = latest_deployment.created AND excluded.seq > latest_deployment.seq`,
		d.ProjectID, d.EnvironmentID, string(d.TenantID), d.ID, db.Micros(d.Created.Time), seq)
	if err != nil {
		return fmt.Errorf("make %s the latest: %w", d.ID, err)
	}
	return nil
}
