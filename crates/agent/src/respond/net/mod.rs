//! Cuts the network of one container, and forbids addresses on the node.
//!
//! Promises: rules are made in the container's network namespaces by the kernel's own means;
//! nothing of the container is executed, and no tool of the host either. A namespace is entered by
//! a descriptor whose process was the container's before and after it was opened. A cut counts
//! when a packet of ours to a forbidden address was refused there. The rules live in the namespace:
//! the agent may end. Undone by taking one table of the plan away.
//!
//! Left out, and said in the outcome where it is so: containers in the host's network namespace or
//! in one that others use too; processes that may administer their network (`CAP_NET_ADMIN`) and
//! could take rules back.

mod netlink;
mod probe;
mod rules;

use super::act::{Machine, Target};
use super::place::{self, Place, is_below};
use plimsoll_model::response::StepOutcome;
use plimsoll_workload::cgroup::classify;
use rules::{ADDRESSES_MAX, INTERFACES_MAX, Prefix};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

/// Network namespaces of one container at most.
const SPACES_MAX: usize = 64;
/// How often a namespace may look shared before it is taken to be (a process that a runtime is
/// putting into the container is in its namespaces before it is in its cgroup).
const SHARED_LOOKS: u32 = 4;

/// Cuts the container off, but for `allow`.
pub(super) fn isolate(machine: &Machine, target: &Target, allow: &[Prefix]) -> StepOutcome {
    let began = Instant::now();
    if allow.len() > ADDRESSES_MAX {
        return refused(format!("more than {ADDRESSES_MAX} allowed addresses"));
    }
    let spaces = match alone(machine, target) {
        Ok(spaces) => spaces,
        Err(outcome) => return outcome,
    };
    let table = rules::table_name(&target.plan);
    let mut said = Vec::new();
    for space in &spaces {
        let (name, allow) = (table.clone(), allow.to_vec());
        match space.enter(move || cut_here(&name, &allow, began)) {
            Ok(Ok(words)) => said.extend(words),
            Ok(Err(why)) => return failed_and_restored(&spaces, &table, &why),
            Err(e) => {
                return failed_and_restored(&spaces, &table, &format!("enter its network: {e}"));
            }
        }
    }
    if spaces.iter().any(|s| may_administer(s.pid)) {
        said.push("a process of it holds CAP_NET_ADMIN and could take the rules back".to_owned());
    }
    said.dedup();
    done(format!("its network is cut: {}", said.join("; ")))
}

/// Gives it back what [`isolate`] has cut.
pub(super) fn restore(machine: &Machine, target: &Target) -> StepOutcome {
    let place = match Place::with(&target.container, &machine.kernel) {
        Ok(place) => place,
        Err(why) => return StepOutcome::Unavailable { why },
    };
    let spaces = spaces(&place);
    if spaces.is_empty() {
        return done("no process of it is left, and the rules went with its network".to_owned());
    }
    let table = rules::table_name(&target.plan);
    let mut found = false;
    for space in &spaces {
        let name = table.clone();
        match space.enter(move || rules::restore(&name)) {
            Ok(Ok(was_there)) => found |= was_there,
            Ok(Err(e)) | Err(e) => return failed(format!("take the rules away: {e}")),
        }
    }
    done(match found {
        true => "its network is as before".to_owned(),
        false => "the rules were not there any more".to_owned(),
    })
}

/// Whether the cut of this plan holds; `None`: that cannot be told.
pub(super) fn holds(machine: &Machine, target: &Target) -> Option<bool> {
    let spaces = spaces(&Place::with(&target.container, &machine.kernel).ok()?);
    let table = rules::table_name(&target.plan);
    let mut all = !spaces.is_empty();
    for space in &spaces {
        let name = table.clone();
        all &= space.enter(move || rules::is_there(&name)).ok()?.ok()?;
    }
    Some(all)
}

/// Cuts the namespace of this thread off and looks whether that had its effect; what is to be said.
fn cut_here(table: &str, allow: &[Prefix], began: Instant) -> Result<Vec<String>, String> {
    rules::cut(table, allow).map_err(|e| match e.raw_os_error() {
        Some(93 | 95) => "this kernel has no nf_tables (CONFIG_NF_TABLES_INET)".to_owned(),
        _ => format!("write the rules: {e}"),
    })?;
    let mut said = vec![format!(
        "{} ms after it was begun",
        began.elapsed().as_millis()
    )];
    let interfaces = probe::interfaces().map_err(|e| format!("list its interfaces: {e}"))?;
    if interfaces.len() > INTERFACES_MAX {
        return Err(format!("it has more than {INTERFACES_MAX} interfaces"));
    }
    if let Err(e) = rules::cut_frames(table, &interfaces, allow) {
        said.push(format!(
            "raw packet sockets are not cut (egress rules need Linux 5.16: {e})"
        ));
    }
    said.extend(probe::look(allow)?);
    Ok(said)
}

fn failed_and_restored(spaces: &[Space], table: &str, why: &str) -> StepOutcome {
    let left = spaces.iter().filter(|space| {
        let name = table.to_owned();
        !matches!(space.enter(move || rules::restore(&name)), Ok(Ok(_)))
    });
    match left.count() {
        0 => failed(format!("{why}; nothing is cut")),
        n => failed(format!("{why}; in {n} of its networks rules may be left")),
    }
}

fn done(effect: String) -> StepOutcome {
    StepOutcome::Done {
        effect,
        sealed: None,
        undo: Vec::new(),
    }
}
fn failed(why: String) -> StepOutcome {
    StepOutcome::Failed { why }
}
fn refused(why: String) -> StepOutcome {
    StepOutcome::Refused { why }
}

// ---- namespaces ----

/// A network namespace of the container.
#[derive(Debug)]
struct Space {
    file: File,
    inode: u64,
    /// A process in it.
    pid: u32,
}

impl Space {
    /// Of a process that was in `place` before and after this was opened.
    fn of(pid: u32, place: &Place) -> Option<Self> {
        let start = place::stat(pid)?.start_ticks;
        let file = File::open(format!("/proc/{pid}/ns/net")).ok()?;
        let same = place::stat(pid)?.start_ticks == start && place.owns(pid);
        let inode = file.metadata().ok()?.ino();
        same.then_some(Self { file, inode, pid })
    }

    fn at(path: &Path) -> io::Result<Self> {
        let file = File::open(path)?;
        let inode = file.metadata()?.ino();
        Ok(Self {
            file,
            inode,
            pid: 0,
        })
    }

    /// Does something in it, on a thread that ends with that.
    fn enter<T: Send + 'static>(&self, act: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
        let file = self.file.try_clone()?;
        let inside = move || -> io::Result<T> {
            move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))?;
            Ok(act())
        };
        let thread = std::thread::Builder::new()
            .name("in-netns".into())
            .spawn(inside)?;
        thread
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("a defect of this program")))
    }
}

fn spaces(place: &Place) -> Vec<Space> {
    let mut all: Vec<Space> = Vec::new();
    for pid in place.owned() {
        if let Some(space) = Space::of(pid, place)
            && all.iter().all(|s| s.inode != space.inode)
            && all.len() < SPACES_MAX
        {
            all.push(space);
        }
    }
    all
}

/// The container's namespaces, when they are its alone.
fn alone(machine: &Machine, target: &Target) -> Result<Vec<Space>, StepOutcome> {
    let unavailable = |why: String| StepOutcome::Unavailable { why };
    let place = Place::with(&target.container, &machine.kernel).map_err(unavailable)?;
    for look in 1.. {
        let spaces = spaces(&place);
        if spaces.is_empty() {
            return Err(unavailable(
                "no process of the container is left".to_owned(),
            ));
        }
        if let Some(space) = spaces.iter().find(|s| is_hosts(s.inode)) {
            return Err(unavailable(format!(
                "not available: process {} of it uses the host's network (pause or kill-tree can stop it)",
                space.pid
            )));
        }
        let Some(other) = sharer(&spaces, &place) else {
            return Ok(spaces);
        };
        if look == SHARED_LOOKS {
            let name = fs::read_to_string(format!("/proc/{other}/comm")).unwrap_or_default();
            let name: String = name.trim().escape_default().take(64).collect();
            return Err(unavailable(format!(
                "not available: process {other} ({name}), which is not of the container, uses the same network and would be cut off too"
            )));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    unreachable!("the loop ends by its bound")
}

fn is_hosts(inode: u64) -> bool {
    ["/proc/1/ns/net", "/proc/self/ns/net"]
        .iter()
        .any(|path| fs::metadata(path).is_ok_and(|m| m.ino() == inode))
}

/// A process that is in one of the namespaces and not of the container, nor of its pod.
fn sharer(spaces: &[Space], place: &Place) -> Option<u32> {
    place::pids().find(|&pid| {
        let inode = fs::metadata(format!("/proc/{pid}/ns/net")).map(|m| m.ino());
        inode.is_ok_and(|i| spaces.iter().any(|s| s.inode == i))
            && !place.owns(pid)
            && !is_of_pod(pid, place)
    })
}

/// Containers of a pod share one network by design.
fn is_of_pod(pid: u32, place: &Place) -> bool {
    let in_pod = classify(place.path()).is_some_and(|c| c.pod_uid.is_some());
    let pod = place.path().rsplit_once('/').map_or("", |(pod, _)| pod);
    in_pod && !pod.is_empty() && place.path_of(pid).is_some_and(|p| is_below(&p, pod))
}

/// Whether the process, or what it executes, can have `CAP_NET_ADMIN`.
fn may_administer(pid: u32) -> bool {
    const CAP_NET_ADMIN: u32 = 12;
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let set = status.lines().find_map(|l| l.strip_prefix("CapBnd:"));
    let set = set.and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok());
    set.is_none_or(|s| s & (1 << CAP_NET_ADMIN) != 0)
}

// ---- addresses on the node ----

/// Forbids the addresses to this node and to what it forwards.
pub(super) fn block(machine: &Machine, target: &Target, addresses: &[Prefix]) -> StepOutcome {
    if addresses.is_empty() || addresses.len() > ADDRESSES_MAX {
        return refused(format!(
            "1 to {ADDRESSES_MAX} addresses can be forbidden in one step"
        ));
    }
    if let Some((address, length)) = addresses.iter().find(|p| cuts_the_node(**p)) {
        return refused(format!(
            "forbidding {address}/{length} would cut off the node itself"
        ));
    }
    let table = block_table(target, addresses);
    let (name, list) = (table.clone(), addresses.to_vec());
    let (place, began) = (node(machine), Instant::now());
    let act = move || {
        rules::forbid(&name, &list)?;
        let took = began.elapsed();
        Ok((took, list.iter().find(|p| probe::passes(p.0)).copied()))
    };
    match place.and_then(|space| space.enter(act)?) {
        Ok((took, None)) => done(format!(
            "{} addresses are forbidden to this node and to what it forwards, after {} ms (a packet of ours was refused)",
            addresses.len(),
            took.as_millis()
        )),
        Ok((_, Some((address, _)))) => {
            let _ = unblock(machine, target, addresses);
            failed(format!(
                "a packet to {address} still went out: nothing is forbidden"
            ))
        }
        Err(e) => failed(format!("write the rules: {e}")),
    }
}

/// Takes back what [`block`] did.
pub(super) fn unblock(machine: &Machine, target: &Target, addresses: &[Prefix]) -> StepOutcome {
    let table = block_table(target, addresses);
    let taken = node(machine).and_then(|space| space.enter(move || rules::restore(&table))?);
    match taken {
        Ok(true) => done("the addresses are free again".to_owned()),
        Ok(false) => done("the rules were not there any more".to_owned()),
        Err(e) => failed(format!("take the rules away: {e}")),
    }
}

/// Whether the rules of that step are there; `None`: that cannot be told.
pub(super) fn blocks(machine: &Machine, target: &Target, addresses: &[Prefix]) -> Option<bool> {
    let table = block_table(target, addresses);
    let space = node(machine).ok()?;
    space.enter(move || rules::is_there(&table)).ok()?.ok()
}

/// The namespace of the node: where its first process is.
fn node(machine: &Machine) -> io::Result<Space> {
    let own = machine.node_network.as_deref();
    Space::at(own.unwrap_or(Path::new("/proc/1/ns/net")))
}

/// A plan may have several such steps; each has a table of its own.
fn block_table(target: &Target, addresses: &[Prefix]) -> String {
    use sha2::Digest as _;
    let list: Vec<String> = addresses.iter().map(|(a, l)| format!("{a}/{l}")).collect();
    let digest = sha2::Sha256::digest(list.join(","));
    let short: String = digest.iter().take(4).map(|b| format!("{b:02x}")).collect();
    format!("{}_block_{short}", rules::table_name(&target.plan))
}

/// Loopback, or so much that it is nearly everything.
fn cuts_the_node((address, length): Prefix) -> bool {
    let shortest = if address.is_ipv4() { 8 } else { 16 };
    length < shortest || address.is_loopback() || address.is_unspecified()
}
