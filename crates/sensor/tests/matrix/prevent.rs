//! What a container's set does not name is prevented, what it names goes on: each class with its near
//! misses, on the best mechanism of this kernel and on the tracepoints alone. An act leaves a marker
//! when it went through.

use crate::{acts, hierarchy, stage};
use plimsoll_model::{EnforceClass, Enforced, Event, EventKind, Proto};
use plimsoll_sensor::Sensor;
use plimsoll_sensor::api::*;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const SET: u32 = 9;

struct Case {
    class: EnforceClass,
    act: &'static str,
    /// Whether it is outside the set.
    outside: bool,
    /// Whether an event is about it.
    is: fn(&Event) -> bool,
}

const fn case(
    class: EnforceClass,
    act: &'static str,
    outside: bool,
    is: fn(&Event) -> bool,
) -> Case {
    Case {
        class,
        act,
        outside,
        is,
    }
}

fn runs(e: &Event, name: &str) -> bool {
    matches!(&e.kind, EventKind::Exec(x) if x.exe.to_str_lossy().contains(name))
}

fn maps(e: &Event) -> bool {
    matches!(&e.kind, EventKind::Library { path, .. } if path.to_str_lossy().ends_with("/file"))
}

fn meets(e: &Event) -> bool {
    matches!(&e.kind, EventKind::Connect(_) | EventKind::Datagram(_))
}

fn known(e: &Event) -> bool {
    e.enforced.is_some()
}

const CASES: &[Case] = &[
    case(EnforceClass::Program, "prevent-exec", true, |e| {
        runs(e, "/other")
    }),
    case(EnforceClass::Program, "prevent-exec-linked", true, |e| {
        runs(e, "/linked")
    }),
    case(EnforceClass::Program, "prevent-exec-memory", true, |e| {
        runs(e, "quiet")
    }),
    case(EnforceClass::Program, "prevent-exec-known", false, known),
    case(EnforceClass::Library, "prevent-map", true, maps),
    case(EnforceClass::Library, "prevent-mprotect", true, maps),
    case(EnforceClass::Library, "prevent-map-data", false, known),
    case(EnforceClass::Library, "prevent-map-known", false, known),
    case(EnforceClass::Peer, "prevent-tcp", true, meets),
    case(EnforceClass::Peer, "prevent-tcp-mapped", true, meets),
    case(EnforceClass::Peer, "prevent-udp", true, meets),
    case(EnforceClass::Peer, "prevent-udp-connected", true, meets),
    case(EnforceClass::Peer, "prevent-tcp-known", false, known),
    case(EnforceClass::Peer, "prevent-udp-known", false, known),
];

/// How many cases failed.
pub(crate) fn all() -> usize {
    let mut failed = 0;
    for top in [Rung::Lsm, Rung::Tracepoint] {
        let (hierarchy, mount) = hierarchy();
        let mut config = SensorConfig::new(hierarchy);
        (config.top, config.enforcement) = (top, true);
        let mut cell = Cell {
            sensor: Sensor::load(&config).expect("load the sensor"),
            mount,
        };
        println!("MATRIX prevention {top:?}");
        for m in cell.sensor.means() {
            let by = m.mechanism.unwrap_or(format!("nothing: {}", m.leaves));
            println!("MATRIX prevents {} | {by}", m.class.as_str());
        }
        for (program, instructions) in cell.sensor.program_costs() {
            if program.starts_with("e_") {
                println!("VERIFIED {program} {instructions}");
            }
        }
        for case in CASES {
            failed += usize::from(!cell.holds(case));
        }
        failed += usize::from(!cell.opens());
        failed += usize::from(!cell.nests());
    }
    failed
}

/// What holding a container costs an exec that its set knows: fork and exec in one that is not held and
/// in one that is, turn by turn under the same sensor, medians of the rounds.
pub(crate) fn cost() {
    for top in [Rung::Lsm, Rung::Tracepoint] {
        let (hierarchy, mount) = hierarchy();
        let mut config = SensorConfig::new(hierarchy);
        (config.top, config.enforcement) = (top, true);
        let sensor = Sensor::load(&config).expect("load the sensor");
        let mut cell = Cell { sensor, mount };
        let mut medians = [Vec::new(), Vec::new()];
        for _ in 0..ROUNDS {
            for (held, all) in medians.iter_mut().enumerate() {
                let (events, _) = cell.run("cost-exec", if held == 1 { how() } else { None });
                assert!(
                    events.iter().all(|e| e.enforced.is_none()),
                    "all of it is known"
                );
                let said = std::fs::read_to_string(Path::new(acts::DIR).join("marker"));
                all.push(said.expect("a number").parse::<u64>().expect("a number"));
            }
        }
        let [free, held] = medians.map(|mut all| {
            all.sort_unstable();
            all[all.len() / 2]
        });
        let means = cell.sensor.means();
        let by = means.first().and_then(|m| m.mechanism.clone());
        println!(
            "COST EXEC | {} | {free} to {held} | {:.3} |",
            by.unwrap_or_default(),
            held as f64 / free as f64
        );
    }
}

const ROUNDS: usize = 7;

struct Cell {
    sensor: Sensor,
    mount: PathBuf,
}

impl Cell {
    fn can(&self, class: EnforceClass) -> bool {
        let mut means = self.sensor.means().into_iter();
        means.any(|m| m.class == class && m.mechanism.is_some())
    }

    /// Whether a case comes out as it has to.
    fn holds(&mut self, case: &Case) -> bool {
        let (events, marker) = self.run(case.act, how());
        let seen: Vec<&Event> = events.iter().filter(|e| (case.is)(e)).collect();
        let prevented = seen
            .iter()
            .any(|e| e.enforced.is_some_and(Enforced::is_prevented));
        let able = self.can(case.class);
        let ok = match (case.outside, able) {
            (true, true) => !marker && prevented,
            (true, false) => marker,
            (false, _) => marker && seen.is_empty(),
        };
        let done: Vec<_> = seen.iter().filter_map(|e| e.enforced).collect();
        println!(
            "MATRIX {} | {} | {} | {}",
            if ok { "ok" } else { "FAILED" },
            case.act,
            if marker { "went through" } else { "prevented" },
            match (case.outside, able) {
                (true, true) => format!("{done:?}"),
                (true, false) => "not prevented (known)".to_owned(),
                (false, _) => "near miss".to_owned(),
            }
        );
        if !ok {
            let kinds: Vec<String> = events
                .iter()
                .map(|e| format!("{:?} {:?}", e.enforced, e.kind))
                .collect();
            println!("MATRIX   events: {kinds:?}");
        }
        ok
    }

    /// Nothing is prevented when the agent's word has run out, or the container is not held.
    fn opens(&mut self) -> bool {
        let control = self.sensor.control();
        control.enforce_until(1).expect("set");
        let (_, old) = self.run("prevent-exec", how());
        let (_, peer) = self.run("prevent-tcp", how());
        control.enforce_until(u64::MAX).expect("set");
        let (_, free) = self.run("prevent-exec", None);
        let ok = old && peer && free;
        println!(
            "MATRIX {} | fails open: exec {old}, peer {peer}, not held {free}",
            if ok { "ok" } else { "FAILED" }
        );
        ok
    }

    /// Where a runtime only changes the root, paths start from there, from the first program's on.
    fn nests(&mut self) -> bool {
        stage();
        let bin = Path::new(acts::DIR).join("root/bin");
        std::fs::create_dir_all(&bin).expect("a directory");
        for name in ["sh", "other"] {
            std::fs::copy("/bin/busybox", bin.join(name)).expect("busybox is there");
        }
        let known = ORIGINS.map(|origin| AllowedEntry::Program {
            path: "/bin/sh".into(),
            origin,
            ask: false,
        });
        let control = self.sensor.control();
        control.load_allowed(SET, &known).expect("load a set");
        control.enforce_until(u64::MAX).expect("allow to prevent");
        let own = std::env::current_exe().expect("own path");
        let events = self.start(how(), |cgroup| {
            let mut command = Command::new("unshare");
            command.arg("-m").arg(&own).args(["act", "nested"]);
            command.env(acts::CGROUP, cgroup);
            command
        });
        let of = |path: &str| {
            let mut all = (events.iter())
                .filter(|e| matches!(&e.kind, EventKind::Exec(x) if x.exe == path.into()));
            all.next().map(|e| e.enforced.is_some())
        };
        let (sh, other) = (of("/bin/sh"), of("/bin/other"));
        let ok = (sh, other) == (Some(false), Some(true));
        println!(
            "MATRIX {} | nested: known prevented {sh:?}, other prevented {other:?}",
            if ok { "ok" } else { "FAILED" }
        );
        if !ok {
            let kinds: Vec<String> = events.iter().map(|e| format!("{:?}", e.kind)).collect();
            println!("MATRIX   events: {kinds:?}");
        }
        ok
    }

    /// One act in a new container held like this; its events, and whether it went through.
    fn run(&mut self, act: &str, how: Option<Enforce>) -> (Vec<Event>, bool) {
        stage();
        let own = std::env::current_exe().expect("own path");
        let dir = Path::new(acts::DIR);
        std::fs::copy(&own, dir.join("other")).expect("a copy");
        std::fs::copy(&own, dir.join("known")).expect("a copy");
        // on a busy machine the end of a run may be read before its beginning is
        let is_whole =
            |events: &[Event]| events.iter().any(|e| matches!(e.kind, EventKind::Exec(_)));
        let mut before = self.contain(None, "nothing", &own);
        for _ in 0..5 {
            if is_whole(&before) {
                break;
            }
            before = self.contain(None, "nothing", &own);
        }
        self.load(&before, dir);
        let events = self.contain(how, act, &own);
        (events, dir.join("marker").exists())
    }

    /// What an unheld run of this program needs, and the known ones of the acts.
    fn load(&self, events: &[Event], dir: &Path) {
        let mut entries: Vec<AllowedEntry> = Vec::new();
        let mut place = None;
        for e in events {
            match &e.kind {
                EventKind::Exec(x) => {
                    place = Some(x.origin);
                    entries.push(AllowedEntry::Program {
                        path: x.exe.clone(),
                        origin: x.origin,
                        ask: false,
                    });
                }
                EventKind::Library { path, origin } => entries.push(AllowedEntry::Library {
                    path: path.clone(),
                    origin: *origin,
                }),
                _ => {}
            }
        }
        assert!(place.is_some(), "the unheld run was seen");
        let file = |name: &str| dir.join(name).to_string_lossy().into_owned();
        for origin in ORIGINS {
            entries.push(AllowedEntry::Program {
                path: file("known").as_str().into(),
                origin,
                ask: false,
            });
            entries.push(AllowedEntry::Library {
                path: file("file2").as_str().into(),
                origin,
            });
        }
        for proto in [Proto::Tcp, Proto::Udp] {
            entries.push(AllowedEntry::Peer {
                proto,
                reach: AllowedReach::Loopback,
                port: acts::KNOWN_PORT,
            });
        }
        let control = self.sensor.control();
        control.load_allowed(SET, &entries).expect("load a set");
        if control.enforced_until() != 1 {
            control.enforce_until(u64::MAX).expect("allow to prevent");
        }
    }

    fn contain(&mut self, how: Option<Enforce>, act: &str, own: &Path) -> Vec<Event> {
        self.start(how, |cgroup| {
            let script = format!("echo $$ > {}/cgroup.procs && exec \"$@\"", cgroup.display());
            let mut command = Command::new("unshare");
            command.args(["-m", "sh", "-c", &script, "sh"]).arg(own);
            command.args(["act", act]);
            command
        })
    }

    /// What a program that puts itself into a new container's cgroup was seen doing.
    fn start(&mut self, how: Option<Enforce>, by: impl Fn(&Path) -> Command) -> Vec<Event> {
        static NEXT: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);
        let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        let cgroup = self
            .mount
            .join(format!("plimsoll-prevent-{}-{n}", std::process::id()));
        std::fs::create_dir(&cgroup).expect("make a cgroup");
        let id = std::fs::metadata(&cgroup).expect("it is there").ino();
        let control = self.sensor.control();
        let watch = Watch {
            cgroup_id: id,
            set: 0,
            dense_base: 0,
            dense_len: 0,
        };
        control.watch(&watch).expect("watch");
        control.enforce(id, how).expect("enforce");
        #[allow(clippy::zombie_processes)] // try_wait() below reaps it
        let mut child = by(&cgroup)
            .stdin(Stdio::null())
            .spawn()
            .expect("unshare is there");
        let mut events = Vec::new();
        let mut ended: Option<Instant> = None;
        let end = Instant::now() + Duration::from_secs(60);
        // until a look that began a while after the end brings nothing: time alone may pass unlooked
        let mut over = false;
        while !over {
            let is_last = ended.is_some_and(|t| t.elapsed() >= Duration::from_millis(60));
            assert!(Instant::now() < end, "{} does not end", cgroup.display());
            let mut keep = |s| {
                if let Signal::Event(e) = s {
                    events.push(e);
                }
            };
            let handed = self
                .sensor
                .poll(Duration::from_millis(10), &mut keep)
                .expect("poll");
            over = is_last && handed == 0;
            if ended.is_none() && child.try_wait().expect("wait").is_some() {
                ended = Some(Instant::now());
            }
        }
        events.retain(|e| e.cgroup_id == id);
        control.enforce(id, None).expect("let go");
        let _ = control.unwatch(id);
        let _ = std::fs::remove_dir(&cgroup);
        events
    }
}

/// Where the acts' files may live: on the host's disk or on tmpfs, made before or after the cgroup.
const ORIGINS: [plimsoll_model::Origin; 4] = [
    plimsoll_model::Origin::Image,
    plimsoll_model::Origin::Upper,
    plimsoll_model::Origin::Volume,
    plimsoll_model::Origin::Tmpfs,
];

/// Everything is held; programs outside are killed where they cannot be refused.
fn how() -> Option<Enforce> {
    Some(Enforce {
        set: SET,
        programs: true,
        scripts: true,
        libraries: true,
        peers: true,
        kill: true,
    })
}
