//! Files that people write, read so that every error names line, column and what was expected.
//!
//! [`parse`] gives a tree in which each value knows its place; a [`Section`] reads typed values out of
//! it. The configuration and both policy languages stand on these two; what their keys mean is theirs.
//! Promises: input, nodes, depth and lists are bounded; a key that is given twice or that nobody knows
//! is an error, because it would be ignored in silence. No I/O.

mod section;
mod tree;

pub use section::{LIST_MAX, Result, Section, expected, scalar};
pub use tree::{Fault, Kind, Mark, Node, parse};
