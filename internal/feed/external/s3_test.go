package external_test

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/xml"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/feed/external"
	"github.com/takodeploy/tako/octopus"
)

const accessKey, region = "AKIATESTS", "eu-west-1"

// signed tells whether a request has a signature, version 4, by the feed's secret key.
func signed(r *http.Request) bool {
	_, fields, _ := strings.Cut(r.Header.Get("Authorization"), "SignedHeaders=")
	names, got, _ := strings.Cut(fields, ", Signature=")
	text := r.Method + "\n" + r.URL.EscapedPath() + "\n" + strings.ReplaceAll(r.URL.Query().Encode(), "+", "%20") + "\n"
	for name := range strings.SplitSeq(names, ";") {
		value := r.Header.Get(name)
		if name == "host" {
			value = r.Host
		}
		text += name + ":" + value + "\n"
	}
	text += "\n" + names + "\n" + r.Header.Get("X-Amz-Content-Sha256")
	at := r.Header.Get("X-Amz-Date")
	key := []byte("AWS4" + password)
	scope := []string{at[:min(8, len(at))], region, "s3", "aws4_request"}
	for _, part := range append(scope, "AWS4-HMAC-SHA256\n"+at+"\n"+strings.Join(scope, "/")+"\n"+sha(text)) {
		mac := hmac.New(sha256.New, key)
		mac.Write([]byte(part))
		key = mac.Sum(nil)
	}
	return hex.EncodeToString(key) == got
}

type s3Object struct {
	Key, LastModified, ETag string
	Size                    int
}

// s3 is a store with one bucket, which lists two objects at a time.
func s3(t testing.TB, objects map[string]string) string {
	t.Helper()
	var keys []string
	for key := range objects {
		keys = append(keys, key)
	}
	slices.Sort(keys)
	return serve(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		refuse := func(status int, code string) {
			w.Header().Set("Content-Type", "application/xml")
			w.WriteHeader(status)
			_, _ = w.Write([]byte("<Error><Code>" + code + "</Code><Message>no</Message></Error>"))
		}
		if !strings.Contains(r.Header.Get("Authorization"), "Credential="+accessKey+"/") || !signed(r) {
			refuse(http.StatusForbidden, "SignatureDoesNotMatch")
			return
		}
		key, ok := strings.CutPrefix(r.URL.Path, "/releases/")
		if !ok {
			refuse(http.StatusNotFound, "NoSuchBucket")
			return
		}
		if key != "" {
			w.Header().Set("ETag", `"x"`)
			w.Header().Set("Last-Modified", "Fri, 02 Jan 2026 03:04:05 GMT")
			if content, ok := objects[key]; ok {
				_, _ = w.Write([]byte(content))
			} else {
				refuse(http.StatusNotFound, "NoSuchKey")
			}
			return
		}
		var list struct {
			XMLName               xml.Name `xml:"ListBucketResult"`
			Name                  string
			IsTruncated           bool
			NextContinuationToken string `xml:",omitempty"`
			Contents              []s3Object
		}
		list.Name = "releases"
		for _, k := range keys {
			if k <= r.FormValue("continuation-token") || !strings.HasPrefix(k, r.FormValue("prefix")) {
				continue
			}
			if len(list.Contents) == 2 {
				list.IsTruncated, list.NextContinuationToken = true, list.Contents[1].Key
				break
			}
			list.Contents = append(list.Contents, s3Object{k, "2026-01-02T03:04:05Z", `"x"`, len(objects[k])})
		}
		w.Header().Set("Content-Type", "application/xml")
		check(t, xml.NewEncoder(w).Encode(list))
	}))
}

func TestS3(t *testing.T) {
	t.Parallel()
	w := newWorld(t, dbtest.Open(t, db.SQLite), external.Config{})
	uri := s3(t, map[string]string{
		"web/Acme.Web.1.9.0.zip": "nine", "web/Acme.Web.1.10.0.tar.gz": "ten", "web/Acme.Web.2.0.0-beta.zip": "beta",
		"web/Acme.Web.Api.1.0.0.zip": "api", "Other.1.0.0.zip": "other", "web/notes.txt": "none",
	})
	store := func(name, key, secretKey string) (id string) {
		t.Helper()
		sensitive := octopus.NewSensitive(secretKey)
		check(t, w.db.Write(t.Context(), func(tx *db.Tx) (err error) {
			id, err = w.store.In(tx).Create(t.Context(), "feeds", w.space, "", &octopus.Feed{Name: name, FeedType: octopus.FeedS3, FeedURI: uri, Region: region, AccessKey: key, SecretKey: &sensitive})
			return err
		}))
		return id
	}
	id := store("Store", accessKey, password)
	same(t, "all", []string{"2.0.0-beta", "1.10.0", "1.9.0"}, w.list(id, external.Query{PackageID: "releases/web/Acme.Web"}))
	same(t, "of nothing", []string(nil), w.list(id, external.Query{PackageID: "releases/None"}))
	same(t, "of no bucket", []string(nil), w.list(id, external.Query{PackageID: "none/None"}))
	w.fetched(id, "releases/web/Acme.Web", "1.10.0", "Acme.Web.1.10.0.tar.gz", "ten")
	w.fetched(id, "releases/Other", "1.0.0", "Other.1.0.0.zip", "other")
	w.absent(id, "releases/web/Acme.Web", "3.0.0")
	found, err := w.Search(t.Context(), w.space, id, "releases/acme")
	check(t, err)
	same(t, "search", []external.Description{{ID: "releases/web/Acme.Web"}, {ID: "releases/web/Acme.Web.Api"}}, found)
	_, err = w.Versions(t.Context(), w.space, store("Wrong", accessKey, "another secret"), external.Query{PackageID: "releases/Other"})
	if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), "'Wrong' refuses its credentials (403)") || strings.Contains(err.Error(), "another secret") {
		t.Errorf("a wrong secret key: %v", err)
	}
}
