/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A program without any library, as languages with their own runtime make them: reads the secret by a
 * system call of its own and ends. `bare end` only ends.
 */
static long call(long nr, long a, long b, long c)
{
	long r;
#if defined(__x86_64__)
	asm volatile("syscall" : "=a"(r) : "0"(nr), "D"(a), "S"(b), "d"(c) : "rcx", "r11", "memory");
#elif defined(__aarch64__)
	register long x8 asm("x8") = nr, x0 asm("x0") = a, x1 asm("x1") = b, x2 asm("x2") = c;
	asm volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2) : "memory");
	r = x0;
#endif
	return r;
}

#if defined(__x86_64__)
#define NR_OPENAT 257
#define NR_EXIT 231
asm(".globl _start\n_start: mov (%rsp), %rdi\n and $-16, %rsp\n call go\n");
#elif defined(__aarch64__)
#define NR_OPENAT 56
#define NR_EXIT 94
asm(".globl _start\n_start: ldr x0, [sp]\n bl go\n");
#endif

__attribute__((used, noreturn)) void go(long argc)
{
	long fd = argc > 1 ? 0 : call(NR_OPENAT, -100, (long)"/etc/shadow", 0);
	call(NR_EXIT, fd < 0 ? 3 : 0, 0, 0);
	__builtin_unreachable();
}
