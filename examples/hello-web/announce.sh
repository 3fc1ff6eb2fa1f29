# Runs on the server beside the deployment to the targets: a step of its own that needs nothing of it.
echo "Deploying #{Octopus.Project.Name} #{Octopus.Release.Number} to #{Octopus.Environment.Name}"
