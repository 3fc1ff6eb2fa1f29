package agent

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// Serve answers calls that come over ln until ctx ends; then it stops accepting,
// gives calls in progress a few seconds and returns nil. Over a unix socket only
// root and the caller's own user are served. It closes ln.
func Serve(ctx context.Context, ln net.Listener, svc API) error {
	return serveHandler(ctx, ln, Handler(svc))
}

func serveHandler(ctx context.Context, ln net.Listener, handler http.Handler) error {
	srv := &http.Server{
		Handler:           handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(slog.DiscardHandler, slog.LevelError), // peers that hang up
		BaseContext:       func(net.Listener) context.Context { return context.WithoutCancel(ctx) },
	}
	stopped := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), shutdownFor)
		defer cancel()
		err := srv.Shutdown(limit)
		if err != nil {
			err = srv.Close()
		}
		stopped <- err
	})
	err := srv.Serve(&peerListener{ln})
	if !stop() {
		return <-stopped
	}
	return fmt.Errorf("serve agent: %w", err)
}

// peerListener drops connections of other users.
type peerListener struct{ net.Listener }

func (l *peerListener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if trustedPeer(c) {
			return c, nil
		}
		_ = c.Close()
	}
}

// Handler answers the calls of a Client, whoever carries them.
func Handler(svc API) http.Handler {
	mux := http.NewServeMux()
	handle := func(pattern string, f func(w http.ResponseWriter, r *http.Request) error) {
		mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
			if err := f(w, r); err != nil {
				code, body := refusal(err)
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(code)
				_ = json.NewEncoder(w).Encode(body) // the peer may be gone
			}
		})
	}
	handle("GET "+pathHello, func(w http.ResponseWriter, r *http.Request) error {
		h, err := svc.Hello(r.Context())
		return answerJSON(w, h, err)
	})
	handle("POST "+pathStart, func(w http.ResponseWriter, r *http.Request) error {
		req, err := readBody[StartRequest](w, r)
		if err != nil {
			return err
		}
		st, err := svc.StartScript(r.Context(), req)
		return answerStatus(w, st, err)
	})
	for path, call := range map[string]func(context.Context, StatusRequest) (Status, error){
		pathStatus: svc.GetStatus,
		pathCancel: svc.CancelScript,
	} {
		handle("POST "+path, func(w http.ResponseWriter, r *http.Request) error {
			req, err := readBody[StatusRequest](w, r)
			if err != nil {
				return err
			}
			st, err := call(r.Context(), req)
			return answerStatus(w, st, err)
		})
	}
	handle("POST "+pathComplete, func(w http.ResponseWriter, r *http.Request) error {
		req, err := readBody[StatusRequest](w, r)
		if err != nil {
			return err
		}
		return answerJSON(w, struct{}{}, svc.CompleteScript(r.Context(), req.Ticket))
	})
	handle("PUT "+pathFiles, func(w http.ResponseWriter, r *http.Request) error {
		up, err := svc.UploadFile(r.Context(), r.URL.Query().Get("path"), r.Body)
		return answerJSON(w, up, err)
	})
	handle("GET "+pathFiles, func(w http.ResponseWriter, r *http.Request) error {
		f, err := svc.DownloadFile(r.Context(), r.URL.Query().Get("path"))
		if err != nil {
			return err
		}
		defer f.Close()
		w.Header().Set("Content-Type", "application/octet-stream")
		if _, err := io.Copy(w, f); err != nil {
			panic(http.ErrAbortHandler) //nolint:forbidigo // the only way to tell the peer that the body is not whole
		}
		return nil
	})
	handle("HEAD "+pathPackages+"{sha256}", func(w http.ResponseWriter, r *http.Request) error {
		ok, err := svc.HasPackage(r.Context(), r.PathValue("sha256"))
		if err == nil && !ok {
			w.WriteHeader(http.StatusNoContent)
		}
		return err
	})
	handle("PUT "+pathPackages+"{sha256}", func(w http.ResponseWriter, r *http.Request) error {
		size, err := sizeOf(r)
		if err != nil {
			return err
		}
		return answerJSON(w, struct{}{}, svc.PutPackage(r.Context(), r.PathValue("sha256"), size, r.Body))
	})
	if upgrades, ok := svc.(Upgrades); ok {
		for path, call := range map[string]func(context.Context, UpgradeRequest) error{
			pathUpgrade: upgrades.UpgradeProgram,
			pathConfirm: func(ctx context.Context, req UpgradeRequest) error { return upgrades.ConfirmProgram(ctx, req.SHA256) },
		} {
			handle("POST "+path, func(w http.ResponseWriter, r *http.Request) error {
				req, err := readBody[UpgradeRequest](w, r)
				if err != nil {
					return err
				}
				return answerJSON(w, struct{}{}, call(r.Context(), req))
			})
		}
	}
	if deltas, ok := svc.(Deltas); ok {
		handle("PUT "+pathPackages+"{sha256}"+pathDelta, func(w http.ResponseWriter, r *http.Request) error {
			size, err := sizeOf(r)
			if err != nil {
				return err
			}
			return answerJSON(w, struct{}{}, deltas.ApplyDelta(r.Context(), r.URL.Query().Get("base"), r.PathValue("sha256"), size, r.Body, r.ContentLength))
		})
	}
	return mux
}

// sizeOf is the size of the package that a request announces.
func sizeOf(r *http.Request) (int64, error) {
	text := r.URL.Query().Get("size")
	size, err := strconv.ParseInt(text, 10, 64)
	if err != nil {
		return 0, fault.InvalidField("size", "The size %q must be a number of bytes.", text)
	}
	return size, nil
}

func readBody[T any](w http.ResponseWriter, r *http.Request) (T, error) {
	var v T
	err := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBody)).Decode(&v)
	var big *http.MaxBytesError
	if errors.As(err, &big) {
		return v, fault.New(fault.TooLarge, "The request is larger than %d bytes.", maxBody)
	}
	if err != nil {
		return v, &fault.Error{Kind: fault.Invalid, Message: "The request's body cannot be read as JSON.", Cause: err}
	}
	return v, nil
}

func answerJSON(w http.ResponseWriter, v any, err error) error {
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/json")
	return json.NewEncoder(w).Encode(v)
}

func answerStatus(w http.ResponseWriter, st Status, err error) error {
	if err != nil {
		return err
	}
	b, err := encodeStatus(st)
	if err != nil {
		return err
	}
	w.Header().Set("Content-Type", "application/x-tako-status")
	w.Header().Set("Content-Length", strconv.Itoa(len(b)))
	_, _ = w.Write(b) // the peer may be gone; it asks again
	return nil
}
