//! Secrets that a real container was given never reach the disk or a reader.

use crate::{Agent, alone, docker_socket};
use std::path::Path;

const SECRET: &str = "hunter2-never-stored-Zq8";

/// Files below a directory that hold the bytes.
fn holding(dir: &Path, bytes: &[u8], found: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            holding(&path, bytes, found);
        } else if let Ok(content) = std::fs::read(&path)
            && content.windows(bytes.len()).any(|w| w == bytes)
        {
            found.push(path.display().to_string());
        }
    }
}

#[test]
fn a_secret_in_arguments_is_masked_everywhere_and_equal_ones_stay_equal() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let work = format!(
        "ls --password={SECRET} /; ls -d postgres://me:{SECRET}@db/shop /; cat /etc/shadow"
    );
    let label = format!("SHOP_TOKEN={SECRET}");
    let mut run = vec!["run", "--name", "host-secret", "--label", &label];
    run.extend(["plimsoll-test/debian:1", "sh", "-c", &work]);
    let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| agent.docker(&run)));
    agent.docker(&["rm", "-f", "host-secret"]);
    agent.wait_until("the last act is alerted", || {
        let all = agent.alerts("host-secret");
        all.iter().any(|a| a.to_string().contains("/etc/shadow"))
    });
    let execs = agent
        .plimsoll(&["events", "--kind", "exec", "--container", "host-secret"])
        .unwrap_or_default();
    let with = |rule: &str| {
        let mask = format!("[redacted:{rule}:");
        let named = |e: &&serde_json::Value| e["redacted"].to_string().contains(rule);
        let text = execs.iter().filter(named).map(|e| e["detail"].to_string());
        let text = text.filter(|t| t.contains(&mask)).collect::<String>();
        let at = text.find(&mask).unwrap_or_else(|| panic!("no {rule}"));
        text[at + mask.len()..][..12].to_owned()
    };
    assert_eq!(with("assignment"), with("url-password"), "the same secret");
    let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
    let mine = all.iter().find(|c| c["name"] == "host-secret");
    let mine = mine.expect("its record").to_string();
    assert!(
        mine.contains("[redacted:") && !mine.contains(SECRET),
        "{mine}"
    );
    let mut found = Vec::new();
    holding(agent.dir.path(), SECRET.as_bytes(), &mut found);
    assert!(found.is_empty(), "stored in {found:?}");
}
