//! Where answers come from: the running agent, or the data directory.
//!
//! Promise: what is read may be old only if that is said, once, on standard error.

use crate::failure::Failure;
use crate::global::Global;
use crate::journal::Journal;
use crate::out::remark;
use plimsoll_agent::config::{Config, Overrides};
use plimsoll_api::evidence::{EvidenceAct, SUBJECT_BYTES_MAX};
use plimsoll_api::{Client, Item, Request, Status, describe};
use std::time::Duration;

/// How long the agent may take for one line.
const PATIENCE: Duration = Duration::from_secs(10);

/// The configuration in force, and the agent if it runs.
pub(crate) struct Source {
    pub(crate) config: Config,
    client: Option<Client>,
    /// It has been said that what is read may be old.
    said_stale: bool,
}

/// The configuration with the command line over it.
pub(crate) fn config(global: &Global, more: Overrides) -> Result<Config, Failure> {
    let overrides = Overrides {
        data_dir: global.data_dir.clone(),
        socket: global.socket.clone(),
        ..more
    };
    Ok(Config::load(global.config.as_deref(), overrides)?)
}

/// Asks the agent to do something with evidence; the document it answers with.
pub(crate) fn ask_evidence(
    client: &mut Client,
    act: EvidenceAct,
    reason: &str,
) -> Result<String, Failure> {
    let request = Request::Evidence {
        act,
        reason: reason.to_owned(),
    };
    let (items, _) = client.ask(&request)?;
    let document = items.into_iter().find_map(|item| match item {
        Item::Document(text) => Some(text),
        _ => None,
    });
    document.ok_or_else(|| Failure::Failed("the agent gave no answer to that".to_owned()))
}

impl Source {
    /// Finds the agent. One that keeps another data directory than the one that was asked for by
    /// name is not the one that was meant.
    pub(crate) fn find(global: &Global) -> Result<Self, Failure> {
        let config = config(global, Overrides::default())?;
        let client = match Client::connect(&config.socket, PATIENCE) {
            Ok(client) => Some(client),
            Err(e) if e.is_not_running() => None,
            // reading the directory may still be allowed; deciding will fail with these words
            Err(e) => {
                remark(&format!("note: {}", Failure::from(e).in_full()));
                None
            }
        };
        let mut source = Self {
            config,
            client,
            said_stale: false,
        };
        if global.data_dir.is_some() && global.socket.is_none() && source.client.is_some() {
            let ours = source.config.journal_dir();
            let same = source.status()?.is_some_and(|s| {
                let (a, b) = (
                    std::fs::canonicalize(&s.journal.dir),
                    std::fs::canonicalize(&ours),
                );
                s.journal.dir == ours.to_string_lossy()
                    || matches!((a, b), (Ok(a), Ok(b)) if a == b)
            });
            if !same {
                source.client = None;
            }
        }
        Ok(source)
    }

    pub(crate) fn agent(&mut self) -> Option<&mut Client> {
        self.client.as_mut()
    }

    /// The agent, for what only it can do.
    pub(crate) fn agent_for(&mut self, what: &str) -> Result<&mut Client, Failure> {
        let socket = self.config.socket.display().to_string();
        self.client.as_mut().ok_or_else(|| {
            Failure::Failed(format!(
                "{what} needs the running agent, and none answers on {socket}: start it with `plimsoll run`, or name its socket with --socket"
            ))
        })
    }

    pub(crate) fn status(&mut self) -> Result<Option<Status>, Failure> {
        let Some(client) = &mut self.client else {
            return Ok(None);
        };
        let (items, _) = client.ask(&Request::Status {})?;
        Ok(items.into_iter().find_map(|item| match item {
            Item::Status(status) => Some(status),
            _ => None,
        }))
    }

    /// The journal, current up to now when an agent runs.
    pub(crate) fn journal(&mut self) -> Result<Journal, Failure> {
        self.journal_for("evidence.read")
    }

    /// The same, for an access of this kind.
    pub(crate) fn journal_for(&mut self, action: &str) -> Result<Journal, Failure> {
        let flushed = match &mut self.client {
            Some(client) => client.ask(&Request::Flush {}).map(|_| true),
            None => Ok(false),
        };
        let journal = Journal::open(&self.config.journal_dir())?;
        match flushed {
            Ok(true) => self.write_down(action),
            Ok(false) => self.say_stale(&journal),
            Err(e) => remark(&format!(
                "note: the last records may be missing: {}",
                Failure::from(e).in_full()
            )),
        }
        Ok(journal)
    }

    /// Custody of a reading that opens its store by itself, wherever that is: written down when it is the
    /// running agent's.
    pub(crate) fn note_reading(global: &Global, journal: &std::path::Path, action: &str) {
        let same = |ours: &std::path::Path| {
            let (a, b) = (std::fs::canonicalize(ours), std::fs::canonicalize(journal));
            matches!((a, b), (Ok(a), Ok(b)) if a == b)
        };
        if let Ok(config) = config(global, Overrides::default())
            && same(&config.journal_dir())
            && let Ok(mut source) = Self::find(global)
        {
            source.write_down(action);
        }
    }

    /// Custody: who read what becomes a record. `PLIMSOLL_REASON` says why.
    fn write_down(&mut self, action: &str) {
        let Some(client) = &mut self.client else {
            return;
        };
        let command: Vec<String> = std::env::args().skip(1).collect();
        let mut subject = command.join(" ");
        let mut end = subject.len().min(SUBJECT_BYTES_MAX);
        while !subject.is_char_boundary(end) {
            end -= 1;
        }
        subject.truncate(end);
        let act = EvidenceAct::Access {
            action: action.to_owned(),
            subject,
        };
        let reason = std::env::var("PLIMSOLL_REASON").unwrap_or_default();
        if let Err(e) = client.ask(&Request::Evidence { act, reason }) {
            remark(&format!(
                "note: this reading is not recorded: {}",
                Failure::from(e).in_full()
            ));
        }
    }

    fn say_stale(&mut self, journal: &Journal) {
        use plimsoll_ask::Records as _;
        if std::mem::replace(&mut self.said_stale, true) {
            return;
        }
        let as_of = match journal.span() {
            Some(span) => format!("as of {}", describe::when(span.last)),
            None => "which holds no record yet".to_owned(),
        };
        remark(&format!(
            "note: agent not running; reading {} {as_of}",
            describe::words(&self.config.data_dir.display().to_string())
        ));
    }
}
