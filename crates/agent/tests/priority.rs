//! Who goes before others: raised threads, what they start, refusals, and the bound of what they take.

mod common;

use common::{Hands, Rig, Town};
use plimsoll_agent::kernel::{EventSource, KernelError};
use plimsoll_agent::priority::{CALM, LOOK_EVERY, Priority, Rank, weighing_cgroup};
use plimsoll_sensor::api::Signal;
use rustix::process::Pid;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

fn nice_of(tid: Pid) -> i32 {
    rustix::process::getpriority_process(Some(tid)).unwrap()
}

/// Runs `claim` on a thread of its own, which may be raised; says so where nobody may be.
fn raised(claim: impl FnOnce(&Arc<Priority>) + Send + 'static) {
    raised_by(Priority::new(-15, false), claim);
}

fn raised_by(priority: Priority, claim: impl FnOnce(&Arc<Priority>) + Send + 'static) {
    let priority = Arc::new(priority);
    if let Err(e) = priority.trial() {
        assert!(
            !rustix::process::geteuid().is_root() || !all_wanted(),
            "{e}"
        );
        return eprintln!("left out: priorities may not be raised here: {e}");
    }
    std::thread::spawn(move || claim(&priority)).join().unwrap();
}

fn all_wanted() -> bool {
    std::env::var_os("PLIMSOLL_TEST_ALL").is_some_and(|all| all == "1")
}

#[test]
fn a_raised_thread_is_raised_until_it_lets_go_and_starts_only_ordinary_ones() {
    raised(|priority| {
        let me = rustix::thread::gettid();
        let before = nice_of(me);
        let raised = priority.raise("pipeline");
        assert_eq!(nice_of(me), -15);
        assert_eq!(priority.words(), ["pipeline: nice -15"]);
        let thread = std::thread::spawn(|| nice_of(rustix::thread::gettid()));
        assert_eq!(thread.join().unwrap(), 0, "a thread that it starts");
        let program = std::process::Command::new("nice").output().unwrap();
        assert_eq!(program.stdout, b"0\n", "a program that it starts");
        drop(raised);
        assert_eq!(nice_of(me), before);
        assert!(priority.words().is_empty());
    });
}

#[test]
fn who_is_refused_goes_on_and_it_is_said() {
    let refuse = |_, _| Err(io::ErrorKind::PermissionDenied.into());
    let priority = Arc::new(Priority::by(-15, true, Box::new(refuse)));
    let raise = || drop(priority.raise("pipeline"));
    std::thread::scope(|s| s.spawn(raise).join().unwrap());
    let said = ["pipeline: nice -15 was refused: permission denied"];
    assert_eq!(priority.words(), said);
    assert!(priority.trial().is_err());
}

/// 0 by weight, 2 before all that share by weight (`SCHED_RR`).
fn policy_of(tid: Pid) -> String {
    let stat = std::fs::read_to_string(format!("/proc/self/task/{tid}/stat")).unwrap();
    // behind the name, which may have blanks, the state is the third field
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    fields.split(' ').nth(41 - 3).unwrap().to_owned()
}

#[test]
fn a_raised_thread_goes_first_within_the_same_bound_and_what_it_starts_does_not() {
    raised_by(Priority::new(-15, true), |priority| {
        if let Some(e) = priority.real_time_refused() {
            return eprintln!("left out: there is no real time here: {e}");
        }
        let me = rustix::thread::gettid();
        let raised = priority.raise("pipeline");
        assert_eq!((policy_of(me).as_str(), nice_of(me)), ("2", -15));
        assert_eq!(priority.words(), ["pipeline: real time"]);
        let started = || policy_of(rustix::thread::gettid());
        let thread = std::thread::spawn(started).join().unwrap();
        assert_eq!(thread, "0", "a thread that it starts");
        let mut now = CALM.as_nanos() as u64;
        priority.look(now);
        let end = Instant::now() + Duration::from_secs(120);
        while policy_of(me) == "2" {
            assert!(Instant::now() < end, "it is never lowered");
            now += 1;
            priority.look(now);
        }
        assert!(priority.words()[0].contains("ordinary for the moment"));
        now += 1000 * CALM.as_nanos() as u64;
        priority.look(now);
        assert_eq!(policy_of(me), "2", "calm");
        drop(raised);
        assert_eq!(policy_of(me), "0");
    });
}

#[test]
fn where_there_is_no_real_time_nice_values_decide_and_it_is_said() {
    let by_weight_only = |_, rank| match rank {
        Rank::Nice(_) => Ok(()),
        Rank::First(_) => Err(io::ErrorKind::PermissionDenied.into()),
    };
    let priority = Arc::new(Priority::by(-15, true, Box::new(by_weight_only)));
    assert!(priority.trial().is_ok() && priority.real_time_refused().is_some());
    let claim = || {
        let _raised = priority.raise("pipeline");
        let said = [
            "pipeline: nice -15",
            "real time was refused: permission denied: threads wait for the next tick of the clock",
        ];
        assert_eq!(priority.words(), said);
    };
    std::thread::scope(|s| s.spawn(claim).join().unwrap());
}

#[test]
fn who_looks_goes_before_those_that_it_looks_at() {
    let (told, ranks) = std::sync::mpsc::channel();
    let note = move |_, rank| {
        told.send(rank).unwrap();
        Ok(())
    };
    let priority = Arc::new(Priority::by(-15, true, Box::new(note)));
    let (stop, stopped) = crossbeam_channel::bounded::<()>(0);
    drop(stop);
    priority.run(&stopped);
    let watch = ranks.recv().unwrap();
    drop(priority.raise("pipeline"));
    assert_eq!(ranks.recv(), Ok(Rank::Nice(-15)));
    let first = ranks.recv().unwrap();
    let priority_of = |rank| match rank {
        Rank::First(priority) => priority,
        Rank::Nice(_) => panic!("by weight"),
    };
    assert!(priority_of(watch) > priority_of(first));
}

#[test]
fn who_takes_too_much_is_ordinary_until_it_is_calm() {
    raised(|priority| {
        let me = rustix::thread::gettid();
        let before = nice_of(me);
        let _raised = priority.raise("pipeline");
        // as if little time had passed meanwhile: a busy machine changes nothing
        let mut now = CALM.as_nanos() as u64;
        priority.look(now);
        let end = Instant::now() + Duration::from_secs(120);
        while nice_of(me) == -15 {
            assert!(Instant::now() < end, "it is never lowered");
            now += 1;
            priority.look(now);
        }
        assert_eq!(nice_of(me), before);
        assert!(priority.words()[0].contains("ordinary for the moment"));
        // in so long a time that was next to nothing
        now += 1000 * CALM.as_nanos() as u64;
        priority.look(now);
        assert_eq!(nice_of(me), -15);
        assert!(LOOK_EVERY < CALM);
    });
}

const OWN_SESSION: &str = "PLIMSOLL_TEST_RAISES_ITS_SESSION";

/// As in a container that was given no session of its own.
#[test]
fn a_session_from_outside_of_the_pid_namespace_is_shared() {
    if std::env::var_os(OWN_SESSION).is_some() {
        let priority = Priority::new(-15, true);
        priority.raise_session();
        return println!("words: {:?}", priority.words());
    }
    let name = "a_session_from_outside_of_the_pid_namespace_is_shared";
    let within = |more: &[&str]| {
        let mut unshare = std::process::Command::new("unshare");
        unshare.args(["--pid", "--fork", "--mount-proc"]).args(more);
        unshare.arg(std::env::current_exe().unwrap());
        unshare.args(["--exact", name, "--nocapture"]);
        let out = unshare.env(OWN_SESSION, "1").output().unwrap();
        let said = String::from_utf8_lossy(&out.stdout).into_owned();
        let why = String::from_utf8_lossy(&out.stderr).into_owned();
        (out.status.success(), said, why)
    };
    let (fine, said, why) = within(&[]);
    if !fine && !rustix::process::geteuid().is_root() && !all_wanted() {
        return eprintln!("left out: no pid namespace may be made here: {why}");
    }
    assert!(fine, "{said}{why}");
    let shares = std::fs::read_to_string("/proc/sys/kernel/sched_autogroup_enabled");
    if shares.is_ok_and(|s| s.trim() == "1") {
        assert!(said.contains("shared with other programs"), "{said}");
        let (fine, said, why) = within(&["setsid", "--wait"]);
        assert!(fine && !said.contains("shared with"), "{said}{why}");
    }
}

/// Rings in which nothing comes; looks at who is raised while they are read.
struct Quiet<'a> {
    priority: &'a Priority,
    stop: &'a AtomicBool,
    end: Instant,
}
impl EventSource for Quiet<'_> {
    fn poll(&mut self, _: Duration, _: &mut dyn FnMut(Signal)) -> Result<usize, KernelError> {
        let words = self.priority.words().join("; ");
        // what the machine grants for the moment is another claim's business
        let all = ["reader", "pipeline", "journal"].iter();
        let all = all.filter(|t| words.contains(**t)).count() == 3;
        let own = nice_of(rustix::thread::gettid()) == -10 || words.contains("for the moment");
        if all && own {
            self.stop.store(true, Ordering::SeqCst);
        }
        assert!(Instant::now() < self.end, "raised are: {words}");
        std::thread::sleep(Duration::from_millis(1));
        Ok(0)
    }
}

#[test]
fn an_agent_has_its_three_threads_before_others() {
    raised(|_| {
        let dir = tempfile::tempdir().unwrap();
        let rig = Rig::start(&Rig::config(dir.path()), &Hands::new(), Town::new(&[]));
        let before = nice_of(rustix::thread::gettid());
        let stop = AtomicBool::new(false);
        let mut quiet = Quiet {
            priority: &rig.agent.shared().priority,
            stop: &stop,
            end: Instant::now() + Duration::from_secs(120),
        };
        rig.agent.read(&mut quiet, &stop).unwrap();
        assert_eq!(
            nice_of(rustix::thread::gettid()),
            before,
            "who reads no more"
        );
        let words = rig.agent.shared().priority.words();
        assert!(!words[0].contains("reader"), "{words:?}");
        rig.agent.stop("test");
    });
}

#[test]
fn whose_weight_counts_is_found_in_either_version() {
    let machine = |own: &str, shares: &[&str]| {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(dir.path().join("proc/self")).unwrap();
        std::fs::write(dir.path().join("proc/self/cgroup"), own).unwrap();
        for at in shares {
            let at = dir.path().join("sys/fs/cgroup").join(at);
            std::fs::create_dir_all(&at).unwrap();
            std::fs::write(at.join("cgroup.subtree_control"), "cpu memory\n").unwrap();
        }
        weighing_cgroup(dir.path())
    };
    assert_eq!(machine("0::/a.slice/b.service\n", &[]), None);
    let two = machine("0::/a.slice/b.service\n", &["", "a.slice"]);
    assert_eq!(two.as_deref(), Some("/a.slice/b.service"));
    let one = machine("0::/a.slice/b.service\n", &[""]);
    assert_eq!(one.as_deref(), Some("/a.slice"));
    let first = machine("4:memory:/x\n3:cpu,cpuacct:/y\n0::/\n", &[]);
    assert_eq!(first.as_deref(), Some("/y"));
    assert_eq!(machine("3:cpu,cpuacct:/\n0::/z\n", &[""]), None);
}
