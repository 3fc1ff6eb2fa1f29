package releases

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/feed"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/variables"
	"github.com/takodeploy/tako/octopus"
)

// maxTold is of how many commits and how many work items a deployment tells, for
// each release.
const maxTold = 500

// builds is what build servers told about the packages that a release selects,
// each once.
func builds(ctx context.Context, tx *db.Tx, space ident.SpaceID, refs []reference, chosen []octopus.SelectedPackage) (octopus.List[octopus.ReleaseBuildInformation], error) {
	ids := map[string]string{} // of packages, by reference
	for i := range refs {
		ids[refs[i].action+"\x00"+refs[i].Name] = refs[i].PackageID
	}
	var out octopus.List[octopus.ReleaseBuildInformation]
	seen := map[string]bool{}
	for _, p := range chosen {
		id := ids[p.ActionName+"\x00"+p.PackageReferenceName]
		one := ident.Fold(id) + "\x00" + ident.Fold(p.Version)
		if id == "" || bound(id) || seen[one] {
			continue
		}
		seen[one] = true
		b, err := feed.BuildOf(ctx, tx, space, id, p.Version)
		if err != nil {
			return nil, err
		}
		if b == nil {
			continue
		}
		out = append(out, octopus.ReleaseBuildInformation{
			PackageID: b.PackageID, Version: b.Version, BuildEnvironment: b.BuildEnvironment, BuildNumber: b.BuildNumber, BuildURL: b.BuildURL,
			Branch: b.Branch, VcsType: b.VcsType, VcsRoot: b.VcsRoot, VcsCommitNumber: b.VcsCommitNumber, VcsCommitURL: b.VcsCommitURL,
			WorkItems: b.WorkItems, Commits: b.Commits,
		})
	}
	return out, nil
}

// changesOf is what a release brings: its notes, and the commits and work items
// of its packages, each once.
func changesOf(r *octopus.Release) octopus.ReleaseChanges {
	c := octopus.ReleaseChanges{ReleaseID: r.ID, Version: r.Version, ReleaseNotes: r.ReleaseNotes, BuildInformation: r.BuildInformation}
	seen := map[string]bool{}
	for _, b := range r.BuildInformation {
		for _, commit := range b.Commits {
			if key := "commit " + commit.ID; !seen[key] && len(c.Commits) < maxTold {
				seen[key] = true
				c.Commits = append(c.Commits, commit)
			}
		}
		for _, item := range b.WorkItems {
			if key := "item " + item.LinkURL + " " + item.ID; !seen[key] && len(c.WorkItems) < maxTold {
				seen[key] = true
				c.WorkItems = append(c.WorkItems, item)
			}
		}
	}
	return c
}

// told gives a deployment's scripts the work items and builds of all its changes.
func told(in *variables.DeploymentInput, changes []octopus.ReleaseChanges) error {
	var items []octopus.WorkItem
	var all []octopus.ReleaseBuildInformation
	for _, c := range changes {
		items = append(items, c.WorkItems...)
		all = append(all, c.BuildInformation...)
	}
	for _, part := range []struct {
		to   *string
		what any
		n    int
	}{{&in.WorkItems, items, len(items)}, {&in.PackageBuildInformation, all, len(all)}} {
		if part.n == 0 {
			continue
		}
		text, err := json.Marshal(part.what)
		if err != nil {
			return fmt.Errorf("encode build information: %w", err)
		}
		*part.to = string(text)
	}
	return nil
}

// markdown is the changes for people.
func markdown(changes []octopus.ReleaseChanges) string {
	var b strings.Builder
	for _, c := range changes {
		if c.ReleaseNotes == "" && len(c.WorkItems) == 0 && len(c.Commits) == 0 {
			continue
		}
		if len(changes) > 1 {
			fmt.Fprintf(&b, "### %s\n\n", c.Version)
		}
		if c.ReleaseNotes != "" {
			b.WriteString(strings.TrimSpace(string(c.ReleaseNotes)) + "\n\n")
		}
		if len(c.WorkItems) > 0 {
			b.WriteString("#### Work items\n\n")
			for _, item := range c.WorkItems {
				b.WriteString(entry(item.ID, item.LinkURL, item.Description))
			}
			b.WriteString("\n")
		}
		if len(c.Commits) > 0 {
			b.WriteString("#### Commits\n\n")
			for _, commit := range c.Commits {
				b.WriteString(entry(commit.ID, string(commit.LinkURL), commit.Comment))
			}
			b.WriteString("\n")
		}
	}
	return strings.TrimSpace(b.String())
}

// plainMarkdown takes the meaning from what would make links or markup of a
// stranger's text.
var plainMarkdown = strings.NewReplacer(`\`, `\\`, `[`, `\[`, `]`, `\]`, `<`, `\<`, "`", "\\`", `*`, `\*`, `_`, `\_`) //nolint:gochecknoglobals // a constant

// entry is a line of a list: what it is, with its link, and the first line of
// what is said of it.
func entry(id, link, about string) string {
	name := plainMarkdown.Replace(id)
	if link != "" {
		name = "[" + name + "](" + strings.NewReplacer("(", "%28", ")", "%29", " ", "%20").Replace(link) + ")"
	}
	about, _, _ = strings.Cut(strings.TrimSpace(about), "\n")
	if about = strings.TrimSpace(about); about == "" || about == id {
		return "- " + name + "\n"
	}
	return "- " + name + " " + plainMarkdown.Replace(about) + "\n"
}
