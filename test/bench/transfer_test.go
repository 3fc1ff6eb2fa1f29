package bench

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

const (
	measuredPackage = "Measured.Package"
	changedPlaces   = 100 // which are one per cent of a package together
)

// BenchmarkTransfer brings a package of 100 MB (TAKO_TEST_BENCH_PACKAGE_MB) to 20 agents
// (TAKO_TEST_BENCH_PROCESSES) by a deployment, and then a version of which a hundred places,
// one per cent, have changed: how long each takes and what goes over the wire, which a
// relay between server and agents counts. Beside it rsync brings the same files to as
// many directories, where it is installed: without a network, and without waiting until
// they are on the disk, as the agents do.
//
// It needs room for five times all the packages in the directory of temporary files:
// both versions at each agent, what is being put together there, and the last copies.
func BenchmarkTransfer(b *testing.B) {
	agents := apptest.Size(b, "TAKO_TEST_BENCH_PROCESSES", 20)
	length := apptest.Size(b, "TAKO_TEST_BENCH_PACKAGE_MB", 100) * 1_000_000
	roomOnDisk(b, int64(5*agents*length))
	first, second := versions(b, length)
	b.Run("tako", func(b *testing.B) {
		p := started(b, db.SQLite)
		w := newWork(b, p.Client, 1, "true")
		m := newMeter(b, p.Agents)
		f := newFleet(b, p.Client, m.addr, w.environments[0].ID, 0, agents)
		w.onFleet(b, "process", func(s *octopus.Step) {
			a := &s.Actions[0]
			a.ActionType = octopus.ActionTransferPackage
			a.Properties = octopus.Properties{"Octopus.Action.Package.TransferPath": octopus.Plain(filepath.Join(f.dir, "out", "#{Octopus.Machine.Name}"))}
			a.Packages = octopus.List[octopus.PackageReference]{{PackageID: measuredPackage, FeedID: octopus.BuiltInFeedID, AcquisitionLocation: octopus.AcquireOnServer}}
		})
		push(b, p.Client, "1.0.0", first)
		w.release(b)
		f.start(b)
		if without := f.await(b, make([]int64, agents), connections); without > 0 {
			b.Fatalf("%d of %d agents did not connect within %s", without, agents, fleetPatience)
		}
		b.Run("whole", func(b *testing.B) { reportTransfer(b, w, f, m, "1.0.0", first) })
		push(b, p.Client, "1.0.1", second)
		w.release(b)
		b.Run("1-percent-changed", func(b *testing.B) { reportTransfer(b, w, f, m, "1.0.1", second) })
	})
	b.Run("rsync", func(b *testing.B) {
		if _, err := exec.LookPath("rsync"); err != nil {
			b.Skipf("not measured: %v", err)
		}
		dir := apptest.ShortDir(b)
		b.Run("whole", func(b *testing.B) { reportRsync(b, dir, agents, first) })
		b.Run("1-percent-changed", func(b *testing.B) { reportRsync(b, dir, agents, second) })
	})
}

// roomOnDisk fails where the directory of temporary files has less room.
func roomOnDisk(b *testing.B, bytes int64) {
	b.Helper()
	var fs syscall.Statfs_t
	if err := syscall.Statfs(os.TempDir(), &fs); err != nil {
		b.Fatal(err)
	}
	if free := int64(fs.Bavail) * fs.Bsize; free < bytes {
		b.Fatalf("%s has room for %d MB, and %d are needed: set TMPDIR, or measure a smaller package (TAKO_TEST_BENCH_PACKAGE_MB)", os.TempDir(), free/1_000_000, bytes/1_000_000)
	}
}

// versions are two zips of that many random bytes.
func versions(b *testing.B, size int) (first, second []byte) {
	b.Helper()
	content := make([]byte, size)
	_, _ = rand.Read(content) // never fails
	first = zipped(b, content)
	for i := range changedPlaces {
		at := i * (size / changedPlaces)
		_, _ = rand.Read(content[at : at+size/100/changedPlaces])
	}
	return first, zipped(b, content)
}

func zipped(b *testing.B, content []byte) []byte {
	b.Helper()
	var out bytes.Buffer
	z := zip.NewWriter(&out)
	w, err := z.CreateHeader(&zip.FileHeader{Name: "content.bin", Method: zip.Store})
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		b.Fatal(err)
	}
	return out.Bytes()
}

func fileName(version string) string { return measuredPackage + "." + version + ".zip" }

func push(b *testing.B, c *apptest.Client, version string, content []byte) {
	b.Helper()
	if resp := c.Upload(b, space+"/packages/raw", fileName(version), content); resp.Status != http.StatusCreated {
		b.Fatalf("a package was answered with %d %s", resp.Status, resp.Body)
	}
}

func reportTransfer(b *testing.B, w *work, f *fleet, m *meter, version string, content []byte) {
	b.Helper()
	there, back := m.there.Load(), m.back.Load()
	start := time.Now()
	took := w.ended(b, w.deploy(b, 0, false), slow).CompletedTime.Sub(start)
	there, back = m.there.Load()-there, m.back.Load()-back
	want := sha256.Sum256(content)
	for _, one := range f.members {
		path := filepath.Join(f.dir, "out", one.name, fileName(version))
		got, err := os.ReadFile(path)
		if err != nil {
			b.Fatal(err)
		}
		if sha256.Sum256(got) != want {
			b.Fatalf("%s has %d other bytes", path, len(got))
		}
		if err := os.Remove(path); err != nil { // the disk has to hold them all
			b.Fatal(err)
		}
	}
	reportBytes(b, took, there, back)
}

func reportBytes(b *testing.B, took time.Duration, there, back int64) {
	b.Helper()
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(took)/1000, "s")
	b.ReportMetric(math.Round(float64(there)/1e4)/100, "MB-to-agents")
	b.ReportMetric(math.Round(float64(back)/1e4)/100, "MB-from-agents")
}

// reportRsync brings a file to directories below dir, all at the same time.
func reportRsync(b *testing.B, dir string, n int, content []byte) {
	b.Helper()
	from := filepath.Join(dir, "package.zip")
	if err := os.WriteFile(from, content, 0o600); err != nil {
		b.Fatal(err)
	}
	var there, back atomic.Int64
	start := time.Now()
	group, ctx := errgroup.WithContext(b.Context())
	for i := range n {
		group.Go(func() error {
			to := filepath.Join(dir, "to", strconv.Itoa(i+1))
			if err := os.MkdirAll(to, 0o700); err != nil {
				return err
			}
			// Times of files are no sign of what is in them here.
			out, err := exec.CommandContext(ctx, "rsync", "--no-whole-file", "--ignore-times", "--stats", from, to+"/").CombinedOutput()
			if err != nil {
				return fmt.Errorf("rsync: %w\n%s", err, out)
			}
			for line := range strings.Lines(string(out)) {
				name, value, _ := strings.Cut(strings.TrimSpace(line), ": ")
				count, err := strconv.ParseInt(strings.ReplaceAll(value, ",", ""), 10, 64)
				switch {
				case err != nil:
				case name == "Total bytes sent":
					there.Add(count)
				case name == "Total bytes received":
					back.Add(count)
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		b.Fatal(err)
	}
	took := time.Since(start)
	if there.Load() == 0 {
		b.Fatal("rsync does not tell what it has sent")
	}
	reportBytes(b, took, there.Load(), back.Load())
}

// meter is a relay in front of a server that counts what goes through.
type meter struct {
	addr        string
	there, back atomic.Int64 // bytes to those who dial, and from them
}

func newMeter(b *testing.B, server string) *meter {
	b.Helper()
	ln, err := new(net.ListenConfig).Listen(b.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.WithoutCancel(b.Context()))
	context.AfterFunc(ctx, func() { _ = ln.Close() })
	m := &meter{addr: ln.Addr().String()}
	var wg sync.WaitGroup
	b.Cleanup(func() {
		stop()
		wg.Wait()
	})
	wg.Go(func() {
		for {
			in, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { m.relay(ctx, in, server) })
		}
	})
	return m
}

func (m *meter) relay(ctx context.Context, in net.Conn, server string) {
	defer in.Close()
	out, err := new(net.Dialer).DialContext(ctx, "tcp", server)
	if err != nil {
		return
	}
	// Either end closes both.
	shut := func() {
		_ = in.Close()
		_ = out.Close()
	}
	defer context.AfterFunc(ctx, shut)()
	var wg sync.WaitGroup
	for _, way := range []struct {
		to, from net.Conn
		count    *atomic.Int64
	}{{out, in, &m.back}, {in, out, &m.there}} {
		wg.Go(func() {
			defer shut()
			// Without what a connection could do faster, uncounted.
			_, _ = io.CopyBuffer(counted{way.to, way.count}, struct{ io.Reader }{way.from}, make([]byte, 64<<10))
		})
	}
	wg.Wait()
}

// counted is a connection that counts what is written to it.
type counted struct {
	to    io.Writer
	count *atomic.Int64
}

func (c counted) Write(p []byte) (int, error) {
	n, err := c.to.Write(p)
	c.count.Add(int64(n))
	return n, err
}
