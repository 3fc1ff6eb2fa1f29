package ocl

import (
	"fmt"
	"testing"

	"github.com/takodeploy/tako/internal/fault"
)

// rewrite reads a file of a kind and writes it again.
func rewrite(kind uint8, text string) (string, error) {
	body, err := Parse(text)
	if err != nil {
		return "", err
	}
	var written Body
	switch kind % 4 {
	case 0:
		steps, readErr := ReadProcess(body, nil)
		if readErr != nil {
			return "", readErr
		}
		written, err = WriteProcess(steps, nil)
	case 1:
		variables, readErr := ReadVariables(body, nil)
		if readErr != nil {
			return "", readErr
		}
		written, err = WriteVariables(variables, nil)
	case 2:
		settings, readErr := ReadSettings(body, nil)
		if readErr != nil {
			return "", readErr
		}
		written, err = WriteSettings(settings, nil)
	default:
		runbook, steps, readErr := ReadRunbook("restart", body, nil)
		if readErr != nil {
			return "", readErr
		}
		written, err = WriteRunbook(runbook, steps, nil)
	}
	if err != nil {
		return "", fmt.Errorf("what was read cannot be written: %v", err) //nolint:errorlint // the fault is ours now
	}
	return Print(written), nil
}

// FuzzDocuments checks that a process, variables, settings or a runbook that can
// be read can be written, and that reading and writing that changes nothing.
func FuzzDocuments(f *testing.F) {
	for kind, text := range []string{processText(), variablesText(), settingsText(), runbookText()} {
		f.Add(uint8(kind), text)
		f.Add(uint8(kind), "")
	}
	f.Add(uint8(0), "step \"a\" {\n    action {\n        action_type = \"Octopus.Script\"\n        properties = {\n            A = 1\n        }\n    }\n}")
	f.Add(uint8(1), "variable \"a\" {\n    type = \"Sensitive\"\n    value {}\n    value \"x\" {\n        environment = [\"e\"]\n    }\n}")
	f.Fuzz(func(t *testing.T, kind uint8, text string) {
		if len(text) > 10_000 {
			return
		}
		once, err := rewrite(kind, text)
		if err != nil {
			if !fault.Is(err, fault.Invalid) {
				t.Fatalf("%v is no fault of the file\n%s", err, text)
			}
			return
		}
		twice, err := rewrite(kind, once)
		if err != nil {
			t.Fatalf("%v in what was written\n%s", err, once)
		}
		if twice != once {
			t.Fatalf("written again it differs:\n%s\n%s", once, twice)
		}
	})
}
