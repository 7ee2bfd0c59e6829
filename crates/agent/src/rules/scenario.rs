//! Scenarios: events as rules see them, one JSON object a line, to try rules on.
//!
//! ```text
//! {"evt.type": "openat", "fd.name": "/etc/shadow", "fd.num": 3, "evt.is_open_read": true,
//!  "proc.name": "cat", "proc.aname": ["sh", "nginx"], "container.id": "3ad7b26ded6d"}
//! ```
//!
//! Keys are Falco's fields; `evt.type` is a name or the list of names that the event may have. A
//! field that is not there, or `null`, is absent; `{"unknown": true}` is a value that is not told.
//! `proc.aname` and its kin begin with the parent, and give `proc.aname[1]` and further. Of
//! `fd.name`, directory and file name follow. A line with `auditID` is a Kubernetes audit event.
//!
//! Promises: bounded lines; a field that rules do not know is an error with its name. Left out:
//! running anything.

use super::view::View;
use plimsoll_rules::audit::{self, AuditError, AuditEvent};
use plimsoll_rules::{
    EventKind, EventView, Field, FieldArg, FieldRef, FieldType, Kept, Shape, Source, Value,
};
use serde_json::{Map, Value as Json, json};
use std::collections::HashMap;
use std::net::IpAddr;

/// A line is at most this long.
pub const LINE_BYTES_MAX: usize = audit::MAX_LINE_BYTES;

/// One event of a scenario.
#[derive(Debug)]
pub enum Scene {
    /// Of the kernel.
    Syscall(Box<Fields>),
    /// Of the Kubernetes API server.
    Audit(Box<AuditEvent>),
}

impl Scene {
    /// Which rules it is for.
    pub fn source(&self) -> Source {
        match self {
            Self::Syscall(_) => Source::Syscall,
            Self::Audit(_) => Source::K8sAudit,
        }
    }
}

/// Why a line is no event.
#[derive(Debug, thiserror::Error)]
pub enum SceneError {
    /// It is too long.
    #[error("a line of {0} bytes; at most {LINE_BYTES_MAX} are read")]
    TooLong(usize),
    /// It is not JSON.
    #[error("not JSON: {0}")]
    NotJson(#[from] serde_json::Error),
    /// A key is no field, or a value does not fit it.
    #[error("{key}: {why}")]
    Field {
        /// The key.
        key: String,
        /// What was expected.
        why: String,
    },
    /// It names no kind of event.
    #[error("expected \"evt.type\" with the name of an event, or a list of names")]
    NoKind,
    /// It is no audit event after all.
    #[error(transparent)]
    Audit(#[from] AuditError),
}

/// A value as it was written.
#[derive(Clone, Debug)]
enum Held {
    Unknown,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Vec<u8>),
    Ip(IpAddr),
    Texts(Vec<Vec<u8>>),
    Numbers(Vec<u64>),
    Ips(Vec<IpAddr>),
}

impl Held {
    fn value(&self) -> Value<'_> {
        match self {
            Self::Unknown => Value::Unknown,
            Self::Bool(b) => Value::Bool(*b),
            Self::Int(n) => Value::Int(*n),
            Self::UInt(n) => Value::UInt(*n),
            Self::Double(n) => Value::Double(*n),
            Self::Text(t) => Value::Text(t),
            Self::Ip(ip) => Value::Ip(*ip),
            Self::Texts(all) => Value::List(all),
            Self::Numbers(all) => Value::List(all),
            Self::Ips(all) => Value::List(all),
        }
    }
}

/// An event made of field values.
#[derive(Debug)]
pub struct Fields {
    kinds: Vec<EventKind>,
    kind: std::cell::Cell<EventKind>,
    values: HashMap<FieldRef, Held>,
    made: Kept<Vec<u8>>,
}

impl Fields {
    /// The names that the event may have.
    pub fn kinds(&self) -> &[EventKind] {
        &self.kinds
    }

    /// From now on it is of that kind.
    pub fn set_kind(&self, kind: EventKind) {
        self.kind.set(kind);
    }
}

/// Reads a line: one event, or the events of an audit line. Empty lines and comments (`#`) have none.
///
/// # Errors
/// When the line is none of that.
pub fn read_line(line: &[u8], number: u64) -> Result<Vec<Scene>, SceneError> {
    let line = line.trim_ascii();
    if line.is_empty() || line.starts_with(b"#") {
        return Ok(Vec::new());
    }
    if line.len() > LINE_BYTES_MAX {
        return Err(SceneError::TooLong(line.len()));
    }
    let json: Json = serde_json::from_slice(line)?;
    match json {
        Json::Object(object) if object.contains_key("evt.type") => {
            Ok(vec![Scene::Syscall(Box::new(fields(&object)?))])
        }
        Json::Object(object)
            if !object.contains_key("auditID") && !object.contains_key("items") =>
        {
            Err(SceneError::NoKind)
        }
        _ => {
            let events = audit::read_line(line, number)?;
            let scenes = events.into_iter().map(|e| Scene::Audit(Box::new(e)));
            Ok(scenes.collect())
        }
    }
}

fn fields(object: &Map<String, Json>) -> Result<Fields, SceneError> {
    let names: Vec<&str> = match &object["evt.type"] {
        Json::String(name) => vec![name],
        Json::Array(names) => names.iter().filter_map(Json::as_str).collect(),
        _ => Vec::new(),
    };
    let kind = |name: &&str| {
        EventKind::from_name(name)
            .ok_or_else(|| wrong("evt.type", format!("no event is called {name:?}")))
    };
    let kinds: Vec<EventKind> = names.iter().map(kind).collect::<Result<_, _>>()?;
    let first = *kinds.first().ok_or(SceneError::NoKind)?;
    let mut values = HashMap::new();
    for (key, json) in object
        .iter()
        .filter(|(k, v)| *k != "evt.type" && !v.is_null())
    {
        let field = field_of(key)?;
        let held = held(&field, json).ok_or_else(|| {
            let ty = field.field.info().ty.as_str();
            wrong(key, format!("expected a value of type {ty}, found {json}"))
        })?;
        values.insert(field, held);
    }
    Ok(Fields {
        kinds,
        kind: std::cell::Cell::new(first),
        values,
        made: Kept::default(),
    })
}

fn wrong(key: &str, why: String) -> SceneError {
    let key = key.chars().take(120).collect();
    SceneError::Field { key, why }
}

fn field_of(key: &str) -> Result<FieldRef, SceneError> {
    let (name, arg) = match key.split_once('[') {
        Some((name, rest)) => (name, rest.strip_suffix(']')),
        None => (key, None),
    };
    FieldRef::resolve(name, arg).map_err(|e| wrong(key, e.to_string()))
}

fn held(field: &FieldRef, json: &Json) -> Option<Held> {
    let ty = field.field.info().ty;
    Some(match json {
        Json::Object(o) if o.get("unknown") == Some(&Json::Bool(true)) => Held::Unknown,
        Json::Array(all) => match ty {
            FieldType::Ip | FieldType::Net => {
                let ip = |j: &Json| j.as_str()?.parse().ok();
                Held::Ips(all.iter().map(ip).collect::<Option<_>>()?)
            }
            ty if ty.is_number() => {
                Held::Numbers(all.iter().map(Json::as_u64).collect::<Option<_>>()?)
            }
            _ => {
                let text = |j: &Json| Some(j.as_str()?.as_bytes().to_vec());
                Held::Texts(all.iter().map(text).collect::<Option<_>>()?)
            }
        },
        Json::Bool(b) => Held::Bool(*b),
        Json::Number(n) => match (n.as_u64(), n.as_i64()) {
            _ if !(ty.is_number() || ty == FieldType::Dyn) => Held::Text(n.to_string().into()),
            (Some(n), _) => Held::UInt(n),
            (None, Some(n)) => Held::Int(n),
            (None, None) => Held::Double(n.as_f64()?),
        },
        Json::String(text) => match ty {
            FieldType::Ip | FieldType::Net => Held::Ip(text.parse().ok()?),
            ty if ty.is_number() => Held::Int(text.parse().ok()?),
            FieldType::Bool => Held::Bool(text.parse().ok()?),
            _ => Held::Text(text.clone().into_bytes()),
        },
        _ => return None,
    })
}

impl EventView for Fields {
    fn kind(&self) -> EventKind {
        self.kind.get()
    }

    fn field<'a>(&'a self, field: &FieldRef) -> Value<'a> {
        if let Some(held) = self.values.get(field) {
            return held.value();
        }
        let whole = |field| FieldRef {
            field,
            arg: FieldArg::None,
        };
        match (field.field, &field.arg) {
            (Field::EvtNum | Field::EvtCount, _) => Value::UInt(1),
            (Field::EvtSource, _) => Value::Text(b"syscall"),
            // a line of ancestors begins with the parent
            (list, FieldArg::Index(n)) if list.info().shape == Shape::Lineage && *n > 0 => {
                match self.values.get(&whole(list)).map(Held::value) {
                    Some(Value::List(all)) => all.get(*n as usize - 1),
                    Some(one) if *n == 1 => one,
                    _ => Value::Absent,
                }
            }
            (Field::FdDirectory | Field::FdFilename, _) => {
                match self.values.get(&whole(Field::FdName)) {
                    Some(Held::Text(path)) => part(path, field.field),
                    _ => Value::Absent,
                }
            }
            (Field::ProcPname, _) => match self.values.get(&whole(Field::ProcAname)) {
                Some(Held::Texts(all)) => Value::text(all.first().map(Vec::as_slice)),
                _ => Value::Absent,
            },
            (Field::ProcCmdline, _) => {
                let get = |f| match self.values.get(&whole(f)) {
                    Some(Held::Text(text)) => Some(text.as_slice()),
                    _ => None,
                };
                match (get(Field::ProcName), get(Field::ProcArgs)) {
                    (Some(name), Some(args)) => {
                        Value::Text(self.made.keep([name, args].join(&b' ')))
                    }
                    (name, _) => Value::text(name),
                }
            }
            _ => Value::Absent,
        }
    }
}

fn part(path: &[u8], field: Field) -> Value<'_> {
    let Some(at) = path.iter().rposition(|b| *b == b'/') else {
        return Value::Absent;
    };
    Value::Text(match field {
        Field::FdFilename => &path[at + 1..],
        _ => &path[..at.max(1)],
    })
}

/// A line of a scenario out of what was observed: every field that the event has.
pub fn record(view: &View<'_>, kinds: &[EventKind]) -> Json {
    let mut object = Map::new();
    let names: Vec<&str> = kinds.iter().map(|k| k.name()).collect();
    object.insert("evt.type".to_owned(), json!(names));
    for field in Field::all() {
        use plimsoll_rules::ArgRule as A;
        let name = field.name();
        if matches!(name, "evt.type" | "evt.type.is" | "evt.dir") {
            continue;
        }
        let args: Vec<FieldArg> = match (field, field.info().arg) {
            (Field::EvtArg, _) => super::args::TOLD
                .iter()
                .map(|a| FieldArg::Key((*a).into()))
                .collect(),
            (_, A::ReqKey | A::ReqAny) => continue,
            _ => vec![FieldArg::None],
        };
        for arg in args {
            let field = FieldRef { field, arg };
            if let Some(json) = told(view.field(&field)) {
                object.insert(field.to_string(), json);
            }
        }
    }
    Json::Object(object)
}

/// A value as JSON; `None`: the event has none, or it is not told.
fn told(value: Value<'_>) -> Option<Json> {
    Some(match value {
        Value::Absent | Value::Unknown => return None,
        Value::Bool(b) => json!(b),
        Value::Int(n) => json!(n),
        Value::UInt(n) => json!(n),
        Value::Double(n) => json!(n),
        Value::Text(text) => json!(String::from_utf8_lossy(text)),
        Value::Ip(ip) => json!(ip.to_string()),
        Value::List(list) => {
            let all: Vec<Json> = (0..list.len()).filter_map(|i| told(list.get(i))).collect();
            match all.is_empty() {
                true => return None,
                false => Json::Array(all),
            }
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(line: &str) -> Box<Fields> {
        match read_line(line.as_bytes(), 1).unwrap().pop() {
            Some(Scene::Syscall(fields)) => fields,
            other => panic!("{other:?}"),
        }
    }

    fn text(fields: &Fields, name: &str) -> String {
        let field = field_of(name).unwrap();
        match told(fields.field(&field)) {
            Some(Json::String(text)) => text,
            other => format!("{other:?}"),
        }
    }

    #[test]
    fn fields_that_follow_from_others_need_not_be_written() {
        let line = r#"{"evt.type": ["openat", "open"], "fd.name": "/etc/ssh/x", "proc.name": "cat",
            "proc.args": "-n x", "proc.aname": ["sh", "nginx"]}"#;
        let e = one(&line.replace('\n', " "));
        assert_eq!(e.kinds().len(), 2);
        assert_eq!(text(&e, "fd.directory"), "/etc/ssh");
        assert_eq!(text(&e, "fd.filename"), "x");
        assert_eq!(text(&e, "proc.aname[2]"), "nginx");
        assert_eq!(text(&e, "proc.pname"), "sh");
        assert_eq!(text(&e, "proc.cmdline"), "cat -n x");
    }

    #[test]
    fn what_is_no_event_says_why() {
        let why = |line: &str| read_line(line.as_bytes(), 1).unwrap_err().to_string();
        assert!(why("{").contains("not JSON"));
        assert!(why(r#"{"fd.name": "x"}"#).contains("evt.type"));
        assert!(why(r#"{"evt.type": "exceve"}"#).contains("exceve"));
        assert!(why(r#"{"evt.type": "execve", "proc.nmae": "x"}"#).contains("proc.nmae"));
        assert!(why(r#"{"evt.type": "execve", "user.uid": "x"}"#).contains("UINT64"));
        assert!(
            why(&"[".repeat(100_000)).contains("not JSON"),
            "depth is bounded"
        );
        assert!(read_line(b"# a comment", 1).unwrap().is_empty());
    }
}
