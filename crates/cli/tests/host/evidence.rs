//! A real attack on a real container: its evidence verifies, is handed over, judged again, held.

use crate::{Agent, alone, command, docker_socket};
use serde_json::Value;
use std::path::Path;
use std::process::Output;

fn run(agent: &Agent, args: &[&str]) -> Output {
    command(agent.dir.path())
        .args(args)
        .output()
        .expect("run plimsoll")
}

fn one(agent: &Agent, args: &[&str]) -> Value {
    let all = agent
        .plimsoll(args)
        .unwrap_or_else(|| panic!("{args:?} failed"));
    all.into_iter()
        .next()
        .unwrap_or_else(|| panic!("{args:?} printed nothing"))
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for item in std::fs::read_dir(from).unwrap().flatten() {
        let to = to.join(item.file_name());
        if item.file_type().unwrap().is_dir() {
            copy(&item.path(), &to);
        } else {
            match std::fs::copy(item.path(), to) {
                // it was being replaced, by the running agent
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => {}
                copied => drop(copied.unwrap()),
            }
        }
    }
}

#[test]
fn evidence_of_an_attack_verifies_leaves_the_machine_and_replays() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let attack = "cat /etc/shadow >/dev/null; cp /bin/ls /tmp/dropped; /tmp/dropped / >/dev/null";
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "host-evidence",
        "plimsoll-test/debian:1",
        "sh",
        "-c",
        attack,
    ]);
    agent.wait_until("it is alerted", || {
        !agent.alerts("host-evidence").is_empty()
    });
    // a replay of what has come in part would be one of a part
    crate::own_rules::over(&agent, &["host-evidence".to_owned()]);
    let id = agent.alerts("host-evidence")[0]["plimsoll"]["alert_id"]
        .as_str()
        .unwrap()
        .to_owned();
    let path = |name: &str| agent.dir.path().join(name).display().to_string();

    // The key and a checkpoint go elsewhere.
    let key = run(&agent, &["evidence", "checkpoint", "--key"]).stdout;
    std::fs::write(path("root.pub"), key).unwrap();
    let kept = run(&agent, &["evidence", "checkpoint"]).stdout;
    std::fs::write(path("kept"), &kept).unwrap();
    let given = ["--key", &path("root.pub"), "--checkpoint", &path("kept")];
    let anchored = one(&agent, &["evidence", "anchor", "--to", &path("elsewhere")]);
    assert!(anchored["record"].is_string(), "{anchored}");

    // The live store, and a copy, verify with nothing else; the copy's first flipped byte is named.
    let verify = |target: &str| {
        one(
            &agent,
            &[&["evidence", "verify", target][..], &given].concat(),
        )
    };
    let live = verify(&path("data"));
    assert_eq!(live["whole"], true, "{live}");
    assert_eq!(live["anchored"]["target"], path("elsewhere"));
    // file by file it is a copy of one moment only when nothing was written meanwhile
    agent.wait_until("a copy is whole", || {
        let _ = std::fs::remove_dir_all(path("copy"));
        copy(
            &agent.dir.path().join("data/journal"),
            Path::new(&path("copy")),
        );
        verify(&path("copy"))["whole"] == true
    });
    let segment = agent
        .dir
        .path()
        .join("copy/leaves/00000000000000000000.leaf");
    let mut bytes = std::fs::read(&segment).unwrap();
    bytes[96 * 6 + 20] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let damaged = verify(&path("copy"));
    assert_eq!(
        (&damaged["whole"], &damaged["problems"][0]["first"]),
        (&Value::Bool(false), &Value::from(5)),
        "{damaged}"
    );

    // One file for a third party.
    let bundle = one(
        &agent,
        &[
            "evidence",
            "bundle",
            "--alert",
            &id,
            "-o",
            &path("case.tar"),
            "--reason",
            "case 7",
        ],
    );
    assert!(bundle["records"].as_u64() > Some(5), "{bundle}");
    let report = one(
        &agent,
        &[
            "evidence",
            "verify",
            &path("case.tar"),
            "--key",
            &path("root.pub"),
        ],
    );
    assert_eq!(report["whole"], true, "{report}");

    // The same verdicts again, from the store and from the file alone.
    for target in [path("data"), path("case.tar")] {
        let again = one(&agent, &["replay", &target]);
        assert_eq!(again["same"], true, "{target}: {again}");
        assert!(again["alerts_same"].as_u64() > Some(0), "{target}: {again}");
        assert_eq!(
            again["not_judged"],
            serde_json::json!({}),
            "{target}: {again}"
        );
    }

    // The same for other tools; each is in the log before its first line.
    for format in ["jsonl", "csv", "timesketch", "ocsf"] {
        let to = path(&format!("case.{format}"));
        let about = ["evidence", "export", "--alert", &id, "--reason", "case 7"];
        let made = one(
            &agent,
            &[&about[..], &["--format", format, "-o", &to]].concat(),
        );
        assert!(
            made["record"].as_str().is_some_and(|r| r.contains('@')),
            "{made}"
        );
        assert!(made["records"].as_u64() > Some(5), "{made}");
    }

    // A hold, and who did all this.
    let hold = one(
        &agent,
        &[
            "evidence",
            "hold",
            "--alert",
            &id,
            "--name",
            "case-7",
            "--reason",
            "litigation",
        ],
    );
    assert_eq!(hold["hold"], "case-7");
    assert_eq!(one(&agent, &["evidence", "holds"])["reason"], "litigation");
    one(
        &agent,
        &["evidence", "release", "case-7", "--reason", "settled"],
    );
    assert!(
        agent
            .plimsoll(&["evidence", "holds"])
            .unwrap_or_default()
            .is_empty()
    );
    let custody = std::fs::read(
        agent
            .dir
            .path()
            .join("data/journal/payloads/00000000000000000000.05.pay"),
    )
    .unwrap();
    for act in [
        "evidence.bundle",
        "evidence.export",
        "evidence.hold",
        "evidence.release",
        "litigation",
        "settled",
        "case 7",
    ] {
        assert!(
            custody.windows(act.len()).any(|w| w == act.as_bytes()),
            "{act} is not in the log"
        );
    }
    assert_eq!(verify(&path("data"))["whole"], true);
}
