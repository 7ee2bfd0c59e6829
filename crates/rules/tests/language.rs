//! Each construct of the language, by small examples.

mod support;

use plimsoll_rules::{
    Counted, EventKind, Field, LoadOptions, MatchMode, NodeCapabilities, RuleId, RuleStatus,
    Scratch, Source, ThresholdCounts, Tri, load,
};
use support::{Event, Held, load_texts, matches, names, rule_of, ruleset};

fn exec(name: &str) -> Event {
    Event::new("execve").with("proc.name", name)
}

// Comparisons

#[test]
fn a_missing_value_makes_every_comparison_false_and_its_negation_true() {
    let event = Event::new("execve");
    for condition in [
        "proc.name = a",
        "proc.name != a",
        "proc.name in (a)",
        "proc.name exists",
        "fd.num >= 0",
    ] {
        assert!(!matches(condition, &event), "{condition}");
        assert!(
            matches(&format!("not {condition}"), &event),
            "not {condition}"
        );
    }
}

#[test]
fn text_comparisons() {
    let event = exec("bash").with("proc.cmdline", "bash -c 'Id'");
    for condition in [
        "proc.name = bash",
        "proc.name == 'bash'",
        "proc.name != sh",
        "proc.name in (sh, bash)",
        "proc.name intersects (sh, bash)",
        "proc.name startswith ba",
        "proc.name endswith sh",
        "proc.cmdline contains \"-c 'I\"",
        "proc.cmdline icontains ID",
        "proc.name glob b*h",
        "proc.name iglob B?SH",
        "proc.name regex 'b[a-z]+'",
        "proc.name exists",
        "proc.name > 1",
    ] {
        assert!(matches(condition, &event), "{condition}");
        assert!(
            !matches(&format!("not {condition}"), &event),
            "not {condition}"
        );
    }
}

#[test]
fn values_that_are_not_utf8_are_compared_as_bytes() {
    let event = Event::new("openat").with("fd.name", &b"/tmp/\xff\xfe"[..]);
    assert!(matches("fd.name startswith /tmp/", &event));
    assert!(matches(r"fd.name endswith '\xfe'", &event));
    assert!(matches("fd.name regex '/tmp/.*'", &event));
}

#[test]
fn quantified_comparisons() {
    let event = exec("bash");
    assert!(matches("proc.name startswith anyof (x, ba)", &event));
    assert!(matches("proc.name contains allof (a, sh)", &event));
    assert!(!matches("proc.name contains oneof (a, sh)", &event));
    assert!(matches("proc.name contains oneof (a, zz)", &event));
    assert!(matches("proc.name != allof (a, b)", &event));
    assert!(matches("proc.name regex anyof ('x.*', 'b.*')", &event));
}

#[test]
fn ancestors_are_any_of_them_and_an_index_is_one() {
    let event = exec("sh")
        .with("proc.aname", &["bash", "sshd", "systemd"][..])
        .with("proc.aname[2]", "sshd");
    assert!(matches("proc.aname = sshd", &event));
    assert!(matches("proc.aname in (x, systemd)", &event));
    assert!(matches("proc.aname != bash", &event));
    assert!(matches("proc.aname[2] = sshd", &event));
    assert!(!matches("proc.aname[3] = systemd", &event));
}

#[test]
fn an_address_is_that_of_either_end() {
    let ends = Held::Ips(vec![
        "10.0.0.1".parse().unwrap(),
        "192.0.2.9".parse().unwrap(),
    ]);
    let event = Event::new("connect")
        .with("fd.ip", ends.clone())
        .with("fd.net", ends)
        .with("fd.port", Held::Numbers(vec![40000, 443]));
    assert!(matches("fd.ip = 192.0.2.9", &event));
    assert!(matches("fd.ip != 192.0.2.1", &event));
    assert!(!matches("fd.ip != 10.0.0.1", &event));
    assert!(matches("fd.net in (10.0.0.0/8)", &event));
    assert!(!matches("fd.net != \"10.0.0.0/8\"", &event));
    assert!(matches("fd.port in (https)", &event));
}

#[test]
fn lists_are_in_when_all_are_and_intersect_when_one_is() {
    let set = |c: &str| ruleset(&[&rule_of(c).replace("desc: d", "desc: d\n  source: k8s_audit")]);
    let event = Event::new("pluginevent").with(
        "ka.req.pod.containers.image.repository",
        &["nginx", "redis"][..],
    );
    let field = "ka.req.pod.containers.image.repository";
    let holds = |c: &str| !names(&set(c), Source::K8sAudit, &event).is_empty();
    assert!(holds(&format!("{field} in (nginx, redis, x)")));
    assert!(!holds(&format!("{field} in (nginx)")));
    assert!(holds(&format!("{field} intersects (nginx)")));
    let none: &[&str] = &[];
    let empty = Event::new("pluginevent").with(field, none);
    assert!(
        names(
            &set(&format!("{field} in (nginx)")),
            Source::K8sAudit,
            &empty
        )
        .is_empty()
    );
}

#[test]
fn transformers_and_other_fields() {
    let event = exec("BASH")
        .with("proc.pname", "bash")
        .with("proc.exepath", "/usr/bin/bash")
        .with("proc.args", "aGVsbG8=");
    for condition in [
        "tolower(proc.name) = bash",
        "toupper(proc.pname) = val(proc.name)",
        "basename(proc.exepath) = val(proc.pname)",
        "proc.exepath endswith val(proc.pname)",
        "len(proc.name) = 4",
        "len(proc.name) in (3, 4)",
        "b64(proc.args) = hello",
        "toupper(b64(proc.args)) = HELLO",
        "concat(proc.name, '-', proc.pname) = BASH-bash",
        "join(',', (proc.name, proc.pname)) = 'BASH,bash'",
        "proc.pname = tolower(proc.name)",
    ] {
        assert!(matches(condition, &event), "{condition}");
    }
    assert!(!matches("concat(proc.name, proc.cwd) exists", &event));
    assert!(!matches("b64(proc.name) = x", &exec("!!")));
}

#[test]
fn short_options_are_found_as_a_program_would_find_them() {
    let holds = |condition: &str| matches(condition, &exec("nc"));
    let nc = r#"getopt(("-lp", "4444", "-e/bin/sh", "--", "-k"), "lkp:e:")"#;
    assert!(holds(&format!(
        r#"{nc} in ("l", "p", "4444", "e", "/bin/sh")"#
    )));
    assert!(!holds(&format!(r#"{nc} intersects ("k")"#)));
    assert!(holds(&format!("len({nc}) = 5")));
    assert!(holds(&format!("{nc}[e] = /bin/sh")));
    assert!(holds(&format!("{nc}[l] = l")));
    assert!(!holds(&format!("{nc}[k] exists")));
    // the last of several, an empty value where there is none, letters that are not known
    assert!(holds(r#"getopt(("-u", "a", "-u", "b"), "u:")[u] = b"#));
    assert!(holds(r#"getopt(("-v", "-u"), "vu:")[u] = """#));
    assert!(holds(
        r#"getopt(("-x", "--long", "-v"), "v") in ("?", "v")"#
    ));
    // a word that is no option ends them
    assert!(holds(r#"len(getopt(("host", "-v"), "v")) = 0"#));
    let words = exec("nc")
        .with("proc.args[0]", "-e")
        .with("proc.args[1]", "/bin/bash");
    let of_fields = r#"getopt((proc.args[0], proc.args[1]), "e:")[e] endswith sh"#;
    assert!(matches(of_fields, &words));
    assert!(!matches(of_fields, &exec("nc")));
    for refused in [
        r#"getopt("-v", "v") intersects (v)"#,
        r#"getopt(("-v"), ("v")) intersects (v)"#,
        r#"getopt(("-v")) intersects (v)"#,
        r#"getopt(("-v"), "v")[vv] = v"#,
        r#"tolower(proc.name)[v] = v"#,
    ] {
        let text = rule_of(refused);
        let (report, _) = load_texts(&[&text]);
        assert!(!report.successful(), "{refused}");
    }
}

#[test]
fn a_quote_is_escaped_in_its_own_kind_of_quotes_only() {
    assert!(matches(r#"proc.name = "a\"b""#, &exec("a\"b")));
    assert!(matches(r#"proc.name = "a'b""#, &exec("a'b")));
    for refused in [r#"proc.name = "a\'b""#, r#"proc.name = 'a\"b'"#] {
        let (report, _) = load_texts(&[&rule_of(refused)]);
        assert!(!report.successful(), "{refused}");
    }
}

#[test]
fn a_nul_byte_can_stand_in_bytes_only() {
    let loads = |condition: &str| load_texts(&[&rule_of(condition)]).0.successful();
    assert!(loads(r#"evt.type = read and evt.buffer = "a\x00b""#));
    assert!(!loads(r#"evt.type = read and proc.name = "a\x00b""#));
}

#[test]
fn arguments_of_events_and_mounts() {
    let event = Event::new("openat")
        .with("evt.arg[flags]", "O_WRONLY|O_CREAT")
        .with("evt.arg[1]", "x")
        .with("proc.env[PATH]", "/bin")
        .with("container.mount.dest[/proc*]", "/proc");
    assert!(matches("evt.arg.flags contains O_CREAT", &event));
    assert!(matches("evt.arg[1] = x", &event));
    assert!(matches("proc.env[PATH] = /bin", &event));
    assert!(matches("container.mount.dest[/proc*] in (/proc)", &event));
    assert!(matches("evt.type.is.openat = 1 and evt.dir = <", &event));
}

#[test]
fn a_mount_that_is_not_there_is_what_rules_call_na() {
    let condition = "evt.type = execve and not container.mount.dest[/proc*] in (\"<NA>\", \"N/A\")";
    let plain = exec("sh");
    let mounted = exec("sh").with("container.mount.dest[/proc*]", "/host/proc");
    assert!(!matches(condition, &plain));
    assert!(matches(condition, &mounted));
    assert!(matches("container.mount.dest[/proc*] = \"<NA>\"", &plain));
    assert!(!matches("container.mount.dest[/proc*] != \"<NA>\"", &plain));
    // other fields: a missing value equals nothing, as everywhere
    assert!(!matches("proc.pname = \"<NA>\"", &plain));
}

// Loading

const BASE: &str = "
- list: shells
  items: [sh, bash]
- macro: shell
  condition: proc.name in (shells)
- rule: r
  desc: d
  priority: warning
  condition: evt.type = execve and shell
  output: ran %proc.name
  tags: [T1059, a]
";

#[test]
fn later_files_append_replace_and_disable() {
    let list = "- list: shells\n  items: [zsh]\n  override: {items: append}\n";
    assert_eq!(
        names(&ruleset(&[BASE, list]), Source::Syscall, &exec("zsh")),
        ["r"]
    );
    let old = "- list: shells\n  append: true\n  items: [zsh]\n";
    assert_eq!(
        names(&ruleset(&[BASE, old]), Source::Syscall, &exec("zsh")),
        ["r"]
    );
    let macro_ =
        "- macro: shell\n  condition: or proc.name = fish\n  override: {condition: append}\n";
    assert_eq!(
        names(&ruleset(&[BASE, macro_]), Source::Syscall, &exec("fish")),
        ["r"]
    );
    let redefined = "- macro: shell\n  condition: proc.name = fish\n";
    assert!(names(&ruleset(&[BASE, redefined]), Source::Syscall, &exec("sh")).is_empty());
    let off = "- rule: r\n  enabled: false\n";
    let set = ruleset(&[BASE, off]);
    assert!(names(&set, Source::Syscall, &exec("sh")).is_empty());
    assert_eq!(set.rules()[0].status, RuleStatus::Disabled);
    let on = "- rule: r\n  enabled: true\n  override: {enabled: replace}\n";
    assert_eq!(
        names(&ruleset(&[BASE, off, on]), Source::Syscall, &exec("sh")),
        ["r"]
    );
}

#[test]
fn a_rule_is_overridden_key_by_key() {
    let more = "
- rule: r
  condition: and proc.name != sh
  priority: critical
  output: by %user.name
  tags: [b]
  desc: more
  override: {condition: append, priority: replace, output: append, tags: append, desc: append}
";
    let set = ruleset(&[BASE, more]);
    assert!(names(&set, Source::Syscall, &exec("sh")).is_empty());
    let rule = &set.rules()[0];
    assert_eq!((rule.priority.as_str(), rule.tags.len()), ("Critical", 3));
    assert_eq!(rule.techniques().collect::<Vec<_>>(), ["T1059"]);
    assert_eq!(
        (rule.output.as_str(), rule.description.as_str()),
        ("ran %proc.name by %user.name", "d more")
    );
}

#[test]
fn an_appended_condition_follows_precedence_as_text_does() {
    let a = rule_of("proc.name = a or proc.name = b");
    let b = "- rule: r\n  append: true\n  condition: and proc.pname = c\n";
    let set = ruleset(&[&a, b]);
    assert_eq!(names(&set, Source::Syscall, &exec("a")), ["r"]);
    assert!(names(&set, Source::Syscall, &exec("b")).is_empty());
}

#[test]
fn exceptions_exclude_what_they_name() {
    let exceptions = "
  exceptions:
    - name: pairs
      fields: [proc.pname, proc.cmdline]
      comps: [=, startswith]
      values:
        - [cron, run]
        - [init, 'go now']
    - name: images
      fields: container.image.repository
      values: [good, better]
    - name: lists
      fields: [proc.name, user.name]
      comps: [in, =]
      values:
        - [[sh, dash], root]
        - [shells, www]
    - name: none
      fields: [proc.cwd]
";
    let set = ruleset(&[&format!("{BASE}{exceptions}")]);
    let fires = |e: &Event| !names(&set, Source::Syscall, e).is_empty();
    let cron = exec("bash").with("proc.pname", "cron");
    assert!(fires(&exec("bash")) && fires(&cron));
    assert!(!fires(&cron.clone().with("proc.cmdline", "run x")));
    assert!(!fires(
        &exec("bash")
            .with("proc.pname", "init")
            .with("proc.cmdline", "go now!")
    ));
    assert!(!fires(
        &exec("bash").with("container.image.repository", "better")
    ));
    assert!(!fires(&exec("sh").with("user.name", "root")));
    assert!(!fires(&exec("bash").with("user.name", "www")));
    let more = "- rule: r\n  exceptions:\n    - name: images\n      values: [best]\n  override: {exceptions: append}\n";
    let set = ruleset(&[&format!("{BASE}{exceptions}"), more]);
    let best = exec("bash").with("container.image.repository", "best");
    assert!(names(&set, Source::Syscall, &best).is_empty());
}

/// Codes of what a set is warned of.
fn warned(text: &str) -> Vec<&'static str> {
    let (report, set) = load(&[("r.yaml", text)], &LoadOptions::default());
    assert!(set.is_some(), "{:?}", report.errors().next());
    report.warnings().map(|(_, w)| w.code.as_str()).collect()
}

#[test]
fn a_value_of_an_exception_may_be_made_of_a_field_and_one_that_looks_so_is_warned_of() {
    let text = |value: &str| {
        format!(
            "{}  exceptions: [{{name: x, fields: [proc.name], comps: ['='], values: [[{value}]]}}]\n",
            rule_of("evt.type = execve")
        )
    };
    let same = exec("SH").with("proc.pname", "sh");
    let other = exec("SH").with("proc.pname", "bash");
    let set = ruleset(&[&text("toupper(proc.pname)")]);
    assert!(names(&set, Source::Syscall, &same).is_empty());
    assert_eq!(names(&set, Source::Syscall, &other), ["r"]);
    assert!(warned(&text("toupper(proc.pname)")).is_empty());
    // with a blank it is a text, as one that names a field is
    for value in ["proc.pname", "'\"proc.pname\"'"] {
        assert_eq!(
            names(&ruleset(&[&text(value)]), Source::Syscall, &same),
            ["r"]
        );
        assert_eq!(warned(&text(value)), ["LOAD_COMPILE_CONDITION"], "{value}");
    }
    let set = ruleset(&[&text("'toupper( proc.pname)'")]);
    assert_eq!(names(&set, Source::Syscall, &same), ["r"]);
}

#[test]
fn events_are_numbered_from_one_so_number_nought_is_never() {
    for (never, always) in [
        ("evt.num = 0", "evt.num != 0"),
        ("evt.num < 1", "evt.num >= 1"),
        ("evt.num <= 0", "evt.num > 0"),
    ] {
        let kinds = |condition: &str| ruleset(&[&rule_of(condition)]).kinds(RuleId(0)).len();
        assert_eq!(kinds(never), 0, "{never}");
        assert!(kinds(always) > 100, "{always}");
        assert_eq!(kinds(&format!("evt.type = open and not ({never})")), 1);
        // it is never true, not true of too much
        assert!(warned(&rule_of(never)).is_empty(), "{never}");
    }
    assert!(ruleset(&[&rule_of("evt.num = 5")]).kinds(RuleId(0)).len() > 100);
}

#[test]
fn a_brace_that_repeats_nothing_is_a_brace() {
    let event = |text: &str| Event::new("execve").with("proc.args", text);
    for (pattern, fits, differs) in [
        ("a{2}", "aa", "a{2}"),
        ("a{2", "a{2", "aa"),
        ("x{a,b}", "x{a,b}", "xa"),
        (r"\\{\\p{L}{1,2}}", "{ab}", "{abc}"),
        ("[{]{2}", "{{", "{"),
    ] {
        let condition = format!("proc.args regex '{pattern}'");
        assert!(matches(&condition, &event(fits)), "{pattern}");
        assert!(!matches(&condition, &event(differs)), "{pattern}");
    }
}

#[test]
fn lists_name_lists_and_items_are_pasted_as_falco_does() {
    let text = r#"
- list: inner
  items: [a, "b c", "'d,e'", "f,g", "h=i"]
- list: outer
  items: [inner, x]
"#;
    let set = ruleset(&[&format!(
        "{text}{}",
        rule_of("proc.name in (outer, \"outer\")")
    )]);
    for name in ["a", "b c", "d,e", "f", "g", "h=i", "x", "outer"] {
        assert_eq!(names(&set, Source::Syscall, &exec(name)), ["r"], "{name}");
    }
    assert!(names(&set, Source::Syscall, &exec("inner")).is_empty());
    let one = "- list: one\n  items: [bash]\n";
    let set = ruleset(&[&format!("{one}{}", rule_of("proc.name = one"))]);
    assert_eq!(names(&set, Source::Syscall, &exec("bash")), ["r"]);
}

#[test]
fn an_empty_list_matches_nothing() {
    let text = format!(
        "- list: none\n  items: []\n{}",
        rule_of("proc.name in (none)")
    );
    assert!(names(&ruleset(&[&text]), Source::Syscall, &exec("a")).is_empty());
    let text = format!(
        "- list: none\n  items: []\n{}",
        rule_of("not proc.name in (a, none)")
    );
    assert_eq!(
        names(&ruleset(&[&text]), Source::Syscall, &exec("b")),
        ["r"]
    );
}

#[track_caller]
fn error_of(text: &str) -> (String, String, u32, u32) {
    let (report, set) = load_texts(&[text]);
    assert!(set.is_none(), "a set came of a text with errors");
    let (_, error) = report.errors().next().expect("an error");
    let at = error.position().expect("a place");
    (
        error.code.as_str().to_owned(),
        error.message.clone(),
        at.line,
        at.column,
    )
}

/// Codes and lines of all errors of one text.
#[track_caller]
fn all_errors_of(text: &str) -> Vec<(&'static str, u32, String)> {
    let (report, set) = load_texts(&[text]);
    assert!(set.is_none(), "a set came of a text with errors");
    let place = |f: &plimsoll_rules::Finding| f.position().map_or(0, |p| p.line);
    let errors = report.errors();
    errors
        .map(|(_, e)| (e.code.as_str(), place(e), e.message.clone()))
        .collect()
}

#[test]
fn everything_that_is_wrong_with_a_file_is_told_at_once_and_nothing_that_only_follows() {
    let text = r#"- list: shells
  items: bash
- macro: opens
  condition: evt.type = openn
- rule: one
  desc: d
  condition: opens and proc.name in (shells)
  output: o
  priority: NOTICE
- rule: two
  desc: d
  condition: opens and proc.nmae = x and fd.num = y
  output: "%proc.nmae"
  priority: LOUD
- rule: three
  desc: d
  condition: evt.type = open and proc.nmae = x and (fd.num = y or proc.name = z)
  output: o
  priority: NOTICE
- list: shells
  items: [zsh]
  append: true
- rule: two
  enabled: false
- rule: four
  priority: NOTICE
"#;
    let found = all_errors_of(text);
    let places: Vec<(&str, u32)> = found.iter().map(|(c, l, _)| (*c, *l)).collect();
    assert_eq!(
        places,
        [
            ("LOAD_ERR_YAML_VALIDATE", 2),
            ("LOAD_ERR_COMPILE_CONDITION", 4),
            ("LOAD_ERR_YAML_VALIDATE", 14),
            ("LOAD_ERR_COMPILE_CONDITION", 17),
            ("LOAD_ERR_COMPILE_CONDITION", 17),
            ("LOAD_ERR_YAML_VALIDATE", 25),
            ("LOAD_ERR_YAML_VALIDATE", 25),
            ("LOAD_ERR_YAML_VALIDATE", 25),
        ],
        "{found:#?}"
    );
}

#[test]
fn behind_a_place_that_is_no_yaml_the_next_item_is_read() {
    let text = "- macro: fine
  condition: evt.type = open
- rule: broken
  desc: 'not closed
                  priority: NOTICE
- rule: tabs
	desc: d
- rule: bad
  desc: d
  condition: fine and                 proc.nmae = x
  output: o
  priority: NOTICE
- rule: rests
  desc: d
  condition:                 perhaps_in_broken
  output: o
  priority: NOTICE
";
    let found = all_errors_of(text);
    let kinds: Vec<&str> = found.iter().map(|(c, ..)| *c).collect();
    assert!(kinds.contains(&"LOAD_ERR_YAML_PARSE"), "{found:#?}");
    let compiled = found
        .iter()
        .find(|(c, ..)| *c == "LOAD_ERR_COMPILE_CONDITION");
    assert_eq!(compiled.map(|(_, line, _)| *line), Some(10), "{found:#?}");
    assert!(
        !found
            .iter()
            .any(|(_, _, m)| m.contains("perhaps_in_broken")),
        "it may stand in what could not be read: {found:#?}"
    );
    // an end to it: as many broken items as there can be
    let many = "- rule: [
"
    .repeat(20_000);
    assert!((1..=1000).contains(&all_errors_of(&many).len()));
}

#[test]
fn errors_name_their_place_and_what_was_expected() {
    let (code, message, line, column) = error_of(&rule_of("proc.name = a and\nproc.nmae = b"));
    assert_eq!(
        (code.as_str(), line, column),
        ("LOAD_ERR_COMPILE_CONDITION", 7, 5),
        "{message}"
    );
    assert!(message.contains("proc.nmae"), "{message}");
    let cases = [
        ("- a: [", "LOAD_ERR_YAML_PARSE", ""),
        ("a: b", "LOAD_ERR_YAML_VALIDATE", "sequence"),
        (
            "- rule: r\n  condition: a",
            "LOAD_ERR_YAML_VALIDATE",
            "output",
        ),
        ("- list: l", "LOAD_ERR_YAML_VALIDATE", "items"),
        (
            "- list: l\n  items: [a]\n  append: true",
            "LOAD_ERR_VALIDATE",
            "no list of that name",
        ),
        ("- required_engine_version: 999", "LOAD_ERR_VALIDATE", "999"),
        (
            "- macro: a\n  condition: missing",
            "LOAD_ERR_VALIDATE",
            "missing",
        ),
        (
            "- macro: a\n  condition: (proc.name = x",
            "LOAD_ERR_COMPILE_CONDITION",
            "expected ')'",
        ),
        (
            "- rule: r\n  enabled: false",
            "LOAD_ERR_VALIDATE",
            "no rule of that name",
        ),
    ];
    for (text, code, part) in cases {
        let (found, message, ..) = error_of(text);
        assert_eq!(found, code, "{text}: {message}");
        assert!(message.contains(part), "{text}: {message}");
    }
    for (condition, part) in [
        ("fd.num contains x", "does not compare numbers"),
        ("fd.num = x", "expected a whole number"),
        ("fd.snet = 10.0.0.0/99", "expected a network"),
        ("evt.type = exceve", "unknown event type"),
        ("proc.name regex '('", "not a regular expression"),
        ("proc.name = val(fd.num)", "CHARBUF"),
        (
            "proc.aname = val(proc.name)",
            "cannot be compared with another field",
        ),
        ("tolower(fd.num) = x", "does not take"),
        ("ka.verb = get", "does not exist for source syscall"),
        ("proc.is_exe_from_memfd = yes", "expected true or false"),
    ] {
        let (_, message, ..) = error_of(&rule_of(condition));
        assert!(message.contains(part), "{condition}: {message}");
    }
    let bad_output = rule_of("evt.type = open").replace("output: o", "output: x %proc.nmae");
    let (code, message, line, column) = error_of(&bad_output);
    assert_eq!(
        (code.as_str(), line, column),
        ("LOAD_ERR_COMPILE_OUTPUT", 4, 14),
        "{message}"
    );
}

#[test]
fn macros_in_a_circle_are_named() {
    let text = "
- macro: a
  condition: proc.name = x
- macro: b
  condition: a
- macro: c
  condition: b
- macro: a
  condition: c or proc.name = y
";
    let (code, message, ..) = error_of(text);
    assert_eq!(code, "LOAD_ERR_VALIDATE");
    assert!(message.contains("a → c → b → a"), "{message}");
}

#[test]
fn warnings_are_falcos() {
    let text = "
- list: unused
  items: [a]
- macro: idle
  condition: proc.name = a
- rule: r
  desc: d
  priority: INFO
  output: o %container.info
  condition: proc.name = proc.pname and evt.dir = <
  unknown: 1
- surprise: 1
- rule: other
  desc: d
  priority: INFO
  source: aws_cloudtrail
  output: o
  condition: ct.name = x
";
    let (report, set) = load_texts(&[text]);
    let codes: Vec<&str> = report.warnings().map(|(_, w)| w.code.as_str()).collect();
    for code in [
        "LOAD_UNUSED_LIST",
        "LOAD_UNUSED_MACRO",
        "LOAD_UNKNOWN_KEY",
        "LOAD_UNKNOWN_ITEM",
        "LOAD_UNKNOWN_SOURCE",
        "LOAD_COMPILE_CONDITION",
        "LOAD_DEPRECATED_ITEM",
        "LOAD_NO_EVTTYPE",
    ] {
        assert!(codes.contains(&code), "{code} is missing in {codes:?}");
    }
    assert_eq!(set.unwrap().rules().len(), 1);
}

#[test]
fn unknown_fields_are_passed_over_where_the_rule_says_so() {
    let text =
        rule_of("proc.nmae = a").replace("desc: d", "desc: d\n  skip-if-unknown-filter: true");
    let (report, set) = load_texts(&[&text]);
    assert!(report.successful() && set.unwrap().rules().is_empty());
    assert!(
        report
            .warnings()
            .any(|(_, w)| w.code.as_str() == "LOAD_UNKNOWN_FILTER")
    );
}

#[test]
fn the_report_has_falcos_shape() {
    let (report, _) = load_texts(&[&rule_of("proc.nmae = a")]);
    let json = serde_json::to_value(&report).unwrap();
    let file = &json["falco_load_results"][0];
    assert_eq!(file["successful"], false);
    let error = &file["errors"][0];
    assert_eq!(error["code"], "LOAD_ERR_COMPILE_CONDITION");
    assert!(
        error["context"]["snippet"]
            .as_str()
            .unwrap()
            .contains("proc.nmae")
    );
    let locations = error["context"]["locations"].as_array().unwrap();
    let types: Vec<&str> = locations
        .iter()
        .map(|l| l["item_type"].as_str().unwrap())
        .collect();
    assert_eq!(
        types,
        [
            "rules content",
            "rule",
            "rule condition",
            "condition expression"
        ]
    );
    assert_eq!(locations[1]["item_name"], "r");
    assert_eq!(locations[3]["position"]["line"], 6);
}

#[test]
fn duplicate_keys_merges_and_documents_are_read_as_falco_does() {
    let text = format!(
        "{}  priority: ERROR\n  <<: {{desc: x}}\n---\n{BASE}",
        rule_of("evt.type = open").replace("rule: r", "rule: first")
    );
    let (report, set) = load_texts(&[&text]);
    let set = set.unwrap();
    assert_eq!(set.rules()[0].priority.as_str(), "Informational");
    assert_eq!(set.rules().len(), 2);
    assert_eq!(
        report
            .warnings()
            .filter(|(_, w)| w.code.as_str() == "LOAD_UNKNOWN_KEY")
            .count(),
        2
    );
}

// Judging

#[test]
fn one_match_or_all() {
    let text = format!(
        "{}{}",
        rule_of("proc.name = a"),
        rule_of("proc.name exists").replace("rule: r", "rule: s")
    );
    assert_eq!(
        names(&ruleset(&[&text]), Source::Syscall, &exec("a")),
        ["r", "s"]
    );
    let options = LoadOptions {
        match_mode: MatchMode::First,
        ..LoadOptions::default()
    };
    let set = load(&[("f", &text)], &options).1.unwrap();
    assert_eq!(names(&set, Source::Syscall, &exec("a")), ["r"]);
}

#[test]
fn what_is_not_known_makes_a_verdict_unknown() {
    let set = ruleset(&[&rule_of(
        "evt.type = execve and proc.name = a and (user.uid = 0 or not fd.num exists)",
    )]);
    let mut scratch = Scratch::default();
    let mut could = |e: &Event| set.could_match(Source::Syscall, e, &mut scratch);
    let known = Event::partial("execve").with("proc.name", "a");
    assert_eq!(could(&Event::partial("execve")), Tri::Unknown);
    assert_eq!(could(&known), Tri::Unknown);
    assert_eq!(could(&known.clone().with("user.uid", 0u64)), Tri::True);
    assert_eq!(
        could(&Event::partial("execve").with("proc.name", "b")),
        Tri::False
    );
    assert_eq!(could(&Event::partial("open")), Tri::False);
    assert_eq!(
        could(&known.with("user.uid", 1u64).with("fd.num", 1i64)),
        Tri::False
    );
    assert!(
        set.judge(Source::Syscall, &Event::partial("execve"), &mut scratch)
            .is_empty()
    );
}

#[test]
fn a_rule_that_needs_what_is_not_observed_says_so() {
    let text = rule_of("evt.type in (execve, bpf) and proc.env icontains proxy");
    let load_with = |capabilities| {
        let options = LoadOptions {
            capabilities,
            ..LoadOptions::default()
        };
        load(&[("f", &text)], &options).1.unwrap()
    };
    let set = load_with(NodeCapabilities::all().without_field(Field::ProcEnv, "not collected"));
    assert_eq!(
        set.rules()[0].status.reasons(),
        ["needs proc.env: not collected"]
    );
    assert!(!set.rules()[0].status.is_active());
    assert!(names(&set, Source::Syscall, &exec("a").with("proc.env", "PROXY")).is_empty());
    let bpf = EventKind::from_name("bpf").unwrap();
    let set = load_with(NodeCapabilities::all().without_kind(bpf, "not observed"));
    assert_eq!(
        set.rules()[0].status.reasons(),
        ["needs evt.type bpf: not observed"]
    );
    assert!(set.rules()[0].status.is_active());
    let explanation = set.explain(RuleId(0));
    assert_eq!(explanation.kinds.len(), 2);
    assert_eq!(
        explanation.kinds[0].missing.as_deref(),
        Some("not observed")
    );
}

#[test]
fn a_reason_names_what_held_and_the_first_that_did_not() {
    let set = ruleset(&[BASE]);
    let held: Vec<String> = set
        .reason(RuleId(0), &exec("sh"))
        .held
        .into_iter()
        .map(|c| c.text)
        .collect();
    assert_eq!(held, ["evt.type = execve", "proc.name in (bash, sh)"]);
    let reason = set.reason(RuleId(0), &exec("cat"));
    let first = reason.first_false.unwrap();
    assert_eq!(
        (first.text.as_str(), first.value.as_str()),
        ("proc.name in (bash, sh)", "cat")
    );
    assert_eq!(first.in_macro.as_deref(), Some("shell"));
    assert_eq!(reason.held.len(), 1);
    let set = ruleset(&[&rule_of("not (proc.name = a or proc.pname = b)")]);
    let first = set.reason(RuleId(0), &exec("a")).first_false.unwrap();
    assert_eq!(first.text, "not proc.name = a");
}

#[test]
fn an_explanation_expands_macros_and_lists() {
    let explanation = ruleset(&[BASE]).explain(RuleId(0));
    assert_eq!(
        explanation.expanded,
        "evt.type = execve and proc.name in (bash, sh)"
    );
    assert_eq!(explanation.macros, ["shell"]);
    assert_eq!(explanation.kinds[0].name, "execve");
    assert_eq!(explanation.fields.len(), 2);
}

// Outputs

#[test]
fn outputs_show_fields_arguments_and_widths() {
    let text = rule_of("evt.type = execve").replace(
        "output: o",
        "output: \"*%proc.name. %8user.name|%2proc.pname|%proc.aname[2] %evt.arg.flags *%toupper(proc.name) n=%fd.num\"",
    );
    let options = LoadOptions {
        suggested_output: false,
        ..LoadOptions::default()
    };
    let set = load(&[("f", &text)], &options).1.unwrap();
    let event = exec("ba\nsh")
        .with("user.name", "eve")
        .with("proc.pname", "nginx")
        .with("proc.aname[2]", "runc")
        .with("fd.num", 3i64);
    let rendered = set.render(RuleId(0), &event);
    assert_eq!(
        rendered.output,
        "ba\\nsh. eve     |ng|runc <NA> *BA\\nSH n=3"
    );
    let fields = serde_json::to_value(&rendered.output_fields).unwrap();
    assert_eq!(fields[0], serde_json::json!(["proc.name", "ba\nsh"]));
    assert_eq!(fields[4], serde_json::json!(["evt.arg.flags", null]));
    assert_eq!(fields[6], serde_json::json!(["fd.num", 3]));
}

#[test]
fn container_fields_are_added_once() {
    let text = rule_of("evt.type = execve").replace("output: o", "output: x (%container.info)");
    let event = exec("a").with("container.id", "abc");
    let set = ruleset(&[&text]);
    let output = set.render(RuleId(0), &event).output;
    assert_eq!(output.matches("container_id=abc").count(), 1, "{output}");
    let options = LoadOptions {
        suggested_output: false,
        ..LoadOptions::default()
    };
    let set = load(&[("f", &text)], &options).1.unwrap();
    assert_eq!(
        set.render(RuleId(0), &event).output,
        "x (container_id=abc container_name=<NA>)"
    );
}

#[test]
fn outputs_can_be_appended_to_from_outside() {
    let append = plimsoll_rules::AppendOutput {
        tags: vec!["a".into()],
        extra_output: Some("by %user.name".into()),
        extra_fields: vec![("parent".into(), "%proc.pname".into())],
        ..Default::default()
    };
    let options = LoadOptions {
        append_output: vec![append],
        suggested_output: false,
        ..LoadOptions::default()
    };
    let set = load(&[("f", BASE)], &options).1.unwrap();
    let event = exec("sh").with("user.name", "eve").with("proc.pname", "x");
    let rendered = set.render(RuleId(0), &event);
    assert_eq!(rendered.output, "ran sh by eve");
    assert!(rendered.output_fields.iter().any(|(n, _)| n == "parent"));
}

#[test]
fn a_threshold_is_part_of_a_rule() {
    let text = format!(
        "{}  threshold: {{count: 2, within: 10s, per: pod}}\n",
        rule_of("evt.type = open")
    );
    let set = ruleset(&[&text]);
    let threshold = set.rules()[0].threshold.unwrap();
    let mut counts = ThresholdCounts::new(16);
    assert_eq!(
        counts.count(RuleId(0), threshold, b"pod", b"", 1),
        Counted::Below(1)
    );
    assert_eq!(
        counts.count(RuleId(0), threshold, b"pod", b"", 2),
        Counted::Reached
    );
    let (code, ..) = error_of(&text.replace("10s", "soon"));
    assert_eq!(code, "LOAD_ERR_EXTENSION");
}

#[test]
fn a_threshold_of_different_values_names_a_field_that_is_told() {
    let text = |distinct: &str| {
        format!(
            "{}  threshold: {{count: 2, within: 10s, distinct: {distinct}}}\n",
            rule_of("evt.type = open")
        )
    };
    let set = ruleset(&[&text("fd.name")]);
    let threshold = set.rules()[0].threshold.unwrap();
    let event = Event::new("open").with("fd.name", "/etc/x");
    assert_eq!(threshold.value_of(&event), b"/etc/x");
    // a repeat brings no new value, so the kernel need not tell of it
    let mut scratch = Scratch::default();
    assert_eq!(
        set.judge(Source::Syscall, &event, &mut scratch),
        [RuleId(0)]
    );
    let could = set.could_match(Source::Syscall, &event, &mut scratch);
    assert_eq!(could, Tri::False);
    for wrong in ["fd.nmae", "proc.aname", "evt.arg", "\"\""] {
        assert_eq!(error_of(&text(wrong)).0, "LOAD_ERR_EXTENSION", "{wrong}");
    }
    let many = text("fd.name").replace("count: 2", "count: 1001");
    assert_eq!(error_of(&many).0, "LOAD_ERR_EXTENSION");
    let field = plimsoll_rules::Field::from_name("fd.name").unwrap();
    let options = LoadOptions {
        capabilities: plimsoll_rules::NodeCapabilities::all().without_field(field, "not collected"),
        ..LoadOptions::default()
    };
    let set = load(&[("f", &text("fd.name"))], &options).1.unwrap();
    assert_eq!(
        set.rules()[0].status.reasons(),
        ["counts fd.name: not collected"]
    );
}

/// An open of some file below a directory.
struct Below(&'static str);

impl plimsoll_rules::EventView for Below {
    fn kind(&self) -> plimsoll_rules::EventKind {
        plimsoll_rules::EventKind::from_name("openat").unwrap()
    }
    fn field<'a>(&'a self, _: &plimsoll_rules::FieldRef) -> plimsoll_rules::Value<'a> {
        plimsoll_rules::Value::Unknown
    }
    fn beginning<'a>(&'a self, field: &plimsoll_rules::FieldRef) -> Option<&'a [u8]> {
        (field.field.name() == "fd.name").then_some(self.0.as_bytes())
    }
}

#[test]
fn what_a_text_begins_with_rules_a_match_out() {
    use plimsoll_rules::Tri;
    let condition = "evt.type = openat and proc.name = x and (fd.name startswith /etc/ssh \
                     or fd.name = /srv/key or fd.name in (/root/.netrc))";
    let set = ruleset(&[&rule_of(condition)]);
    let ask = |dir| set.could_match_some(plimsoll_rules::Source::Syscall, &Below(dir));
    assert_eq!(ask("/var/www/"), Tri::False);
    assert_eq!(ask("/etc/ssh/"), Tri::Unknown, "the process is not known");
    assert_eq!(ask("/etc/"), Tri::Unknown);
    assert_eq!(ask("/srv/"), Tri::Unknown);
    assert_eq!(ask("/root/x/"), Tri::False);
}
