//! What can go wrong on the kernel side, by the operation that failed.

use std::io;

/// What failed when loading or talking to the kernel side.
#[derive(Debug, thiserror::Error)]
pub enum SensorError {
    /// The kernel has no type information.
    #[error(
        "this kernel has no BTF (/sys/kernel/btf/vmlinux): it needs CONFIG_DEBUG_INFO_BTF=y, as every distribution kernel since about 2021 has"
    )]
    NoBtf,
    /// Not enough privilege.
    #[error("loading eBPF programs needs root or CAP_BPF, CAP_PERFMON and CAP_SYS_ADMIN")]
    NotPermitted,
    /// Opening or loading the object as a whole failed.
    #[error("load the eBPF programs: {reason}")]
    Load {
        /// libbpf's or the kernel's words.
        reason: String,
    },
    /// A program without which nothing can be attributed was refused.
    #[error("the kernel refused {program}, without which nothing can be observed: {reason}")]
    Essential {
        /// Name of the program.
        program: String,
        /// The kernel's words.
        reason: String,
    },
    /// A map operation failed.
    #[error("{operation} in kernel map {map}: {source}")]
    Map {
        /// `update`, `delete`, `read`.
        operation: &'static str,
        /// Which map.
        map: &'static str,
        /// The kernel's error.
        source: libbpf_rs::Error,
    },
    /// A path cannot be looked for.
    #[error("{0}")]
    Path(&'static str),
    /// The hierarchy does not exist.
    #[error("read cgroup hierarchy {hierarchy}: {source}")]
    Hierarchy {
        /// Which.
        hierarchy: String,
        /// Why.
        source: io::Error,
    },
    /// Waiting for the rings failed.
    #[error("wait for events: {0}")]
    Poll(io::Error),
    /// The pinned programs ended their work: this process had not read them for [`crate::api::Pins::keep_for`].
    #[error(
        "its programs ended their work, because it had not read them for too long: it has to be started again"
    )]
    Idle,
    /// No random key.
    #[error("make a random key: {0}")]
    Random(getrandom::Error),
}
