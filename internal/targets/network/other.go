package network

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // the checksum of uploads that the protocol has
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"
	"time"

	"github.com/takodeploy/tako/internal/agent"
	"github.com/takodeploy/tako/internal/fault"
	"github.com/takodeploy/tako/internal/halibut/tentacle"
	"github.com/takodeploy/tako/internal/halibut/wire"
	"github.com/takodeploy/tako/internal/targets/program"
)

// Names below the home of an agent of another make, and in a script's directory there.
const (
	toolsDir    = "Tools/tako/"
	packagesDir = toolsDir + agent.PackagesName + "/"
	execDir     = ".tako/exec/"
	execScript  = execDir + "script.sh"
	execRequest = execDir + "request.json"
)

const (
	// ownMutex is that of our own short scripts, which wait for nobody's.
	ownMutex = "TakoAgentProgram"
	// ownFor is how long such a script may take.
	ownFor = 2 * time.Minute
	// lookAgain is how long what was found about an agent is taken as known.
	lookAgain = time.Hour
	// broughtFor is how long a program is taken to be where it was brought.
	broughtFor = 10 * time.Minute
	maxReady   = 4096 // bytes of a file that says that another is whole
	windows    = "Windows"
)

// otherAgent is one of another make, by the script service V2. What that has no words
// for (packages, an environment, a limit of time) is done by a program of ours, which
// is brought there as a file and runs as the script.
type otherAgent struct {
	remoteFiles
	client   tentacle.Client
	pace     Pace
	name     string
	programs *program.Finder

	// What was found when the agent was looked at.
	home   string
	uname  string // "Linux x86_64"; Windows
	broken error  // why no script can be run
	looked time.Time

	turn    chan struct{} // full while somebody brings the program
	where   string        // the program's path, "" where it was not brought
	brought time.Time
}

var _ agent.API = (*otherAgent)(nil)

// look finds out what is around the agent's scripts.
func (a *otherAgent) look(ctx context.Context) error {
	const bash = `printf '` + agent.ReplyMark + `home %s\n` + agent.ReplyMark + `uname %s\n' "${TentacleHome:-$(cd ../.. && pwd)}" "$(uname -sm)"` + "\n"
	// Where scripts are PowerShell's there is no other body.
	const powerShell = "Write-Output '" + agent.ReplyMark + "uname " + windows + "'\n"
	exit, said, err := a.ownScript(ctx, bash, powerShell)
	if err != nil {
		return err
	}
	a.home, a.uname, a.looked = reply(said, "home "), reply(said, "uname "), time.Now()
	switch {
	case a.uname == windows:
		a.broken = fault.New(fault.Unsupported, "The agent %s runs on Windows; this version runs Bash scripts, on Linux and other systems that have Bash.", a.name)
	case exit != 0 || a.uname == "" || !path.IsAbs(a.home):
		a.broken = fault.New(fault.Unsupported, "The agent %s does not run Bash scripts: a script that looks around ended with exit code %d and said: %.300s", a.name, exit, strings.TrimSpace(said))
	}
	return nil
}

// reply is what a script said after the mark and a word.
func reply(said, word string) string {
	for line := range strings.Lines(said) {
		if text, ok := strings.CutPrefix(line, agent.ReplyMark+word); ok {
			return strings.TrimSpace(text)
		}
	}
	return ""
}

// ownScript runs a short script of ours to its end.
func (a *otherAgent) ownScript(ctx context.Context, bash, powerShell string) (exit int, said string, err error) {
	ctx, stop := context.WithTimeout(ctx, ownFor)
	defer stop()
	ticket := agent.Ticket("tako-" + strings.ToLower(rand.Text()))
	st, err := status(a.client.StartScript(ctx, tentacle.StartScriptV2{
		ScriptTicket: tentacle.Ticket{TaskID: string(ticket)}, TaskID: string(ticket), ScriptBody: powerShell,
		Scripts: map[tentacle.ScriptType]string{tentacle.Bash: bash}, Wait: startWait, MutexName: ownMutex, MutexTimeout: ownFor,
	}))
	var out strings.Builder
	for err == nil {
		for _, e := range st.Entries {
			if out.Len() < maxReady {
				out.WriteString(e.Text + "\n")
			}
		}
		if st.State == agent.Complete {
			// It may be done again and is done by whoever cleans up there; nothing depends on it.
			_ = a.CompleteScript(ctx, ticket)
			return st.ExitCode, out.String(), nil
		}
		st, err = a.GetStatus(ctx, agent.StatusRequest{Ticket: ticket, After: st.Next, Wait: ownFor})
	}
	return 0, "", err
}

// Hello is agent.API. What the contract does not tell is left out.
func (a *otherAgent) Hello(ctx context.Context) (agent.Hello, error) {
	_, err := a.client.Capabilities(ctx)
	return agent.Hello{Home: a.home}, translated(err)
}

// needsProgram reports whether the contract has no words for a request.
func needsProgram(req agent.StartRequest) bool {
	return len(req.Prepare.Packages) > 0 || len(req.Prepare.Substitute.Globs) > 0 || len(req.Env) > 0 || req.Timeout > 0 ||
		strings.Contains(req.Body, agent.ProgramEnv)
}

// StartScript is agent.Scripts. An error that the agent answers says nothing about
// whether the script was started.
func (a *otherAgent) StartScript(ctx context.Context, req agent.StartRequest) (agent.Status, error) {
	if a.broken != nil {
		return agent.Status{}, a.broken
	}
	if needsProgram(req) {
		where, err := a.bring(ctx)
		if err != nil {
			return agent.Status{}, before(err)
		}
		if req, err = wrapped(req, where); err != nil {
			return agent.Status{}, err
		}
	}
	cmd := tentacle.StartScriptV2{
		ScriptTicket: tentacle.Ticket{TaskID: string(req.Ticket)}, TaskID: string(req.Ticket), ScriptBody: req.Body,
		Scripts: map[tentacle.ScriptType]string{tentacle.Bash: req.Body}, Arguments: req.Arguments, Wait: min(req.Wait, startWait),
		Isolation: tentacle.Isolation(req.Isolation), MutexName: req.MutexName, MutexTimeout: req.MutexTimeout,
	}
	for _, f := range req.Files {
		cmd.Files = append(cmd.Files, tentacle.File{Name: f.Name, Contents: wire.NewStream(int64(len(f.Content)), bytes.NewReader(f.Content))})
	}
	st, err := status(a.client.StartScript(ctx, cmd))
	if fault.Is(err, fault.Internal) && !errors.Is(err, agent.ErrNotSent) && !errors.Is(err, agent.ErrUnanswered) {
		err = fmt.Errorf("%w: %w", agent.ErrUnanswered, err)
	}
	return st, err
}

// before is an error of what is done before a script is sent: whatever became of that,
// the script has not begun.
func before(err error) error {
	if errors.Is(err, agent.ErrUnanswered) {
		return fmt.Errorf("%w: %s", agent.ErrNotSent, err.Error())
	}
	return err
}

// wrapped is a request whose script is our program at a path, which does what req says.
func wrapped(req agent.StartRequest, where string) (agent.StartRequest, error) {
	order := agent.ExecRequest{Script: execScript, Env: req.Env, Timeout: req.Timeout, Prepare: req.Prepare}
	for _, f := range req.Files {
		order.Sent = append(order.Sent, f.Name)
	}
	order.Sent = append(order.Sent, execRequest)
	b, err := json.Marshal(order)
	if err != nil {
		return req, fmt.Errorf("write the request of a script: %w", err)
	}
	req.Files = append(req.Files[:len(req.Files):len(req.Files)],
		agent.File{Name: execScript, Content: []byte(strings.ReplaceAll(req.Body, "\r\n", "\n"))}, agent.File{Name: execRequest, Content: b})
	req.Body = "exec " + quote(where) + " " + strings.Join(agent.ExecArgs(execRequest), " ") + ` "$@"` + "\n"
	req.Env, req.Timeout, req.Prepare = nil, 0, agent.Prepare{}
	return req, nil
}

// quote makes one word of text for a shell.
func quote(text string) string { return `'` + strings.ReplaceAll(text, `'`, `'\''`) + `'` }

// bring makes sure that our program is there, and returns its path.
func (a *otherAgent) bring(ctx context.Context) (string, error) {
	platform, err := program.ParseUname("The agent "+a.name, a.uname)
	if err != nil {
		return "", err
	}
	p, err := a.programs.Find(platform)
	if err != nil {
		return "", err
	}
	select {
	case a.turn <- struct{}{}:
		defer func() { <-a.turn }()
	case <-ctx.Done():
		return "", fmt.Errorf("%w: %w", agent.ErrNotSent, ctx.Err())
	}
	if a.where != "" && time.Since(a.brought) < broughtFor {
		return a.where, nil
	}
	dir := toolsDir + p.SHA256 + "/"
	where, err := a.ready(ctx, dir)
	if err == nil && where == "" {
		where, err = a.upload(ctx, dir, p)
	}
	if err != nil {
		return "", err
	}
	a.where, a.brought = where, time.Now()
	return where, nil
}

// ready reads the file that says what is whole in a directory, "" if nothing is.
func (a *otherAgent) ready(ctx context.Context, dir string) (string, error) {
	r, err := a.DownloadFile(ctx, dir+agent.ReadyName)
	if fault.Is(err, fault.NotFound) && !errors.Is(err, agent.ErrNotSent) && !errors.Is(err, agent.ErrUnanswered) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	b, err := io.ReadAll(io.LimitReader(r, maxReady))
	if err = errors.Join(err, r.Close()); err != nil {
		return "", fmt.Errorf("%w: %w", agent.ErrUnanswered, err)
	}
	return string(b), nil
}

// sameHash is the part of a script, with a hash to be put in, that ends it when the file
// $t has another one.
const sameHash = "if command -v sha256sum >/dev/null 2>&1; then\n\ts=$(sha256sum <\"$t\")\n" +
	"\ttest \"${s%%%% *}\" = %s || { rm -f \"$t\"; echo \"what arrived has another SHA-256\" >&2; exit 1; }\nfi\n"

// upload brings the program to a directory, and verifies it there. What the agent says
// of the file is compared before anything runs it, and so is its hash where there is
// something to make one; that it verifies itself comes last.
func (a *otherAgent) upload(ctx context.Context, dir string, p *program.Program) (string, error) {
	s1 := sha1.New() //nolint:gosec // as above
	up, err := a.client.UploadFile(ctx, dir+"new-"+strings.ToLower(rand.Text()), p.Size, io.TeeReader(p.Open(), s1))
	if err != nil {
		return "", translated(err)
	}
	if got := hex.EncodeToString(s1.Sum(nil)); up.Length != p.Size || !strings.EqualFold(up.Hash, got) {
		return "", fmt.Errorf("%w: the program arrived with %d bytes and the SHA-1 %.50s; %d and %s were sent", agent.ErrUnanswered, up.Length, up.Hash, p.Size, got)
	}
	if !path.IsAbs(up.FullPath) {
		return "", fault.New(fault.Unsupported, "The agent %s does not tell where an uploaded file is: it said %.100q.", a.name, up.FullPath)
	}
	where := path.Dir(up.FullPath) + "/" + agent.ProgramName
	exit, said, err := a.ownScript(ctx, fmt.Sprintf("t=%s; p=%s\n"+sameHash+"chmod 700 \"$t\" && \"$t\" %s && mv -f \"$t\" \"$p\" || { rm -f \"$t\"; exit 1; }\n\"$p\" %s\n",
		quote(up.FullPath), quote(where), p.SHA256, strings.Join(agent.VerifyArgs(p.SHA256), " "), strings.Join(agent.PruneArgs(), " ")), "exit 1\n")
	if err != nil {
		return "", err
	}
	if exit != 0 || !strings.Contains(said, agent.ReplyMark+"verified") {
		return "", fault.New(fault.Unsupported, "The agent %s cannot run the program that prepares its scripts, at %s: it ended with exit code %d and said: %.300s", a.name, where, exit, strings.TrimSpace(said))
	}
	_, err = a.UploadFile(ctx, dir+agent.ReadyName, strings.NewReader(where))
	return where, err
}

// GetStatus is agent.Scripts.
func (a *otherAgent) GetStatus(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	return a.pace.follow(ctx, req.Wait, func() (agent.Status, error) {
		return status(a.client.GetStatus(ctx, tentacle.StatusRequestV2{Ticket: tentacle.Ticket{TaskID: string(req.Ticket)}, LastLogSequence: req.After}))
	})
}

// CancelScript is agent.Scripts.
func (a *otherAgent) CancelScript(ctx context.Context, req agent.StatusRequest) (agent.Status, error) {
	return a.pace.follow(ctx, req.Wait, func() (agent.Status, error) {
		return status(a.client.CancelScript(ctx, tentacle.CancelV2{Ticket: tentacle.Ticket{TaskID: string(req.Ticket)}, LastLogSequence: req.After}))
	})
}

// CompleteScript is agent.Scripts.
func (a *otherAgent) CompleteScript(ctx context.Context, ticket agent.Ticket) error {
	return translated(a.client.CompleteScript(ctx, tentacle.CompleteV2{Ticket: tentacle.Ticket{TaskID: string(ticket)}}))
}

// packageDir is where a package lies.
func packageDir(hash string) (string, error) {
	if b, err := hex.DecodeString(hash); err != nil || len(b) != sha256.Size || strings.ToLower(hash) != hash {
		return "", fault.InvalidField("SHA256", "The hash %.100q must be the SHA-256 of the package: 64 lower-case hexadecimal digits.", hash)
	}
	return packagesDir + hash + "/", nil
}

// HasPackage is agent.Packages.
func (a *otherAgent) HasPackage(ctx context.Context, sha256 string) (bool, error) {
	dir, err := packageDir(sha256)
	if err != nil {
		return false, err
	}
	name, err := a.ready(ctx, dir)
	return name != "", err
}

// PutPackage is agent.Packages.
func (a *otherAgent) PutPackage(ctx context.Context, hash string, size int64, r io.Reader) error {
	dir, err := packageDir(hash)
	if err != nil {
		return err
	}
	if has, err := a.HasPackage(ctx, hash); err != nil || has {
		return err
	}
	name := "package-" + strings.ToLower(rand.Text())
	s256, s1 := sha256.New(), sha1.New() //nolint:gosec // as above
	up, err := a.client.UploadFile(ctx, dir+name, size, io.TeeReader(io.LimitReader(r, size), io.MultiWriter(s256, s1)))
	if err != nil {
		return translated(err)
	}
	if got := hex.EncodeToString(s256.Sum(nil)); got != hash {
		return fault.InvalidField("SHA256", "The package was sent with the SHA-256 %s; %s was announced.", got, hash)
	}
	if got := hex.EncodeToString(s1.Sum(nil)); up.Length != size || !strings.EqualFold(up.Hash, got) {
		return fmt.Errorf("%w: the package arrived with %d bytes and the SHA-1 %.50s; %d and %s were sent", agent.ErrUnanswered, up.Length, up.Hash, size, got)
	}
	_, err = a.UploadFile(ctx, dir+agent.ReadyName, strings.NewReader(name))
	return err
}
