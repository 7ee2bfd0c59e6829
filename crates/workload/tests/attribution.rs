//! Identity under every delay: what waits, what is said when it comes too late, what stays known of
//! containers that have gone, and that no event is lost or told twice on the way.

use plimsoll_model::event::Exec;
use plimsoll_model::event::{Actor, ProcessInfo};
use plimsoll_model::ids::IN_SECOND_HIERARCHY;
use plimsoll_model::{
    BootNs, ClockAnchor, Container, ContainerId, ContainerState, Digest, Entry, Event, EventKind,
    GapScope, ImageRef, Observation, ProcessKey, Runtime, Text, WallNs,
};
use plimsoll_workload::scan::Seed;
use plimsoll_workload::{
    Attributor, AttributorConfig, CgroupIdentity, ContainersConfig, Evidence, Facts,
    FoundContainer, Met, Out, Scan, Verdict, classify,
};
use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

const MS: u64 = 1_000_000;
const A: &str = "9527ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24d";
const B: &str = "00ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24dab";
const ANCHOR: ClockAnchor = ClockAnchor {
    boot: BootNs(0),
    wall: WallNs(1_000_000_000_000),
    uncertainty_ns: 0,
    step_ns: 0,
};

/// What is on disk, to be changed while the test goes on.
#[derive(Clone, Default)]
struct Paper(Rc<RefCell<HashMap<String, Facts>>>, Cgroups, Paths);

/// Paths of cgroups that were not seen being made.
type Paths = Rc<RefCell<HashMap<u64, String>>>;

/// Ids of the cgroups that are there; `None`: that cannot be told.
type Cgroups = Rc<RefCell<Option<Vec<u64>>>>;

impl Paper {
    fn write(&self, id: &str, facts: Facts) {
        self.0.borrow_mut().insert(id.to_owned(), facts);
    }
}

impl Evidence for Paper {
    fn judge(&mut self, path: &str, _: BootNs) -> Verdict {
        let id = path.strip_prefix("/bare/");
        let id = id.and_then(|id| ContainerId::parse(id).ok());
        id.map_or(Verdict::Undecided, |id| {
            Verdict::Container(CgroupIdentity {
                runtime: Runtime::Oci,
                id,
                root: path.to_owned(),
                outer: None,
                pod_uid: None,
            })
        })
    }
    fn facts(&mut self, identity: &CgroupIdentity, _: BootNs) -> Result<Facts, String> {
        let known = self.0.borrow().get(identity.id.as_str()).cloned();
        known.ok_or_else(|| "nothing is on disk".to_owned())
    }
    fn process(&mut self, _: u32) -> Option<Seed> {
        None
    }
    fn cgroup_path(&mut self, cgroup_id: u64, _: u32) -> Option<String> {
        self.2.borrow().get(&cgroup_id).cloned()
    }
    fn is_there(&mut self, _: &str, cgroup_id: u64) -> Option<bool> {
        let there = self.1.borrow();
        there.as_ref().map(|ids| ids.contains(&cgroup_id))
    }
}

struct Desk {
    paper: Paper,
    attributor: Attributor<Paper>,
}

impl Desk {
    fn new(config: AttributorConfig) -> Self {
        let paper = Paper::default();
        let attributor = Attributor::new(config, paper.clone());
        Desk { paper, attributor }
    }
    fn take(&mut self, at: u64, event: Event) -> Vec<Out> {
        self.attributor.attribute(event, &ANCHOR, BootNs(at))
    }
    fn tick(&mut self, at: u64) -> Vec<Out> {
        self.attributor.tick(&ANCHOR, BootNs(at))
    }
}

fn digest(text: &str) -> Option<Digest> {
    Some(Digest::parse(text).unwrap())
}

fn whole(name: &str) -> Facts {
    Facts {
        runtime: Some(Runtime::Docker),
        name: name.to_owned(),
        image: ImageRef {
            name: "shop/web:1".to_owned(),
            config_digest: digest("sha256:0011"),
            ..ImageRef::default()
        },
        command: vec![Text::from("nginx")],
        ..Facts::default()
    }
}

/// A bundle of containerd: everything but the image's digest.
fn bundle() -> Facts {
    Facts {
        runtime: Some(Runtime::Containerd),
        command: vec![Text::from("nginx")],
        missing: "the image's digest is not on disk".to_owned(),
        stand_in: Some(ImageRef {
            name: "shop/web:1".to_owned(),
            config_digest: digest("ref:77"),
            ..ImageRef::default()
        }),
        ..Facts::default()
    }
}

fn event(at: u64, cgroup_id: u64, tgid: u32, kind: EventKind) -> Event {
    let key = ProcessKey {
        tgid,
        start: BootNs(at.min(100 * MS)),
    };
    Event {
        boot: BootNs(at),
        cgroup_id,
        process: ProcessInfo {
            key,
            entry: Entry::Init,
            ..ProcessInfo::default()
        },
        actor: Actor(0),
        ..Event::new(kind)
    }
}
fn made(at: u64, id: u64, path: &str) -> Event {
    let kind = EventKind::CgroupMkdir {
        id,
        parent: 1,
        path: path.into(),
    };
    event(at, id, 1, kind)
}
fn removed(at: u64, id: u64) -> Event {
    event(at, id, 1, EventKind::CgroupRmdir { id })
}
fn ran(at: u64, id: u64, first: bool) -> Event {
    let exec = Exec {
        exe: "/usr/sbin/nginx".into(),
        first,
        ..Exec::default()
    };
    event(at, id, 40, EventKind::Exec(exec))
}
fn did(at: u64, id: u64) -> Event {
    let name = Text::default();
    event(at, id, 40, EventKind::Memfd { name })
}

fn observation(out: &Out) -> Option<&Observation> {
    match out {
        Out::Observation(o) => Some(o),
        _ => None,
    }
}
fn container(out: &Out) -> Option<&Container> {
    match out {
        Out::Container(c) => Some(c),
        _ => None,
    }
}
fn observations(outs: &[Out]) -> Vec<&Observation> {
    outs.iter().filter_map(observation).collect()
}
fn last_container(outs: &[Out]) -> Option<&Container> {
    outs.iter().rev().find_map(container)
}
fn gaps(outs: &[Out]) -> usize {
    outs.iter().filter(|o| matches!(o, Out::Gap(_))).count()
}

fn docker(id: &str) -> String {
    format!("/docker/{id}")
}

#[test]
fn with_its_papers_on_disk_a_container_waits_for_nothing() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, whole("web"));
    let outs = desk.take(MS, made(MS, 7, &docker(A)));
    let c = last_container(&outs).unwrap();
    assert_eq!(
        (c.name.as_str(), c.state),
        ("web", ContainerState::Starting)
    );
    let outs = desk.take(2 * MS, ran(2 * MS, 7, true));
    assert_eq!(observations(&outs).len(), 1);
    assert_eq!(
        last_container(&outs).unwrap().state,
        ContainerState::Running
    );
    assert_eq!(desk.attributor.counters().pending, 0);
}

#[test]
fn what_waits_for_identity_is_let_go_in_its_order_when_the_papers_come() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.take(MS, made(MS, 7, &docker(A)));
    for at in [2, 3, 4] {
        let outs = desk.take(at * MS, did(at * MS, 7));
        assert!(observations(&outs).is_empty());
    }
    assert_eq!(desk.attributor.counters().pending, 3);
    desk.paper.write(A, whole("web"));
    let outs = desk.tick(60 * MS);
    let times: Vec<u64> = observations(&outs)
        .iter()
        .map(|o| o.event.boot.0 / MS)
        .collect();
    assert_eq!(times, [2, 3, 4]);
    assert!(
        observations(&outs)
            .iter()
            .all(|o| o.unknown_because.is_empty())
    );
    assert_eq!(gaps(&outs), 0);
    // the name comes before what its bearer did
    assert!(matches!(outs[0], Out::Container(_)));
    assert_eq!(desk.attributor.counters().pending, 0);
}

#[test]
fn after_two_seconds_it_is_unknown_because_and_a_gap_says_so_once() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.take(MS, made(MS, 7, &docker(A)));
    desk.take(2 * MS, did(2 * MS, 7));
    assert!(observations(&desk.tick(1_900 * MS)).is_empty());
    let outs = desk.tick(2_100 * MS);
    let seen = observations(&outs);
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].unknown_because, "nothing is on disk");
    assert!(
        seen[0].instance.is_some(),
        "which container is known, only not what it is"
    );
    assert_eq!(gaps(&outs), 1);
    let outs = desk.take(2_200 * MS, did(2_200 * MS, 7));
    assert_eq!((observations(&outs).len(), gaps(&outs)), (1, 0));
    assert_eq!(desk.attributor.counters().released_unknown, 1);
}

#[test]
fn a_container_that_waits_too_full_is_let_go_at_once() {
    let config = AttributorConfig {
        max_pending_per_container: 3,
        ..AttributorConfig::default()
    };
    let mut desk = Desk::new(config);
    desk.take(MS, made(MS, 7, &docker(A)));
    let outs: Vec<Out> = (2..7)
        .flat_map(|at| desk.take(at * MS, did(at * MS, 7)))
        .collect();
    assert_eq!(observations(&outs).len(), 5, "none is lost");
    assert_eq!(gaps(&outs), 1);
    assert_eq!(desk.attributor.counters().pending, 0);
}

#[test]
fn containerd_is_waited_for_and_its_digest_taken() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, bundle());
    let path = format!("/k8s.io/{A}");
    let outs = desk.take(MS, made(MS, 7, &path));
    let asked = outs.iter().find_map(|o| match o {
        Out::Ask(q) => Some(q.clone()),
        _ => None,
    });
    let asked = asked.expect("containerd is asked");
    assert_eq!(
        (asked.runtime, asked.cgroup_path),
        (Runtime::Containerd, path)
    );
    assert!(observations(&desk.take(2 * MS, ran(2 * MS, 7, true))).is_empty());
    let said = Facts {
        image: ImageRef {
            name: "docker.io/shop/web:1".to_owned(),
            config_digest: digest("sha256:0022"),
            ..ImageRef::default()
        },
        ..bundle()
    };
    let outs = desk.attributor.confirmed(&asked.instance, &said);
    assert_eq!(observations(&outs).len(), 1);
    let c = last_container(&outs).unwrap();
    assert_eq!(c.image.config_digest, digest("sha256:0022"));
    assert_eq!(c.image.name, "docker.io/shop/web:1");
    assert_eq!(c.unknown_because, "");
    // what a baseline is keyed on never changes again
    let other = Facts {
        image: whole("x").image,
        ..said
    };
    desk.attributor.confirmed(&asked.instance, &other);
    let c = desk.attributor.container(&asked.instance).unwrap();
    assert_eq!(c.image.config_digest, digest("sha256:0022"));
}

#[test]
fn a_stand_in_is_taken_when_nobody_tells_and_gives_way_to_a_late_answer() {
    for late in [false, true] {
        let mut desk = Desk::new(AttributorConfig::default());
        desk.paper.write(A, bundle());
        let outs = desk.take(MS, made(MS, 7, &format!("/k8s.io/{A}")));
        let instance = last_container(&outs).unwrap().instance.clone();
        desk.take(2 * MS, ran(2 * MS, 7, true));
        let outs = match late {
            false => desk
                .attributor
                .unanswered(&instance, "no socket was found", false),
            true => desk.tick(2_100 * MS),
        };
        let c = last_container(&outs).unwrap();
        assert_eq!(c.image.config_digest, digest("ref:77"));
        assert!(
            c.unknown_because.starts_with("the image's digest: "),
            "{}",
            c.unknown_because
        );
        assert_eq!(
            (observations(&outs).len(), gaps(&outs)),
            (1, 0),
            "it has a baseline"
        );
        let said = Facts {
            image: whole("x").image,
            ..bundle()
        };
        let outs = desk.attributor.confirmed(&instance, &said);
        let c = last_container(&outs).unwrap();
        assert_eq!(c.image.config_digest, digest("sha256:0011"));
        assert_eq!(c.unknown_because, "");
    }
}

/// Whether the last record of a container says that more may come.
fn awaited(outs: &[Out]) -> bool {
    last_container(outs).expect("a record says it").awaited
}

#[test]
fn a_containers_record_says_whether_more_may_come_to_be_known_of_it() {
    let of_crio = format!("/crio-{A}.scope");
    let made_at = |path: &str, facts: Facts| {
        let mut desk = Desk::new(AttributorConfig::default());
        desk.paper.write(A, facts);
        let outs = desk.take(MS, made(MS, 7, path));
        (desk, outs)
    };
    let made_with = |facts| made_at(&format!("/k8s.io/{A}"), facts);
    let labelled = || Facts {
        labels: [("env".to_owned(), "prod".to_owned())].into(),
        ..bundle()
    };
    // an answer is the last word, and told although it brings nothing new
    for said in [labelled(), bundle()] {
        let (mut desk, outs) = made_with(bundle());
        assert!(awaited(&outs));
        let instance = last_container(&outs).unwrap().instance.clone();
        let late = desk.attributor.unanswered(&instance, "3000 ms", true);
        assert!(awaited(&late), "it may answer yet");
        assert!(!awaited(&desk.attributor.confirmed(&instance, &said)));
    }
    // so is that there is nobody who could answer
    let (mut desk, outs) = made_with(bundle());
    let instance = last_container(&outs).unwrap().instance.clone();
    let outs = desk.attributor.unanswered(&instance, "no socket", false);
    assert!(!awaited(&outs));
    // an end does not keep it from coming
    let (mut desk, _) = made_with(bundle());
    assert!(awaited(&desk.take(2 * MS, removed(2 * MS, 7))));
    assert!(!awaited(&desk.attributor.confirmed(&instance, &labelled())));
    // where all is on disk (of Docker), or nobody can be asked, nothing is waited for
    let all = Facts {
        whole: true,
        ..whole("web")
    };
    assert!(!awaited(&made_with(all).1));
    let crio = Facts {
        runtime: Some(Runtime::Crio),
        ..bundle()
    };
    assert!(!awaited(&made_at(&of_crio, crio).1));
    // nor longer than observations wait, where nobody can be asked
    let mut desk = Desk::new(AttributorConfig::default());
    assert!(awaited(&desk.take(MS, made(MS, 7, &of_crio))));
    assert!(!awaited(&desk.tick(2_100 * MS)));
}

#[test]
fn an_answer_after_the_end_still_completes_the_tombstone() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, bundle());
    let outs = desk.take(MS, made(MS, 7, &format!("/k8s.io/{A}")));
    let instance = last_container(&outs).unwrap().instance.clone();
    desk.take(2 * MS, ran(2 * MS, 7, true));
    let outs = desk.take(3 * MS, removed(3 * MS, 7));
    assert_eq!(observations(&outs).len(), 1, "it waits no longer");
    let said = Facts {
        image: whole("x").image,
        ..bundle()
    };
    let outs = desk.attributor.confirmed(&instance, &said);
    let c = last_container(&outs).unwrap();
    assert_eq!(
        (c.state, &c.image.config_digest),
        (ContainerState::Gone, &digest("sha256:0011"))
    );
}

#[test]
fn a_container_whose_end_was_lost_has_gone_once_nothing_of_it_comes() {
    const SECOND: u64 = 1_000_000_000;
    let mut desk = Desk::new(AttributorConfig::default());
    let (one, other) = ("a".repeat(64), "b".repeat(64));
    for id in [&one, &other] {
        desk.paper.write(id, whole("web"));
    }
    let gone = |outs: &[Out]| -> Vec<String> {
        let all = outs.iter().filter_map(container);
        let gone = all.filter(|c| c.state == ContainerState::Gone);
        gone.map(|c| c.id().as_str().to_owned()).collect()
    };
    let there = desk.paper.1.clone();
    // nothing is found where paths say: that says nothing
    *there.borrow_mut() = Some(vec![]);
    desk.take(1, made(1, 7, &docker(&one)));
    desk.take(2, ran(2, 7, true));
    for at in [10, 20, 30] {
        assert!(gone(&desk.tick(at * SECOND)).is_empty());
    }
    *there.borrow_mut() = Some(vec![7, 8]);
    desk.take(40 * SECOND, made(40 * SECOND, 8, &docker(&other)));
    desk.take(40 * SECOND, ran(40 * SECOND, 8, true));
    assert!(gone(&desk.tick(41 * SECOND)).is_empty());
    // its last acts are still being read
    *there.borrow_mut() = Some(vec![8]);
    assert!(gone(&desk.tick(50 * SECOND)).is_empty(), "missed once");
    let late = desk.take(51 * SECOND, did(42 * SECOND, 7));
    assert_eq!(observations(&late).len(), 1);
    assert!(
        gone(&desk.tick(60 * SECOND)).is_empty(),
        "missed once since"
    );
    assert!(gone(&desk.tick(61 * SECOND)).is_empty(), "too soon");
    let ended = desk.tick(66 * SECOND);
    assert_eq!(gone(&ended), [one]);
    assert!(
        ended
            .iter()
            .any(|o| matches!(o, Out::Unwatch { cgroup_id: 7 }))
    );
    // what cannot be told ends nothing
    *there.borrow_mut() = None;
    for at in [80, 90, 100] {
        assert!(gone(&desk.tick(at * SECOND)).is_empty());
    }
    // told in time, as nearly always
    let told = desk.take(101 * SECOND, removed(101 * SECOND, 8));
    assert_eq!(gone(&told), [other]);
}

#[test]
fn a_restart_of_the_same_id_is_another_instance_and_the_first_stays_known() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, whole("web"));
    desk.take(MS, made(MS, 7, &docker(A)));
    desk.take(2 * MS, ran(2 * MS, 7, true));
    desk.take(3 * MS, removed(3 * MS, 7));
    desk.take(10 * MS, made(10 * MS, 8, &docker(A)));
    let outs = desk.take(11 * MS, ran(11 * MS, 8, true));
    let second = observations(&outs)[0].instance.clone().unwrap();
    assert_eq!(second.start, BootNs(10 * MS));
    let lives: Vec<(u64, ContainerState)> = desk
        .attributor
        .containers()
        .map(|c| (c.instance.start.0 / MS, c.state))
        .collect();
    assert!(lives.contains(&(1, ContainerState::Gone)));
    assert!(lives.contains(&(10, ContainerState::Running)));
}

#[test]
fn tombstones_end_by_age_and_by_number() {
    let config = AttributorConfig {
        containers: ContainersConfig {
            max_gone: 2,
            keep_gone_ns: 1000 * MS,
            ..ContainersConfig::default()
        },
        ..AttributorConfig::default()
    };
    let mut desk = Desk::new(config);
    for i in 0..3 {
        let at = (1 + i) * MS;
        desk.take(at, made(at, 7 + i, &docker(A)));
        desk.take(at, removed(at, 7 + i));
    }
    assert_eq!(desk.attributor.counters().container_tombstones, 2);
    desk.tick(500 * MS);
    assert_eq!(desk.attributor.counters().container_tombstones, 2);
    desk.tick(2_000 * MS);
    assert_eq!(desk.attributor.counters().container_tombstones, 0);
}

#[test]
fn a_runtime_that_fills_both_hierarchies_makes_one_container_in_either_order() {
    for first_in_second in [false, true] {
        let mut desk = Desk::new(AttributorConfig::default());
        desk.paper.write(A, whole("web"));
        let marked = 7 | IN_SECOND_HIERARCHY;
        let order = if first_in_second {
            [marked, 8]
        } else {
            [8, marked]
        };
        for (i, id) in order.into_iter().enumerate() {
            let at = (1 + i as u64) * MS;
            desk.take(at, made(at, id, &docker(A)));
        }
        assert_eq!(desk.attributor.counters().containers, 1);
        let root = desk.attributor.container_of_cgroup(8).unwrap();
        assert_eq!(root.cgroup_id, 8, "the first hierarchy has the word");
        for id in [8, marked] {
            assert_eq!(observations(&desk.take(5 * MS, did(5 * MS, id))).len(), 1);
        }
        // the second place goes first: nothing ends
        desk.take(6 * MS, removed(6 * MS, marked));
        assert_eq!(desk.attributor.counters().containers, 1);
        desk.take(7 * MS, removed(7 * MS, 8));
        assert_eq!(desk.attributor.counters().containers, 0);
    }
}

#[test]
fn after_a_restart_of_the_agent_a_running_container_keeps_its_instance() {
    let mut before = Desk::new(AttributorConfig::default());
    before.paper.write(A, whole("web"));
    before.take(MS, made(MS, 7, &docker(A)));
    let outs = before.take(2 * MS, ran(2 * MS, 7, true));
    let remembered = last_container(&outs).unwrap().clone();
    let gone = Container {
        instance: plimsoll_model::Instance {
            start: BootNs(5),
            ..remembered.instance.clone()
        },
        cgroup_id: 6,
        ..remembered.clone()
    };
    let mut after = Desk::new(AttributorConfig::default());
    after.paper.write(A, whole("web"));
    let found = FoundContainer {
        identity: classify(&docker(A)).unwrap(),
        cgroup_id: 7,
        first: ProcessKey {
            tgid: 40,
            start: BootNs(2 * MS),
        },
    };
    let scan = Scan {
        containers: vec![found],
        ..Scan::default()
    };
    let known = vec![remembered.clone(), gone.clone()];
    after
        .attributor
        .seed(scan, known, &ANCHOR, BootNs(900 * MS));
    let state = |c: &Container| after.attributor.container(&c.instance).unwrap().state;
    assert_eq!(state(&remembered), ContainerState::Running);
    assert_eq!(
        state(&gone),
        ContainerState::Gone,
        "its cgroup's number is another's now"
    );
    assert!(
        !after
            .attributor
            .container(&remembered.instance)
            .unwrap()
            .found_running
    );
}

/// A scan with the container and one program in it that nobody saw starting.
fn with_program(exe: &str, tgid: u32) -> Scan {
    let key = ProcessKey {
        tgid,
        start: BootNs(50 * MS),
    };
    let exec = Exec {
        exe: exe.into(),
        argv: vec![exe.into(), "--password=hunter2hunter2".into()],
        found: true,
        ..Exec::default()
    };
    let seed = Seed {
        key,
        exe: exe.into(),
        argv: exec.argv.clone(),
        cgroup_id: 7,
        entry: Entry::FoundRunning,
        program: Some(Box::new(exec)),
        ..Seed::default()
    };
    let found = FoundContainer {
        identity: classify(&docker(A)).unwrap(),
        cgroup_id: 7,
        first: key,
    };
    Scan {
        containers: vec![found],
        processes: vec![seed],
        ..Scan::default()
    }
}

#[test]
fn a_program_found_running_is_told_once_with_the_time_of_the_look_and_its_secrets_masked() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, whole("web"));
    desk.attributor = Attributor::new(AttributorConfig::default(), desk.paper.clone())
        .with_redactor(plimsoll_workload::Redactor::new([7; 32], false));
    let scan = with_program("/srv/app", 40);
    desk.attributor
        .seed(scan, vec![], &ANCHOR, BootNs(900 * MS));
    let outs = desk.tick(901 * MS);
    assert!(
        observations(&outs).is_empty(),
        "its exec may be in the rings"
    );
    let outs = desk.tick(2_000 * MS);
    let told = observations(&outs);
    let [o] = &told[..] else {
        panic!("one: {told:?}");
    };
    assert_eq!(o.event.trust, plimsoll_model::Trust::Proc);
    assert_eq!(
        (o.at.boot, o.event.process.key.start),
        (BootNs(900 * MS), BootNs(50 * MS))
    );
    assert_eq!(o.found_since(), Some(ANCHOR.stamp(BootNs(50 * MS)).wall));
    assert_eq!(o.lineage.len(), 1, "itself, once");
    assert!(o.lineage[0].from_proc);
    assert!(!o.redacted.is_empty() && !format!("{o:?}").contains("hunter2"));
    assert!(observations(&desk.tick(9_000 * MS)).is_empty());
}

#[test]
fn a_program_whose_exec_comes_after_all_is_not_told_as_found() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, whole("web"));
    let scan = with_program("/srv/app", 40);
    desk.attributor
        .seed(scan, vec![], &ANCHOR, BootNs(900 * MS));
    // the hooks were there before `/proc` was read
    let exec = Exec {
        exe: "/srv/app".into(),
        ..Exec::default()
    };
    let mut e = event(880 * MS, 7, 40, EventKind::Exec(exec));
    e.process.key.start = BootNs(50 * MS);
    assert_eq!(observations(&desk.take(950 * MS, e)).len(), 1);
    assert!(observations(&desk.tick(5_000 * MS)).is_empty());
}

fn met(outs: &[Out]) -> Vec<Met> {
    let met = outs.iter().filter_map(|o| match o {
        Out::Met(met) => Some(met.clone()),
        _ => None,
    });
    met.collect()
}

#[test]
fn what_ran_unseen_in_a_container_that_was_met_late_is_told_once() {
    for path in [docker(A), format!("/bare/{A}")] {
        let mut desk = Desk::new(AttributorConfig::default());
        desk.paper.write(A, whole("web"));
        desk.paper.2.borrow_mut().insert(7, path.clone());
        // its cgroup's beginning is lost, and so is the exec of the program that acts
        let outs = desk.take(100 * MS, did(100 * MS, 7));
        let met = met(&outs);
        let [met] = met.as_slice() else {
            panic!("{path}: {outs:?}");
        };
        assert_eq!(
            (met.identity.root.as_str(), met.cgroup_id),
            (path.as_str(), 7)
        );
        let c = last_container(&outs).unwrap();
        assert_eq!(
            (c.state, &c.instance),
            (ContainerState::Running, &met.instance)
        );
        assert!(c.found_running, "its first instructions were not observed");
        assert_eq!(observations(&outs).len(), 1);
        // three run: one that is not seen, one whose exec comes, and one that was followed
        let mut scan = with_program("/srv/app", 41);
        scan.containers[0].identity = met.identity.clone();
        for tgid in [42, 43] {
            let more = with_program("/srv/other", tgid).processes;
            scan.processes.extend(more);
        }
        scan.processes[2].program = None;
        let outs = desk.attributor.met(scan.clone(), &ANCHOR, BootNs(200 * MS));
        assert!(outs.is_empty(), "{outs:?}");
        let mut exec = ran(150 * MS, 7, false);
        exec.process.key = scan.processes[1].key;
        assert_eq!(observations(&desk.take(210 * MS, exec)).len(), 1);
        assert!(observations(&desk.tick(900 * MS)).is_empty());
        let outs = desk.tick(1_300 * MS);
        let told = observations(&outs);
        let [o] = told.as_slice() else {
            panic!("{path}: one: {told:?}");
        };
        assert_eq!(o.event.process.key.tgid, 41);
        assert_eq!(o.event.trust, plimsoll_model::Trust::Proc);
        assert!(o.found_since().is_some());
        assert!(observations(&desk.tick(9_000 * MS)).is_empty());
        // it is met once
        assert!(
            desk.take(9_100 * MS, did(9_100 * MS, 7))
                .iter()
                .all(|o| !matches!(o, Out::Met(_)))
        );
    }
}

#[test]
fn what_is_found_too_much_or_too_late_of_a_container_met_late_is_not_told() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, whole("web"));
    desk.paper.2.borrow_mut().insert(7, docker(A));
    desk.take(100 * MS, did(100 * MS, 7));
    let scan = Scan {
        truncated: true,
        ..with_program("/srv/app", 41)
    };
    let outs = desk.attributor.met(scan.clone(), &ANCHOR, BootNs(200 * MS));
    let [Out::Gap(gap)] = outs.as_slice() else {
        panic!("{outs:?}");
    };
    assert!(gap.count.is_none() && matches!(gap.scope, GapScope::Container(_)));
    // another container has that cgroup by now, or none
    let mut another = scan.clone();
    another.containers[0].identity = classify(&docker(B)).unwrap();
    for scan in [another, Scan::default()] {
        let outs = desk.attributor.met(scan, &ANCHOR, BootNs(200 * MS));
        assert!(outs.is_empty(), "{outs:?}");
    }
    desk.take(300 * MS, removed(300 * MS, 7));
    let outs = desk.attributor.met(scan, &ANCHOR, BootNs(310 * MS));
    assert!(outs.is_empty());
    assert!(observations(&desk.tick(9_000 * MS)).is_empty());
}

#[test]
fn programs_found_running_are_told_in_portions_and_what_was_left_out_is_a_gap() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, whole("web"));
    let mut scan = with_program("/srv/app", 40);
    for tgid in 41..700 {
        scan.processes
            .extend(with_program("/srv/app", tgid).processes);
    }
    scan.programs_left_out = 3;
    let outs = desk
        .attributor
        .seed(scan, vec![], &ANCHOR, BootNs(900 * MS));
    assert_eq!(gaps(&outs), 1);
    let told: Vec<usize> = (0..4)
        .map(|n| observations(&desk.tick((2_000 + n) * MS)).len())
        .collect();
    assert_eq!(told, [256, 256, 148, 0]);
}

/// What a step of the property test does.
#[derive(Clone, Debug)]
enum Step {
    Make(u64),
    Act(u64),
    Remove(u64),
    Papers(usize),
    Confirm(usize),
    Unanswered(usize),
    Wait(u64),
}

fn steps() -> impl proptest::strategy::Strategy<Value = Vec<Step>> {
    use proptest::prelude::*;
    let cgroup = prop_oneof![Just(7u64), Just(8), Just(7 | IN_SECOND_HIERARCHY), Just(9)];
    let step = prop_oneof![
        3 => cgroup.clone().prop_map(Step::Make),
        8 => cgroup.clone().prop_map(Step::Act),
        2 => cgroup.prop_map(Step::Remove),
        1 => (0..2usize).prop_map(Step::Papers),
        1 => (0..2usize).prop_map(Step::Confirm),
        1 => (0..2usize).prop_map(Step::Unanswered),
        2 => (1..3000u64).prop_map(Step::Wait),
    ];
    proptest::collection::vec(step, 1..60)
}

proptest::proptest! {
    /// Whatever comes in whatever order: each event of a known container comes out exactly once and,
    /// of one container, in its order; nothing waits for ever.
    #[test]
    fn no_event_is_lost_told_twice_or_reordered(steps in steps()) {
        let config = AttributorConfig { max_pending_per_container: 5, ..AttributorConfig::default() };
        let mut desk = Desk::new(config);
        let ids = [A, B];
        let path_of = |cgroup: u64| docker(if cgroup & 0xff == 9 { B } else { A });
        let (mut now, mut sent) = (MS, Vec::new());
        let mut outs = Vec::new();
        for step in steps {
            now += MS;
            match step {
                Step::Make(id) => outs.extend(desk.take(now, made(now, id, &path_of(id)))),
                Step::Remove(id) => outs.extend(desk.take(now, removed(now, id))),
                Step::Act(id) => {
                    let known = desk.attributor.container_of_cgroup(id).is_some();
                    if known { sent.push(now); }
                    let came = desk.take(now, did(now, id));
                    outs.extend(came);
                }
                Step::Papers(i) => desk.paper.write(ids[i], if i == 0 { whole("web") } else { bundle() }),
                Step::Confirm(i) | Step::Unanswered(i) => {
                    let live = desk.attributor.containers()
                        .find(|c| c.id().as_str() == ids[i] && c.state != ContainerState::Gone)
                        .map(|c| c.instance.clone());
                    let Some(instance) = live else { continue };
                    let came = match step {
                        Step::Confirm(_) => desk.attributor.confirmed(&instance, &whole("said")),
                        _ => desk.attributor.unanswered(&instance, "nobody", false),
                    };
                    outs.extend(came);
                }
                Step::Wait(ms) => { now += ms * MS; outs.extend(desk.tick(now)); }
            }
        }
        now += 3_000 * MS;
        outs.extend(desk.tick(now));
        proptest::prop_assert_eq!(desk.attributor.counters().pending, 0);
        let seen = observations(&outs);
        let mut times: Vec<u64> = seen.iter().map(|o| o.event.boot.0).collect();
        let mut last: HashMap<_, u64> = HashMap::new();
        for o in &seen {
            let before = last.insert(o.instance.clone(), o.event.boot.0);
            proptest::prop_assert!(before.is_none_or(|b| b < o.event.boot.0));
        }
        times.sort_unstable();
        proptest::prop_assert_eq!(times, sent);
    }
}

/// What cri-dockerd notes on a container of a pod.
fn of_pod(name: &str, uid: &str, more: &[(&str, &str)]) -> Facts {
    let mut facts = whole(name);
    let own = [
        ("io.kubernetes.pod.uid", uid),
        ("io.kubernetes.pod.name", "till-0"),
    ];
    let pairs = own.iter().chain(more);
    facts.labels = pairs
        .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
        .collect();
    facts
}

const SANDBOX: [(&str, &str); 4] = [
    ("io.kubernetes.docker.type", "podsandbox"),
    ("annotation.kubernetes.io/config.source", "api"),
    ("app", "till"),
    ("tier", "front"),
];

/// What the last record of the container with this id among these says of its pod.
fn pod_of(out: &[Out], id: &str) -> Option<plimsoll_model::PodFacts> {
    let mut records = out.iter().filter_map(|o| match o {
        Out::Container(c) if c.id().as_str() == id => Some(c.pod_facts.clone()),
        _ => None,
    });
    records.next_back().flatten()
}

fn docker_path(id: &str) -> String {
    format!("/docker/{id}")
}

#[test]
fn a_containers_record_has_its_pods_labels_from_the_start_where_the_sandbox_came_first() {
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(A, of_pod("pause", "u-1", &SANDBOX));
    let member = [
        ("io.kubernetes.sandbox.id", A),
        ("app", "the container's own"),
    ];
    desk.paper.write(B, of_pod("till", "u-1", &member));
    let out = desk.take(MS, made(MS, 10, &docker_path(A)));
    let own = pod_of(&out, A).expect("the sandbox is in its pod");
    assert_eq!(own.sandbox, A);
    let out = desk.take(2 * MS, made(2 * MS, 11, &docker_path(B)));
    let told = pod_of(&out, B).expect("the record has it at once");
    let labels = told.labels.expect("Docker tells labels");
    let pairs: Vec<(&str, &str)> = labels.iter().map(|(k, v)| (&k[..], &v[..])).collect();
    assert_eq!(
        pairs,
        [("app", "till"), ("tier", "front")],
        "the pod's, without the runtime's own"
    );
    let held = desk.attributor.containers().find(|c| c.id().as_str() == B);
    assert_eq!(
        held.and_then(|c| c.pod_facts.clone()).map(|p| p.sandbox),
        Some(A.to_owned())
    );
}

#[test]
fn a_sandbox_that_is_seen_after_its_containers_is_told_to_them_and_to_no_others() {
    const OTHER: &str = "11ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24dab";
    let mut desk = Desk::new(AttributorConfig::default());
    desk.paper.write(B, of_pod("till", "u-1", &[]));
    desk.paper.write(OTHER, of_pod("till", "u-2", &[]));
    let mut before = desk.take(MS, made(MS, 11, &docker_path(B)));
    before.extend(desk.take(MS, made(MS, 12, &docker_path(OTHER))));
    assert_eq!(pod_of(&before, B), None);
    desk.paper.write(A, of_pod("pause", "u-1", &SANDBOX));
    let out = desk.take(2 * MS, made(2 * MS, 10, &docker_path(A)));
    assert_eq!(pod_of(&out, B).map(|p| p.sandbox), Some(A.to_owned()));
    assert_eq!(pod_of(&out, OTHER), None);
    // what the sandbox told outlives it in the records, and is told to nobody new
    desk.take(3 * MS, removed(3 * MS, 10));
    let held = desk.attributor.containers().find(|c| c.id().as_str() == B);
    assert!(held.is_some_and(|c| c.pod_facts.is_some()));
}

#[test]
fn of_containerd_a_pods_labels_are_unknown_until_it_has_answered_and_of_crio_they_are_in_the_bundle()
 {
    let mut desk = Desk::new(AttributorConfig::default());
    let mut sandbox = of_pod(
        "pause",
        "u-1",
        &[("io.kubernetes.cri.container-type", "sandbox")],
    );
    sandbox.runtime = Some(Runtime::Containerd);
    desk.paper.write(A, sandbox.clone());
    let path = format!("/kubepods/burstable/podu-1/cri-containerd-{A}.scope");
    let out = desk.take(MS, made(MS, 10, &path));
    let told = pod_of(&out, A).expect("it is a sandbox");
    assert_eq!(told.labels, None, "annotations are no labels");
    let instance = desk
        .attributor
        .containers()
        .next()
        .expect("it is there")
        .instance
        .clone();
    let labels = [
        ("io.cri-containerd.kind", "sandbox"),
        ("io.containerd.image.config.stop-signal", "SIGTERM"),
        ("app", "till"),
    ];
    sandbox
        .labels
        .extend(labels.map(|(k, v)| (k.to_owned(), v.to_owned())));
    let out = desk.attributor.confirmed(&instance, &sandbox);
    let told = pod_of(&out, A)
        .and_then(|p| p.labels)
        .expect("now they are known");
    assert_eq!(told.get("app").map(String::as_str), Some("till"));
    assert_eq!(told.len(), 1, "{told:?}");
}

#[test]
fn a_container_of_which_something_changed_is_asked_about_again() {
    let mut desk = Desk::new(AttributorConfig::default());
    for (id, cgroup) in [(A, 50), (B, 60)] {
        desk.paper.write(id, whole("web"));
        desk.take(MS, made(MS, cgroup, &format!("/docker/{id}")));
    }
    let asked = |outs: Vec<Out>| -> Vec<String> {
        let id = |o: Out| match o {
            Out::Ask(q) => Some((q.instance.id.as_str().to_owned(), q.runtime)),
            _ => None,
        };
        let mut ids: Vec<_> = outs.into_iter().filter_map(id).collect();
        assert!(ids.iter().all(|(_, r)| *r == Runtime::Docker), "{ids:?}");
        ids.sort();
        ids.into_iter().map(|(id, _)| id).collect()
    };
    let id = |text: &str| plimsoll_model::ContainerId::parse(text).unwrap();
    assert_eq!(asked(desk.attributor.changed(&id(A))), [A]);
    assert_eq!(
        asked(desk.attributor.answers_again(Runtime::Docker)),
        [B, A]
    );
    assert!(asked(desk.attributor.answers_again(Runtime::Podman)).is_empty());
    desk.take(2 * MS, removed(2 * MS, 50));
    assert!(
        asked(desk.attributor.changed(&id(A))).is_empty(),
        "it has gone"
    );
    assert_eq!(asked(desk.attributor.answers_again(Runtime::Docker)), [B]);
}
