/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Processes and cgroups: who is in which container, from its first instruction on. */
#ifndef PLIMSOLL_SCHED_H
#define PLIMSOLL_SCHED_H

#include "enforce.h"

static __always_inline __u64 root_of_cgroup(__u64 id)
{
	__u64 *root = bpf_map_lookup_elem(&cgroups, &id);
	return root ? *root : 0;
}

/* Root cgroup of the container that a task's cgroups are in; the first hierarchy has the word. */
static __always_inline __u64 root_of_task(struct task_struct *task)
{
	__u64 root = root_of_cgroup(cgroup_id_of(task));

	if (!root && second_hierarchy_id)
		root = root_of_cgroup(v1_cgroup_id_of(task, second_v1_subsys) | IN_SECOND);
	return root;
}

static __always_inline __u8 entry_kind(struct container *c, bool by_runtime)
{
	if (!(c->flags & CONTAINER_STARTED))
		return ENTRY_INIT;
	return by_runtime ? ENTRY_EXEC : ENTRY_HOST;
}

/* A task that just came into a container's cgroup; it is the runtime's until it executes. */
static __always_inline void admit(struct task_struct *task, __u64 root, bool by_runtime)
{
	struct container *c = bpf_map_lookup_elem(&containers, &root);
	struct process p = {};
	__u32 tgid = BPF_CORE_READ(task, tgid);

	if (!c || (BPF_CORE_READ(task, flags) & PF_KTHREAD))
		return;
	p.cgroup = root;
	p.start_ns = BPF_CORE_READ(task, group_leader, start_boottime);
	p.uid = BPF_CORE_READ(task, cred, uid.val);
	p.caps = caps_of(BPF_CORE_READ(task, cred));
	p.entry = entry_kind(c, by_runtime);
	p.flags = PROCESS_SETUP;
	make_actor(&p);
	if (bpf_map_update_elem(&processes, &tgid, &p, BPF_ANY))
		lose(c, STAGE_KERNEL_MAP);
}

/* kernel: TRACE_EVENT(sched_process_fork), TP_PROTO(parent, child), stable since 2.6 */
SEC("tp_btf/sched_process_fork")
int BPF_PROG(on_fork, struct task_struct *parent, struct task_struct *child)
{
	__u32 pid = child->pid, tgid = child->tgid, ptgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p, born;
	struct container *c;
	struct scratch *s;
	__u64 root;

	if (pid != tgid || nobody_came())
		return 0;
	p = bpf_map_lookup_elem(&processes, &ptgid);
	if (!p) {
		/* clone3(CLONE_INTO_CGROUP) from outside */
		root = root_of_task(child);
		if (root) {
			char comm[16];
			bpf_get_current_comm(comm, sizeof(comm));
			admit(child, root, is_runtime(comm));
		}
		return 0;
	}
	born = *p;
	born.start_ns = child->start_boottime;
	root = p->cgroup;
	c = bpf_map_lookup_elem(&containers, &root);
	if (!c)
		return 0;
	if (bpf_map_update_elem(&processes, &tgid, &born, BPF_ANY))
		lose(c, STAGE_KERNEL_MAP);
	if (p->flags & PROCESS_SETUP)
		return 0;
	s = scratch_of(SLOT_FORK);
	if (!s)
		return 0;
	begin(s, WIRE_FORK, p);
	s->e.num[0] = tgid;
	s->e.num[1] = born.start_ns;
	submit(SLOT_FORK, 0);
	return 0;
}

/* kernel: TRACE_EVENT(sched_process_exit), TP_PROTO(task), with group_dead added in 6.16 */
SEC("tp_btf/sched_process_exit")
int BPF_PROG(on_exit, struct task_struct *task)
{
	__u32 tgid = task->tgid;
	struct process *p = is_idle() ? NULL : bpf_map_lookup_elem(&processes, &tgid);
	struct scratch *s;
	int status;

	if (!p || task->signal->live.counter != 0)
		return 0;
	s = scratch_of(SLOT_EXIT);
	if (s && !(p->flags & PROCESS_SETUP)) {
		status = task->signal->group_exit_code;
		if (!status)
			status = task->exit_code;
		begin(s, WIRE_EXIT, p);
		s->e.num[0] = status;
		submit(SLOT_EXIT, 0);
	}
	bpf_map_delete_elem(&processes, &tgid);
	return 0;
}

/* Programs whose behaviour is that of the script they are given. */
static __always_inline bool is_interpreter(const __u8 *c)
{
	if (c[0] == 'p')
		return (c[1] == 'y' && c[2] == 't') || (c[1] == 'e' && c[2] == 'r' && c[3] == 'l') || (c[1] == 'h' && c[2] == 'p');
	if (c[0] == 'r')
		return c[1] == 'u' && c[2] == 'b' && c[3] == 'y';
	if (c[0] == 'n')
		return c[1] == 'o' && c[2] == 'd' && c[3] == 'e';
	if (c[0] == 'l')
		return c[1] == 'u' && c[2] == 'a';
	if (c[0] == 'j')
		return c[1] == 'a' && c[2] == 'v' && c[3] == 'a';
	if (c[0] == 's')
		return c[1] == 'h' && !c[2];
	if (c[0] == 'b' || c[0] == 'd' || c[0] == 'z' || c[0] == 'a' || c[0] == 'k')
		return (c[1] == 'a' && c[2] == 's' && c[3] == 'h') || (c[1] == 's' && c[2] == 'h' && !c[3]);
	return false;
}

/*
 * What an interpreter runs: the name that the kernel was given (binfmt_script changed interp),
 * or the first 256 bytes of its arguments. Two scripts are two actors.
 */
static __always_inline void script_name(struct scratch *s, struct linux_binprm *bprm, struct process *p, __u64 args, __u64 args_len)
{
	const char *filename = BPF_CORE_READ(bprm, filename), *interp = BPF_CORE_READ(bprm, interp);
	__u64 len;
	long n;

	p->script = 0;
	p->flags &= ~PROCESS_INTERPRETED;
	__builtin_memset(s->word, 0, 264);
	if (filename != interp) {
		n = bpf_probe_read_kernel_str(s->word, 256, filename);
		if (n <= 1)
			return;
		len = n - 1;
		MASK(len, 255);
		put_kernel(s, 1, s->word, len);
	} else if (is_interpreter(s->e.comm)) {
		len = args_len > 255 ? 255 : args_len;
		MASK(len, 255);
		if (bpf_probe_read_user(s->word, len, (void *)args))
			return;
	} else {
		return;
	}
	p->flags |= PROCESS_INTERPRETED;
	hash_word(SLOT_EXEC, len);
	p->script = s->hash;
}

/* Root cgroup of the container whose mount namespace this is; 0: of none. */
static __always_inline __u64 root_of_mntns(__u32 mntns)
{
	struct mntns_root *m;
	struct process *first;
	__u32 tgid;

	if (!mntns || mntns == host_mntns)
		return 0;
	m = bpf_map_lookup_elem(&mntns_roots, &mntns);
	if (!m)
		return 0;
	tgid = m->first;
	first = bpf_map_lookup_elem(&processes, &tgid);
	return first && first->cgroup == m->root && first->mntns == mntns ? m->root : 0;
}

#define ENV_PIECES 3 /* of PATH_MAX - 1 bytes: what put_user() takes at once */

/*
 * What a program that ends at once would take with it: nobody is in time to read it from /proc. A
 * global function: verified once.
 */
__noinline int put_facts(__u32 slot)
{
	struct scratch *s = scratch_of(slot);
	struct task_struct *task = current_task();
	const struct cred *cred = BPF_CORE_READ(task, cred);
	struct pid *own = BPF_CORE_READ(task, thread_pid);
	unsigned long start = BPF_CORE_READ(task, mm, env_start), end = BPF_CORE_READ(task, mm, env_end);
	__u32 zero = 0, *asked, sofar;
	struct exec_facts *f;

	if (!s)
		return 0;
	f = &s->facts;
	__builtin_memset(f, 0, sizeof(*f));
	bpf_probe_read_kernel(&f->permitted, sizeof(f->permitted), &cred->cap_permitted);
	bpf_probe_read_kernel(&f->inheritable, sizeof(f->inheritable), &cred->cap_inheritable);
	f->login_uid = ~0U;
	if (bpf_core_field_exists(task->loginuid))
		f->login_uid = BPF_CORE_READ(task, loginuid.val);
	f->vpid = number_in_namespace_of(own, own);
	f->vpgid = number_in_namespace_of(own, BPF_CORE_READ(task, signal, pids[2]));
	f->vsid = number_in_namespace_of(own, BPF_CORE_READ(task, signal, pids[3]));
	f->env_bytes = end - start;
	asked = bpf_map_lookup_elem(&env_asked, &zero);
	f->env_asked = asked ? *asked : 0;
	put_kernel(s, 4, f, sizeof(*f));
	if (!f->env_asked)
		return 0;
	for (int i = 0; i < ENV_PIECES; i++) {
		sofar = s->e.slen[5];
		s->e.slen[5] = 0;
		if (start < end)
			put_user(s, 5, start, end - start);
		start += s->e.slen[5];
		s->e.slen[5] += sofar;
	}
	return 0;
}

/*
 * kernel: TRACE_EVENT(sched_process_exec), TP_PROTO(task, old_pid, bprm). By now the new program
 * is in place: its arguments are in its own memory, which no other thread shares.
 */
SEC("tp_btf/sched_process_exec")
int BPF_PROG(on_exec, struct task_struct *task, int old_pid, struct linux_binprm *bprm)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *known = bpf_map_lookup_elem(&processes, &tgid), next;
	struct container *c;
	struct scratch *s;
	struct file *file;
	struct inode *inode;
	const struct cred *cred;
	unsigned long arg_start, arg_end;
	__u32 mntns = task->nsproxy->mnt_ns->ns.inum;
	__u64 root;
	struct tty_struct *tty;

	if (nobody_came())
		return 0;
	if (!known) {
		root = root_of_task(task);
		if (!root)
			root = root_of_mntns(mntns);
		if (!root)
			return 0;
		admit(task, root, false);
		known = bpf_map_lookup_elem(&processes, &tgid);
		if (!known)
			return 0;
	}
	next = *known;
	root = next.cgroup;
	c = bpf_map_lookup_elem(&containers, &root);
	s = scratch_of(SLOT_EXEC);
	if (!c || !s)
		return 0;
	/* the runtime executing itself before it enters the container (runc init) */
	if ((next.flags & PROCESS_SETUP) && mntns == host_mntns && host_mntns)
		return 0;
	next.flags &= ~PROCESS_SETUP;
	cred = task->cred;
	file = bprm->file;
	inode = file->f_inode;
	next.uid = cred->uid.val;
	next.caps = caps_of(cred);
	next.exe_ino = inode->i_ino;
	next.exe_dev = inode->i_sb->s_dev;
	next.exe_ctime = ctime_of(inode);

	begin(s, WIRE_EXEC, &next);
	if (starts_container(known, c, mntns))
		remember_root(s, SLOT_EXEC, c);
	/* by calls: what global functions are given must be numbers, and a plain load gives pointers */
	build_path(SLOT_EXEC, (__u64)BPF_CORE_READ(file, f_path.mnt), (__u64)BPF_CORE_READ(file, f_path.dentry));
	hash_path(SLOT_EXEC);
	next.program = s->path_hash;
	put_path(s, 0);
	s->e.origin = origin_of(inode, s->path_flags, c->created_ns, next.exe_ctime);
	if (c->mntns && c->mntns != mntns)
		s->e.origin = s->e.origin == ORIGIN_MEMFD ? ORIGIN_MEMFD : ORIGIN_FOREIGN;
	arg_start = task->mm->arg_start;
	arg_end = task->mm->arg_end;
	script_name(s, bprm, &next, arg_start, arg_end - arg_start);
	put_user(s, 2, arg_start, arg_end - arg_start);
	build_path(SLOT_EXEC, (__u64)BPF_CORE_READ(task, fs, pwd.mnt), (__u64)BPF_CORE_READ(task, fs, pwd.dentry));
	put_path(s, 3);
	put_facts(SLOT_EXEC);
	make_actor(&next);
	if (enforcement)
		s->e.enforced = judge_exec(s, &next, inode->i_nlink == 0, arg_start, arg_end - arg_start);

	s->e.actor = next.actor;
	s->e.uid = next.uid;
	s->e.num[0] = cred->euid.val;
	s->e.num[1] = cred->egid.val;
	s->e.num[2] = next.caps;
	tty = task->signal->tty;
	if (tty)
		s->e.num[3] = BPF_CORE_READ(tty, driver, major) << 8 | (BPF_CORE_READ(tty, driver, minor_start) + BPF_CORE_READ(tty, index));
	s->e.num[4] = next.exe_dev;
	s->e.num[5] = next.exe_ino;
	s->e.num[6] = inode->i_mode & 07777;
	s->e.num[7] = arg_end - arg_start;
	if (inode->i_nlink == 0)
		s->e.flags |= WIRE_DELETED;
	if (!(c->flags & CONTAINER_STARTED)) {
		c->mntns = mntns;
		c->flags |= CONTAINER_STARTED;
		s->e.flags |= WIRE_FIRST;
		if (mntns != host_mntns) {
			struct mntns_root m = { .root = root, .first = tgid };

			bpf_map_update_elem(&mntns_roots, &mntns, &m, BPF_ANY);
		}
	}
	next.mntns = c->mntns;
	if (bpf_map_update_elem(&processes, &tgid, &next, BPF_ANY))
		lose(c, STAGE_KERNEL_MAP);
	deliver_exec(s, is_blocked(next.program, next.exe_ino, next.exe_dev, next.cgroup));
	return 0;
}

/* kernel: TRACE_EVENT(cgroup_mkdir), TP_PROTO(cgrp, path) */
SEC("tp_btf/cgroup_mkdir")
int BPF_PROG(on_cgroup_mkdir, struct cgroup *cgrp, const char *path)
{
	struct container fresh = {}, *parent;
	struct cgroup_subsys_state *up;
	__u64 id, pid, root, now = bpf_ktime_get_boot_ns();
	struct scratch *s;
	long n;

	if (nobody_came())
		return 0;
	id = id_of_cgroup(cgrp);
	if (!id)
		return 0;
	up = BPF_CORE_READ(cgrp, self.parent);
	pid = BPF_CORE_READ(up, cgroup, kn, id) | (id & IN_SECOND);
	root = root_of_cgroup(pid);
	parent = root ? bpf_map_lookup_elem(&containers, &root) : NULL;
	if (parent && !(parent->flags & CONTAINER_PROVISIONAL)) {
		/* a cgroup made inside a container belongs to it */
		bpf_map_update_elem(&cgroups, &id, &root, BPF_ANY);
	} else {
		/* maybe a container: everything in it is streamed until user space knows */
		fresh.flags = CONTAINER_PROVISIONAL;
		fresh.created_ns = now;
		if (bpf_map_update_elem(&containers, &id, &fresh, BPF_ANY) || bpf_map_update_elem(&cgroups, &id, &id, BPF_ANY))
			lose(NULL, STAGE_KERNEL_MAP);
		root = 0;
	}
	s = scratch_of(SLOT_CGROUP);
	if (!s)
		return 0;
	begin(s, WIRE_CGROUP_MKDIR, NULL);
	s->e.cgroup = root ? root : id;
	s->e.num[0] = id;
	s->e.num[1] = pid;
	n = bpf_probe_read_kernel_str(s->data, PATH_MAX, path);
	if (n > 1) {
		s->e.slen[0] = n - 1;
		s->used = n - 1;
	}
	submit(SLOT_CGROUP, root ? 1 : OF_THE_NODE);
	return 0;
}

/* kernel: TRACE_EVENT(cgroup_rmdir), TP_PROTO(cgrp, path) */
SEC("tp_btf/cgroup_rmdir")
int BPF_PROG(on_cgroup_rmdir, struct cgroup *cgrp, const char *path)
{
	struct scratch *s;
	__u64 id, root;

	if (is_idle())
		return 0;
	id = id_of_cgroup(cgrp);
	if (!id)
		return 0;
	root = root_of_cgroup(id);
	if (!root)
		return 0;
	s = scratch_of(SLOT_CGROUP);
	if (!s)
		return 0;
	begin(s, WIRE_CGROUP_RMDIR, NULL);
	s->e.cgroup = root;
	s->e.num[0] = id;
	submit(SLOT_CGROUP, root == id ? OF_THE_NODE : 1);
	bpf_map_delete_elem(&cgroups, &id);
	return 0;
}

/*
 * kernel: TRACE_EVENT(cgroup_attach_task), TP_PROTO(dst_cgrp, path, task, threadgroup). A
 * process in a container stays that container's, wherever it is moved: identity is pinned.
 */
SEC("tp_btf/cgroup_attach_task")
int BPF_PROG(on_cgroup_attach, struct cgroup *dst, const char *path, struct task_struct *task, bool threadgroup)
{
	__u32 tgid = BPF_CORE_READ(task, tgid);
	struct process *p;
	struct container *c;
	struct scratch *s;
	char comm[16];
	__u64 id, root, was;
	long n;

	if (is_idle())
		return 0;
	id = id_of_cgroup(dst);
	if (!id)
		return 0;
	root = root_of_cgroup(id);
	p = bpf_map_lookup_elem(&processes, &tgid);
	/*
	 * A runtime that fills both hierarchies says the same twice, in either order: the first one
	 * has the word, and no word of one takes a process away that the other one gave.
	 */
	if (p && ((p->cgroup ^ id) & IN_SECOND) && ((id & IN_SECOND) || !root))
		return 0;
	if (!p || (p->flags & PROCESS_SETUP)) {
		if (root) {
			bpf_get_current_comm(comm, sizeof(comm));
			admit(task, root, is_runtime(comm));
		} else if (p) {
			/* the runtime left again (a helper that only passed through) */
			bpf_map_delete_elem(&processes, &tgid);
		}
		return 0;
	}
	was = p->cgroup;
	if (root == was)
		return 0;
	c = bpf_map_lookup_elem(&containers, &was);
	/* in a mount namespace of its own: a container, whose process must not leave before it is classified */
	if (c && (c->flags & CONTAINER_PROVISIONAL) && (!p->mntns || p->mntns == host_mntns)) {
		/* a service manager at work */
		if (root)
			p->cgroup = root;
		else
			bpf_map_delete_elem(&processes, &tgid);
		return 0;
	}
	if ((was ^ id) & IN_SECOND)
		return 0;
	s = scratch_of(SLOT_CGROUP);
	if (!s)
		return 0;
	begin(s, WIRE_CGROUP_ATTACH, p);
	s->e.num[0] = id;
	s->e.num[1] = tgid;
	s->e.num[2] = p->start_ns;
	n = bpf_probe_read_kernel_str(s->data, PATH_MAX, path);
	if (n > 1) {
		s->e.slen[0] = n - 1;
		s->used = n - 1;
	}
	submit(SLOT_CGROUP, 1);
	return 0;
}

#endif
