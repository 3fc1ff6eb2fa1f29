// Package renewal is the task that upgrades agents: those of ours that serve deployment
// targets and workers over the network, and are older than the server.
//
// Each machine is taken by itself. Its lock alone is waited for, so that no deployment
// uses it meanwhile; the program for its platform is sent by its hash; the agent checks
// and tests it, and goes on by it on trial. Only when the new program has answered this
// server is it told to stay; else the agent goes back by itself, and says why. Everything
// that is told to an agent may be told again, and an attempt has a name that follows from
// the task: whoever goes on with a task that another process has begun needs to know
// nothing of how far that one had come.
package renewal
