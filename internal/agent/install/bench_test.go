//go:build linux

package install_test

import (
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/agent/install"
)

// BenchmarkDeploy deploys a package of 300 files, 20 MB unpacked: extracted alone, and
// with variables replaced in all its configuration files besides.
func BenchmarkDeploy(b *testing.B) {
	files := map[string]string{}
	size := 0
	for i := range 300 {
		name, body := fmt.Sprintf("bin/%d.bin", i), strings.Repeat(fmt.Sprint("content of a file ", i, "\n"), 3000)
		if i%10 == 0 {
			name, body = fmt.Sprintf("conf/%d.json", i), `{"Level": "Info", "Data": "`+strings.Repeat("x", 60_000)+`"}`
		}
		if i%10 == 1 {
			name, body = fmt.Sprintf("conf/%d.config", i), settings("Level", "Info")
		}
		files[name] = body
		size += len(body)
	}
	content := zipped(b, files)
	for name, enabled := range map[string]string{"extract": "", "configure": "Octopus.Features.JsonConfigurationVariables,Octopus.Features.ConfigurationVariables,Octopus.Features.SubstituteInFiles"} {
		b.Run(name, func(b *testing.B) {
			m := newMachine(b)
			b.SetBytes(int64(size))
			for b.Loop() {
				b.StopTimer()
				req := request("1.0.0")
				req.Keep.Items = 2
				req.Properties[features] = enabled
				req.Properties["Octopus.Action.Package.JsonConfigurationVariablesTargets"] = "**/*.json"
				req.Properties["Octopus.Action.SubstituteInFiles.TargetFiles"] = "**/*.bin"
				req.Variables = pairs(map[string]string{"Level": "Debug"})
				place, file := m.prepare(req, content)
				place.Out, place.Err = io.Discard, io.Discard
				b.StartTimer()
				if err := install.Run(b.Context(), place, file); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
