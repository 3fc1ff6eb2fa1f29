package resources

import (
	"context"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// proxyHTTP is the one type of proxies.
const proxyHTTP = "HTTP"

// Proxies are HTTP proxies through which machines are reached.
func Proxies() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Proxy]{
		Name: "proxies", ItemType: "Proxy", Prefix: "Proxies",
		Permissions: resource.Permissions{View: "ProxyView", Create: "ProxyCreate", Edit: "ProxyEdit", Delete: "ProxyDelete"},
		Check: func(_ context.Context, _ resource.Reader, old, v *octopus.Proxy) error {
			if v.Host == "" || strings.ContainsAny(v.Host, " /@") {
				return fault.InvalidField("Host", "Host is '%.100s'; give the name or the address of the proxy, without http:// and port.", v.Host)
			}
			if v.ProxyType == "" {
				v.ProxyType = proxyHTTP
			}
			if err := oneOf("ProxyType", &v.ProxyType, proxyHTTP); err != nil {
				return err
			}
			if v.Port < 1 || v.Port > 65535 {
				return fault.InvalidField("Port", "Port is %d; use a number from 1 to 65535.", v.Port)
			}
			return checkProxyPassword(old, v)
		},
	})
}

// checkProxyPassword refuses to send a password that nobody has entered again to another
// host: it would tell it to whoever may edit the proxy.
func checkProxyPassword(old, v *octopus.Proxy) error {
	if old == nil || old.Host == v.Host && old.Port == v.Port {
		return nil
	}
	if !old.Password.Masked().HasValue || !v.Password.HasValue || v.Password.NewValue != nil {
		return nil
	}
	return fault.InvalidField("Password", "Host or Port has changed, and the password is not sent to another address unseen; enter Password again, or take it out.")
}
