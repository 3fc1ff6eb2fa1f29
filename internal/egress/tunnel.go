package egress

import (
	"bufio"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// HTTPProxy is a proxy that connects to others for us (the method CONNECT). The zero
// value is none.
type HTTPProxy struct {
	Name               string // for messages
	Addr               string // host:port
	Username, Password string // both "" where it asks for nobody's name
}

// String is for messages, without the password.
func (p HTTPProxy) String() string {
	if p.Name == "" {
		return "the proxy " + p.Addr
	}
	return "the proxy " + p.Name + " (" + p.Addr + ")"
}

// maxHead is what a proxy may say before there is a connection, in bytes.
const maxHead = 64 << 10

// RefusedError says that a proxy does not connect to somebody.
type RefusedError struct {
	Proxy, To string
	Reason    string // what it answers
}

// Error names proxy, address and reason.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("%s does not connect to %s: %s", e.Proxy, e.To, e.Reason)
}

// DownError says that a proxy itself cannot be reached, whoever was to be reached by it.
type DownError struct {
	Proxy string
	Err   error // of the dialer
}

// Error names the proxy and the reason.
func (e *DownError) Error() string { return fmt.Sprintf("reach %s: %v", e.Proxy, e.Err) }

// Unwrap is the dialer's error.
func (e *DownError) Unwrap() error { return e.Err }

// Through gives a function that dials by way of a proxy, which d dials. The context
// bounds both. A process in quarantine uses no proxy: what is behind one is elsewhere.
func Through(p HTTPProxy, d net.Dialer) DialFunc {
	dial := Dialer(d)
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		if Quarantined() {
			return nil, &net.OpError{Op: "dial", Net: network, Err: fmt.Errorf("%w, and not through %s", ErrQuarantined, p)}
		}
		c, err := dial(ctx, network, p.Addr)
		if err != nil {
			return nil, &DownError{Proxy: p.String(), Err: err}
		}
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		through, err := p.tunnel(c, address)
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = c.Close()
			if ctx.Err() != nil {
				err = ctx.Err() // and not the deadline that it set
			}
			var refused *RefusedError
			if errors.As(err, &refused) {
				return nil, err
			}
			return nil, fmt.Errorf("through %s to %s: %w", p, address, err)
		}
		return through, nil
	}
}

// tunnel asks the proxy at the other end of c to connect to an address.
func (p HTTPProxy) tunnel(c net.Conn, address string) (net.Conn, error) {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: address}, Host: address, Header: http.Header{}}
	if p.Username != "" || p.Password != "" {
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(p.Username+":"+p.Password)))
	}
	if err := req.Write(c); err != nil {
		return nil, err
	}
	head := &io.LimitedReader{R: c, N: maxHead}
	r := bufio.NewReaderSize(head, 4096)
	resp, err := http.ReadResponse(r, req)
	if err != nil {
		// Nothing of it is told: whoever may name a proxy could have us read to them what
		// some other service says.
		return nil, &RefusedError{Proxy: p.String(), To: address, Reason: "its answer is none of HTTP"}
	}
	_ = resp.Body.Close() // there is none where it connects, and nobody wants it elsewhere
	switch {
	case resp.StatusCode == http.StatusProxyAuthRequired && req.Header.Get("Proxy-Authorization") == "":
		return nil, &RefusedError{Proxy: p.String(), To: address, Reason: "it wants a user name and a password"}
	case resp.StatusCode == http.StatusProxyAuthRequired:
		return nil, &RefusedError{Proxy: p.String(), To: address, Reason: "it does not take the user name and the password"}
	case resp.StatusCode/100 != 2:
		return nil, &RefusedError{Proxy: p.String(), To: address, Reason: "it answers " + status(resp.StatusCode)}
	}
	// The other side may have spoken already.
	early := make([]byte, r.Buffered())
	if _, err := io.ReadFull(r, early); err != nil {
		return nil, err
	}
	if len(early) == 0 {
		return c, nil
	}
	return &spoken{Conn: c, early: early}, nil
}

// status is an answer in words of ours: its own may be anything.
func status(code int) string {
	return strings.TrimSpace(strconv.Itoa(code) + " " + http.StatusText(code))
}

// spoken is a connection whose first bytes were read already.
type spoken struct {
	net.Conn
	early []byte
}

// Read takes what was read already first. It is for one reader, as those of connections are.
func (s *spoken) Read(p []byte) (int, error) {
	if len(s.early) == 0 {
		return s.Conn.Read(p)
	}
	n := copy(p, s.early)
	s.early = s.early[n:]
	return n, nil
}
