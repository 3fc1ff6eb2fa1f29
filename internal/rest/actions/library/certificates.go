package library

import (
	"cmp"
	"context"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"reflect"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/certificate"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resources"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

const (
	certificateKind   = "certificates"
	certificateView   = string(octopus.PermCertificateView)
	certificateEdit   = string(octopus.PermCertificateEdit)
	certificateExport = string(octopus.PermCertificateExportPrivateKey)
)

func (a *api) certificateRoutes() []rest.Route {
	one := reflect.TypeFor[octopus.Certificate]()
	text := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.Text, About: about} }
	list := func(name, about string) rest.Param { return rest.Param{Name: name, Type: rest.List, About: about} }
	filters := []rest.Param{
		list("ids", "only these"), text("name", "only the one with this name"), text("partialName", "only those with this in their name"), text("search", "the same as partialName"),
		list("archived", "only those that are archived, or are not"), list("tenant", "only those for one of these tenants"), list("thumbprint", "only those with one of these thumbprints"),
	}
	paged := append([]rest.Param{{Name: "skip", Type: rest.Number, About: "how many to leave out"}, {Name: "take", Type: rest.Number, About: "how many to give; 30 unless said"}}, filters...)
	export := []rest.Param{text("format", "Pem, Der, or Original, which is the file as it came"), {Name: "includePrivateKey", Type: rest.Boolean, About: "with the private key; needs CertificateExportPrivateKey, as the original of a certificate with a key does"}}
	return []rest.Route{
		{Method: http.MethodGet, Pattern: "/certificates", Permission: certificateView, Handler: a.listCertificates, Overrides: true, Response: reflect.TypeFor[octopus.Page[octopus.Certificate]](), Query: paged, Summary: "Lists certificates."},
		{Method: http.MethodGet, Pattern: "/certificates/all", Permission: certificateView, Handler: a.allCertificates, Overrides: true, Response: reflect.SliceOf(one), Query: filters[:4], Summary: "Lists all certificates as a bare array."},
		{Method: http.MethodGet, Pattern: "/certificates/{id}", Permission: certificateView, Handler: a.getCertificate, Overrides: true, Response: one, Summary: "Reads a certificate by id, slug or exact name."},
		{Method: http.MethodPost, Pattern: "/certificates/{id}/archive", Permission: certificateEdit, Handler: a.archive(true), Response: one, Summary: "Archives a certificate: it stays where it is used, and is no longer offered."},
		{Method: http.MethodPost, Pattern: "/certificates/{id}/unarchive", Permission: certificateEdit, Handler: a.archive(false), Response: one, Summary: "Takes a certificate out of the archive."},
		{Method: http.MethodPost, Pattern: "/certificates/{id}/replace", Permission: certificateEdit, Handler: a.replaceCertificate, Body: reflect.TypeFor[octopus.ReplaceCertificateCommand](), Response: one, Summary: "Puts another file in place of a certificate's, which keeps its id; the old one is archived under a new id."},
		{Method: http.MethodGet, Pattern: "/certificates/{id}/export", Permission: certificateView, Handler: a.exportCertificate, ContentType: "application/octet-stream", Query: export, Summary: "Exports a certificate."},
	}
}

// expire says of a certificate, as it is served, whether it has expired by now.
func expire(body json.RawMessage) (json.RawMessage, error) {
	var members map[string]json.RawMessage
	var c struct{ NotAfter octopus.Time }
	if err := json.Unmarshal(body, &members); err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	if err := json.Unmarshal(body, &c); err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	members["IsExpired"] = json.RawMessage("false")
	if time.Now().After(c.NotAfter.Time) {
		members["IsExpired"] = json.RawMessage("true")
	}
	return json.Marshal(members)
}

func (a *api) listCertificates(r *rest.Request) (any, error) {
	answer, err := r.List(certificateKind)
	if err != nil {
		return nil, err
	}
	page, ok := answer.(octopus.Page[json.RawMessage])
	if !ok {
		return nil, fmt.Errorf("the list of certificates is a %T", answer)
	}
	for i := range page.Items {
		if page.Items[i], err = expire(page.Items[i]); err != nil {
			return nil, err
		}
	}
	return page, nil
}

func (a *api) allCertificates(r *rest.Request) (any, error) {
	q := docstore.Query{Space: r.Space, Visible: r.Grants(certificateView), Name: r.Query("name"), PartialName: cmp.Or(r.Query("partialName"), r.Query("search"))}
	if r.HasQuery("ids") {
		var err error
		if q.IDs, err = r.QueryList("ids"); err != nil {
			return nil, err
		}
	}
	return r.All(certificateKind, q, expire)
}

func (a *api) getCertificate(r *rest.Request) (any, error) {
	var doc *docstore.Doc
	err := a.db.Read(r.Context(), func(tx *db.Tx) (err error) {
		doc, err = r.Find(r.Context(), tx, certificateKind, r.PathValue("id"))
		return err
	})
	if err != nil {
		return nil, err
	}
	return answerCertificate(r, doc)
}

func answerCertificate(r *rest.Request, doc *docstore.Doc) (any, error) {
	body, err := r.Render(certificateKind, doc)
	if err != nil {
		return nil, err
	}
	if body, err = expire(body); err != nil {
		return nil, err
	}
	return rest.Tagged{Body: body, Version: doc.Version}, nil
}

func (a *api) archive(is bool) rest.Handler {
	return func(r *rest.Request) (any, error) {
		doc, err := a.change(r, certificateKind, certificateEdit, func(_ context.Context, tx *db.Tx, _ *docstore.Doc, tree map[string]any) error {
			switch {
			case is && tree["Archived"] == nil:
				tree["Archived"] = octopus.NewTime(tx.Now())
			case !is && tree["ReplacedBy"] != nil:
				return fault.New(fault.Conflict, "The certificate '%v' was replaced by '%v' and stays in the archive; add its file as a new one.", tree["Id"], tree["ReplacedBy"])
			case !is:
				tree["Archived"] = nil
			}
			return nil
		})
		if err != nil {
			return nil, err
		}
		return answerCertificate(r, doc)
	}
}

// replaceCertificate keeps the id, so that what refers to it follows.
func (a *api) replaceCertificate(r *rest.Request) (any, error) {
	var in octopus.ReplaceCertificateCommand
	if err := r.Decode(&in); err != nil {
		return nil, err
	}
	// Before the transaction: it may take a moment.
	f, err := resources.ParseCertificate(string(in.CertificateData), string(in.Password))
	if err != nil {
		return nil, err
	}
	thumbprint := certificate.Thumbprint(f.Leaf)
	doc, err := a.change(r, certificateKind, certificateEdit, func(ctx context.Context, tx *db.Tx, doc *docstore.Doc, tree map[string]any) error {
		if tree["Archived"] != nil {
			return fault.New(fault.Conflict, "The certificate '%s' is archived; take it out of the archive to replace it.", doc.ID)
		}
		if tree["Thumbprint"] == thumbprint {
			return fault.InvalidField("CertificateData", "CertificateData is the certificate that is there already; give its successor.")
		}
		old := map[string]any{}
		if err := a.store.Reveal(ctx, tx, certificateKind, doc.ID, &old); err != nil {
			return err
		}
		delete(old, "Id")
		delete(old, "Slug")
		old["Archived"], old["ReplacedBy"] = octopus.NewTime(tx.Now()), doc.ID
		old["Name"] = fmt.Sprintf("%.150s (until %s)", old["Name"], tx.Now().UTC().Format("2006-01-02T15:04:05.000Z"))
		if _, err := a.store.In(tx).Create(ctx, certificateKind, doc.Space, "", old); err != nil {
			return err
		}
		tree["CertificateData"] = octopus.NewSensitive(string(in.CertificateData))
		tree["Password"] = octopus.NewSensitive(string(in.Password))
		return nil
	})
	if err != nil {
		return nil, err
	}
	return answerCertificate(r, doc)
}

func (a *api) exportCertificate(r *rest.Request) (any, error) {
	withKey, err := r.QueryBool("includePrivateKey", false)
	if err != nil {
		return nil, err
	}
	format := strings.ToLower(r.Query("format"))
	if format == "" {
		format = "pem"
	}
	var c octopus.Certificate
	err = a.db.Write(r.Context(), func(tx *db.Tx) error {
		ctx := r.Context()
		doc, err := r.Find(ctx, tx, certificateKind, r.PathValue("id"))
		if err != nil {
			return err
		}
		if err := a.store.Reveal(ctx, tx, certificateKind, doc.ID, &c); err != nil {
			return err
		}
		withKey = c.HasPrivateKey && (withKey || format == "original")
		if !withKey {
			return nil
		}
		if err := r.Must(ctx, tx, certificateKind, doc, certificateExport); err != nil {
			return err
		}
		tx.Event(db.Event{
			Category: "Modified", SpaceID: c.SpaceID, Message: "The private key of certificate " + c.Name + " was exported",
			Related: []string{c.ID}, DocumentType: "Certificate",
		})
		return nil
	})
	if err != nil {
		return nil, err
	}
	data, extension, err := exported(&c, format, withKey)
	if err != nil {
		return nil, err
	}
	return rest.Raw{Content: strings.NewReader(data), Size: int64(len(data)), Name: c.Slug + extension}, nil
}

// exported is a certificate, its secrets in clear, as a file.
func exported(c *octopus.Certificate, format string, withKey bool) (data, extension string, err error) {
	text := func(s octopus.Sensitive) string {
		if s.NewValue == nil {
			return ""
		}
		return *s.NewValue
	}
	encoded := strings.Join(strings.Fields(text(c.CertificateData)), "")
	f, err := resources.ParseCertificate(encoded, text(c.Password))
	if err != nil {
		return "", "", fmt.Errorf("read certificate %s: %w", c.ID, err)
	}
	switch format {
	case "original":
		raw, err := base64.StdEncoding.DecodeString(encoded)
		return string(raw), map[octopus.CertificateFormat]string{octopus.CertificatePKCS12: ".pfx", octopus.CertificateDER: ".cer", octopus.CertificatePEM: ".pem"}[c.CertificateDataFormat], err
	case "pem":
		key := ""
		if withKey {
			if key, err = f.PrivateKeyPEM(); err != nil {
				return "", "", err
			}
		}
		return f.CertificatePEM() + key, ".pem", nil
	case "der":
		if withKey {
			return "", "", fault.InvalidField("format", "The format Der has no place for a private key; use Pem, or Original.")
		}
		return string(f.Leaf.Raw), ".cer", nil
	default:
		return "", "", fault.InvalidField("format", "format is '%.100s'; use Pem, Der or Original.", format)
	}
}
