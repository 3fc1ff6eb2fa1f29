package server

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

const (
	// offlineAfter is how long a node on PostgreSQL may be silent before it is
	// called offline; it says so every few seconds.
	offlineAfter = time.Minute
	// maxTasks bounds how many tasks a node may run at once.
	maxTasks = 500
)

func (a *api) nodeRoutes() []rest.Route {
	one := reflect.TypeFor[octopus.ServerNode]()
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/octopusservernodes", Permission: administer, Handler: a.nodes, Response: reflect.TypeFor[octopus.Page[octopus.ServerNode]](), Query: paged(rest.Param{Name: "ids", Type: rest.List, About: "only these"}, rest.Param{Name: "partialName", Type: rest.Text, About: "only those with this in their name"}), Summary: "Lists the nodes of the server."},
		{Method: http.MethodGet, Pattern: "/octopusservernodes/all", Permission: administer, Handler: a.allNodes, Response: reflect.SliceOf(one), Summary: "Lists all nodes as a bare array."},
		{Method: http.MethodGet, Pattern: "/octopusservernodes/summary", Permission: administer, Handler: a.nodeSummary, Response: reflect.TypeFor[octopus.ServerNodesSummary](), Summary: "Lists all nodes with what they are doing."},
		{Method: http.MethodGet, Pattern: "/octopusservernodes/{id}", Permission: administer, Handler: a.node, Response: one, Summary: "Reads a node by id or name."},
		{Method: http.MethodPut, Pattern: "/octopusservernodes/{id}", Permission: administer, Handler: a.putNode, Body: one, Response: one, Summary: "Sets how many tasks a node runs at once, and whether it is drained: it then ends what it runs and takes nothing new."},
		{Method: http.MethodDelete, Pattern: "/octopusservernodes/{id}", Permission: administer, Handler: a.deleteNode, Summary: "Forgets a node that is offline."},
	}
}

// nodeQuery reads nodes by what condition adds, in the order of their numbers.
// The clock is the database's where the heartbeats are by it.
func (a *api) nodeQuery(ctx context.Context, tx *db.Tx, condition string, args ...any) ([]octopus.ServerNode, error) {
	clock := `0`
	if tx.Dialect() == db.Postgres {
		clock = `(extract(epoch from clock_timestamp()) * 1000000)::bigint`
	}
	rows, err := tx.Query(ctx, `SELECT s.seq, s.name, s.capacity, s.draining,
		coalesce((SELECT max(n.heartbeat) FROM node n WHERE n.name = s.name), 0),
		(SELECT count(*) FROM slot l WHERE l.node = s.name), `+clock+`
		FROM node_setting s WHERE `+condition, args...)
	if err != nil {
		return nil, fmt.Errorf("read nodes: %w", err)
	}
	defer func() { _ = rows.Close() }() // Err tells
	nodes := []octopus.ServerNode{}
	for rows.Next() {
		var n octopus.ServerNode
		var seq, draining, heartbeat, clock int64
		if err := rows.Scan(&seq, &n.Name, &n.MaxConcurrentTasks, &draining, &heartbeat, &n.RunningTaskCount, &clock); err != nil {
			return nil, fmt.Errorf("read nodes: %w", err)
		}
		n.ID, n.IsInMaintenanceMode = ident.ID(tasks.NodePrefix, seq), draining != 0
		seen := db.Time(heartbeat)
		n.IsOffline = clock-heartbeat > offlineAfter.Microseconds()
		if tx.Dialect() == db.SQLite {
			// One host, whose nodes prove by locks and not by heartbeats that they
			// live. The one that answers certainly does.
			n.IsOffline = n.Name != a.Node
		}
		if n.Name == a.Node {
			seen, n.IsOffline = tx.Now(), false
		}
		n.LastSeen = octopus.OptionalTime(seen)
		nodes = append(nodes, n)
	}
	return nodes, rows.Err()
}

func withNodeLinks(r *rest.Request, nodes []octopus.ServerNode) []octopus.ServerNode {
	for i := range nodes {
		nodes[i].Links = octopus.Links{"Self": r.Href("/api/octopusservernodes/" + nodes[i].ID), "Tasks": r.Href("/api/tasks?node=" + nodes[i].ID)}
	}
	return nodes
}

func (a *api) readNodes(r *rest.Request) (nodes []octopus.ServerNode, err error) {
	err = a.DB.Read(r.Context(), func(tx *db.Tx) error {
		nodes, err = a.nodeQuery(r.Context(), tx, `1 = 1 ORDER BY s.seq LIMIT ?`, ident.MaxTake)
		return err
	})
	return withNodeLinks(r, nodes), err
}

func (a *api) nodes(r *rest.Request) (any, error) {
	p, errPage := r.Page()
	ids, errIDs := r.QueryList("ids")
	if err := errors.Join(errPage, errIDs); err != nil {
		return nil, err
	}
	condition, args := `1 = 1`, []any{}
	if len(ids) > 0 {
		for _, id := range ids {
			seq, _ := nodeSeq(id)
			args = append(args, seq)
		}
		condition += ` AND s.seq IN (?` + strings.Repeat(`, ?`, len(ids)-1) + `)`
	}
	if part := r.Query("partialName"); part != "" {
		condition += ` AND lower(s.name) LIKE ? ESCAPE '\'`
		args = append(args, db.Containing(strings.ToLower(part)))
	}
	var nodes []octopus.ServerNode
	var total int64
	err := a.DB.Read(r.Context(), func(tx *db.Tx) error {
		err := tx.QueryRow(r.Context(), `SELECT count(*) FROM node_setting s WHERE `+condition, args...).Scan(&total)
		if err != nil {
			return fmt.Errorf("count nodes: %w", err)
		}
		nodes, err = a.nodeQuery(r.Context(), tx, condition+` ORDER BY s.seq LIMIT ? OFFSET ?`, append(args[:len(args):len(args)], p.Take, p.Skip)...)
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.PageOf(r, "OctopusServerNode", p, total, withNodeLinks(r, nodes)), nil
}

func (a *api) allNodes(r *rest.Request) (any, error) {
	nodes, err := a.readNodes(r)
	return octopus.List[octopus.ServerNode](nodes), err
}

func (a *api) nodeSummary(r *rest.Request) (any, error) {
	nodes, err := a.readNodes(r)
	if err != nil {
		return nil, err
	}
	return octopus.ServerNodesSummary{Nodes: nodes, Links: octopus.Links{"Self": r.Href("/api/octopusservernodes/summary")}}, nil
}

// nodeSeq reads the number of a node from its id; 0 is nobody's.
func nodeSeq(id string) (int64, bool) {
	if len(id) <= len(tasks.NodePrefix) || !strings.EqualFold(id[:len(tasks.NodePrefix)+1], tasks.NodePrefix+"-") {
		return 0, false
	}
	return ident.Seq(id)
}

// findNode reads the node that a reference (an id or a name) names.
func (a *api) findNode(ctx context.Context, tx *db.Tx, ref string) (*octopus.ServerNode, error) {
	seq, _ := nodeSeq(ref)
	nodes, err := a.nodeQuery(ctx, tx, `s.seq = ? OR lower(s.name) = ? ORDER BY CASE WHEN s.seq = ? THEN 0 ELSE 1 END, s.seq LIMIT 1`, seq, strings.ToLower(ref), seq)
	if err != nil {
		return nil, err
	}
	if len(nodes) == 0 {
		return nil, fault.Missing("node", ref)
	}
	return &nodes[0], nil
}

func (a *api) node(r *rest.Request) (any, error) {
	var n *octopus.ServerNode
	err := a.DB.Read(r.Context(), func(tx *db.Tx) (err error) {
		n, err = a.findNode(r.Context(), tx, r.PathValue("id"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return withNodeLinks(r, []octopus.ServerNode{*n})[0], nil
}

func (a *api) putNode(r *rest.Request) (any, error) {
	var want octopus.ServerNode
	if err := r.Decode(&want); err != nil {
		return nil, err
	}
	if want.MaxConcurrentTasks < 1 || want.MaxConcurrentTasks > maxTasks {
		return nil, fault.InvalidField("MaxConcurrentTasks", "MaxConcurrentTasks is %d; use 1 to %d, and IsInMaintenanceMode for a node that shall take no tasks.", want.MaxConcurrentTasks, maxTasks)
	}
	var n *octopus.ServerNode
	err := a.DB.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		old, err := a.findNode(ctx, tx, r.PathValue("id"))
		if err != nil {
			return err
		}
		draining := 0
		if want.IsInMaintenanceMode {
			draining = 1
		}
		if _, err := tx.Exec(ctx, `UPDATE node_setting SET capacity = ?, draining = ? WHERE name = ?`, want.MaxConcurrentTasks, draining, old.Name); err != nil {
			return fmt.Errorf("store node %s: %w", old.ID, err)
		}
		tx.Changed("octopusservernodes")
		tx.Event(nodeEvent("Modified", "was changed", old))
		n, err = a.findNode(ctx, tx, old.ID)
		return err
	})
	if err != nil {
		return nil, err
	}
	return withNodeLinks(r, []octopus.ServerNode{*n})[0], nil
}

func nodeEvent(category, did string, n *octopus.ServerNode) db.Event {
	const lead = "Node "
	return db.Event{
		Category: category, Message: lead + n.Name + " " + did, DocumentType: "OctopusServerNode", Related: []string{n.ID},
		References: []db.EventReference{{ID: n.ID, Start: len(lead), Length: len(n.Name)}},
	}
}

// deleteNode forgets a node that is gone. One that runs would have no settings,
// and take no task any more.
func (a *api) deleteNode(r *rest.Request) (any, error) {
	return nil, a.DB.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		n, err := a.findNode(ctx, tx, r.PathValue("id"))
		if err != nil {
			return err
		}
		if !n.IsOffline || n.RunningTaskCount > 0 {
			return fault.New(fault.Conflict, "The node '%s' is running or has tasks; stop it first.", n.Name)
		}
		for _, statement := range []string{`DELETE FROM node WHERE name = ?`, `DELETE FROM node_setting WHERE name = ?`} {
			if _, err := tx.Exec(ctx, statement, n.Name); err != nil {
				return fmt.Errorf("forget node %s: %w", n.ID, err)
			}
		}
		tx.Changed("octopusservernodes")
		tx.Event(nodeEvent("Deleted", "was deleted", n))
		return nil
	})
}

// drained reports whether no node that is online takes new tasks.
func (a *api) drained(ctx context.Context, tx *db.Tx) (bool, error) {
	nodes, err := a.nodeQuery(ctx, tx, `1 = 1 ORDER BY s.seq LIMIT ?`, ident.MaxTake)
	if errors.Is(err, sql.ErrNoRows) {
		return false, nil
	}
	some := false
	for _, n := range nodes {
		if !n.IsOffline && !n.IsInMaintenanceMode {
			return false, err
		}
		some = some || !n.IsOffline
	}
	return some, err
}
