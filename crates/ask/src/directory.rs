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

    /// The instance whose interface had this address at that time.
    pub(crate) fn at_address(&self, address: &str, at: WallNs) -> Option<&Known> {
        self.known.values().find(|k| {
            let c = &k.container;
            c.addresses.iter().any(|a| a == address) && lived_at(c, at)
        })
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
