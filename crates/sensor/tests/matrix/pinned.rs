//! Pinned programs of every mechanism of this kernel: what happens while no process reads is read by the
//! next one, which goes on with the same programs; when none comes in time they end their work, and the
//! one after that replaces them.

use crate::{acts, file, hierarchy, stage};
use plimsoll_model::Event;
use plimsoll_model::event::FileOp;
use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::*;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

/// Tops of the ladder, and whether what prevents acts is loaded too (cgroup links, more LSM ones). Without
/// BPF among the LSMs the second one is fentry.
const MODES: [(Rung, bool); 2] = [(Rung::Tracepoint, false), (Rung::Lsm, true)];

/// How many cases failed.
pub(crate) fn all() -> usize {
    let mut done: Vec<String> = Vec::new();
    let mut failed = 0;
    for (i, _) in MODES.iter().enumerate() {
        let ground = Ground::new(i);
        failed += ground.hand_over(&mut done);
    }
    failed
}

/// The second process: takes over, reads what was done meanwhile, reads what is done now, and leaves.
/// Arguments: mode, the bpffs, the cgroup.
pub(crate) fn adopt(args: &[String]) -> i32 {
    let [mode, bpffs, cgroup] = args else {
        return 2;
    };
    let ground = Ground {
        mode: mode.parse().expect("a number"),
        bpffs: bpffs.into(),
        cgroup: cgroup.into(),
        ours: false,
    };
    let mut sensor = ground.load();
    let pinning = sensor.pinning();
    let adopted = pinning
        .inherited
        .is_some_and(|i| i.orderly && !i.replaced && i.idle_since.is_none());
    let away = ground.sees(&mut sensor, |e| file(e, FileOp::Mkdir, "made"));
    ground.act("unlink");
    let now = ground.sees(&mut sensor, |e| file(e, FileOp::Unlink, "file2"));
    println!(
        "MATRIX adoption by a second process: adopted {adopted}, saw the time before {away}, sees now {now} {:?}",
        pinning.problems
    );
    sensor.leave(true);
    i32::from(!(adopted && away && now))
}

/// A bpffs and a cgroup that stands for a container.
struct Ground {
    mode: usize,
    bpffs: PathBuf,
    cgroup: PathBuf,
    /// The one who made them takes them away.
    ours: bool,
}

impl Ground {
    fn new(mode: usize) -> Self {
        let name = format!("plimsoll-pinned-{}-{mode}", std::process::id());
        let cgroup = hierarchy().1.join(&name);
        std::fs::create_dir(&cgroup).expect("make a cgroup");
        let bpffs = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&bpffs).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(&bpffs)
            .status();
        assert!(mounted.expect("mount is there").success(), "mount a bpffs");
        Self {
            mode,
            bpffs,
            cgroup,
            ours: true,
        }
    }

    fn home(&self) -> PathBuf {
        self.bpffs.join("plimsoll/home")
    }

    fn id(&self) -> u64 {
        std::fs::metadata(&self.cgroup).expect("it is there").ino()
    }

    fn load(&self) -> Sensor {
        let (top, enforcement) = MODES[self.mode];
        let mut config = SensorConfig::new(hierarchy().0);
        (config.top, config.enforcement) = (top, enforcement);
        // a small machine holds two of them
        config.recorder_bytes = 1 << 20;
        config.bulk_ring_bytes = 1 << 20;
        config.alert_ring_bytes = 1 << 20;
        config.pins = Some(Pins {
            home: self.home(),
            owner: "the matrix".into(),
            keep_for: Duration::from_secs(3600),
        });
        let sensor = Sensor::load(&config).expect("load the sensor");
        let watch = Watch {
            cgroup_id: self.id(),
            set: 0,
            dense_base: 0,
            dense_len: 0,
        };
        sensor.control().watch(&watch).expect("watch");
        sensor
    }

    /// One act in the cgroup, to its end, with nobody reading.
    fn act(&self, act: &str) {
        stage();
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec \"$@\"",
            self.cgroup.display()
        );
        let done = Command::new("unshare")
            .args(["-m", "sh", "-c", &script, "sh"])
            .arg(std::env::current_exe().expect("own path"))
            .args(["act", act])
            .stdin(Stdio::null())
            .status();
        assert!(done.expect("unshare is there").success(), "{act}");
    }

    /// Whether such an event comes; waits for it, and reads what is there when none does.
    fn sees(&self, sensor: &mut Sensor, is: impl Fn(&Event) -> bool) -> bool {
        let (mut seen, id) = (false, self.id());
        let (start, mut quiet) = (Instant::now(), Instant::now());
        while !seen && quiet.elapsed() < Duration::from_secs(3) && start.elapsed().as_secs() < 60 {
            let read = sensor.poll(Duration::from_millis(20), &mut |s| {
                if let Signal::Event(e) = s
                    && e.cgroup_id == id
                {
                    quiet = Instant::now();
                    seen |= is(&e);
                }
            });
            read.expect("poll");
        }
        seen
    }

    fn hand_over(&self, done: &mut Vec<String>) -> usize {
        let mut first = self.load();
        let how: Vec<String> = first
            .hooks()
            .iter()
            .map(|h| h.mechanism.clone().unwrap_or_default())
            .collect();
        let mode = MODES[self.mode];
        let how = format!("{}\n{}", how.join("\n"), mode.1);
        if done.contains(&how) {
            println!("MATRIX pinned {mode:?}: this kernel takes the same mechanisms as before");
            first.leave(false);
            return 0;
        }
        done.push(how);
        println!("MATRIX pinned {mode:?}: {} links", self.links().len());
        self.act("create");
        let mut failed = check("the first one sees", || {
            self.sees(&mut first, |e| file(e, FileOp::Create, "created"))
        });
        failed += check("what it keeps is whole", || {
            let pinning = first.pinning();
            pinning.problems.is_empty() && pinning.home.is_some()
        });
        first.leave(true);
        self.act("mkdir");
        failed += check("a second process takes over", || {
            let ran = Command::new(std::env::current_exe().expect("own path"))
                .args(["adopt", &self.mode.to_string()])
                .args([&self.bpffs, &self.cgroup])
                .status();
            ran.expect("it starts").success()
        });
        self.end_of_the_limit();
        self.act("rmdir");
        let mut third = self.load();
        failed += check("nobody came in time: idle, and replaced", || {
            let before = third.pinning().inherited;
            before.is_some_and(|i| i.idle_since.is_some() && i.replaced)
        });
        failed += check("idle programs record nothing", || {
            !self.sees(&mut third, |e| file(e, FileOp::Rmdir, "dir"))
        });
        self.act("chmod");
        failed += check("the one after sees", || {
            self.sees(&mut third, |e| file(e, FileOp::Chmod, "file"))
        });
        third.leave(false);
        failed += check("nothing stays", || !self.home().exists());
        failed
    }

    fn pins(&self) -> Vec<PathBuf> {
        let entries = |dir: &Path| -> Vec<PathBuf> {
            let all = std::fs::read_dir(dir).into_iter().flatten().flatten();
            all.map(|e| e.path()).collect()
        };
        entries(&self.home())
            .iter()
            .flat_map(|set| entries(set))
            .collect()
    }

    fn links(&self) -> Vec<PathBuf> {
        let mut all = self.pins();
        all.retain(|p| p.to_string_lossy().contains("/l_"));
        all
    }

    /// The moment until which the programs work without an agent is over.
    fn end_of_the_limit(&self) {
        use libbpf_rs::{MapCore as _, MapFlags, MapHandle};
        let pins = self.pins();
        let at = pins.iter().find(|p| p.ends_with("m_presence"));
        let map = MapHandle::from_pinned_path(at.expect("it is pinned")).expect("a map");
        let mut over = [0u8; 16];
        over[..8].copy_from_slice(&1u64.to_ne_bytes());
        map.update(&0u32.to_ne_bytes(), &over, MapFlags::ANY)
            .expect("a word");
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if !self.ours {
            return;
        }
        let _ = Command::new("umount").arg(&self.bpffs).status();
        let _ = std::fs::remove_dir(&self.bpffs);
        let _ = std::fs::remove_dir(&self.cgroup);
        let _ = std::fs::remove_dir_all(acts::DIR);
    }
}

fn check(what: &str, holds: impl FnOnce() -> bool) -> usize {
    let ok = holds();
    println!(
        "MATRIX {} | pinned | {what}",
        if ok { "ok" } else { "FAILED" }
    );
    usize::from(!ok)
}
