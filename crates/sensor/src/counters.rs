//! What the programs count: events, hits, losses by stage and container, memory and run time.

use crate::api::KernelCounters;
use crate::control::Control;
use crate::maps::{copy_into, map_bytes, word};
use crate::programs::program_info;
use crate::skel::types;
use libbpf_rs::{MapCore, MapFlags, MapHandle};
use plimsoll_model::Stage;

pub(crate) const STAGES: [Stage; 5] = [
    Stage::BulkRing,
    Stage::AlertRing,
    Stage::Recursion,
    Stage::Scratch,
    Stage::KernelMap,
];

#[derive(Default, Clone, Copy)]
pub(crate) struct CpuTotals {
    emitted: [u64; 2],
    pub(crate) lost: [u64; 5],
    l1_hits: u64,
    l2_hits: u64,
    /// Of one processor.
    pub(crate) dense_used_most: u64,
}

/// Sums over processors.
pub(crate) fn cpu_totals(map: &MapHandle) -> CpuTotals {
    let mut total = CpuTotals::default();
    let Ok(Some(cpus)) = map.lookup_percpu(&0u32.to_ne_bytes(), MapFlags::ANY) else {
        return total;
    };
    for cpu in cpus {
        // struct cpu_state: seq[2], emitted[2], lost[5], l1_hits, l2_hits, dense_used
        for i in 0..2 {
            total.emitted[i] += word(&cpu, 16 + 8 * i);
        }
        for i in 0..5 {
            total.lost[i] += word(&cpu, 32 + 8 * i);
        }
        total.l1_hits += word(&cpu, 72);
        total.l2_hits += word(&cpu, 80);
        total.dense_used_most = total.dense_used_most.max(word(&cpu, 88));
    }
    total
}

/// Losses so far of containers that have any.
pub(crate) fn container_losses(containers: &MapHandle) -> Vec<(u64, [u64; 5])> {
    let mut out = Vec::new();
    for key in containers.keys() {
        let Ok(Some(bytes)) = containers.lookup(&key, MapFlags::ANY) else {
            continue;
        };
        let mut c = types::container::default();
        copy_into(&mut c, &bytes);
        if c.lost.iter().any(|n| *n > 0) {
            out.push((word(&key, 0), c.lost));
        }
    }
    out
}

impl Control {
    pub(crate) fn cpu_totals(&self) -> CpuTotals {
        cpu_totals(&self.maps.cpu_states)
    }

    /// Losses of one container (or one that ends) so far, by stage.
    pub(crate) fn losses_of(&self, cgroup_id: u64) -> [u64; 5] {
        let mut c = types::container::default();
        let found = self
            .maps
            .containers
            .lookup(&cgroup_id.to_ne_bytes(), MapFlags::ANY);
        if let Ok(Some(bytes)) = found {
            copy_into(&mut c, &bytes);
        }
        c.lost
    }

    /// Counters since loading.
    pub fn counters(&self) -> KernelCounters {
        let cpu = self.cpu_totals();
        KernelCounters {
            emitted: cpu.emitted,
            l1_hits: cpu.l1_hits,
            l2_hits: cpu.l2_hits,
            lost: cpu.lost.iter().sum(),
            containers: self.maps.containers.keys().count() as u64,
            processes: self.maps.processes.keys().count() as u64,
            run_time_ns: self
                .maps
                .programs
                .iter()
                .map(|p| program_info(p).map_or(0, |i| i.run_time_ns))
                .sum(),
            map_bytes: self.maps.all.iter().map(|id| map_bytes(*id)).sum(),
        }
    }
}
