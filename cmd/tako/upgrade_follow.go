package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
)

// last is the newest upgrade, nil for none.
func (s *site) last() (*upgrade.Txn, error) {
	j, err := journal.Open(upgrade.Dir(s.root))
	if err != nil {
		return nil, err
	}
	return upgrade.Last(j.Entries())
}

// carryOut has an upgrade carried out, and shows how it goes until it has reached a state
// or has ended.
func (s *site) carryOut(cmd *cobra.Command, id string, until upgrade.State) error {
	from := int64(0)
	if info, err := os.Stat(upgrade.WorkerLog(s.root)); err == nil {
		from = info.Size()
	}
	if err := s.begin(); err != nil {
		return err
	}
	t, err := s.follow(cmd, id, until, from)
	if cmd.Context().Err() != nil {
		fmt.Fprintln(cmd.ErrOrStderr(), "The upgrade goes on; look at it with `tako upgrade status`.")
		return errors.New("interrupted")
	}
	if err != nil {
		return err
	}
	said, err := wordsOf(t, until)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), said)
	return err
}

// wordsOf says what an upgrade has come to that was to reach a state; what it was not to
// come to is an error, with its exit code.
func wordsOf(t *upgrade.Txn, until upgrade.State) (string, error) {
	if t.Waits() {
		return otherImage(t), nil
	}
	switch t.State {
	case upgrade.Aborted:
		return "", &outcome{exitNotBegun, fmt.Sprintf("given up before the switch; version %s serves as before: %s", t.Plan.From, t.Error)}
	case upgrade.NeedsOperator:
		text := fmt.Sprintf("it can go neither on nor back by itself: %s. %s", t.Error, wayOut(t))
		if t.Plan.Restore && !t.NoReturn() {
			text += "; what a restore takes and loses: tako upgrade rollback"
		}
		return "", &outcome{exitNeedsOperator, text}
	case upgrade.RolledBack:
		if until != upgrade.RolledBack {
			return "", &outcome{exitRolledBack, fmt.Sprintf("version %s serves again: %s", t.Plan.From, t.Error)}
		}
		if t.Plan.Restore {
			return fmt.Sprintf("Version %s serves again, and the upgrade has ended.", t.Plan.From), nil
		}
		return fmt.Sprintf("Version %s serves again; nothing was lost.", t.Plan.From), nil
	case upgrade.Finalized:
		if until == upgrade.RolledBack {
			return "", fmt.Errorf("version %s was being finalized when that was asked for, and is final: %w", t.Plan.To, upgrade.Allowed(t, upgrade.WishRollback))
		}
		return fmt.Sprintf("Version %s is final.", t.Plan.To), nil
	case upgrade.Committed:
		if t.Plan.Restore {
			return fmt.Sprintf("Version %s serves. Only a restore leads back; what that takes and loses: tako upgrade rollback", t.Plan.To), nil
		}
		return fmt.Sprintf("Version %s serves. Going back loses nothing until %s: tako upgrade rollback", t.Plan.To, t.Due().Local().Format(time.RFC3339)), nil
	case upgrade.Planned, upgrade.Staged, upgrade.Preflight, upgrade.BackedUp, upgrade.Rehearsed, upgrade.Expanded, upgrade.Switched, upgrade.Probation:
	}
	return "", fmt.Errorf("the upgrade to %s is %s still", t.Plan.To, t.State) // nobody follows one to there
}

// wayOut says what to do about an upgrade that needs an operator.
func wayOut(t *upgrade.Txn) string {
	if t.NoReturn() {
		return fmt.Sprintf("There is no way back from version %s any more. When the cause is removed, try once more to finalize it: tako upgrade resume", t.Plan.To)
	}
	return fmt.Sprintf("When the cause is removed: tako upgrade resume; to keep version %s as it is: tako upgrade resume --forward", t.Plan.To)
}

// otherImage says which image to start a container with.
func otherImage(t *upgrade.Txn) string {
	if t.Serves() {
		return fmt.Sprintf("Now start the container with the image of version %s on the same volume: it works on the data as it is, and nothing is lost. To stay with version %s after all: tako upgrade hold", t.Plan.From, t.Plan.To)
	}
	text := fmt.Sprintf("Version %s serves as before, and all that version %[2]s needs is there. Now start the container with the image of version %[2]s on the same volume; to give it up: tako upgrade abort", t.Plan.From, t.Plan.To)
	if t.Plan.Restore {
		text += ". From then on only a restore leads back; what that takes and loses: tako upgrade rollback"
	}
	return text
}

// prospect says what comes of an upgrade that nobody is carrying a step of out, "" where its
// state tells all.
func prospect(t *upgrade.Txn) string {
	switch {
	case t.State == upgrade.NeedsOperator:
		return wayOut(t)
	case t.Waits():
		return otherImage(t)
	case t.State == upgrade.Committed && t.NoReturn():
		return fmt.Sprintf("It is being finalized, as soon as version %s serves and is well; there is no way back any more.", t.Plan.To)
	case t.State == upgrade.Committed:
		return fmt.Sprintf("It is finalized at %s.", t.Due().Format(time.RFC3339))
	}
	return ""
}

// troubles says what is wrong with the server as its supervisor tells it, "" for nothing.
func troubles(r supervisor.Report, err error) string {
	switch {
	case err != nil:
		return "The supervisor tells nothing of the server: " + err.Error()
	case r.NeedsOperator:
		return fmt.Sprintf("NEEDS_OPERATOR: version %s does not stay alive (%d times in a row: %s), and there is no version to go back to by itself. It is started again and again. Its log says why; if nothing else helps, restore a backup, which loses everything since: tako backup list", r.Current, r.Crashes, r.Trouble)
	case r.Server == nil && r.Trouble != "":
		return fmt.Sprintf("No server runs, and version %s is started again and again: %s", r.Current, r.Trouble)
	case r.Server == nil:
		return fmt.Sprintf("No server runs; version %s is being started.", r.Current)
	case r.Trouble != "":
		return "The server has been started again within the last minute: " + r.Trouble
	}
	return ""
}

// reportWithin is how long a supervisor is waited for. While it starts a version, or hands
// over, it listens to nobody.
const reportWithin = 3 * time.Second

// report asks how the server fares.
func (s *site) report(ctx context.Context) (supervisor.Report, error) {
	ctx, stop := context.WithTimeout(ctx, reportWithin)
	defer stop()
	r, err := supervisor.Ask(ctx, s.root, supervisor.Order{Do: "status"})
	if err != nil && ctx.Err() != nil {
		err = errors.New("it is busy, as while it starts a version or hands over; ask again")
	}
	return r, err
}

// follow shows what the process that carries an upgrade out writes.
func (s *site) follow(cmd *cobra.Command, id string, until upgrade.State, from int64) (*upgrade.Txn, error) {
	absent, again := time.Time{}, 0
	for {
		from = s.show(cmd.ErrOrStderr(), from)
		t, err := s.last()
		if err != nil {
			return nil, err
		}
		if t == nil || t.ID != id {
			return nil, fmt.Errorf("the upgrade %s has gone from the journal", id)
		}
		if t.State == until || t.State.Ended() || t.Waits() {
			s.show(cmd.ErrOrStderr(), from)
			return t, nil
		}
		switch {
		case upgrade.Attended(s.root) != 0:
			absent = time.Time{}
		case absent.IsZero():
			absent = time.Now()
		case time.Since(absent) > time.Second && again < upgrade.MaxTries:
			// The one that was there was just ending, or was killed.
			if err := s.begin(); err != nil {
				return nil, err
			}
			absent, again = time.Time{}, again+1
		case time.Since(absent) > 10*time.Second:
			return nil, fmt.Errorf("the process that carried the upgrade out has ended; see %s, and go on with `tako upgrade resume`", upgrade.WorkerLog(s.root))
		}
		if err := pause(cmd.Context(), 200*time.Millisecond); err != nil {
			return t, err
		}
	}
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// show copies what the log has beyond an offset, and tells the next one.
func (s *site) show(out io.Writer, from int64) int64 {
	f, err := os.Open(upgrade.WorkerLog(s.root))
	if err != nil {
		return from
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() < from {
		from = 0 // the one before was put aside
	}
	n, err := io.Copy(out, io.NewSectionReader(f, from, 1<<20))
	if err != nil {
		return from
	}
	return from + n
}

// wish writes a wish, and has it carried out.
func (s *site) wish(cmd *cobra.Command, a upgrade.Ask, until upgrade.State) error {
	if err := s.open(cmd); err != nil {
		return err
	}
	return s.wishIf(cmd, a, until, func(t *upgrade.Txn) error { return upgrade.Allowed(t, a.Wish) })
}

// wishIf is wish of a directory that is open, if the upgrade is such that allowed says no
// more against it.
func (s *site) wishIf(cmd *cobra.Command, a upgrade.Ask, until upgrade.State, allowed func(*upgrade.Txn) error) error {
	a.By = os.Getenv("USER")
	if err := upgrade.Want(s.root, a, time.Now(), allowed); err != nil {
		return err
	}
	t, err := s.last()
	if err != nil {
		return err
	}
	if until == "" {
		return s.begin()
	}
	return s.carryOut(cmd, t.ID, until)
}

func upgradeRollbackCommand() *cobra.Command {
	var s site
	cmd := &cobra.Command{
		Use: "rollback", Short: "Go back to the version before, without a loss", Args: cobra.NoArgs,
		Long: `Goes back to the version that ran before the last upgrade.

Once that is finalized, and from a release of which the feed says so, the only way back is
to restore the backup of the upgrade. Then this command changes nothing: it counts the
deployments that would be lost, and prints the commands. After them, it closes an upgrade
that was not final.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			wish, allowed, err := upgrade.Back(cmd.Context(), s.root)
			if err == nil {
				err = s.wishIf(cmd, upgrade.Ask{Wish: wish}, upgrade.RolledBack, allowed)
			}
			var only *upgrade.NeedsRestoreError
			if errors.As(err, &only) && only.Backup != "" {
				return s.byRestore(cmd, only, err)
			}
			return err
		},
	}
	s.flags(cmd)
	return cmd
}

func upgradeAbortCommand() *cobra.Command {
	var s site
	cmd := &cobra.Command{
		Use: "abort", Short: "Give up an upgrade that has not switched yet", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			err := s.wish(cmd, upgrade.Ask{Wish: upgrade.WishAbort}, upgrade.Aborted)
			var o *outcome
			if errors.As(err, &o) && o.code == exitNotBegun {
				_, err = fmt.Fprintln(cmd.OutOrStdout(), "The upgrade was given up.")
			}
			return err
		},
	}
	s.flags(cmd)
	return cmd
}

func upgradeFinalizeCommand() *cobra.Command {
	var s site
	cmd := &cobra.Command{
		Use: "finalize", Short: "Switch the new version's data formats on: no way back", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return s.wish(cmd, upgrade.Ask{Wish: upgrade.WishFinalize}, upgrade.Finalized)
		},
	}
	s.flags(cmd)
	return cmd
}

func upgradeHoldCommand() *cobra.Command {
	var s site
	var length time.Duration
	cmd := &cobra.Command{
		Use: "hold", Short: "Wait longer until an upgrade is finalized by itself", Args: cobra.NoArgs,
		Example: "  tako upgrade hold --for 168h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if length <= 0 {
				return usageError{fmt.Errorf("--for is %s; use more than 0, such as 168h", length)}
			}
			until := time.Now().Add(length)
			if err := s.wish(cmd, upgrade.Ask{Wish: upgrade.WishHold, Until: until}, ""); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "It is finalized at %s.\n", until.Format(time.RFC3339))
			return err
		},
	}
	s.flags(cmd)
	cmd.Flags().DurationVar(&length, "for", 72*time.Hour, "how long from now")
	return cmd
}

func upgradeResumeCommand() *cobra.Command {
	var s site
	var forward bool
	cmd := &cobra.Command{
		Use: "resume", Short: "Go on with an upgrade that was cut short, or needs an operator", Args: cobra.NoArgs,
		Long: `Goes on with an upgrade that was cut short. One that needs an operator tries once more what
did not succeed: to go back, or, if it was being finalized, to finalize.

With --forward the new version stays instead of going back: it has to serve and to be well,
and from then on the upgrade is one that was committed now.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			wish := upgrade.WishResume
			if forward {
				wish = upgrade.WishForward
			}
			t, err := s.last()
			if err == nil && t == nil {
				err = errors.New("there has been no upgrade here")
			}
			if err == nil {
				err = upgrade.Allowed(t, wish)
			}
			if err == nil && forward {
				err = upgrade.Well(cmd.Context(), s.root, t.Plan.To)
			}
			if err == nil && t.State == upgrade.NeedsOperator {
				err = upgrade.Want(s.root, upgrade.Ask{Wish: wish, By: os.Getenv("USER")}, time.Now(), func(t *upgrade.Txn) error { return upgrade.Allowed(t, wish) })
			}
			if err != nil {
				return err
			}
			if t.NoReturn() {
				return s.carryOut(cmd, t.ID, upgrade.Finalized)
			}
			return s.carryOut(cmd, t.ID, upgrade.Committed)
		},
	}
	s.flags(cmd)
	cmd.Flags().BoolVar(&forward, "forward", false, "keep the new version, which serves and is well, instead of going back")
	return cmd
}

func upgradeStatusCommand() *cobra.Command {
	var s site
	var output form
	cmd := &cobra.Command{
		Use: "status", Short: "Show how the last upgrade goes, and whether the server stays alive", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			t, err := s.last()
			if err != nil {
				return err
			}
			pid, out := upgrade.Attended(s.root), cmd.OutOrStdout()
			r, err := s.report(cmd.Context())
			if output == formJSON {
				all := map[string]any{"Upgrade": t, "Worker": pid}
				if err == nil {
					all["Supervisor"] = r
				}
				return printJSON(out, all)
			}
			if said := troubles(r, err); said != "" {
				fmt.Fprintln(out, said)
			}
			if t == nil {
				_, err := fmt.Fprintln(out, "There has been no upgrade here.")
				return err
			}
			fmt.Fprintf(out, "%s: %s -> %s, %s since %s\n", t.ID, t.Plan.From, t.Plan.To, t.State, t.At.Format(time.RFC3339))
			if t.Doing != "" && !t.State.Ended() {
				fmt.Fprintf(out, "On the way to %s since %s\n", t.Doing, t.DoingSince.Format(time.RFC3339))
			}
			if t.Error != "" {
				fmt.Fprintln(out, t.Error)
			}
			if said := prospect(t); said != "" {
				fmt.Fprintln(out, said)
			}
			if !t.State.Ended() && !t.Waits() && pid == 0 {
				fmt.Fprintln(out, "No process carries it out: tako upgrade resume")
			}
			return nil
		},
	}
	s.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}

func upgradeHistoryCommand() *cobra.Command {
	var s site
	var output form
	cmd := &cobra.Command{
		Use: "history", Short: "List all upgrades, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			j, err := journal.Open(upgrade.Dir(s.root))
			if err != nil {
				return err
			}
			all, err := upgrade.Fold(j.Entries())
			if err != nil {
				return err
			}
			newest := []upgrade.Txn{}
			for i := range all {
				newest = append(newest, all[len(all)-1-i])
			}
			if output == formJSON {
				return printJSON(cmd.OutOrStdout(), newest)
			}
			rows := newTable(cmd.OutOrStdout(), "BEGUN", "FROM", "TO", "STATE", "SINCE", "REASON")
			for i := range newest {
				t := &newest[i]
				rows.row(t.Begun.Format(time.RFC3339), t.Plan.From, t.Plan.To, t.State, t.At.Format(time.RFC3339), t.Error)
			}
			return rows.flush()
		},
	}
	s.flags(cmd)
	outputFlag(cmd, &output)
	return cmd
}
