package secret_test

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/secret"
)

func open(t *testing.T, d *db.DB, src secret.Source) *secret.Box {
	t.Helper()
	b, err := secret.Open(t.Context(), d, src)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func seal(t *testing.T, b *secret.Box, owner, field, plain string) string {
	t.Helper()
	e, err := b.Seal(owner, field, []byte(plain))
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func mustOpen(t *testing.T, b *secret.Box, owner, field, envelope, want string) {
	t.Helper()
	plain, err := b.Open(t.Context(), owner, field, envelope)
	if err != nil || string(plain) != want {
		t.Fatalf("Open(%s, %s) = %q, %v, want %q", owner, field, plain, err, want)
	}
}

func TestFirstStartMakesKeysThatStay(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		dir := t.TempDir()
		src := secret.Source{Dir: dir}
		b := open(t, d, src)
		info, err := os.Stat(filepath.Join(dir, secret.FileName))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("master.key: %v, %v; want mode 0600", info, err)
		}
		e := seal(t, b, "Accounts-1", "Password", "hunter2")
		if !secret.IsEnvelope(e) || strings.Contains(e, "hunter2") {
			t.Fatalf("no envelope: %q", e)
		}
		again := open(t, d, src)
		mustOpen(t, again, "Accounts-1", "Password", e, "hunter2")
		if again.MasterID() != b.MasterID() {
			t.Errorf("the master key is %s after a restart, was %s", again.MasterID(), b.MasterID())
		}
	})
}

func TestEnvelopeOpensOnlyWhereItBelongs(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	b := open(t, d, secret.Source{Dir: t.TempDir()})
	rapid.Check(t, func(rt *rapid.T) {
		plain := rapid.SliceOf(rapid.Byte()).Draw(rt, "plain")
		owner, field := rapid.String().Draw(rt, "owner"), rapid.String().Draw(rt, "field")
		e, err := b.Seal(owner, field, plain)
		if err != nil {
			rt.Fatal(err)
		}
		got, err := b.Open(context.Background(), owner, field, e)
		if err != nil || !bytes.Equal(got, plain) {
			rt.Fatalf("Open gives %q, %v, want %q", got, err, plain)
		}
		for _, other := range [][2]string{{owner + "x", field}, {owner, field + "x"}, {owner + field, ""}, {"", owner + field}} {
			if other == [2]string{owner, field} {
				continue
			}
			if _, err := b.Open(context.Background(), other[0], other[1], e); !errors.Is(err, secret.ErrEnvelope) {
				rt.Fatalf("Open(%q, %q) of an envelope of (%q, %q): %v", other[0], other[1], owner, field, err)
			}
		}
		i := rapid.IntRange(0, len(e)-1).Draw(rt, "i")
		bent := e[:i] + string(e[i]^1) + e[i+1:]
		if plain, err := b.Open(context.Background(), owner, field, bent); err == nil {
			rt.Fatalf("a changed envelope opens: %q -> %q gives %q", e, bent, plain)
		}
	})
	for _, e := range []string{"", "tako1:", "tako1:x", "plain text", "tako2:a:b", "tako1::"} {
		if _, err := b.Open(t.Context(), "a", "b", e); !errors.Is(err, secret.ErrEnvelope) {
			t.Errorf("Open of %q: %v, want ErrEnvelope", e, err)
		}
	}
	if _, err := b.Seal("a", "b", make([]byte, secret.MaxPlain+1)); err == nil {
		t.Error("Seal takes more than MaxPlain")
	}
	copied, err := b.Reseal(t.Context(), "Projects-1", "Key", "Projects-2", "Key", seal(t, b, "Projects-1", "Key", "k"))
	if err != nil {
		t.Fatal(err)
	}
	mustOpen(t, b, "Projects-2", "Key", copied, "k")
}

func TestWrongMasterKeyIsNamedAndChangesNothing(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		b := open(t, d, secret.Source{Dir: t.TempDir()})
		other := secret.NewMasterKey()
		empty := t.TempDir()
		for name, src := range map[string]secret.Source{
			"another key": {Text: secret.Text(other.Reveal())},
			"no key":      {Dir: empty},
		} {
			_, err := secret.Open(t.Context(), d, src)
			var wrong *secret.WrongKeyError
			if !errors.As(err, &wrong) || wrong.Want != b.MasterID() || wrong.ExitCode() != 78 {
				t.Fatalf("%s: %v, want a WrongKeyError that wants %s", name, err, b.MasterID())
			}
			if name == "another key" && (wrong.Got != other.ID() || !strings.Contains(err.Error(), other.ID())) {
				t.Errorf("%s: the error names %q, want %q: %v", name, wrong.Got, other.ID(), err)
			}
		}
		if left, err := os.ReadDir(empty); err != nil || len(left) != 0 {
			t.Errorf("a start without the key left %v, %v", left, err)
		}
	})
}

func TestRotation(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		dir := t.TempDir()
		src := secret.Source{Dir: dir}
		b := open(t, d, src)
		old, err := src.Load()
		if err != nil {
			t.Fatal(err)
		}
		e1 := seal(t, b, "o", "f", "one")
		if err := b.NewDataKey(t.Context()); err != nil {
			t.Fatal(err)
		}
		e2 := seal(t, b, "o", "f", "two")
		if strings.SplitN(e1, ":", 3)[1] == strings.SplitN(e2, ":", 3)[1] {
			t.Fatal("a new data key does not seal")
		}
		r, err := b.Rotate(t.Context(), secret.RotateOptions{Places: secret.Places()})
		if err != nil || r.From != old.ID() || r.To == old.ID() || r.To != b.MasterID() || r.Resumed {
			t.Fatalf("Rotate gives %+v, %v", r, err)
		}
		again := open(t, d, src)
		for _, box := range []*secret.Box{b, again} {
			mustOpen(t, box, "o", "f", e1, "one")
			mustOpen(t, box, "o", "f", e2, "two")
		}
		var wrong *secret.WrongKeyError
		if _, err := secret.Open(t.Context(), d, secret.Source{Text: secret.Text(old.Reveal())}); !errors.As(err, &wrong) {
			t.Errorf("the former master key opens still: %v", err)
		}
		if left, _ := os.ReadDir(dir); len(left) != 1 {
			t.Errorf("rotation left %v", left)
		}
	})
}

// TestRotationCutShortBeforeTheDatabase has a new key prepared that the database
// never came to be under.
func TestRotationCutShortBeforeTheDatabase(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	dir := t.TempDir()
	src := secret.Source{Dir: dir}
	b := open(t, d, src)
	e := seal(t, b, "o", "f", "one")
	if err := os.WriteFile(filepath.Join(dir, "master.key.next"), []byte(secret.NewMasterKey().Reveal()), 0o600); err != nil {
		t.Fatal(err)
	}
	again := open(t, d, src)
	mustOpen(t, again, "o", "f", e, "one")
	if again.MasterID() != b.MasterID() {
		t.Errorf("the master key is %s, want %s", again.MasterID(), b.MasterID())
	}
	if _, err := again.Rotate(t.Context(), secret.RotateOptions{}); err != nil {
		t.Errorf("rotate: %v", err)
	}
	mustOpen(t, open(t, d, src), "o", "f", e, "one")
}

func TestAnotherProcessMadeADataKey(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	src := secret.Source{Dir: t.TempDir()}
	one, two := open(t, d, src), open(t, d, src)
	if err := one.NewDataKey(t.Context()); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, two, "o", "f", seal(t, one, "o", "f", "x"), "x")
}

func TestSources(t *testing.T) {
	t.Parallel()
	k := secret.NewMasterKey()
	dir, creds, empty := t.TempDir(), t.TempDir(), t.TempDir()
	raw, err := hex.DecodeString(strings.Repeat("0fa1", 16))
	if err != nil {
		t.Fatal(err)
	}
	write := func(path, text string, mode os.FileMode) string {
		if err := os.WriteFile(path, []byte(text), mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	file := write(filepath.Join(dir, "key"), k.Reveal()+"\n", 0o444)
	bare := write(filepath.Join(dir, "bare"), string(raw), 0o400)
	short := write(filepath.Join(dir, "short"), "aaaa", 0o400)
	write(filepath.Join(creds, secret.CredentialName), k.Reveal(), 0o400)
	write(filepath.Join(dir, secret.FileName), k.Reveal(), 0o644)
	for name, c := range map[string]struct {
		src  secret.Source
		want string
	}{
		"text":            {secret.Source{Text: secret.Text(k.Reveal()), File: short}, k.ID()},
		"hexadecimal":     {secret.Source{Text: secret.Text(strings.Repeat("0fa1", 16))}, mustParse(t, strings.Repeat("0fa1", 16)).ID()},
		"file":            {secret.Source{File: file, Dir: empty}, k.ID()},
		"bare bytes":      {secret.Source{File: bare}, mustParse(t, strings.Repeat("0fa1", 16)).ID()},
		"credential":      {secret.Source{CredentialsDir: creds, Dir: empty}, k.ID()},
		"bad text":        {secret.Source{Text: "secret words"}, ""},
		"short file":      {secret.Source{File: short}, ""},
		"readable by all": {secret.Source{Dir: dir}, ""},
		"nothing":         {secret.Source{Dir: empty}, ""},
	} {
		got, err := c.src.Load()
		if got.ID() != c.want && c.want != "" || (err == nil) != (c.want != "") {
			t.Errorf("%s: key %s, %v; want %q", name, got.ID(), err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "secret words") {
			t.Errorf("%s: the error shows what was given: %v", name, err)
		}
	}
}

func mustParse(t *testing.T, s string) secret.MasterKey {
	t.Helper()
	k, err := secret.ParseMasterKey(s)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestNothingShowsASecret(t *testing.T) {
	t.Parallel()
	const plain = "correct horse"
	k := secret.NewMasterKey()
	var log bytes.Buffer
	slog.New(slog.NewJSONHandler(&log, nil)).Info("start", "password", secret.Text(plain), "key", k,
		"config", struct{ P secret.Text }{plain})
	encoded, err := json.Marshal(map[string]any{"p": secret.Text(plain), "k": k})
	if err != nil {
		t.Fatal(err)
	}
	shown := log.String() + string(encoded) + fmt.Sprintf("%v %+v %#v %s %q %x %d", secret.Text(plain), secret.Text(plain),
		secret.Text(plain), secret.Text(plain), secret.Text(plain), secret.Text(plain), secret.Text(plain)) + fmt.Sprintf("%v %+v %#v %x", k, k, k, k)
	for _, s := range []string{plain, fmt.Sprintf("%x", plain), k.Reveal(), "correct"} {
		if strings.Contains(shown, s) {
			t.Errorf("%q is shown in %s", s, shown)
		}
	}
	if string(secret.Text(plain)) != plain || secret.Text("").String() != "" {
		t.Error("a Text is not what it was made of")
	}
}
