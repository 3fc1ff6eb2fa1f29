package test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/disktest"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// peril is a row of the table of what can go wrong around an upgrade: what does, what is to
// come of it, and what comes. Each is tried on the same server, one after the other, and
// leaves it as it was.
type peril struct {
	name, expected string
	always         bool // with each change, not only in the soak
	on             []db.Dialect
	try            func(c *chaos) (seen string)
}

// chaos is a server that is tried, with its data on a disk that can be full.
type chaos struct {
	*upgraded
	db *db.DB
}

// chaosTable has all rows but those that other tests have.
func chaosTable() []peril {
	lite, pg := []db.Dialect{db.SQLite}, []db.Dialect{db.Postgres}
	return []peril{
		{"full disk at the backup", "given up, nothing left, the old one serves", true, lite, func(c *chaos) string { return c.fullDisk(upgrade.Preflight, upgrade.BackedUp) }},
		{"full disk at the rehearsal", "given up, nothing left, the old one serves", true, lite, func(c *chaos) string { return c.fullDisk(upgrade.BackedUp, upgrade.Rehearsed) }},
		{"full disk at the expansion", "given up, the old one serves", true, lite, func(c *chaos) string { return c.fullDisk(upgrade.Rehearsed, upgrade.Expanded) }},
		{"the third of five migrations fails on data that came after the rehearsal", "given up, 1 and 2 stay, the next try goes on with 3", true, lite, (*chaos).thirdFails},
		{"a question and maintenance mode are there before", "the same question after upgrade and rollback, answered; the mode is on", true, lite, (*chaos).pending},
		{"full disk of the journal", "it stands still until there is room, and goes on", false, nil, (*chaos).journalFull},
		{"the third of five migrations fails on data that came after the rehearsal", "given up, 1 and 2 stay, the next try goes on with 3", false, pg, (*chaos).thirdFails},
		{"a question and maintenance mode are there before", "the same question after upgrade and rollback, answered; the mode is on", false, pg, (*chaos).pending},
		{"somebody reads a table for longer than 45 seconds", "given up, the process is named, the next try succeeds", false, pg, (*chaos).longReader},
		{"an index was dropped by hand", "a warning", false, nil, drift(0, "WARN", "It is missing", `DROP INDEX release_by_channel`, `CREATE INDEX release_by_channel ON release (channel_id, created, seq)`)},
		{"an index was added by hand", "a warning", false, nil, drift(0, "WARN", "index stray: It does not belong", `CREATE INDEX stray ON answer (created)`, `DROP INDEX stray`)},
		{"a column was dropped by hand", "refused", false, nil, drift(20, "FAIL", "column ticket.answered: It is missing", `ALTER TABLE ticket DROP COLUMN answered`, `ALTER TABLE ticket ADD COLUMN answered BIGINT NOT NULL DEFAULT 0`)},
		{"a column has another type", "refused", false, pg, drift(20, "FAIL", "column answer.fact: It is", `ALTER TABLE answer ALTER COLUMN fact TYPE VARCHAR(4000)`, `ALTER TABLE answer ALTER COLUMN fact TYPE TEXT COLLATE "C"`)},
		{"a table was added by hand", "ignored", false, nil, drift(0, "OK", "", `CREATE TABLE stray (id BIGINT)`, `DROP TABLE stray`)},
		{"a table was added by hand whose name the new version wants", "given up at the rehearsal", false, nil, (*chaos).nameClash},
		{"a document is no JSON", "refused, the document is named", false, nil, (*chaos).dirty},
		{"the master key is away", "refused", false, nil, func(c *chaos) string { return c.withKey(nil) }},
		{"the master key is another one", "refused", false, nil, func(c *chaos) string { return c.withKey([]byte(secret.NewMasterKey().Reveal() + "\n")) }},
		{"a change of the master key was cut short", "refused", false, nil, (*chaos).halfRotated},
		{"the master key is lost after the rehearsal", "the old one serves", false, nil, (*chaos).keyLost},
		{"the keys are rotated after the rehearsal", "the new one serves", false, nil, (*chaos).rotated},
		{"the program was changed on the way", "refused, nothing left", false, nil, (*chaos).corrupt},
		{"the program is cut short", "refused, nothing left", false, nil, (*chaos).truncated},
		{"the feed is signed by somebody else", "refused, nothing left", false, nil, (*chaos).wronglySigned},
		{"the feed is an older one", "refused, nothing left", false, nil, (*chaos).older},
		{"the feed has expired", "refused, nothing left", false, nil, (*chaos).expired},
	}
}

const chaosRow = "%s | %s | %s | %s"

// TestChaos has an upgrade meet what goes wrong around it.
func TestChaos(t *testing.T) {
	t.Parallel()
	for _, dialect := range soakDialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			program := nextProgram(t)
			u := newUpgraded(t, dialect, func(p *apptest.Process) { ownDisks(t, p) })
			u.site.publish(t, next, program)
			c := &chaos{upgraded: u, db: openDatabase(t, u.Process)}
			t.Logf(chaosRow, "DATABASE", "FAULT", "EXPECTED", "SEEN")
			for _, f := range chaosTable() {
				if !f.always && !soaking() || f.on != nil && !slices.Contains(f.on, dialect) {
					continue
				}
				seen := f.try(c)
				t.Logf(chaosRow, dialect, f.name, f.expected, seen)
				u.serves(u.old)
				if t.Failed() {
					return // what comes after it is of no use
				}
			}
		})
	}
}

// ownDisks makes a server's data and the journal of its upgrades file systems of their own,
// which only root may.
func ownDisks(t *testing.T, p *apptest.Process) {
	t.Helper()
	for _, dir := range []string{p.Data, upgrade.Dir(p.Root)} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		disktest.Mount(t, dir, 0, roomy)
	}
	t.Cleanup(func() { // whoever works on them ends first, or could not be found any more
		p.Kill()
		apptest.StopWorker(t, p.Data)
	})
}

// roomy is a size that is a limit, and takes no memory.
const roomy = "size=2g,mode=0700"

// fill leaves no room on a small disk, until room is called.
func fill(t *testing.T, dir string) (room func()) {
	t.Helper()
	eventually(t, "the disk is full", func() bool {
		var st unix.Statfs_t
		if err := unix.Statfs(dir, &st); err != nil {
			t.Fatal(err)
		}
		// It is refused when more has been written meanwhile.
		return disktest.Resize(dir, fmt.Sprintf("size=%d", int64(st.Blocks-st.Bfree)*st.Bsize)) == nil //nolint:gosec // no disk has more
	})
	return func() {
		if err := disktest.Resize(dir, roomy); err != nil {
			t.Fatal(err)
		}
	}
}

// during begins an upgrade that stands still when a state is reached; meddle is done then,
// and another process goes on with it, beside which after is done. It tells how the command
// ended, and what it said.
func (u *upgraded) during(at upgrade.State, meddle func(), after ...func()) (code int, said string) {
	u.t.Helper()
	once, edge := u.t.TempDir(), "upgrade-done-"+strings.ToLower(string(at))
	// Whoever carried out the one before may be just ending, and would take this one on.
	eventually(u.t, "the one before is over", func() bool { return upgrade.Attended(u.Root) == 0 })
	cmd := exec.CommandContext(u.t.Context(), u.Executable(u.t), u.args("--yes", "--to", next, "--probation", "1s")...)
	cmd.Env = slices.Concat(os.Environ(), u.Env, []string{"TAKO_FAILPOINT=" + edge + ":stall=1h", "TAKO_FAILPOINT_ONCE=" + once})
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		u.t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait() // the exit code tells
		close(ended)
	}()
	eventually(u.t, "it stands still", func() bool {
		select {
		case <-ended:
			u.t.Fatalf("it has ended on the way to %s: exit code %d\n%s", at, cmd.ProcessState.ExitCode(), out.String())
		default:
		}
		_, err := os.Stat(filepath.Join(once, edge))
		return err == nil
	})
	owner := upgrade.Attended(u.Root)
	if owner == 0 {
		u.t.Fatal("nobody carries it out")
	}
	meddle()
	if err := syscall.Kill(owner, syscall.SIGKILL); err != nil {
		u.t.Fatal(err)
	}
	for _, fn := range after {
		fn()
	}
	<-ended
	return cmd.ProcessState.ExitCode(), out.String()
}

// gaveUp asserts that the last upgrade was given up on the way to a state, with an error
// that says why.
func (u *upgraded) gaveUp(code int, at upgrade.State, why ...string) (seen string) {
	u.t.Helper()
	last := u.last()
	if code != 20 || last.State != upgrade.Aborted || last.Failed != at || !slices.ContainsFunc(why, func(w string) bool { return strings.Contains(last.Error, w) }) {
		u.t.Errorf("exit code %d, %s, failed at %s: %s", code, last.State, last.Failed, last.Error)
	}
	return fmt.Sprintf("exit code %d, %s at %s: %s", code, last.State, last.Failed, last.Error)
}

// kept are the backups that are pinned without an end, but for that of the last upgrade.
func (u *upgraded) kept() (ids []string) {
	u.t.Helper()
	for _, b := range u.backups() {
		if b.Pin != nil && b.Pin.Until.IsZero() && b.Pin.Upgrade != u.last().ID {
			ids = append(ids, b.ID)
		}
	}
	return ids
}

// remains are the files of the server, but for those that it has anyway.
func (c *chaos) remains() (all []string) {
	c.t.Helper()
	for _, pattern := range []string{"*", "backups/*", "tmp/*"} {
		found, err := filepath.Glob(filepath.Join(c.Data, pattern))
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, found...)
	}
	all = slices.DeleteFunc(all, func(path string) bool {
		name := filepath.Base(path)
		return strings.HasPrefix(name, "tako.db") || slices.Contains([]string{"backups", ".lock", "tmp", "blobs", reserve.Name}, name)
	})
	slices.Sort(all)
	return all
}

// fullDisk has no room left from one state on, on the way to the next.
func (c *chaos) fullDisk(from, to upgrade.State) string {
	c.t.Helper()
	var remains []string
	before := c.Servers()
	var room func()
	kept := func() bool { return reserve.Missing(c.Data) == 0 }
	eventually(c.t, "there is a reserve", kept)
	code, _ := c.during(from, func() {
		remains = c.remains()
		for _, there := range []bool{true, false} {
			eventually(c.t, "the log has no room that was used before", func() bool {
				if err := c.db.Checkpoint(c.t.Context()); err != nil {
					c.t.Fatal(err)
				}
				info, err := os.Stat(filepath.Join(c.Data, "tako.db-wal"))
				return err == nil && info.Size() == 0
			})
			again := fill(c.t, c.Data)
			if there { // the server writes with what was kept in reserve, and then that is full too
				c.environment("while the disk is full, before " + string(to))
				room = again
			}
		}
	})
	c.serves(c.old) // as long as there is no room
	room()
	seen := c.gaveUp(code, to, "full", "no space left", "free", "room")
	if after := c.Servers(); !slices.Equal(before, after) {
		c.t.Errorf("the servers were %v and are %v", before, after)
	}
	if left := c.remains(); !slices.Equal(left, remains) {
		c.t.Errorf("left is %v, and before was %v", left, remains)
	}
	c.bad(false)
	c.environment("after " + string(to)) // the server writes again
	eventually(c.t, "there is a reserve again", kept)
	if to != upgrade.BackedUp {
		c.backup(true) // on a full disk nobody can write when that ends
	}
	return seen
}

// pad has the journal end where a page of its disk does, which would have room for more
// entries else, however full that is.
func (u *upgraded) pad() {
	u.t.Helper()
	j, err := journal.Open(upgrade.Dir(u.Root))
	if err != nil {
		u.t.Fatal(err)
	}
	id, page := u.last().ID, int64(os.Getpagesize())
	add := func(n int64) (size int64) {
		u.t.Helper()
		_, err := j.Append(time.Unix(1000, 0), func([]journal.Entry) (journal.Entry, error) {
			// A kind that this version does not know is passed over.
			return journal.Entry{Txn: id, Kind: "padding", Data: fmt.Appendf(nil, "%q", strings.Repeat("x", int(n)))}, nil
		})
		if err != nil {
			u.t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(upgrade.Dir(u.Root), "journal.jsonl"))
		if err != nil {
			u.t.Fatal(err)
		}
		return info.Size()
	}
	one := add(0)
	two := add(0)
	const spare = 4 // for a number that has become longer
	if left := page - add((2*page-two%page-(two-one)-spare)%page)%page; left > 2*spare {
		u.t.Fatalf("%d bytes are left in the last page of the journal", left)
	}
}

// journalFull has no room left for the journal from one state on.
func (c *chaos) journalFull() string {
	c.t.Helper()
	var room func()
	tries := func() int { return strings.Count(c.Output(), "an upgrade was cut short; going on with it") }
	var stood upgrade.State
	before := tries()
	code, said := c.during(upgrade.Staged, func() {
		c.pad()
		room = fill(c.t, upgrade.Dir(c.Root))
	}, func() {
		eventually(c.t, "nobody can go on", func() bool { return tries() >= before+2 || c.last().State == upgrade.Committed })
		stood = c.last().State
		c.serves(c.old)
		room()
	})
	eventually(c.t, "it has gone on", func() bool { return c.last().State == upgrade.Committed || c.last().State.Ended() })
	last := c.last()
	if last.State != upgrade.Committed || stood == upgrade.Committed {
		c.t.Fatalf("it stood at %s and became %s (%s); exit code %d: %s", stood, last.State, last.Error, code, said)
	}
	c.do(0, "serves again", "rollback")
	return fmt.Sprintf("it stood at %s, and with room again became %s; exit code %d", stood, last.State, code)
}
