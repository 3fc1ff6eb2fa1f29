package agent

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// The service over HTTP on a unix socket. Requests are JSON; a status is a line of
// JSON followed by the log's frames as they are on disk, which costs neither side
// an encoding; files and packages are plain bodies.
const (
	pathHello    = "/v1/hello"
	pathStart    = "/v1/scripts/start"
	pathStatus   = "/v1/scripts/status"
	pathCancel   = "/v1/scripts/cancel"
	pathComplete = "/v1/scripts/complete"
	pathFiles    = "/v1/files"     // ?path=
	pathPackages = "/v1/packages/" // <sha256>?size=
	pathUpgrade  = "/v1/program/upgrade"
	pathConfirm  = "/v1/program/confirm" // with the SHA256 of an UpgradeRequest
	pathDelta    = "/delta"              // after a package's, ?base=<sha256>&size=
)

// Limits of the wire's own.
const (
	maxBody   = 2 * MaxRequest // of a JSON request: file contents travel as base64
	maxStatus = MaxAnswer + maxFrame + 1<<20
	maxError  = 1 << 20
)

// wireStatus is the first line of a status.
type wireStatus struct {
	Ticket    Ticket
	State     State
	ExitCode  int
	Next      int64
	Waiting   string   `json:",omitempty"`
	Survivors []string `json:",omitempty"`
}

// wireError is the body of every answer that is no success.
type wireError struct {
	Kind    fault.Kind
	Field   string `json:",omitempty"`
	Message string
}

func encodeStatus(st Status) ([]byte, error) {
	b, err := json.Marshal(wireStatus{st.Ticket, st.State, st.ExitCode, st.Next, st.Waiting, st.Survivors})
	if err != nil {
		return nil, err
	}
	size := len(b) + 1
	for _, e := range st.Entries {
		size += minFrame + len(e.Text)
	}
	out := make([]byte, 0, size)
	out = append(append(out, b...), '\n')
	for _, e := range st.Entries {
		out = appendFrame(out, e.Seq, e.Source, e.Time, []byte(e.Text))
	}
	return out, nil
}

func decodeStatus(b []byte) (Status, error) {
	line, frames, ok := bytes.Cut(b, []byte{'\n'})
	var w wireStatus
	if !ok {
		return Status{}, errors.New("read status: it is cut off")
	}
	if err := json.Unmarshal(line, &w); err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	entries, err := decodeFrames(frames)
	if err != nil {
		return Status{}, fmt.Errorf("read status: %w", err)
	}
	return Status{w.Ticket, w.State, w.ExitCode, entries, w.Next, w.Waiting, w.Survivors}, nil
}

// refusal turns an error of the service into the answer's status and body. What is
// no fault is the agent's own trouble; its text helps whoever runs the server.
func refusal(err error) (int, wireError) {
	if all := fault.Faults(err); len(all) > 0 {
		w := wireError{Kind: all[0].Kind, Field: all[0].Field, Message: all[0].Message}
		for _, f := range all[1:] {
			w.Message += " " + f.Message
		}
		return httpStatus(w.Kind), w
	}
	if diskFull(err) {
		w := wireError{Kind: fault.Unavailable, Message: "The agent's disk is full: " + err.Error()}
		return httpStatus(w.Kind), w
	}
	return http.StatusInternalServerError, wireError{Kind: fault.Internal, Message: err.Error()}
}

func httpStatus(k fault.Kind) int {
	switch k {
	case fault.Invalid:
		return http.StatusBadRequest
	case fault.Unauthenticated:
		return http.StatusUnauthorized
	case fault.Forbidden:
		return http.StatusForbidden
	case fault.NotFound:
		return http.StatusNotFound
	case fault.Conflict:
		return http.StatusConflict
	case fault.TooLarge:
		return http.StatusRequestEntityTooLarge
	case fault.Unsupported:
		return http.StatusNotImplemented
	case fault.Unavailable:
		return http.StatusServiceUnavailable
	case fault.TooMany:
		return http.StatusTooManyRequests
	case fault.Internal:
	}
	return http.StatusInternalServerError
}

// shutdownFor is how long a stopping server waits for calls in progress.
const shutdownFor = 5 * time.Second
