package main

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
)

func databaseCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "database", Short: "Move a server to another database, and see which versions it had"}
	cmd.AddCommand(databaseCopyCommand(), databaseVersionsCommand(), databaseExpandCommand(), databaseFinalizeCommand(), databaseCheckCommand(), databaseMendCommand())
	return cmd
}

// The variables that name databases, for URLs with a password: everybody may read the
// arguments of a process.
const (
	envCopyFrom = "TAKO_COPY_FROM"
	envCopyTo   = "TAKO_COPY_TO"
)

func databaseCopyCommand() *cobra.Command {
	var o offline
	var what app.CopyOptions
	cmd := &cobra.Command{
		Use: "copy", Short: "Copy a server's database to another: SQLite to PostgreSQL or back", Args: cobra.NoArgs,
		Long: `Copies everything that a stopped server's database has to another, empty one: SQLite to
PostgreSQL, back, or to another of the same kind. The source is not changed. The copy is
read again and compared row by row, and examined as by 'tako doctor'; until then it is
marked, and no server starts on it. Cut short, the same command begins anew.

Packages, artifacts, logs and the master key stay in the data directory of the settings;
with --to-data they are copied to another one.

Passwords: leave them out of the command line, and give them by PGPASSWORD, a .pgpass
file, or the URLs themselves by TAKO_COPY_FROM and TAKO_COPY_TO.`,
		Example: `  tako database copy --data /var/lib/tako --to postgres://tako@db.example.com/tako
  tako database copy --data /var/lib/tako --from postgres://tako@db.example.com/tako --to sqlite:/var/lib/tako/tako.db`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			what.From = cmp.Or(what.From, os.Getenv(envCopyFrom), cfg.Database)
			if what.To = cmp.Or(what.To, os.Getenv(envCopyTo)); what.To == "" {
				return usageError{errors.New("--to is missing; name the database to copy to")}
			}
			m := newMeter(cmd)
			what.Progress = m.pieces
			began := time.Now()
			done, err := app.CopyDatabase(cmd.Context(), cfg, opt, what)
			m.end()
			if err != nil {
				return err
			}
			var rows int64
			for _, n := range done.Rows {
				rows += n
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Copied %d rows of %d tables in %s; the copy is equal to the source, and in order.\nGive the server its new database (--database or TAKO_DATABASE), and never start it on the old one again.\n",
				rows, len(done.Rows), time.Since(began).Round(time.Millisecond))
			return err
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&what.From, "from", "", "database to copy; that of the settings unless named")
	cmd.Flags().StringVar(&what.To, "to", "", "empty database to copy to")
	cmd.Flags().StringVar(&what.Data, "to-data", "", "data directory to copy packages, artifacts, logs and the master key to")
	return cmd
}

// maxVersions bounds what the list of versions shows.
const maxVersions = 1000

func databaseVersionsCommand() *cobra.Command {
	var o offline
	var format form
	cmd := &cobra.Command{
		Use: "versions", Short: "List the versions that have served on the database, the newest first", Args: cobra.NoArgs,
		Long: `Lists the versions that have served on a server's database, the newest first: which one a
restored copy needs, or since when one is there. The server may run meanwhile. Versions
before 2026.5.0 did not note themselves, but for the one that made the database.`,
		Example: `  tako database versions --data /var/lib/tako
  tako database versions --data /var/lib/tako --output json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			all, total, err := app.InstalledVersions(cmd.Context(), cfg, opt, maxVersions)
			if err != nil {
				return err
			}
			if format == formJSON {
				return printJSON(cmd.OutOrStdout(), all)
			}
			t := newTable(cmd.OutOrStdout(), "VERSION", "SINCE", "NODE", "SCHEMA LEVEL")
			for _, v := range all {
				t.row(v.Number, v.Began.Format(time.RFC3339), cmp.Or(v.Node, "-"), v.Level)
			}
			if n := total - int64(len(all)); n > 0 {
				t.row(fmt.Sprintf("and %d before them", n))
			}
			return t.flush()
		},
	}
	o.flags(cmd)
	outputFlag(cmd, &format)
	return cmd
}

// databaseExpandCommand is a step of an upgrade: the new version's own program does it.
func databaseExpandCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "expand", Short: "Add to the schema what this version needs, beside running servers", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			m, err := app.Expand(cmd.Context(), cfg, opt, func(id string) { fmt.Fprintln(cmd.ErrOrStderr(), "migration", id) })
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"SchemaLevel": m.SchemaLevel, "ActiveLevel": m.ActiveLevel, "Fingerprint": m.Fingerprint})
		},
	}
	o.flags(cmd)
	return cmd
}

// databaseFinalizeCommand is the last step of an upgrade, done by the new version.
func databaseFinalizeCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "finalize", Short: "Switch on this version's data formats: older versions can no longer write", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			m, err := app.Finalize(cmd.Context(), cfg, opt)
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"SchemaLevel": m.SchemaLevel, "ActiveLevel": m.ActiveLevel, "MinReaderLevel": m.MinReaderLevel})
		},
	}
	o.flags(cmd)
	return cmd
}

// databaseMendCommand is a part of an upgrade's first look, done by the version that runs: a
// migration of the next one may count on each index.
func databaseMendCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "mend", Short: "Make indexes again that are missing, beside running servers", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			mended, err := app.MendSchema(cmd.Context(), cfg, opt, func(object string) {
				fmt.Fprintln(cmd.ErrOrStderr(), object, "was missing, and was made again")
			})
			if err != nil {
				return err
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"Mended": mended})
		},
	}
	o.flags(cmd)
	return cmd
}

// databaseCheckCommand tells an upgrade whether this version could do its work: if it could
// not either, the other one is not to blame.
func databaseCheckCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "check", Short: "Look whether this version can work on the database as it is now", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			m, err := app.CheckSchema(cmd.Context(), cfg, opt)
			if err != nil {
				return unavailable(err)
			}
			return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]any{"SchemaLevel": m.SchemaLevel, "ActiveLevel": m.ActiveLevel})
		},
	}
	o.flags(cmd)
	return cmd
}
