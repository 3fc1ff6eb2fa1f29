package bundle

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/crypto/argon2"
)

// Encryption is how a password becomes the key of a bundle.
type Encryption struct {
	Cipher string // "AES-256-GCM", its nonce before each text
	KDF    string // "argon2id"
	Salt   []byte
	Memory uint32 // KiB
	Time   uint32 // passes
	// Threads is the parallelism.
	Threads uint8
	// Check is an encrypted text by which a wrong password shows, and another manifest.
	Check []byte
}

// What bundles are made with; the second recommended option of RFC 9106.
const (
	cipherName = "AES-256-GCM"
	kdfName    = "argon2id"
	kdfMemory  = 64 * 1024
	kdfTime    = 3
	kdfThreads = 4
	saltSize   = 16
	keySize    = 32
)

// Bounds of what a manifest may ask for: one that was tampered with must not take all
// of a machine's memory.
const (
	maxMemory  = 1024 * 1024
	maxTime    = 64
	maxThreads = 64
)

const checkName, checkText = "check", "tako bundle"

// ErrPassword says that a bundle was made with another password.
var ErrPassword = errors.New("the password is not the one that the bundle was made with")

// ErrChanged says that a manifest is not the one that was made with the password.
var ErrChanged = errors.New("the manifest was changed since the bundle was made; make it anew, and find out who has changed it")

// newEncryption makes a key of a password, and what others need to make it again, but
// for the check, which bind makes.
func newEncryption(password string) (*Encryption, cipher.AEAD, error) {
	e := &Encryption{Cipher: cipherName, KDF: kdfName, Salt: make([]byte, saltSize), Memory: kdfMemory, Time: kdfTime, Threads: kdfThreads}
	_, _ = rand.Read(e.Salt) // it never fails
	key, err := e.key(password)
	if err != nil {
		return nil, nil, err
	}
	return e, key, nil
}

// bind makes the check of a manifest with a digest.
func (e *Encryption) bind(key cipher.AEAD, digest string) {
	e.Check = seal(key, checkName, []byte(checkText+" "+digest))
}

// open makes the key of a manifest with a digest again.
func (e *Encryption) open(password, digest string) (cipher.AEAD, error) {
	switch {
	case e.Cipher != cipherName || e.KDF != kdfName:
		return nil, fmt.Errorf("the bundle is encrypted by %.40q under a key of %.40q, which this program does not know", e.Cipher, e.KDF)
	case e.Memory > maxMemory || e.Time < 1 || e.Time > maxTime || e.Threads < 1 || e.Threads > maxThreads:
		return nil, errors.New("the manifest is damaged: it asks for a key that takes too much memory or time")
	}
	key, err := e.key(password)
	if err != nil {
		return nil, err
	}
	text, err := unseal(key, checkName, e.Check)
	if err != nil {
		return nil, ErrPassword
	}
	if string(text) != checkText+" "+digest {
		return nil, ErrChanged
	}
	return key, nil
}

func (e *Encryption) key(password string) (cipher.AEAD, error) {
	block, err := aes.NewCipher(argon2.IDKey([]byte(password), e.Salt, e.Time, e.Memory, e.Threads, keySize))
	if err != nil {
		return nil, err
	}
	return cipher.NewGCM(block)
}

// seal encrypts a text under its name.
func seal(key cipher.AEAD, name string, clear []byte) []byte {
	nonce := make([]byte, key.NonceSize(), key.NonceSize()+len(clear)+key.Overhead())
	_, _ = rand.Read(nonce) // it never fails
	return key.Seal(nonce, nonce, clear, []byte(name))
}

func unseal(key cipher.AEAD, name string, sealed []byte) ([]byte, error) {
	if len(sealed) < key.NonceSize() {
		return nil, fmt.Errorf("%s is damaged", name)
	}
	clear, err := key.Open(nil, sealed[:key.NonceSize()], sealed[key.NonceSize():], []byte(name))
	if err != nil {
		return nil, fmt.Errorf("%s is damaged, or belongs to another bundle", name)
	}
	return clear, nil
}
