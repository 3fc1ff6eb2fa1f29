package releases

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/takodeploy/tako/internal/auth"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// Limits of a release.
const (
	// MaxVersion is the longest version of a release, in characters.
	MaxVersion = 349
	maxNotes   = 1 << 20 // bytes
	maxFields  = 100
)

// NewRelease asks for a release.
type NewRelease struct {
	Space   ident.SpaceID
	Project string // its id, slug or name
	// Version may be a mask ("1.2.i"); "" takes the next one by the project's
	// versioning strategy.
	Version string
	Channel string // its id, slug or name; "" is the default one
	// Selected are versions by action and reference; Packages are
	// "package:version", "step:version", "reference:step:version" or
	// "*:version"; PackageVersion is for all that these do not name. What nobody
	// names gets the newest version that the channel allows.
	Selected       []octopus.SelectedPackage
	Packages       []string
	PackageVersion string
	// PackagePrerelease is a regular expression for the pre-release of the
	// versions that are looked up.
	PackagePrerelease  string
	Notes              string
	CustomFields       map[string]string
	IgnoreChannelRules bool
	// IgnoreIfExists answers with the release that has the version already.
	IgnoreIfExists bool
	// Also is called in the transaction that makes the release, once it is made;
	// what it returns keeps it from being made. It may run twice. nil is nothing.
	Also func(ctx context.Context, tx *db.Tx, made *CreatedRelease) error
}

// CreatedRelease is what became of a [NewRelease].
type CreatedRelease struct {
	Release octopus.Release
	// Existed tells that the release was there already.
	Existed bool
	// Deployed are the environments that it is deployed to automatically.
	Deployed []octopus.Named
}

// CreateRelease makes a release, and the deployments that its lifecycle makes
// automatically.
func (s *Service) CreateRelease(ctx context.Context, in NewRelease, allow Allow) (*CreatedRelease, error) {
	const attempts = 3
	for try := 1; ; try++ {
		made, err := s.createRelease(ctx, in, allow)
		if !errors.Is(err, errMoved) || try == attempts {
			return made, err
		}
	}
}

// errMoved says that the process was changed between the selection of its
// packages, which may take a while, and the release.
var errMoved = fault.New(fault.Conflict, "The deployment process was changed while the release was made; try again.")

// draft is a release in the making.
type draft struct {
	in      NewRelease
	project *octopus.Project
	channel *octopus.Channel
	steps   []octopus.Step
	process int64 // the version of the document
	refs    []reference
	sel     selection
	chosen  []octopus.SelectedPackage
	values  *values
	exists  *octopus.Release
}

func (s *Service) createRelease(ctx context.Context, in NewRelease, allow Allow) (*CreatedRelease, error) {
	d := &draft{in: in}
	d.in.Version = strings.TrimSpace(in.Version)
	if err := checkNew(&d.in); err != nil {
		return nil, err
	}
	err := s.db.Read(ctx, func(tx *db.Tx) error { return s.loadDraft(ctx, tx, d, allow) })
	if err != nil {
		return nil, err
	}
	if d.exists != nil {
		if in.IgnoreIfExists {
			return &CreatedRelease{Release: *d.exists, Existed: true}, nil
		}
		return nil, taken(d.exists.Version)
	}
	if d.chosen, err = s.choose(ctx, in.Space, d.refs, d.channel, &d.sel); err != nil {
		return nil, err
	}
	var made *CreatedRelease
	err = s.db.Write(ctx, func(tx *db.Tx) error {
		made, err = s.storeRelease(ctx, tx, d)
		if err != nil || in.Also == nil {
			return err
		}
		return in.Also(ctx, tx, made)
	})
	return made, err
}

func checkNew(in *NewRelease) error {
	switch {
	case strings.TrimSpace(in.Project) == "":
		return invalid("ProjectId", "ProjectId is empty; name the project that the release is for.")
	case len(in.Notes) > maxNotes:
		return invalid("ReleaseNotes", "ReleaseNotes has %d bytes; use at most %d.", len(in.Notes), maxNotes)
	case len(in.CustomFields) > maxFields:
		return invalid("CustomFields", "CustomFields has %d entries; use at most %d.", len(in.CustomFields), maxFields)
	}
	return checkVersionLength(in.Version)
}

func checkVersionLength(text string) error {
	if n := utf8.RuneCountInString(text); n > MaxVersion {
		return invalid("Version", "Version has %d characters; use at most %d.", n, MaxVersion)
	}
	return nil
}

// loadDraft reads everything that a release is made of, and checks whether it
// may be made at all.
func (s *Service) loadDraft(ctx context.Context, tx *db.Tx, d *draft, allow Allow) (err error) {
	space := d.in.Space
	if d.project, err = get[octopus.Project](ctx, s, tx, space, "projects", d.in.Project); err != nil {
		return err
	}
	if err := allow.check(octopus.PermReleaseCreate, auth.Target{Project: d.project.ID, ProjectGroup: d.project.ProjectGroupID}); err != nil {
		return err
	}
	if err := enabled(d.project); err != nil {
		return err
	}
	if d.channel, err = s.channel(ctx, tx, d.project, d.in.Channel); err != nil {
		return err
	}
	if d.in.Version != "" {
		switch r, err := s.ReleaseByVersion(ctx, tx, d.project.ID, d.in.Version); {
		case err == nil && ident.Fold(r.Version) == ident.Fold(d.in.Version):
			d.exists = r
			return nil
		case err != nil && !fault.Is(err, fault.NotFound):
			return err
		}
	}
	for _, f := range d.channel.CustomFieldDefinitions {
		if strings.TrimSpace(d.in.CustomFields[f.FieldName]) == "" {
			return invalid("CustomFields", "CustomFields has no '%s', which releases of the channel '%s' must have.", f.FieldName, d.channel.Name)
		}
	}
	return s.loadSteps(ctx, tx, d)
}

// loadSteps reads the process as it is now and what its packages need.
func (s *Service) loadSteps(ctx context.Context, tx *db.Tx, d *draft) error {
	k, err := s.store.Kind("deploymentprocesses")
	if err != nil {
		return err
	}
	doc, err := s.store.Get(ctx, tx, k, d.in.Space, d.project.DeploymentProcessID)
	if err != nil {
		return err
	}
	process, err := docstore.Decode[octopus.DeploymentProcess](doc)
	if err != nil {
		return err
	}
	if err := s.completeSteps(ctx, tx, d.in.Space, process.Steps); err != nil {
		return err
	}
	d.steps, d.process = process.Steps, doc.Version
	if d.refs, err = s.references(ctx, tx, d.in.Space, d.steps, d.channel); err != nil {
		return err
	}
	d.sel = selection{
		selected: d.in.Selected, everything: strings.TrimSpace(d.in.PackageVersion), prerelease: d.in.PackagePrerelease,
		unchecked: d.in.IgnoreChannelRules, mayBreak: d.project.AllowIgnoreChannelRules,
	}
	for _, text := range d.in.Packages {
		w, err := parseWish(text)
		if err != nil {
			return err
		}
		d.sel.wishes = append(d.sel.wishes, w)
	}
	last, err := lastRelease(ctx, tx, d.project.ID)
	if err != nil {
		return err
	}
	d.sel.last = selected(last)
	d.values, err = s.currentValues(ctx, tx, d.project)
	return err
}

// selected are the versions of a release's packages; nil has none.
func selected(r *octopus.Release) map[deploy.PackageKey]string {
	out := map[deploy.PackageKey]string{}
	if r == nil {
		return out
	}
	for _, p := range r.SelectedPackages {
		out[key(cmp.Or(p.ActionName, p.StepName), p.PackageReferenceName)] = p.Version
	}
	return out
}

// enabled refuses what a disabled project must not do.
func enabled(p *octopus.Project) error {
	if p.IsDisabled {
		return fault.New(fault.Invalid, "The project '%s' is disabled; enable it to make releases and deployments.", p.Name)
	}
	return nil
}

// channels are those of a project.
func (s *Service) channels(ctx context.Context, tx *db.Tx, project *octopus.Project) ([]octopus.Channel, error) {
	return all[octopus.Channel](ctx, s, tx, ident.SpaceID(project.SpaceID), "channels", docstore.Match{Path: "ProjectId", Any: []string{project.ID}})
}

// channel finds a channel of a project by id, slug or name; "" is the default one.
func (s *Service) channel(ctx context.Context, tx *db.Tx, project *octopus.Project, ref string) (*octopus.Channel, error) {
	channels, err := s.channels(ctx, tx, project)
	if err != nil {
		return nil, err
	}
	i := slices.IndexFunc(channels, func(c octopus.Channel) bool {
		return ref == "" && c.IsDefault || ref != "" && matches(ref, c.ID, c.Slug, c.Name)
	})
	switch {
	case i >= 0:
		return &channels[i], nil
	case ref == "":
		return nil, fault.New(fault.Invalid, "The project '%s' has no default channel; name the channel of the release.", project.Name)
	}
	return nil, invalid("ChannelId", "The project '%s' has no channel '%.100s'; name one by its name or id.", project.Name, ref)
}

// storeRelease freezes what a release is made of, and stores it.
func (s *Service) storeRelease(ctx context.Context, tx *db.Tx, d *draft) (*CreatedRelease, error) {
	project, err := get[octopus.Project](ctx, s, tx, d.in.Space, "projects", d.project.ID)
	if err != nil {
		return nil, err
	}
	if err := enabled(project); err != nil {
		return nil, err
	}
	k, err := s.store.Kind("deploymentprocesses")
	if err != nil {
		return nil, err
	}
	if doc, err := s.store.Get(ctx, tx, k, d.in.Space, project.DeploymentProcessID); err != nil {
		return nil, err
	} else if doc.Version != d.process {
		return nil, errMoved
	}
	number, err := s.nextVersion(ctx, tx, d)
	if err != nil {
		return nil, err
	}
	seq, err := tx.NextSeq(ctx, releasePrefix)
	if err != nil {
		return nil, err
	}
	now := octopus.NewTime(tx.Now())
	r := octopus.Release{
		Resource: octopus.Resource{ID: ident.ID(releasePrefix, seq), LastModifiedOn: &now, LastModifiedBy: octopus.NullString(db.ActorFrom(ctx).Username)},
		SpaceID:  string(d.in.Space), ProjectID: project.ID, ChannelID: d.channel.ID, Version: number, Assembled: now,
		SelectedPackages: d.chosen, CustomFields: d.in.CustomFields,
	}
	if r.BuildInformation, err = builds(ctx, tx, d.in.Space, d.refs, d.chosen); err != nil {
		return nil, err
	}
	if r.ReleaseNotes, err = d.notes(&r); err != nil {
		return nil, err
	}
	if r.ProjectDeploymentProcessSnapshotID, err = s.freezeProcess(ctx, tx, project); err != nil {
		return nil, err
	}
	if err := s.takeVariables(ctx, tx, project, &r); err != nil {
		return nil, err
	}
	holder, err := insertRelease(ctx, tx, &r, seq)
	switch {
	case err != nil:
		return nil, err
	case holder != r.ID && d.in.IgnoreIfExists:
		old, err := s.Release(ctx, tx, d.in.Space, holder)
		if err != nil {
			return nil, err
		}
		return &CreatedRelease{Release: *old, Existed: true}, nil
	case holder != r.ID:
		return nil, taken(number)
	}
	if err := use(ctx, tx, r.ID, r.ProjectDeploymentProcessSnapshotID); err != nil {
		return nil, err
	}
	if err := feed.Use(ctx, tx, d.in.Space, r.ID, usedBy(d.steps, &r)); err != nil {
		return nil, err
	}
	tx.Changed("releases")
	tx.Event(releaseEvent(octopus.EventCreated, project, &r, "was created"))
	made := &CreatedRelease{Release: r}
	made.Deployed, err = s.deployNew(ctx, tx, project, &r)
	return made, err
}

// takeVariables gives a release the variables as they are now.
func (s *Service) takeVariables(ctx context.Context, tx *db.Tx, project *octopus.Project, r *octopus.Release) error {
	own, libraries, err := s.freezeVariables(ctx, tx, project)
	if err != nil {
		return err
	}
	r.ProjectVariableSetSnapshotID, r.LibraryVariableSetSnapshotIDs = own, libraries
	return use(ctx, tx, r.ID, append([]string{own}, libraries...)...)
}

// UpdateVariables gives a release the variables as they are now, for the
// deployments to come.
func (s *Service) UpdateVariables(ctx context.Context, tx *db.Tx, r *octopus.Release) error {
	project, err := get[octopus.Project](ctx, s, tx, ident.SpaceID(r.SpaceID), "projects", r.ProjectID)
	if err != nil {
		return err
	}
	before := append([]string{r.ProjectVariableSetSnapshotID}, r.LibraryVariableSetSnapshotIDs...)
	if err := s.takeVariables(ctx, tx, project, r); err != nil {
		return err
	}
	if slices.Equal(before, append([]string{r.ProjectVariableSetSnapshotID}, r.LibraryVariableSetSnapshotIDs...)) {
		return nil
	}
	tx.Event(releaseEvent(octopus.EventModified, project, r, "has its variables updated"))
	return updateRelease(ctx, tx, r)
}

// releaseEvent is the audit event of what happened to a release.
func releaseEvent(category octopus.EventCategory, project *octopus.Project, r *octopus.Release, did string) db.Event {
	m := message{}
	m.text("Release ").ref(r.ID, r.Version).text(" of project ").ref(project.ID, project.Name).text(" " + did)
	return db.Event{
		Category: string(category), SpaceID: r.SpaceID, Message: m.String(), References: m.refs,
		Related: []string{r.ID, project.ID, r.ChannelID}, ProjectID: project.ID, ProjectGroupID: project.ProjectGroupID, DocumentType: "Release",
	}
}

// message is an event's sentence with the places that name documents.
type message struct {
	b    strings.Builder
	refs []db.EventReference
}

func (m *message) text(s string) *message {
	m.b.WriteString(s)
	return m
}

func (m *message) ref(id, name string) *message {
	m.refs = append(m.refs, db.EventReference{ID: id, Start: utf16Length(m.b.String()), Length: utf16Length(name)})
	m.b.WriteString(name)
	return m
}

func (m *message) String() string { return m.b.String() }

// utf16Length is a text's length in the units in which clients count.
func utf16Length(s string) int {
	n := 0
	for _, r := range s {
		n++
		if r > 0xffff {
			n++
		}
	}
	return n
}

// joined is errors.Join that leaves a single error as it is.
func joined(errs []error) error {
	if len(errs) == 1 {
		return errs[0]
	}
	return errors.Join(errs...)
}

// lastRelease is the release of a project that was made last, nil when there is none.
func lastRelease(ctx context.Context, tx *db.Tx, project string) (*octopus.Release, error) {
	rows, err := tx.Query(ctx, `SELECT r.body FROM release r WHERE r.project_id = ? ORDER BY r.created DESC, r.seq DESC LIMIT 1`, project)
	if err != nil {
		return nil, fmt.Errorf("read the last release of %s: %w", project, err)
	}
	found, err := bodies[octopus.Release](rows)
	if err != nil || len(found) == 0 {
		return nil, err
	}
	return &found[0], nil
}
