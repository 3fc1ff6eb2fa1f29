package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/backup"
)

func instanceCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "instance", Short: "Make a test instance of a server, and let it out",
		Long: `A test instance is a copy of a server to try things out on: an upgrade, a script that
uses the API, a change of many projects. It is shut in before it can start for the first
time: it connects to its own host only, runs no script, and nothing in it happens by
itself. Secrets are taken out of it.`,
	}
	cmd.AddCommand(instanceCloneCommand(), instanceShowCommand(), instanceArmCommand())
	return cmd
}

// typed asks for a line on standard input.
func typed(cmd *cobra.Command, question string) (string, error) {
	fmt.Fprint(cmd.ErrOrStderr(), question+" ")
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", err
	}
	return strings.TrimSpace(line), nil
}

// keepPhrase is what somebody types who wants the secrets in the copy.
const keepPhrase = "keep the secrets"

func instanceCloneCommand() *cobra.Command {
	var o offline
	var kit, into, database, secrets string
	var format form
	cmd := &cobra.Command{
		Use: "clone [BACKUP]", Short: "Make a test instance", Args: cobra.MaximumNArgs(1),
		Long: `Makes a test instance in the new directory that --into names, and with PostgreSQL in the
new database of --into-database. It is made of a backup: a name of 'tako backup list',
"latest", or the path of a backup's folder. Without one, a backup of the server of the
settings is taken first, whether it runs or not.

Cut short, the same command makes the copy anew. The server and its backups are only read.`,
		Example: `  tako instance clone --data /var/lib/tako --into /var/lib/tako-test
  tako instance clone /mnt/backups/20261127T141502Z-k3f9 --into /var/lib/tako-test --recovery-key-file kit.txt
  tako server --data /var/lib/tako-test --listen 127.0.0.1:8066`,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case into == "":
				return usageError{errors.New("--into is missing; name a new directory")}
			case secrets != "blank" && secrets != "keep":
				return usageError{fmt.Errorf("--secrets is %q; use blank or keep", secrets)}
			}
			key, err := kitOf(cmd, kit)
			if err != nil {
				return err
			}
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			req := app.CloneRequest{Database: database, KeepSecrets: secrets == "keep", Kit: key}
			if req.Data, err = filepath.Abs(into); err != nil {
				return err
			}
			if req.Backup, err = located(&cfg, named(args)); err != nil {
				return err
			}
			if req.KeepSecrets {
				said, err := typed(cmd, "The copy will be able to sign in wherever the server can. Type \""+keepPhrase+"\":")
				if err != nil {
					return err
				}
				if said != keepPhrase {
					return fmt.Errorf("the secrets are kept only when %q is typed; nothing was made", keepPhrase)
				}
			}
			b, err := app.OpenBackups(cfg, opt)
			if err != nil {
				return err
			}
			m := newMeter(cmd)
			defer m.end()
			req.Progress = m.tell
			if len(args) == 0 {
				made, err := b.Create(cmd.Context(), nil, m.tell)
				if err != nil {
					return err
				}
				req.Backup = made.ID
			}
			c, err := b.Clone(cmd.Context(), req)
			m.end()
			if err != nil {
				return err
			}
			return printCloned(cmd.OutOrStdout(), &c, req.Data, format)
		},
	}
	o.flags(cmd)
	kitFlag(cmd, &kit)
	cmd.Flags().StringVar(&into, "into", "", "the new data directory of the copy")
	cmd.Flags().StringVar(&database, "into-database", "", "postgres://USER@HOST/NAME of the copy's new database; SQLite in its data directory unless set")
	cmd.Flags().StringVar(&secrets, "secrets", "blank", "blank takes everything sealed out of the copy; keep leaves it in, after a question")
	outputFlag(cmd, &format)
	return cmd
}

func printCloned(out io.Writer, c *backup.Cloned, data string, format form) error {
	if format == formJSON {
		blanked := []string{}
		for _, r := range c.Blanked {
			blanked = append(blanked, r.String())
		}
		return printJSON(out, map[string]any{"Instance": c.Instance, "Data": data, "Disarmed": c.Disarmed, "Blanked": blanked, "Closed": c.Closed})
	}
	fmt.Fprintf(out, "Test instance %s is in %s: a copy of %s at %s.\n\n", c.Instance.ID, data, c.Instance.Parent, c.Manifest.Created.Format(time.RFC3339))
	t := newTable(out, "DISARMED", "COUNT", "HOW")
	for _, one := range c.Changes() {
		t.row(one.What, one.Count, one.How)
	}
	if err := t.flush(); err != nil {
		return err
	}
	for i, r := range c.Blanked {
		if i == 20 {
			fmt.Fprintf(out, "... and %d more secrets\n", len(c.Blanked)-i)
			break
		}
		fmt.Fprintf(out, "  %s\n", r)
	}
	_, err := fmt.Fprintf(out, "\nE-mail and scheduled backups are off. In quarantine it connects to its own host only and runs no script:\n  tako server --data %s\n", data)
	return err
}

func instanceShowCommand() *cobra.Command {
	var o offline
	var format form
	cmd := &cobra.Command{
		Use: "show", Short: "Tell whether a data directory is that of a test instance", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, _, err := o.config(cmd)
			if err != nil {
				return err
			}
			m, err := app.Instance(cfg)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if format == formJSON {
				return printJSON(out, m)
			}
			if m == nil {
				_, err := fmt.Fprintf(out, "%s is the data directory of no test instance.\n", cfg.Data)
				return err
			}
			t := newTable(out, "MODE", "ID", "PARENT", "BACKUP", "CREATED")
			t.row(m.Mode, m.ID, m.Parent, m.Backup, m.Created.Format(time.RFC3339))
			return t.flush()
		},
	}
	o.flags(cmd)
	outputFlag(cmd, &format)
	return cmd
}

func instanceArmCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "arm", Short: "Let a test instance out of quarantine", Args: cobra.NoArgs,
		Long: `Makes an ordinary server of a test instance: from its next start on it connects to wherever
it is told to and runs scripts. The command asks for the installation id of the server
that it is a copy of (InstallationId of GET /api there), so that nobody lets out the wrong one.

Nothing is enabled again: triggers, subscriptions, targets and workers stay disabled, e-mail
and scheduled backups off, and the secrets that were taken out have to be entered again.`,
		Example: "  tako instance arm --data /var/lib/tako-test",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			parent, err := typed(cmd, "Type the installation id of the server that this is a copy of:")
			if err != nil {
				return err
			}
			if err := app.Arm(cmd.Context(), cfg, opt, parent); err != nil {
				return err
			}
			_, err = fmt.Fprint(cmd.OutOrStdout(), `The instance is out of quarantine from its next start on.
Still disabled, to be enabled one by one: triggers, subscriptions, deployment targets, workers, releases of
packages that come, automatic deployments of lifecycles, e-mail (its SMTP host), scheduled backups.
Still gone: the secrets that were taken out, and identities of token issuers.
`)
			return err
		},
	}
	o.flags(cmd)
	return cmd
}
