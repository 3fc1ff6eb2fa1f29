//go:build !linux

package instance

import "context"

// Live is Run: servers upgrade instances on Linux only.
func Live(ctx context.Context, o Options) error { return Run(ctx, o) }
