package instance

import (
	"context"
	"net"
	"os"

	"github.com/takodeploy/tako/internal/egress"
)

// notify tells the service manager, if there is one that wants to hear it.
func notify(state string) {
	socket := os.Getenv("NOTIFY_SOCKET")
	if socket == "" {
		return
	}
	c, err := egress.Dialer(net.Dialer{})(context.Background(), "unixgram", socket)
	if err != nil {
		return // it finds out by its own time limit
	}
	_, _ = c.Write([]byte(state))
	_ = c.Close()
}
