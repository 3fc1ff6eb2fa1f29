package backup

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/instance"
	"github.com/takodeploy/tako/octopus"
)

// CloneJob is what a task named Clone does.
type CloneJob struct {
	// Backup is what the test instance is made of; "" takes a new backup first.
	Backup string
	// Directory is the data directory of the copy. Database is the URL of its database,
	// "" for SQLite in the directory; it has no password.
	Directory, Database string
	// Asked is when somebody asked for it: what is whole in the directory and newer was
	// made by this very task, on a server that has died since.
	Asked time.Time
}

// arguments are what the task says of itself.
func (j *CloneJob) arguments() map[string]any {
	out := map[string]any{"Directory": j.Directory}
	if j.Backup != "" {
		out["BackupId"] = j.Backup
	}
	if j.Database != "" {
		out["Database"] = j.Database
	}
	return out
}

// clone makes the test instance of a task, and says so.
func (t *Task) clone(ctx context.Context, r *taskLog, s *Store, job *CloneJob) (done string, err error) {
	id := job.Backup
	if id == "" {
		if id, err = t.create(ctx, r, s); err != nil {
			return "", err
		}
	}
	const says = "Test instance %s was made in %s from backup %s"
	if m, err := instance.Read(job.Directory); err == nil && m != nil && !m.Unfinished && m.Backup == id && !m.Created.Before(job.Asked) {
		r.say(octopus.LogInfo, "The test instance %s is there already.", m.ID)
		return fmt.Sprintf(says, m.ID, job.Directory, id), r.err
	}
	if own, err := insideReal(job.Directory, t.cfg.Own); err != nil {
		return "", err
	} else if own != "" {
		return "", fault.New(fault.Invalid, "%s is within %s of the server itself; name another directory.", job.Directory, own)
	}
	keys, err := t.cfg.Keys(ctx)
	if err != nil {
		return "", err
	}
	opt := t.cfg.Clone
	opt.Data, opt.Database, opt.Keys, opt.Progress = job.Directory, job.Database, keys, r.progress
	var c Cloned
	err = r.whenFree(ctx, func() (err error) {
		c, err = s.Clone(ctx, id, opt)
		return err
	})
	if err != nil {
		return "", err
	}
	if err := failpoint.Hit("clone-made"); err != nil {
		return "", err
	}
	r.say(octopus.LogInfo, "Test instance %s is in %s: a copy of %s at %s.", c.Instance.ID, job.Directory, c.Instance.Parent, c.Manifest.Created.Format(time.RFC3339))
	for _, one := range c.Changes() {
		r.say(octopus.LogInfo, "%s: %d, %s", one.What, one.Count, one.How)
	}
	return fmt.Sprintf(says, c.Instance.ID, job.Directory, id), r.err
}

// Inside is the first of some directories that a path is, or is below; "" for none. All are
// absolute. Links are not looked at.
func Inside(path string, dirs []string) string {
	for _, dir := range dirs {
		if rel, err := filepath.Rel(dir, path); err == nil && rel != ".." && !strings.HasPrefix(rel, "../") {
			return dir
		}
	}
	return ""
}

// insideReal is Inside with links followed, as far as what they lead to is there.
func insideReal(path string, dirs []string) (string, error) {
	path, err := resolved(path)
	if err != nil {
		return "", notOurs(path, err)
	}
	for _, dir := range dirs {
		at, err := resolved(dir)
		if err != nil {
			return "", err
		}
		if Inside(path, []string{at}) != "" {
			return dir, nil
		}
	}
	return "", nil
}

// resolved follows the links of a path, of which the end may not be there yet.
func resolved(path string) (string, error) {
	at, err := filepath.EvalSymlinks(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return cmp.Or(at, path), err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode()&fs.ModeSymlink != 0 {
		return path, fmt.Errorf("%s is a link to what is not there", path)
	}
	parent, err := resolved(filepath.Dir(path))
	return filepath.Join(parent, filepath.Base(path)), err
}

// Changed is one kind of thing that is otherwise in a copy.
type Changed struct {
	What  string // in words: "deployment targets"
	Count int64
	How   string // in words: "disabled"
}

// Changes lists what is otherwise in the copy, as far as there was anything.
func (c *Cloned) Changes() (out []Changed) {
	d := c.Disarmed
	for _, one := range []Changed{
		{"triggers", int64(d.Triggers), "disabled"},
		{"subscriptions", int64(d.Subscriptions), "disabled"},
		{"deployment targets", int64(d.Targets), "disabled"},
		{"workers", int64(d.Workers), "disabled"},
		{"projects", int64(d.Projects), "make no release of packages that come"},
		{"lifecycles", int64(d.Lifecycles), "deploy to no environment by themselves"},
		{"identities of token issuers", d.Identities, "removed"},
		{"tasks under way", d.Tasks, "canceled"},
		{"secrets", int64(len(c.Blanked)), "taken out, to be entered again"},
		{"sealed records", int64(c.Closed), "stay closed"},
	} {
		if one.Count > 0 {
			out = append(out, one)
		}
	}
	return out
}
