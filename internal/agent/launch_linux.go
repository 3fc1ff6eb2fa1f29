package agent

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// replaceFor is how long an agent of another version may take to make room.
	replaceFor = 10 * time.Second
	// keepProgram is how long a program that nobody runs is kept after its last use:
	// servers of different versions may use the same account.
	keepProgram = 24 * time.Hour
)

// launchMain is LaunchArgs.
func launchMain(args []string) int {
	if len(args) != 3 {
		return 2
	}
	l, err := launch(context.Background(), args[0], args[1] == "replace", args[2])
	if err == nil {
		var b []byte
		if b, err = json.Marshal(l); err == nil {
			_, err = fmt.Fprintf(os.Stdout, "\n%s%s\n", ReplyMark, b)
		}
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func launch(ctx context.Context, idle string, replace bool, home string) (Launched, error) {
	exe, err := os.Executable()
	if err != nil {
		return Launched{}, err
	}
	if home, err = filepath.Abs(home); err != nil {
		return Launched{}, err
	}
	_ = os.Chtimes(exe, time.Time{}, time.Now()) // its last use
	for _, key := range []string{"SSH_CLIENT", "SSH_CONNECTION", "SSH_TTY", "SSH_AUTH_SOCK", "SSH_ORIGINAL_COMMAND"} {
		_ = os.Unsetenv(key) // of a connection that the agent outlives
	}
	old := Dial(SocketPath(home))
	hello, err := old.Hello(ctx)
	old.Close()
	if err == nil && replace {
		makeRoom(ctx, hello.PID, exe)
	}
	c, err := Spawn(ctx, exe, home, "--idle", idle)
	if err != nil {
		return Launched{}, err
	}
	defer c.Close()
	if hello, err = c.Hello(ctx); err != nil {
		return Launched{}, err
	}
	if versions := filepath.Dir(filepath.Dir(exe)); filepath.Base(exe) == ProgramName {
		prunePrograms(versions)
	}
	return Launched{Home: hello.Home, Socket: SocketPath(hello.Home), PID: hello.PID, Version: hello.Version}, nil
}

// makeRoom ends the agent pid if it runs from another program in the directories where
// exe has its own. One that does not end in time goes on, which does no harm.
func makeRoom(ctx context.Context, pid int, exe string) {
	theirs, err := os.Readlink("/proc/" + strconv.Itoa(pid) + "/exe")
	theirs = strings.TrimSuffix(theirs, " (deleted)")
	versions := filepath.Dir(filepath.Dir(exe))
	if err != nil || theirs == exe || filepath.Dir(filepath.Dir(theirs)) != versions {
		return
	}
	st, err := statProcess(pid)
	if err != nil {
		return
	}
	p := process{PID: pid, Start: st.start, Boot: bootID()}
	p.signal(unix.SIGTERM)
	limit, cancel := context.WithTimeout(ctx, replaceFor)
	defer cancel()
	awaitEnd(limit, p)
}

// prunePrograms removes the versions of the program that no process runs from and that
// nobody has used for keepProgram.
func prunePrograms(versions string) {
	used := map[string]bool{}
	pids, _ := filepath.Glob("/proc/[0-9]*/exe") // the pattern is right
	for _, name := range pids {
		if exe, err := os.Readlink(name); err == nil {
			used[filepath.Dir(strings.TrimSuffix(exe, " (deleted)"))] = true
		}
	}
	dirs, err := os.ReadDir(versions)
	if err != nil {
		return
	}
	for _, d := range dirs {
		dir := filepath.Join(versions, d.Name())
		if !d.IsDir() || checkSHA256(d.Name()) != nil || used[dir] {
			continue
		}
		last, err := os.Stat(filepath.Join(dir, ProgramName))
		if err != nil {
			last, err = os.Stat(dir) // perhaps it is just being uploaded
		}
		if err == nil && time.Since(last.ModTime()) > keepProgram {
			_ = os.Remove(filepath.Join(dir, ReadyName)) // nobody is told any more that it is there
			_ = os.RemoveAll(dir)                        // what is left goes the next time
		}
	}
}

// connectMain is ConnectArgs.
func connectMain(args []string) int {
	if len(args) != 1 {
		return 2
	}
	if err := connect(context.Background(), SocketPath(args[0]), os.Stdin, os.Stdout); err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// connect copies in both directions until the agent has said its last word.
func connect(ctx context.Context, socket string, in io.Reader, out io.Writer) error {
	c, err := dialSocket(ctx, socket)
	if err != nil {
		return fmt.Errorf("connect to the agent: %w", err)
	}
	defer c.Close() //nolint:errcheck // there is nothing more to say
	if _, err := fmt.Fprintf(out, "\n%s\n", ReplyMark); err != nil {
		return err
	}
	go func() { // until this process ends
		_, _ = io.Copy(c, in)
		if half, ok := c.(*net.UnixConn); ok {
			_ = half.CloseWrite()
		}
	}()
	_, err = io.Copy(out, c)
	return err
}

// verifyMain is VerifyArgs.
func verifyMain(args []string) int {
	if len(args) != 1 {
		return 2
	}
	sum, err := selfSHA256()
	if err == nil && sum != args[0] {
		err = fmt.Errorf("the program has the SHA-256 %s, not %s", sum, args[0])
	}
	if err == nil {
		_, err = fmt.Fprintf(os.Stdout, "\n%sverified\n", ReplyMark)
	}
	if err != nil {
		_, _ = fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// pruneMain is PruneArgs.
func pruneMain() int {
	exe, err := os.Executable()
	if err != nil || filepath.Base(exe) != ProgramName {
		return 1
	}
	prunePrograms(filepath.Dir(filepath.Dir(exe)))
	return 0
}

func selfSHA256() (_ string, err error) {
	f, err := os.Open(selfExe)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}
