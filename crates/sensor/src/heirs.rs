//! What a thread passes on to what it starts.

use std::io;

/// From now on threads and processes that the calling thread starts begin at ordinary priority, however
/// much it is raised itself (`SCHED_RESET_ON_FORK`: a negative nice value becomes 0).
///
/// # Errors
/// When the kernel refuses, as it does for threads under a real-time policy without `CAP_SYS_NICE`.
#[allow(unsafe_code)]
pub fn pass_on_no_priority() -> io::Result<()> {
    let ordinary = libc::sched_param { sched_priority: 0 };
    let policy = libc::SCHED_OTHER | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `ordinary` is a valid sched_param for the length of the call, and 0 means this thread.
    match unsafe { libc::sched_setscheduler(0, policy, &ordinary) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Lets a thread of this process go before all that share processors by weight (`SCHED_RR` at `priority`),
/// or puts it back among them with the nice value that it has. What it starts begins ordinary.
///
/// # Errors
/// When the kernel refuses: without `CAP_SYS_NICE`, and in a cgroup that was given no real time.
#[allow(unsafe_code)]
pub fn go_first(thread: i32, priority: Option<u8>) -> io::Result<()> {
    let policy = match priority {
        Some(_) => libc::SCHED_RR,
        None => libc::SCHED_OTHER,
    };
    let param = libc::sched_param {
        sched_priority: priority.unwrap_or(0).into(),
    };
    let policy = policy | libc::SCHED_RESET_ON_FORK;
    // SAFETY: `param` is a valid sched_param for the length of the call.
    match unsafe { libc::sched_setscheduler(thread, policy, &param) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}
