package octostache_test

import (
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/octostache"
)

func Example() {
	project := octostache.NewVariables(
		octostache.Options{Now: time.Date(2030, 5, 22, 9, 5, 0, 0, time.UTC)},
		octostache.Pair{Name: "Server", Value: "#{Octopus.Machine.Name | ToLower}"},
		octostache.Pair{Name: "Url", Value: "https://#{Server}:#{Port}/"},
		octostache.Pair{Name: "Port", Value: "8080"},
	)
	step := project.With(octostache.Pair{Name: "Octopus.Machine.Name", Value: "WEB01"})

	fmt.Println(step.Evaluate("#{Url}#{if Port == \"8080\"}status#{/if} #{ | NowDate yyyy}").Text)

	r := project.Evaluate("#{Url}")
	fmt.Println(r.Text)
	fmt.Println(r.Problem())
	// Output:
	// https://web01:8080/status 2030
	// https://#{Octopus.Machine.Name | ToLower}:8080/
	// The following tokens were unable to be evaluated: '#{Octopus.Machine.Name | ToLower}'
}
