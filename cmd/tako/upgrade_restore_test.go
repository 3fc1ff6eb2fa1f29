package main

import "testing"

// TestWithoutPassword: what a command prints has no password, and is else as it was given.
func TestWithoutPassword(t *testing.T) {
	t.Parallel()
	for value, want := range map[string]string{
		"":                             "",
		"/var/lib/tako/data":           "/var/lib/tako/data",
		"sqlite:/var/lib/tako/tako.db": "sqlite:/var/lib/tako/tako.db",
		"postgres://tako@db/tako?sslmode=verify-full&host=/run/pg": "postgres://tako@db/tako?sslmode=verify-full&host=/run/pg",
		"postgres:///tako?host=/run/pg":                            "postgres:///tako?host=/run/pg",
		"postgres://tako:hunter2@db:5432/tako":                     "postgres://tako@db:5432/tako",
		"postgres://tako:p%40ss@db/tako?sslmode=require":           "postgres://tako@db/tako?sslmode=require",
		"postgres://db/tako?user=tako&password=hunter2":            "postgres://db/tako?user=tako",
		"postgres:///tako?host=/run/pg&password=hunter2":           "postgres:///tako?host=%2Frun%2Fpg",
		"postgres://tako@db/tako?SSLPassword=hunter2":              "postgres://tako@db/tako",
		"postgres://tako@db/tako?sslpassword=hunter2":              "postgres://tako@db/tako",
	} {
		if got := withoutPassword(value); got != want {
			t.Errorf("%q: %q, not %q", value, got, want)
		}
	}
}
