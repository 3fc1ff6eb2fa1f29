package agent

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// cgroupPrefix begins the names of our scripts' cgroups.
const cgroupPrefix = "tako-script-"

// ownCgroup returns the directory of the calling process's cgroup (version 2)
// when it is ours to divide: delegated by systemd, owned by our user, or the root
// of a container's view. Else "".
func ownCgroup() string {
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	own := ""
	for line := range strings.Lines(string(self)) {
		if p, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			own = p
		}
	}
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil || own == "" {
		return ""
	}
	for line := range strings.Lines(string(mounts)) {
		left, right, ok := strings.Cut(line, " - ")
		f := strings.Fields(left)
		if !ok || len(f) < 5 || !strings.HasPrefix(right, "cgroup2 ") {
			continue
		}
		rel, err := filepath.Rel(f[3], own)
		if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
			continue
		}
		dir := filepath.Join(f[4], rel)
		if own == "/" && unix.Access(dir, unix.W_OK) == nil || delegated(dir) {
			return dir
		}
	}
	return ""
}

func delegated(dir string) bool {
	var st unix.Stat_t
	if unix.Access(dir, unix.W_OK) != nil || unix.Stat(dir, &st) != nil {
		return false
	}
	if uid := os.Geteuid(); uid != 0 && int(st.Uid) == uid {
		return true
	}
	for _, attr := range []string{"user.delegate", "trusted.delegate"} {
		var b [8]byte
		if n, err := unix.Getxattr(dir, attr, b[:]); err == nil && string(b[:n]) == "1" {
			return true
		}
	}
	return false
}

// makeCgroup makes a cgroup for one script beside the caller's processes and opens
// it; nil when there can be none, which costs only certainty at cancelling.
func makeCgroup(ticket string) (*os.File, string) {
	own := ownCgroup()
	if own == "" {
		return nil, ""
	}
	dir := filepath.Join(own, fmt.Sprintf("%s%s-%d", cgroupPrefix, ticket, os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil {
		return nil, ""
	}
	f, err := os.Open(dir)
	if err != nil || unix.Access(filepath.Join(dir, "cgroup.procs"), unix.W_OK) != nil {
		_ = os.Remove(dir)
		return nil, ""
	}
	return f, dir
}

// removeCgroup removes a script's cgroup and those below it, as far as they are
// empty: a service that the script left behind keeps its own.
func removeCgroup(dir string) {
	if !ourCgroup(dir) {
		return
	}
	removeCgroupBelow(dir)
}

func removeCgroupBelow(dir string) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroupBelow(filepath.Join(dir, e.Name()))
		}
	}
	_ = os.Remove(dir)
}

// ourCgroup guards against a "started" file that somebody wrote by hand: its path
// must be a cgroup that makeCgroup could have made.
func ourCgroup(dir string) bool {
	if dir == "" || !strings.HasPrefix(filepath.Base(dir), cgroupPrefix) {
		return false
	}
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && st.Type == unix.CGROUP2_SUPER_MAGIC
}

// cgroupPopulated reports whether any process lives in dir or below.
func cgroupPopulated(dir string) bool {
	if !ourCgroup(dir) {
		return false
	}
	b, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
	return err == nil && bytes.Contains(b, []byte("populated 1"))
}

// killCgroup kills all that lives in dir and below, forks in flight included.
func killCgroup(dir string) {
	if ourCgroup(dir) {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
	}
}

// cgroupMembers returns the pids in dir and below.
func cgroupMembers(dir string) map[int]bool {
	out := make(map[int]bool)
	if !ourCgroup(dir) {
		return out
	}
	_ = filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.IsDir() {
			return nil //nolint:nilerr // a cgroup that went away has no members
		}
		b, err := os.ReadFile(filepath.Join(p, "cgroup.procs"))
		if err != nil {
			return nil //nolint:nilerr // as above
		}
		for line := range strings.Lines(string(b)) {
			if pid, err := strconv.Atoi(strings.TrimSpace(line)); err == nil && pid > 0 {
				out[pid] = true
			}
		}
		return nil
	})
	return out
}
