package upgrades

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/supervisor"
	"github.com/takodeploy/tako/internal/upgrade"
	"github.com/takodeploy/tako/internal/upgrade/journal"
	"github.com/takodeploy/tako/octopus"
)

// cursor is a place in what is told: how many entries of the journal, and how many bytes
// of what was written on the way, have been told already.
type cursor struct{ seq, line int64 }

func (c cursor) String() string { return fmt.Sprintf("%d-%d", c.seq, c.line) }

func parseCursor(text string) (c cursor, ok bool) {
	seq, line, ok := strings.Cut(text, "-")
	if !ok {
		return c, false
	}
	var a, b error
	c.seq, a = strconv.ParseInt(seq, 10, 64)
	c.line, b = strconv.ParseInt(line, 10, 64)
	return c, a == nil && b == nil && c.seq >= 0 && c.line >= 0
}

// edge is an entry of the journal as it is told.
type edge struct {
	Sequence  int64        `json:"Sequence"`
	UpgradeID string       `json:"UpgradeId"`
	Kind      string       `json:"Kind"`
	At        octopus.Time `json:"At"`
	// State is the one that is begun, reached or not reached; Error why not.
	State octopus.NullString `json:"State"`
	Error octopus.NullString `json:"Error"`
	// Wish and By are of somebody's wish; FromVersion and ToVersion of the plan, and of
	// what a supervisor has done.
	Wish        octopus.NullString `json:"Wish"`
	By          octopus.NullString `json:"By"`
	FromVersion octopus.NullString `json:"FromVersion"`
	ToVersion   octopus.NullString `json:"ToVersion"`
}

func edgeOf(e journal.Entry) edge {
	out := edge{Sequence: e.Seq, UpgradeID: e.Txn, Kind: e.Kind, At: octopus.NewTime(e.At)}
	var data struct{ State, Error, Wish, By, From, To string }
	switch e.Kind {
	case upgrade.KindPlan, upgrade.KindIntent, upgrade.KindDone, upgrade.KindFailed, upgrade.KindAsk, supervisor.NoteSwitched, supervisor.NoteWentBack:
		if json.Unmarshal(e.Data, &data) != nil {
			return out // of another version
		}
	}
	out.State, out.Error, out.Wish, out.By = octopus.NullString(data.State), octopus.NullString(data.Error), octopus.NullString(data.Wish), octopus.NullString(data.By)
	out.FromVersion, out.ToVersion = octopus.NullString(data.From), octopus.NullString(data.To)
	return out
}

// events follows upgrades. The id of an event is the cursor behind it, so that a listener
// goes on where it was cut off, also in another version: the journal is on disk.
func (a *api) events(r *rest.Request) (any, error) {
	text := r.Header.Get("Last-Event-ID")
	if text == "" {
		text = r.URL.Query().Get("after")
	}
	at, ok := parseCursor(text)
	if text != "" && !ok {
		return nil, fault.InvalidField("after", "The cursor is '%.100s'; give one that an event or GET /api/system/upgrade has.", text)
	}
	if err := a.supervised(); err != nil {
		return nil, err
	}
	j, err := a.journal()
	if err != nil {
		return nil, err
	}
	if !ok { // from the beginning of the last upgrade, and the lines from now on
		at.line = logSize(a.Root)
		for i, e := range j.Entries() {
			if e.Kind == upgrade.KindPlan {
				at.seq = int64(i)
			}
		}
	}
	return rest.Stream(func(ctx context.Context, send func(rest.Event) error) error {
		return (&follower{path: upgrade.WorkerLog(a.Root), j: j, at: at, send: send}).run(ctx)
	}), nil
}

// follower tells one listener.
type follower struct {
	path string
	j    *journal.Journal
	at   cursor
	send func(rest.Event) error
}

// lookEvery is how often the files are looked at: other processes write them.
const lookEvery = 250 * time.Millisecond

func (f *follower) run(ctx context.Context) error {
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		if err := f.tell(); err != nil {
			return said(err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		if ctx.Err() != nil {
			return nil // both were so
		}
		if err := f.j.Refresh(); err != nil {
			return said(err)
		}
	}
}

// tell sends what is new.
func (f *follower) tell() error {
	all := f.j.Entries()
	if f.at.seq > int64(len(all)) { // of a journal that was moved away
		f.at.seq = 0
	}
	for _, e := range all[f.at.seq:] {
		f.at.seq++
		if err := f.send(rest.Event{ID: f.at.String(), Name: "edge", Data: edgeOf(e)}); err != nil {
			return err
		}
	}
	return f.lines()
}

const (
	// maxBehind is how much of what was written is told to who was away for long.
	maxBehind = 1 << 20
	// maxPiece is how much is read at once, and the longest line.
	maxPiece = 64 << 10
)

// lines sends the whole lines that were written since.
func (f *follower) lines() error {
	file, err := os.Open(f.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	if info.Size() < f.at.line { // another file has taken its place
		f.at.line = 0
	}
	f.at.line = max(f.at.line, info.Size()-maxBehind)
	piece := make([]byte, maxPiece)
	for {
		n, err := file.ReadAt(piece, f.at.line)
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		left := piece[:n]
		for len(left) > 0 {
			line, after, whole := bytes.Cut(left, []byte("\n"))
			if !whole && n < maxPiece || !whole && len(line) < n {
				break // it is just being written, or goes on in the next piece
			}
			f.at.line += int64(len(left) - len(after))
			left = after
			if err := f.send(written(f.at, line)); err != nil {
				return err
			}
		}
		if n < maxPiece {
			return nil
		}
	}
}

func written(at cursor, line []byte) rest.Event {
	return rest.Event{ID: at.String(), Name: "line", Data: map[string]string{"Text": strings.ToValidUTF8(string(bytes.TrimSuffix(line, []byte("\r"))), "?")}}
}
