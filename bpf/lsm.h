/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The security hooks: the kernel's own objects at the moment of use, whichever way the program took
 * (system call, 32-bit call, io_uring). Each hook is written once and loaded as a BPF-LSM program
 * (l_NAME) or, where there is no BPF among the LSMs, as fentry on security_NAME (f_NAME).
 *
 * They run before the act: what is denied later, or fails, is reported too. They can be preempted,
 * see enum scratch_slot.
 */
#ifndef PLIMSOLL_LSM_H
#define PLIMSOLL_LSM_H

#include "net.h"

/*
 * HOOK(name, security function, parameters, arguments): body hook_NAME, loaded in both ways. An LSM
 * program gets the verdict of those before it as one more argument, and never changes it here.
 */
#define HOOK(name, args...)                                                     \
	static __always_inline int hook_##name(struct scratch *s, unsigned long long *ctx); \
	SEC("?lsm/" #name)                                                      \
	int l_##name(unsigned long long *ctx)                                   \
	{                                                                       \
		struct scratch *s = enter_hook();                               \
		if (s)                                                          \
			hook_##name(s, ctx);                                    \
		return 0;                                                       \
	}                                                                       \
	SEC("?fentry/security_" #name)                                          \
	int f_##name(unsigned long long *ctx)                                   \
	{                                                                       \
		struct scratch *s = enter_hook();                               \
		if (s)                                                          \
			hook_##name(s, ctx);                                    \
		return 0;                                                       \
	}                                                                       \
	static __always_inline int hook_##name(struct scratch *s, unsigned long long *ctx)

/* A slot with the acting process in it, or nothing when it is in no container. */
static __always_inline struct scratch *enter_hook(void)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p = is_idle() ? NULL : bpf_map_lookup_elem(&processes, &tgid);
	struct scratch *s;

	if (!p || (p->flags & PROCESS_SETUP))
		return NULL;
	s = shared_scratch();
	if (!s)
		return NULL;
	s->actor = *p;
	s->ret = 0;
	s->nr = 0;
	s->compat = 0;
	return s;
}

/* The kernel maps a new program's own segments: that is the exec, and reported as such. */
static __always_inline bool in_execve(void)
{
	struct task_struct *task = current_task();

	if (bpf_core_field_exists(task->in_execve))
		return BPF_CORE_READ_BITFIELD_PROBED(task, in_execve);
	return false;
}

/* security_mmap_file(file, prot, flags) calls the hook mmap_file(file, reqprot, prot, flags) */
static __always_inline int maps(struct scratch *s, struct file *file, __u64 prot)
{
	struct file_facts f;

	if (!(prot & PROT_EXEC) || in_execve())
		return 0;
	/*
	 * Verifiers from 6.8 on take an argument for never NULL and leave the test out, until told
	 * (file__nullable, 6.14): memory has no such type.
	 */
	s->args[0] = (__u64)file;
	file = (struct file *)*(volatile __u64 *)&s->args[0];
	if (!file)
		return executable_memory(s, NR_MMAP, prot);
	read_facts(file, &f);
	return use_file(s, file, &f, WIRE_LIBRARY, 0, prot, s->slot);
}

SEC("?lsm/mmap_file")
int l_mmap_file(unsigned long long *ctx)
{
	struct scratch *s = enter_hook();

	if (s)
		maps(s, (struct file *)ctx[0], ctx[1]);
	return 0;
}

SEC("?fentry/security_mmap_file")
int f_mmap_file(unsigned long long *ctx)
{
	struct scratch *s = enter_hook();

	if (s)
		maps(s, (struct file *)ctx[0], ctx[1]);
	return 0;
}

/* file_mprotect(vma, reqprot, prot): memory made executable after it was written to */
HOOK(file_mprotect)
{
	if (!(ctx[1] & PROT_EXEC) || in_execve())
		return 0;
	return executable_memory(s, NR_MPROTECT, ctx[1]);
}

/* A name in a directory: the path that the kernel resolved, not what the program wrote. */
static __always_inline int names(struct scratch *s, __u32 op, struct vfsmount *mnt, struct dentry *dentry,
				 struct vfsmount *mnt2, struct dentry *dentry2, const char *target, __u64 mode)
{
	struct container *c = container_of_actor(s);
	struct inode *inode;
	__u64 h = 0, said = 0;
	long n;
	int told;

	if (!c)
		return 0;
	/* through memory: global functions take numbers, and verifiers up to 6.1 know these as pointers */
	s->args[0] = (__u64)mnt;
	s->args[1] = (__u64)dentry;
	s->args[2] = (__u64)mnt2;
	s->args[3] = (__u64)dentry2;
	barrier();
	inode = BPF_CORE_READ(dentry, d_inode);
	begin(s, WIRE_FILE, &s->actor);
	s->e.num[0] = op;
	s->e.num[1] = mode;
	if (target) {
		/* as the calls have it: what a symbolic link says, then its own name */
		n = bpf_probe_read_kernel_str(s->data, PATH_MAX, target);
		if (n > 1) {
			s->e.slen[0] = n - 1;
			s->used = n - 1;
			said = hash_string(s, 0, 0);
		}
	}
	if (!build_path(s->slot, *(volatile __u64 *)&s->args[0], *(volatile __u64 *)&s->args[1]))
		return 0;
	put_path(s, target ? 1 : 0);
	hash_path(s->slot);
	h = s->path_hash;
	start_key(&s->key, &s->actor, WIRE_FILE, op);
	s->key.object[0] = h;
	s->key.object[1] = said;
	if (!inode) {
		struct dentry *dir = BPF_CORE_READ(dentry, d_parent);
		inode = BPF_CORE_READ(dir, d_inode);
	}
	s->e.origin = origin_of(inode, s->path_flags, c->created_ns, ctime_of(inode));
	s->key.object[2] = 1;
	s->key.flags = foreign(&s->actor) | (op == FILE_CHMOD ? (__u32)mode << 8 : 0);
	if (s->key.flags & 1)
		s->e.origin = ORIGIN_FOREIGN;
	if (dentry2) {
		if (build_path(s->slot, *(volatile __u64 *)&s->args[2], *(volatile __u64 *)&s->args[3]))
			put_path(s, 1);
		hash_path(s->slot);
		s->key.object[1] = s->path_hash;
	}
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return 0;
	if (told == WATCHED) {
		emit_watched(s, s->slot);
		return 0;
	}
	s->verdict = NOVEL;
	settle(s->slot, op == FILE_CHMOD || op == FILE_LINK || op == FILE_SYMLINK);
	return 0;
}

#define DIR_MNT(i) BPF_CORE_READ((struct path *)ctx[i], mnt)

HOOK(path_unlink)
{
	return names(s, FILE_UNLINK, DIR_MNT(0), (struct dentry *)ctx[1], NULL, NULL, NULL, 0);
}

HOOK(path_rmdir)
{
	return names(s, FILE_RMDIR, DIR_MNT(0), (struct dentry *)ctx[1], NULL, NULL, NULL, 0);
}

HOOK(path_mkdir)
{
	return names(s, FILE_MKDIR, DIR_MNT(0), (struct dentry *)ctx[1], NULL, NULL, NULL, ctx[2]);
}

HOOK(path_symlink)
{
	return names(s, FILE_SYMLINK, DIR_MNT(0), (struct dentry *)ctx[1], NULL, NULL, (const char *)ctx[2], 0);
}

/* path_link(old dentry, new directory, new dentry): both are on one mount */
HOOK(path_link)
{
	return names(s, FILE_LINK, DIR_MNT(1), (struct dentry *)ctx[0], DIR_MNT(1), (struct dentry *)ctx[2], NULL, 0);
}

/* path_rename(old directory, old dentry, new directory, new dentry, flags) */
HOOK(path_rename)
{
	return names(s, FILE_RENAME, DIR_MNT(0), (struct dentry *)ctx[1], DIR_MNT(2), (struct dentry *)ctx[3], NULL, 0);
}

HOOK(path_chmod)
{
	struct path *path = (struct path *)ctx[0];

	return names(s, FILE_CHMOD, BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), NULL, NULL, NULL, (__u16)ctx[1]);
}

HOOK(path_chown)
{
	struct path *path = (struct path *)ctx[0];

	return names(s, FILE_CHOWN, BPF_CORE_READ(path, mnt), BPF_CORE_READ(path, dentry), NULL, NULL, NULL, (__u32)ctx[1]);
}

/*
 * socket_connect(sock, address, length): the kernel's copy of the address. TCP comes through
 * inet_sock_set_state, on every rung.
 */
HOOK(socket_connect)
{
	struct sock *sk = BPF_CORE_READ((struct socket *)ctx[0], sk);
	struct container *c = container_of_actor(s);
	__u16 family = BPF_CORE_READ(sk, __sk_common.skc_family), port = 0;
	const __u8 *address = (const __u8 *)ctx[1];
	__u32 len = (__u32)ctx[2];
	struct ends e;

	if (!c || len < 3 || len > 128)
		return 0;
	if (family == AF_UNIX) {
		begin(s, WIRE_CONNECT, &s->actor);
		s->e.num[0] = PROTO_UNIX;
		s->e.num[1] = AF_UNIX;
		s->e.num[2] = 0;
		len = len - 2 > 108 ? 108 : len - 2;
		put_kernel(s, 1, address + 2, len);
		trim_zero(s, 1);
		return use_words(s, WIRE_CONNECT, PROTO_UNIX, hash_string(s, 1, 0), 0, 1);
	}
	if (!read_ends(sk, &e) || e.proto == PROTO_TCP)
		return 0;
	bpf_probe_read_kernel(&port, 2, address + 2);
	e.rport = bpf_ntohs(port);
	if (!e.rport)
		return 0;
	if (family == AF_INET && len >= 8) {
		__u32 v4 = 0;

		bpf_probe_read_kernel(&v4, 4, address + 4);
		e.remote[0] = 0;
		e.remote[1] = (__u64)v4 << 32 | bpf_htonl(0xffff);
	} else if (family == AF_INET6 && len >= 24) {
		bpf_probe_read_kernel(&e.remote, 16, address + 8);
	} else {
		return 0;
	}
	if (e.proto == PROTO_UDP && e.rport == DNS_PORT)
		open_dns_gates();
	return use_ends(s, c, &e, WIRE_DATAGRAM, s->slot);
}

/* inet_csk_accept(sk, ...) gives the accepted socket; its parameters differ between kernels (6.10) */
SEC("?fexit/inet_csk_accept")
int f_accept(unsigned long long *ctx)
{
	struct scratch *s = enter_hook();
	struct container *c;
	struct sock *sk;
	struct ends e;
	__u64 ret = 0;

	if (!s || bpf_get_func_ret(ctx, &ret) || !ret)
		return 0;
	sk = (struct sock *)ret;
	c = container_of_actor(s);
	if (!c || !read_ends(sk, &e))
		return 0;
	return use_ends(s, c, &e, WIRE_ACCEPT, s->slot);
}

#endif
