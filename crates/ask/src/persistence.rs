//! Q15: what was left behind that is started, obeyed or found again later.

use crate::acts::Acts;
use crate::collected::{ACTS_MAX, Collected, failed, place};
use crate::network::counted;
use crate::opinions::tell;
use crate::say::{EVIDENCE_MAX, Sentences, count};
use crate::tree::chain;
use crate::{About, AskError};
use plimsoll_api::describe::{self, when};
use plimsoll_model::event::FileEvent;
use plimsoll_model::paths::{Sensitive, changes, sensitive};
use plimsoll_model::{
    BehaviourKind, EventKind, FileOp, Observation, Origin, ProcessKey, RecordId, Stamp, Text,
};
use std::collections::{BTreeMap, HashMap};

/// Processes and removed files told one by one.
const SHOWN: usize = 15;

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
enum Left {
    Host,
    Started,
    SetId,
    Program,
    Key,
    Volume,
}

impl Left {
    fn words(self) -> &'static str {
        match self {
            Left::Host => "A file that controls the node was changed",
            Left::Started => "Changed where programs and logins are started from",
            Left::SetId => "Made set-uid or set-gid",
            Left::Program => "Programs or libraries changed",
            Left::Key => "Keys or accounts changed",
            Left::Volume => "Left on a volume, which outlives the container",
        }
    }
}

/// A process whose program did not come with the image.
struct Stranger {
    who: String,
    what: String,
    at: Stamp,
    id: RecordId,
}

#[derive(Default)]
struct Found {
    /// Files that count as left, by path: where they lay and the record.
    made: HashMap<Text, RecordId>,
    removed: Vec<(Text, Stamp, [RecordId; 2])>,
    alive: BTreeMap<ProcessKey, Stranger>,
    writable: Vec<RecordId>,
    lasting: Vec<RecordId>,
}

/// Q15.
pub(crate) fn left(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    let mut traces: Collected<Left> = Collected::new();
    let mut found = Found::default();
    let looked = Acts::EXEC.or(Acts::PROCESS).or(Acts::CHANGE_NOTABLE);
    about.workload(looked, say, |id, o| {
        found.process(about, &id, &o);
        let EventKind::File(f) = &o.event.kind else {
            return;
        };
        if f.op == FileOp::Failed || failed(f.result) {
            return;
        }
        found.removal(&id, &o, f);
        if let Some(left) = trace(f) {
            found.note(&id, f);
            traces.add(left, about.action(&o.event.kind) + &place(f.origin), id, &o);
        }
    })?;
    let nothing = traces.is_empty();
    traces.say(Left::words, "plimsoll events --kind file", say);
    found.say_removed(say);
    found.fate(about, say);
    found.say_alive(about, say);
    let opinions = about.opinions(say)?;
    let judged = [
        "T1053", "T1098", "T1136", "T1543", "T1546", "T1547", "T1574", "T1037", "T1505",
    ];
    let judged = opinions.iter().filter(|o| o.has(&judged));
    let alerted = tell("Judged as persistence", judged, say);
    counted(
        about,
        &[BehaviourKind::File],
        |b| matches!(sensitive(b.object.as_bytes()), Some(Sensitive::Persistence)),
        "Its baseline knows acts at such places",
        say,
    )?;
    if nothing && !alerted {
        say.unknown(format!("Nothing is recorded {} that would be started or found again later. That is not proof that nothing was left: see the completeness below.", about.interval.text()));
    }
    say.no_source(
        "what lies in the writable layer and on volumes now",
        "a capture of the file system, compared with the image,",
    );
    Ok(())
}

/// Whether a change leaves something that works later.
fn trace(f: &FileEvent) -> Option<Left> {
    if !changes(f.op) || matches!(f.op, FileOp::Unlink | FileOp::Rmdir) {
        return None;
    }
    let named = |path: &Text| sensitive(path.as_bytes());
    // what a rename or link makes is its target
    let target = match f.op {
        FileOp::Rename | FileOp::Link | FileOp::Symlink => &f.target,
        _ => &f.path,
    };
    Some(match named(target) {
        Some(Sensitive::HostControl) => Left::Host,
        Some(Sensitive::Persistence) if is_account(target) => Left::Key,
        Some(Sensitive::Persistence) => Left::Started,
        Some(Sensitive::Credential) => Left::Key,
        _ if f.op == FileOp::Chmod && f.flags & 0o6000 != 0 => Left::SetId,
        Some(Sensitive::Program) if f.op != FileOp::Chown => Left::Program,
        _ if f.origin == Origin::Volume => Left::Volume,
        _ => return None,
    })
}

fn is_account(path: &Text) -> bool {
    let path = path.to_string();
    path.contains("authorized_keys") || path == "/etc/passwd" || path == "/etc/group"
}

impl Found {
    fn note(&mut self, id: &RecordId, f: &FileEvent) {
        let target = match f.op {
            FileOp::Rename | FileOp::Link | FileOp::Symlink => &f.target,
            _ => &f.path,
        };
        if self.made.len() < ACTS_MAX {
            self.made
                .entry(target.clone())
                .or_insert_with(|| id.clone());
        }
        let list = match f.origin {
            Origin::Upper | Origin::Tmpfs | Origin::Memfd | Origin::Image => &mut self.writable,
            Origin::Volume | Origin::Foreign | Origin::Pseudo => &mut self.lasting,
            Origin::Unknown => return,
        };
        if list.len() < EVIDENCE_MAX {
            list.push(id.clone());
        }
    }

    fn removal(&mut self, id: &RecordId, o: &Observation, f: &FileEvent) {
        let gone = match f.op {
            FileOp::Unlink | FileOp::Rename => &f.path,
            _ => return,
        };
        if let Some(made) = self.made.remove(gone)
            && self.removed.len() < SHOWN
        {
            self.removed.push((gone.clone(), o.at, [made, id.clone()]));
        }
    }

    fn process(&mut self, about: &About<'_>, id: &RecordId, o: &Observation) {
        let key = o.event.process.key;
        match &o.event.kind {
            EventKind::Exec(e)
                if (e.origin.is_writable() || e.deleted) && self.alive.len() < ACTS_MAX =>
            {
                let stranger = Stranger {
                    who: chain(&o.lineage, key),
                    what: about.action(&o.event.kind),
                    at: o.at,
                    id: id.clone(),
                };
                self.alive.insert(key, stranger);
            }
            // it became a program of the image again, or ended
            EventKind::Exec(_) | EventKind::Exit { .. } => drop(self.alive.remove(&key)),
            _ => {}
        }
    }

    fn say_removed(&self, say: &mut Sentences) {
        for (path, at, evidence) in &self.removed {
            say.observed(
                format!(
                    "Gone again: {} was removed or renamed at {}.",
                    describe::path(path),
                    when(at.wall)
                ),
                evidence,
            );
        }
    }

    /// What becomes of it with the container.
    fn fate(&self, about: &About<'_>, say: &mut Sentences) {
        if !self.lasting.is_empty() {
            say.inferred(
                "What lies on a volume or on the node outlives the container: another container that mounts it meets it.",
                &self.lasting,
            );
        }
        if self.writable.is_empty() {
            return;
        }
        let fate = match about.case.gone {
            Some(gone) => format!("The container ended at {}: what it wrote into its own layer is gone once the container is removed, and meets whoever starts it again before.", when(gone)),
            None => "What lies in the container's own layer lasts as long as the container, restarts included; a new container of the image begins without it.".to_owned(),
        };
        say.inferred(fate, &self.writable);
    }

    fn say_alive(&self, about: &About<'_>, say: &mut Sentences) {
        if about.case.gone.is_some() || self.alive.is_empty() {
            return;
        }
        let mut list: Vec<&Stranger> = self.alive.values().collect();
        list.sort_by_key(|s| (s.at.boot, s.id.leaf));
        for s in list.iter().take(SHOWN) {
            say.inferred(
                format!(
                    "It may run still: {} {} at {}, and no end of it is recorded.",
                    s.who,
                    s.what,
                    when(s.at.wall)
                ),
                [&s.id],
            );
        }
        if list.len() > SHOWN {
            let rest = (list.len() - SHOWN) as u64;
            say.inferred(
                format!(
                    "{} of which no end is recorded.",
                    count(rest, "more such process")
                ),
                list.iter().skip(SHOWN).map(|s| &s.id),
            );
        }
    }
}
