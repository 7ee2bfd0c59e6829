//! `plimsoll rules audit`: Kubernetes audit events judged by rules of the source `k8s_audit`.
//!
//! Promises: this parser of other people's bytes runs as whoever calls it, not in the agent; lines
//! are bounded, one that is too long is passed over and said; alerts go out with the line that made
//! them. Thresholds count by the events' own times, per user.

use crate::Verdict;
use crate::failure::Failure;
use crate::out::{Out, remark};
use crate::when::rfc3339;
use plimsoll_agent::rules::files::Loaded;
use plimsoll_api::describe::words;
use plimsoll_api::types::uuid_of;
use plimsoll_rules::audit::{AuditEvent, MAX_LINE_BYTES, read_line};
use plimsoll_rules::{
    Counted, EventView as _, FieldRef, Per, RuleId, Scratch, Source, ThresholdCounts, Value,
};
use serde_json::json;
use std::collections::VecDeque;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

/// Counters of thresholds at a time.
const COUNTERS_MAX: usize = 16_384;
/// Lines that could not be read and are said one by one.
const SAID_MAX: u64 = 20;

/// Lines of a file or of standard input, each within the bound.
pub(crate) struct Lines {
    from: BufReader<Box<dyn Read>>,
    number: u64,
}

/// A line, or why it was passed over.
type Line = Result<Vec<u8>, String>;

impl Lines {
    pub(crate) fn open(path: &Path) -> Result<Self, Failure> {
        let from: Box<dyn Read> = match path == Path::new("-") {
            true => Box::new(std::io::stdin()),
            false => Box::new(
                std::fs::File::open(path)
                    .map_err(|e| Failure::Failed(format!("cannot read {}: {e}", path.display())))?,
            ),
        };
        Ok(Self {
            from: BufReader::with_capacity(64 << 10, from),
            number: 0,
        })
    }

    /// The next line with its number, from 1.
    pub(crate) fn next(&mut self) -> Result<Option<(u64, Line)>, Failure> {
        let failed = |e| Failure::Failed(format!("cannot read on: {e}"));
        let mut line = Vec::new();
        let bound = MAX_LINE_BYTES as u64 + 1;
        let read = (&mut self.from).take(bound).read_until(b'\n', &mut line);
        if read.map_err(failed)? == 0 {
            return Ok(None);
        }
        self.number += 1;
        if line.last() == Some(&b'\n') || line.len() <= MAX_LINE_BYTES {
            return Ok(Some((self.number, Ok(line))));
        }
        // the rest of it, without keeping it
        loop {
            let chunk = self.from.fill_buf().map_err(failed)?;
            let end = memchr::memchr(b'\n', chunk);
            let used = end.map_or(chunk.len(), |i| i + 1);
            let over = end.is_some() || chunk.is_empty();
            self.from.consume(used);
            if over {
                let why = format!("longer than {MAX_LINE_BYTES} bytes");
                return Ok(Some((self.number, Err(why))));
            }
        }
    }
}

/// Puts objects together that are written over several lines, as people print them. Their further lines
/// are indented or close a bracket; a line that opens one at its beginning is another object, so that one
/// that was cut off costs no other.
#[derive(Default)]
struct Whole {
    text: Vec<u8>,
    first: u64,
    depth: usize,
    in_string: bool,
}

impl Whole {
    /// What is whole with this line: the number of its first line, and it.
    fn take(&mut self, number: u64, line: Line) -> Vec<(u64, Line)> {
        let line = match line {
            Ok(line) => line,
            Err(why) => {
                return self
                    .give_up()
                    .into_iter()
                    .chain([(number, Err(why))])
                    .collect();
            }
        };
        let mut done = Vec::new();
        if matches!(line.first(), Some(b'{' | b'[')) {
            done.extend(self.give_up());
        }
        if self.text.is_empty() {
            self.first = number;
        }
        if self.text.len() + line.len() > MAX_LINE_BYTES {
            let first = self.first;
            *self = Self::default();
            done.push((first, Err(format!("longer than {MAX_LINE_BYTES} bytes"))));
            return done;
        }
        self.count(&line);
        self.text.extend(line);
        if self.depth == 0 {
            let whole = std::mem::take(self);
            done.push((whole.first, Ok(whole.text)));
        }
        done
    }

    /// What was begun and is not whole, to be said as it is.
    fn give_up(&mut self) -> Option<(u64, Line)> {
        let cut = std::mem::take(self);
        (!cut.text.is_empty()).then_some((cut.first, Ok(cut.text)))
    }

    fn count(&mut self, line: &[u8]) {
        let mut bytes = line.iter();
        while let Some(byte) = bytes.next() {
            match byte {
                b'\\' if self.in_string => {
                    bytes.next();
                }
                b'"' => self.in_string = !self.in_string,
                b'{' | b'[' if !self.in_string => self.depth += 1,
                b'}' | b']' if !self.in_string => self.depth = self.depth.saturating_sub(1),
                // no text of JSON goes over a line's end
                b'\n' => self.in_string = false,
                _ => {}
            }
        }
    }
}

pub(crate) fn audit(loaded: &Loaded, events: &Path, out: &mut Out) -> Result<Verdict, Failure> {
    if loaded
        .set
        .rules()
        .iter()
        .all(|r| r.source != Source::K8sAudit)
    {
        remark("note: no rule is for the source k8s_audit: name rule files with --rules");
    }
    let mut lines = Lines::open(events)?;
    let mut judge = Judge {
        loaded,
        scratch: Scratch::default(),
        counts: ThresholdCounts::new(COUNTERS_MAX),
    };
    let (mut seen, mut unread) = (0u64, 0u64);
    let mut whole = Whole::default();
    let mut done = VecDeque::<(u64, Line)>::new();
    loop {
        let Some((number, line)) = done.pop_front() else {
            match lines.next()? {
                Some((number, line)) => done.extend(whole.take(number, line)),
                None => match whole.give_up() {
                    Some(cut) => done.push_back(cut),
                    None => break,
                },
            }
            continue;
        };
        let line = line.and_then(|l| match l.trim_ascii().is_empty() {
            true => Ok(Vec::new()),
            false => read_line(&l, seen + 1).map_err(|e| e.to_string()),
        });
        match line {
            Ok(all) => {
                for event in all {
                    seen += 1;
                    judge.event(&event, out)?;
                }
            }
            Err(why) => {
                unread += 1;
                if unread <= SAID_MAX {
                    remark(&words(&format!("line {number} is not read: {why}")));
                }
            }
        }
    }
    if unread > SAID_MAX {
        remark(&format!("{unread} lines were not read"));
    }
    if judge.counts.forgotten() > 0 {
        let forgotten = judge.counts.forgotten();
        remark(&format!(
            "{forgotten} counters of thresholds were forgotten for want of room"
        ));
    }
    Ok(match unread {
        0 => Verdict::Fine,
        _ => Verdict::Found,
    })
}

struct Judge<'a> {
    loaded: &'a Loaded,
    scratch: Scratch,
    counts: ThresholdCounts,
}

impl Judge<'_> {
    fn event(&mut self, event: &AuditEvent, out: &mut Out) -> Result<(), Failure> {
        let set = &self.loaded.set;
        let matched = set
            .judge(Source::K8sAudit, event, &mut self.scratch)
            .to_vec();
        for rule in matched {
            if let Some(threshold) = set.rule(rule).threshold {
                let key = match threshold.per {
                    Per::Node => Vec::new(),
                    _ => user(event),
                };
                let at = rfc3339(event.time()).map_or(0, |w| w.0.max(0) as u64);
                let value = threshold.value_of(event);
                if self.counts.count(rule, threshold, &key, &value, at) != Counted::Reached {
                    continue;
                }
            }
            self.alert(rule, event, out)?;
        }
        Ok(())
    }

    fn alert(&self, id: RuleId, event: &AuditEvent, out: &mut Out) -> Result<(), Failure> {
        let rule = self.loaded.set.rule(id);
        let rendered = self.loaded.set.render(id, event);
        if !out.json {
            let priority = rule.priority.as_str();
            out.line(&format!(
                "{} {priority:<8} {}",
                words(event.time()),
                words(&rendered.output)
            ))?;
            return out.flush();
        }
        let fields: serde_json::Map<String, serde_json::Value> = rendered
            .output_fields
            .into_iter()
            .map(|(name, value)| (name, json!(value)))
            .collect();
        out.object(&json!({
            "time": event.time(),
            "rule": rule.name,
            "priority": rule.priority.as_str(),
            "output": rendered.output,
            "output_fields": fields,
            "source": "k8s_audit",
            "tags": rule.tags,
            "uuid": uuid_of(&format!("{}\0{}", event.id(), rule.name)),
            "plimsoll": {
                "rule_set": self.loaded.id,
                "audit_id": event.id(),
            },
        }))?;
        out.flush()
    }
}

/// Who asked the API server.
fn user(event: &AuditEvent) -> Vec<u8> {
    let Ok(field) = FieldRef::resolve("ka.user.name", None) else {
        return Vec::new();
    };
    match event.field(&field) {
        Value::Text(name) => name.to_vec(),
        _ => Vec::new(),
    }
}
