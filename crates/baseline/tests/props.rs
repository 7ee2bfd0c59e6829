//! What holds for any input.

mod support;

use plimsoll_baseline::{
    Baseline, Class, Context, KnownObject, NoNames, PathReach, behaviours, classify, generalise,
    known_entries, merge, paths, shape,
};
use plimsoll_model::event::*;
use plimsoll_model::*;
use proptest::prelude::*;
use std::collections::BTreeSet;
use support::*;

fn bytes() -> impl Strategy<Value = Text> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..64).prop_map(Text::new),
        path().prop_map(Text::from),
    ]
}

/// Paths of the kind that containers have, hostile ones among them.
fn path() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        Just("etc".to_owned()),
        Just("tmp".to_owned()),
        Just("var".to_owned()),
        Just("root".to_owned()),
        Just("proc".to_owned()),
        Just("..".to_owned()),
        Just(".".to_owned()),
        Just("".to_owned()),
        Just(".ssh".to_owned()),
        Just("shadow".to_owned()),
        Just("cron.d".to_owned()),
        Just("environ".to_owned()),
        Just("docker.sock".to_owned()),
        Just("self".to_owned()),
        Just(" -> ".to_owned()),
        Just("<n>".to_owned()),
        Just("**".to_owned()),
        "[a-zA-Z0-9_.-]{1,12}",
        "[0-9]{1,10}",
    ];
    proptest::collection::vec(part, 1..7).prop_map(|parts| format!("/{}", parts.join("/")))
}

fn sock() -> impl Strategy<Value = SockAddr> {
    prop_oneof![
        (any::<std::net::IpAddr>(), any::<u16>()).prop_map(|(ip, p)| SockAddr::Inet(ip, p)),
        bytes().prop_map(SockAddr::Unix),
    ]
}

fn proto() -> impl Strategy<Value = Proto> {
    prop_oneof![
        Just(Proto::Tcp),
        Just(Proto::Udp),
        Just(Proto::Unix),
        Just(Proto::Raw),
        Just(Proto::Other)
    ]
}

fn origin() -> impl Strategy<Value = Origin> {
    prop_oneof![
        Just(Origin::Unknown),
        Just(Origin::Image),
        Just(Origin::Upper),
        Just(Origin::Volume),
        Just(Origin::Tmpfs),
        Just(Origin::Memfd),
        Just(Origin::Pseudo),
        Just(Origin::Foreign)
    ]
}

fn op() -> impl Strategy<Value = FileOp> {
    use FileOp::*;
    proptest::sample::select(vec![
        Read, Write, Create, List, Unlink, Mkdir, Rmdir, Chmod, Chown, Rename, Link, Symlink,
        Failed,
    ])
}

fn kind() -> impl Strategy<Value = EventKind> {
    let connection = || {
        (proto(), sock(), proptest::option::of(sock()), any::<i32>()).prop_map(
            |(proto, peer, local, result)| Connection {
                proto,
                peer,
                local,
                result,
            },
        )
    };
    let exec = (
        bytes(),
        bytes(),
        proptest::collection::vec(bytes(), 0..6),
        origin(),
        any::<bool>(),
        any::<bool>(),
    )
        .prop_map(|(exe, script, argv, origin, deleted, first)| {
            EventKind::Exec(Exec {
                exe,
                script,
                argv,
                origin,
                deleted,
                first,
                ..Exec::default()
            })
        });
    let file = (op(), bytes(), bytes(), origin(), any::<u32>(), -2..1i32).prop_map(
        |(op, path, target, origin, flags, result)| {
            EventKind::File(FileEvent {
                raw: None,
                mode: None,
                op,
                path,
                target,
                origin,
                flags,
                result,
            })
        },
    );
    prop_oneof![
        exec,
        file,
        (bytes(), origin()).prop_map(|(path, origin)| EventKind::Library { path, origin }),
        connection().prop_map(EventKind::Connect),
        connection().prop_map(EventKind::Accept),
        connection().prop_map(EventKind::Datagram),
        (proto(), sock()).prop_map(|(proto, local)| EventKind::Listen { proto, local }),
        (proto(), sock()).prop_map(|(proto, local)| EventKind::Bind { proto, local }),
        (any::<u16>(), any::<u16>(), any::<u16>()).prop_map(|(family, kind, protocol)| {
            EventKind::Socket {
                family,
                kind,
                protocol,
            }
        }),
        (bytes(), any::<bool>()).prop_map(|(name, response)| EventKind::Dns(Dns {
            response,
            name,
            qtype: 1,
            rcode: 0,
            addresses: vec![],
            server: None
        })),
        any::<u64>().prop_map(|flags| EventKind::Namespace {
            call: NamespaceCall::Setns,
            flags
        }),
        (bytes(), bytes(), bytes()).prop_map(|(source, target, fstype)| EventKind::Mount {
            call: MountCall::Mount,
            source,
            target,
            fstype,
            flags: 0
        }),
        any::<u32>().prop_map(|request| EventKind::Ptrace { request, target: 1 }),
        any::<u32>().prop_map(|command| EventKind::Bpf { command }),
        bytes().prop_map(|name| EventKind::Module { name }),
        bytes().prop_map(|name| EventKind::Memfd { name }),
        (any::<u32>(), any::<u32>(), any::<u64>(), any::<u64>()).prop_map(
            |(old_uid, new_uid, old_caps, new_caps)| {
                EventKind::Credentials {
                    old_uid,
                    new_uid,
                    old_caps,
                    new_caps,
                }
            }
        ),
        (any::<u32>(), any::<bool>()).prop_map(|(nr, compat)| EventKind::Syscall { nr, compat }),
        bytes().prop_map(|path| EventKind::CgroupAttach {
            to: 1,
            path,
            moved: ProcessKey::default()
        }),
        (any::<u32>(), any::<i64>()).prop_map(|(nr, result)| EventKind::Rare {
            nr,
            args: [0; 4],
            result
        }),
        (any::<u32>(), any::<i32>())
            .prop_map(|(signal, target)| EventKind::Signal { signal, target }),
        (0..4u32).prop_map(|stream| EventKind::Dup {
            stream,
            target: DupTarget::Inet,
            peer: None
        }),
    ]
}

prop_compose! {
    fn observation()(
        kind in kind(),
        exes in proptest::collection::vec((bytes(), bytes()), 0..4),
        entry in proptest::sample::select(vec![Entry::Init, Entry::ExecSession, Entry::Host, Entry::FoundRunning]),
        tampered in proptest::bool::weighted(0.05),
        second in 0..600u64,
    ) -> Observation {
        let c = container("web", 0);
        let mut obs = see(&c, second, &who(&[]).entry(entry), kind);
        obs.event.tampered = tampered;
        obs.lineage = exes
            .into_iter()
            .map(|(exe, script)| Ancestor { exe, script, entry, ..Ancestor::default() })
            .collect();
        obs
    }
}

fn code(obs: &Observation, c: &Container) -> Vec<Behaviour> {
    behaviours(obs, c, &NoNames)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn coding_judging_and_alerting_are_total(all in proptest::collection::vec(observation(), 1..40)) {
        let c = container("web", 0);
        let mut b = fresh(&c);
        for obs in &all {
            for x in code(obs, &c) {
                prop_assert!(x.object.len() <= plimsoll_baseline::code::MAX_OBJECT);
                prop_assert!(x.program.len() <= plimsoll_baseline::code::MAX_OBJECT);
                let class: Class = classify(obs, &x, &Context { container: &c, baseline: Some(&b) });
                prop_assert!(!class.reason.is_empty());
            }
            for d in observe(&mut b, &c, obs).drifts {
                let id = AlertId::parse("A-1").unwrap();
                let alert = plimsoll_baseline::alert(&d, obs, &c, id, Default::default());
                if let Some(a) = alert {
                    let printable = |x: &u8| *x >= 0x20 && *x != 0x7f;
                    prop_assert!(a.output.as_bytes().iter().all(printable), "{:?}", a.output);
                }
            }
        }
        let _ = b.readiness();
        let _ = known_entries(&b).count();
    }

    #[test]
    fn what_was_learned_is_known_afterwards(all in proptest::collection::vec(observation(), 1..40)) {
        let c = container("web", 0);
        let mut b = fresh(&c);
        for obs in &all {
            let coded = code(obs, &c);
            let v = b.observe(obs, &c, &coded);
            let again = plimsoll_baseline::judge(obs, &c, Some(&b), &coded);
            prop_assert_eq!(v.drifts.is_empty(), again.drifts.is_empty());
            prop_assert!(again.learnable.is_empty(), "{:?}", again);
        }
    }

    #[test]
    fn coverage_in_running_tallies_equals_a_full_count(all in proptest::collection::vec(observation(), 1..60)) {
        let c = container("web", 0);
        let mut b = fresh(&c);
        for obs in &all {
            observe(&mut b, &c, obs);
        }
        let full = plimsoll_baseline::Coverage::of(b.coverage().units, b.expected().map(|(_, e)| e.incidence));
        prop_assert_eq!(b.coverage(), full);
        prop_assert!(b.expected().all(|(_, e)| e.incidence <= b.coverage().units));
        prop_assert!((0.0..=1.0).contains(&full.value()));
    }

    #[test]
    fn bytes_round_trip(all in proptest::collection::vec(observation(), 0..30)) {
        let c = container("web", 0);
        let mut b = fresh(&c);
        for obs in &all {
            observe(&mut b, &c, obs);
        }
        let bytes = b.encode();
        let back = Baseline::decode(&bytes).unwrap();
        prop_assert_eq!(&back, &b);
        prop_assert_eq!(back.encode(), bytes);
        for obs in &all {
            let coded = code(obs, &c);
            prop_assert_eq!(
                plimsoll_baseline::judge(obs, &c, Some(&back), &coded),
                plimsoll_baseline::judge(obs, &c, Some(&b), &coded)
            );
        }
    }

    #[test]
    fn damaged_bytes_never_panic(flips in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8)) {
        let (b, c) = ready();
        let mut bytes = b.encode();
        for (at, with) in flips {
            let i = at.index(bytes.len());
            bytes[i] = with;
        }
        if let Ok(mut x) = Baseline::decode(&bytes) {
            observe(&mut x, &c, &see(&c, 900, &nginx(), read("/srv/x")));
            x.refresh(at(901));
            let _ = merge(&x, &x);
        }
    }

    #[test]
    fn merging_commutes_in_what_is_expected(
        one in proptest::collection::vec(observation(), 0..25),
        two in proptest::collection::vec(observation(), 0..25),
    ) {
        let c = container("web", 0);
        let learn = |all: &[Observation]| {
            let mut b = fresh(&c);
            all.iter().for_each(|obs| { observe(&mut b, &c, obs); });
            b
        };
        let (a, b) = (learn(&one), learn(&two));
        let (ab, ba) = (merge(&a, &b).unwrap(), merge(&b, &a).unwrap());
        let set = |x: &Baseline| x.expected().map(|(_, e)| (e.behaviour.clone(), e.count, e.incidence)).collect::<BTreeSet<_>>();
        let pending = |x: &Baseline| x.pending().iter().map(|p| p.behaviour.clone()).collect::<BTreeSet<_>>();
        prop_assert_eq!(set(&ab), set(&ba));
        prop_assert_eq!(pending(&ab), pending(&ba));
        prop_assert_eq!(ab.coverage(), ba.coverage());
        // nothing that either knew is lost
        for x in [&a, &b] {
            prop_assert!(x.expected().all(|(_, e)| ab.find(&e.behaviour).is_some()));
        }
    }

    #[test]
    fn no_candidate_pattern_exists_for_a_sensitive_path(p in path(), op in op(), origin in origin()) {
        let c = container("web", 0);
        let raw = paths::clean(p.as_bytes()).into_owned();
        for b in code(&see(&c, 1, &nginx(), file(op, &p, origin)), &c) {
            if op_is_single(op) && paths::never_generalise(&raw, op.as_str()) {
                prop_assert!(generalise::candidates(&b).is_empty(), "{}", p);
                prop_assert!(generalise::covering(&b).is_empty(), "{}", p);
            }
        }
    }

    #[test]
    fn normalising_hides_nothing_sensitive_and_settles(p in path()) {
        let once = paths::normalise(p.as_bytes()).into_owned();
        prop_assert_eq!(paths::sensitive(p.as_bytes()), paths::sensitive(&once));
        prop_assert_eq!(paths::normalise(&once).into_owned(), once.clone());
    }

    #[test]
    fn cleaning_settles_and_leaves_no_dots(p in path()) {
        let once = paths::clean(p.as_bytes()).into_owned();
        prop_assert_eq!(paths::clean(&once).into_owned(), once.clone());
        let dots = once.split(|&b| b == b'/').any(|c| c == b".." || c == b".");
        prop_assert!(!dots);
    }

    #[test]
    fn shapes_are_bounded_and_hold_no_control_characters(argv in proptest::collection::vec(bytes(), 0..60)) {
        let s = shape::shape(b"/bin/sh", &argv);
        prop_assert!(s.len() < 64 * 260, "{}", s.len());
        prop_assert!(s.split(' ').count() <= shape::MAX_PARTS + 1);
        prop_assert!(s.chars().all(|c| !c.is_control()));
    }

    #[test]
    fn what_the_kernel_is_given_is_never_sensitive(all in proptest::collection::vec(observation(), 1..60)) {
        let c = container("web", 0);
        let mut b = fresh(&c);
        for obs in &all {
            observe(&mut b, &c, obs);
        }
        for k in known_entries(&b) {
            if let KnownObject::File { op, path: PathReach::Exact(p) | PathReach::Below(p), .. } = &k.object {
                use paths::Sensitive::*;
                let kind = paths::sensitive(p.as_bytes());
                prop_assert!(!matches!(kind, Some(Credential | OwnSecret | HostControl | RuntimeSocket | ProcessMemory)), "{}", p);
                prop_assert!(!(matches!(kind, Some(Persistence | Program)) && paths::changes(*op)), "{}", p);
            }
        }
    }
}

fn op_is_single(op: FileOp) -> bool {
    !matches!(op, FileOp::Rename | FileOp::Link | FileOp::Symlink)
}
