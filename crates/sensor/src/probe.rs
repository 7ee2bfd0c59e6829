//! What a kernel can be asked beforehand. A refusal in the middle of loading means that every program is
//! verified, and every map made, a second time: half of what a start costs where the question was not asked.
//!
//! Left out: everything that only the program itself can find out; for that [`crate::load`] tries it.

use libbpf_rs::libbpf_sys as sys;
use std::os::fd::{FromRawFd as _, OwnedFd};

/// Two instructions: `r0 = 0; exit`. Neither has an operand whose bytes have an order.
const NOTHING: [[u8; 8]; 2] = [[0xb7, 0, 0, 0, 0, 0, 0, 0], [0x95, 0, 0, 0, 0, 0, 0, 0]];

/// Whether programs on functions of the kernel (fentry, fexit) are forbidden as such: the kernel's words
/// then. `None` says nothing about any one program.
#[allow(unsafe_code)]
pub(crate) fn fentry_forbidden() -> Option<String> {
    // SAFETY: the names are C strings, the options and instructions live as long as the calls; a
    // descriptor that comes back is ours alone and closed here.
    unsafe {
        let function = c"security_file_open".as_ptr();
        let id = sys::libbpf_find_vmlinux_btf_id(function, sys::BPF_TRACE_FENTRY);
        let mut options = sys::bpf_prog_load_opts {
            sz: size_of::<sys::bpf_prog_load_opts>() as sys::size_t,
            expected_attach_type: sys::BPF_TRACE_FENTRY,
            attach_btf_id: u32::try_from(id).ok()?,
            ..Default::default()
        };
        let fd = sys::bpf_prog_load(
            sys::BPF_PROG_TYPE_TRACING,
            c"nothing".as_ptr(),
            c"Dual BSD/GPL".as_ptr(),
            NOTHING.as_ptr().cast(),
            NOTHING.len() as sys::size_t,
            &mut options,
        );
        match fd {
            0.. => drop(OwnedFd::from_raw_fd(fd)),
            refused if refused == -libc::EPERM => {
                return Some("BPF program load failed: Operation not permitted".to_owned());
            }
            _ => {}
        }
    }
    None
}
