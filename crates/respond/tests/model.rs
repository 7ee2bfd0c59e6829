//! Every interleaving of a plan with deliveries, time, persons, failures and crashes: the order of
//! things holds in all of them. The driver here does what the agent's engine does, split into its
//! smallest steps, and a crash may come between any two.

use plimsoll_model::record::Decision;
use plimsoll_model::response::*;
use plimsoll_model::{AlertId, Stamp, WallNs};
use plimsoll_respond::order::{Fact, Next, Order, decisions};
use stateright::{Checker, Model, Property};
use std::hash::{Hash, Hasher};

const MS: i64 = 1_000_000;
/// Moments that differ for the order: before and after the wait for a delivery, after a step's
/// timeout, after approvals have lapsed.
const MOMENTS: [i64; 4] = [0, 600 * MS, 120_000 * MS, 10_000_000 * MS];
/// Kinds with the approvals that each needs. Between them: every class, and within it what may be done
/// twice and what may not, what can be taken back and what cannot. The last one destroys.
type Steps = [(StepKind, u32); 4];
const CAPTURE_AND_CUT: Steps = [
    (StepKind::Capture, 0),
    (StepKind::Isolate, 0),
    (StepKind::KillTree, 1),
    (StepKind::Remove, 2),
];
const FREEZE_AND_BLOCK: Steps = [
    (StepKind::Freeze, 0),
    (StepKind::Capture, 0),
    (StepKind::BlockProgram, 1),
    (StepKind::Stop, 0),
];
const TELL_AND_PAUSE: Steps = [
    (StepKind::Notify, 0),
    (StepKind::Capture, 0),
    (StepKind::Pause, 2),
    (StepKind::Stop, 1),
];
const ALL: [Steps; 3] = [CAPTURE_AND_CUT, FREEZE_AND_BLOCK, TELL_AND_PAUSE];

/// A journalled fact, small enough to be hashed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Entry {
    Alerted,
    Attempted,
    Planned(i64),
    Began(u8, i64),
    Ended(u8, End),
    UndoBegan(u8, i64),
    UndoEnded(u8, bool),
    Said(&'static str, u32, i64),
    Over,
}
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum End {
    Done,
    Failed,
    TimedOut,
    Skipped,
    Looked,
}

#[derive(Clone, Debug)]
struct World {
    /// What is durable. Two worlds with equal folds are the same world.
    journal: Vec<Entry>,
    /// Its fold, as the driver holds it in memory.
    order: Order,
    /// What this run of the agent does now: step, whether it takes it back, whether it has acted.
    acting: Option<(u8, bool, bool)>,
    moment: usize,
    halted: bool,
    crashes: u8,
    /// Ghosts: what really happened, whatever the journal says.
    alert_durable: bool,
    delivery_ended: bool,
    sealed: bool,
    waived: bool,
    acted: [u8; 4],
    broken: Option<&'static str>,
}

impl World {
    /// Everything on which anything later can depend.
    fn key(&self) -> impl PartialEq + Hash + '_ {
        let mut said: Vec<&Entry> = self.journal.iter().filter(|e| is_said(e)).collect();
        said.sort();
        let is = |e: &Entry| self.journal.contains(e);
        let planned = self.journal.iter().find(|e| matches!(e, Entry::Planned(_)));
        let order = (said, is(&Entry::Attempted), is(&Entry::Over), planned);
        let ghosts = (
            self.alert_durable,
            self.delivery_ended,
            self.sealed,
            self.waived,
        );
        let driver = (self.acting, self.moment, self.halted, self.crashes);
        (
            order,
            self.order.steps(),
            ghosts,
            driver,
            self.acted,
            self.broken,
        )
    }
    fn write(&mut self, model: &Response, entry: Entry) {
        self.order.apply(&model.fact(&entry));
        self.journal.push(entry);
    }
}
impl PartialEq for World {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}
impl Hash for World {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}
fn is_said(entry: &Entry) -> bool {
    matches!(entry, Entry::Said(..))
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Move {
    AlertDurable,
    DeliveryEnds,
    Tick,
    Drive,
    Act,
    Finish(bool),
    Say(&'static str, u32),
    Halt(bool),
    Crash,
}

struct Response {
    steps: Steps,
    crashes: u8,
    persons: bool,
    dry_run: bool,
}

fn stamp(wall: i64) -> Stamp {
    Stamp {
        wall: WallNs(wall),
        ..Stamp::default()
    }
}

fn plan(steps: &Steps, at: i64, dry_run: bool) -> Plan {
    let step = |&(kind, approvals): &(StepKind, u32)| Step {
        kind,
        parameters: vec![],
        approvals,
        timeout_ms: 60_000,
        on_failure: OnFailure::Continue,
        effect: String::new(),
    };
    Plan {
        id: "P-1".into(),
        alert: AlertId::parse("A-1").unwrap(),
        alert_record: None,
        at: stamp(at),
        instance: None,
        container: "web".into(),
        policy: "p".into(),
        policy_digest: String::new(),
        dry_run,
        reasons: vec![],
        steps: steps.iter().map(step).collect(),
        blast_radius: vec![],
        held: vec![],
        approval_ms: 3_600_000,
        two_person: false,
        service: None,
        pid: None,
        pid_start: None,
    }
}

impl Response {
    fn fact(&self, entry: &Entry) -> Fact {
        let record = |step: u8, at, phase| {
            Fact::Step(StepRecord {
                plan: "P-1".into(),
                step: step.into(),
                kind: self.steps[usize::from(step)].0,
                attempt: 1,
                at: stamp(at),
                phase,
            })
        };
        let done = |step: u8| StepOutcome::Done {
            effect: String::new(),
            sealed: (self.steps[usize::from(step)].0 == StepKind::Capture).then(|| "b".into()),
            undo: vec![],
        };
        let failed = || StepOutcome::Failed { why: "x".into() };
        match *entry {
            Entry::Alerted => Fact::Alerted(WallNs(0)),
            Entry::Attempted => Fact::Attempted,
            Entry::Planned(at) => Fact::Planned(plan(&self.steps, at, self.dry_run)),
            Entry::Began(i, at) => record(i, at, StepPhase::Began),
            Entry::UndoBegan(i, at) => record(i, at, StepPhase::UndoBegan),
            Entry::UndoEnded(i, ok) => {
                let outcome = if ok { done(i) } else { failed() };
                record(i, 0, StepPhase::UndoEnded(outcome))
            }
            Entry::Ended(i, end) => {
                let outcome = match end {
                    End::Done => done(i),
                    End::Failed => failed(),
                    End::TimedOut => StepOutcome::TimedOut,
                    End::Skipped => StepOutcome::Skipped { why: "x".into() },
                    End::Looked => StepOutcome::Interrupted { effect_found: None },
                };
                record(i, 0, StepPhase::Ended(outcome))
            }
            Entry::Said(action, uid, at) => Fact::Decided(Decision {
                at: stamp(at),
                action: action.into(),
                subject: "P-1".into(),
                reason: "r".into(),
                uid,
                login_uid: u32::MAX,
                method: "socket".into(),
            }),
            Entry::Over => Fact::Ended(PlanEnd {
                plan: "P-1".into(),
                at: stamp(0),
                why: "over".into(),
            }),
        }
    }

    /// What a fresh start makes of the journal alone.
    fn fold(&self, journal: &[Entry]) -> Order {
        let mut order = Order::new(AlertId::parse("A-1").unwrap());
        journal.iter().for_each(|e| order.apply(&self.fact(e)));
        order.restarted();
        order
    }

    fn drive(&self, w: &mut World) -> bool {
        let now = MOMENTS[w.moment];
        match w.order.next(WallNs(now), w.halted) {
            Next::Nothing
            | Next::Wait(_)
            | Next::Approvals { .. }
            | Next::Waiver { .. }
            | Next::Halted => return false,
            Next::NoteAttempt => w.write(self, Entry::Attempted),
            Next::Plan => w.write(self, Entry::Planned(now)),
            Next::Begin(i) => {
                w.write(self, Entry::Began(i as u8, now));
                w.acting = Some((i as u8, false, false));
            }
            Next::BeginUndo(i) => {
                w.write(self, Entry::UndoBegan(i as u8, now));
                w.acting = Some((i as u8, true, false));
            }
            Next::Look(i) => w.write(self, Entry::Ended(i as u8, End::Looked)),
            Next::Skip(i, _) => w.write(self, Entry::Ended(i as u8, End::Skipped)),
            Next::TimeOut(i) => w.write(self, Entry::Ended(i as u8, End::TimedOut)),
            Next::End(_) => w.write(self, Entry::Over),
        }
        true
    }

    /// The effect happens: here, and only here, the promises are checked against what is so.
    fn act(&self, w: &mut World) {
        let Some((i, undo, _)) = w.acting else { return };
        w.acting = Some((i, undo, true));
        let kind = self.steps[usize::from(i)].0;
        let attempted = w.delivery_ended || MOMENTS[w.moment] >= 500 * MS;
        if !w.alert_durable || !attempted {
            w.broken = Some("acted before the alert was durable and a delivery attempted");
        }
        if self.dry_run {
            w.broken = Some("acted in a dry run");
        }
        if undo {
            return;
        }
        w.acted[usize::from(i)] += 1;
        if kind.class() == StepClass::Destroy && !w.sealed && !w.waived {
            w.broken = Some("destroyed before a capture was sealed or that was waived");
        }
        if !kind.is_idempotent() && w.acted[usize::from(i)] > 1 {
            w.broken = Some("a step that is not idempotent was done twice");
        }
        let said = |e: &&Entry| matches!(e, Entry::Said(decisions::APPROVE, ..));
        let voices = w.journal.iter().filter(said).count() as u32;
        if voices < self.steps[usize::from(i)].1 {
            w.broken = Some("acted without its approvals");
        }
    }
}

impl Model for Response {
    type State = World;
    type Action = Move;

    fn init_states(&self) -> Vec<World> {
        vec![World {
            journal: vec![],
            order: Order::new(AlertId::parse("A-1").unwrap()),
            acting: None,
            moment: 0,
            halted: false,
            crashes: 0,
            alert_durable: false,
            delivery_ended: false,
            sealed: false,
            waived: false,
            acted: [0; 4],
            broken: None,
        }]
    }

    fn actions(&self, w: &World, moves: &mut Vec<Move>) {
        if !w.alert_durable {
            return moves.push(Move::AlertDurable);
        }
        if !w.delivery_ended {
            moves.push(Move::DeliveryEnds);
        }
        if w.moment + 1 < MOMENTS.len() {
            moves.push(Move::Tick);
        }
        if w.acting.is_none_or(|(_, _, acted)| acted) {
            moves.push(Move::Drive);
        }
        match w.acting {
            Some((_, _, false)) => moves.push(Move::Act),
            Some((_, _, true)) => moves.extend([Move::Finish(true), Move::Finish(false)]),
            None => {}
        }
        let planned = w.journal.iter().any(|e| matches!(e, Entry::Planned(_)));
        let said = |action, uid| {
            let is = |e: &Entry| matches!(e, Entry::Said(a, u, _) if *a == action && *u == uid);
            w.journal.iter().any(is)
        };
        if planned {
            let persons = [(decisions::APPROVE, 1), (decisions::APPROVE, 2)];
            let others = [
                (decisions::WAIVE, 1),
                (decisions::DENY, 1),
                (decisions::UNDO, 1),
            ];
            let others = others.iter().filter(|_| self.persons);
            for &(action, uid) in persons.iter().chain(others) {
                if !said(action, uid) {
                    moves.push(Move::Say(action, uid));
                }
            }
            if self.persons && !w.halted && w.moment == 1 {
                moves.push(Move::Halt(true));
            }
        }
        if w.halted {
            moves.push(Move::Halt(false));
        }
        if w.crashes < self.crashes {
            moves.push(Move::Crash);
        }
    }

    fn next_state(&self, before: &World, action: Move) -> Option<World> {
        let mut w = before.clone();
        match action {
            Move::AlertDurable => {
                w.alert_durable = true;
                w.write(self, Entry::Alerted);
            }
            Move::DeliveryEnds => {
                w.delivery_ended = true;
                w.write(self, Entry::Attempted);
            }
            Move::Tick => w.moment += 1,
            Move::Drive if !self.drive(&mut w) => return None,
            Move::Drive => {}
            Move::Act => self.act(&mut w),
            Move::Finish(ok) => {
                let (i, undo, _) = w.acting.take()?;
                if undo {
                    w.write(self, Entry::UndoEnded(i, ok));
                } else {
                    // sealed is what the disk says: before the journal says it
                    w.sealed |= ok && self.steps[usize::from(i)].0 == StepKind::Capture;
                    let end = if ok { End::Done } else { End::Failed };
                    w.write(self, Entry::Ended(i, end));
                }
            }
            Move::Say(action, uid) => {
                w.waived |= action == decisions::WAIVE;
                let at = MOMENTS[w.moment];
                w.write(self, Entry::Said(action, uid, at));
            }
            Move::Halt(on) => w.halted = on,
            Move::Crash => {
                w.crashes += 1;
                w.acting = None;
                w.order.restarted();
                if w.order != self.fold(&w.journal) {
                    w.broken = Some("the journal alone does not give the same order");
                }
            }
        }
        Some(w)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("the order holds", |_, w: &World| w.broken.is_none()),
            Property::sometimes("destruction is reached", |m: &Self, w: &World| {
                w.acted[3] > 0 || m.dry_run
            }),
            Property::sometimes("an end is reached", |_, w: &World| {
                w.journal.contains(&Entry::Over)
            }),
            Property::sometimes("a step is taken back", |m: &Self, w: &World| {
                !m.persons
                    || m.dry_run
                    || w.journal
                        .iter()
                        .any(|e| matches!(e, Entry::UndoEnded(_, true)))
            }),
            Property::sometimes(
                "a waiver alone allows destruction",
                |m: &Self, w: &World| !m.persons || m.dry_run || (w.acted[3] > 0 && !w.sealed),
            ),
        ]
    }
}

#[track_caller]
fn check(model: Response) {
    let checker = model.checker().threads(2).spawn_dfs().join();
    println!("{} states", checker.unique_state_count());
    checker.assert_properties();
    assert!(checker.is_done());
}

#[test]
fn crashes_at_every_point_keep_the_order() {
    for steps in ALL {
        check(Response {
            steps,
            crashes: 2,
            persons: false,
            dry_run: false,
        });
    }
}

#[test]
fn whatever_persons_say_and_when_keeps_the_order() {
    check(Response {
        steps: CAPTURE_AND_CUT,
        crashes: 0,
        persons: true,
        dry_run: false,
    });
}

#[test]
fn a_dry_run_never_acts() {
    for steps in ALL {
        check(Response {
            steps,
            crashes: 1,
            persons: false,
            dry_run: true,
        });
    }
}

/// A kind that is added has to be like one of those that are checked.
#[test]
fn every_kind_of_step_is_checked_or_is_to_the_order_like_one_that_is() {
    let like = |k: StepKind| (k.class(), k.is_idempotent(), k.is_reversible());
    let checked: Vec<_> = ALL.iter().flatten().map(|(k, _)| like(*k)).collect();
    let others = StepKind::ALL
        .into_iter()
        .filter(|k| !checked.contains(&like(*k)));
    // none of them has an effector yet
    let orchestrators: Vec<StepKind> = others.collect();
    assert_eq!(orchestrators, [StepKind::Scale; 0]);
}
