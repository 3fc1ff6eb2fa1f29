package library_test

import (
	"encoding/base64"
	"encoding/pem"
	"os"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/internal/rest/actions/actiontest"
	"github.com/takodeploy/tako/internal/rest/actions/library"
	"github.com/takodeploy/tako/octopus"
)

const home ident.SpaceID = "Spaces-1"

func each(t *testing.T, fn func(t *testing.T, w *actiontest.World)) {
	t.Helper()
	actiontest.Each(t, func(w *actiontest.World) []rest.Route { return library.Routes(w.DB, w.Store) }, fn)
}

// encoded is a certificate's file in base64.
func encoded(t *testing.T, name string) string {
	t.Helper()
	data, err := os.ReadFile("../../../certificate/testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return base64.StdEncoding.EncodeToString(data)
}

func TestCertificates(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *actiontest.World) {
		pfx := `"CertificateData":{"HasValue":true,"NewValue":"` + encoded(t, "site.pfx") + `"},"Password":{"HasValue":true,"NewValue":"hush-pfx"}`
		w.Refused(400, "POST", "/api/certificates", `{"Name":"Site"}`, "CertificateData is empty")
		w.Refused(400, "POST", "/api/certificates", `{"Name":"Site","CertificateData":{"NewValue":"*"}}`, "no base64")
		w.Refused(400, "POST", "/api/certificates", strings.Replace(`{"Name":"Site",`+pfx+`}`, "hush-pfx", "no", 1), "does not open the file")
		id := w.Create("/api/certificates", `{"Name":"Site",`+pfx+`,"Thumbprint":"AA","IsExpired":true}`)
		at := "/api/certificates/" + id
		var c octopus.Certificate
		w.Get(at).Into(&c)
		if c.Thumbprint != "4DD9F93946DFC9A9C11B470748B6028A1B96B95B" || !c.HasPrivateKey || !c.SelfSigned || c.IsExpired || c.CertificateDataFormat != octopus.CertificatePKCS12 ||
			c.SubjectCommonName != "www.example.com" || c.SubjectOrganization != "Acme" || len(c.SubjectAlternativeNames) != 2 || c.CertificateData.NewValue != nil || !c.Password.HasValue {
			t.Errorf("the certificate is %+v", c)
		}

		// A change without a file keeps it.
		w.Must(200, "PUT", at, `{"Name":"Site","Notes":"n","CertificateData":{"HasValue":true},"Password":{"HasValue":true}}`).Into(&c)
		if c.Notes != "n" || !c.HasPrivateKey || c.SerialNumber != "06964F17863D149B574F28A9DBA53FD98A8CD5FA" {
			t.Errorf("after a change it is %+v", c)
		}

		// The key comes out for those only who may have it.
		reader := w.Person(actiontest.Role{Space: home, Permissions: []string{"CertificateView"}})
		exporter := w.Person(actiontest.Role{Space: home, Permissions: []string{"CertificateView", "CertificateExportPrivateKey"}})
		for _, one := range []struct {
			key, query string
			status     int
			blocks     []string
		}{
			{reader, "", 200, []string{"CERTIFICATE"}},
			{reader, "?includePrivateKey=true", 403, nil},
			{reader, "?format=Original", 403, nil},
			{exporter, "?includePrivateKey=true", 200, []string{"CERTIFICATE", "PRIVATE KEY"}},
			{exporter, "?format=Der&includePrivateKey=true", 400, nil},
			{exporter, "?format=Odd", 400, nil},
		} {
			a := w.MustAs(one.key, one.status, "GET", at+"/export"+one.query, "")
			data := []byte(a.Body)
			for _, want := range one.blocks {
				var block *pem.Block
				if block, data = pem.Decode(data); block == nil || block.Type != want {
					t.Errorf("%s has no %s", one.query, want)
				}
			}
			if one.status == 200 && len(strings.TrimSpace(string(data))) > 0 {
				t.Errorf("%s has more: %s", one.query, data)
			}
		}
		if a := w.MustAs(exporter, 200, "GET", at+"/export?format=original", ""); base64.StdEncoding.EncodeToString([]byte(a.Body)) != encoded(t, "site.pfx") {
			t.Error("the original is another file")
		}
	})
}

// TestReplace: the id stays with the new file, the old one goes to the archive.
func TestReplace(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, w *actiontest.World) {
		id := w.Create("/api/certificates", `{"Name":"Site","CertificateData":{"NewValue":"`+encoded(t, "site.pfx")+`"},"Password":{"NewValue":"hush-pfx"}}`)
		at := "/api/certificates/" + id
		w.Refused(400, "POST", at+"/replace", `{"CertificateData":"`+encoded(t, "site.pem")+`"}`, "there already")
		other := encoded(t, "other.pem")
		var c octopus.Certificate
		w.Must(200, "POST", at+"/replace", `{"CertificateData":"`+other+`"}`).Into(&c)
		if c.ID != id || c.SubjectCommonName != "other.example.com" || c.HasPrivateKey || c.Password.HasValue || c.CertificateDataFormat != octopus.CertificatePEM || !c.IsExpired {
			t.Errorf("replaced: %+v", c)
		}
		var page octopus.Page[octopus.Certificate]
		w.Get("/api/certificates?archived=true").Into(&page)
		if len(page.Items) != 1 || page.Items[0].ReplacedBy != octopus.NullString(id) || page.Items[0].Archived == nil || page.Items[0].SubjectCommonName != "www.example.com" {
			t.Fatalf("the archive has %+v", page.Items)
		}
		old := "/api/certificates/" + page.Items[0].ID
		if a := w.Get(old + "/export?format=original"); base64.StdEncoding.EncodeToString([]byte(a.Body)) != encoded(t, "site.pfx") {
			t.Error("the archived file is another one")
		}
		w.Refused(409, "POST", old+"/unarchive", "", "stays in the archive")
		w.Refused(409, "POST", old+"/replace", `{"CertificateData":"`+other+`"}`, "is archived")

		w.Must(200, "POST", at+"/archive", "")
		w.Get("/api/certificates?archived=false").Into(&page)
		if len(page.Items) != 0 {
			t.Errorf("not archived are %+v", page.Items)
		}
		w.Must(200, "POST", at+"/unarchive", "")
		w.Get("/api/certificates?archived=false&search=SIT").Into(&page)
		if len(page.Items) != 1 || page.Items[0].ID != id || page.Items[0].IsArchived || !page.Items[0].IsExpired {
			t.Errorf("not archived are %+v", page.Items)
		}
		var all []octopus.Certificate
		w.Get("/api/certificates/all").Into(&all)
		if len(all) != 2 {
			t.Errorf("all are %+v", all)
		}
	})
}
