//! The clocks that the programs use too.

use plimsoll_model::BootNs;

/// Boot clock now.
pub(crate) fn boot_now() -> BootNs {
    BootNs(clock(libc::CLOCK_BOOTTIME) as u64)
}

/// Monotonic clock now, ns: what `bpf_ktime_get_ns()` tells.
pub(crate) fn mono_now() -> u64 {
    clock(libc::CLOCK_MONOTONIC) as u64
}

#[allow(unsafe_code)]
pub(crate) fn clock(id: libc::clockid_t) -> i64 {
    let mut t = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: t is a valid timespec for the length of the call; both clocks exist on every kernel
    // that this program can load on.
    unsafe { libc::clock_gettime(id, &mut t) };
    t.tv_sec * 1_000_000_000 + t.tv_nsec
}
