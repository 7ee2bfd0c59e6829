//! `plimsoll notify`: what has not been told yet; and, hidden, the process that tells it.

use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::{Cell, Table};
use crate::values;
use clap::Subcommand;
use plimsoll_api::describe::words;
use plimsoll_api::{Item, Request};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

/// What to do with notifications.
#[derive(Debug, Subcommand)]
pub(crate) enum NotifyCommand {
    /// Dead letters, and what waits for each receiver; exit status 1 when there are dead letters
    List,
    /// Send dead letters again
    Resend {
        /// Only this message
        #[arg(value_name = "KEY")]
        key: Option<String>,
        /// Only those of this receiver
        #[arg(long, value_name = "NAME")]
        receiver: Option<String>,
        /// Why; it is kept with your uid and login uid
        #[arg(long, value_parser = values::reason)]
        reason: String,
    },
    /// Check a file of receivers; needs no agent
    Check {
        /// The file
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
    /// Sends what the agent on standard input asks for; started by `plimsoll run`
    #[command(hide = true)]
    Serve {
        /// The file of receivers
        #[arg(value_name = "FILE")]
        file: PathBuf,
    },
}

pub(crate) fn notify(
    global: &Global,
    command: &NotifyCommand,
    out: &mut Out,
) -> Result<Verdict, Failure> {
    match command {
        NotifyCommand::List => list(global, out),
        NotifyCommand::Resend {
            key,
            receiver,
            reason,
        } => {
            let request = Request::NotifyResend {
                receiver: receiver.clone(),
                key: key.clone(),
                reason: reason.clone(),
            };
            let mut source = Source::find(global)?;
            let (_, said) = source.agent_for("sending again")?.ask(&request)?;
            remark(&words(&said.unwrap_or_default()));
            Ok(Verdict::Fine)
        }
        NotifyCommand::Check { file } => {
            let config = load(file)?;
            remark(&format!("{} receivers are fine", config.receivers.len()));
            Ok(Verdict::Fine)
        }
        NotifyCommand::Serve { file } => serve(file),
    }
}

fn load(file: &Path) -> Result<plimsoll_notify::Config, Failure> {
    plimsoll_notify::Config::load(file).map_err(|e| Failure::Failed(e.to_string()))
}

fn serve(file: &Path) -> Result<Verdict, Failure> {
    let config = load(file)?;
    let input = std::io::stdin();
    let socket = input.as_fd().try_clone_to_owned();
    let socket = socket.map_err(|e| Failure::Failed(format!("cannot use standard input: {e}")))?;
    plimsoll_notify::serve(UnixStream::from(socket), config)
        .map_err(|e| Failure::Failed(format!("the agent's socket: {e}")))?;
    Ok(Verdict::Fine)
}

fn list(global: &Global, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let agent = source.agent_for("what has not been told")?;
    let (items, _) = agent.ask(&Request::NotifyList {})?;
    let mut table = Table::new(&["RECEIVER", "STATE", "ALERTS", "TRIES", "KEY"]);
    let mut verdict = Verdict::Fine;
    for item in items {
        let Item::Outgoing(message) = item else {
            continue;
        };
        let dead = message.state == "dead";
        if dead {
            verdict = Verdict::Found;
        }
        if out.json {
            out.object(&message)?;
            continue;
        }
        let style = if dead { Style::Bad } else { Style::Warn };
        table.row([
            message.receiver.into(),
            Cell::styled(&message.state, style),
            message.count.to_string().into(),
            message.attempts.to_string().into(),
            message.key.into(),
        ]);
    }
    if !table.is_empty() {
        table.print(out)?;
    } else if !out.json {
        remark("Everything has been told.");
    }
    Ok(verdict)
}
