// Package setup puts Tako onto a Linux machine as a service, and takes it away again.
//
// What it lays out:
//
//	/var/lib/tako            the root: versions/, current, data/, backups/, upgrade/, run/;
//	                         all of it belongs to the service's user
//	/usr/local/lib/tako/tako the supervisor: a copy of its own, which belongs to root and
//	                         which no upgrade replaces
//	/usr/local/bin/tako      what people call: the current version, as the service's user
//	/etc/tako/tako.env       the settings, written once and never again
//	/etc/systemd/system      the unit
//
// Each step is whole or not done, and done again changes nothing, so that an
// installation that was cut short is ended by beginning it anew.
package setup

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent/daemon"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// Service is the name of the service, of its user and of the programs.
const Service = "tako"

// Layout is where things are on a machine.
type Layout struct {
	// Prefix is put before every other path, "" for none: then it is not the machine
	// that is changed, and nothing is started.
	Prefix string
	// Root is the supervisor's; Lib has its program, Bin the command, Etc the settings,
	// Units what systemd reads.
	Root, Lib, Bin, Etc, Units string
	// User is the service's, "" for the one that installs.
	User string
}

// Usual is the layout of a machine, below a prefix.
func Usual(prefix string) (Layout, error) {
	l := Layout{Root: "/var/lib/tako", Lib: "/usr/local/lib/tako", Bin: "/usr/local/bin", Etc: "/etc/tako", Units: "/etc/systemd/system", User: Service}
	if prefix == "" {
		return l, nil
	}
	abs, err := filepath.Abs(prefix)
	if err != nil {
		return l, err
	}
	if strings.ContainsAny(abs, " \t\n'\"\\$%") {
		return l, fmt.Errorf("the directory %q has a blank, a quote, '$' or '%%' in its name; use another", abs)
	}
	l.Prefix, l.User = abs, ""
	for _, p := range []*string{&l.Root, &l.Lib, &l.Bin, &l.Etc, &l.Units} {
		*p = filepath.Join(abs, *p)
	}
	return l, nil
}

// Data is the server's data directory.
func (l *Layout) Data() string { return filepath.Join(l.Root, "data") }

// Supervisor is the path of the supervisor's program.
func (l *Layout) Supervisor() string { return filepath.Join(l.Lib, Service) }

// Command is the path of the command that people call.
func (l *Layout) Command() string { return filepath.Join(l.Bin, Service) }

// Settings is the path of the settings.
func (l *Layout) Settings() string { return filepath.Join(l.Etc, "tako.env") }

// Unit is the path of systemd's unit.
func (l *Layout) Unit() string { return filepath.Join(l.Units, Service+".service") }

// Current is the version that is installed, "" for none.
func (l *Layout) Current() (string, error) {
	link, err := os.Readlink(filepath.Join(l.Root, "current"))
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	return filepath.Base(link), err
}

// Request is what is to be installed.
type Request struct {
	Layout
	// Version and Program are those of this program. It is what is installed, unless
	// Release says where a signed release comes from, and TrustedRoot whose signature is
	// believed: then that is installed. Channel is that of the feed.
	Version, Program string
	Release          stage.Source
	TrustedRoot      []byte
	Wanted, Channel  string
	// Listen and Admin become settings, if there are none yet. NoWorker has the server
	// run nothing on its own machine, which allows a tighter unit.
	Listen, Admin string
	NoWorker      bool
	// Start starts the service, where there is systemd.
	Start bool
	Out   io.Writer
	// Systemd is the service manager; the machine's unless set.
	Systemd daemon.Manager
}

// ErrOther says that another version is installed already.
var ErrOther = errors.New("another version is installed")

// Done is what an installation has come to.
type Done struct {
	Version string
	// Changed are the paths that were made or replaced; none when all was there.
	Changed []string
	// Managed tells that systemd runs the service; Started that it does now.
	Managed, Started bool
}

type install struct {
	*Request
	uid, gid int
	done     Done
}

// Install installs, or completes what is installed. A machine with another version is
// left as it is: that error is ErrOther.
func Install(ctx context.Context, r *Request) (Done, error) {
	i := &install{Request: r, uid: os.Getuid(), gid: os.Getgid()}
	err := i.run(ctx)
	return i.done, err
}

func (i *install) run(ctx context.Context) error {
	if i.User != "" && os.Getuid() != 0 {
		return errors.New("a service is installed by root: use sudo; or name a directory of your own with --prefix, to try it")
	}
	current, err := i.Current()
	if err != nil {
		return err
	}
	if current != "" {
		if err := i.refuseOther(ctx, current); err != nil {
			return err
		}
	}
	if err := i.account(ctx); err != nil {
		return err
	}
	if err := i.directories(); err != nil {
		return err
	}
	if i.done.Version = current; current != "" {
		err = i.found(current)
	} else {
		err = i.firstVersion(ctx)
	}
	if err != nil {
		return err
	}
	if err := i.supervisor(); err != nil {
		return err
	}
	if err := i.files(); err != nil {
		return err
	}
	return i.service(ctx)
}

// offered is the version that would be installed.
func (i *install) offered(ctx context.Context) (string, error) {
	if i.Release.Feed == "" && i.Release.Bundle == "" {
		return i.Version, nil
	}
	dir, err := os.MkdirTemp("", "tako-install-")
	if err != nil {
		return "", err
	}
	store := stage.Open(dir, nil)
	_, err = store.Pin(i.TrustedRoot, false)
	var offer *stage.Offer
	if err == nil {
		offer, err = store.Check(ctx, i.stage())
	}
	if err := errors.Join(err, os.RemoveAll(dir)); err != nil {
		return "", err
	}
	return offer.Release.Version, nil
}

// refuseOther refuses to install a version over another. Where only the data is left of
// that one, it is put into service again instead.
func (i *install) refuseOther(ctx context.Context, current string) error {
	if _, err := os.Stat(i.Supervisor()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	offered, err := i.offered(ctx)
	if err != nil || offered == current {
		return err
	}
	how := i.Command() + " upgrade"
	if i.Release.Bundle != "" {
		how += " --bundle " + i.Release.Bundle
	}
	return fmt.Errorf("%w: %s has version %s, and this is %s. Nothing was changed. A server is upgraded, without an outage, by `%s`, and goes back by `%s upgrade rollback`",
		ErrOther, i.Root, current, offered, how, i.Command())
}

// found completes the version that was there before. In the data of a container there is
// no program: it was in the image.
func (i *install) found(current string) error {
	_, err := os.Stat(filepath.Join(i.Root, "versions", current, Service))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, fs.ErrNotExist) && i.Version == current:
		i.changed(filepath.Join(i.Root, "versions", current))
		return errors.Join(supervisor.Install(i.Root, current, i.Program), i.giveAll("versions"))
	}
	return fmt.Errorf("%s has the data of version %s, whose program is not there: %w; install that version first", i.Root, current, err)
}

func (i *install) changed(path string) { i.done.Changed = append(i.done.Changed, path) }

// account makes the service's user.
func (i *install) account(ctx context.Context) error {
	if i.User == "" {
		return nil
	}
	u, err := user.Lookup(i.User)
	var unknown user.UnknownUserError
	if errors.As(err, &unknown) {
		if err := i.makeUser(ctx); err != nil {
			return err
		}
		i.changed("the user " + i.User)
		u, err = user.Lookup(i.User)
	}
	if err != nil {
		return fmt.Errorf("find the user %s: %w", i.User, err)
	}
	if i.uid, err = strconv.Atoi(u.Uid); err != nil {
		return err
	}
	i.gid, err = strconv.Atoi(u.Gid)
	return err
}

func (i *install) makeUser(ctx context.Context) error {
	args := []string{"useradd", "--system", "--user-group", "--home-dir", i.Root, "--no-create-home", "--shell", "/usr/sbin/nologin", i.User}
	if _, err := exec.LookPath("useradd"); err != nil {
		args = []string{"adduser", "-S", "-D", "-H", "-h", i.Root, "-s", "/sbin/nologin", i.User} // BusyBox
	}
	//nolint:gosec // the arguments are our own
	if out, err := exec.CommandContext(ctx, args[0], args[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("make the user %s: %w: %s; make it yourself and begin anew", i.User, err, bytes.TrimSpace(out))
	}
	return nil
}

// directories makes what is missing. Whose data it is, only they may read.
func (i *install) directories() error {
	for _, d := range []struct {
		path string
		mode fs.FileMode
		own  bool
	}{
		{i.Root, 0o755, true},
		{filepath.Join(i.Root, "versions"), 0o755, true},
		{i.Data(), 0o700, true},
		{filepath.Join(i.Root, "backups"), 0o700, true},
		{filepath.Join(i.Root, "upgrade"), 0o700, true},
		{filepath.Join(i.Root, "run"), 0o700, true},
		{i.Lib, 0o755, false},
		{i.Bin, 0o755, false},
		{i.Etc, 0o755, false},
		{i.Units, 0o755, false},
	} {
		if _, err := os.Stat(d.path); err == nil {
			continue
		}
		if err := os.MkdirAll(filepath.Dir(d.path), 0o755); err != nil {
			return err
		}
		if err := os.Mkdir(d.path, d.mode); err != nil {
			return err
		}
		if err := os.Chmod(d.path, d.mode); err != nil { // whatever the umask
			return err
		}
		if d.own {
			if err := i.give(d.path); err != nil {
				return err
			}
		}
		i.changed(d.path)
	}
	return nil
}

func (i *install) give(path string) error {
	if i.User == "" {
		return nil
	}
	return os.Lchown(path, i.uid, i.gid)
}

func (i *install) stage() stage.Request {
	return stage.Request{Source: i.Release, Channel: i.Channel, Wanted: i.Wanted, Have: i.Program, Now: time.Now()}
}

// firstVersion puts the version in place, and makes it the current one at last.
func (i *install) firstVersion(ctx context.Context) error {
	version := i.Version
	if i.Release.Feed == "" && i.Release.Bundle == "" {
		if err := supervisor.Install(i.Root, version, i.Program); err != nil {
			return err
		}
	} else {
		store := stage.Open(i.Root, nil)
		if _, err := store.Pin(i.TrustedRoot, false); err != nil {
			return err
		}
		offer, err := store.Stage(ctx, i.stage(), nil)
		if err != nil {
			return err
		}
		if version = offer.Release.Version; i.Release.Feed != "" {
			if err := store.UseFeed(i.Release.Feed); err != nil {
				return err
			}
		}
	}
	if err := i.giveAll("versions", "upgrade"); err != nil {
		return err
	}
	if err := supervisor.Begin(i.Root, version); err != nil {
		return err
	}
	i.done.Version = version
	i.changed(filepath.Join(i.Root, "versions", version))
	return i.give(filepath.Join(i.Root, "current"))
}

// giveAll gives trees to the service's user, without following a link.
func (i *install) giveAll(names ...string) error {
	if i.User == "" {
		return nil
	}
	root, err := os.OpenRoot(i.Root)
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a handle
	for _, name := range names {
		err := fs.WalkDir(root.FS(), name, func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			return root.Lchown(path, i.uid, i.gid)
		})
		if err != nil {
			return fmt.Errorf("give %s to %s: %w", name, i.User, err)
		}
	}
	return nil
}

// supervisor copies this program to where the service starts it from. One that is there
// stays: it has been started from there.
func (i *install) supervisor() error {
	if _, err := os.Stat(i.Supervisor()); err == nil {
		return nil
	}
	partial := i.Supervisor() + ".partial"
	if err := copyProgram(i.Program, partial); err != nil {
		return errors.Join(fmt.Errorf("install the supervisor: %w", err), os.Remove(partial))
	}
	if err := durable.Rename(partial, i.Supervisor()); err != nil {
		return fmt.Errorf("install the supervisor: %w", err)
	}
	i.changed(i.Supervisor())
	return nil
}

func copyProgram(from, to string) error {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(to, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close())
}

// files writes settings, command and unit.
func (i *install) files() error {
	if _, err := os.Stat(i.Settings()); errors.Is(err, fs.ErrNotExist) {
		if err := durable.WriteFile(i.Settings(), []byte(i.settings()), 0o640); err != nil {
			return err
		}
		if i.User != "" {
			if err := os.Lchown(i.Settings(), 0, i.gid); err != nil {
				return err
			}
		}
		i.changed(i.Settings())
	}
	if err := i.write(i.Command(), i.command(), 0o755); err != nil {
		return err
	}
	if i.Prefix == "" && i.Systemd.Check() != nil {
		return nil
	}
	if err := i.write(i.Unit(), i.Layout.unit(), 0o644); err != nil {
		return err
	}
	tight := filepath.Join(i.Unit()+".d", "no-worker.conf")
	if !i.NoWorker {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(tight), 0o755); err != nil {
		return err
	}
	return i.write(tight, i.tight(), 0o644)
}

// write writes a file unless it is there like that.
func (i *install) write(path, text string, mode fs.FileMode) error {
	if now, err := os.ReadFile(path); err == nil && string(now) == text {
		return nil
	}
	if err := durable.WriteFile(path, []byte(text), mode); err != nil {
		return err
	}
	i.changed(path)
	return nil
}

// service has systemd know the service and run it.
func (i *install) service(ctx context.Context) error {
	if i.Prefix != "" || i.Systemd.Check() != nil {
		return nil
	}
	i.done.Managed = true
	if err := i.Systemd.Enable(ctx, Service); err != nil {
		return err
	}
	if !i.Start {
		return nil
	}
	state, err := i.Systemd.Status(ctx, Service)
	if err != nil {
		return err
	}
	if state != daemon.Running {
		if err := i.Systemd.Start(ctx, Service); err != nil {
			return fmt.Errorf("%w; look with: journalctl -u %s", err, Service)
		}
		i.changed("the service " + Service)
	}
	if err := i.serves(ctx); err != nil {
		return err
	}
	i.done.Started = true
	return nil
}

// serves waits until the server does.
func (i *install) serves(ctx context.Context) error {
	ctx, stop := context.WithTimeout(ctx, time.Minute)
	defer stop()
	for {
		r, err := supervisor.Ask(ctx, i.Root, supervisor.Order{Do: "status"})
		if err == nil && r.Server != nil && r.Server.Stage == control.Serving {
			return nil
		}
		select {
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("the service runs, but its server did not begin to serve within a minute; look with: journalctl -u %s", Service), err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}
