package auth

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
)

// Argon2 are the parameters of argon2id. They are part of every hash, so that
// changing them invalidates none: a hash with others is made anew at the next
// sign-in.
type Argon2 struct {
	Memory  uint32 // KiB
	Time    uint32 // passes
	Threads uint8
}

// DefaultArgon2 is the second recommended option of RFC 9106.
func DefaultArgon2() Argon2 { return Argon2{Memory: 64 * 1024, Time: 3, Threads: 4} }

// Bounds of the parameters that are read back from a hash: a database that was
// tampered with cannot make the server allocate without end.
const (
	maxArgonMemory  = 1024 * 1024 // KiB
	maxArgonTime    = 64
	maxArgonThreads = 64
	saltSize        = 16
	hashSize        = 32
)

// Lengths of passwords, in characters and in bytes.
const (
	MinPassword = 8
	MaxPassword = 1024
)

// checkPassword applies the rules for new passwords.
func checkPassword(username, password string) error {
	switch {
	case utf8.RuneCountInString(password) < MinPassword:
		return fault.InvalidField("Password", "Password is too short; use at least %d characters.", MinPassword)
	case len(password) > MaxPassword:
		return fault.InvalidField("Password", "Password has %d bytes; use at most %d.", len(password), MaxPassword)
	case ident.Fold(password) == ident.Fold(username):
		return fault.InvalidField("Password", "Password is the same as the user name; choose another one.")
	default:
		return nil
	}
}

// hasher runs argon2id for a few callers at a time, since each run takes its
// tens of MiB.
type hasher struct {
	params Argon2
	slots  chan struct{}
	// decoy is what the passwords of unknown users are compared with, so that
	// these take as long as others.
	decoy string
}

// hashWait is how long somebody waits in line for a slot.
const hashWait = 20 * time.Second

func newHasher(params Argon2) (*hasher, error) {
	if params.Memory == 0 || params.Memory > maxArgonMemory || params.Time == 0 || params.Time > maxArgonTime || params.Threads == 0 || params.Threads > maxArgonThreads {
		return nil, fmt.Errorf("argon2 parameters %+v are out of bounds", params)
	}
	// The decoy is compared with and never made: a run at every start would take
	// most of its time and leave its memory behind.
	decoy := make([]byte, saltSize+hashSize)
	_, _ = rand.Read(decoy) // never fails
	return &hasher{
		params: params,
		slots:  make(chan struct{}, min(max(runtime.GOMAXPROCS(0), 2), 4)),
		decoy:  phc(params, decoy[:saltSize], decoy[saltSize:]),
	}, nil
}

// phc writes parameters, salt and key as one text.
func phc(p Argon2, salt, key []byte) string {
	b64 := base64.RawStdEncoding
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.Memory, p.Time, p.Threads, b64.EncodeToString(salt), b64.EncodeToString(key))
}

// acquire takes a slot; the caller gives it back.
func (h *hasher) acquire(ctx context.Context) error {
	select {
	case h.slots <- struct{}{}:
		return nil
	default:
	}
	wait := time.NewTimer(hashWait)
	defer wait.Stop()
	select {
	case h.slots <- struct{}{}:
		return nil
	case <-wait.C:
		return fault.New(fault.Unavailable, "Too many people sign in at the same moment; try again in a minute.")
	case <-ctx.Done():
		return ctx.Err()
	}
}

// release gives a slot back. The last one returns the memory of all to the system:
// the runtime would keep it for minutes, and it is most of what an idle server has.
func (h *hasher) release() {
	last := len(h.slots) == 1
	<-h.slots
	if last {
		debug.FreeOSMemory()
	}
}

func (h *hasher) run(ctx context.Context, password string, salt []byte, p Argon2, size uint32) ([]byte, error) {
	if err := h.acquire(ctx); err != nil {
		return nil, err
	}
	defer h.release()
	return argon2.IDKey([]byte(password), salt, p.Time, p.Memory, p.Threads, size), nil
}

// hash makes the PHC string of a password.
func (h *hasher) hash(ctx context.Context, password string) (string, error) {
	salt := make([]byte, saltSize)
	_, _ = rand.Read(salt) // never fails
	key, err := h.run(ctx, password, salt, h.params, hashSize)
	if err != nil {
		return "", err
	}
	return phc(h.params, salt, key), nil
}

// verify reports whether a password is the one of a PHC string, and whether the
// string was made with other parameters than today's. An empty string, of a user
// without a password or of none, takes its time and matches nothing.
func (h *hasher) verify(ctx context.Context, stored, password string) (ok, outdated bool, err error) {
	known := stored != ""
	if !known {
		stored = h.decoy
	}
	p, salt, want, err := parsePHC(stored)
	if err != nil {
		return false, false, err
	}
	if len(password) > MaxPassword {
		password = password[:MaxPassword+1] // no password is that long
	}
	got, err := h.run(ctx, password, salt, p, uint32(len(want)))
	if err != nil {
		return false, false, err
	}
	ok = subtle.ConstantTimeCompare(got, want) == 1 && known
	return ok, ok && (p != h.params || len(salt) != saltSize || len(want) != hashSize), nil
}

var errPHC = errors.New("a stored password hash is damaged")

func parsePHC(phc string) (p Argon2, salt, key []byte, err error) {
	parts := strings.Split(phc, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, nil, nil, errPHC
	}
	if n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.Memory, &p.Time, &p.Threads); err != nil || n != 3 {
		return p, nil, nil, errPHC
	}
	if p.Memory == 0 || p.Memory > maxArgonMemory || p.Time == 0 || p.Time > maxArgonTime || p.Threads == 0 || p.Threads > maxArgonThreads {
		return p, nil, nil, errPHC
	}
	salt, err1 := base64.RawStdEncoding.DecodeString(parts[4])
	key, err2 := base64.RawStdEncoding.DecodeString(parts[5])
	if err1 != nil || err2 != nil || len(salt) < 8 || len(salt) > 64 || len(key) < 16 || len(key) > 64 {
		return p, nil, nil, errPHC
	}
	return p, salt, key, nil
}
