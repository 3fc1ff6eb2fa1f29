package upgrade

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/internal/version"
)

// KindPruned is an entry about versions that were removed from disk; Data is a Removal.
const KindPruned = "pruned"

// Removal is what an entry about removed versions says.
type Removal struct {
	Versions []string `json:"versions"`
	Bytes    int64    `json:"bytes"`
	By       string   `json:"by,omitempty"`
}

const (
	// keepTried is how long a version stays that was tried and left again, or never came
	// to serve: as long as the backup that was taken for it.
	keepTried = backup.AfterUpgrade
	// keepPartial is how long a transfer can be gone on with that broke off, and how long a
	// bundle stays that was sent to the server.
	keepPartial = 24 * time.Hour
)

// OnDisk is what is to become of a version that is on disk.
type OnDisk struct {
	// Name is that of its directory below versions, or of the bundle that was sent to the
	// server.
	Name  string `json:"name"`
	Bytes int64  `json:"bytes"`
	// Removed tells that it goes, Why why it does or does not.
	Removed bool   `json:"removed"`
	Why     string `json:"why"`

	bundle string // its id, if it is one
}

// Pruned is what has become of the versions on disk, the newest first, and after them of
// bundles.
type Pruned struct {
	DryRun   bool     `json:"dry_run"`
	Versions []OnDisk `json:"versions"`
	// Count and Bytes are of those that go.
	Count int   `json:"count"`
	Bytes int64 `json:"bytes"`
}

// Pruning says how Prune is to remove versions.
type Pruning struct {
	// DryRun only says what would be removed.
	DryRun bool
	// By is who asks for it, "" for the upgrade itself.
	By  string
	Now time.Time
	// Tell is told of each version that is removed, before that; nil for nobody.
	Tell func(OnDisk)
}

// errNothing says that nothing is to be written.
var errNothing = errors.New("there is nothing to write")

// Prune removes the versions of a root that nobody needs any more: neither the current
// one, nor the way back from it, nor an upgrade that has not come to its end, nor whoever
// pinned one, nor a process that runs from it. The version before the current one stays
// also when it is no way back any more: who restores the backup of that upgrade needs it.
// Older ones go; newer ones, which were tried and left again, go after two weeks, and
// transfers that broke off, and bundles that were sent to the server, after a day.
//
// What goes is decided and taken out of the versions while nobody can begin an upgrade,
// and noted in the journal. A Prune that is killed leaves each version whole or not at all,
// and the next one removes its files.
func Prune(ctx context.Context, root string, store *stage.Store, p Pruning) (_ *Pruned, err error) {
	j, err := journal.Open(Dir(root))
	if err != nil {
		return nil, err
	}
	if p.DryRun {
		return survey(root, store, j.Entries(), p)
	}
	alone, err := store.Lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, alone.Unlock()) }()
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := alone.Empty(); err != nil { // of one that was killed
		return nil, err
	}
	var out *Pruned
	_, err = j.Append(p.Now, func(all []journal.Entry) (e journal.Entry, err error) {
		if out, err = survey(root, store, all, p); err != nil {
			return e, err
		}
		r := Removal{By: p.By, Bytes: out.Bytes}
		for i := range out.Versions {
			one := &out.Versions[i]
			if !one.Removed {
				continue
			}
			if p.Tell != nil {
				p.Tell(*one)
			}
			if one.bundle != "" {
				_, err = store.ForgetUploads(func(u *stage.Upload) bool { return u.ID == one.bundle })
			} else {
				err = alone.Discard(one.Name)
			}
			if err != nil {
				return e, err
			}
			r.Versions = append(r.Versions, one.Name)
		}
		if len(r.Versions) == 0 {
			return e, errNothing
		}
		e.Kind = KindPruned
		if len(all) > 0 {
			e.Txn = all[len(all)-1].Txn
		}
		e.Data, err = json.Marshal(r)
		return e, err
	})
	if errors.Is(err, errNothing) {
		return out, nil
	}
	// What was taken out goes also when that could not be noted, as on a full disk: to make
	// room is what this is for.
	return out, errors.Join(err, alone.Empty())
}

// survey says what is to become of each version.
func survey(root string, store *stage.Store, entries []journal.Entry, p Pruning) (*Pruned, error) {
	n, err := needs(root, entries, p.Now)
	if err != nil {
		return nil, err
	}
	all, err := store.Installed()
	if err != nil {
		return nil, err
	}
	slices.SortStableFunc(all, func(a, b stage.Installed) int {
		return cmp.Or(version.Compare(parsed(b.Version), parsed(a.Version)), cmp.Compare(b.Name(), a.Name()))
	})
	sent, err := store.Uploads()
	if err != nil {
		return nil, err
	}
	out := &Pruned{DryRun: p.DryRun, Versions: []OnDisk{}}
	for i := range all {
		one := OnDisk{Name: all[i].Name(), Bytes: all[i].Bytes}
		one.Removed, one.Why = n.judge(&all[i])
		out.Versions = append(out.Versions, one)
	}
	for i := range sent {
		one := OnDisk{Name: "bundle of " + sent[i].Version, Bytes: sent[i].Size, bundle: sent[i].ID}
		one.Removed, one.Why = n.judgeBundle(&sent[i])
		out.Versions = append(out.Versions, one)
	}
	for i := range out.Versions {
		if out.Versions[i].Removed {
			out.Count++
			out.Bytes += out.Versions[i].Bytes
		}
	}
	return out, nil
}

func parsed(text string) version.Version {
	v, err := version.Parse(version.SemVer, text)
	if err != nil {
		return version.Version{}
	}
	return v
}

// needed is who needs which versions.
type needed struct {
	current, previous string
	// former served before the current one, and the upgrade from it is final; "" for none.
	former string
	// open are the versions of an upgrade that has not come to its end, which is named, and
	// the name of its bundle's file.
	open map[string]string
	// tried is when the last upgrade that had to do with a version has ended.
	tried map[string]time.Time
	// running is a process that runs from a version.
	running map[string]int
	now     time.Time
}

// needs finds out who needs which versions.
func needs(root string, entries []journal.Entry, now time.Time) (*needed, error) {
	n := &needed{open: map[string]string{}, tried: map[string]time.Time{}, now: now}
	link, err := os.Readlink(filepath.Join(root, "current"))
	if err != nil {
		return nil, fmt.Errorf("find the current version: %w", err)
	}
	n.current = filepath.Base(link)
	link, err = os.Readlink(filepath.Join(root, "previous"))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("find the previous version: %w", err)
	}
	if err == nil {
		n.previous = filepath.Base(link)
	}
	all, err := Fold(entries)
	if err != nil {
		return nil, err
	}
	for i := range all {
		t := &all[i]
		for _, v := range []string{t.Plan.From, t.Plan.To, filepath.Base(t.Plan.Bundle)} {
			n.tried[v] = t.At
			if i == len(all)-1 && (!t.State.Ended() || t.State == NeedsOperator) {
				n.open[v] = t.ID
			}
		}
		if t.State == Finalized && t.Plan.To == n.current {
			n.former = t.Plan.From
		}
	}
	n.running, err = running(root)
	return n, err
}

// judge says whether a version goes, and why it does or does not.
func (n *needed) judge(v *stage.Installed) (goes bool, why string) {
	name := v.Version
	if v.Partial {
		until := v.Changed.Add(keepPartial)
		switch {
		case n.open[name] != "":
			return false, "the upgrade " + n.open[name] + " fetches it"
		case !v.IsVersion:
			return false, "nobody knows what it is: its name is no version's"
		case n.now.Before(until):
			return false, "a transfer that broke off, which can be gone on with until " + until.UTC().Format(time.RFC3339)
		}
		return true, "a transfer that broke off and was not gone on with"
	}
	switch {
	case name == n.current:
		return false, "it is the current version"
	case name == n.previous:
		return false, "it is the way back from the current version"
	case v.Pin != nil:
		return false, strings.TrimSuffix("it is pinned: "+v.Pin.Reason, ": ")
	case n.open[name] != "":
		return false, "the upgrade " + n.open[name] + " has not come to its end"
	case n.running[name] != 0:
		return false, fmt.Sprintf("process %d runs from it", n.running[name])
	case name == n.former:
		return false, "it served before the current version, and the backup of that upgrade is for it"
	case !v.IsVersion:
		return false, "nobody knows what it is: its name is no version's"
	case parsed(n.current).IsZero():
		return false, fmt.Sprintf("the current version (%s) is no release's, so nobody knows whether it is older", n.current)
	case version.Compare(parsed(name), parsed(n.current)) < 0:
		return true, "it is older than the current version, and no way back"
	}
	until := later(v.Changed, n.tried[name]).Add(keepTried)
	why = "it is newer than the current version, and does not serve"
	if v.Bad != "" {
		why = "it failed here (" + v.Bad + ")"
	}
	if n.now.Before(until) {
		return false, why + "; it stays until " + until.UTC().Format(time.RFC3339)
	}
	return true, why + ", and nobody has tried it for two weeks"
}

// judgeBundle says whether a bundle goes that was sent to the server, and why it does or
// does not.
func (n *needed) judgeBundle(u *stage.Upload) (goes bool, why string) {
	until := u.At.Add(keepPartial)
	switch {
	case n.open[filepath.Base(u.Path)] != "":
		return false, "the upgrade " + n.open[filepath.Base(u.Path)] + " has not come to its end"
	case n.now.Before(until):
		return false, "it was sent lately; it stays until " + until.UTC().Format(time.RFC3339)
	}
	return true, "it was sent more than a day ago"
}

// running finds a process for each version that one runs from. A server that was switched
// off is one until its last connection has gone, and the built-in worker until it is
// begun anew; both start their program again for what they do.
func running(root string) (map[string]int, error) {
	all, err := supervisor.Processes(root)
	if err != nil {
		return nil, err
	}
	out := map[string]int{}
	for _, p := range all {
		out[p.Version] = p.PID
	}
	return out, nil
}

// prune removes the versions that nobody needs since the upgrade is final. That it cannot
// be done changes nothing about what has become of the upgrade.
func (c *Coordinator) prune(ctx context.Context) {
	_, err := Prune(ctx, c.cfg.Root, c.cfg.Store, Pruning{Now: time.Now(), Tell: func(v OnDisk) {
		fmt.Fprintf(c.cfg.Log, "removing version %s (%s): %s\n", v.Name, backup.Size(v.Bytes), v.Why)
	}})
	if err != nil {
		fmt.Fprintf(c.cfg.Log, "versions that nobody needs stay until `tako upgrade prune`: %v\n", err)
	}
}
