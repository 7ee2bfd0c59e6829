//! Which system call goes to which program: the table that `on_sys_exit` looks at, filled by what the
//! ladder has left to system calls.

use crate::error::SensorError;
use crate::ladder::{DNS, Ladder, OPENS};
use crate::skel::{PlimsollSkel, types};
use crate::tables::{Call, HANDLER_PROGRAMS, Handler, calls, compat_calls, dns_calls};
use libbpf_rs::skel::Skel;
use libbpf_rs::{MapCore, MapFlags};
use std::collections::{HashMap, HashSet};
use std::os::fd::{AsFd, AsRawFd};

/// Puts the tail-called programs into their table.
pub(crate) fn fill_handlers(skel: &PlimsollSkel<'_>, ladder: &Ladder) -> Result<(), SensorError> {
    let programs: HashMap<String, i32> = skel
        .object()
        .progs_mut()
        .map(|p| {
            (
                p.name().to_string_lossy().into_owned(),
                p.as_fd().as_raw_fd(),
            )
        })
        .collect();
    for (handler, name) in HANDLER_PROGRAMS {
        let name = format!("h_{name}");
        let (true, Some(fd)) = (ladder.wants(&name), programs.get(&name)) else {
            continue;
        };
        skel.maps
            .handlers
            .update(
                &u32::from(*handler as u8).to_ne_bytes(),
                &(*fd as u32).to_ne_bytes(),
                MapFlags::ANY,
            )
            .map_err(|source| SensorError::Map {
                operation: "update",
                map: "handlers",
                source,
            })?;
    }
    Ok(())
}

/// What is left to the system calls of a kind that a security hook observes.
enum Left {
    /// Nothing observes it better: all of it.
    All,
    /// The hook is not reached by calls that are refused before it.
    Failures,
    /// Nothing.
    Nothing,
}

fn left(call: &Call, ladder: &Ladder) -> Left {
    if matches!(call.handler, Handler::Open | Handler::Openat) && ladder.by(&OPENS) {
        return Left::Nothing;
    }
    let hook = match (call.handler, call.path) {
        (Handler::Open | Handler::Openat, _) => "file_open",
        (Handler::Mmap, _) => "mmap_file",
        (Handler::Mprotect, _) => "file_mprotect",
        (Handler::Connect, _) => "socket_connect",
        (Handler::Accept, _) => "accept",
        (Handler::Path, Some(p)) => match p.op {
            4 => "path_unlink",
            5 => "path_mkdir",
            6 => "path_rmdir",
            7 => "path_chmod",
            8 => "path_chown",
            9 => "path_rename",
            10 => "path_link",
            _ => "path_symlink",
        },
        _ => return Left::All,
    };
    let by_descriptor = call.path.is_some_and(|p| p.path == 0xff);
    match (ladder.rung(hook), call.handler) {
        (None, _) => Left::All,
        (Some(_), Handler::Open | Handler::Openat) => Left::Failures,
        (Some(_), Handler::Path) if !by_descriptor => Left::Failures,
        _ => Left::Nothing,
    }
}

/// Which number is served by which handler, natively and in the 32-bit table.
pub(crate) fn fill_tables(bss: &mut types::bss, ladder: &Ladder) {
    let missing: HashSet<u8> = HANDLER_PROGRAMS
        .iter()
        .filter(|(_, name)| !ladder.single_calls() && !ladder.wants(&format!("h_{name}")))
        .map(|(h, _)| *h as u8)
        .collect();
    bss.uring_by_hooks = u32::from(
        ladder.sees_opens()
            && ["path_unlink", "path_rename"]
                .iter()
                .all(|h| ladder.rung(h).is_some()),
    );
    bss.native_numbers.fill(u16::MAX);
    for call in calls() {
        let left = left(&call, ladder);
        let handler = call.handler as u8;
        if missing.contains(&handler) || matches!(left, Left::Nothing) {
            continue;
        }
        let failures = u8::from(matches!(left, Left::Failures));
        let native = usize::try_from(call.nr)
            .ok()
            .filter(|n| *n < bss.gates.len());
        if let Some(nr) = native {
            bss.gates[nr].handler = handler;
            bss.gates[nr].failures |= failures;
            bss.call_numbers[nr] = call.number;
            if let Some(p) = call.path {
                bss.path_calls[nr] = types::path_call {
                    op: p.op,
                    dfd: p.dfd,
                    path: p.path,
                    dfd2: p.dfd2,
                    path2: p.path2,
                    mode: p.mode,
                    ..Default::default()
                };
            }
        }
        let compat = usize::try_from(call.compat)
            .ok()
            .filter(|n| *n < bss.gates.len());
        if let (Some(compat), Some(nr)) = (compat, native) {
            bss.gates[compat].compat = handler;
            bss.gates[compat].failures |= failures << 1;
            bss.native_numbers[compat] = nr as u16;
        }
    }
    for (compat, nr, handler) in compat_calls() {
        // the gate of the native call says whether anything is left to do
        let wanted = handler == Handler::CompatArgs || bss.gates[nr as usize].handler != 0;
        if wanted && !missing.contains(&(handler as u8)) {
            bss.gates[compat].compat = handler as u8;
            bss.gates[compat].failures |= (bss.gates[nr as usize].failures & 1) << 1;
            bss.native_numbers[compat] = nr as u16;
        }
    }
    if ladder.by(&DNS) {
        return;
    }
    for (i, (nr, handler, number)) in dns_calls().into_iter().enumerate() {
        let nr = nr as usize;
        bss.dns_handlers[nr] = handler as u8;
        bss.call_numbers[nr] = number;
        bss.dns_numbers[i] = nr as u32;
    }
    // without the sendmsg hook nobody tells when unconnected resolvers start: keep sends open
    if !ladder.wants("on_sendmsg4") {
        for (nr, handler, _) in dns_calls()
            .into_iter()
            .filter(|(_, h, _)| *h == Handler::DnsBuffer)
            .take(1)
        {
            bss.gates[nr as usize].handler = handler as u8;
        }
    }
}
