package instance_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

func thumbprint(n int) halibut.Thumbprint { return halibut.Thumbprint(fmt.Sprintf("%040X", n)) }

func dials(n int) instance.Server {
	return instance.Server{Thumbprint: thumbprint(n), Style: octopus.StyleListening}
}

func none(*instance.Settings) error { return nil }

func TestConfigureMakesAnInstance(t *testing.T) {
	t.Parallel()
	s := instance.Store{Dir: t.TempDir()}
	set, err := s.Configure("Web", none)
	if err != nil || set.Port != 10933 || set.NoListen || !filepath.IsAbs(set.Home) {
		t.Fatal(set, err)
	}
	id, err := s.Identity("web") // names have no case
	if err != nil {
		t.Fatal(err)
	}
	again, err := s.Configure("WEB", func(v *instance.Settings) error {
		v.Port = 10944
		return nil
	})
	if err != nil || again.Name != "Web" || again.Home != set.Home {
		t.Fatal(again, err)
	}
	if same, err := s.Identity("Web"); err != nil || same.Thumbprint != id.Thumbprint {
		t.Errorf("the identity was made anew: %v", err)
	}
	if names, err := s.Names(); err != nil || len(names) != 1 {
		t.Error(names, err)
	}
	for _, name := range []string{"settings.json", "identity.pem"} {
		info, err := os.Stat(filepath.Join(s.Dir, "instances", "web", name))
		if err != nil {
			t.Fatal(err)
		}
		if runtime.GOOS != "windows" && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %v", name, info.Mode())
		}
	}
	if err := s.Remove("web"); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{s.Remove("web"), second(s.Load("web")), second(s.Identity("web")), second(s.Update("web", none))} {
		if !fault.Is(err, fault.NotFound) {
			t.Errorf("after its removal: %v", err)
		}
	}
}

func second[T any](_ T, err error) error { return err }

func TestSettingsAreChecked(t *testing.T) {
	t.Parallel()
	s := instance.Store{Dir: t.TempDir()}
	other, err := s.Configure("other", none)
	if err != nil {
		t.Fatal(err)
	}
	for name, change := range map[string]func(*instance.Settings){
		"a relative home":       func(v *instance.Settings) { v.Home = "here" },
		"another's home":        func(v *instance.Settings) { v.Home = other.Home + "/" },
		"relative applications": func(v *instance.Settings) { v.Applications = "apps" },
		"no port":               func(v *instance.Settings) { v.Port = 0 },
		"a port too high":       func(v *instance.Settings) { v.Port = 65536 },
		"a name as address":     func(v *instance.Settings) { v.ListenAddress = "localhost" },
		"too many connections":  func(v *instance.Settings) { v.Connections = 65 },
		"a proxy that is none":  func(v *instance.Settings) { v.Proxy = "socks5://x:1080" },
		"half a thumbprint": func(v *instance.Settings) {
			v.Servers = []instance.Server{{Thumbprint: "AB", Style: octopus.StyleListening}}
		},
		"no style": func(v *instance.Settings) { v.Servers = []instance.Server{{Thumbprint: thumbprint(1)}} },
		"polling without address": func(v *instance.Settings) {
			v.Servers = []instance.Server{{Thumbprint: thumbprint(1), Style: octopus.StylePolling, Subscription: "poll://x/"}}
		},
		"polling without a name": func(v *instance.Settings) {
			v.Servers = []instance.Server{{Thumbprint: thumbprint(1), Style: octopus.StylePolling, Address: "https://x/"}}
		},
	} {
		if _, err := s.Configure("one", func(v *instance.Settings) error { change(v); return nil }); !fault.Is(err, fault.Invalid) {
			t.Errorf("%s: %v", name, err)
		}
		if err := second(s.Load("one")); !fault.Is(err, fault.NotFound) {
			t.Errorf("%s was written all the same: %v", name, err)
		}
	}
	for _, name := range []string{"", "-x", ".", "..", "a/b", `a\b`, "a b", "ä", strings.Repeat("x", 65)} {
		if err := second(s.Configure(name, none)); !fault.Is(err, fault.Invalid) {
			t.Errorf("the name %q: %v", name, err)
		}
	}
	// What a hand has spoilt is told with its place.
	path := filepath.Join(s.Dir, "instances", "other", "settings.json")
	for _, text := range []string{`{"Name":"other","Prot":1}`, `{"Name":"other","Home":"/x","Port":70000}`, `{`} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := second(s.Load("other")); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestCommandsAtTheSameTimeLoseNothing(t *testing.T) {
	t.Parallel()
	s := instance.Store{Dir: t.TempDir()}
	const n = 20
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			_, err := s.Configure("one", func(v *instance.Settings) error {
				v.Trust(dials(i))
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	set, err := s.Load("one")
	if err != nil || len(set.Servers) != n {
		t.Errorf("%d servers of %d, %v", len(set.Servers), n, err)
	}
}

func TestTrust(t *testing.T) {
	t.Parallel()
	polled := func(n int, address string) instance.Server {
		return instance.Server{Thumbprint: thumbprint(n), Style: octopus.StylePolling, Address: address, Subscription: "poll://a/"}
	}
	var set instance.Settings
	with := dials(1)
	with.URL = "https://one"
	for _, v := range []instance.Server{with, dials(2), dials(1), polled(1, "https://a/"), polled(1, "https://b/"), polled(3, "https://a/")} {
		set.Trust(v)
	}
	want := []instance.Server{with, dials(2), polled(3, "https://a/"), polled(1, "https://b/")}
	if diff := cmp.Diff(want, set.Servers); diff != "" {
		t.Error(diff)
	}
	if set.Subscription(thumbprint(1)) != "poll://a/" || set.Subscription(thumbprint(2)) != "" {
		t.Error("a subscription is that of a polled server")
	}
	if !set.Distrust(thumbprint(1)) || set.Distrust(thumbprint(1)) {
		t.Error("distrust tells whether there was something")
	}
	if diff := cmp.Diff([]instance.Server{dials(2), polled(3, "https://a/")}, set.Servers); diff != "" {
		t.Error(diff)
	}
}
