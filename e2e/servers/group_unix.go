//go:build unix

package servers

import (
	"os/exec"
	"syscall"
)

// Errors of both say that the group has ended already.
func interrupt(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGTERM) }
func killGroup(cmd *exec.Cmd) { syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
