//! Kubernetes audit events: what their fields are, and that the public rules fire on them.

mod support;

use plimsoll_rules::audit::{AuditError, AuditEvent, MAX_LINE_BYTES, read_line};
use plimsoll_rules::{EventView as _, FieldRef, Ruleset, Scratch, Source, Value};
use support::{corpus_files, load_texts};

const EXEC: &str = include_str!("../../../fuzz/seeds/audit/exec-into-pod.json");
const POD: &str = include_str!("../../../fuzz/seeds/audit/privileged-pod.json");
const BINDING: &str = include_str!("../../../fuzz/seeds/audit/binding.json");

fn events(line: &str) -> Vec<AuditEvent> {
    read_line(line.trim().as_bytes(), 1).unwrap()
}

fn show(value: Value<'_>) -> String {
    match value {
        Value::Absent => "absent".to_owned(),
        Value::Text(text) => String::from_utf8_lossy(text).into_owned(),
        Value::UInt(n) => n.to_string(),
        Value::List(list) => {
            let all: Vec<String> = (0..list.len()).map(|i| show(list.get(i))).collect();
            format!("({})", all.join(", "))
        }
        _ => "other".to_owned(),
    }
}

fn field(event: &AuditEvent, name: &str) -> String {
    let (name, arg) = match name.split_once('[') {
        Some((name, arg)) => (name, arg.strip_suffix(']')),
        None => (name, None),
    };
    show(event.field(&FieldRef::resolve(name, arg).unwrap()))
}

#[test]
fn a_request_has_its_fields() {
    let event = &events(EXEC)[0];
    for (name, expected) in [
        ("ka.verb", "create"),
        ("ka.user.name", "eve@example.com"),
        ("ka.user.groups", "(devs, system:authenticated)"),
        ("ka.target.resource", "pods"),
        ("ka.target.subresource", "exec"),
        ("ka.target.pod.name", "web-0"),
        ("ka.response.code", "101"),
        ("ka.auth.decision", "allow"),
        ("ka.uri.param[command]", "sh"),
        ("ka.uri.param[x]", "a b/c"),
        ("ka.uri.param[none]", "absent"),
        ("ka.sourceips[0]", "203.0.113.9"),
        ("jevt.value[/stage]", "ResponseComplete"),
        ("jevt.value[/user/groups/0]", "devs"),
        ("jevt.value[/no/such]", "absent"),
        ("ka.req.pod.containers.image", "absent"),
        ("evt.source", "k8s_audit"),
    ] {
        assert_eq!(field(event, name), expected, "{name}");
    }
}

#[test]
fn a_pod_has_the_fields_of_its_containers() {
    let event = &events(POD)[0];
    for (name, expected) in [
        ("ka.req.pod.containers.image[1]", "nginx"),
        (
            "ka.req.pod.containers.image.repository",
            "(registry.example.com:5000/tools/miner, nginx)",
        ),
        ("ka.req.pod.initContainers.image", "(busybox)"),
        ("ka.req.pod.containers.privileged", "(true)"),
        ("ka.req.container.privileged", "true"),
        (
            "ka.req.pod.containers.add_capabilities",
            "(SYS_ADMIN, NET_RAW)",
        ),
        ("ka.req.pod.containers.eff_run_as_user", "(1000, 0)"),
        ("ka.req.pod.containers.host_port", "(8080)"),
        ("ka.req.pod.containers.args", "(run)"),
        ("ka.req.pod.host_pid", "true"),
        ("ka.req.pod.volumes.hostpath", "(/etc/kubernetes)"),
        ("ka.req.volume.hostpath[/etc*]", "true"),
        ("ka.req.volume.hostpath[/etc]", "false"),
        ("ka.req.pod.volumes.volume_type", "(hostPath, emptyDir)"),
    ] {
        assert_eq!(field(event, name), expected, "{name}");
    }
}

#[test]
fn a_list_of_events_is_read_and_bindings_name_their_subjects() {
    let all = events(BINDING);
    assert_eq!(all.len(), 2);
    assert_eq!(
        field(&all[0], "ka.req.binding.subjects.user_names"),
        "(eve)"
    );
    assert_eq!(
        field(&all[0], "ka.req.binding.subjects.serviceaccount_ns_names"),
        "(shop:web)"
    );
    assert_eq!(field(&all[0], "ka.req.binding.role"), "cluster-admin");
    assert_eq!(field(&all[1], "ka.req.role.rules.verbs"), "(get, *, get)");
    assert_eq!(
        field(&all[1], "ka.req.role.rules.nonResourceURLs"),
        "(/metrics)"
    );
    assert_eq!(field(&all[1], "evt.num"), "2");
}

#[test]
fn what_is_no_audit_event_is_refused_within_bounds() {
    assert!(matches!(read_line(b"{", 1), Err(AuditError::NotJson(_))));
    assert!(matches!(
        read_line(b"{\"a\": 1}", 1),
        Err(AuditError::NotAudit)
    ));
    assert!(matches!(read_line(b"[1]", 1), Err(AuditError::NotAudit)));
    assert!(matches!(
        read_line(b"{\"items\": 1}", 1),
        Err(AuditError::NotAudit)
    ));
    let deep = format!("{{\"auditID\": \"x\", \"a\": {}", "[".repeat(100_000));
    assert!(matches!(
        read_line(deep.as_bytes(), 1),
        Err(AuditError::NotJson(_))
    ));
    let long = vec![b' '; MAX_LINE_BYTES + 1];
    assert!(matches!(read_line(&long, 1), Err(AuditError::TooLong(_))));
    let many = format!("[{}1]", "1,".repeat(20_000));
    assert!(matches!(
        read_line(many.as_bytes(), 1),
        Err(AuditError::TooMany(_))
    ));
}

fn fired<'s>(set: &'s Ruleset, line: &str) -> Vec<&'s str> {
    let mut scratch = Scratch::default();
    let mut names = Vec::new();
    for event in events(line) {
        let matched = set.judge(Source::K8sAudit, &event, &mut scratch);
        names.extend(matched.iter().map(|r| set.rule(*r).name.as_str()));
    }
    names
}

#[test]
fn a_rule_of_ours_fires_on_its_act_only() {
    let rule = r#"
- rule: Shell into a pod
  desc: d
  condition: >
    jevt.value[/stage] = ResponseComplete and ka.target.resource = pods and ka.target.subresource = exec
    and ka.uri.param[command] in (sh, bash) and not ka.user.groups intersects (system:masters)
  output: shell into %ka.target.namespace/%ka.target.name by %ka.user.name from %ka.sourceips
  priority: NOTICE
  source: k8s_audit
"#;
    let (report, set) = load_texts(&[rule]);
    let set = set.unwrap_or_else(|| panic!("{report:?}"));
    assert_eq!(fired(&set, EXEC), ["Shell into a pod"]);
    assert!(fired(&set, &EXEC.replace("command=sh&", "command=ls&")).is_empty());
    assert!(fired(&set, &EXEC.replace("devs", "system:masters")).is_empty());
    let rendered = set.render(plimsoll_rules::RuleId(0), &events(EXEC)[0]);
    let expected = "shell into shop/web-0 by eve@example.com from (203.0.113.9)";
    assert_eq!(rendered.output, expected);
}

#[test]
fn the_public_audit_rules_fire() {
    let files = ["k8s_audit_rules.yaml"];
    let Some(files) = corpus_files("k8saudit-rules", &files) else {
        return;
    };
    let (report, set) = load_texts(&[files[0].1.as_str()]);
    let set = set.unwrap_or_else(|| panic!("{report:?}"));
    // exec is a long-running request: it is told when it has started
    let started = EXEC.replace("ResponseComplete", "ResponseStarted");
    assert!(fired(&set, &started).contains(&"Attach/Exec Pod"));
    assert!(!fired(&set, EXEC).contains(&"Attach/Exec Pod"));
    let pod = fired(&set, POD);
    assert!(pod.contains(&"Create Privileged Pod"), "{pod:?}");
    assert!(pod.contains(&"Create Sensitive Mount Pod"), "{pod:?}");
    let binding = fired(&set, BINDING);
    assert!(
        binding.contains(&"Attach to cluster-admin Role"),
        "{binding:?}"
    );
}
