//! Cuts the network of one cgroup (v2): the user side of `bpf/isolate.bpf.c`.
//!
//! Promises: both directions or none; the cgroup holds the programs, so that a cut outlasts this
//! process and is found again by its plan; other people's programs on that cgroup stay. Before they are
//! attached, the kernel has run them on packets of this module's own (`BPF_PROG_TEST_RUN`): a forbidden
//! address is refused, an allowed one passes.

#![allow(unsafe_code)]

use crate::cut::{IsolateSkelBuilder, OpenIsolateSkel};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{
    MapCore, MapFlags, MapHandle, OpenObject, Program, ProgramInput, ProgramMut, libbpf_sys,
};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

/// Programs on one cgroup and direction that are looked at (the kernel's own bound).
const PROGRAMS_MAX: usize = 64;
const DIRECTIONS: [libbpf_sys::bpf_attach_type; 2] = [
    libbpf_sys::BPF_CGROUP_INET_EGRESS,
    libbpf_sys::BPF_CGROUP_INET_INGRESS,
];
/// Addresses that belong to nobody (RFC 5737, RFC 3849).
const NOBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];
/// Size of `struct cut`.
const CUT: usize = 24;

/// What a cut is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cut<'a> {
    /// Tells it from other cuts of the same cgroup.
    pub plan: u64,
    /// What stays reachable: address and length of the prefix, 64 at most.
    pub allow: &'a [(IpAddr, u8)],
    /// The network is the container's alone: its loopback stays.
    pub own_network: bool,
    /// For so long resets may still leave, to tell the other ends of connections.
    pub resets: Duration,
}

impl Cut<'_> {
    /// Cuts the cgroup in this directory off.
    ///
    /// # Errors
    /// What the kernel refuses, or a program that judges wrongly; nothing is cut then.
    pub fn make(&self, cgroup: &Path) -> io::Result<()> {
        restore(cgroup, self.plan)?;
        let dir = File::open(cgroup)?;
        let mut place = MaybeUninit::<OpenObject>::uninit();
        let open: OpenIsolateSkel<'_> = IsolateSkelBuilder::default()
            .open(&mut place)
            .map_err(io::Error::other)?;
        let skel = open.load().map_err(io::Error::other)?;
        for prefix in self.allow {
            write(&skel.maps.plim_allow, &key(*prefix), &1u32.to_ne_bytes())?;
        }
        let programs = [&skel.progs.plim_cut_out, &skel.progs.plim_cut_in];
        // first without the exceptions for loopback, through which a packet of a test comes, and resets
        write(&skel.maps.plim_cut, &0u32.to_ne_bytes(), &self.value(false))?;
        for (program, out) in programs.into_iter().zip([true, false]) {
            self.judges_rightly(program, out)?;
        }
        write(&skel.maps.plim_cut, &0u32.to_ne_bytes(), &self.value(true))?;
        for (program, direction) in programs.into_iter().zip(DIRECTIONS) {
            if let Err(e) = attach(program.as_fd(), dir.as_fd(), direction) {
                let _ = restore(cgroup, self.plan);
                return Err(e);
            }
        }
        Ok(())
    }

    /// `struct cut`.
    fn value(&self, exceptions: bool) -> [u8; CUT] {
        let now = crate::clock::mono_now();
        let until = now + self.resets.as_nanos() as u64;
        let mut value = [0; CUT];
        value[..8].copy_from_slice(&self.plan.to_ne_bytes());
        if exceptions {
            value[8..16].copy_from_slice(&until.to_ne_bytes());
            value[16] = self.own_network.into();
        }
        value
    }

    fn judges_rightly(&self, program: &ProgramMut<'_>, out: bool) -> io::Result<()> {
        let (first, nobody) = (self.allow.first().map(|(address, _)| *address), NOBODY);
        let allowed = |a: IpAddr| self.allow.iter().any(|p| contains(*p, a));
        for address in nobody.into_iter().chain(first) {
            let packet = packet(address, out);
            let input = ProgramInput {
                data_in: Some(&packet),
                ..ProgramInput::default()
            };
            let judged = program.test_run(input).map_err(io::Error::other)?;
            if (judged.return_value & 1 == 1) != allowed(address) {
                let what = format!("the program judges a packet with {address} wrongly");
                return Err(io::Error::other(what));
            }
        }
        Ok(())
    }
}

/// No resets leave any more.
///
/// # Errors
/// What the kernel refuses.
pub fn seal(cgroup: &Path, plan: u64) -> io::Result<()> {
    let dir = File::open(cgroup)?;
    for direction in DIRECTIONS {
        for program in attached(dir.as_fd(), direction)? {
            if let Some((map, mut value)) = cut_of(program.as_fd())
                && value[..8] == plan.to_ne_bytes()
            {
                value[8..16].fill(0);
                write(&map, &0u32.to_ne_bytes(), &value)?;
            }
        }
    }
    Ok(())
}

/// Takes the cut of a plan away; whether there was one.
///
/// # Errors
/// What the kernel refuses.
pub fn restore(cgroup: &Path, plan: u64) -> io::Result<bool> {
    let dir = File::open(cgroup)?;
    let mut was_there = false;
    for direction in DIRECTIONS {
        for program in attached(dir.as_fd(), direction)? {
            if plan_of(program.as_fd()) == Some(plan) {
                detach(program.as_fd(), dir.as_fd(), direction)?;
                was_there = true;
            }
        }
    }
    Ok(was_there)
}

/// Whether the cut of a plan holds in both directions.
///
/// # Errors
/// What the kernel refuses.
pub fn holds(cgroup: &Path, plan: u64) -> io::Result<bool> {
    let dir = File::open(cgroup)?;
    for direction in DIRECTIONS {
        let all = attached(dir.as_fd(), direction)?;
        if !all.iter().any(|p| plan_of(p.as_fd()) == Some(plan)) {
            return Ok(false);
        }
    }
    Ok(true)
}

fn write(map: &impl MapCore, key: &[u8], value: &[u8]) -> io::Result<()> {
    map.update(key, value, MapFlags::ANY)
        .map_err(io::Error::other)
}

/// `struct prefix`.
fn key((address, length): (IpAddr, u8)) -> [u8; 24] {
    let mut key = [0; 24];
    let (version, octets): (u32, &[u8]) = match &address {
        IpAddr::V4(a) => (4, &a.octets()),
        IpAddr::V6(a) => (6, &a.octets()),
    };
    key[..4].copy_from_slice(&(32 + u32::from(length)).to_ne_bytes());
    key[4..8].copy_from_slice(&version.to_ne_bytes());
    key[8..8 + octets.len()].copy_from_slice(octets);
    key
}

fn contains(prefix: (IpAddr, u8), address: IpAddr) -> bool {
    let (of_prefix, of_address) = (key(prefix), key((address, 0)));
    let bits = |k: &[u8; 24]| u128::from_be_bytes(*k.last_chunk().expect("16 bytes"));
    let same = (bits(&of_prefix) ^ bits(&of_address)).leading_zeros();
    of_prefix[4..8] == of_address[4..8] && same >= u32::from(prefix.1)
}

/// An Ethernet frame whose packet goes to this address, or comes from it; nothing is in it.
fn packet(address: IpAddr, out: bool) -> Vec<u8> {
    let mut frame = vec![0; 12];
    let at = match address {
        IpAddr::V4(_) => {
            frame.extend([0x08, 0x00, 0x45, 0]);
            frame.resize(14 + 20, 0);
            14 + if out { 16 } else { 12 }
        }
        IpAddr::V6(_) => {
            frame.extend([0x86, 0xdd, 0x60, 0]);
            frame.resize(14 + 40, 0);
            14 + if out { 24 } else { 8 }
        }
    };
    let octets = match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    frame[at..at + octets.len()].copy_from_slice(&octets);
    frame
}

/// The plan of a program of ours.
fn plan_of(program: BorrowedFd<'_>) -> Option<u64> {
    let (_, value) = cut_of(program)?;
    Some(u64::from_ne_bytes(*value.first_chunk()?))
}

/// The `struct cut` of a program of ours, and the map that holds it.
fn cut_of(program: BorrowedFd<'_>) -> Option<(MapHandle, [u8; CUT])> {
    let mut maps = [0u32; 8];
    let mut info = libbpf_sys::bpf_prog_info {
        nr_map_ids: maps.len() as u32,
        map_ids: maps.as_mut_ptr() as u64,
        ..Default::default()
    };
    let mut length = size_of_val(&info) as u32;
    // SAFETY: `info` is as long as `length` says, and `map_ids` leads to as many words as it says;
    // both outlive the call.
    let err = unsafe {
        libbpf_sys::bpf_obj_get_info_by_fd(
            program.as_raw_fd(),
            std::ptr::from_mut(&mut info).cast(),
            &mut length,
        )
    };
    if err != 0 {
        return None;
    }
    let used = maps.iter().take(info.nr_map_ids as usize);
    used.filter_map(|id| MapHandle::from_map_id(*id).ok())
        .filter(|map| map.name() == "plim_cut")
        .find_map(|map| {
            let value = map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).ok()??;
            Some((map, value.try_into().ok()?))
        })
}

fn attached(
    cgroup: BorrowedFd<'_>,
    direction: libbpf_sys::bpf_attach_type,
) -> io::Result<Vec<OwnedFd>> {
    let mut ids = [0u32; PROGRAMS_MAX];
    let (mut count, mut flags) = (ids.len() as u32, 0);
    // SAFETY: `ids` has room for `count` words; all pointers outlive the call.
    let err = unsafe {
        libbpf_sys::bpf_prog_query(
            cgroup.as_raw_fd(),
            direction,
            0,
            &mut flags,
            ids.as_mut_ptr(),
            &mut count,
        )
    };
    failed(err)?;
    let ids = ids.iter().take(count as usize);
    // one that went meanwhile is none
    Ok(ids.filter_map(|id| Program::fd_from_id(*id).ok()).collect())
}

fn attach(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    direction: libbpf_sys::bpf_attach_type,
) -> io::Result<()> {
    // SAFETY: two open descriptors and two numbers.
    failed(unsafe {
        libbpf_sys::bpf_prog_attach(
            program.as_raw_fd(),
            cgroup.as_raw_fd(),
            direction,
            libbpf_sys::BPF_F_ALLOW_MULTI,
        )
    })
}

fn detach(
    program: BorrowedFd<'_>,
    cgroup: BorrowedFd<'_>,
    direction: libbpf_sys::bpf_attach_type,
) -> io::Result<()> {
    // SAFETY: two open descriptors and a number.
    failed(unsafe {
        libbpf_sys::bpf_prog_detach2(program.as_raw_fd(), cgroup.as_raw_fd(), direction)
    })
}

fn failed(err: i32) -> io::Result<()> {
    match err {
        0 => Ok(()),
        e => Err(io::Error::from_raw_os_error(-e)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_contains_its_addresses_of_its_own_version() {
        let a = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(contains((a("10.0.0.0"), 8), a("10.9.9.9")));
        assert!(!contains((a("10.0.0.0"), 8), a("11.0.0.1")));
        assert!(contains((a("::"), 0), a("2001:db8::1")) && !contains((a("::"), 0), a("10.0.0.1")));
        assert!(contains((a("::1"), 128), a("::1")) && !contains((a("::1"), 128), a("::2")));
    }

    #[test]
    fn a_packet_of_a_test_has_the_address_where_the_kernel_looks() {
        let v4 = packet("192.0.2.1".parse().unwrap(), true);
        assert_eq!(
            (&v4[12..14], &v4[30..34]),
            (&[8, 0][..], &[192, 0, 2, 1][..])
        );
        let v6 = packet("2001:db8::1".parse().unwrap(), false);
        assert_eq!((v6.len(), &v6[22..26]), (54, &[0x20, 1, 0x0d, 0xb8][..]));
    }
}
