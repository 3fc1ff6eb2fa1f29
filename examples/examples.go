// Package examples holds real processes and packages, which the demo
// deploys.
package examples

import "embed"

// HelloWeb is a small web service: a package with a configuration file that gets
// substituted, and the scripts of the steps that start, check and announce it.
//
//go:embed hello-web
var HelloWeb embed.FS
