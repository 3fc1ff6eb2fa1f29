package octopus_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

func TestPropertyValue(t *testing.T) {
	t.Parallel()
	secret := func(s octopus.Sensitive) octopus.PropertyValue { return octopus.PropertyValue{Sensitive: &s} }
	value := "s3cret"
	for in, want := range map[string]octopus.PropertyValue{
		`"text"`:    octopus.Plain("text"),
		`""`:        octopus.Plain(""),
		`null`:      octopus.Plain(""),
		`true`:      octopus.Plain("True"),
		`false`:     octopus.Plain("False"),
		`5`:         octopus.Plain("5"),
		`-1.50`:     octopus.Plain("-1.50"),
		`1e400`:     octopus.Plain("1e400"),
		`" \u00fc"`: octopus.Plain(" ü"),
		`{"HasValue":true,"Hint":null,"NewValue":null}`: secret(octopus.Sensitive{HasValue: true}),
		`{"HasValue":true,"NewValue":"s3cret"}`:         secret(octopus.Sensitive{HasValue: true, NewValue: &value}),
		`{"hasValue":false}`:                            secret(octopus.Sensitive{}),
		`{}`:                                            secret(octopus.Sensitive{}),
		`{"IsSensitive":true,"SensitiveValue":{"HasValue":true,"NewValue":"s3cret"}}`: secret(octopus.Sensitive{HasValue: true, NewValue: &value}),
		`{"IsSensitive":false,"Value":"text"}`:                                        octopus.Plain("text"),
		`{"IsSensitive":false,"Value":12,"SensitiveValue":null}`:                      octopus.Plain("12"),
		`{"IsSensitive":true,"Value":null,"SensitiveValue":null}`:                     secret(octopus.Sensitive{}),
	} {
		var got octopus.PropertyValue
		if err := json.Unmarshal([]byte(in), &got); err != nil {
			t.Errorf("%s: %v", in, err)
			continue
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
	for _, in := range []string{`[]`, `["s3cret"]`, `{"HasValue":"s3cret"}`, `{"NewValue":["s3cret"]}`, `{"SensitiveValue":7}`} {
		var got octopus.PropertyValue
		err := json.Unmarshal([]byte(in), &got)
		if err == nil {
			t.Errorf("%s was read as %+v", in, got)
		} else if strings.Contains(err.Error(), value) {
			t.Errorf("%s: the message has the secret: %v", in, err)
		}
	}
}

func TestPropertyValueIsWrittenForClients(t *testing.T) {
	t.Parallel()
	properties := octopus.Properties{
		"Plain":  octopus.Plain("text"),
		"Stored": {Sensitive: &octopus.Sensitive{HasValue: true}},
		"New":    octopus.Secret("s3cret"),
	}
	got, err := json.Marshal(properties)
	want := `{"New":{"HasValue":true,"Hint":null,"NewValue":"s3cret"},"Plain":"text","Stored":{"HasValue":true,"Hint":null,"NewValue":null}}`
	if err != nil || string(got) != want {
		t.Errorf("got  %s (%v)\nwant %s", got, err, want)
	}
}

func TestPropertiesIgnoreCase(t *testing.T) {
	t.Parallel()
	p := octopus.Properties{"Octopus.Action.RunOnServer": octopus.Plain("True"), "b": octopus.Plain("lower"), "B": octopus.Plain("upper")}
	if got := p.Get("octopus.action.runonserver"); got != "True" {
		t.Errorf("Get in lower case = %q", got)
	}
	if got := p.Get("b"); got != "lower" {
		t.Errorf("an exact match must win, got %q", got)
	}
	if _, ok := p.Lookup("absent"); ok {
		t.Error("Lookup found what is not there")
	}
}

func TestSecretsDoNotPrint(t *testing.T) {
	t.Parallel()
	account := octopus.Account{Password: new(octopus.NewSensitive("s3cret"))}
	login := octopus.LoginCommand{Username: "ann", Password: "s3cret"}
	machine := octopus.SMTPConfiguration{SMTPPassword: octopus.NewSensitive("s3cret")}
	var b bytes.Buffer
	for _, v := range []any{account, *account.Password, login, login.Password, machine, octopus.Secret("s3cret")} {
		fmt.Fprintf(&b, "%v %+v %#v %s\n", v, v, v, v)
		slog.New(slog.NewTextHandler(&b, nil)).Info("m", "v", v)
	}
	if strings.Contains(b.String(), "s3cret") {
		t.Errorf("a secret shows in:\n%s", b.String())
	}
}

func TestSensitiveMasked(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]octopus.Sensitive{
		`"plain"`:                           {HasValue: true},
		`""`:                                {},
		`{"HasValue":false,"NewValue":"x"}`: {HasValue: true},
		`{"HasValue":true,"NewValue":""}`:   {HasValue: true},
		`{"HasValue":false,"NewValue":null,"Hint":"h"}`: {Hint: "h"},
	} {
		var s octopus.Sensitive
		if err := json.Unmarshal([]byte(in), &s); err != nil {
			t.Errorf("%s: %v", in, err)
		} else if diff := cmp.Diff(want, s.Masked()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", in, diff)
		}
	}
}

func FuzzPropertyValue(f *testing.F) {
	for _, seed := range []string{`"a"`, `1`, `true`, `null`, `{"HasValue":true}`, `{"IsSensitive":true}`, `{"Value":1}`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v octopus.PropertyValue
		if json.Unmarshal(data, &v) != nil {
			return
		}
		out, err := json.Marshal(v)
		if err != nil {
			t.Fatalf("%s was read and cannot be written: %v", data, err)
		}
		var again octopus.PropertyValue
		if err := json.Unmarshal(out, &again); err != nil {
			t.Fatalf("%s: %v", out, err)
		}
		if diff := cmp.Diff(v, again); diff != "" {
			t.Fatalf("%s changed (-first +second):\n%s", data, diff)
		}
	})
}
