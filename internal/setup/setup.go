// Package setup puts Tako onto a Linux machine as a service, and takes it away again.
//
// What it lays out:
//
//	/var/lib/tako            the root: versions/, current, data/, backups/, upgrade/, run/;
//	                         all of it belongs to the service's user
//	/usr/local/lib/tako/tako the supervisor: a copy of its own, which belongs to root and
//	                         which no upgrade replaces, only another installation
//	/usr/local/bin/tako      what people call: the current version, as the service's user
//	/etc/tako/tako.env       the settings, written once and never again
//	/etc/systemd/system      the unit
//
// Each step is whole or not done, and done again changes nothing, so that an
// installation that was cut short is ended by beginning it anew.
//
// Whoever can run code as the service's user must not become root by an installation, an
// upgrade or a command. So root writes nothing and runs nothing below the root directory
// (errand), and people's commands, which are root's, run as that user without root's
// terminal (asUser).
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
	"syscall"
	"time"

	"github.com/takodeploy/tako/internal/agent/daemon"
	"github.com/takodeploy/tako/internal/durable"
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
	if version := filepath.Base(link); err == nil && printable(version) != version {
		return "", fmt.Errorf("%s names %q, which is no version", filepath.Join(l.Root, "current"), link)
	}
	return filepath.Base(link), err
}

// Request is what is to be installed.
type Request struct {
	Layout
	// Version and Program are those of this program (/proc/self/exe is the very file that
	// runs, whatever has its name by now). It is what is installed, unless Release says
	// where a signed release comes from, and TrustedRoot whose signature is believed: then
	// that is installed. Channel is that of the feed.
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
	// SupervisorOnly replaces the supervisor with this program, and leaves the version that
	// is current as it is. The server goes on meanwhile. With a Release this program must
	// be the one that it has.
	SupervisorOnly bool
	Out            io.Writer
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
	// Former is the process of a supervisor that still runs the program before, 0 if none
	// does. Server is the process of the server that outlived its supervisor.
	Former, Server int
}

type install struct {
	*Request
	uid, gid int
	// copy is this program where only root can change it: the supervisor's place, or beside
	// it for a while.
	copy string
	done Done
}

// Install installs, or completes what is installed. A machine with another version is
// left as it is: that error is ErrOther.
func Install(ctx context.Context, r *Request) (Done, error) {
	i := &install{Request: r, uid: os.Getuid(), gid: os.Getgid()}
	err := i.run(ctx)
	return i.done, err
}

func (i *install) run(ctx context.Context) (err error) {
	if i.User != "" {
		if os.Getuid() != 0 {
			return errors.New("a service is installed by root: use sudo; or name a directory of your own with --prefix, to try it")
		}
		defer syscall.Umask(syscall.Umask(0o022)) // the service's user is to read what is made for it
	}
	current, err := i.Current()
	if err != nil {
		return err
	}
	switch {
	case i.SupervisorOnly:
		err = i.replaceable(ctx, current)
	case current != "":
		err = i.refuseOther(ctx, current)
	}
	if err != nil {
		return err
	}
	if err := i.account(ctx); err != nil {
		return err
	}
	if err := i.directories(); err != nil {
		return err
	}
	if err := i.prepare(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, i.tidy()) }()
	if i.SupervisorOnly {
		i.done.Version = current
		err = i.released(ctx)
	} else {
		err = i.place(ctx, current)
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

// signed reports whether a release is installed, and not this program.
func (i *install) signed() bool { return i.Release.Feed != "" || i.Release.Bundle != "" }

// offer is what the release has, whose signature is checked.
func (i *install) offer(ctx context.Context, r stage.Request) (*stage.Offer, error) {
	dir, err := os.MkdirTemp("", "tako-install-")
	if err != nil {
		return nil, err
	}
	store := stage.Open(dir, nil)
	_, err = store.Pin(i.TrustedRoot, false)
	var offer *stage.Offer
	if err == nil {
		offer, err = store.Check(ctx, r)
	}
	return offer, errors.Join(err, os.RemoveAll(dir))
}

// refuseOther refuses to install a version over another. Where only the data is left of
// that one, it is put into service again instead.
func (i *install) refuseOther(ctx context.Context, current string) error {
	if _, err := os.Stat(i.Supervisor()); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	offered := i.Version
	if i.signed() {
		offer, err := i.offer(ctx, i.stage())
		if err != nil {
			return err
		}
		offered = offer.Release.Version
	}
	if offered == current {
		return nil
	}
	how := i.Command() + " upgrade"
	if i.Release.Bundle != "" {
		how += " --bundle " + i.Release.Bundle
	}
	return fmt.Errorf("%w: %s has version %s, and this is %s. Nothing was changed. A server is upgraded, without an outage, by `%s`, and goes back by `%s upgrade rollback`. --supervisor-only replaces the supervisor alone",
		ErrOther, i.Root, current, offered, how, i.Command())
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

// directories makes those that root makes: the root directory, which belongs to the
// service's user, and those of programs and settings, which do not.
func (i *install) directories() error {
	for _, path := range []string{i.Root, i.Lib, i.Bin, i.Etc, i.Units} {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		made, err := directory(path, 0o755)
		if err != nil {
			return err
		}
		if made {
			i.changed(path)
		}
	}
	return i.owned()
}

// owned gives the root directory to the service's user, if it is still root's.
func (i *install) owned() error {
	if i.User == "" {
		return nil
	}
	info, err := os.Stat(i.Root)
	if err != nil {
		return err
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	switch {
	case !ok || int(st.Uid) == i.uid:
		return nil
	case st.Uid == 0:
		return os.Chown(i.Root, i.uid, i.gid)
	}
	return fmt.Errorf("%[1]s belongs to user %[2]d, and the service runs as %[3]s (%[4]d); to have it use that data: chown -R %[3]s: %[1]s", i.Root, st.Uid, i.User, i.uid)
}

func (i *install) stage() stage.Request {
	return stage.Request{Source: i.Release, Channel: i.Channel, Wanted: i.Wanted, Have: i.Program, Now: time.Now()}
}

// prepare makes a copy of this program that nobody but root can change: it is what runs
// as the service's user, and becomes the supervisor.
func (i *install) prepare() error {
	if same, err := sameContent(i.Program, i.Supervisor()); err != nil || same {
		i.copy = i.Supervisor()
		return err
	}
	out, err := os.CreateTemp(i.Lib, ".tako-*")
	if err != nil {
		return fmt.Errorf("copy this program to where the service finds it: %w", err)
	}
	i.copy = out.Name()
	in, err := os.Open(i.Program)
	if err == nil {
		_, err = io.Copy(out, in)
		err = errors.Join(err, in.Close())
	}
	if err = errors.Join(err, out.Chmod(0o755), out.Sync(), out.Close()); err != nil {
		return errors.Join(fmt.Errorf("copy this program to %s: %w", i.Lib, err), i.tidy())
	}
	return nil
}

// tidy removes a copy that was for a while only.
func (i *install) tidy() error {
	if i.copy == "" || i.copy == i.Supervisor() {
		return nil
	}
	return os.Remove(i.copy)
}

// place has the service's user put the version in place, and make it the current one at
// last. A release is staged by root before, where only root can change it.
func (i *install) place(ctx context.Context, current string) error {
	e := &errand{Do: errandPlace, Version: i.Version, Program: i.copy}
	if current == "" && i.signed() {
		dir, err := os.MkdirTemp(i.Lib, ".release-*")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir) //nolint:errcheck // what was installed is elsewhere
		if e.Staged, err = i.staged(ctx, dir); err != nil {
			return err
		}
		e.TrustedRoot, e.Feed = i.TrustedRoot, i.Release.Feed
	}
	t, err := i.send(ctx, i.copy, e)
	for _, name := range t.Changed {
		i.changed(filepath.Join(i.Root, name))
	}
	i.done.Version = t.Version
	return err
}

// staged fetches and checks the release in a directory of root's, which others may read.
func (i *install) staged(ctx context.Context, dir string) (*stage.Staged, error) {
	if err := os.Chmod(dir, 0o755); err != nil { //nolint:gosec // programs are no secret
		return nil, err
	}
	store := stage.Open(dir, nil)
	if _, err := store.Pin(i.TrustedRoot, false); err != nil {
		return nil, err
	}
	offer, err := store.Stage(ctx, i.stage(), nil)
	if err != nil {
		return nil, err
	}
	staged, err := store.Staged(offer.Release.Version, i.Channel)
	return &staged, err
}

// supervisor puts this program where the service starts it from. One that is there stays,
// since it has been started from there, unless it is what is to be replaced.
func (i *install) supervisor() error {
	if i.copy == i.Supervisor() {
		return nil
	}
	if _, err := os.Stat(i.Supervisor()); err == nil && !i.SupervisorOnly {
		return nil
	}
	if err := durable.Rename(i.copy, i.Supervisor()); err != nil {
		return fmt.Errorf("install the supervisor: %w", err)
	}
	i.copy = i.Supervisor()
	i.changed(i.Supervisor())
	return nil
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
	i.done.Managed = i.Prefix == "" && i.Systemd.Check() == nil
	if i.done.Managed {
		if err := i.Systemd.Enable(ctx, Service); err != nil {
			return err
		}
	}
	if !i.done.Managed || !i.Start {
		if !i.SupervisorOnly {
			return nil
		}
		_, err := i.former(ctx)
		return err
	}
	state, err := i.Systemd.Status(ctx, Service)
	if err != nil {
		return err
	}
	switch {
	case state != daemon.Running:
		if err := i.Systemd.Start(ctx, Service); err != nil {
			return fmt.Errorf("%w; look with: journalctl -u %s", err, Service)
		}
		i.changed("the service " + Service)
	case i.SupervisorOnly:
		return i.restart(ctx)
	}
	if _, err := i.send(ctx, i.copy, &errand{Do: errandServes}); err != nil {
		return err
	}
	i.done.Started = true
	return nil
}
