# What a script can ask of the server and tell it.

__tako_encode() { printf '%s' "$1" | base64 | tr -d '\n'; }

# get_octopusvariable NAME: prints the variable's value; nothing when there is none.
get_octopusvariable() {
  local restore status
  restore=$(shopt -p nocasematch)
  shopt -s nocasematch
  __tako_variable "$1"
  status=$?
  eval "$restore"
  return 0
}

# set_octopusvariable NAME VALUE [-sensitive]: makes an output variable.
set_octopusvariable() {
  local sensitive=""
  if [ "${3:-}" = "-sensitive" ]; then sensitive=" sensitive='$(__tako_encode True)'"; fi
  echo "##octopus[setVariable name='$(__tako_encode "$1")' value='$(__tako_encode "$2")'$sensitive]"
}

# new_octopusartifact PATH [NAME]: keeps a file with the deployment.
new_octopusartifact() {
  local path="$1" name="${2:-$(basename "$1")}" length
  case "$path" in /*) ;; *) path="$PWD/$path" ;; esac
  if [ ! -f "$path" ]; then
    echo "The artifact $path does not exist or is no file." >&2
    return 1
  fi
  length=$(wc -c <"$path" | tr -d ' ')
  echo "##octopus[createArtifact path='$(__tako_encode "$path")' name='$(__tako_encode "$name")' length='$(__tako_encode "$length")']"
}

# update_progress PERCENTAGE [MESSAGE]
update_progress() {
  echo "##octopus[progress percentage='$(__tako_encode "$1")' message='$(__tako_encode "${2:-}")']"
}

# fail_step [MESSAGE]: ends the script as failed.
fail_step() {
  if [ -n "${1:-}" ]; then
    echo "##octopus[resultMessage message='$(__tako_encode "$1")']"
  fi
  exit 1
}

__tako_level() {
  local level="$1"
  shift
  echo "##octopus[stdout-$level]"
  if [ $# -gt 0 ]; then echo "$@"; else cat; fi
  echo "##octopus[stdout-default]"
}

write_verbose() { __tako_level verbose "$@"; }
write_highlight() { __tako_level highlight "$@"; }
write_wait() { __tako_level wait "$@"; }
write_warning() { __tako_level warning "$@"; }
write_error() { __tako_level error "$@"; }
echo_verbose() { write_verbose "$@"; }
echo_warning() { write_warning "$@"; }

# mask VALUE: hides a value in the lines of the log that come after this one.
# It goes to both streams, as lines of both may hold it.
mask_octopusvalue() {
  local message
  message="##octopus[mask value='$(__tako_encode "$1")']"
  echo "$message"
  echo "$message" >&2
}
