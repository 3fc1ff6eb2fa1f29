package install

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// maxJournal bounds the journal that is read, in bytes: some ten thousand installations.
const maxJournal = 64 << 20

// Entry is an installation, or one that was begun.
type Entry struct {
	ID                 string // unique
	PackageID, Version string
	SHA256             string // of the package's bytes
	At                 time.Time
	// Directory is where the package was extracted to, below the home of applications,
	// with '/' between directories.
	Directory string
	// Custom is the directory that it was copied to, "" for none.
	Custom string `json:",omitempty"`
	// Successful tells that it came to its end.
	Successful bool
}

// Journal is what was deployed to one target by one step of a project. Its file is
// written anew, whole, for each change.
type Journal struct {
	Format int
	Set    Set
	// Installations are those that came to their ends, in their order.
	Installations []Entry
	// Unfinished have a folder and nothing else: they failed, or were cut short.
	Unfinished []Entry
	// Removing are neither any more: their folders are going, and may be half there.
	Removing []Entry `json:",omitempty"`

	path string
}

// journalKey is the name of a set's files.
func journalKey(s Set) string {
	sum := sha256.Sum256([]byte(strings.Join([]string{s.Space, s.Project, s.Step, s.Environment, s.Tenant, s.Machine}, "\x00")))
	return hex.EncodeToString(sum[:16])
}

// openJournal reads the journal of a set in a directory. The caller holds its lock. A
// file that cannot be read as a journal is put aside, which note tells.
func openJournal(dir string, s Set) (j *Journal, note string, err error) {
	j = &Journal{Format: 1, Set: s, path: filepath.Join(dir, journalKey(s)+".json")}
	info, err := os.Stat(j.path)
	if errors.Is(err, fs.ErrNotExist) {
		return j, "", nil
	}
	if err != nil {
		return nil, "", err
	}
	if info.Size() > maxJournal {
		return nil, "", fmt.Errorf("the journal %s has %d bytes; at most %d are read: remove it, and the installations that it lists by hand", j.path, info.Size(), int64(maxJournal))
	}
	b, err := os.ReadFile(j.path)
	if err != nil {
		return nil, "", err
	}
	read := Journal{}
	if err := json.Unmarshal(b, &read); err != nil {
		aside := j.path + ".damaged"
		if err := os.Rename(j.path, aside); err != nil {
			return nil, "", err
		}
		return j, fmt.Sprintf("The journal of earlier installations cannot be read and was put aside as %s. Their folders stay, and are not removed by retention.", aside), nil
	}
	if read.Format > 1 {
		return nil, "", fmt.Errorf("the journal %s was written by a later version of this program; upgrade the agent of this machine", j.path)
	}
	// What is to be removed one day must be the folder of an installation.
	foreign := func(e Entry) bool {
		return !filepath.IsLocal(filepath.FromSlash(e.Directory)) || strings.Count(path.Clean(e.Directory), "/") < 2
	}
	read.Installations = slices.DeleteFunc(read.Installations, foreign)
	read.Unfinished = slices.DeleteFunc(read.Unfinished, foreign)
	read.Removing = slices.DeleteFunc(read.Removing, foreign)
	read.path, read.Set, read.Format = j.path, s, 1
	return &read, "", nil
}

// save writes the journal, durably, whole or not at all.
func (j *Journal) save() (err error) {
	b, err := json.MarshalIndent(j, "", " ")
	if err != nil {
		return err
	}
	tmp := j.path + ".new"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(b, '\n'))
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, j.path); err != nil {
		return err
	}
	return syncDir(filepath.Dir(j.path))
}

// current is the last installation, nil if there is none.
func (j *Journal) current() *Entry {
	if len(j.Installations) == 0 {
		return nil
	}
	return &j.Installations[len(j.Installations)-1]
}

// begin notes a folder that is about to be filled.
func (j *Journal) begin(e Entry) error {
	j.Unfinished = append(j.Unfinished, e)
	return j.save()
}

// finish makes an installation of what was begun.
func (j *Journal) finish(e Entry) error {
	e.Successful = true
	j.Unfinished = slices.DeleteFunc(j.Unfinished, func(u Entry) bool { return u.ID == e.ID })
	j.Installations = append(j.Installations, e)
	return j.save()
}

// keptAlways is how many of the last installations no policy removes: the one that is
// there and the one before.
const keptAlways = 2

// outdated are the installations that a policy does not keep, and what was begun and
// came to nothing, but for the last such: it may tell what went wrong. What an earlier
// removal has left is among them, whatever the policy says now.
func (j *Journal) outdated(keep Keep, now time.Time) []Entry {
	out := slices.Clone(j.Removing)
	if keep.Days <= 0 && keep.Items <= 0 {
		return out
	}
	n := len(j.Installations)
	for i, e := range j.Installations {
		fromEnd := n - i // 1 is the current one
		old := keep.Items > 0 && fromEnd > keep.Items || keep.Items <= 0 && now.Sub(e.At) > time.Duration(keep.Days)*24*time.Hour
		if old && fromEnd > keptAlways {
			out = append(out, e)
		}
	}
	if len(j.Unfinished) > 1 {
		out = append(out, j.Unfinished[:len(j.Unfinished)-1]...)
	}
	slices.SortStableFunc(out, func(a, b Entry) int { return cmp.Compare(a.At.UnixNano(), b.At.UnixNano()) })
	return out
}

// remove notes that folders are about to go: from now on they are no installations.
func (j *Journal) remove(all []Entry) error {
	going := func(e Entry) bool {
		return slices.ContainsFunc(all, func(a Entry) bool { return a.ID == e.ID && a.Directory == e.Directory })
	}
	j.Installations = slices.DeleteFunc(j.Installations, going)
	j.Unfinished = slices.DeleteFunc(j.Unfinished, going)
	j.Removing = append(slices.DeleteFunc(j.Removing, going), all...)
	return j.save()
}

// removed drops the entries of folders that are gone.
func (j *Journal) removed(gone []Entry) error {
	j.Removing = slices.DeleteFunc(j.Removing, func(e Entry) bool { return slices.Contains(gone, e) })
	return j.save()
}
