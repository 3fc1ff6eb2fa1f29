// Package blob keeps large immutable things (packages, artifacts, sealed pieces
// of task logs) under the hash of their content.
//
// What a hash names never changes, so a copy of the hashes that a database
// refers to, and of the blobs behind them, is a backup; and a blob that is put
// twice is kept once. A blob is there before the row that refers to it: whoever
// deletes leaves young ones alone (Delete), since their row may be on its way.
package blob

import (
	"encoding/hex"
	"fmt"
	"time"

	"github.com/takodeploy/tako/internal/fault"
)

// Hash is the SHA-256 of a blob's content: 64 lower-case hexadecimal digits.
type Hash string

// hashLen is the length of a Hash.
const hashLen = 64

// ParseHash checks that s is a Hash, so that it is safe in a path.
func ParseHash(s string) (Hash, error) {
	if len(s) != hashLen {
		return "", fmt.Errorf("hash %.80q has not %d digits", s, hashLen)
	}
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return "", fmt.Errorf("hash %q has other than lower-case hexadecimal digits", s)
		}
	}
	return Hash(s), nil
}

func hashOf(sum []byte) Hash { return Hash(hex.EncodeToString(sum)) }

// Info describes a stored blob.
type Info struct {
	Hash Hash
	Size int64 // bytes
	// Used is when it was put last, which is when somebody last was about to
	// refer to it.
	Used time.Time
}

// Grace is how long a blob stays that no row names: a row that does may be on its
// way, a backup or a reader may have seen the last one that did. Two days are
// longer than any of these take.
const Grace = 48 * time.Hour

// Fresh refuses, as a fault Unavailable, to be named by a row that is written only
// now: the blob was put so long ago that it may be taken for an orphan before the
// row is there. Whoever writes a row that names a blob asks in its transaction; the
// other half of Grace is for the transaction.
func (i Info) Fresh() error {
	if age := time.Now().Round(0).Sub(i.Used.Round(0)); age > Grace/2 { // by the wall: a machine may have slept
		return fault.New(fault.Unavailable, "The content was stored %s ago and nothing has named it since; send it again.", age.Round(time.Minute))
	}
	return nil
}

// missing is the fault for a blob that is not there.
func missing(h Hash) error { return fault.Missing("blob", string(h)) }

// tooLarge is the fault for content beyond a limit.
func tooLarge(limit int64) error {
	return fault.New(fault.TooLarge, "The content is larger than the limit of %d bytes.", limit)
}
