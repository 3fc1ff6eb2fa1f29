package test

import (
	"cmp"
	"path/filepath"
	"testing"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// TestCertificateIsMadeOnce kills a first start before and after it has stored the
// certificate that agents trust, which it makes beside everything else. Who asks for it
// waits, and it stays the same from when it was stored.
func TestCertificateIsMadeOnce(t *testing.T) {
	t.Parallel()
	for _, dialect := range apptest.Dialects() {
		t.Run(dialect.String(), func(t *testing.T) {
			t.Parallel()
			p := apptest.NewProcess(t, dialect)
			stored := func() (n int, key string) {
				d, err := db.Open(t.Context(), cmp.Or(p.Database, "sqlite:"+filepath.Join(p.Data, "tako.db")), db.Options{MustExist: true})
				if err != nil {
					t.Fatal(err)
				}
				defer func() {
					if err := d.Close(); err != nil {
						t.Error(err)
					}
				}()
				if err := d.Read(t.Context(), func(tx *db.Tx) error {
					return tx.QueryRow(t.Context(), `SELECT count(*), coalesce(max(private_key), '') FROM server_identity`).Scan(&n, &key)
				}); err != nil {
					t.Fatal(err)
				}
				return n, key
			}
			var key string
			for i, edge := range []string{"certificate-made", "certificate-stored"} {
				env := []string{"TAKO_FAILPOINT=" + edge + ":kill", "TAKO_ADMIN_USERNAME=admin", "TAKO_ADMIN_API_KEY=" + apptest.AdminKey}
				if out, errOut, code := onServer(t, p, env, "", "server", "--listen", "127.0.0.1:0", "--agent-listen", "127.0.0.1:0", "--node", "test"); code != -1 {
					t.Fatalf("not killed at %s: exit code %d\n%s%s", edge, code, out, errOut)
				}
				n := 0
				if n, key = stored(); n != i {
					t.Fatalf("killed at %s: %d certificates, want %d", edge, n, i)
				}
			}
			thumbprint := ""
			for range 2 {
				p.Start()
				got := apptest.Get[octopus.CertificateConfiguration](t, p.Client, "/api/configuration/certificates/certificate-global").Thumbprint
				if thumbprint = cmp.Or(thumbprint, got); len(got) != 40 || got != thumbprint {
					t.Errorf("the thumbprint is %q, was %q", got, thumbprint)
				}
				p.Stop()
			}
			if n, last := stored(); n != 1 || last != key {
				t.Errorf("the certificate was made again; there are %d", n)
			}
		})
	}
}
