//! What no rule text and no event may do: crash, hang, or make the fast way differ from the slow.

mod support;

use std::time::{Duration, Instant};

use plimsoll_rules::{
    EventKind, EventView, FieldRef, LoadOptions, RuleId, Ruleset, Scratch, Source, Tri, Value, load,
};
use proptest::prelude::*;
use support::{Event, FALCO_FILES, Held, corpus_files, load_texts, rule_of};

/// Loading this ends soon, with errors and without a set.
#[track_caller]
fn refused(text: &str, part: &str) {
    let start = Instant::now();
    let (report, set) = load_texts(&[text]);
    assert!(set.is_none());
    let messages: Vec<&str> = report.errors().map(|(_, e)| e.message.as_str()).collect();
    assert!(
        messages.iter().any(|m| m.contains(part)),
        "{part} is not in {messages:?}"
    );
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "took {:?}",
        start.elapsed()
    );
}

#[test]
fn a_list_of_a_million_items_is_refused() {
    let items = vec!["a1"; 1_000_000].join(", ");
    refused(
        &format!("- list: l\n  items: [{items}]\n"),
        "more than 250000 items",
    );
    let append = "- list: l\n  items: [m, m, m, m]\n";
    let many = (0..30).map(|i| {
        format!(
            "- list: l{i}\n  items: [{}]\n",
            vec![format!("l{}", i + 1); 10].join(",")
        )
    });
    let bomb: String = many
        .chain(["- list: l30\n  items: [x, y]\n".into(), append.into()])
        .collect();
    refused(&format!("{bomb}{}", rule_of("proc.name in (l0)")), "items");
}

#[test]
fn nesting_ten_thousand_deep_is_refused() {
    let deep = format!("{}proc.name = a{}", "(".repeat(10_000), ")".repeat(10_000));
    refused(&rule_of(&deep), "nested deeper");
    refused(&rule_of(&"not(".repeat(10_000)), "nested deeper");
    refused(&format!("- a: {}", "[".repeat(10_000)), "");
    let chain: String = (0..10_000)
        .map(|i| match i {
            0 => "- macro: m0\n  condition: proc.name = a\n".to_owned(),
            _ => format!(
                "- macro: m{i}\n  condition: (m{} or proc.pname = p{i})\n",
                i - 1
            ),
        })
        .collect();
    refused(&format!("{chain}{}", rule_of("m9999")), "nested deeper");
}

#[test]
fn conditions_that_double_with_each_macro_stay_small() {
    let chain: String = (0..100)
        .map(|i| match i {
            0 => "- macro: m0\n  condition: proc.name = a\n".to_owned(),
            _ => format!(
                "- macro: m{i}\n  condition: (m{p} and proc.pname = p{i}) or (m{p} and fd.num = {i})\n",
                p = i - 1
            ),
        })
        .collect();
    let text = format!("{chain}{}", rule_of("m60"));
    let (report, set) = load_texts(&[&text]);
    assert!(report.successful());
    let set = set.unwrap();
    let event = Event::new("open")
        .with("proc.name", "a")
        .with("proc.pname", "p1")
        .with("fd.num", 2i64);
    assert!(
        set.judge(Source::Syscall, &event, &mut Scratch::default())
            .is_empty()
    );
    assert!(set.reason(RuleId(0), &event).first_false.is_some());
    assert!(set.explain(RuleId(0)).expanded.len() < 200_000);
}

#[test]
fn patterns_that_backtrack_elsewhere_are_linear_here() {
    let set = support::ruleset(&[&rule_of(
        "proc.name regex '(a+)+b' or proc.name glob '*a*a*a*a*a*b'",
    )]);
    let event = Event::new("open").with("proc.name", "a".repeat(100_000).as_str());
    let start = Instant::now();
    assert!(
        set.judge(Source::Syscall, &event, &mut Scratch::default())
            .is_empty()
    );
    assert!(start.elapsed() < Duration::from_secs(30));
    refused(
        &rule_of("proc.name regex '((a{1000}){1000}){1000}'"),
        "bytes compiled",
    );
}

#[test]
fn bytes_that_are_no_rules_are_refused() {
    for text in [
        "\u{feff}",
        "%",
        "- &a [*a]",
        "- rule: [",
        "\t- x",
        "- rule: r\n\tx: y",
        "- *x",
    ] {
        let _ = load_texts(&[text]);
    }
    refused("- rule: {a: b}\n  condition: x\n", "has to be a text");
    refused("- 1\n", "expected a mapping");
}

// What may stand in a condition, and what events may hold.

fn field() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["proc.name", "proc.pname", "fd.name", "proc.cmdline"])
}

fn word() -> impl Strategy<Value = &'static str> {
    prop::sample::select(vec!["a", "ab", "b", "/a", "/a/b", "ba", "x"])
}

fn words() -> impl Strategy<Value = String> {
    prop::collection::vec(word(), 1..5).prop_map(|w| format!("({})", w.join(",")))
}

fn check() -> impl Strategy<Value = String> {
    let op = prop::sample::select(vec![
        "=",
        "!=",
        "startswith",
        "endswith",
        "contains",
        "icontains",
        "glob",
    ]);
    prop_oneof![
        6 => (field(), op, word()).prop_map(|(f, o, w)| format!("{f} {o} {w}")),
        3 => (field(), prop::sample::select(vec!["in", "pmatch", "startswith anyof", "contains oneof"]), words())
            .prop_map(|(f, o, w)| format!("{f} {o} {w}")),
        1 => field().prop_map(|f| format!("{f} exists")),
        1 => (field(), field()).prop_map(|(f, g)| format!("tolower({f}) = val({g})")),
        2 => prop::sample::select(vec!["fd.num >= 1", "fd.num = 2", "evt.is_open_write = true"])
            .prop_map(str::to_owned),
        2 => prop::sample::select(vec!["evt.type = open", "evt.type in (open, execve)", "evt.type != open"])
            .prop_map(str::to_owned),
        1 => words().prop_map(|w| format!("proc.aname in {w}")),
    ]
}

fn condition() -> impl Strategy<Value = String> {
    check().prop_recursive(4, 24, 5, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 2..5)
                .prop_map(|c| format!("({})", c.join(" and "))),
            prop::collection::vec(inner.clone(), 2..6)
                .prop_map(|c| format!("({})", c.join(" or "))),
            inner.prop_map(|c| format!("not ({c})")),
        ]
    })
}

fn held() -> impl Strategy<Value = Option<&'static str>> {
    prop::option::of(word())
}

fn event() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec!["open", "execve", "connect"]);
    let numbers = (prop::option::of(0i64..4), prop::option::of(any::<bool>()));
    (
        kind,
        held(),
        held(),
        held(),
        held(),
        numbers,
        prop::option::of(prop::collection::vec(word(), 0..3)),
    )
        .prop_map(
            |(kind, name, pname, file, cmdline, (num, write), lineage)| {
                let mut event = Event::new(kind);
                for (field, text) in [
                    ("proc.name", name),
                    ("proc.pname", pname),
                    ("fd.name", file),
                    ("proc.cmdline", cmdline),
                ] {
                    if let Some(text) = text {
                        event = event.with(field, text);
                    }
                }
                if let Some(num) = num {
                    event = event.with("fd.num", num);
                }
                if let Some(write) = write {
                    event = event.with("evt.is_open_write", write);
                }
                if let Some(lineage) = lineage {
                    event = event.with("proc.aname", lineage.as_slice());
                }
                event
            },
        )
}

/// An event of which some fields are not known.
struct Hidden<'e> {
    event: &'e Event,
    hidden: u64,
}

impl EventView for Hidden<'_> {
    fn kind(&self) -> EventKind {
        self.event.kind()
    }

    fn field<'a>(&'a self, field: &FieldRef) -> Value<'a> {
        match self.hidden >> (field.field.index() % 64) & 1 {
            1 => Value::Unknown,
            _ => self.event.field(field),
        }
    }
}

fn set_of(conditions: &[String]) -> Ruleset {
    let text: String = conditions
        .iter()
        .enumerate()
        .map(|(i, c)| rule_of(c).replace("rule: r", &format!("rule: r{i}")))
        .collect();
    support::ruleset(&[&text])
}

/// The fast way and the slow way agree; what is false with less known is false with all known.
fn agrees(set: &Ruleset, source: Source, event: &Event, hidden: u64, scratch: &mut Scratch) {
    let fast: Vec<RuleId> = set.judge(source, event, scratch).to_vec();
    let active = (0..set.rules().len() as u32)
        .map(RuleId)
        .filter(|id| set.rule(*id).source == source && set.rule(*id).status.is_active());
    let slow: Vec<RuleId> = active
        .clone()
        .filter(|id| set.reason(*id, event).outcome == Tri::True)
        .collect();
    assert_eq!(fast, slow, "{event:?}");
    let partly = Hidden { event, hidden };
    let could = set.could_match(source, &partly, scratch);
    let slow = active
        .map(|id| set.reason(id, &partly).outcome)
        .max()
        .unwrap_or(Tri::False);
    assert_eq!(could, slow, "{event:?} without {hidden:x}");
    assert!(
        could != Tri::False || fast.is_empty(),
        "false with less known, but it matches"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn the_plan_agrees_with_the_conditions_as_written(
        conditions in prop::collection::vec(condition(), 1..12),
        events in prop::collection::vec((event(), any::<u64>()), 1..12),
    ) {
        let set = set_of(&conditions);
        let mut scratch = Scratch::default();
        for (event, hidden) in &events {
            agrees(&set, Source::Syscall, event, *hidden, &mut scratch);
        }
    }

    #[test]
    fn a_condition_shown_reads_back_as_itself(condition in condition(), event in event()) {
        let set = set_of(std::slice::from_ref(&condition));
        let shown = set.explain(RuleId(0)).expanded;
        let again = set_of(std::slice::from_ref(&shown));
        prop_assert_eq!(
            set.reason(RuleId(0), &event).outcome,
            again.reason(RuleId(0), &event).outcome,
            "{}", shown
        );
    }

    #[test]
    fn no_text_makes_the_loader_panic(text in "\\PC{0,200}") {
        let _ = load_texts(&[&text]);
        let _ = load_texts(&[&rule_of(&text)]);
    }

    #[test]
    fn no_mixture_of_words_makes_the_loader_panic(
        words in prop::collection::vec(prop::sample::select(vec![
            "- rule: r\n", "  condition: ", "  output: ", "  desc: d\n", "  priority: INFO\n", "proc.name",
            " = ", " in ", "(", ")", ",", "'", "\"", "\\", "and ", "or ", "not ", "[", "]", "%", "*", "&a ",
            "<<: *a", "\n", "---\n", "- list: l\n", "  items: ", "- macro: m\n", "  exceptions:\n",
            "    - name: e\n", "      fields: ", "      values: ", "      comps: ", "  override: ", "append",
            "val(", "tolower(", "exists", "regex ", "fd.snet", "10.0.0.0/8", "|", ">", "\u{e9}", "\t", "  ",
        ]), 0..60)
    ) {
        let _ = load_texts(&[&words.concat()]);
    }

    #[test]
    fn outputs_take_any_text(text in "[%a-z.\\[\\]0-9*() ]{1,40}") {
        let rule = rule_of("evt.type = open").replace("output: o", &format!("output: \"x{text}\""));
        if let (_, Some(set)) = load_texts(&[&rule]) {
            set.render(RuleId(0), &Event::new("open"));
        }
    }
}

#[test]
fn the_plan_agrees_with_the_public_rules() {
    let Some(files) = corpus_files("falco-rules", &FALCO_FILES) else {
        return;
    };
    let mut files = files;
    // Also those that their authors ship switched off.
    let names: Vec<String> = {
        let texts: Vec<(&str, &str)> = files
            .iter()
            .map(|(n, t)| (n.as_str(), t.as_str()))
            .collect();
        let set = load(&texts, &LoadOptions::default()).1.unwrap();
        set.rules().iter().map(|r| r.name.clone()).collect()
    };
    let on = names
        .iter()
        .map(|n| format!("- rule: \"{n}\"\n  enabled: true\n  override: {{enabled: replace}}\n"));
    files.push(("on.yaml".into(), on.collect()));
    let texts: Vec<(&str, &str)> = files
        .iter()
        .map(|(n, t)| (n.as_str(), t.as_str()))
        .collect();
    let set = load(&texts, &LoadOptions::default()).1.unwrap();
    let mut random = 0x2545_f491_4f6c_dd1du64;
    let mut next = |n: usize| {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        (random % n as u64) as usize
    };
    // Constants of the rules themselves, so that events come near to matching.
    let mut constants: Vec<String> = Vec::new();
    for i in 0..set.rules().len() {
        let expanded = set.explain(RuleId(i as u32)).expanded;
        constants.extend(
            expanded
                .split([' ', '(', ')', ',', '"'])
                .filter(|w| !w.is_empty() && w.len() < 40)
                .map(str::to_owned),
        );
    }
    let fields: Vec<String> = {
        let mut fields: Vec<String> = (0..set.rules().len())
            .flat_map(|i| set.explain(RuleId(i as u32)).fields)
            .map(|f| f.name)
            .collect();
        fields.sort_unstable();
        fields.dedup();
        fields
    };
    let kinds: Vec<&str> = set
        .kinds_needed(Source::Syscall)
        .iter()
        .map(|k| k.name())
        .collect();
    let mut scratch = Scratch::default();
    let mut matched = 0;
    for _ in 0..3_000 {
        let mut event = Event::new(kinds[next(kinds.len())]);
        for field in &fields {
            if next(4) == 0 || field.starts_with("evt.type") || field == "evt.dir" {
                continue;
            }
            let name = field.split('[').next().unwrap();
            let ty = plimsoll_rules::Field::from_name(name).map(|f| f.info().ty);
            use plimsoll_rules::FieldType as T;
            let held: Held = match ty {
                Some(T::Bool) => (next(2) == 0).into(),
                Some(T::Ip | T::Net) => Held::Ip(
                    ["10.0.0.1", "169.254.169.254", "192.0.2.7"][next(3)]
                        .parse()
                        .unwrap(),
                ),
                Some(t) if t.is_number() => (next(4) as i64 - 1).into(),
                _ => constants[next(constants.len())].as_str().into(),
            };
            event = event.with(field, held);
        }
        matched += set.judge(Source::Syscall, &event, &mut scratch).len();
        let hidden = (next(1 << 32) as u64) << 32 | next(1 << 32) as u64;
        agrees(&set, Source::Syscall, &event, hidden, &mut scratch);
    }
    assert!(
        matched > 50,
        "only {matched} matches: the events are too far from the rules"
    );
}
