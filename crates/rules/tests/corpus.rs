//! The public rule files load as they are, and fire on the acts that they describe.

mod support;

use plimsoll_rules::{LoadOptions, LoadReport, Ruleset, Source, load};
use support::{Event, FALCO_FILES, Held, corpus_files, names};

fn load_files(files: &[(String, String)]) -> (LoadReport, Option<Ruleset>) {
    let files: Vec<(&str, &str)> = files
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    load(&files, &LoadOptions::default())
}

fn assert_fine(report: &LoadReport) {
    let errors: Vec<String> = report
        .errors()
        .map(|(f, e)| {
            format!(
                "{}: {:?}: {} at {:?}",
                f.name,
                e.code,
                e.message,
                e.position()
            )
        })
        .collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

fn falco() -> Option<Ruleset> {
    let (report, set) = load_files(&corpus_files("falco-rules", &FALCO_FILES)?);
    assert_fine(&report);
    set
}

#[test]
fn all_public_rules_load_together() {
    let Some(set) = falco() else { return };
    assert_eq!(set.rules().len(), 93);
    for (i, rule) in set.rules().iter().enumerate() {
        let explanation = set.explain(plimsoll_rules::RuleId(i as u32));
        assert!(
            rule.status.is_active() || !rule.status.reasons().is_empty(),
            "{}",
            rule.name
        );
        assert!(
            !explanation.kinds.is_empty(),
            "{} is for no kind of event",
            rule.name
        );
        assert!(explanation.comparisons > 0 && !explanation.expanded.is_empty());
    }
}

#[test]
fn each_public_file_loads_with_those_before_it() {
    let Some(files) = corpus_files("falco-rules", &FALCO_FILES) else {
        return;
    };
    for file in files {
        let (report, _) = load_files(std::slice::from_ref(&file));
        assert_fine(&report);
    }
}

#[test]
fn kubernetes_audit_rules_load() {
    let files = ["k8s_audit_rules.yaml", "k8s_audit_rules_gke.yaml"];
    let Some(files) = corpus_files("k8saudit-rules", &files) else {
        return;
    };
    let (report, set) = load_files(&files);
    assert_fine(&report);
    assert!(
        set.unwrap()
            .rules()
            .iter()
            .all(|r| r.source == Source::K8sAudit)
    );
}

/// A process in a container; what the tests change is set on top.
fn in_container(kind: &str) -> Event {
    Event::new(kind)
        .with("container.id", "3ad7b26ded6d")
        .with("container.name", "web")
        .with("container.image.repository", "example/web")
        .with("container.privileged", false)
        .with("proc.pname", "nginx")
        .with("proc.vpid", 7i64)
        .with("user.name", "www-data")
        .with("user.uid", 33u64)
        .with("user.loginuid", -1i64)
        .with("proc.tty", 0u64)
        .with("evt.num", 1u64)
}

fn exec(name: &str, path: &str, cmdline: &str) -> Event {
    in_container("execve")
        .with("evt.res", "SUCCESS")
        .with("evt.rawres", 0i64)
        .with("evt.arg.res", 0u64)
        .with("proc.name", name)
        .with("proc.exe", path)
        .with("proc.exepath", path)
        .with("proc.cmdline", cmdline)
        .with(
            "proc.args",
            cmdline.split_once(' ').map_or("", |(_, args)| args),
        )
}

fn open_read(path: &str) -> Event {
    open(path)
        .with("evt.is_open_read", true)
        .with("evt.is_open_write", false)
}

fn open(path: &str) -> Event {
    let (directory, name) = path.rsplit_once('/').unwrap();
    in_container("openat")
        .with("fd.typechar", "f")
        .with("fd.type", "file")
        .with("fd.num", 5i64)
        .with("fd.name", path)
        .with("fd.nameraw", path)
        .with(
            "fd.directory",
            if directory.is_empty() { "/" } else { directory },
        )
        .with("fd.filename", name)
        .with("proc.name", "cat")
        .with("proc.exepath", "/bin/cat")
        .with("proc.cmdline", path)
}

fn fires(set: &Ruleset, rule: &str, event: &Event) {
    let found = names(set, Source::Syscall, event);
    let reason = set.reason(set.find(rule).expect(rule), event);
    assert!(
        found.contains(&rule),
        "{rule} is silent: {:#?}\nfired: {found:?}",
        reason.first_false
    );
    assert_eq!(reason.first_false.map(|c| c.text), None);
    assert!(!reason.held.is_empty());
}

fn quiet(set: &Ruleset, rule: &str, event: &Event) {
    assert!(
        !names(set, Source::Syscall, event).contains(&rule),
        "{rule} fired"
    );
    assert!(
        set.reason(set.find(rule).expect(rule), event)
            .first_false
            .is_some()
    );
}

#[test]
fn a_shell_with_a_terminal_in_a_container_fires() {
    let Some(set) = falco() else { return };
    let rule = "Terminal shell in container";
    let shell = exec("bash", "/bin/bash", "bash").with("proc.tty", 34816u64);
    let shell = shell.with("proc.pname", "runc").with("proc.sname", "bash");
    fires(&set, rule, &shell);
    quiet(&set, rule, &exec("bash", "/bin/bash", "bash"));
    quiet(
        &set,
        rule,
        &exec("nginx", "/usr/sbin/nginx", "nginx").with("proc.tty", 34816u64),
    );
}

#[test]
fn reading_a_sensitive_file_fires() {
    let Some(set) = falco() else { return };
    let rule = "Read sensitive file untrusted";
    fires(&set, rule, &open_read("/etc/shadow"));
    quiet(&set, rule, &open_read("/etc/hostname"));
}

#[test]
fn running_from_memory_fires() {
    let Some(set) = falco() else { return };
    let rule = "Fileless execution via memfd_create";
    let run = exec("x", "memfd:x", "x");
    fires(
        &set,
        rule,
        &run.clone().with("proc.is_exe_from_memfd", true),
    );
    quiet(&set, rule, &run.with("proc.is_exe_from_memfd", false));
}

#[test]
fn an_upper_layer_binary_fires() {
    let Some(set) = falco() else { return };
    let rule = "Drop and execute new binary in container";
    let run = exec("x", "/tmp/x", "x");
    fires(
        &set,
        rule,
        &run.clone().with("proc.is_exe_upper_layer", true),
    );
    quiet(&set, rule, &run.with("proc.is_exe_upper_layer", false));
}

#[test]
fn redirecting_standard_output_to_a_socket_fires() {
    let Some(set) = falco() else { return };
    let rule = "Redirect STDOUT/STDIN to Network Connection in Container";
    let dup = in_container("dup2")
        .with("evt.rawres", 1i64)
        .with("fd.num", 1i64)
        .with("fd.type", "ipv4")
        .with("proc.name", "bash")
        .with("fd.sip", "203.0.113.9".parse::<std::net::IpAddr>().unwrap());
    fires(&set, rule, &dup);
    quiet(&set, rule, &dup.clone().with("evt.rawres", 5i64));
    quiet(&set, rule, &dup.with("fd.type", "file"));
}

#[test]
fn connecting_to_the_metadata_service_fires() {
    let Some(set) = falco() else { return };
    let rule = "Contact EC2 Instance Metadata Service From Container";
    let connect = |to: &str| {
        in_container("connect")
            .with("fd.typechar", "4")
            .with("fd.type", "ipv4")
            .with("fd.l4proto", "tcp")
            .with("fd.sip", to.parse::<std::net::IpAddr>().unwrap())
            .with(
                "fd.net",
                Held::Ips(vec![to.parse().unwrap(), "10.0.0.2".parse().unwrap()]),
            )
            .with(
                "fd.ip",
                Held::Ips(vec![to.parse().unwrap(), "10.0.0.2".parse().unwrap()]),
            )
            .with("fd.name", "10.0.0.2:4000->x:80")
            .with("evt.rawres", 0i64)
            .with("evt.res", "SUCCESS")
            .with("proc.name", "curl")
    };
    // Its author ships it switched off; a later file switches it on.
    let on = format!("- rule: {rule}\n  enabled: true\n  override:\n    enabled: replace\n");
    let mut files = corpus_files("falco-rules", &FALCO_FILES).unwrap();
    files.push(("local.yaml".to_owned(), on));
    let (report, enabled) = load_files(&files);
    assert_fine(&report);
    fires(&enabled.unwrap(), rule, &connect("169.254.169.254"));
    quiet(&set, rule, &connect("192.0.2.1"));
}

#[test]
fn mounts_of_a_privileged_container_fire() {
    let Some(set) = falco() else { return };
    let debugfs = exec("debugfs", "/sbin/debugfs", "debugfs").with("container.privileged", true);
    fires(&set, "Debugfs Launched in Privileged Container", &debugfs);
    quiet(
        &set,
        "Debugfs Launched in Privileged Container",
        &debugfs.with("container.privileged", false),
    );
}

#[test]
fn audit_rules_fire_on_the_kubernetes_side() {
    let Some(files) = corpus_files("k8saudit-rules", &["k8s_audit_rules.yaml"]) else {
        return;
    };
    let (_, set) = load_files(&files);
    let set = set.unwrap();
    let event = |command: &str| {
        Event::new("pluginevent")
            .with("jevt.value[/stage]", "ResponseStarted")
            .with("jevt.rawtime", "1")
            .with("ka.target.resource", "pods")
            .with("ka.target.subresource", command)
            .with("ka.verb", "create")
            .with("ka.user.name", "eve")
            .with("ka.target.name", "web")
            .with("ka.target.namespace", "shop")
    };
    let rule = "Attach/Exec Pod";
    assert!(names(&set, Source::K8sAudit, &event("exec")).contains(&rule));
    assert!(!names(&set, Source::K8sAudit, &event("log")).contains(&rule));
}

#[test]
fn outputs_of_public_rules_fill_in() {
    let Some(set) = falco() else { return };
    let shell = exec("bash", "/bin/bash", "bash").with("proc.tty", 34816u64);
    let rendered = set.render(set.find("Terminal shell in container").unwrap(), &shell);
    assert!(
        rendered.output.contains("process=bash"),
        "{}",
        rendered.output
    );
    assert!(
        rendered.output.contains("container_id=3ad7b26ded6d"),
        "{}",
        rendered.output
    );
    assert!(
        rendered.output.contains("k8s_pod_name=<NA>"),
        "{}",
        rendered.output
    );
    assert!(
        rendered
            .output_fields
            .iter()
            .any(|(n, _)| n == "proc.cmdline")
    );
}
