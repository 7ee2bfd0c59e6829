//! What fuzzing drives: one function a target, the same for `cargo fuzz run` and for the test that
//! runs the seeds (`crates/rules/tests/seeds.rs`).
//!
//! Each takes any bytes, must end in bounded time and never panic; `condition` also holds the fast
//! way of judging against the slow one.

use plimsoll_rules::{
    EventKind, EventView, Field, FieldArg, FieldRef, FieldType, LoadOptions, RuleId, Ruleset,
    Scratch, Source, Tri, Value, audit as k8s, load,
};
use std::net::IpAddr;

/// An event that answers every field, with values drawn from a few bytes.
struct Anything<'a> {
    kind: EventKind,
    text: &'a [u8],
    number: u64,
    texts: Vec<&'a [u8]>,
    ips: Vec<IpAddr>,
    ports: Vec<u64>,
    some_unknown: bool,
}

impl<'a> Anything<'a> {
    fn new(data: &'a [u8]) -> Self {
        let byte = |i: usize| data.get(i).copied().unwrap_or(0);
        let kinds = EventKind::count();
        let kind = EventKind::all().nth(usize::from(byte(0)) * 2 % kinds);
        let number = u64::from(byte(1));
        Self {
            kind: kind.expect("below the number of kinds"),
            text: data,
            number,
            texts: data.split(|b| *b == b' ').take(4).collect(),
            ips: vec![
                IpAddr::from([10, 0, 0, byte(2)]),
                IpAddr::from([byte(3); 16]),
            ],
            ports: vec![number, 443],
            some_unknown: byte(4) & 1 == 1,
        }
    }
}

impl EventView for Anything<'_> {
    fn kind(&self) -> EventKind {
        self.kind
    }

    fn field<'v>(&'v self, field: &FieldRef) -> Value<'v> {
        let listed = matches!(field.arg, FieldArg::None);
        match (field.field.info().ty, field.shape()) {
            _ if self.some_unknown && field.field.index().is_multiple_of(3) => Value::Unknown,
            _ if field.field.index().is_multiple_of(7) => Value::Absent,
            (FieldType::Ip | FieldType::Net, plimsoll_rules::Shape::One) => Value::Ip(self.ips[0]),
            (FieldType::Ip | FieldType::Net, _) => Value::List(&self.ips),
            (FieldType::Port, plimsoll_rules::Shape::Ends) => Value::List(&self.ports),
            (FieldType::Bool, _) => Value::Bool(self.number.is_multiple_of(2)),
            (ty, _) if ty.is_number() => Value::UInt(self.number),
            (_, plimsoll_rules::Shape::One) => Value::Text(self.text),
            _ if listed => Value::List(&self.texts),
            _ => Value::Text(self.text),
        }
    }
}

/// Everything that is done with a set, for one event.
fn use_all(set: &Ruleset, event: &Anything<'_>) {
    let mut scratch = Scratch::default();
    for source in [Source::Syscall, Source::K8sAudit] {
        let matched = set.judge(source, event, &mut scratch).to_vec();
        let could = set.could_match(source, event, &mut scratch);
        let some = set.could_match_some(source, event);
        assert!(matched.is_empty() || (could == Tri::True && some == Tri::True));
        for (i, rule) in set.rules().iter().enumerate().take(20) {
            let id = RuleId(i as u32);
            if rule.source != source || !rule.status.is_active() {
                continue;
            }
            // the slow way, condition by condition, says the same
            let slow = set.reason(id, event).outcome == Tri::True;
            assert_eq!(slow, matched.contains(&id), "rule {}", rule.name);
            let _ = set.render(id, event);
            let _ = set.explain(id);
        }
    }
}

/// A rule file of any bytes.
pub(crate) fn rule_yaml(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let (report, set) = load(&[("fuzz.yaml", &text)], &LoadOptions::default());
    assert_eq!(report.successful(), set.is_some());
    if let Some(set) = set {
        use_all(&set, &Anything::new(data));
    }
}

/// A condition (up to the first zero byte), judged on an event made of the rest.
pub(crate) fn condition(data: &[u8]) {
    let end = data.iter().position(|b| *b == 0).unwrap_or(data.len());
    let text = String::from_utf8_lossy(&data[..end]);
    let quoted = serde_json::to_string(&text).expect("any text is JSON");
    let file = format!(
        "- rule: fuzz\n  desc: d\n  condition: {quoted}\n  output: \"%proc.name %evt.args\"\n  priority: NOTICE\n"
    );
    let (_, set) = load(&[("fuzz.yaml", &file)], &LoadOptions::default());
    if let Some(set) = set {
        use_all(&set, &Anything::new(&data[end..]));
    }
}

/// A Kubernetes audit line; every field is asked of every event.
pub(crate) fn audit(data: &[u8]) {
    for event in k8s::read_line(data, 1).unwrap_or_default().iter().take(16) {
        for field in Field::all() {
            for arg in [
                FieldArg::None,
                FieldArg::Index(1),
                FieldArg::Key("/items/0*".into()),
            ] {
                if let Value::List(list) = event.field(&FieldRef { field, arg }) {
                    (0..list.len().min(64)).for_each(|i| {
                        let _ = list.get(i);
                    });
                }
            }
        }
    }
}

/// A pattern (up to the first line end) of an operator chosen by the first byte, and a value.
pub(crate) fn patterns(data: &[u8]) {
    const OPERATORS: [&str; 8] = [
        "regex",
        "glob",
        "iglob",
        "pmatch",
        "contains",
        "icontains",
        "startswith",
        "endswith",
    ];
    let Some((first, rest)) = data.split_first() else {
        return;
    };
    let operator = OPERATORS[usize::from(*first) % OPERATORS.len()];
    let end = rest.iter().position(|b| *b == b'\n').unwrap_or(rest.len());
    let (pattern, value) = (&rest[..end], rest.get(end + 1..).unwrap_or_default());
    let escaped: String = pattern.iter().map(|b| format!("\\x{b:02x}")).collect();
    let constant = match operator {
        "pmatch" => format!("(\"{escaped}\")"),
        _ => format!("\"{escaped}\""),
    };
    let condition = format!("evt.type = execve and fd.name {operator} {constant}");
    let quoted = serde_json::to_string(&condition).expect("any text is JSON");
    let file = format!(
        "- rule: fuzz\n  desc: d\n  condition: {quoted}\n  output: o\n  priority: NOTICE\n"
    );
    let (_, set) = load(&[("fuzz.yaml", &file)], &LoadOptions::default());
    if let Some(set) = set {
        let execve = EventKind::from_name("execve").expect("a kind");
        let event = Anything {
            kind: execve,
            ..Anything::new(value)
        };
        use_all(&set, &event);
    }
}
