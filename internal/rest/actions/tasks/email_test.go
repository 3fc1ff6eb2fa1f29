package tasks_test

import (
	"bufio"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"net/mail"
	"net/textproto"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/octopus"
)

// received is an e-mail as an SMTP server gets it.
type received struct {
	From   string
	To     []string
	Header mail.Header
	Body   string
	Login  string
}

// post is an SMTP server.
type post struct {
	port    int
	refuses string // the answer to the content, "" to take it

	mu     sync.Mutex
	silent bool // takes connections and says nothing
	mute   bool // takes e-mails and does not say so
	got    []received
}

// newPost listens on the loopback until the test ends.
func newPost(t *testing.T) *post {
	t.Helper()
	var cfg net.ListenConfig
	l, err := cfg.Listen(t.Context(), "tcp", "127.0.0.1:0")
	check(t, err)
	p := &post{port: l.Addr().(*net.TCPAddr).Port}
	var all sync.WaitGroup
	var mu sync.Mutex
	var open []net.Conn
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			open = append(open, c)
			mu.Unlock()
			all.Go(func() { p.serve(c) })
		}
	})
	t.Cleanup(func() {
		check(t, l.Close())
		mu.Lock()
		for _, c := range open {
			_ = c.Close() // it may be closed
		}
		mu.Unlock()
		all.Wait()
	})
	return p
}

func (p *post) serve(c net.Conn) {
	defer func() { _ = c.Close() }()
	p.mu.Lock()
	silent := p.silent
	p.mu.Unlock()
	if silent {
		_, _ = io.Copy(io.Discard, c)
		return
	}
	in := textproto.NewReader(bufio.NewReader(c))
	say := func(text string) { _, _ = io.WriteString(c, text+"\r\n") }
	say("220 post.example.com ESMTP")
	var m received
	for {
		line, err := in.ReadLine()
		if err != nil {
			return
		}
		switch verb, rest, _ := strings.Cut(line, " "); strings.ToUpper(verb) {
		case "EHLO":
			say("250-post.example.com\r\n250 AUTH PLAIN")
		case "AUTH":
			m.Login = rest
			say("235 welcome")
		case "MAIL":
			m.From = rest
			say("250 ok")
		case "RCPT":
			m.To = append(m.To, strings.TrimSuffix(strings.TrimPrefix(rest, "TO:<"), ">"))
			say("250 ok")
		case "DATA":
			say("354 go on")
			body, err := in.ReadDotBytes()
			if err != nil {
				return
			}
			if p.refuses != "" {
				say(p.refuses)
				continue
			}
			msg, err := mail.ReadMessage(strings.NewReader(string(body)))
			if err != nil {
				say("554 " + err.Error())
				continue
			}
			text, _ := io.ReadAll(msg.Body) // it is all in memory
			m.Header, m.Body = msg.Header, string(text)
			p.mu.Lock()
			p.got = append(p.got, m)
			mute := p.mute
			p.mu.Unlock()
			if mute {
				_, _ = io.Copy(io.Discard, c)
				return
			}
			m = received{}
			say("250 taken")
		case "QUIT":
			say("221 bye")
			return
		default:
			say("250 ok")
		}
	}
}

func (p *post) speak() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.mute = false
}

func (p *post) all() []received {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

// settings has the server use this SMTP server.
func (w *world) settings(p *post, more string) {
	w.T.Helper()
	w.Must(http.StatusOK, http.MethodPut, "/api/smtpconfiguration", fmt.Sprintf(`{"SmtpHost":"127.0.0.1","SmtpPort":%d,"SendEmailFrom":"Tako <tako@example.com>"%s}`, p.port, more))
}

func TestEmail(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := newPost(t)
		project := w.project("Shop")
		w.Must(http.StatusOK, http.MethodPut, "/api/deploymentprocesses/deploymentprocess-"+project, `{"Version":2,"Steps":[`+step("Tell", octopus.ActionEmail, "",
			octopus.PropEmailTo, "Bob <bob@example.com>; #{Who}", octopus.PropEmailCC, "cc@example.com", octopus.PropEmailBcc, "bcc@example.com", octopus.PropEmailTeams, w.team(),
			octopus.PropEmailSubject, "#{Octopus.Project.Name} is at #{Octopus.Release.Number} – done", octopus.PropEmailBody, "<b>#{Octopus.Environment.Name}</b>",
			octopus.PropEmailHTML, "True", octopus.PropEmailPriority, "High")+`]}`)
		w.Must(http.StatusOK, http.MethodPut, "/api/variables/variableset-"+project, `{"Version":1,"Variables":[{"Name":"Who","Type":"String","Value":"eve@example.com"}]}`)
		w.release("Shop", "2.0.0")
		if w.Get("/api/smtpconfiguration/isconfigured").JSON()["IsConfigured"] != false {
			t.Error("it is set up before anybody has")
		}
		task := w.deploy("Shop", "2.0.0", "Dev")
		w.ends(task, octopus.TaskFailed)
		if log := w.log(task); !strings.Contains(log, "No e-mail can be sent: the server does not know by which SMTP server.") {
			t.Error(log)
		}
		w.settings(p, `,"SmtpLogin":"robot","SmtpPassword":{"HasValue":true,"NewValue":"p4ssw0rd"}`)
		if w.Get("/api/smtpconfiguration/isconfigured").JSON()["IsConfigured"] != true {
			t.Error("it is not set up")
		}
		if body := string(w.Get("/api/smtpconfiguration").Body); strings.Contains(body, "p4ssw0rd") || !strings.Contains(body, `"HasValue":true`) || strings.Contains(body, "tako1:") {
			t.Errorf("the settings are shown as %s", body)
		}
		w.MustAs(w.may("TaskView"), http.StatusForbidden, http.MethodGet, "/api/smtpconfiguration", "")
		task = w.deploy("Shop", "2.0.0", "Dev")
		w.ends(task, octopus.TaskSuccess)
		got := p.all()
		if len(got) != 1 {
			t.Fatalf("%d e-mails", len(got))
		}
		m := got[0]
		if diff := cmp.Diff([]string{"bob@example.com", "eve@example.com", "member@example.com", "cc@example.com", "bcc@example.com"}, m.To); diff != "" {
			t.Error(diff)
		}
		subject, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get("Subject"))
		if err != nil || subject != "Shop is at 2.0.0 – done" {
			t.Errorf("subject %q, %v", subject, err)
		}
		for name, want := range map[string]string{
			"Message-ID": "<" + task + ".0.0@example.com>", "From": `"Tako" <tako@example.com>`, "Importance": "high", "Bcc": "", "Cc": "<cc@example.com>",
		} {
			if got := m.Header.Get(name); got != want {
				t.Errorf("%s is %q, want %q", name, got, want)
			}
		}
		if !strings.HasPrefix(m.Header.Get("Content-Type"), "text/html") || strings.TrimSpace(m.Body) != "<b>Dev</b>" || m.Login == "" {
			t.Errorf("%+v", m)
		}
		if log := w.log(task); !strings.Contains(log, `Sent the e-mail "Shop is at 2.0.0 – done" to 5 recipients.`) {
			t.Error(log)
		}
	})
}

// team is one with a member who has an address, and one who may not sign in.
func (w *world) team() string {
	w.T.Helper()
	var ids []string
	for _, body := range []string{
		`{"Username":"member","DisplayName":"Member","EmailAddress":"member@example.com","Password":"correct horse battery","IsActive":true}`,
		`{"Username":"gone","DisplayName":"Gone","EmailAddress":"gone@example.com","Password":"correct horse battery","IsActive":true}`,
	} {
		ids = append(ids, w.Create("/api/users", body))
	}
	w.Must(http.StatusOK, http.MethodPut, "/api/users/"+ids[1], `{"Username":"gone","DisplayName":"Gone","EmailAddress":"gone@example.com","IsActive":false}`)
	return w.Create("/api/teams", fmt.Sprintf(`{"Name":"Told","MemberUserIds":[%q,%q]}`, ids[0], ids[1]))
}

func TestEmailIsRefused(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		mailTo := func(to string, more ...string) string {
			return step("Tell", octopus.ActionEmail, "", append([]string{octopus.PropEmailTo, to, octopus.PropEmailSubject, "Hello", octopus.PropEmailBody, "x"}, more...)...)
		}
		refusing, silent, good := newPost(t), newPost(t), newPost(t)
		refusing.refuses = "550 5.7.1 not wanted here, p4ssw0rd or not"
		silent.silent = true
		for i, c := range []struct {
			post *post
			step string
			want string
		}{
			{good, mailTo("nobody"), "'nobody' is no e-mail address"},
			{good, mailTo(""), "The e-mail has no recipients"},
			{good, mailTo("ann@example.com", octopus.PropEmailPriority, "Extreme"), "use Low, Normal or High"},
			{good, step("Tell", octopus.ActionEmail, "", octopus.PropEmailTo, "ann@example.com"), "The e-mail has no subject"},
			{refusing, mailTo("ann@example.com"), "not wanted here, ******** or not"},
			{silent, mailTo("ann@example.com"), "The e-mail was not taken by the SMTP server 127.0.0.1: it took longer than 1s."},
		} {
			w.settings(c.post, `,"Timeout":1000,"SmtpLogin":"robot","SmtpPassword":{"HasValue":true,"NewValue":"p4ssw0rd"}`)
			name := fmt.Sprint("P", i)
			w.project(name, c.step)
			task := w.deploy(name, "1.0.0", "Dev")
			w.ends(task, octopus.TaskFailed)
			if log := w.log(task); !strings.Contains(log, c.want) || strings.Contains(log, "p4ssw0rd") {
				t.Errorf("%q is not in\n%s", c.want, log)
			}
		}
		if got := good.all(); len(got) != 0 {
			t.Errorf("%+v", got)
		}
		for body, want := range map[string]string{
			`{"SmtpHost":"smtp://x","SendEmailFrom":"a@example.com"}`: "SmtpHost",
			`{"SmtpHost":"x","SendEmailFrom":"somebody"}`:             "SendEmailFrom",
			`{"SmtpHost":"x"}`: "SendEmailFrom",
			`{"SmtpHost":"x","SendEmailFrom":"a@example.com","SmtpPort":70000}`:            "SmtpPort",
			`{"SmtpHost":"x","SendEmailFrom":"a@example.com","SmtpPort":25,"Timeout":-5}`:  "Timeout",
			`{"SmtpHost":"x","SendEmailFrom":"a@example.com","SmtpPort":25,"Timeout":1e9}`: "Timeout",
		} {
			if a := w.Must(http.StatusBadRequest, http.MethodPut, "/api/smtpconfiguration", body); !strings.Contains(string(a.Body), want+" is ") {
				t.Errorf("%s: %s", body, a.Body)
			}
		}
	})
}

// The server is stopped while it sends an e-mail. Nobody knows whether it was taken,
// so it is sent again: as the same e-mail.
func TestEmailIsSentAgain(t *testing.T) {
	each(t, func(t *testing.T, w *world) {
		p := newPost(t)
		p.mute = true
		w.settings(p, `,"Timeout":600000`)
		w.project("Shop", step("Tell", octopus.ActionEmail, "", octopus.PropEmailTo, "ann@example.com", octopus.PropEmailSubject, "Hello"))
		task := w.deploy("Shop", "1.0.0", "Dev")
		await(t, "the e-mail is there", func() bool { return len(p.all()) == 1 })
		w.stop()
		p.speak()
		w.run(t)
		w.ends(task, octopus.TaskSuccess)
		got := p.all()
		if len(got) != 2 || got[0].Header.Get("Message-ID") != got[1].Header.Get("Message-ID") || got[0].Header.Get("Message-ID") == "" {
			t.Errorf("%+v", got)
		}
	})
}
