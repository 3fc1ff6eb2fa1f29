package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/takodeploy/tako/internal/config"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "tako.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestOrder checks that flags go before the environment, that before the file,
// and that before the defaults.
func TestOrder(t *testing.T) {
	t.Parallel()
	path := file(t, "listen: 127.0.0.1:1\nnode: file\nlog_level: debug\nbuiltin_worker: false\n")
	c, err := config.Load(path, []string{"TAKO_LISTEN=127.0.0.1:2", "TAKO_NODE=environment", "HOME=/root"}, map[string]string{"listen": "127.0.0.1:3"})
	if err != nil {
		t.Fatal(err)
	}
	if c.Listen != "127.0.0.1:3" || c.Node != "environment" || c.LogLevel != "debug" || c.BuiltinWorker || c.LogFormat != "text" {
		t.Errorf("got %s", c.Print())
	}
	if want := "sqlite:" + filepath.Join(c.Data, "tako.db"); c.Database != want || !filepath.IsAbs(c.Data) {
		t.Errorf("database %s in %s, want %s", c.Database, c.Data, want)
	}
}

// TestRelative makes directories absolute, by which they are compared.
func TestRelative(t *testing.T) {
	t.Parallel()
	c, err := config.Load("", []string{"TAKO_CLONE_DATABASE_HOSTS=a, b:5433,"}, map[string]string{"data": "d", "backups": "b"})
	if err != nil || !filepath.IsAbs(c.Data) || !filepath.IsAbs(c.Backups) || filepath.Base(c.Backups) != "b" {
		t.Errorf("data in %s, backups in %s, %v", c.Data, c.Backups, err)
	}
	if got := strings.Join(c.CloneHosts(), "|"); got != "a|b:5433" {
		t.Errorf("hosts for test instances: %s", got)
	}
}

// TestNoAgents switches the port of agents off by either word.
func TestNoAgents(t *testing.T) {
	t.Parallel()
	for given, want := range map[string]string{"off": "", "": "", "127.0.0.1:1": "127.0.0.1:1"} {
		if c, err := config.Load("", nil, map[string]string{"agent-listen": given}); err != nil || c.AgentListen != want {
			t.Errorf("%q: %q, %v", given, c.AgentListen, err)
		}
	}
	if c := config.Defaults(); c.AgentListen != ":10943" {
		t.Errorf("%q unless set", c.AgentListen)
	}
}

func TestMistakes(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		file    string
		environ []string
		flags   map[string]string
		want    string
	}{
		"unknown in the file":        {file: "colour: red\n", want: `"colour" is no setting`},
		"unknown in the environment": {environ: []string{"TAKO_COLOUR=red"}, want: "TAKO_COLOUR is no setting"},
		"address":                    {flags: map[string]string{"listen": "here"}, want: `listen is "here"`},
		"address for agents":         {flags: map[string]string{"agent-listen": "there"}, want: `agent_listen is "there"`},
		"level":                      {flags: map[string]string{"log-level": "loud"}, want: `log_level is "loud"`},
		"format":                     {flags: map[string]string{"log-format": "xml"}, want: `log_format is "xml"`},
		"one half of TLS":            {flags: map[string]string{"tls-key": "k"}, want: "belong together"},
		"base path":                  {flags: map[string]string{"base-path": "deploy/"}, want: "begins with a slash"},
		"server address":             {flags: map[string]string{"server-uri": "deploy.example.com"}, want: "server_uri is"},
		"drop folders":               {flags: map[string]string{"offline-drop-roots": "/srv/drops:drops"}, want: `offline_drop_roots has "drops"`},
		"no data":                    {flags: map[string]string{"data": ""}, want: "data is empty"},
		"missing file":               {file: "-", want: "read configuration file"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := ""
			switch tt.file {
			case "":
			case "-":
				path = filepath.Join(t.TempDir(), "none.yaml")
			default:
				path = file(t, tt.file)
			}
			_, err := config.Load(path, tt.environ, tt.flags)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
}

// TestSecretsStayInside checks that no secret is a flag or is printed.
func TestSecretsStayInside(t *testing.T) {
	t.Parallel()
	c, err := config.Load("", []string{"TAKO_ADMIN_PASSWORD=hunter2hunter2", "TAKO_ADMIN_API_KEY=API-HUNTER2", "TAKO_MASTER_KEY=hunter2key", "TAKO_DATABASE=postgres://u:hunter2@h/d?sslmode=require&password=hunter2&sslpassword=hunter2"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if string(c.AdminPassword) != "hunter2hunter2" || string(c.MasterKey) != "hunter2key" {
		t.Error("the secrets were not read")
	}
	if out := c.Print(); strings.Contains(strings.ToLower(out), "hunter2") {
		t.Errorf("printed:\n%s", out)
	}
	secrets := 0
	for _, f := range config.Fields() {
		if f.Secret {
			secrets++
		}
		if f.Secret && f.Flag != "" || f.Help == "" || !strings.HasPrefix(f.Env, "TAKO_") {
			t.Errorf("setting %+v", f)
		}
	}
	if secrets != 3 {
		t.Errorf("%d secrets, want 3", secrets)
	}
}
