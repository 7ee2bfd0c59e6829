/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Programs that an answer to an alert has forbidden, in one container or in all: their exec ends in a
 * kill before the first instruction, on every kernel. Unlike what enforce.h judges, this names what
 * must not run, needs no baseline, and does not lapse with the agent's word: each entry has its own end.
 */
#ifndef PLIMSOLL_BLOCK_H
#define PLIMSOLL_BLOCK_H

#include "dict.h"

/* by path in the container's eyes; by file, whatever it is called now */
enum block_kind { BLOCK_PATH = 1, BLOCK_FILE = 2 };

struct block {
	__u64 until; /* boot clock */
	__u64 stopped; /* how many were killed */
};
/* sip(path hash or inode, kind and device, root cgroup or 0: every container, 0) */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, struct block);
} blocked SEC(".maps");

/* how many entries there are: with none, an exec pays one load */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} blocks SEC(".maps");

static __always_inline bool blocks_this(__u64 what, __u32 kind, __u32 detail, __u64 root)
{
	__u64 key = sip4(what, (__u64)kind << 32 | detail, root, 0);
	struct block *b = bpf_map_lookup_elem(&blocked, &key);

	if (!b || bpf_ktime_get_boot_ns() >= b->until)
		return false;
	__sync_fetch_and_add(&b->stopped, 1);
	return true;
}

/*
 * A function of its own, with numbers for arguments: the verifier goes through it once, not once for each
 * of the many states in which the exec program comes here.
 */
__noinline int is_blocked(__u64 program, __u64 ino, __u32 dev, __u64 root)
{
	__u32 zero = 0, *n = bpf_map_lookup_elem(&blocks, &zero);

	if (!n || !*n)
		return 0;
	return blocks_this(program, BLOCK_PATH, 0, root) || blocks_this(program, BLOCK_PATH, 0, 0) ||
	       blocks_this(ino, BLOCK_FILE, dev, root) || blocks_this(ino, BLOCK_FILE, dev, 0);
}

#endif
