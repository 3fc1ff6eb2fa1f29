package releasefeed

import (
	"crypto/ed25519"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
)

// Limits of what is read.
const (
	MaxDocument = 4 << 20 // bytes of a signed document
	maxKeys     = 16
	maxReleases = 2000
)

// Reason says why a document is not believed.
type Reason string

// The reasons.
const (
	Malformed      Reason = "malformed"       // it cannot be read, or says impossible things
	Unsigned       Reason = "unsigned"        // it has no signatures at all
	UnknownKeys    Reason = "unknown keys"    // none of its signatures is of a key that is trusted
	WrongSignature Reason = "wrong signature" // a trusted key's signature does not fit: it was changed
	TooFewKeys     Reason = "too few keys"    // fewer trusted keys than the threshold have signed
	Foreign        Reason = "foreign"         // it is another kind of document, or of another channel
	Older          Reason = "older"           // a newer one has been seen already
)

// Error is a document that is not believed.
type Error struct {
	Reason  Reason
	message string
}

// Error is a sentence for people.
func (e *Error) Error() string { return e.message }

func refuse(reason Reason, format string, args ...any) error {
	return &Error{reason, fmt.Sprintf(format, args...)}
}

// Is reports whether an error is a document that is not believed for that reason.
func Is(err error, reason Reason) bool {
	var e *Error
	return errors.As(err, &e) && e.Reason == reason
}

// envelope is a document with its signatures. What is signed are the very bytes of
// Signed, behind a prefix that keeps the signature from meaning anything elsewhere.
type envelope struct {
	Signed     json.RawMessage `json:"signed"`
	Signatures []signature     `json:"signatures"`
}

type signature struct {
	KeyID     string `json:"keyid"`
	Signature []byte `json:"sig"`
}

const prefix = "tako release document v1\n"

func signedBytes(document []byte) []byte { return append([]byte(prefix), document...) }

// KeyID names a key: the first 16 hexadecimal digits of its SHA-256.
func KeyID(key ed25519.PublicKey) string {
	sum := sha256.Sum256(key)
	return hex.EncodeToString(sum[:8])
}

// Sign makes a signed document of a Root or a Feed.
func Sign(document any, keys ...ed25519.PrivateKey) ([]byte, error) {
	raw, err := json.Marshal(document)
	if err != nil {
		return nil, fmt.Errorf("encode a document: %w", err)
	}
	return seal(envelope{Signed: raw}, keys)
}

// AddSignature adds the signatures of more keys to a signed document. A key's earlier
// signature is replaced.
func AddSignature(signed []byte, keys ...ed25519.PrivateKey) ([]byte, error) {
	e, err := open(signed)
	if err != nil {
		return nil, err
	}
	return seal(e, keys)
}

func seal(e envelope, keys []ed25519.PrivateKey) ([]byte, error) {
	for _, key := range keys {
		public, ok := key.Public().(ed25519.PublicKey)
		if !ok {
			return nil, errors.New("a key is no Ed25519 key")
		}
		id := KeyID(public)
		e.Signatures = slices.DeleteFunc(e.Signatures, func(s signature) bool { return s.KeyID == id })
		e.Signatures = append(e.Signatures, signature{id, ed25519.Sign(key, signedBytes(e.Signed))})
	}
	out, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("encode a signed document: %w", err)
	}
	if len(out) > MaxDocument {
		return nil, fmt.Errorf("the document has %d bytes; the limit is %d", len(out), MaxDocument)
	}
	return append(out, '\n'), nil
}

func open(data []byte) (envelope, error) {
	var e envelope
	if len(data) > MaxDocument {
		return e, refuse(Malformed, "The document has %d bytes; the limit is %d.", len(data), MaxDocument)
	}
	if err := json.Unmarshal(data, &e); err != nil || len(e.Signed) == 0 {
		return e, refuse(Malformed, "The document cannot be read: it is not the JSON of a signed release document.")
	}
	return e, nil
}

// verified returns what is signed if enough of the keys have signed it. Every key
// counts once; a wrong signature of a trusted key is never passed over.
func (e envelope) verified(keys []ed25519.PublicKey, threshold int) (json.RawMessage, error) {
	if len(e.Signatures) == 0 {
		return nil, refuse(Unsigned, "The document is not signed.")
	}
	if len(e.Signatures) > 4*maxKeys {
		return nil, refuse(Malformed, "The document has %d signatures; the limit is %d.", len(e.Signatures), 4*maxKeys)
	}
	message, good := signedBytes(e.Signed), map[string]bool{}
	for _, s := range e.Signatures {
		i := slices.IndexFunc(keys, func(k ed25519.PublicKey) bool { return KeyID(k) == s.KeyID })
		if i < 0 {
			continue
		}
		if !ed25519.Verify(keys[i], message, s.Signature) {
			return nil, refuse(WrongSignature, "The signature of key %s does not fit the document: one of them was changed.", s.KeyID)
		}
		good[s.KeyID] = true
	}
	switch {
	case len(good) == 0:
		return nil, refuse(UnknownKeys, "The document is signed, but by none of the keys that are trusted here.")
	case len(good) < threshold:
		return nil, refuse(TooFewKeys, "The document has the signatures of %d of the keys that are trusted here; %d are needed.", len(good), threshold)
	}
	return e.Signed, nil
}

// kind reads what kind of document it is.
func kind(document []byte) string {
	var head struct {
		Type string `json:"type"`
	}
	if json.Unmarshal(document, &head) != nil {
		return ""
	}
	return head.Type
}
