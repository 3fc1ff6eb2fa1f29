package cli

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/agent"
)

// selfTestCommand is how an agent finds out whether a program that a server has brought
// could go on in its place: agent.SelfTestArgs.
func selfTestCommand(p Program) *cobra.Command {
	cmd := &cobra.Command{
		Use: "self-test", Short: "Tell whether this program can be the agent of an instance",
		Long: `Reads the settings and the certificate of an instance, and prints the version of this
program. Agents call it before they are upgraded by a server.`,
		Example: "  " + p.Name + " self-test --instance web",
		Hidden:  true,
	}
	name := instanceFlag(cmd.Flags())
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		store, err := open(*name)
		if err != nil {
			return err
		}
		if _, err := store.Load(*name); err != nil {
			return err
		}
		if _, err := store.Identity(*name); err != nil {
			return err
		}
		_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s%s\n", agent.ReplyMark, p.Version)
		return err
	}
	return cmd
}
