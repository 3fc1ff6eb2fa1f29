package steps

import (
	"strings"

	"github.com/takodeploy/tako/internal/mail"
	"github.com/takodeploy/tako/octopus"
)

// Mail is the e-mail of an action of type Octopus.Email, without the members of Teams
// among its recipients.
type Mail struct {
	Message mail.Message
	// Teams are ids of teams whose members are recipients, too.
	Teams []string
}

// email is an action of type Octopus.Email.
func email(in Input) (*Work, error) {
	var firstErr error
	text := func(key string) string {
		s, err := in.property(key)
		if firstErr == nil {
			firstErr = err
		}
		return s
	}
	m := &Mail{Message: mail.Message{
		To: list(text(octopus.PropEmailTo)), CC: list(text(octopus.PropEmailCC)), Bcc: list(text(octopus.PropEmailBcc)),
		Subject: text(octopus.PropEmailSubject), Body: text(octopus.PropEmailBody),
	}, Teams: list(text(octopus.PropEmailTeams))}
	priority := strings.TrimSpace(text(octopus.PropEmailPriority))
	if firstErr != nil {
		return nil, firstErr
	}
	var err error
	if m.Message.HTML, err = in.flag(octopus.PropEmailHTML, false); err != nil {
		return nil, err
	}
	for _, p := range []mail.Priority{mail.Low, mail.Normal, mail.High} {
		if strings.EqualFold(priority, string(p)) {
			m.Message.Priority = p
		}
	}
	switch {
	case priority != "" && m.Message.Priority == "":
		return nil, failf("The property %s is '%.40s'; use Low, Normal or High.", octopus.PropEmailPriority, priority)
	case len(m.Message.To)+len(m.Message.CC)+len(m.Message.Bcc)+len(m.Teams) == 0:
		return nil, failf("The e-mail has no recipients; name them in %s or %s.", octopus.PropEmailTo, octopus.PropEmailTeams)
	case strings.TrimSpace(m.Message.Subject) == "":
		return nil, failf("The e-mail has no subject; give it one in %s.", octopus.PropEmailSubject)
	}
	return &Work{Mail: m}, nil
}
