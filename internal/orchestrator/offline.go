package orchestrator

import (
	"archive/zip"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/bundle"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/steps"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

// Offline is what bundles of offline drops are made with.
type Offline struct {
	// Endpoint is that of a target, its password in clear.
	Endpoint func(ctx context.Context, machine string) (octopus.Endpoint, error)
	// Programs has those that run bundles.
	Programs *program.Finder
	Version  string // of the server
	Data     string // the server's own directory, where no bundle goes
}

// platforms are those for which a bundle gets a program, where the server has it.
func platforms() []program.Platform {
	return []program.Platform{{OS: "linux", Arch: "amd64"}, {OS: "linux", Arch: "arm64"}}
}

// triedWorkspace stands for a workspace while a step is tried out.
const triedWorkspace = "/workspace"

// pack is the attempt of a unit on an offline drop: the step is tried out as far as that
// can be done here, so that it fails where it stands in the process. It goes into the
// bundle when the deployment ends. Nothing of it is anywhere else, so there is nothing to
// take up again.
func (a *attempt) pack(ctx context.Context, place deploy.Place) error {
	name := a.r.machineName(a.unit.Lane)
	if place != deploy.OnTarget {
		message := fmt.Sprintf("The step runs on a worker on behalf of %s, which is an offline drop: a bundle has no workers, so the step is left out.", name)
		b := tasks.Batch{Warnings: true, Lines: []tasks.Line{a.line(octopus.LogWarning, "%s", message)}}
		return a.conclude(ctx, deploy.Result{Outcome: deploy.Skipped, Message: message, Warnings: true}, b, a.unsent())
	}
	endpoint, err := a.r.drop(ctx, a.unit.Lane)
	if err != nil {
		return a.refuse(ctx, err)
	}
	found := func(ctx context.Context, p Package, ref reference) error {
		content, _, err := a.r.o.cfg.Blobs.Open(ctx, blob.Hash(p.SHA256))
		if err != nil {
			return err
		}
		return content.Close()
	}
	if _, err := a.packed(ctx, triedWorkspace, endpoint, found); err != nil {
		return a.refuse(ctx, err)
	}
	b := tasks.Batch{Lines: []tasks.Line{a.line(octopus.LogInfo, "The step goes into the bundle of %s.", name)}}
	return a.conclude(ctx, deploy.Result{Outcome: deploy.Succeeded}, b, a.unsent())
}

// packed is what a bundle has the attempt's step run.
func (a *attempt) packed(ctx context.Context, workspace string, endpoint octopus.Endpoint, bring func(context.Context, Package, reference) error) (agent.StartRequest, error) {
	if dropPassword(endpoint) == "" {
		if secret := a.sensitive(); secret != "" {
			return agent.StartRequest{}, &steps.Error{Message: fmt.Sprintf("The step can see the sensitive value %s, and the offline drop %s has no password to encrypt it with: set the sensitive variables encryption password of the target.", secret, a.r.machineName(a.unit.Lane))}
		}
	}
	packages, extra, err := a.acquire(ctx, workspace, bring)
	if err != nil {
		return agent.StartRequest{}, err
	}
	a.target = true
	return a.compose(workspace, packages, extra)
}

// sensitive names a secret that the attempt can see, "" for none.
func (a *attempt) sensitive() string {
	a.r.vars.mu.Lock()
	set := a.r.vars.set
	a.r.vars.mu.Unlock()
	for v := range set.Resolve(a.context()).All() {
		if v.Sensitive && v.Value != "" {
			return v.Name
		}
	}
	for _, properties := range []octopus.Properties{a.action.Properties, a.step.Properties} {
		for _, key := range slices.Sorted(maps.Keys(properties)) {
			if s := properties[key].Sensitive; s != nil && s.NewValue != nil && *s.NewValue != "" {
				return key
			}
		}
	}
	return ""
}

// drop finds the endpoint of an offline drop.
func (r *run) drop(ctx context.Context, machine string) (octopus.Endpoint, error) {
	name := r.machineName(machine)
	if r.o.cfg.Offline == nil {
		return octopus.Endpoint{}, fault.New(fault.Unsupported, "%s is an offline drop, for which only deployments and runbooks make bundles.", name)
	}
	e, err := r.o.cfg.Offline.Endpoint(ctx, machine)
	if err == nil && e.CommunicationStyle != octopus.StyleOfflineDrop {
		err = fault.New(fault.Conflict, "%s was an offline drop when the deployment was made, and is one no more; deploy again.", name)
	}
	return e, err
}

func dropPassword(e octopus.Endpoint) string {
	if p := e.SensitiveVariablesEncryptionPassword; p != nil && p.NewValue != nil {
		return *p.NewValue
	}
	return ""
}

// bundles makes the bundles of the offline drops that the deployment went to, as it ends
// well. It may be repeated: what is there is replaced by the same.
func (r *run) bundles(ctx context.Context, b *tasks.Batch) error {
	for _, m := range slices.Concat(r.plan.Machines, r.state.Joined) {
		if !m.Offline || r.state.Excluded[m.ID] {
			continue
		}
		units := r.packedUnits(m.ID)
		if len(units) == 0 {
			continue
		}
		if err := r.bundle(ctx, m, units, b); err != nil {
			return fmt.Errorf("make the bundle of %s: %w", m.Name, err)
		}
	}
	return nil
}

// packedUnits are the units that go into the bundle of a target, in the order of the
// process.
func (r *run) packedUnits(machine string) []deploy.Unit {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []deploy.Unit
	for i := range r.plan.Steps {
		for j := range r.plan.Steps[i].Actions {
			unit := deploy.Unit{Step: i, Action: j, Lane: machine}
			if u := r.state.Units[unit]; u != nil && u.Final && u.Result != nil && u.Result.Outcome == deploy.Succeeded && r.plan.Steps[i].Actions[j].Place == deploy.OnTarget {
				out = append(out, unit)
			}
		}
	}
	return out
}

// bundleInfo says what the bundle of a target deploys, in the names of the deployment.
func (r *run) bundleInfo(m deploy.Machine, e octopus.Endpoint) (bundle.Info, error) {
	vars := r.resolved(-1, nil)
	named := func(variable, id string) string {
		if text, ok := vars.Get(variable); ok && text != "" {
			return text
		}
		return id
	}
	info := bundle.Info{
		Deployment: r.plan.OwnerID, MachineID: m.ID, Machine: m.Name,
		ProjectID: r.plan.ProjectID, Project: named("Octopus.Project.Name", r.plan.ProjectID),
		Environment: named("Octopus.Environment.Name", r.plan.EnvironmentID),
		Release:     named("Octopus.Release.Number", ""), Server: r.o.cfg.Offline.Version, Created: r.l.Task.QueueTime.UTC(),
	}
	if r.plan.TenantID != "" {
		info.Tenant = named("Octopus.Deployment.Tenant.Name", r.plan.TenantID)
	}
	for _, one := range []struct {
		field, text string
		into        *string
	}{{"ApplicationsDirectory", e.ApplicationsDirectory, &info.Applications}, {"OctopusWorkingDirectory", e.WorkingDirectory, &info.Working}} {
		got, err := evaluated(vars, m.Name, one.field, one.text)
		if err != nil {
			return info, err
		}
		*one.into = got
	}
	return info, nil
}

// evaluated is a member of the target's endpoint with its expressions evaluated.
func evaluated(vars *octostache.Variables, machine, field, text string) (string, error) {
	got := vars.Evaluate(text)
	if got.Err != nil {
		return "", fault.New(fault.Invalid, "The %s of the offline drop %s cannot be evaluated: %s", field, machine, got.Err)
	}
	return got.Text, nil
}

// bundle makes the bundle of one target.
func (r *run) bundle(ctx context.Context, m deploy.Machine, units []deploy.Unit, b *tasks.Batch) error {
	endpoint, err := r.drop(ctx, m.ID)
	if err != nil {
		return err
	}
	info, err := r.bundleInfo(m, endpoint)
	if err != nil {
		return err
	}
	if d := endpoint.Destination; d != nil && d.DestinationType == octopus.DropFileSystem {
		dir, err := r.dropFolder(string(d.DropFolderPath), info)
		if err != nil {
			return err
		}
		sink, err := bundle.Folder(dir)
		if err == nil {
			var script string
			if script, err = r.fill(ctx, sink, info, endpoint, units); err == nil {
				b.Lines = append(b.Lines, line(r.l.ID, octopus.LogHighlight, r.vars.mask(fmt.Sprintf("The bundle of %s is complete: run %s there.", m.Name, filepath.Join(dir, script)))))
				err = bundle.Forget(dir, info)
			}
		}
		if err != nil && len(fault.Messages(err)) == 0 {
			return fault.New(fault.Invalid, "The bundle of %s cannot be written to its drop folder %s: %s", m.Name, dir, cause(err))
		}
		return err
	}
	return r.dropArtifact(ctx, info, endpoint, units, b)
}

// dropFolder is the folder of a bundle below the drop folder of its target.
func (r *run) dropFolder(path string, info bundle.Info) (string, error) {
	path, err := evaluated(r.resolved(-1, nil), info.Machine, "DropFolderPath", path)
	if err != nil {
		return "", err
	}
	if egress.Quarantined() {
		return "", fault.New(fault.Unsupported, "This server is a test instance in quarantine, which writes no bundles to drop folders; let the destination of %s be an artifact.", info.Machine)
	}
	if !filepath.IsAbs(path) {
		return "", fault.New(fault.Invalid, "The drop folder '%.200s' of %s is no absolute path on the server's host; correct the target, or let its destination be an artifact.", path, info.Machine)
	}
	path = filepath.Clean(path)
	if data := r.o.cfg.Offline.Data; data != "" {
		if rel, err := filepath.Rel(data, path); err == nil && filepath.IsLocal(rel) {
			return "", fault.New(fault.Invalid, "The drop folder '%.200s' of %s is in the server's own data directory; choose another one.", path, info.Machine)
		}
	}
	parts := []string{path, bundle.Plain(info.Environment)}
	if info.Tenant != "" {
		parts = append(parts, bundle.Plain(info.Tenant))
	}
	last := info.Release
	if last == "" {
		last = info.Deployment
	}
	return filepath.Join(append(parts, bundle.Plain(info.Project), bundle.Plain(last))...), nil
}

// dropArtifact makes a bundle as an artifact of the deployment.
func (r *run) dropArtifact(ctx context.Context, info bundle.Info, endpoint octopus.Endpoint, units []deploy.Unit, b *tasks.Batch) error {
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		archive := zip.NewWriter(in)
		archive.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
		_, err := r.fill(ctx, bundle.ZIP(archive), info, endpoint, units)
		if err == nil {
			err = archive.Close()
		}
		_ = in.CloseWithError(err) // it never fails
		done <- err
	}()
	stored, err := r.o.cfg.Blobs.Put(ctx, out, maxArtifact)
	_ = out.CloseWithError(errors.New("the store takes no more")) // it never fails
	if made := <-done; err == nil || made != nil && len(fault.Messages(made)) > 0 {
		err = made
	}
	if err != nil {
		return err
	}
	parts := []string{info.Project, info.Environment}
	if info.Tenant != "" {
		parts = append(parts, info.Tenant)
	}
	parts = append(parts, info.Machine)
	if info.Release != "" {
		parts = append(parts, info.Release)
	}
	name := bundle.Plain(strings.Join(parts, ".")) + ".zip"
	b.Artifacts = append(b.Artifacts, tasks.Artifact{
		Filename: r.vars.mask(name), Source: info.Machine, Correlation: r.l.ID,
		Size: stored.Size, SHA256: string(stored.Hash), Stored: stored.Used,
	})
	b.Lines = append(b.Lines, line(r.l.ID, octopus.LogHighlight, r.vars.mask(fmt.Sprintf("The bundle of %s is the artifact %s.", info.Machine, name))))
	return nil
}

// fill writes everything of a bundle, and returns the name of its script.
func (r *run) fill(ctx context.Context, sink bundle.Sink, info bundle.Info, endpoint octopus.Endpoint, units []deploy.Unit) (string, error) {
	w, err := bundle.NewWriter(sink, info, dropPassword(endpoint))
	if err != nil {
		return "", err
	}
	if err := r.fillPrograms(w); err != nil {
		return "", err
	}
	for _, unit := range units {
		if err := ctx.Err(); err != nil {
			return "", err
		}
		a := r.attempt(unit, 1)
		req, err := a.packed(ctx, w.Workspace(), endpoint, func(ctx context.Context, p Package, _ reference) error {
			return w.Package(p.FileName, p.SHA256, func() (io.ReadCloser, error) {
				content, _, err := r.o.cfg.Blobs.Open(ctx, blob.Hash(p.SHA256))
				return content, err
			})
		})
		var public *steps.Error
		if errors.As(err, &public) {
			return "", fault.New(fault.Invalid, "%s", public.Message)
		}
		if err != nil {
			return "", err
		}
		if err := w.Step(a.action.Name, req, r.vars.secretsFor(a)); err != nil {
			return "", err
		}
	}
	return w.Close()
}

// fillPrograms adds the programs that the server has.
func (r *run) fillPrograms(w *bundle.Writer) error {
	own := program.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH}
	for _, p := range platforms() {
		found, err := r.o.cfg.Offline.Programs.Find(p)
		if fault.Is(err, fault.Unsupported) && p != own {
			continue // the script says so on such a machine
		}
		if err != nil {
			return err
		}
		if err := w.Program(p.OS, p.Arch, found.Open()); err != nil {
			return err
		}
	}
	return nil
}
