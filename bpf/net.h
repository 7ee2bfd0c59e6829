/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Sockets. Addresses are 16 bytes, IPv4 as v4-mapped, read from the socket; ports in host order.
 */
#ifndef PLIMSOLL_NET_H
#define PLIMSOLL_NET_H

#include "sys.h"

#define DNS_WINDOW_NS 10000000000ULL
#define DNS_PORT 53

struct ends {
	__u64 local[2], remote[2]; /* network order */
	__u16 lport, rport;
	__u16 family;
	__u8 proto;
};

static __always_inline bool read_ends(struct sock *sk, struct ends *e)
{
	__u16 type, protocol;

	__builtin_memset(e, 0, sizeof(*e));
	e->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	type = BPF_CORE_READ(sk, sk_type);
	protocol = BPF_CORE_READ(sk, sk_protocol);
	e->lport = BPF_CORE_READ(sk, __sk_common.skc_num);
	e->rport = bpf_ntohs(BPF_CORE_READ(sk, __sk_common.skc_dport));
	e->proto = type == SOCK_RAW ? PROTO_RAW : protocol == 6 ? PROTO_TCP : protocol == 17 ? PROTO_UDP : PROTO_OTHER;
	if (e->family == AF_INET) {
		e->local[1] = (__u64)BPF_CORE_READ(sk, __sk_common.skc_rcv_saddr) << 32 | bpf_htonl(0xffff);
		e->remote[1] = (__u64)BPF_CORE_READ(sk, __sk_common.skc_daddr) << 32 | bpf_htonl(0xffff);
		return true;
	}
	if (e->family == AF_INET6) {
		BPF_CORE_READ_INTO(&e->local, sk, __sk_common.skc_v6_rcv_saddr);
		BPF_CORE_READ_INTO(&e->remote, sk, __sk_common.skc_v6_daddr);
		return true;
	}
	return false;
}

/* Opens the handlers of the calls that carry DNS messages, for as long as somebody resolves. */
static __always_inline void open_dns_gates(void)
{
	__u64 until = bpf_ktime_get_boot_ns() + DNS_WINDOW_NS;

	dns_until_ns = until;
	for (int i = 0; i < 16; i++) {
		__u32 nr = dns_numbers[i] & (SYSCALLS - 1);
		if (nr || dns_handlers[nr])
			gates[nr].handler = dns_handlers[nr];
	}
}

/* A connection, listener or datagram peer; s->actor is set. */
static __always_inline int use_ends(struct scratch *s, struct container *c, struct ends *e, __u32 kind, __u32 slot)
{
	__u16 port = kind == WIRE_CONNECT || kind == WIRE_DATAGRAM ? e->rport : e->lport;
	__u64 *who = kind == WIRE_LISTEN || kind == WIRE_BIND ? e->local : e->remote;
	__u64 about = (__u64)port << 8 | e->proto;
	int told;

	start_key(&s->key, &s->actor, kind, e->proto);
	s->key.object[0] = who[0];
	s->key.object[1] = who[1];
	s->key.object[2] = about;
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return 0;
	if (slot == SLOT_SEND)
		begin_untyped(s, kind, &s->actor);
	else
		begin(s, kind, &s->actor);
	s->e.num[0] = e->proto;
	s->e.num[1] = e->family;
	s->e.num[2] = s->ret;
	s->e.num[3] = e->lport;
	s->e.num[4] = e->rport;
	put_kernel(s, 0, e->local, 16);
	put_kernel(s, 1, e->remote, 16);
	if (told == WATCHED) {
		emit_watched(s, slot);
		return 0;
	}
	if (in_set(s, c, sip4(who[0], who[1], about, 0), s->key.code, 0) ||
	    in_set(s, c, sip4(0, 0, about, 0), s->key.code, 1))
		s->verdict = KNOWN;
	else
		s->verdict = NOVEL;
	settle(slot, kind == WIRE_CONNECT || kind == WIRE_LISTEN);
	return 0;
}

/*
 * kernel: TRACE_EVENT(inet_sock_set_state), TP_PROTO(sk, oldstate, newstate), since 4.16. The
 * change to SYN_SENT or LISTEN happens in the task that connects or listens, io_uring included.
 */
SEC("tp_btf/inet_sock_set_state")
int BPF_PROG(on_sock_state, struct sock *sk, int oldstate, int newstate)
{
	__u32 tgid;
	struct process *p;
	struct container *c;
	struct scratch *s;
	struct ends e;

	if ((newstate != TCP_SYN_SENT && newstate != TCP_LISTEN) || is_idle())
		return 0;
	tgid = bpf_get_current_pid_tgid() >> 32;
	p = bpf_map_lookup_elem(&processes, &tgid);
	if (!p || (p->flags & PROCESS_SETUP))
		return 0;
	s = scratch_of(SLOT_SOCK);
	if (!s)
		return 0;
	s->actor = *p;
	s->ret = 0;
	c = container_of_actor(s);
	if (!c || !read_ends(sk, &e))
		return 0;
	if (e.rport == DNS_PORT)
		open_dns_gates();
	return use_ends(s, c, &e, newstate == TCP_LISTEN ? WIRE_LISTEN : WIRE_CONNECT, SLOT_SOCK);
}

/* A UNIX peer by the name it is bound to; abstract names start with a zero byte. */
static __always_inline int unix_peer(struct scratch *s, struct container *c, struct sock *sk, __u64 sockaddr, __u32 addrlen)
{
	struct unix_sock *us = (struct unix_sock *)sk;
	struct sock *peer = BPF_CORE_READ(us, peer);
	struct unix_sock *pu = (struct unix_sock *)peer;
	struct unix_address *addr = peer ? BPF_CORE_READ(pu, addr) : NULL;
	__u32 len;

	begin(s, WIRE_CONNECT, &s->actor);
	s->e.num[0] = PROTO_UNIX;
	s->e.num[1] = AF_UNIX;
	s->e.num[2] = s->ret;
	if (addr) {
		/* struct unix_address: name[] follows len; struct sockaddr_un: family, path */
		len = BPF_CORE_READ(addr, len) - 2;
		put_kernel(s, 1, (void *)addr + bpf_core_field_offset(struct unix_address, len) + 4 + 2, len > 110 ? 110 : len);
	} else {
		len = addrlen - 2;
		s->e.flags |= WIRE_ARGUMENT;
		put_user(s, 1, sockaddr + 2, len > 110 ? 110 : len);
	}
	return use_words(s, WIRE_CONNECT, PROTO_UNIX, hash_string(s, 1, 0), 0, 1);
}

HANDLER(connect)
{
	struct sock *sk;
	struct ends e;
	CONTAINER(s, c);

	sk = sock_of(s->args[0]);
	if (!sk)
		return 0;
	if (BPF_CORE_READ(sk, __sk_common.skc_family) == AF_UNIX)
		return unix_peer(s, c, sk, s->args[1], s->args[2]);
	if (s->ret < 0 || !read_ends(sk, &e) || e.proto == PROTO_TCP)
		return 0; /* TCP comes through inet_sock_set_state */
	if (!e.rport)
		return 0;
	if (e.proto == PROTO_UDP && e.rport == DNS_PORT)
		open_dns_gates();
	return use_ends(s, c, &e, WIRE_DATAGRAM, s->slot);
}

HANDLER(accept)
{
	struct sock *sk;
	struct ends e;
	CONTAINER(s, c);

	if (s->ret < 0)
		return 0;
	sk = sock_of(s->ret);
	if (!sk || !read_ends(sk, &e))
		return 0;
	s->ret = 0;
	return use_ends(s, c, &e, WIRE_ACCEPT, s->slot);
}

HANDLER(bind)
{
	struct sock *sk;
	struct ends e;
	CONTAINER(s, c);

	if (s->ret < 0)
		return 0;
	sk = sock_of(s->args[0]);
	if (!sk || !read_ends(sk, &e))
		return 0;
	/* an ephemeral port is no news, whatever its number */
	if (call_numbers[s->nr & (SYSCALLS - 1)] == 0 && e.lport >= 32768 && e.proto != PROTO_TCP)
		e.lport = 0;
	return use_ends(s, c, &e, WIRE_BIND, s->slot);
}

HANDLER(socket)
{
	__u32 family, type;
	bool plain;

	family = s->args[0];
	type = s->args[1] & 0xf;
	/* pings, SCTP and the like carry data that no connection or datagram event shows; MPTCP is TCP */
	plain = s->args[2] == 0 || s->args[2] == 6 || s->args[2] == 17 || s->args[2] == 262 || family == AF_UNIX;
	if (plain && (family == AF_INET || family == AF_INET6 || family == AF_UNIX) && (type == SOCK_STREAM || type == SOCK_DGRAM || family == AF_UNIX))
		return 0;
	begin(s, WIRE_SOCKET, &s->actor);
	s->e.num[0] = family;
	s->e.num[1] = type;
	s->e.num[2] = s->args[2];
	s->e.num[3] = s->ret;
	return use_words(s, WIRE_SOCKET, 0, (__u64)family << 32 | type, s->args[2], family != AF_NETLINK);
}

/* Port of the peer named in a call, or of the connected socket. */
static __always_inline __u16 peer_port(struct ends *e, __u64 name)
{
	__u16 head[2] = {};

	if (e->rport)
		return e->rport;
	if (!name || bpf_probe_read_user(head, sizeof(head), (void *)name))
		return 0;
	return bpf_ntohs(head[1]);
}

#define DNS_MAX 1024

/* One DNS message at buf; the key is its question, so that equal questions are known. */
static __always_inline int use_message(struct scratch *s, struct ends *e, __u64 buf, __u64 len)
{
	__u8 head[8] = {};
	__u32 question = 0;
	__u64 n;
	int told;

	if (len < 17)
		return 0;
	if (bpf_probe_read_user(head, sizeof(head), (void *)buf))
		return 0;
	/*
	 * TCP has the length before the message (RFC 1035, 4.2.2), in the same piece or in one before:
	 * it is there when it fits, or when the number of questions stands behind it.
	 */
	if (e->proto == PROTO_TCP &&
	    ((head[0] << 8 | head[1]) == len - 2 || ((head[6] << 8 | head[7]) == 1 && (head[4] << 8 | head[5]) != 1))) {
		buf += 2;
		len -= 2;
		head[2] = head[4];
	}
	begin(s, WIRE_DNS, &s->actor);
	s->e.num[0] = head[2] >> 7;
	s->e.num[1] = e->family;
	s->e.num[4] = DNS_PORT;
	s->e.num[5] = len;
	put_user(s, 0, buf, len > DNS_MAX ? DNS_MAX : len);
	put_kernel(s, 1, e->remote, 16);
	__builtin_memset(s->word, 0, 264);
	n = len - 12 > 248 ? 248 : len - 12;
	MASK(n, 255);
	bpf_probe_read_kernel(s->word, n, &s->data[12]);
	for (question = 0; question < 240; question++) {
		if (!((__u8 *)s->word)[question])
			break;
	}
	hash_word(s->slot, (question + 5) & 0xff);
	start_key(&s->key, &s->actor, WIRE_DNS, s->e.num[0]);
	s->key.object[0] = s->hash;
	/* answers change: one of them is looked at every half minute (2^35 ns) */
	s->key.object[1] = s->e.num[0] ? s->e.boot_ns >> 35 : 0;
	told = consult(&s->key, s->actor.cgroup);
	if (told == HIT)
		return 0;
	s->verdict = NOVEL;
	if (told == WATCHED)
		emit_watched(s, s->slot);
	else
		settle(s->slot, 0);
	return 0;
}

/* The same, of a call on a socket; name: who it was sent to or came from, as the program has it. */
static __always_inline int use_dns(struct scratch *s, __u32 fd, __u64 buf, __u64 len, __u64 name)
{
	struct sock *sk = sock_of(fd);
	struct ends e;

	if (!sk || !read_ends(sk, &e) || e.proto > PROTO_UDP || peer_port(&e, name) != DNS_PORT)
		return 0;
	return use_message(s, &e, buf, len);
}

/* sendto, write, recvfrom, read: (fd, buffer, length, flags, address) */
HANDLER(dns_buffer)
{
	__u32 call;

	if (!container_of_actor(s))
		return 0;
	call = call_numbers[s->nr & (SYSCALLS - 1)];
	if (s->ret <= 0)
		return 0;
	return use_dns(s, s->args[0], s->args[1], s->ret, call ? s->args[4] : 0);
}

struct user_msghdr {
	__u64 name;
	__u32 namelen, pad;
	__u64 iov;
	__u64 iovlen;
	__u64 control, controllen;
	__u32 flags, pad2;
};

/*
 * sendmsg, recvmsg: (fd, msghdr); sendmmsg, recvmmsg: (fd, mmsghdr[]), the first four messages;
 * writev, readv: (fd, iovec[], count). The first piece, or the second when the first is a length.
 */
HANDLER(dns_message)
{
	struct user_msghdr m;
	struct { __u64 base, len; } iov;
	__u32 many, n;

	if (!container_of_actor(s))
		return 0;
	many = call_numbers[s->nr & (SYSCALLS - 1)];
	if (s->ret <= 0 || s->compat)
		return 0;
	n = many == 1 ? s->ret : 1;
	for (__u32 i = 0; i < 4; i++) {
		if (i >= n)
			break;
		if (many == 2) {
			m.iov = s->args[1];
			m.iovlen = s->args[2];
			m.name = 0;
		} else if (bpf_probe_read_user(&m, sizeof(m), (void *)(s->args[1] + i * (sizeof(m) + 8)))) {
			return 0;
		}
		if (bpf_probe_read_user(&iov, sizeof(iov), (void *)m.iov))
			return 0;
		if (iov.len == 2 && m.iovlen > 1 && bpf_probe_read_user(&iov, sizeof(iov), (void *)(m.iov + sizeof(iov))))
			return 0;
		use_dns(s, s->args[0], iov.base, iov.len, m.name);
	}
	return 0;
}

/* Unconnected datagrams: the kernel's own copy of the address, in the task that sends. */
static __always_inline int sends(struct bpf_sock_addr *ctx, __u32 family)
{
	__u32 tgid = bpf_get_current_pid_tgid() >> 32;
	struct process *p = is_idle() ? NULL : bpf_map_lookup_elem(&processes, &tgid);
	struct container *c;
	struct scratch *s;
	struct ends e = {};

	if (!p || (p->flags & PROCESS_SETUP))
		return 1;
	s = scratch_of(SLOT_SEND);
	if (!s)
		return 1;
	s->actor = *p;
	s->ret = 0;
	c = container_of_actor(s);
	if (!c)
		return 1;
	e.family = family;
	e.proto = PROTO_UDP;
	e.rport = bpf_ntohs(ctx->user_port);
	if (family == AF_INET) {
		e.remote[1] = (__u64)ctx->user_ip4 << 32 | bpf_htonl(0xffff);
	} else {
		e.remote[0] = (__u64)ctx->user_ip6[1] << 32 | ctx->user_ip6[0];
		e.remote[1] = (__u64)ctx->user_ip6[3] << 32 | ctx->user_ip6[2];
	}
	if (e.rport == DNS_PORT)
		open_dns_gates();
	use_ends(s, c, &e, WIRE_DATAGRAM, SLOT_SEND);
	return 1;
}

SEC("cgroup/sendmsg4")
int on_sendmsg4(struct bpf_sock_addr *ctx)
{
	return sends(ctx, AF_INET);
}

SEC("cgroup/sendmsg6")
int on_sendmsg6(struct bpf_sock_addr *ctx)
{
	return sends(ctx, AF_INET6);
}

#endif
