//! How far an attacker came and what stays of it: Q9, Q10, Q11, Q15. Each with a scene that shows
//! it, one that shows nothing, and one with a gap.

mod scene;

use plimsoll_ask::*;
use plimsoll_model::event::*;
use plimsoll_model::*;
use scene::*;

const ASKED: [Question; 4] = [Question::Q9, Question::Q10, Question::Q11, Question::Q15];

/// A pod whose shell reads its token and keys, asks for the cloud's role, breaks out through
/// `core_pattern` and the runtime's socket, and leaves a cron job, a key and a set-uid program.
fn breakout(world: &mut World) -> Container {
    world.agent("start", -100.0);
    let mut pod = container("pay", 'b', 0.0, '5');
    pod.pod = Some("pay-0".into());
    pod.namespace = Some("shop".into());
    pod.cgroup_path = "/kubepods/pay".into();
    pod.mounts = vec![
        "/var/run/secrets/kubernetes.io/serviceaccount".into(),
        "/var/run/docker.sock".into(),
        "/data".into(),
    ];
    world.container(&pod, 0.0);
    let app = process(10, 0.5, "/srv/app", &["/srv/app"], Entry::Init);
    let mut sh = process(20, 5.0, "/bin/sh", &["sh"], Entry::Init);
    sh.uid = 0;
    let exec_with = |p: &Ancestor, caps: u64, mode: u32| match exec(p, Origin::Image) {
        EventKind::Exec(e) => EventKind::Exec(Exec {
            caps,
            mode,
            euid: p.uid,
            ..e
        }),
        other => other,
    };
    let read = |path: &str| match file(FileOp::Read, path, 0) {
        EventKind::File(f) => EventKind::File(FileEvent {
            origin: Origin::Volume,
            ..f
        }),
        other => other,
    };
    world.act(&pod, 0.5, &app, exec_with(&app, 0, 0));
    world.act(&pod, 5.0, &sh, exec_with(&sh, 1 << 21, 0));
    world.act(
        &pod,
        6.0,
        &sh,
        read("/var/run/secrets/kubernetes.io/serviceaccount/token"),
    );
    world.act(&pod, 7.0, &sh, connect([10, 96, 0, 1], 6443));
    world.act(&pod, 8.0, &sh, connect([169, 254, 169, 254], 80));
    world.act(
        &pod,
        9.0,
        &sh,
        file(FileOp::Read, "/root/.aws/credentials", 0),
    );
    world.act(&pod, 9.5, &sh, file(FileOp::Failed, "/etc/shadow", 0));
    world.act(
        &pod,
        10.0,
        &sh,
        file(FileOp::Write, "/proc/sys/kernel/core_pattern", 0),
    );
    let docker = SockAddr::Unix("/var/run/docker.sock".into());
    let to_docker = Connection {
        proto: Proto::Unix,
        peer: docker,
        local: None,
        result: 0,
    };
    world.act(&pod, 11.0, &sh, EventKind::Connect(to_docker));
    let flags = 0x4000_0000;
    world.act(
        &pod,
        12.0,
        &sh,
        EventKind::Namespace {
            call: NamespaceCall::Setns,
            flags,
        },
    );
    let moved = sh.key;
    let path = "/kubepods/other".into();
    world.act(
        &pod,
        13.0,
        &sh,
        EventKind::CgroupAttach { to: 9, path, moved },
    );
    let gained = EventKind::Credentials {
        old_uid: 33,
        new_uid: 0,
        old_caps: 0,
        new_caps: 1 << 16,
    };
    world.act(&pod, 14.0, &sh, gained);
    world.act(&pod, 15.0, &sh, file(FileOp::Create, "/etc/cron.d/x", 0));
    world.act(
        &pod,
        16.0,
        &sh,
        file(FileOp::Write, "/root/.ssh/authorized_keys", 0),
    );
    world.act(&pod, 17.0, &sh, file(FileOp::Chmod, "/tmp/su", 0o4755));
    world.act(
        &pod,
        18.0,
        &sh,
        match file(FileOp::Create, "/data/x.php", 0) {
            EventKind::File(f) => EventKind::File(FileEvent {
                origin: Origin::Volume,
                ..f
            }),
            other => other,
        },
    );
    world.act(&pod, 19.0, &sh, file(FileOp::Unlink, "/etc/cron.d/x", 0));
    let miner = process(30, 20.0, "/tmp/m", &["/tmp/m"], Entry::Init);
    world.act(&pod, 20.0, &miner, exec(&miner, Origin::Upper));
    pod
}

fn quiet(world: &mut World) {
    world.agent("start", -100.0);
    let c = container("pay", 'b', 0.0, '5');
    world.container(&c, 0.0);
    let app = process(10, 0.5, "/srv/app", &["/srv/app"], Entry::Init);
    world.act(&c, 0.5, &app, exec(&app, Origin::Image));
    world.agent("config", 100.0);
}

#[test]
fn a_breakout_is_told_step_by_step() {
    let mut world = World::new();
    breakout(&mut world);
    let subject = Subject::Container("pay".into());
    check(
        "breakout.txt",
        &answers_to(&ASKED, &world, &NoBaselines, &subject, 100.0),
    );
}

#[test]
fn what_reaches_the_node_is_concluded_and_only_then() {
    let mut world = World::new();
    breakout(&mut world);
    let a = one(&world, Question::Q9, "pay");
    assert!(says(&a, "inferred", &["node has to be taken as reached"]));
    assert!(says(
        &a,
        "observed",
        &["left the container's cgroup", "/kubepods/other"]
    ));
    let mut world = World::new();
    quiet(&mut world);
    let a = one(&world, Question::Q9, "pay");
    assert!(!says(&a, "inferred", &["taken as reached"]));
    assert!(says(&a, "unknown", &["No step out", "not proof"]));
}

#[test]
fn what_was_tried_and_failed_is_no_step_that_reached_anything() {
    let mut world = World::new();
    quiet(&mut world);
    let c = container("pay", 'b', 0.0, '5');
    let sh = process(20, 5.0, "/bin/sh", &["sh"], Entry::Init);
    let mem = match file(FileOp::Write, "/dev/mem", 0) {
        EventKind::File(f) => EventKind::File(FileEvent { result: -13, ..f }),
        other => other,
    };
    world.act(&c, 6.0, &sh, mem);
    let a = one(&world, Question::Q9, "pay");
    assert!(says(&a, "observed", &["Tried, and failed", "/dev/mem"]));
    assert!(!says(&a, "inferred", &["taken as reached"]));
    assert!(says(&a, "inferred", &["none of them shows by itself"]));
}

#[test]
fn the_runtime_that_sets_a_container_up_does_not_escape_from_it() {
    let mut world = World::new();
    quiet(&mut world);
    let c = container("pay", 'b', 0.0, '5');
    let flags = 0x0002_0000;
    let unshare = || EventKind::Namespace {
        call: NamespaceCall::Unshare,
        flags,
    };
    let runc = process(5, 0.1, "/usr/bin/runc", &["runc", "init"], Entry::Init);
    world.act(&c, 0.2, &runc, unshare());
    let a = one(&world, Question::Q9, "pay");
    assert!(!says(&a, "observed", &["Namespaces were changed"]));
    assert!(says(&a, "inferred", &["Left out: 1 act"]));
    // whoever calls itself runc, from the container's own layer
    let mut fake = process(6, 1.0, "/tmp/runc", &["runc"], Entry::Init);
    fake.facts = Some(ExecFacts {
        origin: Origin::Upper,
        ..Default::default()
    });
    world.act(&c, 1.1, &fake, unshare());
    let a = one(&world, Question::Q9, "pay");
    assert!(says(
        &a,
        "observed",
        &["Namespaces were changed", "mount namespace"]
    ));
}

#[test]
fn a_connection_after_a_token_was_read_may_have_used_it() {
    let mut world = World::new();
    breakout(&mut world);
    let a = one(&world, Question::Q10, "pay");
    assert!(says(
        &a,
        "inferred",
        &["serviceaccount/token", "10.96.0.1:6443", "may have used"]
    ));
    assert!(says(&a, "observed", &["cap_sys_admin", "uid 0"]));
    assert!(says(
        &a,
        "unknown",
        &["no source for the service account's name and rights"]
    ));
}

#[test]
fn secrets_that_could_be_read_and_were_read_are_two_things() {
    let mut world = World::new();
    breakout(&mut world);
    let a = one(&world, Question::Q11, "pay");
    assert!(says(&a, "observed", &["It could read", "serviceaccount"]));
    assert!(says(
        &a,
        "observed",
        &["Credentials read", "/root/.aws/credentials"]
    ));
    assert!(says(
        &a,
        "observed",
        &["metadata service", "169.254.169.254"]
    ));
    assert!(says(&a, "observed", &["Tried, and failed", "/etc/shadow"]));
    assert!(!says(&a, "observed", &["Credentials read", "/etc/shadow"]));
}

#[test]
fn what_was_left_is_told_with_what_became_of_it() {
    let mut world = World::new();
    let mut pod = breakout(&mut world);
    let a = one(&world, Question::Q15, "pay");
    assert!(says(&a, "observed", &["started from", "/etc/cron.d/x"]));
    assert!(says(&a, "observed", &["Gone again", "/etc/cron.d/x"]));
    assert!(says(
        &a,
        "observed",
        &["outlives the container", "/data/x.php"]
    ));
    assert!(says(&a, "inferred", &["may run still", "/tmp/m"]));
    world.gone(&mut pod, 60.0);
    let a = one(&world, Question::Q15, "pay");
    assert!(
        !says(&a, "inferred", &["may run still"]),
        "it ended with its container"
    );
}

#[test]
fn of_a_quiet_container_each_says_what_was_looked_at_and_that_it_is_no_proof() {
    let mut world = World::new();
    quiet(&mut world);
    for question in ASKED {
        let a = one(&world, question, "pay");
        assert!(says(&a, "unknown", &["not proof"]), "{question}");
        assert!(says(&a, "unknown", &["no source for"]), "{question}");
        assert!(a.completeness.records_read > 0, "{question}");
    }
}

#[test]
fn a_gap_stands_beside_each_answer() {
    let mut world = World::new();
    let pod = breakout(&mut world);
    world.gap(Some(&pod), Stage::AlertRing, 7.0, 9.0, Some(3), "quota");
    for question in ASKED {
        let a = one(&world, question, "pay");
        assert_eq!(a.completeness.level, "partial", "{question}");
        assert_eq!(a.completeness.lost_at_least, 3, "{question}");
    }
}

/// A container with the node's files and its runtime's socket mounted under other names.
fn mounted(world: &mut World) -> Container {
    world.agent("start", -100.0);
    let mut tool = container("tool", 'c', 0.0, '6');
    let mount = |source: &str, destination: &str, writable| MountPoint {
        source: source.into(),
        destination: destination.into(),
        writable,
        propagation: "rprivate".into(),
        ..MountPoint::default()
    };
    let pod = "/var/lib/kubelet/pods/1-2/volumes/kubernetes.io~secret/db-password";
    tool.mount_points = Some(vec![
        mount("/", "/mnt/n", true),
        mount("/run/containerd/containerd.sock", "/tmp/c", true),
        mount("/srv/shop", "/data", false),
        mount(pod, "/secret", false),
        mount("cache", "/cache", true),
    ]);
    world.container(&tool, 0.0);
    tool
}

#[test]
fn what_is_done_through_a_mount_is_told_as_what_it_is_on_the_node() {
    let mut world = World::new();
    let tool = mounted(&mut world);
    let sh = process(20, 5.0, "/bin/sh", &["sh"], Entry::Init);
    world.act(
        &tool,
        6.0,
        &sh,
        file(FileOp::Write, "/mnt/n/etc/cron.d/x", 0),
    );
    world.act(
        &tool,
        7.0,
        &sh,
        file(FileOp::Read, "/mnt/n/root/.aws/credentials", 0),
    );
    world.act(&tool, 8.0, &sh, file(FileOp::Read, "/data/a", 0));
    let socket = Connection {
        proto: Proto::Unix,
        peer: SockAddr::Unix("/tmp/c".into()),
        local: None,
        result: 0,
    };
    world.act(&tool, 9.0, &sh, EventKind::Connect(socket));
    let a = one(&world, Question::Q9, "tool");
    assert!(says(
        &a,
        "observed",
        &[
            "Files of the node were changed",
            "on the node /etc/cron.d/x"
        ]
    ));
    assert!(says(
        &a,
        "observed",
        &["runtime's socket was used", "/tmp/c"]
    ));
    assert!(says(
        &a,
        "observed",
        &[
            "socket of a container runtime",
            "/run/containerd/containerd.sock at /tmp/c"
        ]
    ));
    assert!(says(
        &a,
        "observed",
        &["the node itself obeys", "/ at /mnt/n (writable)"]
    ));
    assert!(says(
        &a,
        "observed",
        &["others may share", "/srv/shop at /data (read-only)"]
    ));
    assert!(says(&a, "inferred", &["node has to be taken as reached"]));
    let all = |a: &plimsoll_api::Answer| {
        a.statements
            .iter()
            .map(|s| s.text.clone())
            .collect::<String>()
    };
    assert!(!all(&a).contains("/data/a"), "data is no step: {}", all(&a));
    let a = one(&world, Question::Q11, "tool");
    assert!(says(
        &a,
        "observed",
        &["Credentials read", "on the node /root/.aws/credentials"]
    ));
    assert!(says(
        &a,
        "observed",
        &["secret objects", "db-password at /secret"]
    ));
    assert!(says(&a, "observed", &["node keeps secret", "/ at /mnt/n"]));
}

#[test]
fn volumes_of_its_own_are_no_way_out() {
    let mut world = World::new();
    let mut tool = mounted(&mut world);
    tool.mount_points
        .as_mut()
        .unwrap()
        .retain(|m| m.source == "cache");
    world.container(&tool, 1.0);
    let sh = process(20, 5.0, "/bin/sh", &["sh"], Entry::Init);
    world.act(
        &tool,
        6.0,
        &sh,
        file(FileOp::Write, "/cache/etc/cron.d/x", 0),
    );
    let a = one(&world, Question::Q9, "tool");
    assert!(says(
        &a,
        "observed",
        &["told of no mount of the node's own files"]
    ));
    assert!(!says(&a, "inferred", &["node has to be taken as reached"]));
}
