//! `plimsoll doctor`: what this kernel and these runtimes allow, and what each refusal costs.
//!
//! Promises: reads and, as root without an agent, loads the kernel side for a moment; changes
//! nothing. What cannot be found out is said to be unknown, with what is needed to find it out.

use super::state_style;
use crate::Verdict;
use crate::failure::Failure;
use crate::global::Global;
use crate::out::{Out, Style, remark};
use crate::source::Source;
use crate::table::wrap;
use plimsoll_agent::answers::{doctor_row, enforcement_row};
use plimsoll_agent::config::Config;
use plimsoll_agent::machine;
use plimsoll_agent::priority::{Priority, weighing_cgroup};
use plimsoll_agent::run::sensor_config;
use plimsoll_api::describe::words;
use plimsoll_api::types::DoctorState::{Degraded, Missing, Ok as Fine, Unknown};
use plimsoll_api::types::{DoctorState, Refusal};
use plimsoll_api::{DoctorRow, Item, Request};
use plimsoll_sensor::Sensor;
use plimsoll_workload::{Layout, Version};
use std::fs;
use std::io::ErrorKind;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

pub(crate) fn doctor(global: &Global, out: &mut Out) -> Result<Verdict, Failure> {
    let mut source = Source::find(global)?;
    let mut rows = kernel(Path::new("/"));
    rows.extend(permissions());
    rows.push(process_numbers(Path::new("/")));
    rows.push(priority(
        Path::new("/"),
        &Priority::new(source.config.nice, source.config.real_time),
    ));
    let layout = Layout::detect(Path::new("/proc"));
    rows.push(cgroup(&layout));
    rows.extend(runtimes(&source.config));
    rows.push(storage(&source.config.data_dir));
    let hooks = hooks(&mut source, layout.ok().as_ref())?;
    rows.extend(hooks);
    let bad = rows
        .iter()
        .any(|r| r.fatal || matches!(r.state, Missing | Degraded) && r.area != "runtime");
    if out.json {
        rows.iter().try_for_each(|r| out.object(r))?;
    } else {
        show(&rows, out)?;
    }
    Ok(if bad { Verdict::Found } else { Verdict::Fine })
}

fn row(area: &str, name: &str, state: DoctorState, found: impl Into<String>) -> DoctorRow {
    DoctorRow {
        area: area.to_owned(),
        name: name.to_owned(),
        state,
        found: found.into(),
        ..DoctorRow::default()
    }
}

fn costs(mut row: DoctorRow, cost: &str, advice: &str) -> DoctorRow {
    row.cost = (!cost.is_empty()).then(|| cost.to_owned());
    row.advice = (!advice.is_empty()).then(|| advice.to_owned());
    row
}

fn read(path: PathBuf) -> Option<String> {
    fs::read_to_string(path).ok().map(|t| t.trim().to_owned())
}

/// What the kernel is and has. `root` is where its file systems hang (a test gives another).
fn kernel(root: &Path) -> Vec<DoctorRow> {
    let release = read(root.join("proc/sys/kernel/osrelease"));
    let mut rows = vec![match release.as_deref().map(|r| (r, version(r))) {
        Some((r, Some(v))) if v >= (5, 10) => row("kernel", "release", Fine, r),
        Some((r, Some(_))) => fatal(costs(
            row("kernel", "release", Missing, r),
            "nothing can be observed: ring buffers and BTF-typed programs need 5.8, this build 5.10",
            "use a kernel from 5.10 on",
        )),
        Some((r, None)) => costs(
            row("kernel", "release", Unknown, r),
            "its version cannot be told from its name",
            "",
        ),
        None => row(
            "kernel",
            "release",
            Unknown,
            "/proc/sys/kernel/osrelease cannot be read",
        ),
    }];
    let btf = root.join("sys/kernel/btf/vmlinux");
    rows.push(match fs::metadata(&btf) {
        Ok(meta) => row("kernel", "BTF", Fine, format!("/sys/kernel/btf/vmlinux, {} KiB", meta.len() >> 10)),
        Err(_) => fatal(costs(
            row("kernel", "BTF", Missing, "there is no /sys/kernel/btf/vmlinux"),
            "nothing can be observed: without the kernel's type information the programs cannot be fitted to it",
            "use a kernel built with CONFIG_DEBUG_INFO_BTF=y (Debian and Ubuntu kernels are, from Debian 11 and Ubuntu 20.10 on)",
        )),
    });
    let lsm = read(root.join("sys/kernel/security/lsm"));
    rows.push(match lsm {
        Some(list) if list.split(',').any(|l| l == "bpf") => row("kernel", "BPF LSM", Fine, list),
        Some(list) => costs(
            row("kernel", "BPF LSM", Degraded, format!("active: {list}")),
            "kinds that would use it fall back to fentry or tracepoints: the same is seen, some of it by arguments only",
            "add bpf to the lsm= parameter of the kernel's command line, for example lsm=landlock,yama,apparmor,bpf",
        ),
        None => costs(row("kernel", "BPF LSM", Unknown, "/sys/kernel/security/lsm cannot be read"), "", "run as root, with securityfs mounted"),
    });
    if let Some(mode) = read(root.join("sys/kernel/security/lockdown")) {
        let confidential = mode.contains("[confidentiality]");
        rows.push(match confidential {
            true => fatal(costs(
                row("kernel", "lockdown", Missing, mode),
                "the kernel refuses programs that read its memory: nothing can be observed",
                "boot with lockdown=integrity or without lockdown",
            )),
            false => row("kernel", "lockdown", Fine, mode),
        });
    }
    if read(root.join("proc/sys/net/core/bpf_jit_enable")).as_deref() == Some("0") {
        rows.push(costs(
            row(
                "kernel",
                "BPF JIT",
                Degraded,
                "net.core.bpf_jit_enable is 0",
            ),
            "programs are interpreted: several times slower",
            "sysctl net.core.bpf_jit_enable=1",
        ));
    }
    rows
}

fn fatal(mut row: DoctorRow) -> DoctorRow {
    row.fatal = true;
    row
}

/// `6.1.0-18-amd64` → (6, 1).
fn version(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn permissions() -> Vec<DoctorRow> {
    const SYS_ADMIN: u64 = 1 << 21;
    const BPF: u64 = 1 << 39;
    let status = read(PathBuf::from("/proc/self/status")).unwrap_or_default();
    let caps = status
        .lines()
        .find_map(|l| l.strip_prefix("CapEff:"))
        .and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok())
        .unwrap_or(0);
    let root = rustix::process::geteuid().is_root();
    let (user, may) = (
        if root { "root" } else { "not root" },
        caps & (SYS_ADMIN | BPF) != 0,
    );
    vec![match (root, may) {
        (true, true) => row(
            "permission",
            "load programs",
            Fine,
            format!("{user}, capabilities {caps:#x}"),
        ),
        (true, false) => fatal(costs(
            row(
                "permission",
                "load programs",
                Missing,
                format!("{user}, but capabilities {caps:#x} lack CAP_BPF and CAP_SYS_ADMIN"),
            ),
            "`plimsoll run` cannot load its programs here",
            "run it on the host, or in a container with --privileged",
        )),
        (false, _) => costs(
            row(
                "permission",
                "load programs",
                Unknown,
                format!("{user}, capabilities {caps:#x}"),
            ),
            "what the kernel would accept can only be tried as root",
            "run `sudo plimsoll doctor`",
        ),
    }]
}

/// Whether `/proc` numbers processes as the kernel side does.
fn process_numbers(root: &Path) -> DoctorRow {
    let row = |state, found: &str| row("permission", "process numbers", state, found);
    match machine::has_the_kernels_pids(root) {
        Some(true) => row(Fine, "those of the kernel"),
        Some(false) => {
            let [found, cost, advice] = machine::OTHER_PIDS;
            costs(row(Degraded, found), cost, advice)
        }
        None => row(Unknown, "/proc/self/ns/pid cannot be read"),
    }
}

/// Whether the threads between an act and its alert may go before others, and whose weight counts.
fn priority(root: &Path, wanted: &Priority) -> DoctorRow {
    let row = |state, found: &str| row("permission", "priority", state, found);
    let cost =
        "beside a flood its threads wait for a processor like everybody else: alerts are late";
    if !wanted.is_wanted() {
        return row(Fine, "its threads have what it was started with");
    }
    if let Err(e) = wanted.trial() {
        if !rustix::process::geteuid().is_root() {
            return costs(
                row(Unknown, &format!("refused: {e}")),
                cost,
                "run `sudo plimsoll doctor`",
            );
        }
        let advice = "give it CAP_SYS_NICE, or `scheduling: { nice: 0 }` if that is meant";
        return costs(row(Degraded, &format!("refused: {e}")), cost, advice);
    }
    let refused = wanted.real_time_refused();
    if wanted.is_real_time() && refused.is_none() {
        return row(Fine, "its threads may go before all others (real time)");
    }
    if let Some(e) = refused {
        let found = format!("its threads may be raised, but real time is refused: {e}");
        let advice = "start it in a cgroup that has real time (cpu.rt_runtime_us), or `scheduling: { real_time: false }` if that is meant";
        return costs(
            row(Fine, &found),
            "beside a flood an alert waits some ticks of the clock on its way to the disk",
            advice,
        );
    }
    match weighing_cgroup(root) {
        None => row(Fine, "its threads may go before others"),
        Some(cgroup) => costs(
            row(
                Fine,
                &format!("its threads may go before others of the cgroup {cgroup}"),
            ),
            "between cgroups their weights decide",
            "give that of the agent more (systemd: CPUWeight=1000)",
        ),
    }
}

fn cgroup(layout: &Result<Layout, impl std::fmt::Display>) -> DoctorRow {
    match layout {
        Ok(l) => {
            let name = match &l.identifying.version {
                Version::V2 => "version 2".to_owned(),
                Version::V1 { controller } => format!("version 1, by controller {controller}"),
            };
            let more = match l.second.as_ref().map(|h| (&h.version, &h.mount)) {
                Some((Version::V1 { controller }, mount)) => {
                    let at = mount.display();
                    format!("; beside it version 1, by controller {controller} at {at}")
                }
                _ => String::new(),
            };
            row(
                "cgroup",
                "layout",
                Fine,
                format!("{name} at {}{more}", l.identifying.mount.display()),
            )
        }
        Err(e) => fatal(costs(
            row("cgroup", "layout", Missing, e.to_string()),
            "containers cannot be told apart",
            "mount cgroup2, usually at /sys/fs/cgroup",
        )),
    }
}

/// Sockets at which runtimes usually listen, and those of the configuration.
fn runtimes(config: &Config) -> Vec<DoctorRow> {
    const USUAL: [(&str, &str); 5] = [
        ("docker", "/run/docker.sock"),
        ("containerd", "/run/containerd/containerd.sock"),
        ("podman", "/run/podman/podman.sock"),
        ("cri-o", "/run/crio/crio.sock"),
        ("containerd (k3s)", "/run/k3s/containerd/containerd.sock"),
    ];
    let given = |name: &'static str, list: &[PathBuf]| -> Vec<(&'static str, PathBuf)> {
        list.iter().map(|p| (name, p.clone())).collect()
    };
    let mut all: Vec<(&str, PathBuf)> = USUAL.iter().map(|(n, p)| (*n, PathBuf::from(p))).collect();
    all.extend(given("docker", &config.runtimes.docker_sockets));
    all.extend(given("containerd", &config.runtimes.containerd_sockets));
    let mut rows: Vec<DoctorRow> = all
        .iter()
        .filter_map(|(name, path)| runtime(name, path))
        .collect();
    if rows.is_empty() {
        rows.push(costs(
            row("runtime", "any", Missing, "no runtime's socket was found at the usual places"),
            "containers are still seen, by cgroup and by what their runtime has put on disk; names and image digests may be missing",
            "name its socket under `runtimes:` in the configuration, if there is one elsewhere",
        ));
    }
    rows
}

/// A runtime's socket; `None` when there is none there.
fn runtime(name: &str, path: &Path) -> Option<DoctorRow> {
    let at = path.display();
    let cost = "names, labels and image digests come from disk only, where they are found there";
    match UnixStream::connect(path) {
        Ok(_) => Some(row("runtime", name, Fine, format!("answers at {at}"))),
        Err(e) if e.kind() == ErrorKind::NotFound => None,
        Err(e) if e.kind() == ErrorKind::PermissionDenied => Some(costs(
            row(
                "runtime",
                name,
                Unknown,
                format!("{at} may not be used by this user"),
            ),
            "",
            "run `sudo plimsoll doctor`",
        )),
        Err(e) => Some(costs(
            row("runtime", name, Missing, format!("{at}: {e}")),
            cost,
            "start the runtime, if it is meant to run",
        )),
    }
}

fn storage(dir: &Path) -> DoctorRow {
    const ENOUGH: u64 = 1 << 30;
    // before the first start only what is above it exists
    let existing = dir
        .ancestors()
        .find(|d| d.exists())
        .unwrap_or(Path::new("/"));
    let free = rustix::fs::statvfs(existing).map(|s| s.f_bavail.saturating_mul(s.f_frsize));
    let shown = dir.display();
    match free {
        Ok(free) if free >= ENOUGH => row(
            "storage",
            "data directory",
            Fine,
            format!("{shown}, {} GiB free", free >> 30),
        ),
        Ok(free) => costs(
            row(
                "storage",
                "data directory",
                Degraded,
                format!("{shown}, {} MiB free", free >> 20),
            ),
            "when it is full, observations are lost (and recorded as lost); alerts have 16 MiB set aside",
            "make room, or name another directory with --data-dir",
        ),
        Err(e) => row(
            "storage",
            "data directory",
            Unknown,
            format!("{shown}: {e}"),
        ),
    }
}

/// What agents that do not run any more left in the kernel.
fn left(config: &Config) -> Option<DoctorRow> {
    let sets = plimsoll_sensor::pinned(&config.hooks.directory);
    let left = sets.iter().filter(|s| !s.in_use).count();
    (left > 0).then(|| {
        costs(
            row(
                "hook",
                "left by agents before",
                Fine,
                format!("{left} sets in {}", config.hooks.directory.display()),
            ),
            "they go on recording until their rings are full, for an agent that takes them over",
            "start the agent, or take them out with `plimsoll hooks remove --all`",
        )
    })
}

/// Kind by kind: as the running agent found them, else by trying.
fn hooks(source: &mut Source, layout: Option<&Layout>) -> Result<Vec<DoctorRow>, Failure> {
    if let Some(agent) = source.agent() {
        remark("hooks as the running agent has them");
        let (items, _) = agent.ask(&Request::Doctor {})?;
        let only = |item| match item {
            Item::Doctor(row) => Some(row),
            _ => None,
        };
        return Ok(items.into_iter().filter_map(only).collect());
    }
    if !rustix::process::geteuid().is_root() {
        let found = row("hook", "all kinds", Unknown, "not tried");
        return Ok(vec![costs(
            found,
            "how each kind of event is seen is only known after trying",
            "run `sudo plimsoll doctor`, or start the agent",
        )]);
    }
    let Some(layout) = layout else {
        return Ok(Vec::new());
    };
    Ok(match Sensor::load(&sensor_config(&source.config, layout)) {
        Ok(sensor) => {
            let hooks = sensor.hooks().iter().map(doctor_row);
            hooks
                .chain(sensor.means().iter().map(enforcement_row))
                .chain(left(&source.config))
                .collect()
        }
        Err(e) => {
            let mut failed = row(
                "hook",
                "all kinds",
                Missing,
                "the kernel side cannot be loaded",
            );
            failed.refused = vec![Refusal {
                mechanism: "load".to_owned(),
                reason: e.to_string(),
            }];
            vec![fatal(costs(
                failed,
                "nothing can be observed",
                "the lines above say what is missing; otherwise report the reason, with the kernel's release",
            ))]
        }
    })
}

fn show(rows: &[DoctorRow], out: &mut Out) -> Result<(), Failure> {
    const INDENT: usize = 27;
    let mut area = "";
    for r in rows {
        if r.area != area {
            area = &r.area;
            let head = out.paint.apply(Style::Bold, &words(area));
            out.line(&head)?;
        }
        let state = out.paint.apply(
            state_style(r.state.as_str()),
            &format!("{:<9}", r.state.as_str()),
        );
        let found = if r.found.is_empty() {
            "not seen".to_owned()
        } else {
            words(&r.found)
        };
        let name = words(&r.name);
        if name.chars().count() <= INDENT - 13 {
            out.line(&format!(
                "  {state} {name:<14} {}",
                wrap(&found, out.width, INDENT)
            ))?;
        } else {
            out.line(&format!("  {state} {name}"))?;
            out.line(&format!(
                "{:INDENT$}{}",
                "",
                wrap(&found, out.width, INDENT)
            ))?;
        }
        for refused in &r.refused {
            let text = words(&format!(
                "refused: {}: {}",
                refused.mechanism, refused.reason
            ));
            out.line(&format!(
                "{:INDENT$}{}",
                "",
                wrap(&text, out.width, INDENT + 2)
            ))?;
        }
        for (label, text) in [("costs", &r.cost), ("advice", &r.advice)] {
            if let Some(text) = text {
                let text = words(&format!("{label}: {text}"));
                out.line(&format!(
                    "{:INDENT$}{}",
                    "",
                    wrap(&text, out.width, INDENT + 2)
                ))?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_agent::priority::Rank;

    /// A machine's `/proc` and `/sys` as far as the doctor looks.
    fn machine(release: &str, btf: bool) -> (tempfile::TempDir, Vec<DoctorRow>) {
        let root = tempfile::tempdir().unwrap();
        let put = |path: &str, text: &str| {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        };
        put("proc/sys/kernel/osrelease", release);
        put("sys/kernel/security/lsm", "lockdown,bpf");
        if btf {
            put("sys/kernel/btf/vmlinux", "BTF");
        }
        let rows = kernel(root.path());
        (root, rows)
    }

    #[test]
    fn a_priority_that_is_refused_is_said_with_what_it_costs() {
        let (root, _) = machine("6.1.0", true);
        let refuse = |_, _| Err(ErrorKind::PermissionDenied.into());
        let refused = priority(root.path(), &Priority::by(-10, true, Box::new(refuse)));
        assert!(matches!(refused.state, Degraded | Unknown) && !refused.fatal);
        assert!(refused.found.contains("permission denied"), "{refused:?}");
        assert!(refused.cost.is_some_and(|c| c.contains("alerts are late")));
        let granted = priority(
            root.path(),
            &Priority::by(-10, true, Box::new(|_, _| Ok(()))),
        );
        assert_eq!((granted.state, granted.cost), (Fine, None));
        let by_weight_only = |_, rank| match rank {
            Rank::Nice(_) => Ok(()),
            Rank::First(_) => Err(ErrorKind::PermissionDenied.into()),
        };
        let partly = Priority::by(-10, true, Box::new(by_weight_only));
        let partly = priority(root.path(), &partly);
        assert_eq!(partly.state, Fine);
        assert!(partly.found.contains("real time is refused"), "{partly:?}");
        assert!(partly.cost.is_some());
        let nobody_asked = priority(root.path(), &Priority::new(0, true));
        assert_eq!(nobody_asked.state, Fine);
    }

    #[test]
    fn an_unknown_kernel_without_btf_is_told_what_it_needs() {
        let (_root, rows) = machine("6.1.0-strange", false);
        let btf = rows.iter().find(|r| r.name == "BTF").unwrap();
        assert!(btf.fatal && btf.state == Missing);
        assert!(
            btf.advice
                .as_deref()
                .unwrap()
                .contains("CONFIG_DEBUG_INFO_BTF")
        );
    }

    #[test]
    fn a_kernel_that_is_too_old_is_fatal_and_a_new_one_is_fine() {
        let (_root, old) = machine("4.19.0-26-amd64", true);
        assert!(old[0].fatal);
        let (_root, new) = machine("6.12.9", true);
        assert!(new.iter().all(|r| r.state == Fine), "{new:?}");
    }
}
