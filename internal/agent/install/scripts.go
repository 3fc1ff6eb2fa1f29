package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/script"
	"github.com/takodeploy/tako/internal/servicemsg"
)

// The stages that scripts belong to, which are the names of their files in a package.
const (
	stagePreDeploy    = "PreDeploy"
	stageDeploy       = "Deploy"
	stagePostDeploy   = "PostDeploy"
	stageDeployFailed = "DeployFailed"
)

func stages() []string {
	return []string{stagePreDeploy, stageDeploy, stagePostDeploy, stageDeployFailed}
}

// language is how scripts of a kind of file are run.
type language struct {
	extension string
	program   string // "" for one that this program cannot run
	missing   string // what to do about a program that is not there
}

// languages are those of scripts, the preferred ones first: of several scripts of one
// stage, one is run.
func languages() []language {
	return []language{
		{".sh", "bash", "install it"},
		{".py", "python3", "install it, or write the script in Bash"},
		{".ps1", "pwsh", "install PowerShell 7, or write the script in Bash or Python"},
		{".csx", "", ""},
		{".fsx", "", ""},
	}
}

// packaged finds the scripts of a stage in a package, by their names in any case; the
// preferred one comes first.
func (d *deployment) packaged(dir, stage string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var found []string
	for _, l := range languages() {
		for _, e := range entries {
			if e.Type().IsRegular() && strings.EqualFold(e.Name(), stage+l.extension) {
				found = append(found, e.Name())
			}
		}
	}
	return found, nil
}

// checkScripts makes sure, before the first script is run, that all can be.
func (d *deployment) checkScripts() error {
	for _, stage := range stages() {
		var names []string
		if d.runPackaged {
			found, err := d.packaged(d.dir, stage)
			if err != nil {
				return err
			}
			if len(found) > 0 {
				names = found[:1]
			}
			if len(found) > 1 {
				d.out.warn("The package has several scripts for the stage %s; %s is run, and not %s.", stage, found[0], strings.Join(found[1:], ", "))
			}
		}
		for _, l := range languages() {
			if d.custom[stage+l.extension] {
				names = append(names, stage+l.extension)
			}
		}
		for _, name := range names {
			if _, _, err := interpreter(name); err != nil {
				return err
			}
		}
	}
	return nil
}

// interpreter finds the program that runs a script.
func interpreter(name string) (language, string, error) {
	for _, l := range languages() {
		if !strings.EqualFold(filepath.Ext(name), l.extension) {
			continue
		}
		if l.program == "" {
			return l, "", fmt.Errorf("The script %s cannot be run: this agent runs Bash (.sh), Python (.py) and PowerShell (.ps1).", name) //nolint:staticcheck // a sentence for people
		}
		where, err := exec.LookPath(l.program)
		if err != nil {
			return l, "", fmt.Errorf("The script %s needs %s, which is not installed on this machine; %s.", name, l.program, l.missing) //nolint:staticcheck // a sentence for people
		}
		return l, where, nil
	}
	return language{}, "", fmt.Errorf("The script %s is of no kind that is known.", name) //nolint:staticcheck // a sentence for people
}

// runPackagedScript runs the script that a package has for a stage, in the directory
// where its files are, and removes it if it is to be.
func (d *deployment) runPackagedScript(ctx context.Context, stage string) error {
	if !d.runPackaged {
		return nil
	}
	found, err := d.packaged(d.current, stage)
	if err != nil || len(found) == 0 {
		return err
	}
	err = d.runScript(ctx, found[0], filepath.Join(d.current, found[0]))
	if err == nil && d.deleteScripts {
		err = d.removeScripts(stage)
	}
	return err
}

// removeScripts removes the scripts of a stage from the installation, and from where it
// was copied to.
func (d *deployment) removeScripts(stage string) error {
	for _, dir := range []string{d.dir, d.current} {
		found, err := d.packaged(dir, stage)
		if err != nil {
			return err
		}
		for _, name := range found {
			if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	return nil
}

// runCustomScript runs the scripts that the step itself has for a stage.
func (d *deployment) runCustomScript(ctx context.Context, stage string) error {
	for _, l := range languages() {
		name := stage + l.extension
		if !d.custom[name] {
			continue
		}
		body, err := d.text(keyCustomScripts + name)
		if err != nil {
			return err
		}
		own := filepath.Join(d.Workspace, script.Dir, name)
		if err := os.WriteFile(own, []byte(strings.ReplaceAll(body, "\r\n", "\n")+"\n"), 0o600); err != nil {
			return onDisk(d.Workspace, err)
		}
		if err := d.runScript(ctx, "custom script "+name, own); err != nil {
			return err
		}
	}
	return nil
}

// Times of a script's end.
const (
	// drainFor is how long the output of a script is read on after its end, when
	// descendants keep it open, as the agent does.
	drainFor = 2 * time.Second
)

// runScript runs a script in the directory where the files are now, with the functions
// that all scripts have. What it sets as output variables is seen by what comes after.
func (d *deployment) runScript(ctx context.Context, called, file string) error {
	l, program, err := interpreter(file)
	if err != nil {
		return err
	}
	argv, err := d.surround(l, file)
	if err != nil {
		return onDisk(d.Workspace, err)
	}
	d.out.info("Running %s.", called)
	said := ""
	out := &tee{out: d.out, heard: func(m servicemsg.Message) {
		switch {
		case strings.EqualFold(m.Name, "setVariable") && m.Get("name") != "":
			d.set(m.Get("name"), m.Get("value"))
		case strings.EqualFold(m.Name, "resultMessage"):
			said = m.Get("message")
		}
	}}
	cmd := exec.CommandContext(ctx, program, argv...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.WaitDelay = d.current, out, d.Err, drainFor
	// What Python imports besides: the script modules of the project.
	cmd.Env = append(os.Environ(), "PYTHONPATH="+strings.TrimSuffix(d.Workspace+":"+os.Getenv("PYTHONPATH"), ":"))
	if l.program == "bash" {
		cmd.Dir = d.Workspace // its library goes to the script's directory
	}
	err = cmd.Run()
	out.end()
	d.out.lines("##octopus[stdout-default]") // whatever level the script left behind
	var exit *exec.ExitError
	switch {
	case err == nil, errors.Is(err, exec.ErrWaitDelay):
		return nil
	case errors.As(err, &exit) && said != "":
		return errors.New(said)
	case errors.As(err, &exit) && exit.ExitCode() >= 0:
		return fmt.Errorf("The %s exited with code %d.", scriptNamed(called), exit.ExitCode()) //nolint:staticcheck // a sentence for people
	case errors.As(err, &exit):
		return fmt.Errorf("The %s was ended by a signal (%s).", scriptNamed(called), exit.ProcessState) //nolint:staticcheck // a sentence for people
	default:
		return fmt.Errorf("The %s could not be started: %w", scriptNamed(called), err) //nolint:staticcheck // a sentence for people
	}
}

func scriptNamed(called string) string {
	if strings.HasPrefix(called, "custom script ") {
		return called
	}
	return "script " + called
}

// surround writes what a script finds around it, and returns its command line.
func (d *deployment) surround(l language, file string) ([]string, error) {
	own := func(name string) string { return filepath.Join(d.Workspace, filepath.FromSlash(name)) }
	write := func(name string, content []byte) error { return os.WriteFile(own(name), content, 0o600) }
	if l.program == "bash" {
		runner := script.Dir + "run.sh"
		body := ". ./" + script.Bash + "\ncd -- " + script.Quote(d.current) + " || exit 1\nset --\n. " + script.Quote(file) + "\n"
		return []string{own(runner)}, errors.Join(write(script.Bash, script.BashLibrary(d.values)), write(runner, []byte(body)))
	}
	values, err := script.VariablesJSON(d.values)
	if err == nil {
		err = write(script.Variables, values)
	}
	if l.program == "python3" {
		return []string{"-u", own(script.Python), file}, errors.Join(err, write(script.Python, script.PythonLibrary()))
	}
	return []string{"-NoProfile", "-NonInteractive", "-File", own(script.PowerShell), file}, errors.Join(err, write(script.PowerShell, script.PowerShellLibrary()))
}

// values are all variables with their evaluated values.
func (d *deployment) values(yield func(name, value string) bool) {
	for pair := range d.vars.All() {
		if text, ok := d.vars.Get(pair.Name); ok && !yield(pair.Name, text) {
			return
		}
	}
}
