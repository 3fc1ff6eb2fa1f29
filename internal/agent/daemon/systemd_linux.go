package daemon

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Manager is systemd.
type Manager struct {
	// UnitDir is where units of the administrator are; "" is /etc/systemd/system.
	UnitDir string
	// Systemctl is the program; "" finds systemctl.
	Systemctl string
}

// booted is there while systemd runs the machine.
const booted = "/run/systemd/system"

// Check reports whether there is a manager, as ErrNoManager.
func (m Manager) Check() error {
	if m.Systemctl != "" {
		return nil
	}
	if _, err := os.Stat(booted); err != nil {
		return ErrNoManager
	}
	return nil
}

func (m Manager) path(name string) string {
	dir := m.UnitDir
	if dir == "" {
		dir = "/etc/systemd/system"
	}
	return filepath.Join(dir, name+".service")
}

func (m Manager) run(ctx context.Context, args ...string) (string, error) {
	if err := m.Check(); err != nil {
		return "", err
	}
	program := m.Systemctl
	if program == "" {
		program = "systemctl"
	}
	cmd := exec.CommandContext(ctx, program, args...)
	var out, errOut bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errOut
	err := cmd.Run()
	if err != nil {
		said := strings.TrimSpace(errOut.String())
		err = fmt.Errorf("systemctl %s: %w %s", strings.Join(args, " "), err, said)
	}
	return strings.TrimSpace(out.String()), err
}

// Install writes the service's unit and has it start with the machine. One that is
// there is replaced.
func (m Manager) Install(ctx context.Context, s Service) error {
	if err := m.Check(); err != nil {
		return err
	}
	path := m.path(s.Name)
	temp, err := os.CreateTemp(filepath.Dir(path), ".new-*")
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w; services are installed by root: use sudo", err)
	}
	if err != nil {
		return err
	}
	_, err = temp.WriteString(s.Unit())
	err = errors.Join(err, temp.Chmod(0o644), temp.Sync(), temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp.Name()))
	}
	return m.Enable(ctx, s.Name)
}

// Enable has systemd read the unit of a service, and start it with the machine.
func (m Manager) Enable(ctx context.Context, name string) error {
	if _, err := m.run(ctx, "daemon-reload"); err != nil {
		return err
	}
	_, err := m.run(ctx, "enable", name+".service")
	return err
}

// Uninstall stops the service and removes its unit; one that is not there is no error.
func (m Manager) Uninstall(ctx context.Context, name string) error {
	path := m.path(name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := m.run(ctx, "disable", "--now", name+".service"); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, err := m.run(ctx, "daemon-reload")
	return err
}

// Start starts the service anew: one that runs is restarted. It returns once the
// service says that it is ready.
func (m Manager) Start(ctx context.Context, name string) error {
	if err := m.installed(name); err != nil {
		return err
	}
	_, err := m.run(ctx, "restart", name+".service")
	return err
}

// Stop stops the service. It returns once it has ended.
func (m Manager) Stop(ctx context.Context, name string) error {
	if err := m.installed(name); err != nil {
		return err
	}
	_, err := m.run(ctx, "stop", name+".service")
	return err
}

func (m Manager) installed(name string) error {
	if _, err := os.Stat(m.path(name)); errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("the service %s is not installed; `service install` does that", name)
	}
	return nil
}

// Status tells what the service does.
func (m Manager) Status(ctx context.Context, name string) (State, error) {
	if _, err := os.Stat(m.path(name)); errors.Is(err, fs.ErrNotExist) {
		return NotInstalled, nil
	}
	// It says so by its exit code too, which is no failure of asking.
	out, err := m.run(ctx, "is-active", name+".service")
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		return "", err
	}
	switch out {
	case "active", "activating", "reloading", "deactivating":
		return Running, nil
	case "failed":
		return Failed, nil
	case "inactive":
		return Stopped, nil
	default:
		return "", errors.Join(fmt.Errorf("systemctl says that %s is %q", name, out), err)
	}
}

// Serve calls fn. It is for programs that Windows starts as services.
func Serve(ctx context.Context, _ string, fn func(ctx context.Context) error) error { return fn(ctx) }

// IsService reports whether Windows has started the program as a service: never here.
func IsService() bool { return false }
