package cli

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"text/tabwriter"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

// settingFlags are those that configure an instance.
type settingFlags struct {
	set *pflag.FlagSet

	home, app, listenAddress, proxy string
	proxyPasswordFile               string
	port, connections               int
	noListen                        bool
	trust, distrust                 []string
}

func addSettings(flags *pflag.FlagSet) *settingFlags {
	f := &settingFlags{set: flags}
	flags.StringVar(&f.home, "home", "", "directory that the instance works in")
	flags.StringVar(&f.app, "app", "", "directory that packages are installed to (default: Applications below the home)")
	flags.IntVar(&f.port, "port", instance.DefaultPort, "port to listen on for servers")
	flags.StringVar(&f.listenAddress, "listen-address", "", "IP address to listen on (default: all of this machine's)")
	flags.BoolVar(&f.noListen, "no-listen", false, "do not listen: this instance only polls")
	flags.IntVar(&f.connections, "connections", 0, "connections to each server that is polled (default: 5, or one for each CPU)")
	flags.StringVar(&f.proxy, "proxy", "", "HTTP proxy through which servers are polled, http://[user[:password]@]host:port; others on this machine can see what stands here")
	flags.StringVar(&f.proxyPasswordFile, "proxy-password-file", "", "file with the password of the proxy's user (or the environment variable "+proxyPasswordVariable+")")
	flags.StringArrayVar(&f.trust, "trust", nil, "thumbprint of a server that may call this instance; may be repeated")
	flags.StringArrayVar(&f.distrust, "distrust", nil, "thumbprint of a server that is trusted no more; may be repeated")
	return f
}

// apply changes settings as the flags say that are there.
func (f *settingFlags) apply(s *instance.Settings) error {
	dir := func(flag, value string, into *string) error {
		if !f.set.Changed(flag) {
			return nil
		}
		abs, err := filepath.Abs(value)
		if err != nil || value == "" {
			return bad(flag, value, "give a directory")
		}
		*into = abs
		return nil
	}
	if err := errors.Join(dir("home", f.home, &s.Home), dir("app", f.app, &s.Applications)); err != nil {
		return err
	}
	if f.set.Changed("port") {
		if f.port < 1 || f.port > 65535 {
			return bad("port", fmt.Sprint(f.port), "give a port from 1 to 65535")
		}
		s.Port = f.port
	}
	if f.set.Changed("listen-address") {
		if f.listenAddress != "" && net.ParseIP(f.listenAddress) == nil {
			return bad("listen-address", f.listenAddress, "give an IP address of this machine, or an empty text for all")
		}
		s.ListenAddress = f.listenAddress
	}
	if f.set.Changed("no-listen") {
		s.NoListen = f.noListen
	}
	if f.set.Changed("connections") {
		if f.connections < 0 || f.connections > instance.MaxConnections {
			return bad("connections", fmt.Sprint(f.connections), fmt.Sprintf("give a number from 1 to %d, or 0 to have it chosen", instance.MaxConnections))
		}
		s.Connections = f.connections
	}
	if f.set.Changed("proxy") {
		proxy, err := f.proxyURL()
		if err != nil {
			return err
		}
		s.Proxy = proxy
	} else if f.proxyPasswordFile != "" {
		return usage("--proxy-password-file goes with --proxy, http://user@host:port; give both")
	}
	for _, text := range f.trust {
		thumbprint, err := halibut.ParseThumbprint(text)
		if err != nil {
			return bad("trust", text, "give the 40 hexadecimal digits of the server's thumbprint")
		}
		s.Trust(instance.Server{Thumbprint: thumbprint, Style: octopus.StyleListening})
	}
	for _, text := range f.distrust {
		thumbprint, err := halibut.ParseThumbprint(text)
		if err != nil {
			return bad("distrust", text, "give the 40 hexadecimal digits of the server's thumbprint")
		}
		s.Distrust(thumbprint)
	}
	return nil
}

// proxyPasswordVariable has the password of a proxy that is not to be seen by others on
// the machine, as command lines are.
const proxyPasswordVariable = "TAKO_AGENT_PROXY_PASSWORD" //nolint:gosec // the name of a variable

// proxyURL is the proxy of the flags, with its password.
func (f *settingFlags) proxyURL() (string, error) {
	u, err := instance.ParseProxy(f.proxy)
	if err != nil {
		return "", usage("--proxy: %w", err)
	}
	named, has := false, false
	if u != nil && u.User != nil {
		_, has = u.User.Password()
		named = u.User.Username() != ""
	}
	password, given := os.LookupEnv(proxyPasswordVariable)
	switch {
	case f.proxyPasswordFile != "" && (!named || has):
		return "", usage("--proxy-password-file goes with a user without a password in --proxy, http://user@host:port")
	case !named || has:
		return f.proxy, nil // what is in the environment is meant for another one
	case f.proxyPasswordFile != "":
		if password, err = filePassword(f.proxyPasswordFile); err != nil {
			return "", usage("--proxy-password-file: %w", err)
		}
	case !given:
		return f.proxy, nil
	}
	u.User = url.UserPassword(u.User.Username(), password)
	return u.String(), nil
}

func configureCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "configure", Short: "Make an instance of the agent, or change its settings",
		Long: `Makes an instance of the agent on this machine, or changes the settings of one that is
there: what no flag names stays as it is. A new instance gets a certificate of its own,
by whose thumbprint servers know it.

A running instance takes changes over within seconds; a new home or directory of
packages needs a restart.`,
		Example: `  ` + p.Name + ` configure
  ` + p.Name + ` configure --instance web --home /srv/agent --port 10934
  ` + p.Name + ` configure --no-listen
  ` + p.Name + ` configure --trust 3FB3EAC4F5D5F4E9C2D0B7C2A1908E7D6C5B4A39`,
	}
	name, f := instanceFlag(cmd.Flags()), addSettings(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := open(*name)
		if err != nil {
			return err
		}
		set, err := store.Configure(*name, f.apply)
		if err != nil {
			return err
		}
		id, err := store.Identity(*name)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "The instance %s is configured: home %s, thumbprint %s.\n", set.Name, set.Home, id.Thumbprint)
		return err
	}
	return cmd
}

// shown is an instance as it is listed, without what is secret.
type shown struct {
	Name, Home    string
	Thumbprint    halibut.Thumbprint
	Listen        bool
	ListenAddress string
	Port          int
	Servers       []instance.Server
}

func show(store instance.Store, name string) (*shown, error) {
	set, err := store.Load(name)
	if err != nil {
		return nil, err
	}
	id, err := store.Identity(name)
	if err != nil {
		return nil, err
	}
	return &shown{
		Name: set.Name, Home: set.Home, Thumbprint: id.Thumbprint, Listen: !set.NoListen, ListenAddress: set.ListenAddress, Port: set.Port,
		Servers: append([]instance.Server{}, set.Servers...),
	}, nil
}

func listInstancesCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "list-instances", Short: "List the instances on this machine, and the servers that they trust",
		Example: "  " + p.Name + " list-instances\n  " + p.Name + " list-instances --output json",
	}
	output := outputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := instance.DefaultStore()
		if err != nil {
			return err
		}
		names, err := store.Names()
		if err != nil {
			return err
		}
		all := []*shown{}
		var broken error
		for _, name := range names {
			one, err := show(store, name)
			if err != nil {
				broken = errors.Join(broken, err)
				continue
			}
			all = append(all, one)
		}
		err = printed(cmd, *output, all, func(w io.Writer) error {
			t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
			fmt.Fprintln(t, "NAME\tLISTENS\tTHUMBPRINT\tHOME\tSERVERS")
			for _, one := range all {
				listens := "no"
				if one.Listen {
					listens = net.JoinHostPort(one.ListenAddress, fmt.Sprint(one.Port))
				}
				servers := make([]string, len(one.Servers))
				for i, v := range one.Servers {
					servers[i] = v.String()
				}
				fmt.Fprintf(t, "%s\t%s\t%s\t%s\t%s\n", one.Name, listens, one.Thumbprint, one.Home, strings.Join(servers, ", "))
			}
			return t.Flush()
		})
		return errors.Join(err, broken)
	}
	return cmd
}

func showThumbprintCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "show-thumbprint", Short: "Print by which thumbprint servers know an instance",
		Example: "  " + p.Name + " show-thumbprint\n  " + p.Name + " show-thumbprint --instance web --output json",
	}
	name, output := instanceFlag(cmd.Flags()), outputFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := open(*name)
		if err != nil {
			return err
		}
		one, err := show(store, *name)
		if err != nil {
			return err
		}
		return printed(cmd, *output, map[string]string{"Name": one.Name, "Thumbprint": string(one.Thumbprint)}, func(w io.Writer) error {
			_, err := fmt.Fprintln(w, one.Thumbprint)
			return err
		})
	}
	return cmd
}

func deleteInstanceCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "delete-instance", Short: "Forget an instance, with its certificate",
		Long: `Forgets an instance: its settings and its certificate, without which it cannot be
reached any more. Its home, with whatever was deployed there, stays. Deregister it and
uninstall its service first.`,
		Example: "  " + p.Name + " delete-instance --instance web",
	}
	name := instanceFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if !cmd.Flags().Changed("instance") {
			return usage("--instance is missing: name the instance that is to be forgotten, --instance %s for the one without a name", instance.DefaultName)
		}
		store, err := open(*name)
		if err != nil {
			return err
		}
		set, err := store.Load(*name)
		if err != nil && fault.Is(err, fault.NotFound) {
			return err
		}
		if err := store.Remove(*name); err != nil {
			return err
		}
		home := ""
		if set != nil {
			home = "; its home " + set.Home + " is left"
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "The instance %s is forgotten%s.\n", *name, home)
		return err
	}
	return cmd
}
