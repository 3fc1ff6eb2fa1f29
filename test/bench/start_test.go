package bench

import (
	"net/http"
	"testing"
	"time"

	"github.com/takodeploy/tako/internal/apptest"
	"github.com/takodeploy/tako/octopus"
)

// starts is how often a server is started; the medians are reported.
const starts = 7

// BenchmarkStart is the time from the start of the process to its first answers.
func BenchmarkStart(b *testing.B) {
	for _, dialect := range apptest.Dialects() {
		b.Run(dialect.String()+"/empty", func(b *testing.B) {
			reportStarts(b, func() *apptest.Process { return apptest.NewProcess(b, dialect) })
		})
		b.Run(dialect.String()+"/empty-with-password", func(b *testing.B) {
			reportStarts(b, func() *apptest.Process {
				p := apptest.NewProcess(b, dialect)
				p.Env = []string{"TAKO_ADMIN_PASSWORD=" + password} // which is hashed, slowly on purpose
				return p
			})
		})
		b.Run(dialect.String()+"/again", func(b *testing.B) {
			p := started(b, dialect)
			reportStarts(b, func() *apptest.Process {
				p.Stop()
				return p
			})
		})
	}
}

// reportStarts starts the server that next prepares several times.
func reportStarts(b *testing.B, next func() *apptest.Process) {
	b.Helper()
	var live, signedIn []time.Duration
	for range starts {
		p := next()
		start := time.Now()
		p.Start()
		p.Must(b, http.MethodGet, "/livez", nil, nil)
		live = append(live, time.Since(start))
		apptest.Get[octopus.User](b, p.Client, "/api/users/me")
		signedIn = append(signedIn, time.Since(start))
		awaitWorker(b, p) // which is no part of it, and would be in the way of the next
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(ms(median(live)), "ms-livez")
	b.ReportMetric(ms(median(signedIn)), "ms-signed-in")
	b.ReportMetric(ms(apptest.Quantile(signedIn, 1)), "ms-worst")
}
