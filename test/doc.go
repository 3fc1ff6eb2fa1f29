// Package test sees the product from outside: journeys that read like a user's
// day, and processes that are killed at the worst moment.
package test
