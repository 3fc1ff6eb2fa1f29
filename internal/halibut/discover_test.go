package halibut_test

import (
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
)

// TestDiscoverBehindProxy: that a proxy is down is not said of what is behind it.
func TestDiscoverBehindProxy(t *testing.T) {
	t.Parallel()
	gate := halibut.ThroughProxy(egress.HTTPProxy{Name: "Gate", Addr: "127.0.0.1:1"})
	_, err := halibut.Discover(t.Context(), "agent.invalid:10933", gate)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "the proxy Gate (127.0.0.1:1) cannot be reached") || strings.Contains(err.Error(), "Nobody answers") {
		t.Error(err)
	}
}
