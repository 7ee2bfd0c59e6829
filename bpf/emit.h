/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* From a filled scratch slot to a record in a ring, with every loss counted. */
#ifndef PLIMSOLL_EMIT_H
#define PLIMSOLL_EMIT_H

#include "path.h"

/* Zeroes the header and fills in who acted, by plain loads or by calls; p is the acting process. */
static __always_inline void begin_by(struct scratch *s, __u16 kind, struct process *p, bool typed)
{
	__u64 ids = bpf_get_current_pid_tgid();

	__builtin_memset(&s->e, 0, sizeof(s->e));
	s->used = 0;
	s->e.kind = kind;
	s->e.boot_ns = bpf_ktime_get_boot_ns();
	if (epoch != (__u32)(s->e.boot_ns >> EPOCH_SHIFT))
		epoch = s->e.boot_ns >> EPOCH_SHIFT;
	s->e.cpu = bpf_get_smp_processor_id();
	s->e.tgid = ids >> 32;
	s->e.tid = (__u32)ids;
	if (typed) {
		struct task_struct *task = bpf_get_current_task_btf();

		s->e.ppid = task->real_parent->tgid;
		s->e.gid = task->cred->gid.val;
	} else {
		struct task_struct *task = current_task();

		s->e.ppid = BPF_CORE_READ(task, real_parent, tgid);
		s->e.gid = BPF_CORE_READ(task, cred, gid.val);
	}
	bpf_get_current_comm(s->e.comm, sizeof(s->e.comm));
	if (s->compat)
		s->e.flags |= WIRE_COMPAT;
	if (p) {
		s->e.cgroup = p->cgroup;
		s->e.actor = p->actor;
		s->e.start_ns = p->start_ns;
		s->e.uid = p->uid;
		s->e.entry = p->entry;
	}
}

static __always_inline void begin(struct scratch *s, __u16 kind, struct process *p)
{
	begin_by(s, kind, p, typed_task());
}

/* In programs on sockets, which some kernels do not give the type of the task. */
static __always_inline void begin_untyped(struct scratch *s, __u16 kind, struct process *p)
{
	begin_by(s, kind, p, false);
}

static __always_inline void put_kernel(struct scratch *s, int i, const void *from, __u64 len)
{
	__u64 at = s->used;

	if (len > PATH_MAX - 1) {
		len = PATH_MAX - 1;
		s->e.flags |= WIRE_CUT;
	}
	if (at > WIRE_DATA_MAX - PATH_MAX) {
		s->e.flags |= WIRE_CUT;
		return;
	}
	MASK(len, PATH_MAX - 1);
	MASK(at, WIRE_DATA_MAX - 1);
	if (bpf_probe_read_kernel(&s->data[at], len, from))
		return;
	s->e.slen[i] = len;
	s->used = at + len;
}

/* The kernel's copy of a name that a program gave. */
static __always_inline void put_name(struct scratch *s, int i, struct filename *from)
{
	const char *name = BPF_CORE_READ(from, name);
	__u64 at = s->used;
	long n;

	if (at > WIRE_DATA_MAX - PATH_MAX)
		return;
	MASK(at, WIRE_DATA_MAX - 1);
	n = bpf_probe_read_kernel_str(&s->data[at], PATH_MAX, name);
	if (n > 1) {
		s->e.slen[i] = n - 1;
		s->used = at + n - 1;
	}
}

static __always_inline void put_path(struct scratch *s, int i)
{
	if (s->path_flags & PATH_CUT)
		s->e.flags |= WIRE_CUT;
	put_kernel(s, i, &s->path[s->path_at & (2 * PATH_MAX - 1)], s->path_len);
}

/* A string of the program, up to its terminator. */
static __always_inline void put_user_str(struct scratch *s, int i, __u64 from)
{
	__u32 at = s->used;
	long n;

	if (at > WIRE_DATA_MAX - PATH_MAX) {
		s->e.flags |= WIRE_CUT;
		return;
	}
	n = bpf_probe_read_user_str(&s->data[at & (WIRE_DATA_MAX - 1)], PATH_MAX, (void *)from);
	if (n <= 0)
		return;
	if (n == PATH_MAX)
		s->e.flags |= WIRE_CUT;
	s->e.slen[i] = n - 1;
	s->used = at + n - 1;
}

static __always_inline void put_user(struct scratch *s, int i, __u64 from, __u64 len)
{
	__u64 at = s->used;

	if (len > PATH_MAX - 1) {
		len = PATH_MAX - 1;
		s->e.flags |= WIRE_CUT;
	}
	if (at > WIRE_DATA_MAX - PATH_MAX) {
		s->e.flags |= WIRE_CUT;
		return;
	}
	MASK(len, PATH_MAX - 1);
	MASK(at, WIRE_DATA_MAX - 1);
	if (bpf_probe_read_user(&s->data[at], len, (void *)from))
		return;
	s->e.slen[i] = len;
	s->used = at + len;
}

/* A name in a fixed field ends at its first zero byte, unless it starts with one (abstract). */
static __always_inline void trim_zero(struct scratch *s, int i)
{
	__u32 at = s->used - s->e.slen[i], n = s->e.slen[i];

	for (__u32 k = 1; k < 108; k++) {
		if (k >= n)
			break;
		if (!s->data[at & (WIRE_DATA_MAX - 1)])
			break;
		if (!s->data[(at + k) & (WIRE_DATA_MAX - 1)]) {
			s->used = at + k;
			s->e.slen[i] = k;
			break;
		}
	}
}

static __always_inline void lose(struct container *c, __u32 stage)
{
	struct cpu_state *cpu = cpu_state();

	if (stage >= STAGES)
		return;
	if (cpu)
		__sync_fetch_and_add(&cpu->lost[stage], 1);
	if (c)
		__sync_fetch_and_add(&c->lost[stage], 1);
}

/*
 * The last quarter of a ring is for containers that have sent little in this second: one that floods
 * fills three quarters at most, and loses its own events, not its neighbours'.
 */
#define QUIET_EVENTS 256

static __always_inline bool is_crowded(void *ring)
{
	return bpf_ringbuf_query(ring, BPF_RB_AVAIL_DATA) > bpf_ringbuf_query(ring, BPF_RB_RING_SIZE) / 4 * 3;
}

/* A second is about 2^30 ns. */
static __always_inline void begin_second(struct container *c, __u64 now)
{
	__u64 second = now >> 30;

	if (c->quota_epoch == second)
		return;
	c->quota_epoch = second;
	c->quota_used = 0;
	c->bulk_used = 0;
}

/* Whether the container may still use the alert ring in this second. */
static __always_inline bool within_quota(struct container *c, __u64 now)
{
	if (!c)
		return true;
	begin_second(c, now);
	if (c->quota_used >= alert_quota || (c->quota_used >= QUIET_EVENTS && is_crowded(&alert_ring)))
		return false;
	c->quota_used++;
	return true;
}

/* Whether one more of its events would take room that is kept for others. */
static __always_inline bool floods(struct container *c, __u64 now)
{
	if (!c)
		return false;
	begin_second(c, now);
	if (c->bulk_used < QUIET_EVENTS) {
		c->bulk_used++;
		return false;
	}
	return is_crowded(&bulk_ring);
}

/* What alert_class is for the beginning and end of a container: no quota, as it is no act of its. */
#define OF_THE_NODE 2

/*
 * Sends the record; alert-class ones through their own ring, and through the bulk ring when the
 * quota is used up or that ring is full. A global function: checked once. Returns 0 when sent.
 */
__noinline int submit(__u32 slot, int alert_class)
{
	struct scratch *s = scratch_of(slot);
	struct cpu_state *cpu = cpu_state();
	struct container *c;
	__u64 root, wake;
	__u32 used, len;

	if (!s || !cpu)
		return -1;
	if (s->owner && s->owner != bpf_get_current_pid_tgid()) {
		/* another task came in between: neither record can be trusted */
		s->owner = ~0ULL;
		root = s->actor.cgroup;
		lose(bpf_map_lookup_elem(&containers, &root), STAGE_SCRATCH);
		return -1;
	}
	/* waking costs an interrupt, some ten times what the rest of this function does */
	wake = s->e.boot_ns < reader_until_ns ? BPF_RB_NO_WAKEUP : 0;
	root = s->e.cgroup;
	c = bpf_map_lookup_elem(&containers, &root);
	used = s->used;
	if (used > WIRE_DATA_MAX)
		used = WIRE_DATA_MAX;
	len = sizeof(s->e) + used;
	if (len > sizeof(s->e) + WIRE_DATA_MAX)
		return -1;
	s->e.len = len;
	if (alert_class && (alert_class == OF_THE_NODE || within_quota(c, s->e.boot_ns))) {
		s->e.ring = 1;
		s->e.seq = ++cpu->seq[1];
		if (!bpf_ringbuf_output(&alert_ring, s, len, wake)) {
			cpu->emitted[1]++;
			if (c)
				__sync_fetch_and_add(&c->emitted[1], 1);
			return 0;
		}
		/* the number is given back: nothing was lost if the bulk ring takes it */
		cpu->seq[1]--;
	}
	s->e.ring = 0;
	s->e.seq = ++cpu->seq[0];
	if (!floods(c, s->e.boot_ns) && !bpf_ringbuf_output(&bulk_ring, s, len, wake)) {
		cpu->emitted[0]++;
		if (c)
			__sync_fetch_and_add(&c->emitted[0], 1);
		return 0;
	}
	cpu->seq[0]--;
	lose(alert_class == OF_THE_NODE ? NULL : c, alert_class ? STAGE_ALERT_RING : STAGE_BULK_RING);
	return -1;
}

#endif
