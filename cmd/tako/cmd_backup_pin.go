package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/backup"
)

// pinFlags say why, and how long, a backup is kept.
type pinFlags struct{ until, reason, upgrade string }

func (f *pinFlags) add(cmd *cobra.Command, until string) {
	cmd.Flags().StringVar(&f.until, until, "", "keep it until the end of this day (2027-01-31, UTC) or this time (2027-01-31T12:00:00Z)")
	cmd.Flags().StringVar(&f.reason, "reason", "", "why it is kept, for people")
	cmd.Flags().StringVar(&f.upgrade, "for-upgrade", "", "id of the upgrade that it is kept for, until two weeks after that is final")
}

// pin is what the flags say; nil when none of them is given.
func (f *pinFlags) pin(now time.Time) (*backup.Pin, error) {
	if *f == (pinFlags{}) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	p := &backup.Pin{Reason: f.reason, Upgrade: f.upgrade}
	if f.until != "" {
		var err error
		if p.Until, err = parseUntil(f.until); err != nil {
			return nil, err
		}
	}
	if p.Reason == "" && p.Upgrade != "" {
		p.Reason = "taken for an upgrade"
	}
	return p, p.Check(now)
}

// parseUntil reads a day, of which it is the end, or a time.
func parseUntil(text string) (time.Time, error) {
	if day, err := time.Parse(time.DateOnly, text); err == nil {
		return day.AddDate(0, 0, 1), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, fmt.Errorf("%q is neither a day (2027-01-31) nor a time (2027-01-31T12:00:00Z)", text)
	}
	return at.UTC(), nil
}

// maxDays bounds how many days a span can have.
const maxDays = 36500

// parseSpan reads a span of days ("14d") or hours and minutes ("36h").
func parseSpan(text string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(text, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n <= maxDays {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	} else if span, err := time.ParseDuration(text); err == nil && span >= 0 {
		return span, nil
	}
	return 0, fmt.Errorf("%q is no span of time; give one such as 14d or 36h", text)
}

// pinned is a pin in the table of backups.
func pinned(p *backup.Pin) string {
	if p == nil {
		return ""
	}
	text := p.Reason
	if p.Upgrade != "" {
		text += " (upgrade " + p.Upgrade + ")"
	}
	if !p.Until.IsZero() {
		text += ", until " + p.Until.Format(time.RFC3339)
	}
	return strings.TrimPrefix(text, ", ")
}

func backupPinCommand() *cobra.Command {
	var o offline
	var flags pinFlags
	cmd := &cobra.Command{
		Use: "pin BACKUP", Short: "Keep a backup, whatever retention says", Args: cobra.ExactArgs(1),
		Long: `Keeps a backup from being removed by retention and by 'tako backup prune', until the time
that --until names or until somebody unpins it. The pin is a file in the backup's folder,
so that restoring an older database does not undo it.

The backup of an upgrade is pinned by the upgrade, until two weeks after that is final.`,
		Example: "  tako backup pin 20261127T141502Z-k3f9 --until 2027-01-31 --reason \"before the audit\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			pin, err := flags.pin(time.Now())
			if err != nil {
				return usageError{err}
			}
			if pin == nil {
				pin = &backup.Pin{}
			}
			if pin.Reason == "" {
				pin.Reason = "pinned by hand"
			}
			return o.backups(cmd, func(b *app.Backups) error { return b.Pin(args[0], *pin) })
		},
	}
	o.flags(cmd)
	flags.add(cmd, "until")
	return cmd
}

func backupUnpinCommand() *cobra.Command {
	var o offline
	var after string
	cmd := &cobra.Command{
		Use: "unpin BACKUP", Short: "Let retention remove a backup that was pinned", Args: cobra.ExactArgs(1),
		Long: `Takes the pin of a backup away, or with --after has it end by then. That only ever shortens:
a backup that is not pinned stays so, and a pin that ends before stays as it is.`,
		Example: "  tako backup unpin 20261127T141502Z-k3f9\n  tako backup unpin 20261127T141502Z-k3f9 --after 14d",
		RunE: func(cmd *cobra.Command, args []string) error {
			var until time.Time
			if after != "" {
				span, err := parseSpan(after)
				if err != nil {
					return usageError{err}
				}
				until = time.Now().Add(span)
			}
			return o.backups(cmd, func(b *app.Backups) error { return b.Unpin(cmd.Context(), args[0], until) })
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&after, "after", "", "keep it for this long from now on, such as 14d or 36h")
	return cmd
}
