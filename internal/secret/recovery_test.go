package secret_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"filippo.io/age"
	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/secret"
)

func reveal(t *testing.T, b *secret.Box) secret.RecoveryKey {
	t.Helper()
	k, err := b.RevealRecovery(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestRecoveryKit(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		src := secret.Source{Dir: t.TempDir()}
		b := open(t, d, src)
		for range 2 {
			if err := b.EnsureRecovery(ctx); err != nil {
				t.Fatal(err)
			}
		}
		all, err := b.Recoveries(ctx)
		if err != nil || len(all) != 1 || !all[0].Confirmed.IsZero() || all[0].MasterID != b.MasterID() {
			t.Fatalf("Recoveries: %+v, %v", all, err)
		}
		key := reveal(t, b)
		if key.ID() != all[0].ID {
			t.Errorf("the kit has %s, want %s", key.ID(), all[0].ID)
		}
		if err := b.ConfirmRecovery(ctx, "1234"); !fault.Is(err, fault.Invalid) {
			t.Errorf("a wrong proof: %v", err)
		}
		text := key.Reveal()
		if err := b.ConfirmRecovery(ctx, strings.ToLower(text[len(text)-4:])+"\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := b.RevealRecovery(ctx); !fault.Is(err, fault.Conflict) {
			t.Errorf("a confirmed kit is shown again: %v", err)
		}
		// The kit outlives a rotation.
		r, err := b.Rotate(ctx, secret.RotateOptions{Places: secret.Places()})
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Remove(filepath.Join(src.Dir, secret.FileName)); err != nil {
			t.Fatal(err)
		}
		other, err := age.GenerateX25519Identity()
		if err != nil {
			t.Fatal(err)
		}
		stranger, err := secret.ParseRecoveryKey(other.String())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := secret.Recover(ctx, d, src.Dir, stranger); !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), stranger.ID()) {
			t.Errorf("another kit: %v", err)
		}
		master, err := secret.Recover(ctx, d, src.Dir, key)
		if err != nil || master.ID() != r.To {
			t.Fatalf("Recover: %v, %v, want %s", master, err, r.To)
		}
		open(t, d, src)
	})
}

func TestANewKitBesideTheFormer(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	ctx := t.Context()
	b := open(t, d, secret.Source{Dir: t.TempDir()})
	if err := b.EnsureRecovery(ctx); err != nil {
		t.Fatal(err)
	}
	confirm := func() secret.RecoveryKey {
		k := reveal(t, b)
		if err := b.ConfirmRecovery(ctx, k.Reveal()[len(k.Reveal())-4:]); err != nil {
			t.Fatal(err)
		}
		return k
	}
	recipients := func() []string {
		_, ids, err := b.BackupRecipients(ctx)
		if err != nil {
			t.Fatal(err)
		}
		return ids[1:]
	}
	first := confirm()
	if _, err := b.NewRecovery(ctx, true); err != nil {
		t.Fatal(err)
	}
	if ids := recipients(); len(ids) != 2 || ids[1] != first.ID() {
		t.Errorf("backups go to %v while the new kit is not confirmed, want the former %s too", ids, first.ID())
	}
	second := confirm()
	if ids := recipients(); len(ids) != 1 || ids[0] != second.ID() {
		t.Errorf("backups go to %v, want %s", ids, second.ID())
	}
}

func TestBackupsOfFormerMasterKeysOpen(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		b := open(t, d, secret.Source{Dir: t.TempDir()})
		to, _, err := b.BackupRecipients(ctx)
		if err != nil {
			t.Fatal(err)
		}
		var sealed bytes.Buffer
		w, err := age.Encrypt(&sealed, to...)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(w, "backup"); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if _, err := b.Rotate(ctx, secret.RotateOptions{Places: secret.Places()}); err != nil {
				t.Fatal(err)
			}
		}
		by, err := b.BackupIdentities(ctx)
		if err != nil {
			t.Fatal(err)
		}
		r, err := age.Decrypt(&sealed, by...)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(r); err != nil || string(got) != "backup" {
			t.Errorf("read %q, %v", got, err)
		}
	})
}

func TestRecoveryKeyInWords(t *testing.T) {
	t.Parallel()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	key, err := secret.ParseRecoveryKey("My kit:\n\n  " + strings.ToLower(identity.String()) + "\n\nend")
	if err != nil || key.Reveal() != identity.String() {
		t.Fatalf("the key within a text: %v", err)
	}
	spelled, err := key.Words()
	if err != nil || len(spelled) != secret.KeySize+1 {
		t.Fatalf("%d words, %v", len(spelled), err)
	}
	again, err := secret.ParseRecoveryKey(strings.ToUpper(strings.Join(spelled, "\n")))
	if err != nil || again.Reveal() != key.Reveal() {
		t.Fatalf("the words give %v, %v", again, err)
	}
	shown := fmt.Sprintf("%v %+v %#v %s %x", key, key, key, key, key)
	if strings.Contains(shown, key.Reveal()) || !strings.Contains(shown, key.ID()) {
		t.Error("a formatted key shows itself, or does not name itself")
	}
	rapid.Check(t, func(t *rapid.T) {
		wrong := append([]string(nil), spelled...)
		i := rapid.IntRange(0, len(wrong)-1).Draw(t, "at")
		switch rapid.IntRange(0, 3).Draw(t, "slip") {
		case 0:
			j := (i + 1) % len(wrong)
			if wrong[i] == wrong[j] {
				t.Skip("the same word twice")
			}
			wrong[i], wrong[j] = wrong[j], wrong[i]
		case 1:
			wrong = append(wrong[:i], wrong[i+1:]...)
		case 2:
			wrong[i] = "xylophone"
		case 3:
			other := rapid.SampledFrom(spelled).Draw(t, "word")
			if other == wrong[i] {
				t.Skip("the right word")
			}
			wrong[i] = other
		}
		if got, err := secret.ParseRecoveryKey(strings.Join(wrong, " ")); err == nil && got.Reveal() == key.Reveal() {
			t.Fatalf("%v is taken for %v", wrong, spelled)
		} else if err == nil && len(wrong) != len(spelled) {
			t.Fatalf("%d words are taken for a key", len(wrong))
		}
	})
	for _, bad := range []string{"", "hello", strings.Replace(identity.String(), "1", "1Q", 1)[:len(identity.String())]} {
		if _, err := secret.ParseRecoveryKey(bad); !fault.Is(err, fault.Invalid) {
			t.Errorf("ParseRecoveryKey(%q): %v", bad, err)
		}
	}
}
