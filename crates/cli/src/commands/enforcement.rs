//! `plimsoll enforcement`: what is in force, what it prevented or would have, the node's switch.

use super::select::resolve;
use crate::Verdict;
use crate::failure::Failure;
use crate::global::{Global, Selection};
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use crate::values;
use clap::Subcommand;
use plimsoll_api::describe::words;
use plimsoll_api::types::{Enforcement, PreventedSum};
use plimsoll_api::{Item, Request};
use plimsoll_model::{EnforceClass, Enforced, Instance, Record, RecordKind};
use std::collections::{BTreeMap, HashSet};
use std::path::PathBuf;

/// What to do with enforcement.
#[derive(Debug, Subcommand)]
pub(crate) enum EnforcementCommand {
    /// The policy in force, by what acts are prevented here, and how each container is held
    Status,
    /// What was prevented, or would have been, per image and behaviour with counts
    #[command(after_help = "\
Read it before a rule goes from `alert` to `enforce`: every line of a dry run is something that would
have been stopped. \"≥\" marks counts that the kernel keeps by itself.")]
    Report(Selection),
    /// Switch enforcement off on the whole node, at once; it stays off over a restart
    Off {
        /// Why; it is kept with your uid and login uid
        #[arg(long, value_parser = values::reason)]
        reason: String,
    },
    /// Switch it on again
    On {
        /// Why; it is kept with your uid and login uid
        #[arg(long, value_parser = values::reason)]
        reason: String,
    },
    /// Check a policy file; needs no agent
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn enforcement(
    global: &Global,
    command: &EnforcementCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    match command {
        EnforcementCommand::Status => status(global, out),
        EnforcementCommand::Report(selection) => report(global, selection, out),
        EnforcementCommand::Off { reason } => switch(global, true, reason),
        EnforcementCommand::On { reason } => switch(global, false, reason),
        EnforcementCommand::Check { file } => check(file, out),
    }
}

fn switch(global: &Global, off: bool, reason: &str) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let request = Request::EnforcementSwitch {
        off,
        reason: reason.to_owned(),
    };
    let (_, said) = source
        .agent_for("the switch of enforcement")?
        .ask(&request)?;
    remark(&words(&said.unwrap_or_default()));
    Ok(Verdict::Fine)
}

fn check(file: &std::path::Path, out: &mut Out) -> Result<Verdict, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::Failed(format!("cannot read {}: {e}", file.display())))?;
    let policy = plimsoll_respond::enforcement::Policy::parse(&text)
        .map_err(|e| Failure::Failed(format!("{}:{e}", file.display())))?;
    for rule in &policy.rules {
        let classes: Vec<&str> = rule.classes.iter().map(|c| c.as_str()).collect();
        out.line(&words(&format!(
            "{}: {} {}",
            rule.name,
            rule.mode.as_str(),
            classes.join(", ")
        )))?;
    }
    remark(&format!("{} rules are fine", policy.rules.len()));
    Ok(Verdict::Fine)
}

fn status(global: &Global, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let (items, _) = source
        .agent_for("the state of enforcement")?
        .ask(&Request::EnforcementStatus {})?;
    let found = items.into_iter().find_map(|item| match item {
        Item::Enforcement(e) => Some(e),
        _ => None,
    });
    let e = found.ok_or_else(|| Failure::Failed("the agent gave no answer".into()))?;
    let verdict = match e.problem.is_some() || e.switched_off {
        true => Verdict::Found,
        false => Verdict::Fine,
    };
    if out.json {
        out.object(&e)?;
        return Ok(verdict);
    }
    show(&e, out)?;
    Ok(verdict)
}

fn show(e: &Enforcement, out: &mut Out) -> Result<(), Failure> {
    let Some(policy) = &e.policy else {
        return out.line("No policy is named (enforcement.policy): nothing is enforced.");
    };
    let short = e.digest.get(..12).unwrap_or(&e.digest);
    out.line(&words(&format!("policy    {policy} ({short})")))?;
    let switch = match e.switched_off {
        true => out
            .paint
            .apply(Style::Bad, "OFF on the whole node: nothing is prevented"),
        false => "on".to_owned(),
    };
    out.line(&format!("switch    {switch}"))?;
    if let Some(problem) = &e.problem {
        let said = words(&format!("the changed file is not in force: {problem}"));
        out.line(&format!("problem   {}", out.paint.apply(Style::Bad, &said)))?;
    }
    out.line(&format!("waiting   {} programs stopped at exec", e.waiting))?;
    let mut table = Table::new(&["CLASS", "PREVENTED BY", "LEAVES OPEN"]);
    for m in &e.means {
        let by = match &m.mechanism {
            Some(by) => Cell::from(by.as_str()),
            None => Cell::styled("nothing: only alerts", Style::Warn),
        };
        table.row([m.class.as_str().into(), by, m.leaves.as_str().into()]);
    }
    table.print(out)?;
    let mut table = Table::new(&[
        "CONTAINER",
        "IMAGE",
        "RULE",
        "ASKED",
        "DONE",
        "PREVENTS",
        "WHY",
    ]);
    for c in &e.containers {
        let style = match (c.mode == c.asked, c.mode.as_str()) {
            (false, _) => Style::Warn,
            (true, "enforce") => Style::Good,
            (true, _) => Style::Plain,
        };
        let mut why = c.why.clone();
        if !c.open_ports.is_empty() {
            let open = format!(
                "peers known by name: only alerts on {}",
                c.open_ports.join(", ")
            );
            why = [why, open]
                .into_iter()
                .filter(|s| !s.is_empty())
                .collect::<Vec<_>>()
                .join("; ");
        }
        table.row([
            c.container.as_str().into(),
            c.image.as_str().into(),
            c.rule.as_str().into(),
            c.asked.as_str().into(),
            Cell::styled(&c.mode, style),
            c.prevented.join(", ").into(),
            why.into(),
        ]);
    }
    if table.is_empty() {
        return out.line("No rule has a word about a running container.");
    }
    table.print(out)
}

/// What makes two records the same line: image, role, class, outcome, object, actor.
type Key = (String, String, EnforceClass, Enforced, Vec<u8>, Vec<u8>);

fn report(global: &Global, selection: &Selection, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let containers = journal.containers()?;
    // a sum over the latest few records would be a wrong number
    let all = Selection {
        limit: Some(0),
        ..selection.clone()
    };
    let select = resolve(&all, &containers, out)?;
    let mut sums: BTreeMap<Key, (PreventedSum, HashSet<Instance>)> = BTreeMap::new();
    let wanted = select.wanted(&[RecordKind::Prevention]);
    let read = select.latest(
        &journal,
        wanted,
        |_, record| match record {
            Record::Prevention(p) if select.has(Some(&p.instance)) => Some(p),
            _ => None,
        },
        |p| {
            let key = (
                p.image.clone(),
                p.role.clone(),
                p.class,
                p.enforced,
                p.object.as_bytes().to_vec(),
                p.behaviour.program.as_bytes().to_vec(),
            );
            match sums.get_mut(&key) {
                Some((sum, instances)) => {
                    sum.add(&p);
                    instances.insert(p.instance);
                }
                None => {
                    let sum = PreventedSum::new(&p);
                    sums.insert(key, (sum, [p.instance].into()));
                }
            }
            Ok(())
        },
    )?;
    let sums = sums.into_values().map(|(sum, instances)| PreventedSum {
        containers: instances.len() as u64,
        ..sum
    });
    let mut table = Table::new(&[
        "IMAGE",
        "CLASS",
        "OUTCOME",
        "WHAT",
        "BY",
        "COUNT",
        "CONTAINERS",
        "LAST",
    ]);
    for sum in sums {
        if out.json {
            out.object(&sum)?;
            continue;
        }
        let style = match sum.outcome.as_str() {
            "would be prevented" => Style::Warn,
            "stopped and continued" => Style::Bad,
            _ => Style::Good,
        };
        let at_least = if sum.at_least { "≥ " } else { "" };
        table.row([
            sum.image.as_str().into(),
            sum.class.as_str().into(),
            Cell::styled(&sum.outcome, style),
            sum.object.as_str().into(),
            sum.by.as_str().into(),
            format!("{at_least}{}", sum.count).into(),
            sum.containers.to_string().into(),
            sum.last.get(..19).unwrap_or(&sum.last).into(),
        ]);
    }
    if !table.is_empty() {
        table.print(out)?;
    } else if !out.json {
        remark("Nothing was prevented, and nothing would have been, as far as the records go.");
    }
    if read.shown > 0 {
        select.afterword(&read, "record is", &journal)?;
    }
    Ok(Verdict::Fine)
}
