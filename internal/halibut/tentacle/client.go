package tentacle

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// Client calls an agent's services. Errors are those of halibut.Caller.
type Client struct{ halibut.Caller }

// lingerFor is how long an answer that nobody waits for any longer may keep its
// connection from being closed.
const lingerFor = 30 * time.Second

func ask[R any](ctx context.Context, c Client, service, method string, params ...any) (R, error) {
	var r R
	err := c.Call(ctx, halibut.Call{Service: service, Method: method, Params: params, Linger: lingerFor}, &r)
	return r, err
}

// Capabilities asks what the agent can do. One that is too old to know the question
// can do what such agents can.
func (c Client) Capabilities(ctx context.Context) ([]string, error) {
	r, err := ask[Capabilities](ctx, c, CapabilitiesService, "GetCapabilities")
	if unknownService(err, CapabilitiesService) {
		return []string{ScriptServiceV1, FileTransferService}, nil
	}
	return r.SupportedCapabilities, err
}

// unknownService reports whether an agent's error says that it has no such service.
// Only newer agents say so by the error's type.
func unknownService(err error, service string) bool {
	var e *wire.ServerError
	if !errors.As(err, &e) {
		return false
	}
	switch e.Type {
	case wire.ErrorServiceNotFound, wire.ErrorMethodNotFound, wire.ErrorNoMatch:
		return true
	}
	text := e.Message + "\n" + e.Details
	return slices.ContainsFunc([]string{"UnknownServiceNameException", "CreateService(", "NotRegistered", service}, func(s string) bool {
		return strings.Contains(text, s)
	})
}

// StartScript starts a script; it may be sent again, with the same ticket, until
// CompleteScript was.
func (c Client) StartScript(ctx context.Context, cmd StartScriptV2) (StatusV2, error) {
	return ask[StatusV2](ctx, c, ScriptServiceV2, "StartScript", cmd)
}

// GetStatus asks for a script's state and its output after a number. Call it only
// when StartScript was answered: agents other than ours lose a script that they are
// asked about too early.
func (c Client) GetStatus(ctx context.Context, req StatusRequestV2) (StatusV2, error) {
	return ask[StatusV2](ctx, c, ScriptServiceV2, "GetStatus", req)
}

// CancelScript ends a script; GetStatus says when it has ended. It, too, has to
// come after the answer to StartScript.
func (c Client) CancelScript(ctx context.Context, cmd CancelV2) (StatusV2, error) {
	return ask[StatusV2](ctx, c, ScriptServiceV2, "CancelScript", cmd)
}

// CompleteScript forgets a script and its workspace.
func (c Client) CompleteScript(ctx context.Context, cmd CompleteV2) error {
	return c.Call(ctx, halibut.Call{Service: ScriptServiceV2, Method: "CompleteScript", Params: []any{cmd}, Linger: lingerFor}, nil)
}

// StartScriptV1 starts a script. It is started each time: never send it again.
func (c Client) StartScriptV1(ctx context.Context, cmd StartScriptV1) (Ticket, error) {
	return ask[Ticket](ctx, c, ScriptServiceV1, "StartScript", cmd)
}

// GetStatusV1 asks for a script's state and its output after a number.
func (c Client) GetStatusV1(ctx context.Context, req StatusRequestV1) (StatusV1, error) {
	return ask[StatusV1](ctx, c, ScriptServiceV1, "GetStatus", req)
}

// CancelScriptV1 ends a script.
func (c Client) CancelScriptV1(ctx context.Context, cmd CancelV1) (StatusV1, error) {
	return ask[StatusV1](ctx, c, ScriptServiceV1, "CancelScript", cmd)
}

// CompleteScriptV1 forgets a script and returns the rest of its output.
func (c Client) CompleteScriptV1(ctx context.Context, cmd CompleteV1) (StatusV1, error) {
	return ask[StatusV1](ctx, c, ScriptServiceV1, "CompleteScript", cmd)
}

// UploadFile writes size bytes of r to a file of the agent.
func (c Client) UploadFile(ctx context.Context, path string, size int64, r io.Reader) (UploadResult, error) {
	return ask[UploadResult](ctx, c, FileTransferService, "UploadFile", path, wire.NewStream(size, r))
}

// DownloadFile opens a file of the agent; nil where there is none. The caller closes
// it, and ctx counts until then.
func (c Client) DownloadFile(ctx context.Context, path string) (io.ReadCloser, error) {
	return c.Fetch(ctx, halibut.Call{Service: FileTransferService, Method: "DownloadFile", Params: []any{path}})
}
