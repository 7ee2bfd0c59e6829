//! Loaded programs and what the kernel counts about them.

use std::os::fd::AsRawFd as _;

/// Descriptor of a loaded program, for its statistics.
pub(crate) struct MapFreeProgram {
    pub(crate) fd: std::os::fd::OwnedFd,
}

impl MapFreeProgram {
    pub(crate) fn recursion_misses(&self) -> u64 {
        program_info(self).map_or(0, |i| i.recursion_misses)
    }
}

#[allow(unsafe_code)]
pub(crate) fn program_info(
    program: &MapFreeProgram,
) -> Option<libbpf_rs::libbpf_sys::bpf_prog_info> {
    // SAFETY: bpf_prog_info is plain data for which all zeroes is valid; the kernel writes at most
    // `len` bytes into it.
    unsafe {
        let mut info: libbpf_rs::libbpf_sys::bpf_prog_info = std::mem::zeroed();
        let mut len = size_of_val(&info) as u32;
        let ret = libbpf_rs::libbpf_sys::bpf_prog_get_info_by_fd(
            program.fd.as_raw_fd(),
            &mut info,
            &mut len,
        );
        (ret == 0).then_some(info)
    }
}
