package feed

import (
	"net/url"
	"regexp"
	"strings"

	"github.com/takodeploy/tako/octopus"
)

// sourceHost is where the pages of a repository's commits and issues are, as far
// as its address tells. The zero value knows none.
type sourceHost struct {
	name            string // "GitHub"
	commits, issues string // the addresses of all but the number
}

// hostOf recognizes the hosts whose addresses are made alike. Nothing is asked of
// them: it is the repository's address alone.
func hostOf(root string) sourceHost {
	u, err := url.Parse(strings.TrimSpace(root))
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || strings.Trim(u.Path, "/") == "" {
		return sourceHost{}
	}
	page := u.Scheme + "://" + u.Host + strings.TrimSuffix(strings.TrimRight(u.EscapedPath(), "/"), ".git")
	switch host := strings.ToLower(u.Hostname()); {
	case host == "dev.azure.com" || strings.HasSuffix(host, ".visualstudio.com"):
		return sourceHost{name: "Azure DevOps", commits: page + "/commit/"}
	case strings.Contains(host, "bitbucket"):
		return sourceHost{name: "Bitbucket", commits: page + "/commits/"}
	case strings.Contains(host, "gitlab"):
		return sourceHost{name: "GitLab", commits: page + "/-/commit/", issues: page + "/-/issues/"}
	case strings.Contains(host, "github"):
		return sourceHost{name: "GitHub", commits: page + "/commit/", issues: page + "/issues/"}
	}
	return sourceHost{}
}

// withoutUser takes the name and the password out of an address, which some build
// servers leave in it, so that they are not shown to who reads about a build.
func withoutUser(address string) string {
	if u, err := url.Parse(address); err == nil && u.User != nil && u.Host != "" {
		u.User = nil
		return u.String()
	}
	return address
}

// commit is the address of a commit, "" where it is not known.
func (h sourceHost) commit(id string) octopus.NullString {
	if h.commits == "" || id == "" {
		return ""
	}
	return octopus.NullString(h.commits + url.PathEscape(id))
}

// issueNumber is how comments mention an issue: "fixes #123".
var issueNumber = regexp.MustCompile(`(?:^|[\s([,])#([0-9]{1,9})\b`)

// workItems are the issues that commits mention, each once, in their order.
func (h sourceHost) workItems(commits []octopus.Commit) octopus.List[octopus.WorkItem] {
	if h.issues == "" {
		return nil
	}
	var out octopus.List[octopus.WorkItem]
	seen := map[string]bool{}
	for _, c := range commits {
		for _, m := range issueNumber.FindAllStringSubmatch(c.Comment, -1) {
			if id := "#" + m[1]; !seen[id] && len(out) < maxCommits {
				seen[id] = true
				out = append(out, octopus.WorkItem{ID: id, LinkURL: h.issues + m[1], Source: octopus.NullString(h.name), Description: id})
			}
		}
	}
	return out
}
