package test

import (
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade"
)

// lostIndex is one that nothing needs to be correct.
const lostIndex = "release_by_channel"

// dropIndex takes an index away by hand, as nobody should, and asserts that a look before
// an upgrade warns of it and changes nothing.
func (u *upgraded) dropIndex() {
	u.t.Helper()
	err := openDatabase(u.t, u.Process).Write(u.t.Context(), func(tx *db.Tx) error {
		_, err := tx.Exec(u.t.Context(), `DROP INDEX `+lostIndex)
		return err
	})
	if err != nil {
		u.t.Fatal(err)
	}
	u.do(0, "The upgrade makes it again when it begins", "--dry-run")
	u.do(0, "index "+lostIndex+": It is missing", "--dry-run")
}

// indexIsBack asserts that the upgrade has made the index again, and noted it.
func (u *upgraded) indexIsBack() {
	u.t.Helper()
	in, err := db.Inspect(u.t.Context(), openDatabase(u.t, u.Process))
	if err != nil {
		u.t.Fatal(err)
	}
	for _, d := range in.Deviations {
		if strings.Contains(d.Object, lostIndex) {
			u.t.Errorf("%+v", d)
		}
	}
	if noted := string(u.last().Results[upgrade.Preflight]); !strings.Contains(noted, `"mended":["index `+lostIndex+`"]`) {
		u.t.Errorf("the journal says %s", noted)
	}
}
