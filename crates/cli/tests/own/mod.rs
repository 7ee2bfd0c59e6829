//! The scenarios of our own rules (`rules/scenarios/*.yaml`), read for the tests that use them.
//!
//! Each names its rule, what fires it and what comes near, as events and as acts in a container. Four
//! keys are short for what they stand for: `exec: /usr/bin/x ARGS`, `read: FILE`, `write: FILE` and
//! `connect: "IP:PORT"`; `times: N` is the event N times within seconds, with `{n}` counted up in its
//! texts. Everything else is a field, as in the scenarios of `plimsoll rules test`.

use plimsoll_agent::rules::RuleSources;
use plimsoll_agent::rules::files::{Loaded, load_texts, options};
use plimsoll_agent::rules::scenario::{Fields, Scene, read_line};
use plimsoll_rules::MatchMode;
use serde::Deserialize;
use serde_json::{Map, Value as Json, json};
use std::path::{Path, PathBuf};

/// What shows that a rule works.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Scenario {
    /// The rule's name.
    pub(crate) rule: String,
    /// Events (or bursts of one) of which each fires the rule.
    pub(crate) fires: Vec<Map<String, Json>>,
    /// Events of which none does.
    pub(crate) quiet: Vec<Map<String, Json>>,
    /// A shell script that fires it in a container.
    pub(crate) act: String,
    /// One that does not.
    pub(crate) near: String,
    /// How the container is run, for both.
    #[serde(default)]
    pub(crate) options: Vec<String>,
    /// And for the act alone.
    #[serde(default)]
    pub(crate) options_of_act: Vec<String>,
    /// The file it is in, without its ending.
    #[serde(skip)]
    pub(crate) tactic: String,
}

/// Where the rules and their scenarios are.
pub(crate) fn rules_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../rules")
}

/// All scenarios, by file and in their order there.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let dir = rules_dir().join("scenarios");
    let mut files: Vec<PathBuf> = std::fs::read_dir(&dir)
        .expect("rules/scenarios is there")
        .map(|e| e.expect("an entry can be read").path())
        .filter(|p| p.extension().is_some_and(|e| e == "yaml"))
        .collect();
    files.sort();
    let mut all = Vec::new();
    for file in files.iter().filter(|f| !f.ends_with("gaps.yaml")) {
        let text = std::fs::read_to_string(file).expect("a scenario file can be read");
        let mut of_file: Vec<Scenario> =
            serde_yaml_ng::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", file.display()));
        let tactic = file.file_stem().expect("a name").to_string_lossy();
        for scenario in &mut of_file {
            scenario.tactic = tactic.clone().into_owned();
        }
        all.extend(of_file);
    }
    all
}

/// Our own rules, as a node loads them whose kernel refused no hook of the tracepoint rung.
pub(crate) fn own_rules() -> Loaded {
    let sources = RuleSources {
        builtin: true,
        paths: Vec::new(),
        ..RuleSources::default()
    };
    let texts = sources.read().expect("they are in this program");
    load_texts(&texts, &options(MatchMode::All, &[])).expect("they load")
}

impl Scenario {
    /// The scenario's name in names of containers.
    pub(crate) fn slug(&self) -> String {
        let plain = |c: char| match c.is_ascii_alphanumeric() {
            true => c.to_ascii_lowercase(),
            false => '-',
        };
        self.rule.chars().map(plain).collect()
    }
}

/// The events that an entry of a scenario stands for.
pub(crate) fn events(entry: &Map<String, Json>) -> Vec<Fields> {
    let mut object = entry.clone();
    let times = object
        .remove("times")
        .map_or(1, |n| n.as_u64().expect("times is a number"));
    spelled_out(&mut object);
    (1..=times)
        .map(|n| {
            let line = Json::Object(object.clone()).to_string();
            let line = line.replace("{n}", &n.to_string());
            match read_line(line.as_bytes(), n).map(|mut all| all.pop()) {
                Ok(Some(Scene::Syscall(fields))) => *fields,
                other => panic!("{line}: {other:?}"),
            }
        })
        .collect()
}

/// Puts fields in place of what is short for them.
fn spelled_out(object: &mut Map<String, Json>) {
    let mut take = |key: &str| match object.remove(key) {
        Some(Json::String(text)) => Some(text),
        None => None,
        other => panic!("{key}: expected a text, found {other:?}"),
    };
    let mut fields = json!({"container.id": "3ad7b26ded6d"});
    let open = |fields: &mut Json, path: String, how: &str| {
        fields["evt.type"] = json!("openat");
        fields["fd.typechar"] = json!("f");
        fields["fd.name"] = json!(path);
        fields[how] = json!(true);
    };
    if let Some(command) = take("exec") {
        let (path, args) = command.split_once(' ').unwrap_or((&command, ""));
        let base = path.rsplit('/').next().unwrap_or(path);
        fields["evt.type"] = json!("execve");
        fields["proc.exepath"] = json!(path);
        fields["proc.exe"] = json!(path);
        fields["proc.name"] = json!(base.chars().take(15).collect::<String>());
        fields["proc.args"] = json!(args);
    }
    if let Some(path) = take("read") {
        open(&mut fields, path, "evt.is_open_read");
    }
    if let Some(path) = take("write") {
        open(&mut fields, path, "evt.is_open_write");
    }
    if let Some(peer) = take("connect") {
        let (ip, port) = peer.rsplit_once(':').expect("an address and a port");
        fields["evt.type"] = json!("connect");
        fields["fd.l4proto"] = json!("tcp");
        fields["fd.sip"] = json!(ip);
        fields["fd.snet"] = json!(ip);
        fields["fd.sport"] = json!(port);
    }
    let Json::Object(fields) = fields else {
        unreachable!("it was made as an object")
    };
    for (key, value) in fields {
        object.entry(key).or_insert(value);
    }
}
