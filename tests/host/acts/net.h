/* SPDX-License-Identifier: Apache-2.0 */
/* Peers by every family, call and disguise. Nothing needs to answer. */
#include "acts.h"

static struct sockaddr_in v4(const char *ip, int port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };
	must(inet_pton(AF_INET, ip, &a.sin_addr) - 1);
	return a;
}

static struct sockaddr_in6 v6(const char *ip, int port)
{
	struct sockaddr_in6 a = { .sin6_family = AF_INET6, .sin6_port = htons(port) };
	must(inet_pton(AF_INET6, ip, &a.sin6_addr) - 1);
	return a;
}

/* The loopback of a new network namespace is down. */
static void loopback_up(void)
{
	struct {
		char name[16];
		short flags;
		char rest[22];
	} request = { .name = "lo", .flags = 1 };
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0));
	syscall(SYS_ioctl, fd, 0x8914, &request); /* SIOCSIFFLAGS, IFF_UP */
	close(fd);
}

static void tcp_v6(void)
{
	struct sockaddr_in6 a = v6("::1", 47001);
	connect(must(socket(AF_INET6, SOCK_STREAM, 0)), (void *)&a, sizeof(a));
}

static void tcp_mapped(void)
{
	struct sockaddr_in6 a = v6("::ffff:127.0.0.1", 47002);
	connect(must(socket(AF_INET6, SOCK_STREAM, 0)), (void *)&a, sizeof(a));
}

static void uring_connect(void)
{
	struct sockaddr_in a = v4("127.0.0.1", 47003);
	struct io_uring_sqe sqe = { .opcode = IORING_OP_CONNECT, .fd = must(socket(AF_INET, SOCK_STREAM, 0)), .addr = (uintptr_t)&a, .off = sizeof(a) };
	ring_request(0, &sqe);
}

static struct msghdr message(void *to, int to_len, struct iovec *iov)
{
	return (struct msghdr){ .msg_name = to, .msg_namelen = to_len, .msg_iov = iov, .msg_iovlen = 1 };
}

static void uring_datagram(void)
{
	struct sockaddr_in a = v4("127.0.0.1", 47004);
	struct iovec iov = { "x", 1 };
	struct msghdr m = message(&a, sizeof(a), &iov);
	struct io_uring_sqe sqe = { .opcode = IORING_OP_SENDMSG, .fd = must(socket(AF_INET, SOCK_DGRAM, 0)), .addr = (uintptr_t)&m, .len = 1 };
	must(ring_request(0, &sqe));
}

static struct sockaddr_un unix_name(const char *path)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	strncpy(a.sun_path, path, sizeof(a.sun_path) - 1);
	return a;
}

static void uring_unix(void)
{
	struct sockaddr_un a = unix_name("/run/docker.sock");
	struct io_uring_sqe sqe = { .opcode = IORING_OP_CONNECT, .fd = must(socket(AF_UNIX, SOCK_STREAM, 0)), .addr = (uintptr_t)&a, .off = sizeof(a) };
	ring_request(0, &sqe);
}

static void runtime_socket(void)
{
	struct sockaddr_un a = unix_name("/run/docker.sock");
	must(connect(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&a, sizeof(a)));
}

/* The same socket by a symbolic link in a working directory of one's own. */
static void runtime_socket_by_link(void)
{
	struct sockaddr_un a = unix_name("quiet");
	must(chdir("/tmp"));
	must(symlink("/run/docker.sock", "quiet"));
	must(connect(must(socket(AF_UNIX, SOCK_STREAM, 0)), (void *)&a, sizeof(a)));
}

static void raw_socket(void)
{
	struct sockaddr_in a = v4("127.0.0.1", 0);
	int fd = must(socket(AF_INET, SOCK_RAW, IPPROTO_ICMP));
	must(sendto(fd, "12345678", 8, 0, (void *)&a, sizeof(a)));
}

static void packet_socket(void)
{
	must(socket(AF_PACKET, SOCK_RAW, htons(3)));
}

static void datagram(void)
{
	struct sockaddr_in a = v4("127.0.0.1", 47005);
	must(sendto(must(socket(AF_INET, SOCK_DGRAM, 0)), "x", 1, 0, (void *)&a, sizeof(a)));
}

static void datagrams_at_once(void)
{
	struct sockaddr_in a[2] = { v4("127.0.0.1", 47006), v4("127.0.0.1", 47007) };
	struct iovec iov = { "x", 1 };
	struct mmsghdr m[2] = { { .msg_hdr = message(&a[0], sizeof(a[0]), &iov) }, { .msg_hdr = message(&a[1], sizeof(a[1]), &iov) } };
	must(sendmmsg(must(socket(AF_INET, SOCK_DGRAM, 0)), m, 2, 0) - 2);
}

/* A raw socket that no socket call makes. */
static void uring_raw_socket(void)
{
	struct io_uring_sqe sqe = { .opcode = IORING_OP_SOCKET, .fd = AF_PACKET, .off = SOCK_RAW, .len = 0 };
	must(ring_request(0, &sqe));
}

/* Made or refused: who may is a setting of the network namespace. */
static void ping_socket(void)
{
	socket(AF_INET, SOCK_DGRAM, IPPROTO_ICMP);
}

static void vm_socket(void)
{
	socket(40, SOCK_STREAM, 0); /* AF_VSOCK: to the hypervisor and its other guests */
}

static void unix_datagram(void)
{
	struct sockaddr_un a = unix_name("/tmp/log.sock");
	int server = must(socket(AF_UNIX, SOCK_DGRAM, 0));
	must(bind(server, (void *)&a, sizeof(a)));
	must(sendto(must(socket(AF_UNIX, SOCK_DGRAM, 0)), "x", 1, 0, (void *)&a, sizeof(a)));
}

/* A question for www.hidden.example, type A, behind the length that TCP puts before it. */
static char question[] = "\0\x24\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x03www\x06hidden\x07" "example\0\0\x01\0\x01";
#define QUESTION_BYTES (sizeof(question) - 1)

static void dns_udp(void)
{
	struct sockaddr_in a = v4("127.0.0.1", 53);
	int fd = must(socket(AF_INET, SOCK_DGRAM, 0));
	must(connect(fd, (void *)&a, sizeof(a)));
	must(send(fd, question + 2, QUESTION_BYTES - 2, 0));
}

static int server_on(int port)
{
	struct sockaddr_in a = v4("127.0.0.1", port);
	int fd = must(socket(AF_INET, SOCK_STREAM, 0));
	must(bind(fd, (void *)&a, sizeof(a)));
	must(listen(fd, 8));
	return fd;
}

static int dialled(int port)
{
	struct sockaddr_in a = v4("127.0.0.1", port);
	int fd = must(socket(AF_INET, SOCK_STREAM, 0));
	must(connect(fd, (void *)&a, sizeof(a)));
	return fd;
}

/* Connects and sends in one call that is not connect. */
static void fast_open(void)
{
	struct sockaddr_in a = v4("127.0.0.1", 47008);
	server_on(47008);
	must(sendto(must(socket(AF_INET, SOCK_STREAM, 0)), "x", 1, MSG_FASTOPEN, (void *)&a, sizeof(a)));
}

static void dns_tcp(void)
{
	server_on(53);
	must(write(dialled(53), question, QUESTION_BYTES));
}

/* As the C library does it: the length and the message as two pieces. */
static void dns_tcp_pieces(void)
{
	struct iovec iov[2] = { { question, 2 }, { question + 2, QUESTION_BYTES - 2 } };
	server_on(53);
	must(writev(dialled(53), iov, 2));
}

static void dns_odd_port(void)
{
	struct sockaddr_in a = v4("127.0.0.1", 5353);
	must(sendto(must(socket(AF_INET, SOCK_DGRAM, 0)), question + 2, QUESTION_BYTES - 2, 0, (void *)&a, sizeof(a)));
}
