# shellcheck shell=bash
# Words that every script here shares: how it speaks, where it caches, how it becomes root.
# Sourced, never run. Sets no shell options and starts nothing.

# Colours only on a terminal, and never against the reader's wish (NO_COLOR).
if [[ -t 1 && -z ${NO_COLOR:-} && ${TERM:-dumb} != dumb ]]; then
    bold=$'\e[1m' dim=$'\e[2m' red=$'\e[31m' green=$'\e[32m' yellow=$'\e[33m' plain=$'\e[0m'
else
    bold='' dim='' red='' green='' yellow='' plain=''
fi
export bold dim red green yellow plain

# Progress goes to standard error, so that a command's output stays usable.
say() { printf '%s\n' "$*" >&2; }
die() {
    printf '%serror:%s %s\n' "$red" "$plain" "$*" >&2
    exit 1
}

# Agents of tests and benches leave nothing behind in the kernel (plimsoll run --pins).
export PLIMSOLL_PINS=${PLIMSOLL_PINS:-off}

# in_time SECONDS: whether so much comes to its end before PLIMSOLL_TEST_UNTIL (seconds since 1970), where that is set.
in_time() { [[ -z ${PLIMSOLL_TEST_UNTIL:-} ]] || (($(date +%s) + $1 < PLIMSOLL_TEST_UNTIL)); }

have() { command -v "$1" >/dev/null 2>&1; }
is_root() { [[ $(id -u) -eq 0 ]]; }

# as_root CMD...: through sudo unless we are root already.
as_root() {
    if is_root; then
        "$@"
    elif have sudo; then
        sudo "$@"
    else
        die "this needs root and there is no sudo: $*"
    fi
}

# os_release KEY: a field of /etc/os-release, empty when there is none.
os_release() { sed -n "s/^$1=\"\{0,1\}\([^\"]*\)\"\{0,1\}\$/\1/p" /etc/os-release 2>/dev/null || true; }

# Everything that is slow to make and safe to lose lives here, outside the checkout.
cache_dir() {
    printf '%s\n' "${PLIMSOLL_CACHE:-${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/plimsoll}"
}

# wait_until SECONDS CMD...: true as soon as CMD is, false when the time is up.
wait_until() {
    local end=$((SECONDS + $1))
    shift
    until "$@" >/dev/null 2>&1; do
        ((SECONDS < end)) || return 1
        sleep 0.2
    done
}

# Is process $1 there, and not merely a zombie that nobody has reaped?
alive() {
    local stat
    [[ -n ${1:-} && -r /proc/$1/stat ]] || return 1
    stat=$(<"/proc/$1/stat") || return 1
    stat=${stat##*) }
    [[ ${stat%% *} != Z ]]
}
gone() { ! alive "$1"; }

# end_process PID SECONDS: ask, wait, then insist.
end_process() {
    alive "$1" || return 0
    kill "$1" 2>/dev/null || return 0
    wait_until "$2" gone "$1" && return 0
    kill -KILL "$1" 2>/dev/null || return 0
    wait_until 5 gone "$1"
}
