package instance

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut"
)

// EnvDir is the environment variable that names the store's directory.
const EnvDir = "TAKO_AGENT_CONFIG"

const (
	settingsName = "settings.json"
	identityName = "identity.pem"
	lockName     = ".lock"
	commonName   = "Tako Agent"
	maxFile      = 1 << 20
)

// Store keeps the settings and the identities of a machine's instances.
type Store struct {
	Dir string
}

// DefaultStore is that of EnvDir, or of this machine for root, or of this user.
func DefaultStore() (Store, error) {
	if dir := os.Getenv(EnvDir); dir != "" {
		dir, err := filepath.Abs(dir)
		return Store{dir}, err
	}
	dir, err := defaultDir()
	return Store{dir}, err
}

// IsDefault reports whether commands find the store without EnvDir.
func (s Store) IsDefault() bool {
	dir, err := defaultDir()
	return err == nil && dir == s.Dir
}

// DefaultHome is where an instance works unless it is told otherwise.
func (s Store) DefaultHome(name string) (string, error) {
	if !s.IsDefault() {
		return filepath.Join(s.Dir, "homes", strings.ToLower(name)), nil
	}
	dir, err := defaultHomes()
	return filepath.Join(dir, strings.ToLower(name)), err
}

// instances is the directory that has one for each of them.
func (s Store) instances() string { return filepath.Join(s.Dir, "instances") }

// dir is an instance's. Names have no case: some file systems don't either.
func (s Store) dir(name string) string { return filepath.Join(s.instances(), strings.ToLower(name)) }

// Missing says that there is no such instance; it is a fault.NotFound.
func missing(name string) error {
	return fault.New(fault.NotFound, "There is no instance %q on this machine; `list-instances` names those there are, `configure --instance %s` makes this one.", name, name)
}

// Load reads an instance's settings.
func (s Store) Load(name string) (*Settings, error) {
	set, _, err := s.read(name)
	return set, err
}

func (s Store) read(name string) (*Settings, []byte, error) {
	if err := CheckName(name); err != nil {
		return nil, nil, err
	}
	if err := s.guarded(name); err != nil {
		return nil, nil, err
	}
	path := filepath.Join(s.dir(name), settingsName)
	b, err := readFile(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil, missing(name)
	case errors.Is(err, fs.ErrPermission):
		return nil, nil, fmt.Errorf("%w; run this as the user who configured the instance, as root for most", err)
	case err != nil:
		return nil, nil, err
	}
	set := &Settings{}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields() // what was misspelt would be taken for not being set
	if err := d.Decode(set); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	if err := set.check(); err != nil {
		return nil, nil, fmt.Errorf("read %s: %w", path, err)
	}
	return set, b, nil
}

func readFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Size() > maxFile {
		return nil, fmt.Errorf("read %s: it has %d bytes; %d is the most", path, info.Size(), maxFile)
	}
	return os.ReadFile(path)
}

// Names lists the instances, in order.
func (s Store) Names() ([]string, error) {
	entries, err := os.ReadDir(s.instances())
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if _, err := os.Stat(filepath.Join(s.instances(), e.Name(), settingsName)); err == nil && e.IsDir() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}

// Identity reads an instance's.
func (s Store) Identity(name string) (*halibut.Identity, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	path := filepath.Join(s.dir(name), identityName)
	b, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, missing(name)
	}
	if err != nil {
		return nil, err
	}
	id, err := halibut.ParseIdentity(b)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return id, nil
}

// Configure changes an instance's settings by fn, under a lock that keeps other
// commands out; one that is not there yet is made, with an identity of its own.
func (s Store) Configure(name string, fn func(*Settings) error) (*Settings, error) {
	return s.change(name, true, fn)
}

// Update is Configure for an instance that must be there.
func (s Store) Update(name string, fn func(*Settings) error) (*Settings, error) {
	return s.change(name, false, fn)
}

func (s Store) change(name string, create bool, fn func(*Settings) error) (*Settings, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	set, _, err := s.read(name)
	if create && fault.Is(err, fault.NotFound) {
		set, err = &Settings{Name: name, Port: DefaultPort}, nil
	}
	if err != nil {
		return nil, err
	}
	if err := fn(set); err != nil {
		return nil, err
	}
	if set.Home == "" {
		if set.Home, err = s.DefaultHome(name); err != nil {
			return nil, err
		}
	}
	if err := errors.Join(set.check(), s.apart(set)); err != nil {
		return nil, err
	}
	b, err := json.MarshalIndent(set, "", "  ")
	if err != nil {
		return nil, err
	}
	if err := s.guard(name); err != nil {
		return nil, err
	}
	// The identity first: an instance has settings only when it has one.
	if _, err := os.Stat(filepath.Join(s.dir(name), identityName)); errors.Is(err, fs.ErrNotExist) {
		if err := s.makeIdentity(name); err != nil {
			return nil, err
		}
	}
	return set, replaceFile(filepath.Join(s.dir(name), settingsName), append(b, '\n'))
}

// apart keeps two instances from one home: their scripts would meet there.
func (s Store) apart(set *Settings) error {
	names, err := s.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if strings.EqualFold(name, set.Name) {
			continue
		}
		other, err := s.Load(name)
		if err != nil {
			continue // it does not run either
		}
		if filepath.Clean(other.Home) == filepath.Clean(set.Home) {
			return fault.InvalidField("Home", "The instance %q works in %s already; give this one a directory of its own by --home.", other.Name, set.Home)
		}
	}
	return nil
}

func (s Store) makeIdentity(name string) error {
	id, err := halibut.NewIdentity(commonName, time.Now())
	if err != nil {
		return err
	}
	b, err := id.PEM()
	if err != nil {
		return err
	}
	return replaceFile(filepath.Join(s.dir(name), identityName), b)
}

// Remove forgets an instance and its identity. Its home stays.
func (s Store) Remove(name string) error {
	if err := CheckName(name); err != nil {
		return err
	}
	unlock, err := s.lock()
	if err != nil {
		return err
	}
	defer unlock()
	if _, err := os.Stat(s.dir(name)); errors.Is(err, fs.ErrNotExist) {
		return missing(name)
	}
	return os.RemoveAll(s.dir(name))
}

// guard makes the directories of an instance, of none for "". Those of the machine's own
// store are kept from others; one that EnvDir names is as whoever named it wants it.
func (s Store) guard(name string) error {
	if s.IsDefault() {
		if err := guard(s.Dir); err != nil {
			return err
		}
	}
	dir := s.instances()
	if name != "" {
		dir = s.dir(name)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	return s.guarded(name)
}

// guarded reports why the settings of an instance may be somebody else's.
func (s Store) guarded(name string) error {
	if !s.IsDefault() {
		return nil
	}
	dirs := []string{s.Dir, s.instances()}
	if name != "" {
		dirs = append(dirs, s.dir(name))
	}
	for _, dir := range dirs {
		if err := guarded(dir); err != nil {
			return err
		}
	}
	return nil
}

func (s Store) lock() (unlock func(), err error) {
	if err := s.guard(""); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, lockName), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	if err := lockFile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock %s: %w", f.Name(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil // which lets the lock go
}

// replaceFile writes a file that only its owner may read, whole or not at all.
func replaceFile(path string, content []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".new-*") // with mode 0600
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(f.Name()))
	}
	return syncDir(filepath.Dir(path))
}
