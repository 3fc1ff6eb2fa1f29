package rest

import (
	"net/url"
	"strconv"
	"strings"

	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/octopus"
)

// PageOf makes the envelope of one page of a list: items, of total in all. Its
// links repeat the request's other query values. They are literal and encoded,
// since some clients take them for templates.
func PageOf[T any](r *Request, itemType string, p ident.Page, total int64, items []T) octopus.Page[T] {
	p = p.Clamp()
	last := max(0, (total-1)/p.Take)
	path := r.path()
	kept := url.Values{}
	for _, q := range r.query {
		switch strings.ToLower(q.name) {
		case "skip", "take", "apikey": // a key must not end up in a link
		default:
			kept.Add(q.name, q.value)
		}
	}
	rest := kept.Encode()
	if rest != "" {
		rest = "&" + rest
	}
	link := func(skip, take int64) string {
		return path + "?skip=" + strconv.FormatInt(skip, 10) + "&take=" + strconv.FormatInt(take, 10) + rest
	}
	links := octopus.Links{
		"Self":         link(p.Skip, p.Take),
		"Template":     path + "{?skip,take,ids,partialName}",
		"Page.All":     link(0, 1<<31-1),
		"Page.Current": link(p.Skip, p.Take),
		"Page.Last":    link(last*p.Take, p.Take),
	}
	if next := p.Skip + p.Take; next < total {
		links["Page.Next"] = link(next, p.Take)
	}
	return octopus.Page[T]{
		ItemType: itemType, TotalResults: total, ItemsPerPage: p.Take,
		NumberOfPages: last + 1, LastPageNumber: last,
		Items: items, Links: links,
	}
}
