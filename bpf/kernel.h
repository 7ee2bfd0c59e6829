/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The kernel's types, as far as they are read here: only the fields in use, relocated by CO-RE
 * against the BTF of the running kernel (5.10 and later).
 */
#ifndef PLIMSOLL_KERNEL_H
#define PLIMSOLL_KERNEL_H

#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_core_read.h>
#include <bpf/bpf_tracing.h>
#include <bpf/bpf_endian.h>

typedef _Bool bool;
#define true 1
#define false 0

#pragma clang attribute push(__attribute__((preserve_access_index)), apply_to = record)

#if defined(__TARGET_ARCH_x86)
struct pt_regs {
	unsigned long r10, r9, r8, dx, si, di, bx, cx, orig_ax;
	unsigned long bp;
};
struct thread_info {
	__u32 status;
};
#elif defined(__TARGET_ARCH_arm64)
struct pt_regs {
	__u64 regs[31];
	__u64 orig_x0;
	__s32 syscallno;
};
struct thread_info {
	unsigned long flags;
};
#endif

typedef struct {
	int counter;
} atomic_t;
typedef struct {
	unsigned int val;
} kuid_t;
typedef struct {
	unsigned int val;
} kgid_t;
typedef struct {
	__u64 val;
} kernel_cap_t;
/* before 6.3: an array of two words */
typedef struct {
	__u32 cap[2];
} kernel_cap_t___old;

struct qstr {
	__u32 len;
	const unsigned char *name;
};
struct super_block;
struct timespec64 {
	__s64 tv_sec;
	long tv_nsec;
};
struct inode {
	__u16 i_mode;
	struct super_block *i_sb;
	unsigned long i_ino;
	unsigned int i_nlink;
	void *i_private;
	__u32 i_generation;
	__s64 i_ctime_sec; /* 6.11 */
	__u32 i_ctime_nsec;
};
struct inode___66 {
	struct timespec64 __i_ctime; /* 6.6 to 6.10 */
};
struct inode___old {
	struct timespec64 i_ctime; /* before 6.6 */
};
struct super_block {
	__u32 s_dev;
	unsigned long s_magic;
};
struct dentry {
	struct dentry *d_parent;
	struct qstr d_name;
	struct inode *d_inode;
};
struct vfsmount {
	struct dentry *mnt_root;
};
struct mount {
	struct mount *mnt_parent;
	struct dentry *mnt_mountpoint;
	struct vfsmount mnt;
	int mnt_id;
};
struct path {
	struct vfsmount *mnt;
	struct dentry *dentry;
};
struct file {
	struct path f_path;
	struct inode *f_inode;
	unsigned int f_flags;
	unsigned int f_mode;
	void *private_data;
};
struct pid_namespace;
struct upid {
	int nr;
	struct pid_namespace *ns;
};
struct pid {
	unsigned int level;
	struct upid numbers[1];
};
struct filename {
	const char *name;
};
struct open_flags {
	int open_flag;
};
struct fdtable {
	unsigned int max_fds;
	struct file **fd;
};
struct files_struct {
	struct fdtable *fdt;
};
struct fs_struct {
	struct path root, pwd;
};
struct ns_common {
	unsigned int inum;
};
struct mnt_namespace {
	struct ns_common ns;
};
struct nsproxy {
	struct mnt_namespace *mnt_ns;
};
struct cred {
	kuid_t uid;
	kgid_t gid;
	kuid_t euid;
	kgid_t egid;
	kernel_cap_t cap_inheritable;
	kernel_cap_t cap_permitted;
	kernel_cap_t cap_effective;
};
struct kernfs_node {
	__u64 id;
};
struct cgroup_root {
	int hierarchy_id;
};
struct cgroup_subsys_state {
	struct cgroup *cgroup;
	struct cgroup_subsys_state *parent;
};
struct cgroup {
	struct cgroup_subsys_state self;
	struct kernfs_node *kn;
	struct cgroup_root *root;
};
struct css_set {
	struct cgroup_subsys_state *subsys[16];
	struct cgroup *dfl_cgrp;
};
struct tty_struct {
	int index;
	struct tty_driver *driver;
};
struct tty_driver {
	int major;
	int minor_start;
};
struct signal_struct {
	atomic_t live;
	int group_exit_code;
	struct pid *pids[4]; /* enum pid_type: process, thread group, process group, session */
	struct tty_struct *tty;
};
struct mm_struct {
	unsigned long arg_start, arg_end, env_start, env_end;
};
struct task_struct {
	struct thread_info thread_info;
	int pid;
	int tgid;
	__u64 start_boottime;
	__u64 self_exec_id;
	int exit_code;
	unsigned int flags;
	unsigned in_execve : 1;
	struct task_struct *real_parent;
	struct task_struct *group_leader;
	struct mm_struct *mm;
	const struct cred *cred;
	struct pid *thread_pid;
	kuid_t loginuid; /* with CONFIG_AUDIT */
	struct fs_struct *fs;
	struct files_struct *files;
	struct nsproxy *nsproxy;
	struct signal_struct *signal;
	struct css_set *cgroups;
	char comm[16];
};
struct linux_binprm {
	struct file *file;
	const char *filename;
	const char *interp;
	const struct cred *cred;
	char buf[256]; /* BINPRM_BUF_SIZE, kernel commit 6eb3c3d0a52d (5.1) */
};

struct vm_area_struct {
	struct file *vm_file;
};
struct in6_addr {
	union {
		__u8 u6_addr8[16];
		__be32 u6_addr32[4];
	} in6_u;
};
struct sock_common {
	__be32 skc_daddr;
	__be32 skc_rcv_saddr;
	__be16 skc_dport;
	__u16 skc_num;
	unsigned short skc_family;
	volatile unsigned char skc_state;
	struct in6_addr skc_v6_daddr;
	struct in6_addr skc_v6_rcv_saddr;
};
struct sock {
	struct sock_common __sk_common;
	__u16 sk_type;
	__u16 sk_protocol;
};
struct socket {
	struct sock *sk;
};
struct iovec {
	void *iov_base;
	__u64 iov_len;
};
enum iter_type { ITER_IOVEC, ITER_UBUF }; /* numbers differ between kernels */
struct iov_iter {
	__u8 iter_type; /* 5.14 */
	unsigned long iov_offset;
	const struct iovec *__iov; /* 6.4 */
	void *ubuf; /* 6.0 */
};
struct iov_iter___63 {
	const struct iovec *iov;
};
struct msghdr {
	void *msg_name;
	struct iov_iter msg_iter;
};
struct unix_address {
	int len;
};
struct unix_sock {
	struct unix_address *addr;
	struct sock *peer;
};
struct module {
	char name[56];
};
enum cgroup_subsys_id { placeholder_cgrp_id };

#pragma clang attribute pop

/* kernel commit a35b9af4ec2c (6.2): reads through the result are plain loads, faults give zero */
extern void *bpf_rdonly_cast(const void *obj, __u32 btf_id) __ksym __weak;

/*
 * Masks a value where the verifier sees it: the compiler, which knows that the value is in bounds
 * already, would leave a plain mask out.
 */
#define MASK(x, mask) asm volatile("%0 &= %1" : "+r"(x) : "i"(mask))

#ifndef barrier
#define barrier() asm volatile("" ::: "memory")
#endif

#define AF_UNIX 1
#define AF_INET 2
#define AF_NETLINK 16
#define AF_INET6 10
#define AF_PACKET 17
#define SOCK_STREAM 1
#define SOCK_DGRAM 2
#define SOCK_RAW 3
#define TCP_SYN_SENT 2
#define TCP_LISTEN 10
#define S_IFMT 0170000
#define S_IFSOCK 0140000
#define S_IFDIR 0040000
#define S_IFCHR 0020000
#define S_IFIFO 0010000
#define FMODE_WRITE 2
#define FMODE_PATH 0x4000
#define FMODE_CREATED 0x100000
#define FMODE_NOACCOUNT 0x20000000 /* opened by the kernel for itself: kernel commit d3b1084dfd62 (5.0) */
#define FMODE_BACKING 0x2000000 /* for an overlay file that was reported already: def3ae83da02 (6.7) */
#define F_EXEC 0x20 /* __FMODE_EXEC in f_flags: execve opens its file */
#define O_ACCMODE 3
#define PROT_EXEC 4
#define MAP_ANONYMOUS 0x20
#define AT_FDCWD -100
#define EPERM 1
#define ENOENT 2
#define EINTR 4
#define EIO 5
#define ENXIO 6
#define EACCES 13
#define EBUSY 16
#define EEXIST 17
#define ENODEV 19
#define EINVAL 22
#define EROFS 30
#define ERESTARTSYS 512
#define MAX_ERRNO 4095
#define PF_KTHREAD 0x00200000

/* Refused by who one is or by how a place is mounted; a name that is not there is no refusal. */
static __always_inline int is_refusal(long ret)
{
	return ret == -EACCES || ret == -EPERM || ret == -EROFS;
}

#endif
