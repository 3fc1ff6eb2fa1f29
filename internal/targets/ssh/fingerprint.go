package ssh

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"golang.org/x/crypto/ssh"
)

// Fingerprint is that of a host's key: one of its two hashes.
type Fingerprint struct {
	text string
	md5  bool
}

// String is "SHA256:" and the hash in base64 without padding, or sixteen pairs of
// lower-case hexadecimal digits with colons between them for an MD5.
func (f Fingerprint) String() string { return f.text }

// of is the fingerprint of a key by the same hash.
func (f Fingerprint) of(key ssh.PublicKey) string {
	if f.md5 {
		return ssh.FingerprintLegacyMD5(key)
	}
	return ssh.FingerprintSHA256(key)
}

// ParseFingerprint reads a fingerprint as people have it: SHA256:..., an MD5 with or
// without colons and "MD5:", or the line that ssh-keygen -l prints.
func ParseFingerprint(text string) (Fingerprint, error) {
	for word := range strings.FieldsSeq(text) {
		if hash, ok := cutPrefix(word, "SHA256:"); ok || len(word) == 43 || len(word) == 44 {
			hash = strings.TrimRight(hash, "=")
			if b, err := base64.RawStdEncoding.DecodeString(hash); err == nil && len(b) == 32 {
				return Fingerprint{text: "SHA256:" + hash}, nil
			}
		}
		hash, _ := cutPrefix(word, "MD5:")
		if b, err := hex.DecodeString(strings.ReplaceAll(hash, ":", "")); err == nil && len(b) == 16 {
			pairs := make([]string, 0, len(b))
			for _, c := range b {
				pairs = append(pairs, hex.EncodeToString([]byte{c}))
			}
			return Fingerprint{text: strings.Join(pairs, ":"), md5: true}, nil
		}
	}
	return Fingerprint{}, fault.InvalidField("Endpoint.Fingerprint", "Endpoint.Fingerprint is %.100q; give the fingerprint of the host's key as ssh-keygen -l prints it, such as SHA256:x0aJ... or 16 pairs of hexadecimal digits.", text)
}

// cutPrefix is strings.CutPrefix without regard to case.
func cutPrefix(s, prefix string) (string, bool) {
	if len(s) >= len(prefix) && strings.EqualFold(s[:len(prefix)], prefix) {
		return s[len(prefix):], true
	}
	return s, false
}

// keyKinds are the algorithms of hosts' keys, those of one key together: a host has
// several keys, and shows the one that the client prefers.
var keyKinds = [][]string{ //nolint:gochecknoglobals // a constant list
	{ssh.KeyAlgoED25519},
	{ssh.KeyAlgoECDSA256},
	{ssh.KeyAlgoECDSA384},
	{ssh.KeyAlgoECDSA521},
	{ssh.KeyAlgoRSASHA512, ssh.KeyAlgoRSASHA256},
}

// HostKey is what a host shows to whoever connects.
type HostKey struct {
	Algorithm string // "ssh-ed25519"
	SHA256    string // its fingerprint as SHA256:...
	MD5       string // and as sixteen pairs of hexadecimal digits
}

var errSeen = errors.New("the key was seen")

// Discover asks a host for its key and tells it nothing. Dial makes the connection; nil
// dials directly. Somebody has to compare the fingerprint with the host's own.
func Discover(ctx context.Context, dial Dialer, host string, port int) (HostKey, error) {
	e := Endpoint{Host: host, Port: port}
	raw, err := dialHost(ctx, dial, e)
	if err != nil {
		return HostKey{}, err
	}
	defer raw.Close() //nolint:errcheck // nothing was said
	var seen ssh.PublicKey
	err = handshake(ctx, raw, e, &ssh.ClientConfig{User: "tako", HostKeyAlgorithms: allKinds(), HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
		seen = key
		return errSeen
	}}, nil)
	if seen == nil {
		return HostKey{}, fault.New(fault.Unavailable, "%s answers, but not as an SSH server: %v.", e, err)
	}
	return HostKey{Algorithm: seen.Type(), SHA256: ssh.FingerprintSHA256(seen), MD5: ssh.FingerprintLegacyMD5(seen)}, nil
}

func allKinds() []string {
	var all []string
	for _, kind := range keyKinds {
		all = append(all, kind...)
	}
	return all
}

// strange is the refusal of a host whose key is not the one that is known.
func strange(e Endpoint, known Fingerprint, shown string) error {
	return fault.InvalidField("Endpoint.Fingerprint", "%s shows a key with the fingerprint %s, but the machine's is %s: it is another host, or its key was changed. Compare it on the host (ssh-keygen -l), and change the machine's fingerprint if it is right.", e, shown, known)
}

// String is host:port.
func (e Endpoint) String() string { return net.JoinHostPort(e.Host, fmt.Sprint(e.Port)) }
