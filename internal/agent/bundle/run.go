package bundle

import (
	"bytes"
	"context"
	"crypto/cipher"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
)

// Options are how a bundle is run.
type Options struct {
	Manifest string // the manifest's path; the bundle is around it
	// Working is the directory of journals, packages and logs, and Applications that of
	// what is installed. "" is what the bundle says; without either, Working is DefaultWorking
	// and Applications is below it.
	Working, Applications string
	// Password is asked for where the bundle is encrypted.
	Password func() (string, error)
	// Expected says that there is a password, and so that a bundle which is not encrypted
	// is not the one that is meant.
	Expected bool
	Version  string // of the program
	// Out and Err take what the scripts write, without service messages and secrets.
	Out, Err io.Writer
	Log      *slog.Logger // nil discards
}

// DefaultWorking is the working directory where nobody names one: that of the account.
func DefaultWorking() (string, error) {
	if os.Geteuid() == 0 {
		return "/var/lib/tako-offline", nil
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return "", err
	}
	return filepath.Join(home, ".tako-offline"), nil
}

// plainPath are the paths of working directories: they are put into scripts and into JSON
// that were made without knowing them.
var plainPath = regexp.MustCompile(`^(/[A-Za-z0-9._@+=, -]*)+$`)

// Times of a run.
const (
	statusWait = 20 * time.Second
	endWithin  = 10 * time.Second // a script that is to end
)

// Run carries out a bundle on this machine. Every file of it is checked before anything
// is changed. The steps run one after the other, and the first that fails is the last. When
// ctx ends, the script that runs is ended.
func Run(ctx context.Context, o Options) (err error) {
	root, err := os.OpenRoot(filepath.Dir(o.Manifest))
	if err != nil {
		return err
	}
	defer root.Close() //nolint:errcheck // a directory handle
	m, err := readManifest(root, filepath.Base(o.Manifest))
	if err != nil {
		return err
	}
	for _, f := range m.files() {
		if err := verify(ctx, root, f); err != nil {
			return err
		}
	}
	key, err := o.key(m)
	if err != nil {
		return err
	}
	cfg, err := o.place(m.Info)
	if err != nil {
		return err
	}
	svc, err := agent.Open(ctx, cfg)
	if errors.Is(err, agent.ErrHomeBusy) {
		return fmt.Errorf("another bundle is being run in %s; wait for its end", cfg.Home)
	}
	if err != nil {
		return fmt.Errorf("open the working directory %s: %w", cfg.Home, err)
	}
	defer func() { err = errors.Join(err, svc.Close()) }()
	r := &runner{o: o, m: m, root: root, key: key, svc: svc, home: cfg.Home}
	if err := r.say("Deploying %s to this machine, as %s.", m.Info.title(), m.Info.Machine); err != nil {
		return err
	}
	for _, p := range m.Packages {
		if err := r.bring(ctx, p); err != nil {
			return fmt.Errorf("take in the package %s: %w", p.Path, err)
		}
	}
	for i, s := range m.Steps {
		if err := r.say("Step %d of %d: %s", i+1, len(m.Steps), s.Name); err != nil {
			return err
		}
		if err := r.step(ctx, s); err != nil {
			return fmt.Errorf("step %d, %s: %w", i+1, s.Name, err)
		}
	}
	return r.say("The deployment has succeeded.")
}

// key is that of an encrypted bundle, nil for others.
func (o Options) key(m *Manifest) (cipher.AEAD, error) {
	if m.Encryption == nil && o.Expected {
		return nil, errors.New("a password was given, and the bundle is not encrypted: it is not the one that was made with the password; leave the password out if the bundle has none")
	}
	if m.Encryption == nil {
		return nil, nil //nolint:nilnil // as the steps are read
	}
	password, err := o.Password()
	if err != nil {
		return nil, err
	}
	digest, err := m.digest()
	if err != nil {
		return nil, err
	}
	return m.Encryption.open(password, digest)
}

// title is what a bundle deploys.
func (i Info) title() string {
	text := i.Project
	if i.Release != "" {
		text += " " + i.Release
	}
	text += " for " + i.Environment
	if i.Tenant != "" {
		text += ", " + i.Tenant
	}
	return text
}

// place is where the bundle works.
func (o Options) place(info Info) (agent.Config, error) {
	cfg := agent.Config{Home: o.Working, Applications: o.Applications, Version: o.Version, Log: o.Log, Instance: "Offline"}
	if cfg.Home == "" {
		cfg.Home = info.Working
	}
	if cfg.Applications == "" {
		cfg.Applications = info.Applications
	}
	if cfg.Home == "" {
		var err error
		if cfg.Home, err = DefaultWorking(); err != nil {
			return cfg, err
		}
	}
	if !plainPath.MatchString(cfg.Home) {
		return cfg, fmt.Errorf("the working directory %q must be an absolute path of letters, digits, spaces and . _ @ + = , - alone; choose another one with --working-directory", cfg.Home)
	}
	if cfg.Applications != "" && !filepath.IsAbs(cfg.Applications) {
		return cfg, fmt.Errorf("the directory of applications %q must be an absolute path of this machine; choose one with --applications-directory", cfg.Applications)
	}
	cfg.Home = filepath.Clean(cfg.Home)
	return cfg, nil
}

// verify checks that a file of the bundle is what the manifest says.
func verify(ctx context.Context, root *os.Root, want File) error {
	f, err := root.Open(want.Path)
	if errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("the bundle is not complete: %s is missing; copy the whole folder", want.Path)
	}
	if err != nil {
		return err
	}
	defer f.Close()
	sum := sha256.New()
	n, err := io.Copy(sum, &untilDone{ctx, io.LimitReader(f, want.Size+1)})
	if err != nil {
		return fmt.Errorf("read %s: %w", want.Path, err)
	}
	if n != want.Size || hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		return fmt.Errorf("the bundle is damaged: %s is not what the manifest says; copy it again", want.Path)
	}
	return nil
}

// untilDone reads until its context ends.
type untilDone struct {
	ctx context.Context //nolint:containedctx // it is one call's
	r   io.Reader
}

func (u *untilDone) Read(p []byte) (int, error) {
	if err := u.ctx.Err(); err != nil {
		return 0, err
	}
	return u.r.Read(p)
}

// runner is one run of a bundle.
type runner struct {
	o    Options
	m    *Manifest
	root *os.Root
	key  cipher.AEAD
	svc  agent.API
	home string
}

func (r *runner) say(format string, args ...any) error {
	_, err := fmt.Fprintf(r.o.Out, format+"\n", args...)
	return err
}

// bring puts a package into the cache that scripts take it from.
func (r *runner) bring(ctx context.Context, p File) error {
	has, err := r.svc.HasPackage(ctx, p.SHA256)
	if err != nil || has {
		return err
	}
	f, err := r.root.Open(p.Path)
	if err != nil {
		return err
	}
	defer f.Close()
	return r.svc.PutPackage(ctx, p.SHA256, p.Size, f)
}

// request reads a step and puts the directory that it runs in where the bundle has a
// mark.
func (r *runner) request(s Step) (*content, error) {
	data, err := readFile(r.root, s.Path, maxStep)
	if err == nil && r.key != nil {
		data, err = unseal(r.key, s.Path, data)
	}
	if err != nil {
		return nil, err
	}
	c := new(content)
	if err := json.Unmarshal(data, c); err != nil {
		return nil, fmt.Errorf("%s is damaged", s.Path) // the decoder's message may quote a secret
	}
	c.Request.Ticket = agent.Ticket("offline-" + strings.ToLower(rand.Text()))
	at := r.home + "/" + strings.TrimSuffix(agent.WorkspacePath(c.Request.Ticket, ""), "/")
	mark := r.m.Workspace
	c.Request.Body = strings.ReplaceAll(c.Request.Body, mark, at)
	for i := range c.Request.Arguments {
		c.Request.Arguments[i] = strings.ReplaceAll(c.Request.Arguments[i], mark, at)
	}
	for i := range c.Request.Files {
		c.Request.Files[i].Content = bytes.ReplaceAll(c.Request.Files[i].Content, []byte(mark), []byte(at))
	}
	return c, nil
}

// step runs a step to its end.
func (r *runner) step(ctx context.Context, s Step) error {
	c, err := r.request(s)
	if err != nil {
		return err
	}
	out, err := newOutput(r.o.Out, r.o.Err, c.Secrets)
	if err != nil {
		return err
	}
	req := c.Request
	req.Wait = statusWait
	status, err := r.svc.StartScript(ctx, req)
	for err == nil {
		if err = out.write(status.Entries); err != nil || status.State == agent.Complete {
			break
		}
		status, err = r.svc.GetStatus(ctx, agent.StatusRequest{Ticket: req.Ticket, After: status.Next, Wait: statusWait})
	}
	if err != nil {
		return errors.Join(err, r.end(ctx, req.Ticket))
	}
	if err := errors.Join(out.end(), r.svc.CompleteScript(ctx, req.Ticket)); err != nil {
		return err
	}
	if status.ExitCode != 0 {
		if out.message != "" {
			return errors.New(out.message)
		}
		return fmt.Errorf("the script exited with code %d", status.ExitCode)
	}
	return nil
}

// end ends a script that nobody waits for any more.
func (r *runner) end(ctx context.Context, t agent.Ticket) error {
	ctx, stop := context.WithTimeout(context.WithoutCancel(ctx), endWithin)
	defer stop()
	status, err := r.svc.CancelScript(ctx, agent.StatusRequest{Ticket: t, Wait: endWithin})
	if err == nil && status.State != agent.Complete {
		survivors := slices.Clone(status.Survivors)
		return fmt.Errorf("the script could not be ended: %s", strings.Join(survivors, ", "))
	}
	if err == nil {
		err = r.svc.CompleteScript(ctx, t)
	}
	return err
}
