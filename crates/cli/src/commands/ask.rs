//! `plimsoll ask`: the standard questions, from evidence.

use crate::Verdict;
use crate::args::AskArgs;
use crate::baselines::Kept;
use crate::failure::Failure;
use crate::global::Global;
use crate::listed::Listed;
use crate::out::{Out, Style};
use crate::source::Source;
use crate::table::wrap;
use crate::values::Questions;
use crate::when::now;
use plimsoll_api::types::Coverage;
use plimsoll_api::{Answer, Statement, StatementStatus, describe, storage};
use plimsoll_ask::{Ask, AskError, Question, READ_MAX, Records, Subject};

/// Column in which sentences begin.
const INDENT: usize = 12;

pub(crate) fn ask(global: &Global, args: &AskArgs, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let node = journal.origin().clone();
    let lists = storage::lake_dir(&source.config.data_dir);
    let listed = (!args.scan)
        .then(|| Listed::open(&journal, &lists))
        .transpose()?;
    let records: &dyn Records = match &listed {
        Some(listed) => listed,
        None => &journal,
    };
    let baselines = Kept::read(&source.config.baselines_dir(), &node, Some(&journal))?;
    let subject = match (&args.alert, &args.container) {
        (Some(alert), _) => Subject::Alert(alert.clone()),
        (None, Some(container)) => Subject::Container(container.clone()),
        (None, None) => {
            return Err(Failure::Usage(
                "name an --alert or a --container".to_owned(),
            ));
        }
    };
    for (n, question) in questions(&args.questions).into_iter().enumerate() {
        let one = Ask {
            question,
            subject: subject.clone(),
            around_ns: args.around.map(|l| l.ns),
            now: now(),
            read_max: match args.all {
                true => usize::MAX,
                false => READ_MAX,
            },
        };
        let answer = plimsoll_ask::ask(records, &baselines, &one).map_err(failure)?;
        if out.json {
            out.object(&answer)?;
        } else {
            if n > 0 {
                out.line("")?;
            }
            show(&answer, out)?;
        }
        // a long list of questions shows each answer as it is found
        out.flush()?;
    }
    Ok(Verdict::Fine)
}

fn questions(asked: &[Questions]) -> Vec<Question> {
    let mut all = Vec::new();
    for one in asked {
        match one {
            Questions::One(question) => all.push(*question),
            Questions::All => all.extend(Question::ALL),
        }
    }
    all
}

fn failure(e: AskError) -> Failure {
    match e {
        AskError::Records(e) => e.into(),
        AskError::Subject(e) => Failure::Failed(e.to_string()),
    }
}

fn show(answer: &Answer, out: &mut Out) -> Result<(), Failure> {
    let head = out.paint.apply(
        Style::Bold,
        &format!("{}  {}", answer.question, answer.title),
    );
    out.line(&head)?;
    let about = out
        .paint
        .apply(Style::Dim, &format!("    about {}", answer.subject));
    out.line(&about)?;
    for statement in &answer.statements {
        sentence(statement, out)?;
    }
    let c = &answer.completeness;
    let style = match c.level.as_str() {
        "complete" => Style::Good,
        "partial" => Style::Warn,
        _ => Style::Bad,
    };
    let label = out
        .paint
        .apply(style, &format!("{:<width$}", "whole?", width = INDENT - 2));
    out.line(&format!("  {label}{}", wrap(&c.summary, out.width, INDENT)))?;
    if let Some(text) = watched(&c.coverage) {
        out.line(&format!("{:INDENT$}{}", "", wrap(&text, out.width, INDENT)))?;
    }
    // when the agent was away, the node and the container have a gap of the same interval each
    let mut told = std::collections::HashSet::new();
    for gap in c.gaps.iter().take(5) {
        if !told.insert((&gap.stage, &gap.from, &gap.to, gap.count, &gap.reason)) {
            continue;
        }
        let count = gap
            .count
            .map_or("an unknown number of events".to_owned(), |n| {
                format!("{n} events")
            });
        let text = format!(
            "- {}: {count}, {} to {} ({})",
            gap.stage,
            short(&gap.from),
            short(&gap.to),
            gap.reason
        );
        out.line(&format!(
            "{:INDENT$}{}",
            "",
            wrap(&text, out.width, INDENT + 2)
        ))?;
    }
    if c.gaps_total > 5 {
        out.line(&format!(
            "{:INDENT$}- {} more gaps: `plimsoll ask Q16` or `plimsoll gaps`",
            "",
            c.gaps_total - 5
        ))?;
    }
    for limit in &c.limits {
        out.line(&format!(
            "{:INDENT$}{}",
            "",
            wrap(&format!("- {limit}"), out.width, INDENT + 2)
        ))?;
    }
    Ok(())
}

/// How much of the interval was watched, where that is not all of it.
fn watched(c: &Coverage) -> Option<String> {
    if c.blind_ns == 0 && c.unknown_ns == 0 {
        return None;
    }
    let mut parts = vec![format!("watched {}", describe::span(c.observed_ns))];
    if c.blind_ns > 0 {
        parts.push(format!("blind {}", describe::span(c.blind_ns)));
    }
    if c.unknown_ns > 0 {
        parts.push(format!("unknown {}", describe::span(c.unknown_ns)));
    }
    Some(format!("Of the interval: {}.", parts.join(", ")))
}

fn sentence(s: &Statement, out: &mut Out) -> Result<(), Failure> {
    let style = match s.status {
        StatementStatus::Observed => Style::Good,
        StatementStatus::Inferred => Style::Warn,
        StatementStatus::Unknown => Style::Bad,
    };
    let label = out.paint.apply(
        style,
        &format!("{:<width$}", s.status.as_str(), width = INDENT - 2),
    );
    out.line(&format!("  {label}{}", wrap(&s.text, out.width, INDENT)))?;
    if let Some(records) = records(&s.evidence) {
        let records = out
            .paint
            .apply(Style::Dim, &wrap(&records, out.width, INDENT));
        out.line(&format!("{:INDENT$}{records}", ""))?;
    }
    Ok(())
}

/// `node@12 @13 @14 …`: the origin once, and at most six.
fn records(evidence: &[String]) -> Option<String> {
    const SHOWN: usize = 6;
    let first = evidence.first()?;
    let origin = first.rsplit_once('@').map_or("", |(origin, _)| origin);
    let leaves = evidence
        .iter()
        .take(SHOWN)
        .enumerate()
        .map(|(n, id)| match id.rsplit_once('@') {
            Some((o, leaf)) if o == origin && n > 0 => format!("@{leaf}"),
            _ => id.clone(),
        });
    let mut text = leaves.collect::<Vec<_>>().join(" ");
    if evidence.len() > SHOWN {
        text += &format!(" and {} more", evidence.len() - SHOWN);
    }
    Some(text)
}

fn short(rfc3339: &str) -> String {
    rfc3339.get(..23).unwrap_or(rfc3339).replace('T', " ") + "Z"
}
