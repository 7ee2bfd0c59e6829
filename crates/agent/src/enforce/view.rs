//! Enforcement as a JSON type. Pure.

use super::Enforcement;
use super::desk::Standing;
use plimsoll_api as api;
use plimsoll_model::Container;
use std::sync::Arc;

/// What is enforced, and how each container is held.
pub fn enforcement(
    shared: &Enforcement,
    standings: &[(Arc<Container>, Standing)],
) -> api::types::Enforcement {
    let in_force = shared.in_force();
    let means = shared.means().iter().map(|m| api::types::Means {
        class: m.class.as_str().to_owned(),
        mechanism: m.mechanism.clone(),
        leaves: m.leaves.clone(),
    });
    let held = standings.iter().map(|(container, standing)| {
        let classes = standing.rule.classes.iter();
        let prevented = classes.clone().filter(|c| standing.prevents(**c, shared));
        api::types::HeldContainer {
            container: container.display_name().to_owned(),
            container_id: container.id().to_string(),
            image: container.image.name.clone(),
            rule: standing.rule.name.clone(),
            asked: standing.rule.mode.as_str().to_owned(),
            mode: standing.mode.as_str().to_owned(),
            why: standing.why.clone(),
            prevented: prevented.map(|c| c.as_str().to_owned()).collect(),
            classes: classes.map(|c| c.as_str().to_owned()).collect(),
            open_ports: standing.open_ports.clone(),
        }
    });
    api::types::Enforcement {
        policy: in_force.path.as_ref().map(|p| p.display().to_string()),
        digest: in_force.policy.digest.clone(),
        problem: shared.problem(),
        switched_off: shared.is_off(),
        means: means.collect(),
        waiting: shared.held().len() as u64,
        containers: held.collect(),
    }
}
