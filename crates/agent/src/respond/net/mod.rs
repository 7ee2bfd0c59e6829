//! Cuts the network of one container, and forbids addresses on the node.
//!
//! Promises: rules are made in the container's network namespaces by the kernel's own means;
//! nothing of the container is executed, and no tool of the host either. A namespace is entered by
//! a descriptor whose process was the container's before and after it was opened. A cut counts
//! when a packet of ours to a forbidden address was refused there. Connections that it cuts are ended
//! by the kernel, so that both ends know at once ([`diag`]); undo gives the network back, not them.
//! The rules live in the namespace: the agent may end. Undone by taking one table of the plan away.
//!
//! Where the container has a cgroup of version 2 of its own, programs on that cut it too ([`cgroup`]),
//! and alone where its network is the host's, its pod's, or one that others use: nobody else is cut.
//!
//! Left out, and said in the outcome where it is so: such networks without a cgroup of version 2 (a pod is
//! cut as a whole there, and the plan names who is in it); processes that may administer their network
//! (`CAP_NET_ADMIN`) and could take rules back. UNIX sockets stay.

mod cgroup;
mod diag;
mod netlink;
mod probe;
mod rules;
mod survey;

pub use survey::Survey;
pub(crate) use survey::means;

use super::freeze::Freezer;
use super::machine::{Machine, Target};
use super::place::{self, Place, is_below};
use plimsoll_model::Container;
use plimsoll_model::response::StepOutcome;
use plimsoll_workload::Layout;
use plimsoll_workload::cgroup::classify;
use rules::{ADDRESSES_MAX, INTERFACES_MAX, Prefix};
use rustix::fd::AsFd as _;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use std::collections::HashSet;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Network namespaces of one container at most.
const SPACES_MAX: usize = 64;
/// Processes of others in them that are looked at.
const NEIGHBOURS_MAX: usize = 4096;
/// How often a namespace may look shared before it is taken to be (a process that a runtime is
/// putting into the container is in its namespaces before it is in its cgroup).
const SHARED_LOOKS: u32 = 4;

/// For so long resets may leave a network that is cut.
const RESETS_MAX: Duration = Duration::from_millis(200);
/// How long ending connections may take.
const ENDING_MAX: Duration = Duration::from_secs(5);

/// Cuts the container off, but for `allow`.
pub(super) fn isolate(machine: &Machine, target: &Target, allow: &[Prefix]) -> StepOutcome {
    let began = Instant::now();
    if allow.len() > ADDRESSES_MAX {
        return refused(format!("more than {ADDRESSES_MAX} allowed addresses"));
    }
    let found = match Found::settled(machine, target) {
        Ok(found) => found,
        Err(why) => return StepOutcome::Unavailable { why },
    };
    match found.means() {
        Means::None(why) => StepOutcome::Unavailable { why },
        Means::Programs(cgroup) => cgroup::isolate(&found, target, cgroup, allow, began),
        Means::Rules => by_rules(&found, target, allow, began),
    }
}

/// By rules in its namespaces, and by programs on its cgroup too, where it has one of version 2.
fn by_rules(found: &Found, target: &Target, allow: &[Prefix], began: Instant) -> StepOutcome {
    let table = rules::table_name(&target.plan);
    let mut said = Vec::new();
    let programs = found
        .cgroup
        .as_deref()
        .map(|own| cgroup::attach(own, &target.plan, allow, true));
    for space in &found.spaces {
        let (name, list) = (table.clone(), allow.to_vec());
        match space.enter(move || cut_here(&name, &list, began)) {
            Ok(Ok(words)) => said.extend(words),
            Ok(Err(Cut::NoTables)) if matches!(programs, Some(Ok(()))) => {
                let own = found.cgroup.as_deref().expect("it has programs");
                return cgroup::isolate(found, target, own, allow, began);
            }
            Ok(Err(Cut::NoTables)) => return without_tables(programs),
            Ok(Err(e)) => return failed_and_restored(found, target, &table, &e.words()),
            Err(e) => {
                let why = format!("enter its network: {e}");
                return failed_and_restored(found, target, &table, &why);
            }
        }
    }
    said.extend(programs.map(|made| cgroup::sealed(found, target, made)));
    if found.spaces.iter().any(|s| may_administer(s.pid)) {
        said.push("a process of it holds CAP_NET_ADMIN and could take the rules back".to_owned());
    }
    said.dedup();
    done(format!(
        "its network is cut by rules in its network namespace: {}",
        said.join("; ")
    ))
}

/// Nothing here can cut it: no nf_tables, and no programs on a cgroup of its own.
fn without_tables(programs: Option<io::Result<()>>) -> StepOutcome {
    let other = match programs {
        Some(Err(e)) => format!("programs on its cgroup (v2): {e}"),
        _ => "it has no cgroup of version 2 of its own".to_owned(),
    };
    StepOutcome::Unavailable {
        why: format!(
            "not available here: {}, and {other}; nothing is cut (pause or kill-tree can stop it)",
            Cut::NoTables.words()
        ),
    }
}

/// Gives it back what [`isolate`] has cut.
pub(super) fn restore(machine: &Machine, target: &Target) -> StepOutcome {
    let place = match Place::with(&target.container, &machine.kernel) {
        Ok(place) => place,
        Err(why) => return StepOutcome::Unavailable { why },
    };
    let mut found = match cgroup::restore(target) {
        Ok(found) => found,
        Err(e) => return failed(format!("take the programs off its cgroup: {e}")),
    };
    let spaces = spaces(&place);
    if spaces.is_empty() {
        return done("no process of it is left, and the rules went with its network".to_owned());
    }
    let table = rules::table_name(&target.plan);
    for space in &spaces {
        let name = table.clone();
        match space.enter(move || rules::restore(&name)) {
            Ok(Ok(was_there)) => found |= was_there,
            // without nf_tables there is no table to take away
            Ok(Err(e)) if rules::are_missing(&e) => {}
            Ok(Err(e)) | Err(e) => return failed(format!("take the rules away: {e}")),
        }
    }
    done(match found {
        true => "its network is as before; connections that were ended stay so".to_owned(),
        false => "the rules were not there any more".to_owned(),
    })
}

/// Whether the cut of this plan holds; `None`: that cannot be told.
pub(super) fn holds(machine: &Machine, target: &Target) -> Option<bool> {
    let place = Place::with(&target.container, &machine.kernel).ok()?;
    let spaces = spaces(&place);
    let table = rules::table_name(&target.plan);
    let mut all = !spaces.is_empty();
    for space in &spaces {
        let name = table.clone();
        all &= match space.enter(move || rules::holds(&name)).ok()? {
            // without nf_tables there is none: the programs alone can hold
            Err(e) if rules::are_missing(&e) => false,
            found => found.ok()?,
        };
    }
    let by_programs_alone = || {
        let found = Found::new(place, &target.container);
        let alone = !matches!(found.means(), Means::Rules) || !rules::are_available();
        alone && cgroup::holds(target)
    };
    Some(all || by_programs_alone())
}

/// Why a namespace was not cut.
enum Cut {
    /// The kernel has no nf_tables.
    NoTables,
    Failed(String),
}

impl Cut {
    fn words(&self) -> String {
        match self {
            Cut::NoTables => "this kernel has no nf_tables (CONFIG_NF_TABLES_INET)".to_owned(),
            Cut::Failed(why) => why.clone(),
        }
    }
}

/// Cuts the namespace of this thread off and looks whether that had its effect; what is to be said.
fn cut_here(table: &str, allow: &[Prefix], began: Instant) -> Result<Vec<String>, Cut> {
    let write = |ending| {
        rules::cut(table, allow, ending).map_err(|e| match rules::are_missing(&e) {
            true => Cut::NoTables,
            false => Cut::Failed(format!("write the rules: {e}")),
        })
    };
    write(true)?;
    let mut said = vec![took(began)];
    said.push(
        end_connections(allow, None, || write(false).map_err(|e| e.words()))
            .map_err(Cut::Failed)?,
    );
    let interfaces = probe::interfaces();
    let interfaces = interfaces.map_err(|e| Cut::Failed(format!("list its interfaces: {e}")))?;
    if interfaces.len() > INTERFACES_MAX {
        let why = format!("it has more than {INTERFACES_MAX} interfaces");
        return Err(Cut::Failed(why));
    }
    if let Err(e) = rules::cut_frames(table, &interfaces, allow) {
        said.push(format!(
            "raw packet sockets are not cut (egress rules need Linux 5.16: {e})"
        ));
    }
    said.extend(probe::look(allow).map_err(Cut::Failed)?);
    Ok(said)
}

fn took(began: Instant) -> String {
    format!("{} ms after it was begun", began.elapsed().as_millis())
}

/// Ends what has been cut; `seal` takes the exception for resets away, and is called once, after
/// [`RESETS_MAX`] at the latest. What is to be said.
fn end_connections(
    allow: &[Prefix],
    only: Option<&HashSet<u64>>,
    seal: impl FnOnce() -> Result<(), String>,
) -> Result<String, String> {
    let began = Instant::now();
    let mut ended = diag::Ended::default();
    let all = diag::connections(allow, only).unwrap_or_default();
    let told = diag::end(&all, &mut ended, || began.elapsed() > RESETS_MAX);
    seal()?;
    let rest = told.and_then(|rest| {
        let rest = diag::end(rest, &mut ended, || began.elapsed() > ENDING_MAX)?;
        // what was being made while the list was read
        let late = diag::connections(allow, only)?;
        diag::end(&late, &mut ended, || began.elapsed() > ENDING_MAX)?;
        Ok(rest.len())
    });
    Ok(match rest {
        Ok(0) if ended.refused == 0 => {
            format!("{} connections were ended (SOCK_DESTROY)", ended.ended)
        }
        Ok(left) => format!(
            "{} connections were ended (SOCK_DESTROY), {} were not and send nothing any more",
            ended.ended,
            left + ended.refused
        ),
        Err(e) => format!("connections were not ended, and only send nothing any more: {e}"),
    })
}

fn failed_and_restored(found: &Found, target: &Target, table: &str, why: &str) -> StepOutcome {
    let programs_left = cgroup::restore(target).is_err();
    let left = found.spaces.iter().filter(|space| {
        let name = table.to_owned();
        !matches!(space.enter(move || rules::restore(&name)), Ok(Ok(_)))
    });
    match left.count() + usize::from(programs_left) {
        0 => failed(format!("{why}; nothing is cut")),
        n => failed(format!("{why}; in {n} places rules may be left")),
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

/// A process in a network of the container that is not the container's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Neighbour {
    pid: u32,
    /// Its cgroup, in the hierarchy that identifies containers.
    path: String,
    /// In the container's pod, whose containers share one network by design.
    of_pod: bool,
}

/// Where the container's packets go, and who else's go there.
struct Found {
    place: Place,
    spaces: Vec<Space>,
    /// Of version 2, the container's alone, and the kernel knows a socket's by it.
    cgroup: Option<PathBuf>,
    /// A process of it in the host's network.
    in_hosts: Option<u32>,
    neighbours: Vec<Neighbour>,
}

/// How a container can be cut off here.
enum Means<'a> {
    Rules,
    /// By its cgroup alone, because others use the network too.
    Programs(&'a Path),
    None(String),
}

impl Found {
    fn new(place: Place, container: &Container) -> Self {
        let spaces = spaces(&place);
        let hosts = spaces.iter().find(|s| is_hosts(s.inode)).map(|s| s.pid);
        Self {
            cgroup: Freezer::unified(container).filter(|_| sockets_know_v2()),
            in_hosts: hosts,
            neighbours: match hosts {
                // the whole machine
                Some(_) => Vec::new(),
                None => neighbours(&spaces, &place),
            },
            spaces,
            place,
        }
    }

    /// Looked at again where a process that a runtime is putting into the container seems a stranger.
    fn settled(machine: &Machine, target: &Target) -> Result<Self, String> {
        for look in 1.. {
            let place = Place::with(&target.container, &machine.kernel)?;
            let found = Self::new(place, &target.container);
            if found.spaces.is_empty() {
                return Err("no process of the container is left".to_owned());
            }
            if look == SHARED_LOOKS || found.neighbours.iter().all(|n| n.of_pod) {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        unreachable!("the loop ends by its bound")
    }

    fn is_shared(&self) -> bool {
        self.in_hosts.is_some() || !self.neighbours.is_empty()
    }

    /// Whether a process of it has moved itself to another cgroup.
    fn has_moved(&self) -> bool {
        self.place.owned().iter().any(|pid| !self.place.holds(*pid))
    }

    fn means(&self) -> Means<'_> {
        if let Some(own) = self.cgroup.as_deref().filter(|_| self.is_shared()) {
            return Means::Programs(own);
        }
        if let Some(pid) = self.in_hosts {
            return Means::None(format!(
                "not available: process {pid} of it uses the host's network, and it has no cgroup of version 2 of its own (pause or kill-tree can stop it)"
            ));
        }
        match self.neighbours.iter().find(|n| !n.of_pod) {
            Some(other) => Means::None(format!(
                "not available: process {}, which is not of the container, uses the same network and would be cut off too",
                other.named()
            )),
            None => Means::Rules,
        }
    }
}

impl Neighbour {
    fn named(&self) -> String {
        let name = fs::read_to_string(format!("/proc/{}/comm", self.pid)).unwrap_or_default();
        let name: String = name.trim().escape_default().take(64).collect();
        format!("{} ({name})", self.pid)
    }
}

fn is_hosts(inode: u64) -> bool {
    ["/proc/1/ns/net", "/proc/self/ns/net"]
        .iter()
        .any(|path| fs::metadata(path).is_ok_and(|m| m.ino() == inode))
}

/// Before Linux 5.15 a socket is of a cgroup of version 2 or of a class of `net_cls` and `net_prio`,
/// never both (8520e224f547): where those are mounted, programs may never see its packets.
fn sockets_know_v2() -> bool {
    let layout = Layout::detect(Path::new("/proc"));
    let classes = layout.is_ok_and(|l| l.has_v1(&["net_cls", "net_prio"]));
    !classes || release() >= (5, 15)
}

/// Version of the kernel.
fn release() -> (u32, u32) {
    let text = crate::machine::kernel();
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    let mut next = || numbers.next().and_then(|n| n.parse().ok()).unwrap_or(0);
    (next(), next())
}

/// Processes that are in one of the namespaces and not of the container, [`NEIGHBOURS_MAX`] at most,
/// strangers before those of its pod.
fn neighbours(spaces: &[Space], place: &Place) -> Vec<Neighbour> {
    let of = |pid: u32| {
        let inode = fs::metadata(format!("/proc/{pid}/ns/net")).ok()?.ino();
        let here = spaces.iter().any(|s| s.inode == inode) && !place.owns(pid);
        here.then(|| Neighbour {
            pid,
            path: place.path_of(pid).unwrap_or_default(),
            of_pod: is_of_pod(pid, place),
        })
    };
    let mut all: Vec<Neighbour> = place::pids().filter_map(of).collect();
    all.sort_by_key(|n| (n.of_pod, n.pid));
    all.truncate(NEIGHBOURS_MAX);
    all
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
