package secret_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/secret"
)

// node is a second process on a database, with a data directory of its own.
type node struct {
	*secret.Box
	db  *db.DB
	dir string
}

// follow starts a node that follows the keys until the test ends.
func follow(t *testing.T, url, name string, src secret.Source) *node {
	t.Helper()
	n := &node{db: dbtest.OpenURL(t, url), dir: src.Dir}
	n.Box = open(t, n.db, src)
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	ended := make(chan error, 1)
	go func() { ended <- n.Follow(ctx, name, dbtest.Log(t)) }()
	t.Cleanup(func() {
		stop()
		if err := <-ended; err != nil {
			t.Errorf("node %s: %v", name, err)
		}
	})
	return n
}

func copyKey(t *testing.T, from, to string) {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(from, secret.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(to, secret.FileName), key, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestOtherNodesTakeTheNewKeyOver(t *testing.T) {
	t.Parallel()
	for _, dialect := range []db.Dialect{db.SQLite, db.Postgres} {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			url := dbtest.URL(t, dialect)
			mine, theirs := secret.Source{Dir: t.TempDir()}, secret.Source{Dir: t.TempDir()}
			d := dbtest.OpenURL(t, url)
			b := open(t, d, mine)
			copyKey(t, mine.Dir, theirs.Dir)
			former, err := mine.Load()
			if err != nil {
				t.Fatal(err)
			}
			file := follow(t, url, "file", theirs)
			text := follow(t, url, "text", secret.Source{Text: secret.Text(former.Reveal())})
			before := seal(t, b, "o", "f", "before")
			live := func(context.Context) ([]string, error) { return []string{"file", "text"}, nil }
			r, err := b.Rotate(t.Context(), secret.RotateOptions{Live: live, Wait: 2 * time.Minute})
			if err != nil {
				t.Fatal(err)
			}
			after := seal(t, b, "o", "f", "after")
			for name, n := range map[string]*node{"file": file, "text": text} {
				if n.MasterID() != r.To {
					t.Errorf("%s has master key %s after the rotation, want %s", name, n.MasterID(), r.To)
				}
				mustOpen(t, n.Box, "o", "f", before, "before")
				mustOpen(t, n.Box, "o", "f", after, "after")
				if own := seal(t, n.Box, "o", "f", "x"); secret.Under(own) != secret.Under(after) {
					t.Errorf("%s seals by data key %s, want %s", name, secret.Under(own), secret.Under(after))
				}
			}
			if k, err := theirs.Load(); err != nil || k.ID() != r.To {
				t.Errorf("the node's master.key has %v, %v, want %s", k, err, r.To)
			}
			var wrong *secret.WrongKeyError
			if _, err := secret.Open(t.Context(), d, secret.Source{Text: secret.Text(former.Reveal())}); !errors.As(err, &wrong) {
				t.Errorf("the former key still leads to the new one: %v", err)
			}
		})
	}
}

func TestRotationWaitsForANodeThatIsLate(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		src := secret.Source{Dir: t.TempDir()}
		b := open(t, d, src)
		former, err := src.Load()
		if err != nil {
			t.Fatal(err)
		}
		live := []string{"stuck"}
		opt := secret.RotateOptions{Wait: time.Millisecond, Live: func(context.Context) ([]string, error) { return live, nil }}
		var late *secret.LateError
		if _, err := b.Rotate(t.Context(), opt); !errors.As(err, &late) || len(late.Nodes) != 1 || late.Nodes[0] != "stuck" {
			t.Fatalf("Rotate: %v, want it to name the node", err)
		}
		if on, err := b.Rotating(t.Context()); err != nil || !on {
			t.Errorf("Rotating is %t, %v while a node is late", on, err)
		}
		// The late node still comes from the former key to the new one.
		stuck := open(t, d, secret.Source{Text: secret.Text(former.Reveal())})
		if stuck.MasterID() != b.MasterID() {
			t.Errorf("the late node has %s, want %s", stuck.MasterID(), b.MasterID())
		}
		live = nil
		r, err := b.Rotate(t.Context(), opt)
		if err != nil || !r.Resumed || r.From != former.ID() || r.To != b.MasterID() {
			t.Errorf("Rotate again: %+v, %v", r, err)
		}
		if on, err := b.Rotating(t.Context()); err != nil || on {
			t.Errorf("Rotating is %t, %v at the end", on, err)
		}
	})
}

func TestRotationOfAKeyThatComesFromElsewhere(t *testing.T) {
	t.Parallel()
	d := dbtest.Open(t, db.SQLite)
	first, second := secret.NewMasterKey(), secret.NewMasterKey()
	b := open(t, d, secret.Source{Text: secret.Text(first.Reveal())})
	e := seal(t, b, "o", "f", "one")
	if _, err := b.Rotate(t.Context(), secret.RotateOptions{}); err == nil || !strings.Contains(err.Error(), "--new-key-file") {
		t.Errorf("without the new key: %v", err)
	}
	if _, err := b.Rotate(t.Context(), secret.RotateOptions{Next: first}); err == nil {
		t.Error("the key in force is taken for a new one")
	}
	if _, err := b.Rotate(t.Context(), secret.RotateOptions{Next: second}); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, open(t, d, secret.Source{Text: secret.Text(second.Reveal())}), "o", "f", e, "one")
}
