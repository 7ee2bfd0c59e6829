//! Our own rules on their scenarios: each fires on what it is about and stays quiet on what comes
//! near, and the coverage table in the docs is what they are. No root; the same on real containers is
//! `host/own_rules.rs`.

#[allow(dead_code, reason = "the host tests use the rest of it")]
#[path = "own/mod.rs"]
mod own;

use own::{Scenario, events, own_rules, scenarios};
use plimsoll_agent::rules::files::Loaded;
use plimsoll_baseline::attack::{CONTAINER_TECHNIQUES, technique_name};
use plimsoll_rules::{Counted, RuleId, RuleStatus, Scratch, Source, ThresholdCounts};
use serde_json::{Map, Value as Json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

/// Between two events of a burst.
const PACE_NS: u64 = 10_000_000;

/// What judging one entry of a scenario came to, for one rule.
#[derive(Debug, Default)]
struct Outcome {
    fired: bool,
    /// Some event has a kind that the rule is for.
    is_near: bool,
    /// The first condition that did not hold, where the rule is not true.
    why_not: String,
}

fn judged(loaded: &Loaded, rule: RuleId, entry: &Map<String, Json>) -> Outcome {
    let mut outcome = Outcome::default();
    let mut scratch = Scratch::default();
    let mut counts = ThresholdCounts::new(16);
    let kinds = loaded.set.kinds(rule);
    for (n, event) in events(entry).iter().enumerate() {
        outcome.is_near |= event.kinds().iter().any(|k| kinds.contains(*k));
        let matched = loaded.set.judge(Source::Syscall, event, &mut scratch);
        if !matched.contains(&rule) {
            let reason = loaded.set.reason(rule, event);
            outcome.why_not = reason.first_false.map_or(String::new(), |c| c.text);
            continue;
        }
        outcome.fired |= match loaded.set.rule(rule).threshold {
            None => true,
            Some(t) => {
                let value = t.value_of(event);
                let at = n as u64 * PACE_NS;
                counts.count(rule, t, b"one", &value, at) == Counted::Reached
            }
        };
    }
    outcome
}

#[test]
fn every_own_rule_fires_on_its_scenario_and_is_quiet_on_what_comes_near() {
    let loaded = own_rules();
    let mut wrong = Vec::new();
    for scenario in scenarios() {
        let name = &scenario.rule;
        let Some(rule) = loaded.set.find(name) else {
            wrong.push(format!("{name}: there is no such rule"));
            continue;
        };
        for entry in &scenario.fires {
            let outcome = judged(&loaded, rule, entry);
            if !outcome.fired {
                wrong.push(format!("{name} is quiet on {entry:?}: {}", outcome.why_not));
            }
        }
        for entry in &scenario.quiet {
            let outcome = judged(&loaded, rule, entry);
            if outcome.fired {
                wrong.push(format!("{name} fires on {entry:?}"));
            }
            if !outcome.is_near {
                wrong.push(format!("{name} is not for events such as {entry:?}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_own_rule_is_active_has_a_technique_and_both_halves_of_a_scenario() {
    let loaded = own_rules();
    let all = scenarios();
    let mut wrong = Vec::new();
    for rule in loaded.set.rules() {
        let name = &rule.name;
        if !matches!(rule.status, RuleStatus::Active | RuleStatus::Partial { .. }) {
            wrong.push(format!("{name} is off: {:?}", rule.status.reasons()));
        }
        if rule.techniques().next().is_none() {
            wrong.push(format!("{name} has no technique"));
        }
        let of_rule: Vec<&Scenario> = all.iter().filter(|s| s.rule == *name).collect();
        match of_rule[..] {
            [s] if !s.fires.is_empty() && !s.quiet.is_empty() => {}
            [_] => wrong.push(format!("{name}: its scenario lacks a half")),
            _ => wrong.push(format!("{name} has {} scenarios", of_rule.len())),
        }
        // somebody who was woken reads this: what it means, and what to do
        if rule.description.matches(['.', ';']).count() < 2 {
            wrong.push(format!("{name}: {:?} says too little", rule.description));
        }
        for field in ["%container.name", "%container.image.repository"] {
            if !rule.output.contains(field) {
                wrong.push(format!("{name}: the output lacks {field}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

// ---- the coverage table ----

/// Technique and why nothing at run time, or nothing of ours, sees it.
fn gaps() -> BTreeMap<String, String> {
    let file = own::rules_dir().join("scenarios/gaps.yaml");
    let text = std::fs::read_to_string(file).expect("rules/scenarios/gaps.yaml is there");
    serde_yaml_ng::from_str(&text).expect("techniques with reasons")
}

/// Rules by technique.
fn by_technique(loaded: &Loaded) -> BTreeMap<String, Vec<&str>> {
    let mut table: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for rule in loaded.set.rules() {
        for technique in rule.techniques() {
            let rules = table.entry(technique.to_owned()).or_default();
            rules.push(&rule.name);
        }
    }
    table
}

fn coverage() -> String {
    let loaded = own_rules();
    let table = by_technique(&loaded);
    let gaps = gaps();
    let mut out = String::from(HEAD);
    let covered = |id: &&(&str, &str)| table.contains_key(id.0);
    let count = CONTAINER_TECHNIQUES.iter().filter(covered).count();
    let rules = loaded.set.rules().len();
    let all = CONTAINER_TECHNIQUES.len();
    writeln!(
        out,
        "{rules} rules; {count} of the {all} techniques of ATT&CK for Containers.\n"
    )
    .unwrap();
    out.push_str("## ATT&CK for Containers\n\n| technique | name | rules |\n|---|---|---|\n");
    for (id, name) in CONTAINER_TECHNIQUES {
        let said = match (table.get(*id), gaps.get(*id)) {
            (Some(rules), _) => rules.join("; "),
            (None, Some(why)) => format!("*gap:* {why}"),
            (None, None) => "*gap*".to_owned(),
        };
        writeln!(out, "| {id} | {name} | {said} |").unwrap();
    }
    out.push_str("\n## Techniques outside that matrix\n\n| technique | rules |\n|---|---|\n");
    for (id, rules) in table.iter().filter(|(id, _)| technique_name(id).is_none()) {
        writeln!(out, "| {id} | {} |", rules.join("; ")).unwrap();
    }
    out.push_str("\n## Rules and what shows them\n");
    out.push_str("\n| rule | priority | techniques | scenario | fires on, in a container | stays quiet on |\n|---|---|---|---|---|---|\n");
    for s in scenarios() {
        let rule = loaded.set.find(&s.rule).map(|id| loaded.set.rule(id));
        let rule = rule.expect("the other tests check that it is there");
        let techniques: Vec<&str> = rule.techniques().collect();
        writeln!(
            out,
            "| {} | {} | {} | [{}](../rules/scenarios/{}.yaml): {} fire, {} quiet | {} | {} |",
            s.rule,
            rule.priority,
            techniques.join(" "),
            s.tactic,
            s.tactic,
            s.fires.len(),
            s.quiet.len(),
            in_cell(&s.act),
            in_cell(&s.near)
        )
        .unwrap();
    }
    out
}

/// A script in a cell of a table, its beginning.
fn in_cell(script: &str) -> String {
    const SHOWN: usize = 90;
    let line = script.trim().replace('\n', "; ");
    let cut = line.chars().count() > SHOWN;
    let mut text: String = line.chars().take(SHOWN).collect();
    if cut {
        text.push('…');
    }
    format!("`{}`", text.replace('|', "\\|").replace('`', "'"))
}

const HEAD: &str = "# What our own rules cover

Written by the test `the_coverage_table_is_current` out of `rules/`; do not edit. To write it anew:

```
PLIMSOLL_WRITE_DOCS=1 cargo test -p plimsoll-cli --test own_rules
```

Each rule is judged on the events of its scenario (`crates/cli/tests/own_rules.rs`), and performed by
real processes in real containers (`crates/cli/tests/host/own_rules.rs`, as root). Drift from baselines
sees more than these rules do, and is not in this table.

A rule beside a technique is one way in which it is seen, not every way. What these rules do not see:

- A tool known by its name and started under another one, from the image or a volume (from a directory for
  temporary data, shared memory, memory or the writable layer it is told by that).
- Commands typed into a shell that start no program: `curl … | sh` is read from the arguments of a shell.
- `LD_PRELOAD`: our rules ask for no environment, which would have every exec's read (one of yours may: `proc.env[LD_PRELOAD]`);
  the library is told when it lies in a directory for temporary data.
- The type and source of what is mounted through the newer calls (`fsopen`, `move_mount`): told as a mount.
- Encryption that writes new files and removes the old ones: from outside it is ordinary work. Many files with
  another ending are told.
- What is asked of a name server over TLS or HTTPS. Over UDP and TCP, many lookups and many names with long unreadable
  parts are told; a few, or names of short parts, are in the events.
- Floods of requests or of processes inside a container.

";

#[test]
fn the_coverage_table_is_current() {
    let file = own::rules_dir().join("../docs/rules-coverage.md");
    let made = coverage();
    if std::env::var("PLIMSOLL_WRITE_DOCS").is_ok_and(|v| v == "1") {
        std::fs::write(&file, &made).expect("write the table");
    }
    let there = std::fs::read_to_string(&file).unwrap_or_default();
    assert!(
        there == made,
        "docs/rules-coverage.md is not what the rules are: PLIMSOLL_WRITE_DOCS=1 cargo test -p plimsoll-cli --test own_rules"
    );
}

#[test]
fn every_technique_for_containers_has_a_rule_or_a_gap_with_its_reason() {
    let loaded = own_rules();
    let table = by_technique(&loaded);
    let gaps = gaps();
    let ids: BTreeSet<&str> = CONTAINER_TECHNIQUES.iter().map(|(id, _)| *id).collect();
    for id in &ids {
        let (rules, gap) = (table.contains_key(*id), gaps.contains_key(*id));
        assert!(rules || gap, "{id} has neither rule nor reason");
        assert!(!(rules && gap), "{id} has rules: it is no gap");
    }
    for (id, why) in &gaps {
        assert!(ids.contains(id.as_str()), "{id} is not in the matrix");
        assert!(why.len() > 20, "{id}: {why:?} is no reason");
    }
}
