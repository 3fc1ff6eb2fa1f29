// Package config is everything that can be set about a server: one struct, with
// its defaults in one place. Flags go before the environment (TAKO_*), that before
// the file; a name that nobody knows is an error.
package config

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/knadh/koanf/parsers/yaml"
	"github.com/knadh/koanf/providers/file"
	"github.com/knadh/koanf/v2"

	"github.com/takodeploy/tako/internal/secret"
)

// Config of a server. The tag is the name in the file and, in upper case and
// behind TAKO_, in the environment; flags have dashes.
type Config struct {
	// Data is the directory that holds everything a server keeps.
	Data string `koanf:"data" help:"directory for everything the server keeps"`
	// Listen is the address of API and user interface.
	Listen string `koanf:"listen" help:"address to serve on"`
	// AgentListen is the address for agents that poll; "" is none.
	AgentListen string `koanf:"agent_listen" help:"address to serve agents on that poll for work, or off"`
	// Database is sqlite:PATH or postgres://...; "" is SQLite in Data.
	Database string `koanf:"database" help:"sqlite:PATH or postgres://USER@HOST/NAME; SQLite in the data directory unless set"`
	// Backups is the directory of backups; "" is backups in Data.
	Backups string `koanf:"backups" help:"directory for backups, best on another disk; backups in the data directory unless set"`
	// CloneDatabaseHosts are the database servers, beside the server's own, that the API
	// may have test instances made on: HOST or HOST:PORT, with commas between.
	CloneDatabaseHosts string `koanf:"clone_database_hosts" help:"database servers, beside the server's own, on which the API may make test instances: HOST or HOST:PORT, commas between"`
	// TLSCert and TLSKey are PEM files; both or none.
	TLSCert string `koanf:"tls_cert" help:"PEM file with the certificate chain, to serve HTTPS"`
	TLSKey  string `koanf:"tls_key" help:"PEM file with the certificate's key"`
	// Node names this server among several on one database.
	Node string `koanf:"node" help:"name of this node; the host's name unless set"`
	// BasePath is the path under which a proxy serves the server.
	BasePath string `koanf:"base_path" help:"path under which a proxy in front serves this server, such as /deploy"`
	// ServerURI is where people reach the server; variables and links tell it.
	ServerURI string `koanf:"server_uri" help:"address that people reach the server at, such as https://deploy.example.com"`
	// BuiltinWorker can be switched off, so that nothing runs on the server's host.
	BuiltinWorker bool `koanf:"builtin_worker" help:"run steps that need no target on the server's own host"`
	// WebhooksToSelf lets webhooks, and requests for the keys of token issuers, connect
	// to the server's own host.
	WebhooksToSelf bool `koanf:"webhooks_to_self" help:"let the webhooks of subscriptions, and requests to token issuers, connect to the server's own host"`
	// OfflineDropRoots are the directories, as DropRoots has them, below which the drop
	// folders of offline drops may be; "" permits all but the server's own.
	OfflineDropRoots string `koanf:"offline_drop_roots" help:"directories, with ':' between, below which drop folders of offline drops may be; any but the server's own unless set"`
	// UpgradeFeed is the address of the feed of releases, UpgradeChannel its channel and
	// UpgradeKeys a file with the keys that must have signed it.
	UpgradeFeed    string `koanf:"upgrade_feed" help:"address of the signed feed of releases to look at for newer versions"`
	UpgradeChannel string `koanf:"upgrade_channel" help:"channel of the feed of releases"`
	UpgradeKeys    string `koanf:"upgrade_keys" help:"file with the signed root of the keys that must have signed the feed of releases"`
	// UpgradeCheck lets the server look at a feed that somebody has named, every
	// UpgradeCheckInterval, which is a minute or more.
	UpgradeCheck         bool          `koanf:"upgrade_check" help:"look at the feed of releases from time to time, if one is named; nothing is installed by itself"`
	UpgradeCheckInterval time.Duration `koanf:"upgrade_check_interval" help:"how often to look at the feed of releases, such as 24h"`
	// NoExpand has a server refuse to start on the schema of an earlier version, which it
	// would back up and expand.
	NoExpand bool `koanf:"no_expand" help:"do not start on the schema of an earlier version, instead of backing it up and expanding it"`
	// LogLevel is debug, info, warn or error; LogFormat text or json.
	LogLevel  string `koanf:"log_level" help:"debug, info, warn or error"`
	LogFormat string `koanf:"log_format" help:"text or json"`

	// The first administrator, made at the first start without a question.
	AdminUsername string      `koanf:"admin_username" help:"first administrator's user name" env:"only"`
	AdminPassword secret.Text `koanf:"admin_password" help:"first administrator's password" env:"only"`
	AdminAPIKey   secret.Text `koanf:"admin_api_key" help:"an API key of the first administrator (API- and upper-case letters and digits)" env:"only"`
	// MasterKey is the key itself, MasterKeyFile a file that has it.
	MasterKey     secret.Text `koanf:"master_key" help:"the master key itself" env:"only"`
	MasterKeyFile string      `koanf:"master_key_file" help:"file that has the master key, instead of master.key in the data directory"`
}

// Defaults of a server.
func Defaults() Config {
	node, err := os.Hostname()
	if err != nil || node == "" {
		node = "tako"
	}
	return Config{
		Data: "tako-data", Listen: "127.0.0.1:8065", AgentListen: ":10943", Node: node, BuiltinWorker: true,
		UpgradeChannel: "stable", UpgradeCheck: true, UpgradeCheckInterval: 24 * time.Hour, LogLevel: "info", LogFormat: "text",
	}
}

// Field is one thing that can be set.
type Field struct {
	Name    string // in the file: "tls_cert"
	Flag    string // "tls-cert", "" for what must not stand on a command line
	Env     string // "TAKO_TLS_CERT"
	Help    string
	Default string
	Bool    bool
	Secret  bool
}

// Fields lists everything that can be set, in the order of Config.
func Fields() []Field {
	var all []Field
	defaults := reflect.ValueOf(Defaults())
	for f := range reflect.TypeFor[Config]().Fields() {
		name := f.Tag.Get("koanf")
		one := Field{
			Name: name, Env: "TAKO_" + strings.ToUpper(name), Help: f.Tag.Get("help"),
			Bool: f.Type.Kind() == reflect.Bool, Secret: f.Type == reflect.TypeFor[secret.Text](),
		}
		if f.Tag.Get("env") != "only" {
			one.Flag = strings.ReplaceAll(name, "_", "-")
		}
		if !one.Secret {
			one.Default = fmt.Sprint(defaults.FieldByIndex(f.Index).Interface())
		}
		all = append(all, one)
	}
	return all
}

// Load reads the file (if path is not ""), the environment and the flags that
// were given, and checks the whole.
func Load(path string, environ []string, flags map[string]string) (Config, error) {
	c := Defaults()
	k := koanf.New(".")
	if path != "" {
		if err := k.Load(file.Provider(path), yaml.Parser()); err != nil {
			return c, fmt.Errorf("read configuration file %s: %w", path, err)
		}
	}
	fields := Fields()
	known := map[string]Field{}
	for _, f := range fields {
		known[f.Name] = f
	}
	var errs []error
	for _, name := range k.Keys() {
		if _, ok := known[name]; !ok {
			errs = append(errs, fmt.Errorf("%s: %q is no setting; known ones are %s", path, name, names(fields)))
		}
	}
	errs = append(errs, fromEnvironment(k, fields, environ))
	for flag, value := range flags {
		if err := k.Set(strings.ReplaceAll(flag, "-", "_"), value); err != nil {
			errs = append(errs, err)
		}
	}
	if err := errors.Join(errs...); err != nil {
		return c, err
	}
	if err := k.Unmarshal("", &c); err != nil {
		return c, fmt.Errorf("read configuration: %w", err)
	}
	return c, c.check()
}

func names(fields []Field) string {
	all := make([]string, len(fields))
	for i, f := range fields {
		all[i] = f.Name
	}
	return strings.Join(all, ", ")
}

// others are environment variables of our own that are no settings of a server.
var others = []string{"TAKO_FAILPOINT", "TAKO_FAILPOINT_ONCE", "TAKO_TEST_", "TAKO_LAUNCH", "TAKO_URL", "TAKO_API_KEY", "TAKO_COPY_"} //nolint:gochecknoglobals // a constant list

func fromEnvironment(k *koanf.Koanf, fields []Field, environ []string) error {
	var errs []error
	for _, pair := range environ {
		name, value, _ := strings.Cut(pair, "=")
		if !strings.HasPrefix(name, "TAKO_") || slices.ContainsFunc(others, func(o string) bool { return strings.HasPrefix(name, o) }) {
			continue
		}
		i := slices.IndexFunc(fields, func(f Field) bool { return f.Env == name })
		if i < 0 {
			errs = append(errs, fmt.Errorf("environment variable %s is no setting; known ones are TAKO_ and one of %s, in upper case", name, names(fields)))
			continue
		}
		if err := k.Set(fields[i].Name, value); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

func (c *Config) check() error {
	var errs []error
	if c.Data == "" {
		errs = append(errs, errors.New("data is empty; name a directory"))
	} else if abs, err := filepath.Abs(c.Data); err != nil {
		errs = append(errs, err)
	} else {
		c.Data = abs
	}
	if _, _, err := net.SplitHostPort(c.Listen); err != nil {
		errs = append(errs, fmt.Errorf("listen is %q; give HOST:PORT, for example 127.0.0.1:8065", c.Listen))
	}
	if c.AgentListen == "off" {
		c.AgentListen = ""
	}
	if _, _, err := net.SplitHostPort(c.AgentListen); err != nil && c.AgentListen != "" {
		errs = append(errs, fmt.Errorf("agent_listen is %q; give HOST:PORT or :PORT, for example :10943, or off", c.AgentListen))
	}
	if (c.TLSCert == "") != (c.TLSKey == "") {
		errs = append(errs, errors.New("tls_cert and tls_key belong together; give both or none"))
	}
	if !slices.Contains([]string{"debug", "info", "warn", "error"}, c.LogLevel) {
		errs = append(errs, fmt.Errorf("log_level is %q; use debug, info, warn or error", c.LogLevel))
	}
	if !slices.Contains([]string{"text", "json"}, c.LogFormat) {
		errs = append(errs, fmt.Errorf("log_format is %q; use text or json", c.LogFormat))
	}
	if c.UpgradeFeed != "" {
		if u, err := url.Parse(c.UpgradeFeed); err != nil || u.Host == "" || u.Scheme != "https" && u.Scheme != "http" {
			errs = append(errs, errors.New("upgrade_feed is no address; give one such as https://releases.example.com/feed.json"))
		}
	}
	if c.UpgradeCheckInterval < time.Minute {
		errs = append(errs, fmt.Errorf("upgrade_check_interval is %s; give a minute or more, such as 24h", c.UpgradeCheckInterval))
	}
	if c.BasePath != "" && (!strings.HasPrefix(c.BasePath, "/") || strings.HasSuffix(c.BasePath, "/")) {
		errs = append(errs, fmt.Errorf("base_path is %q; it begins with a slash and does not end with one", c.BasePath))
	}
	if c.ServerURI != "" {
		if u, err := url.Parse(c.ServerURI); err != nil || u.Host == "" || u.User != nil {
			errs = append(errs, fmt.Errorf("server_uri is %q; give an address such as https://deploy.example.com, without a user", c.ServerURI))
		}
	}
	for _, root := range c.DropRoots() {
		if !filepath.IsAbs(root) {
			errs = append(errs, fmt.Errorf("offline_drop_roots has %q; give absolute directories, with %q between", root, string(filepath.ListSeparator)))
		}
	}
	if c.Backups == "" {
		c.Backups = filepath.Join(c.Data, "backups")
	}
	if abs, err := filepath.Abs(c.Backups); err != nil {
		errs = append(errs, err)
	} else {
		c.Backups = abs
	}
	if c.Database == "" {
		c.Database = "sqlite:" + filepath.Join(c.Data, "tako.db")
	}
	return errors.Join(errs...)
}

// CloneHosts is CloneDatabaseHosts as a list.
func (c Config) CloneHosts() (all []string) {
	for one := range strings.SplitSeq(c.CloneDatabaseHosts, ",") {
		if one = strings.TrimSpace(one); one != "" {
			all = append(all, one)
		}
	}
	return all
}

// DropRoots are the directories of OfflineDropRoots, none when it is not set.
func (c *Config) DropRoots() []string { return filepath.SplitList(c.OfflineDropRoots) }

// Print lists the settings as a configuration file, without the secrets.
func (c Config) Print() string {
	var b strings.Builder
	v := reflect.ValueOf(c)
	for f := range v.Type().Fields() {
		value := fmt.Sprintf("%v", v.FieldByIndex(f.Index).Interface())
		if f.Name == "Database" || f.Name == "UpgradeFeed" {
			value = withoutPassword(value)
		}
		fmt.Fprintf(&b, "%s: %q\n", f.Tag.Get("koanf"), value)
	}
	return b.String()
}

// IsPassword reports whether a parameter of a URL, such as sslpassword of a database's, has a
// password. In doubt it has.
func IsPassword(parameter string) bool {
	return strings.Contains(strings.ToLower(parameter), "password")
}

// withoutPassword hides what stands between the user name and the host, and the passwords
// that the parameters of a URL may be.
func withoutPassword(url string) string {
	scheme, rest, ok := strings.Cut(url, "://")
	if at := strings.LastIndexByte(rest, '@'); ok && at >= 0 {
		user, _, _ := strings.Cut(rest[:at], ":")
		url = scheme + "://" + user + ":***" + rest[at:]
	}
	url, query, asked := strings.Cut(url, "?")
	if !asked {
		return url
	}
	parts := strings.Split(query, "&")
	for i, part := range parts {
		if name, _, _ := strings.Cut(part, "="); IsPassword(name) {
			parts[i] = name + "=***"
		}
	}
	return url + "?" + strings.Join(parts, "&")
}
