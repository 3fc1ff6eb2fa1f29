// Package mail sends e-mails through the SMTP server that people have set up.
//
// An e-mail is sent at least once: whoever sends it again, since the answer of the
// server was lost, uses the same Message-ID, by which receivers tell the two apart.
package mail

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/mail"
	"os"
	"slices"
	"strings"
	"time"

	smtp "github.com/wneessen/go-mail"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/docstore"
	"github.com/takodeploy/tako/internal/egress"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/octopus"
)

// kind and id name the one document with the settings.
const (
	kind = "smtpconfiguration"
	id   = "smtp"
)

// MaxRecipients bounds the recipients of one e-mail.
const MaxRecipients = 500

// Priority is how urgent an e-mail is said to be.
type Priority string

// The priorities.
const (
	Low    Priority = "Low"
	Normal Priority = "Normal"
	High   Priority = "High"
)

// Message is an e-mail.
type Message struct {
	// ID is the same whenever the same e-mail is sent again: letters, digits, dots
	// and hyphens.
	ID          string
	To, CC, Bcc []string // addresses, with or without names; together at least one
	Subject     string
	Body        string
	HTML        bool
	Priority    Priority // "" is Normal
}

// Service sends e-mails. It is safe for concurrent use and holds no state.
type Service struct {
	db    *db.DB
	store *docstore.Store
}

// New makes a service.
func New(d *db.DB, store *docstore.Store) *Service { return &Service{d, store} }

// Configured reports whether somebody has said by which server e-mails are sent.
func Configured(ctx context.Context, tx *db.Tx, store *docstore.Store) (bool, error) {
	var c octopus.SMTPConfiguration
	err := store.Load(ctx, tx, kind, id, &c)
	if fault.Is(err, fault.NotFound) {
		return false, nil
	}
	return usable(&c), err
}

func usable(c *octopus.SMTPConfiguration) bool { return c.SMTPHost != "" && c.SendEmailFrom != "" }

// Addresses are those of the active members of teams, each once. A team that is not
// there has none.
func (s *Service) Addresses(ctx context.Context, teams []string) ([]string, error) {
	var out []string
	err := s.db.Read(ctx, func(tx *db.Tx) error {
		members, err := s.Members(ctx, tx, teams)
		out = nil
		for i := range members {
			if !slices.Contains(out, members[i].EmailAddress) {
				out = append(out, members[i].EmailAddress)
			}
		}
		return err
	})
	return out, err
}

// Members are the active members of teams that have an address, each once. A team that
// is not there has none.
func (s *Service) Members(ctx context.Context, tx *db.Tx, teams []string) ([]octopus.User, error) {
	var out []octopus.User
	seen := map[string]bool{}
	for _, id := range teams {
		var team octopus.Team
		switch err := s.store.Load(ctx, tx, "teams", id, &team); {
		case fault.Is(err, fault.NotFound):
			continue
		case err != nil:
			return nil, err
		}
		for _, member := range team.MemberUserIDs {
			if seen[member] {
				continue
			}
			seen[member] = true
			var user octopus.User
			switch err := s.store.Load(ctx, tx, "users", member, &user); {
			case fault.Is(err, fault.NotFound):
			case err != nil:
				return nil, err
			case user.IsActive && user.EmailAddress != "":
				out = append(out, user)
			}
		}
	}
	return out, nil
}

// Send sends an e-mail. It fails with a fault when nobody has set up a server, or the
// e-mail is not one.
func (s *Service) Send(ctx context.Context, m Message) error {
	var c octopus.SMTPConfiguration
	err := s.db.Read(ctx, func(tx *db.Tx) error { return s.store.Reveal(ctx, tx, kind, id, &c) })
	switch {
	case fault.Is(err, fault.NotFound) || err == nil && !usable(&c):
		return fault.New(fault.Invalid, "No e-mail can be sent: the server does not know by which SMTP server. An administrator sets it up in the SMTP settings (SmtpHost and SendEmailFrom).")
	case err != nil:
		return fmt.Errorf("read the SMTP settings: %w", err)
	}
	msg, err := compose(&c, &m)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout(&c))
	defer cancel()
	client, password, err := connect(ctx, &c)
	if err != nil {
		return err
	}
	if err := client.DialAndSendWithContext(ctx, msg); err != nil {
		text := strings.Join(strings.Fields(err.Error()), " ")
		if password != "" {
			text = strings.ReplaceAll(text, password, "********")
		}
		if errors.Is(ctx.Err(), context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) {
			text = fmt.Sprintf("it took longer than %s", timeout(&c))
		}
		return fault.New(fault.Unavailable, "The e-mail was not taken by the SMTP server %s: %.1000s.", c.SMTPHost, strings.TrimSuffix(text, "."))
	}
	return nil
}

// DefaultTimeout bounds the sending of one e-mail unless the settings say otherwise.
const DefaultTimeout = 12 * time.Second

func timeout(c *octopus.SMTPConfiguration) time.Duration {
	if c.Timeout <= 0 {
		return DefaultTimeout
	}
	return time.Duration(c.Timeout) * time.Millisecond
}

// connect makes a client by the settings. Port 465 speaks TLS from the first byte, any
// other begins in clear and changes to it. The connection ends with ctx.
func connect(ctx context.Context, c *octopus.SMTPConfiguration) (client *smtp.Client, password string, err error) {
	opts := []smtp.Option{smtp.WithTimeout(timeout(c)), smtp.WithoutNoop()}
	port := c.SMTPPort
	if port == 0 {
		port = 25
	}
	dial := egress.Dialer(net.Dialer{})
	if c.EnableSSL && port == 465 {
		dial = dialTLS(dial, &tls.Config{ServerName: c.SMTPHost, MinVersion: tls.VersionTLS12})
	}
	opts = append(opts, smtp.WithPort(port), smtp.WithDialContextFunc(func(dialing context.Context, network, at string) (net.Conn, error) {
		conn, err := dial(dialing, network, at)
		if err == nil {
			context.AfterFunc(ctx, func() { _ = conn.Close() }) // it may be closed
		}
		return conn, err
	}))
	switch {
	case c.EnableSSL && port == 465:
		opts = append(opts, smtp.WithSSL())
	case c.EnableSSL:
		opts = append(opts, smtp.WithTLSPolicy(smtp.TLSMandatory))
	default:
		opts = append(opts, smtp.WithTLSPolicy(smtp.NoTLS))
	}
	if c.SMTPPassword.NewValue != nil {
		password = *c.SMTPPassword.NewValue
	}
	if c.SMTPLogin != "" {
		auth := smtp.SMTPAuthAutoDiscover
		if !c.EnableSSL {
			auth = smtp.SMTPAuthPlainNoEnc // as somebody chose who switched TLS off
		}
		opts = append(opts, smtp.WithSMTPAuth(auth), smtp.WithUsername(c.SMTPLogin), smtp.WithPassword(password))
	}
	if client, err = smtp.NewClient(c.SMTPHost, opts...); err != nil {
		return nil, "", fault.New(fault.Invalid, "The SMTP settings cannot be used: %v.", err)
	}
	return client, password, nil
}

// dialTLS speaks TLS from the first byte.
func dialTLS(dial egress.DialFunc, config *tls.Config) egress.DialFunc {
	return func(ctx context.Context, network, at string) (net.Conn, error) {
		raw, err := dial(ctx, network, at)
		if err != nil {
			return nil, err
		}
		conn := tls.Client(raw, config)
		if err := conn.HandshakeContext(ctx); err != nil {
			return nil, errors.Join(err, raw.Close())
		}
		return conn, nil
	}
}

func compose(c *octopus.SMTPConfiguration, m *Message) (*smtp.Msg, error) {
	msg := smtp.NewMsg(smtp.WithNoDefaultUserAgent())
	from, err := address(c.SendEmailFrom)
	if err != nil {
		return nil, err
	}
	msg.FromMailAddress(from)
	if n := len(m.To) + len(m.CC) + len(m.Bcc); n == 0 || n > MaxRecipients {
		return nil, fault.New(fault.Invalid, "The e-mail has %d recipients; give it at least one and at most %d.", n, MaxRecipients)
	}
	for _, part := range []struct {
		list []string
		add  func(*mail.Address)
	}{
		{m.To, func(a *mail.Address) { msg.AddToMailAddress(a) }},
		{m.CC, func(a *mail.Address) { msg.AddCcMailAddress(a) }},
		{m.Bcc, func(a *mail.Address) { msg.AddBccMailAddress(a) }},
	} {
		for _, text := range part.list {
			a, err := address(text)
			if err != nil {
				return nil, err
			}
			part.add(a)
		}
	}
	msg.Subject(strings.Join(strings.Fields(m.Subject), " "))
	_, host, _ := strings.Cut(from.Address, "@")
	msg.SetMessageIDWithValue(m.ID + "@" + host)
	msg.SetDate()
	switch m.Priority {
	case High:
		msg.SetImportance(smtp.ImportanceHigh)
	case Low:
		msg.SetImportance(smtp.ImportanceLow)
	case Normal, "":
	}
	format := smtp.TypeTextPlain
	if m.HTML {
		format = smtp.TypeTextHTML
	}
	msg.SetBodyString(format, m.Body)
	return msg, nil
}

func address(text string) (*mail.Address, error) {
	a, err := mail.ParseAddress(strings.TrimSpace(text))
	if err != nil {
		return nil, fault.New(fault.Invalid, "'%.200s' is no e-mail address; write one such as ann@example.com.", text)
	}
	return a, nil
}
