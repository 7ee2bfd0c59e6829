/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ground truth: a workload whose every act is new, and which writes down each one (one line an act, on
 * standard output: kind, object). `acts truth PROGRAMS FILES CONNECTIONS DATAGRAMS`.
 *
 * It does nothing else that would be an event, so that what was observed and what was lost can be
 * counted against it: its own start and end are among its lines. `acts novel RATE SECONDS DIRECTORY` makes
 * and removes new files, so many acts a second (0: as many as it can), and says how many acts that were, start
 * and end included, and how many a second.
 */
#include "acts.h"

static void truth_programs(int n)
{
	for (int i = 0; i < n; i++) {
		char number[16];
		pid_t pid;

		snprintf(number, sizeof(number), "%d", i);
		pid = vfork();
		if (!pid) {
			execl("/bin/bare", "bare", "end", number, NULL);
			_exit(3);
		}
		wait_for(must(pid));
		printf("fork\nexec %d\nexit\n", i);
	}
}

static void truth_files(int n)
{
	char name[64];

	for (int i = 0; i < n; i++) {
		snprintf(name, sizeof(name), "/tmp/truth/%d", i);
		close(must(open(name, O_CREAT | O_WRONLY | O_EXCL, 0600)));
		printf("file %s\n", name);
	}
}

/* Each to an address of its own; nothing listens there. */
static void truth_connections(int n)
{
	for (int i = 0; i < n; i++) {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0x7f010000 + i) };
		int fd = must(socket(AF_INET, SOCK_STREAM, 0));
		connect(fd, (void *)&a, sizeof(a));
		close(fd);
		printf("connect %s:9\n", inet_ntoa(a.sin_addr));
	}
}

static void truth_datagrams(int n)
{
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0));

	for (int i = 0; i < n; i++) {
		struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(9), .sin_addr.s_addr = htonl(0x7f020000 + i) };
		/* that nobody takes it is told at the next one */
		if (sendto(fd, "x", 1, 0, (void *)&a, sizeof(a)) < 0)
			must(sendto(fd, "x", 1, 0, (void *)&a, sizeof(a)));
		printf("datagram %s:9\n", inet_ntoa(a.sin_addr));
	}
}

/* More new behaviour than the sensor's memory of it has room for, between two equal acts. */
static void push_out(void)
{
	char name[64];

	read_path(SECRET);
	must(mkdir("/tmp/pushed", 0755));
	for (int i = 0; i < 5000; i++) {
		snprintf(name, sizeof(name), "/tmp/pushed/%d", i);
		close(must(open(name, O_CREAT | O_WRONLY | O_EXCL, 0600)));
		if (i % 500 == 499)
			usleep(50000); /* what is meant is the memory, not the rings */
	}
	read_path(SECRET);
}

static double seconds_now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec + t.tv_nsec / 1e9;
}

static void novel(long rate, long seconds, const char *dir)
{
	double from = seconds_now(), now = from;
	long acts = 0;
	char name[256];

	for (; now < from + seconds; now = seconds_now()) {
		/* what is due by now, a hundred at most between two looks at the clock */
		long due = rate ? (long)((now - from) * rate) - acts : 100;

		if (due <= 0)
			usleep(500);
		for (long i = 0; i < due && i < 100; i += 2, acts += 2) {
			snprintf(name, sizeof(name), "%s/%ld", dir, acts);
			close(must(open(name, O_CREAT | O_WRONLY | O_EXCL, 0600)));
			must(unlink(name));
		}
	}
	printf("%ld %.0f\n", acts + 2, acts / (now - from));
}

static void truth(char **n)
{
	must(mkdir("/tmp/truth", 0755));
	printf("exec self\nfile /tmp/truth\n");
	truth_programs(atoi(n[0]));
	truth_files(atoi(n[1]));
	truth_connections(atoi(n[2]));
	truth_datagrams(atoi(n[3]));
	printf("exit\n");
}
