package fault

// Exit codes of servers, and of commands that are asked as servers are, by which whoever has
// started one knows whether to start it again helps. They are those of sysexits.h.
const (
	// ExitUnavailable is that of one that cannot begin, or go on, since something does not
	// answer, or has no room, that every version needs: its database above all
	// (EX_UNAVAILABLE). Another version would do no better, and to start it again may help.
	ExitUnavailable = 69
	// ExitRefused is that of one that cannot use the data or the settings as they are
	// (EX_CONFIG). To wait, or to start it again, does not help.
	ExitRefused = 78
)
