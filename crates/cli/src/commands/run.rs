//! `plimsoll run`: hands over to the agent.

use crate::Verdict;
use crate::args::RunArgs;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::remark;
use crate::source::config;
use plimsoll_agent::config::{Config, Overrides, Stdout};
use plimsoll_agent::run::RunError;
use plimsoll_api::describe::words;
use std::error::Error as _;
use std::path::PathBuf;

pub(crate) fn run(global: &Global, args: &RunArgs) -> Result<Verdict, Failure> {
    let more = Overrides {
        node: args.node.clone(),
        host: args.host,
        dry_run: args.dry_run,
        stdout: global.json.then_some(Stdout::Json),
        rules: args.rules.clone(),
        pins: args.pins.clone().map(off_is_none),
        ..Overrides::default()
    };
    let config = config(global, more)?;
    if !rustix::process::geteuid().is_root() {
        return Err(Failure::Failed(
            "watching containers needs root: start it with sudo (`plimsoll doctor` works without, and says what else is needed)".to_owned(),
        ));
    }
    plimsoll_agent::run(&config, |_| announce(&config)).map_err(failure)?;
    Ok(Verdict::Fine)
}

/// `off` is no directory.
fn off_is_none(pins: PathBuf) -> PathBuf {
    match pins.as_os_str() == "off" {
        true => PathBuf::new(),
        false => pins,
    }
}

fn announce(config: &Config) {
    remark(&words(&format!(
        "watching; evidence in {}, socket {}; Ctrl-C ends it",
        config.data_dir.display(),
        config.socket.display()
    )));
}

fn failure(e: RunError) -> Failure {
    let advice = match &e {
        RunError::Sensor(_) => ": `plimsoll doctor` says what this kernel allows and what to do",
        _ => "",
    };
    let mut text = format!("cannot watch: {e}");
    let mut cause = e.source();
    while let Some(c) = cause {
        let words = c.to_string();
        if !text.contains(&words) {
            text = format!("{text}: {words}");
        }
        cause = c.source();
    }
    Failure::Failed(text + advice)
}
