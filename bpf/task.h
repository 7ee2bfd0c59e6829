/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Tasks: which container, which mount namespace, whose credentials. */
#ifndef PLIMSOLL_TASK_H
#define PLIMSOLL_TASK_H

#include "maps.h"

static __always_inline __u64 v1_cgroup_id_of(struct task_struct *task, __u32 subsys)
{
	struct css_set *set = BPF_CORE_READ(task, cgroups);
	struct cgroup_subsys_state *css = NULL;

	bpf_probe_read_kernel(&css, sizeof(css), &set->subsys[subsys & 15]);
	return BPF_CORE_READ(css, cgroup, kn, id);
}

static __always_inline __u64 cgroup_id_of(struct task_struct *task)
{
	if (cgroup_v1_subsys != 0xffffffff)
		return v1_cgroup_id_of(task, cgroup_v1_subsys);
	return BPF_CORE_READ(task, cgroups, dfl_cgrp, kn, id);
}

/* Kernfs id of a cgroup, marked when it is of the second hierarchy; 0: of neither. */
static __always_inline __u64 id_of_cgroup(struct cgroup *cgrp)
{
	__u32 hierarchy = BPF_CORE_READ(cgrp, root, hierarchy_id);
	__u64 id = BPF_CORE_READ(cgrp, kn, id);

	if (hierarchy == hierarchy_id)
		return id;
	if (second_hierarchy_id && hierarchy == second_hierarchy_id)
		return id | IN_SECOND;
	return 0;
}

static __always_inline __u32 mntns_of(struct task_struct *task)
{
	return BPF_CORE_READ(task, nsproxy, mnt_ns, ns.inum);
}

/*
 * Whether the current task comes with its type (kernel commit 3ca1032ab7ab, 5.11): then its fields
 * are plain loads instead of calls. Known when loading; the other branch is never verified.
 */
static __always_inline bool typed_task(void)
{
	return bpf_core_enum_value_exists(enum bpf_func_id, BPF_FUNC_get_current_task_btf);
}

static __always_inline __u32 own_mntns(void)
{
	if (typed_task())
		return bpf_get_current_task_btf()->nsproxy->mnt_ns->ns.inum;
	return mntns_of((struct task_struct *)bpf_get_current_task());
}

/* In the mount namespace of the host: of no container, or of one that shares it. */
static __always_inline bool in_host_mntns(void)
{
	return host_mntns && own_mntns() == host_mntns;
}

static __always_inline __u64 caps_of(const struct cred *cred)
{
	/* kernel commit f122a08b197d (6.3) made it one word; the bytes are the same */
	__u64 caps = 0;
	bpf_probe_read_kernel(&caps, sizeof(caps), &cred->cap_effective);
	return caps;
}

/* A process by the number that the pid namespace of another one has for it; 0: none. */
static __always_inline __u32 number_in_namespace_of(struct pid *own, struct pid *of)
{
	__u32 level = BPF_CORE_READ(own, level) & 31;
	const void *at = (void *)(__u64)(bpf_core_field_offset(struct pid, numbers) + level * bpf_core_type_size(struct upid));
	struct upid *mine = (void *)own + (__u64)at, *theirs = (void *)of + (__u64)at;

	if (!of)
		return 0;
	if (of != own && (BPF_CORE_READ(of, level) < level || BPF_CORE_READ(theirs, ns) != BPF_CORE_READ(mine, ns)))
		return 0;
	return BPF_CORE_READ(theirs, nr);
}

static __always_inline struct task_struct *current_task(void)
{
	return (struct task_struct *)bpf_get_current_task();
}

/* comm of the OCI runtimes that put processes into containers */
static __always_inline bool is_runtime(const char *comm)
{
	return (comm[0] == 'r' && comm[1] == 'u' && comm[2] == 'n' && comm[3] == 'c') ||
	       (comm[0] == 'c' && comm[1] == 'r' && comm[2] == 'u' && comm[3] == 'n') ||
	       (comm[0] == 'y' && comm[1] == 'o' && comm[2] == 'u' && comm[3] == 'k') ||
	       (comm[0] == '3' && comm[1] == 0) || (comm[0] == '4' && comm[1] == 0) ||
	       (comm[0] == '5' && comm[1] == 0) || (comm[0] == '6' && comm[1] == 0) ||
	       (comm[0] == '7' && comm[1] == 0) || (comm[0] == '8' && comm[1] == 0) ||
	       (comm[0] == 'e' && comm[1] == 'x' && comm[2] == 'e' && comm[3] == 0) ||
	       (comm[0] == 's' && comm[1] == 'y' && comm[2] == 's' && comm[3] == 't' && comm[4] == 'e' && comm[5] == 'm' && comm[6] == 'd');
}

#endif
