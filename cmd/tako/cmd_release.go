package main

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade/bundle"
	"github.com/takodeploy/tako/internal/upgrade/publish"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

func releaseCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use: "release", Short: "Publish versions of Tako: keys, signed feeds, bundles",
		Long: `Makes what 'tako upgrade' trusts: keys, a root (which keys are trusted, and how many of
them must sign), signed feeds of the releases of a channel, and bundles for servers
without a network. Everything works on files and reaches no network. Whoever runs Tako
does not need it, unless they build their own versions.`,
		Example: `  tako release keygen keys/a
  tako release root --key keys/a.pub --sign keys/a --out root.1.json
  tako release feed --dist dist --root root.1.json --sign keys/a --out feed.json
  tako release bundle --feed feed.json --root root.1.json --dist dist --out tako.bundle
  tako release verify tako.bundle --root root.1.json`,
	}
	cmd.AddCommand(releaseKeygenCommand(), releaseRootCommand(), releaseDescribeCommand(), releaseFeedCommand(), releaseSignCommand(), releaseBundleCommand(), releaseVerifyCommand())
	return cmd
}

func releaseKeygenCommand() *cobra.Command {
	return &cobra.Command{
		Use: "keygen FILE", Short: "Make a key to sign with", Args: cobra.ExactArgs(1),
		Long: "Makes an Ed25519 key in the new file FILE, which only its owner can read, and the public key in FILE.pub.",
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := publish.NewKey(args[0])
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Key %s: keep %s to yourself, and give away %s.\n", id, args[0], args[0]+publish.PublicSuffix)
			return err
		},
	}
}

// readAll reads the files of keys.
func readAll[K any](paths []string, read func(string) (K, error)) ([]K, error) {
	var out []K
	for _, p := range paths {
		k, err := read(p)
		if err != nil {
			return nil, err
		}
		out = append(out, k)
	}
	return out, nil
}

// missing names a flag that is needed.
func missing(name, why string) error {
	return usageError{fmt.Errorf("--%s is missing; name %s", name, why)}
}

func releaseRootCommand() *cobra.Command {
	var number, threshold int
	var keys, signs []string
	var previous, out string
	cmd := &cobra.Command{
		Use: "root --key FILE.pub... --sign FILE... --out FILE", Short: "Make a root: which keys are trusted", Args: cobra.NoArgs,
		Long: `Makes a signed root: the keys that are trusted, and how many of them must sign. The
first root is pinned by each server; each later one (--previous names the one before) must
be signed by enough keys of the one before and of its own. Signatures that are not at
hand are added by 'tako release sign'.`,
		Example: `  tako release root --threshold 2 --key a.pub --key b.pub --key c.pub --sign a --sign b --out root.1.json
  tako release root --previous root.1.json --key d.pub --sign a --sign b --sign d --out root.2.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if out == "" {
				return missing("out", "the file to write")
			}
			public, err := readAll(keys, publish.ReadPublicKey)
			if err != nil {
				return err
			}
			private, err := readAll(signs, publish.ReadKey)
			if err != nil {
				return err
			}
			if previous != "" {
				before, err := readRoot(previous)
				if err != nil {
					return err
				}
				number = before.Version + 1
			}
			root, err := releasefeed.NewRoot(number, threshold, public...)
			if err != nil {
				return usageError{fmt.Errorf("the root: %w", err)}
			}
			signed, err := releasefeed.Sign(root, private...)
			if err != nil {
				return err
			}
			if err := durable.WriteFile(out, signed, 0o644); err != nil {
				return err
			}
			if err := wholeRoot(signed, previous); err != nil {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s is not complete yet: %v Add signatures with `tako release sign`.\n", out, err)
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Root %d: %d of %d keys must sign.\n", root.Version, root.Threshold, len(root.Keys))
			return err
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "public key that is trusted; may be repeated")
	cmd.Flags().StringArrayVar(&signs, "sign", nil, "key to sign with; may be repeated")
	cmd.Flags().IntVar(&threshold, "threshold", 1, "how many of the keys must sign")
	cmd.Flags().IntVar(&number, "version", 1, "number of the root; with --previous the next one")
	cmd.Flags().StringVar(&previous, "previous", "", "root that it follows")
	cmd.Flags().StringVar(&out, "out", "", "file to write")
	return cmd
}

func readRoot(path string) (releasefeed.Root, error) {
	raw, err := publish.ReadFile(path, releasefeed.MaxDocument)
	if err != nil {
		return releasefeed.Root{}, err
	}
	r, err := releasefeed.ParseRoot(raw)
	if err != nil {
		return r, fmt.Errorf("read the root %s: %w", path, err)
	}
	return r, nil
}

// wholeRoot tells what signatures a root still lacks.
func wholeRoot(signed []byte, previous string) error {
	if previous == "" {
		_, err := releasefeed.ParseRoot(signed)
		return err
	}
	before, err := readRoot(previous)
	if err != nil {
		return err
	}
	_, err = before.Next(signed)
	return err
}

// facts are what the source says of a release, beyond what follows from its files.
type facts struct {
	UpgradeFromMin string               `json:"upgrade_from_min"`
	RequiredStop   bool                 `json:"required_stop"`
	Rollback       releasefeed.Rollback `json:"rollback"`
	Security       bool                 `json:"security"`
	Database       releasefeed.Database `json:"db"`
	Notes          string               `json:"notes"`
}

func releaseDescribeCommand() *cobra.Command {
	var dist, file string
	cmd := &cobra.Command{
		Use: "describe --dist DIR --facts FILE", Short: "Describe this version by its programs, for a feed", Args: cobra.NoArgs, Hidden: true,
		RunE: func(*cobra.Command, []string) error {
			raw, err := publish.ReadFile(file, releasefeed.MaxDocument)
			if err != nil {
				return err
			}
			var f facts
			dec := json.NewDecoder(strings.NewReader(string(raw)))
			dec.DisallowUnknownFields()
			if err := dec.Decode(&f); err != nil {
				return fmt.Errorf("read %s: %w", file, err)
			}
			date, err := time.Parse(time.RFC3339, commitDate)
			if err != nil {
				return fmt.Errorf("this program was not made by `make release`: its commit's date is %q", commitDate)
			}
			levels := db.BinaryLevels()
			r, err := publish.Describe(dist, releasefeed.Release{
				Version: version, Commit: commit, Date: date.UTC(), Level: levels.Level, MinReaderLevel: levels.MinReader,
				UpgradeFromMin: f.UpgradeFromMin, RequiredStop: f.RequiredStop, Rollback: f.Rollback, Security: f.Security, Database: f.Database, Notes: f.Notes,
			})
			if err != nil {
				return err
			}
			text, err := json.MarshalIndent(r, "", "  ")
			if err != nil {
				return err
			}
			return durable.WriteFile(filepath.Join(dist, publish.ReleaseFile), append(text, '\n'), 0o644)
		},
	}
	cmd.Flags().StringVar(&dist, "dist", "dist", "directory with the programs")
	cmd.Flags().StringVar(&file, "facts", publish.ReleaseFile, "file with what else there is to say of the version")
	return cmd
}

// feedOptions are what a new feed is made of.
type feedOptions struct {
	dist, previous, root, channel, out, issued string
	days                                       int
	revoke, signs                              []string
}

func releaseFeedCommand() *cobra.Command {
	var o feedOptions
	cmd := &cobra.Command{
		Use: "feed --dist DIR --out FILE", Short: "Make the next feed of a channel, and sign it", Args: cobra.NoArgs,
		Long: `Makes the next feed of a channel: what the feed before had (--previous, which is checked
against --root), and the release that 'make release' has put into --dist. Its number
is one more than that of the feed before. A release that was published once never
changes its programs.`,
		Example: `  tako release feed --dist dist --sign keys/a --out feed.json
  tako release feed --dist dist --previous feed.json --root root.1.json --sign keys/a --out feed.json
  tako release feed --previous feed.json --root root.1.json --revoke "2026.5.0=it loses logs" --sign keys/a --out feed.json`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			f, err := nextFeed(&o)
			if err != nil {
				return err
			}
			private, err := readAll(o.signs, publish.ReadKey)
			if err != nil {
				return err
			}
			signed, err := releasefeed.Sign(f, private...)
			if err != nil {
				return err
			}
			if err := durable.WriteFile(o.out, signed, 0o644); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Feed %d of the channel %s: %d releases, %d signatures, valid until %s.\n", f.Number, f.Channel, len(f.Releases), len(private), f.Expires.Format(time.DateOnly))
			return err
		},
	}
	cmd.Flags().StringVar(&o.dist, "dist", "", "directory that `make release` has made")
	cmd.Flags().StringVar(&o.previous, "previous", "", "feed that it follows")
	cmd.Flags().StringVar(&o.root, "root", "", "root that the feed before is checked by")
	cmd.Flags().StringVar(&o.channel, "channel", "stable", "name of the channel")
	cmd.Flags().IntVar(&o.days, "days", 90, "for how many days it is valid")
	cmd.Flags().StringVar(&o.issued, "issued", "", "from when it is valid (RFC 3339); now unless given")
	cmd.Flags().StringArrayVar(&o.revoke, "revoke", nil, "VERSION=REASON: a version that nobody should install any more")
	cmd.Flags().StringArrayVar(&o.signs, "sign", nil, "key to sign with; may be repeated")
	cmd.Flags().StringVar(&o.out, "out", "", "file to write")
	return cmd
}

func nextFeed(o *feedOptions) (f releasefeed.Feed, err error) {
	switch {
	case o.out == "":
		return f, missing("out", "the file to write")
	case o.dist == "" && o.previous == "":
		return f, missing("dist", "the directory that `make release` has made")
	case o.previous != "" && o.root == "":
		return f, missing("root", "the root that the feed before is checked by")
	case o.days < 1 || o.days > 3650:
		return f, usageError{fmt.Errorf("--days is %d; use 1 to 3650", o.days)}
	}
	f = releasefeed.Feed{Channel: o.channel, Issued: time.Now().UTC().Truncate(time.Second)}
	if o.issued != "" {
		if f.Issued, err = time.Parse(time.RFC3339, o.issued); err != nil {
			return f, usageError{fmt.Errorf("--issued is %q; use a time such as 2026-11-27T12:00:00Z", o.issued)}
		}
	}
	f.Issued = f.Issued.UTC()
	f.Expires = f.Issued.AddDate(0, 0, o.days)
	if o.previous != "" {
		before, err := verifiedFeed(o.previous, o.root, o.channel)
		if err != nil {
			return f, err
		}
		f.Number, f.Releases = before.Number, before.Releases
	}
	f.Number++
	if o.dist != "" {
		r, err := publish.ReadRelease(o.dist)
		if err != nil {
			return f, err
		}
		if f, err = publish.Add(f, r); err != nil {
			return f, err
		}
	}
	for _, pair := range o.revoke {
		v, reason, _ := strings.Cut(pair, "=")
		if f, err = publish.Revoke(f, v, reason); err != nil {
			return f, usageError{err}
		}
	}
	return releasefeed.NewFeed(f)
}

func verifiedFeed(path, root, channel string) (*releasefeed.Verified, error) {
	r, err := readRoot(root)
	if err != nil {
		return nil, err
	}
	raw, err := publish.ReadFile(path, releasefeed.MaxDocument)
	if err != nil {
		return nil, err
	}
	v, err := releasefeed.Verify(raw, r, channel, releasefeed.Seen{}, time.Now())
	if err != nil {
		return nil, fmt.Errorf("read the feed %s: %w", path, err)
	}
	return v, nil
}

func releaseSignCommand() *cobra.Command {
	var keys []string
	cmd := &cobra.Command{
		Use: "sign FILE --key FILE...", Short: "Add a signature to a feed or a root", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(keys) == 0 {
				return missing("key", "the key to sign with")
			}
			private, err := readAll(keys, publish.ReadKey)
			if err != nil {
				return err
			}
			raw, err := publish.ReadFile(args[0], releasefeed.MaxDocument)
			if err != nil {
				return err
			}
			signed, err := releasefeed.AddSignature(raw, private...)
			if err != nil {
				return fmt.Errorf("sign %s: %w", args[0], err)
			}
			if err := durable.WriteFile(args[0], signed, 0o644); err != nil {
				return err
			}
			for _, k := range private {
				if public, ok := k.Public().(ed25519.PublicKey); ok {
					fmt.Fprintf(cmd.OutOrStdout(), "Signed by key %s.\n", releasefeed.KeyID(public))
				}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&keys, "key", nil, "key to sign with; may be repeated")
	return cmd
}

func releaseBundleCommand() *cobra.Command {
	var feed, root, channel, dist, wanted, out string
	var platforms []string
	cmd := &cobra.Command{
		Use: "bundle --feed FILE --root FILE --dist DIR --out FILE", Short: "Put a release into one file, for servers without a network", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for name, value := range map[string]string{"feed": feed, "root": root, "dist": dist, "out": out} {
				if value == "" {
					return missing(name, "a path")
				}
			}
			v, err := verifiedFeed(feed, root, channel)
			if err != nil {
				return err
			}
			if wanted == "" {
				wanted = version
			}
			raw, err := publish.ReadFile(feed, releasefeed.MaxDocument)
			if err != nil {
				return err
			}
			if err := publish.WriteBundle(out, raw, v.Feed, wanted, dist, platforms); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "Bundle of version %s: %s\n", wanted, out)
			return err
		},
	}
	cmd.Flags().StringVar(&feed, "feed", "", "signed feed")
	cmd.Flags().StringVar(&root, "root", "", "root that the feed is checked by")
	cmd.Flags().StringVar(&channel, "channel", "stable", "name of the feed's channel")
	cmd.Flags().StringVar(&dist, "dist", "", "directory with the programs")
	cmd.Flags().StringVar(&wanted, "version", "", "version to put into it; this program's own unless given")
	cmd.Flags().StringArrayVar(&platforms, "platform", nil, "platform such as linux/amd64 to put into it; all unless given; may be repeated")
	cmd.Flags().StringVar(&out, "out", "", "new file to write")
	return cmd
}

func releaseVerifyCommand() *cobra.Command {
	var root, channel string
	cmd := &cobra.Command{
		Use: "verify FILE --root FILE", Short: "Check a feed or a bundle as a server would", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if root == "" {
				return missing("root", "the root to check by")
			}
			v, err := verifyRelease(args[0], root, channel)
			if err != nil {
				return err
			}
			if v.Expired {
				fmt.Fprintf(cmd.ErrOrStderr(), "The feed has expired on %s: a server takes only a version from it that somebody names.\n", v.Expires.Format(time.DateOnly))
			}
			return printFeed(cmd.OutOrStdout(), v)
		},
	}
	cmd.Flags().StringVar(&root, "root", "", "root to check by")
	cmd.Flags().StringVar(&channel, "channel", "stable", "name of the channel")
	return cmd
}

// verifyRelease checks a bundle with its programs, or a feed.
func verifyRelease(path, root, channel string) (*releasefeed.Verified, error) {
	b, err := bundle.Open(path)
	if errors.Is(err, bundle.ErrMalformed) {
		return verifiedFeed(path, root, channel)
	}
	if err != nil {
		return nil, err
	}
	defer b.Close() //nolint:errcheck // only read
	r, err := readRoot(root)
	if err != nil {
		return nil, err
	}
	v, err := releasefeed.Verify(b.Feed, r, channel, releasefeed.Seen{}, time.Now())
	if err != nil {
		return nil, fmt.Errorf("read the feed of %s: %w", path, err)
	}
	return v, publish.CheckBundle(b, v.Feed)
}

func printFeed(out io.Writer, v *releasefeed.Verified) error {
	fmt.Fprintf(out, "Feed %d of the channel %s, of %s, valid until %s\n", v.Number, v.Channel, v.Issued.Format(time.DateOnly), v.Expires.Format(time.DateOnly))
	t := newTable(out, "VERSION", "DATE", "LEVEL", "ROLLBACK", "PLATFORMS", "REMARKS")
	for _, r := range v.Releases {
		var remarks []string
		if r.Security {
			remarks = append(remarks, "security")
		}
		if r.RequiredStop {
			remarks = append(remarks, "required stop")
		}
		if r.Revoked != "" {
			remarks = append(remarks, "revoked: "+r.Revoked)
		}
		t.row(r.Version, r.Date.Format(time.DateOnly), r.Level, r.Rollback, strings.Join(slices.Sorted(maps.Keys(r.Artifacts)), " "), strings.Join(remarks, ", "))
	}
	return t.flush()
}
