package instance

import (
	"net"
	"net/url"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/halibut"
)

// proxyPort is that of a proxy whose URL names none.
const proxyPort = "80"

// through dials by way of the HTTP proxy at a URL, directly where it is nil.
func through(proxy *url.URL) halibut.DialFunc {
	if proxy == nil {
		return nil
	}
	port := proxy.Port()
	if port == "" {
		port = proxyPort
	}
	p := egress.HTTPProxy{Addr: net.JoinHostPort(proxy.Hostname(), port)}
	if proxy.User != nil {
		p.Username = proxy.User.Username()
		p.Password, _ = proxy.User.Password()
	}
	return halibut.ThroughProxy(p)
}
