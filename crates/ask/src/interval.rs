//! The time that an answer looks at, in words.

use plimsoll_api::describe::when;
use plimsoll_model::WallNs;

/// The time that an answer looks at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interval {
    pub(crate) from: WallNs,
    pub(crate) to: WallNs,
}

impl Interval {
    pub(crate) fn text(self) -> String {
        between(self.from, self.to)
    }
    pub(crate) fn touches(self, from: WallNs, to: WallNs) -> bool {
        from <= self.to && to >= self.from
    }
}

/// `between A and B`, or `at A` when they are the same to a person.
pub(crate) fn between(from: WallNs, to: WallNs) -> String {
    let (a, b) = (when(from), when(to));
    if a == b {
        format!("at {a}")
    } else {
        format!("between {a} and {b}")
    }
}
