//! Acts of the public rules (`tests/host/public/*.yaml`), by the names of those rules.
//!
//! The rules themselves are not ours and not here: tests look for them beside the repository
//! (`PLIMSOLL_CORPORA`, else `../shared/corpora`). A rule that is not performed says why.

use serde::Deserialize;
use std::path::{Path, PathBuf};

/// How one rule is performed, or why it is not.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Act {
    /// The rule's name.
    pub(crate) rule: String,
    /// A shell script that fires it in a container.
    #[serde(default)]
    pub(crate) act: String,
    /// One that comes near and does not.
    #[serde(default)]
    pub(crate) near: String,
    /// Options of `docker run` for both.
    #[serde(default)]
    pub(crate) options: Vec<String>,
    /// Options for the act alone.
    #[serde(default)]
    pub(crate) options_of_act: Vec<String>,
    /// Options for what comes near alone.
    #[serde(default)]
    pub(crate) options_of_near: Vec<String>,
    /// The image, where it is not the usual one.
    pub(crate) image: Option<String>,
    /// Why it is not performed.
    pub(crate) not: Option<String>,
    /// The rule file that has the rule.
    #[serde(skip)]
    pub(crate) file: &'static str,
}

/// The public rule files in the order in which they are loaded, with the files of their acts.
pub(crate) const FILES: [(&str, &str); 3] = [
    ("falco_rules.yaml", "1-stable.yaml"),
    ("falco-incubating_rules.yaml", "2-incubating.yaml"),
    ("falco-sandbox_rules.yaml", "3-sandbox.yaml"),
];

/// All acts, in the order of their files.
pub(crate) fn acts() -> Vec<Act> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/host/public");
    let mut all = Vec::new();
    for (file, name) in FILES {
        let text = std::fs::read_to_string(dir.join(name)).expect("a file of ours");
        let of_file: Vec<Act> =
            serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("{name}: {e}"));
        all.extend(of_file.into_iter().map(|act| Act { file, ..act }));
    }
    all
}

/// The public rule files, where somebody has them.
pub(crate) fn rule_files() -> Option<Vec<PathBuf>> {
    let beside = concat!(env!("CARGO_MANIFEST_DIR"), "/../../../shared/corpora");
    let root = std::env::var("PLIMSOLL_CORPORA").unwrap_or_else(|_| beside.to_owned());
    let dir = Path::new(&root).join("falco-rules");
    let files = FILES.map(|(file, _)| dir.join(file));
    if files.iter().all(|f| f.exists()) {
        return Some(files.to_vec());
    }
    eprintln!("left out: the public rules (PLIMSOLL_CORPORA names their folder)");
    None
}
