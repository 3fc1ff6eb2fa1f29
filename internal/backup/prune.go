package backup

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/durable"
	"github.com/takodeploy/tako/internal/failpoint"
)

// Retention says which backups are kept: the newest of each of the last Daily days
// and Weekly weeks that have one, in UTC.
type Retention struct{ Daily, Weekly int }

// DefaultRetention is what is kept unless somebody says otherwise.
func DefaultRetention() Retention { return Retention{Daily: 7, Weekly: 4} }

// Pruned says what Prune removed.
type Pruned struct {
	Backups []string
	// Blobs and Bytes count what no backup refers to any more.
	Blobs, Bytes int64
}

// Prune removes the backups that retention does not keep, and the blobs that none
// of the others has. The newest backup and the newest that was proven are always
// kept, and so is what is pinned, and what cannot be read: somebody should look at it
// first.
func (s *Store) Prune(keep Retention, dryRun bool) (Pruned, error) {
	unlock, err := s.lock(durable.Exclusive)
	if err != nil {
		return Pruned{}, err
	}
	defer unlock()
	all, err := s.List()
	if err != nil {
		return Pruned{}, err
	}
	var p Pruned
	stays := kept(all, keep, time.Now())
	for _, b := range all {
		if !stays[b.ID] {
			p.Backups = append(p.Backups, b.ID)
		}
	}
	if dryRun {
		return p, nil
	}
	if err := s.clean(); err != nil {
		return p, err
	}
	for _, id := range p.Backups {
		gone := filepath.Join(s.dir, trash+id)
		if err := os.Rename(filepath.Join(s.dir, id), gone); err != nil {
			return p, fmt.Errorf("remove backup %s: %w", id, err)
		}
		if err := failpoint.Hit("prune-renamed"); err != nil {
			return p, err
		}
		if err := os.RemoveAll(gone); err != nil {
			return p, fmt.Errorf("remove backup %s: %w", id, err)
		}
	}
	return p, s.sweep(&p)
}

// kept are the ids of the backups that stay; all is sorted, the newest first. What is
// pinned stays even if a newer one of its day has its place.
func kept(all []Backup, keep Retention, now time.Time) map[string]bool {
	stays := map[string]bool{}
	days, weeks := map[string]bool{}, map[string]bool{}
	proven := false
	for i, b := range all {
		if b.Problem != "" || i == 0 || b.Pin.Keeps(now) {
			stays[b.ID] = true
		}
		if b.Problem != "" {
			continue
		}
		if b.Verified != nil && !proven {
			proven, stays[b.ID] = true, true
		}
		day := b.Created.UTC().Format(time.DateOnly)
		year, number := b.Created.UTC().ISOWeek()
		week := fmt.Sprintf("%d-%d", year, number)
		if !days[day] && len(days) < keep.Daily {
			days[day], stays[b.ID] = true, true
		}
		if !weeks[week] && len(weeks) < keep.Weekly {
			weeks[week], stays[b.ID] = true, true
		}
	}
	return stays
}

// sweep removes the blobs that no backup lists. It goes through the lists, which
// are sorted, side by side, in 256 steps, so that it never has all hashes in memory.
func (s *Store) sweep(p *Pruned) error {
	all, err := s.List()
	if err != nil {
		return err
	}
	lists := map[string][]*listReader{} // by pool
	defer func() {
		for _, some := range lists {
			for _, l := range some {
				_ = l.f.Close() // only read
			}
		}
	}()
	for _, b := range all {
		if b.Problem != "" {
			// Which blobs it has, nobody knows; so none may go.
			return fmt.Errorf("backup %s cannot be read, so no blobs were removed; move its folder away if it is of no use: %s", b.ID, b.Problem)
		}
		f, err := openList(filepath.Join(s.dir, b.ID), &b.Manifest)
		if err != nil {
			return fmt.Errorf("backup %s cannot be read, so no blobs were removed; move its folder away if it is of no use: %w", b.ID, err)
		}
		l := &listReader{f: f, lines: bufio.NewScanner(f)}
		l.next()
		lists[b.Pool] = append(lists[b.Pool], l)
	}
	pools, err := os.ReadDir(filepath.Join(s.dir, poolDir))
	if err != nil {
		return err
	}
	for _, pool := range pools {
		for i := range 256 {
			if err := sweepShard(filepath.Join(s.dir, poolDir, pool.Name()), fmt.Sprintf("%02x", i), lists[pool.Name()], p); err != nil {
				return fmt.Errorf("remove blobs of backups: %w", err)
			}
		}
	}
	return nil
}

// listReader goes through the hashes of a blobs.txt.
type listReader struct {
	f     *os.File
	lines *bufio.Scanner
	at    string // "" at the end
}

func (l *listReader) next() {
	l.at = ""
	if l.lines.Scan() {
		l.at, _, _ = strings.Cut(l.lines.Text(), " ")
	}
}

func sweepShard(pool, shard string, lists []*listReader, p *Pruned) error {
	used := map[string]bool{}
	for _, l := range lists {
		for ; strings.HasPrefix(l.at, shard); l.next() {
			used[l.at] = true
		}
		if err := l.lines.Err(); err != nil {
			return err
		}
	}
	entries, err := os.ReadDir(filepath.Join(pool, shard))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, e := range entries {
		name, damaged := strings.CutSuffix(e.Name(), damagedSuffix)
		if used[strings.TrimSuffix(name, ".age")] {
			continue
		}
		info, err := e.Info()
		if err != nil {
			return err
		}
		if err := os.Remove(filepath.Join(pool, shard, e.Name())); err != nil {
			return err
		}
		if !damaged {
			p.Blobs++
			p.Bytes += info.Size()
		}
		if err := failpoint.Hit("prune-blob"); err != nil {
			return err
		}
	}
	return nil
}
