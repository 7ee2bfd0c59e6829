//! What a question reads: records by filter, and baselines.

use crate::acts::Acts;
use crate::marks::Mark;
use crate::survey::Survey;
use plimsoll_model::{
    BaselineRef, Behaviour, BehaviourId, Digest, Instance, NodeId, Record, RecordId, RecordKind,
    Stamp, WallNs,
};

/// A set of record kinds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kinds(u64);

impl Kinds {
    /// These kinds.
    pub fn of(kinds: &[RecordKind]) -> Self {
        Self(kinds.iter().fold(0, |set, kind| set | 1 << (*kind as u16)))
    }
    /// Whether the kind with this number is among them.
    pub fn has(self, kind: u16) -> bool {
        kind < 64 && self.0 & (1 << kind) != 0
    }
}

/// Which records. An implementation must give every record that fits, and may give more.
#[derive(Clone, Debug)]
pub struct Filter {
    /// Of these kinds.
    pub kinds: Kinds,
    /// About this instance only.
    pub instance: Option<Instance>,
    /// Not before this wall time.
    pub from: Option<WallNs>,
    /// Not after this wall time.
    pub to: Option<WallNs>,
    /// Only records that bear at least one of these marks (empty: all), and those whose content
    /// cannot be read. Paths, names and addresses are stored as plain bytes, so that this can be
    /// told without decoding: [`Mark::needle`].
    pub marks: Vec<Mark>,
    /// Of observations only these sorts (`None`: all).
    pub acts: Option<Acts>,
}

impl Filter {
    /// Every record of these kinds.
    pub fn of(kinds: &[RecordKind]) -> Self {
        Self {
            kinds: Kinds::of(kinds),
            instance: None,
            from: None,
            to: None,
            marks: Vec::new(),
            acts: None,
        }
    }
    /// The same about one instance.
    pub fn about(mut self, instance: &Instance) -> Self {
        self.instance = Some(instance.clone());
        self
    }
    /// The same between two times.
    pub fn between(mut self, from: WallNs, to: WallNs) -> Self {
        (self.from, self.to) = (Some(from), Some(to));
        self
    }
    /// Of observations only these sorts.
    pub fn acts(mut self, acts: Acts) -> Self {
        self.acts = Some(acts);
        self
    }
    /// The same with observations of every sort.
    pub fn of_all_sorts(&self) -> Self {
        Self {
            acts: None,
            ..self.clone()
        }
    }
    /// Whether a record bears what is looked for.
    pub(crate) fn holds(&self, record: &Record) -> bool {
        let sort = match (record, self.acts) {
            (Record::Observation(o), Some(acts)) => acts.meet(Acts::of(o)),
            _ => true,
        };
        sort && (self.marks.is_empty() || self.marks.iter().any(|mark| mark.is_on(record)))
    }
    /// Byte strings of which every readable record that fits holds at least one; empty: any may fit.
    pub fn needles(&self) -> Vec<Vec<u8>> {
        let needles: Vec<Vec<u8>> = self.marks.iter().map(Mark::needle).collect();
        match needles.iter().any(Vec::is_empty) {
            true => Vec::new(),
            false => needles,
        }
    }
    /// Whether these header fields fit.
    pub fn fits(&self, kind: u16, wall: WallNs) -> bool {
        self.kinds.has(kind)
            && self.from.is_none_or(|from| wall >= from)
            && self.to.is_none_or(|to| wall <= to)
    }
}

/// What is left of a record.
#[derive(Clone, Debug)]
#[allow(clippy::large_enum_variant)] // records live one at a time
pub enum Body {
    /// The record.
    Record(Record),
    /// Retention took its content away; the header is left.
    Pruned,
    /// Its content is damaged or not what its kind says.
    Damaged,
}

/// One record on its way past.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Its name.
    pub id: RecordId,
    /// Its time, as its header has it.
    pub wall: WallNs,
    /// Its content.
    pub body: Body,
}

/// First and last time of all records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// Of the first record.
    pub first: WallNs,
    /// Of the last record.
    pub last: WallNs,
}

/// The records could not be read.
#[derive(Debug, thiserror::Error)]
#[error("{what}")]
pub struct RecordsError {
    /// What failed, on what.
    pub what: String,
    /// Why.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// A store of records.
pub trait Records {
    /// The journal's name in `origin@leaf`.
    fn origin(&self) -> &NodeId;
    /// First and last time; `None` when there are no records.
    fn span(&self) -> Option<Span>;
    /// Hands over every record that fits, in the order in which they were stored.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn visit(&self, filter: &Filter, each: &mut dyn FnMut(Seen)) -> Result<(), RecordsError>;
    /// Tells where the observations lie that fit, whatever sort of act they are; those that cannot
    /// be read are handed over instead.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn survey(
        &self,
        filter: &Filter,
        survey: &mut Survey,
        unread: &mut dyn FnMut(Seen),
    ) -> Result<(), RecordsError> {
        self.visit(&filter.of_all_sorts(), &mut |seen| match &seen.body {
            Body::Record(Record::Observation(o)) if o.instance == filter.instance => {
                survey.add(seen.id.leaf, Acts::of(o));
            }
            Body::Record(_) => {}
            Body::Pruned | Body::Damaged => unread(seen),
        })
    }
    /// Hands over those of `leaves`, which rise, that fit.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn visit_leaves(
        &self,
        filter: &Filter,
        leaves: &[u64],
        each: &mut dyn FnMut(Seen),
    ) -> Result<(), RecordsError> {
        self.visit(filter, &mut |seen| {
            if leaves.binary_search(&seen.id.leaf).is_ok() {
                each(seen);
            }
        })
    }
    /// The latest time between these two, both included, at which a record of a kind was made.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn latest(
        &self,
        kind: RecordKind,
        from: WallNs,
        to: WallNs,
    ) -> Result<Option<WallNs>, RecordsError> {
        let mut latest = None;
        self.visit(&Filter::of(&[kind]).between(from, to), &mut |seen| {
            if matches!(seen.body, Body::Record(_)) {
                latest = latest.max(Some(seen.wall));
            }
        })?;
        Ok(latest)
    }
    /// One record; `None` when there is none of this name.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn get(&self, id: &RecordId) -> Result<Option<Seen>, RecordsError>;
}

/// A baseline that knows a behaviour.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaselineHit {
    /// Which baseline, at which version.
    pub baseline: BaselineRef,
    /// Its image, as last seen.
    pub image: String,
    /// Its role.
    pub role: String,
    /// Waits for a person's approval instead of being learned.
    pub quarantined: bool,
    /// How often it was seen.
    pub count: u64,
    /// First time.
    pub first: Stamp,
    /// Last time.
    pub last: Stamp,
}

/// What is known about a baseline.
#[derive(Clone, Debug, PartialEq)]
pub struct BaselineFacts {
    /// Which baseline, at which version.
    pub baseline: BaselineRef,
    /// The image configuration that it belongs to.
    pub image_digest: Option<Digest>,
    /// The image's name, as last seen.
    pub image: String,
    /// Role.
    pub role: String,
    /// `learning`, `ready` or `locked`.
    pub state: String,
    /// Coverage, 0 to 1; `None`: too few samples.
    pub coverage: Option<f64>,
    /// Sampling units behind the coverage.
    pub samples: u64,
    /// New behaviours expected a day.
    pub expected_new_per_day: Option<f64>,
    /// Starts seen.
    pub starts: u64,
    /// How many of the 168 hours of a week it has seen.
    pub hours_seen: u32,
    /// Those hours in words.
    pub hours: String,
    /// What it lacks to be ready.
    pub unmet: Vec<String>,
    /// What it knows; objects may be patterns.
    pub known: Vec<Behaviour>,
    /// The baseline it started from.
    pub predecessor: Option<BaselineRef>,
    /// The record that holds it.
    pub record: Option<RecordId>,
}

/// The baselines of this node.
pub trait Baselines {
    /// Which baselines know this behaviour, in any version in force.
    fn knowing(&self, id: &BehaviourId, behaviour: &Behaviour) -> Vec<BaselineHit>;
    /// A baseline at a version (the nearest kept one; the facts say which).
    fn facts(&self, baseline: &BaselineRef) -> Option<BaselineFacts>;
    /// The baseline in force for an image and role.
    fn of_image(&self, image: Option<&Digest>, role: &str) -> Option<BaselineFacts>;
}

/// There are none.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBaselines;

impl Baselines for NoBaselines {
    fn knowing(&self, _: &BehaviourId, _: &Behaviour) -> Vec<BaselineHit> {
        Vec::new()
    }
    fn facts(&self, _: &BaselineRef) -> Option<BaselineFacts> {
        None
    }
    fn of_image(&self, _: Option<&Digest>, _: &str) -> Option<BaselineFacts> {
        None
    }
}
