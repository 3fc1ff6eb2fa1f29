// Package examples holds real processes and packages, which the demo and the
// journeys deploy.
package examples

import "embed"

// HelloWeb is a small web service: a package with a configuration file that gets
// substituted, and the scripts of the steps that deploy and check it.
//
//go:embed hello-web
var HelloWeb embed.FS
