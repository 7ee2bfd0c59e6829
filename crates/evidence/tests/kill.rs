//! A real process on a real disk, killed in the middle of its work.

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use plimsoll_evidence::{
    Durable, Journal, JournalWriter, Leaf, Options, QueueBounds, Reader, Record, RetentionClass,
};

const DIR_VAR: &str = "PLIMSOLL_KILL_TEST_DIR";

fn options() -> Options {
    let mut options = Options::new("node-1");
    options.subtree_leaves = 256;
    options.emergency_bytes = 64 << 10;
    options
}

/// Not a test: the process that `kill_nine_loses_nothing_acknowledged` kills.
#[test]
#[ignore = "run by kill_nine_loses_nothing_acknowledged"]
fn child_appends_until_killed() {
    let Some(dir) = std::env::var_os(DIR_VAR) else {
        return;
    };
    let (journal, recovery) = Journal::open(&dir, options()).unwrap();
    assert_eq!(recovery.damage, vec![], "the round before did no damage");
    let bounds = QueueBounds {
        group_commit_ms: 1,
        ..QueueBounds::default()
    };
    let writer = JournalWriter::start(journal, bounds).unwrap();
    for n in 0..u64::MAX {
        let noise = Record::new(2, RetentionClass::OBSERVATION, vec![7; 200]);
        drop(writer.submit(noise));
        let payload = format!("alert {n} of {}", std::process::id()).into_bytes();
        let ack = move |result: Result<Durable, _>| {
            if let Ok(durable) = result {
                println!(
                    "durable {} alert {n} of {}",
                    durable.leaf,
                    std::process::id()
                );
            }
        };
        let alert = Record::new(1, RetentionClass::ALERT, payload);
        if writer.submit_durable(alert, Box::new(ack)).is_err() {
            std::thread::sleep(std::time::Duration::from_millis(1));
        }
    }
}

#[test]
fn kill_nine_loses_nothing_acknowledged() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged: Vec<(u64, String)> = Vec::new();
    for round in 0..6 {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "child_appends_until_killed",
                "--ignored",
                "--nocapture",
            ])
            .env(DIR_VAR, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let mut told = 0;
        for line in lines.map_while(Result::ok) {
            if let Some((leaf, payload)) = parse(&line) {
                acknowledged.push((leaf, payload));
                told += 1;
            }
            if told == 150 + 97 * round {
                // SIGKILL; what it had still acknowledged into the pipe is read on.
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(told >= 150, "the child worked");
    }
    let reader = Reader::open(dir.path()).unwrap();
    for (leaf, payload) in &acknowledged {
        let entry = reader
            .get(Leaf(*leaf))
            .unwrap()
            .expect("an acknowledged leaf is there");
        assert_eq!(entry.payload.bytes(), Some(payload.as_bytes()));
    }
    let (_, recovery) = Journal::open(dir.path(), options()).unwrap();
    assert_eq!((recovery.damage.len(), recovery.damage_omitted), (0, 0));
    let scrub = reader.scrub(0..u64::MAX).unwrap();
    assert_eq!(
        (scrub.checked, scrub.damage.len(), scrub.lost.len()),
        (recovery.leaves, 0, 0)
    );
}

/// `durable LEAF PAYLOAD`, wherever the test harness put it on the line.
fn parse(line: &str) -> Option<(u64, String)> {
    let (_, rest) = line.split_once("durable ")?;
    let (leaf, payload) = rest.split_once(' ')?;
    Some((leaf.parse().ok()?, payload.to_owned()))
}
