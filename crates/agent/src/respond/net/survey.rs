//! What a cut would reach and by which means, said before anything is done.
//!
//! Promises: reads `/proc` and asks the kernel, changes nothing; bounded, and remembered for
//! [`FRESH`], so that a storm of alerts does not make it dear.

use super::super::machine::Machine;
use super::super::place::{Place, is_below};
use super::{Found, Means, Neighbour, diag, rules, sockets_know_v2};
use plimsoll_model::{Container, Instance};
use plimsoll_workload::Layout;
use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// How long what was found is taken to hold.
const FRESH: Duration = Duration::from_secs(5);
/// Containers that are remembered.
const REMEMBERED_MAX: usize = 64;
/// Neighbours that are named.
const NAMED_MAX: usize = 8;

/// Says what isolation of a container would reach.
#[derive(Debug)]
pub struct Survey {
    machine: Machine,
    seen: Mutex<VecDeque<(Instance, Instant, Vec<String>)>>,
}

impl Survey {
    /// Of this machine.
    pub fn new(machine: Machine) -> Self {
        Self {
            machine,
            seen: Mutex::default(),
        }
    }

    /// How the container would be cut, and who else is in its network, in words; `others` are those
    /// that can be named.
    pub fn of(&self, container: &Container, others: &[&Container]) -> Vec<String> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.retain(|(_, at, _)| at.elapsed() < FRESH);
        if let Some((_, _, words)) = seen.iter().find(|(i, _, _)| *i == container.instance) {
            return words.clone();
        }
        let words = match Place::with(container, &self.machine.kernel) {
            Ok(place) => words(&Found::new(place, container), others),
            Err(why) => vec![format!("isolate: {why}")],
        };
        if seen.len() >= REMEMBERED_MAX {
            seen.pop_front();
        }
        seen.push_back((container.instance.clone(), Instant::now(), words.clone()));
        words
    }
}

fn words(found: &Found, others: &[&Container]) -> Vec<String> {
    if found.spaces.is_empty() {
        return vec!["isolate: no process of the container is left".to_owned()];
    }
    let who = named(&found.neighbours, others);
    let also = match found.cgroup {
        Some(_) => ", and by programs on its cgroup (v2)",
        None => "",
    };
    match found.means() {
        Means::None(why) => vec![format!("isolate: {why}")],
        Means::Programs(_) if found.in_hosts.is_some() => vec![
            "isolate: by programs on its cgroup (v2); it uses the host's network, where nobody else is cut".to_owned(),
        ],
        Means::Programs(_) => vec![format!(
            "isolate: by programs on its cgroup (v2); {who} share its network and are not cut"
        )],
        Means::Rules if who.is_empty() => vec![format!(
            "isolate: by rules of nf_tables in its network namespace{also}; nobody else is in it"
        )],
        Means::Rules => vec![format!(
            "isolate: by rules of nf_tables in the network namespace of its pod{also}; {who} share it and are cut off too"
        )],
    }
}

/// Names of containers, or of processes that are in none that is known.
fn named(neighbours: &[Neighbour], others: &[&Container]) -> String {
    let mut names: Vec<String> = Vec::new();
    for n in neighbours {
        let is = |c: &&&Container| {
            let root = c.cgroup_path.to_str_lossy();
            root.len() > 1 && is_below(&n.path, &root)
        };
        let name = match others.iter().find(is) {
            Some(c) => format!("{} ({})", c.display_name(), c.id().short()),
            None => format!("process {}", n.named()),
        };
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let more = names.len().saturating_sub(NAMED_MAX);
    names.truncate(NAMED_MAX);
    match more {
        0 => names.join(", "),
        n => format!("{} and {n} more", names.join(", ")),
    }
}

/// By which means this machine can cut a container off, each with what it is good for.
pub(crate) fn means() -> Vec<String> {
    let can = |is: bool, what: &str| is.then(|| what.to_owned());
    [
        can(
            rules::are_available(),
            "rules of nf_tables in the container's network namespace",
        ),
        can(
            diag::can_end(),
            "connections ended for both ends (SOCK_DESTROY)",
        ),
        can(
            has_v2() && sockets_know_v2(),
            "programs on the container's cgroup (v2), in shared networks and the host's too",
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn has_v2() -> bool {
    Layout::detect(Path::new("/proc")).is_ok_and(|l| l.has_v2())
}
