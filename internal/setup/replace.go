package setup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/version"
)

// replaceable says why the supervisor cannot be replaced with this program: there is none,
// or it is newer, which newer servers may count on.
func (i *install) replaceable(ctx context.Context, current string) error {
	_, err := os.Stat(i.Supervisor())
	if current == "" || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("nothing is installed in %s whose supervisor could be replaced; install without --supervisor-only", i.Root)
	}
	if err != nil {
		return err
	}
	there := versionOf(ctx, i.Supervisor())
	is, thisErr := version.Parse(version.SemVer, i.Version)
	was, wasErr := version.Parse(version.SemVer, there)
	if thisErr == nil && wasErr == nil && version.Compare(was, is) > 0 {
		return fmt.Errorf("the supervisor %s has version %s, and this is %s: servers may need the newer one. Nothing was changed", i.Supervisor(), there, i.Version)
	}
	return nil
}

// versionOf is what a program says that it is, "" if it says nothing.
func versionOf(ctx context.Context, program string) string {
	ctx, stop := context.WithTimeout(ctx, 10*time.Second)
	defer stop()
	out := &bounded{limit: 4096}
	err := runFresh(func() *exec.Cmd {
		cmd := exec.CommandContext(ctx, program, "version", "--output", "json")
		cmd.Env = []string{"PATH=/usr/bin:/bin"}
		cmd.WaitDelay = time.Second
		cmd.Stdout = out
		return cmd
	})
	var says struct{ Version string }
	if err != nil || json.Unmarshal(out.text, &says) != nil {
		return ""
	}
	return says.Version
}

// runFresh runs a program that was just written. A process that is just being forked may
// still hold it open for that, which is waited for.
func runFresh(command func() *exec.Cmd) error {
	for pause := time.Millisecond; ; pause *= 2 {
		if err := command().Run(); !errors.Is(err, unix.ETXTBSY) || pause > time.Second {
			return err
		}
		time.Sleep(pause)
	}
}

// released checks that this program is the one that the release has.
func (i *install) released(ctx context.Context) error {
	if !i.signed() {
		return nil
	}
	r := i.stage()
	if r.Wanted == "" && r.Source.Bundle == "" { // a bundle has one version only
		r.Wanted = i.Version
	}
	offer, err := i.offer(ctx, r)
	if err != nil {
		return err
	}
	sum, err := hashOf(i.copy)
	if err == nil && sum != offer.Artifact.SHA256 {
		err = fmt.Errorf("this program is not version %s of the release: its SHA-256 is %s, and should be %s", offer.Release.Version, sum, offer.Artifact.SHA256)
	}
	return err
}

func hashOf(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	_, err = io.Copy(h, f)
	return hex.EncodeToString(h.Sum(nil)), err
}

// sameContent reports whether two files have the same content; one that is not there has
// none.
func sameContent(a, b string) (bool, error) {
	x, err := os.Open(a)
	if err != nil {
		return false, err
	}
	defer x.Close()
	y, err := os.Open(b)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer y.Close()
	p, q := make([]byte, 256<<10), make([]byte, 256<<10)
	for {
		n, errX := io.ReadFull(x, p)
		m, errY := io.ReadFull(y, q)
		if !bytes.Equal(p[:n], q[:m]) {
			return false, nil
		}
		for _, err := range []error{errX, errY} {
			if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
				return false, err
			}
		}
		if errX != nil || errY != nil {
			return true, nil
		}
	}
}

// former finds out which supervisor runs, and whether its program is another one than
// that which is installed now.
func (i *install) former(ctx context.Context) (told, error) {
	t, err := i.send(ctx, i.copy, &errand{Do: errandStatus})
	if err != nil || t.PID == 0 {
		return t, err
	}
	is, err := os.Stat(i.Supervisor())
	if err != nil {
		return t, err
	}
	// What is no process any more runs nothing.
	if runs, err := os.Stat(fmt.Sprintf("/proc/%d/exe", t.PID)); err == nil && !os.SameFile(is, runs) {
		i.done.Former = t.PID
	}
	return t, nil
}

// restart has systemd start the supervisor anew, if it runs another program. It is killed
// for that, since one that is told to end also ends its servers.
func (i *install) restart(ctx context.Context) error {
	before, err := i.former(ctx)
	if err != nil {
		return err
	}
	if before.PID == 0 {
		return fmt.Errorf("the new supervisor is in place, and the one that runs does not answer, so that it was not restarted. Look with: journalctl -u %s; then do this again", Service)
	}
	i.done.Started = true
	if i.done.Former == 0 {
		return nil
	}
	after, err := i.send(ctx, i.copy, &errand{Do: errandRestart})
	if err != nil {
		return err
	}
	i.changed(fmt.Sprintf("the supervisor's process (%d, before %d)", after.PID, before.PID))
	i.done.Former = 0
	if after.Server == before.Server {
		i.done.Server = after.Server
	}
	return nil
}
