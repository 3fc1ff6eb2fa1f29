package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
)

func demoCommand() *cobra.Command {
	var once bool
	cmd := &cobra.Command{
		Use: "demo", Short: "Start a server and deploy a real example", Args: cobra.NoArgs,
		Long: `Starts a server with embedded SQLite in ./tako-data, makes a project of a small web
service, pushes its package, and deploys a release to Dev: the package is unpacked,
its configuration file gets its values, the service starts, and its health is
checked over HTTP. Ctrl-C stops the server; running the demo again carries on with
the next release.

It needs node, which runs the example's service.`,
		Example: "  tako demo\n  tako demo --listen 127.0.0.1:9000 --data /tmp/tako --once",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := config.Load("", os.Environ(), given(cmd.Flags()))
			if err != nil {
				return usageError{err}
			}
			if cfg.AdminUsername == "" {
				cfg.AdminUsername = "admin"
			}
			if !cmd.Flags().Changed("log-level") {
				cfg.LogLevel = "warn" // the terminal is for the deployment
			}
			if !cmd.Flags().Changed("agent-listen") {
				cfg.AgentListen = "" // nothing that it shows polls
			}
			return runDemo(cmd.Context(), cfg, once, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	settings(cmd.Flags())
	cmd.Flags().BoolVar(&once, "once", false, "end when the deployment has ended")
	return cmd
}

// runDemo runs the server, and the example against it over HTTP.
func runDemo(ctx context.Context, cfg config.Config, once bool, out, errOut io.Writer) error {
	opt := app.Options{Log: logger(cfg, errOut), Version: version}
	a, err := app.New(ctx, cfg, opt)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Tako %s serves at %s, its data is in %s.\n", version, a.URL(), cfg.Data)
	g, ctx := errgroup.WithContext(ctx)
	ctx, stop := context.WithCancel(ctx)
	g.Go(func() error {
		defer stop()
		return a.Run(ctx)
	})
	g.Go(func() error {
		err := deployExample(ctx, cfg, opt, a.URL(), out)
		switch {
		case errors.Is(err, context.Canceled) && ctx.Err() != nil:
			return nil
		case err != nil:
			stop()
			return err
		case once:
			stop()
		default:
			fmt.Fprintln(out, "The server keeps running. Press Ctrl-C to stop it; the deployed service goes on.")
		}
		return nil
	})
	err = g.Wait()
	return errors.Join(err, a.Close())
}

func deployExample(ctx context.Context, cfg config.Config, opt app.Options, url string, out io.Writer) error {
	admin, err := app.OpenAdmin(ctx, cfg, opt)
	if err != nil {
		return err
	}
	key, err := admin.CreateAPIKey(ctx, cfg.AdminUsername, "demo")
	if err = errors.Join(err, admin.Close()); err != nil {
		return err
	}
	d := &demo{client: &client{url: url, key: key}, root: filepath.Join(cfg.Data, "demo"), out: out}
	if err := d.prepare(ctx); err != nil {
		return fmt.Errorf("prepare the example: %w", err)
	}
	return d.deploy(ctx, cfg)
}
