/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * DNS messages where internet sockets take and give them, so that neither files nor pipes pay for them:
 * system calls of both tables and io_uring alike, and without a window to wait for. The names of peers
 * are the kernel's copies; the bytes are read in the program's memory, where the kernel has just read or
 * written them.
 */
#ifndef PLIMSOLL_DNS_H
#define PLIMSOLL_DNS_H

#include "opens.h"

#define MESSAGE_PIECES 4

/* The first piece of what a call took or gave. */
struct piece {
	__u64 at, len;
};

static __always_inline const struct iovec *pieces_of(struct iov_iter *it)
{
	struct iov_iter___63 *old = (void *)it;

	if (bpf_core_field_exists(it->__iov))
		return BPF_CORE_READ(it, __iov);
	return BPF_CORE_READ(old, iov);
}

/*
 * By now the iterator has moved on by n bytes: back over as many, as iov_iter_revert() does. A piece of
 * two bytes is the length that comes before a message over TCP.
 */
static __always_inline bool first_piece(struct iov_iter *it, __u64 n, struct piece *first)
{
	__u64 within = BPF_CORE_READ(it, iov_offset);
	__u8 type = BPF_CORE_READ(it, iter_type);
	const struct iovec *iov;
	__u64 all = n, rest;

	if (bpf_core_enum_value_exists(enum iter_type, ITER_UBUF) && type == bpf_core_enum_value(enum iter_type, ITER_UBUF)) {
		first->len = n < within ? n : within;
		first->at = (__u64)BPF_CORE_READ(it, ubuf) + within - first->len;
		return true;
	}
	if (type != bpf_core_enum_value(enum iter_type, ITER_IOVEC))
		return false;
	iov = pieces_of(it);
	for (int i = 0; i < MESSAGE_PIECES; i++) {
		if (n <= within) {
			first->at = (__u64)BPF_CORE_READ(iov, iov_base) + within - n;
			first->len = n;
			if (i && n == 2 && all > 2) {
				iov++;
				rest = BPF_CORE_READ(iov, iov_len);
				first->at = (__u64)BPF_CORE_READ(iov, iov_base);
				first->len = rest < all - 2 ? rest : all - 2;
			}
			return true;
		}
		n -= within;
		iov--;
		within = BPF_CORE_READ(iov, iov_len);
	}
	return false;
}

/* Not inlined: what is not DNS should not pay for this one's registers. */
static __noinline int passes_dns(struct sock *sk, struct msghdr *msg, int n)
{
	struct scratch *s = enter_hook();
	struct piece first;
	struct ends e;

	if (!s || n <= 0 || !container_of_actor(s) || !read_ends(sk, &e) || e.proto > PROTO_UDP)
		return 0;
	if (!first_piece(&msg->msg_iter, n, &first))
		return 0;
	return use_message(s, &e, first.at, first.len);
}

/* Of a socket that is not connected, the peer is the one that the message names. */
static __always_inline int passes(struct socket *sock, struct msghdr *msg, int n)
{
	struct sock *sk = sock->sk;
	__u16 port = sk->__sk_common.skc_dport;
	void *name;

	if (!port) {
		name = msg->msg_name;
		if (name)
			bpf_probe_read_kernel(&port, sizeof(port), name + 2);
	}
	if (port != bpf_htons(DNS_PORT) || is_idle())
		return 0;
	return passes_dns(sk, msg, n);
}

/* kernel: inet_sendmsg(sock, msg, size) since 4.1, for IPv6 since 5.3; inet_recvmsg(sock, msg, size, flags) */
#define PASSES(name, function, result)                                               \
	SEC("?fexit/" function)                                                      \
	int f_dns_##name(unsigned long long *ctx)                                    \
	{                                                                            \
		return passes((struct socket *)ctx[0], (struct msghdr *)ctx[1], (int)ctx[result]); \
	}

PASSES(sent, "inet_sendmsg", 3)
PASSES(sent6, "inet6_sendmsg", 3)
PASSES(received, "inet_recvmsg", 4)
PASSES(received6, "inet6_recvmsg", 4)

#endif
