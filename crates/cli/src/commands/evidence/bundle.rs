//! `plimsoll evidence bundle`: everything about an alert or a container, in one file.

use super::args::BundleArgs;
use super::select::{self, Found, Interval};
use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, remark};
use crate::source::{Source, ask_evidence};
use crate::when::now;
use memchr::memmem;
use plimsoll_api::describe;
use plimsoll_api::evidence::EvidenceAct;
use plimsoll_evidence::{BundleParts, Leaf, Reader, write_bundle};
use plimsoll_model::RecordId;
use serde_json::json;
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// Files looked at below the directory of captures.
const CAPTURES_MAX: usize = 10_000;
/// Kinds whose records name captures: plans, steps and what comes of them.
const NAMING_KINDS: std::ops::Range<u16> = 40..60;

pub(super) fn bundle(
    global: &Global,
    args: &BundleArgs,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let journal = source.journal()?;
    let found = select::about(&args.about, &journal)?;
    let interval = match found.when {
        Some((from, to)) => Interval::around(from, to, args.around.ns),
        None => Interval::everything(),
    };
    let mut leaves = select::own(&journal, &found, &interval)?;
    leaves.extend(select::context(&journal, &found, &interval)?);
    let written = write_down(&mut source, &found, args)?;
    leaves.extend(written.iter().map(|id| Leaf(id.leaf)));
    let dir = source.config.journal_dir();
    let reader = Reader::open(&dir).map_err(|e| crate::journal::open_failure(&dir, e))?;
    if source.agent().is_none() {
        unsealed_out(&reader, &mut leaves);
    }
    let files = captures(
        &source.config.data_dir.join("captures"),
        &found,
        &reader,
        &leaves,
    );
    let manifest = manifest(&reader, &found, &interval, args, written.as_ref(), &files);
    let parts = BundleParts {
        leaves: leaves.into_iter().collect(),
        manifest,
        files,
    };
    let made = write_bundle(&args.output, &reader, parts).map_err(|e| Failure::Data {
        what: format!("cannot write the bundle {}", args.output.display()),
        source: Some(Box::new(e)),
    })?;
    if out.json {
        out.object(&json!({
            "bundle": args.output.display().to_string(), "subject": found.subject, "records": made.records,
            "without_content": made.without_content, "files": made.files, "checkpoint": made.checkpoint.size,
            "record": written.as_ref().map(name),
        }))?;
        return Ok(Verdict::Fine);
    }
    out.line(&format!(
        "{}: {} records about {} ({} of them without content, removed by retention), {} files, under checkpoint {}",
        describe::words(&args.output.display().to_string()),
        made.records,
        describe::words(&found.subject),
        made.without_content,
        made.files,
        made.checkpoint.size
    ))?;
    out.line("The receiver verifies it with the node's public root key: plimsoll evidence verify FILE --key KEY")?;
    Ok(Verdict::Fine)
}

fn name(id: &RecordId) -> String {
    format!("{}@{}", id.origin, id.leaf)
}

/// Custody: the export becomes a record, and that record part of the bundle.
fn write_down(
    source: &mut Source,
    found: &Found,
    args: &BundleArgs,
) -> Result<Option<RecordId>, Failure> {
    let Some(client) = source.agent() else {
        remark("note: agent not running; that this bundle was made is not recorded in the log");
        return Ok(None);
    };
    let act = EvidenceAct::Access {
        action: "evidence.bundle".to_owned(),
        subject: found.subject.clone(),
    };
    let written = ask_evidence(client, act, &args.reason)?;
    ask_evidence(client, EvidenceAct::Checkpoint {}, "")?;
    let id = written.rsplit_once('@').and_then(|(origin, leaf)| {
        Some(RecordId {
            origin: plimsoll_model::NodeId::parse(origin).ok()?,
            leaf: leaf.parse().ok()?,
        })
    });
    id.map(Some)
        .ok_or_else(|| Failure::Failed("the agent's answer names no record".to_owned()))
}

/// What no checkpoint covers cannot be proven, so it is left out, and that is said.
fn unsealed_out(reader: &Reader, leaves: &mut BTreeSet<Leaf>) {
    let size = reader
        .newest_checkpoint()
        .ok()
        .flatten()
        .map_or(0, |(checkpoint, _)| checkpoint.size);
    let before = leaves.len();
    leaves.retain(|leaf| leaf.0 < size);
    if before > leaves.len() {
        remark(&format!(
            "note: {} records after the last checkpoint are left out: nothing proves them",
            before - leaves.len()
        ));
    }
}

/// Captures that a chosen record names, or whose path names the container.
fn captures(
    dir: &Path,
    found: &Found,
    reader: &Reader,
    leaves: &BTreeSet<Leaf>,
) -> Vec<(String, PathBuf)> {
    let mut files = Vec::new();
    list(dir, 3, &mut files);
    if files.is_empty() {
        return files
            .into_iter()
            .map(|path: PathBuf| (String::new(), path))
            .collect();
    }
    let naming: Vec<Vec<u8>> = leaves
        .iter()
        .filter_map(|leaf| reader.get(*leaf).ok().flatten())
        .filter(|entry| NAMING_KINDS.contains(&entry.header.kind))
        .filter_map(|entry| entry.payload.bytes().map(<[u8]>::to_vec))
        .collect();
    let belongs = |path: &PathBuf| {
        let shown = path.to_string_lossy();
        let named = path.file_name().is_some_and(|name| {
            naming
                .iter()
                .any(|bytes| memmem::find(bytes, name.as_encoded_bytes()).is_some())
        });
        named
            || found
                .instances
                .iter()
                .any(|i| shown.contains(i.id.as_str()))
    };
    files.retain(belongs);
    let name = |path: &PathBuf| {
        let below = path.strip_prefix(dir).unwrap_or(path);
        format!("captures/{}", below.to_string_lossy())
    };
    files.into_iter().map(|path| (name(&path), path)).collect()
}

/// Ordinary files only, never through a link.
fn list(dir: &Path, depth: usize, files: &mut Vec<PathBuf>) {
    let Ok(items) = std::fs::read_dir(dir) else {
        return;
    };
    for item in items.flatten() {
        match item.file_type() {
            Ok(kind) if kind.is_dir() && depth > 0 => list(&item.path(), depth - 1, files),
            Ok(kind) if kind.is_file() && files.len() < CAPTURES_MAX => files.push(item.path()),
            _ => {}
        }
    }
}

fn manifest(
    reader: &Reader,
    found: &Found,
    interval: &Interval,
    args: &BundleArgs,
    written: Option<&RecordId>,
    files: &[(String, PathBuf)],
) -> Vec<u8> {
    let bound =
        |at: plimsoll_model::WallNs| (at.0 > i64::MIN && at.0 < i64::MAX).then(|| at.rfc3339());
    let value = json!({
        "format": "plimsoll bundle 1",
        "origin": reader.origin(),
        "subject": found.subject,
        "alert": found.alert.as_ref().map(|id| id.as_str()),
        "containers": found.instances.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "from": bound(interval.from),
        "to": bound(interval.to),
        "made": now().rfc3339(),
        "by_uid": rustix::process::getuid().as_raw(),
        "reason": args.reason,
        "record": written.map(name),
        "files": files.iter().map(|(name, _)| name).collect::<Vec<_>>(),
        "tool": format!("plimsoll {}", env!("CARGO_PKG_VERSION")),
    });
    let mut text = serde_json::to_string_pretty(&value).unwrap_or_default();
    text.push('\n');
    text.into_bytes()
}
