package daemon

import (
	"fmt"
	"strings"
)

// Unit is the service as a unit file of systemd.
//
// Scripts are what the service is for, and deployments may do anything to their
// machine: write anywhere, mount, use sudo. So nothing here closes the file system or
// takes away privileges that such scripts need. They outlive a restart of the service
// (KillMode), and get cgroups of their own (Delegate), by which they can be ended for
// certain; the death of one for want of memory is not that of the others (OOMPolicy).
func (s Service) Unit() string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s=%s\n", name, value) }
	b.WriteString("# Written by `service install`; changes belong into `systemctl edit " + s.Name + "`.\n[Unit]\n")
	line("Description", specifiers(s.Description))
	line("Wants", "network-online.target")
	line("After", "network-online.target")
	line("StartLimitIntervalSec", "0")
	b.WriteString("\n[Service]\n")
	line("Type", "notify")
	line("ExecStart", command(s.Exe, s.Args))
	for _, kv := range s.Env {
		line("Environment", quote(kv))
	}
	if s.User != "" {
		line("User", s.User)
	}
	line("Restart", "always")
	line("RestartSec", "5")
	line("KillMode", "process")
	line("SendSIGKILL", "yes")
	line("TimeoutStopSec", "30")
	line("Delegate", "yes")
	line("OOMPolicy", "continue")
	line("TasksMax", "infinity")
	line("LimitNOFILE", "65536")
	line("KeyringMode", "private")
	line("CapabilityBoundingSet", "~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_BLOCK_SUSPEND CAP_WAKE_ALARM")
	b.WriteString("\n[Install]\n")
	line("WantedBy", "multi-user.target")
	return b.String()
}

// command is a command line. The program's path comes without quotes where it can: some
// versions of systemd do not take them there.
func command(exe string, args []string) string {
	out := specifiers(exe)
	if strings.ContainsAny(exe, " \t\"'\\;$") {
		out = quote(exe)
	}
	for _, a := range args {
		if a != "" && !strings.ContainsAny(a, " \t\"'\\;$%") {
			out += " " + a
			continue
		}
		out += " " + strings.ReplaceAll(quote(a), "$", "$$")
	}
	return out
}

// specifiers keeps systemd from putting something in the place of %x.
func specifiers(s string) string { return strings.ReplaceAll(s, "%", "%%") }

func quote(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`, "%", "%%", "\n", `\n`).Replace(s) + `"`
}
