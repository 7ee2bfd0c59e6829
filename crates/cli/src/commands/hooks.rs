//! `plimsoll hooks`: what agents have pinned in the kernel, and taking out what nobody uses.

use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use clap::Subcommand;
use plimsoll_api::describe::words;
use plimsoll_model::BootNs;
use std::path::Path;

/// What to do with pinned hooks.
#[derive(Debug, Subcommand)]
pub(crate) enum HooksCommand {
    /// Every set: whose it is, whether an agent uses it, since when nobody has read it, whether it still works
    List,
    /// Take out what no agent uses: programs are detached, their maps are freed
    #[command(after_help = "\
What they had recorded and no agent has read is lost with them. The next `plimsoll run` loads anew, and
the time between is a gap.")]
    Remove {
        /// Of every agent on this machine, not only of this data directory
        #[arg(long)]
        all: bool,
    },
}

pub(crate) fn hooks(
    global: &Global,
    command: &HooksCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    let source = Source::find(global)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::Failed(
            "what is pinned in the kernel is root's: use sudo".to_owned(),
        ));
    }
    let root = &source.config.hooks.directory;
    match command {
        HooksCommand::List => list(root, out),
        HooksCommand::Remove { all } => {
            let home = source.config.hooks_dir();
            remove(root, (!all).then_some(home.as_path()))
        }
    }
}

/// How long ago, in seconds, by the boot clock.
fn seconds_since(then: Option<BootNs>) -> Option<u64> {
    let seen = then?.0;
    let up = std::fs::read_to_string("/proc/uptime").ok()?;
    let up: f64 = up.split(' ').next()?.parse().ok()?;
    Some((up as u64).saturating_sub(seen / 1_000_000_000))
}

fn list(root: &Path, out: &mut Out) -> Result<Verdict, Failure> {
    let sets = plimsoll_sensor::pinned(root);
    if out.json {
        for set in &sets {
            out.object(&serde_json::json!({
                "directory": set.dir,
                "owner": set.owner,
                "in_use": set.in_use,
                "unread_seconds": if set.in_use { None } else { seconds_since(set.last_seen) },
                "idle_seconds": seconds_since(set.idle_since),
                "programs": set.programs,
                "broken": set.broken,
            }))?;
        }
        return Ok(Verdict::Fine);
    }
    if sets.is_empty() {
        remark(&words(&format!("nothing is pinned in {}", root.display())));
        return Ok(Verdict::Fine);
    }
    let mut table = Table::new(&["DATA DIRECTORY", "PROGRAMS", "STATE", "PINNED IN"]);
    for set in &sets {
        let away = seconds_since(set.last_seen).unwrap_or_default();
        let (state, style) = match (&*set.broken, set.in_use, seconds_since(set.idle_since)) {
            (_, true, _) => ("in use".to_owned(), Style::Plain),
            ("", false, Some(s)) => (format!("left, doing nothing for {s} s"), Style::Warn),
            ("", false, None) => (format!("left at work, unread for {away} s"), Style::Warn),
            (why, ..) => (format!("of no use: {why}"), Style::Bad),
        };
        table.row([
            words(&set.owner).into(),
            set.programs.to_string().into(),
            Cell::styled(words(&state), style),
            words(&set.dir.display().to_string()).into(),
        ]);
    }
    table.print(out)?;
    Ok(Verdict::Fine)
}

fn remove(root: &Path, only: Option<&Path>) -> Result<Verdict, Failure> {
    let (gone, problems) = plimsoll_sensor::unpin(root, only);
    for set in &gone {
        remark(&words(&format!("removed {}", set.dir.display())));
    }
    for problem in &problems {
        remark(&words(&format!("still there: {problem}")));
    }
    if gone.is_empty() && problems.is_empty() {
        remark("nothing to remove");
    }
    Ok(match problems.is_empty() {
        true => Verdict::Fine,
        false => Verdict::Found,
    })
}
