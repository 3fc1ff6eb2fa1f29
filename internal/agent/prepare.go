package agent

import "context"

func (r *runner) prepare(context.Context) error { return nil }
