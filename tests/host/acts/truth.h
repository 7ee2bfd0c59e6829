/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ground truth: a workload whose every act is new, and which writes down each one (one line an act, on
 * standard output: kind, object). `acts truth PROGRAMS FILES CONNECTIONS DATAGRAMS`.
 *
 * It does nothing else that would be an event, so that what was observed and what was lost can be
 * counted against it: its own start and end are among its lines.
 *
 * `acts novel RATE SECONDS DIRECTORY` does what nobody has done before, so many acts a second (0: as many as
 * it can), and says how many acts that were, start and end included, how many a second, and how much of a
 * core it took. DIRECTORY is its own, empty, best on a tmpfs: there an act costs it little more than the call.
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

/* One file and one socket, used under ever new names and for ever new peers. */
struct novelty {
	char from[256], to[256];
	size_t dir; /* length of the directory in both */
	int socket;
	long names, peers; /* used so far */
	long acts;
};

/* The next name that nobody has used: `f17`. Without printf, which costs as much as an act. */
static void next_name(struct novelty *n, char *path, char kind)
{
	char digits[20], *to = path + n->dir;
	int i = 0;

	for (long left = ++n->names; left; left /= 10)
		digits[i++] = '0' + left % 10;
	*to++ = kind;
	while (i)
		*to++ = digits[--i];
	*to = 0;
}

/* A datagram peer is told when the socket is given its address: nothing need be sent. */
static void meet_peer(struct novelty *n)
{
	long at = n->peers++;
	struct sockaddr_in a = { .sin_family = AF_INET,
				 .sin_port = htons(1024 + at / 16000000 % 60000),
				 .sin_addr.s_addr = htonl(0x7f000001 + at % 16000000) };

	must(connect(n->socket, (void *)&a, sizeof(a)));
	n->acts++;
}

/* Its file, under the next name. */
static void rename_on(struct novelty *n)
{
	next_name(n, n->to, 'f');
	must(rename(n->from, n->to));
	strcpy(n->from + n->dir, n->to + n->dir);
	n->acts++;
}

/* A turn: two peers, two renames, a directory made and removed, a file made and removed. */
static void novel_turn(struct novelty *n)
{
	meet_peer(n);
	rename_on(n);
	next_name(n, n->to, 'd');
	must(mkdir(n->to, 0755));
	must(rmdir(n->to));
	meet_peer(n);
	rename_on(n);
	next_name(n, n->to, 'n');
	close(must(open(n->to, O_CREAT | O_WRONLY | O_EXCL, 0600)));
	must(unlink(n->to));
	n->acts += 4;
}

static void novel(long rate, long seconds, const char *dir)
{
	double from = seconds_now(), now = from;
	struct novelty n = { .dir = strlen(dir) + 1, .socket = must(socket(AF_INET, SOCK_DGRAM, 0)) };
	struct timespec used;

	snprintf(n.to, sizeof(n.to) - 32, "%s/", dir);
	strcpy(n.from, n.to);
	next_name(&n, n.from, 'f');
	close(must(open(n.from, O_CREAT | O_WRONLY | O_EXCL, 0600)));
	n.acts++;
	for (; now < from + seconds; now = seconds_now()) {
		/* what is due by now, some hundred at most between two looks at the clock */
		long due = rate ? (long)((now - from) * rate) - n.acts : 128, until = n.acts + (due < 128 ? due : 128);

		if (due <= 0)
			usleep(500);
		while (n.acts < until)
			novel_turn(&n);
	}
	clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
	/* its own start and end are acts too */
	printf("%ld %.0f %.2f\n", n.acts + 2, n.acts / (now - from), (used.tv_sec + used.tv_nsec / 1e9) / (now - from));
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
