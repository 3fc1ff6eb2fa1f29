# Runs beside the health check: a step of its own that needs nothing of it.
echo "Deploying #{Octopus.Project.Name} #{Octopus.Release.Number} to #{Octopus.Environment.Name}"
