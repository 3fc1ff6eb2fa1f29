// Package install deploys a package on the machine that it runs on: it is what the
// step "Deploy a package" does there, and "Transfer a package".
//
// The engine sends one script, whose one line calls this program again with a request
// beside it (Command). So the same request does the same by the built-in worker, by an
// agent over the network, and wherever else a script can be run.
//
// An installation is made in a folder of its own, <Applications>/<Environment>/
// <PackageId>/<Version>, which no earlier one has had, and is an installation when the
// journal says so, which is written last. Whoever kills the program in between leaves
// a folder that nobody takes for an installation, and the one before as it was.
//
// The journal is one file for what belongs together: one step of one project in one
// environment, for one tenant and target. It tells the next deployment what is there
// (Octopus.Tentacle.PreviousInstallation), whether anything has to be done, and what
// may be removed. While a deployment runs it holds the journal's lock.
package install
