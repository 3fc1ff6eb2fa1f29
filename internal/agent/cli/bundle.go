package cli

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/takodeploy/tako/internal/agent/bundle"
)

// passwordVariable has the password of a bundle where nobody is asked for it.
const passwordVariable = "TAKO_BUNDLE_PASSWORD"

// maxPassword bounds a password that is read from a file, in bytes.
const maxPassword = 4096

func runBundleCommand(p Program) *cobra.Command {
	o := bundle.Options{Version: p.Version}
	var passwordFile string
	cmd := &cobra.Command{
		Use: "run-bundle", Short: "Carry out the bundle of an offline drop on this machine",
		Long: `Carries out a bundle that a deployment has made for an offline drop: it checks every file,
then runs the steps on this machine, one after the other, and stops at the first that
fails. The script inside a bundle calls this; its options are these.

The password of an encrypted bundle is asked for, or read from --password-file, or from
the environment variable ` + passwordVariable + `.`,
		Example: "  sh 'Web drop.Shop.Deployments-7.sh' --password-file /root/bundle.password\n  " + p.Name + " run-bundle --manifest 'Web drop.Shop.Deployments-7.manifest.json'",
	}
	cmd.Flags().StringVar(&o.Manifest, "manifest", "", "the bundle's manifest")
	cmd.Flags().StringVar(&o.Working, "working-directory", "", "directory of journals, packages and logs (default: the target's)")
	cmd.Flags().StringVar(&o.Applications, "applications-directory", "", "directory that packages are installed to (default: the target's)")
	cmd.Flags().StringVar(&passwordFile, "password-file", "", "file with the bundle's password")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if o.Manifest == "" {
			return usage("--manifest is missing; name the bundle's manifest, or run the script inside the bundle")
		}
		o.Out, o.Err = cmd.OutOrStdout(), cmd.ErrOrStderr()
		o.Log = slog.New(slog.DiscardHandler)
		o.Password = func() (string, error) { return bundlePassword(cmd, passwordFile) }
		o.Expected = passwordFile != "" || os.Getenv(passwordVariable) != ""
		return bundle.Run(cmd.Context(), o)
	}
	return cmd
}

// filePassword reads a password from a file, without the end of its line.
func filePassword(file string) (string, error) {
	f, err := os.Open(file)
	if err != nil {
		return "", err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxPassword+1))
	if err == nil && len(text) > maxPassword {
		err = fmt.Errorf("%s has more than %d bytes; it is to have a password alone", file, maxPassword)
	}
	return strings.TrimRight(string(text), "\r\n"), err
}

// bundlePassword is the password of a bundle: of a file, of the environment, or typed.
func bundlePassword(cmd *cobra.Command, file string) (string, error) {
	if file != "" {
		return filePassword(file)
	}
	if text, ok := os.LookupEnv(passwordVariable); ok {
		return text, nil
	}
	in, ok := cmd.InOrStdin().(*os.File)
	if !ok || !term.IsTerminal(int(in.Fd())) {
		return "", errors.New("the bundle is encrypted; give its password with --password-file or in " + passwordVariable)
	}
	if _, err := fmt.Fprint(cmd.ErrOrStderr(), "Password of the bundle: "); err != nil {
		return "", err
	}
	text, err := term.ReadPassword(int(in.Fd()))
	_, _ = fmt.Fprintln(cmd.ErrOrStderr())
	return string(text), err
}
