package daemon

import (
	"context"
	"errors"
	"fmt"
	"time"

	"golang.org/x/sys/windows"
	"golang.org/x/sys/windows/svc"
	"golang.org/x/sys/windows/svc/mgr"
)

// Manager is the service control manager.
type Manager struct{}

// Check reports whether there is a manager: always.
func (Manager) Check() error { return nil }

// open finds a service. The caller closes both.
func open(name string) (*mgr.Mgr, *mgr.Service, error) {
	m, err := mgr.Connect()
	if err != nil {
		return nil, nil, fmt.Errorf("reach the service control manager: %w; run this as an administrator", err)
	}
	s, err := m.OpenService(name)
	if err != nil {
		return nil, nil, errors.Join(err, m.Disconnect())
	}
	return m, s, nil
}

func with(name string, fn func(s *mgr.Service) error) error {
	m, s, err := open(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return fmt.Errorf("the service %s is not installed; `service install` does that", name)
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	return errors.Join(fn(s), s.Close(), m.Disconnect())
}

// Install makes the service, which starts with the machine. One that is there is
// replaced. Env and User are not supported: the service runs as the system.
func (Manager) Install(ctx context.Context, s Service) error {
	if len(s.Env) > 0 || s.User != "" {
		return errors.New("services of Windows run with the system's environment, as the system's account")
	}
	if err := (Manager{}).Uninstall(ctx, s.Name); err != nil {
		return err
	}
	m, err := mgr.Connect()
	if err != nil {
		return fmt.Errorf("reach the service control manager: %w; run this as an administrator", err)
	}
	made, err := m.CreateService(s.Name, s.Exe, mgr.Config{StartType: mgr.StartAutomatic, DisplayName: s.Description, DelayedAutoStart: true}, s.Args...)
	if err != nil {
		return errors.Join(fmt.Errorf("install the service %s: %w", s.Name, err), m.Disconnect())
	}
	again := mgr.RecoveryAction{Type: mgr.ServiceRestart, Delay: 5 * time.Second}
	err = made.SetRecoveryActions([]mgr.RecoveryAction{again, again, again}, 24*60*60)
	return errors.Join(err, made.Close(), m.Disconnect())
}

// Uninstall stops the service and removes it; one that is not there is no error.
func (Manager) Uninstall(ctx context.Context, name string) error {
	m, s, err := open(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("service %s: %w", name, err)
	}
	err = stop(ctx, s)
	if err == nil {
		err = s.Delete()
	}
	return errors.Join(err, s.Close(), m.Disconnect())
}

// Start starts the service anew: one that runs is restarted.
func (Manager) Start(ctx context.Context, name string) error {
	return with(name, func(s *mgr.Service) error {
		if err := stop(ctx, s); err != nil {
			return err
		}
		return s.Start()
	})
}

// Stop stops the service. It returns once it has ended.
func (Manager) Stop(ctx context.Context, name string) error {
	return with(name, func(s *mgr.Service) error { return stop(ctx, s) })
}

func stop(ctx context.Context, s *mgr.Service) error {
	status, err := s.Query()
	if err == nil && status.State != svc.Stopped && status.State != svc.StopPending {
		status, err = s.Control(svc.Stop)
	}
	for err == nil && status.State != svc.Stopped {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(100 * time.Millisecond):
		}
		status, err = s.Query()
	}
	return err
}

// Status tells what the service does.
func (Manager) Status(_ context.Context, name string) (State, error) {
	m, s, err := open(name)
	if errors.Is(err, windows.ERROR_SERVICE_DOES_NOT_EXIST) {
		return NotInstalled, nil
	}
	if err != nil {
		return "", fmt.Errorf("service %s: %w", name, err)
	}
	status, err := s.Query()
	err = errors.Join(err, s.Close(), m.Disconnect())
	switch {
	case err != nil:
		return "", err
	case status.State != svc.Stopped:
		return Running, nil
	case status.Win32ExitCode != 0 && status.Win32ExitCode != uint32(windows.ERROR_SERVICE_NEVER_STARTED):
		return Failed, nil
	}
	return Stopped, nil
}

// IsService reports whether Windows has started the program as a service.
func IsService() bool {
	is, err := svc.IsWindowsService()
	return err == nil && is
}

// Serve calls fn as the service that Windows has started; its context ends when the
// service is to.
func Serve(ctx context.Context, name string, fn func(ctx context.Context) error) error {
	h := &handler{ctx: ctx, fn: fn}
	if err := svc.Run(name, h); err != nil {
		return err
	}
	return h.err
}

type handler struct {
	ctx context.Context //nolint:containedctx // handed on to fn
	fn  func(ctx context.Context) error
	err error
}

// Execute is svc.Handler.
func (h *handler) Execute(_ []string, requests <-chan svc.ChangeRequest, status chan<- svc.Status) (bool, uint32) {
	status <- svc.Status{State: svc.StartPending}
	ctx, cancel := context.WithCancel(h.ctx)
	defer cancel()
	done := make(chan error, 1)
	go func() { done <- h.fn(ctx) }()
	running := svc.Status{State: svc.Running, Accepts: svc.AcceptStop | svc.AcceptShutdown}
	status <- running
	for {
		select {
		case h.err = <-done:
			status <- svc.Status{State: svc.StopPending}
			if h.err != nil {
				return true, 1
			}
			return false, 0
		case r := <-requests:
			switch r.Cmd {
			case svc.Interrogate:
				status <- running
			case svc.Stop, svc.Shutdown:
				running = svc.Status{State: svc.StopPending}
				status <- running
				cancel()
			}
		}
	}
}
