//! `plimsoll plan`: what is done about alerts, and a person's word about it.

use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use crate::values;
use clap::Subcommand;
use plimsoll_api::describe::words;
use plimsoll_api::protocol::PlanWord;
use plimsoll_api::types::{Plan, PlanStep};
use plimsoll_api::{Item, Request};
use std::path::PathBuf;

/// What to do with plans.
#[derive(Debug, Subcommand)]
pub(crate) enum PlanCommand {
    /// Plans of the last day, latest last
    List,
    /// What is or would be done about an alert, why, and how far it reaches
    Show {
        /// The plan, or its alert
        #[arg(value_name = "PLAN|ALERT", required_unless_present = "alert", value_parser = id)]
        id: Option<String>,
        /// The alert
        #[arg(long, value_name = "ALERT", conflicts_with = "id", value_parser = id)]
        alert: Option<String>,
    },
    /// Let the steps that wait for a person be taken
    Approve {
        /// The plan, or its alert
        #[arg(value_name = "PLAN|ALERT", value_parser = id)]
        id: String,
        /// Destroy even though no capture could be sealed: evidence may be lost for good
        #[arg(long)]
        waive_capture: bool,
        /// Why; it is kept with your uid and login uid
        #[arg(long, value_parser = values::reason)]
        reason: String,
    },
    /// End the plan: no further step is taken
    Deny {
        /// The plan, or its alert
        #[arg(value_name = "PLAN|ALERT", value_parser = id)]
        id: String,
        /// Why; it is kept with your uid and login uid
        #[arg(long, value_parser = values::reason)]
        reason: String,
    },
    /// Take back what can be taken back, latest step first
    Undo {
        /// The plan, or its alert
        #[arg(value_name = "PLAN|ALERT", value_parser = id)]
        id: String,
        /// Why; it is kept with your uid and login uid
        #[arg(long, value_parser = values::reason)]
        reason: String,
    },
    /// Stop all automation at once: nothing new begins, on any container
    Stop {
        /// Why; it is kept with your uid and login uid
        #[arg(long, value_parser = values::reason)]
        reason: String,
    },
    /// Let automation go on
    Resume {
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

fn id(text: &str) -> Result<String, String> {
    let known = text.starts_with("P-") || text.starts_with("A-");
    let digits = text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    (known && digits && text.len() <= 64)
        .then(|| text.to_owned())
        .ok_or_else(|| "expected P-… or A-…; `plimsoll plan list` lists them".to_owned())
}

pub(crate) fn plan(
    global: &Global,
    command: &PlanCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let word = |id: &String, word, reason: &String| Request::PlanDecide {
        id: id.clone(),
        word,
        reason: reason.clone(),
    };
    let request = match command {
        PlanCommand::Check { file } => return check(file, out),
        PlanCommand::List => return list(global, out),
        PlanCommand::Show { id, alert } => Request::PlanShow {
            id: id.clone().or(alert.clone()).unwrap_or_default(),
        },
        PlanCommand::Approve {
            id,
            waive_capture,
            reason,
        } => match waive_capture {
            true => word(id, PlanWord::WaiveCapture, reason),
            false => word(id, PlanWord::Approve, reason),
        },
        PlanCommand::Deny { id, reason } => word(id, PlanWord::Deny, reason),
        PlanCommand::Undo { id, reason } => word(id, PlanWord::Undo, reason),
        PlanCommand::Stop { reason } => Request::PlanSwitch {
            stop: true,
            reason: reason.clone(),
        },
        PlanCommand::Resume { reason } => Request::PlanSwitch {
            stop: false,
            reason: reason.clone(),
        },
    };
    let (plans, said) = ask(global, &request)?;
    for plan in &plans {
        show(plan, out)?;
    }
    if let Some(said) = said {
        remark(&words(&said));
    }
    Ok(Verdict::Fine)
}

fn ask(global: &Global, request: &Request) -> Result<(Vec<Plan>, Option<String>), Failure> {
    let mut source = Source::find(global)?;
    let (items, said) = source.agent_for("response")?.ask(request)?;
    let plan = |item| match item {
        Item::Plan(plan) => Some(plan),
        _ => None,
    };
    Ok((items.into_iter().filter_map(plan).collect(), said))
}

fn check(file: &std::path::Path, out: &mut Out) -> Result<Verdict, Failure> {
    let text = std::fs::read_to_string(file)
        .map_err(|e| Failure::Failed(format!("cannot read {}: {e}", file.display())))?;
    let policy = plimsoll_respond::Policy::parse(&text)
        .map_err(|e| Failure::Failed(format!("{}:{e}", file.display())))?;
    for entry in &policy.entries {
        let steps: Vec<&str> = entry.steps.iter().map(|s| s.kind.as_str()).collect();
        let dry = if entry.dry_run { " (dry run)" } else { "" };
        out.line(&words(&format!(
            "{}{dry}: {}",
            entry.name,
            steps.join(", ")
        )))?;
        let elsewhere = entry.steps.iter().filter(|s| s.kind.needs_orchestrator());
        for step in elsewhere {
            remark(&words(&format!("{}: {}", entry.name, step.effect)));
        }
    }
    remark(&match policy.entries.len() {
        1 => "1 policy is fine".to_owned(),
        n => format!("{n} policies are fine"),
    });
    Ok(Verdict::Fine)
}

fn list(global: &Global, out: &mut Out) -> Result<Verdict, Failure> {
    let (plans, said) = ask(global, &Request::Plans {})?;
    if let Some(said) = said {
        remark(&words(&said));
    }
    if out.json {
        plans.iter().try_for_each(|p| out.object(p))?;
        return Ok(Verdict::Fine);
    }
    let mut table = Table::new(&["TIME", "PLAN", "CONTAINER", "POLICY", "STATE", "WHAT"]);
    for plan in &plans {
        let what = plan.waiting_for.as_ref().or(plan.ended.as_ref());
        table.row([
            plan.time.get(..19).unwrap_or(&plan.time).into(),
            plan.plan_id.as_str().into(),
            plan.container.as_str().into(),
            plan.policy.as_str().into(),
            Cell::styled(&plan.state, state_style(&plan.state)),
            what.map_or("", String::as_str).into(),
        ]);
    }
    if table.is_empty() {
        remark("No policy has answered an alert in the last day.");
        return Ok(Verdict::Fine);
    }
    table.print(out)?;
    Ok(Verdict::Fine)
}

fn state_style(state: &str) -> Style {
    match state {
        "waiting" | "pending" | "would-be" | "running" | "skipped" | "unavailable" => Style::Warn,
        "failed" | "timed-out" | "interrupted" | "refused" => Style::Bad,
        "done" => Style::Good,
        _ => Style::Plain,
    }
}

fn show(plan: &Plan, out: &mut Out) -> Result<(), Failure> {
    if out.json {
        return out.object(plan);
    }
    let dry = if plan.dry_run {
        ", dry run: nothing of it is done"
    } else {
        ""
    };
    let heading = format!("plan {} ({}{dry})", plan.plan_id, plan.state);
    let heading = out.paint.apply(Style::Bold, &words(&heading));
    out.line(&heading)?;
    let about = format!(
        "about {} of {} by policy {}",
        plan.alert_id, plan.container, plan.policy
    );
    out.line(&words(&about))?;
    section(out, "why", &plan.reasons)?;
    section(out, "reaches", &plan.blast_radius)?;
    section(out, "held back by guards", &plan.held)?;
    out.line("steps")?;
    let mut table = Table::new(&["", "CLASS", "STEP", "STATE", "WHAT"]);
    for (i, step) in plan.steps.iter().enumerate() {
        table.row([
            format!("{}", i + 1).into(),
            step.class.as_str().into(),
            step.step.as_str().into(),
            Cell::styled(&step.state, state_style(&step.state)),
            told(step).into(),
        ]);
    }
    table.print(out)?;
    for voice in &plan.approvals {
        let who = voice.login_uid.unwrap_or(voice.uid);
        out.line(&words(&format!(
            "approved by {who} at {}: {}",
            voice.time, voice.reason
        )))?;
    }
    if plan.stopped_again > 0 {
        out.line(&words(&format!(
            "answers {} more, about starts of the program that it forbids: each was stopped",
            plan.stopped_again
        )))?;
    }
    if let Some(who) = &plan.waived_by {
        out.line(&words(&format!("capture waived by {who}")))?;
    }
    if let Some(what) = &plan.waiting_for {
        out.line(&words(&format!("waits for {what}")))?;
    }
    if let Some(why) = &plan.ended {
        out.line(&words(&format!("ended: {why}")))?;
    }
    Ok(())
}

fn section(out: &mut Out, name: &str, lines: &[String]) -> Result<(), Failure> {
    if lines.is_empty() {
        return Ok(());
    }
    out.line(name)?;
    lines
        .iter()
        .try_for_each(|l| out.line(&format!("  {}", words(l))))
}

fn told(step: &PlanStep) -> String {
    let mut told = step.outcome.clone().unwrap_or(step.effect.clone());
    if step.approvals_needed > 0 && step.state == "pending" {
        told += &format!(" (needs {} approvals)", step.approvals_needed);
    }
    if let Some(undone) = &step.undone {
        told += &format!("; taken back: {undone}");
    }
    told
}
