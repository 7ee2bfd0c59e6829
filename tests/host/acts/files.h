/* SPDX-License-Identifier: Apache-2.0 */
/* Files under other names, by other ways, through other processes. */
#include "acts.h"

/* One request through a ring of our own; flags are those of io_uring_setup. */
static int ring_request(unsigned flags, const struct io_uring_sqe *want)
{
	struct io_uring_params p = { .flags = flags, .sq_thread_idle = 2000 };
	int ring = must(syscall(SYS_io_uring_setup, 4, &p)), done;
	size_t sq_bytes = p.sq_off.array + p.sq_entries * 4, cq_bytes = p.cq_off.cqes + p.cq_entries * sizeof(struct io_uring_cqe);
	char *sq = mmap(NULL, sq_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQ_RING);
	char *cq = mmap(NULL, cq_bytes, PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_CQ_RING);
	struct io_uring_sqe *sqes = mmap(NULL, p.sq_entries * sizeof(*sqes), PROT_READ | PROT_WRITE, MAP_SHARED, ring, IORING_OFF_SQES);
	atomic_uint *tail = (atomic_uint *)(sq + p.sq_off.tail), *cq_tail = (atomic_uint *)(cq + p.cq_off.tail);

	sqes[0] = *want;
	*(unsigned *)(sq + p.sq_off.array) = 0;
	atomic_store(tail, 1);
	if (flags & IORING_SETUP_SQPOLL) {
		/* the kernel's thread takes it: at most it is woken, no call submits anything */
		for (int i = 0; i < 5000 && !atomic_load(cq_tail); i++) {
			if (*(volatile unsigned *)(sq + p.sq_off.flags) & IORING_SQ_NEED_WAKEUP)
				must(syscall(SYS_io_uring_enter, ring, 0, 0, IORING_ENTER_SQ_WAKEUP, NULL, 0));
			usleep(1000);
		}
	} else {
		must(syscall(SYS_io_uring_enter, ring, 1, 1, IORING_ENTER_GETEVENTS, NULL, 0));
	}
	if (!atomic_load(cq_tail)) {
		fprintf(stderr, "the ring does not answer\n");
		exit(3);
	}
	done = ((struct io_uring_cqe *)(cq + p.cq_off.cqes))[0].res;
	close(ring);
	return done;
}

static int ring_open(unsigned flags)
{
	struct io_uring_sqe sqe = { .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t)SECRET };
	return ring_request(flags, &sqe);
}

static void uring_open(void)
{
	must(ring_open(0));
}

static void uring_sqpoll(void)
{
	must(ring_open(IORING_SETUP_SQPOLL));
}

static void uring_openat2(void)
{
	struct open_how how = { .flags = O_RDONLY };
	struct io_uring_sqe sqe = { .opcode = IORING_OP_OPENAT2, .fd = AT_FDCWD, .addr = (uintptr_t)SECRET, .len = sizeof(how), .addr2 = (uintptr_t)&how };
	must(ring_request(0, &sqe));
}

static void uring_unlink(void)
{
	struct io_uring_sqe sqe = { .opcode = IORING_OP_UNLINKAT, .fd = AT_FDCWD, .addr = (uintptr_t) "/tmp/by-ring" };
	put("/tmp/by-ring", "x");
	must(ring_request(0, &sqe));
}

static void uring_link(void)
{
	struct io_uring_sqe sqe = { .opcode = IORING_OP_LINKAT, .fd = AT_FDCWD, .addr = (uintptr_t)SECRET, .len = (unsigned)AT_FDCWD, .addr2 = (uintptr_t) "/tmp/ring-link" };
	must(ring_request(0, &sqe));
}

static void uring_symlinked(void)
{
	struct io_uring_sqe sqe = { .opcode = IORING_OP_OPENAT, .fd = AT_FDCWD, .addr = (uintptr_t) "/tmp/harmless" };
	must(symlink(SECRET, "/tmp/harmless"));
	must(ring_request(0, &sqe));
}

static void hard_link(void)
{
	must(link(SECRET, "/tmp/innocent"));
	read_path("/tmp/innocent");
}

static void symbolic_link(void)
{
	must(symlink(SECRET, "/tmp/innocent"));
	read_path("/tmp/innocent");
}

static void bind_mount(void)
{
	put("/tmp/innocent", "");
	must(mount(SECRET, "/tmp/innocent", NULL, MS_BIND, NULL));
	read_path("/tmp/innocent");
}

/* A private mount namespace in which another file has the name of a harmless one. */
static void faked_path(void)
{
	must(unshare(CLONE_NEWUSER | CLONE_NEWNS));
	must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must(mount("/bin/busybox", "/etc/hostname-of-mine", NULL, MS_BIND, NULL));
	read_path("/etc/hostname-of-mine");
}

/* A program of the image, changed: overlayfs copies it up and leaves its name. */
static void copy_up(void)
{
	int fd = must(open("/bin/victim", O_WRONLY | O_APPEND));
	must(write(fd, "\0", 1));
	close(fd);
	if (!must(fork())) {
		execl("/bin/victim", "victim", "nothing", NULL);
		exit(3);
	}
	wait_for(-1);
}

/* Reads one file, removes it, and makes new ones until one has its inode. */
static void inode_reuse(void)
{
	struct stat was, now;
	char name[64];

	put("/tmp/first", "x");
	must(stat("/tmp/first", &was));
	read_path("/tmp/first");
	must(unlink("/tmp/first"));
	for (int i = 0; i < 100; i++) {
		snprintf(name, sizeof(name), "/tmp/again-%d", i);
		put(name, "y");
		must(stat(name, &now));
		if (now.st_ino == was.st_ino)
			break;
	}
	read_path(name);
	must(rename(name, "/tmp/reused"));
	read_path("/tmp/reused");
}

static char raced[64];
static atomic_int race_over;

static void *flip(void *unused)
{
	(void)unused;
	while (!atomic_load(&race_over)) {
		strcpy(raced, SECRET);
		asm volatile("" ::: "memory");
		strcpy(raced, "/etc/passwd");
		asm volatile("" ::: "memory");
	}
	return NULL;
}

/* Another thread changes the name during the call; ends when the secret was opened under either. */
static void race_open(void)
{
	pthread_t other;
	char link[64], target[64];

	strcpy(raced, "/etc/passwd");
	must(-pthread_create(&other, NULL, flip, NULL));
	for (int i = 0; i < 1000000; i++) {
		int fd = open(raced, O_RDONLY);
		if (fd < 0)
			continue;
		snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
		ssize_t n = readlink(link, target, sizeof(target) - 1);
		close(fd);
		if (n > 0 && !strncmp(target, SECRET, n)) {
			atomic_store(&race_over, 1);
			pthread_join(other, NULL);
			return;
		}
	}
	exit(3);
}

static void argument_unlink(void)
{
	put("/tmp/by-argument", "x");
	must(syscall(SYS_unlinkat, AT_FDCWD, "/tmp/by-argument", 0));
}

static void use_openat2(void)
{
	struct open_how how = { .flags = O_RDONLY };
	must(syscall(SYS_openat2, AT_FDCWD, SECRET, &how, sizeof(how)));
}

/* name_to_handle_at, open_by_handle_at: the way out of a container that CVE-2014-3519 is about. */
static void by_handle(void)
{
	struct {
		struct file_handle h;
		char bytes[128];
	} f = { .h.handle_bytes = 128 };
	int id, root;

	/* overlayfs gives no handles */
	must(mkdir("/tmp/plain", 0755));
	must(mount("none", "/tmp/plain", "tmpfs", 0, NULL));
	root = must(open("/tmp/plain", O_RDONLY));
	put("/tmp/plain/by-handle", "x");
	must(name_to_handle_at(AT_FDCWD, "/tmp/plain/by-handle", &f.h, &id, 0));
	must(open_by_handle_at(root, &f.h, O_RDONLY));
}

static void send_file(void)
{
	int pair[2], in = must(open(SECRET, O_RDONLY));
	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	must(sendfile(pair[0], in, NULL, 64));
}

static void splice_file(void)
{
	int pipes[2], in = must(open(SECRET, O_RDONLY));
	must(pipe(pipes));
	must(splice(in, NULL, pipes[1], NULL, 64, 0));
}

/* One process opens, another one is handed the descriptor and reads. */
static void passed_descriptor(void)
{
	int pair[2];
	union {
		struct cmsghdr head;
		char room[CMSG_SPACE(sizeof(int))];
	} control = { 0 };
	char byte = 0;
	struct iovec iov = { &byte, 1 };
	struct msghdr m = { .msg_iov = &iov, .msg_iovlen = 1, .msg_control = &control, .msg_controllen = sizeof(control) };

	must(socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	if (!must(fork())) {
		int fd = must(open(SECRET, O_RDONLY));
		control.head = (struct cmsghdr){ .cmsg_len = CMSG_LEN(sizeof(int)), .cmsg_level = SOL_SOCKET, .cmsg_type = SCM_RIGHTS };
		memcpy(CMSG_DATA(&control.head), &fd, sizeof(fd));
		must(sendmsg(pair[1], &m, 0));
		exit(0);
	}
	must(recvmsg(pair[0], &m, 0));
	int fd;
	char text[64];
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&m)), sizeof(fd));
	must(read(fd, text, sizeof(text)));
	wait_for(-1);
}

static void stolen_descriptor(void)
{
	int fd = must(open(SECRET, O_RDONLY));
	pid_t other = sleeper();
	int pidfd = must(syscall(SYS_pidfd_open, other, 0));
	must(syscall(SYS_pidfd_getfd, pidfd, fd, 0));
	finish(other);
}

static void change_root(void)
{
	must(mkdir("/tmp/jail", 0755));
	must(mkdir("/tmp/jail/etc", 0755));
	put("/tmp/jail/etc/shadow", "x");
	must(chroot("/tmp/jail"));
	must(chdir("/"));
	read_path(SECRET);
}

static void swap_root(void)
{
	must(unshare(CLONE_NEWNS));
	must(mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL));
	must(mkdir("/tmp/new", 0755));
	must(mount("none", "/tmp/new", "tmpfs", 0, NULL));
	must(mkdir("/tmp/new/old", 0755));
	put("/tmp/new/marker", "x");
	must(syscall(SYS_pivot_root, "/tmp/new", "/tmp/new/old"));
	must(chdir("/"));
	read_path("/marker");
}
