//! The standard questions, answered from evidence.
//!
//! [`ask`] takes records, baselines, a question, a subject (an alert or a container) and a window,
//! and returns an [`Answer`]: sentences, each *observed*, *inferred* or *unknown* and each with the
//! records that show it, and how complete the data behind them is.
//!
//! Promises:
//! - "No evidence" is never reported as "did not happen": a question without a finding is answered
//!   `unknown`, with the interval that was looked at and what is missing in it.
//! - It works on what is stored: the container may be gone and the agent may be down.
//! - Pure: no I/O, no clock ("now" is a value), no randomness. Everything kept in memory has a
//!   stated bound, and meeting it is said in the answer.
//! - What a container wrote about itself appears escaped in every sentence.
//!
//! Left out on purpose: where records come from ([`Records`] is implemented by the reader of the
//! journal) and verdicts. What nothing collects yet is said as it is asked for: "no source for …",
//! with the data that would bring it.
#![forbid(unsafe_code)]

mod access;
mod activity;
mod acts;
mod after;
mod baseline;
mod collected;
mod completeness;
mod coverage;
mod directory;
mod escape;
mod identity;
mod image;
mod interval;
mod lateral;
mod marks;
pub mod minutes;
mod mounts;
mod network;
mod opinions;
mod persistence;
mod question;
mod records;
mod removed;
mod response;
mod say;
mod scope;
mod secrets;
mod subject;
mod survey;
mod tally;
mod tree;
mod who;

pub use acts::{Acts, version as acts_version};
pub use marks::{Mark, acts_key, container_key, kind_key};
pub use question::{Question, UnknownQuestion};
pub use records::{
    BaselineFacts, BaselineHit, Baselines, Body, Filter, Kinds, NoBaselines, Records, RecordsError,
    Seen, Span,
};
pub use subject::{Subject, SubjectError, alike};
pub use survey::{Chosen, READ_MAX, Survey};

use directory::Directory;
use interval::Interval;
use plimsoll_api::{Answer, describe};
use plimsoll_model::{EventKind, NodeId, WallNs};
use removed::Removals;
use say::Sentences;
use subject::Case;

/// What is asked.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Which question.
    pub question: Question,
    /// About what.
    pub subject: Subject,
    /// How far before and after the alert (for a container: before its end). `None`: as suits the
    /// question.
    pub around_ns: Option<u64>,
    /// The present.
    pub now: WallNs,
    /// How many of the container's observations are read at most, [`READ_MAX`] if nothing speaks
    /// against it; what more there is, is said.
    pub read_max: usize,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// The subject is not in the records.
    #[error(transparent)]
    Subject(#[from] SubjectError),
    /// The records could not be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// Answers one question.
///
/// # Errors
/// When the subject is not to be found, or the records cannot be read.
pub fn ask(
    records: &dyn Records,
    baselines: &dyn Baselines,
    ask: &Ask,
) -> Result<Answer, AskError> {
    let directory = Directory::read(records)?;
    let removals = Removals::read(records)?;
    let case = subject::find(records, &directory, &ask.subject)?;
    let interval = interval(ask, &case, records.span());
    let about = About {
        records,
        baselines,
        directory: &directory,
        removals: &removals,
        case: &case,
        interval,
        read_max: ask.read_max,
    };
    let mut sentences = Sentences::new();
    sentences.tally().read += directory.read;
    case.introduce(&directory, &mut sentences);
    match ask.question {
        Question::Q1 => who::instance(&about, &mut sentences),
        Question::Q2 => activity::activity(&about, &mut sentences)?,
        Question::Q3 => scope::before(&about, &mut sentences)?,
        Question::Q4 => who::changes(&about, &mut sentences)?,
        Question::Q5 => baseline::expectation(&about, &mut sentences)?,
        Question::Q6 => tree::lineage(&about, &mut sentences)?,
        Question::Q7 => after::files(&about, &mut sentences)?,
        Question::Q8 => network::contacts(&about, &mut sentences)?,
        Question::Q9 => escape::reached(&about, &mut sentences)?,
        Question::Q10 => identity::held(&about, &mut sentences)?,
        Question::Q11 => secrets::read(&about, &mut sentences)?,
        Question::Q12 => lateral::movement(&about, &mut sentences)?,
        Question::Q13 => scope::fingerprint(&about, &mut sentences)?,
        Question::Q14 => image::vulnerabilities(&about, &mut sentences)?,
        Question::Q15 => persistence::left(&about, &mut sentences)?,
        Question::Q16 => completeness::gaps(&about, &mut sentences)?,
        Question::Q17 => access::access(&about, &mut sentences)?,
        Question::Q18 => response::response(&about, &mut sentences)?,
    }
    sentences.deletions(&removals);
    sentences.unread();
    let completeness = completeness::judge(&about, sentences.tally())?;
    Ok(sentences.answer(ask.question, &case.title(), completeness))
}

/// Everything that a question may look at.
struct About<'a> {
    records: &'a dyn Records,
    baselines: &'a dyn Baselines,
    directory: &'a Directory,
    removals: &'a Removals,
    case: &'a Case,
    interval: Interval,
    read_max: usize,
}

impl About<'_> {
    fn node(&self) -> &NodeId {
        self.records.origin()
    }
    /// What was done, in words, with system calls as the machine of the records names them.
    fn action(&self, kind: &EventKind) -> String {
        describe::action_on(self.directory.calls(), kind)
    }
    fn container(&self) -> Option<&plimsoll_model::Container> {
        self.case
            .instance
            .as_ref()
            .and_then(|i| self.directory.get(i))
            .map(|known| &known.container)
    }
}

/// The interval that suits the question: around the alert, or the life of the container.
fn interval(ask: &Ask, case: &Case, span: Option<Span>) -> Interval {
    const MINUTE: u64 = 60_000_000_000;
    let begin = span.map_or(ask.now, |s| s.first);
    let life_from = case.started.unwrap_or(begin);
    let life_to = case.gone.unwrap_or(ask.now);
    let around = |default: u64| ask.around_ns.unwrap_or(default);
    let back = |at: WallNs, ns: u64| WallNs(at.0.saturating_sub_unsigned(ns));
    let on = |at: WallNs, ns: u64| WallNs(at.0.saturating_add_unsigned(ns));
    match (ask.question, case.first_act()) {
        (Question::Q3 | Question::Q13, _) if ask.around_ns.is_none() => Interval {
            from: begin,
            to: ask.now,
        },
        (Question::Q2, Some((first, last))) => Interval {
            from: back(first, around(10 * MINUTE)),
            to: on(last, around(10 * MINUTE)),
        },
        (Question::Q4, Some((first, _))) => Interval {
            from: back(first, around(24 * 60 * MINUTE)),
            to: first,
        },
        (_, Some((first, last))) if ask.around_ns.is_some() => Interval {
            from: back(first, around(0)),
            to: on(last, around(0)),
        },
        (_, None) if ask.around_ns.is_some() => Interval {
            from: back(life_to, around(0)),
            to: life_to,
        },
        (Question::Q4, None) => Interval {
            from: back(life_from, 24 * 60 * MINUTE),
            to: life_to,
        },
        // people act on after the container's end
        (Question::Q18, _) => Interval {
            from: life_from,
            to: ask.now,
        },
        _ => Interval {
            from: life_from,
            to: life_to,
        },
    }
}
