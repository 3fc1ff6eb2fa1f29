#!/usr/bin/env bash
# Measures the built program and its engines (templates, variables, versions,
# structured configuration, the queue of tasks), and prints what it finds, with the machine it was
# found on. Slowness is a figure here and no failure.
#
#   scripts/bench.sh [--markdown] [BENCHMARKS]
#
# BENCHMARKS is a regular expression of Go's testing package ("Get|Task"), and
# "Template|Resolve|Sort|JSON|Queue" are those of the engines. --markdown prints a
# table in the place of lines.
# TAKO_TEST_BINARY names the program; without it one is built.
#
# Fleet (a thousand agents) and Transfer (a large package to twenty) run only when they
# are asked for, since they take long and need room: make bench-agents. Smaller ones:
#   TAKO_TEST_BENCH_AGENTS=50 TAKO_TEST_BENCH_PROCESSES=2 TAKO_TEST_BENCH_PACKAGE_MB=5 scripts/bench.sh 'Fleet|Transfer'
#   TAKO_TEST_BENCH_DATABASE_MB=64 scripts/bench.sh 'Large|Backup|Doctor'
set -euo pipefail
cd "$(dirname "$0")/.."

markdown=0
[ "${1:-}" = --markdown ] && { markdown=1; shift; }
wanted=${1:-.}

if [ -z "${TAKO_TEST_BINARY:-}" ]; then
  built=$(mktemp -d)
  trap 'rm -rf "$built"' EXIT
  export TAKO_TEST_BINARY=$built/tako
  CGO_ENABLED=0 go build -trimpath -ldflags '-s -w' -o "$TAKO_TEST_BINARY" ./cmd/tako
fi

load() { cut -d' ' -f1-3 /proc/loadavg; }
describe() {
  echo "date       $(date -u +%F)"
  echo "commit     $(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(git diff --quiet HEAD -- 2>/dev/null || echo ', and changes')"
  echo "machine    $(nproc) cores ($(sed -n 's/^model name[^:]*: //p' /proc/cpuinfo | head -1)), $(awk '/^MemTotal/ { printf "%.0f GiB", $2 / 1048576 }' /proc/meminfo)"
  echo "system     $(. /etc/os-release && echo "$PRETTY_NAME"), Linux $(uname -r), $(go env GOVERSION)"
  echo "directory  ${TMPDIR:-/tmp} on $(df --output=source,fstype "${TMPDIR:-/tmp}" | tail -1 | tr -s ' ')"
  for name in AGENTS PROCESSES PACKAGE_MB DATABASE_MB; do
    name=TAKO_TEST_BENCH_$name
    [ -z "${!name:-}" ] || echo "size       $name=${!name}"
  done
  echo "load       $(load) before"
}

# BenchmarkGet/sqlite/connections=1-2  1  0.05000 ms-p50  13054 requests/s
#
# Line by line, so that each figure is seen when it is found: awk may keep what it has.
readable() {
  local line name figures i unit value
  local -a fields
  while IFS= read -r line; do
    case $line in
      Benchmark*)
        read -ra fields <<<"$line"
        [ ${#fields[@]} -gt 3 ] || continue
        name=${fields[0]#Benchmark}
        [[ $name =~ ^(.*)-[0-9]+$ ]] && name=${BASH_REMATCH[1]}
        figures=
        for ((i = 2; i + 1 < ${#fields[@]}; i += 2)); do
          value=${fields[i]} unit=${fields[i + 1]}
          [ "$unit" != ns/op ] || { value=${value}e-6 unit=ms; }
          figures+="${figures:+, }$(LC_ALL=C printf '%g' "$value") ${unit//-/ }"
        done
        if [ $markdown = 1 ]; then printf '| %s | %s |\n' "${name//\// }" "$figures"; else printf '%-45s %s\n' "${name//\// }" "$figures"; fi
        ;;
      ---* | FAIL* | panic* | "    "*) printf '%s\n' "$line" >&2 ;;
    esac
  done
}

if [ $markdown = 1 ]; then
  describe | sed 's/^/    /'
  printf '\n| What | Figures |\n|---|---|\n'
else
  describe
  echo
fi
long='^Benchmark(Fleet|Transfer)$'
[ "$wanted" = . ] || long='^$'
go test ./test/bench -run '^$' -bench "$wanted" -skip "$long" -benchtime 1x -timeout 4h 2>&1 | readable
# The packages have more benchmarks than these; they are for whoever changes one.
engines=$wanted
[ "$wanted" = . ] && engines='^Benchmark(Template|Resolve|Sort|JSON|Queue)$'
go test ./internal/octostache ./internal/variables ./internal/version ./internal/structured ./internal/tasks \
  -run '^$' -bench "$engines" -benchtime 5x -timeout 10m 2>&1 | readable
echo
echo "load average afterwards: $(load)"
