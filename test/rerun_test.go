package test

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// TestRerunOnTargets: a deployment that failed on one of its targets is gone on from there,
// with the outputs that the others, and the steps before, have left, secrets included.
func TestRerunOnTargets(t *testing.T) {
	t.Parallel()
	apptest.Run(t, func(t *testing.T, s *apptest.Server) {
		c := s.Client
		m := newModel(t, c)
		for _, name := range []string{"east", "west"} {
			target := octopus.Machine{EnvironmentIDs: octopus.List[string]{m.Dev.ID}, Roles: octopus.List[string]{"web"}}
			target.Name, target.Endpoint = name, octopus.Endpoint{CommunicationStyle: octopus.StyleNone}
			apptest.Post(t, c, space+"/machines", target)
		}
		dir := t.TempDir()
		onTargets := script("Install", fmt.Sprintf(`name=$(get_octopusvariable Octopus.Machine.Name)
echo "$name" >> '%s/ran'
if [ $name = west ] && [ ! -e '%s/repaired' ]; then fail_step "the west is broken"; fi
set_octopusvariable Port "80 of $name"`, dir, dir))
		delete(onTargets.Actions[0].Properties, octopus.PropRunOnServer) // a worker runs it all the same
		onTargets.Properties = octopus.Properties{octopus.PropTargetRoles: octopus.Plain("web")}
		m.process(t,
			script("Prepare", fmt.Sprintf(`echo prepare >> '%s/ran'
set_octopusvariable Token "`+secretValue+`" -sensitive`, dir)),
			onTargets,
			script("Tell", `echo "the token is $(get_octopusvariable "Octopus.Action[Prepare].Output.Token")"
test "$(get_octopusvariable "Octopus.Action[Prepare].Output.Token")" = `+secretValue[:6]+`"`+secretValue[6:]+`" && echo "and it is right"
echo "ports: $(get_octopusvariable "Octopus.Action[Install].Output[east].Port"), $(get_octopusvariable "Octopus.Action[Install].Output[west].Port")"`))
		_, version := m.release(t, nil)
		first := m.deploy(t, version, m.Dev)
		if done := wait(t, c, first, 2*time.Minute); done.State != octopus.TaskFailed {
			t.Fatalf("it ended as %s", done.State)
		}
		if err := os.WriteFile(filepath.Join(dir, "repaired"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		var again octopus.Task
		c.Must(t, http.MethodPost, space+"/tasks/"+first+"/rerun?fromFailedStep=true", nil, &again)
		done := wait(t, c, again.ID, 2*time.Minute)
		log := string(c.Must(t, http.MethodGet, space+"/tasks/"+again.ID+"/raw", nil, nil).Body)
		if done.State != octopus.TaskSuccess {
			t.Fatalf("then it ended as %s:\n%s", done.State, log)
		}
		for _, want := range []string{"the token is ********", "and it is right", "ports: 80 of east, 80 of west"} {
			if !strings.Contains(log, want) {
				t.Errorf("the log lacks %q:\n%s", want, log)
			}
		}
		ran, err := os.ReadFile(filepath.Join(dir, "ran"))
		if err != nil {
			t.Fatal(err)
		}
		for word, n := range map[string]int{"prepare": 1, "east": 1, "west": 2} {
			if got := strings.Count(string(ran), word); got != n {
				t.Errorf("%s ran %d times, want %d:\n%s", word, got, n, ran)
			}
		}
	})
}
