package cli

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/term"

	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/agent/register"
	"github.com/takodeploy/tako/octopus"
)

// Environment variables of what should not stand on a command line, which others on the
// machine can read.
const (
	envKey      = "TAKO_API_KEY"
	envToken    = "TAKO_TOKEN"
	envPassword = "TAKO_PASSWORD"
)

const credentialsHelp = `The server wants to know on whose behalf: by an API key (TAKO_API_KEY, --api-key-file,
--api-key), a token (TAKO_TOKEN, --token-file, --token), or a user's name and password
(--username with TAKO_PASSWORD or --password-file; else it is asked for). A file "-" is
standard input. What stands on the command line others on this machine may read.`

// registerPrefix begins registration tokens; other tokens are of access.
const registerPrefix = "tako-register-"

// maxSecret is the largest file that a secret is read from, in bytes.
const maxSecret = 64 << 10

// serverFlags say which server, and on whose behalf.
type serverFlags struct {
	server, space, username              string
	apiKey, apiKeyFile, token, tokenFile string
	password, passwordFile               string
}

func (f *serverFlags) add(flags *pflag.FlagSet, space bool) {
	flags.StringVar(&f.server, "server", "", "URL of the server, https://tako.example.com")
	flags.StringVar(&f.apiKey, "api-key", "", "API key; better in TAKO_API_KEY or a file")
	flags.StringVar(&f.apiKeyFile, "api-key-file", "", "file with the API key, - for standard input")
	flags.StringVar(&f.token, "token", "", "registration token or access token")
	flags.StringVar(&f.tokenFile, "token-file", "", "file with the token, - for standard input")
	flags.StringVar(&f.username, "username", "", "name of a user who signs in with a password")
	flags.StringVar(&f.password, "password", "", "password of the user; better in TAKO_PASSWORD or a file")
	flags.StringVar(&f.passwordFile, "password-file", "", "file with the password, - for standard input")
	if space {
		flags.StringVar(&f.space, "space", "", "space, by name, slug or id (default: the default space)")
	}
}

// target is a server and by what it is spoken to.
type target struct {
	url  *url.URL
	cred register.Credentials
	// register is a registration token, in the place of credentials.
	register octopus.PlainSecret
}

// read finds the server and the credentials: on the command line, in files, in the
// environment, and at last the password at the terminal.
func (f *serverFlags) read(cmd *cobra.Command) (*target, error) {
	if f.server == "" {
		return nil, usage("--server is missing: give the server's URL, such as https://tako.example.com")
	}
	at, err := register.ParseServer(f.server)
	if err != nil {
		return nil, bad("server", f.server, err.Error())
	}
	to := &target{url: at}
	given := 0
	for _, flag := range []string{"api-key", "api-key-file", "token", "token-file", "username"} {
		if cmd.Flags().Changed(flag) {
			given++
		}
	}
	if given > 1 {
		return nil, usage("give one of --api-key, --api-key-file, --token, --token-file and --username; there are %d", given)
	}
	if f.username != "" {
		to.cred.Username = f.username
		to.cred.Password, err = f.readPassword(cmd)
		return to, err
	}
	var key, token string
	if given == 0 { // a flag goes before the environment
		key, token = os.Getenv(envKey), os.Getenv(envToken)
	}
	if f.apiKey+f.apiKeyFile != "" {
		if key, err = secret(cmd, f.apiKey, "api-key-file", f.apiKeyFile); err != nil {
			return nil, err
		}
	}
	if f.token+f.tokenFile != "" {
		if token, err = secret(cmd, f.token, "token-file", f.tokenFile); err != nil {
			return nil, err
		}
	}
	switch {
	case key != "" && token != "":
		return nil, usage("there are both an API key and a token in the environment (%s, %s); keep one", envKey, envToken)
	case strings.HasPrefix(token, registerPrefix):
		to.register = octopus.PlainSecret(token)
	case token != "":
		to.cred.Bearer = octopus.PlainSecret(token)
	case key != "":
		to.cred.APIKey = octopus.PlainSecret(key)
	default:
		return nil, usage("the server wants to know on whose behalf: set %s, or give --token, --api-key-file or --username", envKey)
	}
	return to, nil
}

func (f *serverFlags) readPassword(cmd *cobra.Command) (octopus.PlainSecret, error) {
	if f.password+f.passwordFile != "" {
		text, err := secret(cmd, f.password, "password-file", f.passwordFile)
		return octopus.PlainSecret(text), err
	}
	if text := os.Getenv(envPassword); text != "" {
		return octopus.PlainSecret(text), nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", usage("the password of %q is missing: set %s, or give --password-file", f.username, envPassword)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Password of %s: ", f.username)
	text, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	if err != nil {
		return "", fmt.Errorf("read the password: %w", err)
	}
	return octopus.PlainSecret(text), nil
}

// secret is a value, or the first line of a file.
func secret(cmd *cobra.Command, value, flag, file string) (string, error) {
	if value != "" {
		return value, nil
	}
	in := cmd.InOrStdin()
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return "", usage("--%s: %w", flag, err)
		}
		defer f.Close()
		in = f
	}
	line, err := bufio.NewReader(io.LimitReader(in, maxSecret)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", usage("--%s %q: %w", flag, file, err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", bad(flag, file, "its first line is empty; it must be the secret")
	}
	return line, nil
}

func pollServerCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "poll-server", Short: "Poll a further node of a server that is polled already",
		Long: `Has an instance poll a further node of a server that it is registered with as
TentacleActive: each node of a server has work for it. It changes nothing at the server.

` + credentialsHelp,
		Example: "  " + p.Name + " poll-server --server https://node2.example.com",
	}
	name := instanceFlag(cmd.Flags())
	var f serverFlags
	var comms commsFlags
	f.add(cmd.Flags(), false)
	comms.add(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := open(*name)
		if err != nil {
			return err
		}
		to, err := f.read(cmd)
		if err != nil {
			return err
		}
		if to.register != "" {
			return usage("--token: a registration token registers a machine and does nothing else; use an API key")
		}
		set, err := store.Load(*name)
		if err != nil {
			return err
		}
		proxy, err := instance.ParseProxy(set.Proxy)
		if err != nil {
			return err
		}
		address, err := comms.at(to.url)
		if err != nil {
			return err
		}
		met, err := register.Handshake(cmd.Context(), address, proxy)
		if err != nil {
			return err
		}
		client, err := register.NewClient(to.url, proxy, to.cred)
		if err != nil {
			return err
		}
		defer client.Close()
		thumbprint, err := client.Thumbprint(cmd.Context())
		switch {
		case err != nil:
			return explain(err)
		case met != thumbprint:
			return fmt.Errorf("at %s is the certificate %s, where the server's own is %s; is something between them?", address, met, thumbprint)
		case set.Subscription(thumbprint) == "":
			return fmt.Errorf("the instance %s does not poll the server with the certificate %s yet; register it first, with --comms-style %s", set.Name, thumbprint, octopus.StylePolling)
		}
		_, err = store.Update(*name, func(s *instance.Settings) error {
			s.Trust(instance.Server{Thumbprint: thumbprint, Style: octopus.StylePolling, Address: address, Subscription: s.Subscription(thumbprint), URL: to.url.String()})
			return nil
		})
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "The instance %s polls %s too.\n", set.Name, address)
		return err
	}
	return cmd
}

func deregisterCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "deregister", Aliases: []string{"deregister-from", "deregister-worker-from"}, Short: "Delete an instance's machines at a server, and trust it no more",
		Long: `Deletes the targets and workers of a space that have the instance's thumbprint, and has
the instance trust the server no more. With --keep-trust it goes on to: for one that is
registered in other spaces too.

` + credentialsHelp,
		Example: "  " + p.Name + " deregister --server https://tako.example.com\n  " + p.Name + " deregister --server https://tako.example.com --space Web --keep-trust",
	}
	name := instanceFlag(cmd.Flags())
	var f serverFlags
	f.add(cmd.Flags(), true)
	keep := cmd.Flags().Bool("keep-trust", false, "go on to trust the server")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := open(*name)
		if err != nil {
			return err
		}
		to, err := f.read(cmd)
		if err != nil {
			return err
		}
		if to.register != "" {
			return usage("--token: a registration token registers a machine and does nothing else; use an API key")
		}
		set, err := store.Load(*name)
		if err != nil {
			return err
		}
		id, err := store.Identity(*name)
		if err != nil {
			return err
		}
		proxy, err := instance.ParseProxy(set.Proxy)
		if err != nil {
			return err
		}
		client, err := register.NewClient(to.url, proxy, to.cred)
		if err != nil {
			return err
		}
		defer client.Close()
		gone, server, err := client.Deregister(cmd.Context(), f.space, id.Thumbprint)
		for _, machine := range gone {
			fmt.Fprintf(cmd.OutOrStdout(), "The machine %s is deleted.\n", machine)
		}
		if err != nil {
			return explain(err)
		}
		if len(gone) == 0 {
			fmt.Fprintf(cmd.OutOrStdout(), "The server has no machine with the thumbprint %s there.\n", id.Thumbprint)
		}
		if *keep {
			return nil
		}
		_, err = store.Update(*name, func(s *instance.Settings) error { s.Distrust(server); return nil })
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "The instance %s trusts the server %s no more.\n", set.Name, server)
		return err
	}
	return cmd
}
