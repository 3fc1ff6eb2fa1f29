package install

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"iter"
	"path"
	"strings"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/octostache"
	"github.com/takodeploy/tako/internal/structured"
)

// Keys of what is replaced in the files of a package.
const (
	keySubstituteTargets  = "Octopus.Action.SubstituteInFiles.TargetFiles"
	keySubstituteEncoding = "Octopus.Action.SubstituteInFiles.OutputEncoding"
	keySubstituteWarn     = "Octopus.Action.SubstituteInFiles.EnableNoMatchWarning"
	keyTransformAutomatic = "Octopus.Action.Package.AutomaticallyRunConfigurationTransformationFiles"
	keyTransforms         = "Octopus.Action.Package.AdditionalXmlConfigurationTransforms"
	keyTransformIgnore    = "Octopus.Action.Package.IgnoreConfigTransformationErrors"
	keyDotNet             = "Octopus.Action.Package.AutomaticallyUpdateAppSettingsAndConnectionStrings"
	keyDotNetIgnore       = "Octopus.Action.Package.IgnoreVariableReplacementErrors"
	keyStructured         = "Octopus.Action.Package.JsonConfigurationVariablesEnabled"
	keyStructuredTargets  = "Octopus.Action.Package.JsonConfigurationVariablesTargets"
)

// configuration is what the conventions about files tell each other.
type configuration struct {
	// transforms are the files that were used as transforms: they are no configuration.
	transforms map[string]bool
}

// maxWalk bounds the files of an installation that are looked at.
const maxWalk = 1_000_000

// files lists the regular files of the installation. Links are not followed.
func (d *deployment) files(ctx context.Context) (all []string, err error) {
	err = fs.WalkDir(d.root.FS(), ".", func(name string, e fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case len(all) >= maxWalk:
			return fmt.Errorf("the installation has more than %d files", maxWalk)
		case e.Type().IsRegular():
			all = append(all, name)
		}
		return nil
	})
	return all, err
}

// matching calls do for each file that one of the patterns of a property matches, once,
// and none for each pattern that matches nothing.
func (d *deployment) matching(ctx context.Context, key string, do func(name string) error, none func(pattern string)) error {
	text, err := d.text(key)
	if err != nil {
		return err
	}
	patterns := splitList(text, "\r\n;")
	globs := make([]agent.Glob, len(patterns))
	for i, p := range patterns {
		if globs[i], err = agent.ParseGlob(p); err != nil {
			return fmt.Errorf("%s: %w", key, err)
		}
	}
	files, err := d.files(ctx)
	if err != nil {
		return err
	}
	matched := make([]bool, len(globs))
	for _, name := range files {
		hit := false
		for i, g := range globs {
			if g.Match(name) {
				matched[i], hit = true, true
			}
		}
		if !hit {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err := do(name); err != nil {
			return onDisk(d.dir, err)
		}
	}
	for i, ok := range matched {
		if !ok {
			none(patterns[i])
		}
	}
	return nil
}

// substitute replaces #{...} in the text files that the step names.
func (d *deployment) substitute(ctx context.Context) error {
	if !d.feature(featureSubstitute) {
		return nil
	}
	encoding, err := d.text(keySubstituteEncoding)
	if err != nil {
		return err
	}
	warn, err := d.flag(keySubstituteWarn, true)
	if err != nil {
		return err
	}
	evaluate := func(text string) (string, []string, error) {
		r := d.vars.EvaluateFile(text)
		return r.Text, r.Missing, r.Err
	}
	return d.matching(ctx, keySubstituteTargets, func(name string) error {
		d.out.verbose("Substituting variables in '%s'.", name)
		warning, err := agent.SubstituteFile(d.root, name, strings.TrimSpace(encoding), evaluate)
		if warning != "" {
			d.out.warn("%s", warning)
		}
		if err != nil {
			return fmt.Errorf("substitute variables in %s: %w", name, err)
		}
		return nil
	}, func(pattern string) {
		if warn {
			d.out.warn("No files were found that match the substitution target pattern '%s'", pattern)
		}
	})
}

// change rewrites a file by a function of package structured.
func (d *deployment) change(name string, with func(content []byte) (structured.Result, error)) (structured.Result, error) {
	content, err := agent.ReadFile(d.root, name, structured.MaxFile)
	if err != nil {
		return structured.Result{}, fmt.Errorf("read %s: %w", name, err)
	}
	result, err := with(content)
	if err != nil {
		return result, err
	}
	for _, w := range result.Warnings {
		d.out.warn("%s: %s", name, w)
	}
	if !bytes.Equal(content, result.Output) {
		if err := agent.ReplaceFile(d.root, name, result.Output); err != nil {
			return result, fmt.Errorf("write %s: %w", name, err)
		}
	}
	return result, nil
}

// transform applies the package's XML transforms: those for a release, for the
// environment and for the tenant, then those that the step lists. Each transform is
// applied to a file once.
func (d *deployment) transform(ctx context.Context) error {
	d.settings.transforms = map[string]bool{}
	if !d.feature(featureTransforms) {
		return nil
	}
	automatic, err := d.flag(keyTransformAutomatic, true)
	if err != nil {
		return err
	}
	ignore, err := d.flag(keyTransformIgnore, false)
	if err != nil {
		return err
	}
	listed, err := d.text(keyTransforms)
	if err != nil {
		return err
	}
	var expressions []string
	if automatic {
		for _, name := range []string{"Release", d.req.Folder.Environment, d.req.Folder.Tenant} {
			if name != "" && !strings.Contains(name, "=>") {
				expressions = append(expressions, name)
			}
		}
	}
	own := len(expressions)
	expressions = append(expressions, splitList(listed, "\r\n,")...)
	files, err := d.files(ctx)
	if err != nil {
		return err
	}
	done := map[structured.TransformPair]bool{}
	for i, expression := range expressions {
		pairs := structured.LocateTransforms(expression, files)
		if len(pairs) == 0 && i >= own {
			d.out.warn("No file was found that the transform '%s' could be applied to.", expression)
		}
		for _, pair := range pairs {
			if ctx.Err() != nil {
				return context.Cause(ctx)
			}
			if done[pair] {
				continue
			}
			done[pair], d.settings.transforms[pair.Transform] = true, true
			d.out.verbose("Transforming '%s' by '%s'.", pair.Target, pair.Transform)
			if err := d.applyTransform(pair); err != nil {
				if !ignore || agent.DiskFull(err) {
					return onDisk(d.dir, err)
				}
				d.out.warn("%s", err)
			}
		}
	}
	return nil
}

func (d *deployment) applyTransform(pair structured.TransformPair) error {
	rules, err := agent.ReadFile(d.root, pair.Transform, structured.MaxFile)
	if err != nil {
		return fmt.Errorf("read %s: %w", pair.Transform, err)
	}
	_, err = d.change(pair.Target, func(content []byte) (structured.Result, error) {
		return structured.TransformXML(pair.Target, content, pair.Transform, rules)
	})
	return err
}

// replaceDotNet replaces appSettings, connectionStrings and applicationSettings in the
// .config files that are no transforms.
func (d *deployment) replaceDotNet(ctx context.Context) error {
	wanted, err := d.flag(keyDotNet, true)
	if err != nil || !wanted || !d.feature(featureVariables) {
		return err
	}
	ignore, err := d.flag(keyDotNetIgnore, false)
	if err != nil {
		return err
	}
	files, err := d.files(ctx)
	if err != nil {
		return err
	}
	for _, name := range files {
		if !strings.EqualFold(path.Ext(name), ".config") || d.settings.transforms[name] {
			continue
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		result, err := d.change(name, func(content []byte) (structured.Result, error) {
			return structured.ReplaceDotNetConfig(name, content, lookup{d.vars})
		})
		switch {
		case err != nil && (!ignore || agent.DiskFull(err)):
			return onDisk(d.dir, err)
		case err != nil:
			d.out.warn("%s", err)
		case len(result.Replaced) > 0:
			d.out.verbose("Replaced %d settings in '%s'.", len(result.Replaced), name)
		}
	}
	return nil
}

// replaceStructured replaces values in JSON, YAML, XML and properties files.
func (d *deployment) replaceStructured(ctx context.Context) error {
	wanted, err := d.flag(keyStructured, d.feature(featureStructured))
	if err != nil || !wanted {
		return err
	}
	return d.matching(ctx, keyStructuredTargets, func(name string) error {
		result, err := d.change(name, func(content []byte) (structured.Result, error) {
			return structured.Replace(structured.ByName, name, content, lookup{d.vars})
		})
		if err == nil {
			d.out.verbose("Replaced %d values in '%s'.", len(result.Replaced), name)
		}
		return err
	}, func(pattern string) {
		d.out.warn("No files were found that match the replacement target pattern '%s'", pattern)
	})
}

// lookup gives the variables to package structured.
type lookup struct{ vars *octostache.Variables }

// Names is structured.Lookup.
func (l lookup) Names() iter.Seq[string] {
	return func(yield func(string) bool) {
		for pair := range l.vars.All() {
			if !yield(pair.Name) {
				return
			}
		}
	}
}

// Value is structured.Lookup.
func (l lookup) Value(name string) *string {
	if text, ok := l.vars.Get(name); ok {
		return &text
	}
	return nil
}
