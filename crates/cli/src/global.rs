//! What many commands take: where the evidence lies, and which records of it.

use crate::values::{absolute, container};
use crate::when::Moment;
use clap::Args;
use std::path::PathBuf;

/// Options of every command.
#[derive(Clone, Debug, Args)]
pub(crate) struct Global {
    /// Where journal and baselines are kept [default: from the configuration, else /var/lib/plimsoll]
    #[arg(
        long,
        global = true,
        value_name = "DIR",
        env = "PLIMSOLL_DATA_DIR",
        hide_env_values = true,
        value_parser = absolute()
    )]
    pub(crate) data_dir: Option<PathBuf>,
    /// Configuration file [default: /etc/plimsoll/config.yaml, where there is one]
    #[arg(
        long,
        global = true,
        value_name = "FILE",
        env = "PLIMSOLL_CONFIG",
        hide_env_values = true,
        value_parser = absolute()
    )]
    pub(crate) config: Option<PathBuf>,
    /// The agent's socket [default: from the configuration, else /run/plimsoll/agent.sock]
    #[arg(
        long,
        global = true,
        value_name = "SOCKET",
        env = "PLIMSOLL_SOCKET",
        hide_env_values = true,
        value_parser = absolute()
    )]
    pub(crate) socket: Option<PathBuf>,
    /// One JSON object a line instead of tables
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// Which records.
#[derive(Clone, Debug, Args)]
pub(crate) struct Selection {
    /// Only this container: name, id or its beginning, or ID@START
    #[arg(long, short, value_name = "NAME|ID", value_parser = container)]
    pub(crate) container: Option<String>,
    /// Not before: 10m, 1h30m, 2d ago, or a date in UTC
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<Moment>,
    /// Not after: 10m, 1h30m, 2d ago, or a date in UTC
    #[arg(long, value_name = "TIME")]
    pub(crate) until: Option<Moment>,
    /// At most the latest N; 0: all [default: 200 in tables, all in JSON]
    #[arg(long, short = 'n', value_name = "N")]
    pub(crate) limit: Option<usize>,
}
