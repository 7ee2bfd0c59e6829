//! `plimsoll status`: the running agent, or what its data directory says.

use super::state_style;
use crate::Verdict;
use crate::baselines::Kept;
use crate::failure::Failure;
use crate::global::Global;
use crate::journal::{Journal, Wanted};
use crate::out::{Out, Style};
use crate::source::Source;
use crate::table::wrap;
use crate::when::{now, rfc3339};
use plimsoll_api::Status;
use plimsoll_api::describe::{span, when, words};
use plimsoll_api::types::{BaselineCounts, JournalStatus, RecorderStatus};
use plimsoll_ask::{Body, Records as _};
use plimsoll_model::{ContainerState, Record, RecordKind, WallNs};
use std::ops::ControlFlow;

pub(crate) fn status(global: &Global, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let status = match source.status()? {
        Some(status) => status,
        None => from_data(&mut source)?,
    };
    let verdict = if status.problems.is_empty() && status.running {
        Verdict::Fine
    } else {
        Verdict::Found
    };
    if out.json {
        out.object(&status)?;
        return Ok(verdict);
    }
    show(&status, out)?;
    Ok(verdict)
}

/// What the data directory says when nobody answers.
fn from_data(source: &mut Source) -> Result<Status, Failure> {
    let journal = Journal::open(&source.config.journal_dir())?;
    let node = journal.origin().clone();
    let kept = Kept::read(&source.config.baselines_dir(), &node, None)?;
    let containers = journal.containers()?;
    let (gone, running): (Vec<_>, Vec<_>) = containers
        .by_start()
        .into_iter()
        .partition(|c| c.state == ContainerState::Gone || c.gone.is_some());
    let state = |name: &str| {
        kept.all
            .iter()
            .filter(|b| b.state().as_str() == name)
            .count() as u64
    };
    let hour_ago = WallNs(now().0 - 3_600_000_000_000);
    let end = journal.end()?.0;
    let mut problems = vec!["no agent is running: nothing is being watched".to_owned()];
    problems.extend(unclean(&journal)?);
    Ok(Status {
        running: false,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        kernel: kernel(),
        journal: JournalStatus {
            dir: source.config.journal_dir().display().to_string(),
            origin: node.to_string(),
            records: end,
            durable: end,
            health: "ok".to_owned(),
            ..JournalStatus::default()
        },
        node: node.to_string(),
        containers_running: running.len() as u64,
        containers_gone: gone.len() as u64,
        baselines: BaselineCounts {
            learning: state("learning"),
            ready: state("ready"),
            locked: state("locked"),
        },
        gaps_last_hour: Some(count(&journal, hour_ago)?),
        last_record: journal.span().map(|s| s.last.rfc3339()),
        problems,
        ..Status::default()
    })
}

/// The memory of the kernel side.
fn maps(s: &Status) -> String {
    match s.sensor.as_ref().map(|sensor| sensor.map_bytes >> 20) {
        Some(mib) if mib > 0 => format!(", {mib} MiB in the kernel"),
        _ => String::new(),
    }
}

/// The recorder's memory, and the spans that it covers.
fn recorder(r: &RecorderStatus) -> String {
    if r.bytes == 0 {
        return "off: the minutes before an alert are not kept".to_owned();
    }
    let length = |seconds: u64| span(seconds * 1_000_000_000);
    let covers = match (r.spans.first(), r.spans.last()) {
        (Some(least), Some(most)) if r.spans.len() > 1 => format!(
            "; the last {} to {} of {} containers",
            length(least.seconds),
            length(most.seconds),
            r.spans.len()
        ),
        (Some(one), _) => format!("; the last {} of one container", length(one.seconds)),
        _ => String::new(),
    };
    let dropped = match r.dropped {
        0 => String::new(),
        n => format!("; {n} uses found no room"),
    };
    let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
    format!(
        "{:.1} of {:.0} MiB in use{covers}{dropped}",
        mib(r.used_bytes),
        mib(r.bytes)
    )
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease")
        .unwrap_or_default()
        .trim()
        .to_owned()
}

fn count(journal: &Journal, since: WallNs) -> Result<u64, Failure> {
    let mut n = 0;
    let wanted = Wanted {
        kinds: vec![RecordKind::Gap],
        from: Some(since),
        ..Wanted::default()
    };
    journal.each(&wanted, |_| {
        n += 1;
        ControlFlow::Continue(())
    })?;
    Ok(n)
}

/// Whether the last agent ended without saying so.
fn unclean(journal: &Journal) -> Result<Option<String>, Failure> {
    let mut last = None;
    let wanted = Wanted {
        kinds: vec![RecordKind::Lifecycle],
        newest_first: true,
        ..Wanted::default()
    };
    journal.each(&wanted, |seen| match seen.body {
        Body::Record(Record::Lifecycle(l)) if l.what == "start" || l.what == "stop" => {
            last = Some(l.what);
            ControlFlow::Break(())
        }
        _ => ControlFlow::Continue(()),
    })?;
    Ok((last.as_deref() == Some("start")).then(|| {
        "the last agent ended without saying so (killed, or the machine went down)".to_owned()
    }))
}

fn show(s: &Status, out: &mut Out) -> Result<(), Failure> {
    let number = |n: Option<u64>| n.map_or("not counted".to_owned(), |n| n.to_string());
    let mut rows: Vec<(&str, String, Style)> = Vec::new();
    let uptime = s
        .uptime_seconds
        .map(|t| format!(", up {}", span(t * 1_000_000_000)))
        .unwrap_or_default();
    let agent = if s.running {
        format!(
            "running, version {}{uptime}{}",
            s.version,
            s.pid.map(|p| format!(", process {p}")).unwrap_or_default()
        )
    } else {
        "not running".to_owned()
    };
    rows.push((
        "agent",
        agent,
        if s.running { Style::Good } else { Style::Bad },
    ));
    rows.push(("node", s.node.clone(), Style::Plain));
    rows.push(("kernel", s.kernel.clone(), Style::Plain));
    if let Some(k) = &s.sensor {
        let reason = k
            .reason
            .as_ref()
            .map(|r| format!(" ({r})"))
            .unwrap_or_default();
        rows.push((
            "sensor",
            format!(
                "{}{reason}: {} kinds seen, {} refused",
                k.state, k.kinds_seen, k.kinds_refused
            ),
            state_style(&k.state),
        ));
        rows.push((
            "events",
            format!(
                "{} out of the kernel, {} known and counted there, {} lost",
                k.emitted,
                k.known_l1 + k.known_l2,
                k.lost
            ),
            if k.lost > 0 {
                Style::Warn
            } else {
                Style::Plain
            },
        ));
    }
    if let Some(r) = s.sensor.as_ref().map(|k| &k.recorder) {
        rows.push(("recorder", recorder(r), Style::Plain));
    }
    rows.push((
        "containers",
        format!(
            "{} running, {} gone{}",
            s.containers_running,
            s.containers_gone,
            if s.running {
                ""
            } else {
                ", when they were last seen"
            }
        ),
        Style::Plain,
    ));
    rows.push((
        "baselines",
        format!(
            "{} learning, {} ready, {} locked",
            s.baselines.learning, s.baselines.ready, s.baselines.locked
        ),
        Style::Plain,
    ));
    if s.running {
        rows.push(("alerts", number(s.alerts), Style::Plain));
    }
    rows.push((
        "gaps",
        format!("{} in the last hour", number(s.gaps_last_hour)),
        if s.gaps_last_hour.unwrap_or(0) > 0 {
            Style::Warn
        } else {
            Style::Plain
        },
    ));
    let j = &s.journal;
    let why = j
        .reason
        .as_ref()
        .map(|r| format!(" ({r})"))
        .unwrap_or_default();
    rows.push((
        "journal",
        format!(
            "{}{why}: {} records, {} durable, in {}",
            j.health, j.records, j.durable, j.dir
        ),
        state_style(&j.health),
    ));
    if let Some(since) = &j.unanchored_since {
        rows.push((
            "anchored",
            format!("not elsewhere, since {}", moment(since)),
            Style::Plain,
        ));
    }
    if s.running {
        let means = match s.isolation.is_empty() {
            true => "not available: neither nf_tables nor cgroup v2".to_owned(),
            false => s.isolation.join("\n"),
        };
        rows.push(("isolation", means, Style::Plain));
        rows.push(("priority", s.priority.join("\n"), Style::Plain));
    }
    rows.push((
        "last record",
        s.last_record.as_deref().map_or("none".to_owned(), moment),
        Style::Plain,
    ));
    if let (Some(bytes), Some(cpu)) = (s.memory_bytes, s.cpu_ms) {
        rows.push((
            "costs",
            format!(
                "{} MiB of memory{}, {} of processor time",
                bytes >> 20,
                maps(s),
                span(cpu * 1_000_000)
            ),
            Style::Plain,
        ));
    }
    for (name, value, style) in rows {
        for (n, part) in value.split('\n').enumerate() {
            let name = if n == 0 { name } else { "" };
            let part = out.paint.apply(style, &wrap(&words(part), out.width, 13));
            out.line(&format!("{name:<12} {part}"))?;
        }
    }
    for problem in &s.problems {
        let head = out.paint.apply(Style::Bad, "problem");
        let problem = wrap(&words(problem), out.width, 13);
        out.line(&format!("{head}      {problem}"))?;
    }
    Ok(())
}

/// `2026-11-21 17:52:24.922Z, 3 min ago`.
fn moment(rfc: &str) -> String {
    let Some(at) = rfc3339(rfc) else {
        return rfc.to_owned();
    };
    match u64::try_from(now().0 - at.0) {
        Ok(ago) => format!("{}, {} ago", when(at), span(ago)),
        Err(_) => when(at),
    }
}
