package resources

import (
	"context"
	"encoding/json"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// FormerMachineFor is how long it is remembered how a deleted machine was reached: so
// long are scripts that were begun there followed, ended and forgotten.
const FormerMachineFor = 7 * 24 * time.Hour

// rememberMachine keeps how a machine that is being deleted was reached.
func rememberMachine(ctx context.Context, tx *db.Tx, space ident.SpaceID, id string, m *octopus.MachineBase) error {
	switch m.Endpoint.CommunicationStyle {
	case octopus.StyleNone, octopus.StyleOfflineDrop:
		return nil // it has no agent
	default:
	}
	e := m.Endpoint
	e.SensitiveVariablesEncryptionPassword = nil // only a drop has one
	body, err := json.Marshal(e)
	if err != nil {
		return err
	}
	if _, err := tx.Exec(ctx, `DELETE FROM former_machine WHERE deleted < ?`, db.Micros(tx.Now().Add(-FormerMachineFor))); err != nil {
		return fmt.Errorf("forget deleted machines: %w", err)
	}
	_, err = tx.Exec(ctx, `INSERT INTO former_machine (id, space_id, name, thumbprint, endpoint, deleted) VALUES (?, ?, ?, ?, ?, ?) ON CONFLICT (id) DO NOTHING`,
		id, string(space), m.Name, ident.Fold(e.Thumbprint), string(body), db.Micros(tx.Now()))
	if err != nil {
		return fmt.Errorf("remember machine %s: %w", id, err)
	}
	return nil
}
