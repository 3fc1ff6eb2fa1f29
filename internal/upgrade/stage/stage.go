package stage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/reserve"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// Reason says why a program is not installed.
type Reason string

// The reasons. Those of feeds are releasefeed's own.
const (
	Truncated     Reason = "truncated"      // it ends before its size
	Corrupt       Reason = "corrupt"        // its content is not what the feed says
	OtherPlatform Reason = "other platform" // it is for another system or processor
	Unfit         Reason = "unfit"          // it does not run, or is another version than it should be
)

// Error is a program that is not installed.
type Error struct {
	Reason  Reason
	message string
}

// Error is a sentence for people.
func (e *Error) Error() string { return e.message }

func refuse(reason Reason, format string, args ...any) error {
	return &Error{reason, fmt.Sprintf(format, args...)}
}

// Is reports whether an error is a program that is not installed for that reason.
func Is(err error, reason Reason) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == reason
}

// Platform is that of this program.
func Platform() string { return runtime.GOOS + "/" + runtime.GOARCH }

// Request is what is wanted.
type Request struct {
	Source  Source
	Channel string
	// Version is the version that runs, "" for none yet, Wanted the one that somebody
	// names, "" for the newest that is good.
	Version, Wanted string
	// Have is a program on this machine that may be the wanted one already, "" for none.
	Have string
	Now  time.Time
}

// Offer is what can be installed.
type Offer struct {
	releasefeed.Choice
	// Expired tells that the feed's time is over.
	Expired bool
	// Feed is the signed feed that says so.
	Feed []byte
}

// maxRoots bounds how many roots are followed at once.
const maxRoots = 32

// Check finds out what there is to install. It remembers the feed, and downloads no
// program. That there is nothing newer is a *releasefeed.NoChoice, a feed that is not
// believed a *releasefeed.Error.
func (s *Store) Check(ctx context.Context, r Request) (*Offer, error) {
	src, err := r.Source.open()
	if err != nil {
		return nil, err
	}
	defer src.close()
	return s.check(ctx, src, &r)
}

func (s *Store) check(ctx context.Context, src *opened, r *Request) (*Offer, error) {
	wanted := r.Wanted
	if src.bundle != nil {
		if wanted == "" {
			wanted = src.bundle.Version
		}
		if wanted != src.bundle.Version {
			return nil, refuse(Unfit, "The bundle has version %.40q, and %.40q is wanted.", src.bundle.Version, wanted)
		}
	}
	v, t, signed, err := s.believed(ctx, src, r)
	if err != nil {
		return nil, err
	}
	c, err := v.Choose(releasefeed.Installed{Version: r.Version, Platform: Platform(), Bad: t.bad()}, wanted)
	if err != nil {
		return nil, err
	}
	if src.bundle != nil && c.Release.Version != src.bundle.Version {
		return nil, refuse(Unfit, "Version %s cannot be installed yet: version %s must be visited on the way to it, and the bundle does not have that.", src.bundle.Version, c.Release.Version)
	}
	return &Offer{*c, v.Expired, signed}, nil
}

// believed reads the feed of a source and remembers it, or says why it is not believed.
func (s *Store) believed(ctx context.Context, src *opened, r *Request) (*releasefeed.Verified, Trust, []byte, error) {
	root, err := s.Root()
	if err != nil {
		return nil, Trust{}, nil, err
	}
	var signed []byte
	if src.bundle != nil {
		signed = src.bundle.Feed
	} else {
		if root, err = s.follow(ctx, src, root); err != nil {
			return nil, Trust{}, nil, err
		}
		if signed, err = src.document(ctx, ""); err != nil {
			return nil, Trust{}, nil, err
		}
	}
	t, err := s.Trust()
	if err != nil {
		return nil, t, nil, err
	}
	now := r.Now
	if at := t.latest(); at.After(now) {
		now = at
	}
	v, err := releasefeed.Verify(signed, root, r.Channel, t.Seen[r.Channel], now)
	if err != nil {
		return nil, t, nil, err
	}
	return v, t, signed, s.saw(r.Channel, v.Seen)
}

// follow trusts the roots that follow the one that is trusted, as far as they are there.
func (s *Store) follow(ctx context.Context, src *opened, root releasefeed.Root) (releasefeed.Root, error) {
	for range maxRoots {
		signed, err := src.document(ctx, fmt.Sprintf("root.%d.json", root.Version+1))
		// Stores whose files may be read and not listed do not say that one is absent, but
		// that it is forbidden. Who can forbid it could as well keep it back.
		if errors.Is(err, errAbsent) || errors.Is(err, errForbidden) {
			return root, nil
		}
		if err != nil {
			return root, err
		}
		next, err := root.Next(signed)
		if err != nil {
			return root, fmt.Errorf("the keys that should follow those that are trusted: %w", err)
		}
		if _, err := s.Pin(signed, false); err != nil {
			return root, err
		}
		root = next
	}
	return root, nil
}

// program is the name of the server's program in its version's directory.
const program = "tako"

// The other files of a version: what it is, and the feed that says so.
const (
	manifestFile = "manifest.json"
	feedFile     = "feed.json"
)

// Manifest is what is known of an installed version.
type Manifest struct {
	Release  releasefeed.Release  `json:"release"`
	Artifact releasefeed.Artifact `json:"artifact"`
	Platform string               `json:"platform"`
	Staged   time.Time            `json:"staged"`
}

// Manifest reads what is known of an installed version; fs.ErrNotExist for one that was
// installed in another way.
func (s *Store) Manifest(version string) (Manifest, error) {
	var m Manifest
	raw, err := os.ReadFile(filepath.Join(s.dir(version), manifestFile))
	if err == nil {
		err = json.Unmarshal(raw, &m)
	}
	return m, err
}

func (s *Store) dir(version string) string { return filepath.Join(s.versions(), version) }

// Program is the path of a version's program.
func (s *Store) Program(version string) string { return filepath.Join(s.dir(version), program) }

// attempts is how often a transfer that broke off is gone on with.
const attempts = 5

// Stage installs what Check offers, unless it is there already: fetched to
// versions/<version>.partial, where a transfer that broke off goes on the next time,
// checked, tried, and renamed. The feed that says so is beside it. Progress is told done
// of total bytes; it may be nil. After an error nothing that could be run is left, and on
// a full disk nothing at all.
func (s *Store) Stage(ctx context.Context, r Request, progress func(done, total int64)) (_ *Offer, err error) {
	if progress == nil {
		progress = func(int64, int64) {}
	}
	src, err := r.Source.open()
	if err != nil {
		return nil, err
	}
	defer src.close()
	offer, err := s.check(ctx, src, &r)
	if err != nil {
		return nil, err
	}
	alone, err := s.Lock()
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, alone.Unlock()) }()
	version := offer.Release.Version
	if err := s.verify(ctx, version, offer.Artifact); err == nil {
		return offer, s.restate(version, offer.Feed)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	partial := s.dir(version) + partialSuffix
	if err := bring(ctx, src, partial, offer, r.Have, progress); err != nil {
		if reserve.Full(err) {
			err = errors.Join(fmt.Errorf("install version %s: %w; make room on the disk of %s", version, err, s.root), os.RemoveAll(partial))
		}
		return nil, err
	}
	if err := s.complete(ctx, partial, offer, r.Now); err != nil {
		return nil, errors.Join(err, os.RemoveAll(partial))
	}
	return offer, nil
}

// restate puts the feed beside an installed version that was believed now: the one that was
// there may be too old to be believed once more.
func (s *Store) restate(version string, feed []byte) error {
	path := filepath.Join(s.dir(version), feedFile)
	if had, err := os.ReadFile(path); err == nil && bytes.Equal(had, feed) {
		return nil
	}
	if err := durable.WriteFile(path, feed, 0o644); err != nil {
		return fmt.Errorf("note the feed of version %s: %w", version, err)
	}
	return nil
}

// bring makes the program of an offer a file in a directory: what is there of an earlier
// transfer, or the program have if it is that one, and else what src has.
func bring(ctx context.Context, src *opened, dir string, offer *Offer, have string, progress func(done, total int64)) error {
	if err := ownDirectory(dir); err != nil {
		return fmt.Errorf("install version %s: %w", offer.Release.Version, err)
	}
	path := filepath.Join(dir, program)
	if have != "" {
		if err := seed(have, path, offer.Artifact); err != nil {
			return fmt.Errorf("install version %s: %w", offer.Release.Version, err)
		}
	}
	return fetch(ctx, src, path, offer.Artifact, progress)
}

// ownDirectory makes a directory, unless it is there. A link to one is not followed.
func ownDirectory(dir string) error {
	err := os.Mkdir(dir, 0o700)
	if !errors.Is(err, fs.ErrExist) {
		return err
	}
	if info, err := os.Lstat(dir); err != nil || info.IsDir() {
		return err
	}
	return errors.Join(os.Remove(dir), os.Mkdir(dir, 0o700))
}

// ownFile opens what an earlier transfer has left, or makes a new file. Nothing is ever
// written to the target of a link, or to a file that has another name as well.
func ownFile(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_NOFOLLOW, 0)
	if err == nil {
		var st unix.Stat_t
		if err := unix.Fstat(int(f.Fd()), &st); err == nil && st.Mode&unix.S_IFMT == unix.S_IFREG && st.Nlink == 1 {
			return f, nil
		}
		_ = f.Close() // nothing was written
	}
	if err := os.RemoveAll(path); err != nil {
		return nil, err
	}
	return newFile(path)
}

func newFile(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_RDWR|unix.O_NOFOLLOW, 0o600)
}

// verify reports whether a version is installed as the feed has it.
func (s *Store) verify(ctx context.Context, version string, a releasefeed.Artifact) error {
	f, err := os.Open(s.Program(version))
	if err != nil {
		return err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, stoppable{ctx, f}); err != nil {
		return fmt.Errorf("read version %s: %w", version, err)
	}
	if hex.EncodeToString(h.Sum(nil)) != a.SHA256 {
		return refuse(Corrupt, "Version %s is installed already, and is not the one that the feed has. Remove %s if nothing runs it.", version, s.dir(version))
	}
	return nil
}

type stoppable struct {
	ctx context.Context //nolint:containedctx // for the length of a copy
	io.Reader
}

func (r stoppable) Read(p []byte) (int, error) {
	if err := r.ctx.Err(); err != nil {
		return 0, err
	}
	return r.Reader.Read(p)
}

// fetch brings a program into a file, going on where an earlier transfer broke off. What
// is not believed is removed.
func fetch(ctx context.Context, src *opened, path string, a releasefeed.Artifact, progress func(done, total int64)) error {
	f, err := ownFile(path)
	if err != nil {
		return fmt.Errorf("write the program: %w", err)
	}
	defer f.Close()
	if err := f.Chmod(0o600); err != nil { // an interrupted one was being tried
		return err
	}
	d := &download{src: src, f: f, artifact: a, hash: sha256.New(), progress: progress}
	if err := d.begun(ctx); err != nil {
		return err
	}
	resumed := d.at > 0
	err = d.run(ctx)
	if resumed && Is(err, Corrupt) { // what was there was of something else
		if err = d.restart(); err == nil {
			err = d.run(ctx)
		}
	}
	var refused *Error
	if errors.As(err, &refused) {
		return errors.Join(err, os.RemoveAll(filepath.Dir(path)))
	}
	return err
}

// download is a transfer.
type download struct {
	src      *opened
	f        *os.File
	artifact releasefeed.Artifact
	hash     hash.Hash
	at       int64
	progress func(done, total int64)
}

// begun takes in what is there of an earlier attempt.
func (d *download) begun(ctx context.Context) error {
	info, err := d.f.Stat()
	if err != nil {
		return err
	}
	if info.Size() > d.artifact.Size {
		return d.restart()
	}
	d.at, err = io.Copy(d.hash, stoppable{ctx, d.f})
	return err
}

func (d *download) restart() error {
	d.at = 0
	d.hash.Reset()
	_, err := d.f.Seek(0, io.SeekStart)
	return errors.Join(err, d.f.Truncate(0))
}

// run goes on until the program is there, and checks it.
func (d *download) run(ctx context.Context) error {
	var err error
	for range attempts {
		if err = d.some(ctx); err == nil || ctx.Err() != nil || errors.Is(err, errAbsent) || reserve.Full(err) {
			break
		}
		var refused *Error
		if errors.As(err, &refused) && refused.Reason != Truncated {
			break
		}
	}
	if err != nil {
		return err
	}
	if got := hex.EncodeToString(d.hash.Sum(nil)); got != d.artifact.SHA256 {
		return refuse(Corrupt, "The program was fetched, and has the SHA-256 %s; the feed says %s. It was changed on the way, or where it comes from.", got, d.artifact.SHA256)
	}
	return d.f.Sync()
}

// some fetches from where it is to the end.
func (d *download) some(ctx context.Context) error {
	want := d.artifact.Size
	if d.at == want {
		return nil
	}
	in, err := d.src.program(ctx, Platform(), d.artifact, d.at)
	if errors.Is(err, errNoRange) {
		if err := d.restart(); err != nil {
			return err
		}
		in, err = d.src.program(ctx, Platform(), d.artifact, 0)
	}
	if err != nil {
		return err
	}
	defer in.Close()
	buffer := make([]byte, 128<<10)
	for {
		n, err := in.Read(buffer)
		if d.at+int64(n) > want {
			return refuse(Corrupt, "The program is longer than the %d bytes that the feed says.", want)
		}
		if n > 0 {
			if _, err := d.f.Write(buffer[:n]); err != nil {
				return fmt.Errorf("write the program: %w", err)
			}
			_, _ = d.hash.Write(buffer[:n]) // never fails
			d.at += int64(n)
			d.progress(d.at, want)
			if err := failpoint.Hit("stage-fetched"); err != nil {
				return err
			}
		}
		switch {
		case errors.Is(err, io.EOF) && d.at < want:
			return refuse(Truncated, "The program ended after %d of %d bytes.", d.at, want)
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return fmt.Errorf("fetch the program: %w", err)
		}
	}
}

// complete makes a version of what was fetched.
func (s *Store) complete(ctx context.Context, partial string, offer *Offer, now time.Time) error {
	version := offer.Release.Version
	path := filepath.Join(partial, program)
	if err := executable(path); err != nil {
		return err
	}
	if err := SelfTest(ctx, path, version); err != nil {
		return err
	}
	text, err := json.Marshal(Manifest{offer.Release, offer.Artifact, Platform(), now.UTC().Truncate(time.Second)})
	if err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(partial, manifestFile), append(text, '\n'), 0o644); err != nil {
		return err
	}
	if err := durable.WriteFile(filepath.Join(partial, feedFile), offer.Feed, 0o644); err != nil {
		return err
	}
	if err := os.Chmod(partial, 0o755); err != nil { //nolint:gosec // a directory of programs
		return err
	}
	if err := failpoint.Hit("stage-complete"); err != nil {
		return err
	}
	if err := durable.Rename(partial, s.dir(version)); err != nil {
		return fmt.Errorf("install version %s: %w", version, err)
	}
	return failpoint.Hit("stage-renamed")
}

// executable lets a file be run, and no link's target.
func executable(path string) error {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW, 0)
	if err != nil {
		return err
	}
	return errors.Join(f.Chmod(0o755), f.Close())
}

// selfTestLimit is how long a program may take to say what it is.
const selfTestLimit = 30 * time.Second

// SelfTest runs a program, and has it say that it is the version for this platform.
func SelfTest(ctx context.Context, path, version string) error {
	ctx, cancel := context.WithTimeout(ctx, selfTestLimit)
	defer cancel()
	out, errOut, err := ask(ctx, path)
	if err != nil {
		if errors.Is(err, unix.ENOEXEC) {
			return refuse(OtherPlatform, "The program of version %s does not run here: it is for another system or processor than %s.", version, Platform())
		}
		return refuse(Unfit, "The program of version %s does not run here: %v. %s", version, err, strings.TrimSpace(errOut))
	}
	var says struct{ Version, Platform string }
	if err := json.Unmarshal([]byte(out), &says); err != nil {
		return refuse(Unfit, "The program of version %s does not say which version it is.", version)
	}
	if says.Version != version || says.Platform != Platform() {
		return refuse(Unfit, "The program of version %s says that it is version %.40q for %.40q.", version, says.Version, says.Platform)
	}
	return nil
}

// ask runs a program for its version. A process that is just being forked may still hold
// the file open to which the program was written, so that is waited for.
func ask(ctx context.Context, path string) (out, errOut string, err error) {
	for pause := time.Millisecond; ; pause *= 2 {
		cmd := exec.CommandContext(ctx, path, "version", "--output", "json")
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		cmd.WaitDelay = time.Second
		var o, e bounded
		cmd.Stdout, cmd.Stderr = &o, &e
		if err = cmd.Run(); !errors.Is(err, unix.ETXTBSY) || pause > time.Second {
			return o.String(), e.String(), err
		}
		time.Sleep(pause)
	}
}

// bounded keeps the beginning of what is written to it.
type bounded struct{ strings.Builder }

func (b *bounded) Write(p []byte) (int, error) {
	if room := 4096 - b.Len(); room > 0 {
		b.Builder.Write(p[:min(room, len(p))])
	}
	return len(p), nil
}
