package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/setup"
	"github.com/takodeploy/tako/internal/upgrade/publish"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// installOptions are the flags of install.
type installOptions struct {
	prefix, bundle, feed, trust, to, channel, listen, admin string
	noWorker, noStart, supervisorOnly                       bool
}

func installCommand() *cobra.Command {
	var o installOptions
	cmd := &cobra.Command{
		Use: "install", Short: "Install this machine's server as a service", Args: cobra.NoArgs,
		Long: `Installs the server on this machine: the user tako, /var/lib/tako with the program and
everything the server keeps, the supervisor in /usr/local/lib/tako, the command
/usr/local/bin/tako, the settings /etc/tako/tako.env, and a service of systemd, which is
started. Done again it changes nothing. On a machine with another version it changes
nothing either, and says how to upgrade.

What is installed is this very program; or, with --trust, a release from a bundle or a
feed, whose signature is checked against that file. install.sh, which calls this, checks
the program itself before it runs it.

The supervisor is the one part that no upgrade replaces. --supervisor-only replaces it with
this program and starts it anew, while the server goes on: it finds the server by its
socket. An older one does not replace a newer one.

With --prefix everything is laid out below a directory of your own, to try it without
being root; nothing is started then.`,
		Example: `  sudo ./tako install
  sudo ./tako install --bundle tako.bundle --trust root.1.json
  sudo ./tako install --supervisor-only
  ./tako install --prefix $HOME/tako`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := o.request()
			if err != nil {
				return err
			}
			done, err := setup.Install(cmd.Context(), r)
			if err != nil {
				return err
			}
			if r.SupervisorOnly {
				return replaced(cmd.OutOrStdout(), r, &done)
			}
			return installed(cmd.OutOrStdout(), r, &done)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.prefix, "prefix", "", "directory below which everything is laid out, instead of on the machine")
	f.StringVar(&o.bundle, "bundle", "", "bundle to install from")
	f.StringVar(&o.feed, "feed", "", "address of a feed to install from; upgrades look there too")
	f.StringVar(&o.trust, "trust", "", "file with the root whose keys must have signed the release")
	f.StringVar(&o.to, "to", "", "version to install; the newest unless given")
	f.StringVar(&o.channel, "channel", "stable", "channel of the feed")
	f.StringVar(&o.listen, "listen", "127.0.0.1:8065", "address to serve on, for new settings")
	f.StringVar(&o.admin, "admin", "admin", "user name of the first administrator, for new settings")
	f.BoolVar(&o.noWorker, "no-worker", false, "run nothing but the server on this machine, and close the service's unit tighter")
	f.BoolVar(&o.noStart, "no-start", false, "do not start the service")
	f.BoolVar(&o.supervisorOnly, "supervisor-only", false, "replace the supervisor of what is installed with this program, and nothing else")
	return cmd
}

func (o *installOptions) request() (*setup.Request, error) {
	layout, err := setup.Usual(o.prefix)
	if err != nil {
		return nil, usageError{err}
	}
	if err := setup.CheckListen(o.listen); err != nil {
		return nil, usageError{err}
	}
	if strings.ContainsAny(o.admin, "\n\"'") || o.admin == "" {
		return nil, usageError{fmt.Errorf("--admin is %q; use a user name", o.admin)}
	}
	r := &setup.Request{
		Layout: layout, Version: version, Program: "/proc/self/exe", Wanted: o.to, Channel: o.channel, Listen: o.listen, Admin: o.admin,
		NoWorker: o.noWorker, Start: !o.noStart, SupervisorOnly: o.supervisorOnly,
	}
	signed := o.bundle != "" || o.feed != ""
	switch {
	case o.bundle != "" && o.feed != "":
		return nil, usageError{errors.New("--bundle and --feed are two places to install from; name one")}
	case signed && o.trust == "":
		return nil, missing("trust", "the file with the root whose keys must have signed the release")
	case !signed && o.trust != "":
		return nil, usageError{errors.New("--trust goes with --bundle or --feed; without them this program installs itself")}
	case !signed:
		return r, nil
	}
	if r.TrustedRoot, err = publish.ReadFile(o.trust, releasefeed.MaxDocument); err != nil {
		return nil, err
	}
	r.Release = stage.Source{Feed: o.feed}
	if o.bundle != "" {
		if r.Release.Bundle, err = filepath.Abs(o.bundle); err != nil {
			return nil, err
		}
	}
	return r, nil
}

// installed says what was done, and what is next.
func installed(out io.Writer, r *setup.Request, done *setup.Done) error {
	if len(done.Changed) == 0 {
		fmt.Fprintf(out, "Tako %s is installed in %s; nothing had to be changed.\n", done.Version, r.Root)
		return nil
	}
	for _, path := range done.Changed {
		fmt.Fprintf(out, "  made %s\n", path)
	}
	fmt.Fprintf(out, "Tako %s is installed in %s.\n", done.Version, r.Root)
	if r.Release == (stage.Source{}) && done.Version != r.Version {
		fmt.Fprintf(out, "That version was here before, and is in service again; this one (%s) is for an upgrade.\n", r.Version)
	}
	command := setup.Service
	if r.Prefix != "" {
		command = r.Command()
	}
	as, run := "", ""
	if r.User != "" {
		as = "sudo "
	}
	switch {
	case done.Started:
		run = "It runs:                  systemctl status tako; journalctl -u tako"
	case done.Managed:
		run = "Start it:                 sudo systemctl start tako"
	default:
		run = fmt.Sprintf("There is no systemd to run it. Have whatever starts programs here run:\n                          %s%s supervise --root %s", as, command, r.Root)
	}
	_, err := fmt.Fprintf(out, `
%s
It serves:                http://%s (settings: %s)
An administrator's key:   %s%s admin create-api-key --user %s
Against a lost key:       %s%s key recovery-kit
`, run, r.Listen, r.Settings(), as, command, r.Admin, as, command)
	return err
}

// replaced says what has become of the supervisor.
func replaced(out io.Writer, r *setup.Request, done *setup.Done) error {
	for _, path := range done.Changed {
		fmt.Fprintf(out, "  made %s\n", path)
	}
	switch {
	case done.Former != 0:
		fmt.Fprintf(out, "The supervisor's program is version %s now. Process %d is still the one before: end it alone with `kill -9 %[2]d`, and have it started again if systemd does not; its server goes on meanwhile.\n", r.Version, done.Former)
	case len(done.Changed) == 0:
		fmt.Fprintf(out, "The supervisor is version %s; nothing had to be changed.\n", r.Version)
	default:
		fmt.Fprintf(out, "The supervisor is version %s now.\n", r.Version)
	}
	if done.Server != 0 {
		fmt.Fprintf(out, "The server (version %s, process %d) went on meanwhile.\n", done.Version, done.Server)
	}
	return nil
}

func uninstallCommand() *cobra.Command {
	var prefix string
	var purge, yes bool
	cmd := &cobra.Command{
		Use: "uninstall", Short: "Remove this machine's server; its data stays", Args: cobra.NoArgs,
		Long: `Stops the service and the built-in worker and removes the programs. Data, backups and
settings stay, and a later installation finds them, unless --purge removes them too: that
cannot be taken back.`,
		Example: "  sudo tako uninstall\n  sudo tako uninstall --purge",
		RunE: func(cmd *cobra.Command, _ []string) error {
			layout, err := setup.Usual(prefix)
			if err != nil {
				return usageError{err}
			}
			if purge && !yes {
				if err := confirmPurge(cmd, layout.Root); err != nil {
					return err
				}
			}
			out, err := setup.Uninstall(cmd.Context(), &setup.Removal{Layout: layout, Purge: purge})
			for _, path := range out.Gone {
				fmt.Fprintf(cmd.OutOrStdout(), "  removed %s\n", path)
			}
			if err != nil {
				return err
			}
			for _, pid := range out.Scripts {
				fmt.Fprintf(cmd.ErrOrStderr(), "A script of a deployment still runs: process %d.\n", pid)
			}
			if len(out.Kept) > 0 {
				_, err = fmt.Fprintf(cmd.OutOrStdout(), "The data is still in %s, and the settings are in %s; another installation finds them there.\n", out.Kept[0], out.Kept[1])
			}
			return err
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "directory below which it was installed")
	cmd.Flags().BoolVar(&purge, "purge", false, "remove data, backups, settings and user too")
	cmd.Flags().BoolVar(&yes, "yes", false, "do not ask")
	return cmd
}

// confirmPurge has the directory typed whose data is to go.
func confirmPurge(cmd *cobra.Command, root string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "This removes %s with the database, the master key and the backups in it. Type its path to go on: ", root)
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != root {
		return errors.New("nothing was removed: that is not the path")
	}
	return nil
}
