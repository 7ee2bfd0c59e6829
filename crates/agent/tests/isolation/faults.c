// Runs a program on a kernel that fails it.
//
// faults no-tables CMD...  sockets of NETLINK_NETFILTER are refused, as where there is no nf_tables
// faults kill N CMD...     kills it (SIGKILL) as it begins its Nth word with the kernel about networks and
//                          programs: socket(AF_NETLINK), sendto, sendmsg, bpf, in any of its threads.
//                          Exit status 77: it was killed so; else the program's.
#include <errno.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <linux/ptrace.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define FAMILY 16 /* AF_NETLINK */

static int no_tables(char **command) {
    struct sock_filter code[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_socket, 0, 5),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, FAMILY, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[2])),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 12 /* NETLINK_NETFILTER */, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPROTONOSUPPORT),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog all = {sizeof(code) / sizeof(*code), code};
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &all))
        return 70;
    execvp(command[0], command);
    return 71;
}

static int counts(pid_t task) {
    struct ptrace_syscall_info info = {0};
    if (ptrace(PTRACE_GET_SYSCALL_INFO, task, sizeof(info), &info) < 0) return 0;
    if (info.op != PTRACE_SYSCALL_INFO_ENTRY) return 0;
    switch (info.entry.nr) {
    case SYS_socket: return info.entry.args[0] == FAMILY;
    case SYS_sendto:
    case SYS_sendmsg:
    case SYS_bpf: return 1;
    }
    return 0;
}

static int kill_at(long n, char **command) {
    pid_t root = fork();
    if (root == 0) {
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(SIGSTOP);
        execvp(command[0], command);
        _exit(71);
    }
    int status, options = PTRACE_O_TRACESYSGOOD | PTRACE_O_TRACECLONE | PTRACE_O_EXITKILL;
    waitpid(root, &status, 0);
    ptrace(PTRACE_SETOPTIONS, root, 0, options);
    ptrace(PTRACE_SYSCALL, root, 0, 0);
    for (long seen = 0;;) {
        pid_t task = waitpid(-1, &status, __WALL);
        if (task < 0) return 72;
        if (WIFEXITED(status) || WIFSIGNALED(status)) {
            if (task == root) return WIFEXITED(status) ? WEXITSTATUS(status) : 73;
            continue;
        }
        int by = WSTOPSIG(status);
        if (by == (SIGTRAP | 0x80) && counts(task) && ++seen == n) {
            kill(root, SIGKILL);
            while (waitpid(-1, &status, __WALL) > 0) {}
            return 77;
        }
        // stops of the tracing itself are nobody's signals
        int own = by == (SIGTRAP | 0x80) || by == SIGTRAP || by == SIGSTOP;
        ptrace(PTRACE_SYSCALL, task, 0, own ? 0 : by);
    }
}

int main(int argc, char **argv) {
    if (argc > 2 && !strcmp(argv[1], "no-tables")) return no_tables(argv + 2);
    if (argc > 3 && !strcmp(argv[1], "kill")) return kill_at(atol(argv[2]), argv + 3);
    return 64;
}
