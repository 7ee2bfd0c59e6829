//! Judging allocates nothing once the scratch has grown.

mod support;

use plimsoll_rules::{LoadOptions, Scratch, Source, load};
use support::{Event, FALCO_FILES, corpus_files};

/// How many allocations judging an event takes, once it has been judged before.
fn allocations(texts: &[(&str, &str)], event: &Event) -> u64 {
    let set = load(texts, &LoadOptions::default())
        .1
        .expect("a set without errors");
    let mut scratch = Scratch::default();
    let mut judge = || set.judge(Source::Syscall, event, &mut scratch).len();
    judge();
    allocation_counter::measure(|| {
        judge();
    })
    .count_total
}

#[test]
fn an_event_that_matches_nothing_allocates_nothing() {
    let text = "
- rule: r
  desc: d
  priority: INFO
  output: o
  condition: >
    evt.type = openat and (tolower(fd.name) contains x or concat(proc.name, fd.name) = y
    or fd.name regex '/etc/[a-f]+' or fd.name glob '/x/*' or fd.name pmatch (/a, /b)
    or fd.name in (/c, /d) or proc.name startswith anyof (q, r))
";
    let event = Event::new("openat")
        .with("fd.name", "/srv/data")
        .with("proc.name", "cat");
    assert_eq!(allocations(&[("f", text)], &event), 0);
}

#[test]
fn the_public_rules_allocate_nothing_on_quiet_events() {
    let Some(files) = corpus_files("falco-rules", &FALCO_FILES) else {
        return;
    };
    let texts: Vec<(&str, &str)> = files
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    for event in [
        Event::new("openat")
            .with("fd.num", 3i64)
            .with("fd.typechar", "f")
            .with("evt.is_open_read", true)
            .with("fd.name", "/srv/data/index.html")
            .with("proc.name", "nginx")
            .with("evt.num", 1u64),
        Event::new("execve")
            .with("proc.name", "date")
            .with("proc.cmdline", "date +%s")
            .with("container.id", "3ad7b26ded6d")
            .with("proc.pname", "sh")
            .with("evt.num", 1u64),
        Event::new("connect")
            .with("fd.typechar", "4")
            .with("evt.num", 1u64),
    ] {
        assert_eq!(allocations(&texts, &event), 0, "{event:?}");
    }
}
