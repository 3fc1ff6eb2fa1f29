package fault_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/fault"
)

func TestKindAndMessages(t *testing.T) {
	t.Parallel()
	name := fault.InvalidField("Name", "Name is empty; give the project a name.")
	take := fault.InvalidField("take", "take is %d; it must be at least 1.", -1)
	tests := map[string]struct {
		err  error
		kind fault.Kind
		msgs []string
	}{
		"nil":      {nil, fault.Internal, nil},
		"plain":    {errors.New("disk on fire"), fault.Internal, nil},
		"one":      {name, fault.Invalid, []string{name.Message}},
		"wrapped":  {fmt.Errorf("create project: %w", name), fault.Invalid, []string{name.Message}},
		"joined":   {errors.Join(name, take), fault.Invalid, []string{name.Message, "take is -1; it must be at least 1."}},
		"deep":     {fmt.Errorf("a: %w", errors.Join(fmt.Errorf("b: %w", take), errors.New("x"))), fault.Invalid, []string{take.Message}},
		"notfound": {fault.Missing("project", "Projects-1"), fault.NotFound, []string{"The project 'Projects-1' was not found, or you do not have permission to view it."}},
	}
	for label, tt := range tests {
		t.Run(label, func(t *testing.T) {
			t.Parallel()
			if got := fault.KindOf(tt.err); got != tt.kind {
				t.Errorf("KindOf = %v, want %v", got, tt.kind)
			}
			if diff := cmp.Diff(tt.msgs, fault.Messages(tt.err)); diff != "" {
				t.Errorf("Messages (-want +got):\n%s", diff)
			}
		})
	}
}
