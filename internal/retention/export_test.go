package retention

import "slices"

// Namers are the tables that name blobs.
func Namers() []string { return slices.Clone(namers) }
