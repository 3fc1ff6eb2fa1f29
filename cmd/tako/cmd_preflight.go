package main

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade/preflight"
	"github.com/takodeploy/tako/internal/upgrade/publish"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// notPassed ends a command that looked, and found something against an upgrade.
type notPassed struct{ err error }

// Error names what speaks against it.
func (e *notPassed) Error() string { return e.err.Error() }

// ExitCode is that of "preflight failed".
func (e *notPassed) ExitCode() int { return fault.ExitNotBegun }

// target is what is to be installed, and what is known of it.
type target struct{ root, to, channel, feed, minAgent, minTentacle string }

// preflightCommand is a step of an upgrade: the version that runs looks at its own data.
func preflightCommand() *cobra.Command {
	var o offline
	var t target
	var format string
	cmd := &cobra.Command{
		Use: "preflight", Short: "Look whether anything speaks against an upgrade", Args: cobra.NoArgs, Hidden: true,
		Long: `Looks whether anything speaks against an upgrade of this server from this version to
another, without a change and beside the server: the feed, the way, the new program, the
database, its schema, disks, permissions, clocks, keys, backups, running tasks, agents.

Exit codes: 0 nothing but warnings, 20 something speaks against it, 1 it could not look.`,
		Example: "  tako preflight --root /var/lib/tako --data /var/lib/tako/data --to 2026.5.0",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "table" && format != "json" {
				return usageError{fmt.Errorf("--output is %q; use table or json", format)}
			}
			if t.to == "" {
				return missing("to", "the version to upgrade to")
			}
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			in, err := t.input(cmd)
			if err != nil {
				return err
			}
			r, err := app.Preflight(cmd.Context(), cfg, opt, in)
			if err != nil {
				return err
			}
			if format == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(r)
			} else {
				err = r.WriteText(cmd.OutOrStdout())
			}
			if err != nil {
				return err
			}
			if err := r.Err(); err != nil {
				return &notPassed{err}
			}
			return nil
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&t.root, "root", "", "the supervisor's directory; none unless given")
	cmd.Flags().StringVar(&t.to, "to", "", "version to upgrade to")
	cmd.Flags().StringVar(&t.channel, "channel", "stable", "channel of the feed")
	cmd.Flags().StringVar(&t.feed, "feed-file", "", "file with the signed feed; the one that the version was fetched by, unless given")
	cmd.Flags().StringVar(&t.minAgent, "min-agent", "", "oldest version of Tako's agents that the new version deploys to")
	cmd.Flags().StringVar(&t.minTentacle, "min-tentacle", "", "oldest version of Octopus Tentacles that the new version deploys to")
	cmd.Flags().StringVar(&format, "output", "table", "table or json")
	return cmd
}

// input finds out about the target what its checks need.
func (t *target) input(cmd *cobra.Command) (in preflight.Input, err error) {
	in = preflight.Input{To: t.to, Root: t.root, MinAgent: t.minAgent, MinTentacle: t.minTentacle, Format: control.Format}
	builtin, err := base64.StdEncoding.DecodeString(releaseRoot)
	if err != nil {
		return in, fmt.Errorf("the root that this program was built with: %w", err)
	}
	store := stage.Open(t.root, builtin)
	trust, err := store.Trust()
	if err != nil {
		return in, err
	}
	in.Bad = slices.Sorted(maps.Keys(trust.Bad))
	in.Feed, in.FeedError = t.verified(store, &trust)
	if t.root == "" {
		return in, nil
	}
	if _, err := store.Manifest(t.to); err == nil {
		in.Program = store.Program(t.to)
	}
	r, err := supervisor.Ask(cmd.Context(), t.root, supervisor.Order{Do: "status"})
	in.Supervisor = &preflight.Supervisor{Error: err, Format: r.Format, Current: r.Current, Ducks: len(r.Ducks)}
	return in, nil
}

// verified reads the feed, and believes it or says why not.
func (t *target) verified(store *stage.Store, trust *stage.Trust) (*releasefeed.Verified, error) {
	path, seen := t.feed, trust.Seen[t.channel]
	if path == "" {
		if t.root == "" {
			return nil, errors.New("no --feed-file was given")
		}
		// Whoever fetched the version has held it against those that were seen; newer ones
		// may have been seen since, which says nothing against this one.
		seen.Number = 0
		path = filepath.Join(t.root, "versions", t.to, "feed.json")
	}
	root, err := store.Root()
	if err != nil {
		return nil, err
	}
	signed, err := publish.ReadFile(path, releasefeed.MaxDocument)
	if err != nil {
		return nil, err
	}
	return releasefeed.Verify(signed, root, t.channel, seen, time.Now())
}
