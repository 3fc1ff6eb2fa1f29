package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/doctor"
	"github.com/takodeploy/tako/internal/fault"
)

// findingsLeft ends a command that looked, and found something that is still there.
type findingsLeft struct{ errors, warnings int }

// Error says how many there are.
func (e *findingsLeft) Error() string {
	return fmt.Sprintf("not everything is as it should be: %d errors, %d warnings", e.errors, e.warnings)
}

// ExitCode is that of "looked, and found something".
func (e *findingsLeft) ExitCode() int { return fault.ExitFound }

func doctorCommand() *cobra.Command {
	var o offline
	var what app.DoctorOptions
	var format form
	var yes bool
	cmd := &cobra.Command{
		Use: "doctor", Short: "Examine a server's database, blobs, keys and files", Args: cobra.NoArgs,
		Long: `Examines what a server has, from the server's own machine, whether it runs or not: the
schema, the database's own integrity, every document and what stands beside it,
references, counters, journals, logs, locks, packages, artifacts, keys, disks, clocks and
permissions. Nothing is changed unless --fix is given.

--fix makes again what follows from something else (indexes, the rows beside documents,
counters), removes locks of tasks that have ended and what no row has named for long
enough, and takes permissions from other users. It never deletes what people made.

Exit codes: 0 nothing but notices, 3 errors or warnings are left, 1 it could not look.`,
		Example: "  tako doctor\n  tako doctor --full --output json\n  tako backup create && tako doctor --fix",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			if what.Fix && !yes {
				if err := suggestBackup(cmd, cfg.Backups); err != nil {
					return err
				}
			}
			m := newMeter(cmd)
			what.Progress = m.pieces
			report, err := app.Doctor(cmd.Context(), cfg, opt, what)
			m.end()
			if err != nil {
				return err
			}
			if format == formJSON {
				err = printJSON(cmd.OutOrStdout(), report)
			} else {
				err = printReport(cmd.OutOrStdout(), report)
			}
			if err != nil {
				return err
			}
			if !report.Clean() {
				left := report.Left()
				return &findingsLeft{left[doctor.Error], left[doctor.Warning]}
			}
			return nil
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&what.Full, "full", false, "also read every package, artifact and log, and every index of a SQLite database")
	cmd.Flags().BoolVar(&what.Fix, "fix", false, "repair what can be repaired without a loss")
	cmd.Flags().BoolVar(&yes, "yes", false, "with --fix: do not ask")
	outputFlag(cmd, &format)
	return cmd
}

// suggestBackup says how old the last proven backup is; on a terminal it asks whether to
// go on.
func suggestBackup(cmd *cobra.Command, dir string) error {
	text := "there is no backup that was proven"
	if s, err := backup.Open(dir); err == nil {
		all, err := s.List()
		if err != nil {
			return err
		}
		for _, b := range all {
			if b.Verified != nil && b.Problem == "" {
				text = fmt.Sprintf("the last one that was proven is %s, of %s", b.ID, b.Created.Format(time.RFC3339))
				break
			}
		}
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Take a backup before repairs (tako backup create): %s.\n", text)
	if in, ok := cmd.InOrStdin().(*os.File); !ok || !term.IsTerminal(int(in.Fd())) {
		return nil
	}
	typed, err := askLine(cmd, "Repair now? (yes/no) ")
	if err == nil && !strings.EqualFold(typed, "yes") {
		err = errors.New("nothing was repaired")
	}
	return err
}

// pieces is tell for what is not counted in bytes alone.
func (m *meter) pieces(stage string, done, total int64) {
	now := time.Now()
	if stage != m.stage {
		m.end()
		m.stage, m.began, m.shown = stage, now, now
		return // most are over before anybody could read their names
	}
	every := 10 * time.Second
	if m.terminal {
		every = 200 * time.Millisecond
	}
	if now.Sub(m.shown) < every || total <= 0 {
		return
	}
	m.shown = now
	text := fmt.Sprintf("%s: %d %%", stage, min(100, 100*done/total))
	if done > 0 {
		if left := time.Duration(float64(now.Sub(m.began)) * float64(total-done) / float64(done)).Round(time.Second); left > 0 {
			text += fmt.Sprintf(", about %s left", left)
		}
	}
	if m.terminal {
		fmt.Fprintf(m.out, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(m.out, text)
}

func printReport(out io.Writer, r *doctor.Report) error {
	var b strings.Builder
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "%-7s %s  %s\n        %s.\n", strings.ToUpper(string(f.Severity)), f.Code, f.Where, strings.TrimSuffix(f.What, "."))
		switch {
		case f.Fixed != "":
			fmt.Fprintf(&b, "        Repaired: %s.\n", f.Fixed)
		default:
			fmt.Fprintf(&b, "        %s\n", f.Remedy)
			if f.Refused != "" {
				fmt.Fprintf(&b, "        %s\n", f.Refused)
			}
		}
	}
	for _, line := range r.Rest() {
		fmt.Fprintln(&b, line)
	}
	left := r.Left()
	var looked []string
	for _, c := range r.Checks {
		looked = append(looked, fmt.Sprintf("%s %d", c.Name, c.Looked))
	}
	fmt.Fprintf(&b, "%s: %d errors, %d warnings, %d notices left. Looked at: %s; in %s.\n",
		r.Database, left[doctor.Error], left[doctor.Warning], left[doctor.Notice], strings.Join(looked, ", "), r.Took.Round(time.Millisecond))
	_, err := io.WriteString(out, b.String())
	return err
}
