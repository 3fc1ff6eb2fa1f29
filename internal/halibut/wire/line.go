package wire

import (
	"bufio"
	"errors"
	"fmt"
	"strings"
)

// Control lines.
const (
	Hello   = "MX" // what the dialling side says first
	Next    = "NEXT"
	Proceed = "PROCEED"
	End     = "END"
)

// Kinds of identity.
const (
	KindClient     = "MX-CLIENT"
	KindServer     = "MX-SERVER"
	KindSubscriber = "MX-SUBSCRIBER"
)

// Limits of control text.
const (
	MaxLine     = 8 << 10   // bytes of one line
	MaxPreamble = 20_000    // bytes up to the first blank line
	maxBlanks   = 16        // blank lines where a line is expected
	version     = "1.0"     // of every identity; nobody checks it
	crlf        = "\r\n"    // written; LF alone is read as well
	schemePoll  = "poll://" // of what a subscriber names
)

// ErrProtocol is wrapped by errors that say a peer broke the protocol.
var ErrProtocol = errors.New("protocol error")

func violation(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrProtocol, fmt.Sprintf(format, args...))
}

// ReadLine reads one line of at most MaxLine bytes, without its end. Lines that are
// cut off by the end of the connection are no lines.
func ReadLine(br *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		if len(line)+len(part) > MaxLine {
			return "", violation("a line of more than %d bytes", MaxLine)
		}
		line = append(line, part...)
		switch {
		case err == nil:
			return strings.TrimSuffix(string(line[:len(line)-1]), "\r"), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return "", err
		}
	}
}

// readControl reads the next line that is not blank.
func readControl(br *bufio.Reader) (string, error) {
	for range maxBlanks {
		line, err := ReadLine(br)
		if err != nil || line != "" {
			return line, err
		}
	}
	return "", violation("more than %d blank lines", maxBlanks)
}

// Identity is how a side introduces itself.
type Identity struct {
	Kind         string // KindClient, KindServer or KindSubscriber
	Subscription string // of a subscriber: a URI
}

// ParseIdentity reads an identity from its line.
func ParseIdentity(line string) (Identity, error) {
	words := strings.Fields(line)
	if len(words) == 0 {
		return Identity{}, violation("an empty identity")
	}
	id := Identity{Kind: words[0]}
	switch {
	case id.Kind == KindClient, id.Kind == KindServer:
		return id, nil
	case id.Kind != KindSubscriber:
		return id, violation("the identity %q is unknown", clip(line))
	case len(words) < 3 || !strings.HasPrefix(strings.ToLower(words[2]), schemePoll):
		return id, violation("the subscriber %q names no subscription", clip(line))
	}
	id.Subscription = words[2]
	return id, nil
}

// String is the identity's line.
func (id Identity) String() string {
	if id.Kind == KindSubscriber {
		return id.Kind + " " + version + " " + id.Subscription
	}
	return id.Kind + " " + version
}

// clip shortens what a peer sent, for an error.
func clip(s string) string {
	const most = 60
	if len(s) > most {
		s = s[:most] + "..."
	}
	return s
}
