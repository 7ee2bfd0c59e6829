//! Where the files of a store lie and what they are called.

use std::path::{Path, PathBuf};

use crate::record::RetentionClass;

pub(crate) const TORN_MARK: &str = ".torn-";

/// The layout below one journal directory.
#[derive(Debug, Clone)]
pub(crate) struct Paths {
    pub(crate) root: PathBuf,
    pub(crate) leaves: PathBuf,
    pub(crate) payloads: PathBuf,
}

impl Paths {
    pub(crate) fn new(root: &Path) -> Self {
        Self {
            root: root.to_path_buf(),
            leaves: root.join("leaves"),
            payloads: root.join("payloads"),
        }
    }

    pub(crate) fn meta(&self) -> PathBuf {
        self.root.join("journal.meta")
    }

    pub(crate) fn lock(&self) -> PathBuf {
        self.root.join("LOCK")
    }

    pub(crate) fn head(&self) -> PathBuf {
        self.root.join("head")
    }

    pub(crate) fn emergency(&self) -> PathBuf {
        self.root.join("emergency.seg")
    }

    pub(crate) fn segment(&self, first: u64) -> PathBuf {
        self.leaves.join(format!("{first:020}.leaf"))
    }

    pub(crate) fn index(&self, first: u64) -> PathBuf {
        self.leaves.join(format!("{first:020}.idx"))
    }

    pub(crate) fn payload(&self, subtree: u64, class: RetentionClass) -> PathBuf {
        self.payloads
            .join(format!("{subtree:020}.{:02}.pay", class.number()))
    }

    pub(crate) fn pruned(&self, subtree: u64, class: RetentionClass) -> PathBuf {
        self.payloads
            .join(format!("{subtree:020}.{:02}.pruned", class.number()))
    }
}

/// What a name in `leaves` or `payloads` stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Name {
    Segment(u64),
    Payload(u64, RetentionClass),
    Pruned(u64, RetentionClass),
    /// Made by us and safe to leave: indexes, torn tails, unfinished temporaries.
    Aside,
    Foreign,
}

pub(crate) fn parse(name: &str) -> Name {
    if name.contains(TORN_MARK) || name.ends_with(".tmp") || name.ends_with(".idx") {
        return Name::Aside;
    }
    let mut parts = name.split('.');
    let first = parts
        .next()
        .filter(|digits| digits.len() == 20)
        .and_then(|d| d.parse().ok());
    let rest: Vec<&str> = parts.collect();
    match (first, rest.as_slice()) {
        (Some(first), ["leaf"]) => Name::Segment(first),
        (Some(first), [class, suffix]) => classed(first, class, suffix),
        _ => Name::Foreign,
    }
}

fn classed(first: u64, class: &str, suffix: &str) -> Name {
    match (class.parse().ok().and_then(RetentionClass::new), suffix) {
        (Some(class), "pay") => Name::Payload(first, class),
        (Some(class), "pruned") => Name::Pruned(first, class),
        _ => Name::Foreign,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_strangers_are_strangers() {
        let paths = Paths::new(Path::new("j"));
        let name = |p: PathBuf| p.file_name().and_then(|n| n.to_str()).map(parse);
        assert_eq!(name(paths.segment(42)), Some(Name::Segment(42)));
        let alert = RetentionClass::ALERT;
        assert_eq!(name(paths.payload(8, alert)), Some(Name::Payload(8, alert)));
        assert_eq!(name(paths.pruned(8, alert)), Some(Name::Pruned(8, alert)));
        assert_eq!(parse("00000000000000000042.leaf.torn-1"), Name::Aside);
        assert_eq!(parse("notes.txt"), Name::Foreign);
        assert_eq!(parse("00000000000000000008.99.pay"), Name::Foreign);
    }
}
