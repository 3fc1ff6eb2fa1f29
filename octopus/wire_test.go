package octopus_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

// documents are values whose types lead to every struct of the package;
// TestEveryTypeIsCovered fails when one is missing.
func documents() []any {
	return []any{
		octopus.Account{},
		octopus.AccountUsages{},
		octopus.Certificate{},
		octopus.GitCredential{},
		octopus.BuildInformation{},
		octopus.BuildInformationCommand{},
		octopus.Channel{},
		octopus.ChannelRuleTest{},
		octopus.Dashboard{},
		octopus.DashboardConfiguration{},
		octopus.ProjectProgression{},
		octopus.Deployment{},
		octopus.DeploymentTemplate{},
		octopus.DeploymentPreview{},
		octopus.DeploymentPreviewRequest{},
		octopus.Environment{},
		octopus.EnvironmentV2{},
		octopus.ParentEnvironment{},
		octopus.EnvironmentsSummary{},
		octopus.Event{},
		octopus.EventGroup{},
		octopus.EventCategoryInfo{},
		octopus.EventDocumentType{},
		octopus.EventAgent{},
		octopus.WebhookPayload{},
		octopus.SubscriptionDelivery{},
		octopus.CreateReleaseCommand{},
		octopus.CreateReleaseResponse{},
		octopus.DeployUntenantedCommand{},
		octopus.DeployTenantedCommand{},
		octopus.DeployResponse{},
		octopus.RunRunbookCommand{},
		octopus.RunGitRunbookCommand{},
		octopus.RunRunbookResponse{},
		octopus.Feed{},
		octopus.BuiltInFeedStats{},
		octopus.Package{},
		octopus.PackageVersion{},
		octopus.PackageDescription{},
		octopus.PackageNotes{},
		octopus.DeltaSignature{},
		octopus.ReplaceCertificateCommand{},
		octopus.DeploymentFreezePage{},
		octopus.Lifecycle{},
		octopus.RetentionPolicy{},
		octopus.LifecycleProgression{},
		octopus.Machine{},
		octopus.Worker{},
		octopus.MachineConnection{},
		octopus.Proxy{},
		octopus.WorkerPoolsSummary{},
		octopus.MachinePolicy{},
		octopus.RegistrationTokenCommand{},
		octopus.RegistrationTokenCreated{},
		octopus.RegistrationCommand{},
		octopus.Registration{},
		octopus.DeploymentProcess{},
		octopus.RunbookProcess{},
		octopus.ReleaseTemplate{},
		octopus.ProjectGroup{},
		octopus.Project{},
		octopus.DeploymentSettings{},
		octopus.ConvertToGitCommand{},
		octopus.ConvertToGitResponse{},
		octopus.GitBranch{},
		octopus.ProjectSummary{},
		octopus.Release{},
		octopus.Defect{},
		octopus.MissingPackages{},
		octopus.Page[octopus.Environment]{},
		octopus.ErrorBody{},
		octopus.Runbook{},
		octopus.RunbookSnapshot{},
		octopus.RunbookRun{},
		octopus.RunbookSnapshotTemplate{},
		octopus.Root{},
		octopus.Capabilities{},
		octopus.FeatureToggles{},
		octopus.ServerStatus{},
		octopus.ServerHealth{},
		octopus.SystemInfo{},
		octopus.InstalledVersion{},
		octopus.ServerNodesSummary{},
		octopus.ServerNodePing{},
		octopus.LicenseStatus{},
		octopus.License{},
		octopus.CertificateConfiguration{},
		octopus.MaintenanceConfiguration{},
		octopus.SMTPConfiguration{},
		octopus.SMTPIsConfigured{},
		octopus.ServerConfiguration{},
		octopus.PerformanceConfiguration{},
		octopus.UpgradeConfiguration{},
		octopus.FeaturesConfiguration{},
		octopus.Backup{},
		octopus.BackupRequest{},
		octopus.CloneRequest{},
		octopus.Restored{},
		octopus.TestInstance{},
		octopus.RestoredRelease{},
		octopus.UpgradeStatus{},
		octopus.UpgradeRequest{},
		octopus.UpgradeCommand{},
		octopus.UpgradeBundle{},
		octopus.BackupConfiguration{},
		octopus.Timezone{},
		octopus.Authentication{},
		octopus.Space{},
		octopus.TaskPage{},
		octopus.TaskDetails{},
		octopus.TaskType{},
		octopus.TaskStateCommand{},
		octopus.Interruption{},
		octopus.Artifact{},
		octopus.ActionTemplate{},
		octopus.ActionTemplateCategory{},
		octopus.ActionTemplateSearch{},
		octopus.ActionTemplateUsage{},
		octopus.CommunityActionTemplate{},
		octopus.Tenant{},
		octopus.TagSet{},
		octopus.TenantVariables{},
		octopus.TenantCommonVariables{},
		octopus.TenantProjectVariables{},
		octopus.TenantCommonVariablesCommand{},
		octopus.TenantProjectVariablesCommand{},
		octopus.TenantMissingVariables{},
		octopus.TagTest{},
		octopus.Trigger{},
		octopus.User{},
		octopus.LoginCommand{},
		octopus.RegisterCommand{},
		octopus.APIKey{},
		octopus.APIKeyCreated{},
		octopus.APIKeyCommand{},
		octopus.Team{},
		octopus.UserRole{},
		octopus.ScopedUserRole{},
		octopus.UserPermissions{},
		octopus.OIDCIdentities{},
		octopus.TokenRequest{},
		octopus.TokenResponse{},
		octopus.TokenError{},
		octopus.OpenIDConfiguration{},
		octopus.VariableSet{},
		octopus.LibraryVariableSet{},
	}
}

// structs are the structs of this package that the documents are made of.
func structs() []reflect.Type {
	seen := map[reflect.Type]bool{}
	var walk func(reflect.Type)
	walk = func(t reflect.Type) {
		switch t.Kind() { //nolint:exhaustive // the others have no parts
		case reflect.Pointer, reflect.Slice, reflect.Map:
			walk(t.Elem())
		case reflect.Struct:
			if seen[t] || t.PkgPath() != reflect.TypeFor[octopus.Resource]().PkgPath() {
				return
			}
			seen[t] = true
			for field := range t.Fields() {
				walk(field.Type)
			}
		}
	}
	for _, document := range documents() {
		walk(reflect.TypeOf(document))
	}
	var all []reflect.Type
	for t := range seen {
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b reflect.Type) int { return strings.Compare(a.Name(), b.Name()) })
	return all
}

func TestEveryTypeIsCovered(t *testing.T) {
	t.Parallel()
	covered := map[string]bool{}
	for _, s := range structs() {
		name, _, _ := strings.Cut(s.Name(), "[")
		covered[name] = true
	}
	files, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if !strings.HasSuffix(file.Name(), ".go") || strings.HasSuffix(file.Name(), "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file.Name(), nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(parsed, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok && spec.Name.IsExported() {
				if _, isStruct := spec.Type.(*ast.StructType); isStruct && !covered[spec.Name.Name] {
					t.Errorf("%s: no document of the tests leads to %s", file.Name(), spec.Name.Name)
				}
			}
			return true
		})
	}
}

// member is a JSON member of a struct, embedded structs flattened.
type member struct {
	name      string
	omitEmpty bool
	field     reflect.StructField
}

func members(s reflect.Type) []member {
	var all []member
	for field := range s.Fields() {
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		switch {
		case !field.IsExported() && !field.Anonymous, name == "-":
		case name == "" && field.Anonymous:
			all = append(all, members(field.Type)...)
		default:
			all = append(all, member{name, strings.Contains(options, "omitempty"), field})
		}
	}
	return all
}

// hasOwnJSON tells the types that write their JSON themselves.
func hasOwnJSON(s reflect.Type) bool {
	switch s {
	case reflect.TypeFor[octopus.Time](), reflect.TypeFor[octopus.ClockTime](), reflect.TypeFor[octopus.PropertyValue](), reflect.TypeFor[octopus.PersistenceSettings]():
		return true
	}
	return false
}

func TestMemberNames(t *testing.T) {
	t.Parallel()
	snake := []reflect.Type{
		reflect.TypeFor[octopus.TokenRequest](), reflect.TypeFor[octopus.TokenResponse](),
		reflect.TypeFor[octopus.TokenError](), reflect.TypeFor[octopus.OpenIDConfiguration](),
	}
	for _, s := range structs() {
		if hasOwnJSON(s) {
			continue
		}
		seen := map[string]bool{}
		for _, m := range members(s) {
			folded := strings.ToLower(m.name)
			switch {
			case m.name == "":
				t.Errorf("%s.%s has no json name", s.Name(), m.field.Name)
			case seen[folded]:
				t.Errorf("%s has the member %s twice", s.Name(), m.name)
			case !slices.Contains(snake, s) && (m.name[0] < 'A' || m.name[0] > 'Z'):
				t.Errorf("%s.%s: the member %q is not in Pascal case", s.Name(), m.field.Name, m.name)
			case strings.ToLower(m.field.Name) != strings.ReplaceAll(folded, "_", "") && s.Name()+"."+m.field.Name != "Endpoint.WorkingDirectory":
				t.Errorf("%s.%s: the member is called %q", s.Name(), m.field.Name, m.name)
			}
			seen[folded] = true
		}
	}
}

// TestNoNulls checks that arrays and maps of a zero document are [] and {}.
func TestNoNulls(t *testing.T) {
	t.Parallel()
	for _, s := range structs() {
		if hasOwnJSON(s) {
			continue
		}
		data, err := json.Marshal(reflect.Zero(s).Interface())
		if err != nil {
			t.Errorf("%s: %v", s.Name(), err)
			continue
		}
		var object map[string]json.RawMessage
		if err := json.Unmarshal(data, &object); err != nil {
			t.Errorf("%s: %v in %s", s.Name(), err, data)
			continue
		}
		for _, m := range members(s) {
			kind := m.field.Type.Kind()
			if m.omitEmpty {
				if got, ok := object[m.name]; ok && kind != reflect.Struct {
					t.Errorf("%s.%s = %s, want no such member", s.Name(), m.name, got)
				}
				continue
			}
			got, ok := object[m.name]
			switch {
			case !ok:
				t.Errorf("%s lacks the member %s", s.Name(), m.name)
			case m.field.Type == reflect.TypeFor[json.RawMessage](), m.field.Type == reflect.TypeFor[[]byte]():
			case kind == reflect.Slice && string(got) != "[]", kind == reflect.Map && string(got) != "{}":
				t.Errorf("%s.%s = %s, want it empty", s.Name(), m.name, got)
			}
		}
	}
}

// fill sets everything that v leads to, with lists and maps of one element.
func fill(t *testing.T, v reflect.Value, depth int) {
	t.Helper()
	switch v.Type() {
	case reflect.TypeFor[octopus.Time]():
		v.Set(reflect.ValueOf(octopus.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC))))
		return
	case reflect.TypeFor[octopus.ClockTime]():
		v.Set(reflect.ValueOf(octopus.ClockTime{Time: time.Date(2026, 1, 2, 3, 4, 5, 678e6, time.UTC)}))
		return
	case reflect.TypeFor[octopus.TimeSpan]():
		v.SetInt(int64(26 * time.Hour))
		return
	case reflect.TypeFor[octopus.PropertyValue]():
		v.Set(reflect.ValueOf(octopus.PropertyValue{Sensitive: &octopus.Sensitive{HasValue: true, Hint: "API-X"}}))
		return
	case reflect.TypeFor[json.RawMessage]():
		v.SetBytes([]byte(`{"a":[1,null]}`))
		return
	case reflect.TypeFor[octopus.Extra]():
		v.Set(reflect.ValueOf(octopus.Extra{"FromAnotherServer": []byte(`{"b":2.50}`)}))
		return
	}
	switch v.Kind() {
	case reflect.String:
		v.SetString("x\"<ü")
	case reflect.Bool:
		v.SetBool(true)
	case reflect.Int, reflect.Int64:
		v.SetInt(7)
	case reflect.Uint8:
		v.SetUint(7)
	case reflect.Pointer:
		if depth > 0 {
			v.Set(reflect.New(v.Type().Elem()))
			fill(t, v.Elem(), depth-1)
		}
	case reflect.Slice:
		if depth > 0 {
			v.Set(reflect.MakeSlice(v.Type(), 1, 1))
			fill(t, v.Index(0), depth-1)
		} else {
			v.Set(reflect.MakeSlice(v.Type(), 0, 0))
		}
	case reflect.Map:
		v.Set(reflect.MakeMap(v.Type()))
		if depth > 0 {
			key, value := reflect.New(v.Type().Key()).Elem(), reflect.New(v.Type().Elem()).Elem()
			fill(t, key, depth-1)
			fill(t, value, depth-1)
			v.SetMapIndex(key, value)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			fill(t, v.Field(i), depth)
		}
		switch p := v.Addr().Interface().(type) {
		case *octopus.RetentionPeriod:
			*p = octopus.RetentionPeriod{Strategy: octopus.RetentionCount, Unit: octopus.RetentionDays, QuantityToKeep: 3}
		case *octopus.RunbookRetention:
			*p = octopus.RunbookRetention{Strategy: octopus.RetentionCount, Unit: octopus.RetentionDays, QuantityToKeep: 3}
		case *octopus.PersistenceSettings:
			p.Type = octopus.PersistenceGit
		}
	default:
		t.Fatalf("cannot fill a %s", v.Type())
	}
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	for _, s := range structs() {
		full := reflect.New(s)
		fill(t, full.Elem(), 4)
		for name, value := range map[string]reflect.Value{"zero": reflect.New(s), "full": full} {
			if name == "zero" && (s == reflect.TypeFor[octopus.RetentionPeriod]() || s == reflect.TypeFor[octopus.RunbookRetention]()) {
				continue // reading fills these in
			}
			first, err := json.Marshal(value.Interface())
			if err != nil {
				t.Errorf("%s %s: %v", name, s.Name(), err)
				continue
			}
			back := reflect.New(s)
			if err := json.Unmarshal(first, back.Interface()); err != nil {
				t.Errorf("%s %s: %v in %s", name, s.Name(), err, first)
				continue
			}
			if name == "full" {
				if diff := cmp.Diff(value.Interface(), back.Interface()); diff != "" {
					t.Errorf("full %s (-sent +read):\n%s", s.Name(), diff)
				}
			}
			second, err := json.Marshal(back.Interface())
			if err != nil || !bytes.Equal(first, second) {
				t.Errorf("%s %s: %v\n wrote %s\n then  %s", name, s.Name(), err, first, second)
			}
		}
	}
}

// TestNullEverywhere reads documents whose members are all null, as some
// clients send them.
func TestNullEverywhere(t *testing.T) {
	t.Parallel()
	for _, s := range structs() {
		if s == reflect.TypeFor[octopus.Time]() || s == reflect.TypeFor[octopus.ClockTime]() {
			continue
		}
		var b strings.Builder
		b.WriteByte('{')
		if !hasOwnJSON(s) {
			for i, m := range members(s) {
				if i > 0 {
					b.WriteByte(',')
				}
				fmt.Fprintf(&b, "%q:null", m.name)
			}
		}
		b.WriteByte('}')
		for _, text := range []string{"null", "{}", b.String()} {
			v := reflect.New(s)
			if err := json.Unmarshal([]byte(text), v.Interface()); err != nil {
				t.Errorf("%s: %v in %s", s.Name(), err, text)
				continue
			}
			if _, err := json.Marshal(v.Interface()); err != nil {
				t.Errorf("%s after %s: %v", s.Name(), text, err)
			}
		}
	}
}
