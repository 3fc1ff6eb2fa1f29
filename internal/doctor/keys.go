package doctor

import (
	"context"
	"errors"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/secret"
)

// keys looks whether the master key is that of the database, and opens every sealed
// value, of which none is kept or shown.
func (x *examination) keys(ctx context.Context) error {
	var wrapped int64
	err := x.DB.Read(ctx, func(tx *db.Tx) error { return tx.QueryRow(ctx, `SELECT count(*) FROM secret_key`).Scan(&wrapped) })
	if err != nil {
		return err
	}
	if wrapped == 0 || x.Keys == nil {
		return nil // no server has been started yet
	}
	box, err := x.Keys(ctx)
	var wrong *secret.WrongKeyError
	switch {
	case errors.As(err, &wrong):
		x.add(Finding{
			Severity: Error, Code: "master-key", Where: "master key", What: wrong.Error(),
			Remedy: "Put the right key back, or get it with the recovery kit: tako key recover. Sealed values could not be looked at.",
		})
		return nil
	case err != nil:
		x.Log.Error("open the keys", "err", err)
		x.add(Finding{
			Severity: Error, Code: "master-key", Where: "master key", What: "The master key cannot be read: " + readable(err),
			Remedy: "Put the key back where the settings say that it is. Sealed values could not be looked at.",
		})
		return nil
	}
	h, err := box.Check(ctx, x.Places)
	if err != nil {
		return err
	}
	x.check.Looked = int64(h.Values)
	for i, ref := range h.Dead {
		if i == maxNamed {
			break
		}
		x.add(Finding{Severity: Error, Code: "secret-closed", Where: ref.String(), What: "No key opens this sealed value", Remedy: "Enter it again. `tako key check` names all of them."})
	}
	x.more("secret-closed", h.DeadCount-min(len(h.Dead), maxNamed), false)
	if h.Rotating {
		x.add(Finding{Severity: Warning, Code: "rotation-open", Where: "master key", What: "A rotation of the master key was cut short", Remedy: "Bring it to its end: tako key rotate."})
	}
	for _, r := range h.Recoveries {
		if r.Confirmed.IsZero() {
			x.add(Finding{Severity: Notice, Code: "kit-unconfirmed", Where: "recovery key " + r.ID, What: "Nobody has confirmed that the recovery kit is kept", Remedy: "tako key recovery-kit"})
		}
	}
	return nil
}
