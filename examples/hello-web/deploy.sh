# Puts the package into a folder of its own, and starts the service from there.
set -eu
name=$(get_octopusvariable "Octopus.Environment.Name")
release=$(get_octopusvariable "Octopus.Release.Number")
port=$(get_octopusvariable "Port")
root=$(get_octopusvariable "InstallRoot")
target="$root/$name/$release"

echo "Installing release $release to $target"
mkdir -p "$target"
cp -R hello-web/. "$target/"

pid_file="$root/$name/service.pid"
if [ -f "$pid_file" ] && kill -0 "$(cat "$pid_file")" 2>/dev/null; then
  write_verbose "Stopping the service that runs, process $(cat "$pid_file")"
  kill "$(cat "$pid_file")" || true
  sleep 1
fi

nohup setsid node "$target/server.js" >"$target/service.log" 2>&1 </dev/null &
echo $! >"$pid_file"
echo "Started the service as process $(cat "$pid_file")"

set_octopusvariable "Url" "http://127.0.0.1:$port/"
