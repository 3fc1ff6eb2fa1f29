package main

import (
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

func upgradePruneCommand() *cobra.Command {
	var s site
	var output form
	var dry bool
	cmd := &cobra.Command{
		Use: "prune", Short: "Remove versions that nobody needs any more", Args: cobra.NoArgs,
		Long: `Removes programs of former versions from the disk, as each upgrade does when it is final.

These stay: the current version, the one that can be gone back to, the one that served
before the current one, what an upgrade needs that has not come to its end, what is pinned
('tako upgrade pin'), and what a process runs from. Older versions go. Newer ones, which
were tried and left again, go after two weeks; transfers that broke off, and bundles that
were sent to the server, after a day.`,
		Example: "  tako upgrade prune --dry-run\n  tako upgrade prune --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			p, err := upgrade.Prune(cmd.Context(), s.root, s.store, upgrade.Pruning{
				DryRun: dry, By: os.Getenv("USER"), Now: time.Now(),
				Tell: func(v upgrade.OnDisk) {
					fmt.Fprintf(cmd.ErrOrStderr(), "removing %s (%s)\n", v.Name, backup.Size(v.Bytes))
				},
			})
			if err != nil {
				return err
			}
			if output == formJSON {
				return printJSON(cmd.OutOrStdout(), p)
			}
			return printPruned(cmd, p)
		},
	}
	s.flags(cmd)
	outputFlag(cmd, &output)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be removed")
	return cmd
}

func printPruned(cmd *cobra.Command, p *upgrade.Pruned) error {
	goes := "removed"
	if p.DryRun {
		goes = "would be removed"
	}
	t := newTable(cmd.OutOrStdout(), "VERSION", "SIZE", "STATE", "REASON")
	for _, v := range p.Versions {
		state := "stays"
		if v.Removed {
			state = goes
		}
		t.row(v.Name, backup.Size(v.Bytes), state, v.Why)
	}
	if err := t.flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "%d versions %s (%s).\n", p.Count, goes, backup.Size(p.Bytes))
	return err
}

func upgradePinCommand() *cobra.Command {
	var s site
	var reason string
	cmd := &cobra.Command{
		Use: "pin VERSION", Short: "Keep a version on disk", Args: cobra.ExactArgs(1),
		Long: `Keeps the program of a version from being removed by upgrades and by 'tako upgrade prune',
until somebody unpins it.`,
		Example: "  tako upgrade pin 2026.4.0 --reason \"the audit needs it\"",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			if err := s.store.PinVersion(args[0], stage.VersionPin{Reason: reason, At: time.Now().UTC().Truncate(time.Second)}); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Version %s stays until it is unpinned.\n", args[0])
			return err
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&reason, "reason", "pinned by hand", "why it is kept, for people")
	return cmd
}

func upgradeUnpinCommand() *cobra.Command {
	var s site
	cmd := &cobra.Command{
		Use: "unpin VERSION", Short: "Let a version be removed that was pinned", Args: cobra.ExactArgs(1),
		Example: "  tako upgrade unpin 2026.4.0",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			if err := s.store.UnpinVersion(args[0]); err != nil {
				return err
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "Version %s is not pinned.\n", args[0])
			return err
		},
	}
	s.flags(cmd)
	return cmd
}
