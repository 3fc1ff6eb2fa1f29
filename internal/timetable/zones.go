package timetable

import (
	_ "embed" // for the table
	"fmt"
	"strings"
	"sync"
	"time"
)

// windowsTable has a line for each time zone of Windows: its name, and the place
// of the IANA database that has the same time.
//
//go:embed windowszones.txt
var windowsTable string

var windowsZones = sync.OnceValue(func() map[string]string { //nolint:gochecknoglobals // a constant table, read when it is needed
	zones := map[string]string{}
	for line := range strings.Lines(windowsTable) {
		name, place, _ := strings.Cut(strings.TrimSpace(line), "=")
		zones[strings.ToLower(name)] = place
	}
	return zones
})

// Zone finds a time zone by its name in the IANA database ("Europe/Berlin") or in
// Windows ("W. Europe Standard Time"), which is what clients on Windows send; ""
// is UTC.
func Zone(name string) (*time.Location, error) {
	name = strings.TrimSpace(name)
	if place, ok := windowsZones()[strings.ToLower(name)]; ok {
		name = place
	}
	// "Local" would be the server's own zone, which differs between servers.
	zone, err := time.LoadLocation(name)
	if err != nil || strings.EqualFold(name, "local") {
		return nil, fmt.Errorf("time zone '%.100s' is not known; use a name such as UTC, Europe/Berlin or W. Europe Standard Time", name)
	}
	return zone, nil
}
