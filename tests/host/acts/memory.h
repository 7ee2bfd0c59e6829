/* SPDX-License-Identifier: Apache-2.0 */
/* Code that came from no file, or into another process. */
#include "acts.h"

#define RW (PROT_READ | PROT_WRITE)
#define RX (PROT_READ | PROT_EXEC)

static void *page(int prot, int flags, int fd)
{
	void *p = mmap(NULL, 4096, prot, flags, fd, 0);
	must(p == MAP_FAILED ? -1 : 0);
	return p;
}

static void rwx(void)
{
	page(RW | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static void write_then_execute(void)
{
	must(mprotect(page(RW, MAP_PRIVATE | MAP_ANONYMOUS, -1), 4096, RX));
}

/* Written through one mapping, executed through another: no page is ever both. */
static void double_map(void)
{
	int fd = must(syscall(SYS_memfd_create, "double", 0));
	must(ftruncate(fd, 4096));
	page(RW, MAP_SHARED, fd);
	page(RX, MAP_SHARED, fd);
}

/* An executable mapping of a harmless file is moved away, and another page put in its place. */
static void moved_mapping(void)
{
	int fd = must(open("/bin/busybox", O_RDONLY));
	void *text = page(RX, MAP_PRIVATE, fd), *room = page(PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	must(mremap(text, 4096, 4096, MREMAP_MAYMOVE | MREMAP_FIXED, room) == MAP_FAILED ? -1 : 0);
	must(mprotect(room, 4096, RW));
	must(mprotect(room, 4096, RX));
}

static void shared_segment(void)
{
	int id = must(shmget(IPC_PRIVATE, 4096, IPC_CREAT | 0700));
	void *p = shmat(id, NULL, SHM_EXEC);
	shmctl(id, IPC_RMID, NULL);
	must(p == (void *)-1 ? -1 : 0);
}

/* From here on every readable mapping is executable, without anybody asking for PROT_EXEC. */
static void read_implies_exec(void)
{
	must(syscall(SYS_personality, 0xffffffffUL));
	must(syscall(SYS_personality, 0x0400000UL));
	page(RW, MAP_PRIVATE | MAP_ANONYMOUS, -1);
}

static char patched[64] = "as it was";

static void proc_mem(void)
{
	int fd = must(open("/proc/self/mem", O_RDWR));
	must(pwrite(fd, "changed", 7, (off_t)(uintptr_t)patched));
	must(strncmp(patched, "changed", 7) ? -1 : 0);
}

static void trace_poke(void)
{
	pid_t pid = sleeper();
	int status;

	must(ptrace(PTRACE_ATTACH, pid, NULL, NULL));
	must(waitpid(pid, &status, __WALL));
	must(ptrace(PTRACE_POKEDATA, pid, patched, (void *)0x41414141));
	finish(pid);
}

static void trace_me(void)
{
	must(ptrace(PTRACE_TRACEME, 0, NULL, NULL));
}

static void vm_write(void)
{
	pid_t pid = sleeper();
	char text[] = "changed";
	struct iovec from = { text, sizeof(text) }, to = { patched, sizeof(text) };

	must(process_vm_writev(pid, &from, 1, &to, 1, 0));
	finish(pid);
}

/* This program, from a file in memory. */
static int in_memory(const char *name)
{
	int fd = must(syscall(SYS_memfd_create, name, 0));
	copy("/proc/self/exe", fd);
	return fd;
}

static char *const nothing[] = { "anything", "nothing", NULL };
static char *const no_environment[] = { NULL };

static void memfd_exec(void)
{
	char path[64];
	snprintf(path, sizeof(path), "/proc/self/fd/%d", in_memory("fileless"));
	must(execve(path, nothing, no_environment));
}

static void memfd_execveat(void)
{
	must(syscall(SYS_execveat, in_memory("fileless"), "", nothing, no_environment, AT_EMPTY_PATH));
}

static void exec_deleted(void)
{
	int fd = must(open("/tmp/gone", O_CREAT | O_RDWR, 0755));
	copy("/proc/self/exe", fd);
	close(fd);
	fd = must(open("/tmp/gone", O_RDONLY | O_CLOEXEC));
	must(unlink("/tmp/gone"));
	must(syscall(SYS_execveat, fd, "", nothing, no_environment, AT_EMPTY_PATH));
}

static void exec_descriptor(void)
{
	int fd = must(open("/bin/victim", O_PATH | O_CLOEXEC));
	must(syscall(SYS_execveat, fd, "", nothing, no_environment, AT_EMPTY_PATH));
}
