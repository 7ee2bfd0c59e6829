/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The dictionary: known? count it : emit it once.
 *
 * Two phases, so that a lost event is never remembered as seen: the CPU whose insert-if-absent
 * succeeds is elected (PENDING) and emits; the entry becomes EMITTED after the record is in the
 * ring, and is deleted when it could not be.
 */
#ifndef PLIMSOLL_DICT_H
#define PLIMSOLL_DICT_H

#include "recorder.h"

enum consult { HIT = 0, NEW = 1, WATCHED = 2, GONE = 3 };
enum verdict { NOVEL = 0, KNOWN = 1, WATCH = 2 };

static __always_inline __u64 *counter_of(struct l1_value *v)
{
	__u32 index = v->dense;
	__u64 *n = NULL;

	if (index && index < DENSE_MAX)
		n = bpf_map_lookup_elem(&dense, &index);
	return n ? n : &v->count;
}

static __always_inline void count(struct l1_value *v)
{
	__sync_fetch_and_add(counter_of(v), 1);
}

/* A use in a new epoch, or of a container that streams. */
static __noinline void note_use(struct l1_key *k, struct l1_value *v, __u64 root)
{
	__u32 now = epoch;

	/* two CPUs may both come here: two entries with their running counts do no harm */
	if (v->epoch != now) {
		v->epoch = now;
		v->age++;
		record_use(k, v->dense, *(volatile __u64 *)counter_of(v), root);
	}
	if (streaming)
		stream_use(k, v->dense, root);
}

static __always_inline void start_key(struct l1_key *k, struct process *p, __u32 kind, __u32 op)
{
	__builtin_memset(k, 0, sizeof(*k));
	k->actor = p->actor;
	k->code = kind << 16 | op << 8;
}

/* What an entry must carry to count: the node's generation and the container's. */
static __always_inline __u32 generation_of(__u64 root)
{
	__u32 at = root & (EPOCHS - 1), *own = bpf_map_lookup_elem(&epochs, &at);

	return generation + (own ? *own : 0);
}

/* Whatever is remembered about a container is void from now on. */
static __always_inline void forget_all(__u64 root)
{
	__u32 at = root & (EPOCHS - 1), *own = bpf_map_lookup_elem(&epochs, &at);

	if (own)
		__sync_fetch_and_add(own, 1);
}

/* First level, and its entry. NEW elects this CPU to go on to decide and settle. */
static __always_inline int consult_entry(struct l1_key *k, __u64 root, struct l1_value **entry)
{
	__u32 gen = generation_of(root);
	struct l1_value *v = bpf_map_lookup_elem(&l1, k);
	struct l1_value fresh = { .state = L1_PENDING, .generation = gen };
	struct cpu_state *cpu;
	long err;

	if (v && v->generation == gen) {
		count(v);
		if (v->epoch != epoch || streaming)
			note_use(k, v, root);
		if (v->state == L1_WATCH)
			return WATCHED;
		cpu = cpu_state();
		if (cpu)
			cpu->l1_hits++;
		*entry = v;
		return HIT;
	}
	if (v)
		bpf_map_delete_elem(&l1, k);
	err = bpf_map_update_elem(&l1, k, &fresh, BPF_NOEXIST);
	if (err == -EEXIST)
		return HIT; /* another CPU is emitting it */
	return NEW;
}

static __always_inline int consult(struct l1_key *k, __u64 root)
{
	struct l1_value *entry = NULL;

	return consult_entry(k, root, &entry);
}

static __always_inline __u64 l2_key(__u64 stable, __u64 object, __u32 code, __u32 below, __u32 set)
{
	return sip4(stable, object, (__u64)code << 1 | below, set);
}

static __always_inline bool in_set(struct scratch *s, struct container *c, __u64 object, __u32 code, __u32 below)
{
	struct process *p = &s->actor;
	__u64 key, *script = NULL;
	struct l2_value *v;

	if (!c->set)
		return false;
	if (p->flags & PROCESS_INTERPRETED) {
		script = bpf_map_lookup_elem(&scripts, &p->start_ns);
		if (!script)
			return false;
	}
	/* program, script, entry, uid: what the entries of a set are keyed on */
	key = l2_key(sip4(p->program, script ? *script : 0, p->entry, p->uid), object, code, below, c->set);
	v = bpf_map_lookup_elem(&l2, &key);
	if (!v || v->set != c->set)
		return false;
	s->index = v->index;
	return true;
}

/* One level of decide_path(): s->path_hash is the chain down to it. */
__noinline int decide_level(__u32 slot, __u32 below)
{
	struct scratch *s = scratch_of(slot);
	struct container *c;
	__u64 root, key;
	__u32 *mask;

	if (!s)
		return 0;
	below &= 1;
	key = sip2(s->path_hash, below);
	mask = bpf_map_lookup_elem(&watched_paths, &key);
	if (mask && (*mask & (1U << ((s->key.code >> 8) & 31))))
		s->watched = 1;
	if (s->known)
		return 0;
	root = s->actor.cgroup;
	c = bpf_map_lookup_elem(&containers, &root);
	if (c && in_set(s, c, s->path_hash, s->key.code, below))
		s->known = 1;
	return 0;
}

/*
 * Second level for a path that build_path() left in the slot: watched paths first, then the set;
 * directories from the root down, then the path itself. A global function: verified once.
 */
__noinline int decide_path(__u32 slot)
{
	struct scratch *s = scratch_of(slot);
	__u64 h = 0;

	if (!s)
		return 0;
	s->verdict = NOVEL;
	s->known = 0;
	s->watched = 0;
	if (s->path_flags & PATH_CUT)
		return 0;
	for (int i = LEVELS - 1; i >= 0; i--) {
		if (i >= s->levels)
			continue;
		h = sip2(h, s->level[i]);
		s->path_hash = h;
		decide_level(slot, i > 0);
	}
	if (s->watched)
		s->verdict = WATCH;
	else if (s->known && !(s->key.flags & 1))
		s->verdict = KNOWN;
	return 0;
}

static __always_inline __u32 next_dense(void)
{
	struct cpu_state *cpu = cpu_state();
	__u64 n;

	if (!cpu)
		return 0;
	n = cpu->dense_used * cpus + bpf_get_smp_processor_id() + 1;
	if (n >= DENSE_DYNAMIC)
		return 0; /* counted in the entry from here on */
	cpu->dense_used++;
	return n;
}

static __always_inline void record_first(struct scratch *s, struct l1_value *v)
{
	record_use(&s->key, v->dense, *(volatile __u64 *)counter_of(v), s->actor.cgroup);
	if (streaming)
		stream_use(&s->key, v->dense, s->actor.cgroup);
}

/* Second phase: remembers a known behaviour, or emits and remembers a new one. */
__noinline int settle(__u32 slot, int alert_class)
{
	struct scratch *s = scratch_of(slot);
	struct l1_value v = {};
	struct container *c;
	struct cpu_state *cpu = cpu_state();
	__u64 root;

	if (!s || !cpu)
		return 0;
	root = s->actor.cgroup;
	c = bpf_map_lookup_elem(&containers, &root);
	if (!c) {
		bpf_map_delete_elem(&l1, &s->key);
		return 0;
	}
	v.generation = generation_of(root);
	v.epoch = epoch;
	if (s->verdict == KNOWN) {
		v.state = L1_KNOWN;
		if (s->index < c->dense_len)
			v.dense = c->dense_base + s->index;
		count(&v);
		bpf_map_update_elem(&l1, &s->key, &v, BPF_ANY);
		cpu->l2_hits++;
		record_first(s, &v);
		return 0;
	}
	v.state = s->verdict == WATCH ? L1_WATCH : L1_EMITTED;
	v.dense = next_dense();
	s->e.dense = v.dense;
	s->e.dict = s->key;
	count(&v);
	if (submit(slot, alert_class || s->verdict == WATCH)) {
		bpf_map_delete_elem(&l1, &s->key);
		return 0;
	}
	bpf_map_update_elem(&l1, &s->key, &v, BPF_ANY);
	record_first(s, &v);
	return 0;
}

/* A watched behaviour again: emitted every time, within the container's quota. */
static __always_inline void emit_watched(struct scratch *s, __u32 slot)
{
	s->e.flags |= WIRE_REPEAT;
	s->e.dict = s->key;
	submit(slot, 1);
}

static __always_inline struct container *container_of_actor(struct scratch *s)
{
	__u64 root = s->actor.cgroup;
	return bpf_map_lookup_elem(&containers, &root);
}

/* Marks use of another mount namespace than the container's own: never known, never learned. */
static __always_inline __u32 foreign(struct process *p)
{
	return p->mntns && own_mntns() != p->mntns;
}

static __always_inline void make_actor(struct process *p)
{
	p->actor = sip4(sip4(p->program, p->script, p->entry, p->uid), p->cgroup, p->exe_ino ^ (__u64)p->exe_dev << 40, p->exe_ctime);
}

#endif
