package upgrades_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/localsocket"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/supervisor/control"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/bundle"
	"github.com/takodeploy/tako/internal/upgrade/feedtest"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/internal/upgrade/lookout"
	"github.com/takodeploy/tako/internal/upgrade/stage"
	"github.com/takodeploy/tako/octopus"
)

// supervise answers in the place of a supervisor: version 2026.4.0 serves.
func (s *site) supervise() {
	s.t.Helper()
	ln, err := localsocket.Listen(s.t.Context(), supervisor.SocketPath(s.root))
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { _ = ln.Close() })
	answer, err := json.Marshal(supervisor.Report{Format: control.Format, Current: "2026.4.0", Server: &control.Status{PID: 1, Version: "2026.4.0", Stage: control.Serving}})
	if err != nil {
		s.t.Fatal(err)
	}
	go func() {
		for {
			c, err := ln.AcceptLocal()
			if err != nil {
				return // the test has ended
			}
			if bufio.NewScanner(c).Scan() {
				_, _ = c.Write(append(answer, '\n'))
			}
			_ = c.Close()
		}
	}()
}

// bundle is one of a version with a program, as somebody sends it.
func (s *site) bundle(version, program string) string {
	s.t.Helper()
	s.feed.Publish(s.t, time.Hour, feedtest.Release("2026.4.0"), feedtest.Release("2026.5.0"), feedtest.Release("2026.6.0"), feedtest.Release("2026.7.0"))
	feed, err := os.ReadFile(filepath.Join(s.feed.Dir, "feed.json"))
	if err != nil {
		s.t.Fatal(err)
	}
	path := filepath.Join(s.t.TempDir(), "program")
	if err := os.WriteFile(path, []byte(program), 0o600); err != nil {
		s.t.Fatal(err)
	}
	var out bytes.Buffer
	if err := bundle.Write(&out, feed, version, []bundle.Program{{Platform: stage.Platform(), Path: path, Size: int64(len(program))}}); err != nil {
		s.t.Fatal(err)
	}
	return out.String()
}

// send sends a bundle that is to be taken.
func (s *site) send(content string, headers ...string) (out octopus.UpgradeBundle) {
	s.t.Helper()
	s.Must(http.StatusCreated, http.MethodPost, path+"/bundles", content, headers...).Into(&out)
	return out
}

// sent lists the versions of the bundles that are there.
func (s *site) sent() string {
	s.t.Helper()
	var page octopus.Page[octopus.UpgradeBundle]
	s.Get(path + "/bundles").Into(&page)
	var all []string
	for _, b := range page.Items {
		all = append(all, b.Version)
	}
	slices.Sort(all)
	files, err := filepath.Glob(filepath.Join(upgrade.Dir(s.root), "bundles", "[^.]*"))
	if hidden, bad := filepath.Glob(filepath.Join(upgrade.Dir(s.root), "bundles", ".sent-*")); bad == nil {
		files = append(files, hidden...)
	}
	if err != nil || len(files) != len(all) || page.TotalResults != int64(len(all)) {
		s.t.Errorf("on disk is %q, %v; the list is %+v", files, err, page)
	}
	return strings.Join(all, " ")
}

// TestBundles: a release can be sent to the server; it is believed as little as from
// anywhere else, and what an upgrade needs of it stays.
func TestBundles(t *testing.T) {
	t.Parallel()
	each(t, false, func(t *testing.T, s *site) {
		at := path + "/bundles"
		good := s.bundle("2026.5.0", "hello")
		s.Refused(http.StatusServiceUnavailable, http.MethodPost, at, good, "o supervisor runs")
		s.supervise()
		s.Refused(http.StatusConflict, http.MethodPost, at, good, "tako upgrade trust")
		if err := lookout.Pin(stage.Open(s.root, nil), s.feed.Root); err != nil {
			t.Fatal(err)
		}
		as := func(version, program string) func() string {
			return func() string { return s.bundle(version, program) }
		}
		for name, c := range map[string]struct {
			status  int
			content func() string // made when it is sent: only the newest feed is believed
			says    string
		}{
			"something else":    {http.StatusBadRequest, func() string { return "hello" }, "is no bundle of a release"},
			"nothing":           {http.StatusBadRequest, func() string { return "" }, "is no bundle of a release"},
			"cut short":         {http.StatusBadRequest, func() string { return good[:len(good)-1000] }, "is no bundle of a release"},
			"another program":   {http.StatusBadRequest, as("2026.5.0", "hullo"), "has the SHA-256"},
			"half a program":    {http.StatusBadRequest, as("2026.5.0", "hell"), "ended after 4 of 5 bytes"},
			"a changed feed":    {http.StatusBadRequest, func() string { return strings.Replace(s.bundle("2026.5.0", "hello"), `"keyid":"`, `"keyix":"`, 1) }, "The document"},
			"an unknown one":    {http.StatusConflict, as("2026.9.0", "hello"), "has no version"},
			"the one that runs": {http.StatusConflict, as("2026.4.0", "hello"), "runs already"},
		} {
			t.Run(name, func(t *testing.T) { s.Refused(c.status, http.MethodPost, at, c.content(), c.says) })
		}
		form, kind, err := apptest.Form("", []byte(good))
		if err != nil {
			t.Fatal(err)
		}
		s.Must(http.StatusBadRequest, http.MethodPost, at, form.String(), "Content-Type", kind)
		if form, kind, err = apptest.Form("../../tako.bundle", []byte(good)); err != nil {
			t.Fatal(err)
		}
		cut := s.Must(http.StatusBadRequest, http.MethodPost, at, form.String()[:form.Len()/2], "Content-Type", kind)
		if !strings.Contains(string(cut.Body), "ended early") {
			t.Errorf("half a form: %s", cut.Body)
		}
		if got := s.sent(); got != "" {
			t.Errorf("of refused bundles there is %q", got)
		}

		good = s.bundle("2026.5.0", "hello") // with the newest feed: older ones are believed no more
		made := s.send(good, "Content-Type", "application/octet-stream")
		sum := sha256.Sum256([]byte(good))
		if made.ID != hex.EncodeToString(sum[:]) || made.Version != "2026.5.0" || made.Size != int64(len(good)) || len(made.Platforms) != 1 {
			t.Errorf("it is %+v", made)
		}
		request := func(version, id string) string { return fmt.Sprintf(`{"Version":%q,"BundleId":%q}`, version, id) }
		for _, command := range []string{"/plan", "/start"} {
			s.Refused(http.StatusBadRequest, http.MethodPost, path+command, request("2026.6.0", made.ID), "has version 2026.5.0, and Version is 2026.6.0")
			s.Refused(http.StatusBadRequest, http.MethodPost, path+command, request("2026.5.0", "../../trust"), "There is no bundle")
			s.Refused(http.StatusConflict, http.MethodPost, path+command, `{"Version":"2026.5.0"}`, "feed") // nobody has named one
		}
		var begun octopus.Upgrade
		s.Must(http.StatusCreated, http.MethodPost, path+"/start", request("2026.5.0", made.ID)).Into(&begun)
		j, err := journal.Open(upgrade.Dir(s.root))
		if err != nil {
			t.Fatal(err)
		}
		last, err := upgrade.Last(j.Entries())
		if err != nil || last.ID != begun.ID || last.Plan.Feed != "" || last.Plan.Bundle != filepath.Join(upgrade.Dir(s.root), "bundles", made.ID+".bundle") {
			t.Fatalf("the plan is %+v, %v", last, err)
		}

		s.send(s.bundle("2026.6.0", "hello"), "Content-Type", "application/x-tar")
		if got := s.sent(); got != "2026.5.0 2026.6.0" {
			t.Errorf("while an upgrade needs one there is %q", got)
		}
		s.reach(begun.ID, upgrade.Aborted)
		form, kind, err = apptest.Form("../../trust/tako.bundle", []byte(s.bundle("2026.7.0", "hello")))
		if err != nil {
			t.Fatal(err)
		}
		s.send(form.String(), "Content-Type", kind)
		if got := s.sent(); got != "2026.7.0" {
			t.Errorf("when none is needed any more there is %q", got)
		}
		if got := s.audit(octopus.EventUpgradeBundleUploaded); len(got) != 3 {
			t.Errorf("the audit trail has %q", got)
		}
	})
}
