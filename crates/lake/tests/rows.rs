//! Properties: rows equal records, whatever they are and wherever they come from.

mod common;

use common::*;
use plimsoll_lake::{Lake, SPAN_LEAVES};
use plimsoll_model::event::*;
use plimsoll_model::record::Decision;
use plimsoll_model::*;
use proptest::prelude::*;
use std::collections::BTreeMap;

fn text() -> impl Strategy<Value = Text> {
    prop_oneof![
        proptest::collection::vec(any::<u8>(), 0..20).prop_map(Text::new),
        "[a-z/]{1,12}".prop_map(Text::from),
    ]
}

fn kind() -> impl Strategy<Value = EventKind> {
    let address =
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| SockAddr::Inet(ip.into(), port));
    prop_oneof![
        text().prop_map(file),
        (text(), proptest::collection::vec(text(), 0..4)).prop_map(|(exe, argv)| {
            EventKind::Exec(Exec {
                exe,
                argv,
                ..Exec::default()
            })
        }),
        (any::<i32>(), 0..64i32).prop_map(|(code, signal)| EventKind::Exit { code, signal }),
        (address, any::<i32>()).prop_map(|(peer, result)| {
            EventKind::Connect(Connection {
                proto: Proto::Tcp,
                peer,
                local: None,
                result,
            })
        }),
        (text(), any::<bool>()).prop_map(|(name, response)| EventKind::Dns(Dns {
            response,
            name,
            qtype: 1,
            rcode: 0,
            addresses: vec![],
            server: None,
        })),
        (any::<u32>(), any::<bool>()).prop_map(|(nr, compat)| EventKind::Syscall { nr, compat }),
    ]
}

fn record(leaf: u64) -> impl Strategy<Value = Record> {
    prop_oneof![
        8 => ("[a-c]{4}", kind()).prop_map(move |(id, kind)| observed(&id, leaf, kind)),
        1 => any::<Option<u64>>().prop_map(move |count| gap(leaf, count)),
        1 => ("[a-c]{4}", "[a-z]{1,5}").prop_map(|(id, name)| container(&id, &name)),
        1 => (any::<bool>(), ".*", any::<u32>()).prop_map(move |(evidence, reason, uid)| {
            let action = if evidence { "evidence.read" } else { "plan.approve" };
            Record::Decision(Decision {
                at: stamp(leaf),
                action: action.into(),
                subject: "s".into(),
                reason,
                uid,
                login_uid: u32::MAX,
                method: "socket".into(),
            })
        }),
    ]
}

/// Table of an observation's kind, and one field of its row as text.
fn expected(record: &Record) -> Option<(&'static str, String)> {
    let lossy = |t: &Text| t.to_str_lossy().into_owned();
    Some(match record {
        Record::Observation(o) => match &o.event.kind {
            EventKind::File(f) => ("files", lossy(&f.path)),
            EventKind::Exec(e) => ("processes", lossy(&e.exe)),
            EventKind::Exit { .. } => ("processes", "/usr/sbin/nginx".into()),
            EventKind::Connect(c) => match &c.peer {
                SockAddr::Inet(ip, _) => ("connections", ip.to_string()),
                SockAddr::Unix(path) => ("connections", lossy(path)),
            },
            EventKind::Dns(d) => ("dns", lossy(&d.name)),
            _ => return None,
        },
        Record::Gap(g) => ("gaps", g.count.map_or(String::new(), |n| n.to_string())),
        Record::Container(c) => ("containers", c.role.clone()),
        Record::Decision(d) if d.action.starts_with("evidence.") => ("access", d.reason.clone()),
        Record::Decision(d) => ("actions", d.reason.clone()),
        _ => return None,
    })
}

const FIELDS: [(&str, &str); 8] = [
    ("files", "path"),
    ("processes", "program"),
    ("connections", "peer"),
    ("dns", "name"),
    ("gaps", "count"),
    ("containers", "role"),
    ("actions", "detail"),
    ("access", "reason"),
];

fn records() -> impl Strategy<Value = BTreeMap<u64, Record>> {
    proptest::collection::btree_set(0..SPAN_LEAVES + 100, 1..60).prop_flat_map(|leaves| {
        let each: Vec<_> = leaves.iter().map(|leaf| record(*leaf)).collect();
        (Just(leaves), each).prop_map(|(leaves, records)| leaves.into_iter().zip(records).collect())
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]
    #[test]
    fn rows_are_the_records_and_nothing_else(records in records()) {
        let journal = Memory::new(SPAN_LEAVES + 100, records.clone());
        let dir = tempfile::tempdir().unwrap();
        let lake = built(dir.path(), &journal);
        for lake in [&lake, &Lake::none()] {
            for (table, field) in FIELDS {
                let sql = format!("select leaf, {field} from {table} order by leaf");
                let found: Vec<(u64, String)> = ask(lake, &journal, &sql).0
                    .into_iter()
                    .map(|row| (row[0].parse().unwrap(), row[1].clone()))
                    .collect();
                let wanted: Vec<(u64, String)> = records
                    .iter()
                    .filter_map(|(leaf, r)| Some((*leaf, expected(r)?)))
                    .filter(|(_, (of, _))| *of == table)
                    .map(|(leaf, (_, value))| (leaf, value))
                    .collect();
                prop_assert_eq!(found, wanted, "{}", table);
            }
        }
    }
}
