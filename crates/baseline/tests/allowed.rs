//! What enforcement lets through: by object, whoever uses it, and the same in both forms.

mod support;

use plimsoll_baseline::{
    Allowed, AllowedEntry as Entry, Approval, Baseline, NoNames, Select, behaviours,
};
use plimsoll_model::event::Exec;
use plimsoll_model::*;
use support::*;

fn with(exec: Exec, origin: Origin, script: &str) -> EventKind {
    EventKind::Exec(Exec {
        origin,
        script: script.into(),
        ..exec
    })
}

/// A baseline that has learned these acts of nginx.
fn knowing(acts: &[EventKind]) -> (Allowed, Container) {
    let c = container("web", 1);
    let mut b: Baseline = fresh(&c);
    for (i, act) in acts.iter().enumerate() {
        observe(&mut b, &c, &see(&c, 10 + i as u64, &nginx(), act.clone()));
    }
    // what a risk class keeps apart waits for a person
    let approval = Approval {
        who: "kim".into(),
        why: "reviewed".into(),
        at: at(800),
    };
    let _ = b.approve(&Select::AllPending, approval);
    (Allowed::of(&b), c)
}

fn forbidden(allowed: &Allowed, c: &Container, kind: EventKind) -> Option<(EnforceClass, String)> {
    let other = who(&["/usr/bin/php-fpm", "/usr/sbin/nginx"]);
    let all = behaviours(&see(c, 900, &other, kind), c, &NoNames);
    let mut found = all.iter().filter_map(|b| allowed.forbids(b));
    found.next().map(|(class, what)| (class, what.to_string()))
}

#[test]
fn a_program_is_known_by_path_and_origin_whoever_starts_it() {
    let (a, c) = knowing(&[run("/usr/bin/convert")]);
    assert_eq!(forbidden(&a, &c, run("/usr/bin/convert")), None);
    let upper = with(exec("/usr/bin/convert"), Origin::Upper, "");
    assert_eq!(
        forbidden(&a, &c, upper),
        Some((EnforceClass::Program, "/usr/bin/convert".to_owned()))
    );
    assert_eq!(
        forbidden(&a, &c, run("/usr/bin/xmrig")),
        Some((EnforceClass::Program, "/usr/bin/xmrig".to_owned()))
    );
    assert!(
        a.entries()
            .contains(&Entry::Program("/usr/bin/convert".into(), Origin::Image))
    );
}

#[test]
fn a_program_in_a_foreign_mount_namespace_or_in_memory_is_never_allowed() {
    let foreign = with(exec("/usr/bin/convert"), Origin::Foreign, "");
    let memory = with(exec("/memfd:x"), Origin::Memfd, "");
    let (a, c) = knowing(&[foreign.clone(), memory.clone(), run("/bin/true")]);
    assert!(forbidden(&a, &c, foreign).is_some());
    assert!(forbidden(&a, &c, memory).is_some());
    let paths: Vec<_> = a.entries().iter().collect();
    assert!(!paths.contains(&&Entry::Program("/usr/bin/convert".into(), Origin::Foreign)));
}

#[test]
fn a_script_is_known_with_its_interpreter_and_the_kernel_has_to_ask() {
    let known = with(exec("/usr/bin/python3"), Origin::Image, "/app/job.py");
    let (a, c) = knowing(std::slice::from_ref(&known));
    assert_eq!(forbidden(&a, &c, known), None);
    let other = with(exec("/usr/bin/python3"), Origin::Image, "/tmp/evil.py");
    assert_eq!(
        forbidden(&a, &c, other),
        Some((
            EnforceClass::Script,
            "/usr/bin/python3 /tmp/evil.py".to_owned()
        ))
    );
    assert!(
        a.entries()
            .contains(&Entry::Ask("/usr/bin/python3".into(), Origin::Image))
    );
}

#[test]
fn an_applet_is_known_by_its_name() {
    let (a, c) = knowing(&[run_args("/bin/busybox", &["cat", "/x"])]);
    assert_eq!(
        forbidden(&a, &c, run_args("/bin/busybox", &["cat", "/y"])),
        None
    );
    assert_eq!(
        forbidden(&a, &c, run_args("/bin/busybox", &["nc", "10.0.0.1"])),
        Some((EnforceClass::Script, "/bin/busybox nc".to_owned()))
    );
}

#[test]
fn a_library_is_known_by_path_and_origin() {
    let map = |path: &str, origin| EventKind::Library {
        path: path.into(),
        origin,
    };
    let (a, c) = knowing(&[map("/lib/libz.so.1", Origin::Image)]);
    assert_eq!(
        forbidden(&a, &c, map("/lib/libz.so.1", Origin::Image)),
        None
    );
    for bad in [
        map("/lib/libz.so.1", Origin::Upper),
        map("/tmp/x.so", Origin::Tmpfs),
    ] {
        assert_eq!(
            forbidden(&a, &c, bad).map(|f| f.0),
            Some(EnforceClass::Library)
        );
    }
}

#[test]
fn a_peer_is_known_by_address_and_port_and_loopback_as_one() {
    let (a, c) = knowing(&[connect("10.0.0.5:6379"), connect("127.0.0.1:9000")]);
    assert_eq!(forbidden(&a, &c, connect("10.0.0.5:6379")), None);
    assert_eq!(forbidden(&a, &c, connect("127.0.0.7:9000")), None);
    for bad in ["10.0.0.5:6380", "10.0.0.6:6379", "127.0.0.1:9001"] {
        assert_eq!(
            forbidden(&a, &c, connect(bad)).map(|f| f.0),
            Some(EnforceClass::Peer),
            "{bad}"
        );
    }
    assert!(
        a.entries()
            .contains(&Entry::Peer(Proto::Tcp, [10, 0, 0, 5].into(), 6379))
    );
    assert!(a.entries().contains(&Entry::Loopback(Proto::Tcp, 9000)));
    assert!(a.open_ports().is_empty());
}
