//go:build !linux && !windows

package daemon

import "context"

// Manager is none: this operating system's is not supported.
type Manager struct{}

// Check returns ErrNoManager.
func (Manager) Check() error { return ErrNoManager }

// Install returns ErrNoManager.
func (Manager) Install(context.Context, Service) error { return ErrNoManager }

// Uninstall returns ErrNoManager.
func (Manager) Uninstall(context.Context, string) error { return ErrNoManager }

// Start returns ErrNoManager.
func (Manager) Start(context.Context, string) error { return ErrNoManager }

// Stop returns ErrNoManager.
func (Manager) Stop(context.Context, string) error { return ErrNoManager }

// Status returns ErrNoManager.
func (Manager) Status(context.Context, string) (State, error) { return "", ErrNoManager }

// Serve calls fn. It is for programs that Windows starts as services.
func Serve(ctx context.Context, _ string, fn func(ctx context.Context) error) error { return fn(ctx) }

// IsService reports whether Windows has started the program as a service: never here.
func IsService() bool { return false }
