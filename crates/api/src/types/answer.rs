//! An answer to a standard question, with how sure it is and how complete the data behind it.

use serde::{Deserialize, Serialize};

/// How a statement is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StatementStatus {
    /// A record says so.
    Observed,
    /// It follows from records, by the reasoning in the text.
    Inferred,
    /// Nothing says so, which does not mean that it did not happen.
    Unknown,
}

impl StatementStatus {
    /// As in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Inferred => "inferred",
            Self::Unknown => "unknown",
        }
    }
}

/// One sentence of an answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// The sentence. Bytes chosen by containers are already written out (`\x1b`).
    pub text: String,
    /// How it is known.
    pub status: StatementStatus,
    /// Records that show it, `origin@leaf`.
    pub evidence: Vec<String>,
}

/// A gap that touches the interval of an answer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CompletenessGap {
    /// Where it was lost.
    pub stage: String,
    /// Start of the overlap's gap.
    pub from: String,
    /// Its end.
    pub to: String,
    /// How many; `null`: not known.
    pub count: Option<u64>,
    /// What happened.
    pub reason: String,
    /// The record that says so.
    pub record: Option<String>,
}

/// What was lost at one stage, in gaps that touch the interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LostAt {
    /// Where.
    pub stage: String,
    /// In how many gaps.
    pub gaps: u64,
    /// Events, as far as counted.
    pub events: u64,
    /// More was lost than was counted.
    pub at_least: bool,
}

/// A stretch of the interval that was not watched.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Unwatched {
    /// Its start.
    pub from: String,
    /// Its end.
    pub to: String,
    /// Why.
    pub why: String,
    /// Records that say so.
    pub evidence: Vec<String>,
}

/// What part of the interval was watched. The three lengths add up to that of the interval.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Coverage {
    /// An agent ran; what it lost then is in `lost`.
    pub observed_ns: u64,
    /// The records say that none ran.
    pub blind_ns: u64,
    /// No record says whether one ran.
    pub unknown_ns: u64,
    /// Observations of the subject in the interval; `null`: this question needs none.
    pub observations: Option<u64>,
    /// What was lost, by stage.
    pub lost: Vec<LostAt>,
    /// When nobody watched (at most 100).
    pub blind: Vec<Unwatched>,
    /// When it is not known (at most 100).
    pub unknown: Vec<Unwatched>,
    /// Kinds of events that this kernel does not let be seen.
    pub unseen_kinds: Vec<String>,
    /// Records whose content retention has removed.
    pub removed: u64,
    /// Records that are damaged.
    pub damaged: u64,
}

/// How complete the data behind an answer is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Completeness {
    /// One sentence.
    pub summary: String,
    /// `complete` (no gap known in the interval), `partial`, or `unknown` (nothing watched then, or
    /// nothing is known of the interval).
    pub level: String,
    /// Start of the interval that was looked at; `null`: from the beginning of the journal.
    pub from: Option<String>,
    /// End of it; `null`: up to the end of the journal.
    pub to: Option<String>,
    /// Gaps that touch the interval (at most 100; `gaps_total` counts all).
    pub gaps: Vec<CompletenessGap>,
    /// How many gaps touch it.
    pub gaps_total: u64,
    /// Events known to be lost in gaps that touch it, as far as counted.
    pub lost_at_least: u64,
    /// Other limits: agent lifetimes, starts not observed, clock uncertainty, retention.
    pub limits: Vec<String>,
    /// Largest uncertainty of a wall time used here, nanoseconds.
    pub clock_uncertainty_ns: u64,
    /// Records that were looked at.
    pub records_read: u64,
    /// What part of the interval was watched, and what was lost of it.
    pub coverage: Coverage,
}

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    /// `Q1` … `Q18`.
    pub question: String,
    /// The question in words.
    pub title: String,
    /// What it was asked about, in words.
    pub subject: String,
    /// What is known, most important first.
    pub statements: Vec<Statement>,
    /// How complete the data is.
    pub completeness: Completeness,
}
