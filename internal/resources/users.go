package resources

import (
	"context"
	"fmt"
	"net/mail"
	"strings"
	"unicode"

	"github.com/takodeploy/tako/internal/db"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/ident"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Limits of a user's texts, in bytes.
const (
	maxUsername    = 64
	maxDisplayName = 200
	maxEmail       = 254
	maxIdentities  = 50
)

// Users declares users and service accounts. They have no generic routes, since
// everybody may see and change some of themselves, and since the password that a
// document carries goes elsewhere: it never reaches the stored body.
func Users() *resource.Kind {
	return resource.Declare(resource.Declaration[octopus.User]{
		Name:     "users",
		ItemType: "User",
		Noun:     "user",
		Prefix:   "Users",
		Scope:    resource.InSystem,
		Permissions: resource.Permissions{
			View:   string(octopus.PermUserView),
			Create: string(octopus.PermUserInvite),
			Edit:   string(octopus.PermUserEdit),
			Delete: string(octopus.PermUserEdit),
		},
		Order:   resource.ByAge,
		Unnamed: true,
		Unique:  []resource.Unique{{Field: "Username"}},
		Filters: []resource.Filter{{Param: "isActive", Path: "IsActive"}, {Param: "isService", Path: "IsService"}},
		Owned:   []string{"Created"},
		Links: map[string]string{
			"ApiKeys":                  "/api/users/{Id}/apikeys{/id}{?skip,take}",
			"Permissions":              "/api/users/{Id}/permissions{?spaces,includeSystem}",
			"PermissionsConfiguration": "/api/users/{Id}/permissions/configuration{?spaces,includeSystem}",
			"RevokeSessions":           "/api/users/{Id}/revoke-sessions",
			"Spaces":                   "/api/users/{Id}/spaces",
			"Teams":                    "/api/users/{Id}/teams{?spaces,includeSystem}",
		},
		Hidden:  true,
		Prepare: prepareUser,
		Check:   checkUser,
		InTx:    userInTx,
	})
}

func prepareUser(u *octopus.User) {
	u.Username = strings.TrimSpace(u.Username)
	u.EmailAddress = strings.TrimSpace(u.EmailAddress)
	if u.DisplayName = strings.TrimSpace(u.DisplayName); u.DisplayName == "" {
		u.DisplayName = u.Username
	}
	u.Password = nil
	u.CanPasswordBeEdited = !u.IsService
	u.IsRequestor = false // depends on who asks
}

func checkUser(_ context.Context, _ resource.Reader, _, u *octopus.User) error {
	switch {
	case u.Username == "":
		return fault.InvalidField("Username", "Username is empty; give the user a name to sign in with.")
	case len(u.Username) > maxUsername:
		return fault.InvalidField("Username", "Username has %d bytes; use at most %d.", len(u.Username), maxUsername)
	case strings.ContainsFunc(u.Username, unicode.IsControl):
		return fault.InvalidField("Username", "Username has control characters; use letters, digits and signs.")
	case len(u.DisplayName) > maxDisplayName:
		return fault.InvalidField("DisplayName", "DisplayName has %d bytes; use at most %d.", len(u.DisplayName), maxDisplayName)
	case len(u.EmailAddress) > maxEmail:
		return fault.InvalidField("EmailAddress", "EmailAddress has %d bytes; use at most %d.", len(u.EmailAddress), maxEmail)
	case len(u.Identities) > maxIdentities:
		return fault.InvalidField("Identities", "The user has %d identities; use at most %d.", len(u.Identities), maxIdentities)
	}
	if u.EmailAddress != "" {
		if at, err := mail.ParseAddress(u.EmailAddress); err != nil || at.Address != u.EmailAddress {
			return fault.InvalidField("EmailAddress", "EmailAddress is '%s', which is no mail address; give one such as 'ada@example.com', or leave it empty.", u.EmailAddress)
		}
	}
	return nil
}

// userInTx keeps beside the document what a user is searched by, and takes away
// with the user, or with the right to sign in, whatever lets them in.
func userInTx(ctx context.Context, w resource.Writer, c resource.Change[octopus.User]) error {
	tx := w.Tx()
	var statements []string
	switch {
	case c.Op == resource.Deleted:
		statements = []string{
			`DELETE FROM user_search WHERE user_id = ?`,
			`DELETE FROM user_password WHERE user_id = ?`,
			`DELETE FROM api_key WHERE user_id = ?`,
			`DELETE FROM session WHERE user_id = ?`,
		}
	case c.New.IsService:
		statements = []string{`DELETE FROM user_password WHERE user_id = ?`, `DELETE FROM session WHERE user_id = ?`}
	case !c.New.IsActive:
		statements = []string{`DELETE FROM session WHERE user_id = ?`}
	}
	for _, s := range statements {
		if _, err := tx.Exec(ctx, s, c.ID); err != nil {
			return fmt.Errorf("take away what lets user %s in: %w", c.ID, err)
		}
	}
	if c.Op != resource.Deleted {
		seq, _ := ident.Seq(c.ID)
		_, err := tx.Exec(ctx, `INSERT INTO user_search (user_id, seq, username, display, email) VALUES (?, ?, ?, ?, ?)
			ON CONFLICT (user_id) DO UPDATE SET username = excluded.username, display = excluded.display, email = excluded.email`,
			c.ID, seq, ident.Fold(c.New.Username), ident.Fold(c.New.DisplayName), ident.Fold(c.New.EmailAddress))
		if err != nil {
			return fmt.Errorf("make user %s searchable: %w", c.ID, err)
		}
	}
	if c.Op == resource.Created {
		return nil
	}
	return administratorsRemain(ctx, tx)
}

// byServer reports whether the server itself acts, which may do what users may
// not do to what is built in.
func byServer(ctx context.Context) bool { return db.ActorFrom(ctx).UserID == "" }
