package docstore_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
)

func TestNamesAndPartsOfNames(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for _, name := range []string{`100%`, `100 x`, `a_b`, `axb`, `c\\d`, `cd`, `ÄÖ`, `o'x`, `?`} {
			w.made("owners", `{"Name":"`+name+`"}`)
		}
		names := func(q docstore.Query) (found []string) {
			q.Space = home
			w.read(func(tx *db.Tx) error {
				docs, n, err := w.List(w.as, tx, w.kind("owners"), q)
				for _, doc := range docs {
					found = append(found, object(t, doc.Body)["Name"].(string))
				}
				if err == nil && int(n) != len(found) {
					t.Errorf("%d of %d", len(found), n)
				}
				return err
			})
			return found
		}
		for part, want := range map[string][]string{
			"%": {"100%"}, "_": {"a_b"}, `\`: {`c\d`}, "0": {"100 x", "100%"}, "äö": {"ÄÖ"}, "Ä": {"ÄÖ"}, "'": {"o'x"}, "?": {"?"},
			"a%b": nil, `\%`: nil, "  a_  ": {"a_b"}, strings.Repeat("a", 60_000): nil,
		} {
			if diff := cmp.Diff(want, names(docstore.Query{PartialName: part})); diff != "" {
				t.Errorf("with %.20q in it (-want +got):\n%s", part, diff)
			}
		}
		for name, want := range map[string][]string{"100%": {"100%"}, "10": nil, " CD ": {"cd"}, "äÖ": {"ÄÖ"}} {
			if diff := cmp.Diff(want, names(docstore.Query{Name: name})); diff != "" {
				t.Errorf("named %q (-want +got):\n%s", name, diff)
			}
		}
	})
}

func TestFiltersAndIDs(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("things", `{"Name":"a","Colour":"Red","Tags":["X","y"]}`)
		w.made("things", `{"Name":"b","Colour":"blue","Tags":["y","y"]}`)
		long := strings.Repeat("ü", 3000)
		w.made("things", `{"Name":"c","Tags":["`+long+`"]}`)
		w.made("owners", `{"Name":"a"}`)
		if _, err := w.create("things", other, `{"Name":"d","Tags":["y"]}`); err != nil {
			t.Fatal(err)
		}
		where := func(path string, values ...string) docstore.Match { return docstore.Match{Path: path, Any: values} }
		for _, tt := range []struct {
			q    docstore.Query
			want []string
		}{
			{docstore.Query{}, []string{"Things-1", "Things-2", "Things-3"}},
			{docstore.Query{Where: []docstore.Match{where("Colour", "RED")}}, []string{"Things-1"}},
			{docstore.Query{Where: []docstore.Match{where("Tags", "Y", "z")}}, []string{"Things-1", "Things-2"}},
			{docstore.Query{Where: []docstore.Match{where("Tags", "y"), where("Colour", "blue", "green")}}, []string{"Things-2"}},
			{docstore.Query{Where: []docstore.Match{where("Tags", strings.ToUpper(long))}}, []string{"Things-3"}},
			{docstore.Query{Where: []docstore.Match{where("Tags", long+"ü")}}, nil},
			{docstore.Query{Where: []docstore.Match{where("Tags")}}, nil},
			{docstore.Query{IDs: []string{"things-2", "Things-1", "Things-99", "Things-4", "'"}}, []string{"Things-1", "Things-2"}},
			{docstore.Query{IDs: []string{}}, nil},
		} {
			tt.q.Space = home
			if got, n := w.list("things", tt.q); !cmp.Equal(tt.want, got) || int(n) != len(tt.want) {
				t.Errorf("%.300v finds %v of %d, want %v", tt.q, got, n, tt.want)
			}
		}
		err := w.d.Read(w.as, func(tx *db.Tx) error {
			_, _, err := w.List(w.as, tx, w.kind("things"), docstore.Query{Space: home, IDs: make([]string, 5001)})
			return err
		})
		refused(t, err, fault.Invalid, "ids", "at most 5000")
	})
}

func TestOrders(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for _, name := range []string{"b", "A", "c", "a1"} {
			w.made("owners", `{"Name":"`+name+`"}`)
		}
		for i := range 12 {
			w.made("notes", `{"Text":"n"}`)
			w.made("newest", `{"Text":"n"}`)
			w.made("rows", fmt.Sprintf(`{"Name":"r%d","SortOrder":%d}`, i, (7*i)%4-1))
		}
		for kind, want := range map[string][]string{
			"owners": {"Owners-2", "Owners-4", "Owners-1", "Owners-3"},
			"notes":  {"Notes-1", "Notes-2", "Notes-3", "Notes-4", "Notes-5", "Notes-6", "Notes-7", "Notes-8", "Notes-9", "Notes-10", "Notes-11", "Notes-12"},
			"newest": {"Newest-12", "Newest-11", "Newest-10", "Newest-9", "Newest-8", "Newest-7", "Newest-6", "Newest-5", "Newest-4", "Newest-3", "Newest-2", "Newest-1"},
			"rows":   {"Rows-1", "Rows-5", "Rows-9", "Rows-12", "Rows-4", "Rows-8", "Rows-11", "Rows-3", "Rows-7", "Rows-2", "Rows-6", "Rows-10"},
		} {
			if got, _ := w.list(kind, docstore.Query{Space: home}); !slices.Equal(want, got) {
				t.Errorf("%s are in the order %v, want %v", kind, got, want)
			}
		}
	})
}

// TestPagesOfManyDocuments goes through ten thousand in pages.
func TestPagesOfManyDocuments(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		const total = 10_007
		w.made("owners", `{"Name":"the first"}`)
		if err := w.write(func(tx *db.Tx) error {
			for from := 1; from < total; from += 500 {
				var rows []string
				var args []any
				for i := from; i < min(from+500, total); i++ {
					rows = append(rows, `(?, ?, ?, ?, ?, '', 0, 1, ?, 0, 0, '', 0, ?)`)
					// Every name is there three times in all, so that its number decides.
					args = append(args, "owners", fmt.Sprintf("Owners-%d", 100+i), 100+i, string(home), fmt.Sprintf("name %d", i%3400),
						w.kind("owners").Shape(), `{"Id":"x"}`)
				}
				if _, err := tx.Exec(w.as, `INSERT INTO documents (kind, id, seq, space_id, name, slug, sort, version, body_version, created, updated, updated_by, deleted, body)
					VALUES `+strings.Join(rows, ", "), args...); err != nil {
					return err
				}
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		all, n := w.list("owners", docstore.Query{Space: home, Page: ident.Page{Take: 1 << 31}})
		if n != total || len(all) != ident.MaxTake {
			t.Fatalf("%d of %d on one page", len(all), n)
		}
		var walked []string
		for {
			page, n := w.list("owners", docstore.Query{Space: home, Page: ident.Page{Skip: int64(len(walked)), Take: 1234}})
			if n != total {
				t.Fatalf("the total is %d", n)
			}
			if len(page) == 0 {
				break
			}
			walked = append(walked, page...)
		}
		seen := map[string]bool{}
		for _, id := range walked {
			seen[id] = true
		}
		if len(walked) != total || len(seen) != total || !slices.Equal(walked[:len(all)], all) {
			t.Errorf("walked over %d, %d of them different", len(walked), len(seen))
		}
		// The same piece by piece; one that was read goes meanwhile, one comes behind.
		var pieces []string
		for last, late := (*docstore.Doc)(nil), ""; ; {
			var docs []*docstore.Doc
			w.read(func(tx *db.Tx) (err error) {
				docs, err = w.After(w.as, tx, w.kind("owners"), docstore.Query{Space: home}, last, 1234)
				return err
			})
			for _, doc := range docs {
				if doc.ID != late {
					pieces = append(pieces, doc.ID)
				}
			}
			if len(docs) < 1234 {
				if slices.ContainsFunc(docs, func(doc *docstore.Doc) bool { return doc.ID == late }) != (late != "") {
					t.Errorf("%q, which came behind, is not there", late)
				}
				break
			}
			last = docs[len(docs)-1]
			if late == "" {
				late = w.made("owners", `{"Name":"zz the last"}`).ID
				if err := w.write(func(tx *db.Tx) error {
					_, err := tx.Exec(w.as, `UPDATE documents SET deleted = 1 WHERE kind = 'owners' AND id = ?`, docs[0].ID)
					return err
				}); err != nil {
					t.Fatal(err)
				}
			}
		}
		if !slices.Equal(pieces, walked) {
			t.Errorf("%d came piece by piece, not as the pages", len(pieces))
		}
		if err := w.write(func(tx *db.Tx) error {
			_, err := tx.Exec(w.as, `UPDATE documents SET deleted = CASE WHEN name = 'zz the last' THEN 1 ELSE 0 END WHERE kind = 'owners'`)
			return err
		}); err != nil {
			t.Fatal(err)
		}
		if first, _ := w.list("owners", docstore.Query{Space: home}); len(first) != ident.DefaultTake {
			t.Errorf("a page has %d", len(first))
		}
		for skip, want := range map[int64]int{total - 1: 1, total: 0, 1 << 62: 0, -5: 30} {
			if got, n := w.list("owners", docstore.Query{Space: home, Page: ident.Page{Skip: skip}}); len(got) != want || n != total {
				t.Errorf("after %d come %d of %d", skip, len(got), n)
			}
		}
		if _, err := w.find("owners", home, "The First"); err != nil {
			t.Error(err)
		}
	})
}

func TestGrants(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		w.made("projects", `{"Name":"p1","ProjectGroupId":"G-1"}`)
		w.made("projects", `{"Name":"p2","ProjectGroupId":"G-2"}`)
		for _, body := range []string{
			`{"Name":"1","ProjectId":"Projects-1","ProjectGroupId":"G-1","EnvironmentIds":["E-1","E-2"],"TenantIds":["T-1"]}`,
			`{"Name":"2","ProjectId":"Projects-1","ProjectGroupId":"G-1","EnvironmentIds":["E-3"]}`,
			`{"Name":"3","ProjectId":"Projects-2","ProjectGroupId":"G-2","EnvironmentIds":["E-1"],"TenantIds":["T-2"]}`,
			`{"Name":"4"}`,
		} {
			w.made("secured", body)
		}
		w.made("ofprojects", `{"Name":"1","ProjectId":"Projects-1"}`)
		w.made("ofprojects", `{"Name":"2","ProjectId":"projects-2"}`)
		w.made("ofprojects", `{"Name":"3","ProjectId":"Projects-3"}`)
		type grant = resource.Grant
		l := func(ids ...string) []string { return ids }
		for _, tt := range []struct {
			kind   string
			grants []grant
			want   string // numbers of ids
		}{
			{"secured", nil, "1234"},
			{"secured", []grant{}, ""},
			{"secured", []grant{{}}, "1234"},
			{"secured", []grant{{Projects: l("Projects-1")}}, "12"},
			{"secured", []grant{{Projects: l("projects-1", "Projects-2")}}, "123"},
			{"secured", []grant{{ProjectGroups: l("g-2")}}, "3"},
			{"secured", []grant{{Environments: l("E-1")}}, "13"},
			{"secured", []grant{{Tenants: l("T-1", "T-9")}}, "1"},
			{"secured", []grant{{Projects: l("Projects-1"), Environments: l("E-1")}}, "1"},
			{"secured", []grant{{Projects: l("Projects-2"), Environments: l("E-3")}}, ""},
			{"secured", []grant{{Projects: l("Projects-2")}, {Environments: l("E-3")}}, "23"},
			{"secured", []grant{{Projects: l("Projects-9")}, {}}, "1234"},
			{"secured", []grant{{Projects: l("Projects-1"), ProjectGroups: l("G-2")}}, ""},
			{"secured", []grant{{Projects: l("'; DROP TABLE documents; --")}}, ""},
			// The project itself, and what names its project but not its group.
			{"projects", []grant{{Projects: l("Projects-2")}}, "2"},
			{"projects", []grant{{Projects: l("PROJECTS-2")}}, "2"},
			{"projects", []grant{{ProjectGroups: l("G-1")}}, "1"},
			{"projects", []grant{{Environments: l("E-1")}}, "12"}, // no dimension of theirs
			{"projects", []grant{{Projects: l("Projects-1")}, {Environments: l("E-1")}}, "12"},
			{"ofprojects", []grant{{ProjectGroups: l("G-1")}}, "1"},
			{"ofprojects", []grant{{ProjectGroups: l("G-1", "G-2")}}, "12"},
			{"ofprojects", []grant{{ProjectGroups: l("G-2"), Projects: l("Projects-2", "Projects-1")}}, "2"},
			{"ofprojects", []grant{{ProjectGroups: l("G-9")}}, ""},
		} {
			ids, n := w.list(tt.kind, docstore.Query{Space: home, Visible: tt.grants})
			var got strings.Builder
			for _, id := range ids {
				got.WriteString(id[len(id)-1:])
			}
			if got.String() != tt.want || int(n) != len(tt.want) {
				t.Errorf("%s by %+v: %q of %d, want %q", tt.kind, tt.grants, got.String(), n, tt.want)
			}
			if tt.grants == nil {
				continue
			}
			// One by one it is the same.
			all, _ := w.list(tt.kind, docstore.Query{Space: home})
			w.read(func(tx *db.Tx) error {
				for _, id := range all {
					ok, err := w.Visible(w.as, tx, w.kind(tt.kind), id, tt.grants)
					if err != nil {
						return err
					}
					if ok != slices.Contains(ids, id) {
						t.Errorf("%s by %+v: visible is %v", id, tt.grants, ok)
					}
				}
				return nil
			})
		}
	})
}
