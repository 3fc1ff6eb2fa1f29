package octopus

// Backup is a backup of the whole server: its database, packages, artifacts and
// logs. Its id sorts by time ("20261127T141502Z-k3f9").
type Backup struct {
	Resource
	// Created is the instant of the database that it has; null when the backup
	// cannot be read.
	Created *Time `json:"Created"`
	// Version is that of the program that took it.
	Version string `json:"Version"`
	// Database is "sqlite" or "postgres".
	Database string `json:"Database"`
	// DatabaseSize and BlobSize are what is in it, StoredSize what it takes on disk
	// beside the packages, artifacts and logs that backups share, all in bytes.
	DatabaseSize int64 `json:"DatabaseSize"`
	BlobSize     int64 `json:"BlobSize"`
	StoredSize   int64 `json:"StoredSize"`
	// BlobCount counts its packages, artifacts and logs, MissingBlobs those that
	// the server itself had lost before.
	BlobCount    int64 `json:"BlobCount"`
	MissingBlobs int   `json:"MissingBlobs"`
	// VerifiedLevel says how it was proven: 0 not yet, 1 its files, 2 its database
	// and secrets, 3 the program was started on it.
	VerifiedLevel int        `json:"VerifiedLevel"`
	VerifiedAt    *Time      `json:"VerifiedAt"`
	VerifiedBy    NullString `json:"VerifiedBy"`
	// VerifiedMilliseconds is how long the proof took.
	VerifiedMilliseconds int64 `json:"VerifiedMilliseconds"`
	// IsPinned tells that retention does not remove it: PinReason says why, and
	// PinnedUntil until when, null for as long as nobody unpins it. PinnedForUpgrade is
	// the id of the upgrade that it was taken for.
	IsPinned         bool       `json:"IsPinned"`
	PinReason        NullString `json:"PinReason"`
	PinnedUntil      *Time      `json:"PinnedUntil"`
	PinnedForUpgrade NullString `json:"PinnedForUpgrade"`
	// Problem says why it cannot be read; null for one that can.
	Problem NullString `json:"Problem"`
}

// BackupRequest asks for a backup, or for the proof of one.
type BackupRequest struct {
	// Level is that of the proof: 1 files, 2 database and secrets, 3 start the
	// program on it; 2 unless set.
	Level *int `json:"Level"`
}

// CloneRequest asks for a test instance: a copy of the server that is shut in.
type CloneRequest struct {
	// BackupID is what it is made of, "latest" for the newest; a new backup unless set.
	BackupID string `json:"BackupId"`
	// Directory is its new data directory, an absolute path on the server that does it.
	Directory string `json:"Directory"`
	// Database is the URL of its new, empty PostgreSQL database, without a password.
	// On SQLite it is left out: the database is in the directory.
	Database string `json:"Database"`
}

// Restored says what waits since the server was restored from a backup.
type Restored struct {
	// IsHeld tells that nothing happens by itself: no schedule has its effect and no
	// subscription is sent.
	IsHeld bool `json:"IsHeld"`
	// BackupID is of the last restore that was not released, Instant the moment of
	// that backup, and RestoredAt when it was restored; null when there is none.
	BackupID   NullString `json:"BackupId"`
	Instant    *Time      `json:"Instant"`
	RestoredAt *Time      `json:"RestoredAt"`
	// QueuedTasks and ExecutingTasks count those that wait: their
	// PendingPreconditionTypes have RestoredFromBackup.
	QueuedTasks    int64 `json:"QueuedTasks"`
	ExecutingTasks int64 `json:"ExecutingTasks"`
	Links          Links `json:"Links"`
}

// RestoredRelease lets go on what waits since a restore.
type RestoredRelease struct {
	// TaskIDs are the tasks; none is all of them, with schedules and subscriptions.
	TaskIDs List[string] `json:"TaskIds"`
}

// PreconditionRestored is among the PendingPreconditionTypes of a task that waits
// because the server was restored from a backup.
const PreconditionRestored = "RestoredFromBackup"

// BackupConfiguration says when backups are taken by themselves, and which are kept.
type BackupConfiguration struct {
	Resource
	IsEnabled bool `json:"IsEnabled"`
	// CronExpression says when ("0 0 2 * * *"), by a clock in Timezone, which is UTC
	// unless set.
	CronExpression string `json:"CronExpression"`
	Timezone       string `json:"Timezone"`
	// VerifyLevel is how each is proven, 1 to 3.
	VerifyLevel int `json:"VerifyLevel"`
	// KeepDaily and KeepWeekly say of how many days and weeks the newest is kept, once
	// a new one is proven.
	KeepDaily  *int `json:"KeepDaily"`
	KeepWeekly *int `json:"KeepWeekly"`
	// WarnAfterHours is how old the last proven backup may be without a warning.
	WarnAfterHours int `json:"WarnAfterHours"`
}
