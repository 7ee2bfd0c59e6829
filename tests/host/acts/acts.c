// SPDX-License-Identifier: Apache-2.0
/*
 * What somebody does who does not want to be seen, one act a run: `acts NAME`. Ends with 0 when it was
 * done, 3 when this machine did not let it be done, 2 when there is no such act.
 *
 *   files.h    names and ways of files      memory.h   code from nowhere, other processes' memory
 *   net.h      peers                        process.h  births, names, namespaces, 32-bit calls
 *   truth.h    a workload that writes down everything it does
 *
 * crates/cli/tests/host/evasion.rs runs each one in a container of its own and holds what was recorded
 * against the table beside it.
 */
#include "files.h"
#include "memory.h"
#include "net.h"
#include "process.h"
#include "truth.h"

static void nothing_at_all(void)
{
}

static const struct {
	const char *name;
	void (*act)(void);
} acts[] = {
	{ "nothing", nothing_at_all },
	{ "uring-open", uring_open },
	{ "uring-sqpoll", uring_sqpoll },
	{ "uring-openat2", uring_openat2 },
	{ "uring-unlink", uring_unlink },
	{ "uring-link", uring_link },
	{ "uring-symlinked", uring_symlinked },
	{ "hard-link", hard_link },
	{ "symbolic-link", symbolic_link },
	{ "bind-mount", bind_mount },
	{ "faked-path", faked_path },
	{ "copy-up", copy_up },
	{ "inode-reuse", inode_reuse },
	{ "race-open", race_open },
	{ "argument-unlink", argument_unlink },
	{ "openat2", use_openat2 },
	{ "by-handle", by_handle },
	{ "sendfile", send_file },
	{ "splice", splice_file },
	{ "passed-descriptor", passed_descriptor },
	{ "stolen-descriptor", stolen_descriptor },
	{ "chroot", change_root },
	{ "pivot-root", swap_root },
	{ "rwx", rwx },
	{ "write-then-execute", write_then_execute },
	{ "double-map", double_map },
	{ "moved-mapping", moved_mapping },
	{ "shared-segment", shared_segment },
	{ "read-implies-exec", read_implies_exec },
	{ "proc-mem", proc_mem },
	{ "trace-poke", trace_poke },
	{ "trace-me", trace_me },
	{ "vm-write", vm_write },
	{ "memfd-exec", memfd_exec },
	{ "memfd-execveat", memfd_execveat },
	{ "exec-deleted", exec_deleted },
	{ "exec-descriptor", exec_descriptor },
	{ "tcp-v6", tcp_v6 },
	{ "tcp-mapped", tcp_mapped },
	{ "uring-connect", uring_connect },
	{ "uring-datagram", uring_datagram },
	{ "uring-unix", uring_unix },
	{ "runtime-socket", runtime_socket },
	{ "runtime-socket-by-link", runtime_socket_by_link },
	{ "raw-socket", raw_socket },
	{ "packet-socket", packet_socket },
	{ "datagram", datagram },
	{ "datagrams-at-once", datagrams_at_once },
	{ "dns-udp", dns_udp },
	{ "dns-tcp", dns_tcp },
	{ "dns-tcp-pieces", dns_tcp_pieces },
	{ "dns-odd-port", dns_odd_port },
	{ "uring-raw-socket", uring_raw_socket },
	{ "ping-socket", ping_socket },
	{ "vm-socket", vm_socket },
	{ "unix-datagram", unix_datagram },
	{ "fast-open", fast_open },
	{ "thread-exec", by_thread },
	{ "open-maps", open_maps },
	{ "vfork", by_vfork },
	{ "clone3", by_clone3 },
	{ "adopted", adopted_by_grandparent },
	{ "short-lives", short_lives },
	{ "push-out", push_out },
	{ "leave-cgroup", leave_cgroup },
	{ "own-namespaces", own_namespaces },
	{ "signal-by-descriptor", signal_by_descriptor },
	{ "queued-signal", queued_signal },
	{ "make-device", make_device },
#ifdef __x86_64__
	{ "compat-open", compat_open },
	{ "compat-exec", compat_exec },
	{ "compat-raw-socket", compat_raw_socket },
	{ "compat-unix", compat_unix },
	{ "compat-map", compat_map },
	{ "compat-setuid", compat_setuid },
#endif
};

int main(int argc, char **argv)
{
	const char *name = argc > 1 ? argv[1] : "";

	if (!strcmp(name, "lies")) {
		loopback_up();
		lies(argv);
		return 0;
	}
	if (!strcmp(name, "novel") && argc == 5) {
		novel(atol(argv[2]), atol(argv[3]), argv[4]);
		return 0;
	}
	if (!strcmp(name, "truth") && argc == 6) {
		loopback_up();
		truth(argv + 2);
		return 0;
	}
	for (size_t i = 0; i < sizeof(acts) / sizeof(*acts); i++) {
		if (strcmp(acts[i].name, name))
			continue;
		if (strcmp(name, "nothing"))
			loopback_up();
		acts[i].act();
		return 0;
	}
	fprintf(stderr, "no act is called %s\n", name);
	return 2;
}
