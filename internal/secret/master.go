package secret

import (
	"bytes"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"

	"github.com/takodeploy/tako/internal/durable"
)

// KeySize is the size of every key, in bytes.
const KeySize = 32

// Names of files.
const (
	// FileName is the master key's file in the data directory.
	FileName = "master.key"
	// nextName is where a new master key lies while the database changes over to it.
	nextName = "master.key.next"
	// CredentialName is the name under which systemd's LoadCredential= gives a master key.
	CredentialName = "tako.master-key"
)

// maxKeyFile bounds what is read as a key.
const maxKeyFile = 4096

// MasterKey is the key under which the keys of the database are. It is never
// stored in the database.
type MasterKey struct {
	key [KeySize]byte
	id  string
}

// NewMasterKey makes a random key.
func NewMasterKey() MasterKey {
	var key [KeySize]byte
	_, _ = rand.Read(key[:]) // it ends the process rather than fail
	return masterKey(key)
}

func masterKey(key [KeySize]byte) MasterKey {
	id, err := hkdf.Key(sha256.New, key[:], nil, "tako master key id", 8)
	if err != nil {
		return MasterKey{} // not for these sizes; an empty key is refused everywhere
	}
	return MasterKey{key: key, id: hex.EncodeToString(id)}
}

// ID names the key without telling anything of it. It is the check value that
// backups carry.
func (k MasterKey) ID() string { return k.id }

// Reveal returns the key as ParseMasterKey reads it, for those who keep it safe.
func (k MasterKey) Reveal() string { return base64.StdEncoding.EncodeToString(k.key[:]) }

// String names the key; the key itself is never formatted.
func (k MasterKey) String() string { return "master key " + k.id }

// Format hides the key under every verb.
func (k MasterKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) } // fmt's own writer does not fail

// LogValue hides the key from slog.
func (k MasterKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

// ParseMasterKey reads a key of 32 bytes in base64 or in hexadecimal.
func ParseMasterKey(text string) (MasterKey, error) {
	text = strings.TrimSpace(text)
	raw, err := hex.DecodeString(text)
	if err != nil {
		raw, err = base64.StdEncoding.DecodeString(text)
	}
	if err != nil || len(raw) != KeySize {
		return MasterKey{}, errors.New("a master key is 32 bytes in base64 or hexadecimal; make one with `head -c 32 /dev/urandom | base64`")
	}
	return masterKey([KeySize]byte(raw)), nil
}

// Source says where the master key is. The first that is set counts.
type Source struct {
	// Text is the key itself, from TAKO_MASTER_KEY.
	Text Text
	// File is a file with the key, which somebody else looks after.
	File string
	// CredentialsDir is the folder of systemd's credentials ($CREDENTIALS_DIRECTORY);
	// it counts if it has a file CredentialName.
	CredentialsDir string
	// Dir is the data directory: the key is its master.key, which is made at
	// the first start.
	Dir string
}

// ErrNoKey says that a data directory has no key.
var ErrNoKey = errors.New("there is no master key")

// Load reads the master key. It does not make one.
func (s Source) Load() (MasterKey, error) {
	switch {
	case s.Text != "":
		k, err := ParseMasterKey(string(s.Text))
		if err != nil {
			return k, fmt.Errorf("TAKO_MASTER_KEY: %w", err)
		}
		return k, nil
	case s.File != "":
		return readKey(s.File)
	}
	if s.CredentialsDir != "" {
		k, err := readKey(filepath.Join(s.CredentialsDir, CredentialName))
		if !errors.Is(err, fs.ErrNotExist) {
			return k, err
		}
	}
	if s.Dir == "" {
		return MasterKey{}, ErrNoKey
	}
	path := filepath.Join(s.Dir, FileName)
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return MasterKey{}, ErrNoKey
	case err != nil:
		return MasterKey{}, err
	case info.Mode().Perm()&0o077 != 0:
		return MasterKey{}, fmt.Errorf("%s can be read by others (mode %04o); run `chmod 600 %s`", path, info.Mode().Perm(), path)
	}
	return readKey(path)
}

// Managed says that the key is our own file.
func (s Source) Managed() bool {
	if s.Text != "" || s.File != "" || s.Dir == "" {
		return false
	}
	if s.CredentialsDir == "" {
		return true
	}
	_, err := os.Stat(filepath.Join(s.CredentialsDir, CredentialName))
	return errors.Is(err, fs.ErrNotExist)
}

func readKey(path string) (MasterKey, error) {
	f, err := os.Open(path)
	if err != nil {
		return MasterKey{}, err
	}
	defer func() { _ = f.Close() }() // only read
	text, err := io.ReadAll(io.LimitReader(f, maxKeyFile))
	if err != nil {
		return MasterKey{}, err
	}
	if len(text) == KeySize && bytes.ContainsFunc(text, func(r rune) bool { return r < ' ' || r > '~' }) {
		return masterKey([KeySize]byte(text)), nil // the bare bytes, as some secret stores give them
	}
	k, err := ParseMasterKey(string(text))
	if err != nil {
		return k, fmt.Errorf("%s: %w", path, err)
	}
	return k, nil
}

// writeKey makes a key file that survives a power loss, and never replaces one:
// where one is already it returns fs.ErrExist.
func writeKey(path string, k MasterKey) (err error) {
	dir := filepath.Dir(path)
	tmp, err := os.CreateTemp(dir, ".master-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.Remove(tmp.Name())) }()
	_, err = tmp.WriteString(k.Reveal() + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil {
		return err
	}
	return durable.SyncDir(dir)
}
