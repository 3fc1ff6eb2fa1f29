//go:build linux

// Package tentacletest is an agent of another make for tests: it has the script service
// V2 and the file transfer, with their rules, and nothing else. It keeps what it knows
// in memory, forgets a ticket when its script is completed, and then runs it again.
package tentacletest

import (
	"bufio"
	"context"
	"crypto/sha1" //nolint:gosec // the protocol's checksum of uploads
	"encoding/hex"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// Agent is such an agent. It is safe for concurrent use.
type Agent struct {
	Home string
	// Windows has it run the bodies that are meant for Windows, of which it knows
	// Write-Output alone.
	Windows bool
	// Instead, unless it is "", is what is on the disk in the place of an uploaded file,
	// of which the answer knows nothing.
	Instead string
	// Uploads counts the files that were uploaded.
	Uploads atomic.Int64

	mu      sync.Mutex
	scripts map[string]*script
	mutexes map[string]*sync.RWMutex
}

// script is a ticket that was not completed yet.
type script struct {
	dir      string
	mu       sync.Mutex
	logs     []tentacle.Output
	state    tentacle.State
	exit     int32
	canceled bool
	cmd      *exec.Cmd
	over     chan struct{}
}

// New makes an agent with that home.
func New(home string) *Agent {
	return &Agent{Home: home, scripts: map[string]*script{}, mutexes: map[string]*sync.RWMutex{}}
}

// Services are those of the agent, for a halibut.Node.
func (a *Agent) Services() []halibut.Service {
	all := []halibut.Service{tentacle.ServeFiles(a), tentacle.ServeScriptsV2(a)}
	return append(all, tentacle.ServeCapabilities(all...))
}

func (a *Agent) find(t tentacle.Ticket) *script {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.scripts[strings.ToLower(t.TaskID)]
}

// StartScript is tentacle.ScriptsV2.
func (a *Agent) StartScript(_ context.Context, cmd tentacle.StartScriptV2) (tentacle.StatusV2, error) {
	a.mu.Lock()
	key := strings.ToLower(cmd.ScriptTicket.TaskID)
	s := a.scripts[key]
	if s == nil {
		s = &script{dir: filepath.Join(a.Home, "Work", cmd.ScriptTicket.TaskID), over: make(chan struct{})}
		if err := a.prepare(s, cmd); err != nil {
			a.mu.Unlock()
			return tentacle.StatusV2{}, err
		}
		a.scripts[key] = s
		mutex := a.mutexes[cmd.MutexName]
		if mutex == nil {
			mutex = &sync.RWMutex{}
			a.mutexes[cmd.MutexName] = mutex
		}
		go a.run(s, mutex, cmd)
	}
	a.mu.Unlock()
	select {
	case <-s.over:
	case <-time.After(cmd.Wait):
	}
	return s.status(cmd.ScriptTicket, 0), nil
}

func (a *Agent) prepare(s *script, cmd tentacle.StartScriptV2) error {
	write := func(name string, r io.Reader) error {
		name = filepath.Join(s.dir, filepath.FromSlash(strings.ReplaceAll(name, `\`, "/")))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			return err
		}
		f, err := os.Create(name)
		if err != nil {
			return err
		}
		_, err = io.Copy(f, r)
		return errors.Join(err, f.Close())
	}
	body := cmd.ScriptBody
	if bash, ok := cmd.Scripts[tentacle.Bash]; ok && !a.Windows {
		body = bash
	}
	if a.Windows {
		body = `Write-Output() { printf '%s\n' "$*"; }` + "\n" + body
	}
	err := write("Bootstrap.sh", strings.NewReader(strings.ReplaceAll(body, "\r\n", "\n")))
	for _, f := range cmd.Files {
		err = errors.Join(err, write(f.Name, f.Contents))
	}
	return err
}

func (a *Agent) run(s *script, mutex *sync.RWMutex, cmd tentacle.StartScriptV2) {
	if cmd.Isolation == tentacle.FullIsolation {
		mutex.Lock()
		defer mutex.Unlock()
	} else {
		mutex.RLock()
		defer mutex.RUnlock()
	}
	defer close(s.over)
	exit := s.execute(a.Home, cmd.Arguments)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.state, s.exit = tentacle.Complete, exit
	if s.canceled {
		s.exit = tentacle.ExitCanceled
	}
}

func (s *script) execute(home string, arguments []string) int32 {
	// It has no context: a script ends by itself or is canceled.
	s.cmd = exec.CommandContext(context.Background(), "/bin/bash", append([]string{filepath.Join(s.dir, "Bootstrap.sh")}, arguments...)...)
	s.cmd.Dir = s.dir
	s.cmd.Env = append(os.Environ(), "TentacleHome="+home, "TentacleApplications="+filepath.Join(home, "Applications"))
	var readers sync.WaitGroup
	for source, pipe := range map[tentacle.Source]func() (io.ReadCloser, error){tentacle.StdOut: s.cmd.StdoutPipe, tentacle.StdErr: s.cmd.StderrPipe} {
		r, err := pipe()
		if err != nil {
			return tentacle.ExitFatal
		}
		readers.Go(func() {
			lines := bufio.NewScanner(r)
			for lines.Scan() {
				s.mu.Lock()
				s.logs = append(s.logs, tentacle.Output{Source: source, Occurred: time.Now().UTC(), Text: lines.Text()})
				s.mu.Unlock()
			}
		})
	}
	s.mu.Lock()
	if s.canceled {
		s.mu.Unlock()
		return tentacle.ExitCanceled
	}
	err := s.cmd.Start()
	s.state = tentacle.Running
	s.mu.Unlock()
	if err != nil {
		return tentacle.ExitNoShell
	}
	readers.Wait()
	_ = s.cmd.Wait() // the exit code tells
	return int32(s.cmd.ProcessState.ExitCode())
}

func (s *script) status(ticket tentacle.Ticket, after int64) tentacle.StatusV2 {
	s.mu.Lock()
	defer s.mu.Unlock()
	after = min(max(after, 0), int64(len(s.logs)))
	return tentacle.StatusV2{
		Ticket: ticket, State: s.state, ExitCode: s.exit, NextLogSequence: int64(len(s.logs)),
		Logs: append([]tentacle.Output{}, s.logs[after:]...),
	}
}

func unknown(t tentacle.Ticket, after int64) tentacle.StatusV2 {
	return tentacle.StatusV2{Ticket: t, State: tentacle.Complete, ExitCode: tentacle.ExitUnknownTicket, NextLogSequence: after, Logs: []tentacle.Output{}}
}

// GetStatus is tentacle.ScriptsV2.
func (a *Agent) GetStatus(_ context.Context, req tentacle.StatusRequestV2) (tentacle.StatusV2, error) {
	if s := a.find(req.Ticket); s != nil {
		return s.status(req.Ticket, req.LastLogSequence), nil
	}
	return unknown(req.Ticket, req.LastLogSequence), nil
}

// CancelScript is tentacle.ScriptsV2. It kills the one process that it has started.
func (a *Agent) CancelScript(_ context.Context, cmd tentacle.CancelV2) (tentacle.StatusV2, error) {
	s := a.find(cmd.Ticket)
	if s == nil {
		return unknown(cmd.Ticket, cmd.LastLogSequence), nil
	}
	s.mu.Lock()
	if s.state != tentacle.Complete {
		s.canceled = true
		if s.state == tentacle.Running {
			_ = s.cmd.Process.Kill() // it may have ended by itself
		}
	}
	s.mu.Unlock()
	return s.status(cmd.Ticket, cmd.LastLogSequence), nil
}

// CompleteScript is tentacle.ScriptsV2.
func (a *Agent) CompleteScript(_ context.Context, cmd tentacle.CompleteV2) error {
	s := a.find(cmd.Ticket)
	if s == nil {
		return nil
	}
	<-s.over
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.scripts, strings.ToLower(cmd.Ticket.TaskID))
	return os.RemoveAll(s.dir)
}

func (a *Agent) path(name string) string {
	name = filepath.FromSlash(strings.ReplaceAll(name, `\`, "/"))
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(a.Home, name)
}

// UploadFile is tentacle.Files. It writes the file in its place.
func (a *Agent) UploadFile(_ context.Context, name string, content *wire.DataStream) (tentacle.UploadResult, error) {
	a.Uploads.Add(1)
	path := a.path(name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return tentacle.UploadResult{}, err
	}
	f, err := os.Create(path)
	if err != nil {
		return tentacle.UploadResult{}, err
	}
	sum := sha1.New() //nolint:gosec // as above
	n, err := io.Copy(io.MultiWriter(f, sum), content)
	if err = errors.Join(err, f.Close()); err == nil && a.Instead != "" {
		err = os.WriteFile(path, []byte(a.Instead), 0o600)
	}
	if err != nil {
		return tentacle.UploadResult{}, err
	}
	return tentacle.UploadResult{FullPath: path, Hash: hex.EncodeToString(sum.Sum(nil)), Length: n}, nil
}

// DownloadFile is tentacle.Files.
func (a *Agent) DownloadFile(_ context.Context, name string) (*wire.DataStream, error) {
	f, err := os.Open(a.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return wire.NewStream(info.Size(), f), nil
}
