/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* State shared by all programs. Every map has a bound; user space sizes the first three. */
#ifndef PLIMSOLL_MAPS_H
#define PLIMSOLL_MAPS_H

#include "kernel.h"
#include "wire.h"

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 16 << 20);
} bulk_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 4 << 20);
} alert_ring SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 131072);
	__type(key, struct l1_key);
	__type(value, struct l1_value);
} l1 SEC(".maps");

/* what a set knows: sip(stable, object, code, set) -> counter index */
struct l2_value {
	__u32 set;
	__u32 index;
};
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 20);
	__type(key, __u64);
	__type(value, struct l2_value);
} l2 SEC(".maps");

/* watched paths: sip(path hash, match) -> mask of operations */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 4096);
	__type(key, __u64);
	__type(value, __u32);
} watched_paths SEC(".maps");

/* cgroup id -> root cgroup of the container it belongs to */
struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 65536);
	__type(key, __u64);
	__type(value, __u64);
} cgroups SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, struct container);
} containers SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 262144);
	__type(key, __u32);
	__type(value, struct process);
} processes SEC(".maps");

/*
 * mount namespace of a container -> its root cgroup: a process of the host that enters namespaces only
 * (nsenter) is in no cgroup of the container. Numbers of namespaces are used again: an entry counts
 * only while the first program of the container, which holds the namespace, is there.
 */
struct mntns_root {
	__u64 root;
	__u32 first; /* tgid */
	__u32 pad;
};
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u32);
	__type(value, struct mntns_root);
} mntns_roots SEC(".maps");

/*
 * start time of an interpreting process -> hash of its script's path, worked out by user space
 * from the arguments; until it is there, the second level does not answer for that process
 */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 16384);
	__type(key, __u64);
	__type(value, __u64);
} scripts SEC(".maps");

/* counters by dense number; never evicted; read by user space through mmap */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(map_flags, BPF_F_MMAPABLE);
	__uint(max_entries, DENSE_MAX);
	__type(key, __u32);
	__type(value, __u64);
} dense SEC(".maps");

/*
 * Generation of what is remembered about a container, at its root cgroup modulo EPOCHS: an array,
 * so that a hit needs no lookup of the container. Two that share a place only forget more often.
 */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, EPOCHS);
	__type(key, __u32);
	__type(value, __u32);
} epochs SEC(".maps");

/* not 0: rules ask for environments, and an exec carries its own */
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, __u32);
} env_asked SEC(".maps");

/* sequence numbers and losses of one CPU */
struct cpu_state {
	__u64 seq[2];
	__u64 emitted[2];
	__u64 lost[STAGES];
	__u64 l1_hits;
	__u64 l2_hits;
	__u64 dense_used;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cpu_state);
} cpu_states SEC(".maps");

/*
 * Scratch space. A program never runs on top of itself on one CPU (the kernel counts a recursion
 * miss instead), but on top of another one; so each class of programs has its own slot. LSM and
 * fentry programs can be preempted by another task's: they share four slots by thread id, and
 * each use carries its owner; submit() gives up, and counts the loss, when that has changed.
 */
enum scratch_slot { SLOT_SYS, SLOT_EXEC, SLOT_FORK, SLOT_EXIT, SLOT_CGROUP, SLOT_SOCK, SLOT_SEND, SLOT_URING, SLOT_LSM, SLOTS = SLOT_LSM + 4 };

#define PATH_MAX 4096
#define LEVELS 64
struct scratch {
	struct wire_event e;
	__u8 data[WIRE_DATA_MAX + PATH_MAX]; /* the second part only keeps the verifier content */
	__u32 used;
	__u32 slot; /* which one this is */
	__u64 owner; /* bpf_get_current_pid_tgid() of who uses it, where it can be shared */
	__u8 path[2 * PATH_MAX]; /* built from its middle downwards */
	__u32 path_at; /* where the path starts in path[] */
	__u32 path_len;
	__u32 levels;
	__u32 path_flags;
	__u32 mounts;
	__u32 nested; /* of the container whose paths are walked: see remember_root() */
	__u64 root_dentry;
	__u32 root_mnt;
	__u32 pad2;
	__u64 level[LEVELS]; /* hash of each component, leaf first */
	__u64 path_hash; /* chain from root to leaf */
	__u64 hash; /* result of hash_word() */
	__u32 known, watched; /* results of decide_level() */
	__u64 word[40]; /* one name, zero padded */
	__u64 args[8];
	__s64 ret;
	__u32 nr;
	__u32 compat;
	struct l1_key key;
	__u32 verdict; /* of decide_path() */
	__u32 index;
	struct process actor;
	struct exec_facts facts;
};
struct {
	__uint(type, BPF_MAP_TYPE_PERCPU_ARRAY);
	__uint(max_entries, SLOTS);
	__type(key, __u32);
	__type(value, struct scratch);
} scratches SEC(".maps");

/* settings that stay */
const volatile __u32 cgroup_v1_subsys = 0xffffffff; /* index in css_set, or all ones: v2 */
const volatile __u32 hierarchy_id = 0;
/*
 * Hybrid machines: a v1 hierarchy beside v2, for runtimes that fill v1 only (0: none). Kernfs ids are
 * unique in one hierarchy only; those of this one carry IN_SECOND.
 */
const volatile __u32 second_hierarchy_id = 0;
const volatile __u32 second_v1_subsys = 0;
#define IN_SECOND (1ULL << 63)
const volatile __u32 host_mntns = 0;
const volatile __u32 alert_quota = 4096;
const volatile __u32 cpus = 1;

/* settings that change while running */
__u32 generation = 1;
__s64 boot_to_wall_ns = 0;
__u64 dns_until_ns = 0;
/* until then the reader looks by itself every millisecond: no need to wake it (boot clock) */
__u64 reader_until_ns = 0;
/* of the recorder: boot clock in units of 2^30 ns */
__u32 epoch = 0;
/* calls that name files by path: which arguments (0xff: none) */
struct path_call {
	__u8 op, dfd, path, dfd2, path2, mode;
	__u8 pad[2];
};
struct path_call path_calls[SYSCALLS];
__u8 call_numbers[SYSCALLS]; /* for handlers that serve several calls */
__u16 native_numbers[SYSCALLS]; /* 32-bit number -> native number, 0xffff: none */
struct gate gates[SYSCALLS];
__u32 used_budget[SYSCALLS];
/* handlers of the DNS calls, opened while somebody resolves: number -> handler */
__u8 dns_handlers[SYSCALLS];
__u32 dns_numbers[16];

/*
 * Whether anybody reads what the programs write: pinned ones outlive their agent, which moves `until` on
 * each second (monotonic clock: the time that a machine sleeps is not counted; 0: no limit). Whoever
 * starts a process past that moment ends the programs' work: all of them return at once, until another
 * agent loads new ones. A section of its own, the same in every build: so the next agent can read it.
 */
struct presence {
	__u64 until;
	__u64 idle_since; /* boot clock; 0: at work */
};
struct presence presence SEC(".data.presence") = {};

/* One load: for the ways that are taken often. */
static __always_inline bool is_idle(void)
{
	return presence.idle_since;
}

/* For the ways that cost far more than a look at the clock. */
static __always_inline bool nobody_came(void)
{
	__u64 until = presence.until;

	if (is_idle())
		return true;
	if (!until || bpf_ktime_get_ns() < until)
		return false;
	presence.idle_since = bpf_ktime_get_boot_ns();
	return true;
}

static __always_inline struct scratch *scratch_of(__u32 slot)
{
	return bpf_map_lookup_elem(&scratches, &slot);
}

static __always_inline struct cpu_state *cpu_state(void)
{
	__u32 zero = 0;
	return bpf_map_lookup_elem(&cpu_states, &zero);
}

#endif
