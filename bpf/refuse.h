/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Acts that are refused before they happen: programs and libraries by BPF-LSM, peers by programs on
 * the root of cgroup v2. What a set does not name gets EPERM; a record says so, repeats are counted
 * like those of any other behaviour. Loaded only where enforcement is wanted.
 */
#ifndef PLIMSOLL_REFUSE_H
#define PLIMSOLL_REFUSE_H

#include "lsm.h"
#include "sched.h"

#define REFUSED_KEY 2 /* in l1_key.flags: refusals are remembered apart from what happened */

/* ELF header: e_machine, of the tables that this architecture executes by itself */
#if defined(__TARGET_ARCH_x86)
#define NATIVE_MACHINE(m) ((m) == 62 || (m) == 3)
#else
#define NATIVE_MACHINE(m) ((m) == 183 || (m) == 40)
#endif

/* A slot for a refusal of the current task; its process may not be known yet (p NULL). */
static __always_inline struct scratch *refusal(struct process *p, __u64 root)
{
	struct scratch *s = shared_scratch();

	if (!s)
		return NULL;
	if (p)
		s->actor = *p;
	else
		__builtin_memset(&s->actor, 0, sizeof(s->actor));
	s->actor.cgroup = root;
	s->ret = -EPERM;
	s->nr = 0;
	s->compat = 0;
	return s;
}

/* Tells of a refusal, once; the record is in the slot, the key's objects are given. */
static __always_inline void tell_refusal(struct scratch *s, __u32 kind, __u64 a, __u64 b, __u64 c)
{
	int told;

	s->e.enforced = ENFORCED_DENIED;
	start_key(&s->key, &s->actor, kind, 0);
	s->key.object[0] = a;
	s->key.object[1] = b;
	s->key.object[2] = c;
	s->key.flags = REFUSED_KEY;
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return;
	if (told == WATCHED) {
		emit_watched(s, s->slot);
		return;
	}
	s->verdict = NOVEL;
	settle(s->slot, 1);
}

/* Path, hash and origin of a file in the slot: the record's first string. */
static __always_inline void locate(struct scratch *s, struct container *c, struct file *file, struct inode *inode)
{
	__u32 mntns = own_mntns();

	build_path(s->slot, (__u64)BPF_CORE_READ(file, f_path.mnt), (__u64)BPF_CORE_READ(file, f_path.dentry));
	hash_path(s->slot);
	put_path(s, 0);
	s->e.origin = origin_of(inode, s->path_flags, c->created_ns, ctime_of(inode));
	if (c->mntns && c->mntns != mntns && s->e.origin != ORIGIN_MEMFD)
		s->e.origin = ORIGIN_FOREIGN;
	if (BPF_CORE_READ(inode, i_nlink) == 0)
		s->e.flags |= WIRE_DELETED;
}

/*
 * bprm_check_security(bprm): for each file of an exec, the script before its interpreter. Only what
 * the processor itself will run is judged here; a script and its interpreter are judged together, at
 * sched_process_exec, where the arguments are.
 */
SEC("?lsm/bprm_check_security")
int e_bprm_check(unsigned long long *ctx)
{
	struct linux_binprm *bprm = (struct linux_binprm *)ctx[0];
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p = bpf_map_lookup_elem(&processes, &tgid);
	struct enforcing *e;
	struct container *c;
	struct scratch *s;
	struct inode *inode;
	struct file *file;
	const struct cred *cred;
	__u8 head[20] = {};
	__u64 root;

	if ((int)ctx[1])
		return (int)ctx[1];
	if (is_idle())
		return 0;
	root = p ? p->cgroup : root_of_task(current_task());
	if (!root)
		return 0;
	e = enforcing_of(root);
	if (!e || !(e->flags & ENFORCE_PROGRAM))
		return 0;
	/* the runtime executing itself before it enters the container */
	if (host_mntns && own_mntns() == host_mntns && (!p || (p->flags & PROCESS_SETUP)))
		return 0;
	bpf_probe_read_kernel(head, sizeof(head), &bprm->buf);
	if (head[0] != 0x7f || head[1] != 'E' || head[2] != 'L' || head[3] != 'F' || !NATIVE_MACHINE(head[18] | head[19] << 8))
		return 0;
	c = bpf_map_lookup_elem(&containers, &root);
	s = refusal(p, root);
	if (!c || !s)
		return 0;
	file = BPF_CORE_READ(bprm, file);
	inode = BPF_CORE_READ(file, f_inode);
	begin(s, WIRE_EXEC, &s->actor);
	if (p && starts_container(p, c, own_mntns()))
		remember_root(s, s->slot, c);
	locate(s, c, file, inode);
	if (!(s->e.flags & WIRE_DELETED) && allowed_value(s->path_hash, ALLOWED_PROGRAM, s->e.origin, 0, e->set))
		return 0;
	cred = BPF_CORE_READ(bprm, cred);
	s->e.num[0] = BPF_CORE_READ(cred, euid.val);
	s->e.num[1] = BPF_CORE_READ(cred, egid.val);
	s->e.num[4] = BPF_CORE_READ(inode, i_sb, s_dev);
	s->e.num[5] = BPF_CORE_READ(inode, i_ino);
	s->e.num[6] = BPF_CORE_READ(inode, i_mode) & 07777;
	tell_refusal(s, WIRE_EXEC, s->path_hash, s->e.num[5], s->e.origin);
	return -EPERM;
}

/* A file about to be executable memory of the current task. */
static __always_inline int refuse_library(struct file *file)
{
	struct task_struct *task = current_task();
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p = is_idle() ? NULL : bpf_map_lookup_elem(&processes, &tgid);
	struct enforcing *e;
	struct container *c;
	struct scratch *s;
	struct inode *inode;
	__u64 root;

	if (!p || (p->flags & PROCESS_SETUP))
		return 0;
	root = p->cgroup;
	e = enforcing_of(root);
	/* without a sign of execve its own segments and its loader would be refused */
	if (!e || !(e->flags & ENFORCE_LIBRARY) || !bpf_core_field_exists(task->in_execve) || in_execve())
		return 0;
	c = bpf_map_lookup_elem(&containers, &root);
	s = refusal(p, root);
	if (!c || !s)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	begin(s, WIRE_LIBRARY, &s->actor);
	locate(s, c, file, inode);
	if (!(s->e.flags & WIRE_DELETED) && (allowed_value(s->path_hash, ALLOWED_LIBRARY, s->e.origin, 0, e->set) ||
					     allowed_value(s->path_hash, ALLOWED_PROGRAM, s->e.origin, 0, e->set)))
		return 0;
	tell_refusal(s, WIRE_LIBRARY, s->path_hash, BPF_CORE_READ(inode, i_ino), s->e.origin);
	return -EPERM;
}

/* mmap_file(file, reqprot, prot, flags) */
SEC("?lsm/mmap_file")
int e_mmap_file(unsigned long long *ctx)
{
	volatile __u64 at = ctx[0];
	struct file *file = (struct file *)at; /* through memory: see maps() in lsm.h */

	if ((int)ctx[4])
		return (int)ctx[4];
	if (!file || !(ctx[2] & PROT_EXEC))
		return 0;
	return refuse_library(file);
}

/* file_mprotect(vma, reqprot, prot) */
SEC("?lsm/file_mprotect")
int e_file_mprotect(unsigned long long *ctx)
{
	struct vm_area_struct *vma = (struct vm_area_struct *)ctx[0];
	struct file *file;

	if ((int)ctx[3])
		return (int)ctx[3];
	if (!(ctx[2] & PROT_EXEC))
		return 0;
	file = BPF_CORE_READ(vma, vm_file);
	return file ? refuse_library(file) : 0;
}

#define V4_MAPPED(r) (!(r)[0] && (__u32)(r)[1] == bpf_htonl(0xffff))

/* Loopback, and the unspecified address, which means the same to connect(). */
static __always_inline bool is_loopback(__u64 *r)
{
	if (V4_MAPPED(r))
		return ((r[1] >> 32) & 0xff) == 127 || !(r[1] >> 32);
	return !r[0] && (!r[1] || r[1] == bpf_cpu_to_be64(1));
}

static __always_inline bool lets_peer(__u64 *r, __u32 proto, __u16 port, __u32 set)
{
	__u64 low = V4_MAPPED(r) ? r[1] & bpf_cpu_to_be64(~0xffULL) : 0;

	if (is_loopback(r))
		return allowed_value(0, ALLOWED_LOOPBACK, proto, port, set);
	return allowed_value(sip2(r[0], r[1]), ALLOWED_IP, proto, port, set) ||
	       allowed_value(sip2(r[0], low), ALLOWED_NETWORK, proto, port, set) ||
	       allowed_value(0, ALLOWED_PORT, proto, port, set);
}

/* 1: let through, 0: EPERM. The address is the kernel's own copy. */
static __always_inline int meets(struct bpf_sock_addr *ctx, __u32 family)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p = is_idle() ? NULL : bpf_map_lookup_elem(&processes, &tgid);
	__u16 port = bpf_ntohs(ctx->user_port);
	__u64 remote[2] = {}, root;
	struct enforcing *e;
	struct scratch *s;
	__u32 proto, kind;

	if (!p || (p->flags & PROCESS_SETUP) || !port)
		return 1;
	root = p->cgroup;
	e = enforcing_of(root);
	if (!e || !(e->flags & ENFORCE_PEER))
		return 1;
	if (ctx->protocol == 6)
		proto = PROTO_TCP;
	else if (ctx->protocol == 17)
		proto = PROTO_UDP;
	else
		return 1;
	if (family == AF_INET) {
		remote[1] = (__u64)ctx->user_ip4 << 32 | bpf_htonl(0xffff);
	} else {
		remote[0] = (__u64)ctx->user_ip6[1] << 32 | ctx->user_ip6[0];
		remote[1] = (__u64)ctx->user_ip6[3] << 32 | ctx->user_ip6[2];
	}
	if (lets_peer(remote, proto, port, e->set))
		return 1;
	s = refusal(p, root);
	if (!s)
		return 1;
	kind = proto == PROTO_TCP ? WIRE_CONNECT : WIRE_DATAGRAM;
	begin_untyped(s, kind, &s->actor);
	s->e.num[0] = proto;
	s->e.num[1] = family;
	s->e.num[2] = -EPERM;
	s->e.num[4] = port;
	put_kernel(s, 1, remote, 16);
	tell_refusal(s, kind, remote[0], remote[1], (__u64)port << 8 | proto);
	return 0;
}

SEC("cgroup/connect4")
int e_connect4(struct bpf_sock_addr *ctx)
{
	return meets(ctx, AF_INET);
}

SEC("cgroup/connect6")
int e_connect6(struct bpf_sock_addr *ctx)
{
	return meets(ctx, AF_INET6);
}

SEC("cgroup/sendmsg4")
int e_sendmsg4(struct bpf_sock_addr *ctx)
{
	return meets(ctx, AF_INET);
}

SEC("cgroup/sendmsg6")
int e_sendmsg6(struct bpf_sock_addr *ctx)
{
	return meets(ctx, AF_INET6);
}

#endif
