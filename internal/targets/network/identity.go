package network

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/octopus"
)

// IdentityName is the name in the certificate of a server.
const IdentityName = "Tako Server"

// identityField is what the private key is sealed as.
const identityField = "private_key"

// Sealer keeps the private key from being read in the database.
type Sealer interface {
	Seal(owner, field string, clear []byte) (string, error)
	Open(ctx context.Context, owner, field, sealed string) ([]byte, error)
}

// Certificate is that by which agents know the servers of a database. Making one takes a
// tenth of a second and more, for which no start waits: who needs it does. It is safe
// for concurrent use.
type Certificate struct {
	db     *db.DB
	sealer Sealer
	turn   chan struct{} // full while somebody makes it
	made   atomic.Pointer[halibut.Identity]
}

// OpenCertificate reads the certificate of a database, if it has one. An error says that
// it has one that cannot be read.
func OpenCertificate(ctx context.Context, d *db.DB, sealer Sealer) (*Certificate, error) {
	c := &Certificate{db: d, sealer: sealer, turn: make(chan struct{}, 1)}
	var sealed string
	err := d.Read(ctx, func(tx *db.Tx) (err error) {
		sealed, err = storedIdentity(ctx, tx)
		return err
	})
	if err == nil && sealed != "" {
		err = c.read(ctx, sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	return c, nil
}

// Identity returns the certificate and makes it where there is none: once, also if
// several servers start together. Others wait meanwhile. After an error the next who
// needs it tries again.
func (c *Certificate) Identity(ctx context.Context) (*halibut.Identity, error) {
	if id := c.made.Load(); id != nil {
		return id, nil
	}
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return nil, fmt.Errorf("server certificate: %w", ctx.Err())
	}
	if id := c.made.Load(); id != nil {
		return id, nil
	}
	sealed, err := makeIdentity(ctx, c.db, c.sealer)
	if err == nil {
		err = c.read(ctx, sealed)
	}
	if err != nil {
		return nil, fmt.Errorf("server certificate: %w", err)
	}
	return c.made.Load(), nil
}

// Thumbprint is what agents have to trust; see Identity.
func (c *Certificate) Thumbprint(ctx context.Context) (halibut.Thumbprint, error) {
	id, err := c.Identity(ctx)
	if err != nil {
		return "", err
	}
	return id.Thumbprint, nil
}

func (c *Certificate) read(ctx context.Context, sealed string) error {
	text, err := c.sealer.Open(ctx, octopus.CertificateGlobalID, identityField, sealed)
	if err != nil {
		return err
	}
	id, err := halibut.ParseIdentity(text)
	if err == nil {
		c.made.Store(id)
	}
	return err
}

func storedIdentity(ctx context.Context, tx *db.Tx) (sealed string, err error) {
	err = tx.QueryRow(ctx, `SELECT private_key FROM server_identity WHERE id = ?`, octopus.CertificateGlobalID).Scan(&sealed)
	if errors.Is(err, sql.ErrNoRows) {
		return "", nil
	}
	return sealed, err
}

// makeIdentity stores a new certificate, unless another server did meanwhile, and
// returns what is stored.
func makeIdentity(ctx context.Context, d *db.DB, sealer Sealer) (sealed string, err error) {
	made, err := halibut.NewIdentity(IdentityName, time.Now())
	if err != nil {
		return "", err
	}
	if err := failpoint.Hit("certificate-made"); err != nil {
		return "", err
	}
	text, err := made.PEM()
	if err != nil {
		return "", err
	}
	fresh, err := sealer.Seal(octopus.CertificateGlobalID, identityField, text)
	if err != nil {
		return "", err
	}
	err = d.Write(ctx, func(tx *db.Tx) error {
		if sealed, err = storedIdentity(ctx, tx); err != nil || sealed != "" {
			return err
		}
		sealed = fresh
		_, err := tx.Exec(ctx, `INSERT INTO server_identity (id, certificate, private_key, created) VALUES (?, ?, ?, ?)
			ON CONFLICT (id) DO UPDATE SET certificate = excluded.certificate, private_key = excluded.private_key, created = excluded.created`,
			octopus.CertificateGlobalID, string(made.CertificatePEM()), fresh, db.Micros(tx.Now()))
		return err
	})
	return sealed, errors.Join(err, failpoint.Hit("certificate-stored"))
}

// SecretPlaces is where the private key is kept. One that nobody can open any more is
// cleared; the next server to start makes a certificate that agents have to be told of.
func SecretPlaces() []secret.Place {
	return []secret.Place{{
		Table: "server_identity", Keys: []string{"id"}, Column: "private_key",
		Refs: func(key []any, body string) ([]secret.Ref, error) {
			if !secret.IsEnvelope(body) {
				return nil, nil
			}
			return []secret.Ref{{
				Owner: fmt.Sprint(key[0]), Field: identityField, Envelope: body,
				Kind: "Server certificate", At: "a new one is made at the next start; every agent has to trust its thumbprint",
			}}, nil
		},
		Clear: func(_ []any, body string, dead func(string) bool) (string, error) {
			if dead(body) {
				return "", nil
			}
			return body, nil
		},
	}}
}
