package preflight

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/upgrade/releasefeed"
	"github.com/takodeploy/tako/internal/upgrade/stage"
)

// feed looks whether the feed was believed, and whether it may be an old one.
func (x *examination) feed(context.Context) error {
	if x.Feed == nil {
		err := x.FeedError
		if err == nil {
			err = errors.New("there is none")
		}
		x.say(Fail, "Find out who sent it; a mirror or a proxy may have changed it. `tako upgrade check` tries again.", "The feed of releases is not believed: %v", err)
		return nil
	}
	seen := fmt.Sprintf("Number %d of the channel %s, signed, of %s, good until %s", x.Feed.Number, x.Feed.Channel, x.Feed.Issued.Format(time.DateOnly), x.Feed.Expires.Format(time.DateOnly))
	if x.Feed.Expired {
		x.say(Warn, "Look whether there is a newer feed; if not, name the version with --to.", "%s, which has passed: a newer one may have been kept from this server", seen)
		return nil
	}
	x.say(OK, "", "%s", seen)
	return nil
}

// path looks whether one may go from the version that runs to the one that is wanted.
func (x *examination) path(ctx context.Context) error {
	if x.Feed == nil {
		x.say(Fail, "See the check of the feed.", "Without a feed nobody knows the way from %s to %s", x.From, x.To)
		return nil
	}
	choice, err := x.Feed.Choose(releasefeed.Installed{Version: x.From, Platform: x.Platform, Bad: x.Bad}, x.To)
	if err != nil {
		x.say(Fail, "Choose another version with --to.", "%s", err)
		return nil
	}
	r := &choice.Release
	if choice.Stop {
		x.say(Fail, "Upgrade to "+r.Version+" first, then to "+x.To+".", "Version %s must be visited on the way from %s to %s", r.Version, x.From, x.To)
		return nil
	}
	meta, err := x.DB.Meta(ctx)
	if err != nil {
		return err
	}
	// The schema may have more, of a version that was left again: that is in nobody's way.
	own := db.BinaryLevels().Level
	switch least := max(own, meta.MinReaderLevel); {
	case r.Level < least:
		x.say(Fail, "Choose a newer version, or restore a backup of that time.", "Version %s knows schema level %d, and the data of this database needs level %d (this program makes level %d)", x.To, r.Level, least, own)
	case choice.Rollback == releasefeed.RollbackRestore:
		x.say(Warn, "Choose a time at which a restore would be bearable.", "From %s to %s (schema level %d to %d); the way back is to restore the backup of the upgrade, which loses what is written after it", x.From, x.To, own, r.Level)
	case slices.Contains(x.Bad, x.To):
		x.say(Warn, "Look at `tako upgrade history` for what went wrong.", "Version %s was tried here and failed", x.To)
	default:
		x.say(OK, "", "From %s to %s (schema level %d to %d); until it is finalized, going back loses nothing", x.From, x.To, own, r.Level)
	}
	return nil
}

// program has the new program say what it is.
func (x *examination) program(ctx context.Context) error {
	if x.Program == "" {
		switch _, ok := x.artifact(); {
		case x.release == nil:
			x.say(Fail, "Choose another version with --to.", "The feed has no version %s", x.To)
		case !ok:
			x.say(Fail, "Choose another version with --to.", "Version %s is not there for %s", x.To, x.Platform)
		default:
			x.say(OK, "", "The program for %s is not fetched yet, and will be tried when it is", x.Platform)
		}
		return nil
	}
	if err := stage.SelfTest(ctx, x.Program, x.To); err != nil {
		x.say(Fail, "Fetch it again, or choose another version.", "%s", err)
		return nil
	}
	x.say(OK, "", "%s says that it is version %s for %s", x.Program, x.To, stage.Platform())
	return nil
}

// artifact is what is fetched for this platform.
func (x *examination) artifact() (a releasefeed.Artifact, ok bool) {
	if x.release != nil {
		a, ok = x.release.Artifacts[x.Platform]
	}
	return a, ok
}

// supervisor looks whether the one that runs can do the switch.
func (x *examination) supervisor(context.Context) error {
	s := x.Supervisor
	switch {
	case s == nil:
		x.say(OK, "", "There is none: the server is restarted with the new version")
	case s.Error != nil:
		x.say(Fail, "Start it (systemctl start tako), or name its directory with --root.", "It does not answer: %v", s.Error)
	case s.Format < x.Format:
		x.say(Fail, "Install the new one with the installer; the server goes on meanwhile.", "It speaks version %d of its language, and version %d is needed%s", s.Format, x.Format, of(s.Version))
	case s.Current != x.From:
		x.say(Fail, "See `tako upgrade status`.", "Version %s serves, and not %s", s.Current, x.From)
	case s.Ducks > 0:
		x.say(Warn, "It ends by itself; the upgrade waits for it.", "%d former servers have connections left", s.Ducks)
	default:
		x.say(OK, "", "It speaks version %d of its language%s, and version %s serves", s.Format, of(s.Version), s.Current)
	}
	return nil
}

func of(version string) string {
	if version == "" {
		return ""
	}
	return " (its program is version " + version + ")"
}
