package schedule_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/base64"
	"math/big"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/octopus"
)

// file is a new certificate that expires at a time, in base64.
func file(t testing.TB, notAfter time.Time) octopus.Sensitive {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	check(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(notAfter.Unix()), Subject: pkix.Name{CommonName: "example.com"}, NotBefore: notAfter.AddDate(-1, 0, 0), NotAfter: notAfter}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	check(t, err)
	return octopus.NewSensitive(base64.StdEncoding.EncodeToString(der))
}

// warned are the warnings of certificates, as the audit trail has them.
func (w *world) warned() []string {
	w.t.Helper()
	return w.texts(`SELECT e.category || ' ' || e.message FROM events e WHERE e.category LIKE 'CertificateExpire%' ORDER BY e.id`)
}

// TestCertificateExpiry follows a certificate to its end and past it, with two servers
// on PostgreSQL that look at the same time, and start anew: every warning is told once.
func TestCertificateExpiry(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		w.at(day(1, "00:00:00"))
		expires := day(31, "12:00:00")
		id := w.create("certificates", &octopus.Certificate{Name: "Sité", CertificateData: file(t, expires)})
		var want []string
		is := func(when string) {
			t.Helper()
			for range 2 {
				w.look()
				for _, s := range w.servers {
					check(t, s.sched.Ensure(w.ctx)) // as a start does
				}
			}
			if diff := cmp.Diff(want, w.warned()); diff != "" {
				t.Fatalf("%s (-want +got):\n%s", when, diff)
			}
		}
		is("a month before")
		w.at(day(11, "11:59:59"))
		is("just before the first warning")
		w.at(day(11, "12:00:00"))
		want = append(want, "CertificateExpires20Days Certificate Sité expires on 2026-01-31T12:00:00Z")
		is("20 days before")
		w.at(day(10, "00:00:00"))
		is("with the clock set back")
		var c octopus.Certificate
		w.load("certificates", id, &c)
		c.Notes, c.CertificateData, c.Password = "changed", octopus.Sensitive{HasValue: true}, octopus.Sensitive{}
		w.at(day(12, "00:00:00"))
		w.replace("certificates", id, &c)
		is("after a change")
		w.at(day(21, "12:00:00"))
		want = append(want, "CertificateExpires10Days Certificate Sité expires on 2026-01-31T12:00:00Z")
		is("10 days before")
		c.CertificateData = file(t, day(1, "12:00:00").AddDate(0, 0, 27)) // in 7 days
		w.replace("certificates", id, &c)
		want = append(want, "CertificateExpires10Days Certificate Sité expires on 2026-01-28T12:00:00Z")
		is("with another file")
		w.at(day(31, "00:00:00"))
		want = append(want, "CertificateExpired Certificate Sité expired on 2026-01-28T12:00:00Z")
		is("once it has expired")
		w.move(1000 * time.Hour)
		is("long after")

		// One that nobody watched, another that is deleted, and one from the archive.
		missed := w.create("certificates", &octopus.Certificate{Name: "Missed", CertificateData: file(t, day(31, "00:00:00"))})
		gone := w.create("certificates", &octopus.Certificate{Name: "Gone", CertificateData: file(t, day(31, "00:00:00"))})
		w.write(func(tx *db.Tx) error { return w.store.In(tx).Delete(w.ctx, "certificates", gone) })
		then := octopus.NewTime(day(31, "00:00:00"))
		w.create("certificates", &octopus.Certificate{Name: "Archived", Archived: &then, CertificateData: file(t, day(31, "00:00:00"))})
		w.write(func(tx *db.Tx) error {
			_, err := tx.Exec(w.ctx, `DELETE FROM due WHERE id = ?`, missed)
			return err
		})
		for _, s := range w.servers {
			check(t, s.sched.Ensure(w.ctx))
		}
		want = append(want, "CertificateExpired Certificate Missed expired on 2026-01-31T00:00:00Z")
		is("of those that had expired before")
		if n := w.texts(`SELECT u.id FROM due u WHERE u.kind = 'certificate' AND u.at < ?`, int64(1<<61)); len(n) > 0 {
			t.Errorf("the certificates %v are looked at once more", n)
		}
	})
}
