//! What fuzzing drives of the wire between the programs in the kernel and their reader: one function,
//! the same for `cargo fuzz run wire` and for the test that runs the seeds and their mutations without
//! it (`crates/sensor/tests/wire.rs`).
//!
//! It takes any bytes, must end in bounded time and never panic, and holds what was decoded against
//! what was there: nothing decoded is larger than the record, and the same bytes give the same event.

use plimsoll_model::{Event, EventKind, SockAddr, Text};
use plimsoll_sensor::wire::decode;

/// Bytes of all texts of an event, and how many there are.
fn texts(e: &Event) -> (usize, usize) {
    let of = |list: &[&Text]| (list.iter().map(|t| t.as_bytes().len()).sum(), list.len());
    match &e.kind {
        EventKind::Exec(x) => {
            let mut list = vec![&x.exe, &x.script, &x.cwd];
            list.extend(&x.argv);
            list.extend(x.glance.iter().flat_map(|g| g.env.iter().flatten()));
            of(&list)
        }
        EventKind::File(f) => {
            let mut list = vec![&f.path, &f.target];
            list.extend(&f.raw);
            of(&list)
        }
        EventKind::Library { path, .. } => of(&[path]),
        EventKind::Mount {
            source,
            target,
            fstype,
            ..
        } => of(&[source, target, fstype]),
        EventKind::Module { name } | EventKind::Memfd { name } => of(&[name]),
        EventKind::CgroupMkdir { path, .. } | EventKind::CgroupAttach { path, .. } => of(&[path]),
        EventKind::Dns(d) => {
            assert!(d.name.as_bytes().len() <= 255 && d.addresses.len() <= 16);
            of(&[&d.name])
        }
        EventKind::Connect(c) | EventKind::Accept(c) | EventKind::Datagram(c) => match &c.peer {
            SockAddr::Unix(path) => of(&[path]),
            SockAddr::Inet(..) => (0, 0),
        },
        _ => (0, 0),
    }
}

/// A record of any bytes.
pub(crate) fn wire(data: &[u8]) {
    let Ok(event) = decode(data) else {
        return;
    };
    assert_eq!(
        decode(data).as_ref(),
        Ok(&event),
        "the same bytes, the same event"
    );
    let (bytes, count) = texts(&event);
    // a base can be joined to two names, and every text may get the mark of a deleted file
    assert!(bytes <= 2 * data.len() + 64, "{bytes} of {}", data.len());
    assert!(count <= data.len());
    assert!(event.process.comm.as_bytes().len() <= 16);
    // what follows the record's own length is nobody's business
    let len = u32::from_ne_bytes([data[0], data[1], data[2], data[3]]) as usize;
    assert_eq!(decode(&data[..len]), Ok(event), "the record by itself");
}
