//! Domain crates depend on `model` (and `settings`, how files are read) and never on each other; only
//! the top joins them.

use std::process::Command;

/// They depend on none of ours.
const BELOW: &[&str] = &["plimsoll-model", "plimsoll-settings"];
const DOMAIN: &[&str] = &[
    "plimsoll-sensor",
    "plimsoll-workload",
    "plimsoll-baseline",
    "plimsoll-rules",
    "plimsoll-evidence",
    "plimsoll-respond",
    "plimsoll-lake",
];

#[test]
fn domain_crates_never_depend_on_each_other() {
    let out = Command::new(env!("CARGO"))
        .args([
            "metadata",
            "--format-version",
            "1",
            "--no-deps",
            "--offline",
        ])
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
        .output()
        .expect("run cargo metadata");
    assert!(
        out.status.success(),
        "{}",
        String::from_utf8_lossy(&out.stderr)
    );
    let metadata: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
    let mut seen = 0;
    for package in metadata["packages"].as_array().expect("packages") {
        let name = package["name"].as_str().unwrap_or_default();
        let ours = package["dependencies"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|d| d["kind"].is_null())
            .filter_map(|d| d["name"].as_str())
            .filter(|d| d.starts_with("plimsoll-"));
        for dependency in ours {
            if DOMAIN.contains(&name) {
                assert!(
                    BELOW.contains(&dependency),
                    "{name} depends on {dependency}"
                );
            }
            assert!(!BELOW.contains(&name), "{name} depends on {dependency}");
        }
        seen += usize::from(DOMAIN.contains(&name));
    }
    assert_eq!(
        seen,
        DOMAIN.len(),
        "a domain crate was renamed: update this test"
    );
}
