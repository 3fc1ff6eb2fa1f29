package ocl

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/takodeploy/tako/octopus"
)

func variablesText() string {
	return lines(
		`variable "Database:Name" {`,
		`    value "prod" {`,
		`        action = ["deploy-web"]`,
		`        channel = ["default"]`,
		`        description = "why"`,
		`        environment = ["production"]`,
		`        machine = ["web-01"]`,
		`        process = ["deployment-process", "runbook/restart"]`,
		`        role = ["web"]`,
		`        tenant = ["acme"]`,
		`        tenant_tag = ["Ring/Alpha"]`,
		`    }`,
		``,
		`    value {}`,
		`}`,
		``,
		`variable "Account" {`,
		`    type = "AzureAccount"`,
		``,
		`    value "azure-prod" {}`,
		`}`,
		``,
		`variable "Mixed" {`,
		`    value "linux" {`,
		`        type = "WorkerPool"`,
		`    }`,
		``,
		`    value "text" {`,
		`        environment = ["test"]`,
		`        type = "String"`,
		`    }`,
		`}`,
		``,
		`variable "Asked" {`,
		`    value {`,
		`        value = <<-EOT`,
		`                two`,
		`                lines`,
		`                EOT`,
		``,
		`        prompt {`,
		`            description = ""`,
		`            display_settings = {`,
		`                Octopus.ControlType = "Select"`,
		`            }`,
		`            label = "Which?"`,
		`            required = true`,
		`        }`,
		`    }`,
		`}`,
	)
}

func TestVariables(t *testing.T) {
	t.Parallel()
	got, err := ReadVariables(mustParse(t, variablesText()), toID)
	if err != nil {
		t.Fatal(err)
	}
	one := func(s string) *string { return &s }
	list := func(s ...string) octopus.List[string] { return s }
	want := []octopus.Variable{
		{
			Name: "Database:Name", Value: one("prod"), Type: octopus.VariableString, Description: "why", IsEditable: true,
			Scope: octopus.Scope{
				Action: list("a-1"), Channel: list("Channels-1"), Environment: list("Environments-1"), Machine: list("Machines-4"),
				ProcessOwner: list("Projects-1", "Runbooks-1"), Role: list("web"), Tenant: list("Tenants-1"), TenantTag: list("Ring/Alpha"),
			},
		},
		{Name: "Database:Name", Value: one(""), Type: octopus.VariableString, IsEditable: true},
		{Name: "Account", Value: one("Accounts-3"), Type: octopus.VariableAzureAccount, IsEditable: true},
		{Name: "Mixed", Value: one("WorkerPools-1"), Type: octopus.VariableWorkerPool, IsEditable: true},
		{Name: "Mixed", Value: one("text"), Type: octopus.VariableString, IsEditable: true, Scope: octopus.Scope{Environment: list("Environments-2")}},
		{
			Name: "Asked", Value: one("two\nlines"), Type: octopus.VariableString, IsEditable: true,
			Prompt: &octopus.VariablePrompt{Label: "Which?", Required: true, DisplaySettings: octopus.Map[string, string]{octopus.DisplayControlType: "Select"}},
		},
	}
	if diff := cmp.Diff(want, got, cmpopts.IgnoreFields(octopus.Variable{}, "ID")); diff != "" {
		t.Error(diff)
	}
	body, err := WriteVariables(got, toSlug)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(variablesText(), Print(body)); diff != "" {
		t.Error(diff)
	}
}

func TestVariableIDs(t *testing.T) {
	t.Parallel()
	read := func(text string) map[string]string {
		got, err := ReadVariables(mustParse(t, text), nil)
		if err != nil {
			t.Fatal(err)
		}
		ids := map[string]string{}
		for _, v := range got {
			ids[v.ID] = v.Text()
		}
		if len(ids) != len(got) {
			t.Errorf("%d ids for %d values", len(ids), len(got))
		}
		return ids
	}
	a := read("variable \"A\" {\n    value \"1\" {}\n    value \"2\" {\n        role = [\"web\"]\n    }\n    value \"3\" {}\n}\nvariable \"B\" {\n    value \"4\" {}\n}")
	// Another order and other values do not change ids.
	b := read("variable \"B\" {\n    value \"4 new\" {}\n}\nvariable \"a\" {\n    value \"2 new\" {\n        role = [\"web\"]\n    }\n    value \"1 new\" {}\n    value \"3 new\" {}\n}")
	for id, value := range a {
		if b[id] != value+" new" {
			t.Errorf("the id of %s is now that of %q", value, b[id])
		}
	}
}

func TestVariableErrors(t *testing.T) {
	t.Parallel()
	tests := map[string]struct{ text, says string }{
		"no name":           {"variable {\n}", "A variable needs a label"},
		"value twice":       {"variable \"A\" {\n    value \"1\" {\n        value = \"2\"\n    }\n}", "is there twice"},
		"secret":            {"variable \"A\" {\n    type = \"Sensitive\"\n    value \"1\" {}\n}", "has its value in the file"},
		"unknown account":   {"variable \"A\" {\n    type = \"AzureAccount\"\n    value \"moon\" {}\n}", `There is no account "moon"`},
		"unknown dimension": {"variable \"A\" {\n    value \"1\" {\n        planet = [\"moon\"]\n    }\n}", `Line 3, column 9: "planet" is not known`},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, err := ReadVariables(mustParse(t, tt.text), toID)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Fatalf("err = %v\nwant ... %s", err, tt.says)
			}
		})
	}
	got, err := ReadVariables(mustParse(t, "variable \"A\" {\n    type = \"Sensitive\"\n    value {}\n}"), nil)
	if err != nil || len(got) != 1 || got[0].Value != nil || !got[0].Secret() {
		t.Errorf("a sensitive variable without its value: %v, %v", got, err)
	}
}
