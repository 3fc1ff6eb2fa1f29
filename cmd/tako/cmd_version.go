package main

import (
	"encoding/json"
	"fmt"
	"runtime"

	"github.com/spf13/cobra"
)

// Set by the linker in releases (-X main.version=...).
var (
	version    = "2026.4.0-dev"
	commit     = "unknown"
	commitDate = "unknown"
)

func versionCommand() *cobra.Command {
	var output form
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version of this program", Args: cobra.NoArgs,
		Example: "  tako version\n  tako version --output json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == formJSON {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]string{
					"Version": version, "Commit": commit, "CommitDate": commitDate, "Go": runtime.Version(), "Platform": runtime.GOOS + "/" + runtime.GOARCH,
				})
			}
			_, err := fmt.Fprintf(cmd.OutOrStdout(), "tako %s (commit %s of %s, %s, %s/%s)\n", version, commit, commitDate, runtime.Version(), runtime.GOOS, runtime.GOARCH)
			return err
		},
	}
	outputFlag(cmd, &output)
	return cmd
}
