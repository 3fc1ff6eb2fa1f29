package main

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/supervisor/control"
)

func serverCommand() *cobra.Command {
	var file string
	var printConfig bool
	cmd := &cobra.Command{
		Use: "server", Short: "Run the server", Args: cobra.NoArgs,
		Long: `Runs the server. In an empty data directory it sets itself up: an SQLite database,
a master key, a default space. SIGTERM and Ctrl-C stop it cleanly; deployments that
are under way go on at the next start, and their scripts keep running meanwhile.

Every flag can also be set in the environment (--tls-cert is TAKO_TLS_CERT) and in
the file that --config names (tls_cert). Flags go before the environment, that
before the file.

The first administrator is made from TAKO_ADMIN_USERNAME with TAKO_ADMIN_PASSWORD or
TAKO_ADMIN_API_KEY, which are read at every start and never undo a later change.`,
		Example: `  tako server
  tako server --data /var/lib/tako --listen 0.0.0.0:8065 --tls-cert tako.pem --tls-key tako.key
  tako server --database postgres://tako@db.example.com/tako`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load(file, os.Environ(), given(cmd.Flags()))
			if err != nil {
				return usageError{err}
			}
			if printConfig {
				_, err := io.WriteString(cmd.OutOrStdout(), cfg.Print())
				return err
			}
			upgrades, err := upgradeOptions(file, given(cmd.Flags()))
			if err != nil {
				return err
			}
			return runServer(cmd.Context(), cfg, upgrades, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	settings(cmd.Flags())
	cmd.Flags().StringVar(&file, "config", "", "YAML file with settings")
	cmd.Flags().BoolVar(&printConfig, "print-config", false, "print the settings in force, without secrets, and end")
	return cmd
}

// settings makes a flag of every setting that may stand on a command line.
func settings(flags *pflag.FlagSet) {
	for _, f := range config.Fields() {
		switch {
		case f.Flag == "":
		case f.Bool:
			flags.Bool(f.Flag, f.Default == "true", f.Help)
		default:
			flags.String(f.Flag, f.Default, f.Help)
		}
	}
}

// given are the settings' flags that stand on the command line.
func given(flags *pflag.FlagSet) map[string]string {
	set := map[string]string{}
	for _, f := range config.Fields() {
		if flag := flags.Lookup(f.Flag); flag != nil && flag.Changed {
			set[f.Flag] = flag.Value.String()
		}
	}
	return set
}

// upgradeOptions are what an upgrade needs to know of this program and of how it was
// started. Settings go by the environment, since everybody may read the arguments of a
// process.
func upgradeOptions(file string, flags map[string]string) (app.UpgradeOptions, error) {
	root, err := base64.StdEncoding.DecodeString(releaseRoot)
	if err != nil {
		return app.UpgradeOptions{}, fmt.Errorf("the root that this program was built with: %w", err)
	}
	opt := app.UpgradeOptions{Commit: commit, CommitDate: commitDate, Root: root, Feed: releaseFeed}
	for _, pair := range os.Environ() {
		if !strings.HasPrefix(pair, control.Env+"=") { // which is for a server alone
			opt.Environ = append(opt.Environ, pair)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		opt.Environ = append(opt.Environ, "TAKO_"+strings.ToUpper(strings.ReplaceAll(name, "-", "_"))+"="+flags[name])
	}
	if file != "" {
		if file, err = filepath.Abs(file); err != nil {
			return opt, usageError{err}
		}
		opt.Settings = []string{"--config", file}
	}
	return opt, nil
}

// unavailableError is a server that cannot begin for want of its database, or of room, or
// that cannot go on since it does not know what became of a commit.
type unavailableError struct{ error }

func (e *unavailableError) Unwrap() error { return e.error }

// ExitCode tells the supervisor that another version would do no better.
func (*unavailableError) ExitCode() int { return fault.ExitUnavailable }

// unavailable makes an error that is one for want of the database, or of room, end the
// program as such.
func unavailable(err error) error {
	if fault.Is(err, fault.Unavailable) || errors.Is(err, db.ErrFateUnknown) {
		return &unavailableError{err}
	}
	return err
}

func runServer(ctx context.Context, cfg config.Config, upgrades app.UpgradeOptions, out, errOut io.Writer) error {
	started := time.Now()
	launch, err := control.Launched()
	if err != nil {
		return err
	}
	everyday := collectLess()
	a, err := app.New(ctx, cfg, app.Options{Log: logger(cfg, errOut), Version: version, Launch: launch, Upgrades: upgrades})
	if err != nil {
		return unavailable(err)
	}
	if at := a.AgentAddr(); at != nil {
		fmt.Fprintf(out, "Agents poll at %s.\n", at)
	}
	fmt.Fprintf(out, "Tako %s is ready at %s (started in %d ms)\n", version, a.URL(), time.Since(started).Milliseconds())
	everyday()
	err = a.Run(ctx)
	if closeErr := a.Close(); err == nil {
		err = closeErr
	}
	if errors.Is(err, db.ErrFateUnknown) {
		return &unavailableError{err}
	}
	if err == nil {
		fmt.Fprintln(out, "Tako has stopped.")
	}
	return err
}

// startGC is the growth of the heap, in per cent, after which it is collected during a
// start: a few MiB, of which a tenth of the time went into collecting.
const startGC = 400

// collectLess has the heap grow during a start, and returns what brings back the usual
// collection. Who has set it in the environment keeps what was set.
func collectLess() (everyday func()) {
	if os.Getenv("GOGC") != "" {
		return func() {}
	}
	usual := debug.SetGCPercent(startGC)
	return func() { debug.SetGCPercent(usual) }
}

func logger(cfg config.Config, w io.Writer) *slog.Logger {
	var level slog.Level
	if err := level.UnmarshalText([]byte(cfg.LogLevel)); err != nil {
		level = slog.LevelInfo
	}
	opt := &slog.HandlerOptions{Level: level}
	if cfg.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opt))
	}
	return slog.New(slog.NewTextHandler(w, opt))
}
