/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Enforcement: what a container's set does not let through is prevented. This file has the sets and
 * the verdict on a program at its exec (every kernel); refuse.h has the hooks that refuse an act.
 *
 * Fails open: without an entry for the container, after enforce_until (which the agent moves on a few
 * times a second, and sets to 0 to switch everything off), and when the record of a stopped program
 * finds no room in a ring, so that nobody is stopped without somebody knowing.
 */
#ifndef PLIMSOLL_ENFORCE_H
#define PLIMSOLL_ENFORCE_H

#include "block.h"

enum enforce_flags {
	ENFORCE_PROGRAM = 1,
	ENFORCE_SCRIPT = 2,
	ENFORCE_LIBRARY = 4,
	ENFORCE_PEER = 8,
	ENFORCE_KILL = 16, /* a program outside the set is killed at exec, else stopped */
};

enum { SIG_KILL = 9, SIG_CONT = 18, SIG_STOP = 19 };

/* the numbers of model::Enforced */
enum enforced { ENFORCED_NOT = 0, ENFORCED_DENIED = 1, ENFORCED_KILLED = 2, ENFORCED_HELD = 3 };

/* what an entry of a set is about; its value */
enum allowed_kind { ALLOWED_PROGRAM = 1, ALLOWED_LIBRARY = 2, ALLOWED_IP = 3, ALLOWED_NETWORK = 4, ALLOWED_LOOPBACK = 5, ALLOWED_PORT = 6 };
enum allowed_value { ALLOWED_YES = 1, ALLOWED_ASK = 2 };

/* 0: the programs that prevent are not wanted; the verifier leaves their calls out */
const volatile __u32 enforcement = 0;

struct enforcing {
	__u32 set;
	__u32 flags;
};
/* held containers by root cgroup */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct enforcing);
} enforced_containers SEC(".maps");

/* what sets let through: sip(object, kind and origin or transport, port, set) -> allowed_value */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u64);
	__type(value, __u32);
} allowed SEC(".maps");

/* runs of ALLOWED_ASK programs that have been decided about, by token */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u32);
} allowed_runs SEC(".maps");

/* the moment (boot clock) from which on nothing is prevented any more */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u64);
} enforce_until SEC(".maps");

/* How a container is held now; NULL: it is not. */
static __always_inline struct enforcing *enforcing_of(__u64 root)
{
	struct enforcing *e = bpf_map_lookup_elem(&enforced_containers, &root);
	__u32 zero = 0;
	__u64 *until;

	if (!e)
		return NULL;
	until = bpf_map_lookup_elem(&enforce_until, &zero);
	return until && bpf_ktime_get_boot_ns() < *until ? e : NULL;
}

static __always_inline __u32 allowed_value(__u64 object, __u32 kind, __u32 detail, __u64 about, __u32 set)
{
	__u64 key = sip4(object, (__u64)kind << 32 | detail, about, set);
	__u32 *value = bpf_map_lookup_elem(&allowed, &key);

	return value ? *value : 0;
}

/*
 * The verdict on a program whose exec is in the slot: path hash in next->program, origin in the
 * record, the working directory as the path that was built last. A run that has to be asked about is told
 * by its token: program, directory and all arguments; longer ones are asked about each time.
 */
static __always_inline __u32 judge_exec(struct scratch *s, struct process *next, bool deleted, __u64 args, __u64 args_len)
{
	struct enforcing *e = enforcing_of(next->cgroup);
	__u64 token, len = args_len;
	__u32 value;

	if (!e || !(e->flags & (ENFORCE_PROGRAM | ENFORCE_SCRIPT)))
		return ENFORCED_NOT;
	value = deleted ? 0 : allowed_value(next->program, ALLOWED_PROGRAM, s->e.origin, 0, e->set);
	if (!value) {
		if (!(e->flags & ENFORCE_PROGRAM))
			return ENFORCED_NOT;
		return e->flags & ENFORCE_KILL ? ENFORCED_KILLED : ENFORCED_HELD;
	}
	if (value != ALLOWED_ASK || !(e->flags & ENFORCE_SCRIPT))
		return ENFORCED_NOT;
	if (len > 255)
		return ENFORCED_HELD;
	__builtin_memset(s->word, 0, 264);
	MASK(len, 255);
	if (bpf_probe_read_user(s->word, len, (void *)args))
		return ENFORCED_HELD;
	hash_word(SLOT_EXEC, len);
	hash_path(SLOT_EXEC);
	token = sip4(s->hash, s->path_hash, next->program, (__u64)e->set << 8 | s->e.origin);
	if (bpf_map_lookup_elem(&allowed_runs, &token))
		return ENFORCED_NOT;
	s->e.dict.actor = token;
	return ENFORCED_HELD;
}

/*
 * Sends the record of an exec and carries its verdict out, before the task returns to its new
 * program. Signals of the kernel reach the first process of a pid namespace too. The stop is pending
 * before the record is out, so that an agent's "continue" always comes behind it; without a record it
 * is taken back, because nobody would ever decide. What is blocked (block.h) is killed with or without
 * a record: a person or a policy has said so of this very program.
 */
static __always_inline void deliver_exec(struct scratch *s, int blocked)
{
	__u32 verdict = enforcement ? s->e.enforced : ENFORCED_NOT;

	if (blocked) {
		s->e.enforced = ENFORCED_KILLED;
		if (bpf_send_signal(SIG_KILL))
			s->e.enforced = ENFORCED_NOT;
		submit(SLOT_EXEC, 1);
		return;
	}
	if (verdict == ENFORCED_HELD && bpf_send_signal(SIG_STOP))
		s->e.enforced = ENFORCED_NOT;
	if (submit(SLOT_EXEC, 1)) {
		if (verdict == ENFORCED_HELD)
			bpf_send_signal(SIG_CONT);
		return;
	}
	if (verdict == ENFORCED_KILLED)
		bpf_send_signal(SIG_KILL);
}

#endif
