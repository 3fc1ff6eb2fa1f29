package octopus

// SystemInformation is what program runs, and on what.
type SystemInformation struct {
	Version    string `json:"Version"`
	Commit     string `json:"Commit"`
	CommitDate string `json:"CommitDate"`
	Platform   string `json:"Platform"` // "linux/amd64"
	GoVersion  string `json:"GoVersion"`
	Node       string `json:"Node"`
	// Database is "SQLite" or "PostgreSQL".
	Database       string `json:"Database"`
	InstallationID string `json:"InstallationId"`
	// Level is that of the schema that the program brings, MinLevel the lowest that it
	// works with; SchemaLevel is the database's, ActiveLevel the one whose data formats are
	// written. Between an upgrade and its end ActiveLevel is the smaller one.
	Level        int  `json:"Level"`
	MinLevel     int  `json:"MinLevel"`
	SchemaLevel  int  `json:"SchemaLevel"`
	ActiveLevel  int  `json:"ActiveLevel"`
	Started      Time `json:"Started"`
	IsSupervised bool `json:"IsSupervised"`
	// IsFinalizeDue tells that the database still has the data formats of an older version.
	IsFinalizeDue bool  `json:"IsFinalizeDue"`
	Links         Links `json:"Links"`
}

// UpgradeStatus is everything about upgrades of this node.
type UpgradeStatus struct {
	System SystemInformation `json:"System"`
	// Supervisor is what starts the server; null for one that cannot upgrade itself, and
	// then Reason says so and how to have one.
	Supervisor *UpgradeSupervisor `json:"Supervisor"`
	Reason     NullString         `json:"Reason"`
	Feed       UpgradeFeed        `json:"Feed"`
	// Upgrade is the one under way or the last one, null if there was none.
	Upgrade *Upgrade `json:"Upgrade"`
	// Plan is the last look whether anything speaks against an upgrade, since the server
	// was started.
	Plan *UpgradePlan `json:"Plan"`
	// Cursor is where the events are now: `events?after=` gives those that follow.
	Cursor string `json:"Cursor"`
	Links  Links  `json:"Links"`
}

// UpgradeSupervisor is what a supervisor says.
type UpgradeSupervisor struct {
	// Error is why it does not answer; the rest is empty then.
	Error    NullString `json:"Error"`
	Current  NullString `json:"Current"`
	Previous NullString `json:"Previous"` // null when there is no way back
	// Server is the one that serves, FormerServers are those that have connections left.
	Server        *UpgradeServer      `json:"Server"`
	FormerServers List[UpgradeServer] `json:"FormerServers"`
	// Crashes is how often in a row a server has ended by itself, or could not be started,
	// since the last switch and without one that ran for a minute in between.
	Crashes int `json:"Crashes"`
	// Problem is how the last one has ended, or why it could not be started, null for a
	// server that has run for a minute since. NeedsOperator tells that this goes on, and that
	// there is no version to go back to.
	Problem       NullString `json:"Problem"`
	NeedsOperator bool       `json:"NeedsOperator"`
}

// UpgradeServer is a process that a supervisor has started.
type UpgradeServer struct {
	ProcessID int    `json:"ProcessId"`
	Version   string `json:"Version"`
	Stage     string `json:"Stage"`
}

// UpgradeFeed is what the feed of releases has.
type UpgradeFeed struct {
	// Address is null when nobody has named one, and has no password in it.
	Address NullString `json:"Address"`
	Channel string     `json:"Channel"`
	// IsCheckedByItself tells that it is looked at without somebody asking.
	IsCheckedByItself bool  `json:"IsCheckedByItself"`
	CheckedAt         *Time `json:"CheckedAt"`
	// Error is why nothing was learned at CheckedAt; the rest is of FoundAt.
	Error     NullString `json:"Error"`
	FoundAt   *Time      `json:"FoundAt"`
	Expires   *Time      `json:"Expires"`
	IsExpired bool       `json:"IsExpired"`
	// Newest is the version that is offered; null for none, and then Message is why.
	Newest   NullString           `json:"Newest"`
	Message  NullString           `json:"Message"`
	Releases List[UpgradeRelease] `json:"Releases"`
}

// UpgradeRelease is a newer version.
type UpgradeRelease struct {
	Version   string `json:"Version"`
	Published *Time  `json:"Published"`
	// Rollback says what going back costs: "free" (nothing until it is finalized) or
	// "restore" (the backup has to be restored).
	Rollback   string `json:"Rollback"`
	IsSecurity bool   `json:"IsSecurity"`
	Notes      string `json:"Notes"`
	Level      int    `json:"Level"`
	Size       int64  `json:"Size"` // bytes
	// IsAllowed tells whether it can be installed from the version that runs; if not,
	// Reason says why, and Via is the version to install first, where there is one.
	IsAllowed bool       `json:"IsAllowed"`
	Reason    NullString `json:"Reason"`
	Via       NullString `json:"Via"`
	// FailedHere is why it failed when it was tried here.
	FailedHere NullString `json:"FailedHere"`
}

// Upgrade is one upgrade.
type Upgrade struct {
	Resource
	FromVersion string     `json:"FromVersion"`
	ToVersion   string     `json:"ToVersion"`
	RequestedBy NullString `json:"RequestedBy"`
	Begun       Time       `json:"Begun"`
	// State is the last that was reached, StateSince when, and Doing the one it is on the
	// way to.
	State      string     `json:"State"`
	StateSince Time       `json:"StateSince"`
	Doing      NullString `json:"Doing"`
	DoingSince *Time      `json:"DoingSince"`
	// IsEnded tells that nothing comes after State; IsCarriedOut that a process is at it,
	// ProcessID.
	IsEnded      bool `json:"IsEnded"`
	IsCarriedOut bool `json:"IsCarriedOut"`
	ProcessID    int  `json:"ProcessId"`
	// FailedState is the one whose step did not succeed, ErrorMessage why.
	FailedState  NullString `json:"FailedState"`
	ErrorMessage NullString `json:"ErrorMessage"`
	// Rollback says what going back costs: "free" (nothing until it is finalized) or
	// "restore" (the backup has to be restored, which loses what was written since).
	// BackupID is that backup, null before it is taken, BackupTime the instant of its data.
	Rollback   string     `json:"Rollback"`
	BackupID   NullString `json:"BackupId"`
	BackupTime *Time      `json:"BackupTime"`
	// FinalizesAt is when it is finalized by itself, ProbationEnds until when the new
	// version is watched.
	FinalizesAt   *Time `json:"FinalizesAt"`
	ProbationEnds *Time `json:"ProbationEnds"`
	// RemainingMilliseconds estimates how long it is until it is COMMITTED, by the upgrade
	// before; null when that is not known.
	RemainingMilliseconds *int64            `json:"RemainingMilliseconds"`
	Steps                 List[UpgradeStep] `json:"Steps"`
	// Allowed are the commands that are possible now: "Rollback", "Finalize" and so on.
	Allowed List[string] `json:"Allowed"`
}

// UpgradeStep is a step of an upgrade.
type UpgradeStep struct {
	State        string `json:"State"`
	Begun        *Time  `json:"Begun"`
	Ended        *Time  `json:"Ended"`
	Milliseconds int64  `json:"Milliseconds"`
	// UsualMilliseconds is how long it took in the upgrade before, 0 when that is not known.
	UsualMilliseconds int64 `json:"UsualMilliseconds"`
}

// UpgradePlan is a look whether anything speaks against an upgrade.
type UpgradePlan struct {
	Version string `json:"Version"`
	// Rollback says what going back from it would cost, as that of a release does, and
	// WayBack the same in a sentence for people.
	Rollback  string `json:"Rollback"`
	WayBack   string `json:"WayBack"`
	Begun     Time   `json:"Begun"`
	Ended     *Time  `json:"Ended"`
	IsRunning bool   `json:"IsRunning"`
	// IsPossible tells that nothing speaks against it; Problem is what does.
	IsPossible bool               `json:"IsPossible"`
	Problem    NullString         `json:"Problem"`
	Checks     List[UpgradeCheck] `json:"Checks"`
}

// UpgradeCheck is one thing that was looked at before an upgrade.
type UpgradeCheck struct {
	Name string `json:"Name"`
	// Status is "ok", "warn" or "fail"; what failed keeps the upgrade from beginning.
	Status string `json:"Status"`
	// Seen is what was found, Remedy what to do, null where there is nothing to be done.
	Seen   string     `json:"Seen"`
	Remedy NullString `json:"Remedy"`
}

// UpgradeRequest says which version to upgrade to.
type UpgradeRequest struct {
	// Version is the one to install: it has to be named, so that it is the one that was
	// looked at.
	Version string `json:"Version"`
	// BundleID is a bundle that was sent before, to take the release from instead of the feed;
	// it has to be Version's.
	BundleID NullString `json:"BundleId"`
	// HoldHours is how long to wait until it is finalized by itself, null for 72;
	// ProbationSeconds how long to watch the new version before, null for 600.
	HoldHours        *int `json:"HoldHours"`
	ProbationSeconds *int `json:"ProbationSeconds"`
	// AcceptDifferences goes on though the rehearsal shows that the new version does other
	// things with the same data.
	AcceptDifferences bool `json:"AcceptDifferences"`
	// LastUpgradeID is the one that the caller believes to be the last, as If-Match has it;
	// null for whatever it is.
	LastUpgradeID NullString `json:"LastUpgradeId"`
}

// UpgradeBundle is a release that somebody has sent to this node, with the signed feed that
// says so.
type UpgradeBundle struct {
	// The id is the SHA-256 of the bundle.
	Resource
	Version   string       `json:"Version"`
	Platforms List[string] `json:"Platforms"` // "linux/amd64"
	Size      int64        `json:"Size"`      // bytes
	Uploaded  Time         `json:"Uploaded"`
}

// UpgradeCommand is a wish about an upgrade.
type UpgradeCommand struct {
	// ID is the upgrade's; it may stand in If-Match instead.
	ID string `json:"Id"`
	// Until is for hold: it is not finalized by itself before.
	Until *Time `json:"Until"`
	// Forward is for resume of one that needs an operator: the new version, which serves
	// and is well, stays instead of going back.
	Forward bool `json:"Forward"`
}
