package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/secret"
)

func backupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "backup", Short: "Back up a running server, prove backups, restore them",
		Long: `Takes backups of a server from its own machine, while it runs: the database as it is
at one moment, and all packages, artifacts and logs that it refers to. Backups are
encrypted to the recovery kit (see 'tako key') and to the server's own key.

A PostgreSQL database needs pg_dump, pg_restore and psql of its own version.`,
	}
	cmd.AddCommand(backupCreateCommand(), backupListCommand(), backupVerifyCommand(), backupRestoreCommand(), backupReleaseCommand(), backupPruneCommand(), backupPinCommand(), backupUnpinCommand())
	return cmd
}

// backups has fn use the configured directory of backups.
func (o *offline) backups(cmd *cobra.Command, fn func(b *app.Backups) error) error {
	cfg, opt, err := o.config(cmd)
	if err != nil {
		return err
	}
	b, err := app.OpenBackups(cfg, opt)
	if err != nil {
		return err
	}
	return fn(b)
}

// meter shows progress: one line that moves on a terminal, else a line for each stage.
type meter struct {
	out      io.Writer
	terminal bool
	stage    string
	began    time.Time
	shown    time.Time
}

func newMeter(cmd *cobra.Command) *meter {
	m := &meter{out: cmd.ErrOrStderr()}
	if f, ok := m.out.(*os.File); ok {
		m.terminal = term.IsTerminal(int(f.Fd()))
	}
	return m
}

func (m *meter) tell(p backup.Progress) {
	now := time.Now()
	if p.Stage != m.stage {
		m.end()
		m.stage, m.began, m.shown = p.Stage, now, time.Time{}
		if !m.terminal {
			fmt.Fprintf(m.out, "%s%s\n", p.Stage, of(p.Total))
			m.shown = now
			return
		}
	}
	every := 10 * time.Second
	if m.terminal {
		every = 200 * time.Millisecond
	}
	if now.Sub(m.shown) < every {
		return
	}
	m.shown = now
	text := m.stage + of(p.Total)
	if p.Total > 0 && p.Done > 0 {
		text = fmt.Sprintf("%s: %s of %s (%d %%)", m.stage, backup.Size(p.Done), backup.Size(p.Total), min(100, 100*p.Done/p.Total))
		if left := time.Duration(float64(now.Sub(m.began)) * float64(p.Total-p.Done) / float64(p.Done)).Round(time.Second); left > 0 {
			text += fmt.Sprintf(", about %s left", left)
		}
	}
	if m.terminal {
		fmt.Fprintf(m.out, "\r\x1b[K%s", text)
		return
	}
	fmt.Fprintln(m.out, text)
}

func of(total int64) string {
	if total == 0 {
		return ""
	}
	return " (" + backup.Size(total) + ")"
}

// end leaves the line.
func (m *meter) end() {
	if m.terminal && m.stage != "" {
		fmt.Fprint(m.out, "\r\x1b[K")
	}
}

func kitFlag(cmd *cobra.Command, path *string) {
	cmd.Flags().StringVar(path, "recovery-key-file", "", "file with the recovery kit; - is standard input")
}

func kitOf(cmd *cobra.Command, path string) (*secret.RecoveryKey, error) {
	if path == "" {
		return nil, nil //nolint:nilnil // no kit is no error
	}
	in := cmd.InOrStdin()
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, fmt.Errorf("read the recovery kit: %w", err)
		}
		defer f.Close()
		in = f
	}
	k, err := readKit(in)
	return &k, err
}

func backupCreateCommand() *cobra.Command {
	var o offline
	var level int
	var format form
	var flags pinFlags
	cmd := &cobra.Command{
		Use: "create", Short: "Take a backup, and prove it", Args: cobra.NoArgs,
		Long: `Takes a backup and proves it, as 'tako backup verify' does and with its exit codes.
--keep-until, --reason and --for-upgrade pin it (see 'tako backup pin'); of the backups of
one upgrade only the last stays pinned. What was restored for the proof of a backup for an
upgrade stays on a PostgreSQL server for the rehearsal.`,
		Example: "  tako backup create\n  tako backup create --verify 3 --backups /mnt/backups\n  tako backup create --keep-until 2027-01-31 --reason \"before the audit\"",
		RunE: func(cmd *cobra.Command, _ []string) error {
			pin, err := flags.pin(time.Now())
			if err != nil {
				return usageError{err}
			}
			if level < 0 || level > backup.LevelBoot {
				return usageError{fmt.Errorf("--verify is %d; use 0 to 3", level)}
			}
			return o.backups(cmd, func(b *app.Backups) error {
				m := newMeter(cmd)
				made, err := b.Create(cmd.Context(), pin, m.tell)
				m.end()
				if err != nil {
					return err
				}
				out := cmd.OutOrStdout()
				if format == formJSON {
					out = io.Discard
				}
				fmt.Fprintf(out, "Backup %s: database %s, %d packages, artifacts and logs (%s)\n", made.ID, backup.Size(made.Database.Size), made.BlobCount, backup.Size(made.BlobBytes))
				if n := len(made.Missing); n > 0 {
					fmt.Fprintf(cmd.ErrOrStderr(), "The server itself has lost %d packages, artifacts or logs, so the backup is without them: %s\n", n, strings.Join(made.Missing[:min(n, 10)], " "))
				}
				if level > 0 {
					if err := verify(cmd, out, b, made.ID, app.VerifyRequest{Level: level, Keep: flags.upgrade != ""}); err != nil {
						return err
					}
				}
				if format != formJSON {
					return nil
				}
				return printJSON(cmd.OutOrStdout(), map[string]any{
					"ID": made.ID, "DatabaseBytes": made.Database.Size, "Blobs": made.BlobCount, "BlobBytes": made.BlobBytes, "Level": level, "Created": made.Created,
				})
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().IntVar(&level, "verify", backup.LevelDatabase, "how to prove it: 0 not at all, 1 files, 2 database and secrets, 3 start the program on it")
	flags.add(cmd, "keep-until")
	outputFlag(cmd, &format)
	return cmd
}

func verify(cmd *cobra.Command, out io.Writer, b *app.Backups, id string, req app.VerifyRequest) error {
	m := newMeter(cmd)
	req.Progress = m.tell
	v, err := b.Verify(cmd.Context(), id, req)
	m.end()
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "Backup %s is good: proven at level %d in %s\n", id, v.Level, v.Took.Round(time.Millisecond))
	return err
}

func backupListCommand() *cobra.Command {
	var o offline
	var format form
	cmd := &cobra.Command{
		Use: "list", Short: "List the backups, the newest first", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.backups(cmd, func(b *app.Backups) error {
				all, err := b.List()
				if err != nil {
					return err
				}
				if format == formJSON {
					if all == nil {
						all = []backup.Backup{}
					}
					return printJSON(cmd.OutOrStdout(), all)
				}
				t := newTable(cmd.OutOrStdout(), "ID", "VERSION", "DATABASE", "BLOBS", "PROVEN", "PINNED")
				for _, one := range all {
					proven := "not yet"
					if one.Verified != nil {
						proven = fmt.Sprintf("level %d, %s", one.Verified.Level, one.Verified.At.Format(time.RFC3339))
					}
					if one.Problem != "" {
						proven = one.Problem
					}
					t.row(one.ID, one.Version, backup.Size(one.Database.Size), backup.Size(one.BlobBytes), proven, pinned(one.Pin))
				}
				return t.flush()
			})
		},
	}
	o.flags(cmd)
	outputFlag(cmd, &format)
	return cmd
}

func backupVerifyCommand() *cobra.Command {
	var o offline
	var level int
	var kit string
	cmd := &cobra.Command{
		Use: "verify [BACKUP]", Short: "Prove that a backup is good; the newest unless named", Args: cobra.MaximumNArgs(1),
		Long: `Proves a backup. Level 1 decrypts every file and compares its hash. Level 2 also
restores the database into a scratch place, reads it whole, counts the rows of every
table and opens every secret; on PostgreSQL it needs a role that may create databases.
Level 3 also brings the copy's schema to this version's level, starts the program on the
copy, with nothing running but the API, and reads from it.

Exit codes: 0 proven; 3 the backup is damaged, and the mark "proven" was taken away; 4 the
backup is as good as before, but this version of the program did not work on the copy;
75 another process works on the backups, try again; 1 it could not be looked at.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if level < backup.LevelFiles || level > backup.LevelBoot {
				return usageError{fmt.Errorf("--level is %d; use 1 to 3", level)}
			}
			key, err := kitOf(cmd, kit)
			if err != nil {
				return err
			}
			return o.backups(cmd, func(b *app.Backups) error {
				return verify(cmd, cmd.OutOrStdout(), b, named(args), app.VerifyRequest{Level: level, Kit: key})
			})
		},
	}
	o.flags(cmd)
	kitFlag(cmd, &kit)
	cmd.Flags().IntVar(&level, "level", backup.LevelDatabase, "1 files, 2 database and secrets, 3 start the program on it")
	return cmd
}

func named(args []string) string {
	if len(args) == 0 {
		return "latest"
	}
	return args[0]
}

// located is the name of a backup that is named or whose folder is; the settings then have
// the directory that it is in.
func located(cfg *config.Config, name string) (id string, err error) {
	if !strings.ContainsRune(name, filepath.Separator) {
		return name, nil
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return "", err
	}
	cfg.Backups = filepath.Dir(path)
	return filepath.Base(path), nil
}

func backupRestoreCommand() *cobra.Command {
	var o offline
	var kit, into string
	cmd := &cobra.Command{
		Use: "restore BACKUP", Short: "Restore a backup, keeping what it replaces", Args: cobra.ExactArgs(1),
		Long: `Restores a backup into the data directory (and, with PostgreSQL, the database) of the
settings, or into the new directory that --into names. BACKUP is a name of 'tako backup
list', "latest", or the path of a backup's folder. Stop the servers first.

What is replaced is kept: tako.db.before-restore beside the database, on PostgreSQL the
schema under the name that is printed. Everything is decrypted and checked before
anything is replaced; cut short, the same command brings it to its end.

On a machine without the master key, give the recovery kit.`,
		Example: `  tako backup restore latest
  tako backup restore /mnt/backups/20261127T141502Z-k3f9 --into /var/lib/tako --recovery-key-file kit.txt`,
		RunE: func(cmd *cobra.Command, args []string) error {
			key, err := kitOf(cmd, kit)
			if err != nil {
				return err
			}
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			id, err := located(&cfg, args[0])
			if err != nil {
				return err
			}
			if into != "" {
				if cfg, err = elsewhere(cfg, into); err != nil {
					return err
				}
			}
			b, err := app.OpenBackups(cfg, opt)
			if err != nil {
				return err
			}
			m := newMeter(cmd)
			r, err := b.Restore(cmd.Context(), id, key, m.tell)
			m.end()
			if err != nil {
				return err
			}
			printRestored(cmd.OutOrStdout(), &r, cfg.Data)
			return nil
		},
	}
	o.flags(cmd)
	kitFlag(cmd, &kit)
	cmd.Flags().StringVar(&into, "into", "", "a new data directory to restore into, instead of that of the settings")
	return cmd
}

func printRestored(out io.Writer, r *backup.Restored, data string) {
	fmt.Fprintf(out, "Backup %s of %s is restored into %s.\n", r.ID, r.Created.Format(time.RFC3339), data)
	if r.Replaced {
		switch {
		case r.Unreadable:
			fmt.Fprintln(out, "The replaced database could not be read, so nobody can tell what it had beyond the backup.")
		default:
			fmt.Fprintf(out, "%d deployments of the replaced database are newer than the backup.\n", r.Newer)
		}
		fmt.Fprintf(out, "The replaced database is kept as %s.\n", r.Kept)
	}
	if r.KeptKey != "" {
		fmt.Fprintf(out, "The replaced master key is kept as %s.\n", r.KeptKey)
	}
	if r.Queued+r.UnderWay > 0 {
		fmt.Fprintf(out, "%d queued tasks, and %d that were under way, wait until somebody has released them; schedules and subscriptions do, too: tako backup release.\n", r.Queued, r.UnderWay)
	} else {
		fmt.Fprintln(out, "Schedules and subscriptions wait until somebody has released them: tako backup release.")
	}
	if r.Missing > 0 {
		fmt.Fprintf(out, "%d packages, artifacts or logs are not in it: the server had lost them before the backup.\n", r.Missing)
	}
}

func backupReleaseCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "release [TASK...]", Short: "Let go on what waits since a restore",
		Long: `Lets the tasks go on that wait because the server was restored from a backup, or without
any all of them, and schedules and subscriptions with them. A task that was queued takes
its place in the queue again; one that was under way goes on with what was not begun.`,
		Example: "  tako backup release ServerTasks-17\n  tako backup release",
		RunE: func(cmd *cobra.Command, args []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			n, err := app.ReleaseRestored(cmd.Context(), cfg, opt, args)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d tasks released.\n", n)
			return err
		},
	}
	o.flags(cmd)
	return cmd
}

func backupPruneCommand() *cobra.Command {
	var o offline
	var dry bool
	keep := backup.DefaultRetention()
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove old backups", Args: cobra.NoArgs,
		Long: `Removes all backups but the newest of each of the last days and weeks that have one,
and then what no backup refers to any more. The newest backup and the newest that was
proven always stay, and so does what is pinned ('tako backup pin').`,
		Example: "  tako backup prune --dry-run\n  tako backup prune --keep-daily 14 --keep-weekly 8",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if keep.Daily < 0 || keep.Weekly < 0 {
				return usageError{errors.New("--keep-daily and --keep-weekly are 0 or more")}
			}
			return o.backups(cmd, func(b *app.Backups) error {
				p, err := b.Prune(keep, dry)
				if err != nil {
					return err
				}
				verb := "removed"
				if dry {
					verb = "would be removed"
				}
				for _, id := range p.Backups {
					fmt.Fprintf(cmd.OutOrStdout(), "%s %s\n", id, verb)
				}
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "%d backups %s, and %d packages, artifacts and logs (%s) that no other backup has.\n", len(p.Backups), verb, p.Blobs, backup.Size(p.Bytes))
				return err
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	cmd.Flags().IntVar(&keep.Daily, "keep-daily", keep.Daily, "of how many days the newest backup is kept")
	cmd.Flags().IntVar(&keep.Weekly, "keep-weekly", keep.Weekly, "of how many weeks the newest backup is kept")
	return cmd
}

// elsewhere are the settings of a server whose data is in another directory.
func elsewhere(cfg config.Config, dir string) (config.Config, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return cfg, err
	}
	if cfg.Database == "sqlite:"+filepath.Join(cfg.Data, "tako.db") {
		cfg.Database = "sqlite:" + filepath.Join(dir, "tako.db")
	}
	cfg.Data = dir
	return cfg, nil
}
