//! One sensor after another over the same programs, on the running kernel: what happens while nobody
//! reads is read by the next one, once. Each test has a bpffs of its own. Needs root
//! (`PLIMSOLL_HOST_TESTS=1`, set by `scripts/test`); left out, and said so there, without.

use plimsoll_model::{Event, EventKind, Stage, Text};
use plimsoll_sensor::api::*;
use plimsoll_sensor::{Left, Sensor, left_by, unpin_left_by};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Longer than any test: the limit is tested by moving it, not by waiting.
const KEEP_FOR: Duration = Duration::from_secs(3600);

/// One at a time.
static ONE: Mutex<()> = Mutex::new(());

fn hierarchy() -> (Hierarchy, PathBuf) {
    let mount = PathBuf::from("/sys/fs/cgroup/pids");
    if mount.join("cgroup.procs").exists() {
        let controller = "pids".into();
        let v1 = Hierarchy::V1 {
            controller,
            mount: mount.clone(),
        };
        return (v1, mount);
    }
    let mount = PathBuf::from("/sys/fs/cgroup");
    let v2 = Hierarchy::V2 {
        mount: mount.clone(),
    };
    (v2, mount)
}

/// A bpffs, a cgroup that stands for a container, and a directory.
struct Ground {
    dir: PathBuf,
    cgroup: PathBuf,
    id: u64,
    config: SensorConfig,
    _one: MutexGuard<'static, ()>,
}

impl Ground {
    fn new(name: &str) -> Option<Self> {
        if !std::env::var("PLIMSOLL_HOST_TESTS").is_ok_and(|v| v == "1") {
            return None;
        }
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let (hierarchy, mount) = hierarchy();
        let name = format!("plimsoll-pins-{}-{name}", std::process::id());
        let cgroup = mount.join(&name);
        std::fs::create_dir(&cgroup).expect("make a cgroup");
        let dir = std::env::temp_dir().join(&name);
        std::fs::create_dir_all(&dir).expect("a directory");
        let mounted = Command::new("mount")
            .args(["-t", "bpf", "bpf"])
            .arg(&dir)
            .status();
        assert!(mounted.expect("mount is there").success(), "mount a bpffs");
        let mut config = SensorConfig::new(hierarchy);
        config.pins = Some(Pins {
            home: dir.join("plimsoll/home"),
            owner: "a test".into(),
            keep_for: KEEP_FOR,
        });
        Some(Self {
            id: std::fs::metadata(&cgroup).expect("it is there").ino(),
            cgroup,
            dir,
            config,
            _one: one,
        })
    }

    fn home(&self) -> PathBuf {
        self.dir.join("plimsoll/home")
    }

    fn sets(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(self.home()).into_iter().flatten();
        all.map(|e| e.expect("an entry").path()).collect()
    }

    fn load(&self) -> Sensor {
        let sensor = Sensor::load(&self.config).expect("load the sensor");
        let watch = Watch {
            cgroup_id: self.id,
            set: 0,
            dense_base: 0,
            dense_len: 0,
        };
        sensor.control().watch(&watch).expect("watch");
        sensor
    }

    /// Makes a directory for each number, as one program in the cgroup.
    fn act(&self, numbers: std::ops::Range<u32>) {
        let code = format!(
            "mkdir \"/tmp/plimsoll-pins-{}-$_\" for ({}..{}); rmdir \"/tmp/plimsoll-pins-{0}-$_\" for ({1}..{2})",
            std::process::id(),
            numbers.start,
            numbers.end - 1
        );
        let script = format!(
            "echo $$ > {}/cgroup.procs && exec \"$@\"",
            self.cgroup.display()
        );
        let done = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script, "sh", "perl", "-e", &code])
            .stdin(Stdio::null())
            .status();
        assert!(done.expect("unshare is there").success());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.dir).status();
        let _ = std::fs::remove_dir(&self.dir);
        for _ in 0..50 {
            if std::fs::remove_dir(&self.cgroup).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// What a sensor hands over until it has been quiet for a while.
fn read(sensor: &mut Sensor, id: u64) -> (Vec<Event>, Vec<Loss>) {
    let (mut events, mut losses) = (Vec::new(), Vec::new());
    let mut quiet = Instant::now();
    let end = Instant::now() + Duration::from_secs(30);
    // until a look that began after that while brings nothing: time alone may pass unlooked
    let mut over = false;
    while !over && Instant::now() < end {
        let is_last = quiet.elapsed() >= Duration::from_millis(500);
        let handed = sensor.poll(Duration::from_millis(50), &mut |s| match s {
            Signal::Event(e) if e.cgroup_id == id => {
                quiet = Instant::now();
                events.push(e);
            }
            Signal::Loss(l) => losses.push(l),
            _ => {}
        });
        over = handed.expect("poll") == 0 && is_last;
    }
    (events, losses)
}

/// Numbers of the directories that were made, in the order of the events.
fn made(events: &[Event]) -> Vec<u32> {
    let prefix = format!("/tmp/plimsoll-pins-{}-", std::process::id());
    let number = |path: &Text| {
        let path = path.to_str_lossy().into_owned();
        path.strip_prefix(&prefix)?.parse().ok()
    };
    let all = events.iter().filter_map(|e| match &e.kind {
        EventKind::File(f) if f.op == plimsoll_model::event::FileOp::Mkdir => number(&f.path),
        _ => None,
    });
    all.collect()
}

fn inherited(sensor: &Sensor) -> Inherited {
    let pinning = sensor.pinning();
    pinning
        .inherited
        .unwrap_or_else(|| panic!("nothing was taken over: {:?}", pinning.problems))
}

#[test]
fn what_happens_while_nobody_reads_is_read_by_the_next_one() {
    let Some(ground) = Ground::new("kept") else {
        return;
    };
    let mut first = ground.load();
    assert_eq!(first.pinning().problems, Vec::<String>::new());
    assert_eq!(first.pinning().inherited, None);
    ground.act(0..20);
    let (events, _) = read(&mut first, ground.id);
    assert_eq!(made(&events), (0..20).collect::<Vec<_>>());
    first.leave(true);
    ground.act(20..60);
    let mut second = ground.load();
    let before = inherited(&second);
    assert!(
        before.orderly && !before.replaced && before.in_hand == 0,
        "{before:?}"
    );
    let (events, losses) = read(&mut second, ground.id);
    assert_eq!(
        made(&events),
        (20..60).collect::<Vec<_>>(),
        "once each, in order"
    );
    assert_eq!(losses, vec![]);
    // what was known before is said anew to the new reader
    ground.act(0..20);
    assert_eq!(
        made(&read(&mut second, ground.id).0),
        (0..20).collect::<Vec<_>>()
    );
    second.leave(false);
    assert!(!ground.home().exists(), "nothing stays");
}

#[test]
fn a_reader_that_vanishes_says_how_much_it_had_in_its_hands() {
    let Some(ground) = Ground::new("killed") else {
        return;
    };
    let mut first = ground.load();
    ground.act(0..10);
    let (events, _) = read(&mut first, ground.id);
    let control = first.control();
    control.note_in_hand(control.events_read(), 3);
    let told = control.events_read();
    ground.act(10..15);
    let (more, _) = read(&mut first, ground.id);
    assert!(!events.is_empty() && control.events_read() - told >= more.len() as u64);
    drop(control);
    drop(first);
    ground.act(15..20);
    let mut second = ground.load();
    let before = inherited(&second);
    assert!(!before.orderly);
    assert!(before.in_hand >= 3 + more.len() as u64, "{before:?}");
    assert_eq!(
        made(&read(&mut second, ground.id).0),
        (15..20).collect::<Vec<_>>()
    );
    second.leave(false);
}

#[test]
fn what_did_not_fit_into_the_rings_meanwhile_is_counted_for_its_container() {
    let Some(mut ground) = Ground::new("full") else {
        return;
    };
    ground.config.bulk_ring_bytes = 1 << 16;
    ground.config.alert_ring_bytes = 1 << 16;
    let mut first = ground.load();
    read(&mut first, ground.id);
    first.leave(true);
    ground.act(0..3000);
    let mut second = ground.load();
    let (events, losses) = read(&mut second, ground.id);
    let seen = made(&events).len();
    assert!(seen > 50 && seen < 3000, "{seen}");
    let all = losses.iter().filter(|l| l.cgroup_id == ground.id);
    let lost: u64 = all.map(|l| l.count).sum();
    // each directory is made and removed; more was done beside, and is counted too
    let others = events.len() - seen;
    assert!(
        lost as usize + seen + others >= 6000,
        "{lost} lost, {seen} and {others} seen"
    );
    let stages: Vec<Stage> = losses.iter().map(|l| l.stage).collect();
    assert!(stages.contains(&Stage::BulkRing), "{stages:?}");
    // told once: the next one does not tell it again
    second.leave(true);
    let mut third = ground.load();
    let (_, losses) = read(&mut third, ground.id);
    assert!(
        losses.iter().all(|l| l.cgroup_id != ground.id),
        "{losses:?}"
    );
    third.leave(false);
}

#[test]
fn other_programs_are_attached_before_the_old_ones_are_taken_out() {
    let Some(mut ground) = Ground::new("replaced") else {
        return;
    };
    let mut first = ground.load();
    ground.act(0..5);
    read(&mut first, ground.id);
    first.leave(true);
    ground.act(5..25);
    let old = ground.sets();
    ground.config.alert_quota_per_second += 1;
    let mut second = ground.load();
    assert!(inherited(&second).replaced);
    assert_eq!(ground.sets().len(), 2, "both are attached");
    ground.act(25..30);
    let worker = std::thread::scope(|s| {
        // acts go on all the time while the one takes the other's place
        let working = s.spawn(|| ground.act(30..800));
        let got = read(&mut second, ground.id);
        working.join().expect("it works");
        got
    });
    let mut numbers = made(&worker.0);
    numbers.extend(made(&read(&mut second, ground.id).0));
    numbers.sort_unstable();
    assert_eq!(numbers, (5..800).collect::<Vec<_>>(), "each of them, once");
    let now = ground.sets();
    assert!(now.len() == 1 && now != old, "{now:?} {old:?}");
    second.leave(false);
}

/// The file of that name in the only set.
fn pin(ground: &Ground, name: &str) -> PathBuf {
    let sets = ground.sets();
    assert_eq!(sets.len(), 1, "{sets:?}");
    sets[0].join(name)
}

/// Loads where something is wrong: it watches all the same, and says what is wrong.
fn loads_anew(ground: &Ground, why: &str) -> Sensor {
    let mut sensor = ground.load();
    let pinning = sensor.pinning();
    assert_eq!(pinning.inherited, None, "{why}");
    let said = pinning.problems.join("; ");
    assert!(said.contains(why), "{said:?} says {why:?}");
    ground.act(900..903);
    assert_eq!(
        made(&read(&mut sensor, ground.id).0),
        [900, 901, 902],
        "{why}"
    );
    sensor
}

fn left_by_one(ground: &Ground) {
    let mut first = ground.load();
    read(&mut first, ground.id);
    first.leave(true);
}

#[test]
fn a_set_without_its_last_pin_or_one_of_its_links_is_not_used() {
    let Some(ground) = Ground::new("half") else {
        return;
    };
    for (missing, why) in [
        ("notes", "it was never finished"),
        ("l_on_exec", "l_on_exec"),
        ("m_processes", "m_processes"),
        ("agent", "agent"),
    ] {
        left_by_one(&ground);
        std::fs::remove_file(pin(&ground, missing)).expect("it was pinned");
        let sensor = loads_anew(&ground, why);
        assert_eq!(ground.sets().len(), 1, "the broken one is out");
        sensor.leave(false);
    }
}

#[test]
fn a_map_of_somebody_else_in_a_set_is_never_used() {
    let Some(ground) = Ground::new("foreign") else {
        return;
    };
    for name in ["m_containers", "m_bss", "agent", "notes"] {
        left_by_one(&ground);
        let at = pin(&ground, name);
        std::fs::remove_file(&at).expect("it was pinned");
        let made = Command::new("bpftool")
            .args(["map", "create"])
            .arg(&at)
            .args(["type", "array", "key", "4", "value", "8", "entries", "1"])
            .args(["name", "foreign"])
            .status();
        match made {
            Ok(done) if done.success() => {}
            _ => {
                eprintln!("left out: there is no bpftool to make a map with");
                return;
            }
        }
        let sensor = loads_anew(&ground, "what was left");
        sensor.leave(false);
    }
}

#[test]
fn a_place_that_is_not_ours_alone_or_no_bpffs_is_left_alone() {
    let Some(mut ground) = Ground::new("place") else {
        return;
    };
    // open to others
    std::fs::create_dir_all(ground.home()).expect("a directory");
    let parent = ground.dir.join("plimsoll");
    std::fs::set_permissions(&parent, std::fs::Permissions::from_mode(0o777)).expect("chmod");
    let sensor = loads_anew(&ground, "is open to others");
    assert_eq!(sensor.pinning().home, None);
    sensor.leave(true);
    std::fs::set_permissions(&parent, std::fs::Permissions::from_mode(0o700)).expect("chmod");
    // of somebody else
    std::os::unix::fs::chown(ground.home(), Some(65534), None).expect("chown");
    std::fs::set_permissions(ground.home(), std::fs::Permissions::from_mode(0o700)).expect("chmod");
    loads_anew(&ground, "belongs to uid 65534").leave(true);
    std::os::unix::fs::chown(ground.home(), Some(0), None).expect("chown");
    // a link to another place
    std::fs::remove_dir(ground.home()).expect("it is empty");
    std::os::unix::fs::symlink("/tmp", ground.home()).expect("a link");
    loads_anew(&ground, "is no directory").leave(true);
    // no bpffs
    let plain = std::env::temp_dir().join(format!("plimsoll-plain-{}", std::process::id()));
    ground.config.pins = Some(Pins {
        home: plain.clone(),
        owner: String::new(),
        keep_for: KEEP_FOR,
    });
    loads_anew(&ground, "is not on a bpffs").leave(true);
    assert!(!plain.exists(), "nothing is made there");
}

#[test]
fn two_agents_never_share_a_set() {
    let Some(ground) = Ground::new("two") else {
        return;
    };
    let mut first = ground.load();
    read(&mut first, ground.id);
    let us = format!("(process {})", std::process::id());
    let second = loads_anew(&ground, "another process uses");
    let said = second.pinning().problems.join("; ");
    assert!(said.contains(&us), "{said}");
    assert_eq!(second.pinning().home, None);
    second.leave(false);
    ground.act(0..3);
    let numbers = made(&read(&mut first, ground.id).0);
    assert_eq!(numbers, [900, 901, 902, 0, 1, 2], "the first goes on");
    let listed = plimsoll_sensor::pinned(&ground.dir.join("plimsoll"));
    assert!(listed.len() == 1 && listed[0].in_use, "{listed:?}");
    let (gone, problems) = plimsoll_sensor::unpin(&ground.dir.join("plimsoll"), None);
    assert!(
        gone.is_empty() && problems.len() == 1,
        "what is in use stays: {problems:?}"
    );
    first.leave(true);
    let (gone, problems) = plimsoll_sensor::unpin(&ground.dir.join("plimsoll"), None);
    assert!(gone.len() == 1 && problems.is_empty(), "{problems:?}");
    assert!(!ground.home().exists());
}

#[test]
fn without_an_agent_nothing_is_prevented_and_the_next_one_knows_since_when() {
    let Some(mut ground) = Ground::new("prevented") else {
        return;
    };
    ground.config.enforcement = true;
    let mut first = ground.load();
    read(&mut first, ground.id);
    let control = first.control();
    let how = Enforce {
        set: 3,
        programs: true,
        scripts: false,
        libraries: false,
        peers: false,
        kill: true,
    };
    control.enforce(ground.id, Some(how)).expect("enforce");
    let now = std::fs::read_to_string("/proc/uptime").expect("a clock");
    let now: f64 = now
        .split(' ')
        .next()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    let until = (now * 1e9) as u64 - 1;
    control.enforce_until(until).expect("a word");
    drop(control);
    drop(first);
    ground.act(0..3); // it runs
    let mut second = ground.load();
    let before = inherited(&second);
    assert_eq!(before.prevented_until.map(|b| b.0), Some(until));
    assert_eq!(second.control().enforced_until(), 0);
    // sets are numbered anew: a word of the new agent holds nobody by what was loaded before
    second.control().enforce_until(u64::MAX).expect("a word");
    ground.act(3..6);
    assert_eq!(
        made(&read(&mut second, ground.id).0),
        (0..6).collect::<Vec<_>>()
    );
    second.leave(false);
}

/// The kernel side's two words: until when it works, and since when it does not.
fn presence(ground: &Ground) -> libbpf_rs::MapHandle {
    let at = pin(ground, "m_presence");
    libbpf_rs::MapHandle::from_pinned_path(at).expect("it is pinned")
}

fn works_until(ground: &Ground) -> u64 {
    use libbpf_rs::{MapCore as _, MapFlags};
    let found = presence(ground).lookup(&0u32.to_ne_bytes(), MapFlags::ANY);
    let bytes = found.expect("a lookup").expect("an entry");
    u64::from_ne_bytes(bytes[..8].try_into().expect("eight bytes"))
}

/// The moment until which the programs work without an agent is over.
fn end_the_limit(ground: &Ground) {
    use libbpf_rs::{MapCore as _, MapFlags};
    let mut over = [0u8; 16];
    over[..8].copy_from_slice(&1u64.to_ne_bytes());
    presence(ground)
        .update(&0u32.to_ne_bytes(), &over, MapFlags::ANY)
        .expect("a word");
}

#[test]
fn programs_that_nobody_reads_in_time_end_their_work_and_the_next_agent_knows_since_when() {
    let Some(ground) = Ground::new("limit") else {
        return;
    };
    let mut first = ground.load();
    read(&mut first, ground.id);
    first.leave(true);
    ground.act(0..5); // within the time
    let before = plimsoll_sensor::pinned(&ground.dir.join("plimsoll"));
    assert_eq!(before[0].idle_since, None);
    end_the_limit(&ground);
    ground.act(5..10);
    let listed = plimsoll_sensor::pinned(&ground.dir.join("plimsoll"));
    assert_eq!(listed.len(), 1, "they stay where they are: {listed:?}");
    let since = listed[0].idle_since.expect("they do nothing any more");
    assert!(listed[0].last_seen < Some(since), "{listed:?}");
    // a longer time does not wake them: who came and went meanwhile they do not know
    let mut second = ground.load();
    let before = inherited(&second);
    assert_eq!(before.idle_since, Some(since));
    assert!(before.orderly && before.replaced, "{before:?}");
    assert_eq!(second.pinning().problems, Vec::<String>::new());
    assert_eq!(made(&read(&mut second, ground.id).0), [0, 1, 2, 3, 4]);
    ground.act(10..13);
    assert_eq!(made(&read(&mut second, ground.id).0), [10, 11, 12]);
    assert_eq!(ground.sets().len(), 1, "the idle ones are out");
    second.leave(true);
    let mut third = ground.load();
    let before = inherited(&third);
    assert!(
        !before.replaced && before.idle_since.is_none(),
        "{before:?}"
    );
    read(&mut third, ground.id);
    third.leave(false);
    assert!(!ground.home().exists(), "nothing stays");
}

#[test]
fn what_no_agent_comes_back_for_is_taken_out_and_never_what_one_uses() {
    let Some(ground) = Ground::new("leftover") else {
        return;
    };
    let (home, pid) = (ground.home(), std::process::id());
    let take_out = |pid| unpin_left_by(&home, pid);
    let mut first = ground.load();
    read(&mut first, ground.id);
    let refused = take_out(pid).expect_err("an agent is there");
    assert!(refused.contains("another process uses"), "{refused}");
    first.leave(true);
    let refused = take_out(pid).expect_err("they work for the next agent");
    assert!(refused.contains("work still"), "{refused}");
    assert_eq!(left_by(&home, pid), Left::Waits);
    end_the_limit(&ground);
    assert_eq!(left_by(&home, pid + 1), Left::Nothing);
    assert_eq!(take_out(pid + 1), Ok(0), "of another agent");
    assert_eq!(ground.sets().len(), 1);
    assert_eq!(take_out(pid), Ok(1));
    assert!(!home.exists(), "nothing stays");
    assert_eq!(left_by(&home, pid), Left::Nothing);
}

#[test]
fn an_agent_that_starts_while_leftovers_are_taken_out_waits_for_that_and_keeps_its_own() {
    let Some(ground) = Ground::new("meanwhile") else {
        return;
    };
    left_by_one(&ground);
    let home = ground.home().display().to_string();
    let script = format!("echo held; sleep 0.5; rm {home}/*/*; rmdir {home}/* {home}");
    let mut taking_out = Command::new("flock")
        .args(["-x", &home, "sh", "-c", &script])
        .stdout(Stdio::piped())
        .spawn()
        .expect("flock is there");
    let mut said = [0; 5];
    let out = taking_out.stdout.as_mut().expect("its output");
    std::io::Read::read_exact(out, &mut said).expect("it holds the place");
    let mut sensor = ground.load();
    assert!(taking_out.wait().expect("it ends").success());
    assert_eq!(sensor.pinning().problems, Vec::<String>::new());
    assert_eq!(sensor.pinning().home, Some(ground.home()));
    read(&mut sensor, ground.id);
    assert_eq!(ground.sets().len(), 1, "its own");
    sensor.leave(false);
}

#[test]
fn a_living_agent_moves_the_limit_on() {
    let Some(ground) = Ground::new("alive") else {
        return;
    };
    let mut sensor = ground.load();
    let first = works_until(&ground);
    assert!(first > KEEP_FOR.as_nanos() as u64, "from the start on");
    let end = Instant::now() + Duration::from_secs(60);
    while works_until(&ground) == first {
        assert!(Instant::now() < end, "it is never moved");
        read(&mut sensor, ground.id);
    }
    assert!(works_until(&ground) > first);
    sensor.leave(false);
}

#[test]
fn an_agent_that_was_held_up_for_too_long_does_not_go_on_over_idle_programs() {
    let Some(ground) = Ground::new("held-up") else {
        return;
    };
    let mut first = ground.load();
    read(&mut first, ground.id);
    end_the_limit(&ground);
    ground.act(0..3); // it has not run meanwhile, as far as the programs can tell
    let end = Instant::now() + Duration::from_secs(60);
    let why = loop {
        assert!(Instant::now() < end, "it never says so");
        if let Err(why) = first.poll(Duration::from_millis(50), &mut |_| ()) {
            break why.to_string();
        }
    };
    assert!(why.contains("has to be started again"), "{why}");
    first.leave(true);
    let mut second = ground.load();
    assert!(inherited(&second).idle_since.is_some());
    ground.act(3..6);
    assert_eq!(made(&read(&mut second, ground.id).0), [3, 4, 5]);
    second.leave(false);
}

#[test]
fn a_read_only_bpffs_keeps_nobody_from_watching() {
    let Some(ground) = Ground::new("read-only") else {
        return;
    };
    let done = Command::new("mount")
        .args(["-o", "remount,ro"])
        .arg(&ground.dir)
        .status();
    assert!(done.expect("mount is there").success(), "remount");
    let sensor = loads_anew(&ground, "Read-only file system");
    assert_eq!(sensor.pinning().home, None);
    sensor.leave(true);
}
