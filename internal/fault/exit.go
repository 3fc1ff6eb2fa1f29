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
	// ExitBusy is that of a command that another one keeps from its work just now
	// (EX_TEMPFAIL).
	ExitBusy = 75
)

// Exit codes of commands that look at something. Programs of other versions know them: they
// never change.
const (
	// ExitFound is that of one that has found something wrong, as a damaged backup is.
	ExitFound = 3
	// ExitDidNotWork is that of a program that did not work on a copy: a migration of it
	// failed, or it did not start there. Whatever else keeps it from its work, such as a full
	// disk, says nothing of the version.
	ExitDidNotWork = 4
	// ExitNotBegun is that of one that found something which speaks against an upgrade, or of
	// an upgrade that was given up before the switch.
	ExitNotBegun = 20
)
