//! What the running agent can be asked over its Unix socket, and how it answers.
//!
//! Lines of JSON in both directions. One connection carries any number of requests, one after
//! another; each request is one line, and its answer is any number of `item` lines and then
//! exactly one `end` or `error` line:
//!
//! ```text
//! → {"v":1,"request":{"op":"containers","gone":false}}
//! ← {"v":1,"reply":{"type":"item","item":{"kind":"container","value":{"container_id":"…"}}}}
//! ← {"v":1,"reply":{"type":"end","items":1,"message":null}}
//! ```
//!
//! Promises: a small fixed set of requests, each of which is either a read of live state or a
//! decision that the agent journals with the peer's credentials; lines beyond the stated bounds
//! are refused before they are stored. The agent trusts nothing in a request about who asks: that
//! is `SO_PEERCRED`'s to say.
//!
//! Left out on purpose: queries over the journal (readers open the data directory themselves, so
//! that a query can never slow the agent down). A container is changed only by a step of a plan: a
//! request can approve, deny or take back such a step, never name an effect of its own.

use crate::API_VERSION;
use crate::evidence::EvidenceAct;
use crate::types::{
    Baseline, BaselineDetail, BaselineDiff, BaselineRef, Container, DoctorRow, Enforcement,
    Outgoing, Plan, Rule, RuleSetInfo, Status,
};
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, Read as _, Write};

/// Where the agent listens unless it is told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/plimsoll/agent.sock";
/// Longest request line, bytes: a baseline to import is the largest.
pub const REQUEST_BYTES_MAX: usize = 16 << 20;
/// Longest reply line, bytes: a baseline with all its behaviours is the largest.
pub const REPLY_BYTES_MAX: usize = 32 << 20;
/// Longest reason that a person may give, bytes.
pub const REASON_BYTES_MAX: usize = 1024;
/// Most behaviours that one approval may name.
pub const APPROVE_MAX: usize = 4096;

/// One request.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case")]
pub enum Request {
    /// How the agent is doing. One [`Item::Status`].
    Status {},
    /// What this kernel allows, as the agent found it. [`Item::Doctor`] each.
    Doctor {},
    /// The rules in force. One [`Item::RuleSet`], then [`Item::Rule`] each where `all`.
    Rules {
        /// The rules too, not only which set it is.
        #[serde(default)]
        all: bool,
    },
    /// Containers. [`Item::Container`] each.
    Containers {
        /// Those that are gone too, as far as the agent remembers them.
        #[serde(default)]
        gone: bool,
    },
    /// Baselines. [`Item::Baseline`] each.
    Baselines {},
    /// One baseline with its content. One [`Item::BaselineDetail`].
    BaselineShow {
        /// Which: id, or any unambiguous beginning of it.
        id: String,
        /// At which version; the one in force when absent.
        #[serde(default)]
        version: Option<u64>,
    },
    /// How two baselines differ. One [`Item::BaselineDiff`].
    BaselineDiff {
        /// From this one …
        from: BaselineSelector,
        /// … to this one.
        to: BaselineSelector,
    },
    /// Takes behaviours out of quarantine, or drifts into the baseline.
    BaselineApprove {
        /// Which baseline.
        id: String,
        /// Behaviour ids (hex); empty means everything in quarantine.
        #[serde(default)]
        behaviours: Vec<String>,
        /// Why.
        reason: String,
    },
    /// No further learning.
    BaselineLock {
        /// Which baseline.
        id: String,
        /// Why.
        reason: String,
    },
    /// Undoes a lock.
    BaselineUnlock {
        /// Which baseline.
        id: String,
        /// Why.
        reason: String,
    },
    /// Takes behaviours out, expected or waiting: the next one is drift.
    BaselineRemove {
        /// Which baseline.
        id: String,
        /// Behaviour ids (hex), at least one.
        behaviours: Vec<String>,
        /// Why.
        reason: String,
    },
    /// Starts learning anew.
    BaselineReset {
        /// Which baseline.
        id: String,
        /// Why.
        reason: String,
    },
    /// The portable document of a baseline. One [`Item::Document`].
    BaselineExport {
        /// Which baseline.
        id: String,
        /// At which version; the one in force when absent.
        #[serde(default)]
        version: Option<u64>,
    },
    /// Takes over a baseline from a document.
    BaselineImport {
        /// The document that an export gave.
        document: String,
        /// Why.
        reason: String,
    },
    /// Plans, latest last. [`Item::Plan`] each.
    Plans {},
    /// The plan of an alert, or the one that would be made of it. One [`Item::Plan`].
    PlanShow {
        /// Id of the plan or of the alert.
        id: String,
    },
    /// A person's word about a plan.
    PlanDecide {
        /// Id of the plan or of the alert.
        id: String,
        /// Which word.
        word: PlanWord,
        /// Why.
        reason: String,
    },
    /// The switch for all automation.
    PlanSwitch {
        /// On: it stops.
        stop: bool,
        /// Why.
        reason: String,
    },
    /// What is enforced, and how each container is held. One [`Item::Enforcement`].
    EnforcementStatus {},
    /// The switch of enforcement for the whole node.
    EnforcementSwitch {
        /// Off: nothing is prevented.
        off: bool,
        /// Why.
        reason: String,
    },
    /// Dead letters, and what waits. [`Item::Outgoing`] each.
    NotifyList {},
    /// Sends dead letters again.
    NotifyResend {
        /// Only of this receiver.
        #[serde(default)]
        receiver: Option<String>,
        /// Only this message.
        #[serde(default)]
        key: Option<String>,
        /// Why.
        reason: String,
    },
    /// Makes everything accepted so far durable, so that a reader sees it. One [`Item::Flushed`].
    Flush {},
    /// Seals, holds, releases, or writes down who read evidence. See [`EvidenceAct`].
    Evidence {
        /// What to do.
        act: EvidenceAct,
        /// Why; needed to lay and end a hold.
        #[serde(default)]
        reason: String,
    },
}

/// What a person says about a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PlanWord {
    /// Its steps may be taken.
    Approve,
    /// No further step may be taken.
    Deny,
    /// Take back what can be.
    Undo,
    /// It may destroy without a sealed capture.
    WaiveCapture,
}

/// A baseline by id and, optionally, version.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BaselineSelector {
    /// Id, or any unambiguous beginning of it.
    pub id: String,
    /// Version; the one in force when absent.
    #[serde(default)]
    pub version: Option<u64>,
}

impl Request {
    /// The name of the request, as it is journalled.
    pub fn name(&self) -> &'static str {
        match self {
            Request::Status {} => "status",
            Request::Doctor {} => "doctor",
            Request::Rules { .. } => "rules",
            Request::Containers { .. } => "containers",
            Request::Baselines {} => "baselines",
            Request::BaselineShow { .. } => "baseline.show",
            Request::BaselineDiff { .. } => "baseline.diff",
            Request::BaselineApprove { .. } => "baseline.approve",
            Request::BaselineLock { .. } => "baseline.lock",
            Request::BaselineUnlock { .. } => "baseline.unlock",
            Request::BaselineRemove { .. } => "baseline.remove",
            Request::BaselineReset { .. } => "baseline.reset",
            Request::BaselineExport { .. } => "baseline.export",
            Request::BaselineImport { .. } => "baseline.import",
            Request::Plans {} => "plans",
            Request::PlanShow { .. } => "plan.show",
            Request::PlanDecide { word, .. } => match word {
                PlanWord::Approve => "plan.approve",
                PlanWord::Deny => "plan.deny",
                PlanWord::Undo => "plan.undo",
                PlanWord::WaiveCapture => "plan.waive_capture",
            },
            Request::PlanSwitch { stop: true, .. } => "plan.stop",
            Request::PlanSwitch { stop: false, .. } => "plan.resume",
            Request::EnforcementStatus {} => "enforcement.status",
            Request::EnforcementSwitch { off: true, .. } => "enforcement.off",
            Request::EnforcementSwitch { off: false, .. } => "enforcement.on",
            Request::NotifyList {} => "notify.list",
            Request::NotifyResend { .. } => "notify.resend",
            Request::Flush {} => "flush",
            Request::Evidence { .. } => "evidence",
        }
    }

    /// Whether it changes something, so that it needs a decision record.
    pub fn is_decision(&self) -> bool {
        matches!(
            self,
            Request::BaselineApprove { .. }
                | Request::PlanDecide { .. }
                | Request::PlanSwitch { .. }
                | Request::EnforcementSwitch { .. }
                | Request::NotifyResend { .. }
                | Request::BaselineLock { .. }
                | Request::BaselineUnlock { .. }
                | Request::BaselineRemove { .. }
                | Request::BaselineReset { .. }
                | Request::BaselineImport { .. }
        ) || self.is_hold()
    }

    fn is_hold(&self) -> bool {
        use EvidenceAct::{Hold, Release};
        matches!(
            self,
            Request::Evidence {
                act: Hold { .. } | Release { .. },
                ..
            }
        )
    }

    /// The reason given, for decisions.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Request::BaselineApprove { reason, .. }
            | Request::PlanDecide { reason, .. }
            | Request::PlanSwitch { reason, .. }
            | Request::EnforcementSwitch { reason, .. }
            | Request::NotifyResend { reason, .. }
            | Request::BaselineLock { reason, .. }
            | Request::BaselineUnlock { reason, .. }
            | Request::BaselineRemove { reason, .. }
            | Request::BaselineReset { reason, .. }
            | Request::BaselineImport { reason, .. } => Some(reason),
            Request::Evidence { reason, .. } if self.is_hold() || !reason.is_empty() => {
                Some(reason)
            }
            _ => None,
        }
    }

    /// Checks the bounds that the types cannot express.
    fn check(&self) -> Result<(), Failure> {
        let bad = |message: &str| Err(Failure::new(FailureCode::BadRequest, message));
        match self.reason() {
            Some(reason) if reason.trim().is_empty() => return bad("a decision needs a reason"),
            Some(reason) if reason.len() > REASON_BYTES_MAX => {
                return bad("the reason is longer than 1024 bytes");
            }
            _ => {}
        }
        match self {
            Request::BaselineApprove { behaviours, .. } if behaviours.len() > APPROVE_MAX => {
                bad("more than 4096 behaviours in one approval")
            }
            Request::BaselineRemove { behaviours, .. } if behaviours.is_empty() => {
                bad("name the behaviours to take out")
            }
            Request::BaselineRemove { behaviours, .. } if behaviours.len() > APPROVE_MAX => {
                bad("more than 4096 behaviours at a time")
            }
            Request::Evidence { act, .. } => act.fault().map_or(Ok(()), bad),
            _ => Ok(()),
        }
    }
}

/// One thing that was asked for.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", content = "value", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // items live one at a time
pub enum Item {
    /// The agent.
    Status(Status),
    /// A finding of the doctor.
    Doctor(DoctorRow),
    /// Which rules are in force.
    RuleSet(RuleSetInfo),
    /// A rule of them.
    Rule(Rule),
    /// A container.
    Container(Container),
    /// A baseline.
    Baseline(Baseline),
    /// A baseline with its content.
    BaselineDetail(BaselineDetail),
    /// The difference of two baselines.
    BaselineDiff(BaselineDiff),
    /// A baseline after a decision about it.
    BaselineRef(BaselineRef),
    /// A plan.
    Plan(Plan),
    /// A message that has not been delivered.
    Outgoing(Outgoing),
    /// What is enforced.
    Enforcement(Enforcement),
    /// A portable baseline.
    Document(String),
    /// Everything below this leaf is durable and readable.
    Flushed {
        /// Number of durable leaves.
        durable: u64,
    },
}

/// Why a request was not carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureCode {
    /// The line is not a request.
    BadRequest,
    /// Another version of the protocol.
    UnsupportedVersion,
    /// There is no such thing.
    NotFound,
    /// The name fits more than one.
    Ambiguous,
    /// The peer may not do that.
    Denied,
    /// It is not possible in the present state.
    Conflict,
    /// Too many connections or requests at once.
    Busy,
    /// It was tried and failed.
    Failed,
}

/// The refusal of a request, in words.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    /// What kind of refusal.
    pub code: FailureCode,
    /// What failed, on what, and what to do.
    pub message: String,
}

impl Failure {
    /// A refusal with its words.
    pub fn new(code: FailureCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
        }
    }
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
#[allow(clippy::large_enum_variant)] // replies live one at a time
pub enum Reply {
    /// Something that was asked for; more may follow.
    Item {
        /// The thing.
        item: Item,
    },
    /// That was all.
    End {
        /// How many items there were.
        items: u64,
        /// What was done, in words, for decisions.
        message: Option<String>,
    },
    /// It was not carried out; the connection can be used on.
    Error(Failure),
}

#[derive(Serialize, Deserialize)]
struct RequestLine<T> {
    v: u32,
    request: T,
}

#[derive(Serialize, Deserialize)]
struct ReplyLine<T> {
    v: u32,
    reply: T,
}

/// Why a line could not be had.
#[derive(Debug, thiserror::Error)]
pub enum LineError {
    /// It is longer than allowed; nothing of it was kept, and the connection is of no more use.
    #[error("line longer than {max} bytes")]
    TooLong {
        /// The bound.
        max: usize,
    },
    /// The connection failed.
    #[error("{0}")]
    Io(#[from] io::Error),
    /// The other side stopped in the middle of a line.
    #[error("the connection ended in the middle of a line")]
    Cut,
}

/// Reads one line of at most `max` bytes, without its newline; `None` at the end.
///
/// # Errors
/// When the line is longer, cut off, or the connection fails.
pub fn read_line(from: &mut impl BufRead, max: usize) -> Result<Option<Vec<u8>>, LineError> {
    let mut line = Vec::new();
    let taken = from.take(max as u64 + 1).read_until(b'\n', &mut line)?;
    match line.pop() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if taken > max => Err(LineError::TooLong { max }),
        Some(_) => Err(LineError::Cut),
    }
}

/// Parses a request line as the agent does.
///
/// # Errors
/// A [`Failure`] to answer with: not JSON, another version, an unknown request, or out of bounds.
pub fn parse_request(line: &[u8]) -> Result<Request, Failure> {
    #[derive(Deserialize)]
    struct Version {
        v: u32,
    }
    let bad =
        |e: serde_json::Error| Failure::new(FailureCode::BadRequest, format!("not a request: {e}"));
    let Version { v } = serde_json::from_slice(line).map_err(bad)?;
    if v != API_VERSION {
        return Err(Failure::new(
            FailureCode::UnsupportedVersion,
            format!(
                "this agent speaks version {API_VERSION} of the protocol, not {v}: use the command of the same release"
            ),
        ));
    }
    let RequestLine { request, .. } =
        serde_json::from_slice::<RequestLine<Request>>(line).map_err(bad)?;
    request.check()?;
    Ok(request)
}

/// A request as a line, newline included.
pub fn request_line(request: &Request) -> String {
    crate::json::line(&RequestLine {
        v: API_VERSION,
        request,
    }) + "\n"
}

/// Writes one line of an answer.
///
/// # Errors
/// When the connection fails.
pub fn write_reply(to: &mut impl Write, reply: &Reply) -> io::Result<()> {
    let line = crate::json::line(&ReplyLine {
        v: API_VERSION,
        reply,
    }) + "\n";
    if line.len() > REPLY_BYTES_MAX {
        let failure = Failure::new(FailureCode::Failed, "the answer is longer than 32 MiB");
        return write_reply(to, &Reply::Error(failure));
    }
    to.write_all(line.as_bytes())
}

/// Parses a reply line as the client does.
///
/// # Errors
/// When it is not a reply of this version.
pub fn parse_reply(line: &[u8]) -> Result<Reply, serde_json::Error> {
    serde_json::from_slice::<ReplyLine<Reply>>(line).map(|line| line.reply)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(request: Request, line: &str) {
        assert_eq!(request_line(&request), format!("{line}\n"));
        assert_eq!(parse_request(line.as_bytes()), Ok(request));
    }

    #[test]
    fn requests_look_as_documented() {
        check(Request::Status {}, r#"{"v":1,"request":{"op":"status"}}"#);
        check(
            Request::Containers { gone: true },
            r#"{"v":1,"request":{"op":"containers","gone":true}}"#,
        );
        check(
            Request::BaselineApprove {
                id: "b1".into(),
                behaviours: vec![],
                reason: "reviewed".into(),
            },
            r#"{"v":1,"request":{"op":"baseline_approve","id":"b1","behaviours":[],"reason":"reviewed"}}"#,
        );
    }

    #[test]
    fn replies_look_as_documented() {
        let mut out = Vec::new();
        write_reply(
            &mut out,
            &Reply::Item {
                item: Item::Flushed { durable: 7 },
            },
        )
        .unwrap();
        write_reply(
            &mut out,
            &Reply::Error(Failure::new(FailureCode::NotFound, "no such baseline")),
        )
        .unwrap();
        let text = String::from_utf8(out).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(
            lines[0],
            r#"{"v":1,"reply":{"type":"item","item":{"kind":"flushed","value":{"durable":7}}}}"#
        );
        assert_eq!(
            lines[1],
            r#"{"v":1,"reply":{"type":"error","code":"not_found","message":"no such baseline"}}"#
        );
        assert_eq!(
            parse_reply(lines[0].as_bytes()).unwrap(),
            Reply::Item {
                item: Item::Flushed { durable: 7 }
            }
        );
    }

    #[test]
    fn what_is_not_a_request_is_refused_with_its_reason() {
        let code = |line: &str| parse_request(line.as_bytes()).unwrap_err().code;
        assert_eq!(code("hello"), FailureCode::BadRequest);
        assert_eq!(
            code(r#"{"v":2,"request":{"op":"status"}}"#),
            FailureCode::UnsupportedVersion
        );
        assert_eq!(
            code(r#"{"v":1,"request":{"op":"kill"}}"#),
            FailureCode::BadRequest
        );
        assert_eq!(
            code(r#"{"v":1,"request":{"op":"baseline_lock","id":"b","reason":" "}}"#),
            FailureCode::BadRequest
        );
        let long = "x".repeat(REASON_BYTES_MAX + 1);
        assert_eq!(
            code(&format!(
                r#"{{"v":1,"request":{{"op":"baseline_lock","id":"b","reason":"{long}"}}}}"#
            )),
            FailureCode::BadRequest
        );
    }

    #[test]
    fn lines_end_somewhere() {
        let mut at_bound = io::Cursor::new(b"abcd\nrest".to_vec());
        assert_eq!(read_line(&mut at_bound, 5).unwrap(), Some(b"abcd".to_vec()));
        let mut long = io::Cursor::new(vec![b'x'; 100]);
        assert!(matches!(
            read_line(&mut long, 10),
            Err(LineError::TooLong { max: 10 })
        ));
        let mut cut = io::Cursor::new(b"abc".to_vec());
        assert!(matches!(read_line(&mut cut, 10), Err(LineError::Cut)));
        assert!(read_line(&mut io::Cursor::new(b""), 10).unwrap().is_none());
    }
}
