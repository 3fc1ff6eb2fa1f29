package main

import (
	"encoding/json"
	"fmt"
	"text/tabwriter"

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
			w := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 4, 2, ' ', 0)
			fmt.Fprintln(w, "METHOD\tPATH\tPERMISSION\tWHAT IT DOES")
			for _, l := range lines {
				fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", l.Method, l.Path, l.Permission, l.Summary)
			}
			return w.Flush()
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
