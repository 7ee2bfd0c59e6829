//! Cuts by programs on the container's cgroup (v2): for networks that are not the container's alone, and
//! beside the rules where they are.
//!
//! Promises: the cgroup holds the programs, so they outlast the agent and go with the container; they
//! are found again by the plan. It counts when the kernel, asked before, has refused a packet to a
//! forbidden address and passed one to an allowed address by these very programs, and lists them in both
//! directions. Left out: packet sockets; sockets that were made before their process came into the
//! cgroup; a packet of our own on the wire as a test, which would need a process of ours in the container's
//! cgroup.

use super::super::freeze::Freezer;
use super::super::machine::Target;
use super::rules::Prefix;
use super::{Found, RESETS_MAX, Space, done, end_connections, failed, took};
use plimsoll_model::response::StepOutcome;
use plimsoll_sensor::isolate as programs;
use std::collections::HashSet;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::Instant;

/// Cgroups below the container's that are looked at.
const BELOW_MAX: usize = 4096;

/// Cuts a container by its cgroup alone.
pub(super) fn isolate(
    found: &Found,
    target: &Target,
    cgroup: &Path,
    allow: &[Prefix],
    began: Instant,
) -> StepOutcome {
    if let Err(e) = attach(cgroup, &target.plan, allow, !found.is_shared()) {
        return failed(format!("programs on its cgroup: {e}; nothing is cut"));
    }
    let mut said = vec![took(began)];
    for space in &found.spaces {
        // first attached, then ended: what comes anew is cut already
        match end_in(space, allow, family(cgroup), cgroup, number(&target.plan)) {
            Ok(words) => said.push(words),
            Err(why) => {
                let _ = restore(target);
                return failed(format!("programs on its cgroup: {why}; nothing is cut"));
            }
        }
    }
    said.dedup();
    if found.has_moved() {
        said.push("processes of it that have left its cgroup are not cut".to_owned());
    }
    match programs::holds(cgroup, number(&target.plan)) {
        Ok(true) => done(format!(
            "its network{} is cut for this container by programs on its cgroup (v2): {}; the kernel has refused a packet to a forbidden address by them; raw packet sockets are not cut",
            if found.is_shared() {
                ", which others use too,"
            } else {
                ""
            },
            said.join("; ")
        )),
        Ok(false) => failed("the programs do not stay on its cgroup".to_owned()),
        Err(e) => failed(format!("look at the programs on its cgroup: {e}")),
    }
}

fn end_in(
    space: &Space,
    allow: &[Prefix],
    only: HashSet<u64>,
    cgroup: &Path,
    plan: u64,
) -> Result<String, String> {
    let (allow, cgroup) = (allow.to_vec(), cgroup.to_owned());
    let seal = move || programs::seal(&cgroup, plan).map_err(|e| e.to_string());
    let ended = space.enter(move || end_connections(&allow, Some(&only), seal));
    ended.map_err(|e| e.to_string())?
}

/// Puts the programs of the plan on the cgroup; resets may leave until [`sealed`], or not for long.
///
/// # Errors
/// The kernel's; nothing is cut then.
pub(super) fn attach(
    cgroup: &Path,
    plan: &str,
    allow: &[Prefix],
    own_network: bool,
) -> io::Result<()> {
    let cut = programs::Cut {
        plan: number(plan),
        allow,
        own_network,
        resets: RESETS_MAX,
    };
    cut.make(cgroup)
}

/// Ends the exception for resets of programs beside rules; what is to be said.
pub(super) fn sealed(found: &Found, target: &Target, made: io::Result<()>) -> String {
    let own = found.cgroup.as_deref().unwrap_or(Path::new("/"));
    match made.and_then(|()| programs::seal(own, number(&target.plan))) {
        Ok(()) => "by programs on its cgroup (v2) too".to_owned(),
        Err(e) => format!("not by programs on its cgroup ({e})"),
    }
}

/// Takes the programs of the plan away; whether there were any.
///
/// # Errors
/// The kernel's.
pub(super) fn restore(target: &Target) -> io::Result<bool> {
    match Freezer::unified(&target.container) {
        Some(cgroup) => programs::restore(&cgroup, number(&target.plan)),
        None => Ok(false),
    }
}

/// Whether the programs of the plan are there.
pub(super) fn holds(target: &Target) -> bool {
    let own = Freezer::unified(&target.container);
    own.is_some_and(|cgroup| programs::holds(&cgroup, number(&target.plan)).unwrap_or(false))
}

/// Numbers of the cgroup and of those below it.
fn family(cgroup: &Path) -> HashSet<u64> {
    let mut all = HashSet::new();
    let mut open = vec![cgroup.to_owned()];
    while let Some(dir) = open.pop() {
        if all.len() >= BELOW_MAX {
            break;
        }
        all.extend(std::fs::metadata(&dir).map(|m| m.ino()));
        let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let dirs = below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        open.extend(dirs.map(|e| e.path()));
    }
    all
}

/// What tells a plan's programs from others.
fn number(plan: &str) -> u64 {
    use sha2::Digest as _;
    let digest = sha2::Sha256::digest(plan);
    u64::from_ne_bytes(*digest.first_chunk().expect("32 bytes"))
}
