package test

import (
	"errors"
	"io/fs"
	"net/http"
	"os"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/octopus"
)

// TestReserve fills the disk of a running server: it goes on writing with what was kept in
// reserve, says so, and refuses packages; then it only reads, and with room again all is as
// before, also when it is started on a full disk.
func TestReserve(t *testing.T) {
	t.Parallel()
	p := apptest.NewProcess(t, db.SQLite)
	if err := os.Mkdir(p.Data, 0o700); err != nil {
		t.Fatal(err)
	}
	disktest.Mount(t, p.Data, 0, roomy)
	t.Cleanup(p.Kill)
	p.Env = append(p.Env, "TAKO_BUILTIN_WORKER=false")
	p.Start()
	d := openDatabase(t, p)
	// full leaves no room, nor any in the log that was used before.
	full := func() (room func()) {
		t.Helper()
		if err := d.Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
		return fill(t, p.Data)
	}
	told := func() int64 {
		return apptest.Get[octopus.Page[octopus.Event]](t, p.Client, "/api/events?eventCategories=DiskFull").TotalResults
	}
	health := func() octopus.ServerHealth {
		return apptest.Get[octopus.ServerHealth](t, p.Client, "/api/serverstatus/health")
	}
	kept := func() bool { return reserve.Missing(p.Data) == 0 }
	push := func(version string) int {
		return p.Upload(t, "/api/packages/raw", "Acme.Web."+version+".zip", []byte("content "+version)).Status
	}
	environment := func(name string) int {
		t.Helper()
		r, err := p.Do(t.Context(), http.MethodPost, "/api/Spaces-1/environments", octopus.Environment{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return r.Status
	}

	eventually(t, "there is a reserve", kept)
	if h := health(); !h.IsOperatingNormally || told() != 0 || push("1.0.0") != http.StatusCreated {
		t.Errorf("with room: %+v, %d events", h, told())
	}
	full()
	if got := environment("reserve"); got != http.StatusCreated {
		t.Fatalf("on a full disk the answer is %d\n%s", got, p.Output())
	}
	if _, err := os.Stat(reserve.Path(p.Data)); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the reserve is there: %v", err)
	}
	eventually(t, "it is told", func() bool { return told() == 1 })
	if h := health(); h.IsOperatingNormally || !strings.Contains(h.Description, "full") || !strings.Contains(p.Output(), "its reserve was given up") {
		t.Errorf("the health is %+v, and the log:\n%s", h, p.Output())
	}
	if got := push("1.1.0"); got != http.StatusServiceUnavailable {
		t.Errorf("a package is answered with %d", got)
	}
	out, errOut, code := onServer(t, p, nil, "", "doctor")
	if code != 3 || !strings.Contains(out, "reserve-missing") {
		t.Errorf("doctor: exit code %d\n%s%s", code, out, errOut)
	}
	room := full()
	if got := environment("nothing"); got != http.StatusServiceUnavailable {
		t.Errorf("with nothing in reserve the answer is %d", got)
	}
	if h := health(); h.IsOperatingNormally {
		t.Errorf("the health is %+v", h)
	}

	room()
	eventually(t, "there is a reserve again", func() bool { return kept() && health().IsOperatingNormally })
	if environment("room") != http.StatusCreated || push("1.1.0") != http.StatusCreated || told() != 1 {
		t.Errorf("with room again it does not write; %d events", told())
	}

	// A full disk keeps no server from starting while there is something in reserve.
	p.Kill()
	full()
	p.Start()
	if got := environment("start"); got != http.StatusCreated {
		t.Errorf("of a server that was started on a full disk the answer is %d", got)
	}
	eventually(t, "it is told of as well", func() bool { return told() == 2 })
	names := apptest.Get[[]octopus.Environment](t, p.Client, "/api/Spaces-1/environments/all")
	if len(names) != 3 || names[0].Name != "reserve" || names[1].Name != "room" || names[2].Name != "start" {
		t.Errorf("the environments are %+v", names)
	}
}
