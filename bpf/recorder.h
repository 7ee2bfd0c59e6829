/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The recorder: what containers did in the last minutes, known behaviour included, read when an
 * alert is raised.
 *
 * A first-level entry is recorded when it is used for the first time in an epoch (2^30 ns), with
 * its running count; the difference to its next record is what the epoch counted. The epoch is a
 * variable that the reader (every 50 ms at least) and each emitted event move on, so a hit pays a
 * comparison. Entries fill chunks of one array that user space maps; each
 * container has a ring of chunks. Chunks that nobody owns wait in two queues: one for everybody,
 * and a reserve from which nobody takes more than RECORDER_LEAST.
 */
#ifndef PLIMSOLL_RECORDER_H
#define PLIMSOLL_RECORDER_H

#include "emit.h"

#define WHEN_SHIFT 23 /* unit of recorder_entry.when: 8.4 ms, 417 days to the wrap */
#define RECORDER_LEAST 2 /* chunks that any container may have while the reserve lasts */

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, RECORDER_CHUNK);
	__type(key, __u32);
	__type(value, struct recorder_entry);
} recorder_entries SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct recorder);
} recorders SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_QUEUE);
	__uint(max_entries, 1);
	__type(value, __u32);
} spare_chunks SEC(".maps"), reserved_chunks SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 2 << 20);
} stream_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64);
	__type(key, __u64);
	__type(value, struct stream);
} streams SEC(".maps");

/* chunks that one container may own; user space follows the number of containers */
__u32 recorder_quota = 0;
/* how many containers stream in full */
__u32 streaming = 0;
/* a fresh struct recorder, too large for the stack */
const volatile __u64 no_recorder[sizeof(struct recorder) / 8] = {};

/* A chunk + 1 for a recorder, or 0: a spare one, one of the reserve, its own oldest. */
static __noinline __u32 take_chunk(struct recorder *r, __u32 lap)
{
	__u32 chunk = 0, old;

	if (r->owned < recorder_quota && r->owned < RECORDER_SLOTS) {
		if (!bpf_map_pop_elem(&spare_chunks, &chunk) ||
		    (r->owned < RECORDER_LEAST && !bpf_map_pop_elem(&reserved_chunks, &chunk))) {
			r->owned++;
			return chunk + 1;
		}
	}
	old = (lap - r->owned) & (RECORDER_SLOTS - 1);
	chunk = r->slots[old].chunk;
	r->slots[old].chunk = 0;
	return r->owned ? chunk : 0;
}

/* More than its quota: the oldest chunk goes back. */
static __always_inline void give_chunk(struct recorder *r, __u32 lap)
{
	__u32 old = (lap + 1 - r->owned) & (RECORDER_SLOTS - 1), chunk;

	if (r->owned <= recorder_quota || r->owned <= RECORDER_LEAST)
		return;
	chunk = r->slots[old].chunk;
	r->slots[old].chunk = 0;
	r->owned--;
	if (!chunk)
		return;
	chunk--;
	if (bpf_map_push_elem(&reserved_chunks, &chunk, 0))
		bpf_map_push_elem(&spare_chunks, &chunk, 0);
}

static __noinline void prepare_chunk(struct recorder *r, __u32 lap)
{
	__u32 chunk = take_chunk(r, lap), at = lap & (RECORDER_SLOTS - 1);

	r->slots[at].lap = lap;
	r->slots[at].chunk = chunk;
	give_chunk(r, lap);
}

/* At the first record of a container; a cgroup that is not watched has none. */
static __noinline struct recorder *new_recorder(__u64 root)
{
	struct recorder *r;

	if (!recorder_quota || !bpf_map_lookup_elem(&containers, &root))
		return NULL;
	if (bpf_map_update_elem(&recorders, &root, (const void *)no_recorder, BPF_NOEXIST))
		return bpf_map_lookup_elem(&recorders, &root);
	r = bpf_map_lookup_elem(&recorders, &root);
	if (r)
		prepare_chunk(r, 0);
	return r;
}

static __always_inline void fill_entry(struct recorder_entry *e, struct l1_key *k, __u32 dense, __u32 count)
{
	e->when = bpf_ktime_get_boot_ns() >> WHEN_SHIFT;
	e->dense = dense;
	e->count = count;
	e->tgid = bpf_get_current_pid_tgid() >> 32;
	e->code = k->code;
	e->key = dense ? 0 : sip4(k->actor ^ k->object[0], k->object[1], k->object[2] ^ k->object[3], (__u64)k->code << 32 | k->flags);
}

/* Records that a first-level entry was used in a new epoch. */
static __noinline void record_use(struct l1_key *k, __u32 dense, __u32 count, __u64 root)
{
	struct recorder *r = bpf_map_lookup_elem(&recorders, &root);
	struct recorder_slot *slot;
	struct recorder_entry *e;
	__u32 index, at, chunk;
	__u64 pos;

	if (!r)
		r = new_recorder(root);
	if (!r)
		return;
	bpf_spin_lock(&r->lock);
	pos = r->pos++;
	bpf_spin_unlock(&r->lock);
	at = pos & (RECORDER_CHUNK - 1);
	/* well before it is needed, by whoever passes here */
	if (at == RECORDER_CHUNK * 3 / 4)
		prepare_chunk(r, pos / RECORDER_CHUNK + 1);
	slot = &r->slots[(pos / RECORDER_CHUNK) & (RECORDER_SLOTS - 1)];
	chunk = slot->chunk;
	if (!chunk || slot->lap != (__u32)(pos / RECORDER_CHUNK)) {
		__sync_fetch_and_add(&r->dropped, 1);
		return;
	}
	index = (chunk - 1) * RECORDER_CHUNK + at;
	e = bpf_map_lookup_elem(&recorder_entries, &index);
	if (!e)
		return;
	e->pos = ~(__u32)pos;
	barrier();
	fill_entry(e, k, dense, count);
	barrier();
	e->pos = (__u32)pos;
}

/* One use, in full, while the container streams; user space ends that in time. */
static __noinline void stream_use(struct l1_key *k, __u32 dense, __u64 root)
{
	struct stream *st = bpf_map_lookup_elem(&streams, &root);
	struct recorder_entry *e;

	if (!st)
		return;
	e = bpf_ringbuf_reserve(&stream_ring, sizeof(*e), 0);
	if (!e) {
		__sync_fetch_and_add(&st->lost, 1);
		return;
	}
	e->pos = st->id;
	fill_entry(e, k, dense, 1);
	bpf_ringbuf_submit(e, BPF_RB_NO_WAKEUP);
}

#endif
