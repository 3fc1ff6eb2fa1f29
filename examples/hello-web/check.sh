# Asks the service how it is, until it answers or ten seconds are over.
set -u
url=$(get_octopusvariable "Octopus.Action[Deploy web service].Output.Url")
release=$(get_octopusvariable "Octopus.Release.Number")
for attempt in 1 2 3 4 5 6 7 8 9 10; do
  answer=$(node -e 'fetch(process.argv[1] + "health").then(r => r.text()).then(t => console.log(t)).catch(() => process.exit(1))' "$url" 2>/dev/null || true)
  case "$answer" in
    *"\"version\":\"$release\""*)
      echo "$answer" >health.json
      new_octopusartifact health.json
      write_highlight "Release $release answers at $url"
      exit 0
      ;;
  esac
  update_progress $((attempt * 10)) "waiting for $url"
  sleep 1
done
fail_step "The service at $url did not answer as release $release."
