//! The thread that drives every plan: journal first, apply then, act last.
//!
//! Promises: what `plimsoll_respond` decides is done here and nothing else; no step is begun
//! before the record that says so is durable; orders, acts and effects under way are bounded. A
//! journal that refuses makes plans wait, never go on. Left out: effects ([`super::act`]), the
//! protocols of receivers, reading back ([`super::recall`]).

use super::act::{Action, action_of};
use super::machine::Target;
use super::recall::{Found, Recalled, decision};
use super::sender::SenderNews;
use super::{Perform, Question, Reach, show};
use crate::clock::{Anchor, Clocks};
use crate::gaps::Loss;
use crate::ledger::Ledger;
use crate::server::Peer;
use plimsoll_api::notify::{FromSender, Group, Message as Told, ToSender, TryResult};
use plimsoll_api::protocol::PlanWord;
use plimsoll_api::{self as api, Failure, FailureCode, Item};
use plimsoll_evidence::Reader;
use plimsoll_model::response::*;
use plimsoll_model::*;
use plimsoll_respond::guards::{Act, Asking, Surroundings};
use plimsoll_respond::order::{Fact, Next, Order, decisions};
use plimsoll_respond::outbox::{self, Content, Message, Offered, Outbox, Receiver, Settled, Tried};
use plimsoll_respond::plan::{Knowing, choose, make};
use plimsoll_respond::policy::{Policy, priority};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

/// Alerts that are being answered at once; further ones are told and not acted upon.
pub const ORDERS_MAX: usize = 1024;
/// Ended plans that are still shown without reading the journal.
pub const ENDED_MAX: usize = 256;
/// Effects under way at once.
pub const ACTING_MAX: usize = 4;
/// Running containers that guards look at.
pub const CONTAINERS_MAX: usize = 8192;
/// Containers that have gone of which it is still known who they were.
const GONE_MAX: usize = 256;
/// How long the choice of an entry waits for what a runtime may tell of a container.
const IDENTITY_WAIT_NS: u64 = 10_000_000_000;
/// Alerts that wait for it, and of one container; further ones are answered by what is known.
const UNCHOSEN_MAX: usize = ORDERS_MAX / 2;
const UNCHOSEN_OF_ONE_MAX: usize = 64;
/// Leaves of alerts that are remembered as taken: more than the queue holds.
const TAKEN_MAX: usize = 65_536;
/// Alerts that are remembered as answered by a plan of before.
const FOLDED_MAX: usize = 4096;
/// Acts that guards remember.
const ACTS_MAX: usize = 10_000;
/// How long a record may take to become durable before the plan waits.
const DURABLE_PATIENCE: Duration = Duration::from_secs(5);
/// After a start, containers of this machine are known by then.
const SETTLING: Duration = Duration::from_secs(2);
/// How soon a plan is looked at again when something refused.
const AGAIN_MS: u64 = 200;

/// What reaches the thread.
pub(super) enum News {
    Alert(Box<Alert>, u64),
    Container(Arc<Container>),
    Acted(AlertId, Deed, StepOutcome),
    Sender(SenderNews),
    /// A policy that is to come into force, its record, and where to say whether it has.
    Policy(Box<Policy>, Box<PolicyInForce>, mpsc::SyncSender<bool>),
    Ask(Question, Peer, mpsc::SyncSender<Answered>),
    Close,
}

pub(super) type Answered = Result<(Vec<Item>, Option<String>), Failure>;

/// What an effect under way was for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Deed {
    Step(usize),
    Look(usize),
    Undo(usize),
}

/// One alert that is being answered.
struct Live {
    order: Order,
    found: Found,
    container: Option<Arc<Container>>,
    /// Under way in this run: not to be begun again.
    looking: bool,
    /// Not to be looked at before.
    due: Option<WallNs>,
    /// Until then, the entry that answers it may wait for who its container is.
    unchosen_until: Option<BootNs>,
}

/// What the thread needs.
pub(super) struct Parts {
    pub(super) ledger: Arc<Ledger>,
    pub(super) clocks: Arc<dyn Clocks>,
    pub(super) anchor: Arc<Anchor>,
    pub(super) policy: Policy,
    pub(super) dry_run: bool,
    pub(super) perform: Perform,
    pub(super) reach: Reach,
    pub(super) reader: Reader,
    /// The lowest leaf of an alert for which the queue had no room.
    pub(super) missed: Arc<AtomicU64>,
    pub(super) own: Option<ContainerId>,
    pub(super) news: crossbeam_channel::Receiver<News>,
    pub(super) tell: crossbeam_channel::Sender<News>,
}

pub(super) struct Engine {
    parts: Parts,
    halted: bool,
    live: BTreeMap<AlertId, Live>,
    ended: VecDeque<(Order, Found)>,
    /// Alerts about starts that a standing plan's block has stopped, with that plan's alert.
    folded: BTreeMap<AlertId, AlertId>,
    containers: HashMap<Instance, Arc<Container>>,
    /// Those that went last.
    gone: VecDeque<Arc<Container>>,
    acts: VecDeque<Act>,
    acting: usize,
    outbox: Outbox,
    sender: Option<UnixStream>,
    recalled: Recalled,
    /// Leaves of the alerts taken last, so that reading missed ones back repeats none.
    taken: BTreeSet<u64>,
    started: Instant,
    /// Recent alerts of before this start that no plan is known for; looked at once the
    /// containers of this machine are known.
    unlooked: Vec<Found>,
}

impl Engine {
    pub(super) fn new(parts: Parts, mut recalled: Recalled, seed: u64) -> Self {
        let mut engine = Self {
            halted: recalled.halted,
            live: BTreeMap::new(),
            ended: VecDeque::new(),
            folded: BTreeMap::new(),
            containers: HashMap::new(),
            gone: VecDeque::new(),
            acts: VecDeque::new(),
            acting: 0,
            outbox: Outbox::new(seed),
            sender: None,
            taken: BTreeSet::new(),
            started: Instant::now(),
            unlooked: Vec::new(),
            recalled: Recalled::default(),
            parts,
        };
        for (order, found) in std::mem::take(&mut recalled.orders) {
            if order.is_at_rest() {
                engine.keep_ended(order, found);
            } else {
                engine.resume(order, found);
            }
        }
        let acts = std::mem::take(&mut recalled.acts);
        let skip = acts.len().saturating_sub(ACTS_MAX);
        engine.acts.extend(acts.into_iter().skip(skip));
        let since = engine.now().wall.0.saturating_sub(super::RESPOND_WITHIN_NS);
        let open = recalled.alerts.iter().filter(|f| f.at.0 >= since);
        engine.unlooked = open.cloned().collect();
        engine.recalled = recalled;
        engine
    }

    fn now(&self) -> Stamp {
        self.parts.anchor.stamp(self.parts.clocks.boot())
    }
    fn now_ms(&self) -> u64 {
        self.parts.clocks.boot().0 / 1_000_000
    }

    /// Runs until it is told to close.
    pub(super) fn run(mut self) {
        loop {
            let wait = self.wait();
            match self.parts.news.recv_timeout(wait) {
                Ok(News::Close) => return,
                Ok(news) => self.take(news),
                Err(crossbeam_channel::RecvTimeoutError::Timeout) => {}
                Err(crossbeam_channel::RecvTimeoutError::Disconnected) => return,
            }
            // a burst is taken in before anything is decided about it
            for _ in 0..1024 {
                match self.parts.news.try_recv() {
                    Ok(News::Close) => return,
                    Ok(news) => self.take(news),
                    Err(_) => break,
                }
            }
            self.read_missed();
            self.send();
            self.look_again();
            self.drive();
            self.send();
        }
    }

    fn wait(&self) -> Duration {
        let busy = !self.live.is_empty() || self.outbox.next_due().is_some();
        Duration::from_millis(if busy { 20 } else { 1000 })
    }

    fn take(&mut self, news: News) {
        match news {
            News::Alert(alert, leaf) => {
                let at = self.now().wall;
                self.alert(Found {
                    alert: *alert,
                    leaf,
                    at,
                });
            }
            News::Container(container) => self.container(container),
            News::Acted(id, deed, outcome) => self.acted(&id, deed, outcome),
            News::Sender(SenderNews::Up(stream)) => self.sender = Some(stream),
            News::Sender(SenderNews::Said(said)) => self.said(said),
            News::Sender(SenderNews::Down(why)) => self.sender_down(&why),
            News::Policy(policy, record, to) => {
                // whoever watches the file may have ended
                let _ = to.try_send(self.policy(*policy, *record));
            }
            News::Ask(question, peer, to) => {
                // whoever asked may have gone
                let _ = to.try_send(self.asked(question, &peer));
            }
            News::Close => {}
        }
    }

    /// Another policy, in force once that is durable; guards at once, plans that are made stay.
    fn policy(&mut self, policy: Policy, record: PolicyInForce) -> bool {
        let at = record.at;
        let record = Record::Policy(record);
        let ledger = &self.parts.ledger;
        let durable = ledger.record_durable(&record, at, None, DURABLE_PATIENCE);
        if durable.is_ok() {
            self.parts.policy = policy;
        }
        durable.is_ok()
    }

    fn container(&mut self, container: Arc<Container>) {
        let unchosen = |l: &&mut Live| l.unchosen_until.is_some();
        for live in self.live.values_mut().filter(unchosen) {
            if live.found.alert.instance.as_ref() == Some(&container.instance) {
                live.due = None;
            }
        }
        if container.state == ContainerState::Gone {
            self.containers.remove(&container.instance);
            self.gone.retain(|c| c.instance != container.instance);
            if self.gone.len() >= GONE_MAX {
                self.gone.pop_front();
            }
            self.gone.push_back(container);
        } else if self.containers.len() < CONTAINERS_MAX {
            self.containers
                .insert(container.instance.clone(), container);
        }
    }

    // ---- alerts ----

    fn alert(&mut self, found: Found) {
        if !self.taken.insert(found.leaf) {
            return;
        }
        if self.taken.len() > TAKEN_MAX {
            self.taken.pop_first();
        }
        self.offer(&found, None, None);
        self.answer(found);
    }

    /// Alerts for which the queue had no room are in the journal.
    fn read_missed(&mut self) {
        let from = self.parts.missed.swap(u64::MAX, Ordering::Relaxed);
        if from == u64::MAX {
            return;
        }
        for found in super::recall::alerts_from(&self.parts.reader, from) {
            self.alert(found);
        }
    }

    fn offered(&self, found: &Found) -> Offered {
        let container = self.container_of(&found.alert);
        let record = RecordId {
            origin: self.parts.ledger.origin().clone(),
            leaf: found.leaf,
        };
        let body = api::json::line(&api::Alert::new(
            &found.alert,
            api::types::Context {
                node: self.parts.ledger.origin().as_str(),
                container: container.as_deref(),
                record: Some(&record),
            },
        ));
        Offered {
            key: found.alert.id.to_string(),
            id: found.alert.id.clone(),
            leaf: found.leaf,
            rule: found.alert.rule.clone(),
            priority: found.alert.priority,
            body: body.into(),
        }
    }

    fn offer(&mut self, found: &Found, only: Option<&str>, plan: Option<&Plan>) {
        if self.outbox.names().next().is_none() && plan.is_none() {
            // kept for the receivers, once they are known
            self.recalled.alerts.push(found.clone());
            return;
        }
        let mut offered = self.offered(found);
        if let Some(plan) = plan {
            offered.key = format!("{}-plan", plan.id);
            offered.body = show::told_plan(&offered.body, plan).into();
        }
        let now = self.now_ms();
        self.outbox.offer(&offered, only, now);
    }

    fn container_of(&self, alert: &Alert) -> Option<Arc<Container>> {
        let instance = alert.instance.as_ref()?;
        let gone = || self.gone.iter().find(|c| c.instance == *instance);
        self.containers.get(instance).or_else(gone).cloned()
    }

    fn answer(&mut self, found: Found) {
        let id = &found.alert.id;
        if self.live.contains_key(id) || self.ended.iter().any(|(o, _)| o.alert() == id) {
            return;
        }
        let container = self.container_of(&found.alert);
        let choice = choose(&self.parts.policy, &found.alert, container.as_deref());
        let waits = choice.awaited && self.has_room_to_wait(&found.alert);
        let entry = choice.entry.map(|(entry, _)| entry.name.clone());
        if !waits && self.needs_no_plan(&found.alert, entry.as_deref()) {
            return;
        }
        if self.live.len() >= ORDERS_MAX {
            let now = self.parts.clocks.boot();
            self.parts.ledger.note(Loss {
                stage: Stage::Queue,
                instance: found.alert.instance.clone(),
                count: Some(1),
                from: now,
                to: now,
                reason: "too many alerts were being answered at once: told, not acted upon".into(),
            });
            return;
        }
        let mut order = Order::new(found.alert.id.clone());
        order.apply(&Fact::Alerted(found.at));
        let live = Live {
            order,
            container,
            found,
            looking: false,
            due: None,
            unchosen_until: waits.then(|| {
                let now = self.parts.clocks.boot();
                BootNs(now.0.saturating_add(IDENTITY_WAIT_NS))
            }),
        };
        self.live.insert(live.found.alert.id.clone(), live);
    }

    fn has_room_to_wait(&self, alert: &Alert) -> bool {
        let unchosen = self.live.values().filter(|l| l.unchosen_until.is_some());
        let (mut all, mut of_one) = (0, 0);
        for live in unchosen {
            all += 1;
            of_one += usize::from(live.found.alert.instance == alert.instance);
        }
        all < UNCHOSEN_MAX && of_one < UNCHOSEN_OF_ONE_MAX
    }

    /// Nothing answers the alert, or what would has been done already, which is noted.
    fn needs_no_plan(&mut self, alert: &Alert, entry: Option<&str>) -> bool {
        let Some(entry) = entry else {
            return true;
        };
        let Some(standing) = self.stopped_by(alert, entry) else {
            return false;
        };
        if self.folded.len() >= FOLDED_MAX {
            self.folded.pop_first();
        }
        self.folded.insert(alert.id.clone(), standing);
        true
    }

    /// The alert whose plan has forbidden the program of this one, which was stopped before it did anything:
    /// all that the same entry of the policy would do again has been done.
    fn stopped_by(&self, alert: &Alert, entry: &str) -> Option<AlertId> {
        if !alert.prevented || alert.instance.is_none() {
            return None;
        }
        let stands = |order: &Order, found: &Found| {
            let same = found.alert.instance == alert.instance;
            let plan = order.plan().is_some_and(|p| p.policy == entry);
            same && plan && order.ended().is_some() && order.forbids_a_program()
        };
        let live = self.live.values().map(|l| (&l.order, &l.found));
        let ended = self.ended.iter().map(|(o, f)| (o, f));
        let mut all = live.chain(ended);
        let standing = all.find(|(o, f)| stands(o, f));
        standing.map(|(order, _)| order.alert().clone())
    }

    /// Alerts that were durable and not answered when the agent ended.
    fn look_again(&mut self) {
        if self.unlooked.is_empty() || self.started.elapsed() < SETTLING {
            return;
        }
        for found in std::mem::take(&mut self.unlooked) {
            self.answer(found);
        }
    }

    fn resume(&mut self, order: Order, found: Found) {
        let id = found.alert.id.clone();
        let live = Live {
            container: self.container_of(&found.alert),
            order,
            found,
            looking: false,
            due: None,
            unchosen_until: None,
        };
        self.live.insert(id, live);
    }

    // ---- plans ----

    fn drive(&mut self) {
        let now = self.now().wall;
        let due = |l: &Live| l.due.is_none_or(|d| d <= now);
        let ids = self.live.iter().filter(|(_, l)| due(l));
        let ids: Vec<AlertId> = ids.map(|(id, _)| id.clone()).collect();
        for id in ids {
            // a plan has at most 32 steps of a few records each
            for _ in 0..256 {
                if !self.advance(&id) {
                    break;
                }
            }
            if self.live.get(&id).is_some_and(|l| l.order.is_at_rest())
                && let Some(live) = self.live.remove(&id)
            {
                self.keep_ended(live.order, live.found);
            }
        }
    }

    /// The oldest goes for it, of those of which nothing holds if there is one; the journal has it.
    fn keep_ended(&mut self, order: Order, found: Found) {
        if self.ended.len() >= ENDED_MAX {
            let nothing_holds = |(o, _): &(Order, Found)| !o.may_hold();
            let oldest = self.ended.iter().position(nothing_holds).unwrap_or(0);
            self.ended.remove(oldest);
        }
        self.ended.push_back((order, found));
    }

    /// One thing about one plan; `false`: nothing more for now.
    fn advance(&mut self, id: &AlertId) -> bool {
        let at = self.now();
        let Some(live) = self.live.get(id) else {
            return false;
        };
        match live.order.next(at.wall, self.halted) {
            Next::Nothing | Next::Halted => false,
            Next::Wait(until) | Next::Approvals { until, .. } | Next::Waiver { until, .. } => {
                if let Some(live) = self.live.get_mut(id) {
                    live.due = Some(until);
                }
                false
            }
            Next::NoteAttempt => {
                let waited = self.delivery_waited(id, at);
                self.write(id, Record::Delivery(waited), Fact::Attempted)
            }
            Next::Plan => self.plan(id, at),
            Next::Begin(i) => self.begin(id, i, at),
            Next::Look(_) if self.settles(id, at) => false,
            Next::Look(i) => {
                let live = self.live.get_mut(id);
                if live.is_none_or(|l| std::mem::replace(&mut l.looking, true)) {
                    return false;
                }
                self.act(id, Deed::Look(i));
                false
            }
            Next::Skip(i, why) => self.end_step(id, i, StepOutcome::Skipped { why }),
            Next::TimeOut(i) => self.end_step(id, i, StepOutcome::TimedOut),
            Next::BeginUndo(i) => self.begin_undo(id, i, at),
            Next::End(why) => {
                let plan = self.live.get(id).and_then(|l| l.order.plan());
                let plan = plan.map_or(String::new(), |p| p.id.clone());
                let end = PlanEnd { plan, at, why };
                self.write(id, Record::PlanEnd(end.clone()), Fact::Ended(end))
            }
        }
    }

    fn delivery_waited(&self, id: &AlertId, at: Stamp) -> Delivery {
        Delivery {
            at,
            receiver: String::new(),
            message: id.to_string(),
            alerts: vec![id.clone()],
            count: 1,
            attempt: 1,
            result: DeliveryResult::Waited,
            detail: "no receiver had answered within 500 ms".to_owned(),
            settled_below: 0,
        }
    }

    /// Durable first, applied then. `false`: the journal refuses, and the plan waits.
    fn write(&mut self, id: &AlertId, record: Record, fact: Fact) -> bool {
        let at = self.now();
        let Some(live) = self.live.get_mut(id) else {
            return false;
        };
        let about = live.found.alert.instance.as_ref();
        let ledger = &self.parts.ledger;
        match ledger.record_durable(&record, at, about, DURABLE_PATIENCE) {
            Ok(_) => {
                live.order.apply(&fact);
                live.due = None;
                true
            }
            Err(_) => {
                live.due = Some(WallNs(at.wall.0 + (AGAIN_MS * 1_000_000) as i64));
                false
            }
        }
    }

    fn plan(&mut self, id: &AlertId, at: Stamp) -> bool {
        if self.still_unchosen(id, at) {
            return false;
        }
        let Some(live) = self.live.get(id) else {
            return false;
        };
        match self.would_be(&live.found, at) {
            Some(plan) => self.write(id, Record::Plan(plan.clone()), Fact::Planned(plan)),
            None => {
                // the policy of before answered it, the one in force does not
                self.live.remove(id);
                false
            }
        }
    }

    /// Whether who its container is still has to be waited for, or nothing has to be done about it.
    fn still_unchosen(&mut self, id: &AlertId, at: Stamp) -> bool {
        let Some(live) = self.live.get(id) else {
            return true;
        };
        let Some(until) = live.unchosen_until else {
            return false;
        };
        let alert = live.found.alert.clone();
        let container = self.container_of(&alert);
        let choice = choose(&self.parts.policy, &alert, container.as_deref());
        let left = until.0.saturating_sub(at.boot.0);
        if choice.awaited && left > 0 {
            // in short steps, because the wall clock may be set meanwhile
            let step = left.min(AGAIN_MS * 1_000_000);
            if let Some(live) = self.live.get_mut(id) {
                live.due = Some(WallNs(at.wall.0 + step as i64));
            }
            return true;
        }
        let doubt = choice.doubt.filter(|_| choice.entry.is_none());
        let entry = choice.entry.map(|(entry, _)| entry.name.clone());
        if let Some(doubt) = doubt {
            let now = self.parts.clocks.boot();
            self.parts.ledger.note(Loss {
                stage: Stage::Identity,
                instance: alert.instance.clone(),
                count: Some(1),
                from: now,
                to: now,
                reason: format!("alerts were answered by no policy: {doubt}").into(),
            });
        }
        if self.needs_no_plan(&alert, entry.as_deref()) {
            self.live.remove(id);
            return true;
        }
        if let Some(live) = self.live.get_mut(id) {
            live.unchosen_until = None;
            live.container = container;
        }
        false
    }

    fn would_be(&self, found: &Found, at: Stamp) -> Option<Plan> {
        let container = self.container_of(&found.alert);
        let record = RecordId {
            origin: self.parts.ledger.origin().clone(),
            leaf: found.leaf,
        };
        let running: Vec<&Container> = self.containers.values().map(Arc::as_ref).collect();
        let acts: Vec<Act> = self.acts.iter().cloned().collect();
        let reach = self.reach(&found.alert, container.as_deref(), &running);
        let knowing = Knowing {
            alert: &found.alert,
            record: Some(&record),
            container: container.as_deref(),
            around: Surroundings {
                running: &running,
                acts: &acts,
                own: self.parts.own.as_ref(),
            },
            reach: &reach,
            at,
        };
        let mut plan = make(&self.parts.policy, knowing)?;
        plan.dry_run |= self.parts.dry_run;
        Some(plan)
    }

    /// What is to be known of this machine for a plan that isolates.
    fn reach(&self, alert: &Alert, of: Option<&Container>, running: &[&Container]) -> Vec<String> {
        let Some(container) = of.filter(|c| c.state != ContainerState::Gone) else {
            return Vec::new();
        };
        let chosen = choose(&self.parts.policy, alert, of).entry;
        let isolates = |s: &Step| s.kind == StepKind::Isolate;
        match chosen.is_some_and(|(entry, _)| entry.steps.iter().any(isolates)) {
            true => (self.parts.reach)(container, running),
            false => Vec::new(),
        }
    }

    fn step_record(
        &self,
        id: &AlertId,
        i: usize,
        at: Stamp,
        phase: StepPhase,
    ) -> Option<StepRecord> {
        let order = &self.live.get(id)?.order;
        let plan = order.plan()?;
        let begun = order.steps().get(i)?.attempts;
        Some(StepRecord {
            plan: plan.id.clone(),
            step: i as u32,
            kind: plan.steps.get(i)?.kind,
            attempt: begun + u32::from(phase == StepPhase::Began),
            at,
            phase,
        })
    }

    fn write_step(&mut self, id: &AlertId, i: usize, phase: StepPhase) -> bool {
        match self.step_record(id, i, self.now(), phase) {
            Some(record) => self.write(id, Record::Step(record.clone()), Fact::Step(record)),
            None => false,
        }
    }

    fn end_step(&mut self, id: &AlertId, i: usize, outcome: StepOutcome) -> bool {
        self.write_step(id, i, StepPhase::Ended(outcome))
    }

    fn begin(&mut self, id: &AlertId, i: usize, at: Stamp) -> bool {
        let Some((step, plan)) = self.step(id, i) else {
            return false;
        };
        let Some(live) = self.live.get(id) else {
            return false;
        };
        // guards may have to know what has been told since the plan was made
        let told = self.container_of(&live.found.alert);
        let container = told.or_else(|| live.container.clone());
        if let Some(live) = self.live.get_mut(id) {
            live.container.clone_from(&container);
        }
        if step.kind == StepKind::Notify {
            return self.notify_step(id, i, &step, &plan);
        }
        let Some(container) = container else {
            if self.settles(id, at) {
                return false;
            }
            let why = "the container is not known".to_owned();
            return self.end_step(id, i, StepOutcome::Unavailable { why });
        };
        if self.acting >= ACTING_MAX {
            let live = self.live.get_mut(id);
            live.expect("it was there").due = Some(WallNs(at.wall.0 + 20_000_000));
            return false;
        }
        if let Some(why) = self.guarded(&plan, &step, &container, at) {
            return self.end_step(id, i, StepOutcome::Refused { why });
        }
        if !self.write_step(id, i, StepPhase::Began) {
            return false;
        }
        // who has ended is not interfered with, and takes nobody's turn
        if step.kind.interferes() && container.state != ContainerState::Gone {
            if self.acts.len() >= ACTS_MAX {
                self.acts.pop_front();
            }
            self.acts.push_back(Act {
                at: at.wall,
                instance: container.instance.clone(),
                service: container.service.clone(),
                plan: plan.id.clone(),
            });
        }
        self.act(id, Deed::Step(i));
        true
    }

    fn step(&self, id: &AlertId, i: usize) -> Option<(Step, Plan)> {
        let plan = self.live.get(id)?.order.plan()?;
        Some((plan.steps.get(i)?.clone(), plan.clone()))
    }

    fn guarded(
        &self,
        plan: &Plan,
        step: &Step,
        container: &Container,
        at: Stamp,
    ) -> Option<String> {
        // a restart makes another instance under the same id: this plan is not about that one
        let another = |i: &Instance| i.id == container.instance.id && *i != container.instance;
        if step.kind.class() >= StepClass::Contain && self.containers.keys().any(another) {
            return Some("the container has been restarted since the alert".to_owned());
        }
        let running: Vec<&Container> = self.containers.values().map(Arc::as_ref).collect();
        let acts: Vec<Act> = self.acts.iter().cloned().collect();
        let around = Surroundings {
            running: &running,
            acts: &acts,
            own: self.parts.own.as_ref(),
        };
        let asking = Asking {
            plan: &plan.id,
            container,
        };
        let approved = step.approvals > 0;
        let guards = &self.parts.policy.guards;
        guards.refuse(asking, step.kind, approved, around, at.wall)
    }

    /// Telling is the outbox's: handed over is done.
    fn notify_step(&mut self, id: &AlertId, i: usize, step: &Step, plan: &Plan) -> bool {
        let Some(found) = self.live.get(id).map(|l| l.found.clone()) else {
            return false;
        };
        if !self.write_step(id, i, StepPhase::Began) {
            return false;
        }
        let wanted = step.parameters.iter().find(|(k, _)| k == "receivers");
        let names: Vec<String> = self.outbox.names().map(str::to_owned).collect();
        let wanted: Vec<&String> = match wanted {
            None => names.iter().collect(),
            Some((_, list)) => {
                let list: Vec<&str> = list.split(',').map(str::trim).collect();
                names
                    .iter()
                    .filter(|n| list.contains(&n.as_str()))
                    .collect()
            }
        };
        let outcome = if wanted.is_empty() {
            StepOutcome::Unavailable {
                why: "no such receiver is configured, or the sender does not run".to_owned(),
            }
        } else {
            for name in &wanted {
                self.offer(&found, Some(name), Some(plan));
            }
            StepOutcome::Done {
                effect: format!("the plan is in the queues of {} receivers", wanted.len()),
                sealed: None,
                undo: Vec::new(),
            }
        };
        self.end_step(id, i, outcome)
    }

    /// Its container may not be known yet, because this agent has just started: looked at again soon.
    fn settles(&mut self, id: &AlertId, at: Stamp) -> bool {
        let Some(live) = self.live.get(id) else {
            return false;
        };
        let alert = &live.found.alert;
        let known = live.container.is_some() || self.container_of(alert).is_some();
        let settles = !known && alert.instance.is_some() && self.started.elapsed() < SETTLING * 3;
        if let Some(live) = self.live.get_mut(id).filter(|_| settles) {
            live.due = Some(WallNs(at.wall.0 + 100_000_000));
        }
        settles
    }

    fn begin_undo(&mut self, id: &AlertId, i: usize, at: Stamp) -> bool {
        if self.settles(id, at) {
            return false;
        }
        if self.acting >= ACTING_MAX {
            if let Some(live) = self.live.get_mut(id) {
                live.due = Some(WallNs(at.wall.0 + 20_000_000));
            }
            return false;
        }
        if self.write_step(id, i, StepPhase::UndoBegan) {
            self.act(id, Deed::Undo(i));
        }
        false
    }

    /// Starts an effect on a thread of its own; its end comes back as news.
    fn act(&mut self, id: &AlertId, deed: Deed) {
        let (Deed::Step(i) | Deed::Look(i) | Deed::Undo(i)) = deed;
        let Some((step, plan)) = self.step(id, i) else {
            return;
        };
        let Some(live) = self.live.get(id) else {
            return;
        };
        let action = match deed {
            Deed::Step(_) => action_of(&step),
            Deed::Look(_) => Action::Look {
                kind: step.kind,
                notes: step.parameters.clone(),
            },
            Deed::Undo(_) => {
                let mut notes = show::undo_notes(&live.order.steps()[i]);
                notes.extend(step.parameters.clone());
                Action::Undo {
                    kind: step.kind,
                    notes,
                }
            }
        };
        let Some(container) = live
            .container
            .clone()
            .or_else(|| self.container_of(&live.found.alert))
            .or_else(|| stand_in(&step, &live.found.alert))
        else {
            let why = "the container is not known".to_owned();
            let gone = News::Acted(id.clone(), deed, StepOutcome::Unavailable { why });
            self.acting += 1;
            let _ = self.parts.tell.try_send(gone);
            return;
        };
        let process = plan.pid.zip(plan.pid_start);
        let target = Target {
            container,
            process: process.map(|(tgid, start)| ProcessKey { tgid, start }),
            program: program_of(&live.found.alert),
            plan: plan.id,
        };
        self.acting += 1;
        let (perform, tell, alert) = (
            self.parts.perform.clone(),
            self.parts.tell.clone(),
            id.clone(),
        );
        let body = move || {
            let act = std::panic::AssertUnwindSafe(|| perform(&target, &action));
            let outcome = std::panic::catch_unwind(act).unwrap_or_else(|_| StepOutcome::Failed {
                why: "the effect ended in a defect of this program".to_owned(),
            });
            // the engine has ended: the next start finds a step that began and did not end
            let _ = tell.send(News::Acted(alert, deed, outcome));
        };
        let thread = std::thread::Builder::new()
            .name("effect".into())
            .spawn(body);
        if let Err(e) = thread {
            let why = format!("no thread for it could be made: {e}");
            let failed = News::Acted(id.clone(), deed, StepOutcome::Failed { why });
            let _ = self.parts.tell.try_send(failed);
        }
    }

    fn acted(&mut self, id: &AlertId, deed: Deed, outcome: StepOutcome) {
        self.acting = self.acting.saturating_sub(1);
        let (i, phase) = match deed {
            Deed::Step(i) => (i, StepPhase::Ended(outcome)),
            Deed::Undo(i) => (i, StepPhase::UndoEnded(outcome)),
            Deed::Look(i) => {
                let effect_found = match outcome {
                    StepOutcome::Done { .. } => Some(true),
                    StepOutcome::Failed { .. } => Some(false),
                    _ => None,
                };
                if let Some(live) = self.live.get_mut(id) {
                    live.looking = false;
                }
                let looked = StepOutcome::Interrupted { effect_found };
                (i, StepPhase::Ended(looked))
            }
        };
        if self.live.contains_key(id) {
            for _ in 0..25 {
                if self.write_step(id, i, phase.clone()) {
                    return;
                }
                std::thread::sleep(Duration::from_millis(AGAIN_MS));
            }
            // the journal takes nothing: the step stays begun, and the next start looks at it
        }
    }
}

// ---- telling ----

impl Engine {
    fn said(&mut self, said: FromSender) {
        match said {
            FromSender::Hello { receivers } => self.receivers(&receivers),
            FromSender::Tried {
                receiver,
                key,
                result,
                detail,
            } => {
                let tried = match result {
                    TryResult::Delivered => Tried::Delivered,
                    TryResult::Later { retry_after_ms } => Tried::Later { retry_after_ms },
                    TryResult::Refused => Tried::Refused,
                };
                let now = self.now_ms();
                if let Some(settled) = self.outbox.tried(&receiver, &key, &tried, now) {
                    self.settled(settled, detail);
                }
            }
        }
    }

    /// Takes over the receivers, and what they had not been told when the agent ended.
    fn receivers(&mut self, announced: &[api::notify::Receiver]) {
        let known: Vec<String> = self.outbox.names().map(str::to_owned).collect();
        let receiver = |r: &api::notify::Receiver| Receiver {
            name: r.name.clone(),
            priority: priority(&r.priority).unwrap_or(Priority::Debug),
            per_minute: r.per_minute.clamp(1, 100_000),
        };
        let announced = announced.iter().take(super::RECEIVERS_MAX);
        let receivers: Vec<Receiver> = announced.map(receiver).collect();
        let now = self.now_ms();
        self.outbox.receivers(&receivers, now);
        let kept = std::mem::take(&mut self.recalled.alerts);
        for receiver in receivers.iter().filter(|r| !known.contains(&r.name)) {
            let name = receiver.name.as_str();
            let from = self.recalled.settled.get(name).copied();
            if from.is_none() {
                self.note_receiver(name);
            }
            self.bury(name);
            // a receiver that was never known is told what comes from this start on
            let from = from.unwrap_or(self.recalled_end());
            for found in kept.iter().filter(|f| f.leaf >= from) {
                let told = (name.to_owned(), found.alert.id.clone());
                if !self.recalled.told.contains(&told) {
                    let offered = self.offered(found);
                    self.outbox.offer(&offered, Some(name), now);
                }
            }
        }
    }

    /// Dead letters of before this start can be seen and sent again, too.
    fn bury(&mut self, receiver: &str) {
        let dead = self
            .recalled
            .dead
            .iter()
            .filter(|((r, _), _)| r == receiver);
        let letters: Vec<Delivery> = dead
            .map(|(_, d)| d.clone())
            .take(outbox::DEAD_MAX)
            .collect();
        for letter in letters {
            let (Some(first), Some(last)) = (letter.alerts.first(), letter.alerts.last()) else {
                continue;
            };
            let found = self.find_alert(first.as_str());
            let content = match found.filter(|_| letter.count == 1) {
                Some(found) => Content::Alert(self.offered(&found).body),
                None => Content::Storm(vec![outbox::Group {
                    rule: String::new(),
                    count: letter.count,
                    first: first.clone(),
                    last: last.clone(),
                    priority: Priority::Notice,
                    sample: "null".into(),
                }]),
            };
            self.outbox.bury(
                receiver,
                Message {
                    key: letter.message,
                    content,
                    alerts: letter.alerts,
                    count: letter.count,
                    attempts: letter.attempt,
                    leaf: letter.settled_below,
                    since_ms: 0,
                },
            );
        }
    }

    /// Alerts below this leaf were there before this start.
    fn recalled_end(&self) -> u64 {
        self.recalled.end
    }

    fn note_receiver(&mut self, name: &str) {
        let at = self.now();
        let delivery = Delivery {
            at,
            receiver: name.to_owned(),
            message: String::new(),
            alerts: Vec::new(),
            count: 0,
            attempt: 0,
            result: DeliveryResult::Delivered,
            detail: "known from here on".to_owned(),
            settled_below: self.recalled.end,
        };
        self.parts
            .ledger
            .record_urgent(&Record::Delivery(delivery), at, None);
    }

    fn sender_down(&mut self, why: &str) {
        self.sender = None;
        let now = self.now_ms();
        for settled in self.outbox.senders_lost(now) {
            self.settled(settled, format!("the sender: {why}"));
        }
    }

    /// A try has ended: journalled, and alerts that it names count as attempted.
    fn settled(&mut self, settled: Settled, detail: String) {
        let at = self.now();
        let delivery = Delivery {
            at,
            receiver: settled.receiver,
            message: settled.message.key,
            alerts: settled.message.alerts.clone(),
            count: settled.message.count,
            attempt: settled.message.attempts,
            result: settled.result,
            detail: detail.chars().take(500).collect(),
            settled_below: settled.settled_below,
        };
        // the plan that follows is committed after this record, so at once is soon enough
        self.parts
            .ledger
            .record(&Record::Delivery(delivery), at, None);
        for id in &settled.message.alerts {
            if let Some(live) = self.live.get_mut(id) {
                live.order.apply(&Fact::Attempted);
                live.due = None;
            }
        }
    }

    fn send(&mut self) {
        if self.sender.is_none() {
            return;
        }
        let now = self.now_ms();
        for (receiver, message) in self.outbox.due(now) {
            let line = api::json::line(&ToSender::Send {
                receiver,
                message: told(&message),
            }) + "\n";
            let Some(sender) = &mut self.sender else {
                return;
            };
            if let Err(e) = sender.write_all(line.as_bytes()) {
                // closing our end lets the supervisor see the end, too
                let _ = sender.shutdown(std::net::Shutdown::Both);
                return self.sender_down(&e.to_string());
            }
        }
    }
}

/// What is forbidden on the node can be taken back when the container is long gone.
fn stand_in(step: &Step, alert: &Alert) -> Option<Arc<Container>> {
    let of_node = matches!(step.kind, StepKind::BlockProgram | StepKind::BlockAddress);
    let instance = alert.instance.clone().filter(|_| of_node)?;
    let mut container = Container::new(instance, Runtime::Oci, alert.at);
    container.state = ContainerState::Gone;
    Some(Arc::new(container))
}

/// The program that gave cause, where the alert names it.
fn program_of(alert: &Alert) -> Option<Text> {
    let found = alert.fields.iter().find(|(k, _)| k == "proc.exepath");
    found.map(|(_, path)| path.clone())
}

fn told(message: &Message) -> Told {
    let json = |text: &str| serde_json::from_str(text).unwrap_or_default();
    let mut told = Told {
        key: message.key.clone(),
        count: message.count,
        ..Told::default()
    };
    match &message.content {
        Content::Alert(body) => told.alert = Some(json(body)),
        Content::Storm(groups) => {
            told.groups = groups
                .iter()
                .enumerate()
                .map(|(i, g)| Group {
                    rule: g.rule.clone(),
                    priority: g.priority.as_str().to_owned(),
                    count: g.count,
                    first: g.first.to_string(),
                    last: g.last.to_string(),
                    // a storm's line has room for a few examples
                    sample: if i == 0 || groups.len() <= 8 {
                        json(&g.sample)
                    } else {
                        serde_json::Value::Null
                    },
                })
                .collect();
        }
    }
    told
}

// ---- asking and deciding ----

impl Engine {
    fn asked(&mut self, question: Question, peer: &Peer) -> Answered {
        match question {
            Question::List => {
                let ended = self.ended.iter().map(|(o, f)| self.shown(o, f));
                let mut plans: Vec<_> = ended.flatten().collect();
                plans.extend(
                    self.live
                        .values()
                        .filter_map(|l| self.shown(&l.order, &l.found)),
                );
                plans.sort_by(|a, b| a.time.cmp(&b.time));
                let halted = self.halted.then(|| show::HALTED.to_owned());
                Ok((plans.into_iter().map(Item::Plan).collect(), halted))
            }
            Question::Show(id) => self.show(&id),
            Question::Decide { id, word, reason } => self.decide(&id, word, reason, peer),
            Question::Switch { stop, reason } => self.switch(stop, reason, peer),
            Question::Outgoing => Ok((self.outgoing(), None)),
            Question::Resend {
                receiver,
                key,
                reason,
            } => {
                let subject = receiver.clone().or(key.clone()).unwrap_or_default();
                let decision = decision("notify.resend", &subject, reason, peer, self.now());
                self.journal(decision)?;
                let now = self.now_ms();
                let count = self.outbox.resend(receiver.as_deref(), key.as_deref(), now);
                Ok((Vec::new(), Some(format!("{count} messages are sent again"))))
            }
        }
    }

    fn shown(&self, order: &Order, _: &Found) -> Option<api::types::Plan> {
        let next = order.next(self.now().wall, self.halted);
        let again = self.folded.values().filter(|a| *a == order.alert());
        let stopped_again = again.count() as u64;
        show::plan(order, &next).map(|plan| api::types::Plan {
            stopped_again,
            ..plan
        })
    }

    fn outgoing(&self) -> Vec<Item> {
        let waiting = self.outbox.waiting().filter(|(_, n)| *n > 0);
        let waiting = waiting.map(|(receiver, count)| api::types::Outgoing {
            receiver: receiver.to_owned(),
            state: "waiting".to_owned(),
            count,
            ..api::types::Outgoing::default()
        });
        let dead = self
            .outbox
            .dead()
            .map(|(receiver, m)| api::types::Outgoing {
                receiver: receiver.to_owned(),
                state: "dead".to_owned(),
                key: m.key.clone(),
                count: m.count,
                alerts: m.alerts.iter().map(ToString::to_string).collect(),
                attempts: m.attempts,
            });
        dead.chain(waiting).map(Item::Outgoing).collect()
    }

    fn order(&self, id: &str) -> Option<(&Order, &Found)> {
        let is = |o: &Order| o.alert().as_str() == id || o.plan().is_some_and(|p| p.id == id);
        let live = self.live.values().map(|l| (&l.order, &l.found));
        let ended = self.ended.iter().map(|(o, f)| (o, f));
        live.chain(ended).find(|(o, _)| is(o))
    }

    /// That plan; from the journal where it ended too long ago to be kept here.
    fn any_order(&self, id: &str) -> Option<(Order, Found)> {
        let here = self.order(id).map(|(o, f)| (o.clone(), f.clone()));
        here.or_else(|| super::recall::find_plan(&self.parts.reader, id))
    }

    fn show(&self, id: &str) -> Answered {
        let folded = AlertId::parse(id).ok().and_then(|id| self.folded.get(&id));
        let id = folded.map_or(id, AlertId::as_str);
        if let Some((order, found)) = self.any_order(id)
            && let Some(plan) = self.shown(&order, &found)
        {
            return Ok((vec![Item::Plan(plan)], None));
        }
        let not_found = |what: &str| Failure::new(FailureCode::NotFound, what.to_owned());
        let found = self.find_alert(id).ok_or_else(|| {
            not_found("there is no plan and no alert of that id in the last 24 hours")
        })?;
        let plan = self.would_be(&found, self.now());
        let plan =
            plan.ok_or_else(|| not_found("no policy answers that alert: nothing would be done"))?;
        Ok((vec![Item::Plan(show::would_be(&plan))], None))
    }

    fn find_alert(&self, id: &str) -> Option<Found> {
        let alert = id
            .strip_prefix("P-")
            .map_or(id.to_owned(), |d| format!("A-{d}"));
        super::recall::find_alert(&self.parts.reader, &alert, self.now().wall)
    }

    fn journal(&self, decision: record::Decision) -> Result<(), Failure> {
        let at = decision.at;
        let record = Record::Decision(decision);
        let written = self
            .parts
            .ledger
            .record_durable(&record, at, None, DURABLE_PATIENCE);
        written.map(drop).map_err(|e| {
            let words = format!("the decision could not be journalled, so it does not count: {e}");
            Failure::new(FailureCode::Failed, words)
        })
    }

    fn decide(&mut self, id: &str, word: PlanWord, reason: String, peer: &Peer) -> Answered {
        let (order, found) = self.any_order(id).ok_or_else(|| {
            let words = "there is no such plan: `plimsoll plan list` shows those there are";
            Failure::new(FailureCode::NotFound, words)
        })?;
        let Some(plan) = order.plan().cloned() else {
            let words = "the plan is not made yet: try again";
            return Err(Failure::new(FailureCode::Conflict, words));
        };
        let over = order.ended().is_some();
        if over && word != PlanWord::Undo {
            let words = format!("the plan has ended: {}", order.ended().unwrap_or_default());
            return Err(Failure::new(FailureCode::Conflict, words));
        }
        let action = match word {
            PlanWord::Approve => decisions::APPROVE,
            PlanWord::Deny => decisions::DENY,
            PlanWord::Undo => decisions::UNDO,
            PlanWord::WaiveCapture => decisions::WAIVE,
        };
        let decision = decision(action, &plan.id, reason, peer, self.now());
        self.journal(decision.clone())?;
        let alert = order.alert().clone();
        if !self.live.contains_key(&alert) {
            self.ended.retain(|(o, _)| *o.alert() != alert);
            self.resume(order, found);
        }
        let live = self.live.get_mut(&alert).expect("it was put there");
        let voices = |o: &Order| o.approvals(&plan, decision.at.wall);
        let before = voices(&live.order);
        live.order.apply(&Fact::Decided(decision.clone()));
        let same_person = voices(&live.order) == before;
        live.due = None;
        let nothing_left = live.order.is_at_rest();
        self.drive();
        self.show(alert.as_str()).map(|(items, _)| {
            let words = match word {
                PlanWord::Approve if same_person => {
                    "recorded, and not counted: this person has approved already, as far as the system can tell"
                }
                PlanWord::Approve => "approved",
                PlanWord::Deny => "denied: nothing further is done",
                PlanWord::Undo if nothing_left => {
                    "there is nothing to take back: no step of it has an effect that can be, or it was taken back before"
                }
                PlanWord::Undo => "being taken back, as far as that can be",
                PlanWord::WaiveCapture => "waived: it may destroy without a sealed capture",
            };
            (items, Some(words.to_owned()))
        })
    }

    fn switch(&mut self, stop: bool, reason: String, peer: &Peer) -> Answered {
        let action = if stop {
            decisions::STOP
        } else {
            decisions::RESUME
        };
        // stopping holds even when the journal refuses: it only makes less happen
        self.halted |= stop;
        self.journal(decision(action, "", reason, peer, self.now()))?;
        self.halted = stop;
        self.live.values_mut().for_each(|l| l.due = None);
        let words = match stop {
            true => "all automation is stopped; what is under way ends, nothing new begins",
            false => "automation goes on",
        };
        Ok((Vec::new(), Some(words.to_owned())))
    }
}
