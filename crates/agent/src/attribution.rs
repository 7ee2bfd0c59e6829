//! The stage "attribute" as the pipeline sees it: one object-safe trait over
//! [`plimsoll_workload::Attributor`], so that the pipeline does not carry the kind of evidence in
//! its type, and tests can give it containers without a machine.

use plimsoll_model::{BootNs, ClockAnchor, Container, ContainerId, Event, Instance, Runtime};
use plimsoll_workload::{Attributor, Counters, Evidence, Facts, Out, Scan};

/// Events in, observations and news of containers out.
pub trait Attribute: Send {
    /// Takes over what was running when the agent started.
    fn seed(
        &mut self,
        scan: Scan,
        remembered: Vec<Container>,
        anchor: &ClockAnchor,
        now: BootNs,
    ) -> Vec<Out>;
    /// Attributes one event.
    fn attribute(&mut self, event: Event, anchor: &ClockAnchor, now: BootNs) -> Vec<Out>;
    /// A runtime said something about an instance.
    fn confirmed(&mut self, instance: &Instance, facts: &Facts) -> Vec<Out>;
    /// No runtime has told more about an instance than the disk does; `late`: it may tell yet.
    fn unanswered(&mut self, instance: &Instance, why: &str, late: bool) -> Vec<Out>;
    /// A container got another name.
    fn renamed(&mut self, id: &ContainerId, name: &str) -> Vec<Out>;
    /// What a runtime said of a container may be old.
    fn changed(&self, id: &ContainerId) -> Vec<Out>;
    /// A runtime answers again that had not for some time.
    fn answers_again(&self, runtime: Runtime) -> Vec<Out>;
    /// What runs in a container that was met late was looked at.
    fn met(&mut self, scan: Scan, anchor: &ClockAnchor, now: BootNs) -> Vec<Out>;
    /// Time passes.
    fn tick(&mut self, anchor: &ClockAnchor, now: BootNs) -> Vec<Out>;
    /// How full its tables are.
    fn counters(&self) -> Counters;
    /// Containers that are known although they are gone.
    fn gone(&self) -> Vec<Container>;
}

impl<E: Evidence + Send> Attribute for Attributor<E> {
    fn seed(
        &mut self,
        scan: Scan,
        remembered: Vec<Container>,
        anchor: &ClockAnchor,
        now: BootNs,
    ) -> Vec<Out> {
        Attributor::seed(self, scan, remembered, anchor, now)
    }
    fn attribute(&mut self, event: Event, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        Attributor::attribute(self, event, anchor, now)
    }
    fn confirmed(&mut self, instance: &Instance, facts: &Facts) -> Vec<Out> {
        Attributor::confirmed(self, instance, facts)
    }
    fn unanswered(&mut self, instance: &Instance, why: &str, late: bool) -> Vec<Out> {
        Attributor::unanswered(self, instance, why, late)
    }
    fn changed(&self, id: &ContainerId) -> Vec<Out> {
        Attributor::changed(self, id)
    }
    fn answers_again(&self, runtime: Runtime) -> Vec<Out> {
        Attributor::answers_again(self, runtime)
    }
    fn renamed(&mut self, id: &ContainerId, name: &str) -> Vec<Out> {
        Attributor::renamed(self, id, name)
    }
    fn met(&mut self, scan: Scan, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        Attributor::met(self, scan, anchor, now)
    }
    fn tick(&mut self, anchor: &ClockAnchor, now: BootNs) -> Vec<Out> {
        Attributor::tick(self, anchor, now)
    }
    fn counters(&self) -> Counters {
        Attributor::counters(self)
    }
    fn gone(&self) -> Vec<Container> {
        self.containers()
            .filter(|c| c.state == plimsoll_model::ContainerState::Gone)
            .cloned()
            .collect()
    }
}
