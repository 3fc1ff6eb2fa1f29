package docstore_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
)

func TestUnknownReferencesAreRefused(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		owner := w.made("owners", `{"Name":"owner"}`).ID
		far, err := w.create("owners", other, `{"Name":"far"}`)
		if err != nil {
			t.Fatal(err)
		}
		for _, bad := range []string{"Owners-99", far.ID, "owner", "Things-1", "nonsense"} {
			for member, body := range map[string]string{
				"RefuseId":  fmt.Sprintf(`"RefuseId":%q`, bad),
				"ClearIds":  fmt.Sprintf(`"ClearIds":[%q,%q]`, owner, bad),
				"ClearMap":  fmt.Sprintf(`"ClearMap":{%q:[]}`, bad),
				"ClearMap ": fmt.Sprintf(`"ClearMap":{%q:[%q]}`, owner, bad),
				"LooseIds":  fmt.Sprintf(`"LooseIds":[%q]`, bad),
			} {
				_, err := w.create("things", home, `{"Name":"x",`+body+`}`)
				refused(t, err, fault.Invalid, strings.TrimSpace(member)+" names", bad, "does not exist in this space", "one of the owners")
			}
		}
		_, err = w.create("children", home, `{"Name":"x"}`)
		refused(t, err, fault.Invalid, "OwnerId is empty", "one of the owners")
		_, err = w.create("things", home, `{"Name":"x","RefuseId":"a","ClearIds":["b"]}`)
		if n := len(fault.Faults(err)); n != 2 {
			t.Errorf("%d faults for two mistakes: %v", n, err)
		}
		_, err = w.create("things", home, `{"Name":"x","FriendIds":["Things-1000"]}`)
		refused(t, err, fault.Invalid, "FriendIds")
	})
}

// TestReferencesAreSpelledAsTheirKindDoes: ids are compared without case.
func TestReferencesAreSpelledAsTheirKindDoes(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("owners", `{"Name":"one"}`)
		w.made("owners", `{"Name":"two"}`)
		w.made("things", `{"Name":"x","RefuseId":"owners-1","ClearIds":["OWNERS-1","Owners-2"],"ClearMap":{"owners-1":["owners-2"],"OWNERS-2":[]}}`)
		got := w.served("things", "x")
		want := map[string]any{"Owners-1": []any{"Owners-2"}, "Owners-2": []any{}}
		if diff := cmp.Diff(want, got["ClearMap"]); diff != "" || got["RefuseId"] != "Owners-1" {
			t.Errorf("RefuseId is %v, ClearMap (-want +got):\n%s", got["RefuseId"], diff)
		}
		refused(t, w.remove("owners", "one"), fault.Conflict, "thing 'x' (Things-1)")
	})
}

func TestWhatDeletingDoesToReferrers(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for _, name := range []string{"refused", "cascaded", "cleared", "loose"} {
			w.made("owners", `{"Name":"`+name+`"}`)
		}
		w.made("things", `{"Name":"refuser","RefuseId":"Owners-1"}`)
		for i := range 7 {
			w.made("things", fmt.Sprintf(`{"Name":"refuser %d","RefuseId":"Owners-1"}`, i))
		}
		refused(t, w.remove("owners", "refused"), fault.Conflict, "owner 'Owners-1' cannot be deleted", "thing 'refuser' (Things-1)", "3 more", "first")
		w.put("things", "refuser", `{"Name":"refuser"}`)
		for i := range 7 {
			if err := w.remove("things", fmt.Sprintf("refuser %d", i)); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.remove("owners", "refused"); err != nil {
			t.Errorf("nobody refers to it any more: %v", err)
		}

		// Twice, and with something that goes along: what follows by two ways goes once.
		w.made("things", `{"Name":"follower","CascadeId":"Owners-2","CascadeTooId":"Owners-2"}`)
		w.made("children", `{"Name":"c","OwnerId":"Owners-2"}`)
		w.made("things", `{"Name":"bystander","CascadeId":"Owners-3"}`)
		if err := w.remove("owners", "cascaded"); err != nil {
			t.Fatal(err)
		}
		for kind, name := range map[string]string{"things": "follower", "children": "c"} {
			if _, err := w.find(kind, home, name); !fault.Is(err, fault.NotFound) {
				t.Errorf("%s stayed: %v", name, err)
			}
		}
		if err := w.remove("things", "bystander"); err != nil {
			t.Fatal(err)
		}

		w.made("things", `{"Name":"holder","New":1,"ClearId":"Owners-3","ClearIds":["Owners-4","Owners-3","Owners-3"],"ClearMap":{"Owners-3":["Owners-4"],"Owners-4":["Owners-3","Owners-4"]}}`)
		if err := w.remove("owners", "cleared"); err != nil {
			t.Fatal(err)
		}
		got := w.served("things", "holder")
		want := map[string]any{"ClearId": nil, "ClearIds": []any{"Owners-4"}, "ClearMap": map[string]any{"Owners-4": []any{"Owners-4"}}, "New": 1.0}
		for member, value := range want {
			if diff := cmp.Diff(value, got[member]); diff != "" {
				t.Errorf("%s (-want +got):\n%s", member, diff)
			}
		}

		w.put("things", "holder", `{"Name":"holder","LooseIds":["Owners-4"]}`)
		if err := w.remove("owners", "loose"); err != nil {
			t.Fatal(err)
		}
		if got := w.served("things", "holder")["LooseIds"]; !cmp.Equal(got, []any{"Owners-4"}) {
			t.Errorf("LooseIds is %v", got)
		}
		w.put("things", "holder", `{"Name":"holder","Count":2,"LooseIds":["Owners-4"]}`) // what dangles may stay
		_, err := w.replace("things", "holder", `{"Name":"holder","LooseIds":["Owners-4","Owners-3"]}`)
		refused(t, err, fault.Invalid, "LooseIds names 'Owners-3'")
		if n := w.count("document_refs"); n != 0 {
			t.Errorf("%d references are left", n)
		}
	})
}

func TestReferencesToOneself(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("things", `{"Name":"narcissus"}`)
		w.put("things", "narcissus", `{"Name":"narcissus","FriendIds":["Things-1"]}`)
		w.made("things", `{"Name":"a"}`)
		w.made("things", `{"Name":"b","FriendIds":["Things-2"]}`)
		w.put("things", "a", `{"Name":"a","FriendIds":["Things-3"]}`)
		refused(t, w.remove("things", "a"), fault.Conflict, "thing 'b'")
		if err := w.remove("things", "narcissus"); err != nil {
			t.Errorf("its own reference keeps it: %v", err)
		}
	})
}

// TestDeletingRacesReferring has one refer to what another deletes: either the
// reference is refused or the deletion is.
func TestDeletingRacesReferring(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for i := range 15 {
			owner := w.made("owners", fmt.Sprintf(`{"Name":"owner %d"}`, i)).ID
			deleted := make(chan error, 1)
			referred := make(chan error, 1)
			go func() { deleted <- w.remove("owners", owner) }()
			go func() {
				_, err := w.create("things", home, fmt.Sprintf(`{"Name":"thing %d","RefuseId":%q}`, i, owner))
				referred <- err
			}()
			errDelete, errRefer := <-deleted, <-referred
			_, gone := w.find("owners", home, owner)
			switch {
			case errDelete == nil && fault.Is(errRefer, fault.Invalid) && fault.Is(gone, fault.NotFound):
			case errRefer == nil && fault.Is(errDelete, fault.Conflict) && gone == nil:
			default:
				t.Fatalf("deletion: %v; reference: %v; the owner: %v", errDelete, errRefer, gone)
			}
		}
	})
}

func TestTheServersWriter(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("owners", `{"Name":"a"}`)
		for i := range 45 {
			w.made("children", fmt.Sprintf(`{"Name":"c%02d","OwnerId":"Owners-1","Sort":"s%d"}`, i, i))
		}
		stop := errors.New("enough")
		err := w.write(func(tx *db.Tx) error {
			in := w.In(tx)
			var seen []string
			// Renaming and deleting what it goes through must not make it miss any.
			err := in.Each(w.as, "children", home, "OwnerId", "owners-1", func(id string) error {
				seen = append(seen, id)
				if len(seen)%2 == 0 {
					return in.Delete(w.as, "children", id)
				}
				var c Child
				if err := in.Load(w.as, "children", id, &c); err != nil {
					return err
				}
				c.Name = "z" + c.Name
				return in.Replace(w.as, "children", id, &c)
			})
			if err != nil || len(seen) != 45 {
				t.Errorf("went through %d: %v", len(seen), err)
			}
			if err := in.Each(w.as, "children", home, "", "", func(string) error { return stop }); !errors.Is(err, stop) {
				t.Errorf("the error of fn came back as %v", err)
			}
			refused(t, in.Replace(w.as, "owners", "Owners-9", &Owner{Name: "x"}), fault.NotFound, "Owners-9")
			refused(t, in.Delete(w.as, "owners", "Owners-9"), fault.NotFound, "Owners-9")
			refused(t, in.Load(w.as, "owners", "Owners-9", &Owner{}), fault.NotFound, "Owners-9")
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if _, n := w.list("children", docstore.Query{Space: home}); n != 23 {
			t.Errorf("%d are left", n)
		}
	})
}
