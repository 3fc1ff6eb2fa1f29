package rest

import (
	"errors"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
)

// Bounds of a query string.
const (
	maxParams = 200
	maxList   = 5000 // values of one parameter
)

type param struct{ name, value string }

// parseQuery fills r.query, before the handler runs. Names are compared without
// case later, as clients spell them in several ways.
func (r *Request) parseQuery() error {
	raw := r.URL.RawQuery
	for raw != "" {
		var pair string
		pair, raw, _ = strings.Cut(raw, "&")
		if pair == "" {
			continue
		}
		name, value, _ := strings.Cut(pair, "=")
		name, errName := url.QueryUnescape(name)
		value, errValue := url.QueryUnescape(value)
		if err := errors.Join(errName, errValue); err != nil || !isText(name) || !isText(value) {
			return fault.New(fault.Invalid, "The query string cannot be decoded at '%.60s'; percent-encode it as UTF-8.", strings.ToValidUTF8(name, "?"))
		}
		if len(r.query) == maxParams {
			return fault.New(fault.Invalid, "The query string has more than %d parameters; send fewer.", maxParams)
		}
		r.query = append(r.query, param{name, value})
	}
	return nil
}

// Query returns the first value of a query parameter, "" when there is none.
func (r *Request) Query(name string) string {
	for _, p := range r.query {
		if strings.EqualFold(p.name, name) {
			return p.value
		}
	}
	return ""
}

// HasQuery reports whether a query parameter is there with a value.
func (r *Request) HasQuery(name string) bool { return r.Query(name) != "" }

// QueryList returns the values of a parameter, which may be repeated and may
// hold several between commas. It is nil when the parameter is absent or empty.
func (r *Request) QueryList(name string) ([]string, error) {
	var all []string
	for _, p := range r.query {
		if !strings.EqualFold(p.name, name) {
			continue
		}
		for v := range strings.SplitSeq(p.value, ",") {
			if v = strings.TrimSpace(v); v != "" {
				all = append(all, v)
			}
			if len(all) > maxList {
				return nil, fault.InvalidField(name, "%s has more than %d values; ask in several requests.", name, maxList)
			}
		}
	}
	return all, nil
}

// QueryBool reads true or false; def when the parameter is absent or empty.
func (r *Request) QueryBool(name string, def bool) (bool, error) {
	switch v := r.Query(name); strings.ToLower(v) {
	case "":
		return def, nil
	case "true", "1":
		return true, nil
	case "false", "0":
		return false, nil
	default:
		return false, fault.InvalidField(name, "%s is '%.60s'; it must be true or false.", name, v)
	}
}

// QueryInt reads a whole number of 0 or more; def when the parameter is absent
// or empty. A number that is too large for an int64 is the largest.
func (r *Request) QueryInt(name string, def int64) (int64, error) {
	v := r.Query(name)
	if v == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(v, 10, 64)
	if errors.Is(err, strconv.ErrRange) && n > 0 {
		err = nil
	}
	if err != nil || n < 0 {
		return 0, fault.InvalidField(name, "%s is '%.60s'; it must be a whole number, 0 or more.", name, v)
	}
	return n, nil
}

// QueryTime reads a time of RFC 3339, or a date; the zero time when the
// parameter is absent or empty.
func (r *Request) QueryTime(name string) (time.Time, error) {
	v := r.Query(name)
	if v == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339, "2006-01-02T15:04:05", time.DateOnly} {
		// A plus sign that a client forgot to encode arrives as a blank.
		if t, err := time.Parse(layout, strings.ReplaceAll(v, " ", "+")); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, fault.InvalidField(name, "%s is '%.60s'; it must be a time such as 2026-01-02T03:04:05+00:00.", name, v)
}

// Page reads skip and take: 0 or no take is the default, a large one is cut to
// what a page may hold.
func (r *Request) Page() (ident.Page, error) {
	skip, errSkip := r.QueryInt("skip", 0)
	take, errTake := r.QueryInt("take", 0)
	return ident.Page{Skip: skip, Take: take}.Clamp(), errors.Join(errSkip, errTake)
}
