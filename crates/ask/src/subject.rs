//! What a question is about: an alert, or a container, found in the records.

use crate::directory::{Directory, Known};
use crate::marks::Mark;
use crate::records::{Body, Filter, Records, RecordsError};
use crate::say::{Sentences, count};
use plimsoll_model::{
    Alert, AlertId, AlertSource, Behaviour, Drift, Instance, Record, RecordId, RecordKind, WallNs,
};

/// What a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// An alert.
    Alert(AlertId),
    /// A container: its name, its service's, its id or the beginning of it, or `id@start` for one life
    /// of it.
    Container(String),
}

/// The subject is not in the records.
#[derive(Debug, thiserror::Error)]
pub enum SubjectError {
    /// No such alert.
    #[error("no alert {0} in the journal: `plimsoll alerts` lists them")]
    NoAlert(AlertId),
    /// No such container; names that are alike, in brackets.
    #[error("no container {0:?} in the journal{1}: `plimsoll containers --all` lists them")]
    NoContainer(String, String),
    /// The beginning of an id fits more than one.
    #[error("{given:?} fits {fits} containers ({examples}): give more of the id")]
    Ambiguous {
        /// What was given.
        given: String,
        /// How many fit.
        fits: usize,
        /// Some of them.
        examples: String,
    },
    /// The records could not be read.
    #[error(transparent)]
    Records(#[from] RecordsError),
}

/// The subject with everything that every question needs.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    pub(crate) alert: Option<AlertCase>,
    pub(crate) instance: Option<Instance>,
    pub(crate) name: String,
    /// Other instances that the same words could mean.
    others: Vec<Instance>,
    pub(crate) started: Option<WallNs>,
    pub(crate) gone: Option<WallNs>,
}

/// An alert: its first record, and its last with the count.
#[derive(Clone, Debug)]
pub(crate) struct AlertCase {
    pub(crate) alert: Alert,
    pub(crate) evidence: Vec<RecordId>,
}

impl AlertCase {
    pub(crate) fn drift(&self) -> Option<&Drift> {
        match &self.alert.source {
            AlertSource::Drift(drift) => Some(drift),
            AlertSource::Rule(_) => None,
        }
    }
    /// The alert's own records and those that it names.
    pub(crate) fn all_evidence(&self) -> impl Iterator<Item = &RecordId> {
        let shown = self.drift().and_then(|d| d.observation.as_ref());
        shown
            .into_iter()
            .chain(&self.alert.evidence)
            .chain(&self.evidence)
    }
}

impl Case {
    pub(crate) fn behaviour(&self) -> Option<&Behaviour> {
        self.alert
            .as_ref()
            .and_then(AlertCase::drift)
            .map(|d| &d.behaviour)
    }

    /// First and last time of the alert's act.
    pub(crate) fn first_act(&self) -> Option<(WallNs, WallNs)> {
        let alert = &self.alert.as_ref()?.alert;
        Some((alert.at.wall, alert.last.wall.max(alert.at.wall)))
    }

    pub(crate) fn title(&self) -> String {
        match &self.alert {
            Some(case) => format!("alert {} in {}", case.alert.id, self.name),
            None => self.name.clone(),
        }
    }

    /// What has to be said before anything else: which of several instances this is about.
    pub(crate) fn introduce(&self, directory: &Directory, say: &mut Sentences) {
        if self.others.is_empty() {
            return;
        }
        let others: Vec<String> = self
            .others
            .iter()
            .take(5)
            .map(ToString::to_string)
            .collect();
        let evidence = self
            .others
            .iter()
            .take(5)
            .chain(&self.instance)
            .filter_map(|i| directory.get(i))
            .flat_map(|k| &k.evidence);
        let more = if self.others.len() > 5 { ", …" } else { "" };
        let this = self
            .instance
            .as_ref()
            .map(ToString::to_string)
            .unwrap_or_default();
        say.observed(
            format!(
                "{} of this name {} recorded; this answer is about the latest, {this}. Others: {}{more} (name one as --container ID@START).",
                count(self.others.len() as u64 + 1, "instance"),
                if self.others.is_empty() { "is" } else { "are" },
                others.join(", "),
            ),
            evidence,
        );
    }
}

pub(crate) fn find(
    records: &dyn Records,
    directory: &Directory,
    subject: &Subject,
) -> Result<Case, SubjectError> {
    match subject {
        Subject::Alert(id) => find_alert(records, directory, id),
        Subject::Container(text) => find_container(directory, text),
    }
}

fn find_alert(
    records: &dyn Records,
    directory: &Directory,
    id: &AlertId,
) -> Result<Case, SubjectError> {
    let mut found: Option<AlertCase> = None;
    let mut filter = Filter::of(&[RecordKind::Alert]);
    filter.marks = vec![Mark::Alert(id.clone())];
    records.visit(&filter, &mut |seen| match seen.body {
        Body::Record(Record::Alert(alert)) if alert.id == *id => match &mut found {
            Some(case) if alert.count >= case.alert.count => {
                case.evidence.truncate(1);
                case.evidence.push(seen.id);
                case.alert.count = alert.count;
                case.alert.last = alert.last;
            }
            Some(_) => {}
            None => {
                found = Some(AlertCase {
                    alert,
                    evidence: vec![seen.id],
                })
            }
        },
        _ => {}
    })?;
    let case = found.ok_or_else(|| SubjectError::NoAlert(id.clone()))?;
    let instance = case.alert.instance.clone();
    let known = instance.as_ref().and_then(|i| directory.get(i));
    Ok(Case {
        name: instance
            .as_ref()
            .map_or("an unknown container".to_owned(), |i| directory.name(i)),
        others: Vec::new(),
        started: known.map(|k| k.container.first_seen.wall),
        gone: known.and_then(|k| k.container.gone).map(|s| s.wall),
        instance,
        alert: Some(case),
    })
}

/// ` (did you mean …?)`: those of the names that hold the text, three at most, each once.
pub fn alike<'n>(all: impl Iterator<Item = &'n str>, text: &str) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<&str> = Vec::new();
    for name in all {
        if names.len() < SHOWN && name.contains(text) && !names.contains(&name) {
            names.push(name);
        }
    }
    match names.is_empty() {
        true => String::new(),
        false => format!(" (did you mean {}?)", names.join(", ")),
    }
}

fn find_container(directory: &Directory, text: &str) -> Result<Case, SubjectError> {
    let all = directory.latest_first();
    let fits = |test: &dyn Fn(&Known) -> bool| -> Vec<&Known> {
        all.iter().copied().filter(|k| test(k)).collect()
    };
    let id_of = |k: &Known| k.container.id().as_str().to_owned();
    let whole = |k: &Known| format!("{}@{}", k.container.id(), k.container.instance.start.0);
    let mut found = fits(&|k| k.container.instance.to_string() == text || whole(k) == text);
    if found.is_empty() {
        found = fits(&|k| id_of(k) == text);
    }
    if found.is_empty() {
        found = fits(&|k| !k.container.name.is_empty() && k.container.name == text);
    }
    if found.is_empty() {
        found = fits(&|k| k.container.service.as_deref() == Some(text));
    }
    if found.is_empty() && text.len() >= 4 {
        found = fits(&|k| id_of(k).starts_with(text));
        let mut ids: Vec<String> = found
            .iter()
            .map(|k| k.container.id().short().to_owned())
            .collect();
        ids.sort();
        ids.dedup();
        if ids.len() > 1 {
            let examples = ids.iter().take(5).cloned().collect::<Vec<_>>().join(", ");
            return Err(SubjectError::Ambiguous {
                given: text.to_owned(),
                fits: ids.len(),
                examples,
            });
        }
    }
    let [latest, others @ ..] = &found[..] else {
        let names = all.iter().map(|k| k.container.name.as_str());
        return Err(SubjectError::NoContainer(
            text.to_owned(),
            alike(names, text),
        ));
    };
    let c = &latest.container;
    Ok(Case {
        alert: None,
        name: directory.name(&c.instance),
        instance: Some(c.instance.clone()),
        others: others
            .iter()
            .map(|k| k.container.instance.clone())
            .collect(),
        started: Some(c.first_seen.wall),
        gone: c.gone.map(|s| s.wall),
    })
}
