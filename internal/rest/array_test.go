package rest_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"testing"

	"pgregory.net/rapid"

	"github.com/takodeploy/tako/internal/rest"
)

// TestArray: whatever the pieces, the text is that of the whole array.
func TestArray(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pieces := rapid.SliceOf(rapid.SliceOfN(rapid.String(), 1, 4)).Draw(t, "pieces")
		fails := rapid.IntRange(-1, len(pieces)).Draw(t, "fails")
		broken := errors.New("broken")
		want, n := []string{}, 0
		for _, p := range pieces {
			want = append(want, p...)
		}
		if fails >= max(len(pieces), 1) {
			fails = -1 // nobody asks for more than there is
		}
		raw, err := rest.Array(func() ([]string, bool, error) {
			switch n++; {
			case n-1 == fails:
				return nil, false, broken
			case n > len(pieces):
				return nil, false, nil
			}
			return pieces[n-1], n < len(pieces), nil
		})
		if fails == 0 {
			if !errors.Is(err, broken) {
				t.Fatalf("the first piece fails with %v", err)
			}
			return
		}
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(raw.Content)
		if fails > 0 {
			if !errors.Is(err, broken) {
				t.Fatalf("piece %d fails with %v", fails, err)
			}
			return
		}
		var got []string
		if err := errors.Join(err, json.Unmarshal(body, &got)); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("%q, %v; want %q", body, err, want)
		}
	})
}
