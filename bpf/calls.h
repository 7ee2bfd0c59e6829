/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Calls at the exit of their own function, where the kernel takes fexit programs: then nothing
 * stands in the way of all other calls. The same handlers as behind on_sys_exit; 32-bit calls have
 * functions of other names and are not seen here.
 */
#ifndef PLIMSOLL_CALLS_H
#define PLIMSOLL_CALLS_H

#include <asm/unistd.h>
#include "lsm.h"

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u32);
} call_handlers SEC(".maps");

static __always_inline int at_exit_of(unsigned long long *ctx, struct pt_regs *regs, __u32 nr)
{
	struct gate g = gates[nr & (SYSCALLS - 1)];
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p;
	struct scratch *s;
	__s64 ret = ctx[1];

	if (!g.handler || (g.failures && ret != -EACCES && ret != -EPERM))
		return 0;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || (p->flags & PROCESS_SETUP))
		return 0;
	s = shared_scratch();
	if (!s)
		return 0;
	s->actor = *p;
	s->ret = ret;
	s->nr = nr;
	s->compat = 0;
	read_args(s, regs, 0);
	bpf_tail_call(ctx, &call_handlers, g.handler);
	return 0;
}

#define CALL(name)                                         \
	SEC("?fexit/" SYSCALL_FUNCTION #name)              \
	int BPF_PROG(c_##name, struct pt_regs *regs)       \
	{                                                  \
		return at_exit_of(ctx, regs, __NR_##name); \
	}

CALL(openat) CALL(openat2) CALL(open_by_handle_at)
CALL(unlinkat) CALL(mkdirat) CALL(fchmodat) CALL(fchmod) CALL(fchownat) CALL(fchown)
CALL(renameat) CALL(renameat2) CALL(linkat) CALL(symlinkat)
CALL(connect) CALL(accept4) CALL(bind) CALL(socket)
CALL(dup) CALL(dup3) CALL(fcntl)
CALL(setns) CALL(unshare) CALL(clone) CALL(clone3)
CALL(mount) CALL(pivot_root) CALL(chroot) CALL(move_mount)
CALL(ptrace) CALL(process_vm_writev) CALL(process_vm_readv)
CALL(init_module) CALL(finit_module) CALL(delete_module) CALL(bpf)
CALL(setuid) CALL(setgid) CALL(setreuid) CALL(setregid) CALL(setresuid) CALL(setresgid) CALL(capset)
CALL(mmap) CALL(mprotect) CALL(memfd_create)
CALL(kill) CALL(tgkill)
CALL(perf_event_open) CALL(userfaultfd) CALL(io_uring_setup) CALL(kexec_load) CALL(add_key) CALL(request_key) CALL(keyctl)
CALL(open_tree) CALL(fsopen) CALL(pidfd_getfd) CALL(fanotify_init) CALL(syslog) CALL(reboot)
CALL(sendto) CALL(recvfrom) CALL(write) CALL(read) CALL(sendmsg) CALL(recvmsg) CALL(sendmmsg) CALL(recvmmsg)
#if defined(__TARGET_ARCH_x86)
CALL(open) CALL(creat) CALL(unlink) CALL(rmdir) CALL(mkdir) CALL(chmod) CALL(chown) CALL(lchown) CALL(rename) CALL(link)
CALL(symlink) CALL(accept) CALL(dup2)
#endif

#endif
