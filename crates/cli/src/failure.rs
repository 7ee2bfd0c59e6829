//! Why a command failed, in words for the person who typed it.

use plimsoll_agent::config::ConfigError;
use plimsoll_api::ClientError;
use plimsoll_api::describe::words;
use std::error::Error as _;
use std::io;

/// A failure, with what failed, on what, and what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// The command was used wrongly.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong or unreadable.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Standard output failed.
    #[error("cannot write the output")]
    Output(#[source] io::Error),
    /// The agent could not be asked, or refused.
    #[error(transparent)]
    Agent(#[from] ClientError),
    /// The data directory could not be read.
    #[error("{what}")]
    Data {
        what: String,
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// Anything else, in full words.
    #[error("{0}")]
    Failed(String),
}

impl Failure {
    /// 2 for wrong usage and wrong configuration, else 1.
    pub(crate) fn exit_status(&self) -> u8 {
        match self {
            Failure::Usage(_) | Failure::Config(ConfigError::Malformed { .. }) => 2,
            _ => 1,
        }
    }

    pub(crate) fn is_closed_pipe(&self) -> bool {
        matches!(self, Failure::Output(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// The failure and its causes on one line, safe to show.
    pub(crate) fn in_full(&self) -> String {
        let mut text = self.to_string();
        let mut cause = self.source();
        while let Some(c) = cause {
            let words = c.to_string();
            if !text.contains(&words) {
                text = format!("{text}: {words}");
            }
            cause = c.source();
        }
        words(&text)
    }
}

impl From<plimsoll_ask::RecordsError> for Failure {
    fn from(e: plimsoll_ask::RecordsError) -> Self {
        Failure::Data {
            what: e.what,
            source: e.source,
        }
    }
}
