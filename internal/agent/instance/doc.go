// Package instance is an agent as it is installed on a machine: its settings and its
// identity in files, and its life as a process that servers reach over the network.
//
// A machine can have several instances. Each has a directory below the store's, with
// settings.json and identity.pem in it, and a home elsewhere that it works in. Commands
// change the settings while the instance runs; it takes them over by itself.
package instance
