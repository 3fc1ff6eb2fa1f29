package install

import (
	"os"
	"time"
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
	for _, e := range old {
		err := home.RemoveAll(e.Directory)
		if err == nil {
			err = d.journal.removed(e.Directory)
		}
		if err != nil {
			d.out.warn("The earlier installation of %s %s in '%s' could not be removed: %s", e.PackageID, e.Version, d.absolute(e.Directory), err)
			continue
		}
		d.out.verbose("Removed the earlier installation of %s %s of %s from '%s', as the retention policy says.", e.PackageID, e.Version, e.At.Format(time.DateTime), d.absolute(e.Directory))
	}
}
