package supervisor_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/takodeploy/tako/internal/supervisor"
)

// file is one that says what is wrong with a version.
func (w *world) file(version, wrong string) string {
	return filepath.Join(w.root, "versions", version, wrong)
}

// spoil has something be wrong with a version.
func (w *world) spoil(version, wrong string) {
	w.t.Helper()
	if err := os.WriteFile(w.file(version, wrong), nil, 0o600); err != nil {
		w.t.Fatal(err)
	}
}

// mend undoes spoil.
func (w *world) mend(version, wrong string) {
	w.t.Helper()
	if err := os.Remove(w.file(version, wrong)); err != nil {
		w.t.Fatal(err)
	}
}

// ask makes a request on a connection of its own, whoever answers.
func (w *world) ask(method, body string) (status int, header http.Header, text string, err error) {
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	r, err := http.NewRequest(method, "http://"+w.addr+"/some/path", strings.NewReader(body))
	if err != nil {
		return 0, nil, "", err
	}
	answer, err := client.Do(r)
	if err != nil {
		return 0, nil, "", err
	}
	defer answer.Body.Close()
	raw, err := io.ReadAll(answer.Body)
	return answer.StatusCode, answer.Header, string(raw), err
}

// shown waits until the supervisor itself answers.
func (w *world) shown() {
	w.t.Helper()
	w.await("the supervisor answers itself", func() bool {
		r, err := w.order(supervisor.Order{Do: "status"})
		return err == nil && r.Page && r.Server == nil
	})
}

// socket is the kernel's number of the socket that listens.
func (w *world) socket() string {
	w.t.Helper()
	_, port, err := net.SplitHostPort(w.addr)
	if err != nil {
		w.t.Fatal(err)
	}
	number, err := strconv.Atoi(port)
	if err != nil {
		w.t.Fatal(err)
	}
	raw, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		w.t.Fatal(err)
	}
	for line := range strings.Lines(string(raw)) {
		const listening = "0A"
		if f := strings.Fields(line); len(f) > 9 && f[3] == listening && strings.HasSuffix(f[1], fmt.Sprintf(":%04X", number)) {
			return f[9]
		}
	}
	w.t.Fatalf("nothing listens on %s", w.addr)
	return ""
}

// TestPage: while no version can be started the supervisor says so, to whoever asks. It ends
// to in the moment in which a server begins: no request is lost, and none is told afterwards
// that there is no server. A server that only begins anew does not show it.
func TestPage(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.spoil("1.0.0", "dies")
	w.begin("TEST_READY=" + patience.String()) // it fails since it dies, and for nothing else
	w.shown()
	before := w.socket()
	for method, body := range map[string]string{http.MethodGet: "", http.MethodHead: "", http.MethodPost: strings.Repeat("x", 512<<10)} {
		status, header, text, err := w.ask(method, body)
		if err != nil || status != http.StatusServiceUnavailable || header.Get("Retry-After") == "" || header.Get("Cache-Control") != "no-store" || !strings.HasPrefix(header.Get("Content-Type"), "text/plain") {
			t.Errorf("%s is answered with %d, %v: %v", method, status, header, err)
		}
		if says := strings.Contains(text, "tako upgrade status"); says == (method == http.MethodHead) {
			t.Errorf("%s is told %q", method, text)
		}
	}
	secure := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}}
	if c, err := secure.DialContext(t.Context(), "tcp", w.addr); err == nil || !strings.Contains(err.Error(), "remote error: tls: internal error") {
		if err == nil {
			_ = c.Close()
		}
		t.Errorf("TLS ends with %v", err)
	}

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var clients sync.WaitGroup
	var pages, served atomic.Int64
	for range 4 {
		clients.Go(func() {
			for ctx.Err() == nil {
				late := served.Load() > 0 // it serves from then on
				status, _, _, err := w.ask(http.MethodPost, "x")
				switch {
				case err != nil:
					t.Errorf("a request was lost: %v", err)
					return
				case status == http.StatusOK:
					served.Add(1)
				case status == http.StatusServiceUnavailable && !late:
					pages.Add(1)
				default:
					t.Errorf("a request was answered with %d, while a server ran: %t", status, late)
					return
				}
			}
		})
	}
	w.await("many were told", func() bool { return pages.Load() >= 20 || t.Failed() })
	w.mend("1.0.0", "dies")
	w.await("many were served", func() bool { return served.Load() >= 20 || t.Failed() })
	cancel()
	clients.Wait()
	if after := w.socket(); after != before {
		t.Errorf("socket %s listens, and was %s", after, before)
	}
	if r, err := w.order(supervisor.Order{Do: "status"}); err != nil || r.Page || r.Server == nil {
		t.Errorf("%+v %v", r, err)
	}

	who, err := w.get()
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.get("die")
	w.await("it serves again", func() bool {
		status, _, text, err := w.ask(http.MethodGet, "")
		if err == nil && status != http.StatusOK {
			t.Errorf("a server that begins anew answers %d: %s", status, text)
			return true
		}
		return err == nil && text != who
	})
}

// TestPageOfASlowStart: nobody is left without a word for long, also before a start has
// failed.
func TestPageOfASlowStart(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.spoil("1.0.0", "hangs")
	w.begin("TEST_PAGE=10ms", "TEST_READY="+patience.String())
	w.await("the supervisor answers itself", func() bool {
		status, _, _, err := w.ask(http.MethodGet, "")
		return err == nil && status == http.StatusServiceUnavailable
	})
	w.mend("1.0.0", "hangs")
	w.await("it serves", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	if log, err := os.ReadFile(filepath.Join(w.root, "log")); err != nil || strings.Contains(string(log), "start the server") {
		t.Errorf("a start has failed: %v", err)
	}
}

// TestNeitherStarts: when the previous version does not start either, the supervisor answers
// until one does, which it tries all the time, and says that somebody is needed. It no longer
// does once the server has stayed alive.
func TestNeitherStarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	w.supervise("TEST_CRASHTIME=300ms")
	if _, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"}); err != nil {
		t.Fatal(err)
	}
	w.spoil("1.0.0", "dies")
	w.spoil("1.1.0", "dies")
	_, _ = w.get("die")
	w.await("the previous version is tried, and the supervisor answers", func() bool {
		r, err := w.order(supervisor.Order{Do: "status"})
		return err == nil && r.Page && r.Server == nil && r.Current == "1.0.0" && r.NeedsOperator && strings.Contains(r.Trouble, "it has ended: exit status 3")
	})
	if status, _, _, err := w.ask(http.MethodGet, ""); err != nil || status != http.StatusServiceUnavailable {
		t.Errorf("%d %v", status, err)
	}
	w.mend("1.0.0", "dies")
	w.await("it serves", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	w.links("1.0.0", "")
	w.await("nobody is needed", func() bool {
		r, err := w.order(supervisor.Order{Do: "status"})
		return err == nil && !r.NeedsOperator && r.Trouble == ""
	})

	w.spoil("1.0.0", "waits") // its database is away: that row of crashes is over
	_, _ = w.get("lose")
	w.await("it is started again", func() bool {
		r, err := w.order(supervisor.Order{Do: "status"})
		if r.NeedsOperator {
			t.Errorf("somebody is needed: %+v", r)
			return true
		}
		return err == nil && r.Server == nil && r.Outages > 1
	})
}

// TestSlowCrashes: a version that takes its time to fail is left as well as one that fails
// at once: how long the starts take does not count.
func TestSlowCrashes(t *testing.T) {
	t.Parallel()
	w := newWorld(t, "1.0.0")
	w.install("1.1.0")
	w.supervise("TEST_READY=300ms", "TEST_CRASHTIME=500ms")
	w.await("it has switched", func() bool { // which may be too slow, too
		_, err := w.order(supervisor.Order{Do: "switch", Version: "1.1.0"})
		return err == nil
	})
	w.spoil("1.1.0", "hangs")
	_, _ = w.get("die")
	w.await("the previous version serves", func() bool { who, err := w.get(); return err == nil && strings.HasPrefix(who, "1.0.0 ") })
	w.links("1.0.0", "")
}
