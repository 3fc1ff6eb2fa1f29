package install

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/failpoint"
	"github.com/takodeploy/tako/internal/octostache"
)

// Keys of properties and variables.
const (
	keyFeatures        = "Octopus.Action.EnabledFeatures"
	keyCustomScripts   = "Octopus.Action.CustomScripts." // and "PreDeploy.sh"
	keyRunScripts      = "Octopus.Action.Package.RunScripts"
	keySkipInstalled   = "Octopus.Action.Package.SkipIfAlreadyInstalled"
	keySkipRest        = "Octopus.Action.SkipRemainingConventions"
	keyDeleteScripts   = "OctopusDeleteScriptsOnCleanup"
	keySkipDiskCheck   = "OctopusSkipFreeDiskSpaceCheck"
	keyDiskMegabytes   = "OctopusFreeDiskSpaceOverrideInMegaBytes"
	keyInstalledIn     = "Package.InstallationDirectoryPath"
	keyPackageFile     = "Octopus.Tentacle.CurrentDeployment.PackageFilePath"
	keyPrevious        = "Octopus.Tentacle.PreviousInstallation."
	keyPreviousSuccess = "Octopus.Tentacle.PreviousSuccessfulInstallation."
)

// Features of the step.
const (
	featureCustomScripts   = "Octopus.Features.CustomScripts"
	featureCustomDirectory = "Octopus.Features.CustomDirectory"
	featureVariables       = "Octopus.Features.ConfigurationVariables"
	featureTransforms      = "Octopus.Features.ConfigurationTransforms"
	featureSubstitute      = "Octopus.Features.SubstituteInFiles"
	featureStructured      = "Octopus.Features.JsonConfigurationVariables"
)

// defaultFree is how many MiB must be free before anything is extracted.
const defaultFree = 500

// deployment is one run of the program.
type deployment struct {
	Place
	req  *Request
	out  *output
	vars *octostache.Variables

	custom        map[string]bool // "PreDeploy.sh": scripts of the step's own
	runPackaged   bool
	deleteScripts bool
	settings      configuration
	copyTo        customDirectory

	journal *Journal
	entry   Entry
	dir     string   // absolute, where the package is extracted
	current string   // absolute, where its files are now: dir, or the custom directory
	root    *os.Root // of dir
}

// use takes a request in.
func (d *deployment) use(req *Request) {
	d.req = req
	d.vars = octostache.NewVariables(octostache.Options{Now: time.Now()}, req.Variables...)
	d.custom = map[string]bool{}
}

// set makes an output variable of this step visible to what comes after in it.
func (d *deployment) set(name, value string) {
	key := "Octopus.Action[" + d.req.Action + "].Output"
	pairs := []octostache.Pair{{Name: name, Value: value}, {Name: key + "." + name, Value: value}}
	if d.req.Machine != "" {
		pairs = append(pairs, octostache.Pair{Name: key + "[" + d.req.Machine + "]." + name, Value: value})
	}
	d.vars = d.vars.With(pairs...)
}

// tell makes an output variable for this step and all later ones.
func (d *deployment) tell(name, value string) {
	d.set(name, value)
	d.out.message("setVariable", "name", name, "value", value)
}

// text is a property of the action, else a variable of that name, evaluated.
func (d *deployment) text(key string) (string, error) {
	raw, ok := d.req.Properties[key]
	if !ok {
		if raw, ok = d.vars.GetRaw(key); !ok {
			return "", nil
		}
	}
	r := d.vars.Evaluate(raw)
	if r.Err != nil {
		return "", fmt.Errorf("%s cannot be evaluated: %w", key, r.Err)
	}
	return r.Text, nil
}

// flag is a property that is True or False; anything else is missing.
func (d *deployment) flag(key string, missing bool) (bool, error) {
	text, err := d.text(key)
	switch {
	case err != nil:
		return missing, err
	case strings.EqualFold(strings.TrimSpace(text), "true"):
		return true, nil
	case strings.EqualFold(strings.TrimSpace(text), "false"):
		return false, nil
	}
	return missing, nil
}

// features are those that the step has switched on.
func (d *deployment) features() []string {
	return splitList(d.req.Properties[keyFeatures], ",")
}

func (d *deployment) feature(name string) bool {
	return slices.ContainsFunc(d.features(), func(f string) bool { return strings.EqualFold(f, name) })
}

// splitList takes a list apart, without what is empty.
func splitList(text, separators string) []string {
	var out []string
	for one := range strings.FieldsFuncSeq(text, func(r rune) bool { return strings.ContainsRune(separators, r) }) {
		if one = strings.TrimSpace(one); one != "" {
			out = append(out, one)
		}
	}
	return out
}

// refuse says what the step asks for that cannot be done on this machine.
func (d *deployment) refuse() error {
	for _, f := range d.features() {
		switch strings.ToLower(strings.TrimPrefix(strings.ToLower(f), "octopus.features.")) {
		case "iiswebsite", "iisapppool":
			return errors.New("The step sets up an IIS web site, which this agent cannot do on this operating system. Nothing was changed; take the feature out of the step.") //nolint:staticcheck // a sentence for people
		case "windowsservice":
			return errors.New("The step sets up a Windows service, which this agent cannot do on this operating system. Nothing was changed; take the feature out of the step.") //nolint:staticcheck // a sentence for people
		case "nginx":
			return errors.New("The step sets up NGINX, which this agent cannot do. Nothing was changed; take the feature out of the step, and write the configuration in a script.") //nolint:staticcheck // a sentence for people
		}
	}
	return nil
}

// read looks at everything that the step asks for, before anything is changed.
func (d *deployment) read() (err error) {
	if err := d.refuse(); err != nil {
		return err
	}
	if d.runPackaged, err = d.flag(keyRunScripts, true); err != nil {
		return err
	}
	if d.deleteScripts, err = d.flag(keyDeleteScripts, true); err != nil {
		return err
	}
	if d.feature(featureCustomScripts) {
		for _, stage := range stages() {
			for _, l := range languages() {
				d.custom[stage+l.extension] = strings.TrimSpace(d.req.Properties[keyCustomScripts+stage+l.extension]) != ""
			}
		}
	}
	return d.readCustomDirectory()
}

// deploy installs the package.
func (d *deployment) deploy(ctx context.Context) error {
	if err := d.read(); err != nil {
		return err
	}
	unlock, err := d.open()
	if err != nil {
		return err
	}
	defer unlock()
	d.retain()
	if skip, err := d.installed(); err != nil || skip {
		return err
	}
	if err := d.enoughSpace(); err != nil {
		return err
	}
	if err := d.extract(ctx); err != nil {
		return err
	}
	defer d.root.Close() //nolint:errcheck // a directory handle
	err = d.checkScripts()
	if err == nil {
		err = d.conventions(ctx)
	}
	if err != nil {
		return d.failed(ctx, err)
	}
	if d.deleteScripts && d.runPackaged {
		for _, stage := range stages() {
			if err := d.removeScripts(stage); err != nil {
				d.out.warn("The scripts of the package could not all be removed: %s", err)
			}
		}
	}
	// The journal must not know of an installation that a power cut then halves.
	if err := syncDisk(d.dir); err != nil {
		return onDisk(d.dir, fmt.Errorf("write the installation to the disk: %w", err))
	}
	if err := failpoint.Hit("install-before-journal"); err != nil {
		return err
	}
	if err := d.journal.finish(d.entry); err != nil {
		return onDisk(d.Journals, fmt.Errorf("write the journal: %w", err))
	}
	d.out.info("The package %s %s is installed in '%s'.", d.req.Package.ID, d.req.Package.Version, d.current)
	return nil
}

// open takes the journal, for this process alone, and tells the scripts what it has.
func (d *deployment) open() (unlock func(), err error) {
	for _, dir := range []string{d.Journals, d.Applications} {
		mode := fs.FileMode(0o755)
		if dir == d.Journals {
			mode = 0o700
		}
		if err := os.MkdirAll(dir, mode); err != nil {
			return nil, onDisk(dir, err)
		}
	}
	held, err := os.OpenFile(filepath.Join(d.Journals, journalKey(d.req.Set)+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, onDisk(d.Journals, err)
	}
	unlock = func() { _ = held.Close() }
	if err := lock(held, func() { d.out.info("Waiting until another deployment by this step has ended on this machine.") }); err != nil {
		unlock()
		return nil, fmt.Errorf("lock the journal: %w", err)
	}
	j, note, err := openJournal(d.Journals, d.req.Set)
	if err != nil {
		unlock()
		return nil, fmt.Errorf("read the journal: %w", err)
	}
	if note != "" {
		d.out.warn("%s", note)
	}
	d.journal = j
	var pairs []octostache.Pair
	previous := Entry{}
	if e := j.current(); e != nil {
		previous = *e
	}
	for _, key := range []string{keyPrevious, keyPreviousSuccess} {
		pairs = append(pairs,
			octostache.Pair{Name: key + "PackageId", Value: previous.PackageID},
			octostache.Pair{Name: key + "PackageVersion", Value: previous.Version},
			octostache.Pair{Name: key + "OriginalInstalledPath", Value: d.absolute(previous.Directory)},
			octostache.Pair{Name: key + "CustomInstallationDirectory", Value: previous.Custom})
	}
	pairs = append(pairs, octostache.Pair{Name: keyPackageFile, Value: filepath.Join(d.Workspace, filepath.FromSlash(d.req.Package.File))})
	d.vars = d.vars.With(pairs...)
	return unlock, nil
}

// absolute is the path of an installation, "" for none.
func (d *deployment) absolute(dir string) string {
	if dir == "" {
		return ""
	}
	return filepath.Join(d.Applications, filepath.FromSlash(dir))
}

// installed reports whether the very package is what is installed now, and the step
// wants nothing done then.
func (d *deployment) installed() (bool, error) {
	skip, err := d.flag(keySkipInstalled, false)
	e := d.journal.current()
	if err != nil || !skip || d.req.Force || e == nil {
		return false, err
	}
	p := d.req.Package
	if !strings.EqualFold(e.PackageID, p.ID) || e.Version != p.Version || e.SHA256 != p.SHA256 || e.Custom != d.copyTo.dir {
		return false, nil
	}
	dir := d.absolute(e.Directory)
	if e.Custom != "" {
		dir = e.Custom
	}
	if info, err := os.Stat(dir); err != nil || !info.IsDir() {
		return false, nil // somebody has removed it
	}
	d.out.info("The package %s %s is installed already, so nothing is done.", p.ID, p.Version)
	d.tell(keyInstalledIn, dir)
	return true, nil
}

// enoughSpace fails while there is still nothing to be cleaned up.
func (d *deployment) enoughSpace() error {
	skip, err := d.flag(keySkipDiskCheck, false)
	if err != nil || skip {
		return err
	}
	want := uint64(defaultFree)
	text, err := d.text(keyDiskMegabytes)
	if err != nil {
		return err
	}
	if n, err := strconv.ParseUint(strings.TrimSpace(text), 10, 32); err == nil {
		want = n
	}
	if free, known := freeSpace(d.Applications); known && free>>20 < want {
		return fmt.Errorf("The disk that holds %s has %d MiB free, and %d must be. Make room, or set the variable %s to less.", d.Applications, free>>20, want, keyDiskMegabytes) //nolint:staticcheck // a sentence for people
	}
	return nil
}

// maxCopies is how often one version is installed side by side.
const maxCopies = 10_000

// folder makes a directory that no installation has had, and returns its path below
// the home of applications.
func (d *deployment) folder(home *os.Root) (string, error) {
	var parts []string
	for _, name := range []string{d.req.Folder.Space, d.req.Folder.Tenant} {
		if name != "" {
			parts = append(parts, plainName(name))
		}
	}
	base := path.Join(append(parts, plainName(d.req.Folder.Environment), plainName(d.req.Package.ID))...)
	if err := home.MkdirAll(base, 0o755); err != nil {
		return "", err
	}
	version := plainName(d.req.Package.Version)
	for n := range maxCopies {
		dir := path.Join(base, version)
		if n > 0 {
			dir += "_" + strconv.Itoa(n)
		}
		err := home.Mkdir(dir, 0o755)
		if !errors.Is(err, fs.ErrExist) {
			return dir, err
		}
	}
	return "", fmt.Errorf("The directory %s has %d installations of %s; remove some, or let retention do so.", filepath.Join(d.Applications, filepath.FromSlash(base)), maxCopies, version) //nolint:staticcheck // a sentence for people
}

// maxName bounds a name in a path: what is made of it has to find room in 255 bytes.
const maxName = 120

// plainName makes the name of a directory, on any system, of any text.
func plainName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f || r == 0xfffd || strings.ContainsRune(`/\:*?"<>|`, r) {
			return '_'
		}
		return r
	}, text)
	for len(name) > maxName {
		runes := []rune(name)
		name = string(runes[:len(runes)-1])
	}
	if name = strings.Trim(name, " ."); name == "" {
		return "_"
	}
	return name
}

// extract unpacks the package into a folder of its own.
func (d *deployment) extract(ctx context.Context) error {
	home, err := os.OpenRoot(d.Applications)
	if err != nil {
		return err
	}
	defer home.Close() //nolint:errcheck // a directory handle
	p := d.req.Package
	d.entry = Entry{ID: uuid.NewString(), PackageID: p.ID, Version: p.Version, SHA256: p.SHA256, At: time.Now().UTC(), Custom: d.copyTo.dir}
	rel, err := claimsOf(d.Journals).take(d.owner(d.entry), func() (string, error) { return d.folder(home) })
	if err != nil {
		return onDisk(d.Applications, err)
	}
	d.entry.Directory = rel
	d.dir = d.absolute(rel)
	d.current = d.dir
	if err := d.journal.begin(d.entry); err != nil {
		return onDisk(d.Journals, fmt.Errorf("write the journal: %w", err))
	}
	if d.root, err = home.OpenRoot(rel); err != nil {
		return err
	}
	entries, err := d.unpack(ctx)
	if err == nil {
		err = failpoint.Hit("install-extracted")
	}
	if err != nil {
		// Nobody has use for a part of it, and room may be what is needed.
		err = errors.Join(onDisk(d.Applications, fmt.Errorf("extract %s: %w", p.FileName, err)), d.root.Close())
		return errors.Join(err, d.remove(home, []Entry{d.entry}))
	}
	d.out.verbose("Extracted %d entries of %s to '%s'.", entries, p.FileName, d.dir)
	d.vars = d.vars.With(octostache.Pair{Name: "OctopusOriginalPackageDirectoryPath", Value: d.dir})
	d.installedIn(d.dir)
	return nil
}

func (d *deployment) unpack(ctx context.Context) (int, error) {
	workspace, err := os.OpenRoot(d.Workspace)
	if err != nil {
		return 0, err
	}
	defer workspace.Close() //nolint:errcheck // a directory handle
	f, err := workspace.Open(d.req.Package.File)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	return agent.Unpack(ctx, d.root, f, d.req.Package.FileName)
}

// installedIn makes it known where the package's files are.
func (d *deployment) installedIn(dir string) {
	d.current = dir
	d.tell(keyInstalledIn, dir)
	d.vars = d.vars.With(octostache.Pair{Name: "Octopus.Action." + keyInstalledIn, Value: dir})
}

// conventions are what is done with the extracted package, in this order.
func (d *deployment) conventions(ctx context.Context) error {
	for _, do := range []func(context.Context) error{
		func(ctx context.Context) error { return d.runCustomScript(ctx, stagePreDeploy) },
		func(ctx context.Context) error { return d.runPackagedScript(ctx, stagePreDeploy) },
		d.substitute,
		d.transform,
		d.replaceDotNet,
		d.replaceStructured,
		d.copyToCustomDirectory,
		func(ctx context.Context) error { return d.runPackagedScript(ctx, stageDeploy) },
		func(ctx context.Context) error { return d.runCustomScript(ctx, stageDeploy) },
		func(ctx context.Context) error { return d.runPackagedScript(ctx, stagePostDeploy) },
		func(ctx context.Context) error { return d.runCustomScript(ctx, stagePostDeploy) },
	} {
		if err := do(ctx); err != nil {
			return err
		}
		if d.vars.Flag(keySkipRest, false) {
			d.out.info("The rest of the step is left out: %s is True.", keySkipRest)
			break
		}
	}
	return nil
}

// failed runs the scripts that a step has for its failure.
func (d *deployment) failed(ctx context.Context, why error) error {
	d.vars = d.vars.With(
		octostache.Pair{Name: "OctopusLastError", Value: sentence(why)},
		octostache.Pair{Name: "OctopusLastErrorMessage", Value: sentence(why)})
	for _, run := range []func(context.Context, string) error{d.runPackagedScript, d.runCustomScript} {
		if err := run(ctx, stageDeployFailed); err != nil {
			d.out.warn("A script for the failure of the step has failed, too: %s", sentence(err))
		}
	}
	return why
}
