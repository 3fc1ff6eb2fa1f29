package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
)

func adminCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "admin", Short: "Look after users from the server's own machine",
		Long: `Looks after users from the server's own machine, for whoever may read its data
directory. It works beside a running server.`,
	}
	cmd.AddCommand(createKeyCommand(), resetPasswordCommand())
	return cmd
}

// openAdmin opens the server's database as the command line says.
func openAdmin(cmd *cobra.Command) (*app.Admin, error) {
	cfg, err := config.Load("", os.Environ(), given(cmd.Flags()))
	if err != nil {
		return nil, usageError{err}
	}
	return app.OpenAdmin(cmd.Context(), cfg, app.Options{Version: version, Log: logger(cfg, cmd.ErrOrStderr())})
}

func createKeyCommand() *cobra.Command {
	var user, purpose string
	cmd := &cobra.Command{
		Use: "create-api-key", Short: "Make an API key for a user", Args: cobra.NoArgs,
		Long: "Makes an API key for a user and prints it. It is shown this once: the server\nkeeps only a hash of it.",
		Example: `  tako admin create-api-key --user admin --purpose "first steps"
  export OCTOPUS_API_KEY=$(tako admin create-api-key --user admin)`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			a, err := openAdmin(cmd)
			if err != nil {
				return err
			}
			key, err := a.CreateAPIKey(cmd.Context(), user, purpose)
			if err = errors.Join(err, a.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), key)
			return err
		},
	}
	settings(cmd.Flags())
	cmd.Flags().StringVar(&user, "user", "admin", "user name of the key's owner")
	cmd.Flags().StringVar(&purpose, "purpose", "made on the command line", "what the key is for")
	return cmd
}

func resetPasswordCommand() *cobra.Command {
	var user string
	cmd := &cobra.Command{
		Use: "reset-password", Short: "Give a user a new password", Args: cobra.NoArgs,
		Long:    "Gives a user a new password, which is read from the terminal or from standard\ninput, and unlocks them.",
		Example: "  tako admin reset-password --user admin\n  tako admin reset-password --user admin < password.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			password, err := readPassword(cmd)
			if err != nil {
				return err
			}
			a, err := openAdmin(cmd)
			if err != nil {
				return err
			}
			err = a.ResetPassword(cmd.Context(), user, password)
			if err = errors.Join(err, a.Close()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "The password of %s is changed.\n", user)
			return err
		},
	}
	settings(cmd.Flags())
	cmd.Flags().StringVar(&user, "user", "admin", "user name")
	return cmd
}

// readPassword asks on a terminal without showing what is typed; otherwise it
// reads the first line of standard input.
func readPassword(cmd *cobra.Command) (string, error) {
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return "", fmt.Errorf("read the password: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	fmt.Fprint(cmd.ErrOrStderr(), "New password: ")
	text, err := term.ReadPassword(int(in.Fd()))
	fmt.Fprintln(cmd.ErrOrStderr())
	return string(text), err
}
