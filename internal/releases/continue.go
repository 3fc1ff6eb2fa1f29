package releases

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/deploy"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/tasks"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// maxCarried bounds the outputs that a deployment takes over from an earlier one.
const maxCarried = 100_000

// progress is how far a deployment has come that has failed: what the one that goes on
// from it need not do again.
type progress struct {
	deployment string
	process    string // the snapshot whose steps it ran
	done       map[string][]string
	outputs    []variables.Output
}

// id is the id of the deployment, "" for none.
func (p *progress) id() string {
	if p == nil {
		return ""
	}
	return p.deployment
}

func (p *progress) lanes() map[string][]string {
	if p == nil {
		return nil
	}
	return p.done
}

// settled reads how far a deployment has come that has failed.
func (s *Service) settled(ctx context.Context, tx *db.Tx, d *octopus.Deployment, m *manifest) (*progress, error) {
	task, err := tasks.Get(ctx, tx, d.TaskID)
	if err != nil {
		return nil, err
	}
	if task.State != octopus.TaskFailed && task.State != octopus.TaskCanceled {
		return nil, fault.New(fault.Conflict, "The deployment %s is %s; only one that has failed or was canceled can be gone on from.", d.ID, task.State)
	}
	var plan deploy.Plan
	if err := tasks.Plan(ctx, tx, d.TaskID, &plan); err != nil {
		return nil, err
	}
	if plan.Format > deploy.Format {
		return nil, fault.New(fault.Conflict, "The deployment %s was made by a newer version of the server; deploy from the beginning.", d.ID)
	}
	rows, err := tasks.Journal(ctx, tx, d.TaskID)
	if err != nil {
		return nil, err
	}
	facts := make([]deploy.Fact, len(rows))
	for i, row := range rows {
		if err := json.Unmarshal(row.Body, &facts[i]); err != nil {
			return nil, fmt.Errorf("read fact %d of %s: %w", row.Seq, d.TaskID, err)
		}
	}
	state, err := deploy.Fold(&plan, facts)
	if err != nil {
		return nil, fmt.Errorf("read the journal of %s: %w", d.TaskID, err)
	}
	p := &progress{deployment: d.ID, process: plan.ProcessID, done: state.Settled()}
	// An output that was carried here before is carried on.
	if p.outputs, err = s.openCarried(ctx, d.ManifestVariableSetID, m); err != nil {
		return nil, err
	}
	settled := map[deploy.Unit]bool{} // by step and lane
	for i := range plan.Steps {
		for _, lane := range p.done[plan.Steps[i].ID] {
			settled[deploy.Unit{Step: i, Lane: lane}] = true
		}
	}
	for _, o := range state.Outputs {
		if !settled[deploy.Unit{Step: o.Unit.Step, Lane: o.Unit.Lane}] {
			continue
		}
		one := variables.Output{
			Action: plan.Steps[o.Unit.Step].Actions[o.Unit.Action].Name, MachineID: o.Unit.Lane,
			Name: o.Output.Name, Value: o.Output.Value, Sensitive: o.Output.Sensitive,
		}
		if one.MachineID != "" {
			one.Machine = state.MachineName(one.MachineID)
		}
		if one.Sensitive {
			clear, err := s.cfg.Sealer.Open(ctx, d.TaskID, "output."+one.Name, one.Value)
			if err != nil {
				return nil, fmt.Errorf("open output %s of %s: %w", one.Name, d.TaskID, err)
			}
			one.Value = string(clear)
		}
		p.outputs = append(p.outputs, one)
	}
	if len(p.outputs) > maxCarried {
		return nil, fault.New(fault.Conflict, "The steps of %s that have succeeded left %d output variables, more than the %d that can be taken over; deploy from the beginning.", d.ID, len(p.outputs), maxCarried)
	}
	return p, nil
}

// continued are the options of a deployment that goes on from another one of the same
// release to the same place, as somebody would see it before: "" is none.
func (s *Service) continued(ctx context.Context, tx *db.Tx, r *octopus.Release, to place, id string) (*Options, error) {
	if id == "" {
		return &Options{}, nil
	}
	d, err := s.Deployment(ctx, tx, ident.SpaceID(r.SpaceID), id)
	if err != nil {
		return nil, err
	}
	if d.ReleaseID != r.ID || d.EnvironmentID != to.environment.ID || string(d.TenantID) != to.tenantID() {
		return nil, invalid("continues", "The deployment %s is of another release, or to another place; name one of this release to %s.", d.ID, to.name())
	}
	m, err := readManifest(ctx, tx, d.ManifestVariableSetID)
	if err != nil {
		return nil, err
	}
	o := optionsOf(d)
	o.before, err = s.settled(ctx, tx, d, m)
	return &o, err
}

// carriedOutput is an output variable of a deployment that another one goes on from.
type carriedOutput struct {
	Action    string `json:"action"`
	MachineID string `json:"machineId,omitempty"`
	Machine   string `json:"machine,omitempty"`
	Name      string `json:"name"`
	Value     string `json:"value"` // sealed if it is sensitive
	Sensitive bool   `json:"sensitive,omitempty"`
}

func carriedField(i int) string { return fmt.Sprintf("carried.%d", i) }

// sealCarried are the outputs of an earlier deployment as a manifest keeps them.
func (s *Service) sealCarried(owner string, p *progress) ([]carriedOutput, error) {
	if p == nil {
		return nil, nil
	}
	out := make([]carriedOutput, len(p.outputs))
	for i, o := range p.outputs {
		out[i] = carriedOutput{o.Action, o.MachineID, o.Machine, o.Name, o.Value, o.Sensitive}
		if !o.Sensitive {
			continue
		}
		sealed, err := s.cfg.Sealer.Seal(owner, carriedField(i), []byte(o.Value))
		if err != nil {
			return nil, fmt.Errorf("seal output %s: %w", o.Name, err)
		}
		out[i].Value = sealed
	}
	return out, nil
}

// openCarried are the outputs that a manifest keeps, in clear. What the deployment itself
// puts out comes later, and goes before them.
func (s *Service) openCarried(ctx context.Context, owner string, m *manifest) ([]variables.Output, error) {
	out := make([]variables.Output, len(m.Carried))
	for i, c := range m.Carried {
		out[i] = variables.Output{Action: c.Action, MachineID: c.MachineID, Machine: c.Machine, Name: c.Name, Value: c.Value, Sensitive: c.Sensitive, Order: int64(i - len(m.Carried))}
		if !c.Sensitive {
			continue
		}
		clear, err := s.cfg.Sealer.Open(ctx, owner, carriedField(i), c.Value)
		if err != nil {
			return nil, fmt.Errorf("open output %s: %w", c.Name, err)
		}
		out[i].Value = string(clear)
	}
	return out, nil
}
