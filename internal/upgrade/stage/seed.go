package stage

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"

	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
)

// seed puts a program that is on this machine already where a transfer would put it, if
// it is the one that is wanted. Whatever it is, it is checked afterwards like one that
// was fetched.
func seed(have, path string, a releasefeed.Artifact) error {
	in, err := os.Open(have)
	if err != nil {
		return err
	}
	defer in.Close()
	h := sha256.New()
	if n, err := io.Copy(h, io.LimitReader(in, releasefeed.MaxArtifact)); err != nil || n != a.Size || hex.EncodeToString(h.Sum(nil)) != a.SHA256 {
		return err
	}
	if _, err := in.Seek(0, io.SeekStart); err != nil {
		return err
	}
	if err := os.RemoveAll(path); err != nil {
		return err
	}
	out, err := newFile(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}
