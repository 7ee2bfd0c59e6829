//! Containers of runtimes other than Docker: containerd by itself, Podman, runtimes on one cgroup
//! hierarchy only.

use crate::{Agent, ONE, docker_socket};
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
fn a_container_of_containerd_has_the_digest_of_its_image_configuration() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
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
fn a_container_of_containerd_that_lives_for_an_instant_has_its_image() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
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
