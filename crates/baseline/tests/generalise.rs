//! Patterns: made from enough examples, explainable, and never over what matters.

mod support;

use plimsoll_baseline::{Baseline, Template, paths};
use plimsoll_model::*;
use support::*;

/// Shows each object in a slot of its own.
fn teach(b: &mut Baseline, c: &Container, kinds: impl IntoIterator<Item = EventKind>) {
    for (i, kind) in kinds.into_iter().enumerate() {
        observe(b, c, &see(c, 2 * i as u64, &nginx(), kind));
    }
}

fn taught(kinds: impl IntoIterator<Item = EventKind>) -> (Baseline, Container) {
    let c = container("x", 0);
    let mut b = fresh(&c);
    teach(&mut b, &c, kinds);
    (b, c)
}

fn knows(b: &Baseline, c: &Container, kind: EventKind) -> bool {
    judge(b, c, &see(c, 9999, &nginx(), kind)).is_known()
}

fn patterns(b: &Baseline) -> Vec<String> {
    let patterns = b.expected().filter(|(_, e)| e.template != Template::Exact);
    patterns
        .map(|(_, e)| e.behaviour.object.to_string())
        .collect()
}

#[test]
fn eight_session_files_make_a_pattern_that_names_its_examples() {
    let (b, c) = taught((0..8).map(|n| write(&format!("/var/lib/php/sess_ab{n}cd{n}"))));
    assert_eq!(patterns(&b), ["/var/lib/php/sess_<rand>"]);
    let (_, e) = b
        .expected()
        .find(|(_, e)| e.template == Template::Names)
        .unwrap();
    assert_eq!((e.examples.len(), e.members, e.count), (8, 8, 8));
    assert_eq!(e.examples[0], "/var/lib/php/sess_ab0cd0".into());
    assert_eq!(b.expected().count(), 1, "the members are replaced");
    assert!(knows(&b, &c, write("/var/lib/php/sess_zz9yy8")));
    // another shape, directory, operation or program is another matter
    assert!(!knows(&b, &c, write("/var/lib/php/shell.php")));
    assert!(!knows(&b, &c, write("/var/lib/sess_zz9yy8")));
    assert!(!knows(
        &b,
        &c,
        file(FileOp::Chmod, "/var/lib/php/sess_zz9yy8", Origin::Upper)
    ));
    let other = see(
        &c,
        9999,
        &who(&["/bin/sh"]),
        write("/var/lib/php/sess_zz9yy8"),
    );
    assert!(!judge(&b, &c, &other).is_known());
}

#[test]
fn a_database_that_makes_its_numbered_files_at_once_has_a_pattern_of_them() {
    let c = container("x", 0);
    let taught = |names: &dyn Fn(u32) -> String| {
        let mut b = fresh(&c);
        for n in 0..70 {
            let kind = write(&names(n));
            observe(&mut b, &c, &see(&c, 1, &nginx(), kind));
        }
        patterns(&b)
    };
    let files = taught(&|n| format!("/var/lib/postgresql/data/base/5/{}_fsm", 1200 + n));
    assert_eq!(files, ["/var/lib/postgresql/data/base/5/<n>_fsm"]);
    // what is made of letters may be anything: a burst of it is no pattern
    assert!(taught(&|n| format!("/var/lib/php/sess_ab{n}cd{n}")).is_empty());
}

#[test]
fn seven_examples_or_one_slot_are_not_enough() {
    let (b, _) = taught((0..7).map(|n| write(&format!("/var/lib/php/sess_ab{n}cd{n}"))));
    assert!(patterns(&b).is_empty());
    let c = container("x", 0);
    let mut b = fresh(&c);
    for n in 0..12 {
        let kind = write(&format!("/var/lib/php/sess_ab{n:02}cd{n}"));
        observe(&mut b, &c, &see(&c, 0, &nginx(), kind));
    }
    assert!(
        patterns(&b).is_empty(),
        "all in one slot: {:?}",
        patterns(&b)
    );
}

#[test]
fn a_directory_becomes_a_pattern_only_with_many_children_and_below_the_first_level() {
    let name = |n: u64| {
        format!(
            "{}{}",
            (b'a' + (n / 26) as u8) as char,
            (b'a' + (n % 26) as u8) as char
        )
    };
    let (b, c) = taught((0..32).map(|n| write(&format!("/var/cache/app/{}", name(n)))));
    assert_eq!(patterns(&b), ["/var/cache/app/**"]);
    assert!(knows(&b, &c, write("/var/cache/app/deeper/x")));
    assert!(!knows(&b, &c, write("/var/cache/other/x")));
    let (b, _) = taught((0..40).map(|n| write(&format!("/data/{}", name(n)))));
    assert!(patterns(&b).is_empty());
}

#[test]
fn no_pattern_ever_covers_a_sensitive_path() {
    let (b, c) = taught((0..40).map(|n| {
        let (x, y) = (b'a' + n / 26, b'a' + n % 26);
        write(&format!("/home/bob/{}{}", x as char, y as char))
    }));
    assert_eq!(patterns(&b), ["/home/bob/**"]);
    assert!(knows(&b, &c, write("/home/bob/zz")));
    for path in [
        "/home/bob/.ssh/authorized_keys",
        "/home/bob/.bashrc",
        "/home/bob/../../etc/cron.d/x",
        "/home/bob/.aws/credentials",
    ] {
        assert!(!knows(&b, &c, write(path)), "{path}");
    }
    for dir in [
        "/root/x",
        "/etc/cron.d",
        "/run/secrets",
        "/usr/bin",
        "/etc/ssl/private",
    ] {
        let (b, _) = taught((0..64).map(|n| write(&format!("{dir}/f_{n:06}"))));
        assert!(patterns(&b).is_empty(), "{dir}: {:?}", patterns(&b));
    }
}

#[test]
fn programs_and_libraries_never_generalise() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    for n in 0..64 {
        let exe: &'static str = Box::leak(format!("/opt/x/job_{n}").into_boxed_str());
        observe(
            &mut b,
            &c,
            &see(&c, n * 2, &who(&[exe, "/bin/app"]), run(exe)),
        );
        let library = EventKind::Library {
            path: format!("/opt/x/lib_{n}.so").into(),
            origin: Origin::Image,
        };
        observe(&mut b, &c, &see(&c, n * 2, &nginx(), library));
    }
    assert!(patterns(&b).is_empty(), "{:?}", patterns(&b));
}

#[test]
fn a_network_needs_eight_of_its_addresses_and_the_same_port() {
    let (b, c) = taught((1..=8).map(|n| connect(&format!("10.1.2.{n}:6379"))));
    assert_eq!(patterns(&b), ["tcp 10.1.2.0/24:6379"]);
    assert!(knows(&b, &c, connect("10.1.2.200:6379")));
    assert!(!knows(&b, &c, connect("10.1.2.200:22")));
    assert!(!knows(&b, &c, connect("10.1.3.1:6379")));
    let (b, c) = taught((1..=8).map(|n| connect(&format!("[2001:db8::{n}]:443"))));
    assert!(knows(&b, &c, connect("[2001:db8::ffff]:443")));
    assert!(!knows(&b, &c, connect("[2001:db8:0:1::1]:443")));
    // the metadata service's neighbours are never one network
    let (b, _) = taught((1..=9).map(|n| connect(&format!("169.254.169.{n}:80"))));
    assert!(patterns(&b).is_empty());
}

#[test]
fn a_port_is_public_when_peers_of_several_networks_came() {
    let peers = (0..8).map(|n| accept(80, &format!("203.0.{n}.7:999")));
    let (b, c) = taught(peers);
    assert_eq!(patterns(&b), ["tcp :80 from any"]);
    assert!(knows(&b, &c, accept(80, "198.51.100.1:1")));
    assert!(!knows(&b, &c, accept(8080, "198.51.100.1:1")));
    // neighbours in one network make that network known, not the world
    let (b, c) = taught((1..=24).map(|n| accept(5432, &format!("10.0.0.{n}:999"))));
    assert!(knows(&b, &c, accept(5432, "10.0.0.99:1")));
    assert!(!knows(&b, &c, accept(5432, "10.9.0.1:1")));
}

#[test]
fn names_below_a_domain_of_ones_own_generalise_and_below_a_shared_one_do_not() {
    let ask = |name: String| {
        EventKind::Dns(plimsoll_model::event::Dns {
            response: false,
            name: name.into(),
            qtype: 1,
            rcode: 0,
            addresses: vec![],
            server: None,
        })
    };
    let hosts = |domain: &'static str| {
        (0..8u8).map(move |n| ask(format!("{}.{domain}", (b'a' + n) as char)))
    };
    let (b, c) = taught(hosts("db.example.com"));
    assert_eq!(patterns(&b), ["*.db.example.com"]);
    assert!(knows(&b, &c, ask("z.db.example.com".into())));
    assert!(!knows(&b, &c, ask("a.z.db.example.com".into())));
    for shared in ["s3.amazonaws.com", "ngrok.io", "co.uk", "com", "github.io"] {
        let (b, _) = taught(hosts(shared));
        assert!(patterns(&b).is_empty(), "{shared}");
    }
}

#[test]
fn arguments_generalise_at_one_place_but_never_for_what_runs_code() {
    let word = |n: u8| format!("job-{}", (b'a' + n) as char);
    let c = container("x", 0);
    let teach = |exe: &'static str| {
        let mut b = fresh(&c);
        for n in 0..8 {
            let kind = run_args(exe, &["--run", &word(n), "now"]);
            observe(
                &mut b,
                &c,
                &see(&c, 2 * n as u64, &who(&[exe, "/bin/app"]), kind),
            );
        }
        patterns(&b)
    };
    assert_eq!(teach("/opt/app/worker"), ["--run <any> now"]);
    assert!(teach("/bin/bash").is_empty());
    assert!(teach("/usr/bin/curl").is_empty());
}

#[test]
fn generalising_never_flatters_the_coverage() {
    let c = container("x", 0);
    let mut b = fresh(&c);
    let base = (0..7).map(|n| write(&format!("/var/lib/php/sess_ab{n}cd{n}")));
    teach(&mut b, &c, base);
    let before = b.coverage();
    observe(
        &mut b,
        &c,
        &see(&c, 99, &nginx(), write("/var/lib/php/sess_ab9cd9")),
    );
    let after = b.coverage();
    assert_eq!((before.seen, after.seen), (7, 1));
    assert!(after.incidences <= before.incidences + 1);
    assert!(after.incidences <= after.units);
}

#[test]
fn what_is_sensitive_is_sensitive_however_it_is_written() {
    for path in [
        "/etc/shadow",
        "/etc/./shadow",
        "//etc//shadow",
        "/tmp/../etc/shadow",
        "/home/x/.ssh/id_ed25519",
        "/proc/12/environ",
        "/proc/<pid>/mem",
        "/var/run/docker.sock",
        "/anywhere/docker.sock",
        "/etc/cron.daily/x",
        "/root/anything",
    ] {
        assert!(paths::never_generalise(path.as_bytes(), "read"), "{path}");
    }
    for path in [
        "/var/www/index.html",
        "/usr/lib/x.so",
        "/proc/12/stat",
        "/home/x/data",
    ] {
        assert!(!paths::never_generalise(path.as_bytes(), "read"), "{path}");
    }
}
