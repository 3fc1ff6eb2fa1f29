// Package openapitest holds real answers of a server against the OpenAPI document
// that the same server gives out, so that the document cannot say what is not so.
package openapitest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"
)

// Checker knows a server's document.
type Checker struct {
	t    testing.TB
	doc  *openapi3.T
	base string
}

// Load reads and validates a document.
func Load(t testing.TB, document []byte) *Checker {
	t.Helper()
	doc, err := openapi3.NewLoader().LoadFromData(document)
	if err == nil {
		err = doc.Validate(context.Background())
	}
	if err != nil {
		t.Fatalf("the OpenAPI document is not valid: %v", err)
	}
	c := &Checker{t: t, doc: doc}
	if len(doc.Servers) > 0 {
		c.base = strings.TrimRight(doc.Servers[0].URL, "/")
	}
	return c
}

// Transport checks every answer that passes through it.
func (c *Checker) Transport(next http.RoundTripper) http.RoundTripper {
	return transport{c, next}
}

type transport struct {
	c    *Checker
	next http.RoundTripper
}

// RoundTrip sends a request and checks its answer.
func (t transport) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := t.next.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	if media, _, _ := mime.ParseMediaType(resp.Header.Get("Content-Type")); media != "application/json" || req.Method == http.MethodHead {
		return resp, nil
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if err := resp.Body.Close(); err != nil {
		return nil, err
	}
	resp.Body = io.NopCloser(bytes.NewReader(body))
	if err := t.c.Check(req, resp.StatusCode, body); err != nil {
		t.c.t.Errorf("%s %s: status %d: %v\n%.2000s", req.Method, req.URL.Path, resp.StatusCode, err, body)
	}
	return resp, nil
}

// Check compares one answer in JSON with what the document says of it. A path
// that the document does not have must be an error.
func (c *Checker) Check(req *http.Request, status int, body []byte) error {
	op, path := c.operation(req)
	if op == nil {
		if status < 400 {
			return fmt.Errorf("the document has no %s for it", req.Method)
		}
		return nil
	}
	ref := op.Responses.Value(strconv.Itoa(status))
	if ref == nil && status < 300 {
		return fmt.Errorf("%s: the document has no status %d", path, status)
	}
	if ref == nil {
		ref = op.Responses.Default()
	}
	if ref == nil || ref.Value == nil {
		return fmt.Errorf("%s: the document has no answer for status %d", path, status)
	}
	media := ref.Value.Content.Get("application/json")
	if media == nil || media.Schema == nil {
		return fmt.Errorf("%s: the document has no JSON for status %d", path, status)
	}
	var value any
	if err := json.Unmarshal(body, &value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	if err := media.Schema.Value.VisitJSON(value, openapi3.MultiErrors()); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// operation finds what serves a request. The document has each operation at one
// path; its other spellings are the same without the space, and with /spaces
// before it.
func (c *Checker) operation(req *http.Request) (*openapi3.Operation, string) {
	path := strings.TrimPrefix(req.URL.EscapedPath(), c.base)
	segments := strings.FieldsFunc(path, func(r rune) bool { return r == '/' })
	spellings := [][]string{segments}
	if len(segments) > 1 && strings.EqualFold(segments[0], "api") {
		spellings = append(spellings, append([]string{"api", "{space}"}, segments[1:]...))
		if strings.EqualFold(segments[1], "spaces") {
			spellings = append(spellings, append([]string{"api"}, segments[2:]...))
		}
	}
	method := req.Method
	if method == http.MethodHead {
		method = http.MethodGet
	}
	var best *openapi3.Operation
	bestPath, bestScore := "", -1
	for pattern, item := range c.doc.Paths.Map() {
		op := item.GetOperation(method)
		if op == nil {
			continue
		}
		for _, s := range spellings {
			if score := fit(pattern, s); score > bestScore {
				best, bestPath, bestScore = op, pattern, score
			}
		}
	}
	return best, bestPath
}

// fit scores a pattern by its words from the left; -1 is none.
func fit(pattern string, segments []string) int {
	parts := strings.FieldsFunc(pattern, func(r rune) bool { return r == '/' })
	if len(parts) != len(segments) {
		return -1
	}
	score := 0
	for i, p := range parts {
		score *= 3
		switch {
		case !strings.HasPrefix(p, "{"):
			if !strings.EqualFold(p, segments[i]) {
				return -1
			}
			score += 2
		case p == "{space}":
			score++
		}
	}
	return score
}
