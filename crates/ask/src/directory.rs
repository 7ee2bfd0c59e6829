//! Which containers the records know: the last word on each instance.

use crate::records::{Body, Filter, Records, RecordsError};
use plimsoll_model::names::Table;
use plimsoll_model::{Container, Instance, Record, RecordId, RecordKind, WallNs};
use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;

/// Instances kept in memory; beyond it the oldest starts go first.
const INSTANCES_MAX: usize = 100_000;

/// What is known of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Known {
    pub(crate) container: Container,
    /// The first record about it and the one that says the latest.
    pub(crate) evidence: Vec<RecordId>,
}

/// All instances that the records know.
#[derive(Debug, Default)]
pub(crate) struct Directory {
    known: BTreeMap<Instance, Known>,
    /// Instances that did not fit.
    pub(crate) dropped: u64,
    /// Records about containers that were read.
    pub(crate) read: u64,
    /// Whose numbers of system calls the records hold, by the last start that says so.
    machine: Option<Table>,
}

impl Directory {
    pub(crate) fn read(records: &dyn Records) -> Result<Self, RecordsError> {
        let mut directory = Self::default();
        let kinds = [RecordKind::Container, RecordKind::Lifecycle];
        records.visit(&Filter::of(&kinds), &mut |seen| match seen.body {
            Body::Record(Record::Lifecycle(l)) => {
                let machine = l.details.iter().find(|(key, _)| key == "machine");
                let table = machine.and_then(|(_, m)| Table::of_machine(m));
                directory.machine = table.or(directory.machine);
            }
            Body::Record(Record::Container(container)) => {
                directory.read += 1;
                directory.learn(seen.id, container);
            }
            _ => directory.read += 1,
        })?;
        Ok(directory)
    }

    /// The table that gives system calls their names; this machine's where no record says.
    pub(crate) fn calls(&self) -> Table {
        self.machine.unwrap_or(Table::NATIVE)
    }

    fn learn(&mut self, id: RecordId, container: Container) {
        if let Some(known) = self.known.get_mut(&container.instance) {
            known.container = container;
            known.evidence.truncate(1);
            known.evidence.push(id);
            return;
        }
        if self.known.len() >= INSTANCES_MAX {
            let oldest = self
                .known
                .values()
                .min_by_key(|k| k.container.first_seen.wall);
            if let Some(instance) = oldest.map(|k| k.container.instance.clone()) {
                self.known.remove(&instance);
                self.dropped += 1;
            }
        }
        self.known.insert(
            container.instance.clone(),
            Known {
                container,
                evidence: vec![id],
            },
        );
    }

    pub(crate) fn get(&self, instance: &Instance) -> Option<&Known> {
        self.known.get(instance)
    }

    /// Every instance, the latest start first.
    pub(crate) fn latest_first(&self) -> Vec<&Known> {
        let mut all: Vec<&Known> = self.known.values().collect();
        all.sort_by_key(|k| std::cmp::Reverse(k.container.first_seen.wall));
        all
    }

    /// What people call an instance, with its short id.
    pub(crate) fn name(&self, instance: &Instance) -> String {
        match self.get(instance) {
            Some(known) if !known.container.name.is_empty() => {
                format!("{} ({})", known.container.name, instance.id.short())
            }
            _ => format!("container {}", instance.id.short()),
        }
    }

    /// Instances by the addresses of their interfaces.
    pub(crate) fn by_address(&self) -> HashMap<IpAddr, Vec<&Known>> {
        let mut by: HashMap<IpAddr, Vec<&Known>> = HashMap::new();
        for known in self.known.values() {
            for address in known
                .container
                .addresses
                .iter()
                .filter_map(|a| a.parse().ok())
            {
                by.entry(address).or_default().push(known);
            }
        }
        by
    }

    /// The instances whose interfaces had this address at that time, as seen by one of them: networks
    /// of several runtimes may use the same addresses.
    pub(crate) fn at_address(
        &self,
        address: &str,
        at: WallNs,
        by: Option<&Container>,
    ) -> Vec<&Known> {
        let had = |c: &Container| c.addresses.iter().any(|a| a == address) && lived_at(c, at);
        nearest(self.known.values().filter(|k| had(&k.container)), by)
    }

    /// The instance of the same workload (same name, or same role and repository) that started
    /// last before this one.
    pub(crate) fn previous(&self, of: &Container) -> Option<&Known> {
        let same_name =
            |c: &Container| !c.name.is_empty() && c.name == of.name && c.namespace == of.namespace;
        let same_role = |c: &Container| {
            !c.role.is_empty()
                && c.role == of.role
                && c.image.repository.is_some()
                && c.image.repository == of.image.repository
        };
        self.known
            .values()
            .filter(|k| k.container.instance != of.instance)
            .filter(|k| k.container.first_seen.wall < of.first_seen.wall)
            .filter(|k| same_name(&k.container) || same_role(&k.container))
            .max_by_key(|k| k.container.first_seen.wall)
    }
}

/// Of several containers with one address those that belong to the same project or namespace, where
/// there are some; else all of them.
pub(crate) fn nearest<'k>(
    candidates: impl Iterator<Item = &'k Known>,
    by: Option<&Container>,
) -> Vec<&'k Known> {
    const PROJECTS: [&str; 2] = ["com.docker.compose.project", "com.docker.stack.namespace"];
    let all: Vec<&Known> = candidates.collect();
    let Some(by) = by.filter(|_| all.len() > 1) else {
        return all;
    };
    let belongs = |c: &Container| {
        let label = |name: &str| {
            by.labels
                .get(name)
                .is_some_and(|l| c.labels.get(name) == Some(l))
        };
        PROJECTS.iter().any(|name| label(name))
            || by.namespace.is_some() && by.namespace == c.namespace
    };
    let near: Vec<&Known> = all
        .iter()
        .copied()
        .filter(|k| belongs(&k.container))
        .collect();
    if near.is_empty() { all } else { near }
}

/// Whether a container is known to have been there at that time.
pub(crate) fn lived_at(c: &Container, at: WallNs) -> bool {
    c.first_seen.wall <= at && c.gone.is_none_or(|gone| gone.wall >= at)
}

/// Whether two instances belong to the same workload: same image configuration and role.
pub(crate) fn same_workload(a: &Container, b: &Container) -> bool {
    a.image.config_digest.is_some()
        && a.image.config_digest == b.image.config_digest
        && a.role == b.role
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::{BootNs, ContainerId, Runtime, Stamp};

    fn container(n: u64, project: &str) -> Container {
        let id = ContainerId::parse(&format!("{n:064x}")).expect("an id");
        let start = BootNs(n);
        let mut c = Container::new(Instance { id, start }, Runtime::Docker, Stamp::default());
        c.addresses = vec!["172.18.0.2".to_owned()];
        let label = "com.docker.compose.project".to_owned();
        c.labels.insert(label, project.to_owned());
        c
    }

    #[test]
    fn of_two_containers_with_one_address_the_one_of_the_same_project_is_meant() {
        let known = [container(1, "ledger"), container(2, "shop")].map(|container| Known {
            container,
            evidence: vec![],
        });
        let meant = |by: &Container| -> Vec<u64> {
            let found = nearest(known.iter(), Some(by));
            let start = |k: &&Known| k.container.instance.start.0;
            found.iter().map(start).collect()
        };
        assert_eq!(meant(&container(3, "shop")), [2]);
        // nothing tells them apart: both are named
        assert_eq!(meant(&container(3, "other")), [1, 2]);
    }
}
