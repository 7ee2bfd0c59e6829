//! Q14: known vulnerabilities and attestation of the image; which of it was really in use.

use crate::acts::Acts;
use crate::network::counted;
use crate::say::{EVIDENCE_MAX, Sentences, count};
use crate::{About, AskError};
use plimsoll_api::describe;
use plimsoll_model::{BehaviourKind, EventKind, Origin, RecordId, Text};
use std::collections::BTreeMap;

/// Files kept apart.
const FILES_MAX: usize = 20_000;
/// Files named in a sentence.
const NAMED: usize = 12;

/// Files of one kind that were in use, with a record of each.
#[derive(Default)]
struct InUse {
    files: BTreeMap<Text, RecordId>,
    dropped: u64,
}

impl InUse {
    fn add(&mut self, path: &Text, id: &RecordId) {
        if path.is_empty() || self.files.contains_key(path) {
            return;
        }
        match self.files.len() < FILES_MAX {
            true => drop(self.files.insert(path.clone(), id.clone())),
            false => self.dropped += 1,
        }
    }

    fn say(&self, what: &str, of_image: bool, say: &mut Sentences) {
        if self.files.is_empty() {
            return;
        }
        let named: Vec<String> = self.files.keys().take(NAMED).map(describe::path).collect();
        let more = if self.files.len() > NAMED {
            ", …"
        } else {
            ""
        };
        let whence = if of_image {
            "of the image"
        } else {
            "that did not come with the image"
        };
        let n = self.files.len() as u64 + self.dropped;
        say.observed(
            format!(
                "In use: {} {whence}: {}{more}.",
                count(n, what),
                named.join(", ")
            ),
            self.files.values().take(EVIDENCE_MAX),
        );
    }
}

/// Q14.
pub(crate) fn vulnerabilities(about: &About<'_>, say: &mut Sentences) -> Result<(), AskError> {
    digest(about, say);
    say.no_source(
        "known vulnerabilities of the image's packages",
        "a scan of the image and an advisory database",
    );
    say.no_source(
        "signatures and attestations of the image at deployment time",
        "a check of them when containers start",
    );
    let mut used: BTreeMap<(bool, &'static str), InUse> = BTreeMap::new();
    about.workload(Acts::EXEC.or(Acts::LIBRARY), say, |id, o| {
        let (path, origin, what) = match &o.event.kind {
            EventKind::Exec(e) => (&e.exe, e.origin, "program"),
            EventKind::Library { path, origin } => (path, *origin, "library file"),
            _ => return,
        };
        let of_image = matches!(origin, Origin::Image | Origin::Unknown);
        used.entry((!of_image, what)).or_default().add(path, &id);
    })?;
    let nothing = used.is_empty();
    for ((foreign, what), files) in &used {
        files.say(what, !foreign, say);
    }
    let known = counted(
        about,
        &[BehaviourKind::Exec, BehaviourKind::Library],
        |_| true,
        "In use as its baseline knows",
        say,
    )?;
    match nothing && !known {
        true => say.unknown(format!(
            "No program and no library in use is recorded {}.",
            about.interval.text()
        )),
        false => say.no_source(
            "which packages these files belong to",
            "the image's package list (SBOM)",
        ),
    }
    Ok(())
}

fn digest(about: &About<'_>, say: &mut Sentences) {
    let known = about
        .case
        .instance
        .as_ref()
        .and_then(|i| about.directory.get(i));
    let image = known.map(|k| &k.container.image);
    match (known, image.and_then(|i| i.config_digest.as_ref())) {
        (Some(k), Some(digest)) => say.observed(
            format!(
                "The image to look up is {} ({digest}).",
                k.container.image.name
            ),
            &k.evidence,
        ),
        _ => {
            say.unknown("Which image content to look up is not known: its digest is not recorded.")
        }
    }
}
