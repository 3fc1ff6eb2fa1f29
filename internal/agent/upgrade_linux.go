package agent

import (
	"context"
	"errors"
	"io/fs"
	"os"

	"github.com/takodeploy/tako/internal/agent/versions"
	"github.com/takodeploy/tako/internal/fault"
)

var _ Upgrades = (*Service)(nil)

func (s *Service) upgradable() error {
	if err := s.usable(); err != nil {
		return err
	}
	if s.cfg.Versions == nil {
		return fault.New(fault.Unsupported, "This agent cannot be upgraded by a server; install the new version where it runs.")
	}
	return nil
}

// Switching is closed when the agent has to go on by another program.
func (s *Service) Switching() <-chan struct{} { return s.switching }

// UpgradeProgram implements Upgrades.
func (s *Service) UpgradeProgram(ctx context.Context, req UpgradeRequest) error {
	if err := errors.Join(s.upgradable(), checkSHA256(req.SHA256)); err != nil {
		return err
	}
	f, err := os.Open(s.cache.path(req.SHA256))
	if errors.Is(err, fs.ErrNotExist) {
		return fault.New(fault.NotFound, "The program with the SHA-256 %s is not in the agent's cache; send it with PutPackage.", req.SHA256)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	begun, err := s.cfg.Versions.Begin(ctx, versions.Trial{
		Program: versions.Program{SHA256: req.SHA256, Version: req.Version}, Attempt: req.Attempt, Within: req.Within,
	}, f)
	var wrong *fault.Error
	if errors.As(err, &wrong) && wrong.Field == "SHA256" {
		_ = os.Remove(f.Name()) // it is damaged: the next time it is sent again
	}
	if begun {
		s.log.Info("agent goes on by another program", "version", req.Version, "sha256", req.SHA256)
		close(s.switching)
	}
	return err
}

// ConfirmProgram implements Upgrades.
func (s *Service) ConfirmProgram(_ context.Context, sha256 string) error {
	if err := s.upgradable(); err != nil {
		return err
	}
	return s.cfg.Versions.Confirm(sha256)
}
