//! `plimsoll evidence hold|release|holds`.

use super::args::{HoldArgs, ReleaseArgs};
use super::select::{self, Interval};
use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, remark};
use crate::source::{Source, ask_evidence};
use crate::table::Table;
use plimsoll_api::evidence::EvidenceAct;
use plimsoll_api::{describe, storage};
use plimsoll_evidence::Reader;
use plimsoll_model::WallNs;
use serde_json::json;

pub(super) fn hold(global: &Global, args: &HoldArgs, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    source.agent_for("laying a hold")?;
    let journal = source.journal()?;
    let about = select::about(&args.about, &journal)?;
    let interval = Interval::everything();
    // Records of the container are held by its key; what else explains them by their numbers.
    let leaves = select::context(&journal, &about, &interval)?;
    let key = |instance| {
        storage::container_key(instance)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect::<String>()
    };
    let id = args
        .name
        .clone()
        .unwrap_or_else(|| select::hold_name(&about));
    let act = EvidenceAct::Hold {
        id: id.clone(),
        containers: about.instances.iter().map(key).collect(),
        leaves: leaves.into_iter().map(|leaf| leaf.0).collect(),
        subject: about.subject.clone(),
    };
    let record = ask_evidence(source.agent_for("laying a hold")?, act, &args.reason)?;
    if out.json {
        out.object(&json!({ "hold": id, "subject": about.subject, "record": record }))?;
    } else {
        out.line(&format!(
            "hold {id} lies on {} (record {record}); `plimsoll evidence release {id}` ends it",
            describe::words(&about.subject)
        ))?;
    }
    Ok(Verdict::Fine)
}

pub(super) fn release(
    global: &Global,
    args: &ReleaseArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let act = EvidenceAct::Release {
        id: args.hold.clone(),
    };
    let record = ask_evidence(source.agent_for("ending a hold")?, act, &args.reason)?;
    if out.json {
        out.object(&json!({ "released": args.hold, "record": record }))?;
    } else {
        out.line(&format!(
            "hold {} has ended (record {record}); retention decides again",
            describe::words(&args.hold)
        ))?;
    }
    Ok(Verdict::Fine)
}

pub(super) fn holds(global: &Global, out: &mut Out) -> Result<Verdict, Failure> {
    let source = Source::find(global)?;
    let dir = source.config.journal_dir();
    let reader = Reader::open(&dir).map_err(|e| crate::journal::open_failure(&dir, e))?;
    let holds = reader
        .holds()
        .map_err(|e| crate::journal::read_failure(&dir, e))?;
    let mut table = Table::new(&["HOLD", "SINCE", "UID", "ABOUT", "WHY"]);
    for hold in &holds {
        let since = WallNs(hold.wall_ns);
        if out.json {
            out.object(&json!({
                "hold": hold.id, "since": since.rfc3339(), "uid": hold.uid, "subject": hold.subject,
                "reason": hold.reason, "containers": hold.containers.len(), "records": hold.leaves.len(),
            }))?;
            continue;
        }
        table.row([
            hold.id.clone().into(),
            describe::when(since).into(),
            hold.uid.to_string().into(),
            hold.subject.clone().into(),
            hold.reason.clone().into(),
        ]);
    }
    if !table.is_empty() {
        table.print(out)?;
    } else if holds.is_empty() {
        remark("No hold is in force.");
    }
    Ok(Verdict::Fine)
}
