package tentacle_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/bson"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// captured is a request as another implementation of the protocol sent it.
func captured(t testing.TB, name string) []byte {
	t.Helper()
	text, err := os.ReadFile("testdata/" + name + ".hex")
	if err != nil {
		t.Fatal(err)
	}
	b, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// memory is a net.Conn over what is in memory.
type memory struct {
	net.Conn
	in  io.Reader
	out bytes.Buffer
}

func (m *memory) Read(p []byte) (int, error)     { return m.in.Read(p) }
func (m *memory) Write(p []byte) (int, error)    { return m.out.Write(p) }
func (*memory) SetReadDeadline(time.Time) error  { return nil }
func (*memory) SetWriteDeadline(time.Time) error { return nil }

func over(b []byte) *wire.Conn {
	return wire.NewConn(&memory{in: bytes.NewReader(b)}, wire.Limits{}, nil)
}

func block(doc []byte) []byte {
	head := binary.LittleEndian.AppendUint16([]byte{1}, uint16(len(doc)))
	return append(binary.LittleEndian.AppendUint16(head, ^uint16(len(doc))), doc...)
}

func guid(t testing.TB, s string) wire.GUID {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, "-", ""))
	if err != nil {
		t.Fatal(err)
	}
	return wire.GUID(b)
}

var sameStream = cmp.Comparer(func(a, b *wire.DataStream) bool {
	return (a == nil) == (b == nil) && (a == nil || a.ID == b.ID && a.Length == b.Length)
})

// TestCaptured reads requests of another implementation, and writes the same
// requests to the same bytes.
func TestCaptured(t *testing.T) {
	t.Parallel()
	endpoint := wire.Endpoint{BaseURI: "https://127.0.0.1:21943/", RemoteThumbprint: "F00401643A9CF1D31A505F7C6BF5B2D6AB511D61"}
	upload := &wire.DataStream{ID: guid(t, "5bc7705a-5183-4661-a923-11815e5cd3c3"), Length: 30_000}
	file := &wire.DataStream{ID: guid(t, "ca23103f-e69f-4c7d-9bc6-b8ea38585173"), Length: 2}
	for name, tc := range map[string]struct {
		id, activity, service, method string
		params                        []any
		into                          []any
	}{
		"get-capabilities": {
			"ICapabilitiesServiceV2::GetCapabilities[1] / ff6cbb72-5593-4059-a671-5343abf02c82", "ff6cbb72-5593-4059-a671-5343abf02c82",
			tentacle.CapabilitiesService, "GetCapabilities",
			[]any{},
			nil,
		},
		"upload-file": {
			"IFileTransferService::UploadFile[1] / 1c9f0d7d-2a6b-40e0-b255-d8da7e0a600a", "1c9f0d7d-2a6b-40e0-b255-d8da7e0a600a",
			tentacle.FileTransferService, "UploadFile",
			[]any{"abc.txt", upload},
			[]any{new(string), new(*wire.DataStream)},
		},
		"start-script": {
			"IScriptServiceV2::StartScript[1] / 50714339-da75-4f71-8a16-83e78f4cca1b", "50714339-da75-4f71-8a16-83e78f4cca1b",
			tentacle.ScriptServiceV2, "StartScript",
			[]any{tentacle.StartScriptV2{
				ScriptTicket: tentacle.Ticket{TaskID: "tick1"}, ScriptBody: "echo hi", TaskID: "ServerTasks-1", Wait: 5 * time.Second,
				Isolation: tentacle.FullIsolation, MutexTimeout: 30 * time.Minute, MutexName: "RunningScript",
				Scripts: map[tentacle.ScriptType]string{tentacle.Bash: "echo bash"}, Files: []tentacle.File{{Name: "v.json", Contents: file}},
				Arguments: []string{"a", "b"},
			}},
			[]any{new(tentacle.StartScriptV2)},
		},
		"complete-script": {
			"IScriptServiceV2::CompleteScript[2] / 86e11da7-fd0e-4d26-9d2a-6008aee2f564", "86e11da7-fd0e-4d26-9d2a-6008aee2f564",
			tentacle.ScriptServiceV2, "CompleteScript",
			[]any{tentacle.CompleteV2{Ticket: tentacle.Ticket{TaskID: "boom"}}},
			[]any{new(tentacle.CompleteV2)},
		},
	} {
		want := captured(t, name)
		msg, err := wire.Encode(wire.Request{ID: tc.id, ActivityID: guid(t, tc.activity), Endpoint: endpoint, Service: tc.service, Method: tc.method, Params: tc.params})
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(msg.Body, want) {
			t.Errorf("%s is written as\n%s\nwant\n%s", name, hex.Dump(msg.Body), hex.Dump(want))
		}
		r, err := over(block(want)).ReceiveRequest(time.Minute)
		if err != nil {
			t.Fatal(name, err)
		}
		if r.ID != tc.id || r.ActivityID.String() != tc.activity || r.Service != tc.service || r.Method != tc.method {
			t.Errorf("%s is read as %+v", name, r)
		}
		if err := r.Params(tc.into...); err != nil {
			t.Fatal(name, err)
		}
		for i, p := range tc.into {
			var got any
			switch p := p.(type) {
			case *string:
				got = *p
			case **wire.DataStream:
				got = *p
			case *tentacle.StartScriptV2:
				got = *p
			case *tentacle.CompleteV2:
				got = *p
			}
			if diff := cmp.Diff(tc.params[i], got, sameStream); diff != "" {
				t.Errorf("%s, parameter %d: %s", name, i+1, diff)
			}
		}
	}
}

// TestNames pins what the types are called on the wire: some have an older name,
// which every agent reads.
func TestNames(t *testing.T) {
	t.Parallel()
	const (
		v2  = "Octopus.Tentacle.Contracts.ScriptServiceV2."
		now = ", Octopus.Tentacle.Contracts"
		old = "Octopus.Shared.Contracts."
	)
	for want, v := range map[string]wire.Typed{
		"Octopus.Tentacle.Contracts.Capabilities.CapabilitiesResponseV2" + now: tentacle.Capabilities{},
		v2 + "StartScriptCommandV2" + now:                                      tentacle.StartScriptV2{},
		v2 + "ScriptStatusRequestV2" + now:                                     tentacle.StatusRequestV2{},
		v2 + "CancelScriptCommandV2" + now:                                     tentacle.CancelV2{},
		v2 + "CompleteScriptCommandV2" + now:                                   tentacle.CompleteV2{},
		v2 + "ScriptStatusResponseV2" + now:                                    tentacle.StatusV2{},
		old + "StartScriptCommand, Octopus.Shared":                             tentacle.StartScriptV1{},
		old + "ScriptStatusRequest, Octopus.Shared":                            tentacle.StatusRequestV1{},
		old + "CancelScriptCommand, Octopus.Shared":                            tentacle.CancelV1{},
		old + "CompleteScriptCommand, Octopus.Shared":                          tentacle.CompleteV1{},
		old + "ScriptStatusResponse, Octopus.Shared":                           tentacle.StatusV1{},
		old + "ScriptTicket, Octopus.Shared":                                   tentacle.Ticket{},
		old + "UploadResult, Octopus.Shared":                                   tentacle.UploadResult{},
		"Halibut.DataStream, Halibut":                                          wire.NewStream(0, strings.NewReader("")),
	} {
		msg, err := wire.Encode(wire.Response{ID: "x", Result: v})
		if err != nil {
			t.Fatal(err)
		}
		m, _ := msg.Body.Find("Message")
		doc, err := m.Doc()
		if err != nil {
			t.Fatal(err)
		}
		result, _ := doc.Find("result")
		inner, err := result.Doc()
		if err != nil {
			t.Fatal(err)
		}
		for first := range inner.Elements() {
			if got, err := first.Text(); string(first.Name) != "$type" || got != want || err != nil {
				t.Errorf("%T begins with %s %q, want %q", v, first.Name, got, want)
			}
			break
		}
		if names := v.TypeNames(); strings.HasPrefix(want, old) && (len(names) != 2 || !strings.HasSuffix(names[1], now)) {
			t.Errorf("%T is read as %v only", v, names)
		}
	}
}

// TestStatusBytes pins an answer, the part of the protocol that was not captured.
func TestStatusBytes(t *testing.T) {
	t.Parallel()
	at := time.Date(2026, 1, 2, 3, 4, 5, 6e6, time.UTC)
	msg, err := wire.Encode(wire.Response{ID: "r", Result: tentacle.StatusV2{
		Ticket: tentacle.Ticket{TaskID: "t"}, NextLogSequence: 1, State: tentacle.Complete, ExitCode: tentacle.ExitCanceled,
		Logs: []tentacle.Output{{Source: tentacle.StdErr, Occurred: at, Text: "oh"}},
	}})
	if err != nil {
		t.Fatal(err)
	}
	var b bson.Builder
	b.Begin(bson.Document, "Message")
	b.String("$type", "Halibut.Transport.Protocol.ResponseMessage, Halibut")
	b.String("id", "r")
	b.Null("error")
	b.Begin(bson.Document, "result")
	b.String("$type", "Octopus.Tentacle.Contracts.ScriptServiceV2.ScriptStatusResponseV2, Octopus.Tentacle.Contracts")
	b.Begin(bson.Document, "Ticket")
	b.String("TaskId", "t")
	b.End()
	b.Begin(bson.Array, "Logs")
	b.Begin(bson.Document, "0")
	b.Int32("Source", 1)
	b.Time("Occurred", at)
	b.String("Text", "oh")
	b.End()
	b.End()
	b.Int64("NextLogSequence", 1)
	b.Int32("State", 2)
	b.Int32("ExitCode", -43)
	want, err := b.Done()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(msg.Body, want) {
		t.Errorf("it is\n%s\nwant\n%s", hex.Dump(msg.Body), hex.Dump(want))
	}
}

// TestErrorsOfOldAgents reads an answer whose members are more, or less, than ours.
func TestErrorsOfOldAgents(t *testing.T) {
	t.Parallel()
	var b bson.Builder
	b.Begin(bson.Document, "Message")
	b.String("$type", "Halibut.Transport.Protocol.ResponseMessage, Halibut")
	b.String("id", "r")
	b.Begin(bson.Document, "error")
	b.String("message", "oh")
	b.String("details", "System.Reflection.TargetInvocationException: ...")
	b.Null("HalibutErrorType")
	b.Begin(bson.Array, "new")
	doc, err := b.Done()
	if err != nil {
		t.Fatal(err)
	}
	r, err := over(block(doc)).ReceiveResponse(time.Minute)
	if err != nil || r.Error == nil || r.Error.Message != "oh" || r.Error.Type != "" || r.Result(nil) != nil {
		t.Fatalf("%+v, %v", r, err)
	}
}

// scripts is the answering side of the tests: it answers what it was asked.
type scripts struct {
	start  tentacle.StartScriptV2
	files  map[string]string
	status tentacle.StatusV2
	done   tentacle.CompleteV2
}

func (s *scripts) StartScript(_ context.Context, cmd tentacle.StartScriptV2) (tentacle.StatusV2, error) {
	s.files = map[string]string{}
	for _, f := range cmd.Files {
		b, err := io.ReadAll(f.Contents)
		if err != nil {
			return tentacle.StatusV2{}, err
		}
		s.files[f.Name] = string(b)
	}
	s.start = cmd
	return s.status, nil
}

func (s *scripts) GetStatus(_ context.Context, req tentacle.StatusRequestV2) (tentacle.StatusV2, error) {
	st := s.status
	st.Ticket, st.NextLogSequence = req.Ticket, req.LastLogSequence
	return st, nil
}

func (s *scripts) CancelScript(_ context.Context, cmd tentacle.CancelV2) (tentacle.StatusV2, error) {
	st := s.status
	st.Ticket, st.NextLogSequence, st.ExitCode = cmd.Ticket, cmd.LastLogSequence, tentacle.ExitCanceled
	return st, nil
}

func (s *scripts) CompleteScript(_ context.Context, cmd tentacle.CompleteV2) error {
	s.done = cmd
	return nil
}

// oldScripts is an agent of the first contract.
type oldScripts struct{}

func (oldScripts) StartScript(_ context.Context, cmd tentacle.StartScriptV1) (tentacle.Ticket, error) {
	return tentacle.Ticket{TaskID: cmd.TaskID + cmd.Scripts[tentacle.Bash]}, nil
}

func (oldScripts) GetStatus(_ context.Context, req tentacle.StatusRequestV1) (tentacle.StatusV1, error) {
	return tentacle.StatusV1{Ticket: req.Ticket, NextLogSequence: req.LastLogSequence}, nil
}

func (oldScripts) CancelScript(_ context.Context, cmd tentacle.CancelV1) (tentacle.StatusV1, error) {
	return tentacle.StatusV1{Ticket: cmd.Ticket, State: tentacle.Running}, nil
}

func (oldScripts) CompleteScript(_ context.Context, cmd tentacle.CompleteV1) (tentacle.StatusV1, error) {
	return tentacle.StatusV1{Ticket: cmd.Ticket, State: tentacle.Complete, ExitCode: 3}, nil
}

// store keeps files in memory.
type store map[string][]byte

func (s store) UploadFile(_ context.Context, path string, content *wire.DataStream) (tentacle.UploadResult, error) {
	b, err := io.ReadAll(content)
	if err != nil {
		return tentacle.UploadResult{}, err
	}
	s[path] = b
	return tentacle.UploadResult{FullPath: "/" + path, Hash: "h", Length: int64(len(b))}, nil
}

func (s store) DownloadFile(_ context.Context, path string) (*wire.DataStream, error) {
	b, ok := s[path]
	if !ok {
		return nil, nil
	}
	return wire.NewStream(int64(len(b)), bytes.NewReader(b)), nil
}

var identity = sync.OnceValues(func() (*halibut.Identity, error) { return halibut.NewIdentity("test", time.Now()) })

func connect(t *testing.T, services ...halibut.Service) tentacle.Client {
	t.Helper()
	id, err := identity()
	if err != nil {
		t.Fatal(err)
	}
	// Both sides have one certificate: making keys takes long.
	node := halibut.New(halibut.Config{Identity: id, Services: services, TrustCaller: func(halibut.Thumbprint) bool { return true }})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error)
	go func() { ended <- node.Serve(ctx, ln) }()
	l := halibut.New(halibut.Config{Identity: id}).Listening(ln.Addr().String(), node.Thumbprint(), nil, halibut.Effort{})
	t.Cleanup(func() {
		l.Close()
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
	return tentacle.Client{Caller: l}
}

// TestServices goes through all methods of all services.
func TestServices(t *testing.T) {
	t.Parallel()
	s := &scripts{status: tentacle.StatusV2{
		Ticket: tentacle.Ticket{TaskID: "t1"}, State: tentacle.Running, Logs: []tentacle.Output{{tentacle.Debug, time.UnixMilli(5).UTC(), "x"}}, NextLogSequence: 7,
	}}
	files := store{}
	all := []halibut.Service{tentacle.ServeScriptsV1(oldScripts{}), tentacle.ServeFiles(files), tentacle.ServeScriptsV2(s)}
	c := connect(t, append(all, tentacle.ServeCapabilities(all...))...)
	ctx := t.Context()
	can, err := c.Capabilities(ctx)
	if diff := cmp.Diff([]string{"IScriptService", "IFileTransferService", "IScriptServiceV2"}, can); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	cmd := tentacle.StartScriptV2{
		ScriptTicket: tentacle.Ticket{TaskID: "t1"}, ScriptBody: "b", TaskID: "s", Scripts: map[tentacle.ScriptType]string{tentacle.PowerShell: "p"},
		Arguments: []string{}, Files: []tentacle.File{
			{Name: "a", Contents: wire.NewStream(1, strings.NewReader("A"))},
			{Name: "b", Contents: wire.NewStream(0, strings.NewReader("")), EncryptionPassword: "secret"},
			{Name: "c", Contents: wire.NewStream(2, strings.NewReader("CC"))},
		},
	}
	st, err := c.StartScript(ctx, cmd)
	if diff := cmp.Diff(s.status, st); diff != "" || err != nil {
		t.Fatal(diff, err)
	}
	if diff := cmp.Diff(cmd, s.start, sameStream); diff != "" {
		t.Fatal(diff)
	}
	if diff := cmp.Diff(map[string]string{"a": "A", "b": "", "c": "CC"}, s.files); diff != "" {
		t.Fatal(diff)
	}
	ticket := tentacle.Ticket{TaskID: "t2"}
	if st, err = c.GetStatus(ctx, tentacle.StatusRequestV2{Ticket: ticket, LastLogSequence: 9}); err != nil || st.Ticket != ticket || st.NextLogSequence != 9 {
		t.Fatal(st, err)
	}
	if st, err = c.CancelScript(ctx, tentacle.CancelV2{Ticket: ticket, LastLogSequence: 9}); err != nil || st.Ticket != ticket || st.ExitCode != tentacle.ExitCanceled {
		t.Fatal(st, err)
	}
	if err := c.CompleteScript(ctx, tentacle.CompleteV2{Ticket: ticket}); err != nil || s.done.Ticket != ticket {
		t.Fatal(s.done, err)
	}
	old, err := c.StartScriptV1(ctx, tentacle.StartScriptV1{TaskID: "t", Scripts: map[tentacle.ScriptType]string{tentacle.Bash: "3"}})
	if err != nil || old.TaskID != "t3" {
		t.Fatal(old, err)
	}
	if st, err := c.GetStatusV1(ctx, tentacle.StatusRequestV1{Ticket: old, LastLogSequence: 4}); err != nil || st.Ticket != old || st.NextLogSequence != 4 {
		t.Fatal(st, err)
	}
	if st, err := c.CancelScriptV1(ctx, tentacle.CancelV1{Ticket: old}); err != nil || st.State != tentacle.Running {
		t.Fatal(st, err)
	}
	if st, err := c.CompleteScriptV1(ctx, tentacle.CompleteV1{Ticket: old}); err != nil || st.ExitCode != 3 {
		t.Fatal(st, err)
	}
	up, err := c.UploadFile(ctx, "f", 5, strings.NewReader("12345"))
	if err != nil || up != (tentacle.UploadResult{FullPath: "/f", Hash: "h", Length: 5}) {
		t.Fatal(up, err)
	}
	r, err := c.DownloadFile(ctx, "f")
	if err != nil {
		t.Fatal(err)
	}
	if b, err := io.ReadAll(r); err != nil || string(b) != "12345" || r.Close() != nil {
		t.Fatal(b, err)
	}
	if r, err := c.DownloadFile(ctx, "none"); r != nil || err != nil {
		t.Fatal(r, err)
	}
}

// TestOldAgents knows agents that cannot be asked what they can do, by each of the
// ways in which they say so.
func TestOldAgents(t *testing.T) {
	t.Parallel()
	old := []string{tentacle.ScriptServiceV1, tentacle.FileTransferService}
	c := connect(t, tentacle.ServeScriptsV1(oldScripts{}))
	if can, err := c.Capabilities(t.Context()); err != nil || !cmp.Equal(can, old) {
		t.Error(can, err)
	}
	for text, known := range map[string]bool{
		"Octopus.Shared.UnknownServiceNameException": true, "AutofacServiceFactory.CreateService(String)": true,
		"ComponentNotRegistered": true, "no ICapabilitiesServiceV2": true, "disk full": false,
	} {
		c := connect(t, halibut.Service{Name: tentacle.CapabilitiesService, Methods: []halibut.Method{
			halibut.Method0("GetCapabilities", func(context.Context) (tentacle.Capabilities, error) {
				return tentacle.Capabilities{}, &wire.ServerError{Message: "failed", Details: text}
			}),
		}})
		can, err := c.Capabilities(t.Context())
		var e *wire.ServerError
		if known && (err != nil || !cmp.Equal(can, old)) || !known && !errors.As(err, &e) {
			t.Errorf("%s: %v, %v", text, can, err)
		}
	}
}

// TestRoundTrip sends commands and answers of any content.
func TestRoundTrip(t *testing.T) {
	t.Parallel()
	texts := func(rt *rapid.T, name string) []string {
		return append([]string{}, rapid.SliceOfN(rapid.String(), 0, 3).Draw(rt, name)...)
	}
	rapid.Check(t, func(rt *rapid.T) {
		d := func(name string) time.Duration {
			return time.Duration(rapid.Int64().Draw(rt, name)).Truncate(100)
		}
		cmd := tentacle.StartScriptV2{
			ScriptTicket: tentacle.Ticket{TaskID: rapid.String().Draw(rt, "ticket")}, ScriptBody: rapid.String().Draw(rt, "body"), TaskID: rapid.String().Draw(rt, "task"),
			Wait: d("wait"), Isolation: tentacle.Isolation(rapid.Int32().Draw(rt, "isolation")), MutexTimeout: d("timeout"), MutexName: rapid.String().Draw(rt, "mutex"),
			Scripts:   map[tentacle.ScriptType]string{tentacle.Bash: rapid.String().Draw(rt, "bash")},
			Arguments: texts(rt, "arguments"), Files: []tentacle.File{},
		}
		for range rapid.IntRange(0, 3).Draw(rt, "files") {
			cmd.Files = append(cmd.Files, tentacle.File{
				Name: rapid.String().Draw(rt, "file"), Contents: wire.NewStream(0, strings.NewReader("")), EncryptionPassword: rapid.String().Draw(rt, "password"),
			})
		}
		status := tentacle.StatusV2{
			Ticket: cmd.ScriptTicket, NextLogSequence: rapid.Int64().Draw(rt, "next"),
			State: tentacle.State(rapid.Int32().Draw(rt, "state")), ExitCode: rapid.Int32().Draw(rt, "code"), Logs: []tentacle.Output{},
		}
		for range rapid.IntRange(0, 3).Draw(rt, "logs") {
			status.Logs = append(status.Logs, tentacle.Output{
				Source: tentacle.Source(rapid.Int32().Draw(rt, "source")), Text: rapid.String().Draw(rt, "text"),
				Occurred: time.UnixMilli(rapid.Int64Range(0, 1e13).Draw(rt, "at")).UTC(),
			})
		}
		m := &memory{}
		c := wire.NewConn(m, wire.Limits{}, nil)
		for _, v := range []wire.Typed{wire.Request{Service: "S", Params: []any{cmd}}, wire.Response{Result: status}} {
			msg, err := wire.Encode(v)
			if err != nil {
				rt.Fatal(err)
			}
			if err := c.Send(msg); err != nil {
				rt.Fatal(err)
			}
		}
		in := over(m.out.Bytes())
		r, err := in.ReceiveRequest(time.Minute)
		if err != nil {
			rt.Fatal(err)
		}
		var gotCmd tentacle.StartScriptV2
		if err := r.Params(&gotCmd); err != nil || in.Finish() != nil {
			rt.Fatal(err)
		}
		resp, err := in.ReceiveResponse(time.Minute)
		if err != nil {
			rt.Fatal(err)
		}
		var gotStatus tentacle.StatusV2
		if err := resp.Result(&gotStatus); err != nil {
			rt.Fatal(err)
		}
		if diff := cmp.Diff(cmd, gotCmd, sameStream) + cmp.Diff(status, gotStatus); diff != "" {
			rt.Fatal(diff)
		}
	})
}
