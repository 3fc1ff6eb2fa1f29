package upgrade

import "time"

const (
	// settle is how long two looks at the time of day lie apart that have to agree.
	settle = time.Minute
	// drift is by how much they may differ: clocks are corrected little by little.
	drift = 5 * time.Second
)

// vigil has the hold of an upgrade pass before it is finalized by itself, which cannot be
// taken back. The time of day alone does not tell: somebody may set it, or a machine may
// wake up with a wrong one. So the rest of the hold has to pass by the clock of the
// process, too, which nobody sets; and a process that finds the hold over when it begins
// wants the time of day to go on for a minute as it should.
type vigil struct {
	txn         string
	due         time.Time
	wall        time.Time     // time of day at the first look
	ran         time.Duration // by the clock of the process, at the first look
	left        time.Duration // that has to pass since
	foundItOver bool
}

// over reports whether the hold has passed. It has to be asked from time to time: wall is
// the time of day, ran how long the process runs by a clock that nobody sets.
func (v *vigil) over(t *Txn, wall time.Time, ran time.Duration) bool {
	if due := t.Due(); v.txn != t.ID || !v.due.Equal(due) {
		hold := max(due.Sub(t.At), 0)
		*v = vigil{txn: t.ID, due: due, wall: wall, ran: ran, left: min(max(due.Sub(wall), 0), hold)}
		if v.foundItOver = v.left == 0 && hold > 0; v.foundItOver {
			v.left = settle
		}
	}
	passed := ran - v.ran
	if passed < v.left || wall.Before(v.due) {
		return false
	}
	if off := wall.Sub(v.wall) - passed; v.foundItOver && off.Abs() > drift {
		*v = vigil{} // it was set meanwhile: once more
		return v.over(t, wall, ran)
	}
	return true
}

// stillToWatch is how long a new version is to be watched yet, at a time of day. That
// decides only how much of the probation an earlier try has had.
func (t *Txn) stillToWatch(now time.Time) time.Duration {
	if t.Tries <= 1 {
		return t.Plan.Probation
	}
	return min(max(t.Plan.Probation-now.Sub(t.At), 0), t.Plan.Probation)
}
