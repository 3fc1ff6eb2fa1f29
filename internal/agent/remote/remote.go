// Package remote is an agent as servers reach it over the network: the same service
// that the built-in worker has, behind the contracts of the protocol.
//
// Servers of any make find the script service V2 and the file transfer. Those of
// our own find a contract of our own beside them, which carries an agent's whole
// API (agent.API) with what the others have no words for: preparation of the
// workspace, packages, limits of time, and tickets that are remembered for good.
package remote

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"runtime"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// TakoService is the name of our own contract. It has one method, CallMethod, from
// Request to Answer.
const (
	TakoService = "ITakoAgentServiceV1"
	CallMethod  = "Call"
)

// Request is a call of agent.Client.
type Request struct {
	Method string // HTTP's
	Path   string // with its query
	Body   *wire.DataStream
}

// TypeNames is wire.Typed.
func (Request) TypeNames() []string { return []string{"Tako.Agent.Request, Tako"} }

// Answer is what agent.Handler answers. None is large: files travel by the file
// transfer.
type Answer struct {
	Status int32 // HTTP's
	Body   []byte
}

// TypeNames is wire.Typed.
func (Answer) TypeNames() []string { return []string{"Tako.Agent.Answer, Tako"} }

// Services are those of an agent, for a halibut.Node.
func Services(svc agent.API) []halibut.Service {
	// V1 is left out: it has no tickets of the server's, and old servers alone need it.
	all := []halibut.Service{tentacle.ServeFiles(files{svc}), tentacle.ServeScriptsV2(scripts{svc}), serveTako(svc)}
	return append(all, tentacle.ServeCapabilities(all...))
}

// pathFiles is left to the file transfer, whose answers have any size.
const pathFiles = "/v1/files"

func serveTako(svc agent.API) halibut.Service {
	handler := agent.Handler(svc)
	return halibut.Service{Name: TakoService, Methods: []halibut.Method{
		halibut.Method1(CallMethod, func(ctx context.Context, r Request) (Answer, error) {
			var body io.Reader = http.NoBody
			size := int64(0)
			if r.Body != nil {
				body, size = r.Body, r.Body.Length
			}
			req, err := http.NewRequestWithContext(ctx, r.Method, "http://agent"+r.Path, body)
			if err != nil || strings.HasPrefix(req.URL.Path, pathFiles) {
				return Answer{}, fault.New(fault.Invalid, "The request %.20q %.100q is none of an agent.", r.Method, r.Path)
			}
			req.ContentLength = size
			w := &recorder{status: http.StatusOK, header: http.Header{}}
			handler.ServeHTTP(w, req)
			return Answer{Status: int32(w.status), Body: w.body.Bytes()}, nil // a status has three digits
		}),
	}}
}

// recorder keeps an answer.
type recorder struct {
	status int
	header http.Header
	body   bytes.Buffer
}

func (w *recorder) Header() http.Header         { return w.header }
func (w *recorder) WriteHeader(status int)      { w.status = status }
func (w *recorder) Write(b []byte) (int, error) { return w.body.Write(b) }

// scripts is the script service V2 by an agent.
type scripts struct{ svc agent.Scripts }

// errorType begins the type of errors that say what kind of refusal they are. Peers
// of other makes take them as errors without a type.
const errorType = "Tako.Fault."

// KindOf tells the kind of refusal from an error that an agent of ours answered.
func KindOf(e *wire.ServerError) (fault.Kind, bool) {
	for k := fault.Internal; k <= fault.TooMany; k++ {
		if e.Type == errorType+k.String() {
			return k, true
		}
	}
	return fault.Internal, false
}

// refused is an error as the peer sees it: our own sentences without their causes.
func refused(err error) error {
	if m := fault.Messages(err); len(m) > 0 {
		return &wire.ServerError{Message: strings.Join(m, " "), Details: err.Error(), Type: errorType + fault.KindOf(err).String()}
	}
	return err
}

func (s scripts) StartScript(ctx context.Context, cmd tentacle.StartScriptV2) (tentacle.StatusV2, error) {
	req := agent.StartRequest{
		Ticket: agent.Ticket(cmd.ScriptTicket.TaskID), Body: cmd.ScriptBody, Arguments: cmd.Arguments,
		Isolation: agent.Isolation(cmd.Isolation), MutexName: cmd.MutexName, MutexTimeout: cmd.MutexTimeout,
		Wait: min(max(cmd.Wait, 0), agent.MaxWait),
	}
	if bash, ok := cmd.Scripts[tentacle.Bash]; ok && runtime.GOOS != "windows" {
		req.Body = bash
	}
	room := int64(agent.MaxRequest)
	for _, f := range cmd.Files {
		if f.EncryptionPassword != "" {
			return tentacle.StatusV2{}, fmt.Errorf("the file %q cannot be encrypted by this agent; encrypt it before it is sent", f.Name)
		}
		var content []byte
		if f.Contents != nil {
			if room -= f.Contents.Length; room < 0 {
				return tentacle.StatusV2{}, fmt.Errorf("the files of the script have more than %d bytes; send large ones by UploadFile", agent.MaxRequest)
			}
			var err error
			if content, err = io.ReadAll(f.Contents); err != nil {
				return tentacle.StatusV2{}, err
			}
		}
		req.Files = append(req.Files, agent.File{Name: strings.ReplaceAll(f.Name, `\`, "/"), Content: content})
	}
	return answer(s.svc.StartScript(ctx, req))
}

func (s scripts) GetStatus(ctx context.Context, req tentacle.StatusRequestV2) (tentacle.StatusV2, error) {
	return answer(s.svc.GetStatus(ctx, agent.StatusRequest{Ticket: agent.Ticket(req.Ticket.TaskID), After: req.LastLogSequence}))
}

func (s scripts) CancelScript(ctx context.Context, cmd tentacle.CancelV2) (tentacle.StatusV2, error) {
	return answer(s.svc.CancelScript(ctx, agent.StatusRequest{Ticket: agent.Ticket(cmd.Ticket.TaskID), After: cmd.LastLogSequence}))
}

func (s scripts) CompleteScript(ctx context.Context, cmd tentacle.CompleteV2) error {
	if err := s.svc.CompleteScript(ctx, agent.Ticket(cmd.Ticket.TaskID)); err != nil {
		return refused(err)
	}
	return nil
}

func answer(st agent.Status, err error) (tentacle.StatusV2, error) {
	if err != nil {
		return tentacle.StatusV2{}, refused(err)
	}
	out := tentacle.StatusV2{
		Ticket: tentacle.Ticket{TaskID: string(st.Ticket)}, NextLogSequence: st.Next,
		State: tentacle.State(st.State), ExitCode: int32(st.ExitCode), // of 32 bits everywhere
		Logs: make([]tentacle.Output, 0, len(st.Entries)),
	}
	for _, e := range st.Entries {
		out.Logs = append(out.Logs, tentacle.Output{Source: tentacle.Source(e.Source), Occurred: e.Time, Text: e.Text})
	}
	return out, nil
}

// files is the file transfer by an agent.
type files struct{ svc agent.Files }

func (f files) UploadFile(ctx context.Context, path string, content *wire.DataStream) (tentacle.UploadResult, error) {
	if content == nil {
		return tentacle.UploadResult{}, errors.New("an upload has no content")
	}
	up, err := f.svc.UploadFile(ctx, path, content)
	if err != nil {
		return tentacle.UploadResult{}, refused(err)
	}
	return tentacle.UploadResult{FullPath: up.FullPath, Hash: up.SHA1, Length: up.Length}, nil
}

func (f files) DownloadFile(ctx context.Context, path string) (*wire.DataStream, error) {
	r, err := f.svc.DownloadFile(ctx, path)
	if fault.Is(err, fault.NotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, refused(err)
	}
	file, ok := r.(interface{ Stat() (fs.FileInfo, error) })
	if !ok {
		_ = r.Close() // it was only read
		return nil, fmt.Errorf("the size of the file %q is not known", path)
	}
	info, err := file.Stat()
	if err != nil {
		_ = r.Close() // it was only read
		return nil, err
	}
	// Of a file that grows meanwhile, what was there is sent.
	return wire.NewStream(info.Size(), r), nil
}
