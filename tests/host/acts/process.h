/* SPDX-License-Identifier: Apache-2.0 */
/* Processes: their birth, their names, their namespaces; the 32-bit way into the kernel. */
#include "acts.h"

static char *const again[] = { "child", "nothing", NULL };

static void run_again(void)
{
	execve("/proc/self/exe", again, no_environment);
	_exit(3);
}

static void by_vfork(void)
{
	pid_t pid = vfork();
	if (!pid)
		run_again();
	wait_for(must(pid));
}

static void by_clone3(void)
{
	struct clone_args a = { .exit_signal = SIGCHLD };
	pid_t pid = must(syscall(SYS_clone3, &a, sizeof(a)));
	if (!pid)
		run_again();
	wait_for(pid);
}

/* The child is made a child of our parent, so that it does not look like ours. */
static void adopted_by_grandparent(void)
{
	pid_t middle = must(fork());
	if (!middle) {
		struct clone_args a = { .flags = CLONE_PARENT };
		pid_t pid = must(syscall(SYS_clone3, &a, sizeof(a)));
		if (!pid)
			run_again();
		_exit(0);
	}
	wait_for(-1);
	wait_for(-1);
}

static void *exec_here(void *unused)
{
	(void)unused;
	run_again();
	return NULL;
}

/* A thread that is not the first one executes: it takes the first one's number. */
static void by_thread(void)
{
	pthread_t other;
	must(-pthread_create(&other, NULL, exec_here, NULL));
	pthread_join(other, NULL);
}

/* The sensor's maps are objects like any other for whoever may use bpf. */
static void open_maps(void)
{
	struct {
		uint32_t id, next, flags, fd;
	} attr = { 0 };
	syscall(SYS_bpf, 12, &attr, sizeof(attr)); /* BPF_MAP_GET_NEXT_ID */
	attr.id = attr.next;
	attr.next = 0;
	syscall(SYS_bpf, 14, &attr, sizeof(attr)); /* BPF_MAP_GET_FD_BY_ID */
}

/* Five hundred programs, each of which ends at once. */
static void short_lives(void)
{
	for (int i = 0; i < 500; i++) {
		pid_t pid = vfork();
		if (!pid) {
			execl("/bin/bare", "bare", "end", NULL);
			_exit(3);
		}
		wait_for(must(pid));
	}
}

/* Everything that a process can say about itself, said wrongly; then an act. */
static void lies(char **argv)
{
	struct prctl_mm_map map = { 0 };
	char line[512], *p;
	FILE *stat = fopen("/proc/self/stat", "r");
	unsigned long n[52] = { 0 };

	must(prctl(PR_SET_NAME, "nginx"));
	memset(argv[0], 'n', strlen(argv[0]));
	must(stat && fgets(line, sizeof(line), stat) ? 0 : -1);
	p = strrchr(line, ')') + 4;
	for (int i = 4; i < 52; i++)
		n[i] = strtoul(p, &p, 10);
	map.start_code = n[26], map.end_code = n[27], map.start_stack = n[28], map.start_data = n[45], map.end_data = n[46];
	map.start_brk = n[47], map.brk = (unsigned long)sbrk(0), map.env_start = n[50], map.env_end = n[51];
	static char claim[] = "nginx: worker process";
	map.arg_start = (unsigned long)claim, map.arg_end = map.arg_start + sizeof(claim);
	map.exe_fd = (unsigned)must(open("/bin/busybox", O_RDONLY));
	if (prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0)) {
		map.exe_fd = (unsigned)-1; /* the program's own file needs a privilege that not every machine gives */
		must(prctl(PR_SET_MM, PR_SET_MM_MAP, &map, sizeof(map), 0));
	}
	read_path(SECRET);
}

/* Out of the container's cgroup, by a cgroup file system of one's own. */
static void leave_cgroup(void)
{
	char pid[16];
	int fd;

	must(mkdir("/tmp/cgroups", 0755));
	must(mount("none", "/tmp/cgroups", "cgroup2", 0, NULL));
	fd = must(open("/tmp/cgroups/cgroup.procs", O_WRONLY));
	snprintf(pid, sizeof(pid), "%d", getpid());
	must(write(fd, pid, strlen(pid)));
	read_path(SECRET);
}

static void own_namespaces(void)
{
	must(unshare(CLONE_NEWUSER | CLONE_NEWNS));
}

static void signal_by_descriptor(void)
{
	pid_t pid = sleeper();
	int fd = must(syscall(SYS_pidfd_open, pid, 0));
	must(syscall(SYS_pidfd_send_signal, fd, SIGUSR1, NULL, 0));
	wait_for(pid);
}

static void queued_signal(void)
{
	pid_t pid = sleeper();
	siginfo_t info = { .si_signo = SIGUSR2, .si_code = SI_QUEUE };
	must(syscall(SYS_rt_sigqueueinfo, pid, SIGUSR2, &info));
	wait_for(pid);
}

static void make_device(void)
{
	must(mknod("/tmp/disk", S_IFBLK | 0600, 0x7f00));
}

#ifdef __x86_64__
/* Numbers of the 32-bit table; what they point to lies below 4 GiB, as everything static here does. */
static long compat(long nr, long b, long c, long d)
{
	long r;
	asm volatile("int $0x80" : "=a"(r) : "0"(nr), "b"(b), "c"(c), "d"(d) : "memory", "r8", "r9", "r10", "r11");
	if (r < 0)
		errno = -r, r = -1;
	return r;
}

static char low_secret[] = SECRET, low_program[] = "/proc/self/exe", low_name[] = "child", low_nothing[] = "nothing";
static uint32_t low_argv[3], low_env[1], low_args[6];
static struct sockaddr_un low_unix;

static uint32_t low(const void *p)
{
	must((uintptr_t)p >> 32 ? -1 : 0);
	return (uint32_t)(uintptr_t)p;
}

static void compat_open(void)
{
	must(compat(5, low(low_secret), O_RDONLY, 0));
}

static void compat_exec(void)
{
	low_argv[0] = low(low_name), low_argv[1] = low(low_nothing);
	must(compat(11, low(low_program), low(low_argv), low(low_env)));
}

/* socketcall(2): one number for all socket calls, their arguments in memory. */
static long socketcall(int call, uint32_t a, uint32_t b, uint32_t c)
{
	low_args[0] = a, low_args[1] = b, low_args[2] = c;
	return compat(102, call, low(low_args), 0);
}

static void compat_raw_socket(void)
{
	must(socketcall(1, AF_PACKET, SOCK_RAW, 0));
}

static void compat_unix(void)
{
	low_unix = unix_name("/run/docker.sock");
	must(socketcall(3, must(socketcall(1, AF_UNIX, SOCK_STREAM, 0)), low(&low_unix), sizeof(low_unix)));
}

/* mmap(2) of the 32-bit table takes its six arguments in memory. */
static void compat_map(void)
{
	low_args[0] = 0, low_args[1] = 4096, low_args[2] = PROT_READ | PROT_WRITE | PROT_EXEC;
	low_args[3] = MAP_PRIVATE | MAP_ANONYMOUS, low_args[4] = (uint32_t)-1, low_args[5] = 0;
	must(compat(90, low(low_args), 0, 0));
}

/* setuid(2) as it was with 16-bit ids. */
static void compat_setuid(void)
{
	must(compat(23, 1234, 0, 0));
}
#endif
