//! What the socket answers: reads of live state, and decisions, which are journalled.
//!
//! Promises: every question goes to the pipeline as one job and is answered within [`PATIENCE`] or
//! refused as busy, so a question can be late but never stops observing for longer than its own
//! work. Making JSON is done on the connection's thread. A decision names uid and login uid.

use crate::pipeline::Pipeline;
use crate::respond::Question;
use crate::rules::told;
use crate::server::{Answer, Peer};
use crate::shared::Shared;
use crate::shelf::{DOCUMENT_BYTES_MAX, ShelfError};
use crate::{enforce, machine, past, view};
use plimsoll_api::protocol::BaselineSelector;
use plimsoll_api::types::{
    BaselineCounts, DoctorState, JournalStatus, RecorderSpan, RecorderStatus, Refusal,
    SensorStatus, time,
};
use plimsoll_api::{self as api, DoctorRow, Failure, FailureCode, Item, Request};
use plimsoll_baseline::baseline::{Approval, DecideError};
use plimsoll_baseline::{Baseline, Change, Select};
use plimsoll_evidence::Reader;
use plimsoll_model::record::Decision;
use plimsoll_model::{BaselineId, BehaviourId, BootNs, Record, Stamp};
use plimsoll_sensor::api::{EnforceMeans, HookStatus, Pinning};
use std::collections::BTreeMap;
use std::sync::{Arc, mpsc};
use std::time::Duration;

/// How long a question waits for the pipeline.
pub const PATIENCE: Duration = Duration::from_secs(5);
/// How long a flush may take.
const FLUSH_PATIENCE: Duration = Duration::from_secs(10);

type Answered = Result<(Vec<Item>, Option<String>), Failure>;

/// The answers of a running agent.
pub struct Answers(pub Arc<Shared>);

impl Answer for Answers {
    fn answer(&self, request: Request, peer: &Peer) -> Answered {
        let one = |item| Ok((vec![item], None));
        match request {
            Request::Status {} => one(Item::Status(self.status()?)),
            Request::Doctor {} => {
                let rows = self.0.hooks.iter().map(doctor_row);
                let rows = rows.chain(self.0.enforcement.means().iter().map(enforcement_row));
                let rows = rows.chain([pinning_row(&self.0.pinning)]);
                Ok((rows.map(Item::Doctor).collect(), None))
            }
            Request::Rules { all } => {
                let loaded = self.ask(|p| p.rules().loaded().cloned())?;
                let set = told::rule_set(loaded.as_deref(), &self.0.rule_sources);
                let set = api::RuleSetInfo {
                    problem: self.0.rules.problem(),
                    ..set
                };
                let rules = loaded.iter().filter(|_| all);
                let rules = rules.flat_map(|l| told::rules(l, "agent"));
                let items = std::iter::once(Item::RuleSet(set)).chain(rules.map(Item::Rule));
                Ok((items.collect(), None))
            }
            Request::Containers { gone } => {
                let node = self.0.ledger.origin().as_str();
                let all = self.ask(move |p| p.containers(gone))?;
                let item = |c| Item::Container(api::Container::new(&c, node));
                Ok((all.into_iter().map(item).collect(), None))
            }
            Request::Baselines {} => {
                let all = self.ask(|p| p.shelf().summaries())?;
                Ok((all.into_iter().map(Item::Baseline).collect(), None))
            }
            Request::BaselineShow { id, version } => {
                let baseline = self.baseline(id, version)?;
                one(Item::BaselineDetail(view::detail(
                    &baseline,
                    self.0.ledger.origin(),
                )))
            }
            Request::BaselineDiff { from, to } => {
                let BaselineSelector { id, version } = from;
                let a = self.baseline(id, version)?;
                let BaselineSelector { id, version } = to;
                let b = self.baseline(id, version)?;
                let diff = plimsoll_baseline::diff(&a, &b);
                one(Item::BaselineDiff(view::diff(&a, &b, &diff)))
            }
            Request::BaselineExport { id, version } => {
                let baseline = self.baseline(id, version)?;
                let document = plimsoll_baseline::export(&baseline)
                    .map_err(|e| Failure::new(FailureCode::Conflict, e.to_string()))?;
                one(Item::Document(document.to_string()))
            }
            Request::BaselineApprove {
                id,
                behaviours,
                reason,
            } => {
                let select = selection(&behaviours)?;
                self.decide("baseline.approve", id, reason, peer, move |b, approval| {
                    b.approve(&select, approval)
                })
            }
            Request::BaselineLock { id, reason } => {
                self.decide("baseline.lock", id, reason, peer, Baseline::lock)
            }
            Request::BaselineUnlock { id, reason } => {
                self.decide("baseline.unlock", id, reason, peer, Baseline::unlock)
            }
            Request::BaselineRemove {
                id,
                behaviours,
                reason,
            } => {
                let ids = behaviour_ids(&behaviours)?;
                self.decide("baseline.remove", id, reason, peer, move |b, approval| {
                    b.remove(&ids, approval)
                })
            }
            Request::BaselineReset { id, reason } => {
                self.decide("baseline.reset", id, reason, peer, Baseline::reset)
            }
            Request::BaselineImport { document, reason } => self.import(&document, reason, peer),
            Request::Plans {} => self.response(Question::List, peer),
            Request::PlanShow { id } => self.response(Question::Show(id), peer),
            Request::PlanDecide { id, word, reason } => {
                self.response(Question::Decide { id, word, reason }, peer)
            }
            Request::PlanSwitch { stop, reason } => {
                self.response(Question::Switch { stop, reason }, peer)
            }
            Request::EnforcementStatus {} => {
                let standings = self.ask(|p| p.standings())?;
                one(Item::Enforcement(enforce::view::enforcement(
                    &self.0.enforcement,
                    &standings,
                )))
            }
            Request::EnforcementSwitch { off, reason } => self.switch(off, reason, peer),
            Request::NotifyList {} => self.response(Question::Outgoing, peer),
            Request::NotifyResend {
                receiver,
                key,
                reason,
            } => self.response(
                Question::Resend {
                    receiver,
                    key,
                    reason,
                },
                peer,
            ),
            Request::Flush {} => {
                // what is still before the pipeline goes to the journal first
                let empty = || self.0.inbox.fill().bytes == 0;
                for _ in 0..200 {
                    if empty() {
                        break;
                    }
                    std::thread::sleep(Duration::from_millis(5));
                }
                self.ask(|p| p.tick())?;
                let durable = self
                    .0
                    .ledger
                    .flush(FLUSH_PATIENCE)
                    .map_err(|e| Failure::new(FailureCode::Failed, e.to_string()))?;
                one(Item::Flushed { durable })
            }
            Request::Evidence { act, reason } => crate::custody::act(&self.0, act, reason, peer)
                .map(|document| (vec![Item::Document(document)], None)),
        }
    }
}

impl Answers {
    /// Runs `job` on the pipeline and waits for what it gives.
    fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Pipeline) -> T + Send + 'static,
    ) -> Result<T, Failure> {
        let (told, answer) = mpsc::sync_channel(1);
        let busy = |_| Failure::new(FailureCode::Busy, "the agent is busy: try again");
        self.0
            .job(Box::new(move |p| drop(told.send(job(p)))))
            .map_err(|()| busy(mpsc::RecvTimeoutError::Timeout))?;
        answer.recv_timeout(PATIENCE).map_err(busy)
    }

    /// A baseline as it is, or as it was at an older version (read back from the journal on this
    /// connection's thread).
    fn response(&self, question: Question, peer: &Peer) -> Answered {
        match self.0.response.get() {
            Some(door) => door.ask(question, peer),
            None => Err(Failure::new(
                FailureCode::Busy,
                "the agent is starting: try again",
            )),
        }
    }

    fn baseline(&self, id: String, version: Option<u64>) -> Result<Baseline, Failure> {
        let found = self
            .ask(move |p| p.shelf().find(&id).map(|s| s.baseline.clone()))?
            .map_err(refused)?;
        let Some(version) = version.filter(|v| *v != found.version()) else {
            return Ok(found);
        };
        let reader = Reader::open(&self.0.journal_dir)
            .map_err(|e| Failure::new(FailureCode::Failed, e.to_string()))?;
        past::baseline_at(&reader, found.id(), version).ok_or_else(|| {
            let now = found.version();
            Failure::new(
                FailureCode::NotFound,
                format!(
                    "{} is at version {now} now; version {version} is not (or no longer) in the journal",
                    found.id()
                ),
            )
        })
    }

    fn decide(
        &self,
        action: &'static str,
        id: String,
        reason: String,
        peer: &Peer,
        act: impl FnOnce(&mut Baseline, Approval) -> Result<Change, DecideError> + Send + 'static,
    ) -> Answered {
        let at = self.0.anchor.stamp(self.0.clocks.boot());
        let approval = approval(peer, &reason, at);
        let decision = peer.decides(action, String::new(), reason, at);
        let (change, reference) = self.ask(move |p| {
            let shelved = p.shelf().find(&id).map_err(refused)?;
            let change = act(&mut shelved.baseline, approval)
                .map_err(|e| Failure::new(FailureCode::Conflict, e.to_string()))?;
            let id = shelved.baseline.id().clone();
            let subject = id.to_string();
            let reference = p.decided(
                &id,
                Decision {
                    subject,
                    ..decision
                },
            );
            Ok((change, reference))
        })??;
        let items = reference.iter().map(view::reference).map(Item::BaselineRef);
        Ok((items.collect(), Some(words(&change))))
    }

    /// Without the pipeline: it has to work when that is stuck.
    fn switch(&self, off: bool, reason: String, peer: &Peer) -> Answered {
        let shared = &self.0;
        let turned = shared.enforcement.switch(off);
        let at = shared.anchor.stamp(shared.clocks.boot());
        let action = if off {
            "enforcement.off"
        } else {
            "enforcement.on"
        };
        let decision = peer.decides(action, String::new(), reason, at);
        let ledger = &shared.ledger;
        ledger.record_urgent(&Record::Decision(decision), at, None);
        let record = Record::Enforcement(shared.enforcement.record(at));
        ledger.record_urgent(&record, at, None);
        let said = match (off, turned) {
            (_, Err(e)) => {
                let done = if off { "off" } else { "on" };
                let why = format!("enforcement is {done} now, but not after a restart: {e}");
                return Err(Failure::new(FailureCode::Failed, why));
            }
            (true, Ok(true)) => "enforcement is off on this node: nothing is prevented",
            (true, Ok(false)) => "enforcement was off already",
            (false, Ok(true)) => "enforcement is on again",
            (false, Ok(false)) => "enforcement was on already",
        };
        Ok((Vec::new(), Some(said.to_owned())))
    }

    fn import(&self, document: &str, reason: String, peer: &Peer) -> Answered {
        if document.len() > DOCUMENT_BYTES_MAX {
            return Err(Failure::new(
                FailureCode::BadRequest,
                format!("the document is longer than {DOCUMENT_BYTES_MAX} bytes"),
            ));
        }
        let baseline = plimsoll_baseline::import(document.as_bytes())
            .map_err(|e| Failure::new(FailureCode::BadRequest, e.to_string()))?;
        let at = self.0.anchor.stamp(self.0.clocks.boot());
        let decision = peer.decides("baseline.import", String::new(), reason, at);
        let reference = self.ask(move |p| {
            let id: BaselineId = p.shelf().import(baseline).map_err(refused)?;
            let subject = id.to_string();
            Ok(p.decided(
                &id,
                Decision {
                    subject,
                    ..decision
                },
            ))
        })??;
        let items = reference.iter().map(view::reference).map(Item::BaselineRef);
        Ok((items.collect(), Some("taken over".to_owned())))
    }

    /// How the agent is doing.
    fn status(&self) -> Result<api::Status, Failure> {
        let shared = &self.0;
        let ((totals, mut queues, mut problems), summaries, running, gone) = self.ask(|p| {
            let running = p.containers(false).len() as u64;
            let all = p.containers(true).len() as u64;
            (p.report(), p.shelf().summaries(), running, all - running)
        })?;
        let ended = || Failure::new(FailureCode::Failed, "the agent is ending");
        let writer = shared.ledger.status().ok_or_else(ended)?;
        let fill = shared.inbox.fill();
        let more = [
            ("inbox_bulk", fill.bulk as u64),
            ("inbox_tree", fill.tree as u64),
            ("inbox_alert", fill.alert as u64),
            ("inbox_bytes", fill.bytes as u64),
            ("journal_queue", writer.queued as u64),
            ("journal_queue_bytes", writer.queued_bytes as u64),
            ("alerts_to_show", shared.outputs.waiting() as u64),
        ];
        queues.extend(more.map(|(k, v)| (k.to_owned(), v)));
        let latency = shared.ledger.latency();
        let times = [
            ("alert_handed_p50_us", latency.handed_quantile(0.5)),
            ("alert_handed_p99_us", latency.handed_quantile(0.99)),
            ("alert_durable_p50_us", latency.durable_quantile(0.5)),
            ("alert_durable_p99_us", latency.durable_quantile(0.99)),
        ];
        queues.extend(
            times
                .iter()
                .filter_map(|(k, v)| Some(((*k).to_owned(), (*v)? / 1000))),
        );
        queues.insert("events_judged".into(), totals.observations);
        problems.extend(recent_losses(shared));
        problems.extend(
            shared
                .enforcement
                .problem()
                .map(|why| format!("the changed enforcement policy is not in force: {why}")),
        );
        if shared.enforcement.is_off() {
            problems.push("enforcement is switched off on this node".to_owned());
        }
        problems.extend(
            shared
                .rules
                .problem()
                .map(|why| format!("changed rules are not in force: {why}")),
        );
        let now = shared.clocks.boot();
        Ok(api::Status {
            running: true,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            node: shared.ledger.origin().to_string(),
            boot_id: machine::boot_id().to_string(),
            kernel: machine::kernel(),
            pid: Some(std::process::id()),
            started: Some(time(shared.started)),
            uptime_seconds: Some(now.0.saturating_sub(shared.started.boot.0) / 1_000_000_000),
            memory_bytes: machine::resident_bytes(),
            cpu_ms: Some(machine::cpu_ms()),
            sensor: Some(sensor(shared)),
            journal: journal(shared, &writer),
            containers_running: running,
            containers_gone: gone,
            baselines: counts(&summaries),
            alerts: Some(totals.alerts),
            drifts: Some(totals.drifts),
            gaps_last_hour: Some(shared.ledger.gaps_last_hour()),
            last_record: Some(shared.ledger.last_wall().rfc3339()),
            queues,
            isolation: crate::respond::means(),
            priority: shared.priority.words(),
            problems,
        })
    }
}

fn recent_losses(shared: &Shared) -> Vec<String> {
    let gaps = shared
        .gaps
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let lost: BTreeMap<_, _> = gaps.totals().clone();
    lost.into_iter()
        .map(|(stage, n)| format!("{n} lost at {} since the start", stage.as_str()))
        .collect()
}

fn sensor(shared: &Shared) -> SensorStatus {
    let c = shared.kernel.counters();
    let refused: Vec<&HookStatus> = shared
        .hooks
        .iter()
        .filter(|h| h.mechanism.is_none())
        .collect();
    let names: Vec<&str> = refused.iter().map(|h| h.kind).collect();
    SensorStatus {
        state: if refused.is_empty() {
            "running"
        } else {
            "degraded"
        }
        .to_owned(),
        reason: (!refused.is_empty()).then(|| format!("not seen: {}", names.join(", "))),
        kinds_seen: (shared.hooks.len() - refused.len()) as u64,
        kinds_refused: refused.len() as u64,
        emitted: c.emitted.iter().sum(),
        known_l1: c.l1_hits,
        known_l2: c.l2_hits,
        lost: c.lost,
        containers: c.containers,
        processes: c.processes,
        run_time_ns: c.run_time_ns,
        map_bytes: c.map_bytes,
        recorder: recorder(shared),
    }
}

fn recorder(shared: &Shared) -> RecorderStatus {
    let state = shared.kernel.recorder();
    let now = shared.clocks.boot();
    let span = |&(root, oldest, entries): &(u64, BootNs, u64)| {
        Some(RecorderSpan {
            instance: shared.roots.get(root)?.to_string(),
            seconds: now.0.saturating_sub(oldest.0) / 1_000_000_000,
            entries,
        })
    };
    let mut spans: Vec<RecorderSpan> = state.spans.iter().filter_map(span).collect();
    spans.sort_by_key(|s| s.seconds);
    RecorderStatus {
        bytes: state.bytes,
        used_bytes: state.used,
        dropped: state.dropped,
        spans,
    }
}

fn journal(shared: &Shared, writer: &plimsoll_evidence::WriterStatus) -> JournalStatus {
    let health = &writer.health;
    let (state, reason) = match &health.trouble {
        None => ("ok", None),
        Some((reason, _)) => {
            let state = if health.emergency_room_bytes > 0 {
                "emergency"
            } else {
                "failing"
            };
            (state, Some(crate::ledger::in_words(reason)))
        }
    };
    JournalStatus {
        dir: shared.journal_dir.display().to_string(),
        origin: shared.ledger.origin().to_string(),
        records: health.durable + writer.queued as u64,
        durable: health.durable,
        bytes: machine::bytes_below(&shared.journal_dir),
        free_bytes: machine::free_bytes(&shared.journal_dir),
        health: state.to_owned(),
        reason,
        unanchored_since: Some(shared.anchoring.unanchored_since().rfc3339()),
    }
}

fn counts(summaries: &[api::Baseline]) -> BaselineCounts {
    let in_state = |state: &str| summaries.iter().filter(|b| b.state == state).count() as u64;
    BaselineCounts {
        learning: in_state("learning"),
        ready: in_state("ready"),
        locked: in_state("locked"),
    }
}

/// A hook as the doctor tells it.
pub fn doctor_row(hook: &HookStatus) -> DoctorRow {
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    DoctorRow {
        area: "hook".to_owned(),
        name: hook.kind.to_owned(),
        state: match (&hook.mechanism, hook.refused.is_empty()) {
            (None, _) => DoctorState::Missing,
            (Some(_), true) => DoctorState::Ok,
            (Some(_), false) => DoctorState::Degraded,
        },
        found: hook.mechanism.clone().unwrap_or_default(),
        refused: hook
            .refused
            .iter()
            .map(|r| Refusal {
                mechanism: r.mechanism.clone(),
                reason: r.reason.clone(),
            })
            .collect(),
        cost: text(hook.misses),
        advice: text(hook.advice),
        fatal: false,
    }
}

/// Whether the hooks outlive the agent, as the doctor tells it.
pub fn pinning_row(pinning: &Pinning) -> DoctorRow {
    let took_over = match &pinning.inherited {
        None => "",
        Some(before) if before.idle_since.is_some() => {
            "; those of the agent before had ended their work and were replaced"
        }
        Some(before) if before.replaced => "; those of the agent before were replaced",
        Some(_) => "; those of the agent before were taken over",
    };
    let found = match &pinning.home {
        Some(home) => format!("pinned in {}{took_over}", home.display()),
        None if pinning.problems.is_empty() => "not pinned: the configuration says so".to_owned(),
        None => pinning.problems.join("; "),
    };
    let lost = pinning.home.is_none();
    DoctorRow {
        area: "hook".to_owned(),
        name: "for the next agent".to_owned(),
        state: match lost && !pinning.problems.is_empty() {
            true => DoctorState::Degraded,
            false => DoctorState::Ok,
        },
        found,
        cost: lost.then(|| {
            "they end with the agent: what happens until the next one watches is not seen"
                .to_owned()
        }),
        ..DoctorRow::default()
    }
}

/// A class of acts that can or cannot be prevented, as the doctor tells it; only where a policy is named.
pub fn enforcement_row(means: &EnforceMeans) -> DoctorRow {
    let able = means.mechanism.is_some();
    let text = |s: &str| (!s.is_empty()).then(|| s.to_owned());
    DoctorRow {
        area: "enforcement".to_owned(),
        name: means.class.as_str().to_owned(),
        state: match able {
            true => DoctorState::Ok,
            false => DoctorState::Degraded,
        },
        found: means.mechanism.clone().unwrap_or_default(),
        refused: Vec::new(),
        cost: match able {
            true => text(&means.leaves).map(|l| format!("leaves open: {l}")),
            false => Some(format!("not prevented, alerts only: {}", means.leaves)),
        },
        advice: (!able)
            .then(|| "boot with lsm=...,bpf, or leave the class out of the policy".to_owned()),
        fatal: false,
    }
}

fn selection(behaviours: &[String]) -> Result<Select, Failure> {
    if behaviours.is_empty() {
        return Ok(Select::AllPending);
    }
    behaviour_ids(behaviours).map(Select::Ids)
}

fn behaviour_ids(behaviours: &[String]) -> Result<Vec<BehaviourId>, Failure> {
    let ids: Option<Vec<BehaviourId>> = behaviours.iter().map(|b| behaviour_id(b)).collect();
    ids.ok_or_else(|| Failure::new(FailureCode::BadRequest, "a behaviour id has 32 hex digits"))
}

fn behaviour_id(hex: &str) -> Option<BehaviourId> {
    let mut id = [0; 16];
    if hex.len() != 32 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    for (n, byte) in id.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[n * 2..n * 2 + 2], 16).ok()?;
    }
    Some(BehaviourId(id))
}

fn approval(peer: &Peer, reason: &str, at: Stamp) -> Approval {
    let who = match peer.login_uid {
        u32::MAX => format!("uid {}", peer.uid),
        login => format!("uid {} (login {login})", peer.uid),
    };
    Approval {
        who,
        why: reason.to_owned(),
        at,
    }
}

fn words(change: &Change) -> String {
    match change {
        Change::Ready { version, statement } => format!("version {version} is ready: {statement}"),
        Change::Decided(d) => match d.behaviours {
            0 => format!("version {}: {}", d.version, d.action),
            n => format!("version {}: {} of {n} behaviours", d.version, d.action),
        },
    }
}

fn refused(error: ShelfError) -> Failure {
    let code = match &error {
        ShelfError::NotFound(_) => FailureCode::NotFound,
        ShelfError::Ambiguous(..) => FailureCode::Ambiguous,
        ShelfError::Full => FailureCode::Conflict,
        ShelfError::Read { .. } | ShelfError::Decode { .. } => FailureCode::Failed,
    };
    Failure::new(code, error.to_string())
}
