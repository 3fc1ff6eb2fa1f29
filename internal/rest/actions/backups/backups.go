// Package backups serves the backups of the whole server: which there are, and the
// tasks that take and prove them. To restore one is for the server's own machine.
package backups

import (
	"net/http"
	"reflect"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	taskroutes "github.com/takodeploy/tako/internal/rest/actions/tasks"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/octopus"
)

const administer = string(octopus.PermAdministerSystem)

// Config of Routes.
type Config struct {
	DB    *db.DB
	Queue *tasks.Service
	// Open opens the directory of backups of this node.
	Open func() (*backup.Store, error)
	// Own are the directories of the server, in which there is no test instance.
	Own []string
	// Database is the URL of the server's own database. Test instances get theirs on the
	// same server, or on one of CloneHosts, which are HOST or HOST:PORT.
	Database   string
	CloneHosts []string
}

type api struct {
	Config
	db    *db.DB
	queue *tasks.Service
	open  func() (*backup.Store, error)
}

// Routes are the operations on backups.
func Routes(cfg Config) []rest.Route {
	a := &api{cfg, cfg.DB, cfg.Queue, cfg.Open}
	page := []rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}
	task, one, ask := reflect.TypeFor[octopus.Task](), reflect.TypeFor[octopus.Backup](), reflect.TypeFor[octopus.BackupRequest]()
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/system/backups", Mount: rest.InSystem, Permission: administer, Handler: a.list, Query: page, Response: reflect.TypeFor[octopus.Page[octopus.Backup]](), Summary: "Lists the backups of the server, the newest first."},
		{Method: http.MethodPost, Pattern: "/system/backups", Mount: rest.InSystem, Permission: administer, Handler: a.create, Body: ask, Response: task, Summary: "Starts the task that takes a backup and proves it."},
		{Method: http.MethodGet, Pattern: "/system/backups/{id}", Mount: rest.InSystem, Permission: administer, Handler: a.get, Response: one, Summary: "Reads what a backup is, and how it was proven."},
		{Method: http.MethodPost, Pattern: "/system/backups/{id}/verify", Mount: rest.InSystem, Permission: administer, Handler: a.verify, Body: ask, Response: task, Summary: "Starts the task that proves a backup."},
		{Method: http.MethodPost, Pattern: "/system/clones", Mount: rest.InSystem, Permission: administer, Handler: a.clone, Body: reflect.TypeFor[octopus.CloneRequest](), Response: task, Summary: "Starts the task that makes a test instance, of a backup or of the server as it is."},
		{Method: http.MethodGet, Pattern: "/system/restored", Mount: rest.InSystem, Permission: administer, Handler: a.restored, Response: reflect.TypeFor[octopus.Restored](), Summary: "Tells what waits since the server was restored from a backup."},
		{Method: http.MethodPost, Pattern: "/system/restored/release", Mount: rest.InSystem, Permission: administer, Handler: a.release, Body: reflect.TypeFor[octopus.RestoredRelease](), Response: reflect.TypeFor[octopus.Restored](), Summary: "Lets tasks that wait since a restore go on, or all of them with schedules and subscriptions."},
	}
}

func (a *api) list(r *rest.Request) (any, error) {
	p, err := r.Page()
	if err != nil {
		return nil, err
	}
	all, err := a.all()
	if err != nil {
		return nil, err
	}
	from := min(p.Skip, int64(len(all)))
	docs := []octopus.Backup{}
	for _, b := range all[from:min(from+p.Take, int64(len(all)))] {
		docs = append(docs, document(r, &b))
	}
	return rest.PageOf(r, "Backup", p, int64(len(all)), docs), nil
}

func (a *api) all() ([]backup.Backup, error) {
	s, err := a.open()
	if err != nil {
		return nil, err
	}
	return s.List()
}

// find is the backup that the path names.
func (a *api) find(r *rest.Request) (*backup.Backup, error) {
	all, err := a.all()
	if err != nil {
		return nil, err
	}
	if b := named(all, r.PathValue("id")); b != nil {
		return b, nil
	}
	return nil, fault.New(fault.NotFound, "There is no backup '%.100s'; GET /api/system/backups lists those that there are.", r.PathValue("id"))
}

// named is the backup of an id; nil when there is none.
func named(all []backup.Backup, id string) *backup.Backup {
	for i := range all {
		if all[i].ID == id {
			return &all[i]
		}
	}
	return nil
}

func (a *api) get(r *rest.Request) (any, error) {
	b, err := a.find(r)
	if err != nil {
		return nil, err
	}
	return document(r, b), nil
}

func document(r *rest.Request, b *backup.Backup) octopus.Backup {
	self := r.Href("/api/system/backups/" + b.ID)
	doc := octopus.Backup{
		Resource: octopus.Resource{ID: b.ID, Links: octopus.Links{"Self": self, "Verify": self + "/verify"}},
		Created:  octopus.OptionalTime(b.Created), Version: b.Version, Database: b.Dialect,
		DatabaseSize: b.Manifest.Database.Size, BlobSize: b.BlobBytes, StoredSize: b.Stored, BlobCount: b.BlobCount, MissingBlobs: len(b.Missing),
		Problem: octopus.NullString(b.Problem),
	}
	if v := b.Verified; v != nil {
		doc.VerifiedLevel, doc.VerifiedAt, doc.VerifiedBy, doc.VerifiedMilliseconds = v.Level, octopus.OptionalTime(v.At), octopus.NullString(v.By), v.Took.Milliseconds()
	}
	if p := b.Pin; p.Keeps(time.Now()) {
		doc.IsPinned, doc.PinReason, doc.PinnedForUpgrade = true, octopus.NullString(p.Reason), octopus.NullString(p.Upgrade)
		doc.PinnedUntil = octopus.OptionalTime(p.Until)
	}
	return doc
}

func (a *api) create(r *rest.Request) (any, error) { return a.start(r, "") }

func (a *api) verify(r *rest.Request) (any, error) {
	b, err := a.find(r)
	if err != nil {
		return nil, err
	}
	return a.start(r, b.ID)
}

// start queues the task that proves a backup, "" for a new one.
func (a *api) start(r *rest.Request, id string) (any, error) {
	var in octopus.BackupRequest
	if err := r.DecodeOptional(&in); err != nil {
		return nil, err
	}
	level := backup.LevelDatabase
	if in.Level != nil {
		level = *in.Level
	}
	if level < backup.LevelFiles || level > backup.LevelBoot {
		return nil, fault.InvalidField("Level", "Level is %d; use 1 (files), 2 (database and secrets) or 3 (start the program on the backup).", level)
	}
	return a.queued(r, backup.NewTask(backup.Job{Verify: id, Level: level}))
}

// queued queues a task about backups, and tells the audit trail.
func (a *api) queued(r *rest.Request, n tasks.New) (any, error) {
	n.UserID = db.ActorFrom(r.Context()).UserID
	var doc octopus.Task
	err := a.db.Write(r.Context(), func(tx *db.Tx) error {
		t, err := a.queue.Create(r.Context(), tx, n)
		if err != nil {
			return err
		}
		tx.Event(backup.TaskEvent(octopus.EventTaskQueued, t.ID, t.ID+" ("+t.Description+") was queued"))
		docs, err := taskroutes.Documents(r.Context(), tx, r, []*tasks.Task{t})
		if err == nil {
			doc = docs[0]
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	return rest.Created{Body: doc, Location: doc.Links["Self"]}, nil
}
