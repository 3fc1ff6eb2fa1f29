package docstore_test

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
)

// TestMemo reads documents as they are in its own transaction, whatever was decoded before:
// also those whose version was given out in a transaction that was undone.
func TestMemo(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		type owner struct {
			Name string
			Note string
		}
		var memo docstore.Memo[owner]
		in := func(tx *db.Tx, want ...owner) {
			t.Helper()
			for range 2 {
				got, err := memo.All(w.as, w.Store, tx, "owners", docstore.Query{Space: home})
				if err != nil {
					t.Fatal(err)
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Fatalf("(-want +got):\n%s", diff)
				}
			}
		}
		now := func(want ...owner) {
			t.Helper()
			w.read(func(tx *db.Tx) error { in(tx, want...); return nil })
		}
		now()
		a := w.made("owners", `{"Name":"a"}`)
		now(owner{Name: "a"})
		w.made("owners", `{"Name":"b"}`)
		now(owner{Name: "a"}, owner{Name: "b"})
		undone := errors.New("undone")
		err := w.write(func(tx *db.Tx) error {
			if _, err := w.Replace(w.as, tx, w.kind("owners"), home, a.ID, docstore.Input{Body: []byte(`{"Name":"never"}`)}); err != nil {
				return err
			}
			in(tx, owner{Name: "b"}, owner{Name: "never"})
			return undone
		})
		if !errors.Is(err, undone) {
			t.Fatal(err)
		}
		now(owner{Name: "a"}, owner{Name: "b"})
		w.put("owners", a.ID, `{"Name":"c"}`) // the version of "never"
		now(owner{Name: "b"}, owner{Name: "c"})
		if err := w.remove("owners", a.ID); err != nil {
			t.Fatal(err)
		}
		now(owner{Name: "b"})
	})
}
