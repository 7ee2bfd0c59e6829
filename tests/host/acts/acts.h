/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the acts share: raw system calls, so that no library comes between an act and the kernel, and
 * that an act which cannot be done says so (exit 3) instead of looking like one that was hidden.
 */
#ifndef ACTS_H
#define ACTS_H

#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/io_uring.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/sendfile.h>
#include <sys/shm.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#define SECRET "/etc/shadow"

/* The act itself failed: nothing can be said about whether it is seen. */
#define must(what)                                                                      \
	({                                                                              \
		long r_ = (long)(what);                                                 \
		if (r_ < 0) {                                                           \
			fprintf(stderr, "%s:%d: %s: %m\n", __FILE__, __LINE__, #what); \
			exit(3);                                                        \
		}                                                                       \
		r_;                                                                     \
	})

static inline void put(const char *path, const char *text)
{
	int fd = must(open(path, O_CREAT | O_WRONLY | O_TRUNC, 0755));
	must(write(fd, text, strlen(text)));
	close(fd);
}

static inline void read_path(const char *path)
{
	char buf[64];
	int fd = must(syscall(SYS_openat, AT_FDCWD, path, O_RDONLY, 0));
	must(read(fd, buf, sizeof(buf)));
	close(fd);
}

static inline void copy(const char *from, int to)
{
	char buf[65536];
	int fd = must(open(from, O_RDONLY));
	ssize_t n;

	while ((n = must(read(fd, buf, sizeof(buf)))) > 0)
		must(write(to, buf, n));
	close(fd);
}

static inline void wait_for(pid_t pid)
{
	int status;
	must(syscall(SYS_wait4, pid, &status, __WALL, NULL));
}

/* A child that waits for its end. */
static inline pid_t sleeper(void)
{
	pid_t pid = must(fork());

	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;)
			pause();
	}
	return pid;
}

static inline void finish(pid_t pid)
{
	kill(pid, SIGKILL);
	wait_for(pid);
}

#endif
