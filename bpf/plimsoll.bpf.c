// SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause)
/*
 * The kernel side of Plimsoll: known behaviour is counted where it happens and never leaves the
 * kernel; what is new is emitted once; every loss is counted.
 *
 * siphash.h  keyed hashing              path.h   paths and origins from kernel objects
 * maps.h     state and its bounds       emit.h   records, quotas, losses
 * task.h     cgroups, credentials       dict.h   the dictionary (first and second level)
 * recorder.h the minutes before an alert     front.h  a front to the first level for opens
 * sched.h    processes and cgroups      sys.h    system calls by kind      net.h  sockets, DNS
 * lsm.h      security hooks (BPF-LSM or fentry)   calls.h  single calls (fexit)   uring.h  io_uring
 * opens.h    opens, and dns.h  DNS messages, by the result of the functions that they all pass (fexit)
 * block.h    programs that are forbidden as an answer to an alert
 * enforce.h  what a container is held to, and the verdict at exec      refuse.h  acts that are refused
 */
#include "calls.h"
#include "uring.h"
#include "sched.h"
#include "refuse.h"

char LICENSE[] SEC("license") = "Dual BSD/GPL";
