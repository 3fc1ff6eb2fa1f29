package setup

// OpenTerminal is for tests that sit at one.
var OpenTerminal = openTerminal
