package resources

import (
	"context"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// credentialPassword is the one type of Git credentials that a library keeps.
const credentialPassword octopus.ProjectCredentialType = "UsernamePassword"

// GitCredentials are what Git repositories are read with.
func GitCredentials() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.GitCredential]{
		Name: "git-credentials", ItemType: "GitCredential", Noun: "Git credential", Prefix: "GitCredentials", Slugged: true,
		Permissions: resource.Permissions{View: "GitCredentialView", Create: "GitCredentialEdit", Edit: "GitCredentialEdit", Delete: "GitCredentialEdit"},
		Prepare: func(v *octopus.GitCredential) {
			if v.Details.Type == "" {
				v.Details.Type = credentialPassword
			}
			v.Details.ID = ""
			if v.Details.Password == nil {
				v.Details.Password = &octopus.Sensitive{}
			}
		},
		Check: func(_ context.Context, _ resource.Reader, _, v *octopus.GitCredential) error {
			if err := oneOf("Details.Type", &v.Details.Type, credentialPassword); err != nil {
				return err
			}
			if strings.TrimSpace(v.Details.Username) == "" {
				return fault.InvalidField("Details.Username", "Details.Username is empty; give the name to sign in with. Servers that want only a token take any.")
			}
			for _, url := range v.RepositoryRestrictions.AllowedRepositories {
				if !strings.Contains(url, "://") && !strings.Contains(url, "@") {
					return fault.InvalidField("RepositoryRestrictions.AllowedRepositories", "RepositoryRestrictions.AllowedRepositories names '%.200s', which is no address of a repository; give one such as https://git.example.com/team/*.", url)
				}
			}
			return nil
		},
	})
}
