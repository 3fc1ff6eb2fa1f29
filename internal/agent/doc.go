// Package agent is the program on a target: it keeps a workspace per script
// ticket, runs each script under a small process of its own, hands out the log,
// and moves files and packages.
//
// Its point is that a script is started at most once and that its fate is never
// forgotten, though any of the processes may be killed at any instant:
//
//   - The agent answers requests and may be restarted or upgraded at will. It
//     holds agent.lock in its home; what it knows is derived from files.
//   - A runner per ticket outlives the agent. It holds the ticket's lock file
//     for as long as it lives (liveness is that lock, never a pid file), prepares
//     the workspace, copies the script's output into the log and records the
//     exit code.
//   - A stub, started by the runner, creates the file "started" exclusively as
//     the last thing before it becomes the script by execve. That file is the one
//     permission to run; nothing ever gives it back.
//
// The files of a workspace, <home>/Work/<ticket>/, and who may write them:
//
//	request      agent     what to run, its SHA-256, mutex, limits; never changes
//	files/       agent     Bootstrap.sh and the files sent along; the script's directory
//	packages/    agent     hard links to the cached packages that are to be prepared
//	lock         -         flock EX is the liveness of runner and stub
//	alive, wake  -         pipes: end of file on alive says the lock is free; a byte on
//	                       wake makes the runner look for "cancel"
//	started      stub      exclusively created: pid, start time and boot of the script
//	exec-failed  stub      the script is known not to have run
//	log, log.idx lock      frames, see Entry; whoever holds the lock may append
//	cancel       agent     exclusively created, before anything is killed
//	complete     agent     CompleteScript came early: remove the workspace at its end
//	exit.tmp     agent     room for the exit code, allocated at creation
//	exit         lock      exit.tmp, renamed: the exit code. Visible means: log complete
//	runner.err   runner    its last words, if it crashes
//
// A workspace is built in <home>/Work/.incoming and renamed into place, which is
// the commit of StartScript; it ends by a tombstone in <home>/Work/Done, which is
// kept for 30 days and answers whatever comes late.
//
// The service knows nothing of transports. Serve and Client carry it over a unix
// socket for the built-in worker.
package agent
