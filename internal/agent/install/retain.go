package install

import (
	"os"
	"time"

	"github.com/takodeploy/tako/internal/failpoint"
)

// retain removes the installations of this set that its policy does not keep: the
// folders of the agent's own making, never a directory that files were copied to, and
// never the last two. What cannot be removed is tried again the next time.
func (d *deployment) retain() {
	old := d.journal.outdated(d.req.Keep, time.Now())
	if len(old) == 0 {
		return
	}
	home, err := os.OpenRoot(d.Applications)
	if err != nil {
		d.out.warn("Earlier installations cannot be removed: %s", err)
		return
	}
	defer home.Close() //nolint:errcheck // a directory handle
	if err := d.remove(home, old); err != nil {
		d.out.warn("The journal of earlier installations cannot be written: %s", err)
	}
}

// remove removes folders of the journal's entries. From before the first file goes they
// are no installations: whoever is killed here must not leave half of one.
func (d *deployment) remove(home *os.Root, all []Entry) error {
	if err := d.journal.remove(all); err != nil {
		return err
	}
	if err := failpoint.Hit("install-removing"); err != nil {
		return err
	}
	notes := claimsOf(d.Journals)
	var gone []Entry
	for _, e := range all {
		own, err := notes.has(e.Directory, d.owner(e))
		if err == nil && own {
			if err = home.RemoveAll(e.Directory); err == nil {
				err = notes.release(e.Directory, d.owner(e))
			}
		}
		if err != nil {
			d.out.warn("The earlier installation of %s %s in '%s' could not be removed: %s", e.PackageID, e.Version, d.absolute(e.Directory), err)
			continue
		}
		gone = append(gone, e)
		if own {
			d.out.verbose("Removed '%s', the installation of %s %s of %s.", d.absolute(e.Directory), e.PackageID, e.Version, e.At.Format(time.DateTime))
		}
	}
	return d.journal.removed(gone)
}

// owner is what an entry is called in the notes about folders.
func (d *deployment) owner(e Entry) string { return journalKey(d.req.Set) + " " + e.ID }
