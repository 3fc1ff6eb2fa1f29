package instance

import (
	"bufio"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"time"

	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/halibut"
)

// maxAnswer is what a proxy may say before there is a connection, in bytes.
const maxAnswer = 64 << 10

// proxyPort is that of a proxy whose URL names none.
const proxyPort = "80"

// through dials by way of an HTTP proxy; nil, which is directly, for none.
func through(proxy *url.URL) halibut.DialFunc {
	if proxy == nil {
		return nil
	}
	port := proxy.Port()
	if port == "" {
		port = proxyPort
	}
	at := net.JoinHostPort(proxy.Hostname(), port)
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		c, err := egress.Dialer(net.Dialer{})(ctx, network, at)
		if err != nil {
			return nil, fmt.Errorf("reach the proxy %s: %w", at, err)
		}
		stop := context.AfterFunc(ctx, func() { _ = c.SetDeadline(time.Unix(1, 0)) })
		err = tunnel(c, proxy.User, addr)
		if !stop() && err == nil {
			err = ctx.Err()
		}
		if err != nil {
			_ = c.Close()
			return nil, fmt.Errorf("through the proxy %s to %s: %w", at, addr, err)
		}
		return c, nil
	}
}

// tunnel asks a proxy to connect to addr.
func tunnel(c net.Conn, user *url.Userinfo, addr string) error {
	req := &http.Request{Method: http.MethodConnect, URL: &url.URL{Opaque: addr}, Host: addr, Header: http.Header{}}
	if user != nil {
		password, _ := user.Password()
		req.Header.Set("Proxy-Authorization", "Basic "+base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password)))
	}
	if err := req.Write(c); err != nil {
		return err
	}
	// Nothing follows the answer until we speak: a reader takes nothing too much.
	resp, err := http.ReadResponse(bufio.NewReader(io.LimitReader(c, maxAnswer)), req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("it answers %s", resp.Status)
	}
	return nil
}
