//! `plimsoll evidence` and `plimsoll replay` on prepared data directories, without root or agent.

#[path = "../../ask/tests/scene/mod.rs"]
mod scene;

use plimsoll_agent::ledger::stored;
use plimsoll_ask::Body;
use plimsoll_baseline::{NoNames, behaviours, judge};
use plimsoll_evidence::{Journal, Options, Sealing};
use plimsoll_model::event::*;
use plimsoll_model::*;
use scene::*;
use serde_json::Value;
use std::path::Path;
use std::process::{Command, Output};

fn run(data: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.env_clear().arg("--json");
    command.args(["--data-dir".as_ref(), data.as_os_str()]);
    command.args(["--socket".as_ref(), data.join("agent.sock").as_os_str()]);
    command.arg("--config").arg(data.join("config.yaml"));
    std::fs::write(data.join("config.yaml"), "version: 1\n").unwrap();
    command.args(args).output().unwrap()
}

fn object(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    serde_json::from_str(text.lines().next().unwrap_or_default())
        .unwrap_or_else(|_| panic!("{text}{}", String::from_utf8_lossy(&output.stderr)))
}

/// An attack on a container whose image has no baseline yet, judged as the agent judges it.
fn attacked(change: impl Fn(&mut Drift)) -> (tempfile::TempDir, AlertId) {
    let mut world = World::new();
    world.agent("start", -60.0);
    let web = container("web", 'a', 0.0, '1');
    world.container(&web, 0.0);
    let p = process(10, 0.0, "/tmp/dropped", &["/tmp/dropped"], Entry::Init);
    let shown = world.event(&web, 1.0, std::slice::from_ref(&p), exec(&p, Origin::Upper));
    let Some((_, _, Body::Record(Record::Observation(observation)))) = world.records.last() else {
        panic!("an observation was just put there")
    };
    let all = behaviours(observation, &web, &NoNames);
    let mut drift = judge(observation, &web, None, &all).drifts.swap_remove(0);
    drift.observation = Some(shown);
    change(&mut drift);
    let alert = world.alert("A-1", &web, 1.0, drift);
    let dir = tempfile::tempdir().unwrap();
    let mut options = Options::new("node1");
    options.emergency_bytes = 12 << 10;
    options.sealing = Some(Sealing::new(dir.path().join("keys")));
    let (mut journal, _) = Journal::open(dir.path().join("journal"), options).unwrap();
    // The certificate of the first key is leaf 0, where the world has the agent's start: without
    // that, every record stands where the others name it.
    for (at, about, body) in world.records.iter().skip(1) {
        let Body::Record(record) = body else { continue };
        journal.append(stored(record, *at, about.as_ref())).unwrap();
    }
    journal.close().unwrap();
    (dir, alert)
}

#[test]
fn a_bundle_made_without_an_agent_verifies_and_replays_and_says_what_is_not_known() {
    let (dir, alert) = attacked(|_| {});
    let data = dir.path();
    let path = |name: &str| data.join(name).display().to_string();
    let key = object(&run(data, &["evidence", "checkpoint", "--key"]));
    let key = key["key"].as_str().unwrap().trim().to_owned();
    let made = run(
        data,
        &[
            "evidence",
            "bundle",
            "--alert",
            alert.as_str(),
            "-o",
            &path("b.tar"),
            "--reason",
            "x",
        ],
    );
    assert_eq!(
        object(&made)["record"],
        Value::Null,
        "without an agent nobody records it"
    );
    assert!(String::from_utf8_lossy(&made.stderr).contains("not recorded"));
    let report = run(data, &["evidence", "verify", &path("b.tar"), "--key", &key]);
    assert_eq!(
        (report.status.code(), &object(&report)["whole"]),
        (Some(0), &Value::Bool(true)),
        "{}",
        object(&report)
    );
    for target in [path("b.tar"), path("journal")] {
        let again = run(data, &["replay", &target]);
        let told = object(&again);
        assert_eq!(
            (again.status.code(), &told["same"]),
            (Some(0), &Value::Bool(true)),
            "{told}"
        );
        assert_eq!(
            (&told["alerts_same"], &told["drifts_same"]),
            (&1.into(), &1.into()),
            "{told}"
        );
    }
    let again = run(
        data,
        &[
            "evidence",
            "bundle",
            "--alert",
            alert.as_str(),
            "-o",
            &path("b.tar"),
            "--reason",
            "x",
        ],
    );
    assert_eq!(again.status.code(), Some(1), "never overwritten");
    let incident = run(
        data,
        &[
            "evidence",
            "bundle",
            "--incident",
            "I-1",
            "-o",
            &path("c.tar"),
            "--reason",
            "x",
        ],
    );
    assert_eq!(incident.status.code(), Some(1));
}

#[test]
fn a_verdict_that_was_changed_is_a_difference() {
    let (dir, _) = attacked(|drift| drift.risk = Risk::Low);
    let again = run(dir.path(), &["replay"]);
    let told = object(&again);
    assert_eq!(
        (again.status.code(), &told["same"]),
        (Some(1), &Value::Bool(false)),
        "{told}"
    );
    assert!(
        told["differences"][0]["text"]
            .as_str()
            .unwrap()
            .contains("was"),
        "{told}"
    );
}

#[test]
fn a_verdict_whose_baseline_is_gone_is_unknown_and_no_difference() {
    let (dir, _) = attacked(|drift| {
        drift.baseline = Some(reference());
        drift.quarantined = false;
    });
    let told = object(&run(dir.path(), &["replay"]));
    assert_eq!(told["same"], true, "{told}");
    let why: Vec<_> = told["not_judged"]
        .as_object()
        .unwrap()
        .keys()
        .cloned()
        .collect();
    assert_eq!(why, ["its baseline version is not among the records"]);
}

#[test]
fn a_flipped_byte_and_a_rolled_back_store_are_exit_1_and_wrong_use_is_2() {
    let (dir, _) = attacked(|_| {});
    let data = dir.path();
    assert_eq!(run(data, &["evidence", "verify"]).status.code(), Some(0));
    let path = |name: &str| data.join(name).display().to_string();
    std::fs::copy(data.join("journal/tlog/checkpoint"), data.join("kept")).unwrap();
    let kept = run(data, &["evidence", "verify", "--checkpoint", &path("kept")]);
    assert_eq!(kept.status.code(), Some(0), "{}", object(&kept));
    // to before anything was written, but with the same keys
    let segment = data.join("journal/leaves/00000000000000000000.leaf");
    let whole = std::fs::read(&segment).unwrap();
    let mut bytes = whole.clone();
    bytes[300] ^= 4;
    std::fs::write(&segment, &bytes).unwrap();
    let report = run(data, &["evidence", "verify"]);
    let told = object(&report);
    assert_eq!(
        (report.status.code(), &told["problems"][0]["record"]),
        (Some(1), &Value::from("node1@2")),
        "{told}"
    );
    std::fs::write(&segment, &whole[..96 * 3]).unwrap();
    std::fs::remove_file(data.join("journal/head")).unwrap();
    let report = run(data, &["evidence", "verify", "--checkpoint", &path("kept")]);
    let told = object(&report);
    assert_eq!(report.status.code(), Some(1));
    assert!(told["problems"].to_string().contains("truncated"), "{told}");
    assert_eq!(
        run(data, &["evidence", "verify", "--key", "nonsense+1+2"])
            .status
            .code(),
        Some(2)
    );
    assert_eq!(run(data, &["evidence", "anchor"]).status.code(), Some(2));
}

#[test]
fn anchoring_into_a_directory_refuses_a_rewritten_store() {
    let (one, _) = attacked(|_| {});
    let (two, _) = attacked(|drift| drift.risk = Risk::Low);
    let elsewhere = tempfile::tempdir().unwrap();
    let to = elsewhere.path().display().to_string();
    let first = run(one.path(), &["evidence", "anchor", "--to", &to]);
    assert_eq!(
        first.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&first.stderr)
    );
    assert_eq!(
        run(one.path(), &["evidence", "anchor", "--to", &to])
            .status
            .code(),
        Some(0)
    );
    let other = run(two.path(), &["evidence", "anchor", "--to", &to]);
    assert_eq!(other.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&other.stderr).contains("another history"));
}

#[test]
fn a_receiver_gets_the_checkpoint_as_it_was_signed() {
    use std::io::{Read as _, Write as _};
    let (dir, _) = attacked(|_| {});
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/anchor", listener.local_addr().unwrap());
    let served = std::thread::spawn(move || {
        let (mut peer, _) = listener.accept().unwrap();
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while !all.windows(4).any(|w| w == b"\r\n\r\n")
            || !all.ends_with(b"\n")
            || all.ends_with(b"\r\n\r\n")
        {
            let n = peer.read(&mut buffer).unwrap();
            all.extend_from_slice(&buffer[..n]);
        }
        peer.write_all(b"HTTP/1.1 204 No Content\r\n\r\n").unwrap();
        String::from_utf8(all).unwrap()
    });
    let sent = run(dir.path(), &["evidence", "anchor", "--webhook", &url]);
    assert_eq!(
        sent.status.code(),
        Some(0),
        "{}",
        String::from_utf8_lossy(&sent.stderr)
    );
    let note = std::fs::read_to_string(dir.path().join("journal/tlog/checkpoint")).unwrap();
    assert!(served.join().unwrap().ends_with(&note));
}

/// Ends with the test, however that ends.
struct Child(std::process::Child);

impl Drop for Child {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn anchoring_outlives_a_receiver_that_is_down_and_a_journal_that_is_away() {
    use std::io::{Read as _, Write as _};
    let (dir, _) = attacked(|_| {});
    let (there, away) = (dir.path().join("journal"), dir.path().join("away"));
    let elsewhere = dir.path().join("elsewhere");
    std::fs::write(dir.path().join("config.yaml"), "version: 1\n").unwrap();
    std::fs::rename(&there, &away).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/anchor", listener.local_addr().unwrap());
    let mut command = Command::new(env!("CARGO_BIN_EXE_plimsoll"));
    command.env_clear().arg("--data-dir").arg(dir.path());
    command.arg("--socket").arg(dir.path().join("agent.sock"));
    command.arg("--config").arg(dir.path().join("config.yaml"));
    command.args([
        "evidence",
        "anchor",
        "--every",
        "1",
        "--webhook",
        &url,
        "--to",
    ]);
    let child = command.arg(&elsewhere).stdout(std::process::Stdio::null());
    let mut child = Child(child.stderr(std::process::Stdio::piped()).spawn().unwrap());
    let mut said = std::io::BufReader::new(child.0.stderr.take().unwrap());
    let mut until = |what: &str| {
        let mut line = String::new();
        while !line.contains(what) {
            line.clear();
            let n = std::io::BufRead::read_line(&mut said, &mut line).unwrap();
            assert!(n > 0, "it ended before it said {what:?}");
        }
    };
    until("not anchored:");
    std::fs::rename(&away, &there).unwrap();
    // once it hangs up, once it is out of order, then it takes the note
    drop(listener.accept().unwrap());
    until("not anchored in http");
    let kept = std::fs::read_dir(elsewhere.join("plimsoll_node1")).unwrap();
    let kept: Vec<_> = kept.map(|e| e.unwrap().file_name()).collect();
    assert!(
        kept.iter()
            .any(|n| n.to_string_lossy().ends_with(".checkpoint")),
        "{kept:?}"
    );
    let note = std::fs::read_to_string(there.join("tlog/checkpoint")).unwrap();
    for answer in ["503 Service Unavailable", "204 No Content"] {
        let (mut peer, _) = listener.accept().unwrap();
        let (mut all, mut buffer) = (Vec::new(), [0; 4096]);
        while !String::from_utf8_lossy(&all).ends_with(&note) {
            let n = peer.read(&mut buffer).unwrap();
            assert!(n > 0, "{}", String::from_utf8_lossy(&all));
            all.extend_from_slice(&buffer[..n]);
        }
        let answer = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        peer.write_all(answer.as_bytes()).unwrap();
    }
}

#[test]
fn an_export_opens_in_each_form_is_private_and_overwrites_nothing() {
    use std::os::unix::fs::PermissionsExt as _;
    let (dir, alert) = attacked(|_| {});
    let data = dir.path();
    let path = |name: &str| data.join(name).display().to_string();
    let export = |format: &str, to: &str| {
        let about = [
            "evidence",
            "export",
            "--alert",
            alert.as_str(),
            "--reason",
            "case 7",
        ];
        run(
            data,
            &[&about[..], &["--format", format, "-o", to]].concat(),
        )
    };
    for format in ["jsonl", "csv", "timesketch", "ocsf"] {
        let made = export(format, &path(format));
        let told = object(&made);
        assert_eq!(made.status.code(), Some(0), "{told}");
        assert_eq!(
            told["record"],
            Value::Null,
            "without an agent nobody records it"
        );
        assert!(String::from_utf8_lossy(&made.stderr).contains("not recorded"));
        let text = std::fs::read_to_string(path(format)).unwrap();
        let heading = usize::from(format == "csv");
        let records = told["records"].as_u64().unwrap();
        assert!(records >= 4, "{told}");
        assert_eq!(text.lines().count(), records as usize + heading, "{format}");
        assert!(text.contains("/tmp/dropped"), "{format}: {text}");
        let mode = std::fs::metadata(path(format))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600, "evidence is for whoever exported it");
    }
    let again = export("csv", &path("csv"));
    assert_eq!(
        again.status.code(),
        Some(1),
        "what is there is not overwritten"
    );
}

#[test]
fn an_export_is_of_what_was_named_and_of_nothing_by_accident() {
    let (dir, _) = attacked(|_| {});
    let data = dir.path();
    let export = |more: &[&str]| {
        run(
            data,
            &[&["evidence", "export", "--reason", "x"][..], more].concat(),
        )
    };
    let lines = |more: &[&str]| {
        let out = export(more);
        assert_eq!(
            out.status.code(),
            Some(0),
            "{}",
            String::from_utf8_lossy(&out.stderr)
        );
        String::from_utf8(out.stdout).unwrap().lines().count()
    };
    assert_eq!(export(&[]).status.code(), Some(2), "nothing named");
    assert_eq!(
        export(&["--format", "xml", "--since", "1d"]).status.code(),
        Some(2)
    );
    assert_eq!(
        run(data, &["evidence", "export", "--since", "1d"])
            .status
            .code(),
        Some(2),
        "no reason"
    );
    let all = lines(&["--since", "2026-11-21", "--until", "2026-11-22"]);
    assert!(all >= 4, "{all}");
    assert_eq!(lines(&["--until", "2026-11-20"]), 0);
    assert!(lines(&["--container", "web"]) >= 4);
    assert_eq!(export(&["--container", "nobody"]).status.code(), Some(1));
}
