//go:build !linux

package agent

import (
	"context"
	"io"
	"log/slog"
	"net"
	"os"

	"github.com/takodeploy/tako/internal/egress"
)

// Service runs scripts on Linux only, so far. Elsewhere there is none: Open says so.
type Service struct{ API }

// Open returns ErrUnsupported.
func Open(context.Context, Config) (*Service, error) { return nil, ErrUnsupported }

// Close does nothing.
func (*Service) Close() error { return nil }

// Stop does nothing.
func (*Service) Stop() {}

// Failed never happens.
func (*Service) Failed() <-chan struct{} { return nil }

// Switching never happens.
func (*Service) Switching() <-chan struct{} { return nil }

// RunBuiltin returns ErrUnsupported.
func RunBuiltin(context.Context, Config) error { return ErrUnsupported }

// Spawn returns ErrUnsupported.
func Spawn(context.Context, string, string, ...string) (*Client, error) { return nil, ErrUnsupported }

// Listen returns ErrUnsupported.
func Listen(context.Context, string) (net.Listener, error) { return nil, ErrUnsupported }

// Internal handles nothing: there are no runners.
func Internal([]string) (handled bool, code int) { return false, 0 }

// RunnerMain does nothing and fails.
func RunnerMain([]string) int { return 2 }

// StubMain does nothing and fails.
func StubMain([]string) int { return 2 }

// LogHandler is a slog handler on standard error.
func LogHandler(string) (slog.Handler, error) { return slog.NewTextHandler(os.Stderr, nil), nil }

func dialSocket(ctx context.Context, socket string) (net.Conn, error) {
	return egress.Dialer(net.Dialer{})(ctx, "unix", socket)
}

// trustedPeer trusts nobody: the peer's user cannot be told.
func trustedPeer(net.Conn) bool { return false }

var _ io.Closer = (*Service)(nil)
