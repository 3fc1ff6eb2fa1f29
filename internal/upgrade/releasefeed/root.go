package releasefeed

import (
	"crypto/ed25519"
	"encoding/json"
	"errors"
)

// Root is the set of keys that is trusted, with how many of them must sign.
type Root struct {
	Type      string              `json:"type"` // "root"
	Version   int                 `json:"version"`
	Threshold int                 `json:"threshold"`
	Keys      []ed25519.PublicKey `json:"keys"`
}

const typeRoot = "root"

// NewRoot is the root of that version. Its keys and threshold must fit together.
func NewRoot(version, threshold int, keys ...ed25519.PublicKey) (Root, error) {
	r := Root{typeRoot, version, threshold, keys}
	return r, r.check()
}

func (r Root) check() error {
	ids := map[string]bool{}
	for _, k := range r.Keys {
		if len(k) != ed25519.PublicKeySize {
			return errors.New("a key of the root is no Ed25519 key")
		}
		ids[KeyID(k)] = true
	}
	switch {
	case r.Type != typeRoot || r.Version < 1:
		return errors.New("it is no root, or has no version")
	case len(r.Keys) > maxKeys || len(ids) != len(r.Keys):
		return errors.New("it has too many keys, or one twice")
	case r.Threshold < 1 || r.Threshold > len(r.Keys):
		return errors.New("its threshold is not between one and the number of its keys")
	}
	return nil
}

// ParseRoot reads a signed root that somebody has decided to trust: the first one,
// from the program itself or from a file that an administrator names. It must be
// signed by its own keys.
func ParseRoot(signed []byte) (Root, error) {
	r, e, err := readRoot(signed)
	if err != nil {
		return r, err
	}
	_, err = e.verified(r.Keys, r.Threshold)
	return r, err
}

// Next reads the root that follows: signed by enough keys of this one, and of its own.
func (r Root) Next(signed []byte) (Root, error) {
	next, e, err := readRoot(signed)
	if err != nil {
		return r, err
	}
	if next.Version != r.Version+1 {
		return r, refuse(Older, "The keys have version %d; those that follow version %d have version %d.", next.Version, r.Version, r.Version+1)
	}
	if _, err := e.verified(r.Keys, r.Threshold); err != nil {
		return r, err
	}
	if _, err := e.verified(next.Keys, next.Threshold); err != nil {
		return r, err
	}
	return next, nil
}

func readRoot(signed []byte) (Root, envelope, error) {
	var r Root
	e, err := open(signed)
	if err != nil {
		return r, e, err
	}
	if t := kind(e.Signed); t != typeRoot {
		return r, e, refuse(Foreign, "The document is no set of keys (type %.20q).", t)
	}
	if err := json.Unmarshal(e.Signed, &r); err != nil {
		return r, e, refuse(Malformed, "The keys cannot be read.")
	}
	if err := r.check(); err != nil {
		return r, e, refuse(Malformed, "The keys cannot be used: %s.", err)
	}
	return r, e, nil
}
