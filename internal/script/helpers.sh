# What a script can ask of the server and tell it. Scripts source this, whatever
# they set afterwards: it works under set -e, -u and pipefail, with any IFS, in
# other directories and in subshells.

__tako_home="$PWD" # the script's own directory

__tako_encode() { printf '%s' "${1-}" | base64 | tr -d '\n'; }

# get_octopusvariable NAME: prints the variable's value; nothing when there is none.
get_octopusvariable() {
  local __tako_restore=""
  if ! shopt -q nocasematch; then
    shopt -s nocasematch
    __tako_restore=1
  fi
  __tako_variable "${1-}" || true
  if [ -n "$__tako_restore" ]; then shopt -u nocasematch; fi
  return 0
}

# set_octopusvariable NAME VALUE [-sensitive]: makes an output variable.
set_octopusvariable() {
  local sensitive=""
  if [ "${3-}" = "-sensitive" ]; then sensitive=" sensitive='$(__tako_encode True)'"; fi
  printf '%s\n' "##octopus[setVariable name='$(__tako_encode "${1-}")' value='$(__tako_encode "${2-}")'$sensitive]"
}

# new_octopusartifact PATH [NAME]: keeps a file with the deployment. The agent hands
# out files of the script's own directory alone, so the file is linked there, or
# copied where it cannot be; the script may remove it then.
new_octopusartifact() {
  local path="${1-}" name kept
  if [ ! -f "$path" ]; then
    printf '%s\n' "The artifact $path does not exist or is no file." >&2
    return 1
  fi
  name="${2:-${path##*/}}"
  case "$path" in /*) ;; *) path="$PWD/$path" ;; esac
  mkdir -p "$__tako_home/.tako/artifacts" || return 1
  kept="$(mktemp -d "$__tako_home/.tako/artifacts/XXXXXXXX")" || return 1
  kept="$kept/file"
  ln -L "$path" "$kept" 2>/dev/null || cp "$path" "$kept" || return 1
  printf '%s\n' "##octopus[createArtifact path='$(__tako_encode "$kept")' name='$(__tako_encode "$name")' length='$(__tako_encode "$(wc -c <"$kept" | tr -d ' ')")']"
}

# update_progress PERCENTAGE [MESSAGE]
update_progress() {
  printf '%s\n' "##octopus[progress percentage='$(__tako_encode "${1-}")' message='$(__tako_encode "${2-}")']"
}

# fail_step [MESSAGE]: ends the script as failed.
fail_step() {
  if [ -n "${1-}" ]; then
    printf '%s\n' "##octopus[resultMessage message='$(__tako_encode "$1")']"
  fi
  exit 1
}

# __tako_level LEVEL [TEXT...]: writes the text, else its input, at a level.
__tako_level() {
  local level="$1" IFS=' ' line
  shift
  printf '%s\n' "##octopus[stdout-$level]"
  if [ $# -gt 0 ]; then
    printf '%s\n' "$*"
  else
    while IFS= read -r line || [ -n "$line" ]; do printf '%s\n' "$line"; done
  fi
  printf '%s\n' "##octopus[stdout-default]"
}

write_verbose() { __tako_level verbose "$@"; }
write_highlight() { __tako_level highlight "$@"; }
write_wait() { __tako_level wait "$@"; }
write_warning() { __tako_level warning "$@"; }
write_error() { __tako_level error "$@"; }
echo_verbose() { write_verbose "$@"; }
echo_warning() { write_warning "$@"; }

# mask_octopusvalue VALUE: hides a value in the lines of the log that come after
# this one. It goes to both streams, as lines of both may hold it.
mask_octopusvalue() {
  local message
  message="##octopus[mask value='$(__tako_encode "${1-}")']"
  printf '%s\n' "$message"
  printf '%s\n' "$message" >&2
}
