package feed

// SetLimit changes how many bytes a package may have.
func (r *Repository) SetLimit(n int64) { r.limit = n }
