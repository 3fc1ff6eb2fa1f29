package network_test

import (
	"context"
	"strings"
	"sync"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/secret"
	"github.com/takodeploy/tako/internal/targets/network"
)

// TestIdentity makes one certificate however many servers start together. It outlives
// a rotation of the keys, and never stands in the database unsealed; one that nobody
// can open any more makes room for another.
func TestIdentity(t *testing.T) {
	t.Parallel()
	dbtest.Run(t, func(t *testing.T, d *db.DB) {
		ctx := t.Context()
		dir := t.TempDir()
		box, err := secret.Open(ctx, d, secret.Source{Dir: dir})
		if err != nil {
			t.Fatal(err)
		}
		found := make([]*halibut.Identity, 3)
		var wg sync.WaitGroup
		for i := range found {
			wg.Go(func() {
				c, err := network.OpenCertificate(ctx, d, box)
				if err == nil {
					found[i], err = c.Identity(ctx)
				}
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
		first := found[0].Thumbprint
		for _, id := range found {
			if id.Thumbprint != first {
				t.Fatalf("%s beside %s", id.Thumbprint, first)
			}
		}
		row := func() (certificate, key string) {
			if err := d.Read(ctx, func(tx *db.Tx) error {
				return tx.QueryRow(ctx, `SELECT certificate, private_key FROM server_identity`).Scan(&certificate, &key)
			}); err != nil {
				t.Fatal(err)
			}
			return certificate, key
		}
		certificate, before := row()
		if strings.Contains(certificate+before, "PRIVATE KEY") || !secret.IsEnvelope(before) {
			t.Fatal("the key is not sealed")
		}
		if _, err := box.Rotate(ctx, secret.RotateOptions{Places: network.SecretPlaces()}); err != nil {
			t.Fatal(err)
		}
		if _, after := row(); secret.Under(after) == secret.Under(before) {
			t.Error("the rotation did not seal the key anew")
		}
		again, err := network.OpenCertificate(ctx, d, box)
		if err != nil {
			t.Fatalf("after a rotation: %v", err)
		}
		if now, err := again.Thumbprint(ctx); err != nil || now != first {
			t.Fatalf("after a rotation: %s, %v", now, err)
		}
		// The master key is lost.
		lost := secret.Source{Dir: t.TempDir()}
		var told []string
		anew, left, err := secret.Lost(ctx, d, lost, network.SecretPlaces(), func(r secret.Ref) { told = append(told, r.String()) })
		if err != nil || left != 0 || len(told) != 1 || !strings.Contains(told[0], "Server certificate") {
			t.Fatal(told, left, err)
		}
		missing, err := network.OpenCertificate(ctx, d, anew)
		if err != nil {
			t.Fatal(err)
		}
		// Who no longer wants it is not kept.
		gone, cancel := context.WithCancel(ctx)
		cancel()
		if _, err := missing.Identity(gone); err == nil {
			t.Fatal("a certificate was made for somebody who left")
		}
		other, err := missing.Identity(ctx)
		if err != nil || other.Thumbprint == first {
			t.Fatalf("after the loss of the master key: %v", err)
		}
		if text, _ := row(); !strings.Contains(string(other.CertificatePEM()), text) {
			t.Error("the certificate beside the key is another one's")
		}
	})
}
