//! Forbids a program in one container or in all of this node, for a time.
//!
//! Promises: its execs are killed before their first instruction by the kernel side, on every kernel
//! (`bpf/block.h`); what is forbidden is a path as the container sees it, and the very file too where
//! the acting process still runs it, so that a new name does not help. Each block ends by itself; a
//! file in the data directory keeps it over a restart of the agent until then. It counts when the
//! kernel says that it holds. Bounded by [`BLOCKS_MAX`].
//!
//! Left out: a copy of the file under another name is another file; a script is its interpreter; what
//! runs already goes on (`kill-tree`); while no agent runs, nothing is forbidden.

use super::machine::{Machine, Target};
use crate::files;
use crate::kernel::Kernel;
use crate::machine;
use plimsoll_model::response::StepOutcome;
use plimsoll_model::{BootNs, Text};
use plimsoll_sensor::api::{Block, Blocked, ProgramFile};
use rustix::time::{ClockId, clock_gettime};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Blocks on one node at most.
pub const BLOCKS_MAX: usize = 1024;
/// Bytes of one file that keeps a block.
const FILE_MAX: u64 = 64 << 10;

/// What a step asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// The program's path; `None`: the one of the process that gave cause.
    pub path: Option<String>,
    /// In every container of this node, not only in this one.
    pub node: bool,
    /// It ends by itself after this.
    pub lasts: Duration,
}

/// Forbids it.
pub(super) fn block(machine: &Machine, target: &Target, wanted: &Wanted) -> StepOutcome {
    let refused = |why: String| StepOutcome::Refused { why };
    let failed = |why: String| StepOutcome::Failed { why };
    let Some(kernel) = machine.kernel.get() else {
        return unavailable();
    };
    let blocks = match blocks(kernel, target, wanted) {
        Ok(blocks) => blocks,
        Err(why) => return failed(why),
    };
    if let Some(why) = forbidden(kernel, target, wanted, &blocks) {
        return refused(why);
    }
    sweep(&machine.blocks_dir, kernel);
    if count(&machine.blocks_dir) >= BLOCKS_MAX {
        return refused(format!("{BLOCKS_MAX} programs are forbidden already"));
    }
    let until = boot_now() + wanted.lasts.as_nanos() as u64;
    let kept = Kept {
        blocks,
        until_wall_ms: wall_ms() + wanted.lasts.as_millis() as u64,
    };
    // kept first: what holds must be found again after a crash, to be taken back
    if let Err(e) = kept.write(&file_of(machine, target, wanted)) {
        return failed(format!("keep the block: {e}"));
    }
    for block in &kept.blocks {
        let set = kernel.block(block, BootNs(until));
        let held = set.is_ok() && kernel.blocked(block).is_some_and(|(u, _)| u.0 == until);
        if !held {
            let why = set
                .err()
                .map_or("it does not hold".into(), |e| e.to_string());
            let _ = unblock(machine, target, wanted);
            return failed(format!("{why}; nothing is forbidden"));
        }
    }
    let running = running(kernel, target, wanted, &kept.blocks);
    StepOutcome::Done {
        effect: format!(
            "{} does not start any more in {} for {} s (killed before its first instruction{}){}",
            names(&kept.blocks),
            if wanted.node {
                "any container of this node"
            } else {
                "this container"
            },
            wanted.lasts.as_secs(),
            if kept.blocks.len() > 1 {
                ", under this name or another"
            } else {
                ", by its path"
            },
            match running {
                0 => String::new(),
                n => format!("; {n} of its processes run already and go on (kill-tree ends them)"),
            }
        ),
        sealed: None,
        undo: Vec::new(),
    }
}

/// Lets it run again.
pub(super) fn unblock(machine: &Machine, target: &Target, wanted: &Wanted) -> StepOutcome {
    let Some(kernel) = machine.kernel.get() else {
        return unavailable();
    };
    let path = file_of(machine, target, wanted);
    let Some(kept) = Kept::read(&path) else {
        return done("it was not forbidden any more");
    };
    let mut stopped = 0;
    for block in &kept.blocks {
        stopped += kernel.blocked(block).map_or(0, |(_, stopped)| stopped);
        if let Err(e) = kernel.unblock(block) {
            return StepOutcome::Failed {
                why: format!("let it run again: {e}"),
            };
        }
    }
    // the kernel has forgotten it: a file that stays would bring it back at the next start
    if let Err(e) = fs::remove_file(&path) {
        return StepOutcome::Failed {
            why: format!("remove {}: {e}", path.display()),
        };
    }
    done(&format!(
        "it may run again; {stopped} of its runs were stopped meanwhile"
    ))
}

/// Whether it is forbidden; `None`: that cannot be told.
pub(super) fn holds(machine: &Machine, target: &Target, wanted: &Wanted) -> Option<bool> {
    let kernel = machine.kernel.get()?;
    let now = boot_now();
    let kept = Kept::read(&file_of(machine, target, wanted));
    Some(kept.is_some_and(|kept| {
        let mut all = kept.blocks.iter();
        all.all(|b| kernel.blocked(b).is_some_and(|(until, _)| until.0 > now))
    }))
}

/// Puts what was forbidden before this start in force again, for the time that is left; how many.
pub fn restore(dir: &Path, kernel: &dyn Kernel) -> usize {
    sweep(dir, kernel);
    let mut restored = 0;
    for path in files_in(dir) {
        let Some(kept) = Kept::read(&path) else {
            continue;
        };
        let left = kept.until_wall_ms.saturating_sub(wall_ms());
        let until = BootNs(boot_now() + left.saturating_mul(1_000_000));
        restored += usize::from(kept.blocks.iter().all(|b| kernel.block(b, until).is_ok()));
    }
    restored
}

fn unavailable() -> StepOutcome {
    StepOutcome::Unavailable {
        why: "not available here: the kernel side is not loaded".to_owned(),
    }
}
fn done(effect: &str) -> StepOutcome {
    StepOutcome::Done {
        effect: effect.to_owned(),
        sealed: None,
        undo: Vec::new(),
    }
}

// ---- what is meant ----

fn blocks(kernel: &dyn Kernel, target: &Target, wanted: &Wanted) -> Result<Vec<Block>, String> {
    let cgroup_id = match wanted.node {
        true => 0,
        false => target.container.cgroup_id,
    };
    let path = wanted.path.clone().map(Text::from);
    let path = path.or_else(|| target.program.clone());
    let path = path.filter(|p| p.as_bytes().starts_with(b"/"));
    let path = path.ok_or("the acting program is not known: name it by `path`")?;
    let by = |what| Block { what, cgroup_id };
    let mut all = vec![by(Blocked::Path(path.clone()))];
    if let Some(file) = acting_file(kernel, target, &path) {
        all.push(by(Blocked::File(file)));
    }
    Ok(all)
}

/// The file of the acting process, if that is what is meant.
fn acting_file(kernel: &dyn Kernel, target: &Target, path: &Text) -> Option<ProgramFile> {
    let process = target.process?;
    let found = kernel.program_of(process.tgid)?;
    // its program may be another one by now, and its number another process's
    let same = target.program.as_ref() == Some(path)
        && kernel.container_of(process.tgid) == Some(target.container.cgroup_id)
        && runs(process.tgid, path);
    same.then_some(found)
}

/// A program that must not be forbidden, and why.
fn forbidden(
    kernel: &dyn Kernel,
    target: &Target,
    wanted: &Wanted,
    blocks: &[Block],
) -> Option<String> {
    if !wanted.node {
        return None;
    }
    if wanted.path.is_none() {
        let why =
            "in every container only a program that the policy names by its path is forbidden";
        return Some(why.to_owned());
    }
    let own = target.container.cgroup_id;
    let elsewhere = processes_of(kernel, blocks).filter(|root| *root != own);
    match elsewhere.count() {
        0 => None,
        n => Some(format!(
            "{n} processes of other containers run it: forbid it in this container only, or stop those first"
        )),
    }
}

fn running(kernel: &dyn Kernel, target: &Target, wanted: &Wanted, blocks: &[Block]) -> usize {
    let own = target.container.cgroup_id;
    let here = processes_of(kernel, blocks).filter(|root| wanted.node || *root == own);
    here.count()
}

/// Root cgroups of the watched processes that run it now.
fn processes_of(kernel: &dyn Kernel, blocks: &[Block]) -> impl Iterator<Item = u64> {
    super::place::pids().filter_map(move |pid| {
        let root = kernel.container_of(pid)?;
        let is = |b: &Block| match &b.what {
            Blocked::Path(path) => runs(pid, path),
            Blocked::File(file) => kernel.program_of(pid) == Some(*file),
        };
        blocks.iter().any(is).then_some(root)
    })
}

fn runs(pid: u32, path: &Text) -> bool {
    plimsoll_workload::runs_program(Path::new("/proc"), pid, path.as_bytes())
}

fn names(blocks: &[Block]) -> String {
    let name = |b: &Block| match &b.what {
        Blocked::Path(path) => Some(path.to_str_lossy().escape_default().take(300).collect()),
        Blocked::File(_) => None,
    };
    let all: Vec<String> = blocks.iter().filter_map(name).collect();
    all.join(", ")
}

// ---- kept over a restart ----

#[derive(Clone, Debug, PartialEq, Eq)]
struct Kept {
    blocks: Vec<Block>,
    until_wall_ms: u64,
}

impl Kept {
    fn write(&self, path: &Path) -> std::io::Result<()> {
        if let Some(dir) = path.parent() {
            files::private_dir(dir)?;
        }
        let block = |b: &Block| match &b.what {
            Blocked::Path(p) => json!({"cgroup": b.cgroup_id, "path": p.as_bytes()}),
            Blocked::File(f) => json!({"cgroup": b.cgroup_id, "dev": f.dev, "ino": f.ino}),
        };
        let blocks: Vec<Value> = self.blocks.iter().map(block).collect();
        let boot = machine::boot_id().to_string();
        let text = json!({"boot": boot, "until_wall_ms": self.until_wall_ms, "blocks": blocks});
        files::replace(path, text.to_string().as_bytes())
    }

    /// `None`: there is none, or nothing of it means anything on this boot.
    fn read(path: &Path) -> Option<Self> {
        if fs::metadata(path).ok()?.len() > FILE_MAX {
            return None;
        }
        let value: Value = serde_json::from_slice(&fs::read(path).ok()?).ok()?;
        let same_boot = value["boot"].as_str() == Some(&machine::boot_id().to_string());
        let block = |b: &Value| {
            let cgroup_id = b["cgroup"].as_u64()?;
            let what = match b["path"].as_array() {
                Some(bytes) => {
                    let byte = |v: &Value| u8::try_from(v.as_u64()?).ok();
                    Blocked::Path(Text::new(
                        bytes.iter().map(byte).collect::<Option<Vec<_>>>()?,
                    ))
                }
                None => Blocked::File(ProgramFile {
                    dev: u32::try_from(b["dev"].as_u64()?).ok()?,
                    ino: b["ino"].as_u64()?,
                }),
            };
            // numbers of cgroups and devices are of one boot
            let holds = same_boot || (cgroup_id == 0 && matches!(what, Blocked::Path(_)));
            holds.then_some(Block { what, cgroup_id })
        };
        let blocks: Vec<Block> = value["blocks"]
            .as_array()?
            .iter()
            .filter_map(block)
            .collect();
        (!blocks.is_empty()).then_some(Self {
            blocks,
            until_wall_ms: value["until_wall_ms"].as_u64()?,
        })
    }
}

/// What has ended is forgotten here and in the kernel.
fn sweep(dir: &Path, kernel: &dyn Kernel) {
    for path in files_in(dir) {
        let kept = Kept::read(&path);
        if kept.as_ref().is_some_and(|k| k.until_wall_ms > wall_ms()) {
            continue;
        }
        for block in kept.iter().flat_map(|k| &k.blocks) {
            let _ = kernel.unblock(block);
        }
        let _ = fs::remove_file(path);
    }
}

fn files_in(dir: &Path) -> impl Iterator<Item = PathBuf> {
    let all = fs::read_dir(dir).into_iter().flatten().flatten();
    let all = all
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "json"));
    all.take(BLOCKS_MAX * 2)
}
fn count(dir: &Path) -> usize {
    files_in(dir).count()
}

/// A plan may have several such steps; each has a file of its own.
fn file_of(machine: &Machine, target: &Target, wanted: &Wanted) -> PathBuf {
    use sha2::Digest as _;
    let what = format!("{}\n{:?}\n{}", target.plan, wanted.path, wanted.node);
    let digest = sha2::Sha256::digest(what);
    let short: String = digest.iter().take(16).map(|b| format!("{b:02x}")).collect();
    machine.blocks_dir.join(format!("{short}.json"))
}

fn boot_now() -> u64 {
    let t = clock_gettime(ClockId::Boottime);
    t.tv_sec as u64 * 1_000_000_000 + t.tv_nsec as u64
}
fn wall_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |d| d.as_millis() as u64)
}
