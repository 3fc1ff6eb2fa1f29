//go:build !unix

package agent

import "syscall"

// errQuota is what a write gets when its user's quota is used up; such systems
// call it a full disk.
const errQuota = syscall.ENOSPC
