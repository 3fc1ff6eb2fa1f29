package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/secret"
)

func keyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "key", Short: "Look after the master key and the recovery kit",
		Long: `Looks after the keys of a server's secrets, from the server's own machine. All of it
works beside running servers.

The master key opens the sealed values of the database. The recovery kit, on paper,
opens backups and gives the master key back when it is lost.`,
	}
	cmd.AddCommand(keyShowCommand(), recoveryKitCommand(), keyCheckCommand(), keyRotateCommand(), keyRecoverCommand(), keyLostCommand())
	return cmd
}

// offline gives a command that works on a server's own files its settings.
type offline struct{ file string }

func (o *offline) flags(cmd *cobra.Command) {
	settings(cmd.Flags())
	cmd.Flags().StringVar(&o.file, "config", "", "YAML file with settings, the one that the server has")
}

func (o *offline) config(cmd *cobra.Command) (config.Config, app.Options, error) {
	cfg, err := config.Load(o.file, os.Environ(), given(cmd.Flags()))
	if err != nil {
		return cfg, app.Options{}, usageError{err}
	}
	return cfg, app.Options{Version: version, Log: logger(cfg, cmd.ErrOrStderr())}, nil
}

// keys opens the keys, has fn use them, and closes them.
func (o *offline) keys(cmd *cobra.Command, fn func(ctx context.Context, k *app.Keys) error) error {
	cfg, opt, err := o.config(cmd)
	if err != nil {
		return err
	}
	k, err := app.OpenKeys(cmd.Context(), cfg, opt)
	if err != nil {
		return err
	}
	return errors.Join(fn(cmd.Context(), k), k.Close())
}

func keyShowCommand() *cobra.Command {
	var o offline
	var reveal bool
	var format form
	cmd := &cobra.Command{
		Use: "show", Short: "Name the keys; with --reveal, print the master key itself", Args: cobra.NoArgs,
		Example: "  tako key show\n  tako key show --output json\n  tako key show --reveal > master-key.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if reveal && format == formJSON {
				return usageError{errors.New("--reveal prints the master key and nothing else; leave --output out")}
			}
			return o.keys(cmd, func(ctx context.Context, k *app.Keys) error {
				out := cmd.OutOrStdout()
				if reveal {
					master, err := k.Master()
					if err != nil {
						return err
					}
					_, err = fmt.Fprintln(out, master.Reveal())
					return err
				}
				all, err := k.Recoveries(ctx)
				if err != nil {
					return err
				}
				if format == formJSON {
					return printJSON(out, keysShown{k.MasterID(), recoveriesShown(all)})
				}
				fmt.Fprintf(out, "Master key:   %s\n", k.MasterID())
				printRecoveries(out, all)
				return nil
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&reveal, "reveal", false, "print the master key itself, and nothing else")
	outputFlag(cmd, &format)
	return cmd
}

// keysShown is what `tako key show --output json` prints: names of keys, and none of them.
type keysShown struct {
	MasterKeyID  string
	RecoveryKeys []recoveryShown
}

// recoveryShown is one recovery key. Confirmed is null until somebody has shown that they
// keep its kit.
type recoveryShown struct {
	ID        string
	Created   time.Time
	Confirmed *time.Time
}

func recoveriesShown(all []secret.Recovery) []recoveryShown {
	out := []recoveryShown{}
	for _, r := range all {
		one := recoveryShown{ID: r.ID, Created: r.Created}
		if !r.Confirmed.IsZero() {
			one.Confirmed = &r.Confirmed
		}
		out = append(out, one)
	}
	return out
}

// healthShown is what `tako key check --output json` prints. DoNotOpen counts the secrets
// that nobody can open, of which Dead names the first; Problems are the sentences by which
// the exit code is 1.
type healthShown struct {
	keysShown
	DataKeys, Secrets, DoNotOpen, UnderOlderDataKey int
	Dead                                            []string
	IsRotating                                      bool
	Problems                                        []string
}

func printRecoveries(out io.Writer, all []secret.Recovery) {
	for _, r := range all {
		state := "its kit is not confirmed yet; run `tako key recovery-kit`"
		if !r.Confirmed.IsZero() {
			state = "kit confirmed " + r.Confirmed.Format(time.DateOnly)
		}
		fmt.Fprintf(out, "Recovery key: %s, made %s, %s\n", r.ID, r.Created.Format(time.DateOnly), state)
	}
}

func recoveryKitCommand() *cobra.Command {
	var o offline
	var confirm, anew bool
	var path string
	cmd := &cobra.Command{
		Use: "recovery-kit", Short: "Print the recovery kit, and confirm that it is kept", Args: cobra.NoArgs,
		Long: `Prints the recovery kit: what opens the server's backups, and gives the master key
back, when the server's machine is no more. Keep it on paper or in a password
manager, not on the server.

Typing the last 4 characters of the recovery key back confirms it. From then on the
server no longer has that key and cannot print it again. The kit outlives a change
of the master key.`,
		Example: `  tako key recovery-kit
  tako key recovery-kit --out kit.txt
  echo 7QXP | tako key recovery-kit --confirm
  tako key recovery-kit --new`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if confirm && (anew || path != "") {
				return usageError{errors.New("--confirm goes with neither --new nor --out")}
			}
			return o.keys(cmd, func(ctx context.Context, k *app.Keys) error {
				if confirm {
					return confirmKit(ctx, cmd, k)
				}
				if anew {
					if _, err := k.NewRecovery(ctx, true); err != nil {
						return err
					}
				}
				key, err := k.RevealRecovery(ctx)
				if err != nil {
					return err
				}
				if err := printKit(cmd.OutOrStdout(), path, key); err != nil {
					return err
				}
				if in, ok := cmd.InOrStdin().(*os.File); ok && term.IsTerminal(int(in.Fd())) {
					return confirmKit(ctx, cmd, k)
				}
				_, err = fmt.Fprintf(cmd.ErrOrStderr(), "Confirm it by its last %d characters: tako key recovery-kit --confirm\n", secret.ConfirmLength)
				return err
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&confirm, "confirm", false, "read the last 4 characters of the recovery key, as proof that the kit is kept")
	cmd.Flags().BoolVar(&anew, "new", false, "make another recovery key; backups that exist stay under the former one")
	cmd.Flags().StringVar(&path, "out", "", "write the kit to this new file (mode 0600) instead of standard output")
	return cmd
}

func confirmKit(ctx context.Context, cmd *cobra.Command, k *app.Keys) error {
	typed, err := askLine(cmd, fmt.Sprintf("The last %d characters of the recovery key: ", secret.ConfirmLength))
	if err != nil {
		return err
	}
	if err := k.ConfirmRecovery(ctx, typed); err != nil {
		return err
	}
	_, err = fmt.Fprintln(cmd.ErrOrStderr(), "The recovery kit is confirmed. The server has forgotten its key.")
	return err
}

// askLine asks on the terminal, or reads the first line of standard input.
func askLine(cmd *cobra.Command, question string) (string, error) {
	fmt.Fprint(cmd.ErrOrStderr(), question)
	line, err := bufio.NewReader(io.LimitReader(cmd.InOrStdin(), 4096)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read standard input: %w", err)
	}
	return strings.TrimSpace(line), nil
}

func printKit(out io.Writer, path string, key secret.RecoveryKey) error {
	spelled, err := key.Words()
	if err != nil {
		return err
	}
	var b strings.Builder
	fmt.Fprintf(&b, `TAKO RECOVERY KIT

Whoever has this opens the backups of this server and all secrets in them.
Keep it away from the server. It names: %s

Recovery key:

  %s

The same in words:

`, key.ID(), key.Reveal())
	for i, w := range spelled {
		end := " "
		if i%6 == 5 || i == len(spelled)-1 {
			end = "\n"
		}
		if i%6 == 0 {
			b.WriteString("  ")
		}
		fmt.Fprintf(&b, "%2d %-9s%s", i+1, w, end)
	}
	b.WriteString(`
The master key is lost:        tako key recover < kit.txt
The machine is lost:           tako backup restore BACKUP --recovery-key-file kit.txt
`)
	if path == "" {
		_, err := io.WriteString(out, b.String())
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return fmt.Errorf("write the kit: %w", err)
	}
	_, err = f.WriteString(b.String())
	return errors.Join(err, f.Sync(), f.Close())
}

func keyCheckCommand() *cobra.Command {
	var o offline
	var format form
	cmd := &cobra.Command{
		Use: "check", Short: "Open every secret, and say which do not open", Args: cobra.NoArgs,
		Long: "Opens every sealed value of the database and names those that do not open. The exit\ncode is 1 if there are any, if a rotation is unfinished, or if the recovery kit was\nnever confirmed.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			return o.keys(cmd, func(ctx context.Context, k *app.Keys) error {
				h, err := k.Check(ctx)
				if err != nil {
					return err
				}
				return printHealth(cmd.OutOrStdout(), h, format)
			})
		},
	}
	o.flags(cmd)
	outputFlag(cmd, &format)
	return cmd
}

func printHealth(out io.Writer, h secret.Health, format form) error {
	wrong := problemsOf(h)
	if format == formJSON {
		shown := healthShown{
			keysShown: keysShown{h.MasterID, recoveriesShown(h.Recoveries)}, DataKeys: h.DataKeys, Secrets: h.Values, DoNotOpen: h.DeadCount,
			UnderOlderDataKey: h.Older, Dead: []string{}, IsRotating: h.Rotating, Problems: []string{},
		}
		for _, r := range h.Dead {
			shown.Dead = append(shown.Dead, r.String())
		}
		for _, err := range wrong {
			shown.Problems = append(shown.Problems, err.Error())
		}
		return errors.Join(append(wrong, printJSON(out, shown))...)
	}
	fmt.Fprintf(out, "Master key:   %s, with %d data keys\n", h.MasterID, h.DataKeys)
	printRecoveries(out, h.Recoveries)
	fmt.Fprintf(out, "Secrets:      %d, of which %d do not open; %d are under an older data key\n", h.Values, h.DeadCount, h.Older)
	for _, r := range h.Dead {
		fmt.Fprintf(out, "  does not open: %s\n", r)
	}
	return errors.Join(wrong...)
}

// problemsOf is what is wrong with the keys.
func problemsOf(h secret.Health) (wrong []error) {
	if h.DeadCount > 0 {
		wrong = append(wrong, fmt.Errorf("%d secrets do not open", h.DeadCount))
	}
	if h.Rotating {
		wrong = append(wrong, errors.New("a rotation of the master key is not finished; run `tako key rotate` to end it"))
	}
	if len(h.Recoveries) == 0 || h.Recoveries[0].Confirmed.IsZero() {
		wrong = append(wrong, errors.New("the recovery kit was never confirmed; run `tako key recovery-kit`"))
	}
	return wrong
}

func keyRotateCommand() *cobra.Command {
	var o offline
	var newKey string
	cmd := &cobra.Command{
		Use: "rotate", Short: "Change the master key while servers run", Args: cobra.NoArgs,
		Long: `Makes a new master key and a new data key and seals every secret anew, while all
servers of the database go on. They take the new key over by themselves and write it
into their own master.key. If the command is cut short, at whatever point, the same
command brings it to its end.

Where the master key comes from elsewhere (TAKO_MASTER_KEY, master_key_file, systemd),
make the new one yourself and give it with --new-key-file; then put it where the old
one comes from, before a server starts again.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var next secret.MasterKey
			if newKey != "" {
				var err error
				if next, err = (secret.Source{File: newKey}).Load(); err != nil {
					return err
				}
			}
			return o.keys(cmd, func(ctx context.Context, k *app.Keys) error {
				out := cmd.OutOrStdout()
				r, err := k.Rotate(ctx, next, func(n int) {
					if n%10_000 < 50 {
						fmt.Fprintf(out, "%d secrets are sealed anew\n", n)
					}
				})
				if err != nil {
					return err
				}
				verb := "changed"
				if r.Resumed {
					verb = "changed before; that rotation is now finished"
				}
				fmt.Fprintf(out, "The master key is %s: %s -> %s. %d secrets are sealed anew.\n", verb, r.From, r.To, r.Resealed)
				if r.Left > 0 {
					fmt.Fprintf(out, "%d secrets are under older data keys still; `tako key check` names those that do not open.\n", r.Left)
				}
				return nil
			})
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&newKey, "new-key-file", "", "file with the new master key; one is made unless given")
	return cmd
}

func keyRecoverCommand() *cobra.Command {
	var o offline
	cmd := &cobra.Command{
		Use: "recover", Short: "Get the master key back from the recovery kit", Args: cobra.NoArgs,
		Long:    "Reads the recovery kit (the whole text, the key, or its words) from standard input\nand puts the master key back into the data directory. The database must be there.",
		Example: "  tako key recover < kit.txt",
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			key, err := readKit(cmd.InOrStdin())
			if err != nil {
				return err
			}
			master, err := app.RecoverMasterKey(cmd.Context(), cfg, opt, key)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "The %s is back in %s.\n", master, cfg.Data)
			return err
		},
	}
	o.flags(cmd)
	return cmd
}

// maxKit bounds what is read as a recovery kit, in bytes.
const maxKit = 64 * 1024

func readKit(in io.Reader) (secret.RecoveryKey, error) {
	text, err := io.ReadAll(io.LimitReader(in, maxKit))
	if err != nil {
		return secret.RecoveryKey{}, fmt.Errorf("read the recovery kit: %w", err)
	}
	return secret.ParseRecoveryKey(string(text))
}

func keyLostCommand() *cobra.Command {
	var o offline
	var yes bool
	cmd := &cobra.Command{
		Use: "lost", Short: "Begin anew when the master key and the kit are lost for good", Args: cobra.NoArgs,
		Long: `Makes a new master key when the former one, its backups and the recovery kit are all
lost. No secret that it sealed can be read again: they are taken out of the database,
and listed, for somebody to enter them again. Everything else stays. Stop the servers
first. With the kit at hand, use 'tako key recover' instead.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !yes {
				return usageError{errors.New("this throws away every secret that the lost key sealed; say --yes if there is no other way")}
			}
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			n := 0
			out := cmd.OutOrStdout()
			left, err := app.LoseMasterKey(cmd.Context(), cfg, opt, func(r secret.Ref) {
				if n++; n == 1 {
					fmt.Fprintln(out, "To be entered again:")
				}
				fmt.Fprintf(out, "  %s\n", r)
			})
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(out, "There is a new master key. %d secrets are to be entered again; %d in records of old deployments stay closed.\nPrint the new recovery kit now: tako key recovery-kit\n", n, left)
			return err
		},
	}
	o.flags(cmd)
	cmd.Flags().BoolVar(&yes, "yes", false, "throw the sealed values away")
	return cmd
}
