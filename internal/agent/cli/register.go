package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/takodeploy/tako/internal/agent/instance"
	"github.com/takodeploy/tako/internal/agent/register"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/octopus"
)

// registerFlags say what an instance is registered as, and how it is reached.
type registerFlags struct {
	server serverFlags
	comms  commsFlags

	machine        register.Machine
	participation  string
	style          string
	publicHostName string
	agentPort      int
}

// commsFlags say where a server is polled.
type commsFlags struct {
	port    int
	address string
}

func (f *commsFlags) add(flags *pflag.FlagSet) {
	port, _ := strconv.Atoi(halibut.DefaultServerPort) // a constant
	flags.IntVar(&f.port, "server-comms-port", port, "port at which the server is polled")
	flags.StringVar(&f.address, "server-comms-address", "", "where the server is polled, https://host:port/ (default: the host of --server)")
}

// at is the address that the flags give for a server.
func (f *commsFlags) at(server *url.URL) (string, error) {
	address := f.address
	switch {
	case f.port < 1 || f.port > 65535:
		return "", bad("server-comms-port", fmt.Sprint(f.port), "give a port from 1 to 65535")
	case address == "":
		address = "https://" + net.JoinHostPort(server.Hostname(), strconv.Itoa(f.port)) + "/"
	case !strings.Contains(address, "://"):
		address = "https://" + address
	}
	addr, err := halibut.ParseAddress(address, strconv.Itoa(f.port))
	if err != nil {
		return "", bad("server-comms-address", f.address, "give https://host:port/")
	}
	return "https://" + addr + "/", nil
}

// addKind adds the flags of a target or of a worker.
func (f *registerFlags) addKind(flags *pflag.FlagSet, target, worker bool) {
	if target {
		flags.StringArrayVar(&f.machine.Environments, "environment", nil, "environment of the target, by name, slug or id; may be repeated")
		flags.StringArrayVar(&f.machine.Roles, "role", nil, "tag of the target, by which steps choose it; may be repeated")
		flags.StringArrayVar(&f.machine.Tenants, "tenant", nil, "tenant that the target is for, by name, slug or id; may be repeated")
		flags.StringArrayVar(&f.machine.TenantTags, "tenant-tag", nil, "tenants that the target is for, as \"Tag set/Tag\"; may be repeated")
		flags.StringVar(&f.participation, "tenanted-deployment-participation", "", "Untenanted, Tenanted or TenantedOrUntenanted (default: Tenanted with --tenant or --tenant-tag)")
	}
	if worker {
		flags.StringArrayVar(&f.machine.Pools, "worker-pool", nil, "pool of the worker, by name, slug or id; may be repeated")
	}
}

func (f *registerFlags) add(flags *pflag.FlagSet) {
	f.server.add(flags, true)
	f.comms.add(flags)
	flags.StringVar(&f.machine.Name, "name", "", "what the machine is called at the server (default: its host name)")
	flags.StringVar(&f.machine.Policy, "policy", "", "machine policy (default: the space's)")
	flags.StringVar(&f.machine.ServerProxy, "server-proxy", "", "proxy of the space by which the server reaches an agent that listens")
	flags.BoolVar(&f.machine.Force, "force", false, "take the place of a machine that has the name already")
	flags.StringVar(&f.style, "comms-style", string(octopus.StyleListening), "TentaclePassive: the server dials this machine; TentacleActive: this machine polls the server")
	flags.StringVar(&f.publicHostName, "public-host-name", "", "name or address by which the server dials this machine (default: its host name)")
	flags.IntVar(&f.agentPort, "tentacle-comms-port", 0, "port by which the server dials this machine (default: that of the instance)")
}

// check reads the flags; what is left out is chosen.
func (f *registerFlags) check(token bool) error {
	m := &f.machine
	host, hostErr := os.Hostname()
	if m.Name == "" {
		if hostErr != nil {
			return usage("--name is missing, and this machine does not tell its host name: %w", hostErr)
		}
		m.Name = host
	}
	if f.publicHostName == "" {
		f.publicHostName = host
	}
	switch octopus.CommunicationStyle(f.style) {
	case octopus.StyleListening, octopus.StylePolling:
	default:
		return bad("comms-style", f.style, "give TentaclePassive (the server dials) or TentacleActive (it is polled)")
	}
	if f.agentPort < 0 || f.agentPort > 65535 {
		return bad("tentacle-comms-port", fmt.Sprint(f.agentPort), "give a port from 1 to 65535")
	}
	if strings.ContainsAny(f.publicHostName, "/ ") || f.publicHostName == "" && f.style == string(octopus.StyleListening) {
		return bad("public-host-name", f.publicHostName, "give a host name or an IP address")
	}
	if token {
		if given := len(m.Environments) + len(m.Roles) + len(m.Tenants) + len(m.TenantTags) + len(m.Pools); given > 0 || f.participation+m.Policy+m.ServerProxy+f.server.space != "" {
			return usage("a registration token says by itself what the machine becomes: leave out the space, its environments, roles, tenants, pools and policy")
		}
		return nil
	}
	return f.checkKind()
}

func (f *registerFlags) checkKind() error {
	m := &f.machine
	if m.Worker {
		if len(m.Pools) == 0 {
			return usage("--worker-pool is missing: name at least one pool that the worker is for")
		}
		return nil
	}
	switch {
	case len(m.Environments) == 0:
		return usage("--environment is missing: name at least one environment of the target")
	case len(m.Roles) == 0:
		return usage("--role is missing: give the target at least one tag, by which steps choose it")
	}
	m.Participation = octopus.TenantedDeploymentMode(f.participation)
	switch m.Participation {
	case octopus.Untenanted, octopus.Tenanted, octopus.TenantedOrUntenanted:
	case "":
		if m.Participation = octopus.Untenanted; len(m.Tenants)+len(m.TenantTags) > 0 {
			m.Participation = octopus.Tenanted
		}
	default:
		return bad("tenanted-deployment-participation", f.participation, "give Untenanted, Tenanted or TenantedOrUntenanted")
	}
	return nil
}

func registerCommand(p Program, worker bool) *cobra.Command {
	what, use := "deployment target", "register-with"
	example := `  ` + p.Name + ` register-with --server https://tako.example.com --environment Production --role web
  ` + p.Name + ` register-with --server https://tako.example.com --environment Test --role web --comms-style TentacleActive
  ` + p.Name + ` register-with --server https://tako.example.com --token tako-register-...`
	if worker {
		what, use = "worker", "register-worker"
		example = `  ` + p.Name + ` register-worker --server https://tako.example.com --worker-pool Builders
  ` + p.Name + ` register-worker --server https://tako.example.com --token tako-register-...`
	}
	cmd := &cobra.Command{
		Use: use, Short: "Register an instance with a server as a " + what,
		Long: `Registers an instance with a server as a ` + what + `, and has it trust that server. With
TentaclePassive the server dials this machine; with TentacleActive this machine polls the
server, which needs no open port here.

` + credentialsHelp,
		Example: example,
	}
	name := instanceFlag(cmd.Flags())
	f := &registerFlags{machine: register.Machine{Worker: worker}}
	f.add(cmd.Flags())
	f.addKind(cmd.Flags(), !worker, worker)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := open(*name)
		if err != nil {
			return err
		}
		to, err := f.server.read(cmd)
		if err != nil {
			return err
		}
		if err := f.check(to.register != ""); err != nil {
			return err
		}
		return f.run(cmd, store, *name, to)
	}
	return cmd
}

// run registers an instance and has it trust the server.
func (f *registerFlags) run(cmd *cobra.Command, store instance.Store, name string, to *target) error {
	ctx := cmd.Context()
	set, err := store.Load(name)
	if err != nil {
		return err
	}
	id, err := store.Identity(name)
	if err != nil {
		return err
	}
	proxy, err := instance.ParseProxy(set.Proxy)
	if err != nil {
		return err
	}
	m := f.machine
	m.Space = f.server.space
	trusted := instance.Server{Style: octopus.CommunicationStyle(f.style), URL: to.url.String()}
	m.Endpoint = octopus.Endpoint{CommunicationStyle: trusted.Style, Thumbprint: string(id.Thumbprint)}
	var met halibut.Thumbprint // whom a handshake has met
	if trusted.Style == octopus.StylePolling {
		if trusted.Address, err = f.comms.at(to.url); err != nil {
			return err
		}
		if met, err = register.Handshake(ctx, trusted.Address, proxy); err != nil {
			return err
		}
		// Who registers again keeps the name by which it is known.
		if trusted.Subscription = set.Subscription(met); trusted.Subscription == "" {
			trusted.Subscription = halibut.NewSubscription()
		}
		m.Endpoint.URI = string(trusted.Subscription)
	} else {
		if set.NoListen {
			return usage("the instance %s does not listen: register it with --comms-style %s, or run `configure --no-listen=false` first", set.Name, octopus.StylePolling)
		}
		port := f.agentPort
		if port == 0 {
			port = set.Port
		}
		m.Endpoint.URI = "https://" + net.JoinHostPort(f.publicHostName, strconv.Itoa(port)) + "/"
	}
	client, err := register.NewClient(to.url, proxy, to.cred)
	if err != nil {
		return err
	}
	defer client.Close()
	var done *register.Registered
	if to.register != "" {
		done, err = client.RegisterByToken(ctx, octopus.RegistrationCommand{Token: to.register, Name: m.Name, Endpoint: m.Endpoint})
	} else {
		m.Expect = met
		done, err = client.Register(ctx, m)
	}
	if err != nil {
		return explain(err)
	}
	if met != "" && met != done.Server {
		return fmt.Errorf("%s is registered, but cannot poll: at %s is the certificate %s, where the server's own is %s; is something between them?", done.MachineID, trusted.Address, met, done.Server)
	}
	trusted.Thumbprint = done.Server
	if _, err := store.Update(name, func(s *instance.Settings) error { s.Trust(trusted); return nil }); err != nil {
		return fmt.Errorf("%s is registered, but the instance does not trust the server yet: %w", done.MachineID, err)
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "The instance %s is registered as %s (%s, %s) at %s and trusts its certificate %s.\n", set.Name, done.Name, done.MachineID, done.SpaceID, to.url, done.Server)
	return err
}

// explain adds what to do about an answer of a server.
func explain(err error) error {
	var refused *register.StatusError
	if !errors.As(err, &refused) {
		return err
	}
	switch refused.Status {
	case 401:
		return fmt.Errorf("%w (check the API key, the token, or the name and password)", err)
	case 403:
		return fmt.Errorf("%w (who registers machines needs MachineCreate and MachineEdit for its environments, WorkerEdit for workers, and EnvironmentView)", err)
	}
	return err
}

func installCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "install", Short: "Configure an instance, register it and start its service, in one",
		Long: `Makes an instance of the agent on this machine, registers it with a server, and has the
machine run it as a service, from now on and at every start. Servers give this command
with a token that says what the machine becomes. It can be run again.

Needs root, since it installs a service; with --no-service it leaves that out.

` + credentialsHelp,
		Example: `  ` + p.Name + ` install --server https://tako.example.com --token tako-register-...
  ` + p.Name + ` install --server https://tako.example.com --token tako-register-... --comms-style TentacleActive
  ` + p.Name + ` install --server https://tako.example.com --environment Production --role web
  ` + p.Name + ` install --server https://tako.example.com --worker-pool Builders --no-service`,
	}
	name, s := instanceFlag(cmd.Flags()), addSettings(cmd.Flags())
	f := &registerFlags{}
	f.add(cmd.Flags())
	f.addKind(cmd.Flags(), true, true)
	noService := cmd.Flags().Bool("no-service", false, "install no service; `run` runs the instance")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := open(*name)
		if err != nil {
			return err
		}
		to, err := f.server.read(cmd)
		if err != nil {
			return err
		}
		if f.machine.Worker = len(f.machine.Pools) > 0; f.machine.Worker && len(f.machine.Environments)+len(f.machine.Roles) > 0 {
			return usage("--worker-pool makes the machine a worker, --environment and --role a deployment target; give one of them")
		}
		if err := f.check(to.register != ""); err != nil {
			return err
		}
		if !*noService { // before anything is done
			if err := p.Services.Check(); err != nil {
				return fmt.Errorf("%w; add --no-service, and run `%s run` in another way", err, p.Name)
			}
		}
		_, err = store.Configure(*name, func(set *instance.Settings) error {
			fresh := set.Home == ""
			if err := s.apply(set); err != nil {
				return err
			}
			if fresh && f.style == string(octopus.StylePolling) && !cmd.Flags().Changed("no-listen") && !cmd.Flags().Changed("port") {
				set.NoListen = true // nobody dials it
			}
			return nil
		})
		if err != nil {
			return err
		}
		if err := f.run(cmd, store, *name, to); err != nil {
			return err
		}
		if *noService {
			return nil
		}
		return startService(cmd.Context(), cmd, p, store, *name)
	}
	return cmd
}

func startService(ctx context.Context, cmd *cobra.Command, p Program, store instance.Store, name string) error {
	if err := installService(ctx, p, store, name, ""); err != nil {
		return err
	}
	if err := p.Services.Start(ctx, serviceName(name)); err != nil {
		return err
	}
	_, err := fmt.Fprintf(cmd.OutOrStdout(), "The service %s runs.\n", serviceName(name))
	return err
}
