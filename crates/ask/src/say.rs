//! Collects the sentences of an answer and counts what was read for it.
//!
//! Promise: every sentence is safe to show on a terminal, and their number and the number of
//! records that each names are bounded; what was left out is said.

use crate::question::Question;
use crate::removed::Removals;
use crate::tally::Tally;
use plimsoll_api::describe::when;
use plimsoll_api::{Answer, Completeness, Statement, StatementStatus, describe};
use plimsoll_model::RecordId;

/// Deletions told one by one in an answer.
const TOLD_MAX: usize = 8;

/// Sentences of one answer.
pub(crate) const SENTENCES_MAX: usize = 150;
/// Records named by one sentence.
pub(crate) const EVIDENCE_MAX: usize = 20;

/// The sentences so far.
pub(crate) struct Sentences {
    said: Vec<Statement>,
    left_out: u64,
    tally: Tally,
}

impl Sentences {
    pub(crate) fn new() -> Self {
        Self {
            said: Vec::new(),
            left_out: 0,
            tally: Tally::default(),
        }
    }

    pub(crate) fn observed<'a>(
        &mut self,
        text: impl Into<String>,
        evidence: impl IntoIterator<Item = &'a RecordId>,
    ) {
        self.say(StatementStatus::Observed, text.into(), evidence);
    }

    pub(crate) fn inferred<'a>(
        &mut self,
        text: impl Into<String>,
        evidence: impl IntoIterator<Item = &'a RecordId>,
    ) {
        self.say(StatementStatus::Inferred, text.into(), evidence);
    }

    pub(crate) fn unknown(&mut self, text: impl Into<String>) {
        self.say(StatementStatus::Unknown, text.into(), []);
    }

    /// What nothing collected here can tell, and which later data would.
    pub(crate) fn no_source(&mut self, what: &str, later: &str) {
        self.unknown(format!("no source for {what}: {later} would bring it."));
    }

    fn say<'a>(
        &mut self,
        status: StatementStatus,
        text: String,
        evidence: impl IntoIterator<Item = &'a RecordId>,
    ) {
        if self.said.len() >= SENTENCES_MAX {
            self.left_out += 1;
            return;
        }
        let mut ids: Vec<String> = Vec::new();
        for id in evidence {
            let id = id.to_string();
            if ids.len() < EVIDENCE_MAX && !ids.contains(&id) {
                ids.push(id);
            }
        }
        // what no record shows is at best concluded
        let status = match status {
            StatementStatus::Observed if ids.is_empty() => StatementStatus::Inferred,
            other => other,
        };
        self.said.push(Statement {
            text: describe::words(&text),
            status,
            evidence: ids,
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.said.len()
    }

    pub(crate) fn tally(&mut self) -> &mut Tally {
        &mut self.tally
    }

    /// Says what was deleted of what the question looked at.
    pub(crate) fn deletions(&mut self, removals: &Removals) {
        let by = self.tally.removed.by.clone();
        let told = |key: &Option<(u64, u8)>| key.as_ref().and_then(|key| removals.get(key));
        for (key, n) in by.iter().take(TOLD_MAX) {
            let records = count(*n, "record");
            match told(key) {
                Some(t) => self.observed(
                    format!(
                        "The content of {records} in the interval was deleted by retention at {} (rule: {} {}; by {}), tombstone {}: what it said is not known any more.",
                        when(t.at), t.removal.reason, t.removal.policy, t.removal.actor, t.id
                    ),
                    [&t.id],
                ),
                None => self.unknown(format!(
                    "The content of {records} in the interval is not there, and no tombstone says who removed it: `plimsoll evidence verify` names them."
                )),
            }
        }
        let more = by.len().saturating_sub(TOLD_MAX);
        if more > 0 {
            let n: u64 = by.values().skip(TOLD_MAX).sum();
            self.unknown(format!(
                "The content of {} more was deleted by retention, under {}.",
                count(n, "record"),
                count(more as u64, "more tombstone")
            ));
        }
    }

    /// Says how much was not read of what the question looked at.
    pub(crate) fn unread(&mut self) {
        if let Some((left, read)) = self.tally.left {
            self.unknown(format!(
                "Of {} that this looks at, {read} were read: of each sort the first and the last, those around the alert, and those that alerts stand on. What the other {left} show is not in this answer: narrow it with --around, or read them all with --all.",
                count(left.saturating_add(read), "act")
            ));
        }
    }

    pub(crate) fn answer(
        mut self,
        question: Question,
        subject: &str,
        completeness: Completeness,
    ) -> Answer {
        if self.left_out > 0 {
            self.said.push(Statement {
                text: format!(
                    "{} more sentences are left out: narrow the interval with --around.",
                    self.left_out
                ),
                status: StatementStatus::Inferred,
                evidence: Vec::new(),
            });
        }
        Answer {
            question: question.as_str().to_owned(),
            title: question.title().to_owned(),
            subject: describe::words(subject),
            statements: self.said,
            completeness,
        }
    }
}

/// `1 time`, `3 times`.
pub(crate) fn times(n: u64) -> String {
    count(n, "time")
}

/// `1 process`, `2 processes`.
pub(crate) fn count(n: u64, word: &str) -> String {
    let plural = if word.ends_with('s') { "es" } else { "s" };
    format!("{n} {word}{}", if n == 1 { "" } else { plural })
}
