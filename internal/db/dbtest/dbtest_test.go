package dbtest_test

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
)

func TestEachTestHasItsOwn(t *testing.T) {
	t.Parallel()
	for range 2 {
		dbtest.Run(t, func(t *testing.T, d *db.DB) {
			n, err := d.Changes(t.Context(), "Projects")
			if err != nil || n != 0 {
				t.Fatalf("a new database has %d changes, %v", n, err)
			}
			err = d.Write(t.Context(), func(tx *db.Tx) error {
				tx.Changed("Projects")
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if n, err := d.Changes(t.Context(), "Projects"); err != nil || n != 1 {
				t.Fatalf("after one change there are %d, %v", n, err)
			}
		})
	}
}

// victimEnv makes TestVictim the process that is killed.
const victimEnv = "DBTEST_VICTIM"

// TestNothingIsLeft kills a test binary that uses a cluster. The server must end
// and its folder go all the same.
func TestNothingIsLeft(t *testing.T) {
	t.Parallel()
	dbtest.URL(t, db.Postgres) // skips, or fails, where there is none
	victim := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestVictim$")
	victim.Env = append(os.Environ(), victimEnv+"=1")
	out, err := victim.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := victim.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := victim.Start(); err != nil {
		t.Fatal(err)
	}
	line := bufio.NewScanner(out)
	if !line.Scan() {
		t.Fatalf("the victim says nothing: %v", line.Err())
	}
	dir := line.Text()
	if _, err := os.Stat(dir + "/data"); err != nil {
		t.Fatalf("the victim's cluster is not in %q: %v", dir, err)
	}
	if err := victim.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = victim.Wait() // killed, as it says
	_ = in.Close()
	for start := time.Now(); ; <-time.After(10 * time.Millisecond) {
		_, err := os.Stat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			return
		}
		if time.Since(start) > time.Minute {
			t.Fatalf("the cluster in %s outlives its test", dir)
		}
	}
}

// TestVictim is the process of TestNothingIsLeft, and nothing by itself.
func TestVictim(t *testing.T) {
	if os.Getenv(victimEnv) == "" {
		return
	}
	u, err := url.Parse(dbtest.URL(t, db.Postgres))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Println(u.Query().Get("host")) //nolint:forbidigo // it is how this process speaks
	_, _ = os.Stdin.Read(make([]byte, 1))
}
