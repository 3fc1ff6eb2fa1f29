package resources

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"

	"github.com/takodeploy/tako/internal/resource"
)

// column reads the one text column of a query.
func column(ctx context.Context, r resource.Reader, query string, args ...any) ([]string, error) {
	rows, err := r.Tx().Query(ctx, query, args...)
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }() // Err below tells
	var all []string
	for rows.Next() {
		var one string
		if err := rows.Scan(&one); err != nil {
			return nil, err
		}
		all = append(all, one)
	}
	return all, rows.Err()
}

// encodedText is a text as it stands in stored documents, quotes and all.
func encodedText(s string) (string, error) {
	b, err := json.Marshal(s)
	if err != nil {
		return "", fmt.Errorf("encode a text: %w", err)
	}
	return string(bytes.TrimSpace(b)), nil
}

func decodeText(body string, v any) error { return json.Unmarshal([]byte(body), v) }
