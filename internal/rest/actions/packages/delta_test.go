package packages_test

import (
	"bytes"
	"crypto/sha1"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/octodiff"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/octopus"
)

// offer asks for a base, as a client does before it pushes a version.
func (w *world) offer(id, version string) (base string, signature []byte) {
	w.T.Helper()
	var got octopus.DeltaSignature
	w.Get("/api/Spaces-1/packages/" + id + "/" + version + "/delta-signature").Into(&got)
	return got.BaseVersion, got.Signature
}

// delta makes the difference of a file to what a signature is of.
func delta(t testing.TB, signature, file []byte) []byte {
	t.Helper()
	s, err := octodiff.ReadSignature(bytes.NewReader(signature))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := octodiff.Diff(t.Context(), &out, s, bytes.NewReader(file), int64(len(file))); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// noise is n pseudo-random bytes.
func noise(seed uint64, n int) []byte {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]byte, 0, n+8)
	for len(out) < n {
		out = binary.LittleEndian.AppendUint64(out, r.Uint64())
	}
	return out[:n]
}

// changes are ways to change one per cent of a file.
var changes = map[string]func(file []byte) []byte{
	"in two places": func(file []byte) []byte {
		size := len(file)
		copy(file[size/3:], noise(2, size/200))                                                      // overwritten
		return slices.Insert(slices.Delete(file, size/2, size/2+777), size/2, noise(3, size/200)...) // and moved
	},
	"in a hundred places": func(file []byte) []byte {
		const places = 100
		size := len(file)
		out := make([]byte, 0, size+size/100)
		for i := range places {
			part := file[i*size/places : (i+1)*size/places]
			at, n := len(part)/3, size/100/places
			out = append(out, part[:at]...)
			out = append(out, noise(uint64(i)+10, n)...)
			if i%2 == 0 { // in the place of as much; else it moves what follows
				at += n
			}
			out = append(out, part[at:]...)
		}
		return out
	},
}

// TestPoint24DeltaPush: the second push of a large package with one per cent changed
// sends at most five per cent, and what is stored is the same to the byte.
func TestPoint24DeltaPush(t *testing.T) {
	t.Parallel()
	size, changes := 32<<20, changes
	switch {
	case os.Getenv("TAKO_TEST_SOAK") != "":
		size = 100_000_000
	case testing.Short():
		size = 4 << 20
		fallthrough
	default:
		changes = map[string]func([]byte) []byte{"in two places": changes["in two places"]}
	}
	base := noise(1, size)
	each(t, func(t *testing.T, w *world) {
		for name, change := range changes {
			pkg := "Acme.Changed-" + strings.ReplaceAll(name, " ", "-")
			start := time.Now()
			w.push(http.StatusCreated, raw, pkg+".1.0.0.zip", string(base))
			t.Logf("the whole of %d bytes was pushed in %s", size, time.Since(start).Round(time.Millisecond))
			file := change(slices.Clone(base))
			start = time.Now()
			of, signature := w.offer(pkg, "1.1.0")
			signed := time.Now()
			if of != "1.0.0" || len(signature) > size/50 {
				t.Fatalf("offered %s with a signature of %d bytes", of, len(signature))
			}
			sent := delta(t, signature, file)
			compared := time.Now()
			if len(sent) > size/20 {
				t.Errorf("%s: %d of %d bytes were sent", name, len(sent), size)
			}
			body, contentType := form(t, pkg+".1.1.0.zip", sent)
			a := w.send(actiontest.Admin, "/api/Spaces-1/packages/"+pkg+"/1.0.0/delta?overwriteMode=FailIfExists", contentType, body)
			if a.Status != http.StatusCreated {
				t.Fatalf("%d %s", a.Status, a.Body)
			}
			t.Logf("changed %s: a signature of %d bytes in %s, a delta of %d bytes (%.2f %%) in %s, stored in %s", name, len(signature), signed.Sub(start).Round(time.Millisecond),
				len(sent), 100*float64(len(sent))/float64(len(file)), compared.Sub(signed).Round(time.Millisecond), time.Since(compared).Round(time.Millisecond))
			id := "packages-" + pkg + ".1.1.0"
			p := w.Get("/api/Spaces-1/packages/" + id)
			hash := sha1.Sum(file)
			if p.Text("Hash") != hex.EncodeToString(hash[:]) || p.JSON()["PackageSizeBytes"] != float64(len(file)) || a.Header.Get("Location") != "/api/Spaces-1/packages/"+id {
				t.Errorf("%s", p.Body)
			}
			if got := w.Get("/api/Spaces-1/packages/" + id + "/raw").Body; !bytes.Equal(got, file) {
				t.Errorf("%s: what is stored differs", name)
			}
		}
	})
}

func TestDeltaBases(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		path := "/api/packages/Acme/2.0.0/delta-signature"
		if a := w.Must(http.StatusNotFound, http.MethodGet, path, ""); strings.Contains(string(a.Body), `"Errors":[`) || !strings.Contains(string(a.Body), "send the whole package") {
			t.Errorf("%s", a.Body)
		}
		w.push(http.StatusCreated, raw, "Acme.3.0.0.zip", "empty ones are no base")
		w.push(http.StatusCreated, raw, "Acme.1.9.9.zip", "")
		for _, v := range []string{"1.0.0", "1.10.0", "1.9.0", "2.0.0-rc.1", "4.0.0"} {
			if v != "2.0.0-rc.1" {
				w.push(http.StatusCreated, raw, "Acme."+v+".zip", v)
			}
		}
		for version, want := range map[string]string{"2.0.0": "1.10.0", "1.10.0": "1.10.0", "1.9.5": "1.9.0", "0.1.0": "1.0.0", "3.5": "3.0.0", "99": "4.0.0", "2.0.0-rc.1": "1.10.0"} {
			if base, _ := w.offer("acme", version); base != want {
				t.Errorf("for %s the base is %s, want %s", version, base, want)
			}
		}
		space := w.Create("/api/spaces", `{"Name":"Second","SpaceManagersTeams":["teams-administrators"]}`)
		w.Must(http.StatusNotFound, http.MethodGet, "/api/"+space+"/packages/Acme/2.0.0/delta-signature", "")
	})
}

// TestDeltasAreGuarded: as a push of the whole is, and against damage.
func TestDeltasAreGuarded(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		pusher := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"BuiltInFeedPush"}})
		reader := w.Person(actiontest.Role{Space: "Spaces-1", Permissions: []string{"FeedView", "BuiltInFeedDownload"}})
		old, file := noise(4, 10_000), noise(4, 12_000)
		w.push(http.StatusCreated, raw, "Acme.1.0.zip", string(old))
		_, signature := w.offer("Acme", "2.0")
		good := delta(t, signature, file)
		if len(good) > 5000 {
			t.Fatalf("%d bytes", len(good))
		}
		send := func(key, path, name string, content []byte, status int, says string) {
			t.Helper()
			body, contentType := form(t, name, content)
			a := w.send(key, "/api/Spaces-1/packages/"+path, contentType, body)
			if a.Status != status || !strings.Contains(string(a.Body), says) {
				t.Errorf("%s to %s: %d %s; want %d %s", name, path, a.Status, a.Body, status, says)
			}
		}
		w.MustAs(reader, http.StatusForbidden, http.MethodGet, "/api/packages/Acme/2.0/delta-signature", "")
		w.MustAs(pusher, http.StatusOK, http.MethodGet, "/api/packages/Acme/2.0/delta-signature", "")
		send(reader, "Acme/1.0/delta", "Acme.2.0.zip", good, http.StatusForbidden, "BuiltInFeedPush")
		send(pusher, "Acme/1.0/delta?overwriteMode=OverwriteExisting", "Acme.2.0.zip", good, http.StatusForbidden, "BuiltInFeedAdminister")
		send(pusher, "Acme/0.9/delta", "Acme.2.0.zip", good, http.StatusNotFound, "0.9 is not in the built-in feed")
		send(pusher, "None/1.0/delta", "None.2.0.zip", good, http.StatusNotFound, "send the whole package")
		send(pusher, "Acme/1.0/delta", "Other.2.0.zip", good, http.StatusBadRequest, "is of the package Other")
		send(pusher, "Acme/1.0/delta", "nonsense", good, http.StatusBadRequest, "does not name a package")
		send(pusher, "Acme/1.0/delta", "Acme.2.0.zip", []byte("PK and no delta, as long as its header is at least"), http.StatusBadRequest, "delta")
		send(pusher, "Acme/1.0/delta", "Acme.2.0.zip", nil, http.StatusBadRequest, "ended early")
		send(pusher, "Acme/1.0/delta", "Acme.2.0.zip", good[:len(good)-1], http.StatusBadRequest, "ended early")
		bad := slices.Clone(good)
		bad[len(bad)-1] ^= 1
		send(pusher, "Acme/1.0/delta", "Acme.2.0.zip", bad, http.StatusBadRequest, "SHA-1 differs")
		if ids := w.Get("/api/packages?nuGetPackageId=Acme").IDs(); len(ids) != 1 {
			t.Errorf("refused deltas left %v", ids)
		}

		send(pusher, "Acme/1.0/delta?overwriteMode=IgnoreIfExists", "Acme.2.0.zip", good, http.StatusCreated, "packages-Acme.2.0")
		send(pusher, "Acme/1.0/delta?overwriteMode=IgnoreIfExists", "Acme.2.0.zip", bad, http.StatusOK, "packages-Acme.2.0")
		send(pusher, "Acme/1.0/delta", "Acme.2.0.zip", good, http.StatusConflict, "already exists")
		if got := w.Get("/api/packages/packages-Acme.2.0/raw").Body; !bytes.Equal(got, file) {
			t.Error("what is stored differs")
		}
		// A version can be its own base.
		base, signature := w.offer("Acme", "2.0")
		again := append(slices.Clone(file), "more"...)
		if base != "2.0" {
			t.Errorf("the base of 2.0 is %s", base)
		}
		send(actiontest.Admin, "Acme/2.0/delta?overwriteMode=OverwriteExisting", "Acme.2.0.zip", delta(t, signature, again), http.StatusOK, "packages-Acme.2.0")
		if got := w.Get("/api/packages/packages-Acme.2.0/raw").Body; !bytes.Equal(got, again) {
			t.Error("what is stored again differs")
		}
		w.Must(http.StatusBadRequest, http.MethodPost, "/api/packages/Acme/1.0/delta", "{}")
	})
}
