//! Loads the programs and attaches them.
//!
//! Promises: a program that the kernel refuses costs only its own kinds, and the refusal is kept
//! with the kernel's reason.

use crate::api::*;
use crate::clock::boot_now;
use crate::error::SensorError;
use crate::gates::{fill_handlers, fill_tables};
use crate::hash::Key;
use crate::keep::Place;
use crate::ladder::Ladder;
use crate::objects::Objects;
use crate::probe;
use crate::programs::MapFreeProgram;
use crate::reader::Sensor;
use crate::recorder;
use crate::skel::{OpenPlimsollSkel, PlimsollSkel, PlimsollSkelBuilder};
use libbpf_rs::skel::{OpenSkel, Skel, SkelBuilder};
use libbpf_rs::{OpenObject, PrintLevel};
use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::MetadataExt;
use std::sync::Mutex;

/// Programs without which no event can be attributed.
pub(crate) const ESSENTIAL: &[&str] = &[
    "on_exec",
    "on_fork",
    "on_exit",
    "on_cgroup_mkdir",
    "on_cgroup_attach",
];

/// A program on a function of the kernel; a refusal for want of permission is that of all of them.
const ANY_FENTRY: &str = "f_open";

/// libbpf's messages while loading, to find out which program was refused and why.
static MESSAGES: Mutex<Vec<String>> = Mutex::new(Vec::new());
/// One object is loaded at a time, since the messages are global to libbpf.
static LOADING: Mutex<()> = Mutex::new(());

fn keep_message(_: PrintLevel, message: String) {
    let mut kept = MESSAGES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    if kept.len() < 4096 {
        kept.push(message);
    }
}

/// Loads and attaches.
impl Sensor {
    /// Loads and attaches what this kernel takes.
    ///
    /// # Errors
    /// When there is no BTF, no privilege, or an essential program is refused.
    pub fn load(config: &SensorConfig) -> Result<Sensor, SensorError> {
        if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
            return Err(SensorError::NoBtf);
        }
        let _one = LOADING
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let mut ladder = Ladder::new(config);
        let mut place = Place::look(config, &ladder);
        if let Some(found) = place.found.take() {
            match Self::take_over(config, place, found) {
                Ok(sensor) => return Ok(sensor),
                Err(refused) => {
                    let (back, why) = *refused;
                    place = back;
                    place.problem(format!("what was left could not be taken over: {why}"));
                }
            }
        }
        if ladder.wants(ANY_FENTRY)
            && let Some(reason) = probe::fentry_forbidden()
        {
            ladder.refuse(ANY_FENTRY, reason);
        }
        let key = Key::random().map_err(SensorError::Random)?;
        loop {
            let attached = match try_load(config, key, &ladder)? {
                Ok(skel) => Self::attach(config, key, skel, &mut ladder)?,
                Err(refused) => Err(refused),
            };
            match attached {
                Ok(mut sensor) => {
                    sensor.keep(place, &ladder);
                    return Ok(sensor);
                }
                Err((program, reason)) => {
                    if ESSENTIAL.contains(&program.as_str()) {
                        return Err(SensorError::Essential { program, reason });
                    }
                    ladder.refuse(&program, reason);
                }
            }
        }
    }

    fn attach(
        config: &SensorConfig,
        key: Key,
        mut skel: PlimsollSkel<'static>,
        ladder: &mut Ladder,
    ) -> Result<Result<Sensor, Refused>, SensorError> {
        fill_handlers(&skel, ladder)?;
        if let Some(bss) = skel.maps.bss_data.as_deref_mut() {
            fill_tables(bss, ladder);
        }
        let mut links = Vec::new();
        let mut misses = Vec::new();
        let v2 = v2_mount(config);
        for program in skel.object().progs_mut() {
            let name = program.name().to_string_lossy().into_owned();
            if !ladder.wants(&name) || name.starts_with("h_") {
                continue;
            }
            let on_sockets = name.starts_with("on_sendmsg") || is_peer_program(&name);
            let link = if on_sockets {
                match &v2 {
                    Some(dir) => program.attach_cgroup(dir.as_raw_fd()),
                    None => {
                        ladder.refuse(&name, "no cgroup2 mount to attach to".into());
                        continue;
                    }
                }
            } else {
                program.attach()
            };
            match link {
                Ok(link) => {
                    links.push((name, link));
                    if let Ok(fd) = program.as_fd().try_clone_to_owned() {
                        misses.push((MapFreeProgram { fd }, 0));
                    }
                }
                // another program takes its place: load again
                Err(e) => return Ok(Err((name, format!("attach: {e}")))),
            }
        }
        let load_error = |e: libbpf_rs::Error| SensorError::Load {
            reason: e.to_string(),
        };
        let objects = Objects::of(&skel).map_err(load_error)?;
        let of_program = |p: libbpf_rs::ProgramMut<'_>| {
            let fd = p.as_fd().try_clone_to_owned().ok()?;
            Some((
                p.name().to_string_lossy().into_owned(),
                MapFreeProgram { fd },
            ))
        };
        let programs = skel.object().progs_mut().filter_map(of_program).collect();
        let sensor = Self::assemble(
            config,
            key,
            ladder,
            (objects, links),
            misses,
            programs,
            true,
        );
        let mut sensor = sensor.map_err(load_error)?;
        sensor.tick(boot_now());
        Ok(Ok(sensor))
    }
}

type Refused = (String, String);

/// Programs that refuse peers are attached to all sockets.
fn is_peer_program(name: &str) -> bool {
    name.starts_with("e_") && name.ends_with(['4', '6'])
}

/// One attempt, without the programs that were refused before.
fn try_load(
    config: &SensorConfig,
    key: Key,
    ladder: &Ladder,
) -> Result<Result<PlimsollSkel<'static>, Refused>, SensorError> {
    MESSAGES
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
        .clear();
    let before = libbpf_rs::set_print(Some((PrintLevel::Warn, keep_message)));
    // One small allocation a load lives as long as the process: the skeleton borrows from it.
    let storage: &'static mut MaybeUninit<OpenObject> = Box::leak(Box::new(MaybeUninit::uninit()));
    let loaded = open(config, key, ladder, storage).and_then(|open| {
        open.load().map_err(|e| SensorError::Load {
            reason: e.to_string(),
        })
    });
    libbpf_rs::set_print(before);
    match loaded {
        Ok(skel) => Ok(Ok(skel)),
        Err(error) => {
            let messages = MESSAGES
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner)
                .clone();
            match refused_program(&messages) {
                Some((program, reason)) if ladder.wants(&program) => Ok(Err((program, reason))),
                _ if messages
                    .iter()
                    .any(|m| m.contains("Operation not permitted")) =>
                {
                    Err(SensorError::NotPermitted)
                }
                _ => Err(SensorError::Load {
                    reason: format!("{error}; {}", tail(&messages)),
                }),
            }
        }
    }
}

fn tail(messages: &[String]) -> String {
    let from = messages.len().saturating_sub(4);
    messages[from..].join(" ").replace('\n', " ")
}

/// Finds libbpf's "prog 'NAME': BPF program load failed: REASON" or "failed to load".
fn refused_program(messages: &[String]) -> Option<Refused> {
    for m in messages {
        let Some((_, rest)) = m.split_once("prog '") else {
            continue;
        };
        let Some((name, what)) = rest.split_once('\'') else {
            continue;
        };
        if what.contains("load failed")
            || what.contains("failed to load")
            || what.contains("failed to find kernel BTF type")
        {
            let reason = what.trim_start_matches(':').trim();
            let verifier = messages
                .iter()
                .find(|m| m.contains("BEGIN PROG LOAD LOG"))
                .map(|m| last_lines(m));
            return Some((
                name.to_owned(),
                format!("{reason}{}", verifier.unwrap_or_default()),
            ));
        }
    }
    None
}

/// The last words of a verifier log.
fn last_lines(log: &str) -> String {
    let lines: Vec<&str> = log
        .lines()
        .filter(|l| {
            !l.starts_with("processed ") && !l.contains("END PROG LOAD LOG") && !l.trim().is_empty()
        })
        .collect();
    let from = lines
        .len()
        .saturating_sub(if std::env::var_os("PLIMSOLL_VERIFIER_LOG").is_some() {
            80
        } else {
            2
        });
    format!(" ({})", lines[from..].join("; "))
}

fn open(
    config: &SensorConfig,
    key: Key,
    ladder: &Ladder,
    storage: &'static mut MaybeUninit<OpenObject>,
) -> Result<OpenPlimsollSkel<'static>, SensorError> {
    let load_error = |e: libbpf_rs::Error| SensorError::Load {
        reason: e.to_string(),
    };
    let mut open = PlimsollSkelBuilder::default()
        .open(storage)
        .map_err(load_error)?;
    for mut program in open.open_object_mut().progs_mut() {
        let wanted = ladder.wants(&program.name().to_string_lossy());
        program.set_autoload(wanted);
    }
    open.maps
        .bulk_ring
        .set_max_entries(config.bulk_ring_bytes)
        .map_err(load_error)?;
    open.maps
        .alert_ring
        .set_max_entries(config.alert_ring_bytes)
        .map_err(load_error)?;
    open.maps
        .l1
        .set_max_entries(config.l1_entries)
        .map_err(load_error)?;
    let (chunks, held) = recorder::chunks(config.recorder_bytes);
    let entries = chunks.max(1) * (recorder::CHUNK as u32);
    let maps = &mut open.maps;
    let sized = [
        maps.recorder_entries.set_max_entries(entries),
        maps.spare_chunks.set_max_entries(chunks.max(1)),
        maps.reserved_chunks.set_max_entries(held.max(1)),
    ];
    sized
        .into_iter()
        .collect::<Result<(), _>>()
        .map_err(load_error)?;
    let (hierarchy_id, subsys) = hierarchy_numbers(&config.hierarchy)?;
    let rodata = open
        .maps
        .rodata_data
        .as_deref_mut()
        .expect("the object has settings");
    rodata.sip_k0 = key.0;
    rodata.sip_k1 = key.1;
    rodata.hierarchy_id = hierarchy_id;
    rodata.cgroup_v1_subsys = subsys;
    if let Some(second @ Hierarchy::V1 { .. }) = &config.second {
        (rodata.second_hierarchy_id, rodata.second_v1_subsys) = hierarchy_numbers(second)?;
    }
    rodata.alert_quota = config.alert_quota_per_second;
    rodata.enforcement = u32::from(config.enforcement);
    // where the first process cannot be looked at, our own: an agent runs in the host's
    let host = ["/proc/1/ns/mnt", "/proc/self/ns/mnt"];
    let host = host.iter().find_map(|path| std::fs::metadata(path).ok());
    rodata.host_mntns = host.map_or(0, |m| m.ino() as u32);
    rodata.cpus = libbpf_rs::num_possible_cpus().unwrap_or(1) as u32;
    Ok(open)
}

/// Id of the hierarchy and index of the controller among the kernel's (all ones: v2).
fn hierarchy_numbers(hierarchy: &Hierarchy) -> Result<(u32, u32), SensorError> {
    let Hierarchy::V1 { controller, .. } = hierarchy else {
        return Ok((0, u32::MAX));
    };
    let fail = |source| SensorError::Hierarchy {
        hierarchy: controller.clone(),
        source,
    };
    // columns: name, hierarchy id, cgroups, enabled; lines in the order of the kernel's enum
    let table = std::fs::read_to_string("/proc/cgroups").map_err(fail)?;
    for (index, line) in table.lines().filter(|l| !l.starts_with('#')).enumerate() {
        let mut words = line.split_whitespace();
        if words.next() == Some(controller) {
            let id = words.next().and_then(|w| w.parse().ok()).unwrap_or(0);
            return Ok((id, index as u32));
        }
    }
    Err(fail(io::Error::from(io::ErrorKind::NotFound)))
}

/// Where programs on all sockets are attached.
fn v2_mount(config: &SensorConfig) -> Option<File> {
    if let Hierarchy::V2 { mount } = &config.hierarchy {
        return File::open(mount).ok();
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").ok()?;
    let dir = mounts.lines().find_map(|l| {
        let mut w = l.split(' ');
        let (_, dir, kind) = (w.next()?, w.next()?, w.next()?);
        (kind == "cgroup2").then(|| dir.to_owned())
    })?;
    File::open(dir).ok()
}
