//! The one boundary between deciding and acting: an [`Action`] goes in, a [`StepOutcome`] comes out.
//!
//! Promises: nothing is left to decide here; policy, command line and resumption all act through
//! [`perform`], so that every effect is begun and ended in the journal by the same caller (the
//! engine). A step that this build or this machine cannot do says so as its outcome and is never
//! reported as done. Left out: order, guards and approvals (`plimsoll_respond`).

use super::block::{self, Wanted};
use super::capture::{self, Keep};
use super::docker::{self, Is, Known};
pub use super::machine::{KernelWord, Machine, Target};
use super::place::Place;
use super::{freeze, kill, net};
use plimsoll_model::response::{Step, StepKind, StepOutcome};
use std::net::IpAddr;
use std::time::Duration;

/// One effect on one container or on the node.
#[derive(Clone, Debug, PartialEq)]
pub enum Action {
    /// Fast sweep of `/proc`.
    Snapshot,
    /// Full capture, sealed.
    Capture {
        /// Cheap and perishable things first, and no longer than this.
        deadline: Duration,
        /// Memory of the suspect processes too.
        memory: bool,
    },
    /// Memory of suspect processes, sealed.
    Memory {
        /// Of every process.
        all: bool,
    },
    /// Stops all processes; a watchdog outside the agent thaws them after `budget`.
    Freeze {
        /// At most this long.
        budget: Duration,
    },
    /// Lets them go on.
    Thaw,
    /// Cuts the network, but for these addresses.
    Isolate {
        /// Addresses (with prefix length) that stay reachable.
        allow: Vec<(IpAddr, u8)>,
    },
    /// Stops all processes until it is undone.
    Pause,
    /// Kills the process that gave cause, and its descendants.
    KillTree,
    /// Forbids a program.
    BlockProgram(Wanted),
    /// Forbids an address on this node.
    BlockAddress {
        /// Addresses and prefix lengths.
        addresses: Vec<(IpAddr, u8)>,
    },
    /// Stops the container.
    Stop {
        /// Between SIGTERM and SIGKILL.
        grace: Duration,
    },
    /// Removes the container.
    Remove,
    /// An effect of an orchestrator that has no effector here.
    Elsewhere(StepKind),
    /// Takes a step back.
    Undo {
        /// Which.
        kind: StepKind,
        /// What its outcome said is needed for that, and its parameters.
        notes: Vec<(String, String)>,
    },
    /// Looks whether a step that was interrupted had its effect; changes nothing.
    Look {
        /// Which.
        kind: StepKind,
        /// Its parameters.
        notes: Vec<(String, String)>,
    },
}

/// How long a program is forbidden unless the policy says otherwise, milliseconds.
const BLOCK_MS: u64 = 86_400_000;

/// The action of a planned step; its parameters were checked when the policy was loaded.
pub fn action_of(step: &Step) -> Action {
    let get = |key: &str| {
        let found = step.parameters.iter().find(|(k, _)| k == key);
        found.map(|(_, v)| v.as_str())
    };
    let millis = |key: &str, default: u64| {
        let ms = get(key).and_then(plimsoll_respond::parse_ms);
        Duration::from_millis(ms.unwrap_or(default))
    };
    let prefixes = |key: &str| prefixes(get(key).unwrap_or_default());
    match step.kind {
        StepKind::Snapshot => Action::Snapshot,
        StepKind::Capture => Action::Capture {
            deadline: millis("deadline", 60_000),
            memory: get("memory") == Some("true"),
        },
        StepKind::Memory => Action::Memory {
            all: get("all") == Some("true"),
        },
        StepKind::Freeze => Action::Freeze {
            budget: millis("budget", 10_000),
        },
        StepKind::Thaw => Action::Thaw,
        StepKind::Isolate => Action::Isolate {
            allow: prefixes("allow"),
        },
        StepKind::Pause => Action::Pause,
        StepKind::KillTree => Action::KillTree,
        StepKind::BlockProgram => Action::BlockProgram(program(&step.parameters)),
        StepKind::BlockAddress => Action::BlockAddress {
            addresses: prefixes("address"),
        },
        StepKind::Stop => Action::Stop {
            grace: millis("grace", 10_000),
        },
        StepKind::Remove => Action::Remove,
        kind @ (StepKind::Notify
        | StepKind::QuarantineLabel
        | StepKind::DenyPolicy
        | StepKind::Cordon
        | StepKind::Scale
        | StepKind::Rotate) => Action::Elsewhere(kind),
    }
}

fn prefixes(list: &str) -> Vec<(IpAddr, u8)> {
    list.split(',')
        .filter_map(|a| plimsoll_respond::parse_prefix(a.trim()))
        .collect()
}

/// Which program a step is about.
fn program(parameters: &[(String, String)]) -> Wanted {
    let get = |key: &str| {
        let found = parameters.iter().find(|(k, _)| k == key);
        found.map(|(_, v)| v.as_str())
    };
    let lasts = get("for").and_then(plimsoll_respond::parse_ms);
    Wanted {
        path: get("path").map(str::to_owned),
        node: get("scope") == Some("node"),
        lasts: Duration::from_millis(lasts.unwrap_or(BLOCK_MS)),
    }
}

/// Acts, and looks whether that had its effect. May take as long as its action says.
pub fn perform(machine: &Machine, target: &Target, action: &Action) -> StepOutcome {
    if interferes(action) && is_own(machine, target) {
        // guards ask for the id; this asks the kernel
        let why = "it is the agent's own container".to_owned();
        return StepOutcome::Refused { why };
    }
    match action {
        Action::Pause => {
            let paused = through_runtime(machine, target, Known::pause);
            if paused.is_done() {
                // else the end of the budget would let go what is now stopped until it is undone
                freeze::hand_over(machine, target.container.id());
            }
            paused
        }
        Action::Stop { grace } => {
            // what stands still can neither end itself nor (v1) be ended
            let_go(machine, target);
            through_runtime(machine, target, |k| k.stop(*grace))
        }
        Action::Remove => {
            if freeze::holds(machine, &target.container) == Some(true) {
                // queued first: nothing of it runs again
                kill::queue_all(machine, target);
                let_go(machine, target);
            }
            through_runtime(machine, target, Known::remove)
        }
        Action::KillTree => kill::kill_tree(machine, target),
        Action::Undo {
            kind: StepKind::Pause,
            ..
        } => through_runtime(machine, target, Known::unpause),
        Action::Look { kind, notes } => look(machine, target, *kind, notes),
        Action::Elsewhere(kind) => unavailable(format!(
            "{} is not available here: it needs an orchestrator's effector",
            kind.as_str()
        )),
        Action::Snapshot => capture::capture(machine, target, Keep::Sweep, Duration::from_secs(10)),
        Action::Capture { deadline, memory } => {
            let keep = Keep::Full { memory: *memory };
            capture::capture(machine, target, keep, *deadline)
        }
        Action::Memory { all } => {
            let keep = Keep::Memory { all: *all };
            capture::capture(machine, target, keep, Duration::from_secs(300))
        }
        Action::Freeze { budget } => freeze::freeze(machine, target, *budget),
        Action::Thaw
        | Action::Undo {
            kind: StepKind::Freeze,
            ..
        } => freeze::thaw(machine, target),
        Action::Isolate { allow } => net::isolate(machine, target, allow),
        Action::Undo {
            kind: StepKind::Isolate,
            ..
        } => net::restore(machine, target),
        Action::BlockAddress { addresses } => net::block(machine, target, addresses),
        Action::Undo {
            kind: StepKind::BlockAddress,
            notes,
        } => net::unblock(machine, target, &blocked(notes)),
        Action::BlockProgram(wanted) => block::block(machine, target, wanted),
        Action::Undo {
            kind: StepKind::BlockProgram,
            notes,
        } => block::unblock(machine, target, &program(notes)),
        Action::Undo { kind, .. } => unavailable(format!("{} cannot be taken back", kind.as_str())),
    }
}

/// Ends a freeze of ours that is still under way.
fn let_go(machine: &Machine, target: &Target) {
    if freeze::holds(machine, &target.container) == Some(true) {
        // a failure shows in what follows
        let _ = freeze::thaw(machine, target);
    }
}

/// What the container notices, and what is not taking something back.
fn interferes(action: &Action) -> bool {
    matches!(
        action,
        Action::Freeze { .. }
            | Action::Isolate { .. }
            | Action::Pause
            | Action::KillTree
            | Action::BlockProgram(_)
            | Action::Stop { .. }
            | Action::Remove
    )
}

/// Whether this process runs in the container.
fn is_own(machine: &Machine, target: &Target) -> bool {
    Place::with(&target.container, &machine.kernel)
        .is_ok_and(|place| place.owns(std::process::id()))
}

/// The addresses of a step that is looked at or taken back.
fn blocked(notes: &[(String, String)]) -> Vec<(IpAddr, u8)> {
    let list = notes.iter().find(|(k, _)| k == "address");
    list.map(|(_, v)| prefixes(v)).unwrap_or_default()
}

fn unavailable(why: String) -> StepOutcome {
    StepOutcome::Unavailable { why }
}

fn through_runtime(
    machine: &Machine,
    target: &Target,
    act: impl FnOnce(&Known) -> StepOutcome,
) -> StepOutcome {
    match docker::find(&machine.docker_sockets, target.container.id()) {
        Some(known) => act(&known),
        None => unavailable(
            "no socket of Docker or Podman knows the container (runtimes.docker_sockets)"
                .to_owned(),
        ),
    }
}

/// Whether a step that was interrupted holds: done or failed; unavailable: that cannot be told.
fn look(
    machine: &Machine,
    target: &Target,
    kind: StepKind,
    notes: &[(String, String)],
) -> StepOutcome {
    let cannot_tell = || found(None);
    let holds = match kind {
        StepKind::KillTree => return cannot_tell(),
        StepKind::Pause => Is::Paused,
        StepKind::Stop => Is::Stopped,
        StepKind::Remove => Is::Unknown,
        StepKind::Freeze => return found(freeze::holds(machine, &target.container)),
        StepKind::Thaw => return found(freeze::holds(machine, &target.container).map(|h| !h)),
        StepKind::Isolate => return found(net::holds(machine, target)),
        StepKind::BlockProgram => {
            return found(block::holds(machine, target, &program(notes)));
        }
        StepKind::BlockAddress => return found(net::blocks(machine, target, &blocked(notes))),
        _ => return cannot_tell(),
    };
    let is = match docker::find(&machine.docker_sockets, target.container.id()) {
        Some(known) => known.look(),
        // nobody knows it: removed, or its daemon is down
        None => return cannot_tell(),
    };
    found(is.ok().map(|is| is == holds))
}

/// What a look has found: done, failed, or (`None`) that it cannot be told.
fn found(holds: Option<bool>) -> StepOutcome {
    match holds {
        Some(true) => StepOutcome::Done {
            effect: "it holds".to_owned(),
            sealed: None,
            undo: Vec::new(),
        },
        Some(false) => StepOutcome::Failed {
            why: "it does not hold".to_owned(),
        },
        None => unavailable("whether it holds cannot be told".to_owned()),
    }
}
