//! A capture of a real container holds, byte for byte, what an attacker dropped and deleted, and the
//! files, logs and descriptions around it; one of a container that has ended holds what is left.

use crate::docker_socket;
use crate::effects::{machine, target, words};
use plimsoll_agent::respond::act::{Action, Machine, Target, perform};
use plimsoll_agent::respond::capture::{self, Masks};
use plimsoll_model::response::StepOutcome;
use plimsoll_workload::Redactor;
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// What the attacker does: a program that deletes itself, files on disk and in memory, traps.
const ATTACK: &str = "cp /bin/sleep /root/dropped; /root/dropped 600 & \
    until [ \"$(readlink /proc/$!/exe)\" = /root/dropped ]; do sleep 0.1; done; rm /root/dropped; \
    rm /etc/debian_version; echo loot >/root/note; echo loot >/scratch/note; mkfifo /root/trap; \
    ln -s /etc/shadow /root/way-out; ln -s loop /root/loop; touch /root/ready; wait";

/// A container of our own, removed with the test.
struct Ours {
    docker: String,
    name: String,
}

impl Ours {
    fn docker(&self, args: &[&str]) -> String {
        let mut run = Command::new("docker");
        run.arg("-H").arg(format!("unix://{}", self.docker));
        let out = run.args(args).output().expect("run docker");
        let said = String::from_utf8_lossy(&out.stderr).into_owned();
        assert!(out.status.success(), "docker {args:?}: {said}");
        String::from_utf8_lossy(&out.stdout).trim().to_owned()
    }
    fn inspect(&self, format: &str) -> String {
        self.docker(&["inspect", "-f", format, &self.name])
    }
    fn pid(&self) -> u32 {
        self.inspect("{{.State.Pid}}").parse().expect("a pid")
    }
}

impl Drop for Ours {
    fn drop(&mut self) {
        let mut rm = Command::new("docker");
        rm.arg("-H").arg(format!("unix://{}", self.docker));
        let _ = rm.args(["rm", "-f", &self.name]).output();
    }
}

/// Captures, verifies; members and manifest.
fn captured(machine: &Machine, target: &Target) -> (BTreeMap<String, Vec<u8>>, Value) {
    let action = Action::Capture {
        deadline: Duration::from_secs(120),
        memory: false,
    };
    let outcome = perform(machine, target, &action);
    let StepOutcome::Done {
        sealed: Some(name), ..
    } = &outcome
    else {
        panic!("{}", words(&outcome));
    };
    let path = machine.captures_dir.join(name);
    let manifest = capture::verify_file(&path, None).expect("it verifies");
    (members(&path), manifest)
}

fn members(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let file = std::fs::File::open(path).expect("open");
    let mut archive = tar::Archive::new(file);
    let entries = archive.entries().expect("tar");
    let read = entries.map(|entry| {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("read");
        (name, data)
    });
    read.collect()
}

fn text(members: &BTreeMap<String, Vec<u8>>, end: &str) -> String {
    let of = members.iter().filter(|(name, _)| name.ends_with(end));
    of.map(|(_, data)| String::from_utf8_lossy(data)).collect()
}

#[test]
fn a_capture_holds_what_was_deleted_and_what_was_written_byte_for_byte() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let ours = Ours {
        docker: docker.clone(),
        name: format!("capture-{}", std::process::id()),
    };
    let secret = "hunter2-of-the-shop";
    let variable = format!("DB_PASSWORD={secret}");
    ours.docker(&[
        "run",
        "-d",
        "--name",
        &ours.name,
        "-e",
        &variable,
        "--tmpfs",
        "/scratch",
        "plimsoll-test/debian:1",
        "sh",
        "-c",
        "echo hello-from-inside; exec sleep 600",
    ]);
    let pid = ours.pid();
    let program = std::fs::read(format!("/proc/{pid}/root/bin/sleep")).expect("the program");
    // not waited for: where a policy pauses the container, that would never return
    ours.docker(&["exec", "-d", &ours.name, "sh", "-c", ATTACK]);
    let ready = format!("/proc/{pid}/root/root/ready");
    let end = Instant::now() + Duration::from_secs(120);
    while !Path::new(&ready).exists() {
        assert!(Instant::now() < end, "timed out waiting for the attack");
        std::thread::sleep(Duration::from_millis(50));
    }
    let mut target = target(&ours.inspect("{{.Id}}"), pid, None);
    let machine = Machine {
        docker_sockets: vec![docker.into()],
        masks: Masks::new(Redactor::new([7; 32], true)),
        ..machine(dir.path())
    };
    let (files, manifest) = captured(&machine, &target);
    let recovered = |name: &str| name.ends_with("/recovered/exe");
    let exe = files.iter().find(|(name, _)| recovered(name));
    let (_, exe) = exe.expect("the deleted program");
    assert!(*exe == program, "the deleted program, byte for byte");
    assert_eq!(text(&files, "scratch/files/note"), "loot\n", "{manifest}");
    assert!(text(&files, "runtime/log-0").contains("hello-from-inside"));
    for name in ["inspect.json", "config.json", "image.json"] {
        let said = text(&files, name);
        assert!(!said.is_empty(), "{name}: {}", manifest["gaps"]);
        assert!(!said.contains(secret), "{name}: its secret is masked");
    }
    assert!(text(&files, "identity.json").contains("boot_id"));
    assert!(text(&files, "programs.jsonl").contains("sha256"));
    assert_eq!(manifest["about"]["ending"], false);
    let overlay = ours.inspect("{{.GraphDriver.Name}}").contains("overlay");
    if overlay {
        layer_is_kept(&files, &manifest);
    } else {
        eprintln!("left out: the writable layer, since the storage driver is no overlay");
    }

    // killed: what is left is its layer, its log and its description
    ours.docker(&["kill", &ours.name]);
    let container = std::sync::Arc::make_mut(&mut target.container);
    container.state = plimsoll_model::ContainerState::Gone;
    let (files, manifest) = captured(&machine, &target);
    assert_eq!(manifest["about"]["ending"], true);
    assert!(text(&files, "runtime/log-0").contains("hello-from-inside"));
    if overlay {
        layer_is_kept(&files, &manifest);
    }
}

#[test]
fn a_container_that_is_being_stopped_gives_its_perishable_things_first() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let ours = Ours {
        docker: docker.clone(),
        name: format!("capture-stop-{}", std::process::id()),
    };
    // its first process does not end at SIGTERM: the daemon waits, and says that it is running
    let work =
        "cp /bin/sleep /tmp/x; exec 3</tmp/x; rm /tmp/x; /proc/self/fd/3 600 & exec sleep 600";
    let image = "plimsoll-test/debian:1";
    ours.docker(&["run", "-d", "--name", &ours.name, image, "sh", "-c", work]);
    let pid = ours.pid();
    let target = target(&ours.inspect("{{.Id}}"), pid, None);
    let machine = Machine {
        docker_sockets: vec![docker.clone().into()],
        ..machine(dir.path())
    };
    let order = |files: &[String], what: &str| files.iter().position(|n| n.contains(what));
    let all = || {
        let deadline = Duration::from_secs(60);
        let capture = Action::Capture {
            deadline,
            memory: true,
        };
        let sealed = perform(&machine, &target, &capture);
        assert!(sealed.is_done(), "{sealed:?}");
        let StepOutcome::Done {
            sealed: Some(name), ..
        } = sealed
        else {
            panic!("{sealed:?}")
        };
        let manifest = capture::verify_file(&machine.captures_dir.join(name), None);
        let manifest = manifest.expect("it verifies");
        let list = manifest["artefacts"].as_array().expect("a list");
        let names = list
            .iter()
            .map(|a| a["name"].as_str().expect("a name").to_owned());
        (
            manifest["about"]["ending"].clone(),
            names.collect::<Vec<_>>(),
        )
    };
    let (ending, files) = all();
    assert_eq!(ending, false);
    assert!(
        order(&files, "/memory/") < order(&files, "programs.jsonl"),
        "{files:?}"
    );
    let mut stopping = std::process::Command::new("docker")
        .args([
            "-H",
            &format!("unix://{docker}"),
            "stop",
            "-t",
            "300",
            &ours.name,
        ])
        .stdout(std::process::Stdio::null())
        .spawn()
        .expect("run docker");
    let end = Instant::now() + Duration::from_secs(120);
    let mut ending = (Value::Null, Vec::new());
    while ending.0 != true {
        assert!(Instant::now() < end, "the daemon was not asked to stop it");
        ending = all();
    }
    assert_eq!(ours.inspect("{{.State.Status}}"), "running");
    let files = ending.1;
    let (exe, memory) = (order(&files, "/recovered/"), order(&files, "/memory/"));
    assert!(exe.is_some() && exe < memory, "{files:?}");
    assert!(order(&files, "programs.jsonl") < memory, "{files:?}");
    ours.docker(&["kill", &ours.name]);
    stopping.wait().expect("docker stop ends");
}

fn layer_is_kept(files: &BTreeMap<String, Vec<u8>>, manifest: &Value) {
    let gaps = &manifest["gaps"];
    assert_eq!(text(files, "layer/files/root/note"), "loot\n", "{gaps}");
    let list = text(files, "layer/list.jsonl-0");
    let of = |path: &str| -> Value {
        let with = format!("\"path\":\"{path}\"");
        let line = list.lines().find(|l| l.contains(&with));
        serde_json::from_str(line.expect(path)).expect("JSON")
    };
    assert_eq!(of("etc/debian_version")["whiteout"], true);
    assert_eq!(of("root/trap")["kind"], "fifo");
    assert_eq!(of("root/way-out")["link"], "/etc/shadow");
    assert!(text(files, "layer/bodyfile-0").contains("|/root/note|"));
    assert!(
        !files.keys().any(|n| n.ends_with("way-out")),
        "not followed"
    );
}
