package orchestrator

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/octodiff"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/octopus"
)

// propDelta switches off, by a variable, that packages are sent as differences.
const propDelta = "Octopus.Acquire.DeltaCompressionEnabled"

// Bounds of differences.
const (
	// leastDelta is the size of a package, in bytes, from which on a difference is worth
	// the server's time.
	leastDelta = 256 << 10
	// maxDeltaSignature is how many bytes the signature of a base may have; larger bases
	// get longer chunks.
	maxDeltaSignature = 8 << 20
	// deltasAtOnce is how many differences one server makes at a time.
	deltasAtOnce = 2
)

// errNoDelta says that a difference would save too little.
var errNoDelta = errors.New("the versions have too little in common")

// deltaKey names a difference by the hashes of its ends.
type deltaKey struct{ base, target string }

// difference is one that is being made, for all targets that want it.
type difference struct {
	ready chan struct{} // closed when the rest is there
	file  *os.File      // without a name
	size  int64
	err   error
}

// differences are those of a run, which are kept until it ends: many targets have the
// same version.
type differences struct {
	mu  sync.Mutex
	all map[deltaKey]*difference
}

func (d *differences) close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, one := range d.all {
		<-one.ready
		if one.file != nil {
			_ = one.file.Close() // it was written and read, and is gone
		}
	}
	d.all = nil
}

// bringDelta sends a package as the difference to one of its versions that the agent
// has, if it has one and can use it; sent is false when the whole is to be sent.
func (a *attempt) bringDelta(ctx context.Context, p Package, ref reference) (sent bool, err error) {
	deltas, can := a.agent.API.(agent.Deltas)
	if !can || a.agent.Name == targets.Builtin || p.Size < leastDelta || a.r.o.cfg.Earlier == nil || !a.vars.Flag(propDelta, true) {
		return false, nil
	}
	candidates, err := a.r.o.cfg.Earlier(ctx, &a.r.plan, ref.feed, ref.id, ref.version)
	if err != nil {
		a.r.log.Warn("look for earlier versions", "package", ref.id, "err", err)
		return false, ctx.Err()
	}
	for _, base := range candidates {
		if base.SHA256 == p.SHA256 {
			continue
		}
		has, err := a.agent.HasPackage(ctx, base.SHA256)
		if err != nil {
			return false, err
		}
		if !has {
			continue
		}
		d := a.r.difference(ctx, base, p)
		switch {
		case ctx.Err() != nil:
			return false, ctx.Err()
		case errors.Is(d.err, errNoDelta):
			continue
		case d.err != nil:
			a.r.log.Warn("make a difference of packages", "package", ref.id, "err", d.err)
			return false, nil
		}
		err = deltas.ApplyDelta(ctx, base.SHA256, p.SHA256, p.Size, io.NewSectionReader(d.file, 0, d.size), d.size)
		switch {
		case err == nil:
			a.notes = append(a.notes, a.line(octopus.LogVerbose, "Sent the package %s %s as its difference to %s: %d of %d bytes.", ref.id, ref.version, base.FileName, d.size, p.Size))
			return true, nil
		case ctx.Err() != nil:
			return false, ctx.Err()
		case away(err):
			return false, err
		}
		// Its version may know no differences, or what it has may be damaged.
		a.r.log.Warn("apply a difference of packages", "package", ref.id, "agent", a.agent.Name, "err", err)
		return false, nil
	}
	return false, nil
}

// difference makes the difference between two packages, once in a run.
func (r *run) difference(ctx context.Context, base, target Package) *difference {
	key := deltaKey{base.SHA256, target.SHA256}
	r.deltas.mu.Lock()
	d, found := r.deltas.all[key]
	if !found {
		d = &difference{ready: make(chan struct{})}
		if r.deltas.all == nil {
			r.deltas.all = map[deltaKey]*difference{}
		}
		r.deltas.all[key] = d
	}
	r.deltas.mu.Unlock()
	if found {
		select {
		case <-d.ready:
		case <-ctx.Done():
		}
		return d
	}
	defer close(d.ready)
	select {
	case r.o.deltas <- struct{}{}:
		defer func() { <-r.o.deltas }()
		d.file, d.size, d.err = r.o.makeDelta(ctx, base, target)
	case <-ctx.Done():
		d.err = ctx.Err()
	}
	return d
}

// makeDelta writes a difference to a file that has no name any more.
func (o *Orchestrator) makeDelta(ctx context.Context, base, target Package) (_ *os.File, size int64, err error) {
	from, baseSize, err := o.cfg.Blobs.Open(ctx, blob.Hash(base.SHA256))
	if err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", base.FileName, err)
	}
	defer from.Close()
	to, targetSize, err := o.cfg.Blobs.Open(ctx, blob.Hash(target.SHA256))
	if err != nil {
		return nil, 0, fmt.Errorf("open %s: %w", target.FileName, err)
	}
	defer to.Close()
	earlier, canFrom := from.(io.ReaderAt)
	content, canTo := to.(io.ReaderAt)
	if !canFrom || !canTo {
		return nil, 0, errors.New("the store of packages cannot be read at any place")
	}
	file, err := os.CreateTemp("", "tako-delta-")
	if err != nil {
		return nil, 0, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, file.Close())
		}
	}()
	if err := os.Remove(file.Name()); err != nil {
		return nil, 0, err
	}
	out := &bounded{w: file, left: targetSize / 4 * 3}
	if err := octodiff.DiffFiles(ctx, out, earlier, baseSize, octodiff.Chunk(baseSize, maxDeltaSignature), content, targetSize); err != nil {
		return nil, 0, fmt.Errorf("compare %s with %s: %w", target.FileName, base.FileName, err)
	}
	return file, out.n, nil
}

// bounded ends a difference that is hardly smaller than the whole.
type bounded struct {
	w       io.Writer
	n, left int64
}

// Write is io.Writer.
func (b *bounded) Write(p []byte) (int, error) {
	if b.left -= int64(len(p)); b.left < 0 {
		return 0, errNoDelta
	}
	n, err := b.w.Write(p)
	b.n += int64(n)
	return n, err
}
