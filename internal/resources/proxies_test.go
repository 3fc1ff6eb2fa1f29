package resources

import (
	"testing"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// TestProxyPassword: a stored password does not go along to another host.
func TestProxyPassword(t *testing.T) {
	t.Parallel()
	kept := octopus.Sensitive{HasValue: true}
	old := &octopus.Proxy{Host: "gate", Port: 3128, Username: "tako", Password: kept}
	for name, c := range map[string]struct {
		old  *octopus.Proxy
		now  octopus.Proxy
		want bool // refused
	}{
		"a new one":     {nil, octopus.Proxy{Host: "gate", Port: 3128, Password: kept}, false},
		"another name":  {old, octopus.Proxy{Name: "x", Host: "gate", Port: 3128, Password: kept}, false},
		"another host":  {old, octopus.Proxy{Host: "thief", Port: 3128, Password: kept}, true},
		"another port":  {old, octopus.Proxy{Host: "gate", Port: 1, Password: kept}, true},
		"entered again": {old, octopus.Proxy{Host: "thief", Port: 3128, Password: octopus.NewSensitive("pr0xy")}, false},
		"taken out":     {old, octopus.Proxy{Host: "thief", Port: 3128}, false},
		"never had one": {&octopus.Proxy{Host: "gate", Port: 3128}, octopus.Proxy{Host: "thief", Port: 3128, Password: kept}, false},
	} {
		if err := checkProxyPassword(c.old, &c.now); fault.Is(err, fault.Invalid) != c.want || err != nil != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
