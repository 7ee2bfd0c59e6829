//! Values as people type them, each with what was expected where it does not fit.

use clap::builder::{PathBufValueParser, TypedValueParser};
use plimsoll_ask::Question;
use plimsoll_model::{AlertId, NodeId, Priority};
use std::path::PathBuf;

/// A path as it is from `/`: `agent.sock` has no directory to make or to sync.
pub(crate) fn absolute() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(std::path::absolute)
}

/// One question, or all.
#[derive(Clone, Debug)]
pub(crate) enum Questions {
    One(Question),
    All,
}

pub(crate) fn questions(text: &str) -> Result<Questions, String> {
    match text.eq_ignore_ascii_case("all") {
        true => Ok(Questions::All),
        false => text
            .parse()
            .map(Questions::One)
            .map_err(|e: plimsoll_ask::UnknownQuestion| format!("{e}, or all")),
    }
}

pub(crate) fn alert(text: &str) -> Result<AlertId, String> {
    AlertId::parse(text).map_err(|e| format!("{e}; `plimsoll alerts` lists them"))
}

pub(crate) fn node(text: &str) -> Result<NodeId, String> {
    NodeId::parse(text).map_err(|e| e.to_string())
}

/// What may name a container: runtimes allow no other characters in names and ids.
pub(crate) fn container(text: &str) -> Result<String, String> {
    named(text, "container name or id", |b| matches!(b, b'/' | b'@'))
}

pub(crate) fn selector(text: &str) -> Result<String, String> {
    named(text, "baseline id, container name, role or image", |b| {
        matches!(b, b'/' | b'@')
    })
}

fn named(text: &str, what: &str, also: fn(u8) -> bool) -> Result<String, String> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"-_.:+".contains(&b) || also(b);
    match (text.is_empty() || text.len() > 512, text.bytes().all(fine)) {
        (false, true) => Ok(text.to_owned()),
        (true, _) => Err(format!("not a {what}: empty or too long")),
        (_, false) => Err(format!(
            "not a {what}: it has a character that is not allowed"
        )),
    }
}

pub(crate) fn behaviour(text: &str) -> Result<String, String> {
    let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
    hex.then(|| text.to_ascii_lowercase()).ok_or_else(|| {
        "not a behaviour id: expected 32 hex digits, as `plimsoll baseline show` prints them"
            .to_owned()
    })
}

pub(crate) fn reason(text: &str) -> Result<String, String> {
    match text.trim() {
        "" => Err("a decision needs a reason".to_owned()),
        t if t.len() > plimsoll_api::protocol::REASON_BYTES_MAX => {
            Err("longer than 1024 bytes".to_owned())
        }
        t => Ok(t.to_owned()),
    }
}

pub(crate) fn priority(text: &str) -> Result<Priority, String> {
    const ALL: [Priority; 8] = [
        Priority::Emergency,
        Priority::Alert,
        Priority::Critical,
        Priority::Error,
        Priority::Warning,
        Priority::Notice,
        Priority::Informational,
        Priority::Debug,
    ];
    let word = text.to_ascii_lowercase();
    let fits =
        |p: &&Priority| word.len() >= 3 && p.as_str().to_ascii_lowercase().starts_with(&word);
    ALL.iter().find(fits).copied().ok_or_else(|| {
        "expected emergency, alert, critical, error, warning, notice, informational or debug"
            .to_owned()
    })
}

/// Names of the kinds of events, as `EventKind::name` gives them.
pub(crate) const KINDS: [&str; 26] = [
    "exec",
    "exit",
    "fork",
    "file",
    "library",
    "socket",
    "connect",
    "accept",
    "listen",
    "bind",
    "datagram",
    "dns",
    "dup",
    "namespace",
    "mount",
    "ptrace",
    "module",
    "bpf",
    "credentials",
    "syscall",
    "memfd",
    "cgroup_mkdir",
    "cgroup_rmdir",
    "cgroup_attach",
    "rare",
    "signal",
];

pub(crate) fn kind(text: &str) -> Result<String, String> {
    let known = KINDS.contains(&text);
    known
        .then(|| text.to_owned())
        .ok_or_else(|| format!("expected one of {}", KINDS.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn priorities_are_found_by_their_beginning() {
        assert_eq!(priority("WARN"), Ok(Priority::Warning));
        assert_eq!(priority("info"), Ok(Priority::Informational));
        assert!(priority("x").is_err());
    }
}
