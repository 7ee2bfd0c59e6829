//! Faults and overload on real containers: a full disk, a killed agent under load, a fork bomb, names
//! and arguments of any length, containers by the hundred.

use crate::{Agent, alone, command, docker_socket};
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn sh(script: &str, args: &[&str]) -> String {
    let out = Command::new("sh")
        .args(["-c", script, "sh"])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .expect("sh is there");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{script}: {said}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

fn status(agent: &Agent) -> Value {
    let mut all = agent.plimsoll(&["status"]).unwrap_or_default();
    all.pop().unwrap_or_default()
}

fn health(agent: &Agent) -> String {
    status(agent)["journal"]["health"]
        .as_str()
        .unwrap_or_default()
        .to_owned()
}

/// A container as `docker run` arguments: gone when it ends.
fn run(agent: &Agent, name: &str, image: &str, work: &str) {
    agent.docker(&["run", "--rm", "--name", name, image, "sh", "-c", work]);
}

/// Drops a program and runs it (which, as busybox, then does not know its name).
const ATTACK: &str = "cp /bin/busybox /tmp/dropped; /tmp/dropped 2>/dev/null; true";
const BUSYBOX: &str = "plimsoll-test/busybox:1";
const DEBIAN: &str = "plimsoll-test/debian:1";

fn is_alerted(agent: &Agent, name: &str) -> bool {
    let all = agent.alerts(name);
    all.iter().any(|a| a.to_string().contains("/tmp/dropped"))
}

/// A small disk of our own.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(path: &Path, bytes: u64) -> Self {
        std::fs::create_dir_all(path).expect("make a directory");
        let size = format!("size={bytes},mode=0700");
        let path = path.to_owned();
        let shown = path.to_str().expect("a path of ours");
        sh("mount -t tmpfs -o \"$1\" none \"$2\"", &[&size, shown]);
        SmallDisk(path)
    }
    fn filler(&self) -> PathBuf {
        self.0.join("filler")
    }
    /// Leaves no byte free.
    fn fill(&self) {
        let filler = self.filler();
        let _ = Command::new("dd")
            .args(["if=/dev/zero", "bs=4096", "conv=notrunc", "oflag=append"])
            .arg(format!("of={}", filler.display()))
            .stderr(Stdio::null())
            .status();
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn on_a_full_disk_alerts_are_kept_the_loss_is_a_gap_and_it_recovers() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let disk = SmallDisk::at(&dir.path().join("data"), 24 << 20);
    let config = "version: 1\nlearning: { slot_seconds: 1 }\njournal: { emergency_bytes: 1MiB }\n";
    std::fs::write(dir.path().join("config.yaml"), config).expect("write the configuration");
    let agent = Agent::start_in(dir, docker);
    run(&agent, "disk-before", BUSYBOX, "true");
    agent.wait_until("the journal is fine", || health(&agent) == "ok");

    disk.fill();
    let novel = "i=0; while [ $i -lt 3000 ]; do echo x >/tmp/f$i; i=$((i+1)); done";
    agent.wait_until("the disk is full and status says so", || {
        disk.fill();
        run(&agent, "disk-filling", DEBIAN, novel);
        health(&agent) == "emergency"
    });
    let reason = status(&agent)["journal"]["reason"].to_string();
    assert!(reason.to_lowercase().contains("space"), "{reason}");
    run(&agent, "disk-attacked", BUSYBOX, ATTACK);
    agent.wait_until("an alert is raised on the full disk", || {
        is_alerted(&agent, "disk-attacked")
    });
    assert!(status(&agent)["running"] == true);

    std::fs::remove_file(disk.filler()).expect("make room");
    agent.wait_until("it recovers by itself", || health(&agent) == "ok");
    run(&agent, "disk-after", BUSYBOX, ATTACK);
    agent.wait_until("what happens now is kept", || {
        is_alerted(&agent, "disk-after")
            && agent
                .plimsoll(&["events", "--container", "disk-after"])
                .is_some_and(|e| !e.is_empty())
    });
    assert!(
        is_alerted(&agent, "disk-attacked"),
        "the alert of the full disk is still there"
    );
    agent.wait_until("what was lost is a gap with its count", || {
        let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
        gaps.iter()
            .any(|g| g["stage"] == "journal" && g["count"].as_u64().is_some_and(|n| n > 0))
    });
    drop(agent);
    drop(disk);
}

#[test]
fn an_agent_killed_under_load_loses_nothing_acknowledged_and_goes_on() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let mut agent = Agent::start(docker);
    let load = "while :; do for i in 1 2 3 4 5 6 7 8 9; do echo x >/tmp/a$i; cat /tmp/a$i >/dev/null; done; done";
    agent.docker(&[
        "run",
        "-d",
        "--rm",
        "--name",
        "under-load",
        DEBIAN,
        "sh",
        "-c",
        load,
    ]);
    agent.docker(&[
        "exec",
        "under-load",
        "sh",
        "-c",
        "cp /bin/ls /tmp/dropped; /tmp/dropped /",
    ]);
    agent.wait_until("the alert is durable", || is_alerted(&agent, "under-load"));
    let ids = |a: &Agent| -> Vec<Value> {
        let all = a.alerts("under-load");
        all.iter()
            .map(|a| a["plimsoll"]["alert_id"].clone())
            .collect()
    };
    let instance = |a: &Agent| {
        let all = a.plimsoll(&["containers"]).unwrap_or_default();
        let found = all.into_iter().find(|c| c["name"] == "under-load");
        found.map(|c| c["instance"].clone()).unwrap_or_default()
    };
    for _ in 0..3 {
        let (known, life) = (ids(&agent), instance(&agent));
        assert_ne!(life, Value::Null);
        agent.restart_after(true, |_| ());
        agent.wait_until("the container is picked up as the same life", || {
            instance(&agent) == life
        });
        let now = ids(&agent);
        assert!(known.iter().all(|id| now.contains(id)), "{known:?} {now:?}");
    }
    agent.wait_until("each time without an agent is a gap", || {
        let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
        gaps.iter().filter(|g| g["stage"] == "agent_down").count() >= 3
    });
    agent.docker(&["exec", "under-load", "cat", "/etc/shadow"]);
    agent.wait_until("an act after all that is alerted", || {
        let all = agent.alerts("under-load");
        all.iter().any(|a| a.to_string().contains("/etc/shadow"))
    });
    agent.docker(&["rm", "-f", "under-load"]);
}

#[test]
fn a_fork_bomb_in_one_container_hides_nothing_in_another() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    // (its first process forks no more, which it could not; and it is removed once, by the test)
    let bomb = "b() { b | b & }; b; exec sleep 8";
    let limits = ["--pids-limit", "200", "--cpus", "1"];
    let mut args = vec!["run", "-d", "--name", "bomb"];
    args.extend(limits);
    args.extend([DEBIAN, "sh", "-c", bomb]);
    agent.docker(&args);
    std::thread::sleep(Duration::from_secs(1));
    run(&agent, "beside-the-bomb", BUSYBOX, ATTACK);
    agent.wait_until("the other container's attack is alerted", || {
        is_alerted(&agent, "beside-the-bomb")
    });
    let status = status(&agent);
    assert_eq!(status["running"], true);
    let memory = status["memory_bytes"].as_u64().unwrap_or(u64::MAX);
    assert!(memory < 300 << 20, "memory stays bounded: {memory}");
    agent.docker(&["rm", "-f", "bomb"]);
    agent.wait_until("the bomb is known and gone", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        all.iter()
            .any(|c| c["name"] == "bomb" && c["state"] == "gone")
    });
}

fn events(agent: &Agent, kind: &str, container: &str) -> Vec<Value> {
    agent
        .plimsoll(&["events", "--kind", kind, "--container", container])
        .unwrap_or_default()
}

#[test]
fn arguments_of_128_kib_and_paths_of_4096_bytes_are_kept_in_part_and_say_so() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    // one argument of the greatest length that execve takes (128 KiB with its end)
    let argument = "a=$(head -c 131071 /dev/zero | tr '\\0' A); /bin/true \"$a\"";
    // 17 directories of 240 bytes: below the limit by name, beyond it from the root
    let deep = "d=$(head -c 239 /dev/zero | tr '\\0' d); cd /tmp; i=0; \
        while [ $i -lt 17 ]; do mkdir $d$((i%10)) && cd $d$((i%10)) || exit 1; i=$((i+1)); done; \
        echo x > leaf";
    let odd = "printf x > \"/tmp/$(printf 'caf\\351')\"";
    run(
        &agent,
        "long-names",
        DEBIAN,
        &format!("{argument}; ({deep}); {odd}"),
    );
    agent.wait_until("the last act is there", || {
        let files = events(&agent, "file", "long-names");
        files.iter().any(|e| e.to_string().contains("caf\u{fffd}"))
    });
    let execs = events(&agent, "exec", "long-names");
    let long = execs
        .iter()
        .find(|e| e["detail"]["argv_bytes"].as_u64() >= Some(131_072))
        .expect("the exec with the long argument");
    let kept = long["detail"]["argv"].to_string();
    assert!(
        kept.contains("AAAA") && kept.len() < 8192,
        "{} bytes",
        kept.len()
    );
    let files = events(&agent, "file", "long-names");
    let longest = files
        .iter()
        .filter_map(|e| e["detail"]["path"].as_str())
        .map(str::len)
        .max();
    assert!(longest >= Some(3000), "the deep file: {longest:?}");
    assert!(longest <= Some(4096 * 3), "bounded: {longest:?}");
}

#[test]
fn twenty_containers_a_second_are_all_known_by_image_and_name() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    const EACH: usize = 15;
    const LANES: usize = 4;
    let from = Instant::now();
    std::thread::scope(|s| {
        for lane in 0..LANES {
            let agent = &agent;
            s.spawn(move || {
                for i in 0..EACH {
                    run(agent, &format!("rate-{lane}-{i}"), BUSYBOX, "true");
                }
            });
        }
    });
    let rate = (EACH * LANES) as f64 / from.elapsed().as_secs_f64();
    eprintln!("Docker started and ended {rate:.1} containers a second here (20 are asked for)");
    agent.wait_until("all are known and gone", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        (0..LANES).all(|lane| {
            (0..EACH).all(|i| {
                all.iter().any(|c| {
                    c["name"] == format!("rate-{lane}-{i}")
                        && c["image"] == BUSYBOX
                        && c["state"] == "gone"
                })
            })
        })
    });
}

#[test]
fn twenty_containers_a_second_of_a_bare_runtime_are_all_known_by_their_id() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let dir = tempfile::tempdir().expect("a directory");
    let (lib, runtime) = (env("PLIMSOLL_TEST_LIB"), env("PLIMSOLL_TEST_CRUN"));
    let bundle = dir.path().join("bundle");
    let shown = bundle.to_str().expect("a path of ours");
    sh("\"$1/images\" bundle \"$2\" true", &[&lib, shown]);
    const CONTAINERS: usize = 100;
    let name = |i: usize| format!("bare-{}-{i}", std::process::id());
    let from = Instant::now();
    for i in 0..CONTAINERS {
        let due = from + Duration::from_millis(50 * i as u64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let ended = Command::new(&runtime)
            .arg("--root")
            .arg(dir.path().join("state"))
            .args(["run", "--bundle", shown, &name(i)])
            .stdin(Stdio::null())
            .status()
            .expect("run crun");
        assert!(ended.success());
    }
    let rate = CONTAINERS as f64 / from.elapsed().as_secs_f64();
    eprintln!("crun started and ended {rate:.1} containers a second here (20 are asked for)");
    agent.wait_until("all are known and gone, with their command", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        (0..CONTAINERS).all(|i| {
            let mine = |c: &&Value| c["container_id"] == name(i).as_str();
            all.iter().find(mine).is_some_and(|c| c["state"] == "gone")
        })
    });
}

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("scripts/test sets {name}"))
}

/// The mount of the hierarchy that has the word, as the agent chooses it.
fn cgroups() -> PathBuf {
    let unified = Path::new("/sys/fs/cgroup/unified");
    match unified.join("cgroup.procs").exists() {
        true => unified.to_owned(),
        false => "/sys/fs/cgroup".into(),
    }
}

#[test]
fn a_hundred_bare_containers_a_second_are_each_attributed_from_their_first_program() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    const CONTAINERS: usize = 300;
    let parent = cgroups().join(format!("plimsoll-rate-{}", std::process::id()));
    std::fs::create_dir_all(&parent).expect("make a cgroup");
    let id = |i: usize| format!("{:064x}", (std::process::id() as u128) << 32 | i as u128);
    let from = Instant::now();
    for i in 0..CONTAINERS {
        // no faster than asked for
        let due = from + Duration::from_millis(10 * i as u64);
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let cgroup = parent.join(id(i));
        std::fs::create_dir(&cgroup).expect("make a cgroup");
        let enter = "echo $$ > \"$0/cgroup.procs\" && exec /bin/true";
        let entered = Command::new("unshare")
            .args(["--mount", "sh", "-c", enter])
            .arg(&cgroup)
            .status()
            .expect("unshare is there");
        assert!(entered.success());
        let end = Instant::now() + Duration::from_secs(2);
        while std::fs::remove_dir(&cgroup).is_err() && Instant::now() < end {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    let rate = CONTAINERS as f64 / from.elapsed().as_secs_f64();
    eprintln!("{rate:.0} bare containers a second were made and ended here (100 are asked for)");
    let _ = std::fs::remove_dir(&parent);
    agent.wait_until("every one is known and gone", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        let gone = |i: &usize| {
            let mine = |c: &&Value| c["container_id"] == id(*i).as_str();
            all.iter().find(mine).is_some_and(|c| c["state"] == "gone")
        };
        (0..CONTAINERS).filter(gone).count() == CONTAINERS
    });
    let execs = agent.plimsoll(&["events", "--kind", "exec", "--limit", "100000"]);
    let execs: Vec<String> = execs
        .unwrap_or_default()
        .iter()
        .filter_map(|e| e["container"]["container_id"].as_str().map(str::to_owned))
        .collect();
    let without: Vec<usize> = (0..CONTAINERS)
        .filter(|i| !execs.contains(&id(*i)))
        .collect();
    assert!(without.is_empty(), "no program seen in {without:?}");
}

#[test]
fn a_kernel_without_type_information_is_said_with_what_is_needed() {
    if docker_socket().is_none() {
        return;
    }
    let _one = alone();
    let dir = tempfile::tempdir().expect("a directory");
    let hidden = |args: &[&str]| {
        let plain = command(dir.path());
        let hide = "mount -t tmpfs none /sys/kernel/btf && exec \"$@\"";
        Command::new("unshare")
            .args([
                "--mount",
                "--propagation",
                "private",
                "sh",
                "-c",
                hide,
                "sh",
            ])
            .arg(plain.get_program())
            .args(plain.get_args())
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("unshare is there")
    };
    let ran = hidden(&["run"]);
    let said = String::from_utf8_lossy(&ran.stderr);
    assert_eq!(ran.status.code(), Some(1), "{said}");
    assert!(
        said.contains("BTF") && said.contains("CONFIG_DEBUG_INFO_BTF"),
        "{said}"
    );
    let doctor = hidden(&["doctor"]);
    let said = String::from_utf8_lossy(&doctor.stdout);
    assert_eq!(doctor.status.code(), Some(1), "{said}");
    assert!(said.contains("BTF"), "{said}");
}
