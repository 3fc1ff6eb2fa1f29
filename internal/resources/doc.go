// Package resources declares the kinds of documents that people configure: one
// file per kind, and all.go, the list. What a kind is made of is explained at
// resource.Declaration; how to add one in docs/adding-a-resource.md.
package resources
