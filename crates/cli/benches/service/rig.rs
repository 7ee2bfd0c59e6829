//! The private Docker, the agent, and small arithmetic.

use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PLIMSOLL: &str = env!("CARGO_BIN_EXE_plimsoll");

/// A private Docker of this run.
pub(crate) struct Docker {
    pub(crate) dir: PathBuf,
    lib: PathBuf,
}

impl Docker {
    pub(crate) fn start() -> Self {
        let lib = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/host/lib");
        let dir = std::env::var("PLIMSOLL_BENCH_DIR").unwrap_or("/var/tmp/plimsoll-bench".into());
        let docker = Docker {
            dir: dir.into(),
            lib,
        };
        docker.helper("dockerd", &["start"], &docker.dir);
        docker.images(&[]);
        docker
    }
    /// Loads these test images; none: those that every part needs.
    pub(crate) fn images(&self, names: &[&str]) {
        let mut command = Command::new(self.lib.join("images"));
        command.arg("load").arg(self.dir.join("docker.sock"));
        let done = command.args(names).status();
        assert!(done.is_ok_and(|s| s.success()), "images load {names:?}");
    }
    fn helper(&self, tool: &str, args: &[&str], at: &Path) {
        let mut command = Command::new(self.lib.join(tool));
        let done = command.args(args).arg(at).status();
        assert!(done.is_ok_and(|s| s.success()), "{tool} {args:?}");
    }
    pub(crate) fn run(&self, args: &[&str]) -> String {
        let host = format!("unix://{}", self.dir.join("docker.sock").display());
        said(Command::new("docker").args(["-H", &host]).args(args))
    }
    /// Runs a program where the containers' addresses can be reached.
    pub(crate) fn enter(&self, args: &[&str]) -> String {
        said(
            Command::new(self.lib.join("dockerd"))
                .arg("enter")
                .arg(&self.dir)
                .args(args),
        )
    }
    /// An empty directory for one part.
    pub(crate) fn fresh(&self, part: &str) -> PathBuf {
        let dir = self.dir.join("bench").join(part);
        let _ = std::fs::remove_dir_all(&dir);
        std::fs::create_dir_all(&dir).expect("make a directory");
        dir
    }
    /// Starts this program as load in a container; `work` is its `/bench`.
    pub(crate) fn load(&self, name: &str, work: &Path, args: &[&str]) {
        let program = std::env::current_exe().expect("this program has a path");
        let (program, work) = (
            format!("{}:/load:ro", program.display()),
            format!("{}:/bench", work.display()),
        );
        let mut all = vec!["run", "-d", "--name", name, "-v", &program, "-v", &work];
        all.extend([super::DEBIAN, "/load", "--load"]);
        all.extend(args);
        self.run(&all);
    }
    /// A static program whose only acts are those that it counts: the acts of the host tests.
    pub(crate) fn acts(&self) -> PathBuf {
        let (from, to) = (self.lib.join("../acts/acts.c"), self.dir.join("bench/acts"));
        let mut cc = Command::new("cc");
        let built = cc
            .args(["-O2", "-static", "-pthread", "-o"])
            .arg(&to)
            .arg(from);
        assert!(built.status().is_ok_and(|s| s.success()), "cc");
        to
    }
    /// Does what was never done before in a container: so many acts a second, for so many seconds.
    pub(crate) fn novel(&self, name: &str, rate: u64, seconds: u64) -> Novel {
        let acts = format!("{}:/acts:ro", self.acts().display());
        let (rate, seconds) = (rate.to_string(), seconds.to_string());
        let run = [
            "run", "-d", "--name", name, "-v", &acts, "--tmpfs", "/bench",
        ];
        let what = [super::DEBIAN, "/acts", "novel", &rate, &seconds, "/bench"];
        self.run(&[&run[..], &what].concat());
        let said = self.ended(name);
        let words: Vec<&str> = said.split_whitespace().collect();
        let [acts, reached, core] = words[..] else {
            panic!("three numbers: {said}");
        };
        Novel {
            acts: acts.parse().expect("a number"),
            reached: reached.parse().expect("a number"),
            core: core.parse().expect("a number"),
        }
    }
    /// Waits for the end of a load, and returns what it said.
    pub(crate) fn ended(&self, name: &str) -> String {
        let code = self.run(&["wait", name]);
        let said = self.run(&["logs", name]);
        assert_eq!(code.trim(), "0", "{name}: {said}");
        self.run(&["rm", "-f", name]);
        said
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        let _ = Command::new(self.lib.join("dockerd"))
            .arg("stop")
            .arg(&self.dir)
            .status();
        let _ = std::fs::remove_dir_all(self.dir.join("bench"));
    }
}

fn said(command: &mut Command) -> String {
    let out = command.stdin(Stdio::null()).output().expect("start it");
    let errors = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {errors}");
    String::from_utf8_lossy(&out.stdout).into_owned()
}

/// What a container did that nobody had done before.
pub(crate) struct Novel {
    /// Every one of its acts: its start, what it did to files and whom it met, its end.
    pub(crate) acts: u64,
    /// Acts a second.
    pub(crate) reached: f64,
    /// What it took of a core, the programs that watched it included.
    pub(crate) core: f64,
}

/// Containers of crun alone.
pub(crate) struct Bare {
    crun: PathBuf,
    dir: PathBuf,
}

impl Bare {
    pub(crate) fn new(docker: &Docker, dir: &Path) -> Self {
        let bundle = |name: &str, command: &[&str]| {
            let mut images = Command::new(docker.lib.join("images"));
            let made = images.arg("bundle").arg(dir.join(name)).args(command);
            assert!(made.status().is_ok_and(|s| s.success()), "make a bundle");
        };
        bundle("short", &["true"]);
        bundle("long", &["sleep", "3600"]);
        Bare {
            crun: docker.lib.join("crun"),
            dir: dir.to_owned(),
        }
    }
    fn crun(&self, args: &[&str]) {
        let mut crun = Command::new(&self.crun);
        crun.arg("--root").arg(self.dir.join("state")).args(args);
        let done = crun.stdin(Stdio::null()).stdout(Stdio::null()).status();
        assert!(done.is_ok_and(|s| s.success()), "crun {args:?}");
    }
    /// Starts a container; one that stays goes on in the background.
    pub(crate) fn run(&self, name: &str, stays: bool) {
        let bundle = self.dir.join(if stays { "long" } else { "short" });
        let bundle = bundle.to_string_lossy();
        let detach: &[&str] = if stays { &["--detach"] } else { &[] };
        self.crun(&[&["run", "--bundle", &bundle], detach, &[name]].concat());
    }
    pub(crate) fn remove(&self, name: &str) {
        self.crun(&["delete", "--force", name]);
    }
}

/// A running agent.
pub(crate) struct Agent {
    pub(crate) dir: PathBuf,
    child: Child,
}

impl Agent {
    pub(crate) fn start(dir: &Path) -> Self {
        Self::with(dir, "")
    }
    pub(crate) fn with(dir: &Path, config: &str) -> Self {
        let text = format!("version: 1\n{config}");
        let config = dir.join("config.yaml");
        std::fs::write(&config, text).expect("write the configuration");
        // in a session of its own, as a service has one: it may be raised among the others
        let mut alone = Command::new("setsid");
        alone.arg(PLIMSOLL);
        let child = at(alone, dir)
            .arg("--config")
            .arg(&config)
            .arg("run")
            // nothing of it stays in the kernel when it is killed
            .args(["--pins", "off"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start the agent");
        let agent = Agent {
            dir: dir.to_owned(),
            child,
        };
        agent.wait(|s| s["running"] == true);
        agent
    }
    pub(crate) fn status(&self) -> Value {
        self.lines(&["status"]).pop().unwrap_or_default()
    }
    /// Makes everything seen so far durable.
    pub(crate) fn flush(&self) {
        use plimsoll_api::{Client, Request};
        let end = Instant::now() + Duration::from_secs(120);
        loop {
            let client = Client::connect(&self.dir.join("agent.sock"), Duration::from_secs(30));
            let flushed = client.and_then(|mut c| c.ask(&Request::Flush {}));
            let queues = &self.status()["queues"];
            let empty = ["inbox_bulk", "journal_queue"]
                .iter()
                .all(|q| queues[q] == 0);
            if flushed.is_ok() && empty {
                return;
            }
            assert!(Instant::now() < end, "the agent does not get through");
        }
    }
    pub(crate) fn wait(&self, done: impl Fn(&Value) -> bool) {
        let end = Instant::now() + Duration::from_secs(60);
        while !done(&self.status()) {
            assert!(Instant::now() < end, "the agent does not get there");
            std::thread::sleep(Duration::from_millis(100));
        }
    }
    /// JSON lines of a command.
    pub(crate) fn lines(&self, args: &[&str]) -> Vec<Value> {
        lines(&self.dir, args)
    }
}

/// JSON lines of a command about an agent's directory, whether or not the agent runs.
pub(crate) fn lines(dir: &Path, args: &[&str]) -> Vec<Value> {
    let out = plimsoll(dir).arg("--json").args(args).output();
    let out = out.expect("run plimsoll").stdout;
    let text = String::from_utf8_lossy(&out);
    text.lines()
        .filter_map(|l| serde_json::from_str(l).ok())
        .collect()
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = self.child.id().to_string();
        let _ = Command::new("kill").args(["-INT", &pid]).status();
        let _ = self.child.wait();
    }
}

fn plimsoll(dir: &Path) -> Command {
    at(Command::new(PLIMSOLL), dir)
}

fn at(mut c: Command, dir: &Path) -> Command {
    c.arg("--data-dir").arg(dir.join("data"));
    c.arg("--socket").arg(dir.join("agent.sock"));
    c
}

pub(crate) fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
pub(crate) fn quantile(values: &mut [f64], q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = (values.len() as f64 * q).ceil() as usize;
    values
        .get(rank.saturating_sub(1))
        .copied()
        .unwrap_or(f64::NAN)
}
pub(crate) fn spread(values: &[f64]) -> String {
    let low = values.iter().copied().fold(f64::INFINITY, f64::min);
    let high = values.iter().copied().fold(0.0, f64::max);
    format!("{low:.3}–{high:.3}")
}

/// Processor, kernel and load: what numbers depend on.
pub(crate) fn machine() -> String {
    let read = |p: &str| std::fs::read_to_string(p).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name\t: "));
    let cores = cpu.lines().filter(|l| l.starts_with("processor")).count();
    let load = read("/proc/loadavg");
    let load = load.split(' ').next().unwrap_or("?");
    let kernel = read("/proc/sys/kernel/osrelease");
    let model = model.unwrap_or("unknown CPU");
    format!(
        "{cores} × {model}, kernel {}, load {load} before the start",
        kernel.trim()
    )
}
