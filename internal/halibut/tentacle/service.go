package tentacle

import (
	"context"

	"github.com/takodeploy/tako/internal/halibut"
	"github.com/takodeploy/tako/internal/halibut/wire"
)

// ScriptsV2 runs scripts by their tickets.
type ScriptsV2 interface {
	StartScript(ctx context.Context, cmd StartScriptV2) (StatusV2, error)
	GetStatus(ctx context.Context, req StatusRequestV2) (StatusV2, error)
	CancelScript(ctx context.Context, cmd CancelV2) (StatusV2, error)
	CompleteScript(ctx context.Context, cmd CompleteV2) error
}

// ScriptsV1 runs scripts as often as they come.
type ScriptsV1 interface {
	StartScript(ctx context.Context, cmd StartScriptV1) (Ticket, error)
	GetStatus(ctx context.Context, req StatusRequestV1) (StatusV1, error)
	CancelScript(ctx context.Context, cmd CancelV1) (StatusV1, error)
	CompleteScript(ctx context.Context, cmd CompleteV1) (StatusV1, error)
}

// Files moves files.
type Files interface {
	// UploadFile writes a file, whole or not at all.
	UploadFile(ctx context.Context, path string, content *wire.DataStream) (UploadResult, error)
	// DownloadFile returns a file, nil where there is none.
	DownloadFile(ctx context.Context, path string) (*wire.DataStream, error)
}

// ServeCapabilities answers what an agent can do: the names of its other services.
func ServeCapabilities(others ...halibut.Service) halibut.Service {
	var names []string
	for _, s := range others {
		names = append(names, s.Name)
	}
	return halibut.Service{Name: CapabilitiesService, Methods: []halibut.Method{
		halibut.Method0("GetCapabilities", func(context.Context) (Capabilities, error) {
			return Capabilities{SupportedCapabilities: names}, nil
		}),
	}}
}

// ServeScriptsV2 answers IScriptServiceV2.
func ServeScriptsV2(s ScriptsV2) halibut.Service {
	return halibut.Service{Name: ScriptServiceV2, Methods: []halibut.Method{
		halibut.Method1("StartScript", s.StartScript),
		halibut.Method1("GetStatus", s.GetStatus),
		halibut.Method1("CancelScript", s.CancelScript),
		halibut.Void1("CompleteScript", s.CompleteScript),
	}}
}

// ServeScriptsV1 answers IScriptService.
func ServeScriptsV1(s ScriptsV1) halibut.Service {
	return halibut.Service{Name: ScriptServiceV1, Methods: []halibut.Method{
		halibut.Method1("StartScript", s.StartScript),
		halibut.Method1("GetStatus", s.GetStatus),
		halibut.Method1("CancelScript", s.CancelScript),
		halibut.Method1("CompleteScript", s.CompleteScript),
	}}
}

// ServeFiles answers IFileTransferService.
func ServeFiles(f Files) halibut.Service {
	return halibut.Service{Name: FileTransferService, Methods: []halibut.Method{
		halibut.Method2("UploadFile", f.UploadFile),
		halibut.Method1("DownloadFile", f.DownloadFile),
	}}
}
