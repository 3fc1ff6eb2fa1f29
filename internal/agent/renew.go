package agent

import (
	"context"
	"errors"
	"fmt"
	"io"
)

// Renewing is an agent that may go away and come back, behind another client each
// time. Every call is made again, once, when it was not answered: calls of an agent may
// be repeated with the same ticket.
type Renewing struct {
	// Current returns the client to call. A client that failed is given as stale: the
	// agent is then looked for, and started where that is possible. It is called by many.
	Current func(ctx context.Context, stale *Client) (*Client, error)
}

var (
	_ API    = (*Renewing)(nil)
	_ Deltas = (*Renewing)(nil)
)

// again makes a call, and once more when the agent was not there or went away before
// it answered. An error of the second call keeps what is known of the first, which may
// have been acted upon.
func again[T any](ctx context.Context, r *Renewing, call func(*Client) (T, error)) (T, error) {
	client, err := r.Current(ctx, nil)
	if err != nil {
		var none T
		return none, errors.Join(ErrNotSent, err)
	}
	v, err := call(client)
	if err == nil || ctx.Err() != nil || !errors.Is(err, ErrNotSent) && !errors.Is(err, ErrUnanswered) {
		return v, err
	}
	fresh, renewErr := r.Current(ctx, client)
	if renewErr != nil {
		return v, errors.Join(err, renewErr)
	}
	v, second := call(fresh)
	if second == nil || errors.Is(err, ErrNotSent) || !errors.Is(second, ErrNotSent) {
		return v, second
	}
	return v, errors.Join(err, second)
}

// Hello implements API.
func (r *Renewing) Hello(ctx context.Context) (Hello, error) {
	return again(ctx, r, func(c *Client) (Hello, error) { return c.Hello(ctx) })
}

// StartScript implements Scripts.
func (r *Renewing) StartScript(ctx context.Context, req StartRequest) (Status, error) {
	return again(ctx, r, func(c *Client) (Status, error) { return c.StartScript(ctx, req) })
}

// GetStatus implements Scripts.
func (r *Renewing) GetStatus(ctx context.Context, req StatusRequest) (Status, error) {
	return again(ctx, r, func(c *Client) (Status, error) { return c.GetStatus(ctx, req) })
}

// CancelScript implements Scripts.
func (r *Renewing) CancelScript(ctx context.Context, req StatusRequest) (Status, error) {
	return again(ctx, r, func(c *Client) (Status, error) { return c.CancelScript(ctx, req) })
}

// CompleteScript implements Scripts.
func (r *Renewing) CompleteScript(ctx context.Context, ticket Ticket) error {
	_, err := again(ctx, r, func(c *Client) (struct{}, error) { return struct{}{}, c.CompleteScript(ctx, ticket) })
	return err
}

// DownloadFile implements Files.
func (r *Renewing) DownloadFile(ctx context.Context, path string) (io.ReadCloser, error) {
	return again(ctx, r, func(c *Client) (io.ReadCloser, error) { return c.DownloadFile(ctx, path) })
}

// UploadFile implements Files. Content that can be read again is, where that is needed.
func (r *Renewing) UploadFile(ctx context.Context, path string, content io.Reader) (Uploaded, error) {
	rewound := rewinder(content, "file")
	return again(ctx, r, func(c *Client) (Uploaded, error) {
		if err := rewound(); err != nil {
			return Uploaded{}, err
		}
		return c.UploadFile(ctx, path, content)
	})
}

// HasPackage implements Packages.
func (r *Renewing) HasPackage(ctx context.Context, sha256 string) (bool, error) {
	return again(ctx, r, func(c *Client) (bool, error) { return c.HasPackage(ctx, sha256) })
}

// PutPackage implements Packages. Content that can be read again is, where that is needed.
func (r *Renewing) PutPackage(ctx context.Context, sha256 string, size int64, content io.Reader) error {
	return r.send(ctx, content, "package", func(c *Client) error { return c.PutPackage(ctx, sha256, size, content) })
}

// ApplyDelta implements Deltas. A delta that can be read again is, where that is needed.
func (r *Renewing) ApplyDelta(ctx context.Context, base, target string, size int64, delta io.Reader, deltaSize int64) error {
	return r.send(ctx, delta, "delta", func(c *Client) error { return c.ApplyDelta(ctx, base, target, size, delta, deltaSize) })
}

func (r *Renewing) send(ctx context.Context, content io.Reader, what string, call func(*Client) error) error {
	rewound := rewinder(content, what)
	_, err := again(ctx, r, func(c *Client) (struct{}, error) {
		if err := rewound(); err != nil {
			return struct{}{}, err
		}
		return struct{}{}, call(c)
	})
	return err
}

// rewinder returns a function that makes content ready to be sent: at once the first
// time, from its beginning when it is sent again.
func rewinder(content io.Reader, what string) func() error {
	calls := 0
	return func() error {
		if calls++; calls == 1 {
			return nil
		}
		from, ok := content.(io.Seeker)
		if !ok {
			return fmt.Errorf("send a %s again: %w", what, ErrUnanswered)
		}
		if _, err := from.Seek(0, io.SeekStart); err != nil {
			return fmt.Errorf("read a %s again: %w", what, err)
		}
		return nil
	}
}
