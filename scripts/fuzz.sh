#!/usr/bin/env bash
# Fuzzes every parser of the module: each Fuzz function that a test file has, one
# after the other, each for an equal part of the time. Prints a table, and ends
# with 1 if any of them found something.
#
#   scripts/fuzz.sh [--keep] [PATTERN]
#
# PATTERN is a regular expression for "package Function" ("octostache|FuzzYAML").
# FUZZ_SECONDS is the time in all (600), builds not counted; FUZZ_WORKERS how many
# processes work on a function (1); FUZZ_MEMORY how many MiB of address space each
# may have (4096): what needs more ends as a crash. An input that takes ten
# seconds counts as a hang.
#
# Inputs that reached new code are kept by the Go tools in their cache, and the
# next run begins with them. --keep copies some into testdata/fuzz, which every
# `go test` runs: up to KEEP_FILES (40) a function, of at most 4 KiB, picked evenly
# from the smallest to the largest. A failing input is always written there.
set -euo pipefail
cd "$(dirname "$0")/.."

keep=0
[ "${1:-}" = --keep ] && { keep=1; shift; }
wanted=${1:-.}
seconds=${FUZZ_SECONDS:-600}
workers=${FUZZ_WORKERS:-1}
memory=${FUZZ_MEMORY:-4096}
keep_files=${KEEP_FILES:-40}

module=$(go list -m)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# One line a function: directory and name.
grep -rnoE --include='*_test.go' '^func Fuzz[A-Za-z0-9_]*\(' . |
  sed -E 's|^\./(.*)/[^/]*_test\.go:[0-9]+:func (Fuzz[A-Za-z0-9_]*)\($|\1 \2|' | sort |
  grep -E "$wanted" >"$work/functions" || { echo "no Fuzz function matches '$wanted'" >&2; exit 2; }
functions=$(wc -l <"$work/functions")
each=$((seconds / functions))
[ "$each" -gt 0 ] || { echo "FUZZ_SECONDS=$seconds is less than a second for each of $functions functions" >&2; exit 2; }

# corpus DIRECTORY FUNCTION: where the Go tools keep what they found.
corpus() { echo "$(go env GOCACHE)/fuzz/$module/$1/$2"; }
count() { find "$1" -type f 2>/dev/null | wc -l; }

# keep_corpus DIRECTORY FUNCTION: fills testdata/fuzz up to the limit.
keep_corpus() {
  local from to room
  from=$(corpus "$1" "$2") to=$1/testdata/fuzz/$2
  [ -d "$from" ] || return 0
  mkdir -p "$to"
  room=$((keep_files - $(count "$to")))
  find "$from" -type f -size -4097c -printf '%s %f\n' | sort -n | cut -d' ' -f2 |
    while read -r f; do [ -e "$to/$f" ] || echo "$f"; done |
    awk -v room=$room '{ line[NR] = $0 } END { if (room <= 0) exit
      if (NR <= room) { for (i = 1; i <= NR; i++) print line[i]; exit }
      for (i = 0; i < room; i++) print line[1 + int(i * NR / room)] }' |
    while read -r f; do cp "$from/$f" "$to/$f"; done
  rmdir "$to" 2>/dev/null || true
}

echo "commit $(git rev-parse --short=12 HEAD 2>/dev/null || echo unknown)$(git diff --quiet HEAD -- 2>/dev/null || echo ', and changes'), $(go env GOVERSION), $functions functions, $each seconds each, $workers worker(s)"
echo
printf '| %-24s | %-20s | %7s | %12s | %11s | %s |\n' package function seconds executions 'new inputs' failures
printf '|%s|%s|%s:|%s:|%s:|%s|\n' -------------------------- ---------------------- -------- ------------- ------------ ---
findings=0 built=''
while read -r dir fn; do
  if [ "$built" != "$dir" ]; then
    # With -fuzz the code under test is built to tell where it has been.
    go test -c -fuzz=Fuzz -o "$work/fuzz.test" "./$dir"
    built=$dir
  fi
  out=$work/out start=$(date +%s) code=0
  (
    ulimit -v $((memory * 1024))
    cd "$dir"
    exec "$work/fuzz.test" -test.run='^$' -test.fuzz="^$fn\$" -test.fuzztime="${each}s" -test.fuzzminimizetime=2s \
      -test.fuzzcachedir="$(corpus "$dir" "")" -test.parallel="$workers" -test.timeout=0
  ) >"$out" 2>&1 </dev/null || code=$?
  execs=$(sed -nE 's/^fuzz: elapsed: .* execs: ([0-9]+) .*/\1/p' "$out" | tail -1)
  new=$(sed -nE 's/^fuzz: elapsed: .* new interesting: ([0-9]+) .*/\1/p' "$out" | tail -1)
  verdict=none
  if [ $code -ne 0 ]; then
    # The end of the time now and then arrives amid an input, which the Go tools
    # then report as a failure without an input.
    if grep -q 'context deadline exceeded' "$out" && ! grep -qE 'Failing input written|panic|hung or terminated' "$out"; then
      verdict='none (cut off)'
    else
      verdict=FOUND findings=$((findings + 1))
      cp "$out" "$work/$(tr / . <<<"$dir").$fn.found"
    fi
  fi
  printf '| %-24s | %-20s | %7d | %12d | %11d | %s |\n' "$dir" "$fn" $(($(date +%s) - start)) "${execs:-0}" "${new:-0}" "$verdict"
  [ $keep = 0 ] || keep_corpus "$dir" "$fn"
done <"$work/functions"

for f in "$work"/*.found; do
  [ -e "$f" ] || continue
  echo
  echo "== $(basename "$f" .found)"
  grep -v '^fuzz: elapsed' "$f" | head -60
done
echo
echo "$findings of $functions functions found something"
[ $findings -eq 0 ]
