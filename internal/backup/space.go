package backup

import (
	"context"
	"fmt"
	"os"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/reserve"
)

// stayFree is what a job leaves free on a disk, in bytes: the server has to go on.
const stayFree = 64 << 20

// need is space that a job will take in a directory.
type need struct {
	dir   string
	bytes int64
}

// checkSpace refuses a job for which the disks have no room; needs on one disk add
// up. keep is left free.
func checkSpace(keep int64, needs ...need) error {
	sums := map[uint64]int64{}
	for _, n := range needs {
		have, err := reserve.SpaceOf(n.dir)
		if err != nil {
			return fmt.Errorf("look at the free space: %w", err)
		}
		if sums[have.Device] += n.bytes; sums[have.Device]+keep > have.Free {
			return fault.New(fault.Unavailable, "This takes about %s in %s, where %s are free and %s are to stay free; make room, or choose another disk.",
				size(sums[have.Device]), n.dir, size(have.Free), size(keep))
		}
	}
	return nil
}

// size is a number of bytes for people.
func size(n int64) string {
	const unit = 1024
	if n < unit {
		return fmt.Sprintf("%d B", n)
	}
	v, names := float64(n)/unit, "KMGTP"
	for v >= unit && len(names) > 1 {
		v, names = v/unit, names[1:]
	}
	return fmt.Sprintf("%.1f %ciB", v, names[0])
}

// Size is a number of bytes for people ("1.5 MiB").
func Size(n int64) string { return size(n) }

// forecast adds up what a backup will take, and refuses one for which there is no
// room. It leaves the blobs' size in the manifest, for the progress.
func (s *Store) forecast(ctx context.Context, src Source, m *Manifest) error {
	src.tell("looking at the space that it takes", 0)
	database, err := src.DB.Size(ctx)
	if err != nil {
		return err
	}
	var fresh int64
	for info, err := range src.Blobs.List(ctx) {
		if err != nil {
			return err
		}
		m.BlobBytes += info.Size
		if _, err := os.Stat(blobPath(s.poolPath(m.Pool), info.Hash)); err != nil {
			fresh += info.Size
		}
	}
	temp := database
	if m.Dialect == db.Postgres.String() {
		temp /= 2 // a compressed dump has no indexes
	}
	// Compressed, but nobody knows beforehand by how much.
	return checkSpace(min(stayFree, database), need{s.dir, database/2 + fresh}, need{src.Temp, temp})
}

func (s *Store) poolPath(name string) string { return s.dir + "/" + poolDir + "/" + name }
