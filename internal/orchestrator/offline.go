package orchestrator

import (
	"archive/zip"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
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
	// Protected are the server's own files and directories, where no bundle goes.
	Protected []string
	// Roots are the directories below which drop folders may be; none permits all others.
	Roots []string
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

// errStopped says that the task was canceled while bundles were filled.
var errStopped = errors.New("the task was canceled")

// errUnowned says that the lease was asked before a file appeared, and did not answer that
// it is still ours: no fault of the drop folder.
var errUnowned = errors.New("find out whether the task is still this server's")

// bundles makes the bundles of the offline drops that the deployment went to, as it ends
// well. All are filled before one can be run, and what they replace goes last: an error
// leaves none of this deployment's, and those of earlier ones. It may be repeated. A
// cancellation is honoured while they are filled.
func (r *run) bundles(ctx context.Context, b *tasks.Batch) error {
	var all []*dropped
	defer func() {
		for _, d := range all {
			d.close(r)
		}
	}()
	undo := func(d *dropped, err error) error {
		for _, one := range all {
			one.undo(r)
		}
		return fmt.Errorf("make the bundle of %s: %w", d.info.Machine, err)
	}
	for _, m := range slices.Concat(r.plan.Machines, r.state.Joined) {
		if !m.Offline || r.state.Excluded[m.ID] {
			continue
		}
		units := r.packedUnits(m.ID)
		if len(units) == 0 {
			continue
		}
		d := &dropped{info: bundle.Info{Machine: m.Name}}
		all = append(all, d)
		if err := r.bundle(ctx, m, units, d); err != nil {
			return undo(d, err)
		}
	}
	for _, d := range all {
		if err := d.publish(r); err != nil {
			return undo(d, err)
		}
	}
	for _, d := range all {
		b.Lines = append(b.Lines, d.line)
		b.Artifacts = append(b.Artifacts, d.artifacts...)
		if d.folder == nil {
			continue
		}
		if err := d.folder.Forget(d.info); err != nil {
			b.Warnings = true
			b.Lines = append(b.Lines, line(r.l.ID, octopus.LogWarning, r.vars.mask(fmt.Sprintf("An earlier bundle of %s cannot be removed from %s, and must not be run any more: %s", d.info.Machine, d.dir, cause(err)))))
		}
	}
	return nil
}

// dropped is the bundle of one target in the making.
type dropped struct {
	info      bundle.Info
	line      tasks.Line // says where it is
	artifacts []tasks.Artifact

	// Those of a drop folder.
	dir    string
	folder *bundle.Folder
	writer *bundle.Writer // filled, and not closed
}

// publish makes the bundle of a drop folder one that can be run.
func (d *dropped) publish(r *run) error {
	if d.folder == nil {
		return nil
	}
	script, err := d.writer.Close()
	if err != nil {
		return d.failed(err)
	}
	d.line = line(r.l.ID, octopus.LogHighlight, r.vars.mask(fmt.Sprintf("The bundle of %s is complete: run %s there.", d.info.Machine, filepath.Join(d.dir, script))))
	return nil
}

// failed is an error of the drop folder for people, unless it is another one.
func (d *dropped) failed(err error) error {
	if errors.Is(err, errStopped) || errors.Is(err, errUnowned) || errors.Is(err, context.Canceled) || len(fault.Messages(err)) > 0 {
		return err
	}
	return unwritten(d.info.Machine, d.dir, err)
}

func unwritten(machine, dir string, err error) error {
	return fault.New(fault.Invalid, "The bundle of %s cannot be written to its drop folder %s: %s", machine, dir, cause(err))
}

func (d *dropped) undo(r *run) {
	if d.folder == nil {
		return
	}
	if err := d.folder.Undo(); err != nil {
		r.log.Warn("remove an unfinished bundle", "dir", d.dir, "err", err)
	}
}

func (d *dropped) close(r *run) {
	if d.folder == nil {
		return
	}
	if err := d.folder.Close(); err != nil {
		r.log.Warn("close a drop folder", "dir", d.dir, "err", err)
	}
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

// bundle fills the bundle of one target.
func (r *run) bundle(ctx context.Context, m deploy.Machine, units []deploy.Unit, made *dropped) error {
	endpoint, err := r.drop(ctx, m.ID)
	if err != nil {
		return err
	}
	if made.info, err = r.bundleInfo(m, endpoint); err != nil {
		return err
	}
	if d := endpoint.Destination; d == nil || d.DestinationType != octopus.DropFileSystem {
		return r.dropArtifact(ctx, endpoint, units, made)
	}
	if made.dir, err = r.dropFolder(string(endpoint.Destination.DropFolderPath), made.info); err != nil {
		return err
	}
	// Nothing appears unless the lease is still ours: another owner makes the same bundle.
	owned := func() error {
		if err := r.l.Commit(ctx, tasks.Batch{}); err != nil {
			return fmt.Errorf("%w: %w", errUnowned, err)
		}
		return nil
	}
	if made.folder, err = bundle.OpenFolder(made.dir, owned); err == nil {
		made.writer, err = r.fill(ctx, made.folder.Put, made.info, endpoint, units)
	}
	if err != nil {
		return made.failed(err)
	}
	return nil
}

// dropFolder is the folder of a bundle below the drop folder of its target, without links.
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
	parts := []string{path, bundle.Plain(info.Environment)}
	if info.Tenant != "" {
		parts = append(parts, bundle.Plain(info.Tenant))
	}
	last := info.Release
	if last == "" {
		last = info.Deployment
	}
	return r.o.cfg.Offline.permitted(filepath.Join(append(parts, bundle.Plain(info.Project), bundle.Plain(last))...), info.Machine)
}

// permitted is the folder of a bundle as it is without links, unless no bundle may be
// there. What counts is the whole path: names of environments and projects are part of it.
func (o *Offline) permitted(path, machine string) (string, error) {
	at, err := unlinked(path)
	if err != nil {
		return "", unwritten(machine, path, err)
	}
	for _, one := range o.Protected {
		own, err := unlinked(one)
		if err != nil {
			return "", fmt.Errorf("find out where %s is: %w", one, err)
		}
		if within(own, at) || within(at, own) {
			return "", fault.New(fault.Invalid, "The drop folder of %s leads to '%.200s', among the server's own files; choose another one.", machine, at)
		}
	}
	if len(o.Roots) == 0 {
		return at, nil
	}
	for _, root := range o.Roots {
		if root, err := unlinked(root); err == nil && within(root, at) {
			return at, nil
		}
	}
	return "", fault.New(fault.Invalid, "The drop folder of %s leads to '%.200s', and this server permits drop folders below %s alone (its setting offline_drop_roots); choose one there.", machine, at, strings.Join(o.Roots, ", "))
}

// within reports whether a path is a directory or in it.
func within(dir, path string) bool {
	rel, err := filepath.Rel(dir, path)
	return err == nil && filepath.IsLocal(rel)
}

// unlinked is an absolute path without links, as far as there is anything.
func unlinked(path string) (string, error) {
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	for at, rest := path, ""; ; at, rest = filepath.Dir(at), filepath.Join(filepath.Base(at), rest) {
		found, err := filepath.EvalSymlinks(at)
		if err == nil {
			return filepath.Join(found, rest), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return "", err
		}
		if _, there := os.Lstat(at); there == nil {
			return "", fmt.Errorf("%s is a link to nothing", at)
		}
	}
}

// dropArtifact makes a bundle as an artifact of the deployment.
func (r *run) dropArtifact(ctx context.Context, endpoint octopus.Endpoint, units []deploy.Unit, made *dropped) error {
	info := made.info
	out, in := io.Pipe()
	done := make(chan error, 1)
	go func() {
		archive := zip.NewWriter(in)
		archive.RegisterCompressor(zip.Deflate, func(w io.Writer) (io.WriteCloser, error) { return flate.NewWriter(w, flate.BestSpeed) })
		w, err := r.fill(ctx, bundle.ZIP(archive), info, endpoint, units)
		if err == nil {
			_, err = w.Close()
		}
		if err == nil {
			err = archive.Close()
		}
		_ = in.CloseWithError(err) // it never fails
		done <- err
	}()
	stored, err := r.o.cfg.Blobs.Put(ctx, out, maxArtifact)
	_ = out.CloseWithError(errors.New("the store takes no more")) // it never fails
	if filled := <-done; err == nil || errors.Is(filled, errStopped) || filled != nil && len(fault.Messages(filled)) > 0 {
		err = filled
	}
	if err != nil {
		return err
	}
	name := info.ArchiveName()
	made.artifacts = []tasks.Artifact{{
		Filename: r.vars.mask(name), Source: info.Machine, Correlation: r.l.ID,
		Size: stored.Size, SHA256: string(stored.Hash), Stored: stored.Used,
	}}
	made.line = line(r.l.ID, octopus.LogHighlight, r.vars.mask(fmt.Sprintf("The bundle of %s is the artifact %s.", info.Machine, name)))
	return nil
}

// heedful reads until somebody wants it to stop.
type heedful struct {
	io.Reader
	io.Closer
	stopped func() error
}

// Read is io.Reader.
func (h *heedful) Read(p []byte) (int, error) {
	if err := h.stopped(); err != nil {
		return 0, err
	}
	return h.Reader.Read(p)
}

// stopped reports why a bundle is not filled any further.
func (r *run) stopped(ctx context.Context) error {
	select {
	case <-r.l.Canceled:
		return errStopped
	default:
		return ctx.Err()
	}
}

// fill writes everything of a bundle but what makes it one that can be run.
func (r *run) fill(ctx context.Context, sink bundle.Sink, info bundle.Info, endpoint octopus.Endpoint, units []deploy.Unit) (*bundle.Writer, error) {
	stopped := func() error { return r.stopped(ctx) }
	w, err := bundle.NewWriter(sink, info, dropPassword(endpoint))
	if err != nil {
		return nil, err
	}
	if err := r.fillPrograms(w, stopped); err != nil {
		return nil, err
	}
	for _, unit := range units {
		if err := stopped(); err != nil {
			return nil, err
		}
		a := r.attempt(unit, 1)
		req, err := a.packed(ctx, w.Workspace(), endpoint, func(ctx context.Context, p Package, _ reference) error {
			return w.Package(p.FileName, p.SHA256, func() (io.ReadCloser, error) {
				content, _, err := r.o.cfg.Blobs.Open(ctx, blob.Hash(p.SHA256))
				if err != nil {
					return nil, err
				}
				return &heedful{content, content, stopped}, nil
			})
		})
		var public *steps.Error
		if errors.As(err, &public) {
			return nil, fault.New(fault.Invalid, "%s", public.Message)
		}
		if err != nil {
			return nil, err
		}
		if err := w.Step(a.action.Name, req, r.vars.secretsFor(a)); err != nil {
			return nil, err
		}
	}
	return w, stopped()
}

// fillPrograms adds the programs that the server has.
func (r *run) fillPrograms(w *bundle.Writer, stopped func() error) error {
	own := program.Platform{OS: runtime.GOOS, Arch: runtime.GOARCH}
	for _, p := range platforms() {
		found, err := r.o.cfg.Offline.Programs.Find(p)
		if fault.Is(err, fault.Unsupported) && p != own {
			continue // the script says so on such a machine
		}
		if err != nil {
			return err
		}
		if err := w.Program(p.OS, p.Arch, found.SHA256, &heedful{Reader: found.Open(), stopped: stopped}); err != nil {
			return err
		}
	}
	return nil
}
