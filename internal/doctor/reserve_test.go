package doctor_test

import (
	"errors"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/reserve"
)

// TestReserve: what is kept for a full disk is missed where the server cannot make it by
// itself, and does not count as free.
func TestReserve(t *testing.T) {
	t.Parallel()
	data := disktest.New(t, "size=200m")
	d := dbtest.Open(t, db.SQLite)
	want := func(code string) {
		t.Helper()
		r, err := doctor.Run(t.Context(), doctor.Config{DB: d, Data: data, Log: dbtest.Log(t), Only: []string{"machine"}})
		if err != nil {
			t.Fatal(err)
		}
		got := ""
		for _, f := range r.Findings {
			got += f.Code
		}
		if got != code {
			t.Errorf("found %+v, want %q", r.Findings, code)
		}
	}
	allocate := func(path string, size int64) {
		t.Helper()
		f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
		if err == nil {
			err = errors.Join(unix.Fallocate(int(f.Fd()), 0, 0, size), f.Close())
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	want("")
	allocate(data+"/packages", 100<<20)
	want("reserve-missing")
	allocate(reserve.Path(data), reserve.Size)
	want("disk-low") // 36 MiB are free
}
