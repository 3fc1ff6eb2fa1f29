// Package version reads, orders, ranges over and makes version numbers.
//
// A deployment server meets several schemes at once: its own releases, NuGet
// and SemVer packages, Maven artifacts, Docker tags, and texts that merely sort
// as text. They differ in what they accept and in what comes first, but
// everything else that touches versions (channel rules, package lists, release
// templates, retention) should not care. So a [Version] carries its order with
// it: parsing computes one ASCII key whose byte order is the order of the
// scheme. [Compare] compares keys, and [SortKey] hands the same key to the
// database, so a list sorted in SQL and one sorted in Go cannot disagree.
//
// The rules follow Octopus Deploy's, down to the quirks that releases in the
// field depend on (what a mask resets, what "v" or a fourth part means). Where
// that order is not total (Maven's), ours is, and says how.
//
// The package is pure: no clock, store or log. Every parser takes at most
// [MaxLength] bytes, and its errors are faults that name the value.
package version
