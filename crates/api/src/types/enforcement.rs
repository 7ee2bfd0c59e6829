//! Enforcement: what is in force, how each container is held, what was prevented or would have been.

use super::time;
use crate::json::lossy;
use plimsoll_model as model;
use serde::{Deserialize, Serialize};

/// Enforcement on a node.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Enforcement {
    /// The policy file; `null`: there is none, nothing is enforced.
    pub policy: Option<String>,
    /// SHA-256 of the policy in force, hex.
    pub digest: String,
    /// Why the file as it is now is not in force; `null`: it is.
    pub problem: Option<String>,
    /// The switch for the whole node is off.
    pub switched_off: bool,
    /// By what each class is prevented on this kernel.
    pub means: Vec<Means>,
    /// Programs stopped at exec that wait for a decision.
    pub waiting: u64,
    /// Containers that a rule has a word about.
    pub containers: Vec<HeldContainer>,
}

/// How a class of acts is prevented.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Means {
    /// `programs`, `scripts`, `libraries`, `peers`.
    pub class: String,
    /// By what; `null`: it cannot be, on this kernel.
    pub mechanism: Option<String>,
    /// What it leaves open, or why there is none.
    pub leaves: String,
}

/// How a container is held.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct HeldContainer {
    /// Its name.
    pub container: String,
    /// Its id.
    pub container_id: String,
    /// Its image.
    pub image: String,
    /// The rule that has the word.
    pub rule: String,
    /// What the rule asks for: `observe`, `alert`, `enforce`.
    pub asked: String,
    /// What is done.
    pub mode: String,
    /// Why that is less; empty: it is not.
    pub why: String,
    /// Classes of the rule.
    pub classes: Vec<String>,
    /// Those of them that are prevented now.
    pub prevented: Vec<String>,
    /// Ports whose peers are known by name, where only alerts are possible (`tcp 443`).
    pub open_ports: Vec<String>,
}

/// What was prevented, or would have been, added up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct PreventedSum {
    /// The image.
    pub image: String,
    /// The container's role.
    pub role: String,
    /// `programs`, `scripts`, `libraries`, `peers`.
    pub class: String,
    /// `denied`, `killed`, `stopped and killed`, `stopped and continued`, `would be prevented`.
    pub outcome: String,
    /// Program, library or peer.
    pub object: String,
    /// The program that did it.
    pub by: String,
    /// The rule of the policy.
    pub rule: String,
    /// How often.
    pub count: u64,
    /// It may have been more often: the kernel counts repeats by itself.
    pub at_least: bool,
    /// In how many containers.
    pub containers: u64,
    /// First.
    pub first: String,
    /// Last.
    pub last: String,
}

impl PreventedSum {
    /// The sum that a record begins.
    pub fn new(p: &model::Prevention) -> Self {
        let script = match p.behaviour.script.is_empty() {
            true => String::new(),
            false => format!(" {}", lossy(&p.behaviour.script)),
        };
        Self {
            image: p.image.clone(),
            role: p.role.clone(),
            class: p.class.as_str().to_owned(),
            outcome: p.enforced.as_str().to_owned(),
            object: lossy(&p.object),
            by: lossy(&p.behaviour.program) + &script,
            rule: p.rule.clone(),
            count: p.count,
            at_least: p.at_least,
            containers: 1,
            first: time(p.first),
            last: time(p.last),
        }
    }

    /// Adds another record of the same.
    pub fn add(&mut self, p: &model::Prevention) {
        self.count = self.count.saturating_add(p.count);
        self.at_least |= p.at_least;
        let (first, last) = (time(p.first), time(p.last));
        self.first = std::cmp::min(std::mem::take(&mut self.first), first);
        self.last = std::cmp::max(std::mem::take(&mut self.last), last);
    }
}
