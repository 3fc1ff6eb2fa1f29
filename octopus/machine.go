package octopus

// HealthStatus is how a machine fared at its last health check.
type HealthStatus string

// How a machine fared.
const (
	Healthy         HealthStatus = "Healthy"
	HealthyWarnings HealthStatus = "HasWarnings"
	Unhealthy       HealthStatus = "Unhealthy"
	// Unavailable is a machine that could not be reached.
	Unavailable HealthStatus = "Unavailable"
	// HealthUnknown is a machine that was never checked.
	HealthUnknown HealthStatus = "Unknown"
)
