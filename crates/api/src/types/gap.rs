//! A recorded loss.

use super::{Context, time};
use plimsoll_model as model;
use serde::{Deserialize, Serialize};

/// What was not observed or not kept: where, when and how much.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Gap {
    /// Stage of the loss: `bulk_ring`, `agent_down`, `journal` …
    pub stage: String,
    /// `node` or `container`.
    pub scope: String,
    /// The container, when the scope is one.
    pub container_id: Option<String>,
    /// The instance, when the scope is a container.
    pub instance: Option<String>,
    /// Its name, where it is known.
    pub name: Option<String>,
    /// Start of the interval.
    pub from: String,
    /// End of the interval.
    pub to: String,
    /// How many events; `null` when that cannot be known.
    pub count: Option<u64>,
    /// What happened, for people.
    pub reason: String,
    /// The node.
    pub node: String,
    /// The record that says so.
    pub record: Option<String>,
}

impl Gap {
    /// The JSON form of a gap.
    pub fn new(gap: &model::Gap, context: Context<'_>) -> Self {
        let instance = match &gap.scope {
            model::GapScope::Node => None,
            model::GapScope::Container(instance) => Some(instance),
        };
        Self {
            stage: gap.stage.as_str().to_owned(),
            scope: if instance.is_some() {
                "container"
            } else {
                "node"
            }
            .to_owned(),
            container_id: instance.map(|i| i.id.to_string()),
            instance: instance.map(ToString::to_string),
            name: context.container.map(|c| c.name.clone()),
            from: time(gap.from),
            to: time(gap.to),
            count: gap.count,
            reason: gap.reason.clone(),
            node: context.node.to_owned(),
            record: context.record.map(ToString::to_string),
        }
    }
}
