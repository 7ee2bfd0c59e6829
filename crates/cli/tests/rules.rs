//! `plimsoll rules`: what people and scripts get from it. No root, no agent.

#[allow(dead_code, reason = "the host tests use the rest of it")]
#[path = "public/mod.rs"]
mod public_acts;

use serde_json::Value;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

const RULES: &str = r#"
- list: secrets
  items: [/srv/key]
- macro: reads
  condition: (evt.type in (open, openat, openat2) and evt.is_open_read = true)
- rule: Key read
  desc: the key is read
  condition: reads and fd.name in (secrets) and not proc.name = keeper
  output: key read by %proc.name
  priority: WARNING
  tags: [T1552.001]
- rule: Needs what is not collected
  desc: d
  condition: evt.type = execve and proc.aenv contains SECRET
  output: o
  priority: NOTICE
- rule: Off
  desc: d
  condition: evt.type = execve and proc.name = x
  output: o
  priority: DEBUG
  enabled: false
- rule: Exec into a pod
  desc: d
  condition: ka.target.subresource = exec and ka.uri.param[command] = sh
  output: shell in %ka.target.name by %ka.user.name
  priority: NOTICE
  source: k8s_audit
"#;

struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        let place = Self(tempfile::tempdir().unwrap());
        // what this machine has in /etc is no part of a test
        let config = format!(
            "version: 1\nrules:\n  builtin: false\n  paths: [{}]\n",
            place.file("rules.yaml", RULES).display()
        );
        place.file("config.yaml", &config);
        place
    }
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn file(&self, name: &str, text: &str) -> PathBuf {
        let path = self.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }
    fn command(&self, args: &[&str]) -> Command {
        let mut c = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
        c.current_dir(self.path())
            .args(["--config", "config.yaml", "--data-dir", "data"])
            .args(["--socket", "/nonexistent/agent.sock"])
            .args(args)
            .stdin(Stdio::null());
        c
    }
    fn run(&self, args: &[&str]) -> (i32, String, String) {
        told(self.command(args).output().unwrap())
    }
    fn json(&self, args: &[&str]) -> Vec<Value> {
        let (_, out, _) = self.run(&[&["--json"], args].concat());
        out.lines()
            .map(|l| serde_json::from_str(l).unwrap())
            .collect()
    }
}

fn told(out: Output) -> (i32, String, String) {
    (
        out.status.code().unwrap(),
        String::from_utf8_lossy(&out.stdout).into_owned(),
        String::from_utf8_lossy(&out.stderr).into_owned(),
    )
}

/// Files with one slip each: where `rules check` points, and what it says.
#[test]
fn check_says_what_was_expected_and_what_was_probably_meant() {
    let place = Place::new();
    let rule = |condition: &str| {
        format!(
            "- macro: spawned\n  condition: evt.type = execve\n- rule: r\n  desc: d\n  condition: {condition}\n  output: o\n  priority: INFO\n"
        )
    };
    for (text, at, says) in [
        (rule("spawnd"), "5:14", "did you mean 'spawned'?"),
        (rule("proc.nmae = sh"), "5:14", "did you mean 'proc.name'?"),
        (
            rule("evt.type in (exceve)"),
            "5:26",
            "did you mean 'execve'?",
        ),
        (
            rule("spawned AND proc.name = sh"),
            "5:22",
            "'AND' is written 'and'",
        ),
        (
            rule("spawned and (proc.name = sh or\n    proc.name = x"),
            "5:26",
            "this '(' is not closed",
        ),
        (
            rule("lower(proc.name) = sh"),
            "5:14",
            "there is no transformer 'lower'; there are tolower",
        ),
        (
            "- rule: r\n\tdesc: d\n".to_owned(),
            "2:1",
            "a tab indents this line",
        ),
        (
            rule("spawned").replace("  desc", "  priorty: x\n  desc"),
            "4:3",
            "it is passed over; did you mean 'priority'?",
        ),
    ] {
        place.file("slip.yaml", &text);
        let (_, out, _) = place.run(&["rules", "check", "slip.yaml"]);
        let told = out.lines().find(|l| l.contains(says));
        assert!(
            told.is_some_and(|l| l.starts_with(&format!("slip.yaml:{at}: "))),
            "{text}\n{out}"
        );
    }
}

#[test]
fn rules_of_sources_that_are_not_received_are_listed_as_inactive_and_block_nothing() {
    let place = Place::new();
    let theirs = "- rule: Login from elsewhere\n  desc: d\n  condition: okta.evt.type = x\n  output: o %okta.user\n  priority: NOTICE\n  source: okta\n";
    let skipped = "- rule: Of a later Falco\n  desc: d\n  condition: evt.type = execve and proc.aura = x\n  output: o\n  priority: NOTICE\n  skip-if-unknown-filter: true\n";
    let path = place.file("theirs.yaml", &format!("{theirs}{skipped}"));
    let (status, out, _) = place.run(&["rules", "check", "theirs.yaml"]);
    assert_eq!(status, 0, "{out}");
    assert!(out.contains("LOAD_UNKNOWN_SOURCE"), "{out}");
    assert!(out.contains("1 file: 0 rules"), "{out}");
    assert!(out.contains("2 more passed over"), "{out}");
    let path = path.display().to_string();
    let listed = place.json(&["rules", "list", "--rules", &path]);
    let why = |name: &str| {
        let rule = listed.iter().find(|r| r["rule"] == name).expect("listed");
        assert_eq!(rule["state"], "inactive");
        rule["reasons"][0].as_str().expect("a reason").to_owned()
    };
    assert_eq!(
        why("Login from elsewhere"),
        "needs source okta: not received here"
    );
    assert!(why("Of a later Falco").contains("proc.aura"));
    let args = ["rules", "explain", "Login from elsewhere", "--rules", &path];
    let (status, _, err) = place.run(&args);
    assert_eq!(status, 1);
    assert!(err.contains("needs source okta"), "{err}");
}

#[test]
fn check_points_at_file_line_column_and_item() {
    let place = Place::new();
    assert_eq!(place.run(&["rules", "check", "rules.yaml"]).0, 0);
    place.file(
        "bad.yaml",
        "- rule: b\n  desc: d\n  condition: proc.nmae = a\n  output: o\n  priority: NOTICE\n",
    );
    let (status, out, _) = place.run(&["rules", "check", "rules.yaml", "bad.yaml"]);
    assert_eq!(status, 1);
    assert!(
        out.starts_with("bad.yaml:3:14: error LOAD_ERR_COMPILE_CONDITION: rule \"b\": nonexistent field 'proc.nmae'"),
        "{out}"
    );
    let result =
        &place.json(&["rules", "check", "rules.yaml", "bad.yaml"])[0]["falco_load_results"];
    assert_eq!(result[0]["successful"], true);
    assert_eq!(result[1]["successful"], false);
    let error = &result[1]["errors"][0];
    assert_eq!(error["code"], "LOAD_ERR_COMPILE_CONDITION");
    assert_eq!(error["context"]["locations"][1]["item_name"], "b");
    let missing = place.json(&["rules", "check", "/nonexistent.yaml"]);
    assert_eq!(
        missing[0]["falco_load_results"][0]["errors"][0]["code"],
        "LOAD_ERR_FILE_READ"
    );
    // a terminal never obeys what a file holds
    place.file("evil.yaml", "- rule: \"\\e[31mx\"\n  condition: nonsense\n");
    let (_, out, _) = place.run(&["rules", "check", "evil.yaml"]);
    assert!(!out.contains('\x1b'), "{out:?}");
    assert_eq!(place.run(&["rules", "check"]).0, 2, "wrong usage");
}

#[test]
fn list_says_why_a_rule_is_off() {
    let place = Place::new();
    let list = place.json(&["rules", "list"]);
    let state = |name: &str| {
        let rule = list.iter().find(|r| r["rule"] == name).unwrap();
        (
            rule["state"].as_str().unwrap().to_owned(),
            rule["reasons"].to_string(),
        )
    };
    assert_eq!(state("Key read").0, "active");
    assert_eq!(list[0]["techniques"][0], "T1552.001");
    let (off, why) = state("Needs what is not collected");
    assert_eq!(off, "inactive");
    assert!(why.contains("needs proc.aenv"), "{why}");
    assert_eq!(state("Off").0, "disabled");
    let (status, table, _) = place.run(&["rules", "list"]);
    assert!(status == 0 && table.contains("T1552.001"), "{table}");
}

#[test]
fn explain_expands_and_says_what_is_observed() {
    let place = Place::new();
    let (status, text, _) = place.run(&["rules", "explain", "key read"]);
    assert_eq!(status, 0);
    assert!(
        text.contains("fd.name in (/srv/key)") && text.contains("reads"),
        "{text}"
    );
    let (status, _, error) = place.run(&["rules", "explain", "Key"]);
    assert!(status == 1 && error.contains("Key read"), "{error}");
}

#[test]
fn a_scenario_shows_what_was_true_and_the_first_that_was_false() {
    let place = Place::new();
    place.file(
        "s.jsonl",
        "# a stranger, then the keeper\n\
         {\"evt.type\": [\"openat\", \"open\"], \"evt.is_open_read\": true, \"fd.name\": \"/srv/key\", \"proc.name\": \"cat\"}\n\
         {\"evt.type\": \"openat\", \"evt.is_open_read\": true, \"fd.name\": \"/srv/key\", \"proc.name\": \"keeper\"}\n",
    );
    let test = ["rules", "test", "rules.yaml", "--scenario", "s.jsonl"];
    let (status, text, _) = place.run(&test);
    assert_eq!(status, 0);
    assert!(
        text.contains("Key read fires") && text.contains("2 events, 1 matches"),
        "{text}"
    );
    let told = place.json(&test);
    assert_eq!(told[0]["outcome"], "fires");
    let quiet = told.iter().find(|t| t["line"] == 3).unwrap();
    assert_eq!(quiet["outcome"], "quiet");
    assert_eq!(quiet["first_false"]["text"], "not proc.name = keeper");
    assert_eq!(quiet["first_false"]["value"], "keeper");
    assert_eq!(
        place.run(&[&test[..], &["--expect", "quiet"]].concat()).0,
        1
    );
    place.file(
        "bad.jsonl",
        "{\"evt.type\": \"execve\", \"proc.nmae\": 1}\n",
    );
    let (status, _, error) = place.run(&["rules", "test", "rules.yaml", "--scenario", "bad.jsonl"]);
    assert!(
        status == 1 && error.contains("line 1: proc.nmae"),
        "{error}"
    );
}

#[test]
fn audit_events_may_be_printed_over_several_lines_and_one_that_is_cut_off_costs_no_other() {
    let place = Place::new();
    let event = include_str!("../../../fuzz/seeds/audit/exec-into-pod.json").trim();
    let event: Value = serde_json::from_str(event).unwrap();
    let list = serde_json::json!({"kind": "EventList", "items": [event, event]});
    let pretty = |v: &Value| serde_json::to_string_pretty(v).unwrap();
    let whole = pretty(&event);
    let cut: String = whole.lines().take(9).map(|l| format!("{l}\n")).collect();
    let lines = whole.lines().count();
    place.file(
        "events.json",
        &format!("{whole}\n{cut}{event}\n{}\n{cut}", pretty(&list)),
    );
    let (status, out, error) = place.run(&["--json", "rules", "audit", "events.json"]);
    assert_eq!((status, out.lines().count()), (1, 4), "{out} {error}");
    let first = format!("line {} is not read", lines + 1);
    assert!(error.contains(&first), "{error}");
    assert_eq!(error.matches("is not read").count(), 2, "{error}");
}

#[test]
fn audit_events_are_judged_as_they_come_in_and_bad_lines_are_said() {
    let place = Place::new();
    let event = include_str!("../../../fuzz/seeds/audit/exec-into-pod.json").trim();
    let mut child = place
        .command(&["--json", "rules", "audit", "-"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = child.stdin.take().unwrap();
    let long = "x".repeat(5 << 20);
    writeln!(
        to,
        "{event}\nnot json\n{long}\n{}",
        event.replace("command=sh", "command=ls")
    )
    .unwrap();
    drop(to);
    let (status, out, error) = told(child.wait_with_output().unwrap());
    assert_eq!(status, 1, "lines that were not read");
    let alerts: Vec<Value> = out
        .lines()
        .map(|l| serde_json::from_str(l).unwrap())
        .collect();
    let [alert] = &alerts[..] else {
        panic!("one alert, not {alerts:?}");
    };
    assert_eq!(alert["rule"], "Exec into a pod");
    assert_eq!(alert["source"], "k8s_audit");
    assert_eq!(alert["output"], "shell in web-0 by eve@example.com");
    assert_eq!(alert["output_fields"]["ka.target.name"], "web-0");
    assert_eq!(alert["time"], "2026-03-01T10:00:00.250000Z");
    assert!(
        error.contains("line 2 is not read") && error.contains("line 3 is not read: longer"),
        "{error}"
    );
}

/// The rules of the public files with their states on a node that observes all that can be, and with
/// those switched on that are not performed.
fn public_rules() -> Option<Vec<Value>> {
    let files = public_acts::rule_files()?;
    let files: Vec<String> = files.iter().map(|f| f.display().to_string()).collect();
    let mut args = vec!["rules", "list"];
    let place = Place::new();
    let left = public_acts::acts().into_iter().filter(|a| a.not.is_some());
    let on = |a: public_acts::Act| {
        let rule = a.rule;
        format!("- rule: {rule}\n  enabled: true\n  override: {{enabled: replace}}\n")
    };
    let on = place.file("on.yaml", &left.map(on).collect::<String>());
    let on = on.display().to_string();
    args.extend(files.iter().chain([&on]).flat_map(|f| ["--rules", f]));
    Some(place.json(&args))
}

#[test]
fn every_public_rule_is_performed_in_containers_or_says_why_it_is_not() {
    let Some(rules) = public_rules() else {
        return;
    };
    let acts = public_acts::acts();
    let name = |r: &Value| r["rule"].as_str().expect("a name").to_owned();
    let loaded: BTreeSet<String> = rules.iter().map(name).collect();
    let listed: BTreeSet<String> = acts.iter().map(|a| a.rule.clone()).collect();
    assert_eq!(listed.len(), acts.len(), "a rule is listed twice");
    let missing: Vec<&String> = loaded.symmetric_difference(&listed).collect();
    assert!(missing.is_empty(), "in one list only: {missing:?}");
    for act in &acts {
        let state = rules
            .iter()
            .find(|r| name(r) == act.rule)
            .expect("it is there");
        match &act.not {
            // what is not performed is no silent rule
            Some(why) => {
                assert!(why.len() > 20 && act.act.is_empty() && act.near.is_empty());
                assert_eq!(state["state"], "inactive", "{}: {state}", act.rule);
            }
            None => {
                assert!(!act.act.is_empty() && !act.near.is_empty(), "{}", act.rule);
                assert_ne!(state["state"], "inactive", "{}: {state}", act.rule);
            }
        }
    }
}

/// The page of what is performed.
fn public_table() -> String {
    let acts = public_acts::acts();
    let performed = acts.iter().filter(|a| a.not.is_none()).count();
    let mut page = format!(
        "# Public Falco rules, and the acts that fire them\n\n\
         Written by the test `the_page_of_public_rules_is_current` out of `tests/host/public/`; do not edit.\n\
         To write it anew:\n\n```\nPLIMSOLL_WRITE_DOCS=1 cargo test -p plimsoll-cli --test rules\n```\n\n\
         Of the {} rules in the public stable, incubating and sandbox files, {performed} are performed by real \
         processes\nin real containers with the files as they are, each with something that comes near and does not \
         fire it\n(`public_rules_fire_on_the_acts_that_they_describe_and_on_nothing_near`). Rules that their authors \
         switched off\nare switched on by a file of a user's. The others, with the reason:\n\n\
         | rule | file | why not |\n|---|---|---|\n",
        acts.len()
    );
    for act in acts.iter() {
        if let Some(why) = &act.not {
            page += &format!("| {} | `{}` | {why} |\n", act.rule, act.file);
        }
    }
    page += "\nA `|` of an act is written `\\|` here.\n\n| rule | file | act | comes near | container |\n|---|---|---|---|---|\n";
    let cell = |text: &str| text.trim().replace('|', "\\|").replace('\n', "; ");
    for act in acts.iter().filter(|a| a.not.is_none()) {
        let both = act.options.join(" ");
        let (of_act, of_near) = (act.options_of_act.join(" "), act.options_of_near.join(" "));
        let more = [("act: ", of_act), ("near: ", of_near)];
        let more = more
            .iter()
            .filter(|(_, o)| !o.is_empty())
            .map(|(w, o)| format!("{w}{o}"));
        let how: Vec<String> = Some(both)
            .filter(|b| !b.is_empty())
            .into_iter()
            .chain(more)
            .collect();
        page += &format!(
            "| {} | `{}` | `{}` | `{}` | {} |\n",
            act.rule,
            act.file,
            cell(&act.act),
            cell(&act.near),
            cell(&how.join("; ")),
        );
    }
    page
}

#[test]
fn the_page_of_public_rules_is_current() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/rules-public.md");
    let made = public_table();
    if std::env::var("PLIMSOLL_WRITE_DOCS").is_ok_and(|v| v == "1") {
        std::fs::write(file, &made).expect("write the page");
    }
    let there = std::fs::read_to_string(file).unwrap_or_default();
    assert!(
        there == made,
        "PLIMSOLL_WRITE_DOCS=1 cargo test -p plimsoll-cli --test rules"
    );
}
