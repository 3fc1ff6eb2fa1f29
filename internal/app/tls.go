package app

import (
	"crypto/tls"
	"fmt"
	"os"
	"sync"
	"time"
)

// certificates reads a certificate again when its files change, so that renewing
// one takes no restart.
type certificates struct {
	cert, key string
	mu        sync.Mutex
	loaded    *tls.Certificate
	at        time.Time // of the newer file
	checked   time.Time
}

// checkEvery is how often the files are looked at, at most.
const checkEvery = 5 * time.Second

func loadCertificates(cert, key string) (*certificates, error) {
	if cert == "" {
		return nil, nil //nolint:nilnil // no TLS is an answer
	}
	c := &certificates{cert: cert, key: key}
	_, err := c.current()
	return c, err
}

func (c *certificates) config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		NextProtos: []string{"http/1.1"},
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return c.current()
		},
	}
}

// current is the certificate on disk, or the last good one while what is there
// cannot be read.
func (c *certificates) current() (*tls.Certificate, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.loaded != nil && time.Since(c.checked) < checkEvery {
		return c.loaded, nil
	}
	c.checked = time.Now()
	at := c.modified()
	if c.loaded != nil && at.Equal(c.at) {
		return c.loaded, nil
	}
	pair, err := tls.LoadX509KeyPair(c.cert, c.key)
	switch {
	case err == nil:
		c.loaded, c.at = &pair, at
	case c.loaded == nil:
		return nil, fmt.Errorf("load the TLS certificate: %w", err)
	}
	return c.loaded, nil
}

func (c *certificates) modified() time.Time {
	var newest time.Time
	for _, path := range []string{c.cert, c.key} {
		if info, err := os.Stat(path); err == nil && info.ModTime().After(newest) {
			newest = info.ModTime()
		}
	}
	return newest
}
