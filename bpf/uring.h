/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Requests through io_uring, which no system call shows: the files that they open, remove and
 * rename by the kernel's copy of the name (it is resolved later, so links are not followed here),
 * and the use of any other operation once. Where security hooks are in use those see the opens.
 */
#ifndef PLIMSOLL_URING_H
#define PLIMSOLL_URING_H

#include "dns.h"

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)
struct open_how {
	__u64 flags;
};
struct io_open {
	int dfd;
	struct filename *filename;
	struct open_how how;
};
struct io_rename {
	int old_dfd, new_dfd;
	struct filename *oldpath, *newpath;
};
struct io_unlink {
	int dfd;
	int flags;
	struct filename *filename;
};
struct io_mkdir {
	int dfd;
	struct filename *filename;
};
struct io_link { /* symbolic links too: what they say starts nowhere, and is not joined */
	int old_dfd, new_dfd;
	struct filename *oldpath, *newpath;
};
struct io_kiocb {
	__u8 opcode;
};
#pragma clang attribute pop

/* enum io_uring_op, include/uapi/linux/io_uring.h: numbers never change */
#define URING_OPENAT 18
#define URING_OPENAT2 28
#define URING_RENAMEAT 35
#define URING_UNLINKAT 36
#define URING_MKDIRAT 37
#define URING_SYMLINKAT 38
#define URING_LINKAT 39
#define NR_IO_URING_ENTER 426
#define O_CREAT 0100

/* whether opens through io_uring are seen by the security hooks */
__u32 uring_by_hooks = 0;

static __always_inline int uring_names(struct scratch *s, __u32 op, struct filename *one, struct filename *two, int dfd, int dfd2)
{
	__u32 second;
	int told;

	begin(s, WIRE_FILE, &s->actor);
	s->e.flags |= WIRE_ARGUMENT;
	s->e.num[0] = op;
	put_name(s, 0, one);
	second = s->used;
	if (two)
		put_name(s, 1, two);
	start_key(&s->key, &s->actor, WIRE_FILE, op);
	s->key.object[0] = hash_string(s, 0, 0);
	s->key.object[1] = two ? hash_string(s, 1, second) : 0;
	s->key.object[2] = 2;
	s->key.object[3] = (__u64)BPF_CORE_READ(current_task(), fs, pwd.dentry) ^ (__u32)dfd;
	s->key.flags = foreign(&s->actor);
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return 0;
	put_base(s, 2, dfd);
	if (two)
		put_base(s, 3, dfd2);
	s->verdict = NOVEL;
	if (told == WATCHED)
		emit_watched(s, s->slot);
	else
		settle(s->slot, 0);
	return 0;
}

static __always_inline int submits(struct io_kiocb *req)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p = is_idle() ? NULL : bpf_map_lookup_elem(&processes, &tgid);
	struct scratch *s;
	__u8 opcode;

	if (!p || (p->flags & PROCESS_SETUP))
		return 0;
	s = scratch_of(SLOT_URING);
	if (!s)
		return 0;
	s->slot = SLOT_URING;
	s->actor = *p;
	s->ret = 0;
	s->nr = 0;
	s->compat = 0;
	opcode = BPF_CORE_READ(req, opcode);
	/* the operation's own data starts where the request does */
	if (opcode == URING_OPENAT || opcode == URING_OPENAT2) {
		struct io_open *o = (void *)req;
		__u64 flags = BPF_CORE_READ(o, how.flags);
		__u32 op = flags & O_CREAT ? FILE_CREATE : flags & O_ACCMODE ? FILE_WRITE : FILE_READ;

		if (!uring_by_hooks)
			return uring_names(s, op, BPF_CORE_READ(o, filename), NULL, BPF_CORE_READ(o, dfd), 0);
	} else if (opcode == URING_RENAMEAT) {
		struct io_rename *r = (void *)req;

		if (!uring_by_hooks)
			return uring_names(s, FILE_RENAME, BPF_CORE_READ(r, oldpath), BPF_CORE_READ(r, newpath), BPF_CORE_READ(r, old_dfd), BPF_CORE_READ(r, new_dfd));
	} else if (opcode == URING_UNLINKAT) {
		struct io_unlink *u = (void *)req;

		if (!uring_by_hooks)
			return uring_names(s, FILE_UNLINK, BPF_CORE_READ(u, filename), NULL, BPF_CORE_READ(u, dfd), 0);
	} else if (opcode == URING_MKDIRAT) {
		struct io_mkdir *m = (void *)req;

		if (!uring_by_hooks)
			return uring_names(s, FILE_MKDIR, BPF_CORE_READ(m, filename), NULL, BPF_CORE_READ(m, dfd), 0);
	} else if (opcode == URING_LINKAT || opcode == URING_SYMLINKAT) {
		struct io_link *l = (void *)req;

		if (!uring_by_hooks)
			return uring_names(s, opcode == URING_LINKAT ? FILE_LINK : FILE_SYMLINK, BPF_CORE_READ(l, oldpath), BPF_CORE_READ(l, newpath), BPF_CORE_READ(l, old_dfd), BPF_CORE_READ(l, new_dfd));
	}
	begin(s, WIRE_RARE, &s->actor);
	s->e.num[0] = NR_IO_URING_ENTER;
	s->e.num[1] = opcode;
	return use_words(s, WIRE_RARE, 0, NR_IO_URING_ENTER, opcode, 1);
}

/* kernel: TRACE_EVENT(io_uring_submit_req), TP_PROTO(req), since 6.4 */
SEC("tp_btf/io_uring_submit_req")
int BPF_PROG(on_uring, struct io_kiocb *req)
{
	return submits(req);
}

/* kernel: TRACE_EVENT(io_uring_submit_sqe), TP_PROTO(req, force_nonblock), 5.19 to 6.3 */
SEC("tp_btf/io_uring_submit_sqe")
int BPF_PROG(on_uring_sqe, struct io_kiocb *req)
{
	return submits(req);
}

#endif
