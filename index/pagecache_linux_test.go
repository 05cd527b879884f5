package index

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
)

// forget drops what the kernel keeps of a file, which has been written out before:
// posix_fadvise with POSIX_FADV_DONTNEED.
func forget(b testing.TB, path string) {
	f, err := os.Open(path)
	ok(b, err)
	defer f.Close()
	ok(b, f.Sync())
	if _, _, errno := syscall.Syscall6(syscall.SYS_FADVISE64, f.Fd(), 0, 0, 4, 0, 0); errno != 0 {
		b.Fatal(errno)
	}
}

// diskRead is how many bytes this process has had read from disks.
func diskRead(b testing.TB) int64 {
	text, err := os.ReadFile("/proc/self/io")
	ok(b, err)
	_, after, _ := strings.Cut(string(text), "\nread_bytes:")
	var n int64
	if _, err := fmt.Sscan(after, &n); err != nil {
		b.Fatal(err)
	}
	return n
}

// processor is how long this process has run, in seconds.
func processor(b testing.TB) float64 {
	var u syscall.Rusage
	ok(b, syscall.Getrusage(syscall.RUSAGE_SELF, &u))
	return float64(u.Utime.Nano()+u.Stime.Nano()) / 1e9
}
