package tasks_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

func TestList(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		s := w.open("a", finish)
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
		at := time.Date(2026, 11, 24, 8, 0, 0, 0, time.UTC)
		id := map[string]string{}
		name := map[string]string{}
		make := func(letter string, n tasks.New, set string) {
			n.Description = "Deploy " + letter
			if n.QueueTime.IsZero() {
				n.QueueTime = at
			}
			id[letter] = w.create(s, n).ID
			name[id[letter]] = letter
			if set != "" {
				w.exec(`UPDATE task SET `+set+` WHERE id = ?`, id[letter])
			}
		}
		make("a", tasks.New{ProjectID: "Projects-1", EnvironmentID: "Environments-1", TenantID: "Tenants-1"}, `state = 'Success', completed_time = 5, runnable = 0`)
		make("b", tasks.New{ProjectID: "Projects-1", EnvironmentID: "Environments-2"}, `state = 'Failed', completed_time = 6, runnable = 0, has_warnings = 1, node = 'a'`)
		make("c", tasks.New{ProjectID: "Projects-2", EnvironmentID: "Environments-1", QueueTime: at.Add(time.Hour)}, `state = 'Executing', runnable = 0`)
		make("d", tasks.New{ProjectID: "Projects-1", EnvironmentID: "Environments-1"}, `state = 'Cancelling', runnable = 0, node = 'a'`)
		make("e", tasks.New{Space: "Spaces-2", ProjectID: "Projects-9"}, ``)
		make("f_%Ä", tasks.New{Name: octopus.TaskHealth}, ``)
		make("g", tasks.New{RunbookID: "Runbooks-1", QueueTime: at.Add(2 * time.Hour)}, ``)
		w.exec(`INSERT INTO interruption (id, seq, task, space_id, project_id, environment_id, tenant_id, kind, title, unit, correlation, created, pending, responsible_user, body)
			VALUES ('Interruptions-1', 1, ?, 'Spaces-1', 'Projects-2', 'Environments-1', '', 'ManualIntervention', 'Ask', '', '', 1, 1, '', '{}'),
			('Interruptions-2', 2, ?, 'Spaces-1', 'Projects-1', 'Environments-1', '', 'GuidedFailure', 'Asked', '', '', 1, 0, '', '{}')`, id["c"], id["d"])
		w.exec(`INSERT INTO document_index (kind, field, space_id, value, id) VALUES ('projects', 'ProjectGroupId', 'Spaces-1', 'projectgroups-1', 'Projects-2')`)
		yes, no := true, false
		all := []tasks.Visible{{Space: "Spaces-1"}}
		grants := func(g ...resource.Grant) []tasks.Visible {
			return []tasks.Visible{{Space: "Spaces-1", Grants: append([]resource.Grant{}, g...)}}
		}
		for _, c := range []struct {
			name  string
			query tasks.Query
			want  string
		}{
			{"active ones first, then newest first", tasks.Query{Visible: all}, "g f_%Ä d c b a"},
			{"nothing", tasks.Query{}, ""},
			{"another space", tasks.Query{Visible: []tasks.Visible{{Space: "Spaces-2"}}}, "e"},
			{"two spaces", tasks.Query{Visible: []tasks.Visible{{Space: "Spaces-2"}, {Space: "Spaces-1", Grants: []resource.Grant{{Tenants: []string{"Tenants-1"}}}}}}, "e a"},
			{"no grant", tasks.Query{Visible: grants()}, ""},
			{"an unlimited grant", tasks.Query{Visible: grants(resource.Grant{})}, "g f_%Ä d c b a"},
			{"a project", tasks.Query{Visible: grants(resource.Grant{Projects: []string{"Projects-1"}})}, "d b a"},
			{"a project in an environment", tasks.Query{Visible: grants(resource.Grant{Projects: []string{"Projects-1"}, Environments: []string{"Environments-1"}})}, "d a"},
			{"either of two", tasks.Query{Visible: grants(resource.Grant{Projects: []string{"Projects-2"}}, resource.Grant{Tenants: []string{"Tenants-1"}})}, "c a"},
			{"a project group", tasks.Query{Visible: grants(resource.Grant{ProjectGroups: []string{"ProjectGroups-1"}})}, "c"},
			{"ids", tasks.Query{Visible: all, IDs: []string{id["a"], id["e"], id["c"]}}, "c a"},
			{"no ids", tasks.Query{Visible: all, IDs: []string{}}, ""},
			{"states", tasks.Query{Visible: all, States: []octopus.TaskState{octopus.TaskFailed, octopus.TaskQueued}}, "g f_%Ä b"},
			{"names", tasks.Query{Visible: all, Names: []string{"Health"}}, "f_%Ä"},
			{"active", tasks.Query{Visible: all, Active: true}, "g f_%Ä d c"},
			{"running", tasks.Query{Visible: all, Running: true}, "d c"},
			{"of a project", tasks.Query{Visible: all, Project: []string{"Projects-2", "Projects-9"}}, "c"},
			{"of an environment", tasks.Query{Visible: all, Environment: []string{"Environments-2"}}, "b"},
			{"of a tenant", tasks.Query{Visible: all, Tenant: []string{"Tenants-1"}}, "a"},
			{"of a runbook", tasks.Query{Visible: all, Runbook: []string{"Runbooks-1"}}, "g"},
			{"of a node", tasks.Query{Visible: all, Node: "a"}, "d b"},
			{"a part of the description, wild cards as they are", tasks.Query{Visible: all, Partial: "Y F_%"}, "f_%Ä"},
			{"letters beyond ASCII", tasks.Query{Visible: all, Partial: "%Ä"}, "f_%Ä"},
			{"pending", tasks.Query{Visible: all, Pending: &yes}, "c"},
			{"not pending", tasks.Query{Visible: all, Pending: &no}, "g f_%Ä d b a"},
			{"with warnings", tasks.Query{Visible: all, Warnings: &yes}, "b"},
			{"without", tasks.Query{Visible: all, Warnings: &no, Active: true}, "g f_%Ä d c"},
			{"from", tasks.Query{Visible: all, From: at.Add(time.Hour)}, "g c"},
			{"to", tasks.Query{Visible: all, From: at.Add(time.Minute), To: at.Add(time.Hour)}, "c"},
			{"a page", tasks.Query{Visible: all, Page: ident.Page{Skip: 1, Take: 2}}, "f_%Ä d"},
			{"a page of both", tasks.Query{Visible: all, Page: ident.Page{Skip: 3, Take: 2}}, "c b"},
			{"the last that have not ended", tasks.Query{Visible: all, Page: ident.Page{Skip: 2, Take: 2}}, "d c"},
			{"the last page", tasks.Query{Visible: all, Page: ident.Page{Skip: 5, Take: 2}}, "a"},
			{"beyond the end", tasks.Query{Visible: all, Page: ident.Page{Skip: 6, Take: 2}}, ""},
		} {
			w.read(func(ctx context.Context, tx *db.Tx) error {
				page, total, _, err := tasks.List(ctx, tx, c.query)
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				var got []string
				for _, task := range page {
					got = append(got, name[task.ID])
				}
				if diff := cmp.Diff(c.want, strings.Join(got, " ")); diff != "" {
					t.Errorf("%s: %s", c.name, diff)
				}
				if c.query.Page.Take == 0 && total != int64(len(got)) || c.query.Page.Take > 0 && total != 6 {
					t.Errorf("%s: %d of %d", c.name, len(got), total)
				}
				return nil
			})
		}
		for _, c := range []struct {
			name  string
			query tasks.InterruptionQuery
			want  string
		}{
			{"all", tasks.InterruptionQuery{Visible: all}, "Interruptions-2 Interruptions-1"},
			{"pending", tasks.InterruptionQuery{Visible: all, PendingOnly: true}, "Interruptions-1"},
			{"of a task", tasks.InterruptionQuery{Visible: all, Regarding: id["d"]}, "Interruptions-2"},
			{"of a project", tasks.InterruptionQuery{Visible: all, Regarding: "Projects-2"}, "Interruptions-1"},
			{"seen", tasks.InterruptionQuery{Visible: grants(resource.Grant{Projects: []string{"Projects-1"}})}, "Interruptions-2"},
			{"unseen", tasks.InterruptionQuery{Visible: []tasks.Visible{{Space: "Spaces-2"}}}, ""},
			{"by id", tasks.InterruptionQuery{Visible: all, IDs: []string{"Interruptions-1"}}, "Interruptions-1"},
		} {
			w.read(func(ctx context.Context, tx *db.Tx) error {
				page, total, err := tasks.Interruptions(ctx, tx, c.query)
				var got []string
				for _, i := range page {
					got = append(got, i.ID)
				}
				if strings.Join(got, " ") != c.want || total != int64(len(got)) {
					t.Errorf("interruptions, %s: %v of %d", c.name, got, total)
				}
				return err
			})
		}
	})
}

func TestResponsibility(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		n, l := w.claim()
		id, b := ask(t, l)
		if err := l.Wait(t.Context(), false, b); err != nil {
			t.Fatal(err)
		}
		take := func(user string, ok bool) {
			t.Helper()
			err := w.d.WriteEngine(t.Context(), func(tx *db.Tx) error { return tasks.TakeResponsibility(t.Context(), tx, id, user) })
			if (err == nil) != ok {
				t.Errorf("%s takes it: %v", user, err)
			}
		}
		take("Users-1", true)
		take("Users-2", false)
		take("Users-1", true)
		if err := w.answer(n.Service, id); err != nil {
			t.Fatal(err)
		}
		take("Users-1", false)
	})
}

// Interruptions about several targets of one step have one holder, who is also that of
// those that come later; another step's have not.
func TestLinkedResponsibility(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		_, l := w.claim()
		raise := func(correlation string) string {
			t.Helper()
			id, err := l.NextInterruption(t.Context())
			if err == nil {
				err = l.Commit(t.Context(), tasks.Batch{Interruptions: []tasks.Interruption{{ID: id, Kind: octopus.InterruptionGuidedFailure, Correlation: correlation}}})
			}
			if err != nil {
				t.Fatal(err)
			}
			return id
		}
		take := func(id, user string) error {
			return w.d.WriteEngine(t.Context(), func(tx *db.Tx) error { return tasks.TakeResponsibility(t.Context(), tx, id, user) })
		}
		a, b, other := raise("step-1"), raise("step-1"), raise("step-2")
		w.read(func(ctx context.Context, tx *db.Tx) error {
			linked, err := tasks.Linked(ctx, tx, []string{a, b, other})
			if diff := cmp.Diff(map[string]bool{a: true, b: true}, linked); diff != "" {
				t.Error(diff)
			}
			return err
		})
		if err := take(a, "Users-1"); err != nil {
			t.Fatal(err)
		}
		late := raise("step-1")
		for _, id := range []string{a, b, late} {
			if err := take(id, "Users-2"); fault.KindOf(err) != fault.Conflict {
				t.Errorf("a second holder of %s: %v", id, err)
			}
		}
		if err := errors.Join(take(late, "Users-1"), take(other, "Users-2")); err != nil {
			t.Error(err)
		}
	})
}

func TestArtifacts(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *world) {
		_, l := w.claim()
		if err := l.Commit(t.Context(), tasks.Batch{Artifacts: []tasks.Artifact{{Filename: "a.txt", Source: "web", Size: 5, SHA256: "x"}, {Filename: "a.txt", Source: "db"}}}); err != nil {
			t.Fatal(err)
		}
		w.read(func(ctx context.Context, tx *db.Tx) error {
			found, total, err := tasks.Artifacts(ctx, tx, tasks.ArtifactQuery{Visible: []tasks.Visible{{Space: "Spaces-1"}}, Regarding: l.ID})
			if err != nil || total != 2 || found[0].Source != "db" || found[1].Size != 5 {
				t.Errorf("%d artifacts, %v", total, err)
			}
			_, total, err = tasks.Artifacts(ctx, tx, tasks.ArtifactQuery{Visible: []tasks.Visible{{Space: "Spaces-1", Grants: []resource.Grant{{Projects: []string{"Projects-1"}}}}}})
			if total != 0 {
				t.Error("artifacts are seen by who may not see their task")
			}
			return err
		})
	})
}
