package db_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/db/dbtest"
	"github.com/takodeploy/tako/internal/fault"
)

func TestEndpoints(t *testing.T) {
	t.Parallel()
	type all = []db.Endpoint
	for url, want := range map[string]all{
		"sqlite:/var/lib/tako.db":                       nil,
		"postgres://u:p@a/d":                            {{"a", 5432}},
		"postgres://a,b:5433/d":                         {{"a", 5432}, {"b", 5433}},
		"postgresql://u@a:5432,b:5432/d?sslmode=prefer": {{"a", 5432}, {"b", 5432}},
		"postgres://u@/d?host=c,/run/pg&port=5433":      {{"c", 5433}, {"/run/pg", 5433}},
		"postgres://u@[::1]:5433/d":                     {{"::1", 5433}},
	} {
		got, err := db.Endpoints(url)
		if diff := cmp.Diff(want, got); diff != "" || err != nil {
			t.Errorf("%s (-want +got): %v\n%s", url, err, diff)
		}
	}
	for _, url := range []string{"postgres://u:hush@a/d", "postgres://u@a/d?sslpassword=hush", "postgres://u@a/d?servicefile=/tmp/x&service=x", "postgres://u@a/d?sslkey=/etc/x", "sqlite:x", "host=a password=hush"} {
		if got, err := db.ForeignEndpoints(url); !fault.Is(err, fault.Invalid) || cmp.Diff(all(nil), got) != "" {
			t.Errorf("%s leads to %v, %v", url, got, err)
		}
	}
	if got, err := db.ForeignEndpoints("postgres://u@a/d?search_path=s&sslmode=verify-full&connect_timeout=5"); err != nil || len(got) != 1 {
		t.Errorf("a URL from far away leads to %v, %v", got, err)
	}
}

func TestTryLock(t *testing.T) {
	t.Parallel()
	url := dbtest.EmptyURL(t, db.Postgres)
	one, two := dbtest.OpenURL(t, url), dbtest.OpenURL(t, url)
	unlock, got, err := one.TryLock(t.Context(), "x")
	if err != nil || !got {
		t.Fatalf("the first: %v, %v", got, err)
	}
	if _, got, err := two.TryLock(t.Context(), "x"); err != nil || got {
		t.Errorf("the second of a name: %v, %v", got, err)
	}
	other, got, err := two.TryLock(t.Context(), "y")
	if err != nil || !got {
		t.Fatalf("another name: %v, %v", got, err)
	}
	other()
	unlock()
	again, err := two.Lock(t.Context(), "x") // waits until the server has noticed
	if err != nil {
		t.Fatal(err)
	}
	again()
}
