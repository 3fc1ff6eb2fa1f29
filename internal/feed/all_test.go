package feed_test

import (
	"fmt"
	"slices"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// TestPiecesOfAll reads everything in pieces of every size: nothing is left out or
// told twice, and the order is that of the pages.
func TestPiecesOfAll(t *testing.T) {
	t.Parallel()
	run(t, func(t *testing.T, w *world) {
		for _, id := range []string{"b", "A", "c-1", "C"} {
			for _, version := range []string{"1.0", "1.10", "1.9", "1.9.0"} {
				w.pushed(fmt.Sprintf("%s.%s.zip", id, version), id+version)
				in := &octopus.BuildInformationCommand{PackageID: id, Version: version}
				if _, _, err := w.PushBuild(w.as, home, in, feed.FailIfExists); err != nil {
					t.Fatal(err)
				}
			}
		}
		packages, _ := w.list(feed.Query{Page: ident.Page{Take: 100}})
		var builds []string
		w.read(func(tx *db.Tx) error {
			page, _, err := w.Builds(w.as, tx, feed.BuildQuery{Space: home, Page: ident.Page{Take: 100}})
			builds = nil
			for _, b := range page {
				builds = append(builds, b.PackageID+" "+b.Version)
			}
			return err
		})
		if len(packages) != 4 || len(builds) != 16 {
			t.Fatalf("%d packages and %d builds", len(packages), len(builds))
		}
		for n := 1; n <= 17; n++ {
			var gotPackages, gotBuilds []string
			after, place := "", feed.BuildPlace{}
			w.read(func(tx *db.Tx) error {
				for {
					piece, err := w.Newest(w.as, tx, home, after, n)
					if err != nil || len(piece) == 0 {
						return err
					}
					for _, p := range piece {
						gotPackages, after = append(gotPackages, p.PackageID+" "+p.Version), p.PackageID
					}
				}
			})
			w.read(func(tx *db.Tx) error {
				for {
					piece, last, more, err := w.BuildsAfter(w.as, tx, home, place, n)
					if err != nil {
						return err
					}
					for _, b := range piece {
						gotBuilds = append(gotBuilds, b.PackageID+" "+b.Version)
					}
					if place = last; !more {
						return nil
					}
				}
			})
			if !slices.Equal(gotPackages, packages) || !slices.Equal(gotBuilds, builds) {
				t.Errorf("in pieces of %d: %v and %v; want %v and %v", n, gotPackages, gotBuilds, packages, builds)
			}
		}
	})
}
