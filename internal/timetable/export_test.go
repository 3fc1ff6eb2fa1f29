package timetable

import (
	"maps"
	"slices"
)

// WindowsNames are the names of Windows zones that are known.
func WindowsNames() []string { return slices.Collect(maps.Keys(windowsZones())) }
