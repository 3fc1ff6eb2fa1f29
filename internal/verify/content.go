package verify

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/takodeploy/tako/internal/blob"
	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/tasks"
)

// logs reads the logs of some tasks that have ended, line by line.
func (r *run) logs(ctx context.Context) error {
	// By columns that stand before the plan, which is large and would be read too.
	chosen, err := r.choose(ctx, r.Limits.Logs, `SELECT t.id FROM task t WHERE t.completed_time > 0 AND t.completed_time <= ?`, r.until())
	if err != nil {
		return err
	}
	for _, id := range chosen.ids() {
		sum := hmac.New(sha256.New, r.Key)
		lines := 0
		err := r.Logs.ReadLog(ctx, id, 1, func(l tasks.Line) bool {
			lines++
			// A hash never fails to be written.
			_, _ = fmt.Fprintf(sum, "%d %d %s %q %q %q\n", l.Number, l.At.UnixMicro(), l.Category, l.Activity, l.Text, l.Detail)
			return ctx.Err() == nil
		})
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case ours(ctx, err):
			return err
		case err != nil:
			r.fact(PartLogs, id, reason(err))
		default:
			r.fact(PartLogs, id, fmt.Sprintf("%d lines %s", lines, short(sum.Sum(nil))))
		}
	}
	r.readLogs = chosen.ids()
	return nil
}

// short is a keyed hash as a fact.
func short(sum []byte) string { return "~" + base64.RawURLEncoding.EncodeToString(sum[:12]) }

// artifact is what is known of one.
type artifact struct {
	id, file, sha256 string
	size             int64
}

// artifacts reads some artifacts and holds them against what was noted of them.
func (r *run) artifacts(ctx context.Context) error {
	chosen, err := r.choose(ctx, r.Limits.Artifacts, `SELECT a.id FROM artifact a WHERE a.created <= ?`, r.until())
	if err != nil {
		return err
	}
	r.readArtifacts = chosen.ids()
	for some := range slices.Chunk(r.readArtifacts, batch) {
		found, err := r.known(ctx, some)
		if err != nil {
			return err
		}
		for _, a := range found {
			said, err := r.content(ctx, &a)
			if ours(ctx, err) {
				return err
			}
			if err != nil {
				said = reason(err)
			}
			r.fact(PartArtifacts, a.id+" "+a.file, said)
		}
	}
	return nil
}

func (r *run) known(ctx context.Context, ids []string) (out []artifact, err error) {
	args := make([]any, len(ids))
	for i, id := range ids {
		args[i] = id
	}
	err = r.DB.Read(ctx, func(tx *db.Tx) error {
		out = nil
		rows, err := tx.Query(ctx, `SELECT a.id, a.filename, a.sha256, a.size FROM artifact a WHERE a.id IN (?`+strings.Repeat(", ?", len(ids)-1)+`) ORDER BY a.id`, args...)
		if err != nil {
			return err
		}
		defer rows.Close()
		for rows.Next() {
			var a artifact
			if err := rows.Scan(&a.id, &a.file, &a.sha256, &a.size); err != nil {
				return err
			}
			out = append(out, a)
		}
		return rows.Err()
	})
	return out, err
}

// content hashes an artifact as it streams by, with our key and without.
func (r *run) content(ctx context.Context, a *artifact) (string, error) {
	h, err := blob.ParseHash(a.sha256)
	if err != nil {
		return "", err
	}
	in, _, err := r.Blobs.Open(ctx, h)
	if err != nil {
		return "", err
	}
	defer in.Close() // only read
	keyed, plain := hmac.New(sha256.New, r.Key), sha256.New()
	n, err := io.Copy(io.MultiWriter(keyed, plain), in)
	if err != nil {
		return "", err
	}
	if n != a.size || hex.EncodeToString(plain.Sum(nil)) != a.sha256 {
		return fmt.Sprintf("%d bytes, which are not what was stored", n), nil
	}
	return fmt.Sprintf("%d bytes %s", n, short(keyed.Sum(nil))), nil
}
