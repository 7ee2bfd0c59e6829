//! What fuzzing drives of smaller things that come from elsewhere: what runtimes have on disk, records
//! of a journal, exported baselines, policies, DNS messages, lists of leaves. One function a target, the
//! same for `cargo fuzz run` and for the test that runs the seeds (`crates/cli/tests/hostile.rs`).
//!
//! Each takes any bytes, must end in bounded time and never panic; what was read and written again reads
//! as the same.

use super::scratch::scratch;
use plimsoll_model::{BootNs, ContainerId, EventKind, Record, Runtime};
use plimsoll_workload::{CgroupIdentity, Disk, Evidence as _, Hierarchy, Layout, Version};
use std::path::{Path, PathBuf};

const ID: &str = "9527ff5be3a91ef805f13edb15e208dbc58b397dcf5614296509d7b55020a24d";
const DOCKER: &str =
    r#"{"Name":"/web","Image":"sha256:0011","Path":"/bin/sh","Config":{"Image":"a/b:1"}}"#;
/// Below the scratch directory: what the first byte of an input chooses from.
const PLACES: [&str; 6] = [
    "docker/containers/ID/config.v2.json",
    "docker/containers/ID/hostconfig.json",
    "state/io.containerd.runtime.v2.task/moby/ID/config.json",
    "storage/overlay-containers/ID/userdata/config.json",
    "storage/overlay-containers/containers.json",
    "oci/ID/state.json",
];

fn place(dir: &Path, n: usize) -> PathBuf {
    dir.join(PLACES[n].replace("ID", ID))
}

fn write(path: &Path, bytes: &[u8]) {
    let above = path.parent().expect("it has a directory");
    std::fs::create_dir_all(above).expect("a scratch directory");
    std::fs::write(path, bytes).expect("a scratch file");
}

/// A machine whose daemons were started with directories below `dir`.
fn machine(dir: &Path) -> Disk {
    let at = |name: &str| dir.join(name).display().to_string();
    let daemons = [
        format!("dockerd\0--data-root\0{}\0", at("docker")),
        format!("containerd\0--state\0{}\0", at("state")),
        format!("podman\0--root\0{}\0", at("storage")),
        format!("runc\0--root\0{}\0", at("oci")),
    ];
    for (n, daemon) in daemons.iter().enumerate() {
        write(
            &dir.join(format!("proc/{}/cmdline", n + 1)),
            daemon.as_bytes(),
        );
    }
    let identifying = Hierarchy {
        version: Version::V2,
        mount: dir.join("cgroup"),
    };
    let layout = Layout {
        identifying: identifying.clone(),
        second: None,
        controllers: Vec::new(),
        all: vec![identifying],
    };
    Disk::new(&dir.join("proc"), layout)
}

/// A file that a container runtime has on disk; the first byte says which.
pub(crate) fn runtime(data: &[u8]) {
    let Some((which, content)) = data.split_first() else {
        return;
    };
    let which = usize::from(*which) % PLACES.len();
    let dir = scratch("runtime");
    let path = place(&dir, which);
    let mut disk = machine(&dir);
    write(&path, content);
    if which == 1 {
        write(&place(&dir, 0), DOCKER.as_bytes());
    }
    let identity = CgroupIdentity {
        runtime: Runtime::Docker,
        id: ContainerId::parse(ID).expect("an id"),
        root: "/system.slice/x.scope".to_owned(),
        outer: None,
        pod_uid: None,
    };
    let _ = disk.judge("/a/b", BootNs(1));
    if let Ok(facts) = disk.facts(&identity, BootNs(2)) {
        let _ = (facts.is_complete(), facts.role(), facts.service().is_some());
        let told: usize = facts.labels.iter().map(|(k, v)| k.len() + v.len()).sum();
        assert!(told <= 1 << 20, "labels are bounded: {told}");
    }
    let _ = std::fs::remove_dir_all(&dir);
}

/// A record of a journal: two bytes of kind, then its content.
pub(crate) fn records(data: &[u8]) {
    let Some((kind, payload)) = data.split_first_chunk::<2>() else {
        return;
    };
    // kinds are few and small: most inputs should hit one
    let kind = u16::from_le_bytes(*kind) % 60;
    if let Ok(record) = Record::decode(kind, payload) {
        let (again, bytes) = record.encode();
        assert_eq!(again, kind);
        let back = Record::decode(kind, &bytes).expect("what was written reads");
        assert_eq!(back.encode().1, bytes, "written again it is the same");
    }
}

/// An exported baseline, or the bytes in one.
pub(crate) fn baseline(data: &[u8]) {
    let _ = plimsoll_baseline::import(data);
    let Ok(read) = plimsoll_baseline::Baseline::decode(data) else {
        return;
    };
    let bytes = read.encode();
    let back = plimsoll_baseline::Baseline::decode(&bytes).expect("what was written reads");
    assert_eq!(back.encode(), bytes, "written again it is the same");
    // one of an image without a digest has no subject
    if let Ok(out) = plimsoll_baseline::export(&read) {
        let out = serde_json::to_vec(&out).expect("JSON");
        let back = plimsoll_baseline::import(&out).expect("what was exported can be imported");
        assert_eq!(back.encode(), bytes);
    }
}

/// A response policy, an enforcement policy, a time, a prefix and a pattern.
pub(crate) fn policy(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let _ = plimsoll_respond::Policy::parse(&text);
    let _ = plimsoll_respond::enforcement::Policy::parse(&text);
    let _ = plimsoll_settings::parse(&text, 1 << 20);
    let (first, rest) = text.split_once('\n').unwrap_or((&text, ""));
    let _ = plimsoll_respond::parse_ms(first);
    let _ = plimsoll_respond::parse_prefix(first);
    if first.len() <= 4096 {
        let _ = plimsoll_respond::glob(first, rest);
    }
}

/// A DNS message, in the record that brings it.
pub(crate) fn dns(data: &[u8]) {
    const SEED: &[u8] = include_bytes!("seeds/wire/dns.bin");
    const HEADER: usize = 224;
    const SLEN: usize = 208;
    let data = &data[..data.len().min(4096)];
    let server = &SEED[SEED.len() - 16..];
    let mut record = SEED[..HEADER].to_vec();
    record.extend(data);
    record.extend(server);
    let len = record.len() as u32;
    record[..4].copy_from_slice(&len.to_ne_bytes());
    record[SLEN..SLEN + 2].copy_from_slice(&(data.len() as u16).to_ne_bytes());
    if let Ok(event) = plimsoll_sensor::wire::decode(&record) {
        let EventKind::Dns(d) = event.kind else {
            panic!("it was a DNS message");
        };
        assert!(d.name.as_bytes().len() <= 255 && d.addresses.len() <= 16);
    }
}
