# Starts the service that was just installed on this target in the place of the one
# before, and asks how it is until it answers as this release: the next target has its
# turn only then.
set -eu
release=$(get_octopusvariable "Octopus.Release.Number")
environment=$(get_octopusvariable "Octopus.Environment.Name")
target=$(get_octopusvariable "Octopus.Machine.Name")
url="http://127.0.0.1:$(get_octopusvariable "Port")/"
folder=$(get_octopusvariable "Octopus.Action[Deploy web service].Output.Package.InstallationDirectoryPath")
pid_file="$TentacleHome/hello-web-$environment.pid"

# Whether a process is the service: its number may be another's by now.
is_service() {
  [ -n "$1" ] && tr '\0' ' ' 2>/dev/null <"/proc/$1/cmdline" | grep -q 'node server\.js'
}

old=$(cat "$pid_file" 2>/dev/null || true)
if is_service "$old"; then
  write_verbose "Stopping the service that runs, process $old"
  kill "$old" || true
  for attempt in $(seq 100); do
    is_service "$old" || break
    sleep 0.1
  done
fi

cd "$folder"
nohup setsid node server.js >service.log 2>&1 </dev/null &
pid=$!
echo "$pid" >"$pid_file"
echo "Started the service as process $pid in $folder"

# Another could have the port: it is this process that has to answer.
for attempt in $(seq 50); do
  answer=$(node -e 'fetch(process.argv[1] + "health").then(r => r.text()).then(t => console.log(t)).catch(() => process.exit(1))' "$url" 2>/dev/null || true)
  case "$answer" in
    *"\"version\":\"$release\""*"\"target\":\"$target\",\"pid\":$pid}"*)
      echo "$answer" >health.json
      new_octopusartifact "$folder/health.json" "health of $target.json"
      write_highlight "Release $release answers at $url"
      exit 0
      ;;
  esac
  update_progress $((attempt * 2)) "waiting for $url"
  sleep 0.2
done
cat service.log
fail_step "The service at $url did not answer as release $release."
