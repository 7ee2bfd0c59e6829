//! What other tools open: each format over one record of every kind, hostile ones included.

mod support;

use plimsoll_export::*;
use serde_json::Value;
use std::io::Write as _;
use std::path::PathBuf;
use support::*;

fn parsed(format: Format) -> Vec<Value> {
    let (lines, _) = lines(format);
    lines
        .iter()
        .map(|l| serde_json::from_str(l).expect("one object a line"))
        .collect()
}

fn check_ocsf(schema: &Value) {
    let events = parsed(Format::Ocsf);
    assert!(events.len() > 60, "{} events", events.len());
    for event in &events {
        let wrong = violations(schema, event);
        assert!(
            wrong.is_empty(),
            "{}\n{event}\n{wrong:#?}",
            event["message"]
        );
    }
}

/// The classes and objects that we use, cut down to the attributes that we write or must write.
fn own_schema() -> Value {
    let text = include_str!("ocsf-1.8.0-used.json");
    serde_json::from_str(text).expect("JSON")
}

#[test]
fn ocsf_events_have_what_the_schema_requires_by_our_own_extract() {
    check_ocsf(&own_schema());
}

#[test]
fn ocsf_events_validate_against_the_whole_schema() {
    let named = std::env::var_os("PLIMSOLL_CORPORA").map(PathBuf::from);
    let folder = named.clone().unwrap_or_else(|| {
        PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../../shared/corpora")
    });
    let path = folder.join("ocsf/ocsf-1.8.0-compiled.json");
    let Ok(text) = std::fs::read_to_string(&path) else {
        let must = std::env::var("PLIMSOLL_TEST_ALL").is_ok_and(|v| v == "1") && named.is_some();
        assert!(!must, "no OCSF schema at {}", path.display());
        // past the harness, which keeps what passing tests print to itself
        let text = "left out: OCSF against the whole schema (PLIMSOLL_CORPORA names its folder); \
                    checked against our extract of it only";
        let _ = writeln!(std::io::stderr(), "{text}");
        return;
    };
    check_ocsf(&serde_json::from_str(&text).expect("JSON"));
}

#[test]
fn the_checker_finds_what_is_wrong() {
    let schema = own_schema();
    let good = parsed(Format::Ocsf).swap_remove(0);
    assert_eq!(violations(&schema, &good), Vec::<String>::new());
    let broken = |change: &dyn Fn(&mut Value)| {
        let mut event = good.clone();
        change(&mut event);
        violations(&schema, &event)
    };
    let remove =
        |key: &'static str| move |e: &mut Value| drop(e.as_object_mut().unwrap().remove(key));
    assert!(!broken(&remove("severity_id")).is_empty(), "required");
    assert!(
        !broken(&remove("actor")).is_empty(),
        "required by a profile"
    );
    assert!(!broken(&|e| e["time"] = "now".into()).is_empty(), "type");
    assert!(
        !broken(&|e| e["severity_id"] = 42.into()).is_empty(),
        "enumeration"
    );
    assert!(
        !broken(&|e| e["invented"] = 1.into()).is_empty(),
        "unknown attribute"
    );
    assert!(
        !broken(&|e| e["type_uid"] = 100_101.into()).is_empty(),
        "type_uid"
    );
    assert!(
        !broken(&|e| e["metadata"]["profiles"] = serde_json::json!([])).is_empty(),
        "profile"
    );
}

#[test]
fn an_alert_is_a_finding_with_its_techniques_and_records() {
    let events = parsed(Format::Ocsf);
    let alert = events
        .iter()
        .find(|e| e["is_alert"] == true)
        .expect("an alert");
    assert_eq!(alert["class_uid"], 2004);
    assert_eq!(alert["severity_id"], 5);
    assert_eq!(alert["finding_info"]["uid"], "A-1");
    let techniques = &alert["finding_info"]["attacks"];
    assert_eq!(
        techniques.as_array().unwrap().len(),
        1,
        "a tag is no technique"
    );
    assert_eq!(techniques[0]["technique"]["uid"], "T1059");
    assert_eq!(alert["finding_info"]["related_events"][0]["uid"], "node1@7");
    assert_eq!(alert["device"]["container"]["image"]["name"], "shop/web:1");
}

#[test]
fn what_a_format_has_no_word_for_is_left_out_and_counted() {
    let (lines, exporter) = lines(Format::Ocsf);
    assert_eq!(exporter.written(), lines.len() as u64);
    let left: Vec<_> = exporter.left_out().iter().map(|(k, n)| (*k, *n)).collect();
    assert_eq!(
        left,
        [
            ("anchored", 1),
            ("baseline", 1),
            ("presence", 1),
            ("tombstone", 1)
        ]
    );
    let all = records().len() as u64;
    assert_eq!(exporter.written() + 4, all);
}

#[test]
fn timesketch_gets_what_it_asks_for_on_every_line() {
    for event in parsed(Format::Timesketch) {
        for field in ["message", "datetime", "timestamp_desc", "record", "node"] {
            assert!(
                event[field].as_str().is_some_and(|v| !v.is_empty()),
                "{field}: {event}"
            );
        }
        assert!(event["datetime"].as_str().unwrap().ends_with('Z'));
        let micros = event["timestamp"].as_i64().expect("microseconds");
        assert!((1_795_000_000_000_000..1_796_000_000_000_000).contains(&micros));
    }
}

#[test]
fn plain_lines_hold_the_form_of_the_api() {
    let events = parsed(Format::Jsonl);
    let alert = events
        .iter()
        .find(|e| e["kind"] == "alert")
        .expect("an alert");
    assert_eq!(alert["value"]["plimsoll"]["alert_id"], "A-1");
    assert_eq!(alert["value"]["rule"], "Program from writable layer");
    let kinds: std::collections::BTreeSet<_> =
        events.iter().map(|e| e["kind"].as_str().unwrap()).collect();
    assert!(kinds.len() >= 12, "{kinds:?}");
}

#[test]
fn csv_has_one_row_a_record_and_no_formula() {
    let heading = Exporter::new(Format::Csv, "node1").heading();
    let (lines, _) = lines(Format::Csv);
    let text = heading + &lines.concat();
    let mut reader = csv::Reader::from_reader(text.as_bytes());
    assert_eq!(&reader.headers().unwrap()[0], "time");
    let mut rows = 0;
    for row in reader.records() {
        let row = row.expect("every row has all columns");
        assert_eq!(row.len(), 19);
        for cell in &row {
            assert!(
                !cell.starts_with(['=', '+', '-', '@', '\t', '\r']),
                "{cell:?}"
            );
        }
        rows += 1;
    }
    assert_eq!(rows, lines.len());
    assert!(text.contains("'=cmd|"), "a formula is text");
}

#[test]
fn nothing_of_a_container_reaches_a_terminal_raw() {
    for format in [Format::Jsonl, Format::Csv, Format::Timesketch, Format::Ocsf] {
        let (lines, _) = lines(format);
        for line in &lines {
            let raw = line.trim_end_matches('\n').chars().any(|c| c.is_control());
            assert!(!raw, "{}: {line:?}", format.as_str());
        }
    }
}

#[test]
fn formats_have_one_name_each() {
    for name in ["jsonl", "csv", "timesketch", "ocsf"] {
        assert_eq!(Format::parse(name).unwrap().as_str(), name);
    }
    assert_eq!(Format::parse("xml"), None);
}
