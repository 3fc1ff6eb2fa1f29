package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/publish"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// Set by the linker: the signed root of the project in base64, and the address of its
// feed. Both are empty in a program that somebody has built themselves.
var (
	releaseRoot = ""
	releaseFeed = ""
)

// Exit codes of upgrades.
const (
	exitNothingNewer  = 10
	exitNotBegun      = fault.ExitNotBegun
	exitRolledBack    = 30
	exitNeedsOperator = 40
)

// outcome ends a command about an upgrade.
type outcome struct {
	code int
	text string
}

func (e *outcome) Error() string { return e.text }
func (e *outcome) ExitCode() int { return e.code }

// site is a supervisor's directory with what is needed to upgrade it.
type site struct {
	o    offline
	root string

	store    *stage.Store
	cfg      upgrade.Config
	settings config.Config // of the server
	image    bool          // it is the volume of a container, as whoever answers for it says
}

func (s *site) flags(cmd *cobra.Command) {
	s.o.flags(cmd)
	if f := cmd.Flags().Lookup("data"); f != nil {
		f.Hidden = true // it follows from --root
	}
	cmd.Flags().StringVar(&s.root, "root", "", "the supervisor's directory; that of this program if it is one of its versions, the volume in a container")
}

// open finds out what the commands need.
func (s *site) open(cmd *cobra.Command) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	if s.root == "" {
		if s.root = ownRoot(exe); s.root == "" {
			return missing("root", "the directory that 'tako supervise' has as its --root")
		}
	}
	root, err := filepath.Abs(s.root)
	if err != nil {
		return usageError{err}
	}
	s.root = root
	if _, err := os.Lstat(filepath.Join(root, "current")); err != nil {
		return usageError{fmt.Errorf("%s is no directory of 'tako supervise': %w", root, err)}
	}
	if err := refuseRoot(root); err != nil {
		return err
	}
	data := filepath.Join(root, "data")
	if err := cmd.Flags().Set("data", data); err != nil {
		return err
	}
	if s.settings, _, err = s.o.config(cmd); err != nil {
		return err
	}
	builtin, err := base64.StdEncoding.DecodeString(releaseRoot)
	if err != nil {
		return fmt.Errorf("the root that this program was built with: %w", err)
	}
	s.store = stage.Open(root, builtin)
	s.cfg = upgrade.Config{Root: root, Store: s.store, Data: data, Environ: os.Environ(), Version: version, Program: exe}
	// By the environment, since everybody may read the arguments of a process.
	for name, value := range given(cmd.Flags()) {
		s.cfg.Environ = append(s.cfg.Environ, "TAKO_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+value)
	}
	if s.o.file != "" {
		file, err := filepath.Abs(s.o.file)
		if err != nil {
			return usageError{err}
		}
		s.cfg.Settings = []string{"--config", file}
	}
	return nil
}

// ownRoot is the supervisor's directory that a program is in, or the volume of its container:
// an image says by its environment where the data is. "" if it is in neither.
func ownRoot(exe string) string {
	if versions := filepath.Dir(filepath.Dir(exe)); filepath.Base(versions) == "versions" {
		return filepath.Dir(versions)
	}
	root, name := filepath.Split(os.Getenv("TAKO_DATA"))
	if _, err := os.Lstat(filepath.Join(root, "current")); root == "" || name != "data" || err != nil {
		return ""
	}
	return root
}

// wanted is which release somebody wants, and from where.
type wanted struct{ to, bundle, feed, channel string }

func (w *wanted) flags(cmd *cobra.Command) {
	cmd.Flags().StringVar(&w.to, "to", "", "version to upgrade to; the newest unless given")
	cmd.Flags().StringVar(&w.bundle, "bundle", "", "bundle to take the release from, instead of a feed")
	cmd.Flags().StringVar(&w.feed, "feed", "", "address of the feed; the one of 'tako upgrade trust' unless given")
	cmd.Flags().StringVar(&w.channel, "channel", "", "channel of the feed; that of the settings (stable) unless given")
}

// request is what to ask the store for.
func (s *site) request(ctx context.Context, w *wanted) (stage.Request, error) {
	r := stage.Request{Source: stage.Source{Feed: w.feed}, Channel: cmp.Or(w.channel, s.settings.UpgradeChannel), Wanted: w.to, Now: time.Now()}
	if w.bundle != "" {
		path, err := filepath.Abs(w.bundle)
		if err != nil {
			return r, usageError{err}
		}
		r.Source.Bundle = path
	}
	if r.Source.Feed == "" && r.Source.Bundle == "" {
		t, err := s.store.Trust()
		if err != nil {
			return r, err
		}
		if r.Source.Feed = t.Feed; r.Source.Feed == "" {
			r.Source.Feed = releaseFeed
		}
		if r.Source.Feed == "" {
			return r, missing("feed", "the address of a feed, once and for all with 'tako upgrade trust --feed URL', or a --bundle")
		}
	}
	report, err := supervisor.Ask(ctx, s.root, supervisor.Order{Do: "status"})
	r.Version = report.Current
	if s.image = report.Image != ""; s.image {
		r.Version = report.Image
	}
	return r, err
}

// offer finds out what there is, and says it.
func (s *site) offer(cmd *cobra.Command, r stage.Request) (*stage.Offer, error) {
	offer, err := s.store.Check(cmd.Context(), r)
	var no *releasefeed.NoChoice
	switch {
	case errors.As(err, &no) && no.Newest:
		return nil, &outcome{exitNothingNewer, no.Error()}
	case err != nil:
		return nil, &outcome{exitNotBegun, err.Error()}
	}
	out := cmd.OutOrStdout()
	fmt.Fprintf(out, "%s -> %s (of %s)\n", r.Version, offer.Release.Version, offer.Release.Date.Format(time.DateOnly))
	if offer.Stop {
		fmt.Fprintf(out, "Version %s is to be visited on the way to %s; upgrade again afterwards.\n", offer.Release.Version, offer.Wanted)
	}
	if offer.Release.Security {
		fmt.Fprintln(out, "It closes a security hole.")
	}
	if offer.Expired {
		fmt.Fprintln(out, "The feed has expired: a newer one may have been kept from this server.")
	}
	fmt.Fprintln(out, (&upgrade.Plan{Restore: offer.Rollback == releasefeed.RollbackRestore}).WayBack())
	if offer.Release.Notes != "" {
		fmt.Fprintln(out, offer.Release.Notes)
	}
	return offer, nil
}

func upgradeCommand() *cobra.Command {
	var s site
	var w wanted
	var dry, yes, accept bool
	var hold, probation time.Duration
	cmd := &cobra.Command{
		Use: "upgrade", Short: "Upgrade a supervised server without an outage, and go back", Args: cobra.NoArgs,
		Long: `Upgrades a server that runs under 'tako supervise': fetches the release and checks its
signature, takes a backup and proves it, has the new version work on a copy, expands the
schema, switches over without closing a socket, watches the new version, and goes back by
itself if that is not well. The upgrade goes on when this command is interrupted.

Until it is finalized (by itself after --hold, or by 'tako upgrade finalize') the old
version can take over again at any time, without a restore and without a loss, unless the
feed says of the release that only a restore leads back; then that is said before.

In a container nothing is switched over: the upgrade is prepared up to the expanded schema,
while the server goes on, and waits until somebody starts the container with the image of
the new version. Nobody watches that one, and back leads the image of the old version.

Settings that 'tako supervise' got after -- or from its environment (--database, --config)
are needed here too.

Exit codes: 0 done, 10 nothing newer, 20 given up before the switch, 30 rolled back (the
service is fine), 40 needs an operator, 75 another upgrade is under way.`,
		Example: `  tako upgrade check
  tako upgrade --dry-run
  tako upgrade --to 2026.5.0 --yes
  tako upgrade --bundle tako-2026.5.0.bundle
  tako upgrade rollback`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if hold < 0 || probation < 0 {
				return usageError{errors.New("--hold and --probation are 0 or more")}
			}
			if err := s.open(cmd); err != nil {
				return err
			}
			if err := upgrade.Busy(s.root); err != nil {
				return err
			}
			r, err := s.request(cmd.Context(), &w)
			if err != nil {
				return err
			}
			offer, err := s.offer(cmd, r)
			if err != nil {
				return err
			}
			p := upgrade.Plan{
				From: r.Version, To: offer.Release.Version, ToLevel: offer.Release.Level, Hold: hold, Probation: probation,
				Channel: r.Channel, Feed: r.Source.Feed, Bundle: r.Source.Bundle, By: os.Getenv("USER"),
				AcceptDifferences: accept, Image: s.image, Restore: offer.Rollback == releasefeed.RollbackRestore,
			}
			if dry {
				return s.inspect(cmd, p, offer)
			}
			if !yes {
				question := "Upgrade now?"
				if p.Restore {
					question = "Going back would lose what is written from the backup on. Upgrade now?"
				}
				if err := confirm(cmd, question); err != nil {
					return err
				}
			}
			id, err := upgrade.Begin(s.root, p, time.Now())
			if err != nil {
				return err
			}
			return s.carryOut(cmd, id, upgrade.Committed)
		},
	}
	s.flags(cmd)
	w.flags(cmd)
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only look whether anything speaks against it")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	cmd.Flags().BoolVar(&accept, "accept-differences", false, "go on though the rehearsal shows that the new version does other things with the same data")
	cmd.Flags().DurationVar(&hold, "hold", 72*time.Hour, "how long to wait until it is finalized by itself")
	cmd.Flags().DurationVar(&probation, "probation", 10*time.Minute, "how long to watch the new version")
	cmd.AddCommand(upgradeCheckCommand(), upgradeTrustCommand(), upgradeStatusCommand(), upgradeHistoryCommand(), upgradeRollbackCommand(),
		upgradeFinalizeCommand(), upgradeHoldCommand(), upgradeResumeCommand(), upgradeAbortCommand(), upgradePruneCommand(), upgradePinCommand(), upgradeUnpinCommand())
	return cmd
}

func (s *site) inspect(cmd *cobra.Command, p upgrade.Plan, offer *stage.Offer) error {
	report, err := upgrade.Inspect(cmd.Context(), s.cfg, p, offer)
	if err == nil {
		err = report.WriteText(cmd.OutOrStdout())
	}
	if err == nil {
		err = report.Err()
	}
	if err != nil {
		return &outcome{exitNotBegun, err.Error()}
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), "Nothing speaks against it.")
	return err
}

// confirm asks on a terminal.
func confirm(cmd *cobra.Command, question string) error {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) { //nolint:gosec // a descriptor is small
		return usageError{errors.New("--yes is missing, and nobody can be asked here")}
	}
	fmt.Fprint(cmd.ErrOrStderr(), question+" [y/N] ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if answer := strings.ToLower(strings.TrimSpace(line)); err != nil || answer != "y" && answer != "yes" {
		return errors.New("nothing was done")
	}
	return nil
}

func upgradeCheckCommand() *cobra.Command {
	var s site
	var w wanted
	cmd := &cobra.Command{
		Use: "check", Short: "Look whether there is something to upgrade to; download nothing", Args: cobra.NoArgs,
		Long: "Looks whether there is something to upgrade to. Nothing but the feed is downloaded.\n\nExit codes: 0 there is, 10 nothing newer, 20 the feed is not believed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			r, err := s.request(cmd.Context(), &w)
			if err != nil {
				return err
			}
			_, err = s.offer(cmd, r)
			return err
		},
	}
	s.flags(cmd)
	w.flags(cmd)
	return cmd
}

func upgradeTrustCommand() *cobra.Command {
	var s site
	var feed string
	var replace bool
	cmd := &cobra.Command{
		Use: "trust [ROOT-FILE]", Short: "Trust the keys that sign releases, and remember where the feed is", Args: cobra.MaximumNArgs(1),
		Example: "  tako upgrade trust root.1.json --feed https://releases.example.com/tako/feed.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			if len(args) == 0 && feed == "" {
				return usageError{errors.New("name the file of a root, or --feed")}
			}
			for _, path := range args {
				raw, err := publish.ReadFile(path, releasefeed.MaxDocument)
				if err != nil {
					return err
				}
				root, err := s.store.Pin(raw, replace)
				if err != nil {
					return err
				}
				fmt.Fprintf(cmd.OutOrStdout(), "Root %d is trusted: %d of its %d keys must sign.\n", root.Version, root.Threshold, len(root.Keys))
				for _, k := range root.Keys {
					fmt.Fprintln(cmd.OutOrStdout(), "key", releasefeed.KeyID(k))
				}
			}
			if feed == "" {
				return nil
			}
			return s.store.UseFeed(feed)
		},
	}
	s.flags(cmd)
	cmd.Flags().StringVar(&feed, "feed", "", "address of the feed to look at from now on")
	cmd.Flags().BoolVar(&replace, "replace", false, "trust these keys instead of those that are trusted, which do not vouch for them")
	return cmd
}

// upgradeWorkerCommand is the process that carries an upgrade out.
func upgradeWorkerCommand() *cobra.Command {
	var s site
	cmd := &cobra.Command{
		Use: "upgrade-worker", Short: "Carry an upgrade out", Args: cobra.NoArgs, Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := s.open(cmd); err != nil {
				return err
			}
			s.cfg.Log = cmd.ErrOrStderr()
			c, err := upgrade.Open(s.cfg)
			if err != nil {
				return err
			}
			_, err = c.Run(cmd.Context())
			return errors.Join(err, c.Close())
		},
	}
	s.flags(cmd)
	return cmd
}

// begin starts the process that carries the upgrade out, unless one does.
func (s *site) begin() error { return startWorker(s.root, s.cfg.Settings, s.cfg.Environ) }

func startWorker(root string, flags, environ []string) error {
	exe, err := os.Executable()
	if err != nil {
		return err
	}
	return upgrade.Worker{Program: exe, Settings: flags, Environ: environ}.Start(root)
}

// attendUpgrades goes on with an upgrade that was cut short, by a loss of power or a kill
// of the process that carried it out, until ctx ends. flags are those of the server,
// among which are its settings. The version that is current does the work, and not this
// program, which may be older than all of them.
func attendUpgrades(ctx context.Context, root string, flags []string, log *slog.Logger) {
	attend(ctx, root, upgrade.Worker{Program: filepath.Join(root, "current", "tako"), Settings: flags, Environ: os.Environ()}, false, log)
}

// attend has a worker go on with an upgrade that was cut short: one of a container, or one of
// a supervisor.
func attend(ctx context.Context, root string, worker upgrade.Worker, image bool, log *slog.Logger) {
	said, before := "", true // a supervisor that begins need not wait
	var again retries
	for {
		alone, err := upgrade.Unattended(root, image)
		if err == nil && alone && before {
			mark := int64(0)
			if info, err := os.Stat(filepath.Join(upgrade.Dir(root), "journal.jsonl")); err == nil {
				mark = info.Size() // each step is written there
			}
			if again.due(time.Now(), mark) {
				log.Info("an upgrade was cut short; going on with it", "try", again.tries)
				err = worker.Start(root)
			}
		}
		before = alone // once may be the moment in which somebody else starts it
		if err != nil && err.Error() != said {
			said = err.Error()
			log.Error("go on with an upgrade", "err", err)
		}
		if pause(ctx, attendEvery) != nil {
			return
		}
	}
}
