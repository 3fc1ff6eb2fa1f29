// Package health is the task that checks machines: deployment targets and workers.
//
// A task has a fixed list of machines. Each is examined by the same code that a
// deployment's health check uses (targets.Examine), several at a time; what is found is
// kept with the machine first (resources.KeepCheck, where doing it twice is doing it
// once), and then noted in the task's journal. The ticket of a machine's script follows
// from the task alone. So whoever goes on with a task that another process has begun
// repeats nothing: machines with a note are done, and the scripts of others are found
// again where they run.
package health
