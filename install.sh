#!/bin/sh
# Installs the Tako server on a Linux machine. Run it again and it changes nothing.
#
#   sudo sh install.sh --bundle tako-2026.4.0.bundle --trust root.1.json
#   sudo sh install.sh --feed https://tako.example.com/feed.json --trust root.1.json
#   sudo sh install.sh --from dist                        what you have built yourself
#   sudo sh install.sh --from dist --supervisor-only      replaces the supervisor, the server goes on
#   sudo sh install.sh --uninstall [--purge]
#
# Where the trust comes from. Before it runs anything of what it is given, this script
# finds out whether that is what it should be:
#   --trust FILE    the keys of whoever publishes the release. Enough of them must have
#                   signed it; checked here with openssl 3, and again by the program.
#                   Take the file from another place than the release.
#   --sha256 HEX    the SHA-256 of the bundle, or of the program of --from, as somebody
#                   whom you believe has told you.
#   --from PATH     alone: you have built it; nothing is checked but dist/SHA256SUMS.
# Whoever can change this script can do anything: read it, or compare its SHA-256.
#
# Further options are those of 'tako install': --prefix DIR (alias --root-dir), --to,
# --channel, --listen, --admin, --no-worker, --no-start, --supervisor-only.
set -eu
umask 022

say() { printf '%s\n' "$*" >&2; }
fail() { say "install.sh: $*"; exit 1; }
usage() { say "install.sh: $*"; say "Its first lines say how it is used: head -n 25 $0"; exit 2; }
need() { command -v "$1" >/dev/null 2>&1 || fail "the program $1 is missing${2:+; $2}"; }

bundle='' feed='' from='' trust='' sum='' prefix='' mode=install purge='' yes='' channel=stable more=''
quote() { printf "'%s' " "$(printf '%s' "$1" | sed "s/'/'\\\\''/g")"; }
while [ $# -gt 0 ]; do
  option=$1
  shift
  case $option in
  --*=*) set -- "${option#*=}" "$@"; option=${option%%=*} ;;
  esac
  case $option in
  --uninstall) mode=uninstall; continue ;;
  --purge) mode=uninstall purge=--purge; continue ;;
  --yes) yes=--yes; continue ;;
  --no-worker | --no-start | --supervisor-only) more="$more$option "; continue ;;
  -h | --help) sed -n '2,25s/^# \{0,1\}//p' "$0"; exit 0 ;;
  --bundle | --feed | --from | --trust | --sha256 | --prefix | --root-dir | --to | --channel | --listen | --admin) ;;
  *) usage "there is no option $option" ;;
  esac
  [ $# -gt 0 ] || usage "$option needs a value"
  case $option in
  --bundle) bundle=$1 ;;
  --feed) feed=$1 ;;
  --from) from=$1 ;;
  --trust) trust=$1 ;;
  --sha256) sum=$1 ;;
  --prefix | --root-dir) prefix=$1 ;;
  --channel) channel=$1 ;;
  *) more="$more$option $(quote "$1")" ;;
  esac
  shift
done
[ -z "$prefix" ] || more="$more--prefix $(quote "$prefix")"

supervisor="$prefix/usr/local/lib/tako/tako"
if [ "$mode" = uninstall ]; then
  [ -x "$supervisor" ] || fail "there is no $supervisor: no Tako is installed${prefix:+ below $prefix}. Data that an uninstallation has left is in $prefix/var/lib/tako and $prefix/etc/tako"
  set --
  [ -z "$prefix" ] || set -- --prefix "$prefix"
  exec "$supervisor" uninstall "$@" $purge $yes
fi

[ "$(uname -s)" = Linux ] || fail "the server runs on Linux only"
case $(uname -m) in
x86_64 | amd64) arch=amd64 ;;
aarch64 | arm64) arch=arm64 ;;
*) fail "there is no program for the processor $(uname -m)" ;;
esac
case "${bundle:+b}${feed:+f}${from:+d}" in
b | f | d) ;;
*) usage "name one place to install from: --bundle FILE, --feed URL or --from PATH" ;;
esac
[ -z "$from" ] || [ -z "$trust" ] || usage "--trust goes with --bundle and --feed; --from takes --sha256"
[ -z "$bundle" ] || [ -n "$trust$sum" ] || usage "a bundle needs --trust FILE, the keys of its publisher, or --sha256 HEX"
[ -z "$feed" ] || [ -n "$trust" ] || usage "a feed needs --trust FILE, the keys of its publisher"
[ -z "$feed" ] || [ -z "$sum" ] || usage "--sha256 is that of a bundle or a program; a feed is checked by --trust"
for file in "$bundle" "$from" "$trust"; do
  [ -z "$file" ] || [ -r "$file" ] || fail "$file cannot be read"
done
need sha256sum
need sed

# Programs are run from here, and nobody else may change them.
work=$(umask 077; mktemp -d "${TMPDIR:-/tmp}/tako-install.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 1' HUP INT TERM
program=$work/tako

hash_of() { sha256sum <"$1" | cut -d ' ' -f 1; }

# verify FEED: believes the feed if enough keys of $trust have signed it, and writes what
# they have signed to $work/signed. Nothing else of the feed is looked at afterwards.
verify() {
  need openssl "or give the --sha256 of a bundle"
  tr -d '\n' <"$trust" >"$work/root"
  threshold=$(sed -n 's/^{"signed":{"type":"root",.*"threshold":\([0-9]\{1,2\}\),"keys":\[.*/\1/p' "$work/root")
  keys=$(sed -n 's/.*"threshold":[0-9]*,"keys":\[\([A-Za-z0-9+\/=",]*\)\]}.*/\1/p' "$work/root" | tr -d '"' | tr ',' ' ')
  case "$threshold:$keys" in
  [1-9]*:?*) ;;
  *) fail "$trust is no root as 'tako release root' makes it" ;;
  esac
  [ "$(wc -c <"$1")" -le 4194304 ] || fail "the feed is too long"
  tr -d '\n' <"$1" >"$work/feed"
  sed -n 's/^{"signed":\(.*\),"signatures":\[[^]]*\]}$/\1/p' "$work/feed" | tr -d '\n' >"$work/signed"
  sed -n 's/^.*,"signatures":\[\([^]]*\)\]}$/\1/p' "$work/feed" | tr '}' '\n' >"$work/signatures"
  [ -s "$work/signed" ] || fail "the feed is not signed, or is no feed"
  { printf 'tako release document v1\n'; cat "$work/signed"; } >"$work/message"
  good=0
  for key in $keys; do
    id=$(printf '%s' "$key" | base64 -d | sha256sum | cut -c 1-16)
    # The key in the form that openssl reads: the fixed beginning, and its 32 bytes.
    printf -- '-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEA%s\n-----END PUBLIC KEY-----\n' "$key" >"$work/key"
    signature=$(sed -n "s/^,\{0,1\}{\"keyid\":\"$id\",\"sig\":\"\([A-Za-z0-9+\/=]*\)\"\$/\1/p" "$work/signatures" | head -n 1)
    [ -n "$signature" ] || continue
    printf '%s' "$signature" | base64 -d >"$work/signature"
    openssl pkeyutl -verify -pubin -inkey "$work/key" -rawin -in "$work/message" -sigfile "$work/signature" >"$work/says" 2>&1 ||
      fail "the signature of key $id does not fit the feed: one of them was changed, or this openssl is older than 3.0 ($(head -n 1 "$work/says"))"
    good=$((good + 1))
  done
  [ "$good" -ge "$threshold" ] || fail "$good of the keys in $trust have signed the feed, and $threshold must have"
  grep -q '^{"type":"feed",' "$work/signed" || fail "what is signed is no feed of releases"
  # A release a line, without those that were revoked.
  sed 's/{"version":"/\n&/g' "$work/signed" | grep '^{"version":"' | grep -v '"revoked":' >"$work/releases" || fail "the feed has no release"
}

# listed SHA256: whether a release has that program for this machine.
listed() { grep -q "\"linux/$arch\":{\"url\":\"[^\"]*\",\"size\":[0-9]*,\"sha256\":\"$1\"}" "$work/releases"; }

fetch() { # URL FILE
  if command -v curl >/dev/null 2>&1; then curl -fsSL --proto '=http,https' -o "$2" "$1" || fail "cannot fetch $1"
  elif command -v wget >/dev/null 2>&1; then wget -q -O "$2" "$1" || fail "cannot fetch $1"
  else fail "neither curl nor wget is there to fetch $1"; fi
}

set --
if [ -n "$bundle" ]; then
  need tar
  case $bundle in /*) ;; *) bundle=$PWD/$bundle ;; esac
  archive=$bundle
  if [ -n "$sum" ]; then
    archive=$work/bundle # nobody can exchange this one between the check and the use
    cp "$bundle" "$archive"
    [ "$(hash_of "$archive")" = "$sum" ] || fail "the SHA-256 of $bundle is $(hash_of "$archive"), and should be $sum"
  fi
  entry=$(tar -tf "$archive" | sed -n "/^[0-9A-Za-z.+-]*\/linux-$arch\/tako\$/p" | head -n 1)
  [ -n "$entry" ] || fail "$bundle has no program for linux/$arch, or is no bundle"
  tar -xOf "$archive" "$entry" >"$program" || fail "$bundle cannot be read; is it whole?"
  if [ -n "$trust" ]; then
    tar -xOf "$archive" feed.json >"$work/feed.json" || fail "$bundle cannot be read; is it whole?"
    verify "$work/feed.json"
    listed "$(hash_of "$program")" || fail "the program in $bundle is not the one that was signed, or was revoked"
    set -- --bundle "$bundle" --trust "$trust"
  fi
elif [ -n "$feed" ]; then
  fetch "$feed" "$work/feed.json"
  verify "$work/feed.json"
  line=$(sed -n "s/.*\"linux\/$arch\":{\"url\":\"\([^\"]*\)\",\"size\":[0-9]*,\"sha256\":\"\([0-9a-f]*\)\"}.*/\2 \1/p" "$work/releases" | head -n 1)
  [ -n "$line" ] || fail "the feed has no program for linux/$arch"
  case ${line#* } in /* | *:*) fail "the feed names an address that is not relative to its own" ;; esac
  fetch "${feed%/*}/${line#* }" "$program"
  [ "$(hash_of "$program")" = "${line%% *}" ] || fail "the program that was fetched is not the one that was signed"
  set -- --feed "$feed" --trust "$trust"
else
  if [ -d "$from" ]; then
    found=''
    for file in "$from"/tako-[0-9]*-linux-"$arch" "$from"/tako; do
      [ ! -f "$file" ] || [ -n "$found" ] || found=$file
    done
    [ -n "$found" ] || fail "$from has no program for linux/$arch; 'make release' puts one into dist, 'make build' into bin"
    cp "$found" "$program"
    if [ -f "$from/SHA256SUMS" ]; then
      grep -q "^$(hash_of "$program")  $(basename "$found")\$" "$from/SHA256SUMS" || fail "$found is not the program that $from/SHA256SUMS has"
    fi
  else
    cp "$from" "$program"
  fi
  if [ -n "$sum" ] && [ "$(hash_of "$program")" != "$sum" ]; then
    fail "the SHA-256 of the program is $(hash_of "$program"), and should be $sum"
  fi
fi
chmod 0755 "$program"
[ $# -eq 0 ] || set -- "$@" --channel "$channel"
status=0
eval "set -- \"\$@\" $more"
"$program" install "$@" || status=$?
[ "$status" -ne 126 ] ||
  fail "no program can be run in $work; its file system may be mounted noexec. Name another directory: TMPDIR=/var/tmp sh $0 ..."
exit "$status"
