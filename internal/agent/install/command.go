package install

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/script"
)

// RequestFile is the name of the request within the script's workspace.
const RequestFile = script.Dir + "package.json"

// PackageDir is where the workspace has the package, below it.
const PackageDir = script.Dir + "package"

// Command is the script that deploys a package: a line of Bash.
const Command = `if [ -z "${` + agent.ProgramEnv + `-}" ]; then
  echo "The agent of this machine is too old to deploy packages; upgrade it." >&2
  exit 1
fi
exec "$` + agent.ProgramEnv + `" agent deploy-package --request ` + RequestFile + "\n"

// Internal does what args (os.Args) ask for, if they ask for a deployment of a
// package: handled says so, code is the exit code. Call it in main before anything
// reads flags.
func Internal(args []string) (handled bool, code int) {
	if len(args) < 3 || args[1] != "agent" || args[2] != "deploy-package" {
		return false, 0
	}
	flags := flag.NewFlagSet("deploy-package", flag.ContinueOnError)
	request := flags.String("request", "", "file with what is to be done")
	if err := flags.Parse(args[3:]); err != nil {
		return true, 2
	}
	p, err := placeHere()
	if err != nil || *request == "" || flags.NArg() > 0 {
		_, _ = fmt.Fprintln(os.Stderr, "deploy-package needs --request FILE, and is called by a step's script alone.", err)
		return true, 2
	}
	if err := Run(context.Background(), p, *request); err != nil {
		return true, 1
	}
	return true, 0
}

// Place is where a package is deployed.
type Place struct {
	Workspace    string // of the script, absolute; the program's own files are below it
	Applications string // the home of installations, absolute; it is made if missing
	Journals     string // the directory of the journals, absolute; it is made if missing
	// Out and Err take what the step writes, service messages included.
	Out, Err io.Writer
}

// placeHere is the place that the agent tells its scripts.
func placeHere() (Place, error) {
	dir, err := os.Getwd()
	if err != nil {
		return Place{}, err
	}
	home, applications := os.Getenv("TentacleHome"), os.Getenv("TentacleApplications")
	if home == "" || !filepath.IsAbs(home) {
		return Place{}, errors.New("TentacleHome must be set to the agent's home")
	}
	if applications == "" {
		applications = filepath.Join(home, "Applications")
	}
	if !filepath.IsAbs(applications) {
		return Place{}, errors.New("TentacleApplications must be an absolute path")
	}
	return Place{Workspace: dir, Applications: filepath.Clean(applications), Journals: filepath.Join(home, "Deployments"), Out: os.Stdout, Err: os.Stderr}, nil
}

// Run does what a request says. The error has been told to the server already, as the
// reason for which the step failed.
func Run(ctx context.Context, p Place, requestFile string) error {
	d := &deployment{Place: p, out: &output{w: p.Out}}
	if !filepath.IsAbs(requestFile) {
		requestFile = filepath.Join(p.Workspace, requestFile)
	}
	req, err := readRequest(requestFile)
	if err == nil {
		d.use(req)
		if req.Kind == Transfer {
			err = d.transfer(ctx)
		} else {
			err = d.deploy(ctx)
		}
	}
	if err != nil {
		d.out.message("resultMessage", "message", sentence(err))
	}
	return err
}

// sentence is an error as people are told of it.
func sentence(err error) string {
	var full *fullError
	if agent.DiskFull(err) && !errors.As(err, &full) {
		return "The disk is full: " + err.Error()
	}
	return err.Error()
}

// fullError names the disk that is full.
type fullError struct {
	dir string
	err error
}

func (e *fullError) Error() string {
	free := ""
	if n, ok := freeSpace(e.dir); ok {
		free = fmt.Sprintf(" (%d MiB free)", n>>20)
	}
	return fmt.Sprintf("The disk that holds %s is full%s: %v", e.dir, free, e.err)
}

func (e *fullError) Unwrap() error { return e.err }

// onDisk names the disk in an error that says that it is full.
func onDisk(dir string, err error) error {
	if err != nil && agent.DiskFull(err) {
		return &fullError{dir, err}
	}
	return err
}
