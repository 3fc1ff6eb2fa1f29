package agent

import (
	"bytes"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// pump copies the script's output into the log.
type pump struct {
	fds      [2]int // stdout, stderr; -1 when at the end
	rest     [2][]byte
	wake     [2]int // a byte makes poll return
	deadline atomic.Int64
	buf      []byte
}

func newPump(stdout, stderr int) (*pump, error) {
	p := &pump{fds: [2]int{stdout, stderr}, wake: [2]int{-1, -1}, buf: make([]byte, 256<<10)}
	for _, fd := range p.fds {
		if err := unix.SetNonblock(fd, true); err != nil {
			p.close()
			return nil, err
		}
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETPIPE_SZ, 1<<20) // fewer switches between writer and reader
	}
	if err := unix.Pipe2(p.wake[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		p.close()
		return nil, err
	}
	return p, nil
}

func (p *pump) close() {
	for _, fd := range []int{p.fds[0], p.fds[1], p.wake[0], p.wake[1]} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	p.fds, p.wake = [2]int{-1, -1}, [2]int{-1, -1}
}

// drain makes run return after d with what is in the pipes then, or at the end of
// both.
func (p *pump) drain(d time.Duration) {
	p.deadline.Store(time.Now().Add(d).UnixNano())
	_, _ = unix.Write(p.wake[1], []byte{0})
}

// run copies until both pipes are at their end, or drain's time is over. What is
// read is written to the log as soon as nothing more is there to read, in pieces
// of flushAt at most.
func (p *pump) run(log *logWriter) error {
	for p.fds[0] >= 0 || p.fds[1] >= 0 {
		fds := []unix.PollFd{
			{Fd: int32(p.fds[0]), Events: unix.POLLIN},
			{Fd: int32(p.fds[1]), Events: unix.POLLIN},
			{Fd: int32(p.wake[0]), Events: unix.POLLIN},
		}
		timeout := -1
		if d := p.deadline.Load(); d != 0 {
			left := time.Until(time.Unix(0, d))
			if left <= 0 {
				if err := p.remainder(log); err != nil {
					return err
				}
				break
			}
			timeout = int(left/time.Millisecond) + 1
		}
		if len(log.buf) > 0 {
			timeout = 0
		}
		n, err := unix.Poll(fds, timeout)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return fmt.Errorf("poll output: %w", err)
		}
		if n == 0 || len(log.buf) >= flushAt || len(log.buf) > 0 && time.Since(log.oldest) > 100*time.Millisecond {
			if err := log.flush(); err != nil {
				return err
			}
		}
		for i := range 2 {
			if fds[i].Revents != 0 {
				if _, err := p.read(log, i); err != nil {
					return err
				}
			}
		}
		if fds[2].Revents != 0 {
			var b [1]byte
			_, _ = unix.Read(p.wake[0], b[:])
		}
	}
	for i := range 2 {
		if len(p.rest[i]) > 0 {
			p.line(log, i, time.Now(), nil)
		}
	}
	return log.flush()
}

// remainder reads what is in the pipes now: all that the script's main process has
// left there. Time spent waiting for room on the disk may have used up drain's.
func (p *pump) remainder(log *logWriter) error {
	for i := range 2 {
		left := 0
		if p.fds[i] >= 0 {
			var err error
			if left, err = unix.IoctlGetInt(p.fds[i], unix.TIOCINQ); err != nil {
				return fmt.Errorf("read output: %w", err)
			}
		}
		for left > 0 && p.fds[i] >= 0 {
			n, err := p.read(log, i)
			if err != nil {
				return err
			}
			if n == 0 {
				break
			}
			left -= n
			if len(log.buf) >= flushAt {
				if err := log.flush(); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// read reads once and returns how many bytes; 0 when there are none, or no more.
func (p *pump) read(log *logWriter, i int) (int, error) {
	n, err := unix.Read(p.fds[i], p.buf)
	switch {
	case errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINTR):
		return 0, nil
	case err != nil:
		return 0, fmt.Errorf("read output: %w", err)
	case n == 0:
		err := unix.Close(p.fds[i])
		p.fds[i] = -1
		return 0, err
	}
	p.split(log, i, time.Now(), p.buf[:n])
	return n, nil
}

// split adds the whole lines of b to the log and keeps the rest.
func (p *pump) split(log *logWriter, i int, now time.Time, b []byte) {
	for len(b) > 0 {
		end := bytes.IndexByte(b, '\n')
		if end < 0 {
			break
		}
		p.line(log, i, now, b[:end])
		b = b[end+1:]
	}
	p.rest[i] = append(p.rest[i], b...)
	// A line without end is written in pieces; a character may wait for its rest.
	for len(p.rest[i]) > MaxEntry {
		n := cutText(p.rest[i], MaxEntry)
		log.add(Source(i), now, p.rest[i][:n])
		p.rest[i] = p.rest[i][:copy(p.rest[i], p.rest[i][n:])]
	}
}

// line adds what is kept and b as one line.
func (p *pump) line(log *logWriter, i int, now time.Time, b []byte) {
	if len(p.rest[i]) > 0 {
		b = append(p.rest[i], b...)
		p.rest[i] = b[:0]
	}
	if n := len(b); n > 0 && b[n-1] == '\r' {
		b = b[:n-1]
	}
	log.add(Source(i), now, b)
}
