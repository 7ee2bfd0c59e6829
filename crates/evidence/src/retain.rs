//! Retention: which payload files have outlived their rule, and their removal behind a
//! durable tombstone.
//!
//! Planning decides and deletes nothing; pruning deletes exactly what it is given. Only
//! whole subtrees that lie in the past are touched, one class at a time, and never a leaf.

use std::collections::BTreeMap;

use crate::disk::{self};
use crate::durable::Durable;
use crate::error::{ReadError, RetainError};
use crate::filter::Filter;
use crate::format::PRUNED_MAGIC;
use crate::journal::Journal;
use crate::merkle::{Peaks, leaf_hash};
use crate::paths::{self, Name};
use crate::record::{Record, RetentionClass};

/// How long one class is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RetentionRule {
    /// The class.
    pub class: RetentionClass,
    /// Older payloads go, milliseconds of wall-clock time.
    pub max_age_ms: Option<u64>,
    /// When the class's payload files exceed this many bytes, the oldest go.
    pub max_bytes: Option<u64>,
}

/// The rules in force; a class without a rule is kept for ever.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RetentionPolicy {
    /// One rule for each class.
    pub rules: Vec<RetentionRule>,
}

/// Which rule a payload file has outlived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PruneReason {
    /// All its records are older than the class's age.
    Age,
    /// The class exceeds its size, and this is its oldest.
    Size,
}

/// One payload file to delete; what its tombstone has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Prune {
    /// The class.
    pub class: RetentionClass,
    /// First leaf of the subtree.
    pub first: u64,
    /// End of the subtree, exclusive.
    pub end: u64,
    /// Length of the payload file.
    pub payload_bytes: u64,
    /// RFC 6962 root over the subtree's leaves; `None` when a leaf is damaged.
    pub root: Option<[u8; 32]>,
    /// Why it goes.
    pub reason: PruneReason,
}

/// A deletion that was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Pruned {
    /// The record that says so.
    pub tombstone: Durable,
    /// Bytes freed.
    pub bytes: u64,
}

impl Journal {
    /// What the policy would delete at `now_wall_ns` (nanoseconds), oldest first.
    ///
    /// # Errors
    /// When payload files cannot be listed or leaves cannot be read.
    pub fn plan_retention(
        &self,
        policy: &RetentionPolicy,
        now_wall_ns: i64,
    ) -> Result<Vec<Prune>, RetainError> {
        let files = self.past_payload_files()?;
        let mut plan = Vec::new();
        for rule in &policy.rules {
            let of_class = files.get(&rule.class).map_or(&[][..], Vec::as_slice);
            let mut total: u64 = of_class.iter().map(|(_, bytes)| bytes).sum();
            for (first, bytes) in of_class {
                let Some(reason) = self.verdict(rule, *first, total, now_wall_ns)? else {
                    break;
                };
                total -= bytes;
                plan.push(self.prune_of(rule.class, *first, *bytes, reason)?);
            }
        }
        Ok(plan)
    }

    /// Deletes one payload file: the tombstone becomes durable first, then a stub that
    /// names it takes the file's place.
    ///
    /// # Errors
    /// When the range cannot be pruned, the tombstone is not durable (nothing deleted), or
    /// the disk refuses (the next opening finishes a deletion that had begun).
    pub fn prune(&mut self, prune: &Prune, tombstone: Record) -> Result<Pruned, RetainError> {
        self.check_prunable(prune)?;
        self.copy_held(prune.first, prune.class)?;
        let tombstone = self
            .append_durable(tombstone)
            .map_err(RetainError::Tombstone)?;
        let (disk, paths) = (self.store.disk.clone(), self.store.paths.clone());
        let mut stub = self.store.meta.header(PRUNED_MAGIC);
        stub.class = prune.class.number();
        stub.first = prune.first;
        stub.a = tombstone.leaf.0;
        stub.b = prune.payload_bytes;
        let pruned = paths.pruned(prune.first, prune.class);
        let payload = paths.payload(prune.first, prune.class);
        let io = |doing, path: &std::path::Path| {
            let path = path.to_path_buf();
            move |source| RetainError::Io {
                doing,
                path,
                source,
            }
        };
        disk::replace(&*disk, &pruned, &stub.encode()).map_err(io("write", &pruned))?;
        disk.remove(&payload).map_err(io("remove", &payload))?;
        disk.sync_dir(&paths.payloads)
            .map_err(io("sync directory", &paths.payloads))?;
        Ok(Pruned {
            tombstone,
            bytes: prune.payload_bytes,
        })
    }

    fn check_prunable(&self, prune: &Prune) -> Result<(), RetainError> {
        let no = |why| {
            Err(RetainError::NotPrunable {
                class: prune.class,
                first: prune.first,
                end: prune.end,
                why,
            })
        };
        let subtree = u64::from(self.store.meta.subtree_leaves);
        if !prune.first.is_multiple_of(subtree) || prune.end != prune.first + subtree {
            return no("it is not one whole subtree");
        }
        if prune.end > self.store.durable {
            return no("it is not complete");
        }
        let files = self.past_payload_files()?;
        let there = files
            .get(&prune.class)
            .is_some_and(|f| f.iter().any(|(s, _)| *s == prune.first));
        if there {
            Ok(())
        } else {
            no("its payloads are gone already")
        }
    }

    /// Payload files of whole durable subtrees: class → (subtree, bytes), oldest first.
    fn past_payload_files(&self) -> Result<BTreeMap<RetentionClass, Vec<(u64, u64)>>, RetainError> {
        let dir = &self.store.paths.payloads;
        let items = self
            .store
            .disk
            .list(dir)
            .map_err(|source| RetainError::Io {
                doing: "list",
                path: dir.clone(),
                source,
            })?;
        let mut files: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for item in items {
            if let Name::Payload(subtree, class) = paths::parse(&item.name)
                && subtree + u64::from(self.store.meta.subtree_leaves) <= self.store.durable
            {
                files.entry(class).or_default().push((subtree, item.bytes));
            }
        }
        files
            .values_mut()
            .for_each(|of_class| of_class.sort_unstable());
        Ok(files)
    }

    fn verdict(
        &self,
        rule: &RetentionRule,
        subtree: u64,
        total: u64,
        now_wall_ns: i64,
    ) -> Result<Option<PruneReason>, RetainError> {
        if rule.max_bytes.is_some_and(|max| total > max) {
            return Ok(Some(PruneReason::Size));
        }
        let Some(max_age_ms) = rule.max_age_ms else {
            return Ok(None);
        };
        let age_ns = i64::try_from(max_age_ms.saturating_mul(1_000_000)).unwrap_or(i64::MAX);
        let newest = self.newest_wall_ns(rule.class, subtree)?;
        let old = newest.is_some_and(|wall_ns| wall_ns < now_wall_ns.saturating_sub(age_ns));
        Ok(old.then_some(PruneReason::Age))
    }

    /// Wall time of the class's newest record in a subtree. Damaged leaves do not count.
    fn newest_wall_ns(
        &self,
        class: RetentionClass,
        subtree: u64,
    ) -> Result<Option<i64>, RetainError> {
        let filter = Filter {
            leaves: self.subtree_leaves(subtree),
            classes: vec![class],
            ..Filter::default()
        };
        let mut newest = None;
        for header in self.reader().scan(filter)?.headers() {
            match header {
                Ok((_, header)) => newest = newest.max(Some(header.wall_ns)),
                Err(error @ ReadError::Io { .. }) => return Err(error.into()),
                Err(_) => {}
            }
        }
        Ok(newest)
    }

    fn prune_of(
        &self,
        class: RetentionClass,
        first: u64,
        payload_bytes: u64,
        reason: PruneReason,
    ) -> Result<Prune, RetainError> {
        let leaves = self.subtree_leaves(first);
        let end = leaves.end;
        let mut root = Some(Peaks::default());
        for leaf in self
            .reader()
            .scan(Filter {
                leaves,
                ..Filter::default()
            })?
            .leaf_bytes()
        {
            match leaf {
                Ok(leaf) => {
                    if let Some(tree) = &mut root {
                        tree.push(leaf_hash(&leaf));
                    }
                }
                Err(error @ ReadError::Io { .. }) => return Err(error.into()),
                Err(_) => root = None,
            }
        }
        let root = root.map(|tree| tree.root());
        Ok(Prune {
            class,
            first,
            end,
            payload_bytes,
            root,
            reason,
        })
    }

    fn subtree_leaves(&self, subtree: u64) -> std::ops::Range<u64> {
        subtree..subtree + u64::from(self.store.meta.subtree_leaves)
    }
}
