package backup

// Kept are the backups that stay.
var Kept = kept
