package app

// thumbprint is what agents have to trust, "" without a database.
func (a *App) thumbprint() string {
	if a.identity == nil {
		return ""
	}
	return string(a.identity.Thumbprint)
}
