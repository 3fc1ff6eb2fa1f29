#!/usr/bin/env bash
# Installs what the tests need and a fresh Debian machine lacks. Elsewhere, or
# without the right to install, it says what is missing; with CI=true that fails.
set -euo pipefail

# The tests build the last release from the history (releases.json).
if [ "$(git rev-parse --is-shallow-repository 2>/dev/null)" = true ]; then
  echo "Fetching the history"
  git fetch --quiet --unshallow || { echo "The tests need the project's history, and it cannot be fetched; git fetch --unshallow gets it." >&2; [ "${CI:-}" != true ]; }
fi

missing=()
have_postgres() {
  [ -n "${TAKO_TEST_PG_BIN:-}" ] || command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null
}
have_postgres || missing+=(postgresql)
command -v gcc >/dev/null || missing+=(gcc libc6-dev)
command -v python3 >/dev/null || missing+=(python3)
command -v node >/dev/null || missing+=(nodejs) # for the demo
[ -x /usr/sbin/sshd ] || command -v sshd >/dev/null || missing+=(openssh-server)
command -v systemd-analyze >/dev/null || missing+=(systemd)
command -v ip >/dev/null || missing+=(iproute2)
command -v tcpdump >/dev/null || missing+=(tcpdump) # sees that a test instance sends nothing
command -v shellcheck >/dev/null || missing+=(shellcheck)
command -v openssl >/dev/null || missing+=(openssl)
[ -x /usr/sbin/mkfs.btrfs ] || command -v mkfs.btrfs >/dev/null || missing+=(btrfs-progs) # a file system with quotas
command -v strace >/dev/null || missing+=(strace) # shows the order of writes
command -v curl >/dev/null || missing+=(curl) # for install.sh
[ ${#missing[@]} -eq 0 ] && exit 0

echo "Installing ${missing[*]}"
run() { if [ "$(id -u)" = 0 ]; then "$@"; else sudo -n "$@"; fi; }
if command -v apt-get >/dev/null; then
  # Debian would start a cluster of its own; the tests make theirs.
  run mkdir -p /etc/postgresql-common
  [ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' | run tee /etc/postgresql-common/createcluster.conf >/dev/null
  # Nor is the machine to answer on port 22 since a test needs the program.
  [[ " ${missing[*]} " != *" openssh-server "* ]] || { run mkdir -p /etc/ssh && run touch /etc/ssh/sshd_not_to_be_run; }
  if run apt-get update -q && run env DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends "${missing[@]}"; then
    exit 0
  fi
fi
echo "Not installed: ${missing[*]}. Please install them; the tests that need them are skipped." >&2
[ "${CI:-}" != true ]
