package test

import (
	"context"
	"encoding/base64"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/crypto/ssh"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/proctest"
	"github.com/takodeploy/tako/internal/targets/network/tentacletest"
	"github.com/takodeploy/tako/internal/targets/ssh/sshtest"
	"github.com/takodeploy/tako/octopus"
)

// sshHost has a server sign in to a host by a key with a passphrase, and returns the
// endpoint.
func sshHost(t *testing.T, c *apptest.Client) (*sshtest.Server, octopus.Endpoint) {
	t.Helper()
	secret := func(s string) *octopus.Sensitive { return &octopus.Sensitive{HasValue: true, NewValue: &s} }
	s := sshtest.Start(t, sshtest.Options{Passphrase: "open sesame", Home: apptest.ShortDir(t)})
	account := apptest.Post(t, c, space+"/accounts", octopus.Account{
		Name: fmt.Sprint("Deployer at ", s.Port), AccountType: octopus.AccountSSHKeyPair, Username: s.User,
		PrivateKeyFile: secret(base64.StdEncoding.EncodeToString([]byte(s.PrivateKey))), PrivateKeyPassphrase: secret("open sesame"),
	})
	return s, octopus.Endpoint{CommunicationStyle: octopus.StyleSSH, Host: s.Host, Port: s.Port, AccountID: account.ID, Fingerprint: ssh.FingerprintLegacyMD5(s.Keys[1])}
}

// otherMake is an agent of another make that listens, and trusts a server.
func otherMake(t *testing.T, trusts string) (*tentacletest.Agent, octopus.Endpoint) {
	t.Helper()
	a := tentacletest.New(apptest.ShortDir(t))
	id, err := halibut.NewIdentity("Another Agent", time.Now())
	if err != nil {
		t.Fatal(err)
	}
	node := halibut.New(halibut.Config{Identity: id, Services: a.Services(), TrustCaller: func(p halibut.Thumbprint) bool { return string(p) == trusts }})
	ln, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := node.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	t.Cleanup(func() {
		stop()
		wg.Wait()
		proctest.End(t, a.Home)
	})
	return a, octopus.Endpoint{CommunicationStyle: octopus.StyleListening, URI: "https://" + ln.Addr().String() + "/", Thumbprint: string(id.Thumbprint)}
}

// TestMachinesWithoutOurAgent deploys a package and a script to a host that is reached
// by SSH and to an agent of another make. While the script runs on both, the server is
// killed and the SSH sessions are cut: each goes on where it was, and ran once.
func TestMachinesWithoutOurAgent(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, apptest.Dialects()[0])
	p.Start()
	m := newModel(t, p.Client)
	host, endpoint := sshHost(t, p.Client)
	m.target(t, "by ssh", endpoint)
	other, endpoint := otherMake(t, serverThumbprint(t, p.Client))
	m.target(t, "another", endpoint)
	if r := p.Upload(t, space+"/packages/raw", "Acme.Web.1.2.0.zip", archive(t, map[string]string{
		"conf.txt": "#{Octopus.Machine.Name}", "PostDeploy.sh": `echo "installed on $(cat conf.txt)"`,
	})); r.Status != http.StatusCreated {
		t.Fatalf("push: %d %s", r.Status, r.Body)
	}
	install := onTargets("Install", "web", "")
	install.Actions[0].ActionType = octopus.ActionPackage
	install.Actions[0].Packages = octopus.List[octopus.PackageReference]{{PackageID: "Acme.Web", FeedID: "feeds-builtin", AcquisitionLocation: "Server"}}
	install.Actions[0].Properties = octopus.Properties{
		octopus.PropRunOnServer: octopus.Plain("False"), octopus.PropEnabledFeatures: octopus.Plain("Octopus.Features.SubstituteInFiles"),
		"Octopus.Action.SubstituteInFiles.TargetFiles": octopus.Plain("conf.txt"),
	}
	dir := apptest.ShortDir(t)
	ran, gate := filepath.Join(dir, "ran"), filepath.Join(dir, "gate")
	held := onTargets("Held", "web", fmt.Sprintf(`
echo "$(get_octopusvariable "Octopus.Machine.Name") $TentacleHome" >> %[1]q
for i in $(seq 1 20); do echo "before $i"; done
echo kept > kept.txt; new_octopusartifact kept.txt
until [ -e %[2]q ]; do sleep 0.05; done
for i in $(seq 1 20); do echo "after $i"; done
`, ran, gate))
	held.Actions[0].Properties["Octopus.Action.ExecutionTimeout.Minutes"] = octopus.Plain("30")
	m.process(t, install, held)
	_, version := m.release(t, nil)
	task := m.deploy(t, version, m.Dev)
	raw := func() string {
		return string(p.Must(t, http.MethodGet, "/api/tasks/"+task+"/raw", nil, nil).Body)
	}
	until(t, "both scripts run", func() bool {
		if got := apptest.Get[octopus.Task](t, p.Client, "/api/tasks/"+task); got.IsCompleted {
			t.Fatalf("%s: %s\n%s", got.State, got.ErrorMessage, raw())
		}
		return len(lines(t, ran)) == 2
	})
	p.Kill()
	host.Cut()
	p.Start()
	if err := os.WriteFile(gate, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done := wait(t, p.Client, task, 4*time.Minute)
	log := raw()
	if done.State != octopus.TaskSuccess {
		t.Fatalf("%s: %s\n%s", done.State, done.ErrorMessage, log)
	}
	got := map[string]int{}
	for _, line := range lines(t, ran) {
		got[line]++
	}
	homes, err := filepath.Glob(filepath.Join(host.Home, ".tako/*/Work"))
	if err != nil || len(homes) != 1 {
		t.Fatalf("agents on the host: %v, %v", homes, err)
	}
	if len(got) != 2 || got["by ssh "+filepath.Dir(homes[0])] != 1 || got["another "+other.Home] != 1 {
		t.Errorf("they ran: %v", got)
	}
	for i := 1; i <= 20; i++ {
		for _, when := range []string{"before", "after"} {
			if n := strings.Count(log, fmt.Sprintf("%s %d\n", when, i)); n != 2 {
				t.Errorf("the log has %d times %s %d, want 2", n, when, i)
			}
		}
	}
	for _, name := range []string{"by ssh", "another"} {
		if n := strings.Count(log, "installed on "+name); n != 1 {
			t.Errorf("%d times installed on %s", n, name)
		}
	}
	artifacts := apptest.Get[octopus.Page[octopus.Artifact]](t, p.Client, space+"/artifacts?regarding="+task)
	if len(artifacts.Items) != 2 {
		t.Errorf("artifacts are %+v", artifacts.Items)
	}
	if t.Failed() {
		t.Logf("the log:\n%s", log)
	}
}
