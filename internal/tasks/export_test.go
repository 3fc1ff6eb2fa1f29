package tasks

import "context"

// Queued is how many commits of the lease wait for their turn.
func (l *Lease) Queued() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.queue)
}

// Seal is one round of the loop that seals logs.
var Seal = (*Service).seal

// OwnerPath is where an owner's lock is.
var OwnerPath = (*Service).ownerPath

// EncodeLines is what a chunk of the log holds.
func EncodeLines(lines []Line) []byte {
	var buf []byte
	for _, l := range lines {
		buf = appendLine(buf, l)
	}
	return buf
}

// DecodeLines reads what EncodeLines wrote.
var DecodeLines = decodeLines

// Sizes of the log's parts.
const (
	MaxChunk = maxChunk
	Segment  = segment
	MaxText  = maxText
)

// UsualTiming are the times of servers.
func UsualTiming() Timing { return Timing{}.withDefaults() }

// Look is one look of the claim loop; it says how many tasks it took.
func (s *Service) Look(ctx context.Context) (int, error) {
	taken, err := s.look(ctx)
	return len(taken), err
}
