//! Rules as JSON types. Pure; the command uses the same when no agent runs.

use super::files::{Loaded, RuleSources};
use plimsoll_api as api;

/// Which rules are in force.
pub fn rule_set(loaded: Option<&Loaded>, sources: &RuleSources) -> api::RuleSetInfo {
    let path = |p: &std::path::PathBuf| p.to_string_lossy().into_owned();
    api::RuleSetInfo {
        id: loaded.map(|l| l.id.clone()).unwrap_or_default(),
        builtin: sources.builtin,
        paths: sources.paths.iter().map(path).collect(),
        problem: None,
    }
}

/// The rules of a set, those that are passed over behind the others; `from`: whose set it is.
pub fn rules<'a>(loaded: &'a Loaded, from: &'a str) -> impl Iterator<Item = api::Rule> + 'a {
    let judged = loaded.set.rules().iter().map(move |rule| api::Rule {
        rule: rule.name.clone(),
        description: rule.description.trim().to_owned(),
        priority: rule.priority.as_str().to_owned(),
        source: rule.source.as_str().to_owned(),
        techniques: rule.techniques().map(str::to_owned).collect(),
        tags: rule.tags.iter().cloned().collect(),
        state: rule.status.as_str().to_owned(),
        reasons: rule.status.reasons(),
        file: rule.position.name.clone(),
        line: rule.position.line,
        threshold: rule.threshold.and_then(|t| serde_json::to_value(t).ok()),
        from: from.to_owned(),
    });
    let over = loaded.set.passed_over().iter().map(move |rule| api::Rule {
        rule: rule.name.clone(),
        description: rule.description.trim().to_owned(),
        priority: rule.priority.as_str().to_owned(),
        source: rule.source.clone(),
        tags: rule.tags.iter().cloned().collect(),
        state: "inactive".to_owned(),
        reasons: vec![rule.why.clone()],
        file: rule.position.name.clone(),
        line: rule.position.line,
        from: from.to_owned(),
        ..api::Rule::default()
    });
    judged.chain(over)
}
