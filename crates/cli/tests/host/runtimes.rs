//! Containers of runtimes other than Docker: containerd by itself, Podman, runtimes on one cgroup
//! hierarchy only.

use crate::{Agent, alone, docker_socket};
use serde_json::Value;
use std::process::{Command, Output, Stdio};

/// `ctr` on the private containerd, in a namespace of this run.
struct Ctr {
    socket: String,
    namespace: String,
}

impl Ctr {
    fn new() -> Self {
        Ctr {
            socket: std::env::var("PLIMSOLL_TEST_CONTAINERD_SOCK")
                .expect("scripts/test sets the socket of containerd"),
            namespace: format!("plimsoll-{}", std::process::id()),
        }
    }
    fn run(&self, args: &[&str]) -> Output {
        Command::new("ctr")
            .args(["-a", &self.socket, "-n", &self.namespace])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("run ctr")
    }
    fn must(&self, args: &[&str]) -> String {
        let out = self.run(args);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "ctr {args:?}: {said}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
    fn import(&self, agent: &Agent, image: &str) {
        let tar = agent.dir.path().join("image.tar");
        let tar = tar.to_str().expect("a path of ours");
        agent.docker(&["save", "-o", tar, image]);
        self.must(&["images", "import", "--snapshotter", "native", tar]);
    }
}

impl Drop for Ctr {
    fn drop(&mut self) {
        let list = |args: &[&str]| -> Vec<String> {
            let out = self.run(args);
            let text = String::from_utf8_lossy(&out.stdout).into_owned();
            text.lines().map(str::to_owned).collect()
        };
        for task in list(&["tasks", "ls", "-q"]) {
            self.run(&["tasks", "rm", "--force", &task]);
        }
        for container in list(&["containers", "ls", "-q"]) {
            self.run(&["containers", "rm", &container]);
        }
        for image in list(&["images", "ls", "-q"]) {
            self.run(&["images", "rm", "--sync", &image]);
        }
    }
}

/// The record of a container by name, gone or not.
fn named(agent: &Agent, name: &str) -> Option<Value> {
    let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
    all.into_iter().find(|c| c["name"] == name)
}

#[test]
fn what_changes_of_a_running_docker_container_is_known() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let network = format!("joined-{}", std::process::id());
    let image = "plimsoll-test/busybox:1";
    agent.docker(&["run", "-d", "--name", "joins", image, "sleep", "600"]);
    let addresses = |name: &str| -> Vec<String> {
        let container = named(&agent, name).unwrap_or_default();
        let all = container["addresses"].as_array().cloned();
        let text = |v: Value| v.as_str().map(str::to_owned);
        all.into_iter().flatten().filter_map(text).collect()
    };
    agent.wait_until("its address is known", || addresses("joins").len() == 1);
    agent.docker(&["rename", "joins", "joined"]);
    agent.docker(&["network", "create", &network]);
    agent.docker(&["network", "connect", &network, "joined"]);
    let of_network = [
        "inspect",
        "-f",
        "{{range .NetworkSettings.Networks}}{{.IPAddress}} {{end}}",
        "joined",
    ];
    let said = agent.docker(&of_network);
    let mut all: Vec<&str> = said.split_whitespace().collect();
    all.sort_unstable();
    agent.wait_until("the other address is known under the other name", || {
        let mut known = addresses("joined");
        known.sort_unstable();
        known == all
    });
    agent.docker(&["network", "disconnect", &network, "joined"]);
    agent.wait_until("it is gone again", || addresses("joined").len() == 1);
    agent.docker(&["rm", "-f", "joined"]);
    agent.docker(&["network", "rm", &network]);
}

#[test]
fn a_container_of_containerd_has_the_digest_of_its_image_configuration() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let ctr = Ctr::new();
    let image = "plimsoll-test/busybox:1";
    ctr.import(&agent, image);
    let id = agent.docker(&["image", "inspect", "-f", "{{.Id}}", image]);
    let reference = format!("docker.io/{image}");
    let name = format!("ctr-{}", std::process::id());
    let labels = [
        ("io.kubernetes.pod.name", "till-0"),
        ("io.kubernetes.pod.namespace", "shop"),
        ("io.kubernetes.container.name", "till"),
    ];
    let labels: Vec<String> = labels.iter().map(|(k, v)| format!("{k}={v}")).collect();
    let mut run = vec!["run", "--rm", "--snapshotter", "native"];
    run.extend(labels.iter().flat_map(|l| ["--label", l.as_str()]));
    let attack = "cp /bin/busybox /tmp/dropped; /tmp/dropped true; sleep 1";
    run.extend([&reference, &name, "sh", "-c", attack]);
    ctr.must(&run);

    agent.wait_until("the alert is there", || {
        let all = agent.alerts("till");
        all.iter().any(|a| a.to_string().contains("/tmp/dropped"))
    });
    let container = named(&agent, "till").expect("its record");
    assert_eq!(container["runtime"], "containerd", "{container}");
    assert_eq!(container["container_id"], name, "{container}");
    assert_eq!(container["image"], reference, "{container}");
    assert_eq!(container["image_digest"], id.trim(), "{container}");
    assert_eq!(container["pod"], "till-0", "{container}");
    assert_eq!(container["namespace"], "shop", "{container}");
    assert_eq!(container["role"], "till", "{container}");
    assert_eq!(container["unknown_because"], Value::Null, "{container}");
    assert_ne!(container["manifest_digest"], Value::Null, "{container}");
    let alert = agent.alerts("till").pop().expect("an alert");
    assert_eq!(
        alert["output_fields"]["container.image.repository"], "docker.io/plimsoll-test/busybox",
        "{alert}"
    );
}

#[test]
fn a_rule_knows_the_labels_of_the_pod_that_a_container_of_containerd_is_in() {
    let _one = alone();
    let Some(agent) = crate::rules::with_pod_rules() else {
        return;
    };
    let ctr = Ctr::new();
    let image = "plimsoll-test/busybox:1";
    ctr.import(&agent, image);
    let reference = format!("docker.io/{image}");
    let pid = std::process::id();
    let (sandbox, till) = (format!("sandbox-{pid}"), format!("till-{pid}"));
    let run = |options: &[&str], labels: &[String], name: &str, work: &[&str]| {
        let mut args = vec!["run", "--snapshotter", "native"];
        args.extend(options);
        args.extend(labels.iter().map(String::as_str));
        args.extend([reference.as_str(), name]);
        args.extend(work);
        ctr.must(&args);
    };
    // as containerd's CRI starts a pod: labels of the sandbox are labels of its record
    let of_sandbox = ["io.cri-containerd.kind=sandbox", "app=till", "tier=front"];
    let uid = format!("plimsoll-{pid}");
    let labels = crate::rules::of_pod(&uid, &of_sandbox);
    // without null-io its output would be waited for
    run(&["-d", "--null-io"], &labels, &sandbox, &["sleep", "600"]);
    agent.wait_until("the sandbox is known", || {
        let all = agent.plimsoll(&["containers"]).unwrap_or_default();
        let of = |c: &Value| c["container_id"] == sandbox.as_str();
        all.iter().any(|c| of(c) && c["labels"]["app"] == "till")
    });
    let labels = crate::rules::of_pod(&uid, &["io.cri-containerd.kind=container"]);
    // labels of its own record, too, come with containerd's answer
    let again = "while :; do /bin/busybox true; sleep 0.3; done";
    run(&["-d", "--null-io"], &labels, &till, &["sh", "-c", again]);
    agent.wait_until("the rule fires", || {
        agent.alerts("Till of the front").iter().any(|a| {
            let fields = &a["output_fields"];
            fields["k8s.pod.labels"] == "app:till, tier:front"
                && fields["k8s.pod.full_sandbox_id"] == sandbox.as_str()
        })
    });
}

#[test]
fn a_container_of_containerd_that_lives_for_an_instant_has_its_image() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let ctr = Ctr::new();
    let image = "plimsoll-test/busybox:1";
    ctr.import(&agent, image);
    let id = agent.docker(&["image", "inspect", "-f", "{{.Id}}", image]);
    let reference = format!("docker.io/{image}");
    let names: Vec<String> = (0..3)
        .map(|i| format!("ctr-instant-{}-{i}", std::process::id()))
        .collect();
    for name in &names {
        ctr.must(&[
            "run",
            "--rm",
            "--snapshotter",
            "native",
            &reference,
            name,
            "true",
        ]);
    }
    agent.wait_until("all are known by their image", || {
        names.iter().all(|name| {
            named(&agent, name)
                .is_some_and(|c| c["image_digest"] == id.trim() && c["state"] == "gone")
        })
    });
}

/// Podman with its own storage, on whatever cgroups this machine has.
struct Podman {
    dir: tempfile::TempDir,
}

impl Podman {
    fn here() -> Option<Self> {
        let there = Command::new("podman").arg("--version").output().is_ok();
        if !there {
            eprintln!("left out: podman is not installed");
            return None;
        }
        // below the tests' directory: vfs storage copies images
        let base = std::env::var("PLIMSOLL_TEST_DOCKER_DIR").expect("scripts/test sets it");
        let dir = tempfile::tempdir_in(base).expect("a directory");
        Some(Podman { dir })
    }
    fn run(&self, args: &[&str]) -> String {
        let out = Command::new("podman")
            .arg("--root")
            .arg(self.dir.path().join("root"))
            .arg("--runroot")
            .arg(self.dir.path().join("run"))
            .args(["--storage-driver", "vfs", "--cgroup-manager", "cgroupfs"])
            .args(["--runtime", "runc"])
            .args(args)
            .stdin(Stdio::null())
            .output()
            .expect("run podman");
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "podman {args:?}: {said}");
        String::from_utf8_lossy(&out.stdout).into_owned()
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for end in [
            &["rm", "-f", "-t", "0", "--all"][..],
            &["rmi", "-f", "--all"],
        ] {
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.run(end)));
        }
    }
}

#[test]
fn a_container_of_podman_has_name_image_and_digest_and_raises_alerts() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let Some(podman) = Podman::here() else {
        return;
    };
    let _one = alone();
    let agent = Agent::start(docker);
    let image = "plimsoll-test/busybox:1";
    let tar = agent.dir.path().join("image.tar");
    let tar = tar.to_str().expect("a path of ours");
    agent.docker(&["save", "-o", tar, image]);
    let id = agent.docker(&["image", "inspect", "-f", "{{.Id}}", image]);
    podman.run(&["load", "-q", "-i", tar]);
    let name = format!("pod-{}", std::process::id());
    let limits = [
        "--ulimit",
        "nofile=1024:1024",
        "--ulimit",
        "nproc=1000:1000",
    ];
    let mut run = vec!["run", "-d", "--network", "none", "--name", &name];
    run.extend(limits);
    let work = "cp /bin/busybox /tmp/dropped; /tmp/dropped true; sleep 60";
    run.extend([image, "sh", "-c", work]);
    podman.run(&run);

    agent.wait_until("the alert is there", || {
        let all = agent.alerts(&name);
        all.iter().any(|a| a.to_string().contains("/tmp/dropped"))
    });
    let container = named(&agent, &name).expect("its record");
    assert_eq!(container["runtime"], "podman", "{container}");
    assert_eq!(
        container["image"],
        format!("localhost/{image}"),
        "{container}"
    );
    assert_eq!(container["image_digest"], id.trim(), "{container}");
    assert_eq!(container["unknown_because"], Value::Null, "{container}");
    podman.run(&["exec", &name, "sh", "-c", "echo in a session"]);
    agent.wait_until("the session is told from the service", || {
        let execs = agent
            .plimsoll(&["events", "--kind", "exec", "--container", &name])
            .unwrap_or_default();
        execs.iter().any(|e| {
            e.to_string().contains("in a session") && e.to_string().contains("exec_session")
        })
    });
    podman.run(&["rm", "-f", "-t", "0", &name]);
    agent.wait_until("it is known to be gone", || {
        named(&agent, &name).is_some_and(|c| c["state"] == "gone")
    });
}

/// A container of crun in one cgroup hierarchy only (`v1` or `v2`).
fn crun(cgroups: &str, dir: &std::path::Path, name: &str, work: &str) {
    let lib = std::env::var("PLIMSOLL_TEST_LIB").expect("scripts/test sets it");
    let bundle = dir.join(name);
    let made = Command::new(format!("{lib}/images"))
        .arg("bundle")
        .arg(&bundle)
        .args(["sh", "-c", work])
        .status()
        .expect("make a bundle");
    assert!(made.success());
    let out = Command::new(std::env::var("PLIMSOLL_TEST_CRUN").expect("scripts/test sets it"))
        .env("PLIMSOLL_TEST_CGROUPS", cgroups)
        .arg("--root")
        .arg(dir.join("crun"))
        .args(["run", "--bundle"])
        .arg(&bundle)
        .arg(name)
        .stdin(Stdio::null())
        .output()
        .expect("run crun");
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "crun {cgroups}: {said}");
}

#[test]
fn a_runtime_that_fills_one_hierarchy_only_is_seen_whichever_it_is() {
    let Some(docker) = docker_socket() else {
        return;
    };
    if !std::path::Path::new("/sys/fs/cgroup/pids").exists() {
        eprintln!("left out: this machine has no cgroup v1 hierarchy");
        return;
    }
    let _one = alone();
    let agent = Agent::start(docker);
    let dir = tempfile::tempdir().expect("a directory");
    let work = "cp /bin/busybox /tmp/dropped; /tmp/dropped true; sleep 0.3";
    for cgroups in ["v1", "v2"] {
        let name = format!("one-{cgroups}-{}", std::process::id());
        crun(cgroups, dir.path(), &name, work);
        agent.wait_until("it is alerted about", || {
            let all = agent.alerts(&name);
            all.iter().any(|a| a.to_string().contains("/tmp/dropped"))
        });
        let of = |c: &Value| c["container_id"] == name.as_str();
        agent.wait_until("it is known and gone, once", || {
            let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
            let mine: Vec<&Value> = all.iter().filter(|c| of(c)).collect();
            mine.len() == 1 && mine[0]["state"] == "gone"
        });
    }
    // and one that fills both is one container
    agent.docker(&[
        "run",
        "--rm",
        "--name",
        "host-both",
        "plimsoll-test/busybox:1",
        "true",
    ]);
    agent.wait_until("Docker's is known and gone, once", || {
        let all = agent.plimsoll(&["containers", "--all"]).unwrap_or_default();
        let mine: Vec<&Value> = all.iter().filter(|c| c["name"] == "host-both").collect();
        mine.len() == 1 && mine[0]["state"] == "gone"
    });
}
