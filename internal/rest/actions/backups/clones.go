package backups

import (
	"errors"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/backup"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// clone queues the task that makes a test instance. What can be wrong with the disks is
// found out by the task: another server may be the one that runs it.
func (a *api) clone(r *rest.Request) (any, error) {
	var in octopus.CloneRequest
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	dialect := a.db.Dialect().String()
	if in.BackupID != "" {
		all, err := a.all()
		if err != nil {
			return nil, err
		}
		if in.BackupID == "latest" && len(all) > 0 {
			in.BackupID = all[0].ID
		}
		b := named(all, in.BackupID)
		if b == nil {
			return nil, fault.InvalidField("BackupId", "BackupId is '%.100s', and there is no such backup; GET /api/system/backups lists those that there are, and without one the server is backed up first.", in.BackupID)
		}
		if b.Problem != "" {
			return nil, fault.InvalidField("BackupId", "Backup %s cannot be read: %s.", b.ID, b.Problem)
		}
		dialect = b.Dialect
	}
	if err := errors.Join(a.checkDirectory(&in), a.checkDatabase(&in, dialect)); err != nil {
		return nil, err
	}
	return a.queued(r, backup.NewTask(backup.Job{Clone: &backup.CloneJob{
		Backup: in.BackupID, Directory: in.Directory, Database: in.Database, Asked: time.Now().UTC(),
	}}))
}

// maxPath bounds the name of a directory, in bytes, as Linux does.
const maxPath = 4096

func (a *api) checkDirectory(in *octopus.CloneRequest) error {
	dir := in.Directory
	switch {
	case dir == "":
		return fault.InvalidField("Directory", "Directory is empty; name a new directory on the server, such as /var/lib/tako-test.")
	case !filepath.IsAbs(dir) || len(dir) > maxPath || strings.ContainsRune(dir, 0):
		return fault.InvalidField("Directory", "Directory is '%.200s'; give the absolute path of a new directory on the server, such as /var/lib/tako-test.", dir)
	}
	in.Directory = filepath.Clean(dir)
	// The task looks again, through links: it may run on another host.
	if own := backup.Inside(in.Directory, a.Own); own != "" {
		return fault.InvalidField("Directory", "Directory is '%.200s', which is within %s of the server itself; name another one.", dir, own)
	}
	return nil
}

func (a *api) checkDatabase(in *octopus.CloneRequest, dialect string) error {
	switch {
	case dialect == db.SQLite.String() && in.Database == "":
		return nil
	case dialect == db.SQLite.String():
		return fault.InvalidField("Database", "Database is given, and the backup is of SQLite: its copy is in Directory; leave Database out.")
	case in.Database == "":
		return fault.InvalidField("Database", "Database is empty, and the backup is of PostgreSQL; name a new, empty database, such as postgres://tako@db.example.com/tako_test.")
	case !strings.HasPrefix(in.Database, "postgres://") && !strings.HasPrefix(in.Database, "postgresql://"):
		return fault.InvalidField("Database", "Database is no URL of a PostgreSQL database; give one such as postgres://tako@db.example.com/tako_test.")
	case hasPassword(in.Database):
		return fault.InvalidField("Database", "Database has a password in it, which would be kept with the task; leave it out, and give it to the server by PGPASSWORD or a .pgpass file.")
	}
	wanted, err := db.ForeignEndpoints(in.Database)
	if err != nil {
		return fault.InvalidField("Database", "Database: %s", strings.Join(fault.Messages(err), " "))
	}
	own, err := db.Endpoints(a.Database)
	if err != nil {
		return err
	}
	for _, e := range wanted {
		if !slices.Contains(own, e) && !slices.ContainsFunc(a.CloneHosts, func(allowed string) bool {
			return strings.EqualFold(allowed, e.Host) || strings.EqualFold(allowed, e.String())
		}) {
			return fault.InvalidField("Database", "Database is on %.300s, which is neither the server of this server's own database nor in its setting clone_database_hosts: it would be given the server's password and everything that it has. Name a database on the same server, or have somebody who looks after the server set TAKO_CLONE_DATABASE_HOSTS.", e)
		}
	}
	return nil
}

// hasPassword reports whether anything in a URL is, or may be, a password.
func hasPassword(at string) bool {
	_, rest, _ := strings.Cut(at, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	if i := strings.LastIndexByte(rest[:end], '@'); i >= 0 && strings.ContainsRune(rest[:i], ':') {
		return true
	}
	_, query, _ := strings.Cut(rest, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return false // it is refused for that
	}
	for key := range values {
		if strings.Contains(strings.ToLower(key), "password") {
			return true
		}
	}
	return false
}
