//! Rule files: found, read within bounds, and loaded as one set.
//!
//! Promises: the order is that of the arguments, and by name within a directory; a file that cannot
//! be read or does not load makes the whole set fail, with its place. Bounded: [`FILES_MAX`] files,
//! [`FILE_BYTES_MAX`] each, [`TOTAL_BYTES_MAX`] together. Left out: when they are read again
//! ([`super::watcher`]).

use super::capabilities::capabilities;
use super::kinds::{self, Family};
use plimsoll_model::{RuleEntry, RuleFile, RuleSet, Stamp, Text};
use plimsoll_rules::{
    EventKind, LoadOptions, LoadReport, MatchMode, RuleId, RuleStatus, Ruleset, Source, load,
};
use sha2::{Digest as _, Sha256};
use std::collections::HashMap;
use std::io::Read as _;
use std::path::{Path, PathBuf};

/// Files of one set.
pub const FILES_MAX: usize = 256;
/// Bytes of one file.
pub const FILE_BYTES_MAX: u64 = 32 << 20;
/// Bytes of a set.
pub const TOTAL_BYTES_MAX: u64 = 64 << 20;
/// Bytes of texts that the journal keeps with a set: a record holds at most a mebibyte.
const JOURNAL_TEXT_MAX: usize = 768 << 10;
/// Rules that the journal's record of a set names.
const JOURNAL_RULES_MAX: usize = 2000;

/// Where rules are looked for when nothing is said.
pub const DEFAULT_DIR: &str = "/etc/plimsoll/rules.d";

/// The rules that come with this build (`rules/*.yaml`, embedded by the build script): name and
/// text, in the order in which they are loaded.
pub const BUILTIN: &[(&str, &str)] = include!(concat!(env!("OUT_DIR"), "/builtin_rules.rs"));

/// Where rules come from, in this order: our own, then the paths.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleSources {
    /// Load the rules that come with this build.
    pub builtin: bool,
    /// Files, and directories of files.
    pub paths: Vec<PathBuf>,
    /// Paths that were named by the person who started the agent: it does not start without them.
    pub named: bool,
    /// An event can match one rule or several.
    pub match_mode: MatchMode,
}

impl Default for RuleSources {
    fn default() -> Self {
        Self {
            builtin: true,
            paths: vec![DEFAULT_DIR.into()],
            named: false,
            match_mode: MatchMode::All,
        }
    }
}

/// A text and its name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleText {
    /// Path, or `builtin:NAME`.
    pub name: String,
    /// What it holds.
    pub text: String,
}

/// Why there is no set of rules.
#[derive(Debug, thiserror::Error)]
pub enum RulesError {
    /// A file or directory cannot be read.
    #[error("cannot read {}: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// There is more than is loaded.
    #[error("{}: {what}", path.display())]
    TooMuch {
        /// Where the bound was met.
        path: PathBuf,
        /// Which bound.
        what: String,
    },
    /// Files do not load; the report says where and why.
    #[error("{}", first_errors(.0))]
    Load(Box<LoadReport>),
}

/// The first errors of a report in one line: `FILE:LINE:COLUMN: rule NAME: MESSAGE`.
pub fn first_errors(report: &LoadReport) -> String {
    const SHOWN: usize = 3;
    let total = report.errors().count();
    let mut shown: Vec<String> = report
        .errors()
        .take(SHOWN)
        .map(|(file, e)| {
            let place = match e.position() {
                Some(p) => format!("{}:{}:{}", p.name, p.line, p.column),
                None => file.name.clone(),
            };
            let item = e
                .item()
                .map_or(String::new(), |(k, n)| format!("{k} {n}: "));
            format!("{place}: {item}{}", e.message)
        })
        .collect();
    if total > SHOWN {
        shown.push(format!("and {} more", total - SHOWN));
    }
    shown.join("; ")
}

impl RuleSources {
    /// Reads every file. The default directory may be missing.
    ///
    /// # Errors
    /// When something named cannot be read, or a bound is met.
    pub fn read(&self) -> Result<Vec<RuleText>, RulesError> {
        let builtin = |(name, text): &(&str, &str)| RuleText {
            name: format!("builtin:{name}"),
            text: (*text).to_owned(),
        };
        let mut texts: Vec<RuleText> = match self.builtin {
            true => BUILTIN.iter().map(builtin).collect(),
            false => Vec::new(),
        };
        let mut total = 0u64;
        for file in self.files()? {
            let text = read_text(&file)?;
            total += text.len() as u64;
            if total > TOTAL_BYTES_MAX {
                return Err(RulesError::TooMuch {
                    path: file,
                    what: format!("all rule files together have more than {TOTAL_BYTES_MAX} bytes"),
                });
            }
            let name = file.display().to_string();
            texts.push(RuleText { name, text });
        }
        Ok(texts)
    }

    /// The files, in the order in which they are loaded.
    ///
    /// # Errors
    /// When something named cannot be read, or there are too many.
    pub fn files(&self) -> Result<Vec<PathBuf>, RulesError> {
        let mut files = Vec::new();
        for path in &self.paths {
            let missing_is_fine = !self.named && path == Path::new(DEFAULT_DIR);
            match std::fs::metadata(path) {
                Ok(meta) if meta.is_dir() => files.extend(list(path)?),
                Ok(_) => files.push(path.clone()),
                Err(e) if missing_is_fine && e.kind() == std::io::ErrorKind::NotFound => {}
                Err(source) => {
                    return Err(RulesError::Read {
                        path: path.clone(),
                        source,
                    });
                }
            }
            if files.len() > FILES_MAX {
                return Err(RulesError::TooMuch {
                    path: path.clone(),
                    what: format!("more than {FILES_MAX} rule files"),
                });
            }
        }
        Ok(files)
    }
}

fn list(dir: &Path) -> Result<Vec<PathBuf>, RulesError> {
    let wrap = |source| RulesError::Read {
        path: dir.to_owned(),
        source,
    };
    let mut files = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(wrap)? {
        let path = entry.map_err(wrap)?.path();
        let hidden = path
            .file_name()
            .is_some_and(|n| n.as_encoded_bytes().starts_with(b"."));
        let yaml = path.extension().is_some_and(|e| e == "yaml" || e == "yml");
        // metadata and not file_type: mounted configuration is often made of symbolic links
        if yaml && !hidden && path.is_file() {
            files.push(path);
        }
        if files.len() > FILES_MAX {
            break;
        }
    }
    files.sort();
    Ok(files)
}

fn read_text(path: &Path) -> Result<String, RulesError> {
    let mut bytes = Vec::new();
    std::fs::File::open(path)
        .and_then(|f| f.take(FILE_BYTES_MAX + 1).read_to_end(&mut bytes))
        .map_err(|source| RulesError::Read {
            path: path.to_owned(),
            source,
        })?;
    if bytes.len() as u64 > FILE_BYTES_MAX {
        return Err(RulesError::TooMuch {
            path: path.to_owned(),
            what: format!("more than {FILE_BYTES_MAX} bytes"),
        });
    }
    String::from_utf8(bytes).map_err(|_| RulesError::Read {
        path: path.to_owned(),
        source: std::io::Error::new(std::io::ErrorKind::InvalidData, "it is not UTF-8"),
    })
}

/// A set of rules, ready to judge.
#[derive(Debug)]
pub struct Loaded {
    /// The rules.
    pub set: Ruleset,
    /// SHA-256 over names and texts, in hex.
    pub id: String,
    /// What was warned of.
    pub report: LoadReport,
    files: Vec<RuleFile>,
    options: Options,
    /// Which names of each family are judged: one for each set of rules that it can tell apart.
    kinds: HashMap<Family, Box<[EventKind]>>,
}

/// How rules are loaded on a node.
#[derive(Clone, Debug)]
pub struct Options {
    load: LoadOptions,
    refused: Vec<String>,
}

/// How rules are loaded on a node whose kernel refused these hooks.
pub fn options(mode: MatchMode, refused: &[String]) -> Options {
    Options {
        load: LoadOptions {
            capabilities: capabilities(refused),
            match_mode: mode,
            ..LoadOptions::default()
        },
        refused: refused.to_owned(),
    }
}

/// Loads texts as one set: all or nothing.
///
/// # Errors
/// When a file does not load; the report names every error.
pub fn load_texts(texts: &[RuleText], options: &Options) -> Result<Loaded, RulesError> {
    let files: Vec<(&str, &str)> = texts
        .iter()
        .map(|t| (t.name.as_str(), t.text.as_str()))
        .collect();
    let (report, set) = load(&files, &options.load);
    let Some(set) = set else {
        return Err(RulesError::Load(Box::new(report)));
    };
    let kinds = told_apart(&set);
    Ok(Loaded {
        set,
        id: id_of(texts),
        report,
        files: journal_files(texts),
        options: options.clone(),
        kinds,
    })
}

/// The id of a set: a digest over names and texts in their order.
pub fn id_of(texts: &[RuleText]) -> String {
    let mut h = Sha256::new();
    for t in texts {
        for part in [t.name.as_bytes(), t.text.as_bytes()] {
            h.update((part.len() as u64).to_be_bytes());
            h.update(part);
        }
    }
    hex(&h.finalize())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn journal_files(texts: &[RuleText]) -> Vec<RuleFile> {
    let total: usize = texts.iter().map(|t| t.text.len() + t.name.len()).sum();
    let whole = total <= JOURNAL_TEXT_MAX;
    texts
        .iter()
        .map(|t| RuleFile {
            name: t.name.clone(),
            digest: hex(&Sha256::digest(t.text.as_bytes())),
            bytes: t.text.len() as u64,
            text: whole.then(|| Text::from(t.text.as_bytes())),
        })
        .collect()
}

/// Of each family, one name for each set of active rules: names that no rule tells apart are
/// judged once.
fn told_apart(set: &Ruleset) -> HashMap<Family, Box<[EventKind]>> {
    let ids = (0..set.rules().len() as u32).map(RuleId);
    let of_rules: Vec<(u32, plimsoll_rules::KindSet)> = ids
        .filter(|id| {
            let rule = set.rule(*id);
            rule.source == Source::Syscall && rule.status.is_active()
        })
        .map(|id| (id.0, set.kinds(id)))
        .collect();
    let rules_of = |kind: EventKind| -> Vec<u32> {
        let fits = of_rules.iter().filter(|(_, kinds)| kinds.contains(kind));
        fits.map(|(id, _)| *id).collect()
    };
    kinds::families()
        .map(|family| {
            let mut seen: Vec<Vec<u32>> = Vec::new();
            let mut judged = Vec::new();
            for kind in family {
                let rules = rules_of(*kind);
                if !rules.is_empty() && !seen.contains(&rules) {
                    seen.push(rules);
                    judged.push(*kind);
                }
            }
            (family, judged.into_boxed_slice())
        })
        .collect()
}

impl Loaded {
    /// The names by which an event of that family is judged.
    pub fn kinds(&self, family: Family) -> &[EventKind] {
        self.kinds.get(family).map_or(&[], |k| k)
    }

    /// What the journal keeps of it.
    pub fn record(&self, at: Stamp, replaced: &str) -> RuleSet {
        let state = |status: &RuleStatus| match status {
            RuleStatus::Active => "active",
            RuleStatus::Partial { .. } => "partial",
            RuleStatus::Inactive { .. } => "inactive",
            RuleStatus::Disabled => "disabled",
        };
        let rules = self.set.rules().iter().take(JOURNAL_RULES_MAX);
        RuleSet {
            at,
            id: self.id.clone(),
            files: self.files.clone(),
            rules: rules
                .map(|r| RuleEntry {
                    name: r.name.chars().take(120).collect(),
                    state: state(&r.status).to_owned(),
                })
                .collect(),
            engine: engine_version(),
            replaced: replaced.to_owned(),
            first_match_only: self.options.load.match_mode == MatchMode::First,
            hooks_refused: self.options.refused.clone(),
        }
    }

    /// How many rules judge events.
    pub fn active(&self) -> usize {
        let rules = self.set.rules().iter();
        rules.filter(|r| r.status.is_active()).count()
    }
}

/// Version of the rule language's engine, as `required_engine_version` compares it.
pub fn engine_version() -> String {
    let (a, b, c) = plimsoll_rules::ENGINE_VERSION;
    format!("{a}.{b}.{c}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_rules_that_come_with_this_build_load_without_a_finding() {
        let texts: Vec<RuleText> = BUILTIN
            .iter()
            .map(|(name, text)| RuleText {
                name: (*name).to_owned(),
                text: (*text).to_owned(),
            })
            .collect();
        let loaded = load_texts(&texts, &options(MatchMode::All, &[])).unwrap();
        let warnings: Vec<&str> = loaded
            .report
            .warnings()
            .map(|(_, w)| w.message.as_str())
            .collect();
        assert!(warnings.is_empty(), "{warnings:?}");
    }

    #[test]
    fn directories_are_read_by_name_and_hidden_files_are_not() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["b.yaml", "a.yml", ".hidden.yaml", "note.txt"] {
            std::fs::write(dir.path().join(name), "- list: l\n  items: []\n").unwrap();
        }
        let sources = RuleSources {
            paths: vec![dir.path().to_owned()],
            ..RuleSources::default()
        };
        let files = sources.files().unwrap();
        let names: Vec<_> = files.iter().map(|f| f.file_name().unwrap()).collect();
        assert_eq!(names, ["a.yml", "b.yaml"]);
    }

    #[test]
    fn a_path_that_was_named_has_to_be_there_and_the_default_need_not() {
        let missing = |path: &str| RuleSources {
            paths: vec![path.into()],
            ..RuleSources::default()
        };
        assert!(missing("/nonexistent/rules").files().is_err());
        let default = missing(DEFAULT_DIR);
        assert!(default.files().is_ok());
    }

    #[test]
    fn an_error_names_file_line_and_rule() {
        let texts = [RuleText {
            name: "x.yaml".to_owned(),
            text: "- rule: r\n  desc: d\n  condition: proc.nmae = a\n  output: o\n  priority: NOTICE\n"
                .to_owned(),
        }];
        let error = load_texts(&texts, &options(MatchMode::All, &[])).unwrap_err();
        let text = error.to_string();
        assert!(
            text.starts_with("x.yaml:3:") && text.contains("r: "),
            "{text}"
        );
    }
}
