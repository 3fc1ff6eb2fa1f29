// Package instance says what a server is: the one that people deploy with, or a test
// instance, which is a copy of it.
//
// A copy is shut in before it can start for the first time. A file in its data
// directory, written before anything else of the copy, and a row of its database say
// so to each other: a server starts on neither without the other, so that neither a
// lost file nor another data directory lets the copy of a database out.
package instance

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
)

// FileName is the marker's name in a data directory.
const FileName = "instance.json"

// Mode is what a test instance may do.
type Mode string

// The modes.
const (
	// Quarantine connects to its own host only, and runs no script there.
	Quarantine Mode = "quarantine"
	// Armed is an ordinary server, which happens to have been a copy.
	Armed Mode = "armed"
)

// Marker says that a data directory is that of a test instance.
type Marker struct {
	Mode Mode
	// ID is the copy's installation id, Parent that of what it is a copy of.
	ID, Parent string
	// Backup is what it was made from, of the moment Instant; Created is when.
	Backup           string
	Instant, Created time.Time
	// Allow lists what it may connect to besides its own host: names of hosts,
	// addresses, and networks.
	Allow []string `json:",omitempty"`
	// Unfinished says that the copy is being made, or that its making was cut short.
	Unfinished bool `json:",omitempty"`
}

// Read reads the marker of a data directory; nil when there is none.
func Read(data string) (*Marker, error) {
	path := filepath.Join(data, FileName)
	text, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	var m Marker
	if err := json.Unmarshal(text, &m); err != nil || m.Mode != Quarantine && m.Mode != Armed || m.ID == "" {
		return nil, fmt.Errorf("%s cannot be read; without it nobody knows whether this is a test instance, so nothing starts here: restore the file, or make the copy anew", path)
	}
	return &m, nil
}

// Write writes the marker of a data directory, whole or not at all, and on disk.
func (m *Marker) Write(data string) (err error) {
	text, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return err
	}
	path := filepath.Join(data, FileName)
	f, err := os.OpenFile(path+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = f.Write(append(text, '\n'))
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(path+".tmp"))
	}
	if err := os.Rename(path+".tmp", path); err != nil {
		return err
	}
	dir, err := os.Open(data)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// Quarantined reports whether m is of a test instance that is shut in; m may be nil.
func (m *Marker) Quarantined() bool { return m != nil && m.Mode == Quarantine }

// ShutIn reads the marker of a data directory and, where it says so, shuts this
// process in, but for the host of its own database.
func ShutIn(data, database string) (*Marker, error) {
	m, err := Read(data)
	if err != nil || m == nil {
		return nil, err
	}
	if m.Unfinished {
		return nil, fault.New(fault.Conflict, "The test instance in %s was not made to its end; make it again with tako instance clone --into %s, or remove the directory.", data, data)
	}
	if m.Mode != Quarantine {
		return m, nil
	}
	own, err := hosts(database)
	if err != nil {
		return nil, err
	}
	if err := egress.Quarantine(append(own, m.Allow...)...); err != nil {
		return nil, fmt.Errorf("%s: %w", filepath.Join(data, FileName), err)
	}
	return m, nil
}

// hosts are those that a database's URL leads to, but for sockets.
func hosts(database string) (all []string, err error) {
	found, err := db.Endpoints(database)
	for _, e := range found {
		if !e.Local() && !slices.Contains(all, e.Host) {
			all = append(all, e.Host)
		}
	}
	return all, err
}

// Row is what a database says of itself when it is a copy in quarantine.
type Row struct{ Instance, Parent string }

// ReadRow reads what a database says; nil when it is in no quarantine.
func ReadRow(ctx context.Context, tx *db.Tx) (*Row, error) {
	var r Row
	err := tx.QueryRow(ctx, `SELECT q.instance, q.parent FROM quarantine q`).Scan(&r.Instance, &r.Parent)
	if errors.Is(err, sql.ErrNoRows) {
		return nil, nil //nolint:nilnil // none is an answer
	}
	if err != nil {
		return nil, fmt.Errorf("read whether the database is in quarantine: %w", err)
	}
	return &r, nil
}

// Check holds a database against the marker of the data directory, which may be nil,
// before anything is written to it. Its errors are faults that say what to do.
func Check(ctx context.Context, d *db.DB, m *Marker) error {
	var row *Row
	meta, err := d.Meta(ctx)
	if err == nil {
		err = d.Read(ctx, func(tx *db.Tx) (err error) {
			if has, err := tx.HasTable(ctx, "quarantine"); err != nil || !has {
				return err
			}
			row, err = ReadRow(ctx, tx)
			return err
		})
	}
	none := errors.Is(err, db.ErrNoSchema)
	switch {
	case err != nil && !none:
		return err
	case m == nil && row == nil, m != nil && m.Mode == Armed && row == nil:
		return nil
	case !m.Quarantined():
		return fault.New(fault.Conflict, "%s is the database of a test instance in quarantine (a copy of %s), and the data directory does not say so; start the server with the instance's own data directory, or let the instance out with tako instance arm.", d, row.Parent)
	case none:
		return fault.New(fault.Conflict, "This is the data directory of a test instance, and %s is empty; name the database that the instance was made with.", d)
	case meta.InstallationID != m.ID:
		return fault.New(fault.Conflict, "This is the data directory of the test instance %s in quarantine, and %s is the database of %s; name the database that the instance was made with.", m.ID, d, meta.InstallationID)
	}
	return nil // also when it is armed by half: it is shut in until the file says so
}

// Mark writes into a copied database that it is in quarantine.
func (m *Marker) Mark(ctx context.Context, tx *db.Tx) error {
	if _, err := tx.Exec(ctx, `DELETE FROM quarantine`); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, `INSERT INTO quarantine (id, instance, parent, created) VALUES (1, ?, ?, ?)`, m.ID, m.Parent, db.Micros(m.Created))
	return err
}

// Arm lets a test instance out: the next start is that of an ordinary server. Cut
// short, it is still shut in, and the same call brings it to its end.
func Arm(ctx context.Context, d *db.DB, data string) error {
	m, err := Read(data)
	if err != nil {
		return err
	}
	err = d.Write(ctx, func(tx *db.Tx) error {
		tx.Event(db.Event{Category: "Modified", Message: "This test instance was let out of quarantine", DocumentType: "Server"})
		_, err := tx.Exec(ctx, `DELETE FROM quarantine`)
		return err
	})
	if err != nil || m == nil {
		return err
	}
	m.Mode, m.Allow = Armed, nil
	return m.Write(data)
}
