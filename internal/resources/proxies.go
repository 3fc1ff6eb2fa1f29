package resources

import (
	"context"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Proxies are HTTP proxies through which machines are reached.
func Proxies() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.Proxy]{
		Name: "proxies", ItemType: "Proxy", Prefix: "Proxies",
		Permissions: resource.Permissions{View: "ProxyView", Create: "ProxyCreate", Edit: "ProxyEdit", Delete: "ProxyDelete"},
		Check: func(_ context.Context, _ resource.Reader, _, v *octopus.Proxy) error {
			if v.Port < 1 || v.Port > 65535 {
				return fault.InvalidField("Port", "Port is %d; use a number from 1 to 65535.", v.Port)
			}
			return nil
		},
	})
}
