//! Rules as a node judges by them.

use serde::{Deserialize, Serialize};

/// Which rules are in force, and where they were read from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct RuleSetInfo {
    /// SHA-256 over names and texts, in hex; empty: none is in force.
    pub id: String,
    /// Rules that come with this build are among them.
    pub builtin: bool,
    /// Files and directories that are read after those, in this order.
    pub paths: Vec<String>,
    /// Why a changed file is not in force.
    pub problem: Option<String>,
}

/// A rule, and whether it judges on this node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Rule {
    /// Its name.
    pub rule: String,
    /// What it is about.
    pub description: String,
    /// Falco's word for how urgent it is (`Warning`).
    pub priority: String,
    /// Which events it is for (`syscall`, `k8s_audit`).
    pub source: String,
    /// Techniques of ATT&CK among its tags.
    pub techniques: Vec<String>,
    /// All tags, sorted.
    pub tags: Vec<String>,
    /// `active`, `partial`, `inactive` or `disabled`.
    pub state: String,
    /// Why it judges none or not all of its events.
    pub reasons: Vec<String>,
    /// File that it was last defined in.
    pub file: String,
    /// Line there, from 1.
    pub line: u32,
    /// Our extension, as it was written; `null`: none.
    pub threshold: Option<serde_json::Value>,
    /// Whose set it is of: `agent` (in force), or `files` (what files hold now).
    pub from: String,
}
