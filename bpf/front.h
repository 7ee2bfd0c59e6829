/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A front to the first level for opened files: what this process opened before on this CPU, found
 * without looking up the process or the dictionary.
 *
 * An entry stands for a first-level entry that has been a plain hit for two epochs, and holds until
 * the epoch ends (1.07 s at most): so the dictionary still sees each use once an epoch, records it,
 * and what user space changes there counts again then. A process is its start and its count of
 * execs; its uid and mount namespace are compared too, because its actor and key depend on them. A
 * file system is where it is in memory: one that takes another's place there was mounted meanwhile.
 *
 * Tasks that preempt each other share a CPU's entries: whoever writes one holds a lock, with
 * interrupts off, and gives it a new stamp, which whoever reads it looks at before and after.
 */
#ifndef PLIMSOLL_FRONT_H
#define PLIMSOLL_FRONT_H

#include "dict.h"

#define FRONT_ENTRIES 512 /* a CPU */
#define FRONT_AGE 2
#define FRONT_LOCKS 64
/* what of f_mode and the file's type makes the operation, see open_op() */
#define FRONT_MODE (FMODE_CREATED | FMODE_PATH | FMODE_WRITE)

struct front {
	__u64 stamp;
	__u64 ino, ctime, sb; /* struct file_facts */
	__u64 start, execs; /* of the process */
	__u64 root; /* of its container */
	__u32 inode_generation, mode;
	__u32 tgid, uid, mntns;
	__u32 generation, epoch, dense;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FRONT_ENTRIES);
	__type(key, __u32);
	__type(value, struct front);
} fronts SEC(".maps");

/* Of entries of one CPU; a map of its own, because maps with a value for each CPU cannot hold locks. */
struct front_lock {
	struct bpf_spin_lock lock;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, FRONT_LOCKS);
	__type(key, __u32);
	__type(value, struct front_lock);
} front_locks SEC(".maps");

static __always_inline struct front *front_of(__u64 ino, __u32 tgid, __u32 mode)
{
	__u32 at = (ino ^ tgid * 0x9e3779b1U ^ mode >> 1) & (FRONT_ENTRIES - 1);

	return bpf_map_lookup_elem(&fronts, &at);
}

/* A known open of the current task: counted, and nothing else to do. The file comes with its type. */
static __always_inline bool front_hit(struct task_struct *task, __u32 mntns, struct file *file)
{
	struct inode *inode = file->f_inode;
	__u32 mode = file->f_mode & FRONT_MODE, tgid = task->tgid, number;
	__u64 ino = inode->i_ino, stamp, *n;
	struct cpu_state *cpu;
	struct front *e;

	e = front_of(ino, tgid, mode);
	if (!e || streaming)
		return false;
	stamp = e->stamp;
	barrier();
	if (e->epoch != epoch || e->ino != ino || e->tgid != tgid || e->mode != mode || e->mntns != mntns ||
	    e->execs != task->self_exec_id || e->start != task->group_leader->start_boottime || e->uid != task->cred->uid.val ||
	    e->sb != (__u64)inode->i_sb || e->inode_generation != inode->i_generation || e->ctime != typed_ctime(inode) ||
	    e->generation != generation_of(e->root))
		return false;
	number = e->dense;
	barrier();
	if (e->stamp != stamp)
		return false;
	n = bpf_map_lookup_elem(&dense, &number);
	if (!n)
		return false;
	__sync_fetch_and_add(n, 1);
	cpu = cpu_state();
	if (cpu)
		cpu->l1_hits++;
	return true;
}

/* After a plain hit on the first level, of an open. */
static __always_inline void front_put(struct file_facts *f, struct l1_value *v, __u64 root)
{
	__u32 at = bpf_get_smp_processor_id() & (FRONT_LOCKS - 1), mode = f->mode & FRONT_MODE;
	struct task_struct *task;
	struct front_lock *l;
	struct front w = {}, *e;

	if (v->age < FRONT_AGE || v->epoch != epoch || !v->dense || streaming || !typed_task())
		return;
	task = bpf_get_current_task_btf();
	w.ino = f->ino;
	w.ctime = f->ctime;
	w.sb = f->sb;
	w.start = task->group_leader->start_boottime;
	w.execs = task->self_exec_id;
	w.root = root;
	w.inode_generation = f->device;
	w.mode = mode;
	w.tgid = task->tgid;
	w.uid = task->cred->uid.val;
	w.mntns = task->nsproxy->mnt_ns->ns.inum;
	w.generation = v->generation;
	w.epoch = v->epoch;
	w.dense = v->dense;
	e = front_of(w.ino, w.tgid, mode);
	l = bpf_map_lookup_elem(&front_locks, &at);
	if (!e || !l)
		return;
	bpf_spin_lock(&l->lock);
	w.stamp = e->stamp + 1;
	*e = w;
	bpf_spin_unlock(&l->lock);
}

#endif
