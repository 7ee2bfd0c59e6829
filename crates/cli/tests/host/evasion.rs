//! Nothing evaded: every technique of the table, done in a container of its own by a small program,
//! and held against what the agent recorded. `docs/evasion.md` is the same table for people.

#[path = "evasion/page.rs"]
mod page;
#[path = "evasion/table.rs"]
mod table;

use crate::{Agent, ONE, docker_socket};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use table::{Answer, Field, How, Scenario, TABLE, Want};

fn env(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("scripts/test sets {name}"))
}

fn run(program: &str, args: &[&str]) {
    let out = Command::new(program)
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap_or_else(|e| panic!("{program}: {e}"));
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{program} {args:?}: {said}");
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a path of ours")
}

/// What the containers of this test share: a layer with the programs over busybox, and a configuration.
struct Stage {
    dir: tempfile::TempDir,
    config: Value,
}

/// What an attacker with a careless configuration has; every machine that runs these tests has them.
const CAPABILITIES: &[&str] = &[
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_DAC_READ_SEARCH",
    "CAP_FOWNER",
    "CAP_KILL",
    "CAP_MKNOD",
    "CAP_NET_ADMIN",
    "CAP_NET_BIND_SERVICE",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SYS_ADMIN",
    "CAP_SYS_CHROOT",
    "CAP_SYS_PTRACE",
];

impl Stage {
    fn new() -> Self {
        // overlayfs wants a plain file system below it, which /tmp may not be
        let dir = tempfile::tempdir_in(env("PLIMSOLL_TEST_DOCKER_DIR")).expect("a directory");
        let layer = dir.path().join("layer");
        for d in ["bin", "etc", "lib", "lib64", "tmp"] {
            std::fs::create_dir_all(layer.join(d)).expect("make a directory");
        }
        let acts = PathBuf::from(env("PLIMSOLL_TEST_LIB")).join("../acts");
        let build = |to: &str, from: &str, more: &[&str]| {
            let (to, from) = (layer.join(to), acts.join(from));
            let mut args = vec!["-O1", "-pthread", "-o", text(&to), text(&from)];
            args.extend(more);
            run("cc", &args);
        };
        build("bin/acts", "acts.c", &["-static"]);
        build("bin/dynamic", "acts.c", &[]);
        build(
            "bin/bare",
            "bare.c",
            &["-static", "-nostdlib", "-fno-stack-protector"],
        );
        build("lib/preload.so", "preload.c", &["-shared", "-fPIC"]);
        std::fs::copy(layer.join("bin/acts"), layer.join("bin/victim")).expect("copy");
        std::fs::write(layer.join("etc/hostname-of-mine"), "mine\n").expect("write");
        loader_and_library(&layer);
        let bundle = dir.path().join("template");
        run(
            &format!("{}/images", env("PLIMSOLL_TEST_LIB")),
            &["bundle", text(&bundle), "true"],
        );
        let config = std::fs::read(bundle.join("config.json")).expect("a configuration");
        Stage {
            config: serde_json::from_slice(&config).expect("JSON"),
            dir,
        }
    }

    /// The configuration of one container.
    fn config(&self, rootfs: &Path, argv: &[&str]) -> Value {
        let mut config = self.config.clone();
        config["process"]["args"] = json!(argv);
        config["root"]["path"] = json!(rootfs);
        for set in ["bounding", "effective", "permitted"] {
            config["process"]["capabilities"][set] = json!(CAPABILITIES);
        }
        // a careless one shows the host's cgroups, and what is read-only elsewhere is not
        let namespaces = config["linux"]["namespaces"]
            .as_array_mut()
            .expect("namespaces");
        namespaces.retain(|n| n["type"] != "cgroup");
        config["mounts"]
            .as_array_mut()
            .expect("mounts")
            .push(json!({
                "destination": "/run/docker.sock", "type": "bind", "options": ["bind", "rw"],
                "source": env("PLIMSOLL_TEST_DOCKER_SOCK"),
            }));
        config
    }

    /// Runs one container to its end; what it said when it could not do its act.
    fn run(&self, id: &str, argv: &[&str]) -> Result<(), String> {
        let own = self.dir.path().join(id);
        for d in ["upper", "work", "rootfs"] {
            std::fs::create_dir_all(own.join(d)).expect("make a directory");
        }
        let rootfs = own.join("rootfs");
        let layers = format!(
            "lowerdir={}:{},upperdir={},workdir={}",
            text(&self.dir.path().join("layer")),
            env("PLIMSOLL_TEST_ROOTFS"),
            text(&own.join("upper")),
            text(&own.join("work")),
        );
        run(
            "mount",
            &["-t", "overlay", "-o", &layers, "overlay", text(&rootfs)],
        );
        let config = self.config(&rootfs, argv).to_string();
        std::fs::write(own.join("config.json"), config).expect("write the configuration");
        let out = Command::new(env("PLIMSOLL_TEST_CRUN"))
            .arg("--root")
            .arg(self.dir.path().join("crun"))
            .args(["run", "--bundle", text(&own), id])
            .stdin(Stdio::null())
            .output()
            .expect("run crun");
        run("umount", &["-l", text(&rootfs)]);
        let _ = std::fs::remove_dir_all(&own);
        match out.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&out.stderr).into_owned()),
        }
    }
}

/// The loader and the C library of this machine, for the dynamic program.
fn loader_and_library(layer: &Path) {
    let out = Command::new("ldd").arg(layer.join("bin/dynamic")).output();
    let listed = String::from_utf8_lossy(&out.expect("ldd is there").stdout).into_owned();
    let files = listed.split_whitespace().filter(|w| w.starts_with('/'));
    for file in files {
        let at = layer.join(file.trim_start_matches('/'));
        std::fs::create_dir_all(at.parent().expect("a directory")).expect("make a directory");
        std::fs::copy(file, &at).expect("copy a library");
        if file.contains("/ld-") {
            std::fs::copy(file, layer.join("tmp/ld.so")).expect("copy the loader");
        }
    }
}

impl Field {
    fn holds(&self, event: &Value) -> bool {
        let found = match event.pointer(self.at) {
            Some(Value::String(s)) => s.clone(),
            Some(Value::Null) | None => return false,
            Some(other) => other.to_string(),
        };
        match self.want {
            Want::Is(w) => found == w,
            Want::Ends(w) => found.ends_with(w),
            Want::Has(w) => found.contains(w),
        }
    }
}

/// What was recorded about one container, and what doctor says.
struct Record<'a> {
    events: &'a [Value],
    alerts: &'a [Value],
    doctor: &'a [Value],
}

impl Record<'_> {
    fn times(&self, kind: &str, fields: &[Field]) -> u64 {
        let matches = |e: &&Value| e["kind"] == kind && fields.iter().all(|f| f.holds(e));
        let of = self.events.iter().filter(matches);
        of.map(|e| e["count"].as_u64().unwrap_or(1).max(1)).sum()
    }

    fn states(&self, [row, words]: [&str; 2]) -> bool {
        let row = self.doctor.iter().find(|r| r["name"] == row);
        row.is_some_and(|r| r["cost"].as_str().is_some_and(|c| c.contains(words)))
    }

    fn holds(&self, answer: &Answer) -> bool {
        match answer {
            Answer::Seen(kind, fields) => self.times(kind, fields) > 0,
            Answer::Times(n, kind, fields) => self.times(kind, fields) == *n,
            Answer::Limit(kind, fields, says) => {
                self.times(kind, fields) == 0 && self.states(*says)
            }
            Answer::Stated(says) => self.states(*says),
            Answer::Alerted(what) => self.alerts.iter().any(|a| a.to_string().contains(what)),
            Answer::MadeBy(word) => self.made_by(word),
            Answer::Told(_) => true,
        }
    }

    fn made_by(&self, word: &str) -> bool {
        let exec = self
            .events
            .iter()
            .find(|e| e["kind"] == "exec" && e["detail"]["argv"].to_string().contains(word));
        let fork = |child: &Value| {
            self.events
                .iter()
                .find(|e| e["kind"] == "fork" && e["detail"]["child_pid"] == *child)
        };
        exec.is_some_and(|e| fork(&e["pid"]).is_some_and(|f| e["lineage"][1]["pid"] == f["pid"]))
    }

    /// The answers that were not given, with what there was instead.
    fn missing(&self, s: &Scenario) -> Option<String> {
        let not: Vec<String> = s
            .answers
            .iter()
            .filter(|a| !self.holds(a))
            .map(page::answer)
            .collect();
        let shown = |e: &Value| format!("    {} {} {}", e["kind"], e["detail"], e["comm"]);
        let mut lines: Vec<String> = self.events.iter().map(shown).collect();
        lines.retain(|l| !l.contains("\"syscall\""));
        lines.truncate(40);
        (!not.is_empty()).then(|| {
            format!(
                "{}: no {}\n  of {} alerts and {} events:\n{}",
                s.name,
                not.join("; no "),
                self.alerts.len(),
                self.events.len(),
                lines.join("\n")
            )
        })
    }
}

fn by_container(all: Vec<Value>, pointer: &str) -> HashMap<String, Vec<Value>> {
    let mut map: HashMap<String, Vec<Value>> = HashMap::new();
    for value in all {
        let id = value.pointer(pointer).and_then(Value::as_str);
        if let Some(id) = id.map(str::to_owned) {
            map.entry(id).or_default().push(value);
        }
    }
    map
}

fn argv(how: &How) -> Option<Vec<&'static str>> {
    match how {
        How::Act(name) => Some(vec!["/bin/acts", name]),
        How::Shell(line) => Some(vec!["sh", "-c", line]),
        How::Test(_) => None,
    }
}

#[test]
fn every_evasion_of_the_table_gives_its_answer() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let stage = Stage::new();
    let agent = Agent::start(docker);
    let only = std::env::var("PLIMSOLL_EVASION").ok();
    let wanted = |s: &&Scenario| only.as_ref().is_none_or(|o| s.name.contains(o.as_str()));
    // alerts carry the first twelve characters of an id
    let id = |s: &Scenario| {
        let n = TABLE
            .iter()
            .position(|t| t.name == s.name)
            .expect("of the table");
        format!("{n:03}{:08}x{}", std::process::id(), s.name)
    };
    let mut failed = Vec::new();
    let mut done = Vec::new();
    if cfg!(not(target_arch = "x86_64")) {
        eprintln!("left out: 32-bit calls, which this architecture has no table of ours for");
    }
    let possible = |s: &&Scenario| cfg!(target_arch = "x86_64") || !s.name.starts_with("compat");
    for s in TABLE.iter().filter(possible).filter(wanted) {
        let Some(argv) = argv(&s.how) else {
            done.push(s); // what doctor must say of it is checked here, the rest in its own test
            continue;
        };
        match stage.run(&id(s), &argv) {
            Ok(()) => done.push(s),
            Err(said) => failed.push(format!("{}: was not done: {said}", s.name)),
        }
    }
    let doctor = agent.plimsoll(&["doctor"]).unwrap_or_default();
    let end = Instant::now() + Duration::from_secs(60);
    let mut missing = Vec::new();
    // what is not there yet may still come; limits are only judged by what is there at the end
    while Instant::now() < end {
        let events = agent.plimsoll(&["events"]).unwrap_or_default();
        let events = by_container(events, "/container/container_id");
        let alerts = agent.plimsoll(&["alerts"]).unwrap_or_default();
        let alerts = by_container(alerts, "/output_fields/container.id");
        let look = |s: &&Scenario| {
            let of =
                |m: &HashMap<String, Vec<Value>>, id: &str| m.get(id).cloned().unwrap_or_default();
            let id = id(s);
            let (events, alerts) = (of(&events, &id), of(&alerts, &id[..12]));
            Record {
                events: &events,
                alerts: &alerts,
                doctor: &doctor,
            }
            .missing(s)
        };
        missing = done.iter().filter_map(look).collect();
        if missing.is_empty() {
            break;
        }
        std::thread::sleep(Duration::from_secs(3));
    }
    failed.extend(missing);
    let gaps = agent.plimsoll(&["gaps"]).unwrap_or_default();
    assert!(
        failed.is_empty(),
        "{} of {} scenarios:\n{}\ngaps: {gaps:?}",
        failed.len(),
        done.len(),
        failed.join("\n")
    );
}

fn field<'a>(v: &'a Value, at: &str) -> &'a str {
    v.pointer(at).and_then(Value::as_str).unwrap_or_default()
}

/// Executions in a container whose arguments have this word.
fn execs(agent: &Agent, container: &str, word: &str) -> Vec<Value> {
    let args = ["events", "--kind", "exec", "--container", container];
    let mut all = agent.plimsoll(&args).unwrap_or_default();
    all.retain(|e| e["detail"]["argv"].to_string().contains(word));
    all
}

#[test]
fn a_session_of_the_runtime_and_a_process_from_the_host_are_told_apart() {
    let Some(docker) = docker_socket() else {
        return;
    };
    let _one = ONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    let agent = Agent::start(docker);
    let name = format!("entered-{}", std::process::id());
    let image = "plimsoll-test/debian:1";
    agent.docker(&["run", "-d", "--rm", "--name", &name, image, "sleep", "300"]);
    let pid = agent.docker(&["inspect", "-f", "{{.State.Pid}}", &name]);
    agent.wait_until("its first program is seen", || {
        !execs(&agent, &name, "sleep").is_empty()
    });
    agent.docker(&["exec", &name, "sh", "-c", "cat /etc/hostname; : by-runtime"]);
    // namespaces only: no cgroup of the container is entered
    let enter = ["-t", pid.trim(), "-m", "-p", "sh", "-c"];
    run(
        "nsenter",
        &[&enter[..], &["cat /etc/hosts; : by-host"]].concat(),
    );
    agent.wait_until("both are seen", || {
        let found = |w| !execs(&agent, &name, w).is_empty();
        found("by-runtime") && found("by-host") && found("/etc/hosts")
    });
    let first = &execs(&agent, &name, "sleep")[0];
    let session = &execs(&agent, &name, "by-runtime")[0];
    let entered = &execs(&agent, &name, "by-host")[0];
    let entry = "/lineage/0/entry";
    assert_eq!(field(first, entry), "init", "{first}");
    assert_eq!(field(session, entry), "exec_session", "{session}");
    assert_eq!(field(entered, entry), "host", "{entered}");
    // neither descends from the container's own first program
    for e in [session, entered] {
        assert!(!e["lineage"].to_string().contains("sleep"), "{e}");
    }
    let below = &execs(&agent, &name, "/etc/hosts")[0];
    assert_eq!(field(below, entry), "host", "inherited: {below}");
    agent.docker(&["rm", "-f", &name]);
}
