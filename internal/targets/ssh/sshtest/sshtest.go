// Package sshtest runs a real SSH server on loopback for tests: OpenSSH's, as the
// current user, with keys, a configuration and a home directory of the test's own.
package sshtest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/pem"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/takodeploy/tako/internal/proctest"
	"golang.org/x/crypto/ssh"
)

// Options of a Server.
type Options struct {
	Passphrase string   // of the key that may sign in, "" for none
	Config     []string // lines of sshd_config that come before its own, and win
	Home       string   // of the user; "" makes one
	Shell      string   // commands of the user's .bashrc, which sshd's shells read
	// Programs are scripts of /bin/sh that sessions find before the machine's own programs.
	Programs map[string]string
}

// Server is an SSH server. It ends with its test, and with it whatever runs in Home.
type Server struct {
	Host string
	Port int
	User string
	Home string // what the user's home directory is for its sessions
	// PrivateKey may sign in; Stranger may not.
	PrivateKey, Stranger string
	// Keys are the host's, the one that clients prefer first.
	Keys []ssh.PublicKey

	dir  string
	sshd string
	ln   net.Listener
	wg   sync.WaitGroup

	mu       sync.Mutex
	sessions map[*exec.Cmd]bool
	count    int
	down     bool
}

// Installed finds sshd. Where there is none the test is skipped, and fails with CI=true.
func Installed(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"/usr/sbin/sshd", "/usr/local/sbin/sshd", "/sbin/sshd"} {
		if _, err := os.Stat(name); err == nil {
			return name
		}
	}
	if name, err := exec.LookPath("sshd"); err == nil {
		return name
	}
	if os.Getenv("CI") == "true" {
		t.Fatal("sshd is not installed; install openssh-server")
	}
	t.Skip("sshd is not installed; install openssh-server")
	return ""
}

// Start starts a server.
func Start(t testing.TB, o Options) *Server {
	t.Helper()
	s := &Server{sshd: Installed(t), dir: t.TempDir(), Home: o.Home, sessions: map[*exec.Cmd]bool{}}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	me, err := user.Current()
	must(err)
	s.User = me.Username
	if os.Geteuid() == 0 {
		must(os.MkdirAll("/run/sshd", 0o755)) // where sshd shuts in what talks to strangers
	}
	if s.Home == "" {
		s.Home = filepath.Join(s.dir, "home")
		must(os.MkdirAll(s.Home, 0o700))
	}
	if o.Shell != "" {
		must(os.WriteFile(filepath.Join(s.Home, ".bashrc"), []byte(o.Shell+"\n"), 0o600))
	}
	path := "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	if len(o.Programs) > 0 {
		programs := filepath.Join(s.dir, "programs")
		must(os.MkdirAll(programs, 0o700))
		for name, script := range o.Programs {
			must(os.WriteFile(filepath.Join(programs, name), []byte("#!/bin/sh\n"+script+"\n"), 0o700))
		}
		path = programs + ":" + path
	}
	write := func(name, content string) string {
		t.Helper()
		name = filepath.Join(s.dir, name)
		must(os.WriteFile(name, []byte(content), 0o600))
		return name
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	must(err)
	ecKey, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(err)
	config := append([]string{}, o.Config...)
	for i, key := range []crypto.PrivateKey{edKey, ecKey} {
		block, err := ssh.MarshalPrivateKey(key, "")
		must(err)
		signer, err := ssh.NewSignerFromKey(key)
		must(err)
		s.Keys = append(s.Keys, signer.PublicKey())
		config = append(config, "HostKey "+write(fmt.Sprint("host", i), string(pem.EncodeToMemory(block))))
	}
	public, private := newKey(t, o.Passphrase)
	s.PrivateKey = private
	_, s.Stranger = newKey(t, "")
	config = append(config,
		"AuthorizedKeysFile "+write("authorized_keys", string(ssh.MarshalAuthorizedKey(public))),
		"PidFile none", "UsePAM no", "StrictModes no", "PermitRootLogin yes", "PrintMotd no", "LogLevel VERBOSE",
		"PasswordAuthentication no", "KbdInteractiveAuthentication no", "SetEnv HOME="+s.Home+" PATH="+path,
	)
	write("sshd_config", strings.Join(config, "\n")+"\n")
	s.ln, err = new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	must(err)
	host, port, err := net.SplitHostPort(s.ln.Addr().String())
	must(err)
	s.Host = host
	s.Port, err = strconv.Atoi(port)
	must(err)
	s.wg.Go(s.serve)
	t.Cleanup(func() {
		_ = s.ln.Close()
		s.Cut()
		s.wg.Wait()
		proctest.End(t, s.Home)
		if b, err := os.ReadFile(filepath.Join(s.dir, "log")); err == nil && t.Failed() {
			t.Logf("sshd said:\n%s", b[max(0, len(b)-8000):])
		}
	})
	return s
}

func newKey(t testing.TB, passphrase string) (ssh.PublicKey, string) {
	t.Helper()
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := ssh.NewSignerFromKey(key)
	if err != nil {
		t.Fatal(err)
	}
	var block *pem.Block
	if passphrase == "" {
		block, err = ssh.MarshalPrivateKey(key, "")
	} else {
		block, err = ssh.MarshalPrivateKeyWithPassphrase(key, "", []byte(passphrase))
	}
	if err != nil {
		t.Fatal(err)
	}
	return signer.PublicKey(), string(pem.EncodeToMemory(block))
}

// serve gives each connection an sshd of its own, as inetd did: the port is known
// before any of them runs, and each can be killed.
func (s *Server) serve() {
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		if err := s.session(c); err != nil {
			_ = c.Close() // its peer says that there is none
		}
	}
}

func (s *Server) session(c net.Conn) (err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.down {
		return net.ErrClosed
	}
	tcp, ok := c.(*net.TCPConn)
	if !ok {
		return fmt.Errorf("a connection is a %T", c)
	}
	socket, err := tcp.File()
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, socket.Close()) }()
	cmd := exec.CommandContext(context.Background(), s.sshd, "-i", "-f", filepath.Join(s.dir, "sshd_config"), "-E", filepath.Join(s.dir, "log"))
	cmd.Stdin, cmd.Stdout = socket, socket
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return err
	}
	s.sessions[cmd] = true
	s.count++
	s.wg.Go(func() {
		_ = cmd.Wait() // however it ended
		_ = c.Close()
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.sessions, cmd)
	})
	return nil
}

// Cut kills the server's processes of all connections, as a network does that fails,
// and reports how many there were. Programs that were started over them are left alone.
func (s *Server) Cut() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := len(s.sessions)
	for cmd := range s.sessions {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) // it may have ended by itself
	}
	return n
}

// SetDown says whether new connections are refused.
func (s *Server) SetDown(down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.down = down
}

// Connections is how many connections there were.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.count
}
