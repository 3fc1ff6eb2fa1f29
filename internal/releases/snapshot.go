package releases

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// Names of the kinds of snapshots.
const (
	ProcessSnapshots  = "processsnapshots"
	VariableSnapshots = "variablesnapshots"
)

// Kinds are the kinds of documents that the package keeps: snapshots. Nobody
// edits them, so they have no routes and write no events.
func Kinds() []*resource.Kind {
	return []*resource.Kind{
		resource.Declare(resource.Declaration[octopus.DeploymentProcess]{
			Name: ProcessSnapshots, ItemType: "DeploymentProcess", Noun: "deployment process snapshot", Prefix: "deploymentprocess",
			Permissions: resource.Permissions{View: "ProcessView"},
			Dimensions:  resource.Dimensions{Project: "ProjectId"},
			Unnamed:     true, Hidden: true, Unaudited: true, Order: resource.ByAge,
		}),
		resource.Declare(resource.Declaration[resources.VariableSet]{
			Name: VariableSnapshots, ItemType: "VariableSet", Noun: "variable set snapshot", Prefix: "variableset",
			Permissions: resource.Permissions{View: "VariableView"},
			Dimensions:  resource.Dimensions{Project: "OwnerId"},
			Unnamed:     true, Hidden: true, Unaudited: true, Order: resource.ByAge,
		}),
	}
}

// snapshotID names the snapshot of a document as it is now. The letters come
// from its content, so that an unchanged document has one snapshot, whoever asks
// and however often.
func snapshotID(doc *docstore.Doc) string {
	sum := sha256.Sum256(doc.Body)
	return fmt.Sprintf("%s-s-%d-%s", doc.ID, doc.Version, letters(sum[:]))
}

// letters shorten a hash to five letters.
func letters(sum []byte) string {
	out := make([]byte, 5)
	for i := range out {
		out[i] = 'A' + sum[i]%26
	}
	return string(out)
}

// freeze makes the snapshot of a document, unless there is one of this very
// version, and returns its id. Its secrets are sealed anew: they belong to the
// snapshot then. v is a pointer to the kinds' type; complete changes it before
// it is stored.
func (s *Service) freeze(ctx context.Context, tx *db.Tx, space ident.SpaceID, from, id, to string, v any, complete func() error) (string, error) {
	k, err := s.store.Kind(from)
	if err != nil {
		return "", err
	}
	doc, err := s.store.Get(ctx, tx, k, space, id)
	if err != nil {
		return "", err
	}
	frozen, err := s.store.Kind(to)
	if err != nil {
		return "", err
	}
	snapshot := snapshotID(doc)
	switch _, err := s.store.Get(ctx, tx, frozen, space, snapshot); {
	case err == nil:
		return snapshot, nil
	case !fault.Is(err, fault.NotFound):
		return "", err
	}
	if err := s.store.Reveal(ctx, tx, from, doc.ID, v); err != nil {
		return "", fmt.Errorf("freeze %s: %w", doc.ID, err)
	}
	if err := complete(); err != nil {
		return "", fmt.Errorf("freeze %s: %w", doc.ID, err)
	}
	if _, err := s.store.In(tx).Create(ctx, to, space, snapshot, v); err != nil {
		return "", fmt.Errorf("freeze %s: %w", doc.ID, err)
	}
	return snapshot, nil
}

// freezeProcess makes the snapshot of a project's process.
func (s *Service) freezeProcess(ctx context.Context, tx *db.Tx, project *octopus.Project) (string, error) {
	var p octopus.DeploymentProcess
	space := ident.SpaceID(project.SpaceID)
	return s.freeze(ctx, tx, space, "deploymentprocesses", project.DeploymentProcessID, ProcessSnapshots, &p, func() error {
		return s.completeSteps(ctx, tx, space, p.Steps)
	})
}

// freezeVariables makes the snapshots of a project's variables and of those of
// its library sets, in their order.
func (s *Service) freezeVariables(ctx context.Context, tx *db.Tx, project *octopus.Project) (own string, libraries []string, err error) {
	space := ident.SpaceID(project.SpaceID)
	one := func(id string) (string, error) {
		var set resources.VariableSet
		return s.freeze(ctx, tx, space, "variables", id, VariableSnapshots, &set, func() error { return nil })
	}
	if own, err = one(project.VariableSetID); err != nil {
		return "", nil, err
	}
	for _, id := range project.IncludedLibraryVariableSetIDs {
		snapshot, err := one("variableset-" + id)
		if err != nil {
			return "", nil, err
		}
		libraries = append(libraries, snapshot)
	}
	return own, libraries, nil
}

// VariableName names a variable of a project or of a library set.
type VariableName struct{ OwnerID, Name string }

// UpdateVariablesByName gives a release some variables as they are now, all
// values of each, and leaves the others as it has them. A variable that is gone
// is taken from the release too.
func (s *Service) UpdateVariablesByName(ctx context.Context, tx *db.Tx, r *octopus.Release, names []VariableName) error {
	space := ident.SpaceID(r.SpaceID)
	project, err := get[octopus.Project](ctx, s, tx, space, "projects", r.ProjectID)
	if err != nil {
		return err
	}
	wanted := map[string]map[string]bool{} // by set: folded names
	for _, n := range names {
		set := "variableset-" + cmp.Or(n.OwnerID, project.ID)
		if wanted[set] == nil {
			wanted[set] = map[string]bool{}
		}
		wanted[set][ident.Fold(n.Name)] = true
	}
	out := *r
	out.LibraryVariableSetSnapshotIDs = slices.Clone(r.LibraryVariableSetSnapshotIDs)
	places := []*string{&out.ProjectVariableSetSnapshotID}
	for i := range out.LibraryVariableSetSnapshotIDs {
		places = append(places, &out.LibraryVariableSetSnapshotIDs[i])
	}
	for _, at := range places {
		set, _, _ := strings.Cut(*at, "-s-")
		if wanted[set] == nil {
			continue
		}
		if *at, err = s.mend(ctx, tx, space, *at, set, wanted[set]); err != nil {
			return err
		}
		delete(wanted, set)
		if err := use(ctx, tx, r.ID, *at); err != nil {
			return err
		}
	}
	for set := range wanted {
		return invalid("Variables", "Variables names the owner '%.100s', of which the release has no variables; update all its variables instead.", strings.TrimPrefix(set, "variableset-"))
	}
	tx.Event(releaseEvent(octopus.EventModified, project, r, "has some of its variables updated"))
	*r = out
	return updateRelease(ctx, tx, r)
}

// mend makes a snapshot of another one with the values of some names as the set
// has them now.
func (s *Service) mend(ctx context.Context, tx *db.Tx, space ident.SpaceID, snapshot, set string, names map[string]bool) (string, error) {
	k, err := s.store.Kind("variables")
	if err != nil {
		return "", err
	}
	doc, err := s.store.Get(ctx, tx, k, space, set)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for _, part := range append([]string{snapshot, string(doc.Body)}, slices.Sorted(maps.Keys(names))...) {
		fmt.Fprintf(sum, "%d %s", len(part), part)
	}
	id := fmt.Sprintf("%s-s-%d-%s", set, doc.Version, letters(sum.Sum(nil)))
	var old, now resources.VariableSet
	switch err := s.store.Load(ctx, tx, VariableSnapshots, id, &old); {
	case err == nil:
		return id, nil
	case !fault.Is(err, fault.NotFound):
		return "", err
	}
	if err := s.store.Reveal(ctx, tx, VariableSnapshots, snapshot, &old); err != nil {
		return "", err
	}
	if err := s.store.Reveal(ctx, tx, "variables", set, &now); err != nil {
		return "", err
	}
	now.Variables = slices.DeleteFunc(now.Variables, func(v resources.Variable) bool { return !names[ident.Fold(v.Name)] })
	for _, v := range old.Variables {
		renamed := slices.ContainsFunc(now.Variables, func(n resources.Variable) bool { return n.ID == v.ID })
		if !names[ident.Fold(v.Name)] && !renamed {
			now.Variables = append(now.Variables, v)
		}
	}
	_, err = s.store.In(tx).Create(ctx, VariableSnapshots, space, id, &now)
	return id, err
}

// use notes that a release has snapshots, which then stay as long as it does.
func use(ctx context.Context, tx *db.Tx, owner string, snapshots ...string) error {
	for _, id := range snapshots {
		if _, err := tx.Exec(ctx, `INSERT INTO snapshot_use (owner, snapshot) VALUES (?, ?) ON CONFLICT DO NOTHING`, owner, id); err != nil {
			return fmt.Errorf("note snapshot %s: %w", id, err)
		}
	}
	return nil
}

// disuse lets go of a release's snapshots, and deletes those that nobody has any more.
func (s *Service) disuse(ctx context.Context, tx *db.Tx, owner string) error {
	rows, err := tx.Query(ctx, `SELECT u.snapshot FROM snapshot_use u WHERE u.owner = ?
		AND NOT EXISTS (SELECT 1 FROM snapshot_use o WHERE o.snapshot = u.snapshot AND o.owner <> u.owner)`, owner)
	if err != nil {
		return fmt.Errorf("list snapshots of %s: %w", owner, err)
	}
	orphans, err := texts(rows)
	if err != nil {
		return fmt.Errorf("list snapshots of %s: %w", owner, err)
	}
	if _, err := tx.Exec(ctx, `DELETE FROM snapshot_use WHERE owner = ?`, owner); err != nil {
		return fmt.Errorf("let go of the snapshots of %s: %w", owner, err)
	}
	for _, id := range orphans {
		kind := ProcessSnapshots
		if strings.HasPrefix(id, "variableset-") {
			kind = VariableSnapshots
		}
		if err := s.store.In(tx).Delete(ctx, kind, id); err != nil {
			return fmt.Errorf("delete snapshot %s: %w", id, err)
		}
	}
	return nil
}

// frozen is what a release has frozen, without secrets.
type frozen struct {
	process *octopus.DeploymentProcess
	sets    []frozenSet
}

// frozenSet is a snapshot of variables and its place among those of the release.
type frozenSet struct {
	id      string
	library bool
	order   int64
	set     *resources.VariableSet
}

// snapshots reads what releases have frozen. Snapshots never change, so that
// what it has read once it need not read again, even in another transaction.
type snapshots struct {
	s         *Service
	processes map[string]*octopus.DeploymentProcess
	variables map[string]*resources.VariableSet
}

func (s *Service) newSnapshots() *snapshots {
	return &snapshots{s, map[string]*octopus.DeploymentProcess{}, map[string]*resources.VariableSet{}}
}

func (c *snapshots) load(ctx context.Context, tx *db.Tx, space ident.SpaceID, r *octopus.Release) (*frozen, error) {
	f := &frozen{process: c.processes[r.ProjectDeploymentProcessSnapshotID]}
	var err error
	if f.process == nil {
		if f.process, err = get[octopus.DeploymentProcess](ctx, c.s, tx, space, ProcessSnapshots, r.ProjectDeploymentProcessSnapshotID); err != nil {
			return nil, err
		}
		c.processes[r.ProjectDeploymentProcessSnapshotID] = f.process
	}
	for i, id := range append([]string{r.ProjectVariableSetSnapshotID}, r.LibraryVariableSetSnapshotIDs...) {
		set := c.variables[id]
		if set == nil {
			if set, err = get[resources.VariableSet](ctx, c.s, tx, space, VariableSnapshots, id); err != nil {
				return nil, err
			}
			c.variables[id] = set
		}
		f.sets = append(f.sets, frozenSet{id: id, library: i > 0, order: int64(i), set: set})
	}
	return f, nil
}

// ProcessSnapshot reads a frozen process for people, without secrets.
func (s *Service) ProcessSnapshot(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string) (*octopus.DeploymentProcess, error) {
	k, err := s.store.Kind(ProcessSnapshots)
	if err != nil {
		return nil, err
	}
	doc, err := s.store.Get(ctx, tx, k, space, id)
	if err != nil {
		return nil, err
	}
	var p octopus.DeploymentProcess
	return &p, s.store.Load(ctx, tx, ProcessSnapshots, doc.ID, &p)
}
