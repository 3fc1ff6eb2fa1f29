// Package ssh reaches machines over SSH on which no agent is installed.
//
// What a step needs of a machine is an agent: one that starts a script at most once,
// goes on when the connection is cut, and remembers how it ended. So the first thing
// that is done on a machine is to bring one there: a program of ours is uploaded to
// ~/.tako/bin/<SHA-256>/, once per version and verified, and started there as the agent
// of the directory ~/.tako/<installation>/. It outlives the connection, and ends by
// itself when nobody needed it for a while. From then on a connection carries the calls
// of agent.Client to the agent's socket, or, where forwarding is forbidden, to a program
// that connects its standard input and output to that.
//
// A host is known by its key's fingerprint and nothing else: one whose key has another
// fingerprint is refused before anything is told to it.
package ssh
