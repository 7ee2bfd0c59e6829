/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Paths from kernel objects: walked from the leaf up over mounts to the root that the container was
 * started with, which is nearly always the top of its mount namespace: so neither a chroot inside nor
 * symbolic links nor the memory of the program can fake them. Names that change during the walk give a
 * wrong path, never a wrong memory access.
 */
#ifndef PLIMSOLL_PATH_H
#define PLIMSOLL_PATH_H

#include "siphash.h"
#include "task.h"

/* PATH_INSIDE: the walk came to the root of a nested container */
enum path_flags { PATH_CUT = 1, PATH_DETACHED = 2, PATH_ROOT_MOUNT = 4, PATH_INSIDE = 8 };

static __always_inline struct mount *real_mount(struct vfsmount *mnt)
{
	return (struct mount *)((void *)mnt - bpf_core_field_offset(struct mount, mnt));
}

/* Hash of the first len (at most 255) bytes of s->word. A global function: verified once. */
__noinline int hash_word(__u32 slot, __u32 len)
{
	struct scratch *s = scratch_of(slot);

	if (!s)
		return 0;
	s->hash = sip_bytes(s->word, len & 255, 32);
	return 0;
}

/* One step of a walk from a leaf up: what is read of a name and of the mount that it is on. */
struct step {
	struct dentry *parent, *mnt_root;
	const unsigned char *name;
	__u32 len;
};

/* By plain loads where the kernel lets us name the type of an address (6.2), else by calls. */
static __always_inline void read_step(struct mount *mnt, struct dentry *dentry, struct step *step)
{
	if (bpf_ksym_exists(bpf_rdonly_cast)) {
		struct mount *m = bpf_rdonly_cast(mnt, bpf_core_type_id_kernel(struct mount));
		struct dentry *d = bpf_rdonly_cast(dentry, bpf_core_type_id_kernel(struct dentry));

		step->mnt_root = m->mnt.mnt_root;
		step->parent = d->d_parent;
		step->len = d->d_name.len;
		step->name = d->d_name.name;
		return;
	}
	step->mnt_root = BPF_CORE_READ(mnt, mnt.mnt_root);
	step->parent = BPF_CORE_READ(dentry, d_parent);
	step->len = BPF_CORE_READ(dentry, d_name.len);
	step->name = BPF_CORE_READ(dentry, d_name.name);
}

/* Where the walks of this container end; through the slot, whose values the verifier does not follow. */
static __always_inline void set_root(struct scratch *s)
{
	__u64 root = s->e.cgroup;
	struct container *c = bpf_map_lookup_elem(&containers, &root);

	s->nested = 0;
	if (!c || !(c->flags & CONTAINER_NESTED))
		return;
	s->nested = 1;
	s->root_mnt = c->root_mnt;
	s->root_dentry = c->root_dentry;
}

/*
 * A root that is a mount's own is known by the mount alone: numbers of inodes are not unique everywhere
 * (subvolumes). Ids of mounts are used again only when the mount that had one is gone.
 */
static __always_inline bool is_root(struct scratch *s, struct mount *mnt, struct dentry *dentry, struct dentry *mnt_root)
{
	if (!s->nested || (__u64)dentry != (s->root_dentry ? s->root_dentry : (__u64)mnt_root))
		return false;
	return BPF_CORE_READ(mnt, mnt_id) == s->root_mnt;
}

/*
 * Builds the path in s->path, s->path_at, s->path_len; hashes of its components in s->level (leaf
 * first) and their chain in s->path_hash. Of the container in s->e.cgroup, so after begin(). A global
 * function: the verifier checks it once.
 * Returns the length, 0 when there is no path.
 */
__noinline int build_path(__u32 slot, __u64 mnt_addr, __u64 dentry_addr)
{
	struct scratch *s = scratch_of(slot);
	struct vfsmount *vfs = (struct vfsmount *)mnt_addr;
	struct dentry *dentry = (struct dentry *)dentry_addr;
	struct mount *mnt;
	__u32 mounts = 0;

	if (!s || !vfs || !dentry)
		return 0;
	mnt = real_mount(vfs);
	/*
	 * The positions live in the map and not in registers: there the verifier does not know
	 * their values, and one pass over the loop stands for all.
	 */
	s->path_at = PATH_MAX;
	s->levels = 0;
	s->mounts = 0;
	s->path_flags = PATH_CUT;
	set_root(s);
	for (int i = 0; i < LEVELS + 16; i++) {
		struct step step;
		__u32 len, at, n;

		read_step(mnt, dentry, &step);
		if (is_root(s, mnt, dentry, step.mnt_root)) {
			s->path_flags = PATH_INSIDE;
			break;
		}
		if (dentry == step.mnt_root) {
			struct mount *up = BPF_CORE_READ(mnt, mnt_parent);
			if (up == mnt) {
				s->path_flags = 0;
				break;
			}
			dentry = BPF_CORE_READ(mnt, mnt_mountpoint);
			mnt = up;
			s->mounts++;
			continue;
		}
		n = s->levels;
		at = s->path_at;
		if (n >= LEVELS)
			break;
		len = step.len;
		if (len > 255)
			len = 255;
		if (at < len + 1)
			break;
		at -= len + 1;
		s->path[at & (PATH_MAX - 1)] = '/';
		bpf_probe_read_kernel(&s->path[(at & (PATH_MAX - 1)) + 1], len & 255, step.name);
		bpf_probe_read_kernel(s->word, len & 255, step.name);
		hash_word(slot, len);
		s->level[n & (LEVELS - 1)] = s->hash;
		s->levels = n + 1;
		s->path_at = at;
		if (step.parent == dentry) {
			s->path_flags = PATH_DETACHED;
			break;
		}
		dentry = step.parent;
	}
	mounts = s->mounts;
	/* one mount above the first is the container's root on the hidden initial mount */
	if (s->nested ? (s->path_flags & PATH_INSIDE) && !mounts : mounts <= 1)
		s->path_flags |= PATH_ROOT_MOUNT;
	if (s->levels == 0 && !(s->path_flags & PATH_CUT)) {
		s->path_at = PATH_MAX - 1;
		s->path[PATH_MAX - 1] = '/';
	}
	s->path_len = PATH_MAX - s->path_at;
	return s->path_len;
}

/*
 * The root that a runtime gives a container's first program is what paths of the container start from.
 * It is not the top of the mount namespace where the runtime itself runs in a chroot, or makes one
 * instead of pivoting. After begin(), only for what the runtime executes first: a chroot inside must not
 * hide where a file lies. Hooks that run before the root is changed are corrected by the program itself.
 */
static __always_inline void remember_root(struct scratch *s, __u32 slot, struct container *c)
{
	struct task_struct *task = current_task();
	struct vfsmount *mnt = BPF_CORE_READ(task, fs, root.mnt);
	struct dentry *dentry = BPF_CORE_READ(task, fs, root.dentry);

	c->flags &= ~CONTAINER_NESTED;
	if (!build_path(slot, (__u64)mnt, (__u64)dentry) || (!s->levels && s->mounts <= 1))
		return;
	c->root_mnt = BPF_CORE_READ(real_mount(mnt), mnt_id);
	c->root_dentry = dentry == BPF_CORE_READ(mnt, mnt_root) ? 0 : (__u64)dentry;
	c->flags |= CONTAINER_NESTED;
}

/* A process that the runtime put into the container before its first program, about to execute. */
static __always_inline bool starts_container(struct process *p, struct container *c, __u32 mntns)
{
	return (p->flags & PROCESS_SETUP) && p->entry == ENTRY_INIT && (!c->mntns || c->mntns == mntns);
}

/* The chain of level hashes from the root to the leaf; a cut path has none. */
__noinline int hash_path(__u32 slot)
{
	struct scratch *s = scratch_of(slot);
	__u64 h = 0;

	if (!s)
		return 0;
	for (int i = LEVELS - 1; i >= 0; i--) {
		if (i < s->levels)
			h = sip2(h, s->level[i]);
	}
	s->path_hash = h;
	return 0;
}

/* without I_CTIME_QUERIED, which a stat() sets (multigrain timestamps, 6.13) */
#define CTIME_NSEC 0x7fffffffU

static __always_inline __u64 ctime_of(struct inode *inode)
{
	if (bpf_core_field_exists(inode->i_ctime_sec))
		return BPF_CORE_READ(inode, i_ctime_sec) * 1000000000ULL + (BPF_CORE_READ(inode, i_ctime_nsec) & CTIME_NSEC);
	struct inode___66 *i66 = (void *)inode;
	if (bpf_core_field_exists(i66->__i_ctime))
		return BPF_CORE_READ(i66, __i_ctime.tv_sec) * 1000000000ULL + BPF_CORE_READ(i66, __i_ctime.tv_nsec);
	struct inode___old *iold = (void *)inode;
	return BPF_CORE_READ(iold, i_ctime.tv_sec) * 1000000000ULL + BPF_CORE_READ(iold, i_ctime.tv_nsec);
}

/* The same of an inode that comes with its type. */
static __always_inline __u64 typed_ctime(struct inode *inode)
{
	struct inode___66 *i66 = (void *)inode;
	struct inode___old *iold = (void *)inode;

	if (bpf_core_field_exists(inode->i_ctime_sec))
		return inode->i_ctime_sec * 1000000000ULL + (inode->i_ctime_nsec & CTIME_NSEC);
	if (bpf_core_field_exists(i66->__i_ctime))
		return i66->__i_ctime.tv_sec * 1000000000ULL + i66->__i_ctime.tv_nsec;
	return iold->i_ctime.tv_sec * 1000000000ULL + iold->i_ctime.tv_nsec;
}

/* What the first level asks of a file, and the front to it. */
struct file_facts {
	struct inode *inode;
	__u64 sb; /* where its file system is in memory */
	__u64 ino, ctime, device; /* device << 32 | generation */
	__u32 mode; /* f_mode */
	__u16 type; /* of i_mode */
};

/* By plain loads where the kernel lets us name the type of an address (6.2). */
static __always_inline bool typed_facts(struct file *from, struct file_facts *f)
{
	struct file *file;
	struct inode *inode;

	if (!bpf_ksym_exists(bpf_rdonly_cast))
		return false;
	file = bpf_rdonly_cast(from, bpf_core_type_id_kernel(struct file));
	inode = file->f_inode;
	f->inode = inode;
	f->sb = (__u64)inode->i_sb;
	f->mode = file->f_mode;
	f->type = inode->i_mode & S_IFMT;
	f->ino = inode->i_ino;
	f->device = (__u64)inode->i_sb->s_dev << 32 | inode->i_generation;
	f->ctime = typed_ctime(inode);
	return true;
}

static __always_inline void read_facts(struct file *file, struct file_facts *f)
{
	struct inode *inode;

	if (typed_facts(file, f))
		return;
	inode = BPF_CORE_READ(file, f_inode);
	f->inode = inode;
	f->sb = (__u64)BPF_CORE_READ(inode, i_sb);
	f->mode = BPF_CORE_READ(file, f_mode);
	f->type = BPF_CORE_READ(inode, i_mode) & S_IFMT;
	f->ino = BPF_CORE_READ(inode, i_ino);
	f->device = (__u64)BPF_CORE_READ(inode, i_sb, s_dev) << 32 | BPF_CORE_READ(inode, i_generation);
	f->ctime = ctime_of(inode);
}

#define OVERLAYFS_MAGIC 0x794c7630
#define TMPFS_MAGIC 0x01021994
#define RAMFS_MAGIC 0x858458f6

static __always_inline bool is_pseudo(unsigned long magic)
{
	switch (magic) {
	case 0x9fa0: /* proc */
	case 0x62656572: /* sysfs */
	case 0x27e0eb: /* cgroup */
	case 0x63677270: /* cgroup2 */
	case 0x1cd1: /* devpts */
	case 0x19800202: /* mqueue */
	case 0x64626720: /* debugfs */
	case 0x74726163: /* tracefs */
	case 0x73636673: /* securityfs */
	case 0xcafe4a11: /* bpf */
	case 0x534f434b: /* sockfs */
	case 0x50495045: /* pipefs */
	case 0x09041934: /* anon_inode */
	case 0x6e736673: /* nsfs */
		return true;
	}
	return false;
}

/*
 * Where an object lives. On overlayfs the pointer behind the inode is ovl_inode's upper dentry
 * (fs/overlayfs/ovl_entry.h: it follows vfs_inode since 4.13). Where the root is a plain
 * directory (vfs and btrfs drivers, crun on a directory), what changed after the container was
 * created counts as the container's own layer.
 */
static __always_inline __u8 origin_of(struct inode *inode, __u32 path_flags, __u64 created_ns, __u64 ctime)
{
	unsigned long magic = BPF_CORE_READ(inode, i_sb, s_magic);

	if (magic == TMPFS_MAGIC || magic == RAMFS_MAGIC)
		return path_flags & PATH_DETACHED ? ORIGIN_MEMFD : ORIGIN_TMPFS;
	if (is_pseudo(magic))
		return ORIGIN_PSEUDO;
	if (magic == OVERLAYFS_MAGIC && (path_flags & PATH_ROOT_MOUNT)) {
		void *upper = NULL;
		bpf_probe_read_kernel(&upper, sizeof(upper), (void *)inode + bpf_core_type_size(struct inode));
		return upper ? ORIGIN_UPPER : ORIGIN_IMAGE;
	}
	if (path_flags & PATH_ROOT_MOUNT)
		return ctime > created_ns + boot_to_wall_ns ? ORIGIN_UPPER : ORIGIN_IMAGE;
	return ORIGIN_VOLUME;
}

#endif
