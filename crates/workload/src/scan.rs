//! What was already running when the agent started, or when it met a container late, rebuilt from `/proc`.
//!
//! Promises: every read is bounded; processes that vanish while they are read are left out, never
//! an error; arguments that do not come in time are left out ([`crate::patient`]). Start times are
//! in clock ticks there and so up to one tick early ([`crate::lineage`] matches them with the
//! kernel's exact ones). Threads are left out.

use crate::cgroup::{CgroupIdentity, Layout};
use crate::facts::Verdict;
use crate::patient;
use crate::root::{NestedRoot, nested_root};
use plimsoll_model::event::Exec;
use plimsoll_model::ids::IN_SECOND_HIERARCHY;
use plimsoll_model::{BootNs, Container, ContainerId, Entry, Instance, ProcessKey, Text};
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::Read as _;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::Path;

/// Processes read at most.
pub const MAX_PROCESSES: usize = 131_072;
/// Processes read of one container that was met late, and cgroups in it that are entered.
const MAX_PROCESSES_OF_ONE: usize = 4096;
const MAX_CGROUPS_OF_ONE: usize = 1024;
/// Bytes read of one cgroup's list of processes.
const MAX_PROCS_BYTES: u64 = 1 << 20;
/// Bytes of arguments read of one process.
const MAX_CMDLINE_BYTES: u64 = 4096;
/// Bytes read of the small text files of a process.
pub(crate) const MAX_STATUS_BYTES: u64 = 16 << 10;
/// Depth of pid namespaces looked at (the kernel allows 32).
const MAX_NAMESPACES: usize = 33;
/// Clock ticks a second in everything `/proc` shows (`USER_HZ`, the same on all architectures we run on).
const TICKS_PER_SECOND: u64 = 100;

/// One process, as `/proc` shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seed {
    /// Process id and start; the start is rounded down to a clock tick.
    pub key: ProcessKey,
    /// Parent's process id.
    pub ppid: u32,
    /// Real uid.
    pub uid: u32,
    /// Real gid.
    pub gid: u32,
    /// `comm`.
    pub comm: Text,
    /// Path of the executable as seen from its container's root.
    pub exe: Text,
    /// That root, where it is not the top of the mount namespace.
    pub root: Option<NestedRoot>,
    /// The script, when the program is its interpreter (told from exe and argv); else empty.
    pub script: Text,
    /// Arguments, at most 4 KiB.
    pub argv: Vec<Text>,
    /// Path of its cgroup in the hierarchy that tells containers apart.
    pub cgroup_path: String,
    /// Path of its cgroup in the second hierarchy, where there is one.
    pub second_path: Option<String>,
    /// Kernfs id of the *root* cgroup of its container (0: in none).
    pub cgroup_id: u64,
    /// Its id in each pid namespace that it is in, the outermost (this `/proc`'s) first.
    pub ns_pids: Vec<u32>,
    /// How it came in: [`Entry::FoundRunning`], or [`Entry::ExecSession`] where its parent (or an
    /// ancestor's in the container) is outside the container's pid namespace.
    pub entry: Entry,
    /// The kernel side has followed it from its birth, for an agent before: its exec was seen.
    pub followed: bool,
    /// Its program as an exec would have told it, where nobody saw that; empty for a process that only
    /// forked from another one. Filled in by who can look behind mounts.
    pub program: Option<Box<Exec>>,
}

/// One container found running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundContainer {
    /// What its cgroup path (or other evidence) says.
    pub identity: CgroupIdentity,
    /// Kernfs id of its root cgroup.
    pub cgroup_id: u64,
    /// Its oldest process.
    pub first: ProcessKey,
}

/// All that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// Containers, outer before nested.
    pub containers: Vec<FoundContainer>,
    /// Every process, of containers and of the host (for lineage), oldest first.
    pub processes: Vec<Seed>,
    /// There were more processes than are looked at.
    pub truncated: bool,
    /// Programs of containers that were too many to be looked at.
    pub programs_left_out: u64,
}

impl Scan {
    /// Puts in the exact keys of processes that somebody has followed.
    pub fn refine(&mut self, followed: impl Fn(ProcessKey) -> Option<ProcessKey>) {
        for process in &mut self.processes {
            if let Some(exact) = followed(process.key) {
                (process.key, process.followed) = (exact, true);
            }
        }
        for container in &mut self.containers {
            container.first = followed(container.first).unwrap_or(container.first);
        }
    }

    /// Containers of `remembered` in which nothing runs now, but whose last acts are still to be read:
    /// they are there until their end is read, too. Returns their root cgroups.
    pub fn still_to_end(&mut self, remembered: &[Container]) -> Vec<u64> {
        let found = |c: &&Container| self.containers.iter().all(|f| f.cgroup_id != c.cgroup_id);
        let ended: Vec<&Container> = remembered.iter().filter(found).collect();
        let roots = ended.iter().map(|c| c.cgroup_id).collect();
        for c in ended {
            let root = c.cgroup_path.to_str_lossy().into_owned();
            let unnamed = || CgroupIdentity {
                runtime: c.runtime,
                id: c.id().clone(),
                root: root.clone(),
                outer: None,
                pod_uid: None,
            };
            let of_path = crate::cgroup::classify(&root);
            self.containers.push(FoundContainer {
                identity: of_path.filter(|i| i.id == *c.id()).unwrap_or_else(unnamed),
                cgroup_id: c.cgroup_id,
                first: ProcessKey {
                    tgid: 0,
                    start: c.instance.start,
                },
            });
        }
        roots
    }
}

/// Reads `/proc` (given as `proc_root`). `judge` is asked once about every cgroup path that no
/// pattern fits (see [`crate::Disk::judge_for_scan`]); pass `|_| Verdict::Undecided` to do without.
pub fn scan_proc(
    proc_root: &Path,
    layout: &Layout,
    mut judge: impl FnMut(&str) -> Verdict,
) -> Scan {
    let (mut processes, truncated) = read_all(proc_root, layout);
    processes.sort_by_key(|p| (p.key.start, p.key.tgid));

    let mut roots: HashMap<(bool, String), Option<(CgroupIdentity, u64)>> = HashMap::new();
    let mut root_of = |second: bool, path: &str| -> Option<(CgroupIdentity, u64)> {
        let root = roots
            .entry((second, path.to_owned()))
            .or_insert_with_key(|(second, path)| {
                let identity = crate::cgroup::classify(path).or_else(|| match judge(path) {
                    Verdict::Container(identity) => Some(identity),
                    Verdict::NotContainer | Verdict::Undecided => None,
                })?;
                let id = match second {
                    false => layout.id_of(&identity.root)?,
                    true => layout.id_in_second(&identity.root)?,
                };
                Some((identity, id))
            });
        root.clone()
    };
    let mut containers: Vec<FoundContainer> = Vec::new();
    for process in &mut processes {
        let second = process.second_path.as_deref();
        let Some((identity, cgroup_id)) =
            root_of(false, &process.cgroup_path).or_else(|| root_of(true, second?))
        else {
            continue;
        };
        process.cgroup_id = cgroup_id;
        // oldest first, so the first one seen is the oldest of its container
        if !containers.iter().any(|c| c.cgroup_id == cgroup_id) {
            containers.push(FoundContainer {
                identity,
                cgroup_id,
                first: process.key,
            });
        }
    }
    tell_sessions(&mut processes);
    containers.sort_by_key(|c| c.identity.root.len());
    Scan {
        containers,
        processes,
        truncated,
        programs_left_out: 0,
    }
}

/// A container that was met late: what runs in it may have started unseen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Which life of which container.
    pub instance: Instance,
    /// What its cgroup path (or other evidence) says.
    pub identity: CgroupIdentity,
    /// Kernfs id of its root cgroup.
    pub cgroup_id: u64,
}

/// Reads the processes in a container's cgroup and below, but not those of containers in it.
pub fn scan_container(proc_root: &Path, layout: &Layout, met: &Met) -> Scan {
    let root = &met.identity.root;
    let (pids, mut truncated) = pids_below(layout, met);
    truncated |= pids.len() > MAX_PROCESSES_OF_ONE;
    let read = |pid: &u32| {
        let mut process = read_process(proc_root, layout, *pid)?;
        // the number may be another's by now
        let path = match met.cgroup_id & IN_SECOND_HIERARCHY {
            0 => &process.cgroup_path,
            _ => process.second_path.as_ref()?,
        };
        let rest = path.strip_prefix(root.as_str())?;
        process.cgroup_id = met.cgroup_id;
        (rest.is_empty() || rest.starts_with('/')).then_some(process)
    };
    let pids = pids.iter().take(MAX_PROCESSES_OF_ONE);
    let mut processes: Vec<Seed> = pids.filter_map(read).collect();
    processes.sort_by_key(|p| (p.key.start, p.key.tgid));
    tell_sessions(&mut processes);
    let oldest = processes.first().map(|p| p.key);
    let container = oldest.map(|first| FoundContainer {
        identity: met.identity.clone(),
        cgroup_id: met.cgroup_id,
        first,
    });
    Scan {
        containers: container.into_iter().collect(),
        processes,
        truncated,
        programs_left_out: 0,
    }
}

/// The processes in a container's cgroups, as the kernel lists them; `true`: there are more.
fn pids_below(layout: &Layout, met: &Met) -> (Vec<u32>, bool) {
    let mut pids = Vec::new();
    let mut entered = 0;
    let mut paths = vec![met.identity.root.clone()];
    while let Some(path) = paths.pop() {
        let Some(dir) = layout.dir_of(&path, met.cgroup_id) else {
            continue;
        };
        entered += 1;
        if entered > MAX_CGROUPS_OF_ONE || pids.len() > MAX_PROCESSES_OF_ONE {
            return (pids, true);
        }
        let list = read_bounded(&dir.join("cgroup.procs"), MAX_PROCS_BYTES);
        let list = String::from_utf8_lossy(&list.unwrap_or_default()).into_owned();
        pids.extend(list.lines().filter_map(|l| l.parse::<u32>().ok()));
        let below = std::fs::read_dir(&dir).into_iter().flatten().flatten();
        let below = below.filter(|e| e.file_type().is_ok_and(|t| t.is_dir()));
        let below = below.filter_map(|e| Some(format!("{path}/{}", e.file_name().to_str()?)));
        let others = |path: &String| {
            crate::cgroup::classify(path).is_some_and(|inner| inner.id != met.identity.id)
        };
        paths.extend(below.filter(|p| !others(p)).take(MAX_CGROUPS_OF_ONE));
    }
    (pids, false)
}

fn read_all(proc_root: &Path, layout: &Layout) -> (Vec<Seed>, bool) {
    let Ok(entries) = std::fs::read_dir(proc_root) else {
        return (Vec::new(), false);
    };
    let mut pids = entries
        .flatten()
        .filter_map(|e| e.file_name().to_str()?.parse::<u32>().ok());
    let seeds = pids
        .by_ref()
        .take(MAX_PROCESSES)
        .filter_map(|pid| read_process(proc_root, layout, pid))
        .collect();
    (seeds, pids.next().is_some())
}

/// Reads one process; `None` when it is gone (or going) or its files make no sense.
pub fn read_process(proc_root: &Path, layout: &Layout, pid: u32) -> Option<Seed> {
    let dir = proc_root.join(pid.to_string());
    let (ppid, start) = parse_stat(&read_bounded(&dir.join("stat"), MAX_STATUS_BYTES)?)?;
    let status = read_bounded(&dir.join("status"), MAX_STATUS_BYTES)?;
    let status = String::from_utf8_lossy(&status);
    let mut exe = link_text(&dir.join("exe"));
    let root = nested_root(proc_root, pid, ppid);
    if let Some(root) = &root {
        exe = root.inside(&exe);
    }
    // of its memory, which it can make slow: a process whose arguments are not had is still one
    let argv = patient::read(dir.join("cmdline"), MAX_CMDLINE_BYTES).unwrap_or_default();
    let argv = split_argv(&argv);
    let cgroup = read_bounded(&dir.join("cgroup"), MAX_STATUS_BYTES)?;
    let cgroup = String::from_utf8_lossy(&cgroup);
    let mut comm = read_bounded(&dir.join("comm"), 64).unwrap_or_default();
    comm.pop_if(|b| *b == b'\n');
    Some(Seed {
        key: ProcessKey { tgid: pid, start },
        ppid,
        uid: status_id(&status, "Uid:")?,
        gid: status_id(&status, "Gid:")?,
        comm: comm.into(),
        script: script_of(&exe, &argv),
        exe,
        root,
        argv,
        cgroup_path: layout.path_in(&cgroup).unwrap_or("/").to_owned(),
        second_path: layout.path_in_second(&cgroup).map(str::to_owned),
        cgroup_id: 0,
        ns_pids: ns_pids(&status),
        entry: Entry::FoundRunning,
        followed: false,
        program: None,
    })
}

/// Reads at most `max` bytes of a file.
pub(crate) fn read_bounded(path: &Path, max: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)
        .ok()?
        .take(max)
        .read_to_end(&mut bytes)
        .ok()?;
    Some(bytes)
}

/// Parent and start out of `/proc/PID/stat`. `comm` is in parentheses and may hold any byte, so
/// what follows is counted from the last `)`.
pub(crate) fn parse_stat(stat: &[u8]) -> Option<(u32, BootNs)> {
    let after = stat.iter().rposition(|b| *b == b')')? + 1;
    let fields: Vec<&str> = std::str::from_utf8(&stat[after..])
        .ok()?
        .split_ascii_whitespace()
        .collect();
    // the state is field 3 and comes first here
    let ppid = fields.get(4 - 3)?.parse().ok()?;
    let ticks: u64 = fields.get(22 - 3)?.parse().ok()?;
    Some((
        ppid,
        BootNs(ticks.checked_mul(1_000_000_000 / TICKS_PER_SECOND)?),
    ))
}

/// Whether a start that `/proc` shows, rounded down to a tick, is that of a process whose exact start
/// is known.
pub(crate) fn same_start(shown: BootNs, exact: BootNs) -> bool {
    const TICK_NS: u64 = 1_000_000_000 / TICKS_PER_SECOND;
    // what we allow beyond a tick, for rounding
    const SLACK_NS: u64 = 1_000_000;
    shown.0 <= exact.0 + SLACK_NS && exact.0 <= shown.0 + TICK_NS + SLACK_NS
}

fn status_id(status: &str, field: &str) -> Option<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix(field))?;
    line.split_ascii_whitespace().next()?.parse().ok()
}

/// The `NSpid:` line: ids in this namespace and those below it.
fn ns_pids(status: &str) -> Vec<u32> {
    let line = status.lines().find_map(|l| l.strip_prefix("NSpid:"));
    line.unwrap_or_default()
        .split_ascii_whitespace()
        .map_while(|id| id.parse().ok())
        .take(MAX_NAMESPACES)
        .collect()
}

/// Tells exec sessions from the container's own processes. What the runtime puts into a running
/// container has a parent outside the container's pid namespace, and so has the container's first
/// process, which is number 1 there. Orphans never leave a namespace: they come to its number 1. A
/// container without a pid namespace of its own shows nothing of this.
fn tell_sessions(processes: &mut [Seed]) {
    let mut seen: HashMap<u32, (usize, u64, Entry)> = HashMap::new();
    let mut begun = HashSet::new();
    for process in processes {
        let depth = process.ns_pids.len();
        // where a pod shares its pid namespace, a container's first process is not number 1
        let first = begun.insert(process.cgroup_id);
        let may_tell = depth > 1 && process.ns_pids.last() != Some(&1);
        if process.cgroup_id != 0 && !first && may_tell {
            process.entry = match seen.get(&process.ppid) {
                Some((_, cgroup, entry)) if *cgroup == process.cgroup_id => *entry,
                Some((outside, _, _)) if *outside < depth => Entry::ExecSession,
                _ => process.entry,
            };
        }
        seen.insert(process.key.tgid, (depth, process.cgroup_id, process.entry));
    }
}

fn link_text(path: &Path) -> Text {
    let bytes = std::fs::read_link(path)
        .map(|p| p.into_os_string().into_vec())
        .unwrap_or_default();
    match bytes.strip_suffix(b" (deleted)") {
        Some(name) => Text::from(name),
        None => Text::from(bytes),
    }
}

pub(crate) fn split_argv(cmdline: &[u8]) -> Vec<Text> {
    let cmdline = cmdline.strip_suffix(b"\0").unwrap_or(cmdline);
    if cmdline.is_empty() {
        return Vec::new();
    }
    cmdline.split(|b| *b == 0).map(Text::from).collect()
}

/// Programs that are named in `#!` lines.
const INTERPRETERS: [&str; 12] = [
    "sh", "bash", "dash", "ash", "zsh", "ksh", "python", "perl", "ruby", "node", "php", "lua",
];

/// The script, when the kernel probably put an interpreter before it: argv then is `interpreter
/// [option] script …` with both paths absolute. `/proc` cannot tell that from a person's typing
/// the same, so only known interpreters count.
fn script_of(exe: &Text, argv: &[Text]) -> Text {
    let absolute = |t: &&Text| t.as_bytes().starts_with(b"/");
    let Some(interpreter) = argv.first().filter(absolute).filter(|_| !exe.is_empty()) else {
        return Text::default();
    };
    let name = interpreter.basename().to_str_lossy().into_owned();
    let name = name.trim_end_matches(|c: char| c.is_ascii_digit() || c == '.');
    if !INTERPRETERS.contains(&name) {
        return Text::default();
    }
    let at = if argv.get(1).is_some_and(|a| a.as_bytes().starts_with(b"-")) {
        2
    } else {
        1
    };
    argv.get(at).filter(absolute).cloned().unwrap_or_default()
}

/// The containers that the cgroups of a process name.
fn containers_of(dir: &Path) -> HashSet<ContainerId> {
    let cgroup = read_bounded(&dir.join("cgroup"), MAX_STATUS_BYTES).unwrap_or_default();
    let cgroup = String::from_utf8_lossy(&cgroup);
    let paths = cgroup.lines().filter_map(|l| l.splitn(3, ':').nth(2));
    paths
        .filter_map(crate::cgroup::classify)
        .map(|c| c.id)
        .collect()
}

/// The command line of a process as text, for finding daemons' options; empty for a process of a
/// container, which may call itself what it likes and name any directory as a daemon's.
pub(crate) fn command_line(dir: &Path) -> Vec<String> {
    let own = dir.parent().map(|p| containers_of(&p.join("self")));
    let all = containers_of(dir);
    // where this program runs in a container, its own is not a stranger's
    if !all.is_empty() && Some(&all) != own.as_ref() {
        return Vec::new();
    }
    patient::read(dir.join("cmdline"), 64 << 10)
        .map(|bytes| split_argv(&bytes))
        .unwrap_or_default()
        .iter()
        .map(|arg| arg.to_str_lossy().into_owned())
        .collect()
}

/// Path of a link, if it can be read.
pub(crate) fn link(path: &Path) -> Option<std::path::PathBuf> {
    std::fs::read_link(path)
        .ok()
        .filter(|p| p.as_os_str().as_bytes().starts_with(b"/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cgroup::{Hierarchy, Version};
    use std::fs;

    const A: &str = "9527ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24d";
    const B: &str = "00ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24dab";

    struct Machine {
        dir: tempfile::TempDir,
        layout: Layout,
    }

    impl Machine {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let v2 = Hierarchy {
                version: Version::V2,
                mount: dir.path().join("cgroup"),
            };
            Self {
                layout: Layout {
                    controllers: Vec::new(),
                    identifying: v2.clone(),
                    second: None,
                    all: vec![v2],
                },
                dir,
            }
        }
        fn process(
            &self,
            pid: u32,
            ppid: u32,
            ticks: u64,
            comm: &str,
            argv: &[&str],
            cgroup: &str,
        ) {
            let p = self.dir.path().join(pid.to_string());
            fs::create_dir_all(&p).unwrap();
            let rest =
                format!("S {ppid} {pid} {pid} 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 {ticks} 99 99");
            fs::write(p.join("stat"), format!("{pid} ({comm}) {rest}")).unwrap();
            fs::write(
                p.join("status"),
                "Name:\tx\nUid:\t101\t0\t0\t0\nGid:\t102\t0\t0\t0\n",
            )
            .unwrap();
            fs::write(p.join("cmdline"), argv.join("\0") + "\0").unwrap();
            fs::write(p.join("comm"), format!("{comm}\n")).unwrap();
            fs::write(p.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
            std::os::unix::fs::symlink(argv.first().unwrap_or(&"/x"), p.join("exe")).unwrap();
            fs::create_dir_all(self.dir.path().join("cgroup").join(&cgroup[1..])).unwrap();
        }
        fn scan(&self) -> Scan {
            scan_proc(self.dir.path(), &self.layout, |_| Verdict::Undecided)
        }
    }

    #[test]
    fn a_process_of_a_container_that_calls_itself_a_daemon_is_not_taken_for_one() {
        let dir = tempfile::tempdir().expect("a directory");
        let start = |pid: &str, cgroup: &str| {
            let process = dir.path().join(pid);
            fs::create_dir(&process).unwrap();
            fs::write(process.join("cmdline"), "dockerd\0--data-root\0/evil\0").unwrap();
            fs::write(process.join("cgroup"), format!("0::{cgroup}\n")).unwrap();
            command_line(&process).len()
        };
        assert_eq!(start("7", "/system.slice/docker.service"), 3);
        assert_eq!(start("8", &format!("/system.slice/docker-{A}.scope")), 0);
        // of the container that this program itself is in
        start("self", &format!("/docker/{B}"));
        assert_eq!(start("9", &format!("/docker/{B}/sub")), 3);
    }

    #[test]
    fn containers_and_their_processes_are_found() {
        let m = Machine::new();
        let inner = format!("/docker/{A}/docker/{B}");
        m.process(1, 0, 1, "init", &["/sbin/init"], "/");
        m.process(
            50,
            1,
            500,
            "a) S 9 (b",
            &["/bin/worker"],
            &format!("/docker/{A}/sub"),
        );
        m.process(40, 1, 400, "entry", &["/entry"], &format!("/docker/{A}"));
        m.process(60, 40, 600, "inner", &["/inner"], &inner);
        let scan = m.scan();
        assert_eq!(scan.processes.len(), 4);
        assert_eq!(scan.containers.len(), 2);
        let outer = &scan.containers[0];
        assert_eq!(outer.identity.id.as_str(), A);
        assert_eq!(
            outer.first,
            ProcessKey {
                tgid: 40,
                start: BootNs(4_000_000_000)
            }
        );
        assert_eq!(
            scan.containers[1].identity.outer.as_ref().unwrap().as_str(),
            A
        );
        let worker = scan.processes.iter().find(|p| p.key.tgid == 50).unwrap();
        assert_eq!(
            worker.cgroup_id, outer.cgroup_id,
            "a sub-cgroup belongs to the container"
        );
        assert_eq!((worker.ppid, worker.uid, worker.gid), (1, 101, 102));
        assert_eq!(worker.comm, Text::from("a) S 9 (b"));
        assert_eq!(scan.processes[0].cgroup_id, 0);
    }

    #[test]
    fn of_one_container_its_nested_cgroups_are_read_and_no_others() {
        let m = Machine::new();
        let own = format!("/docker/{A}");
        let inner = format!("{own}/docker/{B}");
        let listed = |pid: u32, cgroup: &str| {
            let path = m.dir.path().join("cgroup").join(&cgroup[1..]);
            fs::create_dir_all(&path).unwrap();
            let list = path.join("cgroup.procs");
            let before = fs::read_to_string(&list).unwrap_or_default();
            fs::write(list, format!("{before}{pid}\n")).unwrap();
        };
        for (pid, start, cgroup) in [
            (40, 400, own.as_str()),
            (41, 410, &format!("{own}/a/b")),
            (60, 600, &inner),
            (70, 700, &format!("/docker/{B}")),
        ] {
            m.process(pid, 1, start, "x", &["/x"], cgroup);
            listed(pid, cgroup);
        }
        // one that has ended, and one whose number is another's by now
        listed(90, &own);
        listed(70, &own);
        let met = Met {
            instance: Instance {
                id: ContainerId::parse(A).unwrap(),
                start: BootNs(1),
            },
            identity: crate::cgroup::classify(&own).unwrap(),
            cgroup_id: 7,
        };
        let scan = scan_container(m.dir.path(), &m.layout, &met);
        let found: Vec<(u32, u64)> = scan
            .processes
            .iter()
            .map(|p| (p.key.tgid, p.cgroup_id))
            .collect();
        assert_eq!(found, [(40, 7), (41, 7)]);
        assert_eq!(scan.containers[0].first.tgid, 40);
        assert!(!scan.truncated);
        for pid in 1000..1000 + MAX_PROCESSES_OF_ONE as u32 {
            listed(pid, &own);
        }
        assert!(scan_container(m.dir.path(), &m.layout, &met).truncated);
        let gone = Met {
            identity: crate::cgroup::classify(&format!("/docker/{B}{B}"))
                .unwrap_or(met.identity.clone()),
            cgroup_id: 7 | IN_SECOND_HIERARCHY,
            ..met
        };
        assert!(
            scan_container(m.dir.path(), &m.layout, &gone)
                .processes
                .is_empty()
        );
    }

    #[test]
    fn a_container_in_the_second_hierarchy_only_is_found_by_its_marked_id() {
        let mut m = Machine::new();
        m.layout.second = Some(Hierarchy {
            version: Version::V1 {
                controller: "pids".into(),
            },
            mount: m.dir.path().join("pids"),
        });
        m.process(40, 1, 400, "entry", &["/entry"], "/");
        m.process(41, 1, 410, "both", &["/both"], &format!("/docker/{B}"));
        fs::create_dir_all(m.dir.path().join("pids/docker").join(A)).unwrap();
        let both = format!("8:pids:/docker/{B}\n0::/docker/{B}\n");
        fs::write(m.dir.path().join("41/cgroup"), both).unwrap();
        let v1_only = format!("8:pids:/docker/{A}\n0::/\n");
        fs::write(m.dir.path().join("40/cgroup"), v1_only).unwrap();
        let scan = m.scan();
        let of = |id: &str| {
            let mut all = scan.containers.iter();
            all.find(|c| c.identity.id.as_str() == id)
                .unwrap()
                .cgroup_id
        };
        assert_eq!(
            of(A),
            m.layout.id_in_second(&format!("/docker/{A}")).unwrap()
        );
        assert_ne!(of(A) & plimsoll_model::ids::IN_SECOND_HIERARCHY, 0);
        assert_eq!(of(B), m.layout.id_of(&format!("/docker/{B}")).unwrap());
        assert_eq!(scan.containers.len(), 2);
    }

    #[test]
    fn what_the_kernel_side_has_followed_has_its_exact_key_and_says_so() {
        let m = Machine::new();
        m.process(40, 1, 400, "entry", &["/entry"], &format!("/docker/{A}"));
        m.process(41, 40, 410, "child", &["/child"], &format!("/docker/{A}"));
        let mut scan = m.scan();
        let exact = BootNs(4_001_234_567);
        scan.refine(|key| {
            (key.tgid == 40).then_some(ProcessKey {
                start: exact,
                ..key
            })
        });
        let followed: Vec<bool> = scan.processes.iter().map(|p| p.followed).collect();
        assert_eq!(followed, [true, false]);
        assert_eq!(
            (scan.processes[0].key.start, scan.containers[0].first.start),
            (exact, exact)
        );
    }

    #[test]
    fn exec_sessions_are_told_by_a_parent_outside_the_pid_namespace() {
        let m = Machine::new();
        let inside = format!("/docker/{A}");
        let ids = |pid: u32, line: &str| {
            let status = m.dir.path().join(pid.to_string()).join("status");
            let text = fs::read_to_string(&status).unwrap();
            fs::write(status, format!("{text}NSpid:\t{line}\n")).unwrap();
        };
        m.process(30, 1, 300, "shim", &["/shim"], "/");
        ids(30, "30");
        for (pid, ppid, ns) in [
            (40, 30, "40 1"),  // the container's first process
            (41, 40, "41 7"),  // its child
            (42, 40, "42 9"),  // an orphan, come to number 1
            (50, 30, "50 12"), // docker exec
            (51, 50, "51 13"), // its child
        ] {
            m.process(pid, ppid, u64::from(pid) * 10, "x", &["/x"], &inside);
            ids(pid, ns);
        }
        // with the host's pid namespace nothing can be told
        m.process(60, 30, 600, "x", &["/x"], &format!("/docker/{B}"));
        m.process(61, 30, 610, "x", &["/x"], &format!("/docker/{B}"));
        ids(60, "60");
        ids(61, "61");
        let scan = m.scan();
        let entry = |pid| {
            let found = scan.processes.iter().find(|p| p.key.tgid == pid);
            found.unwrap().entry
        };
        for own in [40, 41, 42, 60, 61] {
            assert_eq!(entry(own), Entry::FoundRunning, "{own}");
        }
        for session in [50, 51] {
            assert_eq!(entry(session), Entry::ExecSession, "{session}");
        }
    }

    #[test]
    fn half_written_processes_are_left_out() {
        let m = Machine::new();
        m.process(40, 1, 400, "entry", &["/entry"], "/");
        for (pid, stat) in [
            ("41", ""),
            ("42", "42 (x"),
            ("43", "43 (x) S one"),
            ("44", "44 (x) S 1 2 3"),
        ] {
            fs::create_dir(m.dir.path().join(pid)).unwrap();
            fs::write(m.dir.path().join(pid).join("stat"), stat).unwrap();
        }
        fs::create_dir(m.dir.path().join("45")).unwrap();
        assert_eq!(m.scan().processes.len(), 1);
    }

    #[test]
    fn scripts_are_told_from_interpreter_and_arguments() {
        let script = |exe: &str, argv: &[&str]| {
            let argv: Vec<Text> = argv.iter().map(|a| Text::from(*a)).collect();
            script_of(&exe.into(), &argv).to_string()
        };
        assert_eq!(
            script("/usr/bin/python3.11", &["/usr/bin/python3", "/app/run.py"]),
            "/app/run.py"
        );
        assert_eq!(
            script("/usr/bin/bash", &["/bin/bash", "-e", "/entry.sh", "x"]),
            "/entry.sh"
        );
        assert_eq!(
            script("/usr/bin/python3.11", &["python3", "/app/run.py"]),
            ""
        );
        assert_eq!(
            script(
                "/usr/sbin/nginx",
                &["nginx: master process /usr/sbin/nginx"]
            ),
            ""
        );
        assert_eq!(
            script("/bin/busybox", &["/bin/sh", "/entry.sh"]),
            "/entry.sh"
        );
        assert_eq!(script("/bin/cat", &["/bin/cat", "/etc/passwd"]), "");
        assert_eq!(script("/bin/sh", &["/bin/sh", "-c", "cat /x"]), "");
    }
}
