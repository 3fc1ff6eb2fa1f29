package upgrade

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestModest: what works beside the server for long gives way to it, with all that it
// starts; what the server may have to wait for does not.
func TestModest(t *testing.T) {
	t.Parallel()
	raw, err := unix.Getpriority(unix.PRIO_PROCESS, 0)
	if err != nil {
		t.Fatal(err)
	}
	own := 20 - raw
	c := newCrew(t, Planned)
	c.program("1", "echo $(nice) $(sh -c nice)", 0o700)
	for name, try := range map[string]struct {
		run  func() ([]byte, error)
		want int
	}{
		"beside":  {func() ([]byte, error) { return c.aside(t.Context(), "1") }, max(own, modest)},
		"waiting": {func() ([]byte, error) { return c.run(t.Context(), "1") }, own},
		"again":   {func() ([]byte, error) { return c.aside(t.Context(), "1", "again") }, max(own, modest)},
	} {
		out, err := try.run()
		if want := fmt.Sprintf("%[1]d %[1]d\n", try.want); err != nil || string(out) != want {
			t.Errorf("%s: its niceness is %q, not %q; %v", name, out, want, err)
		}
	}
}

// TestModestSession: where time is divided between sessions first, that of such a command
// gives way.
func TestModestSession(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/proc/self/autogroup"); err != nil || os.Geteuid() != 0 {
		t.Skip("sessions have no niceness here, or it cannot be set at any time")
	}
	c := newCrew(t, Planned)
	c.program("1", `i=0; until grep -q 'nice `+strconv.Itoa(modest)+`$' /proc/self/autogroup || [ $((i+=1)) = 1200 ]; do sleep 0.1; done
cat /proc/self/autogroup`, 0o700)
	out, err := c.aside(t.Context(), "1")
	if err != nil || !strings.HasSuffix(string(out), fmt.Sprintf(" nice %d\n", modest)) {
		t.Errorf("the session has %q, %v", out, err)
	}
	own, err := os.ReadFile("/proc/self/autogroup")
	if err != nil {
		t.Fatal(err)
	}
	// A process in no session of its own, as those of a container may be, has nothing there.
	session := func(autogroup []byte) string {
		name, _, _ := strings.Cut(string(autogroup), " ")
		return name
	}
	if session(out) == session(own) {
		t.Errorf("it is in the session of whoever started it: %q, %q", out, own)
	}
}
