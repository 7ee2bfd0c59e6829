//! What the agent tells the programs about containers and processes, through the maps.
//!
//! Left out: sets of known behaviour and what is remembered of it ([`crate::dictionary`]).

use crate::api::*;
use crate::clock::boot_now;
use crate::error::SensorError;
use crate::hash::Key;
use crate::maps::{Maps, SWEEP_EVERY, SWEEP_MOST, bytes_of, copy_into, update, word};
use crate::objects::{Objects, map_id};
use crate::programs::MapFreeProgram;
use crate::recorder::{self, Recorder};
use crate::region::Region;
use crate::skel::types;
use crate::wire;
use libbpf_rs::{MapCore, MapFlags};
use std::os::unix::fs::MetadataExt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Instant;

/// A handle on the maps: cheap to clone, for any thread.
#[derive(Clone)]
pub struct Control {
    pub(crate) maps: Arc<Maps>,
}

impl Control {
    pub(crate) fn new(
        objects: &Objects,
        programs: &[(String, MapFreeProgram)],
        key: Key,
        recorder_bytes: u32,
        fresh: bool,
    ) -> libbpf_rs::Result<Self> {
        let recorder = Recorder::new(objects, recorder_bytes, fresh)?;
        let descriptors = programs.iter().map(|(_, p)| p.fd.try_clone());
        let programs = descriptors.filter_map(Result::ok);
        let programs = programs.map(|fd| MapFreeProgram { fd }).collect();
        let dense_map = objects.map("dense")?;
        let dense = Region::new(&dense_map, dense_map.max_entries() as usize * 8, false)
            .map_err(libbpf_rs::Error::from)?;
        let all = objects.all().filter_map(|(_, map)| map_id(map).ok());
        Ok(Control {
            maps: Arc::new(Maps {
                key,
                l1: objects.map("l1")?,
                l2: objects.map("l2")?,
                watched_paths: objects.map("watched_paths")?,
                cgroups: objects.map("cgroups")?,
                containers: objects.map("containers")?,
                epochs: objects.map("epochs")?,
                processes: objects.map("processes")?,
                mntns_roots: objects.map("mntns_roots")?,
                sweep: Mutex::default(),
                scripts: objects.map("scripts")?,
                dense,
                dense_map,
                cpu_states: objects.map("cpu_states")?,
                data: objects.map("data")?,
                env_asked: objects.map("env_asked")?,
                programs,
                sets: Mutex::default(),
                watched: Mutex::default(),
                recorder,
                enforcement: crate::enforce::Maps::new(objects)?,
                blocks: crate::block::Maps::new(objects)?,
                all: all.collect(),
                page: OnceLock::new(),
                inherited: !fresh,
            }),
        })
    }

    /// A cgroup is a container's root cgroup: its behaviour is looked up in a set from now on.
    ///
    /// # Errors
    /// When the map is full.
    pub fn watch(&self, w: &Watch) -> Result<(), SensorError> {
        let id = w.cgroup_id.to_ne_bytes();
        let mut c = types::container::default();
        if let Ok(Some(old)) = self.maps.containers.lookup(&id, MapFlags::ANY) {
            copy_into(&mut c, &old);
            // another set: what the first level remembers of this container is void
            if c.set != w.set {
                self.forget_all(w.cgroup_id)?;
            }
        } else {
            c.created_ns = boot_now().0;
        }
        c.set = w.set;
        c.dense_base = w.dense_base;
        c.dense_len = w.dense_len;
        c.flags &= !1;
        self.maps.recorder.keep(w.cgroup_id);
        update(&self.maps.containers, "containers", &id, bytes_of(&c))?;
        update(&self.maps.cgroups, "cgroups", &id, &id)
    }

    /// Makes every first-level entry of a container a miss.
    fn forget_all(&self, cgroup_id: u64) -> Result<(), SensorError> {
        let at = ((cgroup_id % u64::from(self.maps.epochs.max_entries())) as u32).to_ne_bytes();
        let epoch = self.maps.epochs.lookup(&at, MapFlags::ANY).ok().flatten();
        let epoch = epoch.map_or(0, |b| u32::from_ne_bytes(b.try_into().unwrap_or_default()));
        update(
            &self.maps.epochs,
            "epochs",
            &at,
            &epoch.wrapping_add(1).to_ne_bytes(),
        )
    }

    /// A cgroup is no container's.
    ///
    /// # Errors
    /// Never for a cgroup that is not there.
    pub fn ignore(&self, cgroup_id: u64) -> Result<(), SensorError> {
        self.leave(cgroup_id, false);
        Ok(())
    }

    fn leave(&self, cgroup_id: u64, was_container: bool) {
        let id = cgroup_id.to_ne_bytes();
        let _ = self.maps.containers.delete(&id);
        let _ = self.maps.cgroups.delete(&id);
        self.drop_processes(cgroup_id);
        let recorder = &self.maps.recorder;
        recorder.leave(cgroup_id, boot_now(), was_container);
    }

    /// A container is gone.
    ///
    /// # Errors
    /// Never for one that is not there.
    pub fn unwatch(&self, cgroup_id: u64) -> Result<(), SensorError> {
        self.leave(cgroup_id, true);
        Ok(())
    }

    /// A cgroup turned out to be inside a container: its processes are that container's.
    ///
    /// # Errors
    /// When the map is full.
    pub fn adopt(&self, cgroup_id: u64, root: u64) -> Result<(), SensorError> {
        let id = cgroup_id.to_ne_bytes();
        update(&self.maps.cgroups, "cgroups", &id, &root.to_ne_bytes())?;
        let _ = self.maps.containers.delete(&id);
        self.maps.recorder.leave(cgroup_id, boot_now(), false);
        for key in self.maps.processes.keys() {
            let Ok(Some(mut p)) = self.maps.processes.lookup(&key, MapFlags::ANY) else {
                continue;
            };
            if word(&p, 0) == cgroup_id {
                p[..8].copy_from_slice(&root.to_ne_bytes());
                let _ = self.maps.processes.update(&key, &p, MapFlags::EXIST);
            }
        }
        Ok(())
    }

    /// Forgets the processes of a cgroup that is no container's (any more). The whole table has to
    /// be looked through for that, so it is done for many cgroups at a time: without their
    /// container's entry such processes are silent, and each is forgotten at its exit anyway.
    fn drop_processes(&self, cgroup_id: u64) {
        let mut sweep = self
            .maps
            .sweep
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        sweep.cgroups.insert(cgroup_id);
        let due = sweep.last.is_none_or(|at| at.elapsed() >= SWEEP_EVERY);
        if !due && sweep.cgroups.len() < SWEEP_MOST {
            return;
        }
        sweep.last = Some(Instant::now());
        let cgroups = std::mem::take(&mut sweep.cgroups);
        drop(sweep);
        let processes = &self.maps.processes;
        let gone: Vec<Vec<u8>> = processes
            .keys()
            .filter(|k| matches!(processes.lookup(k, MapFlags::ANY), Ok(Some(p)) if cgroups.contains(&word(&p, 0))))
            .collect();
        for key in gone {
            let _ = processes.delete(&key);
        }
    }

    /// A process that ran before the sensor was loaded.
    ///
    /// # Errors
    /// When a map is full.
    pub fn seed_process(&self, p: &SeedProcess) -> Result<(), SensorError> {
        let followed = |k: &types::process| k.start_ns == p.key.start.0 && k.cgroup == p.cgroup_id;
        if self.maps.inherited && self.maps.process(p.key.tgid).as_ref().is_some_and(followed) {
            // the programs know it from its birth, and better
            return Ok(());
        }
        let program = self.maps.key.path(p.exe.as_bytes()).unwrap_or(0);
        let script = self.maps.key.script(&p.script);
        let interpreted = wire::is_interpreter(&p.exe) || !p.script.is_empty();
        if interpreted {
            update(
                &self.maps.scripts,
                "scripts",
                &p.key.start.0.to_ne_bytes(),
                &script.to_ne_bytes(),
            )?;
        }
        let exe = std::fs::metadata(format!("/proc/{}/exe", p.key.tgid)).ok();
        let process = types::process {
            cgroup: p.cgroup_id,
            // any number that no other program, script, entry or uid of this container has
            actor: program
                ^ script.rotate_left(17)
                ^ p.cgroup_id.rotate_left(32)
                ^ u64::from(p.uid) << 40
                ^ (p.entry as u64) << 8,
            program,
            script,
            exe_ino: exe.as_ref().map_or(0, MetadataExt::ino),
            start_ns: p.key.start.0,
            uid: p.uid,
            flags: if interpreted { 2 } else { 0 },
            mntns: self.mark_started(p),
            entry: p.entry as u8,
            ..Default::default()
        };
        update(
            &self.maps.processes,
            "processes",
            &p.key.tgid.to_ne_bytes(),
            bytes_of(&process),
        )
    }

    /// A container with a running process has started; its mount namespace is that of the first
    /// process that was found. Returns its inode number.
    fn mark_started(&self, p: &SeedProcess) -> u32 {
        let id = p.cgroup_id.to_ne_bytes();
        let mut mntns = 0;
        if let Ok(Some(old)) = self.maps.containers.lookup(&id, MapFlags::ANY) {
            let mut c = types::container::default();
            copy_into(&mut c, &old);
            if c.flags & 2 == 0 {
                c.flags |= 2;
                // CONTAINER_NESTED, and the root is the mount's own
                if let Some(mount) = p.root_mount {
                    c.flags |= 4;
                    (c.root_mnt, c.root_dentry) = (mount, 0);
                }
                c.mntns = std::fs::metadata(format!("/proc/{}/ns/mnt", p.key.tgid))
                    .map_or(0, |m| m.ino() as u32);
                let _ = self
                    .maps
                    .containers
                    .update(&id, bytes_of(&c), MapFlags::EXIST);
                if c.mntns != 0 {
                    let key = c.mntns.to_ne_bytes();
                    let m = types::mntns_root {
                        root: p.cgroup_id,
                        first: p.key.tgid,
                        ..Default::default()
                    };
                    let _ = self
                        .maps
                        .mntns_roots
                        .update(&key, bytes_of(&m), MapFlags::ANY);
                }
            }
            mntns = c.mntns;
        }
        mntns
    }

    /// Whether execs carry their environment from now on (at first they don't).
    ///
    /// # Errors
    /// When the map cannot be written.
    pub fn ask_for_environments(&self, asked: bool) -> Result<(), SensorError> {
        let value = u32::from(asked).to_ne_bytes();
        update(
            &self.maps.env_asked,
            "env_asked",
            &0u32.to_ne_bytes(),
            &value,
        )
    }

    /// What the kernel side holds about a process.
    pub(crate) fn process(&self, tgid: u32) -> Option<types::process> {
        let found = self
            .maps
            .processes
            .lookup(&tgid.to_ne_bytes(), MapFlags::ANY);
        let mut p = types::process::default();
        copy_into(&mut p, &found.ok().flatten()?);
        Some(p)
    }
}

/// The recorder and what streams.
impl Control {
    /// What the recorder holds of a container from position `from` on; `None`: nothing was recorded
    /// of it. A container that has gone is kept for two minutes.
    pub fn recording(&self, cgroup_id: u64, from: u64) -> Option<Reading> {
        self.maps.recorder.read(cgroup_id, from)
    }

    /// What stands for an event's first-level key in uses without a counter.
    pub fn use_key(&self, dict: &[u8; 48]) -> u64 {
        recorder::key_of(&self.maps.key, dict)
    }

    /// From now on each use of a first-level entry of this container comes as [`Signal::Stream`];
    /// the id that they carry as position.
    ///
    /// # Errors
    /// When too many stream already.
    pub fn start_stream(&self, cgroup_id: u64) -> Result<u32, SensorError> {
        let started = self.maps.recorder.start_stream(cgroup_id);
        started.map_err(|source| SensorError::Map {
            operation: "update",
            map: "streams",
            source,
        })
    }

    /// Ends that; how many uses its ring had no room for.
    pub fn stop_stream(&self, cgroup_id: u64) -> u64 {
        self.maps.recorder.stop_stream(cgroup_id)
    }

    /// What the recorder holds.
    pub fn recorder(&self) -> RecorderState {
        self.maps.recorder.state()
    }
}
