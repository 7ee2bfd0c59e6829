//! Alerts on standard output and in a file, on a thread of their own.
//!
//! Promises: a slow reader of standard output never slows observing down; what it makes us leave
//! out is said in the next line and counted. Lines for people hold nothing that a terminal obeys.
//! Left out: delivery to other machines, and any promise of durability (the journal's business).

use crate::config::Stdout;
use plimsoll_api as api;
use plimsoll_model::{Alert, Container, NodeId, Priority};
use std::fs::File;
use std::io::{self, IsTerminal as _, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};
use std::thread::JoinHandle;

/// Alerts that wait to be shown.
pub const QUEUE: usize = 1024;

/// An alert and whom it is about.
#[derive(Clone, Debug)]
pub struct Shown {
    /// The alert.
    pub alert: Alert,
    /// Its container, where it is known.
    pub container: Option<Arc<Container>>,
}

/// How a line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// For people; `colour` only on a terminal.
    Text {
        /// Mark the priority.
        colour: bool,
    },
    /// Falco's JSON with our object.
    Json,
}

/// The format for standard output as it is now (`None`: nothing is shown).
pub fn stdout_format(wanted: Stdout) -> Option<Format> {
    let terminal = io::stdout().is_terminal();
    let colour = terminal && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    match wanted {
        Stdout::Off => None,
        Stdout::Json => Some(Format::Json),
        Stdout::Text => Some(Format::Text { colour }),
        Stdout::Auto if terminal => Some(Format::Text { colour }),
        Stdout::Auto => Some(Format::Json),
    }
}

/// One line, without its newline.
pub fn line(shown: &Shown, node: &NodeId, format: Format) -> String {
    match format {
        Format::Json => api::json::line(&api::Alert::new(
            &shown.alert,
            api::types::Context {
                node: node.as_str(),
                container: shown.container.as_deref(),
                record: None,
            },
        )),
        Format::Text { colour } => text(shown, colour),
    }
}

fn text(shown: &Shown, colour: bool) -> String {
    let alert = &shown.alert;
    let time = alert.at.wall.rfc3339();
    let time = time.get(11..19).unwrap_or(&time);
    let (on, off) = match (colour, alert.priority <= Priority::Error) {
        (false, _) => ("", ""),
        (true, true) => ("\x1b[1;31m", "\x1b[0m"),
        (true, false) => ("\x1b[1;33m", "\x1b[0m"),
    };
    let times = match alert.count {
        0 | 1 => String::new(),
        n => format!(" ({n} times)"),
    };
    let priority = alert.priority.as_str();
    format!(
        "{time} {on}{priority:<8}{off} {}{times} [{}]",
        alert.output, alert.id
    )
}

/// The thread and the way to it.
#[derive(Debug)]
pub struct Outputs {
    /// `None`: nothing is shown, or not any more.
    running: RwLock<Option<Running>>,
    omitted: Arc<AtomicU64>,
}

#[derive(Debug)]
struct Running {
    queue: crossbeam_channel::Sender<Shown>,
    thread: JoinHandle<()>,
}

/// Somewhere lines go.
pub type Sink = (Format, Box<dyn Write + Send>);

/// Opens the file that alerts are appended to, readable by root alone.
///
/// # Errors
/// When it cannot be opened.
pub fn open_file(path: &Path) -> io::Result<Sink> {
    use std::os::unix::fs::OpenOptionsExt as _;
    let file = File::options()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    Ok((Format::Json, Box::new(file)))
}

impl Outputs {
    /// Starts the thread that writes to `sinks`.
    ///
    /// # Errors
    /// When no thread can be made.
    pub fn start(node: NodeId, sinks: Vec<Sink>) -> io::Result<Self> {
        let omitted = Arc::new(AtomicU64::new(0));
        if sinks.is_empty() {
            return Ok(Self {
                running: RwLock::default(),
                omitted,
            });
        }
        let (queue, alerts) = crossbeam_channel::bounded::<Shown>(QUEUE);
        let behind = omitted.clone();
        let thread = std::thread::Builder::new()
            .name("alerts".into())
            .spawn(move || write_all(&node, sinks, &alerts, &behind))?;
        Ok(Self {
            running: RwLock::new(Some(Running { queue, thread })),
            omitted,
        })
    }

    fn with<T>(&self, act: impl FnOnce(&Running) -> T) -> Option<T> {
        let running = self.running.read().unwrap_or_else(PoisonError::into_inner);
        running.as_ref().map(act)
    }

    /// Shows an alert; never blocks.
    pub fn show(&self, shown: Shown) {
        if self.with(|r| r.queue.try_send(shown).is_ok()) == Some(false) {
            self.omitted.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Alerts waiting to be shown.
    pub fn waiting(&self) -> usize {
        self.with(|r| r.queue.len()).unwrap_or(0)
    }

    /// Writes what waits, for at most a second, and ends.
    pub fn close(&self) {
        let running = self
            .running
            .write()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        let Some(Running { queue, thread }) = running else {
            return;
        };
        drop(queue);
        // a reader that has stopped reading must not keep the agent from ending
        for _ in 0..100 {
            if thread.is_finished() {
                let _ = thread.join();
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
    }
}

fn write_all(
    node: &NodeId,
    mut sinks: Vec<Sink>,
    alerts: &crossbeam_channel::Receiver<Shown>,
    omitted: &AtomicU64,
) {
    for shown in alerts {
        let left_out = omitted.swap(0, Ordering::Relaxed);
        sinks.retain_mut(|(format, out)| {
            let mut lines = String::new();
            if left_out > 0 && matches!(format, Format::Text { .. }) {
                lines = format!("({left_out} alerts not shown here: see `plimsoll alerts`)\n");
            }
            lines += &line(&shown, node, *format);
            lines.push('\n');
            // a sink whose reader has gone is left alone; alerts are in the journal all the same
            out.write_all(lines.as_bytes())
                .and_then(|()| out.flush())
                .is_ok()
        });
    }
}
