package halibut

import (
	"context"
	"crypto/tls"
	"errors"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
)

// discoverLimit is how long a peer may take to show its certificate.
const discoverLimit = 20 * time.Second

// errShown ends a handshake once the certificate was seen: nothing more is said.
var errShown = errors.New("the certificate was seen")

// Discover asks who listens at an address ("host:port"), and returns the thumbprint of
// the certificate that it shows. It tells nothing, not even who asks, and reads no more
// than the handshake. Somebody has to compare the thumbprint with the agent's own. dial
// may be nil. What does not answer so is a fault Unavailable.
func Discover(ctx context.Context, addr string, dial DialFunc) (Thumbprint, error) {
	ctx, cancel := context.WithTimeout(ctx, discoverLimit)
	defer cancel()
	if dial == nil {
		dial = dialDirect
	}
	conn, err := dial(ctx, "tcp", addr)
	var refused *egress.RefusedError
	if errors.As(err, &refused) {
		return "", &fault.Error{Kind: fault.Unavailable, Message: "Nobody answers at " + addr + ": " + refused.Error() + ".", Cause: err}
	}
	var down *egress.DownError
	if errors.As(err, &down) {
		return "", &fault.Error{Kind: fault.Unavailable, Message: "Nobody was asked at " + addr + ": " + down.Proxy + " cannot be reached. Is it running, and are its host and port right?", Cause: err}
	}
	if err != nil {
		return "", &fault.Error{Kind: fault.Unavailable, Message: "Nobody answers at " + addr + ". Is the agent running there, and do firewalls let this server connect to it?", Cause: err}
	}
	defer conn.Close() //nolint:errcheck // nothing was said
	var seen Thumbprint
	err = tls.Client(conn, &tls.Config{
		MinVersion:         tls.VersionTLS12,
		InsecureSkipVerify: true, // a person compares the thumbprint
		VerifyConnection: func(s tls.ConnectionState) error {
			seen = ThumbprintOf(s.PeerCertificates[0].Raw)
			return errShown
		},
	}).HandshakeContext(ctx)
	if seen == "" {
		return "", &fault.Error{Kind: fault.Unavailable, Message: "What answers at " + addr + " is no listening agent: it shows no certificate.", Cause: err}
	}
	return seen, nil
}
