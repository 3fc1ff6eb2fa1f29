package auth

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// TestParsePHC: the first hash was made by the reference implementation
// (argon2 -id -t 2 -m 8 -p 1 -l 32, salt "somesalt", password "password").
func TestParsePHC(t *testing.T) {
	t.Parallel()
	p, salt, key, err := parsePHC("$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4")
	if err != nil || p != (Argon2{Memory: 256, Time: 2, Threads: 1}) || string(salt) != "somesalt" || len(key) != 32 {
		t.Errorf("%+v, %q, %x, %v", p, salt, key, err)
	}
	h, err := newHasher(Argon2{Memory: 16, Time: 1, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	for password, want := range map[string]bool{"password": true, "Password": false, "": false} {
		ok, outdated, err := h.verify(t.Context(), "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4", password)
		if err != nil || ok != want || outdated != want {
			t.Errorf("verify(%q) = %v, %v, %v", password, ok, outdated, err)
		}
	}
	for _, bad := range []string{
		"", "secret", "$argon2i$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=16$m=256,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=4194304,t=2,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=256,t=0,p=1$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=256,t=2,p=300$c29tZXNhbHQ$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=256,t=2,p=1$c29t$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
		"$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$nf65", "$argon2id$v=19$m=256,t=2,p=1$c29tZXNhbHQ$" + strings.Repeat("A", 1000),
		"$argon2id$v=19$m=256,t=2,p=1$!$nf65EOgLrQMR/uIPnA4rEsF5h7TKyQwu9U1bMCHGi/4",
	} {
		if _, _, _, err := parsePHC(bad); !errors.Is(err, errPHC) {
			t.Errorf("parsePHC(%q): %v", bad, err)
		}
	}
}

// TestHashesTakeTurns: memory is bounded by the number of slots, and who waits
// gives up with their request.
func TestHashesTakeTurns(t *testing.T) {
	t.Parallel()
	h, err := newHasher(Argon2{Memory: 16, Time: 1, Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	for range cap(h.slots) {
		if err := h.acquire(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if _, err := h.hash(ctx, "password"); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("hashed without a slot: %v", err)
	}
	<-h.slots
	if _, err := h.hash(t.Context(), "password"); err != nil {
		t.Error(err)
	}
	if _, err := newHasher(Argon2{Memory: 1 << 30, Time: 1, Threads: 1}); err == nil || fault.KindOf(err) != fault.Internal {
		t.Errorf("parameters out of bounds: %v", err)
	}
}

func TestNetwork(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.7": "192.0.2.7/32", "::ffff:192.0.2.7": "192.0.2.7/32", "2001:db8::1": "2001:db8::/64",
		"fe80::1%eth0": "fe80::/64", "a proxy's name": "a proxy's name", "": "",
	} {
		if got := network(address); got != want {
			t.Errorf("network(%q) = %q, want %q", address, got, want)
		}
	}
}

func TestIsAPIKey(t *testing.T) {
	t.Parallel()
	for key, want := range map[string]bool{
		newKey(): true, "API-A": true, "API-ABC123": true, "API-": false, "API": false, "api-ABC": false, "API-abc": false,
		"API-A B": false, "API-Ä": false, "API-" + strings.Repeat("A", 252): true, "API-" + strings.Repeat("A", 253): false,
	} {
		if got := IsAPIKey(key); got != want {
			t.Errorf("IsAPIKey(%q) = %v", key, got)
		}
	}
	if a, b := newKey(), newKey(); a == b {
		t.Error("two keys are the same")
	}
}
