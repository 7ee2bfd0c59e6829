/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * A front to the first level for opened files: what this process opened before on this CPU, found
 * without looking up the process or the dictionary.
 *
 * An entry stands for a first-level entry that has been a plain hit for two epochs, and holds until
 * the epoch ends (1.07 s at most): so the dictionary still sees each use once an epoch, records it,
 * and what user space changes there counts again then. A process is its start and its count of
 * execs; its uid and mount namespace are compared too, because its actor and key depend on them.
 */
#ifndef PLIMSOLL_FRONT_H
#define PLIMSOLL_FRONT_H

#include "dict.h"

#define FRONT_ENTRIES 512 /* a CPU */
#define FRONT_AGE 2

struct front {
	__u64 ino, ctime, device; /* struct file_facts */
	__u64 start, execs; /* of the process */
	__u64 root; /* of its container */
	__u32 tgid, uid, mntns;
	__u32 code; /* of the l1_key */
	__u32 generation, epoch, dense, pad;
	__u64 sum; /* of the above: tasks that preempt each other may leave a mixture behind */
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, FRONT_ENTRIES);
	__type(key, __u32);
	__type(value, struct front);
} fronts SEC(".maps");

/* Who opens, and what; whatever can be read by plain loads. */
static __always_inline bool front_key(struct front *w, struct file_facts *f, __u32 op)
{
	struct task_struct *task;

	if (!typed_task() || !bpf_ksym_exists(bpf_rdonly_cast))
		return false;
	task = bpf_get_current_task_btf();
	w->ino = f->ino;
	w->ctime = f->ctime;
	w->device = f->device;
	w->start = task->group_leader->start_boottime;
	w->execs = task->self_exec_id;
	w->tgid = task->tgid;
	w->uid = task->cred->uid.val;
	w->mntns = task->nsproxy->mnt_ns->ns.inum;
	w->code = WIRE_FILE << 16 | op << 8;
	return true;
}

static __always_inline struct front *front_of(struct front *w)
{
	__u32 at = (w->ino ^ w->tgid * 0x9e3779b1U ^ w->code >> 8) & (FRONT_ENTRIES - 1);

	return bpf_map_lookup_elem(&fronts, &at);
}

static __always_inline __u64 front_sum(struct front *e)
{
	__u64 sum = sip_k0;

	sum = (sum ^ e->ino) * 0x9e3779b97f4a7c15ULL;
	sum = (sum ^ sum >> 32 ^ e->ctime) * 0x9e3779b97f4a7c15ULL;
	sum = (sum ^ sum >> 32 ^ e->device) * 0x9e3779b97f4a7c15ULL;
	sum = (sum ^ sum >> 32 ^ e->start ^ e->execs << 48) * 0x9e3779b97f4a7c15ULL;
	sum = (sum ^ sum >> 32 ^ e->root) * 0x9e3779b97f4a7c15ULL;
	sum = (sum ^ sum >> 32 ^ e->tgid ^ (__u64)e->uid << 32) * 0x9e3779b97f4a7c15ULL;
	sum = (sum ^ sum >> 32 ^ e->mntns ^ (__u64)e->code << 32) * 0x9e3779b97f4a7c15ULL;
	sum = (sum ^ sum >> 32 ^ e->dense ^ (__u64)(e->generation ^ e->epoch) << 32) * 0x9e3779b97f4a7c15ULL;
	return sum ^ sum >> 32;
}

/* A known open: counted, and nothing else to do. */
static __always_inline bool front_hit(struct file_facts *f, __u32 op)
{
	struct cpu_state *cpu;
	struct front w, *e;
	__u32 dense_nr;
	__u64 *n;

	if (streaming || !front_key(&w, f, op))
		return false;
	e = front_of(&w);
	if (!e || e->epoch != epoch || e->ino != w.ino || e->ctime != w.ctime || e->device != w.device || e->start != w.start ||
	    e->execs != w.execs || e->tgid != w.tgid || e->uid != w.uid || e->mntns != w.mntns || e->code != w.code)
		return false;
	if (e->generation != generation_of(e->root) || e->sum != front_sum(e))
		return false;
	dense_nr = e->dense;
	if (dense_nr >= DENSE_MAX)
		return false;
	n = bpf_map_lookup_elem(&dense, &dense_nr);
	if (!n)
		return false;
	__sync_fetch_and_add(n, 1);
	cpu = cpu_state();
	if (cpu)
		cpu->l1_hits++;
	return true;
}

/* After a plain hit on the first level. */
static __always_inline void front_put(struct file_facts *f, __u32 op, struct l1_value *v, __u64 root)
{
	struct front w, *e;

	if (v->age < FRONT_AGE || v->epoch != epoch || !v->dense || streaming || !front_key(&w, f, op))
		return;
	e = front_of(&w);
	if (!e)
		return;
	w.root = root;
	w.generation = v->generation;
	w.epoch = v->epoch;
	w.dense = v->dense;
	w.pad = 0;
	w.sum = front_sum(&w);
	*e = w;
}

#endif
