package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
)

func containerCommand() *cobra.Command {
	var root string
	var wait time.Duration
	cmd := &cobra.Command{
		Use: "container [-- FLAGS OF THE SERVER]", Short: "Run the server as the first process of a container",
		Long: `Runs this program's server as the first process of a container, on the volume --root:
its data is in DIR/data, its backups in DIR/backups. What follows -- is passed on to the
server; most settings come from the environment (TAKO_TLS_CERT, TAKO_DATABASE).

Another version comes with another image, so nothing is switched over in here; 'tako
upgrade' prepares it, and is gone on with where it was cut short. Once the
image's server serves, it is noted on the volume as the current version, and the one
before as the previous. An image whose version cannot use the data any more does not
start, and says so.

SIGTERM ends the server cleanly. When the server ends by itself, so does the container,
with its exit code: 78 when a restart does not help.`,
		Example: "  tako container\n  tako container --root /data -- --tls-cert /certs/tako.pem --tls-key /certs/tako.key",
		RunE: func(cmd *cobra.Command, args []string) error {
			return runContainer(cmd, root, wait, args)
		},
	}
	cmd.Flags().StringVar(&root, "root", "/data", "directory of the volume")
	cmd.Flags().DurationVar(&wait, "wait", 10*time.Second, "how long to wait for a container before this one to leave the volume")
	return cmd
}

func runContainer(cmd *cobra.Command, root string, wait time.Duration, args []string) error {
	root, err := filepath.Abs(root)
	if err != nil {
		return usageError{err}
	}
	data := filepath.Join(root, "data")
	cfg, err := config.Load("", addresses(os.Environ()), map[string]string{"data": data})
	if err != nil {
		return usageError{err}
	}
	// The image has no other place to write to.
	for name, dir := range map[string]string{"TMPDIR": "tmp", "TAKO_BACKUPS": "backups"} {
		dir = filepath.Join(root, dir)
		if had := os.Getenv(name); had != "" && had != dir {
			continue
		}
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("prepare the volume: %w; it must belong to the user that the container runs as (%d)", err, os.Getuid())
		}
		if err := os.Setenv(name, dir); err != nil {
			return err
		}
	}
	exe, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	log := logger(cfg, cmd.ErrOrStderr())
	attended, stop := context.WithCancel(cmd.Context())
	defer stop()
	go attendImage(attended, root, upgrade.Worker{Program: exe, Settings: args, Environ: os.Environ()}, log)
	return supervisor.RunImage(cmd.Context(), supervisor.Config{
		Root: root, Args: append([]string{"server", "--data", data}, args...), Environ: os.Environ(),
		Stdout: os.Stdout, Stderr: os.Stderr, Log: log,
		Limits: supervisor.Limits{Bind: max(wait, time.Millisecond)},
	}, supervisor.Image{Version: version, Program: exe})
}

// attendImage goes on with the upgrade of a container that was cut short, from the moment on
// in which its server serves: then it is known which version does.
func attendImage(ctx context.Context, root string, worker upgrade.Worker, log *slog.Logger) {
	for {
		r, err := supervisor.Ask(ctx, root, supervisor.Order{Do: "status"})
		if err == nil && r.PID == os.Getpid() && r.Server != nil {
			break
		}
		if pause(ctx, time.Second) != nil {
			return
		}
	}
	attend(ctx, root, worker, true, log)
}
