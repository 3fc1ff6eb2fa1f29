package dashboard

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/rest"
	"github.com/takodeploy/tako/octopus"
)

// stream is a dashboard that is written while it is read: what is in memory are
// the deployments of atOnce projects. It is JSON as that of the whole value.
type stream struct {
	b    *board
	text bytes.Buffer // written, not yet read
	// parts are what is still to be written, in order.
	parts []func() error
}

// stream answers with the dashboard as a stream. The places of the items in the
// frame's JSON are found by a mark that no document can hold.
func (b *board) stream() (any, error) {
	frame := b.out
	frame.Items, frame.PreviousItems = nil, nil
	body, err := json.Marshal(frame)
	if err != nil {
		return nil, fmt.Errorf("encode the dashboard: %w", err)
	}
	rest1, ok := bytes.CutSuffix(body, []byte("}"))
	empty := []byte(`"Items":[],"PreviousItems":[],`)
	at := bytes.LastIndex(rest1, empty)
	if !ok || at < 0 {
		return nil, fmt.Errorf("the dashboard's JSON has no place for its items")
	}
	s := &stream{b: b}
	write := func(text []byte) func() error {
		return func() error {
			s.text.Write(text)
			return nil
		}
	}
	s.parts = append(s.parts, write(append(bytes.Clone(body[:at]), `"Items":[`...)))
	s.parts = append(s.parts, s.items(false)...)
	s.parts = append(s.parts, write([]byte(`],"PreviousItems":[`)))
	if b.w.previous {
		s.parts = append(s.parts, s.items(true)...)
	}
	s.parts = append(s.parts, write(append([]byte(`],`), body[at+len(empty):]...)))
	return rest.Raw{ContentType: "application/json; charset=utf-8", Content: s}, nil
}

// items are the parts of one of the lists.
func (s *stream) items(previous bool) (parts []func() error) {
	first := true
	for from := 0; from < len(s.b.projects); from += atOnce {
		some := s.b.projects[from:min(from+atOnce, len(s.b.projects))]
		parts = append(parts, func() error {
			var items []octopus.DashboardItem
			ctx := s.b.r.Context()
			err := s.b.a.db.Read(ctx, func(tx *db.Tx) (err error) {
				items, err = s.b.items(ctx, tx, some, previous)
				return err
			})
			if err != nil {
				return err
			}
			for i := range items {
				if !first {
					s.text.WriteByte(',')
				}
				first = false
				body, err := json.Marshal(&items[i])
				if err != nil {
					return fmt.Errorf("encode the dashboard: %w", err)
				}
				s.text.Write(body)
			}
			return nil
		})
	}
	return parts
}

// Read writes as much as is asked for.
func (s *stream) Read(p []byte) (int, error) {
	for s.text.Len() == 0 {
		if len(s.parts) == 0 {
			return 0, io.EOF
		}
		part := s.parts[0]
		s.parts = s.parts[1:]
		if err := part(); err != nil {
			return 0, err
		}
	}
	return s.text.Read(p)
}
