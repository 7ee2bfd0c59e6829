//! What programs ran in containers when the agent came, or in one that it met late (the kernel's word
//! that its cgroup was made had been lost): for each that nobody saw starting, what an exec would have
//! told, as far as `/proc` and the mounts show it.
//!
//! Promises: a process that only forked is told with the program that it forked from; bounded
//! ([`PROGRAMS_MAX`]); no path of the node is taken from what is mounted inside a container; nothing
//! here asks a file system that could keep silent. What cannot be told is [`Origin::Unknown`]. Containers
//! that were met late are looked at by a thread that rests as long as it works; [`LOOKS_MAX`] wait for it.
//!
//! Left out: when a program was executed and by whom, and the arguments that it was given: `/proc` has
//! the start of the process, its parent of now, and its memory of now.

use crate::clock::{Clocks, Reading};
use crate::pipeline::Look;
use crate::priority::step_back;
use crate::respond::capture::{Mount, mounts, pin_directory, resolve};
use crate::respond::place::{Stat, stat};
use crate::shared::FoundLate;
use plimsoll_model::event::Exec;
use plimsoll_model::{Origin, ProcessKey, Text, WallNs};
use plimsoll_workload::{FoundContainer, Layout, Met, Scan, Seed, scan_container};
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, statx};
use rustix::io::Errno;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::read_link;
use std::io::{self, Read as _};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

/// Programs looked at; the others are a gap.
const PROGRAMS_MAX: usize = 16_384;
/// How much the thread that looks at containers which were met late steps back.
const NICE_OF_LOOKS: i32 = 10;
/// Containers that wait for being looked at.
const LOOKS_MAX: usize = 256;
/// Bytes read of the small text files of a process.
const STATUS_MAX: u64 = 16 << 10;

/// Starts the thread that looks at containers which were met late. It ends when nobody can ask it, or
/// wants to be told, any more.
pub(crate) fn looker(
    layout: Layout,
    clocks: Arc<dyn Clocks>,
) -> impl FnOnce(FoundLate) -> io::Result<Look> {
    move |told| {
        let (ask, asked) = crossbeam_channel::bounded::<Met>(LOOKS_MAX);
        let body = move || {
            step_back(NICE_OF_LOOKS);
            for met in asked {
                let began = Instant::now();
                let mut scan = scan_container(Path::new("/proc"), &layout, &met);
                look(&mut scan, &clocks.read());
                if !told(scan) {
                    return;
                }
                std::thread::sleep(began.elapsed());
            }
        };
        let thread = std::thread::Builder::new().name("found".into());
        thread.spawn(body)?;
        Ok(Box::new(move |met| ask.try_send(met).is_ok()))
    }
}

/// Fills in the programs of containers' processes that nobody has followed.
pub(crate) fn look(scan: &mut Scan, now: &Reading) {
    let Scan {
        containers,
        processes,
        ..
    } = scan;
    let mut houses = Houses::new(containers, *now);
    let mut told = HashSet::new();
    let mut programs = 0;
    let unseen = |p: &&mut Seed| p.cgroup_id != 0 && !p.followed && !p.exe.is_empty();
    for process in processes.iter_mut().filter(unseen) {
        let Some(stat) = stat_of(process.key) else {
            continue;
        };
        // the oldest comes first
        if !told.insert((process.cgroup_id, process.exe.clone(), stat.image)) {
            continue;
        }
        programs += 1;
        if programs <= PROGRAMS_MAX {
            process.program = program(process, &stat, &mut houses).map(Box::new);
        }
    }
    scan.programs_left_out = programs.saturating_sub(PROGRAMS_MAX) as u64;
}

/// What the kernel says of a process; `None`: it has gone, or another one has its number.
fn stat_of(key: ProcessKey) -> Option<Stat> {
    // a scan rounds to ticks, the kernel side does not
    let is_it = |s: &Stat| (s.start_ticks * 10_000_000).abs_diff(key.start.0) <= 20_000_000;
    stat(key.tgid).filter(is_it)
}

fn text(pid: u32, name: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    let file = std::fs::File::open(format!("/proc/{pid}/{name}")).ok()?;
    file.take(STATUS_MAX).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

/// A file without asking its file system anew, which may be a program's.
fn look_at(path: &Path) -> Option<Statx> {
    let wanted = StatxFlags::BASIC_STATS | StatxFlags::MNT_ID;
    statx(CWD, path, AtFlags::STATX_DONT_SYNC, wanted).ok()
}

fn device(of: &Statx) -> (u32, u32) {
    (of.stx_dev_major, of.stx_dev_minor)
}

fn program(process: &Seed, stat: &Stat, houses: &mut Houses<'_>) -> Option<Exec> {
    let pid = process.key.tgid;
    let dir = PathBuf::from(format!("/proc/{pid}"));
    let link = read_link(dir.join("exe")).ok()?.into_os_string().into_vec();
    let status = text(pid, "status")?;
    let status = String::from_utf8_lossy(&status);
    let word = |field: &str, n: usize| {
        let line = status.lines().find_map(|l| l.strip_prefix(field))?;
        line.split_ascii_whitespace().nth(n).map(str::to_owned)
    };
    let effective = |field: &str| word(field, 1)?.parse().ok();
    let file = look_at(&dir.join("exe"));
    // a file that is really called so counts as deleted too: nobody hides by that
    let deleted = link.ends_with(b" (deleted)") || file.as_ref().is_some_and(|f| f.stx_nlink == 0);
    let cwd = read_link(dir.join("cwd")).map(|p| p.into_os_string().into_vec());
    let cwd = Text::from(cwd.unwrap_or_default());
    let shown = Shown {
        pid,
        path: &process.exe,
        link: &link,
        deleted,
        file: file.as_ref(),
    };
    Some(Exec {
        exe: process.exe.clone(),
        script: process.script.clone(),
        argv: process.argv.clone(),
        argv_bytes: process.argv.iter().map(|a| a.len() as u32 + 1).sum(),
        cwd: match &process.root {
            Some(root) => root.inside(&cwd),
            None => cwd,
        },
        origin: houses.origin(process.cgroup_id, &shown),
        deleted,
        euid: effective("Uid:").unwrap_or(process.uid),
        egid: effective("Gid:").unwrap_or(process.gid),
        caps: word("CapEff:", 0)
            .and_then(|w| u64::from_str_radix(&w, 16).ok())
            .unwrap_or_default(),
        tty: stat.tty,
        // as the kernel writes device numbers
        dev: file.as_ref().map_or(0, |f| {
            u64::from(f.stx_dev_major) << 20 | u64::from(f.stx_dev_minor)
        }),
        ino: file.as_ref().map_or(0, |f| f.stx_ino),
        mode: file.as_ref().map_or(0, |f| u32::from(f.stx_mode) & 0o7777),
        found: true,
        ..Exec::default()
    })
}

/// The executable of a process, as it is seen.
struct Shown<'a> {
    pid: u32,
    /// As its container sees it.
    path: &'a Text,
    link: &'a [u8],
    deleted: bool,
    file: Option<&'a Statx>,
}

/// Where the containers' files are.
struct Houses<'a> {
    containers: HashMap<u64, &'a FoundContainer>,
    known: HashMap<u64, Option<House>>,
    /// Writable directories of overlays, by device, each below the root of the process that told it.
    uppers: HashMap<(u32, u32), PathBuf>,
    now: Reading,
}

/// One container's root.
struct House {
    namespace: PathBuf,
    root: u64,
    /// Types of its file systems, by mount.
    kinds: HashMap<u64, String>,
    upper: Option<OwnedFd>,
    /// When its first process started.
    since: WallNs,
}

impl<'a> Houses<'a> {
    fn new(containers: &'a [FoundContainer], now: Reading) -> Self {
        let mut uppers = HashMap::new();
        // trusted: what is mounted inside a container may say anything
        for pid in [std::process::id(), 1] {
            let root = PathBuf::from(format!("/proc/{pid}/root"));
            let own = mounts(pid).unwrap_or_default();
            for mount in own.iter().filter(|m| m.kind == "overlay") {
                let upper = mount.upper();
                let below = upper.as_deref().and_then(|u| u.strip_prefix("/").ok());
                if let Some(below) = below {
                    uppers.entry(mount.device).or_insert(root.join(below));
                }
            }
        }
        Self {
            containers: containers.iter().map(|c| (c.cgroup_id, c)).collect(),
            known: HashMap::new(),
            uppers,
            now,
        }
    }

    /// Where an executable lives, told as the kernel side tells it of an exec.
    fn origin(&mut self, container: u64, shown: &Shown<'_>) -> Origin {
        if shown.deleted && shown.link.starts_with(b"/memfd:") {
            return Origin::Memfd;
        }
        if !self.known.contains_key(&container) {
            let first = self.containers.get(&container).map(|c| c.first);
            let house = first.and_then(|first| self.house(first));
            self.known.insert(container, house);
        }
        let house = self.known.get(&container).and_then(Option::as_ref);
        let (Some(house), Some(file)) = (house, shown.file) else {
            return Origin::Unknown;
        };
        let namespace = read_link(format!("/proc/{}/ns/mnt", shown.pid));
        if namespace.is_ok_and(|n| n != house.namespace) {
            return Origin::Foreign;
        }
        let Some(kind) = house.kinds.get(&file.stx_mnt_id) else {
            return Origin::Unknown;
        };
        match kind.as_str() {
            "tmpfs" | "ramfs" => Origin::Tmpfs,
            "proc" | "sysfs" | "cgroup" | "cgroup2" | "devpts" | "mqueue" => Origin::Pseudo,
            _ if file.stx_mnt_id != house.root => Origin::Volume,
            // its name is gone, and with it the layer
            _ if shown.deleted => Origin::Unknown,
            "overlay" => match &house.upper {
                Some(upper) => in_layer(upper, shown.path),
                None => Origin::Unknown,
            },
            _ => {
                let changed = file.stx_ctime.tv_sec * 1_000_000_000;
                let changed = changed + i64::from(file.stx_ctime.tv_nsec);
                match changed > house.since.0 {
                    true => Origin::Upper,
                    false => Origin::Image,
                }
            }
        }
    }

    fn house(&self, first: ProcessKey) -> Option<House> {
        let dir = PathBuf::from(format!("/proc/{}", first.tgid));
        let root = look_at(&dir.join("root"))?;
        let mounts: Vec<Mount> = mounts(first.tgid).ok()?;
        let upper = self.uppers.get(&device(&root));
        let ran = self.now.boot.0.saturating_sub(first.start.0);
        Some(House {
            namespace: read_link(dir.join("ns/mnt")).ok()?,
            root: root.stx_mnt_id,
            kinds: mounts.into_iter().map(|m| (m.id, m.kind)).collect(),
            upper: upper.and_then(|path| pin_directory(path.clone()).ok()),
            since: WallNs(self.now.wall.0.saturating_sub_unsigned(ran)),
        })
    }
}

/// Whether a file of an overlay is in its writable layer: it has it under the same path.
fn in_layer(upper: &OwnedFd, path: &Text) -> Origin {
    let below = Path::new(OsStr::from_bytes(path.as_bytes()));
    let Ok(below) = below.strip_prefix("/") else {
        return Origin::Unknown;
    };
    match resolve(upper.as_fd(), below) {
        Ok(_) => Origin::Upper,
        Err(Errno::NOENT | Errno::NOTDIR) => Origin::Image,
        Err(_) => Origin::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClocks;
    use plimsoll_model::BootNs;
    use plimsoll_workload::classify;
    use std::io::{BufRead as _, BufReader};
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command, Stdio};

    const A: &str = "9527ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24d";

    /// Children that end with the test.
    struct Ours(Child);
    impl Drop for Ours {
        fn drop(&mut self) {
            // with its own children, where it leads them
            let group = rustix::process::Pid::from_child(&self.0);
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn start_of(pid: u32) -> BootNs {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).expect("it runs");
        let after = stat.rsplit_once(") ").expect("a name").1;
        let ticks: u64 = after
            .split(' ')
            .nth(19)
            .expect("a start")
            .parse()
            .expect("ticks");
        BootNs(ticks * 10_000_000)
    }

    /// These processes as those of one container, found.
    fn found(pids: &[u32]) -> Scan {
        let seed = |pid: &u32| Seed {
            key: ProcessKey {
                tgid: *pid,
                start: start_of(*pid),
            },
            exe: Text::from(
                read_link(format!("/proc/{pid}/exe"))
                    .expect("a program")
                    .to_string_lossy()
                    .trim_end_matches(" (deleted)"),
            ),
            cgroup_id: 7,
            ..Seed::default()
        };
        let processes: Vec<Seed> = pids.iter().map(seed).collect();
        let container = FoundContainer {
            identity: classify(&format!("/docker/{A}")).expect("a container"),
            cgroup_id: 7,
            first: processes[0].key,
        };
        let mut scan = Scan {
            containers: vec![container],
            processes,
            ..Scan::default()
        };
        look(&mut scan, &SystemClocks.read());
        scan
    }

    #[test]
    fn what_runs_in_a_container_that_was_met_late_is_told_by_its_cgroup() {
        let dir = tempfile::tempdir().expect("a directory");
        let child = Ours(Command::new("/bin/sleep").arg("60").spawn().expect("start"));
        let pid = child.0.id();
        let real = Layout::detect(Path::new("/proc")).expect("cgroups");
        let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it runs");
        let path = real.path_in(&text).expect("a cgroup").to_owned();
        // where only the child is listed, and one that has gone
        let cgroup = dir.path().join(path.trim_start_matches('/'));
        std::fs::create_dir_all(&cgroup).expect("a directory");
        std::fs::write(cgroup.join("cgroup.procs"), format!("{pid}\n4194304\n")).expect("write");
        let mut layout = real;
        layout.identifying.mount = dir.path().to_owned();
        let identity = classify(&format!("/docker/{A}")).expect("a container");
        let met = Met {
            instance: plimsoll_model::Instance {
                id: identity.id.clone(),
                start: BootNs(1),
            },
            identity: plimsoll_workload::CgroupIdentity {
                root: path.trim_end_matches('/').to_owned(),
                ..identity
            },
            cgroup_id: 7,
        };
        let (tell, told) = std::sync::mpsc::channel();
        let told_to: FoundLate = Box::new(move |scan| tell.send(scan).is_ok());
        let ask = looker(layout, Arc::new(SystemClocks))(told_to).expect("a thread");
        assert!(ask(met));
        let scan = told.recv_timeout(std::time::Duration::from_secs(20));
        let scan = scan.expect("what was found");
        let [found] = scan.processes.as_slice() else {
            panic!("one process: {scan:?}");
        };
        let program = found.program.as_ref().expect("a program");
        assert_eq!((found.key.tgid, found.cgroup_id), (pid, 7));
        assert!(program.found && program.argv.len() == 2 && program.ino != 0);
    }

    #[test]
    fn a_program_whose_file_has_gone_is_told_as_deleted() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("dropped");
        crate::testing::sleeper(&path);
        let child = Ours(Command::new(&path).arg("60").spawn().expect("start"));
        let there = found(&[child.0.id()]);
        let there = there.processes[0].program.as_ref().expect("a program");
        assert!(there.found && !there.deleted && there.ino != 0);
        std::fs::remove_file(&path).expect("remove");
        let gone = found(&[child.0.id()]);
        let gone = gone.processes[0].program.as_ref().expect("a program");
        assert!(gone.deleted);
        assert_eq!(gone.exe, there.exe);
    }

    #[test]
    fn what_only_forked_is_told_with_what_it_forked_from_and_an_exec_is_not() {
        let script = "mkfifo f; (exec 3<>f; echo forked; read x <&3) & \
                      sh -c 'exec 3<>f; echo executed; read x <&3' & wait";
        let dir = tempfile::tempdir().expect("a directory");
        let mut shell = Command::new("sh");
        shell.args(["-c", script]).current_dir(dir.path());
        shell.process_group(0).stderr(Stdio::null());
        let mut shell = Ours(shell.stdout(Stdio::piped()).spawn().expect("start"));
        let out = shell.0.stdout.take().expect("a pipe");
        let said: Vec<String> = BufReader::new(out).lines().take(2).flatten().collect();
        assert_eq!(said.len(), 2);
        let pid = shell.0.id();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children"));
        let children = children.expect("children");
        let mut pids = vec![pid];
        pids.extend(
            children
                .split_whitespace()
                .filter_map(|c| c.parse::<u32>().ok()),
        );
        assert_eq!(pids.len(), 3);
        let scan = found(&pids);
        let told: Vec<bool> = scan.processes.iter().map(|p| p.program.is_some()).collect();
        assert_eq!(told.iter().filter(|t| **t).count(), 2, "{told:?}");
        assert!(told[0]);
    }

    #[test]
    fn what_is_followed_is_the_hosts_or_has_gone_is_left_out() {
        let child = Ours(Command::new("/bin/sleep").arg("60").spawn().expect("start"));
        let seed = |cgroup_id, followed, late| Seed {
            key: ProcessKey {
                tgid: child.0.id(),
                start: BootNs(start_of(child.0.id()).0 + late),
            },
            exe: "/bin/sleep".into(),
            cgroup_id,
            followed,
            ..Seed::default()
        };
        let mut scan = Scan {
            processes: vec![
                seed(0, false, 0),
                seed(7, true, 0),
                seed(7, false, 1_000_000_000),
            ],
            ..Scan::default()
        };
        look(&mut scan, &SystemClocks.read());
        assert!(scan.processes.iter().all(|p| p.program.is_none()));
    }

    #[test]
    fn a_file_of_an_overlay_is_of_the_layer_that_has_it() {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("tmp")).expect("a directory");
        std::fs::write(dir.path().join("tmp/x"), "").expect("write");
        std::os::unix::fs::symlink("/etc", dir.path().join("led")).expect("a link");
        let upper = pin_directory(dir.path().to_owned()).expect("it is there");
        let of = |path: &str| in_layer(&upper, &path.into());
        assert_eq!(of("/tmp/x"), Origin::Upper);
        assert_eq!(of("/tmp/y"), Origin::Image);
        assert_eq!(of("/usr/bin/nginx"), Origin::Image);
        assert_eq!(of("/led/passwd"), Origin::Unknown, "no link leads away");
        assert_eq!(of("relative"), Origin::Unknown);
    }
}
