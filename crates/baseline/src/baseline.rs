//! The baseline itself: what an image in a role is known for, how well that is known, and who
//! approved what was not learned by itself.
//!
//! Promises: bounded (behaviours, pending list, approvals, instances); `version` grows with every
//! change of what is expected after learning and of the state, so that a drift frozen with
//! `(id, version)` means one thing; a ready baseline never absorbs anything silently.
//!
//! States: `Learning → Ready` by measurement ([`Baseline::refresh`]) · `Learning | Ready → Locked`
//! and back by a person · any `→ Learning` by reset.
//!
//! The slot that is open when a baseline is stored is not stored with it: after a restart that slot
//! counts as one more unit.
//!
//! Left out on purpose: storage, locks between threads, and whether the approver may approve.

use crate::alert::Novelty;
use crate::config::LearnConfig;
use crate::coverage::Coverage;
use crate::generalise::{Index, Template};
use crate::judge::{Verdict, freeze, judge};
use crate::risk::{Context, classify};
use minicbor::{Decode, Encode};
use plimsoll_model::{
    BaselineId, BaselineRef, Behaviour, BehaviourId, BehaviourKind, BootNs, Container, Drift,
    DriftClass, Instance, Observation, Risk, Stamp, Text,
};
use sha2::Digest as _;
use std::collections::{BTreeMap, HashMap, HashSet};

/// Instances whose current slot is open at once; beyond, the one that was quiet longest is closed.
pub const MAX_OPEN_INSTANCES: usize = 512;
/// Instances remembered by name.
pub const MAX_INSTANCES: usize = 256;
/// Approvals and other decisions remembered.
pub const MAX_APPROVALS: usize = 256;
/// Instances named on one pending behaviour.
pub const MAX_PENDING_INSTANCES: usize = 8;
/// Bytes kept of the name of a rule that flagged a behaviour.
const MAX_RULE_NAME_BYTES: usize = 256;
/// Examples kept on one pattern.
pub const MAX_EXAMPLES: usize = 8;

/// What a baseline is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(map)]
pub struct Key {
    /// Config digest of the image, or `name:` and its name where no digest could be found out.
    #[n(0)]
    pub image: String,
    /// Role of the container.
    #[n(1)]
    pub role: String,
}

impl Key {
    /// Key of a container; `None` while its image is not known at all.
    pub fn of(container: &Container) -> Option<Self> {
        let image = match &container.image.config_digest {
            Some(digest) => digest.as_str().to_owned(),
            None if container.image.name.is_empty() => return None,
            None => format!("name:{}", cut(&container.image.name, 512)),
        };
        Some(Self {
            image,
            role: cut(&container.role, 256),
        })
    }

    /// `B-` and the first 16 hex digits of the SHA-256 of the key.
    pub fn id(&self) -> BaselineId {
        let mut h = sha2::Sha256::new();
        h.update(b"plimsoll baseline v1\0");
        for part in [&self.image, &self.role] {
            h.update((part.len() as u32).to_be_bytes());
            h.update(part.as_bytes());
        }
        let hex: String = h.finalize()[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        BaselineId::parse(&format!("B-{hex}")).expect("hex digits are allowed in an id")
    }
}

pub(crate) fn cut(s: &str, max: usize) -> String {
    let mut end = s.len().min(max);
    while !s.is_char_boundary(end) {
        end -= 1;
    }
    s[..end].to_owned()
}

/// Where a baseline stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(index_only)]
pub enum State {
    /// Ordinary behaviour is absorbed, risky behaviour is quarantined.
    #[n(0)]
    Learning,
    /// Covered well enough: what is new is drift.
    #[n(1)]
    Ready,
    /// Frozen by a person: nothing can be approved into it.
    #[n(2)]
    Locked,
}

impl State {
    /// Name in JSON and tables.
    pub fn as_str(self) -> &'static str {
        match self {
            State::Learning => "learning",
            State::Ready => "ready",
            State::Locked => "locked",
        }
    }
}

/// One sampling unit: an instance in a slot since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(array)]
pub struct Unit {
    /// [`Instance::key`].
    #[n(0)]
    pub instance: u64,
    /// Slots since the start of the instance.
    #[n(1)]
    pub slot: u64,
}

/// A behaviour (or pattern of them) that is expected.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Expected {
    /// What is expected; its object is the pattern as people read it.
    #[n(0)]
    pub behaviour: Behaviour,
    /// Which objects it stands for.
    #[n(1)]
    pub template: Template,
    /// First seen (learned, approved or inherited).
    #[n(2)]
    pub first: Stamp,
    /// Last seen.
    #[n(3)]
    pub last: Stamp,
    /// How often; at least.
    #[n(4)]
    pub count: u64,
    /// Units in which it was present.
    #[n(5)]
    pub incidence: u64,
    /// The first such unit.
    #[n(6)]
    pub first_unit: Unit,
    /// Taken over from the predecessor's image.
    #[n(7)]
    pub inherited: bool,
    /// Let in by a person rather than learned.
    #[n(8)]
    pub approved: bool,
    /// For a pattern: objects that made it (at most 8).
    #[n(9)]
    pub examples: Vec<Text>,
    /// For a pattern: distinct objects it replaced.
    #[n(10)]
    pub members: u64,
}

/// A behaviour that waits for a person: quarantined while learning, or drift after.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Pending {
    /// What was done.
    #[n(0)]
    pub behaviour: Behaviour,
    /// Class.
    #[n(1)]
    pub class: DriftClass,
    /// Risk.
    #[n(2)]
    pub risk: Risk,
    /// Why, in words.
    #[n(3)]
    pub reason: String,
    /// First time.
    #[n(4)]
    pub first: Stamp,
    /// Last time.
    #[n(5)]
    pub last: Stamp,
    /// How often.
    #[n(6)]
    pub count: u64,
    /// It was quarantined while learning (else: drift from a ready baseline).
    #[n(7)]
    pub quarantined: bool,
    /// Instances that did it (at most 8).
    #[n(8)]
    pub instances: Vec<Instance>,
    /// The rule for whose sake it was quarantined; empty: its risk class.
    #[n(9)]
    #[cbor(default)]
    pub rule: String,
}

/// A rule's word that an observation is no example of ordinary behaviour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flag<'a> {
    /// Name of the rule.
    pub rule: &'a str,
    /// How bad it finds the act.
    pub risk: Risk,
}

/// Who decided, why and when. The agent has checked that they may.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Approval {
    /// Who.
    #[n(0)]
    pub who: String,
    /// Why, in their words.
    #[n(1)]
    pub why: String,
    /// When.
    #[n(2)]
    pub at: Stamp,
}

/// A decision as the baseline remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Decided {
    /// `approve`, `remove`, `lock`, `unlock`, `reset`.
    #[n(0)]
    pub action: String,
    /// Who, why, when.
    #[n(1)]
    pub approval: Approval,
    /// Version that it made.
    #[n(2)]
    pub version: u64,
    /// How many behaviours it was about.
    #[n(3)]
    pub behaviours: u64,
}

/// The baseline that this one grew out of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lineage {
    /// Predecessor and its version at that moment.
    #[n(0)]
    pub predecessor: BaselineRef,
    /// Image of the predecessor.
    #[n(1)]
    pub image: String,
    /// When.
    #[n(2)]
    pub at: Stamp,
}

/// Which behaviours a decision is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Select {
    /// These.
    Ids(Vec<BehaviourId>),
    /// Everything that waits.
    AllPending,
}

/// A change worth a journal entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Learning → ready, with the statement of coverage.
    Ready {
        /// New version.
        version: u64,
        /// `99.3 % covered …`.
        statement: String,
    },
    /// A decision was carried out.
    Decided(Decided),
}

/// A decision that cannot be carried out.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecideError {
    /// Locked baselines change only by unlocking.
    #[error("baseline {id} is locked since version {version}: unlock it first")]
    Locked {
        /// Which.
        id: BaselineId,
        /// Version.
        version: u64,
    },
    /// It is not locked.
    #[error("baseline {id} is not locked")]
    NotLocked {
        /// Which.
        id: BaselineId,
    },
    /// Nothing matched.
    #[error("baseline {id} has none of the behaviours that were named")]
    NoSuchBehaviour {
        /// Which.
        id: BaselineId,
    },
    /// It would hold too many.
    #[error("baseline {id} would hold more than {max} behaviours")]
    Full {
        /// Which.
        id: BaselineId,
        /// Bound.
        max: u32,
    },
}

/// Whether a baseline is, or could be, ready.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readiness {
    /// Nothing is missing.
    pub ready: bool,
    /// What is missing, each in words ("needs 1 more start").
    pub unmet: Vec<String>,
    /// What to know even so (hours not yet seen, quarantine waiting).
    pub notes: Vec<String>,
}

/// An instance that contributed.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct SeenInstance {
    /// Which.
    #[n(0)]
    pub instance: Instance,
    /// First observation.
    #[n(1)]
    pub first: Stamp,
    /// Last observation.
    #[n(2)]
    pub last: Stamp,
    /// Its start was observed.
    #[n(3)]
    pub from_start: bool,
}

/// What is stored. Numbers are never reused.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub(crate) struct Content {
    #[n(0)]
    pub(crate) key: Key,
    #[n(1)]
    pub(crate) image_name: String,
    #[n(2)]
    pub(crate) repository: Option<String>,
    #[n(3)]
    pub(crate) version: u64,
    #[n(4)]
    pub(crate) state: State,
    #[n(5)]
    pub(crate) config: LearnConfig,
    #[n(6)]
    pub(crate) entries: Vec<Option<Expected>>,
    #[n(7)]
    pub(crate) pending: Vec<Pending>,
    #[n(8)]
    pub(crate) decisions: Vec<Decided>,
    #[n(9)]
    pub(crate) lineage: Option<Lineage>,
    #[n(10)]
    pub(crate) created: Stamp,
    #[n(11)]
    pub(crate) instances: Vec<SeenInstance>,
    #[n(12)]
    pub(crate) instances_total: u64,
    #[n(13)]
    pub(crate) starts: u64,
    #[n(14)]
    pub(crate) units: u64,
    #[n(15)]
    pub(crate) startup_units: u64,
    #[n(16)]
    pub(crate) steady_units: u64,
    #[n(17)]
    pub(crate) hours: Hours,
    #[n(18)]
    pub(crate) saturated: u64,
    #[n(19)]
    pub(crate) pending_dropped: u64,
    #[n(20)]
    pub(crate) ready_since: Option<Stamp>,
    #[n(21)]
    pub(crate) updated: Stamp,
}

/// What an image in a role is known for.
#[derive(Clone, Debug)]
pub struct Baseline {
    pub(crate) content: Content,
    pub(crate) index: Index,
    id: BaselineId,
    open: HashMap<Instance, OpenUnit>,
    /// Incidences kept up to date, so that coverage costs nothing to ask for.
    tallies: BTreeMap<BehaviourKind, Coverage>,
    /// Where a behaviour stands in the pending list.
    parked: HashMap<Behaviour, usize>,
    /// (parent, child) programs of pending execs: what they do is not learned either.
    parked_pairs: HashSet<(Text, Text)>,
    /// What waits for approval because a rule flagged it: it is not known, whatever covers it.
    flagged: HashSet<Behaviour>,
    revision: u64,
}

/// Two baselines are equal when they would be stored as the same bytes.
impl PartialEq for Baseline {
    fn eq(&self, other: &Self) -> bool {
        self.content == other.content
    }
}

/// The slot that is being sampled for one instance.
#[derive(Clone, Debug)]
struct OpenUnit {
    unit: Unit,
    active: bool,
    present: HashSet<u32>,
    last: BootNs,
}

/// Calendar hours seen, 24 × 7, UTC, Monday first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Encode, Decode)]
#[cbor(transparent)]
pub struct Hours(#[cbor(n(0), with = "minicbor::bytes")] pub(crate) [u8; 21]);

impl Hours {
    pub(crate) fn note(&mut self, at: Stamp) {
        let hour = at.wall.0.div_euclid(3_600_000_000_000);
        // 1970-01-01 was a Thursday
        let slot = (hour + 3 * 24).rem_euclid(168) as usize;
        self.0[slot / 8] |= 1 << (slot % 8);
    }

    pub(crate) fn add(&mut self, other: &Hours) {
        self.0.iter_mut().zip(other.0).for_each(|(a, b)| *a |= b);
    }

    fn has(&self, day: usize, hour: usize) -> bool {
        let slot = day * 24 + hour;
        self.0[slot / 8] >> (slot % 8) & 1 == 1
    }

    /// How many of the 168 hours of a week.
    pub fn count(&self) -> u32 {
        self.0.iter().map(|b| b.count_ones()).sum()
    }

    /// In words: `Mon 08-18, Tue 00-24 UTC (34 of 168 hours)`.
    pub fn words(&self) -> String {
        const DAYS: [&str; 7] = ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"];
        let days: Vec<String> = (0..7)
            .filter_map(|d| Some(format!("{} {}", DAYS[d], self.day(d)?)))
            .collect();
        match self.count() {
            0 => "no hour of the week yet".to_owned(),
            168 => "every hour of the week".to_owned(),
            n => format!("{} UTC ({n} of 168 hours)", days.join(", ")),
        }
    }

    fn day(&self, day: usize) -> Option<String> {
        let mut runs: Vec<(usize, usize)> = Vec::new();
        for hour in (0..24).filter(|&h| self.has(day, h)) {
            match runs.last_mut() {
                Some((_, end)) if *end == hour => *end += 1,
                _ => runs.push((hour, hour + 1)),
            }
        }
        let words: Vec<String> = runs.iter().map(|(a, b)| format!("{a:02}-{b:02}")).collect();
        (!words.is_empty()).then(|| words.join("+"))
    }
}

impl Baseline {
    /// An empty baseline that starts to learn.
    pub fn new(key: Key, container: &Container, config: LearnConfig, at: Stamp) -> Self {
        Self::from_content(Content {
            key,
            image_name: cut(&container.image.name, 512),
            repository: repository(container),
            version: 1,
            state: State::Learning,
            config: config.checked(),
            entries: Vec::new(),
            pending: Vec::new(),
            decisions: Vec::new(),
            lineage: None,
            created: at,
            instances: Vec::new(),
            instances_total: 0,
            starts: 0,
            units: 0,
            startup_units: 0,
            steady_units: 0,
            hours: Hours::default(),
            saturated: 0,
            pending_dropped: 0,
            ready_since: None,
            updated: at,
        })
    }

    /// A baseline for another image of the same repository: starts learning, knows what this one
    /// knows (marked inherited; none of it counts as seen), and says where it came from.
    pub fn successor(&self, key: Key, container: &Container, at: Stamp) -> Self {
        let mut next = Self::new(key, container, self.content.config.clone(), at);
        next.content.lineage = Some(Lineage {
            predecessor: self.reference(),
            image: self.content.image_name.clone(),
            at,
        });
        next.content.entries = self.expected().map(|(_, e)| Some(inherit(e))).collect();
        next.rebuild();
        next
    }

    pub(crate) fn from_content(content: Content) -> Self {
        let mut b = Self {
            id: content.key.id(),
            content,
            index: Index::default(),
            open: HashMap::new(),
            tallies: BTreeMap::new(),
            parked: HashMap::new(),
            parked_pairs: HashSet::new(),
            flagged: HashSet::new(),
            revision: 0,
        };
        b.rebuild();
        b
    }

    pub(crate) fn rebuild(&mut self) {
        self.index = Index::build(&self.content.entries);
        self.tallies.clear();
        let all: Vec<(BehaviourKind, u64)> = self
            .expected()
            .map(|(_, e)| (e.behaviour.kind, e.incidence))
            .collect();
        for (kind, incidence) in all {
            self.retally(kind, 0, incidence);
        }
        self.revision += 1;
        self.reindex_pending();
    }

    fn reindex_pending(&mut self) {
        self.parked.clear();
        self.parked_pairs.clear();
        self.flagged.clear();
        for (at, p) in self.content.pending.iter().enumerate() {
            self.parked.insert(p.behaviour.clone(), at);
            self.parked_pairs.extend(pair(&p.behaviour));
            if !p.rule.is_empty() {
                self.flagged.insert(p.behaviour.clone());
            }
        }
    }

    /// Grows whenever what is expected changes, so that a kernel dictionary made of it can be
    /// renewed. Only for comparing within one run: it is not stored.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// Stable over versions.
    pub fn id(&self) -> &BaselineId {
        &self.id
    }
    /// Image and role.
    pub fn key(&self) -> &Key {
        &self.content.key
    }
    /// Name of the image when the baseline began.
    pub fn image_name(&self) -> &str {
        &self.content.image_name
    }
    /// Repository, by which the next image finds its predecessor.
    pub fn repository(&self) -> Option<&str> {
        self.content.repository.as_deref()
    }
    /// From 1.
    pub fn version(&self) -> u64 {
        self.content.version
    }
    /// Id and version.
    pub fn reference(&self) -> BaselineRef {
        BaselineRef {
            id: self.id.clone(),
            version: self.content.version,
        }
    }
    /// Learning, ready or locked.
    pub fn state(&self) -> State {
        self.content.state
    }
    /// Knobs in force.
    pub fn config(&self) -> &LearnConfig {
        &self.content.config
    }
    /// When it began.
    pub fn created(&self) -> Stamp {
        self.content.created
    }
    /// When something was last added to it.
    pub fn updated(&self) -> Stamp {
        self.content.updated
    }
    /// When it became ready.
    pub fn ready_since(&self) -> Option<Stamp> {
        self.content.ready_since
    }
    /// Predecessor.
    pub fn lineage(&self) -> Option<&Lineage> {
        self.content.lineage.as_ref()
    }
    /// What is expected, with its stable number.
    pub fn expected(&self) -> impl Iterator<Item = (u32, &Expected)> {
        let numbered = self.content.entries.iter().enumerate();
        numbered.filter_map(|(i, e)| Some((i as u32, e.as_ref()?)))
    }
    /// One expected behaviour by its number.
    pub fn entry(&self, index: u32) -> Option<&Expected> {
        self.content.entries.get(index as usize)?.as_ref()
    }
    /// How many numbers were ever given: one more than the highest.
    pub fn index_len(&self) -> u32 {
        self.content.entries.len() as u32
    }
    /// The number of the entry that covers a behaviour.
    pub fn find(&self, behaviour: &Behaviour) -> Option<u32> {
        self.index.find(behaviour)
    }
    /// What waits for a person.
    pub fn pending(&self) -> &[Pending] {
        &self.content.pending
    }
    /// Decisions, oldest first (at most 256).
    pub fn decisions(&self) -> &[Decided] {
        &self.content.decisions
    }
    /// Instances that contributed, newest last (at most 256), and how many there were.
    pub fn instances(&self) -> (&[SeenInstance], u64) {
        (&self.content.instances, self.content.instances_total)
    }
    /// Starts observed from the first instruction.
    pub fn starts(&self) -> u64 {
        self.content.starts
    }
    /// Active units of the start-up and of the steady phase.
    pub fn phases(&self) -> (u64, u64) {
        (self.content.startup_units, self.content.steady_units)
    }
    /// Hours of the week seen.
    pub fn hours(&self) -> &Hours {
        &self.content.hours
    }
    /// Behaviours not learned because the baseline was full.
    pub fn saturated(&self) -> u64 {
        self.content.saturated
    }
    /// Pending behaviours dropped because that list was full.
    pub fn pending_dropped(&self) -> u64 {
        self.content.pending_dropped
    }

    /// Whether a pending behaviour was also seen in another instance.
    pub fn novelty(&self, behaviour: &Behaviour, instance: &Instance) -> Novelty {
        let pending = self
            .parked
            .get(behaviour)
            .map(|&at| &self.content.pending[at]);
        match pending.is_some_and(|p| p.instances.iter().any(|i| i != instance)) {
            true => Novelty::Elsewhere,
            false => Novelty::First,
        }
    }

    /// Whether a drift of this instance by the same program or object waits for a person already, whoever
    /// began it: then it was told.
    pub fn has_told(&self, drift: &Drift) -> bool {
        let b = &drift.behaviour;
        let arguments = b.kind == BehaviourKind::Arguments;
        self.content.pending.iter().any(|p| {
            p.behaviour.kind == b.kind
                && (p.behaviour.object == b.object || arguments)
                && p.instances.contains(&drift.instance)
        })
    }

    /// Coverage over all dimensions.
    pub fn coverage(&self) -> Coverage {
        let mut all = Coverage {
            units: self.content.units,
            ..Coverage::default()
        };
        for c in self.tallies.values() {
            all.incidences += c.incidences;
            all.seen += c.seen;
            all.uniques += c.uniques;
            all.duplicates += c.duplicates;
        }
        all
    }

    /// Coverage of each dimension in which anything was seen.
    pub fn coverage_by_kind(&self) -> Vec<(BehaviourKind, Coverage)> {
        let units = self.content.units;
        let one = |(&kind, &c): (&BehaviourKind, &Coverage)| (kind, Coverage { units, ..c });
        self.tallies
            .iter()
            .filter(|(_, c)| c.seen > 0)
            .map(one)
            .collect()
    }

    /// `99.3 % covered over 1440 units, about 2 new behaviours a day expected`.
    pub fn statement(&self) -> String {
        self.coverage().statement(self.content.config.slot_seconds)
    }

    /// What is missing until it is ready, in words.
    pub fn readiness(&self) -> Readiness {
        let (c, config) = (&self.content, &self.content.config);
        let mut unmet = Vec::new();
        let coverage = self.coverage();
        if coverage.permille() < config.min_coverage_permille {
            let (is, need) = (coverage.permille(), config.min_coverage_permille);
            let tenths = |p: u32| format!("{}.{}", p / 10, p % 10);
            unmet.push(format!(
                "is {} % covered, needs {} %",
                tenths(is),
                tenths(need)
            ));
        }
        missing(&mut unmet, config.min_starts, c.starts, "start");
        missing(
            &mut unmet,
            1,
            c.startup_units,
            "time slot of the start-up phase",
        );
        missing(
            &mut unmet,
            config.min_steady_slots,
            c.steady_units,
            "time slot of the steady phase",
        );
        missing(
            &mut unmet,
            config.min_units,
            c.units,
            "time slot altogether",
        );
        if c.saturated > 0 {
            let max = config.max_behaviours;
            unmet.push(format!("is too variable: more than {max} behaviours"));
        }
        Readiness {
            ready: unmet.is_empty(),
            unmet,
            notes: self.notes(),
        }
    }

    fn notes(&self) -> Vec<String> {
        let mut notes = Vec::new();
        let hours = &self.content.hours;
        if hours.count() < 168 {
            notes.push(format!(
                "seen at {}; what runs at other hours is unknown",
                hours.words()
            ));
        }
        let inherited = self
            .expected()
            .filter(|(_, e)| e.inherited && e.incidence == 0);
        match inherited.count() {
            0 => {}
            n => notes.push(format!(
                "{n} behaviours are inherited and not yet seen in this image"
            )),
        }
        match self.content.pending.len() {
            0 => {}
            1 => notes.push("1 behaviour waits for approval".to_owned()),
            n => notes.push(format!("{n} behaviours wait for approval")),
        }
        if self.content.pending_dropped > 0 {
            let n = self.content.pending_dropped;
            notes.push(format!(
                "{n} pending behaviours were dropped: the list was full"
            ));
        }
        notes
    }

    /// Judges an observation and takes it in: known behaviour is counted, ordinary new behaviour is
    /// learned while learning, everything else is kept pending and returned as drift.
    pub fn observe(
        &mut self,
        obs: &Observation,
        container: &Container,
        behaviours: &[Behaviour],
    ) -> Verdict {
        self.observe_flagged(obs, container, behaviours, None)
    }

    /// The same of an observation that a rule may have flagged: what of it is not known is not
    /// learned then, but waits for approval. A drift comes of it only where its risk class says so;
    /// the alert is the rule's.
    pub fn observe_flagged(
        &mut self,
        obs: &Observation,
        container: &Container,
        behaviours: &[Behaviour],
        flag: Option<Flag<'_>>,
    ) -> Verdict {
        let mut verdict = judge(obs, container, Some(self), behaviours);
        let instance = &container.instance;
        self.enter(instance, !container.found_running, obs.at);
        for &i in &verdict.known {
            self.touch(i, obs.at, obs.count, instance);
        }
        for at in std::mem::take(&mut verdict.learnable) {
            let b = &behaviours[at];
            if flag.is_some() || self.is_flagged(b) {
                self.park_flagged(obs, container, b, flag);
                verdict.flagged += 1;
                continue;
            }
            match self.absorb(b, obs.at, obs.count, instance) {
                Some(i) => verdict.learned.push(i),
                None => verdict.saturated += 1,
            }
        }
        for drift in &verdict.drifts {
            self.park(drift, obs.count);
        }
        verdict
    }

    /// A container of this image started. Also called by [`Baseline::observe`] on first sight.
    pub fn note_start(&mut self, container: &Container, at: Stamp) {
        self.enter(&container.instance, !container.found_running, at);
    }

    /// An instance was alive and watched at this time: its slot is a unit even when it was idle.
    pub fn note_alive(&mut self, container: &Container, at: Stamp) {
        self.enter(&container.instance, !container.found_running, at);
    }

    /// Known behaviours that the kernel counted for an instance in the slot around `at`, by their
    /// numbers. Numbers that are gone are ignored.
    pub fn note_presence(&mut self, container: &Container, at: Stamp, counts: &[(u32, u64)]) {
        self.enter(&container.instance, !container.found_running, at);
        for &(i, n) in counts.iter().filter(|(_, n)| *n > 0) {
            self.touch(i, at, n, &container.instance);
        }
    }

    /// An instance is gone: its open slot is closed.
    pub fn note_gone(&mut self, instance: &Instance) {
        self.open.remove(instance);
    }

    /// Looks whether learning is complete; call once a slot. Returns the step to ready, once.
    pub fn refresh(&mut self, at: Stamp) -> Option<Change> {
        if self.content.state != State::Learning || !self.readiness().ready {
            return None;
        }
        self.content.state = State::Ready;
        self.content.ready_since = Some(at);
        self.content.version += 1;
        Some(Change::Ready {
            version: self.content.version,
            statement: self.statement(),
        })
    }

    /// Lets pending behaviours in.
    ///
    /// # Errors
    /// When it is locked, full, or none of them waits.
    pub fn approve(&mut self, select: &Select, approval: Approval) -> Result<Change, DecideError> {
        self.check_unlocked()?;
        let chosen = |p: &Pending| match select {
            Select::AllPending => true,
            Select::Ids(ids) => ids.contains(&p.behaviour.id()),
        };
        let (chosen, kept): (Vec<_>, Vec<_>) =
            self.content.pending.iter().cloned().partition(chosen);
        if chosen.is_empty() {
            return Err(DecideError::NoSuchBehaviour {
                id: self.id.clone(),
            });
        }
        self.check_room(chosen.len())?;
        self.content.pending = kept;
        let n = chosen.len() as u64;
        for p in chosen {
            self.admit(p.behaviour, p.first, p.last, p.count);
        }
        self.reindex_pending();
        Ok(self.decided("approve", approval, n))
    }

    /// Lets behaviours in that are not on the pending list (from an older drift in the journal).
    ///
    /// # Errors
    /// When it is locked or full, or nothing was named.
    pub fn approve_behaviours(
        &mut self,
        behaviours: &[Behaviour],
        approval: Approval,
    ) -> Result<Change, DecideError> {
        self.check_unlocked()?;
        if behaviours.is_empty() {
            return Err(DecideError::NoSuchBehaviour {
                id: self.id.clone(),
            });
        }
        self.check_room(behaviours.len())?;
        for b in behaviours {
            self.admit(b.clone(), approval.at, approval.at, 0);
            self.content.pending.retain(|p| p.behaviour != *b);
        }
        self.reindex_pending();
        Ok(self.decided("approve", approval, behaviours.len() as u64))
    }

    /// Takes behaviours (expected or pending) out.
    ///
    /// # Errors
    /// When it is locked or has none of them.
    pub fn remove(
        &mut self,
        ids: &[BehaviourId],
        approval: Approval,
    ) -> Result<Change, DecideError> {
        self.check_unlocked()?;
        let before = self.content.pending.len();
        self.content
            .pending
            .retain(|p| !ids.contains(&p.behaviour.id()));
        let mut n = (before - self.content.pending.len()) as u64;
        let named: Vec<u32> = self
            .expected()
            .filter(|(_, e)| ids.contains(&e.behaviour.id()))
            .map(|(i, _)| i)
            .collect();
        for i in named {
            self.take_out(i);
            n += 1;
        }
        if n == 0 {
            return Err(DecideError::NoSuchBehaviour {
                id: self.id.clone(),
            });
        }
        // families and neighbours still name what was taken out
        self.rebuild();
        Ok(self.decided("remove", approval, n))
    }

    /// Freezes it: nothing can be approved into it until it is unlocked.
    ///
    /// # Errors
    /// When it is locked already.
    pub fn lock(&mut self, approval: Approval) -> Result<Change, DecideError> {
        self.check_unlocked()?;
        self.content.state = State::Locked;
        Ok(self.decided("lock", approval, 0))
    }

    /// Goes back to ready, or to learning if it never was ready.
    ///
    /// # Errors
    /// When it is not locked.
    pub fn unlock(&mut self, approval: Approval) -> Result<Change, DecideError> {
        if self.content.state != State::Locked {
            return Err(DecideError::NotLocked {
                id: self.id.clone(),
            });
        }
        self.content.state = match self.content.ready_since {
            Some(_) => State::Ready,
            None => State::Learning,
        };
        Ok(self.decided("unlock", approval, 0))
    }

    /// Forgets everything learned and starts again; decisions and lineage stay.
    ///
    /// # Errors
    /// When it is locked.
    pub fn reset(&mut self, approval: Approval) -> Result<Change, DecideError> {
        self.check_unlocked()?;
        let n = self.index.len() as u64;
        let old = &self.content;
        let content = Content {
            key: old.key.clone(),
            image_name: old.image_name.clone(),
            repository: old.repository.clone(),
            version: old.version,
            state: State::Learning,
            config: old.config.clone(),
            entries: Vec::new(),
            pending: Vec::new(),
            decisions: old.decisions.clone(),
            lineage: old.lineage.clone(),
            created: approval.at,
            instances: Vec::new(),
            instances_total: 0,
            starts: 0,
            units: 0,
            startup_units: 0,
            steady_units: 0,
            hours: Hours::default(),
            saturated: 0,
            pending_dropped: 0,
            ready_since: None,
            updated: approval.at,
        };
        *self = Self::from_content(content);
        Ok(self.decided("reset", approval, n))
    }

    /// Other knobs from now on. Slots of another length would not be comparable, so
    /// `slot_seconds` changes only while nothing was sampled. Returns whether all were taken.
    pub fn set_config(&mut self, config: LearnConfig) -> bool {
        let old = self.content.config.slot_seconds;
        let mut config = config.checked();
        let taken = config.slot_seconds == old || self.content.units == 0;
        if !taken {
            config.slot_seconds = old;
        }
        self.content.config = config;
        taken
    }

    /// Whether a program is known to listen on a port here.
    pub fn is_listener(&self, program: &Text) -> bool {
        self.index.is_listener(program)
    }

    /// Whether a parent is expected to start a child program.
    pub fn knows_pair(&self, parent: &Text, child: &Text) -> bool {
        self.index.knows_pair(parent, child)
    }

    /// Whether a parent starting this child waits for approval (so that what the child does must
    /// not be learned).
    pub(crate) fn is_parked_pair(&self, parent: &Text, child: &Text) -> bool {
        // most baselines have nothing parked: do not build a key for that
        !self.parked_pairs.is_empty()
            && self.parked_pairs.contains(&(parent.clone(), child.clone()))
    }

    /// Whether it waits for approval because a rule flagged it.
    pub(crate) fn is_flagged(&self, b: &Behaviour) -> bool {
        // hardly any baseline has one: do not hash for that
        !self.flagged.is_empty() && self.flagged.contains(b)
    }

    /// Keeps what a rule flagged while learning for a person to decide on. Its alert is the rule's;
    /// a repeat that no rule flags is counted and not learned either.
    fn park_flagged(
        &mut self,
        obs: &Observation,
        container: &Container,
        b: &Behaviour,
        flag: Option<Flag<'_>>,
    ) {
        let context = Context {
            container,
            baseline: Some(self),
        };
        let class = classify(obs, b, &context);
        let mut drift = freeze(obs, &context, b, class);
        if let Some(flag) = flag {
            drift.risk = drift.risk.max(flag.risk);
            drift.reason = format!("flagged by the rule \"{}\"", flag.rule);
        }
        self.park(&drift, obs.count);
        let Some(&at) = self.parked.get(b) else {
            // no room for it: counted as dropped
            return;
        };
        if let Some(flag) = flag {
            self.content.pending[at].rule = cut(flag.rule, MAX_RULE_NAME_BYTES);
            self.flagged.insert(b.clone());
        }
    }

    fn check_unlocked(&self) -> Result<(), DecideError> {
        if self.content.state == State::Locked {
            let (id, version) = (self.id.clone(), self.content.version);
            return Err(DecideError::Locked { id, version });
        }
        Ok(())
    }

    fn check_room(&self, more: usize) -> Result<(), DecideError> {
        let max = self.content.config.max_behaviours;
        if self.index.len() + more > max as usize {
            let id = self.id.clone();
            return Err(DecideError::Full { id, max });
        }
        Ok(())
    }

    fn decided(&mut self, action: &str, approval: Approval, behaviours: u64) -> Change {
        self.content.version += 1;
        self.content.updated = approval.at;
        let decided = Decided {
            action: action.to_owned(),
            approval: Approval {
                who: cut(&approval.who, 256),
                why: cut(&approval.why, 1024),
                at: approval.at,
            },
            version: self.content.version,
            behaviours,
        };
        let list = &mut self.content.decisions;
        if list.len() >= MAX_APPROVALS {
            list.remove(0);
        }
        list.push(decided.clone());
        Change::Decided(decided)
    }

    /// Opens the unit that an instance is in, and counts the instance, when they are new.
    fn enter(&mut self, instance: &Instance, from_start: bool, at: Stamp) {
        let slot_ns = u64::from(self.content.config.slot_seconds) * 1_000_000_000;
        let slot = at.boot.0.saturating_sub(instance.start.0) / slot_ns;
        if let Some(open) = self.open.get_mut(instance) {
            open.last = open.last.max(at.boot);
            // late events belong to the slot that is open
            if slot <= open.unit.slot {
                return;
            }
        }
        self.note_instance(instance, from_start, at);
        self.open_unit(instance, slot, at);
    }

    fn open_unit(&mut self, instance: &Instance, slot: u64, at: Stamp) {
        if self.open.len() >= MAX_OPEN_INSTANCES && !self.open.contains_key(instance) {
            let quiet = self.open.iter().min_by_key(|(k, o)| (o.last, (*k).clone()));
            if let Some(k) = quiet.map(|(k, _)| k.clone()) {
                self.open.remove(&k);
            }
        }
        let unit = Unit {
            instance: instance.key(),
            slot,
        };
        self.content.units += 1;
        self.content.hours.note(at);
        self.open.insert(
            instance.clone(),
            OpenUnit {
                unit,
                active: false,
                present: HashSet::new(),
                last: at.boot,
            },
        );
    }

    fn note_instance(&mut self, instance: &Instance, from_start: bool, at: Stamp) {
        let known = self
            .content
            .instances
            .iter_mut()
            .rev()
            .find(|s| s.instance == *instance);
        if let Some(seen) = known {
            seen.last = at;
            return;
        }
        self.content.instances_total += 1;
        self.content.starts += u64::from(from_start);
        if self.content.instances.len() >= MAX_INSTANCES {
            self.content.instances.remove(0);
        }
        self.content.instances.push(SeenInstance {
            instance: instance.clone(),
            first: at,
            last: at,
            from_start,
        });
    }

    /// Marks the open unit of an instance as active, in its phase, and as holding an entry.
    /// Returns the unit when the entry was not yet present in it.
    fn mark(&mut self, instance: &Instance, i: u32) -> Option<Unit> {
        let open = self.open.get_mut(instance)?;
        if !open.active {
            open.active = true;
            let age = open.unit.slot * u64::from(self.content.config.slot_seconds);
            let steady = age >= u64::from(self.content.config.startup_seconds);
            self.content.steady_units += u64::from(steady);
            self.content.startup_units += u64::from(!steady);
        }
        open.present.insert(i).then_some(open.unit)
    }

    /// Counts a known behaviour.
    fn touch(&mut self, i: u32, at: Stamp, count: u64, instance: &Instance) {
        if self.entry(i).is_none() {
            return;
        }
        let unit = self.mark(instance, i);
        let Some(e) = self.content.entries[i as usize].as_mut() else {
            return;
        };
        e.count = e.count.saturating_add(count.max(1));
        e.last = at;
        let Some(unit) = unit else {
            return;
        };
        if e.incidence == 0 {
            e.first_unit = unit;
        }
        let (kind, before) = (e.behaviour.kind, e.incidence);
        e.incidence += 1;
        self.retally(kind, before, before + 1);
    }

    /// Learns a new behaviour; `None` when the baseline is full.
    fn absorb(&mut self, b: &Behaviour, at: Stamp, count: u64, instance: &Instance) -> Option<u32> {
        if let Some(i) = self.index.find(b) {
            // the same behaviour twice in one observation
            self.touch(i, at, count, instance);
            return Some(i);
        }
        if self.index.len() >= self.content.config.max_behaviours as usize {
            self.content.saturated += 1;
            return None;
        }
        let i = self.insert(b.clone(), at, at);
        self.touch(i, at, count, instance);
        self.content.updated = at;
        Some(self.try_generalise(b, at).unwrap_or(i))
    }

    fn insert(&mut self, behaviour: Behaviour, first: Stamp, last: Stamp) -> u32 {
        let i = self.content.entries.len() as u32;
        let e = Expected {
            behaviour,
            template: Template::Exact,
            first,
            last,
            count: 0,
            incidence: 0,
            first_unit: Unit::default(),
            inherited: false,
            approved: false,
            examples: Vec::new(),
            members: 1,
        };
        self.index.add(i, &e);
        self.content.entries.push(Some(e));
        self.revision += 1;
        i
    }

    /// Approved behaviour is expected, though it was not sampled.
    fn admit(&mut self, b: Behaviour, first: Stamp, last: Stamp, count: u64) {
        if self.index.find(&b).is_some() {
            return;
        }
        let i = self.insert(b, first, last);
        if let Some(e) = self.content.entries[i as usize].as_mut() {
            e.approved = true;
            e.count = count;
        }
    }

    /// Replaces siblings by the pattern that they complete.
    fn try_generalise(&mut self, b: &Behaviour, at: Stamp) -> Option<u32> {
        let entries = &self.content.entries;
        let (template, object, members) = self.index.completed(b, entries, &self.content.config)?;
        let parts: Vec<Expected> = members.iter().filter_map(|&i| self.take_out(i)).collect();
        let mut behaviour = b.clone();
        behaviour.object = object;
        let i = self.insert(behaviour, at, at);
        let pattern = pattern(parts, template, self.entry(i)?.behaviour.clone());
        let (kind, incidence) = (pattern.behaviour.kind, pattern.incidence);
        self.content.entries[i as usize] = Some(pattern);
        self.retally(kind, 0, incidence);
        // whoever was present in an open slot is present there as the pattern
        for open in self.open.values_mut() {
            if members.iter().any(|m| open.present.remove(m)) {
                open.present.insert(i);
            }
        }
        Some(i)
    }

    fn take_out(&mut self, i: u32) -> Option<Expected> {
        let e = self.content.entries[i as usize].take()?;
        self.index.remove(&e.behaviour);
        self.retally(e.behaviour.kind, e.incidence, 0);
        Some(e)
    }

    /// Moves one behaviour from one incidence to another in the running tallies.
    fn retally(&mut self, kind: BehaviourKind, before: u64, after: u64) {
        let c = self.tallies.entry(kind).or_default();
        c.incidences = c.incidences + after - before;
        c.seen = c.seen + u64::from(after > 0) - u64::from(before > 0);
        c.uniques = c.uniques + u64::from(after == 1) - u64::from(before == 1);
        c.duplicates = c.duplicates + u64::from(after == 2) - u64::from(before == 2);
    }

    /// Keeps a drift for a person to decide on.
    fn park(&mut self, drift: &Drift, count: u64) {
        if let Some(&at) = self.parked.get(&drift.behaviour) {
            let p = &mut self.content.pending[at];
            p.count = p.count.saturating_add(count.max(1));
            p.last = drift.last;
            p.risk = p.risk.max(drift.risk);
            if p.instances.len() < MAX_PENDING_INSTANCES && !p.instances.contains(&drift.instance) {
                p.instances.push(drift.instance.clone());
            }
            return;
        }
        if self.content.pending.len() >= self.content.config.max_pending as usize {
            self.content.pending_dropped += 1;
            return;
        }
        let at = self.content.pending.len();
        self.parked.insert(drift.behaviour.clone(), at);
        self.parked_pairs.extend(pair(&drift.behaviour));
        self.content.pending.push(Pending {
            behaviour: drift.behaviour.clone(),
            class: drift.class,
            risk: drift.risk,
            reason: drift.reason.clone(),
            first: drift.first,
            last: drift.last,
            count: count.max(1),
            quarantined: drift.quarantined,
            instances: vec![drift.instance.clone()],
            rule: String::new(),
        });
    }
}

fn repository(container: &Container) -> Option<String> {
    if let Some(r) = &container.image.repository {
        return Some(cut(r, 512));
    }
    let name = container.image.name.split('@').next().unwrap_or_default();
    let slash = name.rfind('/').map_or(0, |i| i + 1);
    let end = name[slash..].find(':').map_or(name.len(), |i| slash + i);
    let repository = &name[..end];
    (!repository.is_empty() && !repository.starts_with("sha256")).then(|| cut(repository, 512))
}

/// Parent and child program of an exec.
fn pair(b: &Behaviour) -> Option<(Text, Text)> {
    let exec = b.kind == BehaviourKind::Exec;
    exec.then(|| (b.program.clone(), crate::generalise::exec_program(b)))
}

fn inherit(e: &Expected) -> Expected {
    Expected {
        count: 0,
        incidence: 0,
        first_unit: Unit::default(),
        inherited: true,
        ..e.clone()
    }
}

fn missing(unmet: &mut Vec<String>, need: u32, have: u64, what: &str) {
    let lack = u64::from(need).saturating_sub(have);
    match lack {
        0 => {}
        1 => unmet.push(format!("needs 1 more {what}")),
        n => {
            let (first, rest) = what.split_once(" of ").unwrap_or((what, ""));
            let (first, tail) = first
                .strip_suffix(" altogether")
                .map_or((first, ""), |f| (f, " altogether"));
            let rest = if rest.is_empty() {
                String::new()
            } else {
                format!(" of {rest}")
            };
            unmet.push(format!("needs {n} more {first}s{rest}{tail}"));
        }
    }
}

/// A pattern out of its members. Its incidence is the number of distinct units in which members
/// were first seen: never more than the truth, so that generalising never flatters the coverage.
fn pattern(parts: Vec<Expected>, template: Template, behaviour: Behaviour) -> Expected {
    let units: HashSet<Unit> = parts
        .iter()
        .filter(|p| p.incidence > 0)
        .map(|p| p.first_unit)
        .collect();
    let most = parts.iter().map(|p| p.incidence).max().unwrap_or(0);
    let mut examples: Vec<Text> = Vec::new();
    for p in &parts {
        let own = std::slice::from_ref(&p.behaviour.object);
        examples.extend_from_slice(if p.examples.is_empty() {
            own
        } else {
            &p.examples
        });
    }
    examples.truncate(MAX_EXAMPLES);
    Expected {
        behaviour,
        template,
        first: parts
            .iter()
            .map(|p| p.first)
            .min_by_key(|s| s.wall)
            .unwrap_or_default(),
        last: parts
            .iter()
            .map(|p| p.last)
            .max_by_key(|s| s.wall)
            .unwrap_or_default(),
        count: parts.iter().fold(0, |n, p| n.saturating_add(p.count)),
        incidence: most.max(units.len() as u64),
        first_unit: units.iter().min().copied().unwrap_or_default(),
        inherited: parts.iter().all(|p| p.inherited),
        approved: false,
        examples,
        members: parts.iter().map(|p| p.members.max(1)).sum(),
    }
}
