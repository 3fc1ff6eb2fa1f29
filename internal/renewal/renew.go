package renewal

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/health"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/targets"
	"github.com/takodeploy/tako/internal/targets/program"
	"github.com/takodeploy/tako/octopus"
)

const (
	// switchFor is how long, beyond the trial, an agent may take to change from one
	// program to another, once each way.
	switchFor = time.Minute
	// askFor is how long one question may take: the agent may be away for a moment.
	askFor = 15 * time.Second

	firstPause = 100 * time.Millisecond // between two questions; it grows
	mostPause  = 2 * time.Second
	// tries is how often what may be repeated is told to an agent that does not answer.
	tries = 4
)

// renew upgrades the agent of a machine whose lock the task has. The error is that of
// ctx or of the database; all else is a result.
func (r *run) renew(ctx context.Context, m health.Machine) (result, error) {
	res, err := r.bring(ctx, m)
	switch {
	case ctx.Err() != nil:
		return result{}, ctx.Err()
	case err == nil && res.outcome == upgraded:
		err := r.cfg.DB.Write(ctx, func(tx *db.Tx) error {
			return resources.KeepVersion(ctx, r.cfg.Store.In(tx), m.Kind, m.ID, r.l.Service().Version())
		})
		return res, err
	case err != nil:
		return result{failed, "was not upgraded: " + sentence(err)}, nil
	}
	return res, nil
}

// again does something that may be repeated until it is answered.
func again(ctx context.Context, do func(ctx context.Context) error) error {
	for n, pause := 1, firstPause; ; n, pause = n+1, min(2*pause, mostPause) {
		err := do(ctx)
		if err == nil || n == tries || ctx.Err() != nil || !errors.Is(err, agent.ErrNotSent) && !errors.Is(err, agent.ErrUnanswered) {
			return err
		}
		if !rest(ctx, pause) {
			return err
		}
	}
}

func rest(ctx context.Context, pause time.Duration) bool {
	timer := time.NewTimer(pause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// bring brings the server's program to a machine, and has it stay. An error is one for
// people, or that of ctx.
func (r *run) bring(ctx context.Context, m health.Machine) (result, error) {
	version := r.l.Service().Version()
	var a targets.Agent
	var hello agent.Hello
	err := again(ctx, func(ctx context.Context) (err error) {
		if a, err = r.cfg.Agents.ByName(ctx, m.ID); err == nil && a.Contract == deploy.ContractTako {
			hello, err = a.Hello(ctx)
		}
		return err
	})
	if err != nil {
		return result{}, err
	}
	if a.Contract != deploy.ContractTako {
		return result{skipped, "has an agent of another make: upgrade it with its maker's tools. What steps need is brought with them."}, nil
	}
	attempt := r.job.Key + "-" + strings.ToLower(m.ID)
	switch f := hello.Program.Failed; {
	case hello.Program.Trial && hello.Version == version: // begun before this process went on with the task
		return r.confirmed(ctx, m, a, attempt, hello.Program.SHA256, "an earlier version")
	case f != nil && f.Attempt == attempt:
		return wentBack(hello), nil
	case !targets.Outdated(hello.Version, version):
		return r.current(m, hello, version)
	}
	up, ok := a.API.(agent.Upgrades)
	if !ok || !hello.Program.Upgrades {
		return result{failed, fmt.Sprintf("has an agent of version %s, which takes no upgrades from a server; install version %s there by hand, once.", hello.Version, version)}, nil
	}
	if r.canceled() {
		return result{skipped, "was not upgraded: the task was canceled."}, nil
	}
	os, arch, _ := strings.Cut(hello.Program.Platform, "/")
	file, err := r.cfg.Programs.Find(program.Platform{OS: os, Arch: arch})
	if err != nil {
		return result{}, err
	}
	if err := r.say(ctx, m, octopus.LogInfo, "Upgrading %s from version %s to %s.", m.Name, hello.Version, version); err != nil {
		return result{}, err
	}
	if err := again(ctx, func(ctx context.Context) error { return send(ctx, a, file) }); err != nil {
		return result{}, err
	}
	if err := failpoint.Hit("program-sent"); err != nil {
		return result{}, err
	}
	err = again(ctx, func(ctx context.Context) error {
		return up.UpgradeProgram(ctx, agent.UpgradeRequest{SHA256: file.SHA256, Version: version, Attempt: attempt, Within: r.cfg.Within})
	})
	// One that was not answered may be at work all the same.
	if err != nil && !errors.Is(err, agent.ErrUnanswered) {
		return result{}, err
	}
	if err := failpoint.Hit("upgrade-sent"); err != nil {
		return result{}, err
	}
	return r.confirmed(ctx, m, a, attempt, file.SHA256, hello.Version)
}

// current is the result for an agent that needs no upgrade. It may have got it from
// this very task, whose process died before it could note that.
func (r *run) current(m health.Machine, hello agent.Hello, version string) (result, error) {
	if hello.Version == version && hello.Program.SHA256 != "" && r.wasBegun(m) {
		return result{upgraded, fmt.Sprintf("runs version %s now.", version)}, nil
	}
	return result{nothing, fmt.Sprintf("has an agent of version %s; there is nothing to upgrade.", hello.Version)}, nil
}

// wasBegun reports whether the machine was begun before this process had the task.
func (r *run) wasBegun(m health.Machine) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	f, ok := r.p.began[m.ID]
	return ok && r.began.After(f.At)
}

// send brings the program's file into the agent's package cache.
func send(ctx context.Context, a targets.Agent, file *program.Program) error {
	has, err := a.HasPackage(ctx, file.SHA256)
	if err != nil || has {
		return err
	}
	return a.PutPackage(ctx, file.SHA256, file.Size, file.Open())
}

func wentBack(hello agent.Hello) result {
	return result{failed, fmt.Sprintf("was not upgraded, and runs version %s as before: %s", hello.Version, hello.Program.Failed.Reason)}
}

// confirmed waits until the new program answers, tells it to stay, and sees that it
// does; or finds out why the old one is back.
func (r *run) confirmed(ctx context.Context, m health.Machine, a targets.Agent, attempt, hash, was string) (result, error) {
	up, ok := a.API.(agent.Upgrades)
	if !ok {
		return result{}, fmt.Errorf("the agent of %s has no calls for upgrades", m.Name)
	}
	until := time.Now().Add(r.cfg.Within + 2*switchFor)
	var last agent.Hello
	var lastErr error
	for pause := firstPause; ; pause = min(pause*3/2, mostPause) {
		asking, stop := context.WithTimeout(ctx, askFor)
		hello, err := a.Hello(asking)
		if err == nil && hello.Program.SHA256 == hash && hello.Program.Trial {
			if err = failpoint.Hit("upgrade-answered"); err == nil {
				if err = up.ConfirmProgram(asking, hash); err == nil {
					hello, err = a.Hello(asking)
				}
			}
		}
		stop()
		last, lastErr = hello, err
		switch {
		case ctx.Err() != nil:
			return result{}, ctx.Err()
		case err == nil && hello.Program.SHA256 == hash && !hello.Program.Trial:
			return result{upgraded, fmt.Sprintf("was upgraded from version %s to %s.", was, hello.Version)}, nil
		case err == nil && hello.Program.Failed != nil && hello.Program.Failed.Attempt == attempt:
			return wentBack(hello), nil
		}
		if time.Now().After(until) || !rest(ctx, pause) {
			return stays(ctx, last, lastErr)
		}
	}
}

// stays is the result when nothing has happened for too long.
func stays(ctx context.Context, last agent.Hello, lastErr error) (result, error) {
	if ctx.Err() != nil {
		return result{}, ctx.Err()
	}
	if lastErr != nil {
		return result{failed, fmt.Sprintf("was not upgraded, and does not answer any more: %s", sentence(lastErr))}, nil
	}
	return result{failed, fmt.Sprintf("was not upgraded: version %s still answers.", last.Version)}, nil
}
