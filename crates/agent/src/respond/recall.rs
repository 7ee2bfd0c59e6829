//! What the journal says about plans and notifications of the time before this start.
//!
//! Promises: reading back is bounded; whatever was begun and not ended comes back as such. Left
//! out: going on with it (the engine).

use plimsoll_evidence::{Filter, Reader};
use plimsoll_model::record::Decision;
use plimsoll_model::response::{Delivery, DeliveryResult, Plan, StepPhase, StepRecord};
use plimsoll_model::{Alert, AlertId, Record, RecordKind, WallNs};
use plimsoll_respond::guards::Act;
use plimsoll_respond::order::{Fact, Order, decisions};
use std::collections::{BTreeMap, HashSet};

/// How far back plans are looked for, nanoseconds.
const WINDOW_NS: i64 = 24 * 3_600_000_000_000;
/// Records read back at most, of each kind of question.
const RECORDS_MAX: usize = 200_000;
/// Records of one plan: 32 steps, begun and taken back a few times, and what persons said.
const FACTS_MAX: usize = 4096;
/// How far the time in an id and that of its records may be apart, milliseconds.
const ID_SLACK_MS: i64 = 3_600_000;

/// An alert as it was found.
#[derive(Clone, Debug)]
pub struct Found {
    /// The alert.
    pub alert: Alert,
    /// Its leaf.
    pub leaf: u64,
    /// When it happened: the earliest moment from which it can have been durable.
    pub at: WallNs,
}

impl Found {
    /// As the journal has it.
    fn new(alert: Alert, leaf: u64) -> Self {
        Self {
            at: alert.at.wall,
            alert,
            leaf,
        }
    }
}

/// What was found.
#[derive(Debug, Default)]
pub struct Recalled {
    /// Orders that have a plan, folded from the journal alone.
    pub orders: Vec<(Order, Found)>,
    /// All automation was stopped and not resumed.
    pub halted: bool,
    /// For each receiver, from which leaf on alerts have to be told.
    pub settled: BTreeMap<String, u64>,
    /// Told beyond that.
    pub told: HashSet<(String, AlertId)>,
    /// Alerts that have to be looked at again, in their order.
    pub alerts: Vec<Found>,
    /// Steps that interfered, oldest first: what guards remember.
    pub acts: Vec<Act>,
    /// Dead letters that nobody has sent again since, by receiver and key.
    pub dead: BTreeMap<(String, String), Delivery>,
    /// The journal's end at this start.
    pub end: u64,
}

/// Reads back. Damage met on the way is skipped: recovery reports it.
pub fn recall(reader: &Reader, now: WallNs) -> Recalled {
    let since = now.0.saturating_sub(WINDOW_NS);
    let mut facts: BTreeMap<AlertId, Vec<Fact>> = BTreeMap::new();
    let mut plans: BTreeMap<String, Plan> = BTreeMap::new();
    let mut recalled = Recalled {
        end: reader.end().map_or(0, |l| l.0),
        ..Recalled::default()
    };
    let kinds = [
        RecordKind::Plan,
        RecordKind::Step,
        RecordKind::Delivery,
        RecordKind::Decision,
        RecordKind::PlanEnd,
    ];
    for (_, record) in records(reader, &kinds, since) {
        match &record {
            Record::Plan(plan) => drop(plans.insert(plan.id.clone(), plan.clone())),
            Record::Step(step) => recalled.acts.extend(act(plans.get(&step.plan), step)),
            Record::Decision(decision) => match decision.action.as_str() {
                decisions::STOP => recalled.halted = true,
                decisions::RESUME => recalled.halted = false,
                _ => {}
            },
            Record::Delivery(delivery) => recalled.note(delivery),
            _ => {}
        }
        let Some((plan, fact)) = fact(record) else {
            continue;
        };
        if let Some(plan) = plans.get(&plan) {
            facts.entry(plan.alert.clone()).or_default().push(fact);
        }
    }
    let mut seen = HashSet::new();
    let from = recalled.settled.values().min().copied();
    let recent = now.0.saturating_sub(super::RESPOND_WITHIN_NS);
    for (leaf, record) in records(reader, &[RecordKind::Alert], since) {
        let Record::Alert(alert) = record else {
            continue;
        };
        // a later record of the same id is a repeat, which changes its count alone
        if !seen.insert(alert.id.clone()) {
            continue;
        }
        let found = Found::new(alert, leaf);
        match facts.remove(&found.alert.id) {
            Some(facts) => recalled.orders.push((fold(&found, &facts), found.clone())),
            None if found.at.0 < recent && from.is_none_or(|f| leaf < f) => continue,
            None => {}
        }
        recalled.alerts.push(found);
    }
    recalled
}

/// Alerts from a leaf on, first records only as far as that can be told from here.
pub fn alerts_from(reader: &Reader, leaf: u64) -> Vec<Found> {
    let mut seen = HashSet::new();
    records_of(reader, &[RecordKind::Alert], i64::MIN, leaf)
        .filter_map(|(leaf, record)| match record {
            Record::Alert(alert) if seen.insert(alert.id.clone()) && alert.count <= 1 => {
                Some(Found::new(alert, leaf))
            }
            _ => None,
        })
        .collect()
}

/// The alert of that id, when it is of the last day.
pub fn find_alert(reader: &Reader, id: &str, now: WallNs) -> Option<Found> {
    let since = now.0.saturating_sub(WINDOW_NS);
    let mut alerts = records(reader, &[RecordKind::Alert], since);
    alerts.find_map(|(leaf, record)| match record {
        Record::Alert(alert) if alert.id.as_str() == id => Some(Found::new(alert, leaf)),
        _ => None,
    })
}

/// The plan of that id (or of the alert of that id), however long ago, as far as the journal is kept.
pub fn find_plan(reader: &Reader, id: &str) -> Option<(Order, Found)> {
    let digits = id
        .get(2..)
        .filter(|_| id.starts_with("P-") || id.starts_with("A-"))?;
    // an id begins with when its alert was raised
    let raised: i64 = digits.split('-').next()?.parse().ok()?;
    let since = raised.checked_sub(ID_SLACK_MS)?.checked_mul(1_000_000)?;
    let (plan, alert) = (format!("P-{digits}"), format!("A-{digits}"));
    let about = |r: &Record| match r {
        Record::Alert(a) => a.id.as_str() == alert,
        Record::Plan(p) => p.id == plan,
        Record::Step(s) => s.plan == plan,
        Record::PlanEnd(e) => e.plan == plan,
        Record::Decision(d) => d.subject == plan,
        _ => false,
    };
    let kinds = [
        RecordKind::Alert,
        RecordKind::Plan,
        RecordKind::Step,
        RecordKind::Decision,
        RecordKind::PlanEnd,
    ];
    let mut found = None;
    let mut facts = Vec::new();
    let all = scan(reader, &kinds, since, 0);
    for (leaf, record) in all.filter(|(_, r)| about(r)).take(FACTS_MAX) {
        match record {
            Record::Alert(alert) => {
                found.get_or_insert_with(|| Found::new(alert, leaf));
            }
            record => facts.extend(fact(record).map(|(_, fact)| fact)),
        }
    }
    let found = found.filter(|_| matches!(facts.first(), Some(Fact::Planned(_))))?;
    Some((fold(&found, &facts), found))
}

/// What a record says about which plan (or, of a decision, about what else).
fn fact(record: Record) -> Option<(String, Fact)> {
    match record {
        Record::Plan(plan) => Some((plan.id.clone(), Fact::Planned(plan))),
        Record::Step(step) => Some((step.plan.clone(), Fact::Step(step))),
        Record::PlanEnd(end) => Some((end.plan.clone(), Fact::Ended(end))),
        Record::Decision(decision) => Some((decision.subject.clone(), Fact::Decided(decision))),
        _ => None,
    }
}

fn fold(found: &Found, facts: &[Fact]) -> Order {
    let mut order = Order::new(found.alert.id.clone());
    order.apply(&Fact::Alerted(found.at));
    // a plan is made only after a delivery was attempted
    order.apply(&Fact::Attempted);
    facts.iter().for_each(|f| order.apply(f));
    order.restarted();
    order
}

/// What guards have to remember of a step that began.
fn act(plan: Option<&Plan>, step: &StepRecord) -> Option<Act> {
    let begins = step.phase == StepPhase::Began && step.kind.interferes();
    let plan = plan.filter(|_| begins)?;
    Some(Act {
        at: step.at.wall,
        instance: plan.instance.clone()?,
        service: plan.service.clone(),
        plan: plan.id.clone(),
    })
}

impl Recalled {
    fn note(&mut self, delivery: &Delivery) {
        if delivery.receiver.is_empty() {
            return;
        }
        let mark = self.settled.entry(delivery.receiver.clone()).or_default();
        *mark = (*mark).max(delivery.settled_below);
        let letter = (delivery.receiver.clone(), delivery.message.clone());
        match delivery.result {
            DeliveryResult::Dead => drop(self.dead.insert(letter, delivery.clone())),
            _ => drop(self.dead.remove(&letter)),
        }
        if matches!(
            delivery.result,
            DeliveryResult::Delivered | DeliveryResult::Dead
        ) {
            let told = delivery.alerts.iter();
            let receiver = &delivery.receiver;
            self.told
                .extend(told.map(|id| (receiver.clone(), id.clone())));
        }
    }
}

fn records(
    reader: &Reader,
    kinds: &[RecordKind],
    since: i64,
) -> impl Iterator<Item = (u64, Record)> + use<> {
    records_of(reader, kinds, since, 0)
}

fn records_of(
    reader: &Reader,
    kinds: &[RecordKind],
    since: i64,
    leaf: u64,
) -> impl Iterator<Item = (u64, Record)> + use<> {
    scan(reader, kinds, since, leaf).take(RECORDS_MAX)
}

fn scan(
    reader: &Reader,
    kinds: &[RecordKind],
    since: i64,
    leaf: u64,
) -> impl Iterator<Item = (u64, Record)> + use<> {
    let filter = Filter {
        leaves: leaf..u64::MAX,
        kinds: kinds.iter().map(|k| *k as u16).collect(),
        wall_ns: Some(since..i64::MAX),
        ..Filter::default()
    };
    reader
        .scan(filter)
        .into_iter()
        .flatten()
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let bytes = entry.payload.bytes()?;
            Some((entry.leaf.0, Record::decode(entry.header.kind, bytes).ok()?))
        })
}

/// Approvals and the like of one plan, made by a person.
pub fn decision(
    action: &str,
    subject: &str,
    reason: String,
    peer: &crate::server::Peer,
    at: plimsoll_model::Stamp,
) -> Decision {
    Decision {
        at,
        action: action.to_owned(),
        subject: subject.to_owned(),
        reason,
        uid: peer.uid,
        login_uid: peer.login_uid,
        method: "socket".to_owned(),
    }
}
