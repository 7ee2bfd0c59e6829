/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Calls at the exit of their own function, where the kernel takes fexit programs: then nothing
 * stands in the way of all other calls. The same bodies as behind on_sys_exit; 32-bit calls have
 * functions of other names and are not seen here.
 */
#ifndef PLIMSOLL_CALLS_H
#define PLIMSOLL_CALLS_H

#include <asm/unistd.h>
#include "dns.h"

/*
 * A slot with the call in it, or nothing when nobody wants it. No tail calls here: since 6.12 a
 * table takes only programs for functions of one type, and equal ones may count as different.
 */
static __always_inline struct scratch *leave_call(unsigned long long *ctx, struct pt_regs *regs, __u32 nr)
{
	struct gate g = gates[nr & (SYSCALLS - 1)];
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p;
	struct scratch *s;
	__s64 ret = ctx[1];

	if (!g.handler || is_idle() || ((g.failures & 1) && !is_refusal(ret)))
		return NULL;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || (p->flags & PROCESS_SETUP))
		return NULL;
	s = shared_scratch();
	if (!s)
		return NULL;
	s->actor = *p;
	s->ret = ret;
	s->nr = nr;
	s->compat = 0;
	read_args(s, regs, 0);
	return s;
}

#define CALL(name, handler)                                                  \
	SEC("?fexit/" SYSCALL_FUNCTION #name)                                \
	int BPF_PROG(c_##name, struct pt_regs *regs)                         \
	{                                                                    \
		struct scratch *s = leave_call(ctx, regs, __NR_##name);      \
		return s ? body_##handler(s) : 0;                            \
	}

CALL(openat, openat) CALL(openat2, openat)
CALL(unlinkat, path) CALL(mkdirat, path) CALL(fchmodat, path) CALL(fchmod, path) CALL(fchownat, path) CALL(fchown, path) CALL(renameat, path) CALL(renameat2, path) CALL(linkat, path) CALL(symlinkat, path)
CALL(connect, connect)
CALL(accept4, accept)
CALL(bind, bind)
CALL(socket, socket)
CALL(dup, dup) CALL(dup3, dup) CALL(fcntl, dup)
CALL(setns, namespace) CALL(unshare, namespace) CALL(clone, namespace) CALL(clone3, namespace)
CALL(mount, mount) CALL(pivot_root, mount) CALL(chroot, mount) CALL(move_mount, mount)
CALL(ptrace, ptrace) CALL(process_vm_writev, ptrace) CALL(process_vm_readv, ptrace)
CALL(init_module, module) CALL(finit_module, module) CALL(delete_module, module)
CALL(bpf, bpf)
CALL(setuid, credentials) CALL(setgid, credentials) CALL(setreuid, credentials) CALL(setregid, credentials) CALL(setresuid, credentials) CALL(setresgid, credentials) CALL(capset, credentials)
CALL(mmap, mmap)
CALL(mprotect, mprotect) CALL(pkey_mprotect, mprotect)
CALL(memfd_create, memfd)
CALL(kill, signal) CALL(tgkill, signal) CALL(tkill, signal) CALL(rt_sigqueueinfo, signal) CALL(rt_tgsigqueueinfo, signal) CALL(pidfd_send_signal, signal)
CALL(open_by_handle_at, handle) CALL(personality, rare) CALL(mknodat, rare) CALL(mount_setattr, rare) CALL(perf_event_open, rare) CALL(userfaultfd, rare) CALL(io_uring_setup, rare) CALL(kexec_load, rare) CALL(add_key, rare) CALL(request_key, rare) CALL(keyctl, rare) CALL(open_tree, rare) CALL(fsopen, rare) CALL(pidfd_getfd, rare) CALL(fanotify_init, rare) CALL(syslog, rare) CALL(reboot, rare)
CALL(sendto, dns_buffer) CALL(recvfrom, dns_buffer) CALL(write, dns_buffer) CALL(read, dns_buffer)
CALL(sendmsg, dns_message) CALL(recvmsg, dns_message) CALL(sendmmsg, dns_message) CALL(recvmmsg, dns_message) CALL(writev, dns_message) CALL(readv, dns_message)
#if defined(__TARGET_ARCH_x86)
CALL(open, open) CALL(creat, open)
CALL(unlink, path) CALL(rmdir, path) CALL(mkdir, path) CALL(chmod, path) CALL(chown, path) CALL(lchown, path) CALL(rename, path) CALL(link, path) CALL(symlink, path)
CALL(accept, accept)
CALL(dup2, dup)
CALL(mknod, rare)
#endif

#endif
