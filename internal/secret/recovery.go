package secret

import (
	"bytes"
	"context"
	"crypto/hkdf"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"filippo.io/age"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
)

// maxEscrow bounds what is read of an encrypted master key.
const maxEscrow = 16 * 1024

// ConfirmLength is how many characters of a recovery key somebody types back.
const ConfirmLength = 4

// Recovery describes the recovery key, to which backups and the master key are
// encrypted. Its private half is on paper, with whoever keeps the kit.
type Recovery struct {
	// ID is the public half ("age1...").
	ID        string
	Created   time.Time
	Confirmed time.Time // zero until somebody has shown that they keep the kit
	// MasterID is the id of the master key that the kit gives back.
	MasterID string
}

// RecoveryKey is the private half. It is never formatted.
type RecoveryKey struct{ identity *age.X25519Identity }

// ID is the public half.
func (k RecoveryKey) ID() string { return k.identity.Recipient().String() }

// Identity decrypts what was encrypted to ID.
func (k RecoveryKey) Identity() age.Identity { return k.identity }

// Reveal is the key as ParseRecoveryKey reads it ("AGE-SECRET-KEY-1...").
func (k RecoveryKey) Reveal() string { return k.identity.String() }

// Words is the key in words, for paper.
func (k RecoveryKey) Words() ([]string, error) {
	_, raw, err := decodeBech32(k.identity.String())
	if err != nil {
		return nil, err
	}
	return wordsOf(raw), nil
}

// String names the key by its public half.
func (k RecoveryKey) String() string { return "recovery key " + k.ID() }

// Format hides the key under every verb.
func (k RecoveryKey) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, k.String()) } // fmt's own writer does not fail

// LogValue hides the key from slog.
func (k RecoveryKey) LogValue() slog.Value { return slog.StringValue(k.String()) }

const identityPrefix = "AGE-SECRET-KEY-"

var identityText = regexp.MustCompile(`(?i)AGE-SECRET-KEY-1[0-9A-Z]{58}`)

// ParseRecoveryKey finds the recovery key in a text: a whole kit, the key alone,
// or its words.
func ParseRecoveryKey(text string) (RecoveryKey, error) {
	if found := identityText.FindString(text); found != "" {
		identity, err := age.ParseX25519Identity(strings.ToUpper(found))
		if err != nil {
			return RecoveryKey{}, fault.New(fault.Invalid, "The recovery key has a typing error in it; compare it with the paper.")
		}
		return RecoveryKey{identity}, nil
	}
	raw, err := bytesOf(strings.Fields(text))
	if err != nil {
		return RecoveryKey{}, fault.New(fault.Invalid, "This is no recovery key, which begins with %s1 or is %d words: %v.", identityPrefix, KeySize+1, err)
	}
	identity, err := identityOf(raw)
	return RecoveryKey{identity}, err
}

// identityOf makes an identity from its 32 bytes.
func identityOf(raw []byte) (*age.X25519Identity, error) {
	if len(raw) != KeySize {
		return nil, fault.New(fault.Invalid, "A recovery key is %d words, and these are %d.", KeySize+1, len(raw)+1)
	}
	return age.ParseX25519Identity(strings.ToUpper(encodeBech32(strings.ToLower(identityPrefix), raw)))
}

// BackupIdentity is the key by which a server opens its own backups. It follows
// from the master key, so that a machine which has that needs no kit.
func (k MasterKey) BackupIdentity() (*age.X25519Identity, error) {
	if k.id == "" {
		return nil, ErrNoKey
	}
	raw, err := hkdf.Key(sha256.New, k.key[:], nil, "tako backup identity", KeySize)
	if err != nil {
		return nil, err
	}
	return identityOf(raw)
}

// EnsureRecovery makes a recovery key where there is none.
func (b *Box) EnsureRecovery(ctx context.Context) error {
	all, err := b.recoveries(ctx)
	if err != nil || len(all) > 0 {
		return err
	}
	_, err = b.NewRecovery(ctx, false)
	return err
}

// NewRecovery makes another recovery key. Backups are encrypted to the former one
// too until the new one is confirmed. With replace false it does nothing where
// there is a key already.
func (b *Box) NewRecovery(ctx context.Context, replace bool) (Recovery, error) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return Recovery{}, err
	}
	b.mu.RLock()
	master := b.master
	b.mu.RUnlock()
	r := Recovery{ID: identity.Recipient().String(), MasterID: master.ID()}
	sealed, err := b.Seal(r.ID, recoveryField, []byte(identity.String()))
	if err != nil {
		return r, err
	}
	escrow, err := escrowOf(master, identity.Recipient())
	if err != nil {
		return r, err
	}
	err = b.d.Write(ctx, func(t *db.Tx) error {
		var n int
		if err := t.QueryRow(ctx, `SELECT count(*) FROM secret_recovery`).Scan(&n); err != nil || n > 0 && !replace {
			return err
		}
		r.Created = t.Now()
		// What was never confirmed protects nothing.
		if _, err := t.Exec(ctx, `DELETE FROM secret_recovery WHERE confirmed = 0`); err != nil {
			return err
		}
		_, err := t.Exec(ctx, `INSERT INTO secret_recovery (id, created, confirmed, identity, master_id, escrow) VALUES (?, ?, 0, ?, ?, ?)`,
			r.ID, db.Micros(t.Now()), sealed, r.MasterID, escrow)
		return err
	})
	if err != nil {
		return r, fmt.Errorf("make a recovery key: %w", err)
	}
	return r, nil
}

const recoveryField = "identity"

func escrowOf(master MasterKey, to age.Recipient) ([]byte, error) {
	var out bytes.Buffer
	w, err := age.Encrypt(&out, to)
	if err != nil {
		return nil, err
	}
	if _, err := io.WriteString(w, master.Reveal()); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// escrowAll encrypts a new master key to every recovery key.
func escrowAll(ctx context.Context, t *db.Tx, master MasterKey) error {
	all, err := readRecoveries(ctx, t)
	if err != nil {
		return err
	}
	for _, r := range all {
		to, err := age.ParseX25519Recipient(r.ID)
		if err != nil {
			return fmt.Errorf("recovery key %s: %w", r.ID, err)
		}
		escrow, err := escrowOf(master, to)
		if err != nil {
			return err
		}
		if _, err := t.Exec(ctx, `UPDATE secret_recovery SET master_id = ?, escrow = ? WHERE id = ?`, master.ID(), escrow, r.ID); err != nil {
			return err
		}
	}
	return nil
}

type recovery struct {
	Recovery
	identity string
	escrow   []byte
}

func readRecoveries(ctx context.Context, t *db.Tx) ([]recovery, error) {
	rows, err := t.Query(ctx, `SELECT id, created, confirmed, identity, master_id, escrow FROM secret_recovery ORDER BY created DESC, id`)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	var all []recovery
	for rows.Next() {
		var r recovery
		var created, confirmed int64
		if err := rows.Scan(&r.ID, &created, &confirmed, &r.identity, &r.MasterID, &r.escrow); err != nil {
			return nil, err
		}
		r.Created, r.Confirmed = db.Time(created), db.Time(confirmed)
		all = append(all, r)
	}
	return all, rows.Err()
}

// recoveries are the recovery keys, the newest first.
func (b *Box) recoveries(ctx context.Context) (all []recovery, err error) {
	err = b.d.Read(ctx, func(t *db.Tx) error {
		all, err = readRecoveries(ctx, t)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("read recovery keys: %w", err)
	}
	return all, nil
}

// Recoveries lists the recovery keys, the newest first: one, or two while a new
// one is not confirmed.
func (b *Box) Recoveries(ctx context.Context) ([]Recovery, error) {
	all, err := b.recoveries(ctx)
	out := make([]Recovery, len(all))
	for i, r := range all {
		out[i] = r.Recovery
	}
	return out, err
}

// RevealRecovery returns the newest recovery key as long as nobody has confirmed
// it; after that the server does not have it any more.
func (b *Box) RevealRecovery(ctx context.Context) (RecoveryKey, error) {
	all, err := b.recoveries(ctx)
	if err != nil {
		return RecoveryKey{}, err
	}
	if len(all) == 0 {
		return RecoveryKey{}, fault.New(fault.NotFound, "There is no recovery key yet; make one with `tako key recovery-kit --new`.")
	}
	if all[0].identity == "" {
		return RecoveryKey{}, fault.New(fault.Conflict, "The recovery kit was confirmed at %s, and the server has not kept its key. If the kit is lost, make a new one with `tako key recovery-kit --new`; what was backed up before stays under the old one.", all[0].Confirmed.Format(time.RFC3339))
	}
	text, err := b.Open(ctx, all[0].ID, recoveryField, all[0].identity)
	if err != nil {
		return RecoveryKey{}, err
	}
	return ParseRecoveryKey(string(text))
}

// ConfirmRecovery takes the last characters of the newest recovery key as proof
// that somebody keeps it, and forgets its private half and all older keys.
func (b *Box) ConfirmRecovery(ctx context.Context, typed string) error {
	key, err := b.RevealRecovery(ctx)
	if err != nil {
		return err
	}
	text := key.Reveal()
	if !strings.EqualFold(strings.TrimSpace(typed), text[len(text)-ConfirmLength:]) {
		return fault.New(fault.Invalid, "These are not the last %d characters of the recovery key; look at the kit again.", ConfirmLength)
	}
	err = b.d.Write(ctx, func(t *db.Tx) error {
		n, err := t.Exec(ctx, `UPDATE secret_recovery SET confirmed = ?, identity = '' WHERE id = ?`, db.Micros(t.Now()), key.ID())
		if err != nil || n == 0 {
			return err
		}
		_, err = t.Exec(ctx, `DELETE FROM secret_recovery WHERE id <> ?`, key.ID())
		return err
	})
	if err != nil {
		return fmt.Errorf("confirm the recovery kit: %w", err)
	}
	return nil
}

// Escrow is the master key encrypted to one recovery key.
type Escrow struct {
	// Recovery and MasterID are ids of keys.
	Recovery, MasterID string
	Sealed             []byte
}

// Open gets the master key back.
func (e Escrow) Open(key RecoveryKey) (MasterKey, error) {
	plain, err := age.Decrypt(bytes.NewReader(e.Sealed), key.identity)
	if err != nil {
		return MasterKey{}, fault.New(fault.Invalid, "The master key was encrypted to recovery key %s, and the one given is %s; use the kit of the former.", e.Recovery, key.ID())
	}
	text, err := io.ReadAll(io.LimitReader(plain, maxEscrow))
	if err != nil {
		return MasterKey{}, fmt.Errorf("read the master key: %w", err)
	}
	return ParseMasterKey(string(text))
}

// Escrows reads which master key a database is under, and what the recovery keys
// give back. It needs no key.
func Escrows(ctx context.Context, t *db.Tx) (master string, out []Escrow, err error) {
	if err := t.QueryRow(ctx, `SELECT master_id FROM secret_key ORDER BY seq DESC LIMIT 1`).Scan(&master); err != nil {
		return "", nil, fmt.Errorf("read which master key the database is under: %w", err)
	}
	all, err := readRecoveries(ctx, t)
	for _, r := range all {
		out = append(out, Escrow{r.ID, r.MasterID, r.escrow})
	}
	return master, out, err
}

// Recover puts the master key of a database back into a data directory, from the
// recovery key. It replaces no key that is there.
func Recover(ctx context.Context, d *db.DB, dir string, key RecoveryKey) (MasterKey, error) {
	var all []Escrow
	err := d.Read(ctx, func(t *db.Tx) (err error) {
		_, all, err = Escrows(ctx, t)
		return err
	})
	if err != nil {
		return MasterKey{}, err
	}
	i := slices.IndexFunc(all, func(e Escrow) bool { return e.Recovery == key.ID() })
	if i < 0 {
		return MasterKey{}, fault.New(fault.Invalid, "The recovery key given is %s, which is none of this database; use the newest kit.", key.ID())
	}
	master, err := all[i].Open(key)
	if err != nil {
		return MasterKey{}, err
	}
	return master, PutMasterKey(dir, master)
}

// keepFormer keeps the key of backups made under a master key that goes.
func keepFormer(ctx context.Context, t *db.Tx, master MasterKey, seal sealer) error {
	identity, err := master.BackupIdentity()
	if err != nil {
		return err
	}
	_, err = t.Exec(ctx, `INSERT INTO secret_former (master_id, identity, created) VALUES (?, ?, ?)
		ON CONFLICT (master_id) DO UPDATE SET identity = excluded.identity`,
		master.ID(), seal(master.ID(), recoveryField, []byte(identity.String())), db.Micros(t.Now()))
	return err
}

// BackupRecipients are the keys to which backups are encrypted: the server's own
// and the recovery keys. ids names them.
func (b *Box) BackupRecipients(ctx context.Context) (to []age.Recipient, ids []string, err error) {
	b.mu.RLock()
	own, err := b.master.BackupIdentity()
	b.mu.RUnlock()
	if err != nil {
		return nil, nil, err
	}
	to, ids = []age.Recipient{own.Recipient()}, []string{own.Recipient().String()}
	all, err := b.recoveries(ctx)
	if err != nil {
		return nil, nil, err
	}
	for _, r := range all {
		one, err := age.ParseX25519Recipient(r.ID)
		if err != nil {
			return nil, nil, fmt.Errorf("recovery key %s: %w", r.ID, err)
		}
		to, ids = append(to, one), append(ids, r.ID)
	}
	return to, ids, nil
}

// BackupIdentities open the backups that this server made, under the master key
// in force and under former ones.
func (b *Box) BackupIdentities(ctx context.Context) ([]age.Identity, error) {
	b.mu.RLock()
	own, err := b.master.BackupIdentity()
	b.mu.RUnlock()
	if err != nil {
		return nil, err
	}
	former := map[string]string{}
	err = b.d.Read(ctx, func(t *db.Tx) error {
		clear(former)
		rows, err := t.Query(ctx, `SELECT master_id, identity FROM secret_former ORDER BY created`)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var id, sealed string
			if err := rows.Scan(&id, &sealed); err != nil {
				return err
			}
			former[id] = sealed
		}
		return rows.Err()
	})
	if err != nil {
		return nil, fmt.Errorf("read the keys of older backups: %w", err)
	}
	out := []age.Identity{own}
	for id, sealed := range former {
		text, err := b.Open(ctx, id, recoveryField, sealed)
		if errors.Is(err, ErrEnvelope) {
			continue // of a key that was lost
		}
		if err != nil {
			return nil, err
		}
		identity, err := age.ParseX25519Identity(string(text))
		if err != nil {
			return nil, fmt.Errorf("key of backups under master key %s: %w", id, err)
		}
		out = append(out, identity)
	}
	return out, nil
}

// Places are where this package itself keeps sealed values.
func Places() []Place {
	refs := func(key []any, body string) ([]Ref, error) {
		if !IsEnvelope(body) {
			return nil, nil
		}
		return []Ref{{Owner: fmt.Sprint(key[0]), Field: recoveryField, Envelope: body}}, nil
	}
	return []Place{
		{Table: "secret_recovery", Keys: []string{"id"}, Column: "identity", Refs: refs},
		{Table: "secret_former", Keys: []string{"master_id"}, Column: "identity", Refs: refs},
	}
}

// isDead reports whether an envelope cannot be opened by any key.
func isDead(err error) bool { return errors.Is(err, ErrEnvelope) }
