package backup

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
)

// scratch is a PostgreSQL database with what a backup has, in which that is verified.
type scratch struct {
	*db.Scratch
	opt      *VerifyOptions
	manifest *Manifest
}

// newScratch makes one: a copy of the one that an earlier verification of the backup has
// kept, or what is in its dump.
func newScratch(ctx context.Context, c *Copy, dump string, opt *VerifyOptions) (s *scratch, err error) {
	s = &scratch{opt: opt, manifest: &c.Manifest}
	place, full, err := opt.Server.ScratchLike(ctx, keptLabel(s.manifest))
	s.Scratch = place
	if err == nil && !full {
		err = loadInto(ctx, place.URL, s.manifest, dump)
	}
	if err != nil {
		return nil, errors.Join(err, s.done(ctx, false))
	}
	return s, nil
}

// done ends the use of it. A good one that is as it was made may be kept for the next
// verification.
func (s *scratch) done(ctx context.Context, good bool) (err error) {
	label := keptLabel(s.manifest)
	if s.opt.Last {
		defer func() { err = errors.Join(err, s.opt.Server.DropKept(ctx, label)) }()
	}
	if s.Scratch == nil {
		return nil
	}
	if good && s.opt.Keep && s.opt.Level < LevelBoot {
		err := s.Keep(ctx, label)
		if err == nil {
			return nil
		}
		s.opt.Log.Warn("the database that a backup was restored into could not be kept, so the next verification loads the backup again", "backup", s.manifest.ID, "err", err)
	}
	return s.Drop(ctx)
}

// keptLabel is what a database is kept under that has what a backup has. Its content is
// named as well: a folder can be replaced.
func keptLabel(m *Manifest) string { return "as loaded from " + m.ID + " " + m.Database.SHA256 }

// DropKept removes the database that VerifyOptions.Keep has left of a backup on server.
func (s *Store) DropKept(ctx context.Context, id string, server *db.DB) error {
	dir, err := s.path(id)
	if err != nil {
		return err
	}
	m, err := readManifest(dir)
	if err != nil {
		return err
	}
	return server.DropKept(ctx, keptLabel(&m))
}

func loadInto(ctx context.Context, url string, m *Manifest, path string) error {
	d, err := db.Open(ctx, url, db.Options{Readers: 2})
	if err != nil {
		return err
	}
	err = loadScratch(ctx, d, m, path)
	return errors.Join(err, d.Close())
}

// loadScratch restores a dump into an empty database that is thrown away. The copy is kept out
// of the server's log: no table can be made in it that refers to those of the dump, which
// no migration does.
func loadScratch(ctx context.Context, d *db.DB, m *Manifest, path string) error {
	return loadScript(ctx, d, m, path, "", setUnlogged(m.Schema), analyze(m.Schema))
}

// setUnlogged has what is loaded into the tables of a schema, which are empty yet, not
// written to the server's log: everybody else who commits on that server would wait until
// the log of it all is on the disk.
func setUnlogged(schema string) string { return eachTable(schema, "ALTER TABLE %s SET UNLOGGED") }

// analyze has the server look at what was loaded: it would plan queries as of empty tables
// until it gets to that by itself, some minutes later.
func analyze(schema string) string { return eachTable(schema, "ANALYZE %s") }

func eachTable(schema, statement string) string {
	return fmt.Sprintf(`DO $tako$ DECLARE t regclass; BEGIN
FOR t IN SELECT c.oid FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace WHERE c.relkind = 'r' AND n.nspname = '%s' LOOP
EXECUTE pg_catalog.format('%s', t); END LOOP; END $tako$;
`, strings.ReplaceAll(schema, "'", "''"), statement)
}
