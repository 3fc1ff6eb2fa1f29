package blob_test

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/blob/blobtest"
	"github.com/takodeploy/tako/internal/fault"
)

func openDir(t *testing.T, root string) *blob.Dir {
	t.Helper()
	d, err := blob.OpenDir(root)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestDir(t *testing.T) {
	t.Parallel()
	blobtest.Run(t, func(t *testing.T) blobtest.Store { return openDir(t, filepath.Join(t.TempDir(), "blobs")) })
}

func TestParseHash(t *testing.T) {
	t.Parallel()
	good := strings.Repeat("0a", 32)
	if h, err := blob.ParseHash(good); err != nil || string(h) != good {
		t.Errorf("ParseHash(%q) = %q, %v", good, h, err)
	}
	for _, bad := range []string{"", good[1:], good + "0", strings.ToUpper(good), strings.Repeat("g", 64), strings.Repeat("/", 64)} {
		if _, err := blob.ParseHash(bad); err == nil {
			t.Errorf("ParseHash(%q) gives no error", bad)
		}
	}
}

func temps(t *testing.T, root string) []os.DirEntry {
	t.Helper()
	left, err := os.ReadDir(filepath.Join(root, "tmp"))
	if err != nil {
		t.Fatal(err)
	}
	return left
}

// TestKilledWriter kills a process that has written half a blob, and wants the
// next start to clear it away, but not what a living process is writing.
func TestKilledWriter(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	writer := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestHelperWriter$") //nolint:gosec // ourselves
	writer.Env = append(os.Environ(), "BLOB_TEST_ROOT="+root)
	out, err := writer.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	in, err := writer.StdinPipe() // while it is open the writer waits for more
	if err != nil {
		t.Fatal(err)
	}
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil || line != "half\n" {
		t.Fatalf("the writer says %q, %v", line, err)
	}
	if n := len(temps(t, root)); n != 1 {
		t.Fatalf("the writer has %d temporary files", n)
	}
	age(t, root)
	openDir(t, root)
	if n := len(temps(t, root)); n != 1 {
		t.Fatal("a start took the file of a writer that lives")
	}
	if err := writer.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = writer.Wait() // killed, as it says
	_ = in.Close()
	d := openDir(t, root)
	if left := temps(t, root); len(left) != 0 {
		t.Fatalf("a start after the kill leaves %v", left)
	}
	for info, err := range d.List(t.Context()) {
		t.Errorf("half a blob is listed: %v, %v", info, err)
	}
}

// age makes the temporary files look older than any that are left alone for
// their youth.
func age(t *testing.T, root string) {
	t.Helper()
	old := time.Now().Add(-time.Hour)
	for _, e := range temps(t, root) {
		if err := os.Chtimes(filepath.Join(root, "tmp", e.Name()), old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHelperWriter is the process of TestKilledWriter, and nothing by itself.
func TestHelperWriter(t *testing.T) {
	root := os.Getenv("BLOB_TEST_ROOT")
	if root == "" {
		return
	}
	told := false
	_, err := openDir(t, root).Put(t.Context(), io.MultiReader(bytes.NewReader(make([]byte, 1<<16)), readerFunc(func(p []byte) (int, error) {
		if !told {
			told = true
			fmt.Println("half") //nolint:forbidigo // it is how this process speaks
		}
		return os.Stdin.Read(p)
	})), 1<<20)
	t.Fatal(err)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// TestDiskFull fills a small file system. Where the machine does not let us
// mount one, the error of /dev/full stands in.
func TestDiskFull(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	if err := unix.Mount("tmpfs", root, "tmpfs", 0, "size=256k"); err != nil {
		t.Logf("no file system of our own (%v): writing to /dev/full instead", err)
		fullDevice(t, root)
		return
	}
	t.Cleanup(func() {
		if err := unix.Unmount(root, 0); err != nil {
			t.Error(err)
		}
	})
	d := openDir(t, root)
	small := []byte("fits")
	if _, err := d.Put(t.Context(), bytes.NewReader(small), 1<<20); err != nil {
		t.Fatal(err)
	}
	_, err := d.Put(t.Context(), bytes.NewReader(make([]byte, 1<<20)), 1<<20)
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "full") {
		t.Fatalf("Put on a full disk: %v, want a fault Unavailable", err)
	}
	if left := temps(t, root); len(left) != 0 {
		t.Errorf("a full disk leaves %v", left)
	}
	// A process that another test is just starting has the removed file open until it has
	// begun, and the file its room.
	for deadline := time.Now().Add(2 * time.Minute); ; <-time.After(time.Millisecond) {
		_, err := d.Put(t.Context(), bytes.NewReader([]byte("again")), 1<<20)
		if err == nil {
			break
		}
		if !fault.Is(err, fault.Unavailable) || time.Now().After(deadline) {
			t.Fatalf("Put once there is room again: %v", err)
		}
	}
	n := 0
	for range d.List(t.Context()) {
		n++
	}
	if n != 2 {
		t.Errorf("%d blobs are listed, want 2", n)
	}
}

// TestWhenFull: a store refuses what it is given while the last space is kept for others, and
// leaves nothing.
func TestWhenFull(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	d := openDir(t, root)
	full := true
	d.WhenFull(func() bool { return full })
	for _, full = range []bool{true, false} {
		_, err := d.Put(t.Context(), strings.NewReader("content"), 1<<20)
		if fault.Is(err, fault.Unavailable) != full || (err == nil) == full {
			t.Errorf("while the disk is full (%t): %v", full, err)
		}
	}
	if left := temps(t, root); len(left) != 0 {
		t.Errorf("it leaves %v", left)
	}
}

// fullDevice has the reader fail as a full disk does.
func fullDevice(t *testing.T, root string) {
	t.Helper()
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, enospc := full.Write([]byte("x"))
	if err := full.Close(); err != nil {
		t.Fatal(err)
	}
	_, err = openDir(t, root).Put(t.Context(), readerFunc(func([]byte) (int, error) { return 0, enospc }), 1<<20)
	if !fault.Is(err, fault.Unavailable) {
		t.Fatalf("Put: %v, want a fault Unavailable", err)
	}
	if left := temps(t, root); len(left) != 0 {
		t.Errorf("a full disk leaves %v", left)
	}
}
