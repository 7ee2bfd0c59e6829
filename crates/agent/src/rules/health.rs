//! Whether the rule files are in force as they are, between the thread that looks and the one that answers.

use std::sync::{Mutex, PoisonError};

/// How the rules are doing, for `status`.
#[derive(Debug, Default)]
pub struct Health(Mutex<Option<String>>);

impl Health {
    /// Why the files as they are now are not in force; `None`: they are.
    pub fn problem(&self) -> Option<String> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Says so.
    pub(super) fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }
}
