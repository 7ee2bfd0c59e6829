//! A journal in memory: records at chosen leaves, clock anchors everywhere else.
#![allow(dead_code, unreachable_pub, missing_docs)] // helpers; each test uses its part

use plimsoll_lake::arrow::array::RecordBatch;
use plimsoll_lake::arrow::util::display::{ArrayFormatter, FormatOptions};
use plimsoll_lake::{Body, Coder, Entry, Journal, JournalError, Lake, LakeError, Limits, Looked};
use plimsoll_model::event::*;
use plimsoll_model::*;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::Duration;

pub const SECOND: i64 = 1_000_000_000;

#[derive(Default)]
pub struct Memory {
    pub records: Mutex<BTreeMap<u64, Record>>,
    pub pruned: Mutex<Vec<u64>>,
    pub end: Mutex<u64>,
}

impl Memory {
    pub fn new(end: u64, records: impl IntoIterator<Item = (u64, Record)>) -> Arc<Self> {
        let journal = Self::default();
        journal.records.lock().unwrap().extend(records);
        *journal.end.lock().unwrap() = end;
        Arc::new(journal)
    }

    pub fn append(&self, record: Record) -> u64 {
        let mut end = self.end.lock().unwrap();
        self.records.lock().unwrap().insert(*end, record);
        *end += 1;
        *end - 1
    }
}

/// A leaf's fact happened at second `leaf`.
pub fn wall(leaf: u64) -> WallNs {
    WallNs(leaf as i64 * SECOND)
}

pub fn stamp(leaf: u64) -> Stamp {
    Stamp {
        boot: BootNs(leaf),
        wall: wall(leaf),
        uncertainty_ns: 0,
    }
}

fn anchor() -> Record {
    Record::Clock(ClockAnchor {
        boot: BootNs(0),
        wall: WallNs(0),
        uncertainty_ns: 0,
        step_ns: 0,
    })
}

impl Journal for Memory {
    fn origin(&self) -> &str {
        "node1"
    }
    fn end(&self) -> Result<u64, JournalError> {
        Ok(*self.end.lock().unwrap())
    }
    fn each(
        &self,
        leaves: Range<u64>,
        kinds: &[u16],
        each: &mut dyn FnMut(Entry) -> Result<(), JournalError>,
    ) -> Result<(), JournalError> {
        let records = self.records.lock().unwrap();
        let end = *self.end.lock().unwrap();
        let pruned = self.pruned.lock().unwrap();
        for leaf in leaves.start..leaves.end.min(end) {
            let record = records.get(&leaf).cloned();
            let kind = record
                .as_ref()
                .map_or(RecordKind::Clock as u16, |r| r.encode().0);
            if !kinds.is_empty() && !kinds.contains(&kind) {
                continue;
            }
            let body = match pruned.contains(&leaf) {
                true => Body::Pruned,
                false => Body::Record(record.unwrap_or_else(anchor)),
            };
            each(Entry {
                leaf,
                wall: wall(leaf),
                body,
            })?;
        }
        Ok(())
    }
    fn coder(&self) -> Box<dyn Coder> {
        Box::new(ByPath)
    }
}

/// Codes files by their path: enough for this crate, which only hands behaviours on.
struct ByPath;

impl Coder for ByPath {
    fn container(&mut self, _: &Container) {}
    fn behaviours(&mut self, o: &Observation, _: Option<&Container>) -> Vec<Behaviour> {
        let EventKind::File(file) = &o.event.kind else {
            return Vec::new();
        };
        vec![Behaviour {
            kind: BehaviourKind::File,
            program: o.program(),
            script: Text::default(),
            entry: Entry_::Init,
            uid: o.event.process.uid,
            operation: file.op.as_str().into(),
            object: file.path.clone(),
            origin: file.origin,
        }]
    }
}
use plimsoll_model::Entry as Entry_;

pub fn instance(name: &str) -> Instance {
    Instance {
        id: ContainerId::parse(name).unwrap(),
        start: BootNs(1),
    }
}

pub fn container(id: &str, name: &str) -> Record {
    Record::Container(Container {
        name: name.into(),
        image: ImageRef {
            name: "shop:1".into(),
            config_digest: Some(Digest::parse("sha256:abcd").unwrap()),
            ..Default::default()
        },
        role: name.into(),
        labels: [("a\"b".to_owned(), "x\ny".to_owned())].into(),
        cgroup_id: 1,
        state: ContainerState::Running,
        ports: vec![(80, "tcp".into())],
        addresses: vec!["172.17.0.2".into()],
        command: vec!["nginx".into()],
        ..Container::new(instance(id), Runtime::Docker, stamp(0))
    })
}

pub fn observed(id: &str, leaf: u64, kind: EventKind) -> Record {
    let key = ProcessKey {
        tgid: 71,
        start: BootNs(5),
    };
    Record::Observation(Observation {
        event: Event {
            boot: BootNs(leaf),
            seq: leaf,
            cgroup_id: 1,
            process: ProcessInfo {
                key,
                tid: 71,
                ppid: 1,
                uid: 33,
                ..Default::default()
            },
            actor: Actor(1),
            ..Event::new(kind)
        },
        at: stamp(leaf),
        instance: Some(instance(id)),
        lineage: vec![Ancestor {
            key,
            exe: "/usr/sbin/nginx".into(),
            ..Default::default()
        }]
        .into(),
        lineage_cut: false,
        redacted: vec![],
        unknown_because: String::new(),
        count: 1,
    })
}

pub fn file(path: impl Into<Text>) -> EventKind {
    EventKind::File(FileEvent {
        raw: None,
        mode: None,
        op: FileOp::Read,
        path: path.into(),
        target: Text::default(),
        origin: Origin::Image,
        flags: 0,
        result: 0,
    })
}

pub fn gap(leaf: u64, count: Option<u64>) -> Record {
    Record::Gap(Gap {
        stage: Stage::BulkRing,
        scope: GapScope::Node,
        from: stamp(leaf),
        to: stamp(leaf + 1),
        count,
        reason: "no room".into(),
    })
}

pub fn limits(dir: &Path) -> Limits {
    Limits {
        time: Duration::from_secs(120),
        memory_bytes: 256 << 20,
        spill_bytes: 256 << 20,
        spill_dir: dir.to_path_buf(),
        threads: 2,
    }
}

/// Rows as texts; nothing stands for null.
pub fn try_ask(
    lake: &Lake,
    journal: &Arc<Memory>,
    sql: &str,
    limits: &Limits,
) -> Result<(Vec<Vec<String>>, Looked), LakeError> {
    let mut rows = Vec::new();
    let looked = lake.query(journal.clone(), sql, limits, &mut |_, batch| {
        if let Some(batch) = batch {
            rows.extend(texts(&batch));
        }
        Ok(())
    })?;
    Ok((rows, looked))
}

pub fn ask(lake: &Lake, journal: &Arc<Memory>, sql: &str) -> (Vec<Vec<String>>, Looked) {
    let dir = tempfile::tempdir().unwrap();
    try_ask(lake, journal, sql, &limits(dir.path())).unwrap_or_else(|e| panic!("{sql}: {e:?}"))
}

fn texts(batch: &RecordBatch) -> Vec<Vec<String>> {
    static OPTIONS: FormatOptions<'static> = FormatOptions::new();
    let columns: Vec<_> = batch
        .columns()
        .iter()
        .map(|c| ArrayFormatter::try_new(c, &OPTIONS).unwrap())
        .collect();
    let row = |n| columns.iter().map(|c| c.value(n).to_string()).collect();
    (0..batch.num_rows()).map(row).collect()
}

pub fn built(dir: &Path, journal: &Arc<Memory>) -> Lake {
    let mut lake = Lake::open(dir, "node1").unwrap();
    assert!(lake.build(journal.as_ref(), &mut |_| {}).unwrap());
    lake
}
