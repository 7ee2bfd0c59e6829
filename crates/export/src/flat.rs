//! One row of columns: CSV, and Timesketch's JSONL.

use crate::plain::phase;
use crate::{Row, kind_name};
use plimsoll_api::describe::{self, words};
use plimsoll_api::types::class_name;
use plimsoll_model::response::StepOutcome;
use plimsoll_model::{
    Alert, AlertSource, Ancestor, Drift, GapScope, Observation, Record, Stamp, WallNs,
};
use serde_json::{Map, Value, json};

/// The columns, in their order. New ones come at the end.
pub(crate) const COLUMNS: [&str; 19] = [
    "time",
    "record",
    "kind",
    "what",
    "summary",
    "severity",
    "node",
    "container_id",
    "instance",
    "container",
    "image",
    "pid",
    "uid",
    "program",
    "command",
    "alert_id",
    "techniques",
    "count",
    "uncertainty_ns",
];

/// What a row says, before it has a form.
#[derive(Default)]
struct Facts {
    at: Option<Stamp>,
    last: Option<WallNs>,
    what: String,
    summary: String,
    severity: String,
    pid: Option<u32>,
    uid: Option<u32>,
    program: String,
    command: String,
    alert: String,
    techniques: Vec<String>,
    count: Option<u64>,
}

impl Facts {
    fn act(mut self, who: Option<&Ancestor>) -> Self {
        if let Some(a) = who {
            self.pid = Some(a.key.tgid);
            self.uid = Some(a.uid);
            self.program = describe::path(&a.exe);
            self.command = describe::command_line(&a.argv);
        }
        self
    }

    fn of(row: &Row<'_>) -> Option<Self> {
        Some(match row.record {
            Record::Observation(o) => Self::observation(o),
            Record::Drift(d) => Self::drift(d),
            Record::Alert(a) => Self::alert(a),
            Record::Gap(g) => Self {
                at: Some(g.from),
                last: Some(g.to.wall),
                what: g.stage.as_str().to_owned(),
                summary: format!("not observed or not kept: {}", words(&g.reason)),
                count: g.count,
                ..Self::default()
            },
            Record::Container(c) => Self {
                at: Some(c.gone.unwrap_or(c.first_seen)),
                what: if c.gone.is_some() { "gone" } else { "seen" }.to_owned(),
                summary: format!(
                    "container {} of image {}",
                    words(c.display_name()),
                    words(&c.image.name)
                ),
                ..Self::default()
            },
            Record::Lifecycle(l) => Self {
                at: Some(l.at),
                what: l.what.clone(),
                summary: format!("agent {}: {}", l.version, words(&l.what)),
                ..Self::default()
            },
            Record::Decision(d) => Self {
                at: Some(d.at),
                what: d.action.clone(),
                summary: words(&format!("{} of {}: {}", d.action, d.subject, d.reason)),
                uid: Some(d.uid),
                ..Self::default()
            },
            Record::Plan(p) => Self {
                at: Some(p.at),
                what: p.id.clone(),
                summary: words(&format!(
                    "plan by policy {}: {}",
                    p.policy,
                    p.reasons.join("; ")
                )),
                alert: p.alert.to_string(),
                ..Self::default()
            },
            Record::Step(s) => {
                let (phase, outcome) = phase(&s.phase);
                let came_of_it =
                    outcome.map(|o: &StepOutcome| format!(": {}: {}", o.as_str(), o.words()));
                let came_of_it = came_of_it.unwrap_or_default();
                Self {
                    at: Some(s.at),
                    what: s.kind.as_str().to_owned(),
                    summary: words(&format!(
                        "{} step {} {phase}{came_of_it}",
                        s.plan,
                        s.step + 1
                    )),
                    ..Self::default()
                }
            }
            Record::PlanEnd(e) => Self {
                at: Some(e.at),
                what: e.plan.clone(),
                summary: words(&format!("plan ended: {}", e.why)),
                ..Self::default()
            },
            Record::Delivery(d) => Self {
                at: Some(d.at),
                what: d.result.as_str().to_owned(),
                summary: words(&format!(
                    "notification to {}: {} {}",
                    d.receiver,
                    d.result.as_str(),
                    d.detail
                )),
                alert: d
                    .alerts
                    .first()
                    .map(ToString::to_string)
                    .unwrap_or_default(),
                count: Some(d.count),
                ..Self::default()
            },
            Record::LakeSealed(l) => Self {
                at: Some(l.at),
                what: "lake_sealed".to_owned(),
                summary: format!(
                    "{} files of the query lake for records {} to {}",
                    l.files.len(),
                    l.first,
                    l.end.saturating_sub(1)
                ),
                ..Self::default()
            },
            Record::Anchored(a) => Self {
                at: Some(a.at),
                what: "anchored".to_owned(),
                summary: words(&format!(
                    "checkpoint of {} records taken to {}",
                    a.size, a.target
                )),
                ..Self::default()
            },
            // no time line has a use for clocks, counts, baselines, rules and keys
            _ => return None,
        })
    }

    fn observation(o: &Observation) -> Self {
        Self {
            at: Some(o.at),
            what: o.event.kind.name().to_owned(),
            summary: describe::observation(o),
            count: Some(o.count),
            ..Self::default()
        }
        .act(o.lineage.first())
    }

    fn drift(d: &Drift) -> Self {
        Self {
            at: Some(d.first),
            last: Some(d.last.wall),
            what: class_name(d.class).to_owned(),
            summary: words(&format!(
                "{} {} {}: {}",
                d.behaviour.program, d.behaviour.operation, d.behaviour.object, d.reason
            )),
            severity: d.risk.as_str().to_owned(),
            techniques: d.techniques.clone(),
            count: Some(d.count),
            ..Self::default()
        }
        .act(d.lineage.first())
    }

    fn alert(a: &Alert) -> Self {
        let lineage = match &a.source {
            AlertSource::Drift(d) => d.lineage.first(),
            AlertSource::Rule(_) => None,
        };
        Self {
            at: Some(a.at),
            last: Some(a.last.wall),
            what: a.rule.clone(),
            summary: a.output.to_string(),
            severity: a.priority.as_str().to_owned(),
            alert: a.id.to_string(),
            techniques: a.tags.clone(),
            count: Some(a.count),
            ..Self::default()
        }
        .act(lineage)
    }

    /// The values of [`COLUMNS`].
    fn values(&self, row: &Row<'_>, node: &str) -> [String; 19] {
        let number = |n: Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
        let (id, instance) = whose(row);
        let at = self.at.map_or(row.wall, |at| at.wall);
        [
            at.rfc3339(),
            row.id.to_string(),
            kind_name(row.record).to_owned(),
            words(&self.what),
            self.summary.clone(),
            self.severity.clone(),
            node.to_owned(),
            id,
            instance,
            row.container.map(|c| words(&c.name)).unwrap_or_default(),
            row.container
                .map(|c| words(&c.image.name))
                .unwrap_or_default(),
            number(self.pid.map(u64::from)),
            number(self.uid.map(u64::from)),
            self.program.clone(),
            self.command.clone(),
            self.alert.clone(),
            words(&self.techniques.join(" ")),
            number(self.count),
            number(self.at.map(|at| at.uncertainty_ns)),
        ]
    }
}

/// Id and instance of the container, from the record itself.
fn whose(row: &Row<'_>) -> (String, String) {
    let instance = match row.record {
        Record::Observation(o) => o.instance.as_ref(),
        Record::Drift(d) => Some(&d.instance),
        Record::Alert(a) => a.instance.as_ref(),
        Record::Container(c) => Some(&c.instance),
        Record::Plan(p) => p.instance.as_ref(),
        Record::Gap(g) => match &g.scope {
            GapScope::Container(i) => Some(i),
            GapScope::Node => None,
        },
        _ => row.container.map(|c| &c.instance),
    };
    instance
        .map(|i| (i.id.to_string(), i.to_string()))
        .unwrap_or_default()
}

pub(crate) fn csv(row: &Row<'_>, node: &str) -> Option<String> {
    let values = Facts::of(row)?.values(row, node);
    let safe: Vec<String> = values.into_iter().map(no_formula).collect();
    let cells: Vec<&str> = safe.iter().map(String::as_str).collect();
    Some(csv_line(&cells))
}

/// A spreadsheet runs what begins so; a quote before it makes it text (OWASP, "CSV injection").
fn no_formula(cell: String) -> String {
    match cell.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        true => format!("'{cell}"),
        false => cell,
    }
}

pub(crate) fn csv_line(cells: &[&str]) -> String {
    let mut writer = csv::WriterBuilder::new().from_writer(Vec::new());
    writer
        .write_record(cells)
        .expect("writing to memory cannot fail");
    let bytes = writer.into_inner().expect("writing to memory cannot fail");
    String::from_utf8(bytes).expect("made from strings")
}

/// `message`, `datetime` and `timestamp_desc` are what Timesketch asks for; `timestamp` is in
/// microseconds, and `tag` becomes its tags (timesketch.org, "Import from JSON or CSV").
pub(crate) fn timesketch(row: &Row<'_>, node: &str) -> Option<Value> {
    let facts = Facts::of(row)?;
    let at = facts.at.map_or(row.wall, |at| at.wall);
    let mut object = Map::new();
    for (column, value) in COLUMNS.iter().zip(facts.values(row, node)) {
        if !value.is_empty() && *column != "time" {
            object.insert((*column).to_owned(), value.into());
        }
    }
    let kind = kind_name(row.record);
    object.insert(
        "message".to_owned(),
        format!("{kind}: {}", facts.summary).into(),
    );
    object.insert("datetime".to_owned(), at.rfc3339().into());
    object.insert("timestamp".to_owned(), at.0.div_euclid(1000).into());
    object.insert("timestamp_desc".to_owned(), meaning(row.record).into());
    object.insert("data_type".to_owned(), format!("plimsoll:{kind}").into());
    object.insert("source_short".to_owned(), "PLIMSOLL".into());
    let tags: Vec<Value> = facts.techniques.iter().map(|t| json!(words(t))).collect();
    if !tags.is_empty() {
        object.insert("tag".to_owned(), Value::Array(tags));
    }
    if let Some(last) = facts.last {
        object.insert("last".to_owned(), last.rfc3339().into());
    }
    Some(Value::Object(object))
}

/// What the time of a record is the time of.
fn meaning(record: &Record) -> &'static str {
    match record {
        Record::Observation(_) => "Event Time",
        Record::Drift(_) | Record::Alert(_) => "First Seen",
        Record::Gap(_) => "Gap Start",
        Record::Container(c) if c.gone.is_some() => "Container Gone",
        Record::Container(_) => "Container First Seen",
        Record::Decision(_) | Record::Plan(_) => "Decision Time",
        Record::Step(_) | Record::PlanEnd(_) | Record::Delivery(_) => "Response Time",
        _ => "Recorded Time",
    }
}
