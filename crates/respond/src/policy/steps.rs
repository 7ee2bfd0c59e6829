//! The steps of an entry: names, parameters, order by class, and the capture that has to precede
//! destruction.

use crate::values::{parse_ms, parse_prefix};
use plimsoll_model::response::{OnFailure, Step, StepClass, StepKind};
use plimsoll_settings::{Fault, Kind, Node, Result, Section, expected, scalar};

/// Steps of one entry at most.
const STEPS_MAX: usize = 32;

/// The parameters that a kind takes: name, what it has to be, whether a text is that.
type Parameter = (&'static str, &'static str, fn(&str) -> bool);

fn parameters(kind: StepKind) -> &'static [Parameter] {
    const LENGTH: &str = "a length of time up to 1h, such as 30s";
    const PREFIXES: &str = "addresses with optional prefix lengths, separated by commas";
    fn length(t: &str) -> bool {
        parse_ms(t).is_some_and(|ms| ms > 0 && ms <= 3_600_000)
    }
    fn prefixes(t: &str) -> bool {
        t.split(',').all(|a| parse_prefix(a.trim()).is_some())
    }
    fn flag(t: &str) -> bool {
        t == "true" || t == "false"
    }
    fn path(t: &str) -> bool {
        t.starts_with('/')
    }
    fn scope(t: &str) -> bool {
        t == "container" || t == "node"
    }
    fn days(t: &str) -> bool {
        parse_ms(t).is_some_and(|ms| ms > 0 && ms <= 30 * 86_400_000)
    }
    fn any(t: &str) -> bool {
        !t.is_empty()
    }
    match kind {
        StepKind::Notify => &[("receivers", "names of receivers, separated by commas", any)],
        StepKind::Capture => &[
            ("deadline", LENGTH, length),
            ("memory", "true or false", flag),
        ],
        StepKind::Memory => &[("all", "true or false", flag)],
        StepKind::Freeze => &[("budget", LENGTH, length)],
        StepKind::Isolate => &[("allow", PREFIXES, prefixes)],
        StepKind::BlockProgram => &[
            ("path", "an absolute path", path),
            ("scope", "container or node", scope),
            ("for", "a length of time up to 30d", days),
        ],
        StepKind::BlockAddress => &[("address", PREFIXES, prefixes)],
        StepKind::Stop => &[("grace", LENGTH, length)],
        StepKind::QuarantineLabel | StepKind::Scale => &[("value", "a text", any)],
        StepKind::Snapshot
        | StepKind::Thaw
        | StepKind::Pause
        | StepKind::KillTree
        | StepKind::Remove
        | StepKind::DenyPolicy
        | StepKind::Cordon
        | StepKind::Rotate => &[],
    }
}

/// How long a step may take unless its entry says otherwise, milliseconds.
pub(crate) fn timeout_ms(kind: StepKind) -> u64 {
    match kind {
        StepKind::Capture | StepKind::Memory => 300_000,
        StepKind::Snapshot | StepKind::Stop | StepKind::Remove => 60_000,
        _ => 30_000,
    }
}

pub(crate) fn steps(entry: &Section<'_>, approvals: Option<u32>) -> Result<Vec<Step>> {
    let nodes = entry.list("steps", "steps")?;
    let mut steps = Vec::with_capacity(nodes.len() + 1);
    for (i, node) in nodes.iter().enumerate() {
        steps.push(step(
            node,
            &format!("{}[{i}]", entry.name("steps")),
            approvals,
        )?);
    }
    if steps.is_empty() || steps.len() > STEPS_MAX {
        return Err(Fault::new(
            entry.at,
            format!("{}: expected 1 to {STEPS_MAX} steps", entry.name("steps")),
        ));
    }
    let destroys = steps.iter().any(|s| s.kind.class() == StepClass::Destroy);
    if destroys && steps.iter().all(|s| s.kind != StepKind::Capture) {
        let mut capture = plain(StepKind::Capture);
        capture.effect = "added: nothing is destroyed before its capture is sealed; ".into();
        steps.push(capture);
    }
    // the class decides; within a class the file's order stays
    steps.sort_by_key(|s| s.kind.class());
    for step in &mut steps {
        let words = words(step);
        step.effect.push_str(&words);
    }
    Ok(steps)
}

fn plain(kind: StepKind) -> Step {
    let careful = kind.class() >= StepClass::Contain;
    Step {
        kind,
        parameters: Vec::new(),
        approvals: 0,
        timeout_ms: timeout_ms(kind),
        on_failure: if careful {
            OnFailure::Stop
        } else {
            OnFailure::Continue
        },
        effect: String::new(),
    }
}

fn step(node: &Node, path: &str, approvals: Option<u32>) -> Result<Step> {
    let names = || StepKind::ALL.map(StepKind::as_str).join(", ");
    let what = || format!("a step ({})", names());
    let (name, rest) = match &node.kind {
        Kind::Map(pairs) if pairs.len() == 1 => (&pairs[0].0, Some(&pairs[0].1)),
        _ => (node, None),
    };
    let kind = scalar(name)
        .and_then(StepKind::parse)
        .ok_or_else(|| expected(name, path, what()))?;
    let mut step = plain(kind);
    // what a person is asked for applies to what interferes, unless the step says otherwise
    if kind.interferes() {
        step.approvals = approvals.unwrap_or(0);
    }
    let Some(rest) = rest.filter(|r| !r.is_null()) else {
        return needed(node, path, step);
    };
    let known = parameters(kind);
    let mut keys: Vec<&str> = known.iter().map(|(name, ..)| *name).collect();
    keys.extend(["approvals", "timeout", "on_failure"]);
    let s = Section::new(Some(rest), &format!("{path}.{}", kind.as_str()), &keys)?;
    for (name, what, is) in known {
        let found = match s.get(name).map(|n| &n.kind) {
            Some(Kind::List(_)) => Some(s.texts(name)?.join(",")),
            _ => s.text(name, what, |t| Some(t.to_owned()))?,
        };
        let Some(text) = found else { continue };
        if !is(&text) {
            let at = s.get(name).unwrap_or(rest);
            return Err(expected(first_wrong(at, *is), &s.name(name), what));
        }
        step.parameters.push(((*name).to_owned(), text));
    }
    if let Some(n) = s.whole("approvals", 0..=8)? {
        step.approvals = n as u32;
    }
    if let Some(ms) = super::millis(&s, "timeout")? {
        step.timeout_ms = ms;
    }
    let on_failure = |t: &str| match t {
        "continue" => Some(OnFailure::Continue),
        "stop" => Some(OnFailure::Stop),
        _ => None,
    };
    if let Some(choice) = s.text("on_failure", "continue or stop", on_failure)? {
        step.on_failure = choice;
    }
    needed(node, path, step)
}

/// Of a list the item that is not what it has to be; of anything else all of it.
fn first_wrong(at: &Node, is: fn(&str) -> bool) -> &Node {
    let Kind::List(items) = &at.kind else {
        return at;
    };
    let mut wrong = items.iter().filter(|i| !scalar(i).is_some_and(is));
    wrong.next().unwrap_or(at)
}

/// Some steps mean nothing without a parameter.
fn needed(node: &Node, path: &str, step: Step) -> Result<Step> {
    let has = |key: &str| step.parameters.iter().any(|(k, _)| k == key);
    let everywhere = step.parameters.contains(&("scope".into(), "node".into()));
    if step.kind == StepKind::BlockProgram && everywhere && !has("path") {
        let path = format!("{path}.block-program");
        return Err(expected(node, &path, "path: PROGRAM beside scope: node"));
    }
    if step.kind == StepKind::BlockAddress && step.parameters.is_empty() {
        let path = format!("{path}.block-address");
        return Err(expected(node, &path, "address: ADDRESS[/LENGTH]"));
    }
    Ok(step)
}

fn words(step: &Step) -> String {
    let get = |key: &str| {
        let found = step.parameters.iter().find(|(k, _)| k == key);
        found.map(|(_, v)| v.as_str())
    };
    match step.kind {
        StepKind::Notify => "tells the receivers what is planned".into(),
        StepKind::Snapshot => "reads /proc of every process of the container".into(),
        StepKind::Capture => format!(
            "collects files, processes and logs into a sealed bundle{}",
            if get("memory") == Some("true") {
                ", memory too"
            } else {
                ""
            }
        ),
        StepKind::Memory => "reads memory of the suspect processes".into(),
        StepKind::Freeze => format!(
            "stops every process for at most {}: health checks fail meanwhile",
            get("budget").unwrap_or("10s")
        ),
        StepKind::Thaw => "lets the processes go on".into(),
        StepKind::Isolate => format!(
            "cuts every connection, established ones too{}; health checks over the network fail",
            get("allow").map_or(String::new(), |a| format!(", but for {a}"))
        ),
        StepKind::Pause => "stops every process until it is undone".into(),
        StepKind::KillTree => "kills the acting process and its descendants".into(),
        StepKind::BlockProgram => format!(
            "kills each start of {} in {} for {}",
            get("path").unwrap_or("the acting program"),
            match get("scope") {
                Some("node") => "every container of this node",
                _ => "the container",
            },
            get("for").unwrap_or("24h")
        ),
        StepKind::BlockAddress => format!(
            "forbids {} on this node",
            get("address").unwrap_or_default()
        ),
        StepKind::Stop => "stops the container; its memory is lost".into(),
        StepKind::Remove => "removes the container with its writable layer".into(),
        kind => format!(
            "{}: needs an orchestrator's effector, not available here",
            kind.as_str()
        ),
    }
}
