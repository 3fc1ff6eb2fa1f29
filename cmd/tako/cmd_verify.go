package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
	comparing "github.com/takodeploy/tako/internal/verify"
)

func verifyCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "verify", Short: "Compare what two versions of this program do with the same data", Hidden: true,
		Long: `Compares what two versions of this program do with the same data, before one takes the
place of the other: each computes the facts of a copy ('tako verify facts'), and 'tako
verify diff' says what is another. 'tako upgrade' does this by itself.`,
		Example: `  head -c 32 /dev/urandom > key
  tako-old verify facts --data /var/lib/tako --backup latest --seed 7 --key-file key > old.json
  tako-new verify facts --data /var/lib/tako --backup latest --seed 7 --key-file key > new.json
  tako-new verify diff old.json new.json`,
	}
	cmd.AddCommand(verifyFactsCommand(), verifyDiffCommand())
	return cmd
}

func verifyFactsCommand() *cobra.Command {
	var o offline
	var req app.FactsRequest
	var keyFile, id, kit, format, path string
	cmd := &cobra.Command{
		Use: "facts", Short: "Compute what this version does with a copy of the data", Args: cobra.NoArgs,
		Long: `Computes what this version does with a copy of a server's data: the plans of the last
deployments made again, logs and artifacts read, who may do what, the answers of the API,
a sign-in, a package pushed and a release made of it. The document on the standard output
has no secret in it; what may be one is hashed with the key of --key-file, which is to be
made for one comparison.

With --backup the copy is a backup of the settings' server, restored into a scratch place
and thrown away afterwards; --prove proves the backup by that copy as 'tako backup verify
--level 3' does, with its exit codes. Without it, it is the test instance in --data, which has to be
in quarantine; the older program goes first, for the newer one raises the schema's level.
With --read-only it may be any server, even one that runs: what would write is left out.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if format != "json" {
				return usageError{fmt.Errorf("--output is %q; use json", format)}
			}
			if id != "" && req.ReadOnly {
				return usageError{errors.New("--read-only is for a server that must not be changed; a backup is not, so leave one of --read-only and --backup out")}
			}
			if id == "" && req.Prove {
				return usageError{errors.New("--prove is for a backup; name it with --backup")}
			}
			var err error
			if req.Key, err = verifyKey(keyFile); err != nil {
				return err
			}
			cfg, opt, err := o.config(cmd)
			if err != nil {
				return err
			}
			m := newMeter(cmd)
			req.Progress = func(part string) { m.pieces(part, 0, 0) }
			var doc *comparing.Document
			if id == "" {
				doc, err = app.Facts(cmd.Context(), cfg, opt, req)
			} else {
				key, bad := kitOf(cmd, kit)
				if bad != nil {
					return bad
				}
				var b *app.Backups
				if b, err = app.OpenBackups(cfg, opt); err == nil {
					doc, err = b.Facts(cmd.Context(), id, key, req, m.tell)
				}
			}
			m.end()
			if err != nil {
				return err
			}
			if path == "" {
				return doc.Write(cmd.OutOrStdout())
			}
			f, err := os.OpenFile(path, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			return errors.Join(doc.Write(f), f.Close())
		},
	}
	o.flags(cmd)
	kitFlag(cmd, &kit)
	cmd.Flags().StringVar(&id, "backup", "", `backup to restore into a scratch place: a name of 'tako backup list', or "latest"`)
	cmd.Flags().BoolVar(&req.Prove, "prove", false, "prove the backup at level 3 by the same copy")
	cmd.Flags().Uint64Var(&req.Seed, "seed", 1, "chooses which logs and artifacts are read; the same for both programs")
	cmd.Flags().StringVar(&keyFile, "key-file", "", fmt.Sprintf("file with %d random bytes or more, the same for both programs", comparing.MinKey))
	cmd.Flags().BoolVar(&req.ReadOnly, "read-only", false, "change nothing, and leave out what would")
	cmd.Flags().IntVar(&req.Limits.Deployments, "deployments", 0, "how many deployments to plan again at most; 2000 unless given")
	cmd.Flags().IntVar(&req.Limits.Logs, "logs", 0, "how many logs to read; 200 unless given")
	cmd.Flags().IntVar(&req.Limits.Artifacts, "artifacts", 0, "how many artifacts to read; 200 unless given")
	cmd.Flags().StringVar(&format, "output", "json", "json")
	cmd.Flags().StringVar(&path, "out", "", "file to write the document to, instead of the standard output")
	return cmd
}

// maxKeyFile bounds a key's file, in bytes.
const maxKeyFile = 1 << 20

func verifyKey(path string) ([]byte, error) {
	if path == "" {
		return nil, missing("key-file", fmt.Sprintf("a file with %d random bytes, as of: head -c 32 /dev/urandom", comparing.MinKey))
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return io.ReadAll(io.LimitReader(f, maxKeyFile))
}

// differs ends a comparison that has found something.
type differs struct{ n int }

// Error says how many differences there are.
func (e *differs) Error() string {
	return fmt.Sprintf("the two versions do not do the same: %d differences", e.n)
}

// ExitCode is that of "compared, and not the same".
func (e *differs) ExitCode() int { return 1 }

func verifyDiffCommand() *cobra.Command {
	var format string
	cmd := &cobra.Command{
		Use: "diff OLD.json NEW.json", Short: "Say where two versions do not do the same", Args: cobra.ExactArgs(2),
		Long: `Compares two documents of 'tako verify facts', the one of the version that runs first.

Exit codes: 0 the same, or only what a new version brings; 1 there are differences; 2 wrong
command line.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if format != "table" && format != "json" {
				return usageError{fmt.Errorf("--output is %q; use table or json", format)}
			}
			var docs [2]*comparing.Document
			for i, path := range args {
				f, err := os.Open(path)
				if err != nil {
					return err
				}
				docs[i], err = comparing.Read(bufio.NewReader(f))
				if err := errors.Join(err, f.Close()); err != nil {
					return fmt.Errorf("%s: %w", path, err)
				}
			}
			c, err := comparing.Diff(docs[0], docs[1])
			if err != nil {
				return err
			}
			if format == "json" {
				e := json.NewEncoder(cmd.OutOrStdout())
				e.SetIndent("", "  ")
				err = e.Encode(c)
			} else {
				err = c.WriteText(cmd.OutOrStdout())
			}
			if err == nil && !c.Same() {
				err = &differs{c.Count()}
			}
			return err
		},
	}
	cmd.Flags().StringVar(&format, "output", "table", "table or json")
	return cmd
}
