package resources

import (
	"context"
	"net/mail"
	"net/url"
	"strings"

	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/resource"
	"github.com/takodeploy/tako/octopus"
)

// Configurations declares the settings of the whole server. Of each kind there is
// at most one document; until somebody has changed it there is none, and the
// defaults hold.
func Configurations() []*resource.Kind {
	return []*resource.Kind{
		configuration("maintenanceconfiguration", "MaintenanceConfiguration", "maintenance configuration", MaintenanceID, octopus.PermAdministerSystem,
			resource.Declaration[octopus.MaintenanceConfiguration]{}),
		configuration(UpgradeConfigurationKind, "UpgradeConfiguration", "upgrade configuration", UpgradeConfigurationID, octopus.PermConfigureServer,
			resource.Declaration[octopus.UpgradeConfiguration]{
				Prepare: func(v *octopus.UpgradeConfiguration) {
					if v.NotificationMode == "" {
						v.NotificationMode = octopus.UpgradeAlwaysShow
					}
				},
			}),
		configuration("featuresconfiguration", "FeaturesConfiguration", "features configuration", "features", octopus.PermConfigureServer,
			resource.Declaration[octopus.FeaturesConfiguration]{Owned: []string{"IsBuiltInWorkerEnabled"}}),
		configuration("performanceconfiguration", "PerformanceConfiguration", "performance configuration", "performance", octopus.PermConfigureServer,
			resource.Declaration[octopus.PerformanceConfiguration]{
				Prepare: func(v *octopus.PerformanceConfiguration) {
					if v.DefaultDashboardRenderMode == "" {
						v.DefaultDashboardRenderMode = "VirtualizeColumns"
					}
				},
			}),
		configuration("serverconfiguration", "ServerConfiguration", "server configuration", "server", octopus.PermConfigureServer,
			resource.Declaration[octopus.ServerConfiguration]{
				Prepare: func(v *octopus.ServerConfiguration) {
					v.ServerURI = strings.TrimRight(strings.TrimSpace(v.ServerURI), "/")
				},
				Check: checkServerURI,
			}),
		configuration("smtpconfiguration", "SmtpConfiguration", "SMTP configuration", "smtp", octopus.PermConfigureServer,
			resource.Declaration[octopus.SMTPConfiguration]{
				Prepare: func(v *octopus.SMTPConfiguration) {
					v.SMTPHost, v.SendEmailFrom = strings.TrimSpace(v.SMTPHost), strings.TrimSpace(v.SendEmailFrom)
					if v.SMTPPort == 0 {
						v.SMTPPort = 25
					}
					if v.Timeout == 0 {
						v.Timeout = 12000
					}
				},
				Check: checkSMTP,
			}),
		configuration(BackupConfigurationKind, "BackupConfiguration", "backup configuration", BackupConfigurationID, octopus.PermAdministerSystem,
			resource.Declaration[octopus.BackupConfiguration]{Prepare: prepareBackups, Check: checkBackups, InTx: backupsInTx}),
	}
}

// UpgradeConfigurationKind has one document, UpgradeConfigurationID: whether the server
// looks for newer versions of itself, and of which it tells.
const (
	UpgradeConfigurationKind = "upgradeconfiguration"
	UpgradeConfigurationID   = "upgrade"
)

// MaintenanceID is the id of the one document of the kind maintenanceconfiguration.
const MaintenanceID = "maintenance"

// configuration completes the declaration of a kind with one document, whose id
// is the prefix of the kind.
func configuration[T any](name, item, noun, id string, edit octopus.Permission, d resource.Declaration[T]) *resource.Kind {
	d.Name, d.ItemType, d.Noun, d.Prefix = name, item, noun, id
	d.Scope, d.Unnamed, d.Hidden = resource.InSystem, true, true
	d.Permissions = resource.Permissions{Edit: string(edit)}
	d.Links = map[string]string{"Self": "/api/" + name}
	return resource.Declare(d)
}

func checkSMTP(_ context.Context, _ resource.Reader, _, v *octopus.SMTPConfiguration) error {
	from, err := mail.ParseAddress(v.SendEmailFrom)
	switch {
	case v.SMTPHost != "" && (strings.ContainsAny(v.SMTPHost, "/ \t\r\n") || len(v.SMTPHost) > 253):
		return fault.InvalidField("SmtpHost", "SmtpHost is '%.100s'; give the name or address of the SMTP server alone, such as smtp.example.com.", v.SMTPHost)
	case v.SMTPPort < 1 || v.SMTPPort > 65535:
		return fault.InvalidField("SmtpPort", "SmtpPort is %d; use a number from 1 to 65535.", v.SMTPPort)
	case v.Timeout < 1000 || v.Timeout > 600_000:
		return fault.InvalidField("Timeout", "Timeout is %d; use 1000 to 600000 milliseconds.", v.Timeout)
	case v.SMTPHost != "" && err != nil, v.SendEmailFrom != "" && (err != nil || !strings.Contains(from.Address, "@")):
		return fault.InvalidField("SendEmailFrom", "SendEmailFrom is '%.200s'; give the address from which e-mails come, such as tako@example.com.", v.SendEmailFrom)
	}
	return nil
}

func checkServerURI(_ context.Context, _ resource.Reader, _, v *octopus.ServerConfiguration) error {
	if v.ServerURI == "" {
		return nil
	}
	at, err := url.Parse(v.ServerURI)
	if err != nil || at.Scheme != "http" && at.Scheme != "https" || at.Host == "" || at.User != nil || at.RawQuery != "" || at.Fragment != "" {
		return fault.InvalidField("ServerUri", "ServerUri is '%.200s'; give the address at which people reach the server, such as https://deploy.example.com.", v.ServerURI)
	}
	return nil
}
