//! What still has to be told to whom.
//!
//! Promises:
//! - At least once: an alert that was offered is in a queue, in a group with a count, delivered, or
//!   a dead letter; never gone. [`Outbox::settled_below`] says from which leaf of the journal to
//!   offer again after a restart.
//! - One message at a time and receiver, oldest first, so that what is told about one alert
//!   arrives in order.
//! - A storm is one message with a count: what a receiver's rate or queue does not allow one by
//!   one is counted by rule and told together.
//! - Bounded: [`QUEUE_MAX`] messages, [`GROUPS_MAX`] groups, [`DEAD_MAX`] dead letters a receiver.
//!
//! Pure: time arrives as milliseconds, jitter from a seed. Left out: sending (`notify` crate),
//! journalling and the message's form (the agent).

use plimsoll_model::response::DeliveryResult;
use plimsoll_model::{AlertId, Priority};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

/// Messages that wait for one receiver.
pub const QUEUE_MAX: usize = 256;
/// Rules that are counted apart in a storm; the rest is counted together.
pub const GROUPS_MAX: usize = 64;
/// Alert ids that one message names.
pub const IDS_MAX: usize = 64;
/// Dead letters kept for one receiver; the journal has them all.
pub const DEAD_MAX: usize = 1000;
/// The first wait after a failure, milliseconds; doubled each time, up to [`BACKOFF_MAX_MS`].
pub const BACKOFF_MS: u64 = 1000;
/// The longest wait, milliseconds.
pub const BACKOFF_MAX_MS: u64 = 300_000;
/// A message that could not be delivered for so long is a dead letter, milliseconds.
pub const GIVE_UP_MS: u64 = 24 * 3_600_000;
/// A storm is told at most this often, milliseconds.
pub const GROUP_MS: u64 = 15_000;

/// A receiver, as the outbox knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receiver {
    /// Its name.
    pub name: String,
    /// Alerts at least this severe.
    pub priority: Priority,
    /// Single messages a minute; more are told together.
    pub per_minute: u32,
}

/// An alert to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Offered {
    /// Deduplication key of the message, when it goes out alone.
    pub key: String,
    /// Its id.
    pub id: AlertId,
    /// Its leaf in the journal.
    pub leaf: u64,
    /// Its rule.
    pub rule: String,
    /// Its priority.
    pub priority: Priority,
    /// It, in the form in which it is told.
    pub body: Arc<str>,
}

/// Alerts of one rule, told together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The rule; empty: several.
    pub rule: String,
    /// How many.
    pub count: u64,
    /// The first.
    pub first: AlertId,
    /// The last so far.
    pub last: AlertId,
    /// The most severe.
    pub priority: Priority,
    /// The first, in the form in which it is told.
    pub sample: Arc<str>,
}

/// What is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Content {
    /// One alert.
    Alert(Arc<str>),
    /// A storm.
    Storm(Vec<Group>),
}

/// One message to one receiver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Deduplication key: the same when it is sent again.
    pub key: String,
    /// What is told.
    pub content: Content,
    /// Alerts that it names, at most [`IDS_MAX`].
    pub alerts: Vec<AlertId>,
    /// How many alerts it stands for.
    pub count: u64,
    /// Tries so far.
    pub attempts: u32,
    /// The lowest leaf that it stands for.
    pub leaf: u64,
    /// Since when it waits, milliseconds.
    pub since_ms: u64,
}

/// What a try came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tried {
    /// The receiver has it.
    Delivered,
    /// Not now; perhaps the receiver said when.
    Later {
        /// Not before so many milliseconds have passed.
        retry_after_ms: Option<u64>,
    },
    /// Never in this form.
    Refused,
}

/// A try that has ended, for the journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settled {
    /// The receiver.
    pub receiver: String,
    /// The message.
    pub message: Message,
    /// What became of it.
    pub result: DeliveryResult,
    /// As [`Outbox::settled_below`].
    pub settled_below: u64,
}

/// The queue of one receiver.
#[derive(Debug)]
struct Lane {
    receiver: Receiver,
    queue: VecDeque<Message>,
    in_flight: Option<Message>,
    groups: BTreeMap<String, Group>,
    grouped_ids: Vec<AlertId>,
    grouped_leaf: Option<u64>,
    grouped_since_ms: u64,
    /// Thousandths of messages that may go one by one.
    tokens: u64,
    filled_ms: u64,
    failures: u32,
    not_before_ms: u64,
    dead: VecDeque<Message>,
    /// One above the highest leaf offered.
    seen: u64,
}

/// All receivers.
#[derive(Debug)]
pub struct Outbox {
    lanes: Vec<Lane>,
    seed: u64,
    storms: u64,
}

impl Outbox {
    /// Nobody is told anything yet. `seed` makes the jitter.
    pub fn new(seed: u64) -> Self {
        Self {
            lanes: Vec::new(),
            seed: seed | 1,
            storms: 0,
        }
    }

    /// Takes over the receivers; what waits for one that stays goes on waiting.
    pub fn receivers(&mut self, receivers: &[Receiver], now_ms: u64) {
        let mut old = std::mem::take(&mut self.lanes);
        for receiver in receivers {
            let found = old.iter().position(|l| l.receiver.name == receiver.name);
            let mut lane = match found {
                Some(i) => old.swap_remove(i),
                None => Lane::new(receiver.clone(), now_ms),
            };
            lane.receiver = receiver.clone();
            self.lanes.push(lane);
        }
    }

    /// The receivers' names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.lanes.iter().map(|l| l.receiver.name.as_str())
    }

    /// Takes an alert for every receiver that wants it; `only`: for this one.
    pub fn offer(&mut self, alert: &Offered, only: Option<&str>, now_ms: u64) {
        for lane in &mut self.lanes {
            if only.is_none_or(|name| name == lane.receiver.name) {
                lane.offer(alert, now_ms);
            }
        }
    }

    /// The messages that go out now, each with its receiver.
    pub fn due(&mut self, now_ms: u64) -> Vec<(String, Message)> {
        let mut due = Vec::new();
        for lane in &mut self.lanes {
            if let Some(message) = lane.due(now_ms, &mut self.storms) {
                due.push((lane.receiver.name.clone(), message));
            }
        }
        due
    }

    /// When something may be due again.
    pub fn next_due(&self) -> Option<u64> {
        self.lanes.iter().filter_map(Lane::next_due).min()
    }

    /// A try has ended; `None`: nobody waits for that.
    pub fn tried(
        &mut self,
        receiver: &str,
        key: &str,
        tried: &Tried,
        now_ms: u64,
    ) -> Option<Settled> {
        let jitter = self.jitter();
        let lane = self.lane(receiver)?;
        if lane.in_flight.as_ref().is_none_or(|m| m.key != key) {
            return None;
        }
        let message = lane.in_flight.take()?;
        let result = lane.settle(&message, tried, jitter, now_ms);
        Some(Settled {
            receiver: receiver.to_owned(),
            message,
            result,
            settled_below: lane.settled_below(),
        })
    }

    /// Whoever sends has gone: what was under way counts as a failed try.
    pub fn senders_lost(&mut self, now_ms: u64) -> Vec<Settled> {
        let under_way = self.lanes.iter().filter_map(|l| {
            let message = l.in_flight.as_ref()?;
            Some((l.receiver.name.clone(), message.key.clone()))
        });
        let under_way: Vec<_> = under_way.collect();
        let later = Tried::Later {
            retry_after_ms: None,
        };
        let fail = |(name, key): (String, String)| self.tried(&name, &key, &later, now_ms);
        under_way.into_iter().filter_map(fail).collect()
    }

    /// Every alert below this leaf is delivered to that receiver or dead there.
    pub fn settled_below(&self, receiver: &str) -> Option<u64> {
        let mut lanes = self.lanes.iter();
        lanes
            .find(|l| l.receiver.name == receiver)
            .map(Lane::settled_below)
    }

    /// Dead letters, with their receivers.
    pub fn dead(&self) -> impl Iterator<Item = (&str, &Message)> {
        self.lanes.iter().flat_map(|l| {
            let name = l.receiver.name.as_str();
            l.dead.iter().map(move |m| (name, m))
        })
    }

    /// Takes over a dead letter of an earlier run.
    pub fn bury(&mut self, receiver: &str, message: Message) {
        if let Some(lane) = self.lane(receiver)
            && lane.dead.len() < DEAD_MAX
        {
            lane.dead.push_back(message);
        }
    }

    /// What waits, with its receiver: single messages and the alerts counted in storms.
    pub fn waiting(&self) -> impl Iterator<Item = (&str, u64)> {
        self.lanes.iter().map(|l| {
            let queued: u64 = l.queue.iter().chain(&l.in_flight).map(|m| m.count).sum();
            let grouped: u64 = l.groups.values().map(|g| g.count).sum();
            (l.receiver.name.as_str(), queued + grouped)
        })
    }

    /// Sends dead letters again: those with this key, or all of a receiver's. How many.
    pub fn resend(&mut self, receiver: Option<&str>, key: Option<&str>, now_ms: u64) -> usize {
        let mut count = 0;
        for lane in &mut self.lanes {
            if receiver.is_some_and(|r| r != lane.receiver.name) {
                continue;
            }
            for mut message in std::mem::take(&mut lane.dead) {
                if key.is_some_and(|k| k != message.key) || lane.queue.len() >= QUEUE_MAX {
                    lane.dead.push_back(message);
                    continue;
                }
                message.attempts = 0;
                message.since_ms = now_ms;
                lane.queue.push_back(message);
                count += 1;
            }
            lane.not_before_ms = now_ms;
        }
        count
    }

    fn lane(&mut self, receiver: &str) -> Option<&mut Lane> {
        let mut lanes = self.lanes.iter_mut();
        lanes.find(|l| l.receiver.name == receiver)
    }

    /// xorshift64*: only has to keep receivers from being asked in step.
    fn jitter(&mut self) -> u64 {
        self.seed ^= self.seed >> 12;
        self.seed ^= self.seed << 25;
        self.seed ^= self.seed >> 27;
        self.seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33
    }
}

impl Lane {
    fn new(receiver: Receiver, now_ms: u64) -> Self {
        Self {
            tokens: u64::from(receiver.per_minute) * 1000,
            receiver,
            queue: VecDeque::new(),
            in_flight: None,
            groups: BTreeMap::new(),
            grouped_ids: Vec::new(),
            grouped_leaf: None,
            grouped_since_ms: 0,
            filled_ms: now_ms,
            failures: 0,
            not_before_ms: 0,
            dead: VecDeque::new(),
            seen: 0,
        }
    }

    fn offer(&mut self, alert: &Offered, now_ms: u64) {
        self.seen = self.seen.max(alert.leaf + 1);
        if alert.priority > self.receiver.priority {
            return;
        }
        self.fill(now_ms);
        // once a storm is being counted, everything joins it: order before detail
        if self.tokens < 1000 || self.queue.len() >= QUEUE_MAX || !self.groups.is_empty() {
            return self.group(alert, now_ms);
        }
        self.tokens -= 1000;
        self.queue.push_back(Message {
            key: alert.key.clone(),
            content: Content::Alert(alert.body.clone()),
            alerts: vec![alert.id.clone()],
            count: 1,
            attempts: 0,
            leaf: alert.leaf,
            since_ms: now_ms,
        });
    }

    fn fill(&mut self, now_ms: u64) {
        let per_minute = u64::from(self.receiver.per_minute);
        let passed = now_ms.saturating_sub(self.filled_ms);
        self.filled_ms = now_ms;
        // per minute, in thousandths: ms × per_minute × 1000 / 60000
        let more = passed.saturating_mul(per_minute) / 60;
        self.tokens = (self.tokens + more).min(per_minute * 1000);
    }

    fn group(&mut self, alert: &Offered, now_ms: u64) {
        if self.groups.is_empty() {
            self.grouped_since_ms = now_ms;
        }
        self.grouped_leaf.get_or_insert(alert.leaf);
        if self.grouped_ids.len() < IDS_MAX {
            self.grouped_ids.push(alert.id.clone());
        }
        let full = self.groups.len() >= GROUPS_MAX && !self.groups.contains_key(&alert.rule);
        let rule = if full { "" } else { alert.rule.as_str() };
        let group = self.groups.entry(rule.to_owned()).or_insert_with(|| Group {
            rule: rule.to_owned(),
            count: 0,
            first: alert.id.clone(),
            last: alert.id.clone(),
            priority: alert.priority,
            sample: alert.body.clone(),
        });
        group.count += 1;
        group.last = alert.id.clone();
        group.priority = group.priority.min(alert.priority);
    }

    fn due(&mut self, now_ms: u64, storms: &mut u64) -> Option<Message> {
        if self.in_flight.is_some() || now_ms < self.not_before_ms {
            return None;
        }
        let storm_due = now_ms >= self.grouped_since_ms + GROUP_MS;
        if self.queue.is_empty() && !self.groups.is_empty() && storm_due {
            let message = self.storm(*storms, now_ms);
            *storms += 1;
            self.queue.push_back(message);
        }
        let mut message = self.queue.pop_front()?;
        message.attempts += 1;
        self.in_flight = Some(message.clone());
        Some(message)
    }

    fn storm(&mut self, number: u64, now_ms: u64) -> Message {
        let groups: Vec<Group> = std::mem::take(&mut self.groups).into_values().collect();
        let first = groups.iter().map(|g| &g.first).min();
        let key = first.map_or(String::new(), |id| format!("storm-{id}-{number}"));
        Message {
            key,
            count: groups.iter().map(|g| g.count).sum(),
            content: Content::Storm(groups),
            alerts: std::mem::take(&mut self.grouped_ids),
            attempts: 0,
            leaf: self.grouped_leaf.take().unwrap_or(self.seen),
            since_ms: now_ms,
        }
    }

    fn next_due(&self) -> Option<u64> {
        if self.in_flight.is_some() {
            return None;
        }
        let at = match (self.queue.is_empty(), self.groups.is_empty()) {
            (false, _) => 0,
            (true, false) => self.grouped_since_ms + GROUP_MS,
            (true, true) => return None,
        };
        Some(at.max(self.not_before_ms))
    }

    fn settle(
        &mut self,
        message: &Message,
        tried: &Tried,
        jitter: u64,
        now_ms: u64,
    ) -> DeliveryResult {
        match tried {
            Tried::Delivered => {
                self.failures = 0;
                self.not_before_ms = 0;
                return DeliveryResult::Delivered;
            }
            Tried::Refused => {}
            Tried::Later { retry_after_ms } => {
                self.failures = self.failures.saturating_add(1);
                let base = BACKOFF_MS
                    .saturating_mul(1 << (self.failures - 1).min(20))
                    .min(BACKOFF_MAX_MS);
                let wait = base / 2 + jitter % (base / 2 + 1);
                // a receiver may ask for patience, not for silence
                let asked = retry_after_ms.unwrap_or(0).min(3_600_000);
                self.not_before_ms = now_ms + wait.max(asked);
                if now_ms.saturating_sub(message.since_ms) < GIVE_UP_MS {
                    self.queue.push_front(message.clone());
                    return DeliveryResult::WillRetry;
                }
            }
        }
        if self.dead.len() >= DEAD_MAX {
            self.dead.pop_front();
        }
        self.dead.push_back(message.clone());
        DeliveryResult::Dead
    }

    fn settled_below(&self) -> u64 {
        let queued = self.queue.iter().chain(&self.in_flight).map(|m| m.leaf);
        queued.chain(self.grouped_leaf).min().unwrap_or(self.seen)
    }
}
