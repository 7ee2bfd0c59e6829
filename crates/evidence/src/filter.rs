//! Which entries a reader gives.

use std::ops::Range;

use crate::record::{Header, InstanceKey, RetentionClass};

/// Which entries are wanted; empty lists and `None` mean all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Leaf indexes.
    pub leaves: Range<u64>,
    /// Wall-clock times of the facts, nanoseconds.
    pub wall_ns: Option<Range<i64>>,
    /// Record kinds.
    pub kinds: Vec<u16>,
    /// Retention classes.
    pub classes: Vec<RetentionClass>,
    /// Container instances.
    pub containers: Vec<InstanceKey>,
    /// The latest leaf first.
    pub newest_first: bool,
}

impl Default for Filter {
    fn default() -> Self {
        Self {
            leaves: 0..u64::MAX,
            wall_ns: None,
            kinds: Vec::new(),
            classes: Vec::new(),
            containers: Vec::new(),
            newest_first: false,
        }
    }
}

impl Filter {
    /// Whether the entry of `header` is wanted, its leaf index aside.
    pub(crate) fn matches(&self, header: &Header) -> bool {
        let any = |list_is_empty: bool, found: bool| list_is_empty || found;
        self.wall_ns
            .as_ref()
            .is_none_or(|w| w.contains(&header.wall_ns))
            && any(self.kinds.is_empty(), self.kinds.contains(&header.kind))
            && any(
                self.classes.is_empty(),
                self.classes.contains(&header.class),
            )
            && any(
                self.containers.is_empty(),
                header
                    .container
                    .is_some_and(|key| self.containers.contains(&key)),
            )
    }
}
