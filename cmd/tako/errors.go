package main

import "errors"

var errBuiltinOnly = errors.New("agent run needs --builtin: this version has no agent for other machines yet")
