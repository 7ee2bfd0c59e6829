//! What the agent is asked to do about evidence: seal, hold, release, and write down who read it.
//!
//! Reading itself needs no agent. Each of these becomes a record with uid and login uid of the
//! peer, as the kernel says them; nothing in a request says who asks.

use serde::{Deserialize, Serialize};

/// Longest subject, target or action, bytes.
pub const SUBJECT_BYTES_MAX: usize = 1024;
/// Containers and records that one hold may name.
pub const HOLD_NAMES_MAX: usize = 100_000;

/// What to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case")]
pub enum EvidenceAct {
    /// Makes all accepted records durable and seals them. The checkpoint's note as a document.
    Checkpoint {},
    /// Somebody reads or exports evidence. The record's name as a document.
    Access {
        /// `evidence.read`, `evidence.bundle`, `evidence.export`, `evidence.query`.
        action: String,
        /// What: an alert, a container, a command.
        subject: String,
    },
    /// A checkpoint lies elsewhere now. The record's name as a document.
    Anchored {
        /// Records that it covers.
        size: u64,
        /// Where: a directory or an address.
        target: String,
    },
    /// The lake has files for a span of leaves: their digests, as the agent reads them, are written
    /// down. The record's name as a document.
    LakeSealed {
        /// First leaf.
        first: u64,
        /// One past the last.
        end: u64,
    },
    /// Lays a hold. The record's name as a document.
    Hold {
        /// The hold's name.
        id: String,
        /// Keys of container instances, 32 hex digits each.
        containers: Vec<String>,
        /// Further records.
        leaves: Vec<u64>,
        /// What it is about.
        subject: String,
    },
    /// Ends a hold. The record's name as a document.
    Release {
        /// The hold's name.
        id: String,
    },
}

impl EvidenceAct {
    /// The name under which it is journalled.
    pub fn name(&self) -> &str {
        match self {
            Self::Checkpoint {} => "evidence.checkpoint",
            Self::Access { action, .. } => action,
            Self::Anchored { .. } => "evidence.anchored",
            Self::LakeSealed { .. } => "evidence.lake_sealed",
            Self::Hold { .. } => "evidence.hold",
            Self::Release { .. } => "evidence.release",
        }
    }

    /// What is out of bounds, if anything.
    pub fn fault(&self) -> Option<&'static str> {
        const ACTIONS: [&str; 6] = [
            "evidence.read",
            "evidence.bundle",
            "evidence.export",
            "evidence.query",
            "evidence.verify",
            "evidence.replay",
        ];
        let long = |text: &str| text.is_empty() || text.len() > SUBJECT_BYTES_MAX;
        match self {
            Self::Checkpoint {} => None,
            Self::LakeSealed { first, end } => {
                (first >= end).then_some("a span of the lake has at least one record")
            }
            Self::Access { action, .. } if !ACTIONS.contains(&action.as_str()) => {
                Some("no such kind of access")
            }
            Self::Access { subject: text, .. } | Self::Anchored { target: text, .. } => {
                long(text).then_some("the subject is empty or longer than 1024 bytes")
            }
            Self::Hold {
                subject,
                containers,
                leaves,
                ..
            } => {
                if containers.len() + leaves.len() > HOLD_NAMES_MAX {
                    return Some("the hold names more than 100,000 containers and records");
                }
                if containers.is_empty() && leaves.is_empty() {
                    return Some("the hold names nothing");
                }
                long(subject).then_some("the subject is empty or longer than 1024 bytes")
            }
            Self::Release { id } => long(id).then_some("name the hold"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn acts_have_a_stable_form_and_bounds() {
        let act = EvidenceAct::Access {
            action: "evidence.read".into(),
            subject: "ask Q2".into(),
        };
        let json = serde_json::to_string(&act).unwrap();
        assert_eq!(
            json,
            r#"{"do":"access","action":"evidence.read","subject":"ask Q2"}"#
        );
        assert_eq!(act.fault(), None);
        let other = EvidenceAct::Access {
            action: "baseline.approve".into(),
            subject: "x".into(),
        };
        assert!(other.fault().is_some());
        let nothing = EvidenceAct::Hold {
            id: "a".into(),
            containers: vec![],
            leaves: vec![],
            subject: "x".into(),
        };
        assert!(nothing.fault().is_some());
    }
}
