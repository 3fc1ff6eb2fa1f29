package main

import (
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
)

func routesCommand() *cobra.Command {
	var output form
	cmd := &cobra.Command{
		Use: "routes", Short: "List the operations of the API", Args: cobra.NoArgs,
		Long:    "Lists every operation of the API with the permission that it needs.",
		Example: "  tako routes\n  tako routes --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			lines, err := app.RouteTable(version)
			if err != nil {
				return err
			}
			if output == formJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(lines)
			}
			t := newTable(cmd.OutOrStdout(), "METHOD", "PATH", "PERMISSION", "WHAT IT DOES")
			for _, l := range lines {
				t.row(l.Method, l.Path, l.Permission, l.Summary)
			}
			return t.flush()
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
