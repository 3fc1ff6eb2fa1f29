package octopus_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%s: %v", text, err)
	}
	return v
}

func encode(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestErrorBodyOmitsErrors(t *testing.T) {
	t.Parallel()
	gone := encode(t, octopus.ErrorBody{ErrorMessage: "gone"})
	if strings.Contains(gone, `"Errors"`) {
		t.Errorf("a body without faults has the member: %s", gone)
	}
	bad := encode(t, octopus.ErrorBody{ErrorMessage: "bad", Errors: []string{"name"}})
	if !strings.Contains(bad, `"Errors":["name"]`) {
		t.Errorf("a body with faults lacks them: %s", bad)
	}
}

// Clients fail on a project whose persistence settings are null, and tell the
// kinds by what is there.
func TestPersistenceSettings(t *testing.T) {
	t.Parallel()
	if got := encode(t, octopus.PersistenceSettings{}); got != `{"Type":"Database"}` {
		t.Errorf("zero settings = %s", got)
	}
	if got := encode(t, decode[octopus.Project](t, `{"PersistenceSettings":null}`).PersistenceSettings); got != `{"Type":"Database"}` {
		t.Errorf("null settings = %s", got)
	}
	git := decode[octopus.PersistenceSettings](t, `{"Type":"VersionControlled","Url":"https://git.example/x.git","Credentials":{"Type":"Anonymous"},"DefaultBranch":"main"}`)
	if git.Type != octopus.PersistenceGit || git.URL != "https://git.example/x.git" || git.Credentials.Type != octopus.ProjectCredentialAnonymous {
		t.Errorf("settings = %+v", git)
	}
	if got := encode(t, git); !strings.Contains(got, `"ProtectedBranchNamePatterns":[]`) || !strings.Contains(got, `"Credentials":{"Type":"Anonymous"}`) {
		t.Errorf("settings = %s", got)
	}
}

// Clients differ in the case of names: the executions API is sent in camel
// case, and a clone of a project has ProjectGroupID.
func TestNamesAreReadWithoutCase(t *testing.T) {
	t.Parallel()
	if p := decode[octopus.Project](t, `{"name":"a","ProjectGroupID":"ProjectGroups-1","lifecycleid":"Lifecycles-1"}`); p.Name != "a" || p.ProjectGroupID != "ProjectGroups-1" || p.LifecycleID != "Lifecycles-1" {
		t.Errorf("project = %+v", p)
	}
	command := decode[octopus.DeployTenantedCommand](t, `{
		"spaceIdOrName":"Spaces-1","spaceId":"Spaces-1","projectName":"Web","releaseVersion":"1.0","environmentName":"Dev",
		"tenants":["Acme"],"useGuidedFailure":null,"runAt":"2026-01-02 03:04:05 +00:00","variables":{"A":"x","B":true},
		"forcePackageDownload":true,"unknown":{}}`)
	want := octopus.DeployTenantedCommand{
		ExecutionCommand: octopus.ExecutionCommand{
			SpaceID: "Spaces-1", SpaceIDOrName: "Spaces-1", ProjectName: "Web", ForcePackageDownload: true,
			RunAt:     new(decode[octopus.Time](t, `"2026-01-02T03:04:05Z"`)),
			Variables: octopus.Map[string, octopus.PropertyText]{"A": "x", "B": "True"},
		},
		ReleaseVersion: "1.0", EnvironmentName: "Dev", Tenants: octopus.List[string]{"Acme"},
	}
	if diff := cmp.Diff(want, command); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestRetentionFillsIn(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]octopus.RetentionPeriod{
		`{}`:                                  {Strategy: octopus.RetentionForever, Unit: octopus.RetentionDays, ShouldKeepForever: true},
		`{"QuantityToKeep":0,"Unit":"Items"}`: {Strategy: octopus.RetentionForever, Unit: octopus.RetentionItems, ShouldKeepForever: true},
		`{"QuantityToKeep":30,"ShouldKeepForever":false,"Unit":"Days"}`:  *octopus.KeepCount(30, octopus.RetentionDays),
		`{"QuantityToKeep":5,"ShouldKeepForever":true,"Unit":"Items"}`:   {Strategy: octopus.RetentionForever, Unit: octopus.RetentionItems, QuantityToKeep: 5, ShouldKeepForever: true},
		`{"Strategy":"Default","Unit":"Items","ShouldKeepForever":true}`: *octopus.KeepDefault(),
		`{"Strategy":"Forever","Unit":"Items"}`:                          *octopus.KeepForever(),
		`{"Strategy":"Count","QuantityToKeep":3,"Unit":"Items"}`:         *octopus.KeepCount(3, octopus.RetentionItems),
	} {
		if diff := cmp.Diff(want, decode[octopus.RetentionPeriod](t, in)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
	for in, want := range map[string]octopus.RetentionStrategy{
		`{"QuantityToKeep":100}`:               octopus.RetentionDefault,
		`{"QuantityToKeep":100,"Unit":"Days"}`: octopus.RetentionCount,
		`{"QuantityToKeep":20}`:                octopus.RetentionCount,
		`{}`:                                   octopus.RetentionForever,
		`{"Strategy":"Count","QuantityToKeep":100,"Unit":"Items"}`: octopus.RetentionCount,
	} {
		if got := decode[octopus.RunbookRetention](t, in).Strategy; got != want {
			t.Errorf("%s is %s, want %s", in, got, want)
		}
	}
}

func TestScope(t *testing.T) {
	t.Parallel()
	if got := encode(t, octopus.Scope{}); got != "{}" {
		t.Errorf("an empty scope = %s", got)
	}
	scope := decode[octopus.Scope](t, `{"Environment":["Environments-1"],"TenantTag":["Ring/Alpha"],"Role":[]}`)
	if got := encode(t, scope); got != `{"Environment":["Environments-1"],"TenantTag":["Ring/Alpha"]}` {
		t.Errorf("scope = %s", got)
	}
	if scope.IsEmpty() || !(octopus.Scope{Role: octopus.List[string]{}}).IsEmpty() {
		t.Error("IsEmpty is wrong")
	}
}

// Documents of several shapes keep what they do not know.
func TestUnknownShapesSurvive(t *testing.T) {
	t.Parallel()
	const machine = `{"Endpoint":{"CommunicationStyle":"Teleport","Uri":"https://a/","beam":{"Width":2.50,"Big":12345678901234567890},"Crew":[1,null]}}`
	got := encode(t, decode[octopus.Machine](t, machine).Endpoint)
	want := `{"CommunicationStyle":"Teleport","Uri":"https://a/","Crew":[1,null],"beam":{"Width":2.50,"Big":12345678901234567890}}`
	if got != want {
		t.Errorf("endpoint\n got  %s\n want %s", got, want)
	}
	for name, text := range map[string]string{
		"account": `{"AccountType":"Abacus","Name":"n","Beads":9}`,
		"feed":    `{"FeedType":"Gopher","Name":"n","Hole":{"Deep":true}}`,
	} {
		var out string
		if name == "account" {
			out = encode(t, decode[octopus.Account](t, text))
		} else {
			out = encode(t, decode[octopus.Feed](t, text))
		}
		if !strings.Contains(out, `,"Beads":9}`) && !strings.Contains(out, `,"Hole":{"Deep":true}}`) {
			t.Errorf("%s = %s", name, out)
		}
	}
	// The long s matches s, so this is the user name and not an unknown member.
	if a := decode[octopus.Account](t, `{"U\u017fername":"ann"}`); a.Username != "ann" || a.Extra != nil {
		t.Errorf("account = %+v", a)
	}
	trigger := decode[octopus.Trigger](t, `{"Filter":{"FilterType":"MoonFilter","Phase":"Full","DaysOfWeek":"Monday, Friday"},"Action":{"ActionType":"Howl","Volume":11}}`)
	if got := encode(t, trigger.Filter); got != `{"FilterType":"MoonFilter","DaysOfWeek":["Monday","Friday"],"Phase":"Full"}` {
		t.Errorf("filter = %s", got)
	}
	if got := encode(t, trigger.Action); got != `{"ActionType":"Howl","Volume":11}` {
		t.Errorf("action = %s", got)
	}
}

func TestExtraMasked(t *testing.T) {
	t.Parallel()
	account := decode[octopus.Account](t, `{"AccountType":"Abacus","Key":{"HasValue":false,"NewValue":"s3cret"},"Nested":[{"newValue":"s3cret","N":12345678901234567890}],"Kept":{"HasValue":true,"NewValue":null},"Plain":1.0}`)
	got := encode(t, octopus.Account{Extra: account.Extra.Masked()})
	if strings.Contains(got, "s3cret") {
		t.Errorf("a secret is left in %s", got)
	}
	for _, want := range []string{`"Key":{"HasValue":true,"NewValue":null}`, `"N":12345678901234567890`, `"Kept":{"HasValue":true,"NewValue":null}`, `"Plain":1.0`} {
		if !strings.Contains(got, want) {
			t.Errorf("%s lacks %s", got, want)
		}
	}
	if !strings.Contains(string(account.Extra["Key"]), "s3cret") {
		t.Error("Masked changed what it was called on")
	}
}

// The Go client reads a package's release notes as a time, which takes null and
// no other text.
func TestPackageNotesAreNull(t *testing.T) {
	t.Parallel()
	if got := encode(t, octopus.Package{}); !strings.Contains(got, `"ReleaseNotes":null`) {
		t.Errorf("package = %s", got)
	}
}

func FuzzEndpoint(f *testing.F) {
	f.Add([]byte(`{"CommunicationStyle":"Ssh","Port":22,"Other":[1]}`))
	f.Add([]byte(`{"uri":"a","Uri":"b","":1,"\u0000":2}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		var e octopus.Endpoint
		if json.Unmarshal(data, &e) != nil {
			return
		}
		out, err := json.Marshal(e)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", data, err)
		}
		var again octopus.Endpoint
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		second, err := json.Marshal(again)
		if err != nil || string(second) != string(out) {
			t.Fatalf("%s became %s, then %s (%v)", data, out, second, err)
		}
	})
}

func TestSmallJudgements(t *testing.T) {
	t.Parallel()
	for state, want := range map[octopus.TaskState]bool{
		octopus.TaskQueued: false, octopus.TaskExecuting: false, octopus.TaskCancelling: false, "": false,
		octopus.TaskCanceled: true, octopus.TaskFailed: true, octopus.TaskTimedOut: true, octopus.TaskSuccess: true,
	} {
		if got := state.Completed(); got != want {
			t.Errorf("Completed of %q = %v", state, got)
		}
	}
	for in, want := range map[string]bool{
		`{"Type":"Sensitive","IsSensitive":false,"Value":"x"}`: true,
		`{"Type":"String","IsSensitive":true,"Value":null}`:    true,
		`{"Type":"String","Value":"x"}`:                        false,
	} {
		if got := decode[octopus.Variable](t, in).Secret(); got != want {
			t.Errorf("%s is secret: %v", in, got)
		}
	}
	if (octopus.Variable{}).Text() != "" || decode[octopus.Variable](t, `{"Value":"x"}`).Text() != "x" {
		t.Error("the text of a variable is wrong")
	}
	if diff := cmp.Diff(octopus.KeepForever(), octopus.KeepCount(0, octopus.RetentionDays)); diff != "" {
		t.Errorf("keeping none is not keeping all (-want +got):\n%s", diff)
	}
	if octopus.Plain("x").IsSensitive() || !octopus.Secret("").IsSensitive() {
		t.Error("IsSensitive is wrong")
	}
}

// Messages about input name what is wrong and do not grow with it.
func TestBadInput(t *testing.T) {
	t.Parallel()
	long := `"` + strings.Repeat("x", 1000) + `"`
	for name, err := range map[string]error{
		"time":        json.Unmarshal([]byte(long), new(octopus.Time)),
		"period":      json.Unmarshal([]byte(long), new(octopus.TimeSpan)),
		"days":        json.Unmarshal([]byte(`[7]`), new(octopus.Weekdays)),
		"endpoint":    json.Unmarshal([]byte(`{"Port":"x"}`), new(octopus.Endpoint)),
		"persistence": json.Unmarshal([]byte(`{"Url":7}`), new(octopus.PersistenceSettings)),
		"retention":   json.Unmarshal([]byte(`{"QuantityToKeep":"many"}`), new(octopus.RetentionPeriod)),
		"runs":        json.Unmarshal([]byte(`{"QuantityToKeep":"many"}`), new(octopus.RunbookRetention)),
	} {
		if err == nil {
			t.Errorf("%s: bad input was read", name)
		} else if len(err.Error()) > 200 {
			t.Errorf("%s: the message is %d bytes long", name, len(err.Error()))
		}
	}
}
