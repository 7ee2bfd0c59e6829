//! Every way of writing rules on real events: one container does what `tests/host/forms/act.sh` says, and
//! of the rules beside it those named "yes …" fire, those named "no …" do not.

use crate::own_rules::CALLS;
use crate::rules::{fired_in, until_over, with_rules};
use crate::{alone, stage};
use std::collections::BTreeSet;

fn read(name: &str) -> String {
    let path = format!("{}/../forms/{name}", stage::env("PLIMSOLL_TEST_LIB"));
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{path}: {e}"))
}

#[test]
fn rules_of_every_form_fire_as_falco_documents_them() {
    let _one = alone();
    if crate::docker_socket().is_none() {
        return;
    }
    let rules = read("rules.yaml");
    let Some(agent) = with_rules(&rules) else {
        return;
    };
    let mut act = read("act.sh");
    for (call, number) in CALLS {
        act = act.replace(&format!("@{call}@"), &number.to_string());
    }
    let file = agent.dir.path().join("act.sh");
    std::fs::write(&file, act).expect("write the script");
    let mount = format!("{}:/act.sh:ro", file.display());
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "forms",
        "--label",
        "form=of.it",
        "-v",
        &mount,
        "plimsoll-test/debian:1",
        "bash",
        "/act.sh",
    ]);
    until_over(&agent, "forms");
    let items: serde_yaml_ng::Value = serde_yaml_ng::from_str(&rules).expect("YAML");
    let items = items.as_sequence().expect("items").iter();
    let all: BTreeSet<&str> = items.filter_map(|i| i["rule"].as_str()).collect();
    let fired = fired_in(&agent, "forms");
    let should = |rule: &str| rule.starts_with("yes ");
    assert!(all.iter().all(|r| should(r) || r.starts_with("no ")));
    let wrong: Vec<&&str> = all
        .iter()
        .filter(|r| should(r) != fired.contains(**r))
        .collect();
    let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
    assert!(
        wrong.is_empty(),
        "of {} rules not as they are named: {wrong:#?}\nnot observed meanwhile: {gaps:?}",
        all.len()
    );
}
