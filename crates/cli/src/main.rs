//! The `plimsoll` command: starts the agent, asks it, and reads its evidence.
//!
//! Promises:
//! - Exit status 0: fine; 1: something was found (by `doctor`, `status`, `baseline diff`) or
//!   failed; 2: wrong usage.
//! - Nothing that a container chose reaches a terminal unescaped, neither in tables nor in JSON.
//! - `--json` writes one object a line, with the fields of `docs/formats/json.md`, to standard
//!   output; everything else for people goes to standard error.
//! - A closed pipe (`| head`) ends the command quietly.
//!
//! Left out on purpose: any decision. What is drift, what is an alert and who may approve is
//! settled elsewhere; this crate reads, asks and shows.
#![forbid(unsafe_code)]

mod args;
mod baselines;
mod commands;
mod failure;
mod global;
mod journal;
mod lake;
mod listed;
mod out;
mod replay;
mod source;
mod table;
mod values;
mod when;

use args::{Cli, Command};
use clap::Parser as _;
use failure::Failure;
use out::Out;
use std::process::ExitCode;
use std::time::Duration;

/// Gives memory back that another thread took, without holding on to it.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Whether something was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    Found,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let mut out = Out::new(cli.global.json);
    let result = run(&cli, &mut out).and_then(|verdict| out.flush().map(|()| verdict));
    match result {
        Ok(Verdict::Fine) => ExitCode::SUCCESS,
        Ok(Verdict::Found) => ExitCode::from(1),
        // the reader has seen enough
        Err(failure) if failure.is_closed_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            // what was found before the failure belongs before its message
            let _ = out.flush();
            out::complain(&format!("error: {}", failure.in_full()));
            ExitCode::from(failure.exit_status())
        }
    }
}

fn run(cli: &Cli, out: &mut Out) -> Result<Verdict, Failure> {
    let global = &cli.global;
    match &cli.command {
        Command::Run(args) => commands::run::run(global, args),
        Command::Doctor => commands::doctor::doctor(global, out),
        Command::Status => commands::status::status(global, out),
        Command::Containers(args) => commands::containers::containers(global, args, out),
        Command::Baseline { command } => commands::baseline::baseline(global, command, out),
        Command::Drift(args) => commands::drift::drift(global, args, out),
        Command::Alerts(args) => commands::alerts::alerts(global, args, out),
        Command::Events(args) => commands::events::events(global, args, out),
        Command::Gaps(args) => commands::gaps::gaps(global, args, out),
        Command::Plan { command } => commands::plan::plan(global, command, out),
        Command::Enforcement { command } => {
            commands::enforcement::enforcement(global, command, out)
        }
        Command::Hooks { command } => commands::hooks::hooks(global, command, out),
        Command::Notify { command } => commands::notify::notify(global, command, out),
        Command::Rules { command } => commands::rules::rules(global, command, out),
        Command::Query(args) => commands::query::query(global, args, out),
        Command::Lake { command } => commands::lake::lake(global, command, out),
        Command::Ask(args) => commands::ask::ask(global, args, out),
        Command::Replay(args) => commands::replay::replay(global, args, out),
        Command::Evidence { command } => commands::evidence::evidence(global, command, out),
        Command::ThawLater {
            lease,
            nonce,
            version,
            budget_ms,
            until_ms,
        } => {
            let v1 = version == "v1";
            plimsoll_agent::respond::freeze::watch(lease, nonce, v1, *budget_ms, *until_ms)
                .map(|()| Verdict::Fine)
                .map_err(|e| Failure::Failed(format!("cannot thaw the container: {e}")))
        }
        Command::UnpinLater { home, pid, seconds } => {
            plimsoll_agent::leftover::wait(home, *pid, Duration::from_secs(*seconds))
                .map(|()| Verdict::Fine)
                .map_err(|e| Failure::Failed(format!("cannot wait for the agent's end: {e}")))
        }
    }
}
