package preflight

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/takodeploy/tako/internal/fault"
)

// Runner runs a command of an installed version on a server's data, with its settings. An
// error of a command that ended by itself has its exit code, as *exec.ExitError.
type Runner func(ctx context.Context, version string, args ...string) (out []byte, err error)

// Program has the version that runs make the checks, in a process of its own, since the data
// is that version's. root is the supervisor's directory; feed is a file with the signed
// feed, "" for the one that to was fetched by. Whether anything failed is for the report
// to say.
func Program(ctx context.Context, run Runner, from, to, root, channel, feed string) (*Report, error) {
	args := []string{"preflight", "--root=" + root, "--to=" + to, "--output=json"}
	if channel != "" {
		args = append(args, "--channel="+channel)
	}
	if feed != "" {
		args = append(args, "--feed-file="+feed)
	}
	out, err := run(ctx, from, args...)
	var ended interface{ ExitCode() int }
	if err != nil && (!errors.As(err, &ended) || ended.ExitCode() != fault.ExitNotBegun) { // else a check has failed
		return nil, err
	}
	var r Report
	if err := json.Unmarshal(out, &r); err != nil {
		return nil, fmt.Errorf("read the report of preflight: %w", err)
	}
	return &r, nil
}
