package setup

import (
	"fmt"
	"net"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
)

// settings are what a new installation starts with.
func (i *install) settings() string {
	worker := "# The server runs steps without a target on this machine, as the service's user.\n# Scripts of such steps may read what that user may, its data included.\n#TAKO_BUILTIN_WORKER=false\n"
	if i.NoWorker {
		worker = "# Nothing but the server runs on this machine; steps need agents or SSH targets.\nTAKO_BUILTIN_WORKER=false\n"
	}
	return fmt.Sprintf(`# Settings of the Tako server: NAME=value, without quotes. The service reads them when it
# starts (systemctl restart tako), and the command 'tako' each time. 'tako server --help'
# has all of them.

# Where it serves. Other machines reach it at 0.0.0.0:8065; then use TLS, or a proxy that does.
TAKO_LISTEN=%s
#TAKO_TLS_CERT=/etc/tako/tls.pem
#TAKO_TLS_KEY=/etc/tako/tls.key

# Made at the first start, without a password: 'tako admin' gives a key or a password.
TAKO_ADMIN_USERNAME=%s

TAKO_BACKUPS=%s/backups

%s
# PostgreSQL instead of SQLite:
#TAKO_DATABASE=postgres://tako@db.example.com/tako
`, i.Listen, i.Admin, i.Root, worker)
}

// command is what people call. Root becomes the service's user, so that no file in its
// directories belongs to root afterwards, and that root runs nothing which that user
// could have changed. The supervisor's program, which is root's, does that: it keeps root's
// terminal from what it runs (asUser).
func (i *install) command() string {
	as := ""
	if i.User != "" {
		as = fmt.Sprintf("[ \"$(id -u)\" != 0 ] || exec '%s' %s %s \"$program\" \"$@\"\n", i.Supervisor(), verbAsUser, i.User)
	}
	return fmt.Sprintf(`#!/bin/sh
# Written by 'tako install'. Runs the version of Tako that is current, with the settings of
# the service and as its user.
program='%[1]s/current/tako'
case ${1:-} in
install | uninstall) exec '%[2]s' "$@" ;;
supervise) program='%[2]s' ;;
esac
if [ -r '%[3]s' ]; then
  while IFS= read -r line || [ -n "$line" ]; do
    name=${line%%%%=*}
    case $name in TAKO_*) ;; *) continue ;; esac
    printenv "$name" >/dev/null || export "$line" # what the caller has set goes first
  done <'%[3]s'
fi
: "${TAKO_DATA=%[1]s/data}"
export TAKO_DATA
%[4]sexec "$program" "$@"
`, i.Root, i.Supervisor(), i.Settings(), as)
}

// unit is systemd's. The supervisor is the service; servers and the worker are to outlive
// it when it is killed, so a stop ends the supervisor alone, which ends its servers, and
// the worker and its scripts go on (KillMode). They get cgroups of their own (Delegate),
// and one script that runs out of memory does not end the others (OOMPolicy). systemd
// keeps the listening sockets while there is no supervisor (FileDescriptorStoreMax).
//
// Scripts of the built-in worker inherit what is set here. So nothing closes the file
// system to them or takes sudo away; tight does, where there is no worker.
func (l *Layout) unit() string {
	var b strings.Builder
	line := func(name, value string) { fmt.Fprintf(&b, "%s=%s\n", name, value) }
	b.WriteString("# Written by `tako install`; changes belong into `systemctl edit tako`.\n[Unit]\n")
	line("Description", "Tako deployment server")
	line("Wants", "network-online.target")
	line("After", "network-online.target postgresql.service")
	line("StartLimitIntervalSec", "0")
	b.WriteString("\n[Service]\n")
	line("Type", "notify")
	line("NotifyAccess", "main")
	if l.User != "" {
		line("User", l.User)
	}
	line("EnvironmentFile", "-"+l.Settings())
	line("ExecStart", l.Supervisor()+" supervise --root "+l.Root)
	line("Restart", "always")
	line("RestartSec", "500ms")
	line("RestartPreventExitStatus", strconv.Itoa(fault.ExitRefused)) // not 2, which is also a crash of any Go program
	line("KillMode", "process")
	line("TimeoutStopSec", "60")
	line("FileDescriptorStoreMax", "16")
	line("Delegate", "yes")
	line("OOMPolicy", "continue")
	line("TasksMax", "infinity")
	line("LimitNOFILE", "65536")
	line("LimitCORE", "0:infinity")
	line("KeyringMode", "private")
	line("AmbientCapabilities", "CAP_NET_BIND_SERVICE")
	line("CapabilityBoundingSet", "~CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_BOOT CAP_MAC_ADMIN CAP_MAC_OVERRIDE CAP_BLOCK_SUSPEND CAP_WAKE_ALARM CAP_BPF CAP_PERFMON")
	b.WriteString("\n[Install]\n")
	line("WantedBy", "multi-user.target")
	return b.String()
}

// tight is what can be closed where nothing but the server runs. /tmp stays: a private one
// would go with the unit, while servers outlive their supervisor.
func (l *Layout) tight() string {
	return `# Written by ` + "`tako install --no-worker`" + `. Remove it before you switch the built-in worker on.
[Service]
Environment=TAKO_BUILTIN_WORKER=false
NoNewPrivileges=yes
CapabilityBoundingSet=
CapabilityBoundingSet=CAP_NET_BIND_SERVICE
ProtectSystem=strict
ReadWritePaths=` + l.Root + ` /tmp /var/tmp
ProtectHome=yes
PrivateDevices=yes
ProtectKernelTunables=yes
ProtectKernelModules=yes
ProtectKernelLogs=yes
ProtectClock=yes
ProtectHostname=yes
ProtectControlGroups=yes
ProtectProc=invisible
RestrictNamespaces=yes
RestrictRealtime=yes
RestrictSUIDSGID=yes
RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK
LockPersonality=yes
MemoryDenyWriteExecute=yes
RemoveIPC=yes
SystemCallArchitectures=native
SystemCallFilter=@system-service
SystemCallErrorNumber=EPERM
UMask=0077
Delegate=no
`
}

// CheckListen says what is wrong with an address to listen on.
func CheckListen(addr string) error {
	if _, port, err := net.SplitHostPort(addr); err != nil || port == "" || strings.ContainsAny(addr, " \n\"'") {
		return fmt.Errorf("--listen is %q; use an address and a port such as 127.0.0.1:8065", addr)
	}
	return nil
}
