//! The kernel side of Plimsoll: loads the eBPF programs in `bpf/`, reads their rings, decodes
//! bytes into events, and keeps the dictionary's maps.
//!
//! Promises: what cannot be loaded costs only its own kinds and says why; bytes from the kernel
//! are checked before use; every loss counter becomes a [`api::Loss`]. The home of `unsafe`.
//!
//! Left out: containers and their names (`workload`), judging (`baseline`), keeping (`evidence`).

pub mod api;
mod block;
mod clock;
mod control;
mod counters;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unsafe_code, unused_imports, clippy::all, clippy::undocumented_unsafe_blocks, dead_code)]
mod cut {
    include!(concat!(env!("OUT_DIR"), "/isolate.skel.rs"));
}
mod dictionary;
mod enforce;
mod error;
mod gates;
mod hash;
mod heirs;
pub mod isolate;
mod keep;
mod ladder;
mod load;
mod losses;
mod maps;
mod numbers;
mod objects;
mod pins;
mod probe;
mod programs;
mod reader;
mod recorder;
mod region;
#[rustfmt::skip]
#[allow(missing_docs, unreachable_pub, unsafe_code, unused_imports, clippy::all, clippy::undocumented_unsafe_blocks, dead_code)]
mod skel {
    include!(concat!(env!("OUT_DIR"), "/plimsoll.skel.rs"));
}
mod tables;
pub mod wire;

pub use control::Control;
pub use error::SensorError;
pub use heirs::{go_first, pass_on_no_priority};
pub use keep::{Left, left_by, pinned, unpin, unpin_left_by};
pub use reader::Sensor;
