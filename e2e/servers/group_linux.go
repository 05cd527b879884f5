package servers

import (
	"os/exec"
	"syscall"
)

// ownGroup puts a process into a group of its own and has the kernel end it when
// the test process dies without its clean-up (a time-out, a kill).
func ownGroup(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
}
