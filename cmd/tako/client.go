package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"strings"

	"github.com/takodeploy/tako/internal/egress"
)

// client talks to a server as any program outside would.
type client struct{ url, key string }

// apiError is an answer that says no.
type apiError struct {
	Status       int
	ErrorMessage string
	Errors       []string
}

func (e *apiError) Error() string {
	text := e.ErrorMessage
	if len(e.Errors) > 0 {
		text = strings.Join(e.Errors, " ")
	}
	return fmt.Sprintf("the server answered %d: %s", e.Status, text)
}

func (c *client) do(ctx context.Context, method, path, contentType string, body io.Reader) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, c.url+path, body)
	if err != nil {
		return nil, err
	}
	req.Header.Set("X-Octopus-ApiKey", c.key)
	if contentType != "" {
		req.Header.Set("Content-Type", contentType)
	}
	resp, err := egress.Client().Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode/100 == 2 {
		return resp, nil
	}
	defer resp.Body.Close()
	failed := &apiError{Status: resp.StatusCode}
	text, err := io.ReadAll(io.LimitReader(resp.Body, 64*1024))
	if err != nil || json.Unmarshal(text, failed) != nil || failed.ErrorMessage == "" {
		failed.ErrorMessage = strings.TrimSpace(string(text))
	}
	return nil, failed
}

// call sends in as JSON, if it is not nil, and reads the answer into out.
func (c *client) call(ctx context.Context, method, path string, in, out any) error {
	var body io.Reader
	contentType := ""
	if in != nil {
		text, err := json.Marshal(in)
		if err != nil {
			return err
		}
		body, contentType = bytes.NewReader(text), "application/json"
	}
	resp, err := c.do(ctx, method, path, contentType, body)
	if err != nil {
		return fmt.Errorf("%s %s: %w", method, path, err)
	}
	defer resp.Body.Close()
	if out == nil {
		return nil
	}
	if err := json.NewDecoder(resp.Body).Decode(out); err != nil {
		return fmt.Errorf("%s %s: read the answer: %w", method, path, err)
	}
	return nil
}

// upload sends a file as a form.
func (c *client) upload(ctx context.Context, path, name string, content []byte, out any) error {
	var form bytes.Buffer
	w := multipart.NewWriter(&form)
	part, err := w.CreateFormFile("file", name)
	if err != nil {
		return err
	}
	if _, err := part.Write(content); err != nil {
		return err
	}
	if err := w.Close(); err != nil {
		return err
	}
	resp, err := c.do(ctx, http.MethodPost, path, w.FormDataContentType(), &form)
	if err != nil {
		return fmt.Errorf("upload %s: %w", name, err)
	}
	defer resp.Body.Close()
	return json.NewDecoder(resp.Body).Decode(out)
}

// follow calls fn for each server-sent event until the stream ends.
func (c *client) follow(ctx context.Context, path string, fn func(event, data string) error) error {
	resp, err := c.do(ctx, http.MethodGet, path, "", nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	event := ""
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(make([]byte, 64*1024), 4<<20)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch name {
		case "event":
			event = value
		case "data":
			if err := fn(event, value); err != nil {
				return err
			}
		case "":
			event = ""
		}
	}
	return lines.Err()
}
