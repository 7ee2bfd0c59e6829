//! `docs/evasion.md`, from the table.

use super::table::{Answer, Field, How, Scenario, TABLE, Want};
use std::fmt::Write as _;
use std::path::PathBuf;

const HEAD: &str = "\
# Evasions, and the answer each must give

What somebody does who does not want to be seen, and what comes of it. This page is written from the table
in `crates/cli/tests/host/evasion/table.rs`; each line is a test that does it in a real container
(`tests/host/acts`) and holds the agent's record against the answer. A limit is named by `plimsoll doctor`
in the row that is quoted, and the test also checks that it is true.

`by` says what sees it with tracepoints only, then with BPF-LSM or fentry where that is something else.
[Kernels](guide/kernels.md) has the mechanisms, and which kernel has which.
";

fn code(s: &str) -> String {
    format!("`{s}`").replace('|', "\\|")
}

fn field(f: &Field) -> String {
    let name = f.at.trim_start_matches("/detail/").trim_start_matches('/');
    let name = name.replace('/', ".");
    match f.want {
        Want::Is(w) => format!("{name} = {}", code(w)),
        Want::Ends(w) => format!("{name} ends in {}", code(w)),
        Want::Has(w) => format!("{name} has {}", code(w)),
    }
}

fn fields(kind: &str, list: &[Field]) -> String {
    let mut parts = vec![format!("**{kind}**")];
    parts.extend(list.iter().map(field));
    parts.join(", ")
}

/// One answer in words.
pub(super) fn answer(a: &Answer) -> String {
    match a {
        Answer::Seen(kind, list) => fields(kind, list),
        Answer::Times(n, kind, list) => format!("{n} × {}", fields(kind, list)),
        Answer::Limit(kind, list, [row, says]) => {
            format!("limit: no {}; doctor, {row}: “{says}”", fields(kind, list))
        }
        Answer::Stated([row, says]) => format!("limit: doctor, {row}: “{says}”"),
        Answer::Alerted(what) => format!("alert: {}", code(what)),
        Answer::MadeBy(word) => {
            format!(
                "**exec** of {}, whose first ancestor is who made it",
                code(word)
            )
        }
        Answer::Told(words) => (*words).to_owned(),
    }
}

fn line(s: &Scenario, out: &mut String) {
    let by = match s.by {
        [one, ""] => one.to_owned(),
        [one, two] => format!("{one}; {two}"),
    };
    let how = match s.how {
        How::Act(name) => format!("`acts {name}`"),
        How::Shell(words) => code(words),
        How::Test(name) => format!("test `{name}`"),
    };
    let answers: Vec<String> = s.answers.iter().map(answer).collect();
    let _ = writeln!(
        out,
        "| {} | {} | {} | {how} |",
        s.technique,
        answers.join("<br>"),
        by
    );
}

fn page() -> String {
    let mut out = HEAD.to_owned();
    let groups = [
        ("Files", "uring-open"),
        ("Code", "memfd-exec"),
        ("Network", "uring-connect"),
        ("Processes and namespaces", "vfork"),
        ("32-bit calls", "compat-open"),
        ("From outside, and by load", "runtime-exec"),
    ];
    for s in TABLE {
        if let Some((title, _)) = groups.iter().find(|(_, first)| *first == s.name) {
            let _ = write!(
                out,
                "\n## {title}\n\n| what is tried | answer | by | done as |\n|---|---|---|---|\n"
            );
        }
        line(s, &mut out);
    }
    out
}

#[test]
fn the_page_of_evasions_is_what_the_table_says() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../docs/evasion.md");
    if std::env::var_os("PLIMSOLL_WRITE_DOCS").is_some() {
        std::fs::write(&path, page()).expect("write the page");
    }
    let there = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        there == page(),
        "docs/evasion.md is not current: run this test with PLIMSOLL_WRITE_DOCS=1"
    );
}

#[test]
fn scenarios_have_names_of_their_own_and_answers() {
    let mut names: Vec<&str> = TABLE.iter().map(|s| s.name).collect();
    names.sort_unstable();
    let all = names.len();
    names.dedup();
    assert_eq!(all, names.len());
    assert!(TABLE.iter().all(|s| !s.answers.is_empty()));
}
