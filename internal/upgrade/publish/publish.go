// Package publish is how the project makes releases known: it makes keys and roots,
// describes a release by its files, and puts it into the signed feed of a channel.
//
// It works on files alone and reaches no network, so that it can run on a machine that
// has none, which is where the keys belong. The same input gives the same bytes.
package publish

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/upgrade/bundle"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// PublicSuffix is what the name of a public key's file ends in.
const PublicSuffix = ".pub"

const (
	pemPrivate = "PRIVATE KEY"
	pemPublic  = "PUBLIC KEY"
)

// NewKey makes an Ed25519 key in a new file that only its owner can read, and the public
// one beside it, both in the usual form (PKCS #8, PKIX). It tells the key's id.
func NewKey(path string) (id string, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	secretDER, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	publicDER, err := x509.MarshalPKIXPublicKey(public)
	if err != nil {
		return "", fmt.Errorf("make a key: %w", err)
	}
	if err := create(path, pem.EncodeToMemory(&pem.Block{Type: pemPrivate, Bytes: secretDER}), 0o600); err != nil {
		return "", err
	}
	err = create(path+PublicSuffix, pem.EncodeToMemory(&pem.Block{Type: pemPublic, Bytes: publicDER}), 0o644)
	if err != nil {
		return "", errors.Join(err, os.Remove(path))
	}
	return releasefeed.KeyID(public), nil
}

// create writes a file that must not be there yet.
func create(path string, data []byte, perm fs.FileMode) error {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, perm)
	if err != nil {
		return fmt.Errorf("make the file of a key: %w", err)
	}
	_, err = f.Write(data)
	if err := errors.Join(err, f.Sync(), f.Close(), durable.SyncDir(filepath.Dir(path))); err != nil {
		return fmt.Errorf("write the file of a key: %w", err)
	}
	return nil
}

// maxKeyFile is the size of the largest file of a key.
const maxKeyFile = 16 << 10

// ReadKey reads a key that NewKey has made. A file that others may read is refused.
func ReadKey(path string) (ed25519.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("the key %s can be read by others (mode %04o); make another one, or `chmod 600` it if nobody has read it", path, info.Mode().Perm())
	}
	der, err := readPEM(path, pemPrivate)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	key, ok := parsed.(ed25519.PrivateKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s has no Ed25519 key", path)
	}
	return key, nil
}

// ReadPublicKey reads a public key.
func ReadPublicKey(path string) (ed25519.PublicKey, error) {
	der, err := readPEM(path, pemPublic)
	if err != nil {
		return nil, err
	}
	parsed, err := x509.ParsePKIXPublicKey(der)
	key, ok := parsed.(ed25519.PublicKey)
	if err != nil || !ok {
		return nil, fmt.Errorf("%s has no public Ed25519 key", path)
	}
	return key, nil
}

func readPEM(path, kind string) ([]byte, error) {
	raw, err := ReadFile(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(raw)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%s is no file of a key: it has no %q", path, "BEGIN "+kind)
	}
	return block.Bytes, nil
}

// ReadFile reads a file of limit bytes at the most.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if int64(len(raw)) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return raw, nil
}

// ReleaseFile is the name under which a directory of a release has its description.
const ReleaseFile = "release.json"

// Program is the name under which a directory of a release has the server's program.
func Program(version, platform string) string {
	return "tako-" + version + "-" + strings.Replace(platform, "/", "-", 1)
}

// Describe completes the description of a release by the programs that a directory has.
func Describe(dir string, r releasefeed.Release) (releasefeed.Release, error) {
	prefix := Program(r.Version, "")
	names, err := filepath.Glob(filepath.Join(dir, prefix+"*"))
	if err != nil {
		return r, err
	}
	r.Artifacts = map[string]releasefeed.Artifact{}
	for _, path := range names {
		system, arch, ok := strings.Cut(strings.TrimPrefix(filepath.Base(path), prefix), "-")
		if !ok || strings.Contains(arch, "-") {
			continue // of a version whose name begins like this one's
		}
		sum, size, err := hash(path)
		if err != nil {
			return r, err
		}
		r.Artifacts[system+"/"+arch] = releasefeed.Artifact{URL: filepath.Base(path), Size: size, SHA256: sum}
	}
	if len(r.Artifacts) == 0 {
		return r, fmt.Errorf("%s has no program %s<os>-<arch>", dir, prefix)
	}
	return r, check(r)
}

// check holds a release to the rules of a feed.
func check(r releasefeed.Release) error {
	_, err := releasefeed.NewFeed(releasefeed.Feed{Channel: "-", Number: 1, Issued: time.Unix(1, 0), Expires: time.Unix(2, 0), Releases: []releasefeed.Release{r}})
	return err
}

func hash(path string) (sum string, size int64, err error) {
	f, err := os.Open(path)
	if err != nil {
		return "", 0, err
	}
	defer f.Close()
	h := sha256.New()
	if size, err = io.Copy(h, f); err != nil {
		return "", 0, fmt.Errorf("read %s: %w", path, err)
	}
	return hex.EncodeToString(h.Sum(nil)), size, nil
}

// ReadRelease reads the description of a release that Describe has made, and holds it
// against the programs beside it.
func ReadRelease(dir string) (releasefeed.Release, error) {
	var r releasefeed.Release
	raw, err := ReadFile(filepath.Join(dir, ReleaseFile), releasefeed.MaxDocument)
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(raw, &r); err != nil {
		return r, fmt.Errorf("read %s: %w", filepath.Join(dir, ReleaseFile), err)
	}
	now, err := Describe(dir, r)
	if err != nil {
		return r, err
	}
	if !maps.Equal(now.Artifacts, r.Artifacts) {
		return r, fmt.Errorf("the programs in %s are not those that %s describes; make the release again", dir, ReleaseFile)
	}
	return r, nil
}

// Add is the feed with a release more, as the next of its channel. A release that the
// feed has already must not change but for what is said of it: its programs stay.
func Add(f releasefeed.Feed, r releasefeed.Release) (releasefeed.Feed, error) {
	f.Releases = slices.Clone(f.Releases)
	i := slices.IndexFunc(f.Releases, func(old releasefeed.Release) bool { return old.Version == r.Version })
	switch {
	case i < 0:
		f.Releases = append(f.Releases, r)
	case !maps.Equal(f.Releases[i].Artifacts, r.Artifacts):
		return f, fmt.Errorf("the feed has a version %s already, with other programs; a version that was published never changes", r.Version)
	default:
		f.Releases[i] = r
	}
	return f, nil
}

// Revoke marks a release of a feed as one that nobody should install any more.
func Revoke(f releasefeed.Feed, version, reason string) (releasefeed.Feed, error) {
	f.Releases = slices.Clone(f.Releases)
	i := slices.IndexFunc(f.Releases, func(r releasefeed.Release) bool { return r.Version == version })
	if i < 0 || reason == "" {
		return f, fmt.Errorf("revoke version %q: the feed must have it, and a reason is needed", version)
	}
	f.Releases[i].Revoked = reason
	return f, nil
}

// WriteBundle writes a bundle of a version of a feed, with its programs from a directory;
// platforms are those wanted, all of them if there are none.
func WriteBundle(path string, signed []byte, f releasefeed.Feed, version, dir string, platforms []string) (err error) {
	i := slices.IndexFunc(f.Releases, func(r releasefeed.Release) bool { return r.Version == version })
	if i < 0 {
		return fmt.Errorf("the feed has no version %q", version)
	}
	artifacts := f.Releases[i].Artifacts
	if len(platforms) == 0 {
		platforms = slices.Sorted(maps.Keys(artifacts))
	}
	var programs []bundle.Program
	for _, p := range platforms {
		a, ok := artifacts[p]
		if !ok {
			return fmt.Errorf("version %s is not there for %q", version, p)
		}
		file := filepath.Join(dir, Program(version, p))
		sum, size, err := hash(file)
		if err != nil {
			return err
		}
		if sum != a.SHA256 || size != a.Size {
			return fmt.Errorf("%s is not the program that the feed has for %s", file, p)
		}
		programs = append(programs, bundle.Program{Platform: p, Path: file, Size: size})
	}
	out, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o644)
	if err != nil {
		return fmt.Errorf("write the bundle: %w", err)
	}
	if err := errors.Join(bundle.Write(out, signed, version, programs), out.Sync(), out.Close()); err != nil {
		return errors.Join(err, os.Remove(path))
	}
	return nil
}

// CheckBundle holds the programs of a bundle against a feed that is believed.
func CheckBundle(b *bundle.Bundle, f releasefeed.Feed) error {
	i := slices.IndexFunc(f.Releases, func(r releasefeed.Release) bool { return r.Version == b.Version })
	if i < 0 {
		return fmt.Errorf("the bundle has programs of version %.40q, which its feed does not have", b.Version)
	}
	for _, platform := range b.Platforms() {
		in, size, _ := b.Program(platform)
		a, ok := f.Releases[i].Artifacts[platform]
		h := sha256.New()
		if _, err := io.Copy(h, in); err != nil {
			return fmt.Errorf("read the bundle: %w", err)
		}
		if !ok || size != a.Size || hex.EncodeToString(h.Sum(nil)) != a.SHA256 {
			return fmt.Errorf("the program for %s in the bundle is not the one that the feed has: it was cut short or changed", platform)
		}
	}
	return nil
}
