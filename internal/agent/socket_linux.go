package agent

import (
	"context"
	"net"

	"github.com/takodeploy/tako/internal/localsocket"
)

func dialSocket(ctx context.Context, socket string) (net.Conn, error) {
	c, err := localsocket.Dial(ctx, socket)
	if err != nil {
		return nil, err // not a nil connection in an interface
	}
	return c, nil
}

// Listen opens the socket of the agent with that home, in a directory only its user
// may enter. The caller holds the home (Open), so a socket that is there is dead.
func Listen(ctx context.Context, home string) (net.Listener, error) {
	ln, err := localsocket.Listen(ctx, SocketPath(home))
	if err != nil {
		return nil, err
	}
	return ln, nil
}

// trustedPeer reports whether the peer of a unix socket is root or our own user.
// Other kinds of connection are for whoever made the listener to trust.
func trustedPeer(c net.Conn) bool {
	u, ok := c.(*net.UnixConn)
	return !ok || localsocket.Trusted(u)
}
