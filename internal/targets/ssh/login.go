package ssh

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"net/url"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
	"golang.org/x/crypto/ssh"
)

// DefaultPort is that of SSH.
const DefaultPort = 22

// Endpoint is where a host is, and how it is known.
type Endpoint struct {
	Host        string
	Port        int
	Fingerprint Fingerprint
	Proxy       egress.HTTPProxy // the one in front of it, zero for none
}

// EndpointOf reads a machine's endpoint.
func EndpointOf(e *octopus.Endpoint) (Endpoint, error) {
	out := Endpoint{Host: strings.TrimSpace(e.Host), Port: e.Port}
	if u, err := url.Parse(e.URI); out.Host == "" && err == nil {
		out.Host = u.Hostname()
		if n, err := strconv.Atoi(u.Port()); err == nil && out.Port == 0 {
			out.Port = n
		}
	}
	if out.Port == 0 {
		out.Port = DefaultPort
	}
	if out.Host == "" || strings.ContainsAny(out.Host, " \t\r\n/@") {
		return out, fault.InvalidField("Endpoint.Host", "Endpoint.Host is %.100q; give the name or address of the host.", e.Host)
	}
	if out.Port < 1 || out.Port > 65535 {
		return out, fault.InvalidField("Endpoint.Port", "Endpoint.Port is %d; use a number from 1 to 65535.", out.Port)
	}
	var err error
	out.Fingerprint, err = ParseFingerprint(e.Fingerprint)
	return out, err
}

// Login is how one signs in to a host. It is secret.
type Login struct {
	Username string
	// PrivateKey is a key as its file has it (OpenSSH's form or PEM); "" signs in by Password.
	PrivateKey string
	Passphrase string // of the key, "" for none
	Password   string
}

// LoginOf reads an account whose secrets are in clear.
func LoginOf(a *octopus.Account) (Login, error) {
	l := Login{Username: a.Username}
	switch a.AccountType {
	case octopus.AccountUsernamePassword:
		l.Password = clear(a.Password)
	case octopus.AccountSSHKeyPair:
		l.Passphrase, l.PrivateKey = clear(a.PrivateKeyPassphrase), clear(a.PrivateKeyFile)
		if b, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(l.PrivateKey), "")); err == nil {
			l.PrivateKey = string(b)
		}
		if l.PrivateKey == "" {
			return l, fault.InvalidField("PrivateKeyFile", "The account %s has no private key; upload one.", a.Name)
		}
	default:
		return l, fault.InvalidField("Endpoint.AccountId", "The account %s is of the type %s; SSH needs one of the type SshKeyPair or UsernamePassword.", a.Name, a.AccountType)
	}
	if l.Username == "" {
		return l, fault.InvalidField("Username", "The account %s has no user name; SSH needs one.", a.Name)
	}
	return l, nil
}

// Check reports why the login cannot be used anywhere, or nil. For a key with a
// passphrase it takes a while.
func (l Login) Check() error {
	_, err := l.methods()
	return err
}

func clear(s *octopus.Sensitive) string {
	if s == nil || s.NewValue == nil {
		return ""
	}
	return *s.NewValue
}

// key names the login without telling it.
func (l Login) key() string {
	sum := sha256.New()
	for _, part := range []string{l.Username, l.PrivateKey, l.Passphrase, l.Password} {
		_, _ = sum.Write([]byte(strconv.Itoa(len(part)) + ":" + part))
	}
	return hex.EncodeToString(sum.Sum(nil))
}

// methods are the ways in which the login signs in.
func (l Login) methods() ([]ssh.AuthMethod, error) {
	if l.PrivateKey == "" {
		// Hosts that ask by PAM have no other way for passwords.
		answer := func(_, _ string, questions []string, echo []bool) ([]string, error) {
			answers := make([]string, len(questions))
			for i := range questions {
				if !echo[i] {
					answers[i] = l.Password
				}
			}
			return answers, nil
		}
		return []ssh.AuthMethod{ssh.Password(l.Password), ssh.KeyboardInteractive(answer)}, nil
	}
	var signer ssh.Signer
	var err error
	if l.Passphrase != "" {
		signer, err = ssh.ParsePrivateKeyWithPassphrase([]byte(l.PrivateKey), []byte(l.Passphrase))
		if err != nil && !errors.Is(err, x509.IncorrectPasswordError) {
			if plain, plainErr := ssh.ParsePrivateKey([]byte(l.PrivateKey)); plainErr == nil {
				signer, err = plain, nil // a passphrase that the key does not need
			}
		}
	} else {
		signer, err = ssh.ParsePrivateKey([]byte(l.PrivateKey))
	}
	var locked *ssh.PassphraseMissingError
	switch {
	case err == nil:
		return []ssh.AuthMethod{ssh.PublicKeys(signer)}, nil
	case errors.As(err, &locked):
		return nil, fault.InvalidField("PrivateKeyPassphrase", "The private key of the user %s needs its passphrase; give it in the account.", l.Username)
	case errors.Is(err, x509.IncorrectPasswordError):
		return nil, fault.InvalidField("PrivateKeyPassphrase", "The passphrase of the private key of the user %s is not right.", l.Username)
	}
	return nil, &fault.Error{
		Kind: fault.Invalid, Field: "PrivateKeyFile", Cause: err,
		Message: "The private key of the user " + l.Username + " cannot be read; give the file that ssh-keygen made, in OpenSSH's form or as PEM.",
	}
}
