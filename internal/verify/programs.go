package verify

import (
	"bufio"
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"

	"github.com/takodeploy/tako/internal/fault"
)

// Runner runs a command of an installed version on a server's data, with its settings, and
// returns what it wrote. A command that did not succeed is an error.
type Runner func(ctx context.Context, version string, args ...string) (out []byte, err error)

// Programs compares what two versions do with a backup: each computes the facts of a copy of
// its own, in a process of its own. The documents are in a directory that is made in the
// directory parent, which is made too if it is missing: with a name of its own, since the
// process of a call that was killed may still write. It is removed again. That from is a
// version from before there were facts is a fault Unsupported: then to was not run. Else it
// has proven the backup at its highest level before it said its facts.
func Programs(ctx context.Context, run Runner, from, to, backup, parent string) (_ *Comparison, err error) {
	if err := os.MkdirAll(parent, 0o700); err != nil {
		return nil, err
	}
	dir, err := os.MkdirTemp(parent, "try-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	random := make([]byte, MinKey+8)
	if _, err := rand.Read(random); err != nil {
		return nil, err
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, random[:MinKey], 0o600); err != nil {
		return nil, err
	}
	seed := strconv.FormatUint(binary.BigEndian.Uint64(random[MinKey:]), 10)
	var docs []*Document
	for i, version := range []string{from, to} {
		path := filepath.Join(dir, strconv.Itoa(i)+".json")
		args := []string{"verify", "facts", "--backup", backup, "--seed", seed, "--key-file", key, "--out", path}
		if i == 1 {
			// Only of the version that is to run is it known that it has the flag.
			args = append(args, "--prove")
		}
		_, err := run(ctx, version, args...)
		if err != nil {
			// Of a command that it does not know, a program shows no help. What comes after a
			// version that knows it does, too: then it is a failure like any other.
			if i == 0 {
				if _, bad := run(ctx, version, "verify", "facts", "--help"); bad != nil && ctx.Err() == nil {
					return nil, fault.New(fault.Unsupported, "Version %s cannot say what it does with a copy of the data, so that nothing can be compared.", version)
				}
			}
			return nil, err
		}
		d, err := readFile(path)
		if err != nil {
			return nil, err
		}
		docs = append(docs, d)
	}
	return Diff(docs[0], docs[1])
}

func readFile(path string) (*Document, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // only read
	return Read(bufio.NewReader(f))
}
