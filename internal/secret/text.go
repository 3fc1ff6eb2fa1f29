package secret

import (
	"fmt"
	"io"
	"log/slog"
)

// Text is a secret in memory. It shows as *** in logs, in formatted text and
// when it is encoded; string(t) is the secret itself.
type Text string

const hidden = "***"

// LogValue hides the secret from slog.
func (t Text) LogValue() slog.Value { return slog.StringValue(t.String()) }

// String hides the secret; an empty one shows as empty, which helps those who
// forgot to set it.
func (t Text) String() string {
	if t == "" {
		return ""
	}
	return hidden
}

// Format hides the secret under every verb.
func (t Text) Format(f fmt.State, _ rune) {
	_, _ = io.WriteString(f, t.String()) // fmt's own writer does not fail
}

// MarshalText hides the secret from JSON, YAML and the like.
func (t Text) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// UnmarshalText takes the secret as it is, from configuration.
func (t *Text) UnmarshalText(b []byte) error {
	*t = Text(b)
	return nil
}
