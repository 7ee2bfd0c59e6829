//! What the tests and the benchmark share: events made of field values, and the public rule files.

#![allow(dead_code, unreachable_pub, missing_docs)]

use std::io::Write as _;
use std::net::IpAddr;
use std::path::PathBuf;

use plimsoll_rules::{
    EventKind, EventView, Field, FieldArg, FieldRef, LoadOptions, LoadReport, RuleId, Ruleset,
    Scratch, Source, Value, load,
};

/// One value that an event holds.
#[derive(Clone, Debug)]
pub enum Held {
    Unknown,
    Text(Vec<u8>),
    Int(i64),
    UInt(u64),
    Bool(bool),
    Ip(IpAddr),
    Texts(Vec<Vec<u8>>),
    Ips(Vec<IpAddr>),
    Numbers(Vec<u64>),
}

impl From<&str> for Held {
    fn from(text: &str) -> Self {
        Self::Text(text.as_bytes().to_vec())
    }
}

impl From<&[u8]> for Held {
    fn from(text: &[u8]) -> Self {
        Self::Text(text.to_vec())
    }
}

impl From<i64> for Held {
    fn from(n: i64) -> Self {
        Self::Int(n)
    }
}

impl From<u64> for Held {
    fn from(n: u64) -> Self {
        Self::UInt(n)
    }
}

impl From<bool> for Held {
    fn from(b: bool) -> Self {
        Self::Bool(b)
    }
}

impl From<&[&str]> for Held {
    fn from(texts: &[&str]) -> Self {
        Self::Texts(texts.iter().map(|t| t.as_bytes().to_vec()).collect())
    }
}

impl From<IpAddr> for Held {
    fn from(ip: IpAddr) -> Self {
        Self::Ip(ip)
    }
}

impl Held {
    pub fn value(&self) -> Value<'_> {
        match self {
            Self::Unknown => Value::Unknown,
            Self::Text(t) => Value::Text(t),
            Self::Int(n) => Value::Int(*n),
            Self::UInt(n) => Value::UInt(*n),
            Self::Bool(b) => Value::Bool(*b),
            Self::Ip(ip) => Value::Ip(*ip),
            Self::Texts(t) => Value::List(t),
            Self::Ips(t) => Value::List(t),
            Self::Numbers(t) => Value::List(t),
        }
    }
}

/// An event made by hand. Fields that were not set are absent.
#[derive(Clone, Debug)]
pub struct Event {
    kind: EventKind,
    plain: Vec<Option<Held>>,
    keyed: Vec<(FieldRef, Held)>,
    /// What fields are that were not set.
    unset_is_unknown: bool,
}

impl Event {
    pub fn new(kind: &str) -> Self {
        Self {
            kind: EventKind::from_name(kind).expect("the test names a kind that exists"),
            plain: vec![None; Field::count()],
            keyed: Vec::new(),
            unset_is_unknown: false,
        }
    }

    /// An event of which only what is set is known.
    pub fn partial(kind: &str) -> Self {
        Self {
            unset_is_unknown: true,
            ..Self::new(kind)
        }
    }

    pub fn with(mut self, field: &str, held: impl Into<Held>) -> Self {
        let (name, arg) = match field.split_once('[') {
            Some((name, arg)) => (name, arg.strip_suffix(']')),
            None => (field, None),
        };
        let field = FieldRef::resolve(name, arg).unwrap_or_else(|e| panic!("{field}: {e}"));
        match field.arg {
            FieldArg::None => self.plain[field.field.index()] = Some(held.into()),
            _ => {
                self.keyed.retain(|(f, _)| *f != field);
                self.keyed.push((field, held.into()));
            }
        }
        self
    }
}

impl EventView for Event {
    fn kind(&self) -> EventKind {
        self.kind
    }

    fn field<'a>(&'a self, field: &FieldRef) -> Value<'a> {
        let held = match field.arg {
            FieldArg::None => self.plain[field.field.index()].as_ref(),
            _ => self.keyed.iter().find(|(f, _)| f == field).map(|(_, h)| h),
        };
        match held {
            Some(held) => held.value(),
            None if self.unset_is_unknown => Value::Unknown,
            None => Value::Absent,
        }
    }
}

pub fn load_texts(texts: &[&str]) -> (LoadReport, Option<Ruleset>) {
    let names: Vec<String> = (0..texts.len()).map(|i| format!("rules{i}.yaml")).collect();
    let files: Vec<(&str, &str)> = names
        .iter()
        .map(String::as_str)
        .zip(texts.iter().copied())
        .collect();
    load(&files, &LoadOptions::default())
}

/// Loads texts that have to be fine.
pub fn ruleset(texts: &[&str]) -> Ruleset {
    let (report, set) = load_texts(texts);
    let errors: Vec<String> = report
        .errors()
        .map(|(_, e)| format!("{:?}: {} at {:?}", e.code, e.message, e.position()))
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
    set.expect("a set without errors")
}

/// A rule of that condition alone.
pub fn rule_of(condition: &str) -> String {
    format!(
        "- rule: r\n  desc: d\n  priority: INFO\n  output: o\n  condition: |\n    {}\n",
        condition.replace('\n', "\n    ")
    )
}

/// Whether a condition alone matches an event.
pub fn matches(condition: &str, event: &Event) -> bool {
    let set = ruleset(&[&rule_of(condition)]);
    let judged = !set
        .judge(Source::Syscall, event, &mut Scratch::default())
        .is_empty();
    let reason = set.reason(RuleId(0), event);
    assert_eq!(
        judged,
        reason.outcome == plimsoll_rules::Tri::True,
        "the reason differs from the verdict: {condition}: {reason:#?}"
    );
    judged
}

/// The names of the rules that match.
pub fn names<'s>(set: &'s Ruleset, source: Source, event: &Event) -> Vec<&'s str> {
    let mut scratch = Scratch::default();
    let matched = set.judge(source, event, &mut scratch).to_vec();
    matched
        .into_iter()
        .map(|id| set.rule(id).name.as_str())
        .collect()
}

/// The folder of the public rule files, if this machine has it; says what is left out if not.
pub fn corpora() -> Option<PathBuf> {
    let named = std::env::var_os("PLIMSOLL_CORPORA").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora")
    });
    if folder.join("falco-rules").is_dir() {
        return Some(folder);
    }
    let must = std::env::var("PLIMSOLL_TEST_ALL").is_ok_and(|v| v == "1") && named.is_some();
    assert!(!must, "no public rule files in {}", folder.display());
    // Past the harness, which keeps what passing tests print to itself.
    static ONCE: std::sync::Once = std::sync::Once::new();
    ONCE.call_once(|| {
        let text =
            "left out: tests over the public rule files (PLIMSOLL_CORPORA names their folder)";
        let _ = writeln!(std::io::stderr(), "{text}");
    });
    None
}

/// Names and texts of rule files in a folder of the corpora.
pub fn corpus_files(folder: &str, files: &[&str]) -> Option<Vec<(String, String)>> {
    let root = corpora()?.join(folder);
    let read = |name: &&str| {
        let text = std::fs::read_to_string(root.join(name)).expect("a file of the corpus");
        ((*name).to_owned(), text)
    };
    Some(files.iter().map(read).collect())
}

pub const FALCO_FILES: [&str; 3] = [
    "falco_rules.yaml",
    "falco-incubating_rules.yaml",
    "falco-sandbox_rules.yaml",
];
