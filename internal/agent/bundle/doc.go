// Package bundle is a deployment in a folder: everything that a deployment does on one
// machine, to be carried there by hand and run by the one script inside.
//
// A bundle has
//
//	<name>.sh                       what people run
//	<name>.manifest.json            what belongs to the bundle, in what order, with its hashes
//	Packages/<package>_<hash>.<ext> the packages
//	Variables/<name>.<nn>.<step>.<making>.variables.json
//	                                what a step runs, with its values
//	Agent/tako-agent-<os>-<arch>_<hash>
//	                                the program that runs it
//
// where <name> is that of machine, project and deployment, and <making> that of one
// making of the bundle. Bundles of several machines, of several deployments of a release, and
// of several versions of the server lie in one folder without disturbing each other;
// packages and programs are there once.
//
// With a password the files of Variables are encrypted: AES-256-GCM under a key that
// argon2id makes of the password and of the manifest's salt, each with its own name as
// additional data, so that none passes for another one. The manifest's digest is encrypted as well:
// what is run, in what order, and to where, is what was made. The script and the program
// are not authenticated by that, since they are what would tell.
package bundle
