/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * System calls, at their exit: one program on sys_exit that looks at the number first, and one
 * tail-called program per kind. Objects are taken from the kernel (file behind the descriptor,
 * socket behind the file); where there is none (unlink, rename, mount ...) the argument is copied
 * and marked so.
 */
#ifndef PLIMSOLL_SYS_H
#define PLIMSOLL_SYS_H

#include "front.h"

enum handler {
	H_NONE,
	H_OPEN,
	H_OPENAT,
	H_PATH,
	H_CONNECT,
	H_ACCEPT,
	H_BIND,
	H_SOCKET,
	H_DUP,
	H_NAMESPACE,
	H_MOUNT,
	H_PTRACE,
	H_MODULE,
	H_BPF,
	H_CREDENTIALS,
	H_MMAP,
	H_MEMFD,
	H_RARE,
	H_DNS_BUFFER,
	H_DNS_MESSAGE,
	H_SIGNAL,
	H_MPROTECT,
	H_HANDLE,
	H_COMPAT_ARGS,
	H_MAX,
};

struct {
	__uint(type, BPF_MAP_TYPE_PROG_ARRAY);
	__uint(max_entries, 32);
	__type(key, __u32);
	__type(value, __u32);
} handlers SEC(".maps");

#define USED_BUDGET 256 /* looks at one number until the next tick of user space */

static __always_inline struct file *file_of(__u32 fd)
{
	struct file **fds, *file = NULL;
	__u32 max;

	if (typed_task()) {
		struct fdtable *fdt = bpf_get_current_task_btf()->files->fdt;

		max = fdt->max_fds;
		fds = fdt->fd;
	} else {
		struct fdtable *fdt = BPF_CORE_READ(current_task(), files, fdt);

		max = BPF_CORE_READ(fdt, max_fds);
		fds = BPF_CORE_READ(fdt, fd);
	}
	if (fd >= max)
		return NULL;
	bpf_probe_read_kernel(&file, sizeof(file), &fds[fd]);
	return file;
}

static __always_inline struct sock *sock_of_file(struct file *file)
{
	struct socket *socket;

	if (!file || (BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT) != S_IFSOCK)
		return NULL;
	socket = BPF_CORE_READ(file, private_data);
	return BPF_CORE_READ(socket, sk);
}

static __always_inline struct sock *sock_of(__u32 fd)
{
	return sock_of_file(file_of(fd));
}

/* regs is the tracepoint's typed pointer: plain loads, no helper calls */
static __always_inline void read_args(struct scratch *s, struct pt_regs *regs, __u32 compat)
{
#if defined(__TARGET_ARCH_x86)
	if (compat) {
		s->args[0] = (__u32)regs->bx;
		s->args[1] = (__u32)regs->cx;
		s->args[2] = (__u32)regs->dx;
		s->args[3] = (__u32)regs->si;
		s->args[4] = (__u32)regs->di;
		s->args[5] = (__u32)regs->bp;
		return;
	}
	s->args[0] = regs->di;
	s->args[1] = regs->si;
	s->args[2] = regs->dx;
	s->args[3] = regs->r10;
	s->args[4] = regs->r8;
	s->args[5] = regs->r9;
#elif defined(__TARGET_ARCH_arm64)
	s->args[0] = regs->orig_x0;
	s->args[1] = regs->regs[1];
	s->args[2] = regs->regs[2];
	s->args[3] = regs->regs[3];
	s->args[4] = regs->regs[4];
	s->args[5] = regs->regs[5];
#endif
}

static __always_inline void note_used(struct scratch *s)
{
	struct container *c;

	start_key(&s->key, &s->actor, WIRE_SYSCALL, s->compat);
	s->key.object[0] = s->nr;
	if (consult(&s->key, s->actor.cgroup) != NEW)
		return;
	c = container_of_actor(s);
	if (!c)
		return;
	begin(s, WIRE_SYSCALL, &s->actor);
	s->verdict = in_set(s, c, s->nr, s->key.code, 0) ? KNOWN : NOVEL;
	s->e.num[0] = s->nr;
	settle(s->slot, 0);
}

#if defined(__TARGET_ARCH_x86)
static __always_inline __u32 thread_status(void)
{
	if (typed_task())
		return bpf_get_current_task_btf()->thread_info.status;
	return BPF_CORE_READ(current_task(), thread_info.status);
}
#endif

static __always_inline __u32 open_op(struct file_facts *f)
{
	if (f->mode & FMODE_CREATED)
		return FILE_CREATE;
	if ((f->mode & FMODE_PATH) || f->type == S_IFDIR)
		return FILE_LIST;
	return f->mode & FMODE_WRITE ? FILE_WRITE : FILE_READ;
}

/* Whether a new descriptor is of a known file, which is counted by that; none is in the host's namespace. */
static __always_inline bool opened_before(__u32 fd)
{
	struct task_struct *task;
	struct file *file;
	__u32 mntns;

	if (!typed_task() || !bpf_ksym_exists(bpf_rdonly_cast))
		return false;
	task = bpf_get_current_task_btf();
	mntns = task->nsproxy->mnt_ns->ns.inum;
	if (host_mntns && mntns == host_mntns)
		return false;
	file = file_of(fd);
	return file && front_hit(task, mntns, bpf_rdonly_cast(file, bpf_core_type_id_kernel(struct file)));
}

#define SHM_EXEC 0100000

/*
 * Whether the registers alone say that a handler has nothing to tell of a native call: a program that
 * starts makes some thirty maps of its libraries, four of which can be executed, and looks for files
 * that are not there. What is left out here the handlers would leave out themselves.
 */
static __always_inline bool says_nothing(__u32 handler, struct pt_regs *regs, long ret)
{
	switch (handler) {
	case H_MMAP: /* and shmat */
	case H_MPROTECT:
#if defined(__TARGET_ARCH_x86)
		return !(regs->dx & (PROT_EXEC | SHM_EXEC));
#else
		return !(regs->regs[2] & (PROT_EXEC | SHM_EXEC));
#endif
	case H_DUP:
		return (unsigned long)ret > 2;
	case H_OPEN:
	case H_OPENAT:
	case H_PATH:
		return ret < 0 && !is_refusal(ret);
	case H_DNS_BUFFER:
	case H_DNS_MESSAGE:
		return ret <= 0;
	}
	return false;
}

/* kernel: TRACE_EVENT_SYSCALL(sys_exit), TP_PROTO(regs, ret) */
SEC("tp_btf/sys_exit")
int BPF_PROG(on_sys_exit, struct pt_regs *regs, long ret)
{
#if defined(__TARGET_ARCH_x86)
	/* without the mark of the x32 table, whose numbers below 512 are the native ones */
	unsigned long nr = regs->orig_ax & ~0x40000000UL;
#else
	unsigned long nr = regs->syscallno;
#endif
	struct gate g;
	struct process *p;
	struct scratch *s;
	__u32 tgid, compat = 0;

	if (nr >= SYSCALLS)
		return 0;
	/* one load decides for nearly every call */
	if (!*(volatile __u32 *)&gates[nr & (SYSCALLS - 1)] || is_idle())
		return 0;
	g = gates[nr & (SYSCALLS - 1)];
#if defined(__TARGET_ARCH_x86)
	/* TS_COMPAT: entered through int 0x80 or the 32-bit entry points */
	if (thread_status() & 2) {
		g.handler = g.compat;
		g.used = 0;
		compat = 1;
	}
#endif
	if ((g.failures & (1 + compat)) && !is_refusal(ret))
		g.handler = 0;
	if (!compat && says_nothing(g.handler, regs, ret))
		g.handler = 0;
	if (!g.handler && !g.used)
		return 0;
	if (!g.used && ret >= 0 && (g.handler == H_OPENAT || g.handler == H_OPEN) && opened_before(ret))
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (g.used) {
		if (++used_budget[nr & (SYSCALLS - 1)] > USED_BUDGET)
			gates[nr & (SYSCALLS - 1)].used = 0;
	}
	if (!p || (p->flags & PROCESS_SETUP))
		return 0;
	s = scratch_of(SLOT_SYS);
	if (!s)
		return 0;
	s->slot = SLOT_SYS;
	s->actor = *p;
	s->ret = ret;
	s->nr = compat ? native_numbers[nr & (SYSCALLS - 1)] : nr;
	s->compat = compat;
	if (g.used)
		note_used(s);
	if (g.handler) {
		read_args(s, regs, compat);
		/* a jump that is known when the program is compiled costs no speculation barrier */
		if (g.handler == H_OPENAT)
			bpf_tail_call_static(ctx, &handlers, H_OPENAT);
		else if (g.handler == H_OPEN)
			bpf_tail_call_static(ctx, &handlers, H_OPEN);
		bpf_tail_call(ctx, &handlers, g.handler);
	}
	return 0;
}

/* One of the slots that programs share which can be preempted. */
static __always_inline struct scratch *shared_scratch(void)
{
	__u64 ids = bpf_get_current_pid_tgid();
	__u32 slot = SLOT_LSM + (ids & 3);
	struct scratch *s = scratch_of(slot);

	if (!s)
		return NULL;
	s->owner = ids;
	s->slot = slot;
	return s;
}

#if defined(__TARGET_ARCH_x86)
#define SYSCALL_FUNCTION "__x64_sys_"
#else
#define SYSCALL_FUNCTION "__arm64_sys_"
#endif

/*
 * What is done about one kind of call. Reached from on_sys_exit (h_NAME), or, where the kernel
 * takes fexit programs and nobody asked for the calls used, from the exit of that call's own
 * function (calls.h).
 */
#define HANDLER(name)                                            \
	static __always_inline int body_##name(struct scratch *s); \
	SEC("tp_btf/sys_exit")                                   \
	int h_##name(void *ctx)                                  \
	{                                                        \
		struct scratch *s = scratch_of(SLOT_SYS);        \
		return s ? body_##name(s) : 0;                   \
	}                                                        \
	static __always_inline int body_##name(struct scratch *s)

#define CONTAINER(s, c)                              \
	struct container *c = container_of_actor(s); \
	if (!c)                                      \
	return 0

/* Key of a file object: device, inode, generation, change time. */
static __always_inline void file_key(struct scratch *s, struct file_facts *f, __u32 kind, __u32 op)
{
	start_key(&s->key, &s->actor, kind, op);
	s->key.object[0] = f->ino;
	s->key.object[1] = f->ctime;
	s->key.object[2] = f->device;
	s->key.flags = foreign(&s->actor);
}

#if defined(__TARGET_ARCH_x86)
#define REGS_NR(regs) (BPF_CORE_READ(regs, orig_ax) & ~0x40000000UL)
#define REGS_FIRST(regs) BPF_CORE_READ(regs, di)
#define REGS_SECOND(regs) BPF_CORE_READ(regs, si)
#define IS_OPEN(nr) ((nr) == 2 || (nr) == 85) /* open, creat */
#define IS_OPENAT(nr) ((nr) == 257 || (nr) == 437) /* openat, openat2 */
#else
#define REGS_NR(regs) ((__u64)BPF_CORE_READ(regs, syscallno))
#define REGS_FIRST(regs) BPF_CORE_READ(regs, orig_x0)
#define REGS_SECOND(regs) BPF_CORE_READ(regs, regs[1])
#define IS_OPEN(nr) false
#define IS_OPENAT(nr) ((nr) == 56 || (nr) == 437)
#endif

/*
 * Where the path of an open lies in the program's memory, from the registers that it made its call with,
 * whichever hook saw the open; 0: not told. Not of 32-bit calls, nor through io_uring. Kernel commit
 * dd6e10fbd9fb (5.15) has the helper.
 */
static __always_inline __u64 raw_path(void)
{
	struct pt_regs *regs;
	unsigned long nr;

	if (!bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_task_pt_regs) || !typed_task())
		return 0;
#if defined(__TARGET_ARCH_x86)
	if (thread_status() & 2)
		return 0;
#endif
	regs = (struct pt_regs *)bpf_task_pt_regs(bpf_get_current_task_btf());
	nr = REGS_NR(regs);
	if (IS_OPEN(nr))
		return REGS_FIRST(regs);
	if (IS_OPENAT(nr))
		return REGS_SECOND(regs);
	return 0;
}

/* The path of an open as the program wrote it: only for what is emitted anyway. Verified once. */
__noinline int put_raw(__u32 slot)
{
	struct scratch *s = scratch_of(slot);
	__u64 from = raw_path();

	if (s && from)
		put_user_str(s, 4, from);
	return 0;
}

#define EACH_BYTE(b) (0x0101010101010101ULL * (b))

/*
 * Whether that path goes up. Asked of files only of which a rule wants to know: the whole path is looked
 * at, eight bytes at a time and without a branch, so that the verifier sees one state a step. Two dots
 * in a name, or left behind the end by a longer path, are told for nothing: the rule decides.
 */
__noinline int goes_up(__u32 slot)
{
	struct scratch *s = scratch_of(slot);
	__u64 from = raw_path(), word, dots, last = 0, found = 0;
	long n;

	if (!s || !from)
		return 0;
	n = bpf_probe_read_user_str(s->path, PATH_MAX, (void *)from);
	for (int i = 0; i < PATH_MAX / 8; i++) {
		if (i * 8 >= n)
			break;
		word = *(volatile __u64 *)&s->path[i * 8] ^ EACH_BYTE('.');
		/* the top bit of each byte that was a dot, and is zero now */
		dots = ~(((word & EACH_BYTE(0x7f)) + EACH_BYTE(0x7f)) | word | EACH_BYTE(0x7f));
		found |= dots & (dots << 8 | last);
		last = dots >> 56;
	}
	return found != 0;
}

/* A file object was used: open or executable mapping. */
static __always_inline int use_file(struct scratch *s, struct file *file, struct file_facts *f, __u32 kind, __u32 op, __u64 flags, __u32 slot)
{
	struct inode *inode = f->inode;
	struct l1_value *entry = NULL;
	struct container *c;
	int told;

	file_key(s, f, kind, op);
	told = consult_entry(&s->key, s->actor.cgroup, &entry);
	if (told == HIT) {
		if (!entry || kind != WIRE_FILE)
			return 0;
		if (entry->state != L1_UPWARD) {
			if (op == open_op(f))
				front_put(f, entry, s->actor.cgroup);
			return 0;
		}
		if (!goes_up(slot))
			return 0;
		told = WATCHED;
	}
	c = container_of_actor(s);
	if (!c) {
		bpf_map_delete_elem(&l1, &s->key);
		return 0;
	}
	begin(s, kind, &s->actor);
	if (!build_path(slot, (__u64)BPF_CORE_READ(file, f_path.mnt), (__u64)BPF_CORE_READ(file, f_path.dentry))) {
		bpf_map_delete_elem(&l1, &s->key);
		return 0;
	}
	s->e.origin = origin_of(inode, s->path_flags, c->created_ns, s->key.object[1]);
	if (s->key.flags & 1)
		s->e.origin = s->e.origin == ORIGIN_MEMFD ? ORIGIN_MEMFD : ORIGIN_FOREIGN;
	if (BPF_CORE_READ(inode, i_nlink) == 0)
		s->e.flags |= WIRE_DELETED;
	s->e.num[0] = op;
	s->e.num[1] = flags;
	put_path(s, 0);
	if (kind == WIRE_FILE) {
		s->e.num[3] = BPF_CORE_READ(inode, i_mode) & 07777;
		put_raw(slot);
	}
	if (told == WATCHED) {
		emit_watched(s, slot);
		return 0;
	}
	/* the first level has no origin in its code: the object decides it; the second level has */
	s->key.code |= s->e.origin;
	decide_path(slot);
	s->key.code &= ~0xffU;
	settle(slot, 0);
	return 0;
}

/* The directory that a relative argument starts from. */
static __always_inline void put_base(struct scratch *s, int i, int dfd)
{
	struct file *dir;

	if (dfd == AT_FDCWD) {
		struct task_struct *task = current_task();
		build_path(s->slot, (__u64)BPF_CORE_READ(task, fs, pwd.mnt), (__u64)BPF_CORE_READ(task, fs, pwd.dentry));
	} else {
		dir = file_of(dfd);
		if (!dir)
			return;
		build_path(s->slot, (__u64)BPF_CORE_READ(dir, f_path.mnt), (__u64)BPF_CORE_READ(dir, f_path.dentry));
	}
	put_path(s, i);
}

static __always_inline __u64 hash_string(struct scratch *s, int i, __u64 from)
{
	__u64 len = s->e.slen[i];

	/* 256 bytes from its end: the end differs where paths differ most often */
	if (len > 255) {
		from += len - 255;
		len = 255;
	}
	__builtin_memset(s->word, 0, 264);
	MASK(len, 255);
	MASK(from, WIRE_DATA_MAX - 1);
	bpf_probe_read_kernel(s->word, len, &s->data[from]);
	hash_word(s->slot, len);
	return s->hash;
}

static __always_inline __u64 arg(struct scratch *s, __u64 i)
{
	MASK(i, 7);
	return s->args[i];
}

/* A call that names one or two files by path. */
static __always_inline int use_paths(struct scratch *s, __u32 op, struct path_call pc, __s64 result)
{
	__u32 second;
	__u64 h0, h1;
	int told;

	begin(s, WIRE_FILE, &s->actor);
	s->e.flags |= WIRE_ARGUMENT;
	s->e.num[0] = op;
	if (pc.mode < 6)
		s->e.num[1] = arg(s, pc.mode);
	s->e.num[2] = result;
	if (pc.path < 6)
		put_user_str(s, 0, arg(s, pc.path));
	second = s->used;
	if (pc.path2 < 6)
		put_user_str(s, 1, arg(s, pc.path2));
	h0 = hash_string(s, 0, 0);
	h1 = hash_string(s, 1, second);
	start_key(&s->key, &s->actor, WIRE_FILE, op);
	s->key.object[0] = h0;
	s->key.object[1] = h1;
	s->key.object[2] = (__u64)(pc.dfd < 6 ? (int)arg(s, pc.dfd) : AT_FDCWD) << 32 | (__u32)(s->e.slen[0] << 16 | s->e.slen[1]);
	{
		struct task_struct *task = current_task();
		s->key.object[3] = (__u64)BPF_CORE_READ(task, fs, pwd.dentry);
	}
	s->key.flags = foreign(&s->actor) | (result ? 2 : 0) | (op == FILE_CHMOD ? (__u32)s->e.num[1] << 8 : 0);
	if (s->key.flags & 1)
		s->e.origin = ORIGIN_FOREIGN;
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return 0;
	put_base(s, 2, pc.dfd < 6 ? (int)arg(s, pc.dfd) : AT_FDCWD);
	if (pc.path2 < 6)
		put_base(s, 3, pc.dfd2 < 6 ? (int)arg(s, pc.dfd2) : AT_FDCWD);
	if (told == WATCHED) {
		emit_watched(s, s->slot);
		return 0;
	}
	s->verdict = NOVEL;
	settle(s->slot, op == FILE_CHMOD || op == FILE_LINK || op == FILE_SYMLINK);
	return 0;
}

static __always_inline int opened(struct scratch *s, struct path_call pc, __u64 flags)
{
	struct file_facts f;
	struct file *file;

	if (is_refusal(s->ret))
		return use_paths(s, FILE_FAILED, pc, s->ret);
	if (s->ret < 0)
		return 0;
	file = file_of(s->ret);
	if (!file)
		return 0;
	read_facts(file, &f);
	return use_file(s, file, &f, WIRE_FILE, open_op(&f), flags, s->slot);
}

HANDLER(open)
{
	struct path_call pc = { .dfd = 0xff, .path = 0, .dfd2 = 0xff, .path2 = 0xff, .mode = 1 };
	return opened(s, pc, call_numbers[s->nr & (SYSCALLS - 1)] ? 0 : s->args[1]);
}

HANDLER(openat)
{
	struct path_call pc = { .dfd = 0, .path = 1, .dfd2 = 0xff, .path2 = 0xff, .mode = 2 };
	return opened(s, pc, call_numbers[s->nr & (SYSCALLS - 1)] ? 0 : s->args[2]);
}

HANDLER(path)
{
	struct path_call pc;
	struct file_facts f;
	struct file *file;

	if (s->ret < 0 && !is_refusal(s->ret))
		return 0;
	pc = path_calls[s->nr & (SYSCALLS - 1)];
	if (pc.path == 0xff) {
		/* fchmod, fchown: by descriptor */
		file = file_of(s->args[0]);
		if (!file || s->ret < 0)
			return 0;
		read_facts(file, &f);
		return use_file(s, file, &f, WIRE_FILE, pc.op & 31, s->args[1], s->slot);
	}
	if (pc.op == FILE_UNLINK && pc.mode < 6 && (arg(s, pc.mode) & 0x200)) /* AT_REMOVEDIR */
		pc.op = FILE_RMDIR;
	return use_paths(s, pc.op & 31, pc, s->ret);
}

/* Calls that are new by a few words: key words, no path. */
static __always_inline int use_words(struct scratch *s, __u32 kind, __u32 op, __u64 a, __u64 b, int alert_class)
{
	int told;

	start_key(&s->key, &s->actor, kind, op);
	s->key.object[0] = a;
	s->key.object[1] = b;
	s->key.flags = s->ret < 0 ? 2 : 0;
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return 0;
	s->verdict = NOVEL;
	if (told == WATCHED)
		emit_watched(s, s->slot);
	else
		settle(s->slot, alert_class);
	return 0;
}

#if defined(__TARGET_ARCH_x86)
#define NR_MMAP 9
#define NR_MPROTECT 10
#define NR_SHMAT 30
#define NR_PERSONALITY 135
#else
#define NR_MMAP 222
#define NR_MPROTECT 226
#define NR_SHMAT 196
#define NR_PERSONALITY 92
#endif
#define READ_IMPLIES_EXEC 0x400000

/* Memory without a file that may be executed: what a packer or an injected program needs. */
static __always_inline int executable_memory(struct scratch *s, __u32 nr, __u64 prot)
{
	begin(s, WIRE_RARE, &s->actor);
	s->e.num[0] = nr;
	s->e.num[3] = prot;
	return use_words(s, WIRE_RARE, 0, nr, prot, 1);
}

HANDLER(mmap)
{
	struct file_facts f;
	struct file *file;

	/* errors are the last page of the address space */
	if ((__u64)s->ret > -4096ULL)
		return 0;
	if (s->nr == NR_SHMAT)
		return s->args[2] & SHM_EXEC ? executable_memory(s, NR_SHMAT, PROT_EXEC) : 0;
	if (!(s->args[2] & PROT_EXEC))
		return 0;
	if (s->args[3] & MAP_ANONYMOUS)
		return executable_memory(s, NR_MMAP, s->args[2]);
	file = file_of(s->args[4]);
	if (!file)
		return 0;
	read_facts(file, &f);
	return use_file(s, file, &f, WIRE_LIBRARY, 0, s->args[2], s->slot);
}

HANDLER(mprotect)
{
	if (!(s->args[2] & PROT_EXEC) || s->ret)
		return 0;
	return executable_memory(s, NR_MPROTECT, s->args[2]);
}

HANDLER(dup)
{
	struct file *file;
	struct sock *sk;
	__u32 stream, target = 4, family = 0;
	__u16 type;

	if (s->ret < 0 || s->ret > 2)
		return 0;
	/* fcntl: only F_DUPFD and F_DUPFD_CLOEXEC */
	if (call_numbers[s->nr & (SYSCALLS - 1)] == 1 && s->args[1] != 0 && s->args[1] != 1030)
		return 0;
	stream = s->ret;
	file = file_of(stream);
	if (!file)
		return 0;
	begin(s, WIRE_DUP, &s->actor);
	type = BPF_CORE_READ(file, f_inode, i_mode) & S_IFMT;
	if (type == S_IFIFO)
		target = 2;
	else if (type == S_IFCHR)
		target = 3;
	else if (type == S_IFSOCK) {
		sk = sock_of_file(file);
		family = sk ? BPF_CORE_READ(sk, __sk_common.skc_family) : 0;
		target = family == AF_UNIX ? 1 : 0;
		if (family == AF_INET) {
			__u32 v4[4] = { 0, 0, bpf_htonl(0xffff), BPF_CORE_READ(sk, __sk_common.skc_daddr) };
			put_kernel(s, 1, v4, 16);
		} else if (family == AF_INET6) {
			put_kernel(s, 1, &sk->__sk_common.skc_v6_daddr, 16);
		}
		if (target == 0)
			s->e.num[4] = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	}
	s->e.num[0] = stream;
	s->e.num[1] = target;
	s->e.num[2] = family;
	return use_words(s, WIRE_DUP, stream, target, target == 0 ? hash_string(s, 1, 0) : 0, target == 0);
}

HANDLER(namespace)
{
	__u64 flags;
	__u32 call;

	call = call_numbers[s->nr & (SYSCALLS - 1)];
	flags = call == 0 ? s->args[1] : s->args[0];
	if (call == 3) { /* clone3: the flags are the first word of its structure */
		bpf_probe_read_user(&flags, sizeof(flags), (void *)s->args[0]);
		call = 2;
	}
	if (call == 2) {
		flags &= 0x7e020080; /* CLONE_NEW*, time namespaces included */
		if (!flags)
			return 0;
	}
	if (call == 1 && !(flags & 0x7e020080))
		return 0;
	begin(s, WIRE_NAMESPACE, &s->actor);
	s->e.num[0] = call;
	s->e.num[1] = flags;
	s->e.num[2] = s->ret;
	return use_words(s, WIRE_NAMESPACE, call, flags, 0, 1);
}

HANDLER(mount)
{
	__u32 call;
	__u64 h;

	call = call_numbers[s->nr & (SYSCALLS - 1)];
	if (s->ret == 0) {
		/* whatever is known by path may mean something else now */
		forget_all(s->actor.cgroup);
	}
	begin(s, WIRE_MOUNT, &s->actor);
	s->e.flags |= WIRE_ARGUMENT;
	s->e.num[0] = call;
	s->e.num[2] = s->ret;
	switch (call) {
	case 0: /* mount(source, target, fstype, flags) */
		put_user_str(s, 0, s->args[0]);
		put_user_str(s, 1, s->args[1]);
		put_user_str(s, 2, s->args[2]);
		s->e.num[1] = s->args[3];
		break;
	case 1: /* umount2(target, flags) */
		put_user_str(s, 1, s->args[0]);
		s->e.num[1] = s->args[1];
		break;
	case 2: /* pivot_root(new, old) */
		put_user_str(s, 1, s->args[0]);
		put_user_str(s, 0, s->args[1]);
		break;
	case 3: /* chroot(path) */
		put_user_str(s, 1, s->args[0]);
		break;
	default: /* move_mount(from_fd, from, to_fd, to) */
		put_user_str(s, 0, s->args[1]);
		put_user_str(s, 1, s->args[3]);
	}
	h = hash_string(s, 1, s->e.slen[0]);
	put_base(s, 3, AT_FDCWD);
	return use_words(s, WIRE_MOUNT, call, h, s->e.num[1], 1);
}

HANDLER(ptrace)
{
	__u32 request, call;

	call = call_numbers[s->nr & (SYSCALLS - 1)];
	request = call == 0 ? s->args[0] : call == 1 ? 0xffffffff : 0xfffffffe;
	/* asking to be traced, attaching, changing; reading and stepping are no news after that */
	if (call == 0 && request != 0 && request != 16 && request != 0x4206 && request != 4 && request != 5 && request != 13 && request != 0x4205)
		return 0;
	begin(s, WIRE_PTRACE, &s->actor);
	s->e.num[0] = request;
	s->e.num[1] = call == 0 ? s->args[1] : s->args[0];
	s->e.num[2] = s->ret;
	return use_words(s, WIRE_PTRACE, call, request, 0, 1);
}

HANDLER(module)
{
	struct file *file;

	begin(s, WIRE_MODULE, &s->actor);
	if (call_numbers[s->nr & (SYSCALLS - 1)] == 1) {
		file = file_of(s->args[0]);
		if (file && build_path(s->slot, (__u64)BPF_CORE_READ(file, f_path.mnt), (__u64)BPF_CORE_READ(file, f_path.dentry)))
			put_path(s, 0);
	} else if (call_numbers[s->nr & (SYSCALLS - 1)] == 2) {
		put_user_str(s, 0, s->args[0]);
		s->e.flags |= WIRE_ARGUMENT;
	}
	s->e.num[0] = s->ret;
	return use_words(s, WIRE_MODULE, 0, hash_string(s, 0, 0), s->nr, 1);
}

HANDLER(bpf)
{
	begin(s, WIRE_BPF, &s->actor);
	s->e.num[0] = s->args[0];
	s->e.num[1] = s->ret;
	return use_words(s, WIRE_BPF, 0, s->args[0], 0, 1);
}

HANDLER(memfd)
{
	if (s->ret < 0)
		return 0;
	begin(s, WIRE_MEMFD, &s->actor);
	s->e.flags |= WIRE_ARGUMENT;
	put_user_str(s, 0, s->args[0]);
	return use_words(s, WIRE_MEMFD, 0, hash_string(s, 0, 0), 0, 1);
}

static __always_inline int rare_call(struct scratch *s, __u64 about)
{
	begin(s, WIRE_RARE, &s->actor);
	s->e.num[0] = s->nr;
	s->e.num[1] = s->args[0];
	s->e.num[2] = s->args[1];
	s->e.num[3] = s->args[2];
	s->e.num[4] = s->args[3];
	s->e.num[5] = s->ret;
	return use_words(s, WIRE_RARE, 0, s->nr, about, 1);
}

HANDLER(rare)
{
	__u32 persona = s->args[0];

	if (s->nr != NR_PERSONALITY)
		return rare_call(s, s->args[0] & 0xffff);
	/* asking, and the harmless ones, are part of many start-ups */
	if (persona == 0xffffffff || !(persona & READ_IMPLIES_EXEC))
		return 0;
	return rare_call(s, persona);
}

/* open_by_handle_at: the call by itself, and the file that it opened */
HANDLER(handle)
{
	struct file_facts f;
	struct file *file;

	rare_call(s, 0);
	if (s->ret < 0)
		return 0;
	file = file_of(s->ret);
	if (!file)
		return 0;
	read_facts(file, &f);
	return use_file(s, file, &f, WIRE_FILE, open_op(&f), s->args[2], s->slot);
}

#if defined(__TARGET_ARCH_x86)
/*
 * Calls of the 32-bit table that keep their arguments in memory (socketcall, the first mmap) or name
 * their operation first (ipc): goes on as the call of the native table that they come to. Another
 * thread can change the memory meanwhile, as with every argument.
 */
SEC("tp_btf/sys_exit")
int h_compat_args(void *ctx)
{
	struct scratch *s = scratch_of(SLOT_SYS);
	__u32 words[6] = {}, op, nr;
	struct gate g;

	if (!s || !s->compat)
		return 0;
	op = s->args[0];
	nr = s->nr;
	if (nr == NR_SHMAT) { /* ipc(SHMAT, id, flags, ...) */
		if ((op & 0xffff) != 21)
			return 0;
	} else {
		if (bpf_probe_read_user(words, sizeof(words), (void *)(nr == NR_MMAP ? s->args[0] : s->args[1])))
			return 0;
		for (int i = 0; i < 6; i++)
			s->args[i] = words[i];
		if (nr != NR_MMAP) /* linux/net.h: SYS_SOCKET, SYS_BIND, SYS_CONNECT, SYS_ACCEPT, SYS_ACCEPT4 */
			nr = op == 1 ? 41 : op == 2 ? 49 : op == 3 ? 42 : op == 5 ? 43 : op == 18 ? 288 : 0;
	}
	s->nr = nr;
	g = gates[nr & (SYSCALLS - 1)];
	if (nr && g.handler)
		bpf_tail_call(ctx, &handlers, g.handler);
	return 0;
}
#endif

/* Whom a pidfd means, by the number of its own namespace; 0: cannot be told. */
static __always_inline int pid_of_descriptor(__u32 fd)
{
	struct file *file = file_of(fd);
	struct inode *inode;
	unsigned long magic;
	struct pid *pid;
	int nr = 0;

	if (!file)
		return 0;
	inode = BPF_CORE_READ(file, f_inode);
	magic = BPF_CORE_READ(inode, i_sb, s_magic);
	if (magic == 0x50494446) /* pidfs, kernel commit cb12fd8e0dab (6.9) */
		pid = BPF_CORE_READ(inode, i_private);
	else if (magic == 0x09041934) /* anon_inode */
		pid = BPF_CORE_READ(file, private_data);
	else
		return 0;
	bpf_probe_read_kernel(&nr, sizeof(nr), (void *)pid + bpf_core_field_offset(struct pid, numbers) +
		(BPF_CORE_READ(pid, level) & 31) * bpf_core_type_size(struct upid));
	return nr;
}

HANDLER(signal)
{
	__u32 call;

	call = call_numbers[s->nr & (SYSCALLS - 1)];
	begin(s, WIRE_SIGNAL, &s->actor);
	s->e.num[0] = call == 1 ? s->args[2] : s->args[1];
	s->e.num[1] = call == 2 ? pid_of_descriptor(s->args[0]) : (int)s->args[0];
	s->e.num[2] = s->ret;
	/* signal 0 asks, and nothing more */
	if (!s->e.num[0])
		return 0;
	return use_words(s, WIRE_SIGNAL, 0, s->e.num[0], 0, 0);
}

HANDLER(credentials)
{
	struct task_struct *task = current_task();
	const struct cred *cred;
	struct process *p;
	__u32 tgid = bpf_get_current_pid_tgid() >> 32, uid;
	__u64 caps;

	if (s->ret < 0)
		return 0;
	cred = BPF_CORE_READ(task, cred);
	uid = BPF_CORE_READ(cred, uid.val);
	caps = caps_of(cred);
	if (uid == s->actor.uid && caps == s->actor.caps)
		return 0;
	begin(s, WIRE_CREDENTIALS, &s->actor);
	s->e.num[0] = s->actor.uid;
	s->e.num[1] = uid;
	s->e.num[2] = s->actor.caps;
	s->e.num[3] = caps;
	/* another uid is another actor */
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (p) {
		p->uid = uid;
		p->caps = caps;
		make_actor(p);
	}
	return use_words(s, WIRE_CREDENTIALS, 0, (__u64)s->e.num[0] << 32 | uid, caps, (caps & ~s->actor.caps) != 0);
}

#endif
