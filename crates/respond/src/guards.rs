//! What holds a step back, whatever the policy wants.
//!
//! Pure: the containers of this node, what was done lately and the time are handed in. Asked when
//! a plan is made (so that a person sees it) and again right before each step that interferes.
//! Left out: the switch for all automation, which is the order's.

use crate::values::glob;
use plimsoll_model::response::{StepClass, StepKind};
use plimsoll_model::{Container, ContainerId, Instance, WallNs};

/// The guards of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Guards {
    /// Patterns of names that are never touched.
    pub names: Vec<String>,
    /// Patterns of images that are never touched.
    pub images: Vec<String>,
    /// Labels, and patterns of their values, that protect.
    pub labels: Vec<(String, String)>,
    /// Containers that may be interfered with …
    pub at_most: u64,
    /// … within this time.
    pub window_ms: u64,
    /// Percentage of a service's containers that may be interfered with …
    pub percent: u64,
    /// … within this time.
    pub percent_window_ms: u64,
    /// Other containers of the service that have to be running untouched.
    pub min_healthy: u64,
    /// Plans that may act …
    pub rate: u64,
    /// … within this time.
    pub rate_window_ms: u64,
    /// When nothing interferes.
    pub windows: Vec<Window>,
    /// Containers that hold a runtime's socket may be acted upon.
    pub socket_holders: bool,
}

/// Programs that run containers.
const RUNTIMES: [&str; 10] = [
    "dockerd",
    "dockerd-entrypoint.sh",
    "containerd",
    "crio",
    "podman",
    "kubelet",
    "k3s",
    "rke2",
    "buildkitd",
    "kind",
];
/// Names of the sockets by which a runtime is told what to do.
const SOCKETS: [&str; 5] = [
    "docker.sock",
    "containerd.sock",
    "podman.sock",
    "crio.sock",
    "cri-dockerd.sock",
];

impl Default for Guards {
    fn default() -> Self {
        Self {
            names: Vec::new(),
            images: Vec::new(),
            labels: Vec::new(),
            at_most: 3,
            window_ms: 600_000,
            percent: 100,
            percent_window_ms: 600_000,
            min_healthy: 0,
            rate: 10,
            rate_window_ms: 3_600_000,
            windows: Vec::new(),
            socket_holders: false,
        }
    }
}

/// A maintenance window in UTC; `from` after `to` reaches into the next day.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Window {
    /// Monday first.
    pub days: [bool; 7],
    /// Minutes after midnight.
    pub from: u16,
    /// Minutes after midnight, excluded.
    pub to: u16,
}

impl Window {
    /// Whether the moment lies in it.
    pub fn holds(&self, at: WallNs) -> bool {
        let minutes = at.0.div_euclid(60_000_000_000);
        let day = minutes.div_euclid(1440);
        let minute = minutes.rem_euclid(1440) as u16;
        // 1970-01-01 was a Thursday
        let on = |day: i64| self.days[(day + 3).rem_euclid(7) as usize];
        if self.from <= self.to {
            return on(day) && (self.from..self.to).contains(&minute);
        }
        on(day) && minute >= self.from || on(day - 1) && minute < self.to
    }
}

/// Something that was done to a container lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Act {
    /// When it began.
    pub at: WallNs,
    /// To which container.
    pub instance: Instance,
    /// Of which service.
    pub service: Option<String>,
    /// By which plan.
    pub plan: String,
}

/// What the guards look at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Surroundings<'a> {
    /// Running containers of this node.
    pub running: &'a [&'a Container],
    /// What was begun lately: steps that interfere, oldest first.
    pub acts: &'a [Act],
    /// The container in which the agent itself runs, if it does.
    pub own: Option<&'a ContainerId>,
}

/// Whose plan asks, and about whom.
#[derive(Clone, Copy, Debug)]
pub struct Asking<'a> {
    /// The plan.
    pub plan: &'a str,
    /// The container.
    pub container: &'a Container,
}

impl Guards {
    /// Why the step must not be taken now; `None`: nothing speaks against it. `approved`: persons
    /// have approved this very step, who may override maintenance windows and nothing else.
    pub fn refuse(
        &self,
        asking: Asking<'_>,
        kind: StepKind,
        approved: bool,
        around: Surroundings<'_>,
        now: WallNs,
    ) -> Option<String> {
        let container = asking.container;
        if kind.class() < StepClass::Preserve {
            return None;
        }
        if !kind.interferes() {
            return None;
        }
        if around.own == Some(container.id()) {
            return Some("it is the agent's own container".to_owned());
        }
        self.runtime(container)
            .or_else(|| self.protected(container))
            .or_else(|| self.too_many(asking, around, now))
            .or_else(|| self.too_few_left(container, around))
            .or_else(|| {
                let window = self.windows.iter().any(|w| w.holds(now));
                (window && !approved).then(|| "it is a maintenance window".to_owned())
            })
    }

    /// Whether a container that nothing speaks against might be held back if more were known of who it is.
    pub(crate) fn might_hold(&self, c: &Container) -> bool {
        let name = !self.names.is_empty() && c.name.is_empty();
        let image =
            !self.images.is_empty() && (c.image.name.is_empty() || !c.unknown_because.is_empty());
        let label = self.labels.iter().any(|(k, _)| !c.labels.contains_key(k));
        let of_services = self.min_healthy > 0 || self.percent < 100;
        name || image || label || of_services && c.service.is_none()
    }

    /// A runtime in a container: what it runs would end with it. Its command alone is no proof, for
    /// an image names that; a runtime needs privileges, which only its operator gives.
    fn runtime(&self, c: &Container) -> Option<String> {
        let words = c.command.iter().take(3);
        let runs = |word: &&plimsoll_model::Text| {
            RUNTIMES
                .iter()
                .any(|r| word.basename().as_bytes() == r.as_bytes())
        };
        if let Some(runs) = words.filter(|_| c.privileged).find(runs) {
            return Some(format!("it runs containers itself ({})", runs.basename()));
        }
        let points = c.mount_points.iter().flatten();
        let paths = points.flat_map(|m| [m.source.as_str(), m.destination.as_str()]);
        let mut paths = paths.chain(c.mounts.iter().map(String::as_str));
        let is = |path: &&str| SOCKETS.iter().any(|s| path.rsplit('/').next() == Some(s));
        let held = paths.find(is).filter(|_| !self.socket_holders)?;
        Some(format!("it holds the runtime's socket ({held})"))
    }

    fn protected(&self, c: &Container) -> Option<String> {
        let mut names = self.names.iter();
        if let Some(p) = names.find(|p| glob(p, &c.name) || glob(p, c.id().as_str())) {
            return Some(format!("the name {p} is protected"));
        }
        if let Some(p) = self.images.iter().find(|p| glob(p, &c.image.name)) {
            return Some(format!("the image {p} is protected"));
        }
        let has = |(k, v): &&(String, String)| c.labels.get(k).is_some_and(|l| glob(v, l));
        let label = self.labels.iter().find(has);
        label.map(|(k, v)| format!("the label {k}={v} protects it"))
    }

    fn too_many(
        &self,
        asking: Asking<'_>,
        around: Surroundings<'_>,
        now: WallNs,
    ) -> Option<String> {
        let me = &asking.container.instance;
        let within = |ms: u64| {
            let since = now.0.saturating_sub((ms * 1_000_000) as i64);
            around.acts.iter().filter(move |a| a.at.0 >= since)
        };
        let others = |acts: &mut dyn Iterator<Item = &Act>| {
            let mut seen: Vec<&Instance> = Vec::new();
            for act in acts.filter(|a| a.instance != *me) {
                if !seen.contains(&&act.instance) {
                    seen.push(&act.instance);
                }
            }
            seen.len() as u64
        };
        let touched = others(&mut within(self.window_ms)) + 1;
        if touched > self.at_most {
            return Some(format!(
                "it would be container {touched} within {} s; at most {} are allowed",
                self.window_ms / 1000,
                self.at_most
            ));
        }
        let mut plans: Vec<&str> = within(self.rate_window_ms)
            .map(|a| a.plan.as_str())
            .collect();
        plans.sort_unstable();
        plans.dedup();
        if !plans.contains(&asking.plan) && plans.len() as u64 >= self.rate {
            return Some(format!(
                "{} plans have acted within {} s; at most {} may",
                plans.len(),
                self.rate_window_ms / 1000,
                self.rate
            ));
        }
        let service = asking.container.service.as_deref()?;
        let of = |s: &Option<String>| s.as_deref() == Some(service);
        let same = |c: &&&Container| of(&c.service);
        let total = (around.running.iter().filter(same).count() as u64).max(1);
        let mut acts = within(self.percent_window_ms).filter(|a| of(&a.service));
        let part = others(&mut acts) + 1;
        (part * 100 > total * self.percent).then(|| {
            format!(
                "it would be {part} of {total} containers of {service}; at most {} % are allowed",
                self.percent
            )
        })
    }

    fn too_few_left(&self, container: &Container, around: Surroundings<'_>) -> Option<String> {
        let service = container.service.as_deref()?;
        let touched = |c: &Container| around.acts.iter().any(|a| a.instance == c.instance);
        let healthy = around.running.iter().filter(|c| {
            c.service.as_deref() == Some(service) && c.instance != container.instance && !touched(c)
        });
        let healthy = healthy.count() as u64;
        (healthy < self.min_healthy).then(|| {
            format!(
                "{healthy} other containers of {service} would be left untouched; {} have to be",
                self.min_healthy
            )
        })
    }
}
