// Package network makes an agent that is reached over the network into what the
// engine calls: an agent.API like the built-in worker.
//
// Our own agents answer with their whole API. Those of other makes have scripts and
// files alone; what they lack, a program of ours does that is brought to them as a file
// and runs as the script.
package network

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/agent/remote"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/halibut/wire"
	"github.com/takodeploy/tako/internal/targets/program"
)

// Agent is an agent whose contract is known.
type Agent struct {
	agent.API
	Contract deploy.Contract
	Home     string // "" where the contract does not tell
}

// Pace says how often an agent is asked for news of a script.
type Pace struct {
	First  time.Duration // the pause before the second question
	Most   time.Duration // the longest pause
	Growth float64       // from one pause to the next
}

// PaceListening and PacePolling suit agents by how they are reached: a question
// takes one of the few connections that a polling agent keeps.
func PaceListening() Pace { return Pace{300 * time.Millisecond, 5 * time.Second, 1.15} }

// PacePolling is for polling agents.
func PacePolling() Pace { return Pace{300 * time.Millisecond, 5 * time.Second, 1.4} }

const (
	// lingerFor is how long an answer that nobody waits for any longer may keep its
	// connection from being closed.
	lingerFor = 30 * time.Second
	// startWait is how long the answer to a start may wait for the script's end:
	// long enough for small ones, short enough not to keep others waiting.
	startWait = 500 * time.Millisecond
)

// Open asks an agent what it can do, and one of another make where its home is. Name is
// for messages; programs are those that agents of other makes get.
func Open(ctx context.Context, caller halibut.Caller, name string, pace Pace, programs *program.Finder) (Agent, error) {
	return reopen(ctx, caller, name, pace, programs, nil)
}

// reopen is Open for an agent that was opened before, as old. One of another make keeps
// what was found about it for a while.
func reopen(ctx context.Context, caller halibut.Caller, name string, pace Pace, programs *program.Finder, old agent.API) (Agent, error) {
	client := tentacle.Client{Caller: caller}
	can, err := client.Capabilities(ctx)
	if err != nil {
		return Agent{}, translated(err)
	}
	switch {
	case slices.Contains(can, remote.TakoService):
		own := &takoAgent{Client: agent.Via(carrier{caller}, name), remoteFiles: remoteFiles{client}, pace: pace}
		hello, err := own.Hello(ctx)
		if err != nil {
			return Agent{}, err
		}
		return Agent{own, deploy.ContractTako, hello.Home}, nil
	case slices.Contains(can, tentacle.ScriptServiceV2):
		if before, ok := old.(*otherAgent); ok && before.broken == nil && time.Since(before.looked) < lookAgain {
			return Agent{before, deploy.ContractV2, before.home}, nil
		}
		other := &otherAgent{remoteFiles: remoteFiles{client}, client: client, pace: pace, name: name, programs: programs, turn: make(chan struct{}, 1)}
		if err := other.look(ctx); err != nil {
			return Agent{}, err
		}
		return Agent{other, deploy.ContractV2, other.home}, nil
	}
	return Agent{}, fault.New(fault.Unsupported, "The agent %s is too old: it has no script service with tickets. Upgrade it.", name)
}

// translated is an error of a call as the engine knows it.
func translated(err error) error {
	var answer *wire.ServerError
	var wrong *halibut.WrongPeerError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong):
		// Nothing was sent, and trying again is of no use.
		return &fault.Error{
			Kind:    fault.Unsupported,
			Message: fmt.Sprintf("The agent shows a certificate with the thumbprint %s, and the machine's is %s; correct the machine's Thumbprint if the agent was installed anew.", wrong.Got, wrong.Want),
			Cause:   fmt.Errorf("%w: %w", agent.ErrNotSent, err),
		}
	case errors.As(err, &answer):
		if kind, ok := remote.KindOf(answer); ok {
			return fault.New(kind, "%s", answer.Message)
		}
		return &fault.Error{Kind: fault.Internal, Message: "The agent answered: " + answer.Message, Cause: errors.New(answer.Details)}
	case errors.Is(err, halibut.ErrUnanswered):
		return fmt.Errorf("%w: %w", agent.ErrUnanswered, err)
	default:
		return fmt.Errorf("%w: %w", agent.ErrNotSent, err)
	}
}

// carrier carries the calls of an agent.Client.
type carrier struct{ caller halibut.Caller }

// RoundTrip is http.RoundTripper.
func (c carrier) RoundTrip(r *http.Request) (*http.Response, error) {
	req := remote.Request{Method: r.Method, Path: r.URL.RequestURI()}
	if r.Body != nil {
		defer func() { _ = r.Body.Close() }()
		if r.ContentLength < 0 {
			return nil, errors.New("the size of what is sent to an agent must be known")
		}
		req.Body = wire.NewStream(r.ContentLength, r.Body)
	}
	call := halibut.Call{Service: remote.TakoService, Method: remote.CallMethod, Params: []any{req}, Linger: lingerFor}
	var a remote.Answer
	if err := c.caller.Call(r.Context(), call, &a); err != nil {
		if errors.Is(err, halibut.ErrUnanswered) {
			return nil, fmt.Errorf("%w: %w", agent.ErrUnanswered, err)
		}
		return nil, err // what the agent's own handler refuses comes as an answer
	}
	return &http.Response{
		StatusCode: int(a.Status), Status: fmt.Sprint(a.Status, " ", http.StatusText(int(a.Status))),
		Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}, Request: r,
		ContentLength: int64(len(a.Body)), Body: io.NopCloser(bytes.NewReader(a.Body)),
	}, nil
}

// follow asks until there is news or wait has passed: between two questions an agent
// is free for others, and a caller who leaves disturbs nothing.
func (p Pace) follow(ctx context.Context, wait time.Duration, ask func() (agent.Status, error)) (agent.Status, error) {
	until := time.Now().Add(min(wait, agent.MaxWait))
	for pause := p.First; ; pause = min(time.Duration(float64(pause)*p.Growth), p.Most) {
		st, err := ask()
		left := time.Until(until)
		if err != nil || st.State == agent.Complete || len(st.Entries) > 0 || left <= 0 {
			return st, err
		}
		timer := time.NewTimer(min(pause, left))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return agent.Status{}, fmt.Errorf("%w: %w", agent.ErrNotSent, ctx.Err())
		}
	}
}

// takoAgent is one of our own.
type takoAgent struct {
	*agent.Client
	remoteFiles
	pace Pace
}

var _ agent.API = (*takoAgent)(nil)

// StartScript is agent.Scripts.
func (a *takoAgent) StartScript(ctx context.Context, req agent.StartRequest) (agent.Status, error) {
	req.Wait = min(req.Wait, startWait)
	return a.Client.StartScript(ctx, req)
}

// GetStatus is agent.Scripts.
func (a *takoAgent) GetStatus(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	wait := req.Wait
	req.Wait = 0
	return a.pace.follow(ctx, wait, func() (agent.Status, error) { return a.Client.GetStatus(ctx, req) })
}

// CancelScript is agent.Scripts.
func (a *takoAgent) CancelScript(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	wait := req.Wait
	req.Wait = 0
	return a.pace.follow(ctx, wait, func() (agent.Status, error) { return a.Client.CancelScript(ctx, req) })
}

// UploadFile is agent.Files.
func (a *takoAgent) UploadFile(ctx context.Context, path string, r io.Reader) (agent.Uploaded, error) {
	return a.remoteFiles.UploadFile(ctx, path, r)
}

// DownloadFile is agent.Files.
func (a *takoAgent) DownloadFile(ctx context.Context, path string) (io.ReadCloser, error) {
	return a.remoteFiles.DownloadFile(ctx, path)
}

// remoteFiles is the file transfer.
type remoteFiles struct{ client tentacle.Client }

// UploadFile is agent.Files. The size must be known: r is a file, a section of one, or has a Len.
func (f remoteFiles) UploadFile(ctx context.Context, path string, r io.Reader) (agent.Uploaded, error) {
	size, err := sizeOf(r)
	if err != nil {
		return agent.Uploaded{}, err
	}
	up, err := f.client.UploadFile(ctx, path, size, r)
	if err != nil {
		return agent.Uploaded{}, translated(err)
	}
	return agent.Uploaded{FullPath: up.FullPath, SHA1: up.Hash, Length: up.Length}, nil
}

func sizeOf(r io.Reader) (int64, error) {
	switch r := r.(type) {
	case interface{ Len() int }:
		return int64(r.Len()), nil
	case *io.SectionReader:
		return r.Size(), nil
	case interface{ Stat() (fs.FileInfo, error) }:
		info, err := r.Stat()
		if err != nil {
			return 0, fmt.Errorf("find the size of a file: %w", err)
		}
		return info.Size(), nil
	}
	return 0, fault.New(fault.Unsupported, "The size of what is uploaded to an agent must be known; upload a file.")
}

// DownloadFile is agent.Files.
func (f remoteFiles) DownloadFile(ctx context.Context, path string) (io.ReadCloser, error) {
	r, err := f.client.DownloadFile(ctx, path)
	if err != nil {
		return nil, translated(err)
	}
	if r == nil {
		return nil, fault.New(fault.NotFound, "The agent has no file %q.", path)
	}
	return r, nil
}

// status is an answer as the engine knows it: the entries are numbered from what was
// asked to what is next.
func status(st tentacle.StatusV2, err error) (agent.Status, error) {
	if err != nil {
		return agent.Status{}, translated(err)
	}
	out := agent.Status{
		Ticket: agent.Ticket(st.Ticket.TaskID), State: agent.State(st.State), ExitCode: int(st.ExitCode), Next: st.NextLogSequence,
		Entries: make([]agent.Entry, 0, len(st.Logs)),
	}
	first := st.NextLogSequence - int64(len(st.Logs)) + 1
	for i, o := range st.Logs {
		out.Entries = append(out.Entries, agent.Entry{
			Seq: first + int64(i), Source: agent.Source(o.Source), Time: o.Occurred,
			Text: strings.TrimRight(o.Text, "\r\n"),
		})
	}
	return out, nil
}
