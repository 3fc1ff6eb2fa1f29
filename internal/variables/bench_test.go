package variables_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/variables"
)

// manyValues has n names with eight values each. With unique scopes, no two
// values share one, which is the worst case.
func manyValues(n int, unique bool) []variables.Variable {
	out := make([]variables.Variable, 0, 8*n)
	for i := range n {
		for j := range 8 {
			s := scope{}
			if j&1 != 0 {
				s.Environment = ids{fmt.Sprint("Environments-", j), "Environments-1"}
			}
			if j&2 != 0 {
				s.Role = ids{"web", fmt.Sprint("role-", j)}
			}
			if j&4 != 0 {
				s.Machine = ids{fmt.Sprint("Machines-", j*10), fmt.Sprint("Machines-", j*10+1)}
			}
			if unique {
				s.Role = append(s.Role, fmt.Sprint("role-", i, "-", j), "web")
			}
			out = append(out, variables.Variable{
				ID: fmt.Sprint(i, "-", j), Name: fmt.Sprint("Settings:Section", i%100, ":Name", i), Value: fmt.Sprint("value ", i, j),
				Scope: s, Source: variables.Source{Kind: variables.KindProject},
			})
		}
	}
	return out
}

// BenchmarkResolve resolves names of eight scoped values each for the machines of
// one iteration. Twice the names or the machines take twice the time.
func BenchmarkResolve(b *testing.B) {
	for _, bench := range []struct {
		name            string
		names, machines int
		unique          bool
	}{
		{"1250names_8values_200targets", 1250, 200, false},
		{"5000names_8values_200targets", 5000, 200, false},
		{"10000names_8values_200targets", 10000, 200, false},
		{"10000names_8values_400targets", 10000, 400, false},
		{"10000names_8unique_200targets", 10000, 200, true},
	} {
		b.Run(bench.name, func(b *testing.B) {
			set := variables.New(manyValues(bench.names, bench.unique)...)
			b.ReportAllocs()
			for b.Loop() {
				for m := range bench.machines {
					r := set.Resolve(variables.Context{
						Environment: "Environments-1", Machine: fmt.Sprint("Machines-", m),
						MachineRoles: []string{"web", "db"}, StepRoles: []string{"web"}, Action: "action-1", Channel: "Channels-1",
					})
					if _, ok := r.Get("settings:section7:name7"); !ok {
						b.Fatal("nothing found")
					}
				}
			}
			b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N*bench.machines), "µs/target")
		})
	}
}

func BenchmarkCompile(b *testing.B) {
	values := manyValues(10000, false)
	for b.Loop() {
		variables.New(values...)
	}
}

// BenchmarkOutputs adds the outputs of 200 machines to 10,000 values, machine
// by machine, as a deployment does.
func BenchmarkOutputs(b *testing.B) {
	base := variables.New(manyValues(1250, false)...)
	for b.Loop() {
		set := base
		for m := range 200 {
			var values []variables.Variable
			for i := range 20 {
				values = append(values, variables.Output{Action: "Deploy", MachineID: fmt.Sprint("Machines-", m), Machine: fmt.Sprint("web", m), Name: fmt.Sprint("Out", i), Value: "x", Order: int64(m)}.Variables()...)
			}
			set = set.With(values...)
		}
		if set.Len() != 22000 {
			b.Fatal(set.Len())
		}
	}
}

func logLines() []string {
	lines := make([]string, 1000)
	for i := range lines {
		lines[i] = fmt.Sprintf("2026-01-02T03:04:05Z step %d: copied /srv/app/releases/%d/bin/module-%d.dll to the target in %d ms, nothing else changed", i, i, i*7, i%90)
	}
	return lines
}

// BenchmarkMasker masks a million lines of about 120 bytes with 5,000 secrets
// per 1,000 iterations: one iteration is 1,000 lines.
func BenchmarkMasker(b *testing.B) {
	secrets := make([]string, 5000)
	for i := range secrets {
		secrets[i] = fmt.Sprintf("s%xcr%dt-%s", i*7919, i, strings.Repeat("z", i%30))
	}
	prefixed := make([]string, 5000)
	for i := range prefixed {
		// The worst kind: the log is full of their beginnings.
		prefixed[i] = fmt.Sprintf("/srv/app/releases/%d/bin/secret", i*3)
	}
	for _, bench := range []struct {
		name    string
		secrets []string
	}{{"no_secrets", nil}, {"5000_secrets", secrets}, {"5000_secrets_begin_like_the_log", prefixed}, {"2_found_in_each_line", []string{"releases", "nothing else"}}} {
		b.Run(bench.name, func(b *testing.B) {
			m := newMasker(b, bench.secrets...)
			lines := logLines()
			size := 0
			for _, l := range lines {
				size += len(l)
			}
			b.SetBytes(int64(size))
			for b.Loop() {
				for _, l := range lines {
					m.Mask(l)
				}
			}
		})
	}
}

// BenchmarkMaskerAdd adds 5,000 masks one by one, with a line between.
func BenchmarkMaskerAdd(b *testing.B) {
	line := logLines()[0]
	for b.Loop() {
		m := newMasker(b)
		for i := range 5000 {
			if err := m.Add(fmt.Sprintf("s%xcr%dt-zzzzzzzzzzzzzzzzzzzz", i*7919, i)); err != nil {
				b.Fatal(err)
			}
			m.Mask(line)
		}
	}
}
