// Package doctor looks whether a server's database, blobs, keys and files are as they
// should be, says what is not under a name, and repairs what can be repaired without a
// loss.
//
// It works beside running servers, and on what a stopped one left. The database's files
// are touched through the database alone. What it reads it reads in pieces, so that
// its memory is bounded and SQLite's write-ahead log can shrink; a check that compares
// rows with each other does so in one view that does not move, so that a server that
// writes meanwhile is not taken for damage.
//
// A repair only makes again what follows from something else (an index, the rows beside
// a document, a counter), or removes what nothing refers to and nobody made (the lock of
// a task that has ended). It never deletes what people or deployments have made.
package doctor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
)

// Severity of a finding.
type Severity string

// The severities. A notice is nothing to do anything about.
const (
	Error   Severity = "error"   // something is lost, or will fail
	Warning Severity = "warning" // something is not as it should be, and works
	Notice  Severity = "notice"  // good to know
)

// Finding is one thing that is not as it should be.
type Finding struct {
	Severity Severity
	// Code is the name of this kind of finding ("blob-missing"), which stays the same
	// from version to version.
	Code string
	// What is wrong, Where it is, and the Remedy; none of them tells a secret.
	What, Where, Remedy string
	// Fixable says that Run with Fix can repair it. Fixed is what was done, "" for
	// nothing; Refused why a repair did not succeed.
	Fixable        bool
	Fixed, Refused string `json:",omitempty"`
}

// maxNamed bounds how many findings of one code are named; the others are counted.
const maxNamed = 20

// Check is one part of an examination.
type Check struct {
	Name string
	// Looked counts what was looked at: rows, documents, blobs.
	Looked int64
	Took   time.Duration
}

// Report is what an examination found.
type Report struct {
	// Database names the database without credentials.
	Database string
	At       time.Time
	Took     time.Duration
	Full     bool
	Checks   []Check
	Findings []Finding
	// More counts the findings that are not named, by code, beyond those that are;
	// MoreFixed those of them that were repaired.
	More, MoreFixed map[string]int `json:",omitempty"`
}

// Left counts the findings that are still there, by severity.
func (r *Report) Left() map[Severity]int {
	left := map[Severity]int{}
	of := map[string]Severity{}
	for _, f := range r.Findings {
		of[f.Code] = f.Severity
		if f.Fixed == "" {
			left[f.Severity]++
		}
	}
	for code, n := range r.More {
		left[of[code]] += n - r.MoreFixed[code]
	}
	return left
}

// Clean reports whether there is nothing left but notices.
func (r *Report) Clean() bool {
	left := r.Left()
	return left[Error]+left[Warning] == 0
}

// Config is what is examined, and how.
type Config struct {
	DB    *db.DB
	Store *docstore.Store
	// Blobs may be nil: then there are none to look at.
	Blobs *blob.Dir
	// Keys opens the master key and the data keys, without making any.
	Keys func(ctx context.Context) (*secret.Box, error)
	// Places are where the database keeps sealed values.
	Places []secret.Place
	// Data is the data directory, KeyFile the file with the master key ("" when it is
	// elsewhere), RunDir where the servers of this host have their locks, and Backups
	// where backups are.
	Data, KeyFile, RunDir, Backups string
	// Sweep removes the blobs that no row has named for long enough; needed for Fix.
	Sweep func(ctx context.Context) (deleted int, bytes int64, err error)
	// Full also reads every blob, and holds every index of a SQLite database against
	// its table.
	Full bool
	// Only limits the examination to the checks with these names, all when it is empty.
	Only []string
	// Fix repairs what can be repaired.
	Fix bool
	Log *slog.Logger
	// Progress is told the stages, and how far a long one is: done of total, in bytes or
	// pieces; total is 0 while it is unknown. May be nil.
	Progress func(stage string, done, total int64)
	// Found is told of each finding that is named, as it is found; may be nil.
	Found func(Finding)
}

// examination is one run.
type examination struct {
	Config
	report Report
	named  map[string]int
	check  *Check
}

// Run examines. It returns an error only when it could not look at anything; a check
// that could not be made is a finding.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Progress == nil {
		cfg.Progress = func(string, int64, int64) {}
	}
	if cfg.Found == nil {
		cfg.Found = func(Finding) {}
	}
	x := &examination{Config: cfg, named: map[string]int{}}
	x.report = Report{Database: cfg.DB.String(), At: time.Now().UTC(), Full: cfg.Full, Findings: []Finding{}}
	if _, err := cfg.DB.Meta(ctx); err != nil && !db.IsDamage(err) {
		return nil, err
	}
	for _, c := range []struct {
		name string
		run  func(ctx context.Context) error
	}{
		{"machine", x.machine},
		{"files", x.files},
		{"clock", x.clock},
		{"schema", x.schema},
		{"integrity", x.integrity},
		{"documents", x.documents},
		{"references", x.references},
		{"numbers", x.numbers},
		{"tasks", x.tasks},
		{"logs", x.logs},
		{"keys", x.keys},
		{"blobs", x.blobs},
	} {
		if len(x.Only) > 0 && !slices.Contains(x.Only, c.name) {
			continue
		}
		x.report.Checks = append(x.report.Checks, Check{Name: c.name})
		x.check = &x.report.Checks[len(x.report.Checks)-1]
		x.Progress(c.name, 0, 0)
		began := time.Now()
		err := c.run(ctx)
		x.check.Took = time.Since(began)
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if err != nil {
			x.failed(c.name, err)
		}
	}
	x.report.Took = time.Since(x.report.At)
	return &x.report, nil
}

// failed notes that a check could not be made.
func (x *examination) failed(name string, err error) {
	x.Log.Error("a check could not be made", "check", name, "err", err)
	f := Finding{
		Severity: Error, Code: "check-failed", What: "The check could not be made to its end", Where: name,
		Remedy: "Run `tako doctor --log-level debug` on the server's machine: its log has the reason.",
	}
	switch {
	case db.IsDamage(err):
		f.Code, f.What, f.Remedy = "database-damaged", "The database is damaged: "+err.Error(), restore
	case fault.KindOf(err) != fault.Internal:
		f.What += ": " + strings.Join(fault.Messages(err), " ")
	}
	x.add(f)
}

const restore = "Restore the last backup: tako backup restore latest. Keep the damaged database until then."

// add notes a finding.
func (x *examination) add(f Finding) { x.mend(f, nil) }

// mend notes a finding, and repairs it if that is wanted; never call it in a
// transaction. fix says what it did.
func (x *examination) mend(f Finding, fix func() (string, error)) {
	f.Fixable = fix != nil
	if fix != nil && x.Fix {
		done, err := fix()
		if err != nil {
			x.Log.Warn("a repair did not succeed", "code", f.Code, "where", f.Where, "err", err)
			f.Refused = "The repair did not succeed; the log has the reason."
			if fault.KindOf(err) != fault.Internal {
				f.Refused = strings.Join(fault.Messages(err), " ")
			}
		} else {
			f.Fixed = done
		}
	}
	if x.named[f.Code]++; x.named[f.Code] > maxNamed {
		if x.report.More == nil {
			x.report.More, x.report.MoreFixed = map[string]int{}, map[string]int{}
		}
		x.report.More[f.Code]++
		if f.Fixed != "" {
			x.report.MoreFixed[f.Code]++
		}
		return
	}
	x.report.Findings = append(x.report.Findings, f)
	x.Found(f)
}

// more counts findings of a code that are not named one by one.
func (x *examination) more(code string, n int, fixed bool) {
	if n <= 0 {
		return
	}
	if x.report.More == nil {
		x.report.More, x.report.MoreFixed = map[string]int{}, map[string]int{}
	}
	x.report.More[code] += n
	if fixed {
		x.report.MoreFixed[code] += n
	}
}

// list is a query's first rows as text, with how many there are in all.
type list struct {
	named []string
	count int64
}

// some runs a query of one text column and keeps the first rows.
func some(ctx context.Context, tx *db.Tx, query string, args ...any) (l list, err error) {
	rows, err := tx.Query(ctx, query, args...)
	if err != nil {
		return l, err
	}
	defer rows.Close()
	for rows.Next() {
		if l.count++; l.count > maxNamed {
			continue
		}
		var text string
		if err := rows.Scan(&text); err != nil {
			return l, err
		}
		l.named = append(l.named, text)
	}
	return l, rows.Err()
}

// all notes a finding for each of a list; statement, if it is not "", repairs all of
// them in one transaction.
func (x *examination) all(ctx context.Context, l list, f Finding, done, statement string) {
	if l.count == 0 {
		return
	}
	var outcome error
	var fix func() (string, error)
	if statement != "" {
		if x.Fix {
			outcome = x.DB.WriteEngine(ctx, func(tx *db.Tx) error {
				_, err := tx.Exec(ctx, statement)
				return err
			})
		}
		fix = func() (string, error) { return done, outcome }
	}
	for _, where := range l.named {
		one := f
		one.Where = strings.TrimSpace(f.Where + " " + where)
		x.mend(one, fix)
	}
	x.more(f.Code, int(l.count)-len(l.named), statement != "" && x.Fix && outcome == nil)
}

// readable is an error as it may be shown: one about a document's shape, never its value.
func readable(err error) string {
	const most = 200
	text := err.Error()
	if messages := fault.Messages(err); fault.KindOf(err) != fault.Internal && len(messages) > 0 {
		text = strings.Join(messages, " ")
	}
	if len(text) > most {
		text = strings.ToValidUTF8(text[:most], "") + "..."
	}
	return text
}

// sorted are the keys of a count, in order.
func sorted(m map[string]int64) []string {
	var names []string
	for name := range m {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

var errNoSweep = errors.New("nothing to sweep with")

func count(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}
