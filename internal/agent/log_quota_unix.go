//go:build unix

package agent

import "syscall"

// errQuota is what a write gets when its user's quota is used up.
const errQuota = syscall.EDQUOT
