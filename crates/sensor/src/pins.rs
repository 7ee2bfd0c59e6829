//! The kernel side, kept beyond the process that loaded it: maps and links pinned in a bpffs, for the
//! next agent.
//!
//! ```text
//! HOME/            one for each agent (data directory); locked while an agent uses it
//!   ABI/           one set: everything that was loaded together, named by what makes it fit
//!     l_NAME       links: what keeps the programs attached
//!     m_NAME       maps: rings, dictionary, containers, processes, variables
//!     agent        a page that the agent writes: when it was there last, what it held in its hands
//!     told         losses that have been told, by container
//!     notes        what was loaded and refused, with the numbers of all the above; pinned last
//! ```
//!
//! Promises: a set is used only when its directory is root's alone, its notes are whole and every
//! object in it is the one that the notes name. Whatever else lies there is never followed, mapped or
//! called; it is said, and the caller loads anew. Left out: what an agent does with it (`load`).

use crate::api::SensorConfig;
use crate::ladder::Ladder;
use crate::objects::{Objects, map_id};
use crate::region::Region;
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, MapType};
use plimsoll_model::BootNs;
use siphasher::sip128::{Hasher128 as _, SipHasher13};
use std::collections::{BTreeMap, HashMap};
use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::hash::Hasher as _;
use std::io;
use std::os::fd::AsRawFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Meaning of everything in a set that is not in `bpf/`: another number, another ABI.
const FORMAT: &str = "plimsoll pins 2";
/// Longest notes, bytes.
const NOTES_MAX: usize = 64 << 10;
/// Entries looked at in one directory.
const ENTRIES_MAX: usize = 512;
/// Sets looked at in one home.
const SETS_MAX: usize = 16;
/// Where distributions mount it.
const USUAL_MOUNT: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` in linux/magic.h.
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;
/// How a refusal begins when the place is locked.
pub(crate) const IN_USE: &str = "another process uses";
/// How long a place may be locked by somebody who takes out what was left there.
const TAKING_OUT: Duration = Duration::from_secs(5);
/// Homes looked at.
const HOMES_MAX: usize = 64;
/// Containers whose told losses are kept.
const TOLD_MAX: u32 = 16_384;
/// Key of the node's own in `told`.
pub(crate) const TOLD_NODE: u64 = u64::MAX;
/// Key of the kernel's recursion misses there.
pub(crate) const TOLD_MISSES: u64 = u64::MAX - 1;

fn digest(parts: &[&[u8]]) -> String {
    let mut h = SipHasher13::new();
    for part in parts {
        h.write_u64(part.len() as u64);
        h.write(part);
    }
    let d = h.finish128();
    format!("{:016x}{:016x}", d.h1, d.h2)
}

/// Names what makes a set fit: format, programs, how the tables are filled, sizes, hooks, machine.
pub(crate) fn abi(config: &SensorConfig, ladder: &Ladder) -> String {
    let unpinned = SensorConfig {
        pins: None,
        ..config.clone()
    };
    let cpus = libbpf_rs::num_possible_cpus().unwrap_or(1);
    let host = std::fs::metadata("/proc/1/ns/mnt").map_or(0, |m| m.ino());
    let settings = format!("{unpinned:?} {cpus} {host} {}", ladder.lsm_usable());
    digest(&[
        FORMAT.as_bytes(),
        include_bytes!(concat!(env!("OUT_DIR"), "/plimsoll.bpf.o")),
        include_bytes!("load.rs"),
        include_bytes!("gates.rs"),
        include_bytes!("control.rs"),
        include_bytes!("dictionary.rs"),
        include_bytes!("tables.rs"),
        include_bytes!("ladder.rs"),
        include_bytes!("hash.rs"),
        settings.as_bytes(),
    ])
}

/// Names the layout of records in the rings: what is needed to read what another set has recorded.
pub(crate) fn wire() -> String {
    let counters = include_str!("../../../bpf/maps.h");
    let counters = counters.split_once("struct cpu_state {");
    let counters = counters.and_then(|(_, rest)| rest.split_once("};"));
    digest(&[
        without_comments(include_str!("../../../bpf/wire.h")).as_bytes(),
        counters.map_or("", |(fields, _)| fields).as_bytes(),
    ])
}

fn without_comments(mut rest: &str) -> String {
    let mut code = String::new();
    while let Some((before, comment)) = rest.split_once("/*") {
        code.push_str(before);
        rest = comment.split_once("*/").map_or("", |(_, after)| after);
    }
    code.push_str(rest);
    code.retain(|c| !c.is_whitespace());
    code
}

fn c_path(path: &Path) -> Result<CString, String> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| "a path with a zero byte".to_owned())
}

fn on_bpffs(path: &Path) -> bool {
    let Ok(path) = c_path(path) else {
        return false;
    };
    // SAFETY: statfs is plain data for which all zeroes is valid; the path ends with a zero byte.
    #[allow(unsafe_code)]
    let (ret, fs) = unsafe {
        let mut fs: libc::statfs = std::mem::zeroed();
        (libc::statfs(path.as_ptr(), &mut fs), fs)
    };
    #[allow(clippy::unnecessary_cast)] // another integer on other C libraries
    let kind = fs.f_type as i64;
    ret == 0 && kind == BPF_FS_MAGIC
}

/// Mounts a bpffs where every distribution has it, when it is not there.
fn mount_usual() -> Result<(), String> {
    let (kind, at) = (c"bpf", c"/sys/fs/bpf");
    // SAFETY: three strings that end with a zero byte, no data.
    #[allow(unsafe_code)]
    let ret = unsafe {
        libc::mount(
            kind.as_ptr(),
            at.as_ptr(),
            kind.as_ptr(),
            libc::MS_NOSUID | libc::MS_NODEV | libc::MS_NOEXEC,
            std::ptr::null(),
        )
    };
    match ret {
        0 => Ok(()),
        _ => Err(format!(
            "{USUAL_MOUNT} is no bpffs, and none can be mounted there: {}",
            io::Error::last_os_error()
        )),
    }
}

/// A directory that belongs to us alone and is none by a link.
fn check_private(dir: &Path) -> Result<(), String> {
    let shown = dir.display();
    let m = dir
        .symlink_metadata()
        .map_err(|e| format!("{shown}: {e}"))?;
    if !m.is_dir() {
        return Err(format!("{shown} is no directory"));
    }
    // SAFETY: no arguments, cannot fail.
    #[allow(unsafe_code)]
    let us = unsafe { libc::geteuid() };
    if m.uid() != us {
        return Err(format!("{shown} belongs to uid {}, not to us", m.uid()));
    }
    if m.mode() & 0o077 != 0 {
        return Err(format!(
            "{shown} is open to others (mode {:o}): chmod 700 it",
            m.mode() & 0o777
        ));
    }
    Ok(())
}

/// Makes `home` and what is missing above it, private, on a bpffs.
fn make_home(home: &Path) -> Result<(), String> {
    if home.starts_with(USUAL_MOUNT) && !on_bpffs(Path::new(USUAL_MOUNT)) {
        mount_usual()?;
    }
    let mut above: Vec<&Path> = home.ancestors().skip(1).collect();
    above.reverse();
    // everything below the mount is ours: nobody else can put something else in its place
    for dir in above.into_iter().chain([home]) {
        if !on_bpffs(dir.parent().unwrap_or(dir)) {
            continue;
        }
        match std::fs::DirBuilder::new().mode(0o700).create(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => {
                return Err(format!("make {}: {e}", dir.display()));
            }
            _ => check_private(dir)?,
        }
    }
    match on_bpffs(home) {
        true => check_private(home),
        false => Err(format!("{} is not on a bpffs", home.display())),
    }
}

/// An agent's place, locked by this process.
pub(crate) struct Home {
    dir: PathBuf,
    _lock: File,
}

impl Home {
    /// Opens the place, making it when it is not there.
    ///
    /// # Errors
    /// In words, when there is no bpffs, it is not ours alone, or another process uses it for longer than
    /// taking out takes.
    pub(crate) fn open(dir: &Path) -> Result<Self, String> {
        let end = Instant::now() + TAKING_OUT;
        loop {
            make_home(dir)?;
            match Self::lock(dir) {
                Ok(home) if home.is_there() => return Ok(home),
                // taken out between the two
                Ok(_) => {}
                Err(why) if why.starts_with(IN_USE) && Instant::now() < end => {
                    std::thread::sleep(Duration::from_millis(50));
                }
                Err(why) => return Err(why),
            }
        }
    }

    /// What is locked is what lies there.
    fn is_there(&self) -> bool {
        let is = |a: &std::fs::Metadata, b: &std::fs::Metadata| a.ino() == b.ino();
        let both = (self._lock.metadata(), self.dir.symlink_metadata());
        matches!(both, (Ok(a), Ok(b)) if is(&a, &b))
    }

    /// Opens a place that is there.
    pub(crate) fn existing(dir: &Path) -> Result<Self, String> {
        check_private(dir)?;
        Self::lock(dir)
    }

    fn lock(dir: &Path) -> Result<Self, String> {
        let lock = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECTORY | libc::O_NOFOLLOW)
            .open(dir)
            .map_err(|e| format!("open {}: {e}", dir.display()))?;
        // SAFETY: a descriptor of ours; the lock ends with it, or with this process.
        #[allow(unsafe_code)]
        let ret = unsafe { libc::flock(lock.as_raw_fd(), libc::LOCK_EX | libc::LOCK_NB) };
        if ret != 0 {
            let e = io::Error::last_os_error();
            return Err(match e.kind() {
                io::ErrorKind::WouldBlock => format!("{IN_USE} {}{}", dir.display(), holder(dir)),
                _ => format!("lock {}: {e}", dir.display()),
            });
        }
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// Where the set of an ABI lies.
    pub(crate) fn set_dir(&self, abi: &str) -> PathBuf {
        self.dir.join(abi)
    }

    /// Directories of sets, whole or not.
    pub(crate) fn sets(&self) -> Vec<PathBuf> {
        sets_in(&self.dir)
    }

    pub(crate) fn dir(&self) -> &Path {
        &self.dir
    }
}

/// The process that uses a home, by its own word.
fn holder(home: &Path) -> String {
    let pid_in = |set: &PathBuf| Some(open(set).ok()?.set.page.get(Word::Pid));
    let pid = sets_in(home)
        .iter()
        .filter_map(pid_in)
        .find(|pid| *pid != 0);
    pid.map_or_else(String::new, |pid| format!(" (process {pid})"))
}

fn entries(dir: &Path) -> Vec<PathBuf> {
    let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut all: Vec<PathBuf> = all.take(ENTRIES_MAX).map(|e| e.path()).collect();
    all.sort();
    all
}

fn directories(dir: &Path, most: usize) -> Vec<PathBuf> {
    let all = entries(dir).into_iter();
    let real = all.filter(|p| p.symlink_metadata().is_ok_and(|m| m.is_dir()));
    real.take(most).collect()
}

/// Homes of agents below a directory of ours on a bpffs.
pub(crate) fn homes(root: &Path) -> Vec<PathBuf> {
    match on_bpffs(root) && check_private(root).is_ok() {
        true => directories(root, HOMES_MAX),
        false => Vec::new(),
    }
}

/// Directories of sets in a home.
pub(crate) fn sets_in(home: &Path) -> Vec<PathBuf> {
    directories(home, SETS_MAX)
}

/// How many links a set has.
pub(crate) fn links_in(set: &Path) -> usize {
    entries(set).iter().filter(|p| is_link(p)).count()
}

fn is_link(path: &Path) -> bool {
    path.file_name()
        .is_some_and(|n| n.as_bytes().starts_with(b"l_"))
}

/// Takes a set out: links first, so that nothing runs any more whose maps go.
///
/// # Errors
/// In words, what is still there.
pub(crate) fn remove(set: &Path) -> Result<(), String> {
    let all = entries(set);
    let (links, rest): (Vec<_>, Vec<_>) = all.iter().partition(|p| is_link(p));
    for path in links.into_iter().chain(rest) {
        std::fs::remove_file(path).map_err(|e| format!("remove {}: {e}", path.display()))?;
    }
    std::fs::remove_dir(set).map_err(|e| format!("remove {}: {e}", set.display()))
}

/// What an agent says about itself to the one that comes after it.
pub(crate) struct Page(Region);

/// Words of the page, by their offset.
#[derive(Clone, Copy)]
pub(crate) enum Word {
    /// When it looked at the rings last (boot clock, ns).
    Alive = 0,
    /// Events that it has read.
    Read = 8,
    /// Of those, how many it had in its hands …
    InHand = 16,
    /// … when it had read so many.
    InHandAt = 24,
    /// 1: it ended in order, with empty hands.
    Left = 32,
    /// Until when it let acts be prevented (boot clock, ns; 0: never).
    Prevented = 40,
    /// Its process number.
    Pid = 48,
    /// 1: an agent has read its rings; before, nobody had told it of containers.
    Begun = 56,
}
/// Words in the page.
const PAGE_WORDS: u32 = 512;

impl Page {
    fn of(map: &MapHandle) -> io::Result<Self> {
        Region::new(map, PAGE_WORDS as usize * 8, true).map(Self)
    }

    pub(crate) fn get(&self, word: Word) -> u64 {
        self.0.long(word as usize).load(Ordering::Acquire)
    }

    pub(crate) fn set(&self, word: Word, value: u64) {
        self.0.long(word as usize).store(value, Ordering::Release);
    }

    pub(crate) fn add(&self, word: Word, n: u64) {
        self.0.long(word as usize).fetch_add(n, Ordering::AcqRel);
    }
}

/// `struct presence` of `bpf/maps.h`, a section of its own: until when the programs work.
pub(crate) struct Presence(Region);

impl Presence {
    pub(crate) const SECTION: &str = "presence";

    /// That of a set.
    ///
    /// # Errors
    /// When it is missing, or is not as long as ours.
    pub(crate) fn of(objects: &Objects) -> libbpf_rs::Result<Self> {
        let map = objects.get(Self::SECTION)?;
        match map.value_size() {
            16 => Ok(Self(Region::new(map, 16, true)?)),
            _ => Err(libbpf_rs::Error::from_raw_os_error(libc::EINVAL)),
        }
    }

    /// The programs work until then (monotonic clock, ns; 0: without a limit).
    pub(crate) fn work_until(&self, mono_ns: u64) {
        self.0.long(0).store(mono_ns, Ordering::Release);
    }

    /// The time in which they work without an agent is over.
    pub(crate) fn is_over(&self, mono_ns: u64) -> bool {
        let until = self.0.long(0).load(Ordering::Acquire);
        self.idle_since().is_some() || (until != 0 && until < mono_ns)
    }

    /// Since when they do nothing any more.
    pub(crate) fn idle_since(&self) -> Option<BootNs> {
        let since = self.0.long(8).load(Ordering::Acquire);
        (since != 0).then_some(BootNs(since))
    }
}

/// What the notes of a set say.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Notes {
    pub(crate) abi: String,
    pub(crate) wire: String,
    /// For people: which agent's it is (its data directory).
    pub(crate) owner: String,
    pub(crate) refused: BTreeMap<String, String>,
    pub(crate) maps: BTreeMap<String, u32>,
    pub(crate) links: BTreeMap<String, (u32, u32)>,
}

impl Notes {
    fn write(&self) -> String {
        let mut text = format!("{FORMAT}\nabi {}\nwire {}\n", self.abi, self.wire);
        text.push_str(&format!("owner {}\n", one_line(&self.owner, 512)));
        for (name, id) in &self.maps {
            text.push_str(&format!("map {name} {id}\n"));
        }
        for (name, (id, program)) in &self.links {
            text.push_str(&format!("link {name} {id} {program}\n"));
        }
        for (program, why) in &self.refused {
            text.push_str(&format!("refused {program} {}\n", one_line(why, 400)));
        }
        text.push_str("end\n");
        text
    }

    /// `None`: no notes of ours, or not all of them.
    fn read(text: &str) -> Option<Self> {
        let mut lines = text.lines();
        let mut notes = Notes::default();
        if lines.next() != Some(FORMAT) {
            return None;
        }
        for line in lines {
            let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
            let mut words = rest.splitn(2, ' ');
            let mut next = || words.next().unwrap_or_default();
            match word {
                "abi" => notes.abi = rest.to_owned(),
                "wire" => notes.wire = rest.to_owned(),
                "owner" => notes.owner = rest.to_owned(),
                "map" => {
                    notes.maps.insert(next().to_owned(), next().parse().ok()?);
                }
                "link" => {
                    let (name, ids) = (next().to_owned(), next());
                    let (id, program) = ids.split_once(' ')?;
                    let ids = (id.parse().ok()?, program.parse().ok()?);
                    notes.links.insert(name, ids);
                }
                "refused" => {
                    notes.refused.insert(next().to_owned(), next().to_owned());
                }
                "end" => return Some(notes),
                _ => return None,
            }
        }
        None
    }
}

fn one_line(text: &str, most: usize) -> String {
    let plain = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().take(most).map(plain).collect()
}

/// A set in use: what the agent writes into it while it runs.
pub(crate) struct Set {
    pub(crate) dir: PathBuf,
    pub(crate) page: Page,
    told: MapHandle,
}

impl Set {
    pub(crate) fn tell(&self, key: u64, counts: &[u64; 5]) {
        let bytes: Vec<u8> = counts.iter().flat_map(|n| n.to_ne_bytes()).collect();
        // a full table costs that losses are told once more, after a crash
        let _ = self.told.update(&key.to_ne_bytes(), &bytes, MapFlags::ANY);
    }

    /// Losses that have been told, by container.
    pub(crate) fn told(&self) -> HashMap<u64, [u64; 5]> {
        let word = |b: &[u8], i: usize| {
            let eight = b.get(8 * i..8 * i + 8).and_then(|b| b.try_into().ok());
            eight.map_or(0, u64::from_ne_bytes)
        };
        let keys = self.told.keys().take(TOLD_MAX as usize);
        keys.filter_map(|key| {
            let value = self.told.lookup(&key, MapFlags::ANY).ok()??;
            Some((word(&key, 0), std::array::from_fn(|i| word(&value, i))))
        })
        .collect()
    }
}

fn own_map(
    kind: MapType,
    name: &str,
    sizes: (u32, u32, u32),
    flags: u32,
) -> libbpf_rs::Result<MapHandle> {
    let opts = libbpf_rs::libbpf_sys::bpf_map_create_opts {
        sz: size_of::<libbpf_rs::libbpf_sys::bpf_map_create_opts>() as _,
        map_flags: flags,
        ..Default::default()
    };
    MapHandle::create(kind, Some(name), sizes.0, sizes.1, sizes.2, &opts)
}

/// Pins everything; the notes come last, so that half a set is never taken for a whole one.
///
/// # Errors
/// In words; what was pinned until then is removed again.
pub(crate) fn create(
    home: &Home,
    notes: Notes,
    objects: &Objects,
    links: &mut [(String, Link)],
) -> Result<Set, String> {
    let dir = home.set_dir(&notes.abi);
    if dir.symlink_metadata().is_ok() {
        remove(&dir)?;
    }
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&dir)
        .map_err(|e| format!("make {}: {e}", dir.display()))?;
    let done = pin_all(&dir, notes, objects, links);
    if done.is_err() {
        let _ = remove(&dir);
    }
    done
}

fn pin_all(
    dir: &Path,
    mut notes: Notes,
    objects: &Objects,
    links: &mut [(String, Link)],
) -> Result<Set, String> {
    let fail = |what: &str, e: &dyn std::fmt::Display| format!("pin {what}: {e}");
    for (name, map) in objects.all() {
        let mut map = MapHandle::try_from(map).map_err(|e| fail(name, &e))?;
        map.pin(dir.join(format!("m_{name}")))
            .map_err(|e| fail(name, &e))?;
        let id = map_id(&map).map_err(|e| fail(name, &e))?;
        notes.maps.insert(name.to_owned(), id);
    }
    let flags = libbpf_rs::libbpf_sys::BPF_F_MMAPABLE;
    let mut page = own_map(MapType::Array, "plimsoll_agent", (4, 8, PAGE_WORDS), flags)
        .map_err(|e| fail("agent", &e))?;
    let mut told = own_map(MapType::Hash, "plimsoll_told", (8, 40, TOLD_MAX), 1)
        .map_err(|e| fail("told", &e))?;
    for (name, map) in [("agent", &mut page), ("told", &mut told)] {
        map.pin(dir.join(name)).map_err(|e| fail(name, &e))?;
        let id = map_id(map).map_err(|e| fail(name, &e))?;
        notes.maps.insert(name.to_owned(), id);
    }
    for (name, link) in links.iter_mut() {
        let info = link.info().map_err(|e| fail(name, &e))?;
        link.pin(dir.join(format!("l_{name}")))
            .map_err(|e| fail(name, &e))?;
        notes.links.insert(name.clone(), (info.id, info.prog_id));
    }
    let set = Set {
        dir: dir.to_owned(),
        page: Page::of(&page).map_err(|e| fail("agent", &e))?,
        told,
    };
    let mut text = notes.write().into_bytes();
    if text.len() > NOTES_MAX {
        return Err("pin notes: they are too long".into());
    }
    text.resize(NOTES_MAX, 0);
    let mut map = own_map(
        MapType::Array,
        "plimsoll_notes",
        (4, NOTES_MAX as u32, 1),
        0,
    )
    .map_err(|e| fail("notes", &e))?;
    map.update(&0u32.to_ne_bytes(), &text, MapFlags::ANY)
        .map_err(|e| fail("notes", &e))?;
    map.pin(dir.join("notes")).map_err(|e| fail("notes", &e))?;
    Ok(set)
}

/// A whole set that was found.
pub(crate) struct Found {
    pub(crate) set: Set,
    pub(crate) notes: Notes,
    pub(crate) objects: Objects,
    pub(crate) links: Vec<(String, Link)>,
}

/// Reads a set, object by object.
///
/// # Errors
/// In words, what is wrong with it.
pub(crate) fn open(dir: &Path) -> Result<Found, String> {
    check_private(dir)?;
    let notes = read_notes(dir)?;
    let name = dir.file_name().map_or(&b""[..], |n| n.as_bytes());
    if !name.starts_with(notes.abi.as_bytes()) {
        return Err("its notes are of another set".into());
    }
    let mut maps = BTreeMap::new();
    for (name, id) in &notes.maps {
        let own = ["agent", "told"].contains(&name.as_str());
        let file = if own {
            name.clone()
        } else {
            format!("m_{name}")
        };
        let map = map_at(&dir.join(&file))?;
        if map_id(&map).ok() != Some(*id) {
            return Err(format!("{file} is not the map that was pinned there"));
        }
        maps.insert(name.clone(), map);
    }
    let (page, told) = match (maps.remove("agent"), maps.remove("told")) {
        (Some(page), Some(told)) if page.max_entries() == PAGE_WORDS && page.value_size() == 8 => {
            (page, told)
        }
        _ => return Err("its agent's page is missing or of another size".into()),
    };
    let mut links = Vec::new();
    for (name, ids) in &notes.links {
        links.push((name.clone(), link_at(dir, name, *ids)?));
    }
    Ok(Found {
        set: Set {
            dir: dir.to_owned(),
            page: Page::of(&page).map_err(|e| format!("map the agent's page: {e}"))?,
            told,
        },
        notes,
        objects: Objects::found(maps),
        links,
    })
}

fn link_at(dir: &Path, name: &str, (id, program): (u32, u32)) -> Result<Link, String> {
    let path = dir.join(format!("l_{name}"));
    check_pin(&path)?;
    let link = Link::open(&path).map_err(|e| format!("open l_{name}: {e}"))?;
    let info = link.info().map_err(|e| format!("look at l_{name}: {e}"))?;
    if (info.id, info.prog_id) != (id, program) {
        return Err(format!("l_{name} is not the link that was pinned there"));
    }
    match info.info {
        // whoever detaches it leaves the link
        libbpf_rs::query::LinkTypeInfo::Cgroup(c) if c.cgroup_id == 0 => {
            Err(format!("l_{name} has been detached"))
        }
        _ => Ok(link),
    }
}

fn check_pin(path: &Path) -> Result<(), String> {
    let m = path
        .symlink_metadata()
        .map_err(|e| format!("{}: {e}", path.display()))?;
    // SAFETY: no arguments, cannot fail.
    #[allow(unsafe_code)]
    let us = unsafe { libc::geteuid() };
    match m.is_file() && m.uid() == us {
        true => Ok(()),
        false => Err(format!("{} is no pin of ours", path.display())),
    }
}

fn map_at(path: &Path) -> Result<MapHandle, String> {
    check_pin(path)?;
    MapHandle::from_pinned_path(path).map_err(|e| format!("open {}: {e}", path.display()))
}

/// The notes of a set.
///
/// # Errors
/// In words, when they are missing (the set is half done) or no notes of ours.
pub(crate) fn read_notes(dir: &Path) -> Result<Notes, String> {
    let path = dir.join("notes");
    if path.symlink_metadata().is_err() {
        return Err("it was never finished".into());
    }
    let map = map_at(&path)?;
    let fits = map.map_type() == MapType::Array
        && map.key_size() == 4
        && map.value_size() as usize == NOTES_MAX;
    let bytes = fits.then(|| map.lookup(&0u32.to_ne_bytes(), MapFlags::ANY));
    let bytes = bytes.and_then(Result::ok).flatten().unwrap_or_default();
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    let text = std::str::from_utf8(&bytes[..end]).unwrap_or_default();
    Notes::read(text).ok_or_else(|| "its notes are none of ours".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_come_back_whole_or_not_at_all() {
        let notes = Notes {
            abi: "a".into(),
            wire: "w".into(),
            owner: "/var/lib/plim soll\n".into(),
            refused: [("l_x".to_owned(), "no\nsuch thing".to_owned())].into(),
            maps: [("l1".to_owned(), 7)].into(),
            links: [("on_exec".to_owned(), (3, 4))].into(),
        };
        let text = notes.write();
        let back = Notes::read(&text).expect("they are ours");
        assert_eq!(back.owner, "/var/lib/plim soll ");
        assert_eq!(back.refused["l_x"], "no such thing");
        assert_eq!((back.maps["l1"], back.links["on_exec"]), (7, (3, 4)));
        for cut in 0..text.len() - 1 {
            assert_eq!(Notes::read(&text[..cut]), None, "cut at {cut}");
        }
    }

    #[test]
    fn a_comment_in_the_wire_contract_is_no_other_contract() {
        let (a, b) = (
            "struct x { int a; };",
            "/* new */\nstruct x {\n\tint a; /* this */ };",
        );
        assert_eq!(without_comments(a), without_comments(b));
        assert!(
            without_comments(include_str!("../../../bpf/wire.h")).contains("structwire_event{")
        );
    }
}
