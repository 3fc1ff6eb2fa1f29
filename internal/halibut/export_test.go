package halibut

import (
	"context"
	"crypto"
	"crypto/tls"
	"net"
	"time"
)

// SelfSigned makes an identity of a key that a test has already.
func SelfSigned(name string, now time.Time, key crypto.Signer) (*Identity, error) {
	return selfSigned(name, now, key)
}

// TLS is the identity's certificate, for peers that a test plays itself.
func (id *Identity) TLS() tls.Certificate { return id.cert }

// Again0 is the pause before a polling agent dials again.
func (t Timing) Again0(lost time.Duration, refused bool, random float64) time.Duration {
	return t.orDefaults().again(lost, refused, random)
}

// Queues is how many agents a node keeps in mind.
func (n *Node) Queues() int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return len(n.queues)
}

// Waiting is how many calls wait for an agent.
func (n *Node) Waiting(sub Subscription, peer Thumbprint) int {
	n.mu.Lock()
	q := n.queues[agentKey{sub, peer}]
	n.mu.Unlock()
	if q == nil {
		return 0
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.waiting)
}

// Vanished is vanished.
const Vanished = vanished

// DialDirect is how a node dials without a proxy.
func DialDirect(ctx context.Context, network, addr string) (net.Conn, error) {
	return dialDirect(ctx, network, addr)
}
