package ssh_test

import (
	"encoding/base64"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/targets/ssh"
	"github.com/takodeploy/tako/octopus"
)

func TestParseFingerprint(t *testing.T) {
	t.Parallel()
	sha := "SHA256:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU"
	md5 := "d4:1d:8c:d9:8f:00:b2:04:e9:80:09:98:ec:f8:42:7e"
	for text, want := range map[string]string{
		sha:                                   sha,
		sha + "=":                             sha,
		strings.ToLower(sha[:7]) + sha[7:]:    sha,
		sha[7:]:                               sha,
		"256 " + sha + " root@web (ED25519)":  sha,
		md5:                                   md5,
		"MD5:" + md5:                          md5,
		strings.ToUpper(md5):                  md5,
		strings.ReplaceAll(md5, ":", ""):      md5,
		"2048 MD5:" + md5 + " root@web (RSA)": md5,
	} {
		if got, err := ssh.ParseFingerprint(text); err != nil || got.String() != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "SHA256:", sha[:20], md5[:20], "ssh-ed25519"} {
		if got, err := ssh.ParseFingerprint(text); !fault.Is(err, fault.Invalid) {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

func TestEndpointOf(t *testing.T) {
	t.Parallel()
	md5 := "d4:1d:8c:d9:8f:00:b2:04:e9:80:09:98:ec:f8:42:7e"
	for want, e := range map[string]octopus.Endpoint{
		"web:22":      {Host: "web", Fingerprint: md5},
		"web:2222":    {URI: "ssh://web:2222/", Fingerprint: md5},
		"[::1]:22":    {Host: "::1", Port: 22, Fingerprint: md5},
		"Host":        {Host: "a@b", Fingerprint: md5},
		"Port":        {Host: "web", Port: 70000, Fingerprint: md5},
		"Fingerprint": {Host: "web"},
	} {
		got, err := ssh.EndpointOf(&e)
		if strings.Contains(want, ":") {
			if err != nil || got.String() != want || got.Fingerprint.String() != md5 {
				t.Errorf("%s is %v: %v", want, got, err)
			}
		} else if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), "Endpoint."+want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}

func TestLoginOf(t *testing.T) {
	t.Parallel()
	secret := func(s string) *octopus.Sensitive { return &octopus.Sensitive{HasValue: true, NewValue: &s} }
	l, err := ssh.LoginOf(&octopus.Account{AccountType: octopus.AccountUsernamePassword, Username: "me", Password: secret("p")})
	if err != nil || l != (ssh.Login{Username: "me", Password: "p"}) {
		t.Errorf("%+v, %v", l, err)
	}
	for want, a := range map[string]octopus.Account{
		"type Token":         {AccountType: octopus.AccountToken, Username: "me"},
		"no user name":       {AccountType: octopus.AccountUsernamePassword},
		"has no private key": {AccountType: octopus.AccountSSHKeyPair, Username: "me"},
		"private key of the user me cannot be read": {
			AccountType: octopus.AccountSSHKeyPair, Username: "me",
			PrivateKeyFile: secret(base64.StdEncoding.EncodeToString([]byte("no key"))),
		},
	} {
		l, err := ssh.LoginOf(&a)
		if err == nil {
			err = l.Check()
		}
		if !fault.Is(err, fault.Invalid) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", want, err)
		}
	}
}
