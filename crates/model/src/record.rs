//! What is journalled: a kind, a schema version and CBOR with numbered fields.
//!
//! Promises: numbers are never reused; unknown fields are skipped and unknown kinds pass through
//! unread; see `docs/formats/records.md`.

use crate::alert::{Alert, Drift};
use crate::enforcement::{EnforcementInForce, Prevention};
use crate::gap::Gap;
use crate::observation::Observation;
use crate::recording::Recording;
use crate::response::{Delivery, Plan, PlanEnd, PolicyInForce, StepRecord};
use crate::ruleset::RuleSet;
use crate::time::ClockAnchor;
use crate::workload::Container;
use minicbor::{Decode, Encode};

/// Version of the record schema that this build writes.
pub const SCHEMA_VERSION: u16 = 1;

/// Kind of a journal record, as stored. Numbers are never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u16)]
pub enum RecordKind {
    /// [`Observation`].
    Observation = 1,
    /// [`Drift`].
    Drift = 2,
    /// [`Alert`].
    Alert = 3,
    /// [`Gap`].
    Gap = 4,
    /// [`Container`]: identity learned or changed, tombstone.
    Container = 5,
    /// [`ClockAnchor`].
    Clock = 6,
    /// A baseline version: bytes owned by the `baseline` crate.
    Baseline = 7,
    /// [`Lifecycle`] of the agent.
    Lifecycle = 8,
    /// [`Decision`] of a person or policy.
    Decision = 9,
    /// [`Presence`] of known behaviours in one time slot.
    Presence = 10,
    /// Retention tombstone (owned by the `evidence` crate).
    Tombstone = 11,
    /// [`Plan`] about an alert.
    Plan = 40,
    /// [`StepRecord`]: a step of a plan begins or ends.
    Step = 41,
    /// [`Delivery`] of a notification.
    Delivery = 42,
    /// [`PolicyInForce`].
    Policy = 43,
    /// [`PlanEnd`].
    PlanEnd = 44,
    /// [`RuleSet`]: the rules in force from here on.
    RuleSet = 20,
    /// Certificate of an epoch key: a signed note (owned by the `evidence` crate).
    EpochKey = 30,
    /// [`Anchored`]: a checkpoint has been handed to somebody else.
    Anchored = 31,
    /// [`Recording`] of the in-kernel recorder, made for an alert.
    Recording = 50,
    /// [`EnforcementInForce`]: policy, switch and means from here on.
    Enforcement = 52,
    /// [`Prevention`]: acts outside a baseline that were prevented, or would have been.
    Prevention = 53,
    /// [`LakeSealed`]: files of the query lake, by their digests.
    LakeSealed = 32,
}

impl RecordKind {
    /// The kind with this number, or `None` for one that this build does not know.
    pub fn from_u16(n: u16) -> Option<Self> {
        use RecordKind::*;
        [
            Observation,
            Drift,
            Alert,
            Gap,
            Container,
            Clock,
            Baseline,
            Lifecycle,
            Decision,
            Presence,
            Tombstone,
            Plan,
            Step,
            Delivery,
            Policy,
            PlanEnd,
            RuleSet,
            EpochKey,
            Anchored,
            Recording,
            Enforcement,
            Prevention,
            LakeSealed,
        ]
        .into_iter()
        .find(|k| *k as u16 == n)
    }
}

/// The agent started, stopped, or changed what it can see.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Lifecycle {
    /// `start`, `stop`, `hooks`, `config`.
    #[n(0)]
    pub what: String,
    /// When.
    #[n(1)]
    pub at: crate::time::Stamp,
    /// Version of the agent.
    #[n(2)]
    pub version: String,
    /// `key=value` details (boot id, kernel, pid, hooks in use, hooks refused).
    #[n(3)]
    pub details: Vec<(String, String)>,
}

/// Something that a person (or a policy) decided.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Decision {
    /// When.
    #[n(0)]
    pub at: crate::time::Stamp,
    /// `baseline.approve`, `baseline.lock`, `baseline.reset`, `evidence.read` …
    #[n(1)]
    pub action: String,
    /// What it is about (a baseline id, an alert id).
    #[n(2)]
    pub subject: String,
    /// Why, in that person's words.
    #[n(3)]
    pub reason: String,
    /// uid from `SO_PEERCRED`.
    #[n(4)]
    pub uid: u32,
    /// Login uid (`/proc/PID/loginuid`; `u32::MAX`: none).
    #[n(5)]
    pub login_uid: u32,
    /// `socket`, `policy`.
    #[n(6)]
    pub method: String,
}

/// What a retention tombstone says (kind [`RecordKind::Tombstone`], written by the `evidence` crate; the
/// root of its subtree is left out here).
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Removal {
    /// Number of the retention class whose contents went.
    #[n(0)]
    pub class: u8,
    /// First leaf of the stretch.
    #[n(1)]
    pub first: u64,
    /// One past its last.
    #[n(2)]
    pub end: u64,
    /// Bytes that were deleted.
    #[n(3)]
    pub bytes: u64,
    /// `age`, `size`.
    #[n(5)]
    pub reason: String,
    /// Who removed it: `retention`, or a person.
    #[n(6)]
    pub actor: String,
    /// The rule in force.
    #[n(7)]
    pub policy: String,
}

impl Removal {
    /// Reads a tombstone's payload; `None`: it is none.
    pub fn decode(payload: &[u8]) -> Option<Self> {
        minicbor::decode(payload).ok()
    }
}

/// A checkpoint lies where this machine's root cannot change it.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Anchored {
    /// When it had been taken there.
    #[n(0)]
    pub at: crate::time::Stamp,
    /// Leaves that the checkpoint covers.
    #[n(1)]
    pub size: u64,
    /// Where: a directory or the address of a receiver.
    #[n(2)]
    pub target: String,
}

/// Files of the query lake that hold what a span of leaves says.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LakeSealed {
    /// When they were read to be named here.
    #[n(0)]
    pub at: crate::time::Stamp,
    /// First leaf of the span.
    #[n(1)]
    pub first: u64,
    /// One past its last.
    #[n(2)]
    pub end: u64,
    /// Every file of the span, its seal first.
    #[n(3)]
    pub files: Vec<LakeFile>,
}

/// One file of the query lake.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct LakeFile {
    /// Its name below the lake's directory.
    #[n(0)]
    pub name: String,
    /// Its length.
    #[n(1)]
    pub bytes: u64,
    /// SHA-256 of it.
    #[cbor(n(2), with = "minicbor::bytes")]
    pub sha256: [u8; 32],
}

/// Which known behaviours of an instance were present in a time slot, with their counts.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Presence {
    /// Instance.
    #[n(0)]
    pub instance: crate::ids::Instance,
    /// Start of the slot.
    #[n(1)]
    pub from: crate::time::Stamp,
    /// End of the slot.
    #[n(2)]
    pub to: crate::time::Stamp,
    /// Behaviour id and how often; counts that are not certain are lower bounds.
    #[n(3)]
    pub counts: Vec<(crate::behaviour::BehaviourId, u64)>,
}

/// A decoded record.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(clippy::large_enum_variant)] // records live one at a time
pub enum Record {
    /// See [`RecordKind::Observation`].
    Observation(Observation),
    /// See [`RecordKind::Drift`].
    Drift(Drift),
    /// See [`RecordKind::Alert`].
    Alert(Alert),
    /// See [`RecordKind::Gap`].
    Gap(Gap),
    /// See [`RecordKind::Container`].
    Container(Container),
    /// See [`RecordKind::Clock`].
    Clock(ClockAnchor),
    /// See [`RecordKind::Baseline`].
    Baseline(Vec<u8>),
    /// See [`RecordKind::Lifecycle`].
    Lifecycle(Lifecycle),
    /// See [`RecordKind::Decision`].
    Decision(Decision),
    /// See [`RecordKind::Presence`].
    Presence(Presence),
    /// See [`RecordKind::Plan`].
    Plan(Plan),
    /// See [`RecordKind::Step`].
    Step(StepRecord),
    /// See [`RecordKind::Delivery`].
    Delivery(Delivery),
    /// See [`RecordKind::Policy`].
    Policy(PolicyInForce),
    /// See [`RecordKind::PlanEnd`].
    PlanEnd(PlanEnd),
    /// See [`RecordKind::RuleSet`].
    RuleSet(RuleSet),
    /// See [`RecordKind::Anchored`].
    Anchored(Anchored),
    /// See [`RecordKind::Recording`].
    Recording(Recording),
    /// See [`RecordKind::Enforcement`].
    Enforcement(EnforcementInForce),
    /// See [`RecordKind::Prevention`].
    Prevention(Prevention),
    /// See [`RecordKind::LakeSealed`].
    LakeSealed(LakeSealed),
    /// A kind that this build does not know, or one whose bytes belong to another crate.
    Unknown(u16, Vec<u8>),
}

/// A record's bytes do not decode as its kind.
#[derive(Debug, thiserror::Error)]
#[error("decode record of kind {kind}: {source}")]
pub struct DecodeRecordError {
    /// The kind's number.
    pub kind: u16,
    /// What is wrong.
    #[source]
    pub source: minicbor::decode::Error,
}

/// Room that a thread keeps for the next payload; one that needed more gives it back.
const ROOM_KEPT: usize = 64 << 10;

thread_local! {
    /// Payloads are encoded here and then copied: most are queued, and one that has grown by doubling holds
    /// up to twice its length.
    static ROOM: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

/// The payload of a record that holds `content`, for whoever has that and no [`Record`].
pub fn payload<T: minicbor::Encode<()>>(content: &T) -> Vec<u8> {
    ROOM.with_borrow_mut(|room| {
        minicbor::encode(content, &mut *room).expect("writing to memory cannot fail");
        let payload = room.as_slice().to_vec();
        room.clear();
        room.shrink_to(ROOM_KEPT);
        payload
    })
}

impl Record {
    /// The kind's number and the payload.
    pub fn encode(&self) -> (u16, Vec<u8>) {
        match self {
            Record::Observation(x) => (RecordKind::Observation as u16, payload(x)),
            Record::Drift(x) => (RecordKind::Drift as u16, payload(x)),
            Record::Alert(x) => (RecordKind::Alert as u16, payload(x)),
            Record::Gap(x) => (RecordKind::Gap as u16, payload(x)),
            Record::Container(x) => (RecordKind::Container as u16, payload(x)),
            Record::Clock(x) => (RecordKind::Clock as u16, payload(x)),
            Record::Baseline(x) => (RecordKind::Baseline as u16, x.clone()),
            Record::Lifecycle(x) => (RecordKind::Lifecycle as u16, payload(x)),
            Record::Decision(x) => (RecordKind::Decision as u16, payload(x)),
            Record::Presence(x) => (RecordKind::Presence as u16, payload(x)),
            Record::Plan(x) => (RecordKind::Plan as u16, payload(x)),
            Record::Step(x) => (RecordKind::Step as u16, payload(x)),
            Record::Delivery(x) => (RecordKind::Delivery as u16, payload(x)),
            Record::Policy(x) => (RecordKind::Policy as u16, payload(x)),
            Record::PlanEnd(x) => (RecordKind::PlanEnd as u16, payload(x)),
            Record::RuleSet(x) => (RecordKind::RuleSet as u16, payload(x)),
            Record::Anchored(x) => (RecordKind::Anchored as u16, payload(x)),
            Record::Recording(x) => (RecordKind::Recording as u16, payload(x)),
            Record::Enforcement(x) => (RecordKind::Enforcement as u16, payload(x)),
            Record::Prevention(x) => (RecordKind::Prevention as u16, payload(x)),
            Record::LakeSealed(x) => (RecordKind::LakeSealed as u16, payload(x)),
            Record::Unknown(k, x) => (*k, x.clone()),
        }
    }

    /// Decodes a payload of the given kind.
    ///
    /// # Errors
    /// When the bytes are not what the kind says. An unknown kind is no error.
    pub fn decode(kind: u16, payload: &[u8]) -> Result<Self, DecodeRecordError> {
        let wrap = |source| DecodeRecordError { kind, source };
        Ok(match RecordKind::from_u16(kind) {
            Some(RecordKind::Observation) => {
                Record::Observation(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Drift) => Record::Drift(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::Alert) => Record::Alert(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::Gap) => Record::Gap(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::Container) => {
                Record::Container(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Clock) => Record::Clock(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::Baseline) => Record::Baseline(payload.to_vec()),
            Some(RecordKind::Lifecycle) => {
                Record::Lifecycle(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Decision) => {
                Record::Decision(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Presence) => {
                Record::Presence(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Plan) => Record::Plan(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::Step) => Record::Step(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::Delivery) => {
                Record::Delivery(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Policy) => Record::Policy(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::PlanEnd) => Record::PlanEnd(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::RuleSet) => Record::RuleSet(minicbor::decode(payload).map_err(wrap)?),
            Some(RecordKind::Anchored) => {
                Record::Anchored(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Recording) => {
                Record::Recording(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Enforcement) => {
                Record::Enforcement(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Prevention) => {
                Record::Prevention(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::LakeSealed) => {
                Record::LakeSealed(minicbor::decode(payload).map_err(wrap)?)
            }
            Some(RecordKind::Tombstone | RecordKind::EpochKey) | None => {
                Record::Unknown(kind, payload.to_vec())
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::event::*;
    use crate::*;

    fn observation() -> Observation {
        Observation {
            event: Event {
                boot: BootNs(7),
                seq: 3,
                cpu: 1,
                alert_class: true,
                cgroup_id: 99,
                process: ProcessInfo::default(),
                actor: Actor(5),
                trust: Trust::Object,
                tampered: false,
                kind: EventKind::Connect(Connection {
                    proto: Proto::Tcp,
                    peer: SockAddr::Inet([10, 0, 0, 1].into(), 443),
                    local: Some(SockAddr::Unix("@x".into())),
                    result: -115,
                }),
                dense: 4,
                dict: None,
                enforced: None,
            },
            at: Stamp::default(),
            instance: Some(Instance {
                id: ContainerId::parse("abc").unwrap(),
                start: BootNs(1),
            }),
            lineage: vec![Ancestor {
                exe: Text::new(b"/bin/\xff".to_vec()),
                ..Default::default()
            }]
            .into(),
            lineage_cut: false,
            redacted: vec![],
            unknown_because: String::new(),
            count: 1,
        }
    }

    #[test]
    fn a_record_survives_its_encoding() {
        let r = Record::Observation(observation());
        let (kind, bytes) = r.encode();
        assert_eq!(Record::decode(kind, &bytes).unwrap(), r);
    }

    #[test]
    fn a_payload_is_that_of_the_record_whatever_was_encoded_before_it() {
        let mut long = observation();
        long.unknown_because = "x".repeat(2 * ROOM_KEPT);
        for o in [observation(), long, observation()] {
            let bytes = payload(&o);
            assert_eq!(bytes.len(), bytes.capacity(), "queued as long as it is");
            assert_eq!(bytes, Record::Observation(o).encode().1);
        }
    }

    #[test]
    fn an_unknown_kind_passes_through() {
        let r = Record::decode(60_000, b"whatever").unwrap();
        assert_eq!(r.encode(), (60_000, b"whatever".to_vec()));
    }

    #[test]
    fn every_truncation_of_a_record_is_an_error_and_never_a_panic() {
        let (kind, bytes) = Record::Observation(observation()).encode();
        for n in 0..bytes.len() {
            assert!(Record::decode(kind, &bytes[..n]).is_err(), "{n} bytes");
        }
    }
}
