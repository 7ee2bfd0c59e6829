/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * SipHash-1-3 (Aumasson and Bernstein, "SipHash: a fast short-input PRF", 2012; the variant with
 * one compression and three finalization rounds), with the per-boot key of this node.
 *
 * Names and addresses are chosen by whoever is in the container; without the key nobody can find
 * two that collide. User space computes the same function (crate siphasher, SipHasher13).
 */
#ifndef PLIMSOLL_SIPHASH_H
#define PLIMSOLL_SIPHASH_H

#include "kernel.h"

/* per-boot key, set before load */
const volatile __u64 sip_k0 = 0;
const volatile __u64 sip_k1 = 0;

#define ROTL(x, b) (((x) << (b)) | ((x) >> (64 - (b))))
#define SIPROUND                 \
	do {                     \
		v0 += v1;        \
		v1 = ROTL(v1, 13); \
		v1 ^= v0;        \
		v0 = ROTL(v0, 32); \
		v2 += v3;        \
		v3 = ROTL(v3, 16); \
		v3 ^= v2;        \
		v0 += v3;        \
		v3 = ROTL(v3, 21); \
		v3 ^= v0;        \
		v2 += v1;        \
		v1 = ROTL(v1, 17); \
		v1 ^= v2;        \
		v2 = ROTL(v2, 32); \
	} while (0)

#define SIP_INIT                                        \
	__u64 v0 = 0x736f6d6570736575ULL ^ sip_k0;      \
	__u64 v1 = 0x646f72616e646f6dULL ^ sip_k1;      \
	__u64 v2 = 0x6c7967656e657261ULL ^ sip_k0;      \
	__u64 v3 = 0x7465646279746573ULL ^ sip_k1

#define SIP_WORD(m)          \
	do {                 \
		v3 ^= (m);   \
		SIPROUND;    \
		v0 ^= (m);   \
	} while (0)

#define SIP_END(last)        \
	SIP_WORD(last);      \
	v2 ^= 0xff;          \
	SIPROUND;            \
	SIPROUND;            \
	SIPROUND

/* Two words: the chain step from a directory to its child, and most keys. */
static __always_inline __u64 sip2(__u64 a, __u64 b)
{
	SIP_INIT;
	SIP_WORD(a);
	SIP_WORD(b);
	SIP_END(16ULL << 56);
	return v0 ^ v1 ^ v2 ^ v3;
}

static __always_inline __u64 sip4(__u64 a, __u64 b, __u64 c, __u64 d)
{
	SIP_INIT;
	SIP_WORD(a);
	SIP_WORD(b);
	SIP_WORD(c);
	SIP_WORD(d);
	SIP_END(32ULL << 56);
	return v0 ^ v1 ^ v2 ^ v3;
}

/*
 * len bytes at p. The buffer must be readable up to the end of the 8-byte word that holds the
 * last byte, and words is the constant bound of the loop (bytes beyond words * 8 are left out).
 */
static __always_inline __u64 sip_bytes(const __u64 *p, __u32 len, int words)
{
	SIP_INIT;
	__u32 full = len / 8, rest = len % 8;
	__u64 last = (__u64)len << 56;
	for (int i = 0; i < words; i++) {
		__u32 end = full;

		/* the compiler must not fold both bounds into one: verifiers up to 6.1 need the constant */
		asm volatile("" : "+r"(end));
		if (i >= end)
			break;
		SIP_WORD(p[i]);
	}
	if (rest && full < words) /* words is a power of two */
		last |= p[full & (words - 1)] & ((1ULL << (rest * 8)) - 1);
	SIP_END(last);
	return v0 ^ v1 ^ v2 ^ v3;
}

#endif
