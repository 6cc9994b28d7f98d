package worker

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// refused are the system calls that no worker has a use for, and that whoever
// takes one over would: to run programs, to look into or steer other processes,
// to change what is mounted, and those by which kernels have been broken before.
var refused = []uint32{
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, unix.SYS_UNSHARE, unix.SYS_SETNS, unix.SYS_CHROOT, unix.SYS_PIVOT_ROOT,
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_PROCESS_MADVISE, unix.SYS_PIDFD_GETFD,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_OPEN_TREE, unix.SYS_MOVE_MOUNT, unix.SYS_MOUNT_SETATTR,
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK,
	unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, unix.SYS_KEXEC_LOAD, unix.SYS_REBOOT,
	unix.SYS_BPF, unix.SYS_PERF_EVENT_OPEN, unix.SYS_USERFAULTFD,
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY, unix.SYS_KEYCTL,
	unix.SYS_OPEN_BY_HANDLE_AT, unix.SYS_PERSONALITY, unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
}

// machine is how the kernel calls this processor's system calls
// (linux/audit.h), with those to refuse that only it has.
var machine = map[string]struct {
	audit   uint32
	refused []uint32
	fork    []uint32 // of refused
}{
	"amd64": {unix.AUDIT_ARCH_X86_64, []uint32{57, 58, 172, 173, 154, 320}, []uint32{57, 58}}, // fork, vfork, iopl, ioperm, modify_ldt, kexec_file_load
	"arm64": {unix.AUDIT_ARCH_AARCH64, []uint32{294}, nil},                                    // kexec_file_load
}[runtime.GOARCH]

// Offsets in struct seccomp_data (seccomp(2)); the low half of the first argument comes first.
const (
	atNumber   = 0
	atMachine  = 4
	atArgument = 16
	x32Bit     = 0x40000000 // numbers of amd64's other set of calls
)

// filter closes the system calls in refused to all threads of the process, for
// good. Own code, for it is a page, and a filter that names what is refused
// must also shut the door of the processor's other sets of calls, by which the
// same calls have other numbers. On other processors than ours there is none.
//
// Where programs may be run, so may be what starts them: another process, and
// none of the calls that are refused besides.
func filter(programs bool) error {
	if machine.audit == 0 {
		return nil
	}
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	code := instructions(programs)
	p := unix.SockFprog{Len: uint16(len(code)), Filter: &code[0]}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, uintptr(unsafe.Pointer(&p)))
	switch {
	case errors.Is(errno, unix.ENOSYS), errors.Is(errno, unix.EINVAL):
		return nil // a kernel without filters runs it unfiltered, as one without Landlock unfenced
	case errno != 0:
		return fmt.Errorf("filter system calls: %w", errno)
	case thread != 0:
		return fmt.Errorf("filter system calls: thread %d has a filter of its own", thread)
	}
	return nil
}

// starting are those of refused, on any processor, by which programs are started.
var starting = []uint32{unix.SYS_EXECVE, unix.SYS_EXECVEAT}

// instructions are the filter in the kernel's classic BPF.
func instructions(programs bool) []unix.SockFilter {
	allow, refuse := end(unix.SECCOMP_RET_ALLOW), end(unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	code := []unix.SockFilter{
		load(atMachine), jump(unix.BPF_JEQ, machine.audit, 1, 0), end(unix.SECCOMP_RET_KILL_PROCESS),
		load(atNumber), jump(unix.BPF_JGE, x32Bit, 0, 1), refuse,
	}
	if !programs {
		code = append(code,
			// Not even the C library asks again with clone3's flags in memory, where no filter can see them.
			jump(unix.BPF_JEQ, unix.SYS_CLONE3, 0, 1), end(unix.SECCOMP_RET_ERRNO|uint32(unix.ENOSYS)),
			// A clone that is a thread may be.
			jump(unix.BPF_JEQ, unix.SYS_CLONE, 0, 4),
			load(atArgument), jump(unix.BPF_JSET, unix.CLONE_THREAD, 0, 1), allow, refuse,
		)
	}
	for _, number := range slices.Concat(refused, machine.refused) {
		if programs && slices.Contains(slices.Concat(starting, machine.fork), number) {
			continue
		}
		code = append(code, jump(unix.BPF_JEQ, number, 0, 1), refuse)
	}
	return append(code, allow)
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// jump skips so many instructions if what was loaded fits value, or does not.
func jump(how uint16, value uint32, fits, not uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | how | unix.BPF_K, Jt: fits, Jf: not, K: value}
}

func end(verdict uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: verdict}
}
