package register

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/halibut"
)

// A server's port for polling agents is looked for so often, with pauses.
const (
	handshakeTries = 5
	handshakePause = time.Second
	handshakeFor   = 20 * time.Second
)

// Handshake looks whether the port at which a server is polled can be reached, as a
// URL "https://host:port/", and tells whose certificate it shows. proxy may be nil.
func Handshake(ctx context.Context, address string, proxy *url.URL) (halibut.Thumbprint, error) {
	addr, err := halibut.ParseAddress(address, halibut.DefaultServerPort)
	if err != nil {
		return "", err
	}
	transport := &http.Transport{
		DialContext:       egress.Dialer(net.Dialer{Timeout: handshakeFor}),
		TLSClientConfig:   &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}, // its thumbprint is told instead
		DisableKeepAlives: true,
	}
	if proxy != nil {
		transport.Proxy = http.ProxyURL(proxy)
	}
	client := &http.Client{Transport: transport, Timeout: handshakeFor}
	for try := 1; ; try++ {
		thumbprint, err := shake(ctx, client, "https://"+addr+"/handshake")
		if err == nil || ctx.Err() != nil {
			return thumbprint, err
		}
		if try == handshakeTries {
			return "", fmt.Errorf("the server cannot be polled at %s: %w; see that it listens there for agents, that no firewall is between, and what --server-comms-port and --server-comms-address say", addr, err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(handshakePause):
		}
	}
}

func shake(ctx context.Context, client *http.Client, at string) (halibut.Thumbprint, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at, http.NoBody)
	if err != nil {
		return "", err
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // nobody needs it
	if resp.StatusCode != http.StatusOK && resp.StatusCode != http.StatusBadRequest {
		return "", fmt.Errorf("it answers %s", resp.Status)
	}
	return halibut.ThumbprintOf(resp.TLS.PeerCertificates[0].Raw), nil
}
