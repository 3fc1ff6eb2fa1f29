package health

import (
	"context"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/octopus"
)

// Found is a machine of a space, with what says whether it is to be checked.
type Found struct {
	Machine
	octopus.MachineBase
	EnvironmentIDs, TenantIDs octopus.List[string]
}

// Checkable reports whether a check says anything: the machine is enabled, and is no
// folder that nobody reaches.
func (f *Found) Checkable() bool {
	return !f.IsDisabled && f.Endpoint.CommunicationStyle != octopus.StyleOfflineDrop
}

// Find returns the machines of a kind that a query finds.
func Find(ctx context.Context, store *docstore.Store, tx *db.Tx, kind string, q docstore.Query) ([]Found, error) {
	var out []Found
	err := store.Each(ctx, tx, kind, q, func(doc *docstore.Doc) error {
		v, err := docstore.Decode[struct {
			octopus.MachineBase
			EnvironmentIDs octopus.List[string] `json:"EnvironmentIds"`
			TenantIDs      octopus.List[string] `json:"TenantIds"`
		}](doc)
		if err == nil {
			out = append(out, Found{Machine{kind, doc.ID, v.Name}, v.MachineBase, v.EnvironmentIDs, v.TenantIDs})
		}
		return err
	})
	return out, err
}

// OfPolicy are the machines that a policy has checked.
func OfPolicy(ctx context.Context, store *docstore.Store, tx *db.Tx, space ident.SpaceID, policy string) (out []Machine, err error) {
	for _, kind := range []string{resources.TargetKind, resources.WorkerKind} {
		found, err := Find(ctx, store, tx, kind, docstore.Query{Space: space, Where: []docstore.Match{{Path: "MachinePolicyId", Any: []string{policy}}}})
		if err != nil {
			return nil, err
		}
		for i := range found {
			if found[i].Checkable() {
				out = append(out, found[i].Machine)
			}
		}
	}
	return out, nil
}

// ByID is a machine by its kind and id; ok is false when it is not to be checked, or gone.
func ByID(ctx context.Context, store *docstore.Store, tx *db.Tx, kind, id string) (m Machine, ok bool, err error) {
	f := Found{Machine: Machine{Kind: kind, ID: id}}
	err = store.Load(ctx, tx, kind, id, &f.MachineBase)
	if fault.Is(err, fault.NotFound) {
		return m, false, nil
	}
	f.Machine.Name = f.MachineBase.Name
	return f.Machine, err == nil && f.Checkable(), err
}
