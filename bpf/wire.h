/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The one contract between the programs in the kernel and the reader in user space.
 *
 * Every record in a ring is a struct wire_event followed by its strings, one behind the other,
 * without terminators; slen[] has their lengths. All integers are in host byte order, all
 * padding is explicit. crates/sensor/src/wire.rs mirrors this file and a test compares both
 * through BTF.
 */
#ifndef PLIMSOLL_WIRE_H
#define PLIMSOLL_WIRE_H

#define WIRE_STRINGS 6
#define WIRE_NUMS 8
#define WIRE_DATA_MAX 16384 /* bytes of strings in one record */

enum wire_kind {
	WIRE_EXEC = 1, /* num: euid, egid, caps, tty, dev, ino, mode, argv bytes; str: exe, script, argv, cwd, struct exec_facts, environment */
	WIRE_EXIT = 2, /* num: wait status */
	WIRE_FORK = 3, /* num: child tgid, child start */
	WIRE_FILE = 4, /* num: op, flags, result, mode of the file that was opened; str: path, target, base, target base, path as the caller wrote it */
	WIRE_LIBRARY = 5, /* str: path */
	WIRE_SOCKET = 6, /* num: family, type, protocol */
	WIRE_CONNECT = 7, /* num: proto, family, result, lport, rport, -; str: local, remote */
	WIRE_ACCEPT = 8,
	WIRE_LISTEN = 9,
	WIRE_BIND = 10,
	WIRE_DATAGRAM = 11,
	WIRE_DNS = 12, /* num: response, family, -, -, rport, wire bytes; str: message, server */
	WIRE_DUP = 13, /* num: stream, target, family, -, rport; str: -, remote */
	WIRE_NAMESPACE = 14, /* num: call, flags */
	WIRE_MOUNT = 15, /* num: call, flags; str: source, target, fstype, base */
	WIRE_PTRACE = 16, /* num: request, target */
	WIRE_MODULE = 17, /* str: name */
	WIRE_BPF = 18, /* num: command */
	WIRE_CREDENTIALS = 19, /* num: old uid, new uid, old caps, new caps */
	WIRE_SYSCALL = 20, /* num: nr */
	WIRE_MEMFD = 21, /* str: name */
	WIRE_CGROUP_MKDIR = 22, /* num: id, parent; str: path */
	WIRE_CGROUP_RMDIR = 23, /* num: id */
	WIRE_CGROUP_ATTACH = 24, /* num: to, tgid, start; str: path */
	WIRE_RARE = 25, /* num: nr, arg0-3, result */
	WIRE_SIGNAL = 26, /* num: signal, target */
};

/* Operations of WIRE_FILE, the numbers of model::FileOp. */
enum wire_file_op {
	FILE_READ = 0,
	FILE_WRITE = 1,
	FILE_CREATE = 2,
	FILE_LIST = 3,
	FILE_UNLINK = 4,
	FILE_MKDIR = 5,
	FILE_RMDIR = 6,
	FILE_CHMOD = 7,
	FILE_CHOWN = 8,
	FILE_RENAME = 9,
	FILE_LINK = 10,
	FILE_SYMLINK = 11,
	FILE_FAILED = 12,
};

/* The numbers of model::Origin. */
enum wire_origin {
	ORIGIN_UNKNOWN = 0,
	ORIGIN_IMAGE = 1,
	ORIGIN_UPPER = 2,
	ORIGIN_VOLUME = 3,
	ORIGIN_TMPFS = 4,
	ORIGIN_MEMFD = 5,
	ORIGIN_PSEUDO = 6,
	ORIGIN_FOREIGN = 7,
};

/* The numbers of model::Entry. */
enum wire_entry { ENTRY_INIT = 0, ENTRY_EXEC = 1, ENTRY_HOST = 2, ENTRY_FOUND = 3 };

/* The numbers of model::Proto. */
enum wire_proto { PROTO_TCP = 0, PROTO_UDP = 1, PROTO_UNIX = 2, PROTO_RAW = 3, PROTO_OTHER = 4 };

enum wire_flags {
	WIRE_ARGUMENT = 1, /* values were copied from the memory of the program */
	WIRE_TAMPERED = 2, /* the copies at entry and exit differ */
	WIRE_CUT = 4, /* a string was cut at its bound */
	WIRE_DELETED = 8, /* the file has no name any more */
	WIRE_FIRST = 16, /* first program of the container */
	WIRE_COMPAT = 32, /* through the 32-bit system call table */
	WIRE_REPEAT = 64, /* a watched behaviour that was emitted before */
};

/* Where something was lost; the first numbers of model::Stage. */
enum wire_stage {
	STAGE_BULK_RING = 0,
	STAGE_ALERT_RING = 1,
	STAGE_RECURSION = 2,
	STAGE_SCRATCH = 3,
	STAGE_KERNEL_MAP = 4,
	STAGES = 5,
};

/* First-level dictionary: container, actor, object, operation and flags, result class. */
struct l1_key {
	__u64 actor; /* covers the container */
	__u64 object[4];
	__u32 code; /* wire_kind << 16 | operation << 8 | origin */
	__u32 flags; /* result class, foreign mount namespace */
};

/* L1_UPWARD: an opened file, emitted when the program's own path goes up (".."), else as L1_EMITTED */
enum l1_state { L1_PENDING = 1, L1_EMITTED = 2, L1_KNOWN = 3, L1_WATCH = 4, L1_UPWARD = 5 };

struct l1_value {
	__u32 state;
	__u32 generation;
	__u32 dense; /* index of the counter, 0: count below */
	__u32 epoch; /* in which it was recorded last */
	__u64 count;
	__u32 age; /* epochs in which it was used again */
	__u32 pad;
};

/*
 * One use of a first-level entry in the recorder, or in the stream of an incident. The count is
 * the running one of its counter: what was counted in this epoch is the difference to the next
 * entry of the same counter in a later epoch. In the stream it is 1.
 */
struct recorder_entry {
	__u32 pos; /* low bits of the position, written last; in the stream: stream.id */
	__u32 when; /* boot time in units of 2^23 ns */
	__u32 dense; /* counter, 0: see key */
	__u32 count; /* low bits */
	__u32 tgid;
	__u32 code; /* of the l1_key */
	__u64 key; /* without a counter: sip4(actor ^ object[0], object[1], object[2] ^ object[3], code << 32 | flags) */
};

#define EPOCH_SHIFT 30
#define RECORDER_CHUNK 256 /* entries */
#define RECORDER_SLOTS 32 /* chunks that one container can own */

struct recorder_slot {
	__u32 chunk; /* number + 1, 0: none */
	__u32 lap; /* which turn of the positions it holds: position / RECORDER_CHUNK */
};

/* The recorder of a container, by its root cgroup. */
struct recorder {
	struct bpf_spin_lock lock; /* of pos */
	__u32 owned; /* chunks */
	__u64 pos; /* entries written so far */
	__u64 dropped; /* positions without a chunk */
	struct recorder_slot slots[RECORDER_SLOTS];
};

/* A container that streams each use of its first-level entries, by its root cgroup. */
struct stream {
	__u32 id;
	__u32 pad;
	__u64 lost; /* the ring was full */
};

struct wire_event {
	__u32 len; /* header and strings */
	__u16 kind;
	__u8 ring; /* 0 bulk, 1 alert class */
	__u8 flags;
	__u64 boot_ns;
	__u64 seq; /* per CPU and ring, from 1 */
	__u32 cpu;
	__u32 dense;
	__u64 cgroup; /* root cgroup of the container */
	__u64 actor;
	__u64 start_ns; /* of the thread group leader, boot clock */
	__u32 tgid;
	__u32 tid;
	__u32 ppid;
	__u32 uid;
	__u32 gid;
	__u8 entry;
	__u8 origin;
	__u8 enforced; /* enum enforced in enforce.h; of a stopped exec, dict.actor is its token */
	__u8 pad;
	__u8 comm[16];
	struct l1_key dict; /* all zero: not in the dictionary */
	__s64 num[WIRE_NUMS];
	__u16 slen[WIRE_STRINGS];
	__u32 pad2;
};

/*
 * What else a program has when it starts: string 4 of WIRE_EXEC. Numbers of processes are those of
 * the process's own pid namespace; 0: it is not in there.
 */
struct exec_facts {
	__u64 permitted;
	__u64 inheritable;
	__u32 login_uid; /* all ones: nobody logged in, or no such thing in this kernel */
	__u32 vpid;
	__u32 vpgid;
	__u32 vsid;
	__u32 env_bytes; /* the whole environment */
	__u32 env_asked; /* string 5 is it, up to its bound */
};

/* A watched container, by its root cgroup. */
enum container_flags {
	CONTAINER_PROVISIONAL = 1,
	CONTAINER_STARTED = 2,
	CONTAINER_NESTED = 4, /* its root is not the one of its mount namespace */
};

struct container {
	__u32 set; /* dictionary set of its image */
	__u32 dense_base;
	__u32 dense_len;
	__u32 flags;
	__u32 mntns; /* inode number of its first program's mount namespace */
	__u32 root_mnt; /* of a nested one: id of the mount that its root is on */
	__u64 root_dentry; /* and its root there; 0: the mount's own */
	__u64 created_ns; /* boot clock */
	__u64 quota_epoch;
	__u32 quota_used;
	__u32 bulk_used; /* in the same second */
	__u64 emitted[2]; /* by ring */
	__u64 lost[STAGES];
	__u64 l1_hits;
	__u64 l2_hits;
};

/* A process in a watched container, by thread group id. */
enum process_flags {
	PROCESS_SETUP = 1, /* still the runtime, before the container's program */
	PROCESS_INTERPRETED = 2, /* an interpreter: what it is depends on its script */
};

struct process {
	__u64 cgroup; /* root cgroup of its container */
	__u64 actor;
	__u64 program; /* hash of the executable's path */
	__u64 script; /* hash of what the interpreter was given, or 0 */
	__u64 exe_ino;
	__u64 exe_ctime;
	__u64 start_ns;
	__u64 caps;
	__u32 exe_dev;
	__u32 uid;
	__u32 flags;
	__u32 mntns; /* of its container, 0: not known yet */
	__u8 entry;
	__u8 pad[7];
};

/* Settings, written by user space before load and while running (.bss and .data). */
struct gate {
	__u8 handler; /* tail call index, 0: none */
	__u8 used; /* collect "system calls used" for this number now */
	__u8 compat; /* handler of this number in the 32-bit table */
	__u8 failures; /* 1 native, 2 32-bit: a better hook sees successes, only refusals are looked at */
};

#define SYSCALLS 512
#define EPOCHS 4096 /* generations of containers, by root cgroup modulo this */
#define DENSE_MAX 262144
#define DENSE_DYNAMIC 65536 /* below: behaviours numbered by the kernel; above: blocks of instances */

#endif
