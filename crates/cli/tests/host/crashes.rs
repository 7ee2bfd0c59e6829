//! A whole agent is killed (SIGKILL) while it answers attacks on real containers: right after each
//! record of a plan has become durable, and some (seeded) milliseconds later. The story ends right
//! all the same, by the journal and by what the kernel and Docker say.

use crate::effects::Docked;
use crate::response::{prepare, receiver};
use crate::{Agent, alone, docker_socket, spawn};
use plimsoll_agent::respond::capture;
use plimsoll_evidence::{Filter, Reader};
use plimsoll_model::response::*;
use plimsoll_model::{Record, RecordKind};
use serde_json::Value;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// `{gone}`: removed in the end, without a person; the others stay, cut.
const POLICY: &str = r#"
version: 1
guards: {min_healthy: 1, at_most: {containers: 100, window: 10m}, rate: {plans: 1000, window: 1h}}
policies:
  - name: to its end
    match: {labels: {plimsoll-test: crash, end: gone}, risk: high}
    dry_run: false
    steps: [notify, {freeze: {budget: 4s}}, capture, thaw, isolate, kill-tree, remove]
  - name: kept
    match: {labels: {plimsoll-test: crash, end: kept}, risk: high}
    dry_run: false
    steps: [notify, {freeze: {budget: 4s}}, capture, thaw, isolate, kill-tree]
"#;

/// After which record of a container's story the agent is killed. The end of a step and the beginning
/// of the next are written together, so that one of both is enough.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    Alerted,
    Planned,
    Began(StepKind),
    Ended(StepKind),
}

/// One after the other from here on, then others, drawn by the seed, as long as [`FURTHER`] lasts. A slow
/// machine does not come to all of them, which is said.
const MOMENTS: [Moment; 10] = [
    Moment::Began(StepKind::Remove),
    Moment::Ended(StepKind::Freeze),
    Moment::Began(StepKind::Isolate),
    Moment::Began(StepKind::Capture),
    Moment::Began(StepKind::KillTree),
    Moment::Alerted,
    Moment::Began(StepKind::Thaw),
    Moment::Planned,
    Moment::Began(StepKind::Freeze),
    Moment::Ended(StepKind::Remove),
];
/// No further crash is begun after this, once there were so many.
const FURTHER: Duration = Duration::from_secs(30);
const ENOUGH: usize = 5;
/// Crashes at most.
const CRASHES_MAX: usize = 24;

/// Records of plans from a leaf on, each with its leaf.
fn records(agent: &Agent, from: u64) -> Vec<(u64, Record)> {
    let kinds = [
        RecordKind::Alert,
        RecordKind::Plan,
        RecordKind::Step,
        RecordKind::Delivery,
        RecordKind::PlanEnd,
    ];
    let filter = Filter {
        leaves: from..u64::MAX,
        kinds: kinds.iter().map(|k| *k as u16).collect(),
        ..Filter::default()
    };
    let reader = Reader::open(agent.dir.path().join("data/journal")).expect("the journal");
    let entries = reader.scan(filter).expect("a scan");
    entries
        .map(|e| e.expect("whole"))
        .filter_map(|e| {
            let bytes = e.payload.bytes()?;
            let record = Record::decode(e.header.kind, bytes).expect("a record");
            Some((e.leaf.0, record))
        })
        .collect()
}

/// What the journal says of one plan, each with its leaf.
#[derive(Debug, Default)]
struct Told {
    alert: Option<u64>,
    /// It is about the program that was put there, which a policy answers; others come before it.
    dropped: bool,
    /// The container's id.
    about: String,
    tried: Option<u64>,
    planned: Option<(u64, Plan)>,
    steps: Vec<(u64, StepRecord)>,
    end: Option<(u64, String)>,
}

impl Told {
    fn began(&self, kind: StepKind) -> Vec<u64> {
        let is = |s: &&(u64, StepRecord)| s.1.kind == kind && s.1.phase == StepPhase::Began;
        self.steps.iter().filter(is).map(|s| s.0).collect()
    }
    fn ended(&self, kind: StepKind) -> Option<(u64, &StepOutcome)> {
        self.steps
            .iter()
            .rev()
            .find_map(|(leaf, s)| match &s.phase {
                StepPhase::Ended(outcome) if s.kind == kind => Some((*leaf, outcome)),
                _ => None,
            })
    }
    fn sealed(&self) -> Option<(u64, &str)> {
        match self.ended(StepKind::Capture)? {
            (leaf, StepOutcome::Done { sealed, .. }) => Some((leaf, sealed.as_deref()?)),
            _ => None,
        }
    }
}

type Stories = BTreeMap<String, Told>;

/// By the digits that an alert and its plan share.
fn stories(records: &[(u64, Record)]) -> Stories {
    fn of<'a>(all: &'a mut Stories, id: &str) -> &'a mut Told {
        all.entry(id[2..].to_owned()).or_default()
    }
    let mut all = Stories::new();
    for (leaf, record) in records {
        match record {
            Record::Alert(a) => {
                let told = of(&mut all, a.id.as_str());
                told.alert.get_or_insert(*leaf);
                told.dropped |= a.output.to_string().contains(DROPPED);
                told.about = a
                    .instance
                    .as_ref()
                    .map(|i| i.id.to_string())
                    .unwrap_or_default();
            }
            Record::Delivery(d) => d.alerts.iter().for_each(|id| {
                of(&mut all, id.as_str()).tried.get_or_insert(*leaf);
            }),
            Record::Plan(p) => {
                let told = of(&mut all, &p.id);
                assert!(told.planned.is_none(), "{} is planned twice", p.id);
                told.planned = Some((*leaf, p.clone()));
            }
            Record::Step(s) => of(&mut all, &s.plan).steps.push((*leaf, s.clone())),
            Record::PlanEnd(e) => {
                let end = (*leaf, e.why.clone());
                of(&mut all, &e.plan).end.get_or_insert(end);
            }
            _ => {}
        }
    }
    all
}

// ---- the stage ----

/// Listens on a port for each container that talks; a connection of whose end it was not told holds up
/// no other.
const FAR: &str = "for p in $(seq 7000 7040); do \
    nc -ll -p $p -e sh -c \"cat >>/tmp/got-$p\" & done; wait";

/// Writes, and has an established connection on which it sends; another when that has ended.
fn works(to: &str, port: usize) -> String {
    let say = "while echo x; do sleep 0.1; done";
    format!(
        "(while :; do echo x >>/tmp/count; sleep 0.02; done) & \
         while :; do ({say}) | nc -w 2 {to} {port}; sleep 0.2; done"
    )
}

/// The container of a port; a port without an attacked container is the replica's.
fn place(docker: &str, far: &Docked, port: usize, end: &str) -> Docked {
    // few in number, and the process ends with them
    let name: &'static str = format!("crash-{port}").leak();
    let end = format!("end={end}");
    let label = if port == REPLICA {
        "replica=yes"
    } else {
        "plimsoll-test=crash"
    };
    let labels = format!(
        "--label {label} --label {end} --label com.docker.compose.service=crash --label com.docker.compose.project=crash"
    );
    let labels: Vec<&str> = labels.split(' ').collect();
    Docked::start(docker, name, &labels, &works(&far.address(), port))
}
const REPLICA: usize = 7040;

/// Its connection to a port, by the number at its own end.
fn connection(of: &Docked, port: usize) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{}/net/tcp", of.pid())).ok()?;
    let to = format!(":{port:04X}");
    let fields = text
        .lines()
        .map(|l| l.split_whitespace().collect::<Vec<_>>());
    let is = |f: &Vec<&str>| f.len() > 3 && f[2].ends_with(&to) && f[3] == "01";
    fields.filter(is).map(|f| f[1].to_owned()).next()
}

/// The program that was not in the image.
const DROPPED: &str = "/tmp/dropped";
/// Runs it; it goes on.
const ATTACK: &str = "cp /bin/busybox /tmp/dropped; ln -s dropped /tmp/sleep; exec /tmp/sleep 600";

/// xorshift: which moment is next, and how many milliseconds after it.
struct Dice(u64);
impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        for shift in [13, -7, 17] {
            self.0 ^= if shift > 0 {
                self.0 << shift
            } else {
                self.0 >> -shift
            };
        }
        self.0 % n
    }
}

fn kill(agent: &mut Agent) {
    agent.child.kill().expect("kill our own agent");
    agent.child.wait().expect("it ends");
}
fn start_again(agent: &mut Agent) {
    agent.child = spawn(agent.dir.path());
    agent.wait_for_answer("the agent answers again");
}

/// Whether a record of this container's story is there.
fn reached(stories: &Stories, id: &str, moment: Moment) -> bool {
    stories
        .values()
        .filter(|t| t.about == id)
        .any(|told| match moment {
            Moment::Alerted => told.dropped,
            Moment::Planned => told.planned.is_some(),
            Moment::Began(kind) => !told.began(kind).is_empty(),
            Moment::Ended(kind) => told.ended(kind).is_some(),
        })
}

// ---- the story ----

#[test]
fn no_crash_point_of_a_whole_agent_breaks_the_order() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let far = Docked::start(&docker, "crash-far", &[], FAR);
    let replica = place(&docker, &far, REPLICA, "kept");
    let (port, got) = receiver();
    let mut agent = Agent::start_in(prepare(&docker, port, POLICY), docker.clone());
    let seed = std::env::var("PLIMSOLL_SEED").ok();
    let seed = seed.and_then(|s| s.parse().ok()).unwrap_or(0x51ab_0006);
    println!("seed {seed} (PLIMSOLL_SEED)");
    let mut dice = Dice(seed);
    agent.wait_until("the replica talks", || {
        connection(&replica, REPLICA).is_some()
    });
    let before = (replica.pid(), connection(&replica, REPLICA));

    let began = Instant::now();
    let mut attacked = Vec::new();
    for n in 0..CRASHES_MAX {
        let further = n >= MOMENTS.len();
        if n >= ENOUGH && began.elapsed() > FURTHER {
            let left_out = MOMENTS.get(n..).unwrap_or_default();
            println!("left out, for the time it takes: {left_out:?}");
            break;
        }
        let drawn = || MOMENTS[dice.below(MOMENTS.len() as u64) as usize];
        let moment = MOMENTS.get(n).copied().unwrap_or_else(drawn);
        let gone = matches!(
            moment,
            Moment::Began(StepKind::Remove) | Moment::Ended(StepKind::Remove)
        );
        let end = if gone || n % 3 == 0 { "gone" } else { "kept" };
        let hit = place(&docker, &far, 7000 + n, end);
        attacked.push((hit.inspect("{{.Id}}"), end, hit));
        let (id, _, hit) = attacked.last().expect("just put there");
        let delay = Duration::from_millis(dice.below(if further { 200 } else { 25 }));
        crash(&mut agent, hit, id, moment, delay);
    }
    println!("{} crashes in {:?}", attacked.len(), began.elapsed());

    // and one that nothing disturbs, while the others are still being gone on with
    let port = 7000 + attacked.len();
    let whole = place(&docker, &far, port, "gone");
    attacked.push((whole.inspect("{{.Id}}"), "gone", whole));
    let (_, _, whole) = attacked.last().expect("just put there");
    whole.exec(ATTACK);
    // some thirty records, each durable before the next step, on a disk that may be another's too
    let end = Instant::now() + Duration::from_secs(360);
    while exists(&agent, whole) {
        assert!(
            Instant::now() < end,
            "{} was not removed in the end: {:#?}",
            whole.name,
            stories(&records(&agent, 0))
        );
        std::thread::sleep(Duration::from_millis(200));
    }

    let all = told_to_the_end(&agent, &attacked);
    for (digits, told) in &all {
        order_holds(&agent, digits, told, &got);
    }
    for (id, end, hit) in &attacked {
        let of: Vec<&Told> = all
            .values()
            .filter(|t| t.about == *id && t.planned.is_some())
            .collect();
        assert!(!of.is_empty(), "{} was attacked and has no plan", hit.name);
        ends_right(&agent, &far, (id, end, hit), &of);
    }
    given_back(&mut agent, &far, &attacked);
    let after = (replica.pid(), connection(&replica, REPLICA));
    assert_eq!(
        before, after,
        "the replica's process and its connection are the same"
    );
}

/// Attacks, kills the agent at the moment, and starts it again; where the container stands still, not
/// before the watchdog has let it go.
fn crash(agent: &mut Agent, hit: &Docked, id: &str, moment: Moment, delay: Duration) {
    let at = Instant::now();
    let reader = Reader::open(agent.dir.path().join("data/journal")).expect("the journal");
    let from = reader.end().expect("its end").0;
    hit.exec(ATTACK);
    let end = Instant::now() + Duration::from_secs(120);
    while !reached(&stories(&records(agent, from)), id, moment) {
        assert!(
            Instant::now() < end,
            "{}: timed out before {moment:?}",
            hit.name
        );
        std::thread::sleep(Duration::from_millis(2));
    }
    std::thread::sleep(delay);
    let reached = at.elapsed();
    kill(agent);
    if matches!(
        moment,
        Moment::Ended(StepKind::Freeze) | Moment::Began(StepKind::Capture)
    ) {
        // the killed one may have come to the container's end before the kill
        agent.wait_until("the watchdog has let it go", || {
            !exists(agent, hit) || hit.grows("/tmp/count")
        });
    }
    start_again(agent);
    let all = at.elapsed();
    println!(
        "{}: killed {delay:?} after {moment:?} ({reached:?}); there again after {all:?}",
        hit.name
    );
}

/// What the journal says once there is a plan about each (an agent looks at alerts from before its start
/// after a moment) and all have ended.
fn told_to_the_end(agent: &Agent, attacked: &[(String, &str, Docked)]) -> Stories {
    let mine = |t: &Told| attacked.iter().any(|(id, _, _)| *id == t.about);
    let mut all = Stories::new();
    agent.wait_until("every plan has ended", || {
        all = stories(&records(agent, 0));
        all.retain(|_, told| mine(told) && told.planned.is_some());
        let planned = |id: &String| all.values().any(|told| told.about == *id);
        let all_planned = attacked.iter().all(|(id, _, _)| planned(id));
        all_planned && all.values().all(|told| told.end.is_some())
    });
    all
}

/// What the order promises, by the journal alone.
fn order_holds(agent: &Agent, digits: &str, told: &Told, got: &Mutex<Vec<Value>>) {
    let alert = told.alert.expect("a plan is about an alert");
    let tried = told.tried.expect("a delivery was attempted");
    let (planned, plan) = told.planned.as_ref().expect("a plan");
    assert!(alert < tried && tried < *planned, "{digits}: {told:#?}");
    assert!(
        told.steps.iter().all(|(leaf, _)| leaf > planned),
        "{told:#?}"
    );
    let first = |kind| told.began(kind).first().copied();
    let begins: Vec<u64> = plan.steps.iter().filter_map(|s| first(s.kind)).collect();
    assert!(begins.is_sorted(), "{digits}: {told:#?}");
    for step in &plan.steps {
        let most = if step.kind.is_idempotent() { 3 } else { 1 };
        assert!(told.began(step.kind).len() <= most, "{digits}: {told:#?}");
    }
    if let Some(removing) = first(StepKind::Remove) {
        let (sealed, _) = told
            .sealed()
            .unwrap_or_else(|| panic!("{digits}: not sealed: {told:#?}"));
        assert!(sealed < removing, "{digits}: {told:#?}");
    }
    if let Some((_, bundle)) = told.sealed() {
        let bundle = agent.dir.path().join("data/captures").join(bundle);
        capture::verify_file(&bundle, None).expect("it verifies");
    }
    let id = format!("A-{digits}");
    let names = |m: &Value| m["alert"]["plimsoll"]["alert_id"] == id.as_str();
    // tries that failed meanwhile are repeated after up to five minutes
    let end = Instant::now() + Duration::from_secs(360);
    // what a storm stands for the journal says
    while !got.lock().expect("whole").iter().any(names) && !delivered(agent, &id) {
        let waiting = agent.plimsoll(&["notify", "list"]);
        assert!(
            Instant::now() < end,
            "{id} was not delivered: {waiting:?} {told:#?}"
        );
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn delivered(agent: &Agent, id: &str) -> bool {
    records(agent, 0).iter().any(|(_, r)| match r {
        Record::Delivery(d) => {
            // by itself or counted; the plan is told in a message of its own
            let own = d.message == id || d.message.starts_with("storm-");
            let of = own && d.alerts.iter().any(|a| a.as_str() == id);
            of && d.result == DeliveryResult::Delivered
        }
        _ => false,
    })
}

fn exists(agent: &Agent, hit: &Docked) -> bool {
    let all = agent.docker(&["ps", "-a", "--format", "{{.Names}}"]);
    all.lines().any(|l| l == hit.name)
}

/// What the kernel says of the container's freezers.
fn is_frozen(pid: u32) -> Vec<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
    let paths = text.lines().filter_map(|l| l.rsplit(':').next());
    let files = paths.flat_map(|path| {
        ["unified", "", "freezer"]
            .into_iter()
            .flat_map(move |mount| {
                ["cgroup.freeze", "freezer.state"]
                    .map(|f| format!("/sys/fs/cgroup/{mount}{path}/{f}"))
            })
    });
    let read = |file: String| Some(format!("{file} {}", std::fs::read_to_string(&file).ok()?));
    files.filter_map(read).collect()
}

/// What Docker and the kernel say of a container is what the journal says.
fn ends_right(agent: &Agent, far: &Docked, (id, end, hit): (&str, &str, &Docked), of: &[&Told]) {
    let began = |t: &&&Told| !t.began(StepKind::Remove).is_empty();
    let removing = of.iter().find(began);
    assert!(*end == *"gone" || removing.is_none(), "{id}");
    if !exists(agent, hit) {
        let told =
            removing.unwrap_or_else(|| panic!("{} is gone and no plan removed it", hit.name));
        let last = |(_, o): (u64, &StepOutcome)| {
            o.is_done() || matches!(o, StepOutcome::Interrupted { .. })
        };
        assert!(told.ended(StepKind::Remove).is_some_and(last), "{told:#?}");
        return;
    }
    let done = |t: &&Told| t.ended(StepKind::Remove).is_some_and(|(_, o)| o.is_done());
    assert!(!of.iter().any(done), "{} is there: {of:#?}", hit.name);
    let end = Instant::now() + Duration::from_secs(120);
    while !hit.grows("/tmp/count") {
        let state = hit.inspect("{{json .State}}");
        let frozen = is_frozen(hit.pid());
        assert!(
            Instant::now() < end,
            "{} stands still (frozen: {frozen:?}): {state} {of:#?}",
            hit.name
        );
    }
    let port = hit.name.trim_start_matches("crash-");
    if of.iter().any(|t| is_cut(t)) {
        assert!(
            !far.grows(&format!("/tmp/got-{port}")),
            "{} is cut: {of:#?}",
            hit.name
        );
    } else {
        agent.wait_until("it talks", || far.grows(&format!("/tmp/got-{port}")));
    }
}

fn is_cut(told: &Told) -> bool {
    let cut = told.ended(StepKind::Isolate);
    cut.is_some_and(|(_, o)| {
        o.is_done()
            || matches!(
                o,
                StepOutcome::Interrupted {
                    effect_found: Some(true)
                }
            )
    })
}

/// Undo connects those that are there again, also when the agent is killed while it undoes.
fn given_back(agent: &mut Agent, far: &Docked, attacked: &[(String, &str, Docked)]) {
    let there: Vec<_> = attacked
        .iter()
        .filter(|(_, _, hit)| exists(agent, hit))
        .collect();
    assert!(!there.is_empty(), "some are kept");
    // what a program that still runs there does next would be answered again
    let stop = ["plan", "stop", "--reason", "drill"];
    agent.plimsoll(&stop).expect("all automation is stopped");
    for (n, (id, _, hit)) in there.into_iter().enumerate() {
        let all = stories(&records(agent, 0));
        let mine = all
            .iter()
            .filter(|(_, t)| t.about == *id && t.planned.is_some());
        for (digits, _) in mine {
            let undo = ["plan", "undo", &format!("P-{digits}"), "--reason", "drill"];
            agent.plimsoll(&undo).expect("undone");
        }
        if n == 0 {
            kill(agent);
            start_again(agent);
        }
        let port = hit.name.trim_start_matches("crash-");
        println!("{}: taken back", hit.name);
        agent.wait_until("it talks again", || far.grows(&format!("/tmp/got-{port}")));
    }
}
