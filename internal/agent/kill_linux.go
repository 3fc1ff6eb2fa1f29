package agent

import (
	"bytes"
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// How a tree is killed: SIGTERM, time to obey it, SIGKILL, and the time after
// which what still lives is reported.
const (
	termFor = 5 * time.Second
	killFor = 2500 * time.Millisecond
)

// ticketEnv is set in every script's environment to its ticket, in lower case. It
// finds the processes of a script whose runner is dead and that have left its
// session.
const ticketEnv = "TAKO_SCRIPT_TICKET"

// tree is the set of processes that a script started.
type tree struct {
	root    int    // all descendants of this process belong
	self    bool   // root is the caller, which does not belong itself
	session int    // processes of this session belong; 0 for none
	cgroup  string // processes of this cgroup belong; "" for none
	ticket  string // processes with this ticket in their environment belong; "" for none
}

// runnerTree is the tree of the calling runner, which as a subreaper inherits all
// orphans of its script.
func runnerTree(cgroup string) tree {
	return tree{root: os.Getpid(), self: true, cgroup: cgroup}
}

// orphanTree is the tree of a script whose runner is dead or deaf: what left its
// session and lost its parents is found by its cgroup, else by its environment.
func orphanTree(ticket string, s startedFile) tree {
	t := tree{cgroup: s.Cgroup, ticket: ticket}
	if s.Boot == bootID() {
		if st, err := statProcess(s.PID); err == nil && st.start == s.Start {
			t.root = s.PID
		}
		t.session = s.PID
	}
	return t
}

// members returns the living processes of the tree.
func (t tree) members() []process {
	d, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	names, err := d.Readdirnames(-1)
	_ = d.Close()
	if err != nil {
		return nil
	}
	all := make(map[int]processStat, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			if st, err := statProcess(pid); err == nil {
				all[pid] = st
			}
		}
	}
	grouped := cgroupMembers(t.cgroup)
	var out []process
	boot := bootID()
	for pid, st := range all {
		if pid == os.Getpid() || st.dead() {
			continue
		}
		if grouped[pid] || t.session != 0 && st.session == t.session || t.descends(all, pid) || t.marked(pid) {
			out = append(out, process{PID: pid, Start: st.start, Boot: boot})
		}
	}
	return out
}

func (t tree) descends(all map[int]processStat, pid int) bool {
	if t.root == 0 {
		return false
	}
	for range len(all) {
		if pid == t.root {
			return true
		}
		st, ok := all[pid]
		if !ok || st.parent <= 1 && t.root != st.parent {
			return false
		}
		pid = st.parent
	}
	return false
}

func (t tree) marked(pid int) bool {
	if t.ticket == "" {
		return false
	}
	env, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	return err == nil && bytes.Contains(append([]byte{0}, env...), []byte("\x00"+ticketEnv+"="+t.ticket+"\x00"))
}

// signal sends sig to p and to nobody who got its pid later.
func (p process) signal(sig unix.Signal) {
	fd, err := unix.PidfdOpen(p.PID, 0)
	if errors.Is(err, unix.ENOSYS) { // before Linux 5.3
		if p.alive() {
			_ = unix.Kill(p.PID, sig)
		}
		return
	}
	if err != nil {
		return
	}
	defer unix.Close(fd) //nolint:errcheck // a handle
	if st, err := statProcess(p.PID); err == nil && st.start == p.Start {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
}

// killer looks at a tree again and again.
type killer struct {
	tree
	pause *time.Ticker
	empty int // looks in a row that found nobody
}

// look returns the living members and whether there are none any more. A process
// that is just being forked by one that ends, or is in the middle of an execve, can
// escape one look at /proc, so it takes two.
func (k *killer) look() (living []process, gone bool) {
	living = k.members()
	if len(living) > 0 || cgroupPopulated(k.cgroup) {
		k.empty = 0
		return living, false
	}
	k.empty++
	return nil, k.empty >= 2
}

// wait waits a moment; false when ctx has ended.
func (k *killer) wait(ctx context.Context) bool {
	select {
	case <-k.pause.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// kill ends the tree: SIGTERM, then after termFor SIGKILL until none is left. It
// returns those that outlived killFor, which are in the kernel's hands. An end of
// ctx makes it return early.
func (t tree) kill(ctx context.Context) []process {
	k := &killer{tree: t, pause: time.NewTicker(20 * time.Millisecond)}
	defer k.pause.Stop()
	start := time.Now()
	told := make(map[process]bool)
	for time.Since(start) < termFor {
		living, gone := k.look()
		if gone {
			return nil
		}
		for _, p := range living {
			if !told[p] {
				told[p] = true
				p.signal(unix.SIGTERM)
			}
		}
		if !k.wait(ctx) {
			return living
		}
	}
	return k.hard(ctx)
}

// killHard is kill without the asking.
func (t tree) killHard(ctx context.Context) []process {
	k := &killer{tree: t, pause: time.NewTicker(20 * time.Millisecond)}
	defer k.pause.Stop()
	return k.hard(ctx)
}

func (k *killer) hard(ctx context.Context) []process {
	start := time.Now()
	for {
		killCgroup(k.cgroup)
		// A process that forks faster than we look is stopped first.
		stopped := make(map[process]bool)
		for range 100 {
			news := false
			for _, p := range k.members() {
				if !stopped[p] {
					stopped[p], news = true, true
					p.signal(unix.SIGSTOP)
				}
			}
			if !news {
				break
			}
		}
		for p := range stopped {
			p.signal(unix.SIGKILL)
		}
		living, gone := k.look()
		if gone {
			return nil
		}
		if time.Since(start) > killFor || !k.wait(ctx) {
			return living
		}
	}
}
