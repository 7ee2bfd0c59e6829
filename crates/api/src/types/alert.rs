//! Alerts: Falco's JSON and one object of our own.

use super::{Container, Context, Drift, DriftBaseline, time};
use crate::json::lossy;
use plimsoll_model as model;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::Digest as _;
use std::collections::BTreeMap;

/// An alert as Falco prints it, so that Falcosidekick and SIEM parsers take it unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Alert {
    /// When the act happened.
    pub time: String,
    /// Rule, or drift class in words.
    pub rule: String,
    /// `Emergency` … `Debug`.
    pub priority: String,
    /// One sentence for people.
    pub output: String,
    /// Falco fields (`proc.name`, `container.id` …).
    pub output_fields: BTreeMap<String, Value>,
    /// Falco's event source: `syscall`.
    pub source: String,
    /// Techniques and other tags.
    pub tags: Vec<String>,
    /// The node.
    pub hostname: String,
    /// Derived from `alert_id`: repeats of an alert have the same.
    pub uuid: String,
    /// What Falco has no field for.
    pub plimsoll: PlimsollAlert,
}

/// Our part of an alert.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PlimsollAlert {
    /// Its id, for `plimsoll ask --alert`.
    pub alert_id: String,
    /// The container; `null`: unknown.
    pub container: Option<Container>,
    /// The baseline in force when it was judged.
    pub baseline: Option<DriftBaseline>,
    /// The drift behind it; `null` when a rule fired.
    pub drift: Option<Drift>,
    /// Records that show it.
    pub evidence: Vec<String>,
    /// How many equal acts it stands for. A line with the same `alert_id` and a higher count
    /// supersedes.
    pub count: u64,
    /// The last of those acts.
    pub last: String,
    /// A policy prevented it.
    pub prevented: bool,
    /// The alert's own record.
    pub record: Option<String>,
}

impl Alert {
    /// The JSON form of an alert.
    pub fn new(a: &model::Alert, context: Context<'_>) -> Self {
        let drift = match &a.source {
            model::AlertSource::Drift(d) => Some(Drift::new(
                d,
                Context {
                    record: None,
                    ..context
                },
            )),
            model::AlertSource::Rule(_) => None,
        };
        Self {
            time: time(a.at),
            rule: a.rule.clone(),
            priority: a.priority.as_str().to_owned(),
            output: lossy(&a.output),
            output_fields: a
                .fields
                .iter()
                .map(|(k, v)| (k.clone(), field(k, v)))
                .collect(),
            source: "syscall".to_owned(),
            tags: a.tags.clone(),
            hostname: context.node.to_owned(),
            uuid: uuid_of(a.id.as_str()),
            plimsoll: PlimsollAlert {
                alert_id: a.id.to_string(),
                container: context.container.map(|c| Container::new(c, context.node)),
                baseline: drift.as_ref().and_then(|d| d.baseline.clone()),
                drift,
                evidence: a.evidence.iter().map(ToString::to_string).collect(),
                count: a.count,
                last: time(a.last),
                prevented: a.prevented,
                record: context.record.map(ToString::to_string),
            },
        }
    }
}

/// Falco prints numbers and truth values as such, a value that is missing as `null`, everything
/// else as strings.
fn field(name: &str, value: &model::Text) -> Value {
    if value.is_empty() {
        return Value::Null;
    }
    let text = value.to_str_lossy();
    match (&*text, text.parse::<i64>()) {
        ("true", _) if is_truth(name) => true.into(),
        ("false", _) if is_truth(name) => false.into(),
        (_, Ok(number)) if is_numeric(name) => number.into(),
        _ => text.into_owned().into(),
    }
}

fn is_truth(name: &str) -> bool {
    const SUFFIXES: [&str; 7] = [
        ".privileged",
        ".failed",
        ".connected",
        ".name_changed",
        ".host_pid",
        ".host_network",
        ".host_ipc",
    ];
    name.contains(".is_") || SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

fn is_numeric(name: &str) -> bool {
    const SUFFIXES: [&str; 27] = [
        ".rawtime",
        ".rawres",
        ".count",
        ".duration",
        ".ts",
        ".start_ts",
        ".vpgid",
        ".sid",
        ".cmdnargs",
        ".cmdlenargs",
        ".pid",
        ".ppid",
        ".vpid",
        ".tid",
        ".vtid",
        ".uid",
        ".gid",
        ".loginuid",
        ".tty",
        ".time",
        ".num",
        ".cpu",
        ".lport",
        ".rport",
        ".cport",
        ".sport",
        ".ino",
    ];
    SUFFIXES.iter().any(|suffix| name.ends_with(suffix))
}

/// A version 8 UUID (RFC 9562) over the alert's id: the same for every repeat and reader.
pub fn uuid_of(alert_id: &str) -> String {
    let mut h = sha2::Sha256::new();
    h.update(b"plimsoll alert\0");
    h.update(alert_id);
    let mut b: [u8; 16] = h.finalize()[..16]
        .try_into()
        .expect("a SHA-256 has 32 bytes");
    b[6] = (b[6] & 0x0f) | 0x80;
    b[8] = (b[8] & 0x3f) | 0x80;
    let hex: String = b.iter().map(|b| format!("{b:02x}")).collect();
    format!(
        "{}-{}-{}-{}-{}",
        &hex[..8],
        &hex[8..12],
        &hex[12..16],
        &hex[16..20],
        &hex[20..]
    )
}
