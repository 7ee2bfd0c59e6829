//! Where results, remarks and progress go.
//!
//! Promise: results go to standard output, remarks and progress to standard error; colour and
//! progress only on a terminal, and colour not with `NO_COLOR`.

use crate::failure::Failure;
use plimsoll_api::json;
use serde::Serialize;
use std::cell::Cell;
use std::io::{self, BufWriter, IsTerminal as _, Stdout, Write as _};
use std::time::{Duration, Instant};

/// Progress is shown from then on.
const PATIENCE: Duration = Duration::from_secs(1);
/// And renewed this often.
const RENEW: Duration = Duration::from_millis(200);

/// Standard output.
pub(crate) struct Out {
    to: BufWriter<Stdout>,
    pub(crate) json: bool,
    pub(crate) paint: Paint,
    /// Columns, on a terminal.
    pub(crate) width: Option<usize>,
}

impl Out {
    pub(crate) fn new(json: bool) -> Self {
        let terminal = io::stdout().is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty())
            || std::env::var_os("TERM").is_some_and(|t| t == "dumb");
        Self {
            to: BufWriter::with_capacity(64 << 10, io::stdout()),
            json,
            paint: Paint {
                on: terminal && !plain,
            },
            width: terminal.then(columns),
        }
    }

    /// One line for people.
    pub(crate) fn line(&mut self, text: &str) -> Result<(), Failure> {
        writeln!(self.to, "{text}").map_err(Failure::Output)
    }

    /// One object for programs.
    pub(crate) fn object<T: Serialize>(&mut self, value: &T) -> Result<(), Failure> {
        self.line(&json::line(value))
    }

    /// Bytes as they are (a document).
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), Failure> {
        self.to.write_all(text.as_bytes()).map_err(Failure::Output)
    }

    pub(crate) fn flush(&mut self) -> Result<(), Failure> {
        self.to.flush().map_err(Failure::Output)
    }
}

fn columns() -> usize {
    let given = std::env::var("COLUMNS").ok().and_then(|c| c.parse().ok());
    let asked = || {
        rustix::termios::tcgetwinsize(io::stdout())
            .ok()
            .map(|w| usize::from(w.ws_col))
    };
    given.or_else(asked).filter(|c| *c >= 40).unwrap_or(100)
}

/// A remark on standard error; a closed one is no failure.
pub(crate) fn remark(text: &str) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// The message of a failure.
pub(crate) fn complain(text: &str) {
    remark(text);
}

/// How a word stands out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Style {
    #[default]
    Plain,
    Bold,
    Dim,
    Good,
    Warn,
    Bad,
}

/// Colours, or none.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Paint {
    pub(crate) on: bool,
}

impl Paint {
    pub(crate) fn apply(self, style: Style, text: &str) -> String {
        let code = match style {
            Style::Plain => return text.to_owned(),
            Style::Bold => "1",
            Style::Dim => "2",
            Style::Good => "32",
            Style::Warn => "33",
            Style::Bad => "31;1",
        };
        if self.on {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Says on a terminal's standard error how far something long has come.
pub(crate) struct Progress {
    what: &'static str,
    on: bool,
    begun: Instant,
    shown: Cell<Option<Instant>>,
    done: Cell<u64>,
}

impl Progress {
    pub(crate) fn new(what: &'static str) -> Self {
        Self {
            what,
            on: io::stderr().is_terminal(),
            begun: Instant::now(),
            shown: Cell::new(None),
            done: Cell::new(0),
        }
    }

    /// One more.
    pub(crate) fn step(&self) {
        let done = self.done.get() + 1;
        self.done.set(done);
        if self.on && done.is_multiple_of(1024) {
            self.show(Instant::now());
        }
    }

    fn show(&self, now: Instant) {
        let due = self
            .shown
            .get()
            .map_or(self.begun + PATIENCE, |last| last + RENEW);
        if now >= due {
            self.shown.set(Some(now));
            let _ = write!(
                io::stderr(),
                "\r{}: {} records\x1b[K",
                self.what,
                self.done.get()
            );
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.shown.get().is_some() {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}
