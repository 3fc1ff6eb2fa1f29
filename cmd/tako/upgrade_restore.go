package main

import (
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/takodeploy/tako/internal/app"
	"github.com/takodeploy/tako/internal/config"
	"github.com/takodeploy/tako/internal/setup"
	"github.com/takodeploy/tako/internal/upgrade"
)

// byRestore completes an error, of which only is a part: it counts what a restore would
// lose, and names the commands.
func (s *site) byRestore(cmd *cobra.Command, only *upgrade.NeedsRestoreError, err error) error {
	n, uncounted := app.DeploymentsSince(cmd.Context(), s.settings, app.Options{Version: version}, only.At)
	if uncounted == nil {
		only.Newer = &n
	}
	lines := []string{err.Error() + "."}
	if uncounted != nil {
		lines = append(lines, "How many deployments those are cannot be told: "+uncounted.Error())
	}
	switch there, unknown := app.HasBackup(s.settings, only.Backup); {
	case unknown != nil:
		lines = append(lines, "Whether the backup is still there cannot be told: "+unknown.Error())
	case !there:
		lines = append(lines, "That backup is not in "+s.settings.Backups+" any more; look for a copy of it, or for another one: tako backup list")
		return errors.New(strings.Join(lines, "\n"))
	}
	if t, err := s.last(); err == nil && t != nil && t.Plan.Image {
		lines = append(lines, fmt.Sprintf("To do so, stop the container, run `backup restore %s` once with the image of version %s on the same volume, and start the container with that image.", only.Backup, only.From))
		return errors.New(strings.Join(lines, "\n"))
	}
	lines = append(lines, "These commands do it, with the settings of the server and as its user:")
	for _, value := range given(cmd.Flags()) {
		if withoutPassword(value) != value {
			lines[len(lines)-1] = "These commands do it, with the settings of the server (here without the password of the database, for PGPASSWORD or a .pgpass file) and as its user:"
		}
	}
	for _, line := range s.restoreCommands(cmd, only) {
		lines = append(lines, "  "+line)
	}
	if !only.Final {
		lines = append(lines, "Close the upgrade afterwards: tako upgrade rollback")
	}
	return errors.New(strings.Join(lines, "\n"))
}

// restoreCommands are the lines of a shell that lead back: the old version restores its own
// backup, and is made the current one.
func (s *site) restoreCommands(cmd *cobra.Command, only *upgrade.NeedsRestoreError) []string {
	words := []string{s.store.Program(only.From), "backup", "restore", only.Backup}
	flags := given(cmd.Flags())
	for _, name := range slices.Sorted(maps.Keys(flags)) {
		words = append(words, "--"+name+"="+withoutPassword(flags[name]))
	}
	words = append(words, s.cfg.Settings...)
	for i := range words {
		words[i] = shellWord(words[i])
	}
	return []string{
		"systemctl stop " + setup.Service,
		strings.Join(words, " "),
		"ln -sfn " + shellWord(filepath.Join("versions", only.From)) + " " + shellWord(filepath.Join(s.root, "current")),
		"systemctl start " + setup.Service,
	}
}

// withoutPassword is a setting without the passwords that the URL of a database may have:
// those are for the environment (PGPASSWORD) or a file.
func withoutPassword(value string) string {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" && u.RawQuery == "" {
		return value
	}
	changed := false
	if _, has := u.User.Password(); has {
		u.User, changed = url.User(u.User.Username()), true
	}
	query := u.Query()
	for name := range query {
		if config.IsPassword(name) {
			changed = true
			query.Del(name)
		}
	}
	if !changed {
		return value
	}
	u.RawQuery = query.Encode()
	return u.String()
}

var plainWord = regexp.MustCompile(`^[A-Za-z0-9_@%+=:,./-]+$`)

// shellWord is a word of a shell's command line.
func shellWord(text string) string {
	if plainWord.MatchString(text) {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
