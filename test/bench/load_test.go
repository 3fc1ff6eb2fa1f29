package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// Bounds of the load.
const (
	rounds    = 5
	roundTime = 2 * time.Second
	warmTime  = time.Second
)

// BenchmarkGet is the load that clients make all day: an environment by its id,
// and a list of 100 projects, each request authenticated. One client process
// sends them over loopback, on connections that stay open.
func BenchmarkGet(b *testing.B) {
	for _, dialect := range apptest.Dialects() {
		b.Run(dialect.String(), func(b *testing.B) {
			p := started(b, dialect)
			environment := apptest.Post(b, p.Client, space+"/environments", octopus.Environment{Name: "Production", Description: "Where it counts"})
			lifecycle := apptest.Post(b, p.Client, space+"/lifecycles", octopus.Lifecycle{Name: "Plain", Phases: octopus.List[octopus.Phase]{}})
			for i := range 100 {
				apptest.Post(b, p.Client, space+"/projects", octopus.Project{Name: fmt.Sprintf("Project %03d", i), ProjectGroupID: "ProjectGroups-1", LifecycleID: lifecycle.ID})
			}
			for _, one := range []struct{ name, path string }{
				{"environment", space + "/environments/" + environment.ID},
				{"100-projects", space + "/projects?take=100"},
			} {
				for _, connections := range []int{1, 32} {
					b.Run(fmt.Sprintf("%s/connections=%d", one.name, connections), func(b *testing.B) {
						reportLoad(b, p, one.path, connections)
					})
				}
			}
			b.Run("idle-after-load", func(b *testing.B) { reportIdle(b, p) })
		})
	}
}

// reportLoad reports the median rate of several rounds, and the times of all requests.
func reportLoad(b *testing.B, p *apptest.Process, path string, connections int) {
	b.Helper()
	u, err := url.Parse(p.URL)
	if err != nil {
		b.Fatal(err)
	}
	g := generator{
		address: u.Host,
		request: fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nX-Octopus-ApiKey: %s\r\nAccept: application/json\r\n\r\n", path, u.Host, p.Key),
	}
	if _, err := g.run(b.Context(), connections, warmTime); err != nil {
		b.Fatal(err)
	}
	var rates []float64
	var all []time.Duration
	size := 0
	for range rounds {
		result, err := g.run(b.Context(), connections, roundTime)
		if err != nil {
			b.Fatal(err)
		}
		rates = append(rates, float64(len(result.took))/result.elapsed.Seconds())
		all, size = append(all, result.took...), result.size
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(math.Round(median(rates)), "requests/s")
	b.ReportMetric(ms(apptest.Quantile(all, 0.5)), "ms-p50")
	b.ReportMetric(ms(apptest.Quantile(all, 0.99)), "ms-p99")
	b.ReportMetric(float64(size), "body-bytes")
}

// BenchmarkIdle is the memory of a server and its worker that have nothing to do,
// after the first start and after people have signed in.
func BenchmarkIdle(b *testing.B) {
	for _, dialect := range apptest.Dialects() {
		b.Run(dialect.String(), func(b *testing.B) {
			p := apptest.NewProcess(b, dialect)
			p.Env = []string{"TAKO_ADMIN_PASSWORD=" + password}
			p.Start()
			awaitWorker(b, p)
			b.Run("started", func(b *testing.B) { reportIdle(b, p) })
			b.Run("signed-in", func(b *testing.B) {
				for range 5 {
					p.Must(b, http.MethodPost, "/api/users/login", map[string]any{"Username": "admin", "Password": password}, nil)
				}
				reportIdle(b, p)
			})
		})
	}
}

func reportIdle(b *testing.B, p *apptest.Process) {
	b.Helper()
	idle()
	m := memoryOf(b, p)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(math.Round(m.resident), "MiB-RSS")
	b.ReportMetric(math.Round(m.share), "MiB-PSS")
}

// generator sends one request again and again. It writes and reads the bytes of
// HTTP itself, so that little of the machine goes to the client.
type generator struct {
	address string
	request []byte
}

// result of a round.
type result struct {
	took    []time.Duration
	elapsed time.Duration
	size    int // of a body
}

// run loads the server for a while on a number of connections.
func (g generator) run(ctx context.Context, connections int, d time.Duration) (result, error) {
	var group errgroup.Group
	each := make([]result, connections)
	start := time.Now()
	for i := range connections {
		group.Go(func() (err error) {
			each[i], err = g.connection(ctx, start.Add(d))
			return err
		})
	}
	err := group.Wait()
	all := result{elapsed: time.Since(start)}
	for _, one := range each {
		all.took, all.size = append(all.took, one.took...), one.size
	}
	return all, err
}

func (g generator) connection(ctx context.Context, until time.Time) (result, error) {
	var r result
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", g.address)
	if err != nil {
		return r, err
	}
	defer conn.Close()
	if err := conn.SetDeadline(until.Add(30 * time.Second)); err != nil {
		return r, err
	}
	in := bufio.NewReaderSize(conn, 64*1024)
	for {
		start := time.Now()
		if start.After(until) {
			return r, nil
		}
		if _, err := conn.Write(g.request); err != nil {
			return r, err
		}
		if r.size, err = answer(in); err != nil {
			return r, err
		}
		r.took = append(r.took, time.Since(start))
	}
}

// answer reads one answer and returns the size of its body.
func answer(in *bufio.Reader) (size int, err error) {
	length, chunked := -1, false
	for first := true; ; first = false {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return 0, err
		}
		line = bytes.TrimRight(line, "\r\n")
		if first && !bytes.HasPrefix(line, []byte("HTTP/1.1 200 ")) {
			return 0, fmt.Errorf("answered with %q", line)
		}
		if len(line) == 0 {
			break
		}
		name, value, _ := bytes.Cut(line, []byte(": "))
		switch {
		case bytes.EqualFold(name, []byte("Content-Length")):
			if length, err = strconv.Atoi(string(value)); err != nil {
				return 0, err
			}
		case bytes.EqualFold(name, []byte("Transfer-Encoding")):
			chunked = true
		}
	}
	switch {
	case length >= 0:
		return in.Discard(length)
	case chunked:
		return chunks(in)
	default:
		return 0, errors.New("an answer without an end")
	}
}

// chunks reads a body that comes in pieces.
func chunks(in *bufio.Reader) (size int, err error) {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return size, err
		}
		n, err := strconv.ParseInt(string(bytes.TrimRight(line, "\r\n")), 16, 32)
		if err != nil {
			return size, err
		}
		if _, err := in.Discard(int(n) + 2); err != nil {
			return size, err
		}
		if size += int(n); n == 0 {
			return size, nil
		}
	}
}
