// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * Cuts what the sockets of one cgroup (v2) and of those below it send and receive, whatever network they
 * are in: one object for each cut, loaded when a container is to be isolated. The cgroup holds the
 * programs, so the cut outlasts whoever made it and ends with the cgroup.
 *
 * A packet passes when its other end is an address of plim_allow. Packet sockets do not come by here.
 * For a moment, while connections are being ended, resets may leave: they tell the other ends.
 */
#include <linux/types.h>
#include <linux/bpf.h>
#include <bpf/bpf_helpers.h>
#include <bpf/bpf_endian.h>

#define ETH_P_IP 0x0800
#define ETH_P_IPV6 0x86dd
#define LOOPBACK_IFINDEX 1
#define TCP 6
#define TCP_FLAGS 13
#define TCP_RST 4
#define IPV4_FRAGMENT 0x1fff
#define IPV6_HEADER 40

/* the address of IPv4 at the front; the length counts the version, too */
struct prefix {
	__u32 length;
	__u32 version;
	__u8 address[16];
};
struct {
	__uint(type, BPF_MAP_TYPE_LPM_TRIE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 64);
	__type(key, struct prefix);
	__type(value, __u32);
} plim_allow SEC(".maps");

struct cut {
	__u64 plan;	    /* tells this cut from others: the hash of its plan's id */
	__u64 resets_until; /* on the clock of bpf_ktime_get_ns(): an agent that dies leaves no hole */
	__u32 own_network;  /* a network of the container's own: its loopback leads nowhere else */
	__u32 pad;
};
struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, __u32);
	__type(value, struct cut);
} plim_cut SEC(".maps");

/* A TCP segment that ends its connection; a later fragment has no flags to look at. */
static __always_inline int is_reset(struct __sk_buff *skb, int v4)
{
	__u8 first, protocol, flags;
	__u16 fragment;
	__u32 header = IPV6_HEADER;

	if (bpf_skb_load_bytes(skb, v4 ? 9 : 6, &protocol, 1) || protocol != TCP)
		return 0;
	if (v4) {
		if (bpf_skb_load_bytes(skb, 0, &first, 1) || bpf_skb_load_bytes(skb, 6, &fragment, 2))
			return 0;
		if (fragment & bpf_htons(IPV4_FRAGMENT))
			return 0;
		header = (first & 0xf) * 4;
	}
	return !bpf_skb_load_bytes(skb, header + TCP_FLAGS, &flags, 1) && (flags & TCP_RST);
}

static __always_inline int passes(struct __sk_buff *skb, int out)
{
	struct prefix other = { .length = 32 + 128 };
	__u32 zero = 0;
	struct cut *cut = bpf_map_lookup_elem(&plim_cut, &zero);
	int v4 = skb->protocol == bpf_htons(ETH_P_IP);
	long err;

	if (!cut)
		return 0;
	if (cut->own_network && skb->ifindex == LOOPBACK_IFINDEX)
		return 1;
	if (v4) {
		other.version = 4;
		err = bpf_skb_load_bytes(skb, out ? 16 : 12, other.address, 4);
	} else if (skb->protocol == bpf_htons(ETH_P_IPV6)) {
		other.version = 6;
		err = bpf_skb_load_bytes(skb, out ? 24 : 8, other.address, 16);
	} else {
		return 0;
	}
	if (err)
		return 0;
	if (bpf_map_lookup_elem(&plim_allow, &other))
		return 1;
	return out && bpf_ktime_get_ns() < cut->resets_until && is_reset(skb, v4);
}

SEC("cgroup_skb/egress")
int plim_cut_out(struct __sk_buff *skb)
{
	return passes(skb, 1);
}

SEC("cgroup_skb/ingress")
int plim_cut_in(struct __sk_buff *skb)
{
	return passes(skb, 0);
}

char LICENSE[] SEC("license") = "Dual BSD/GPL";
