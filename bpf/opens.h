/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Opens, by the result of the functions that make them: what was opened and what was refused, in one
 * program a function, whichever way the program took (system call, 32-bit call, io_uring). Nothing but
 * opens meets them. Where one of them cannot be hooked, the security hook has what was opened and the
 * exits of the calls what was refused.
 */
#ifndef PLIMSOLL_OPENS_H
#define PLIMSOLL_OPENS_H

#include "lsm.h"

/* What the front does not know. Not inlined: what it does know should not pay for this one's registers. */
static __noinline int opens_anew(struct file *file)
{
	struct scratch *s = enter_hook();
	struct file_facts f;
	__u32 flags;

	if (!s)
		return 0;
	read_facts(file, &f);
	flags = BPF_CORE_READ(file, f_flags);
	if (flags & F_EXEC)
		return 0;
	return use_file(s, file, &f, WIRE_FILE, open_op(&f), flags, s->slot);
}

/* Of what nearly every process of the host opens, nothing is read; the front is for the others. */
static __always_inline int opens(struct file *file)
{
	struct task_struct *task;
	__u32 mntns;

	if (is_idle())
		return 0;
	if (typed_task()) {
		task = bpf_get_current_task_btf();
		mntns = task->nsproxy->mnt_ns->ns.inum;
		if (mntns != host_mntns && !(file->f_flags & F_EXEC) && front_hit(task, mntns, file))
			return 0;
	}
	return opens_anew(file);
}

/* What a file itself made of being opened: devices, pipes and sockets. */
static __always_inline bool is_answer(long ret)
{
	return ret == -ENXIO || ret == -ENODEV || ret == -EBUSY || ret == -EIO || ret == -EINVAL || ret == -EINTR || ret == -ERESTARTSYS;
}

/* There is no file to look at: the kernel's copy of the name, links not followed. */
static __noinline int not_opened(int dfd, struct filename *name, struct open_flags *how, void *error)
{
	__u32 flags = BPF_CORE_READ(how, open_flag), op;
	struct scratch *s = enter_hook();
	int told;

	if (!s || (flags & F_EXEC) || !container_of_actor(s))
		return 0;
	/* through memory: the verifier takes an error for a pointer until then */
	s->args[0] = (__u64)error;
	barrier();
	s->ret = *(volatile __u64 *)&s->args[0];
	if (is_refusal(s->ret))
		op = FILE_FAILED;
	else if (is_answer(s->ret))
		op = flags & O_ACCMODE ? FILE_WRITE : FILE_READ;
	else
		return 0;
	begin(s, WIRE_FILE, &s->actor);
	s->e.flags |= WIRE_ARGUMENT;
	s->e.num[0] = op;
	s->e.num[1] = flags;
	s->e.num[2] = s->ret;
	put_name(s, 0, name);
	start_key(&s->key, &s->actor, WIRE_FILE, op);
	s->key.object[0] = hash_string(s, 0, 0);
	s->key.object[2] = (__u64)dfd << 32 | s->e.slen[0];
	s->key.object[3] = (__u64)BPF_CORE_READ(current_task(), fs, pwd.dentry);
	s->key.flags = foreign(&s->actor) | 2;
	if (s->key.flags & 1)
		s->e.origin = ORIGIN_FOREIGN;
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return 0;
	put_base(s, 2, dfd);
	s->verdict = NOVEL;
	if (told == WATCHED)
		emit_watched(s, s->slot);
	else
		settle(s->slot, 0);
	return 0;
}

/* kernel: do_filp_open(dfd, name, flags), all opens by name; since 3.11 */
SEC("?fexit/do_filp_open")
int f_open(unsigned long long *ctx)
{
	struct file *file = (struct file *)ctx[3];

	if ((unsigned long)file < (unsigned long)-MAX_ERRNO)
		return opens(file);
	/* a name that is not there, the most frequent of all, is no news */
	if (file == (struct file *)-ENOENT)
		return 0;
	return not_opened((int)ctx[0], (struct filename *)ctx[1], (struct open_flags *)ctx[2], file);
}

/* kernel: dentry_open(path, flags, cred): message queues, terminals by their master, fanotify; since 3.6 */
SEC("?fexit/dentry_open")
int f_open_dentry(unsigned long long *ctx)
{
	struct file *file = (struct file *)ctx[3];

	if ((unsigned long)file >= (unsigned long)-MAX_ERRNO || is_idle() || (file->f_mode & FMODE_PATH))
		return 0;
	return opens_anew(file);
}

/* kernel: do_file_open_root(), opens by handle; its parameters differ between kernels (5.12) */
SEC("?fexit/do_file_open_root")
int f_open_root(unsigned long long *ctx)
{
	__u64 ret = 0;

	if (is_idle() || bpf_get_func_ret(ctx, &ret) || ret >= (__u64)-MAX_ERRNO)
		return 0;
	return opens_anew((struct file *)ret);
}

/* The hook has the files behind an overlay's too. */
static __always_inline int hook_opens(struct file *file)
{
	return file->f_mode & (FMODE_NOACCOUNT | FMODE_BACKING) ? 0 : opens(file);
}

SEC("?lsm/file_open")
int l_file_open(unsigned long long *ctx)
{
	hook_opens((struct file *)ctx[0]);
	return 0;
}

SEC("?fentry/security_file_open")
int f_file_open(unsigned long long *ctx)
{
	return hook_opens((struct file *)ctx[0]);
}

#endif
