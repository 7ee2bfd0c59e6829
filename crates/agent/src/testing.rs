//! Builders of events, and a program to start, for this crate's tests.

use plimsoll_model::event::{Exec, FileEvent};
use plimsoll_model::{
    Actor, BootNs, Entry, Event, EventKind, FileOp, Origin, ProcessInfo, ProcessKey,
};

/// An ordinary event of pid 100 in a cgroup.
pub(crate) fn event(cgroup_id: u64, kind: EventKind) -> Event {
    Event {
        boot: BootNs(1),
        cgroup_id,
        process: ProcessInfo {
            key: ProcessKey {
                tgid: 100,
                start: BootNs(1),
            },
            tid: 100,
            ppid: 1,
            uid: 0,
            gid: 0,
            comm: "server".into(),
            entry: Entry::Init,
        },
        actor: Actor(1),
        ..Event::new(kind)
    }
}

/// A read of a file of the image.
pub(crate) fn file_read(path: &str) -> EventKind {
    EventKind::File(FileEvent {
        raw: None,
        mode: None,
        op: FileOp::Read,
        path: path.into(),
        target: "".into(),
        origin: Origin::Image,
        flags: 0,
        result: 0,
    })
}

/// A program of the image.
pub(crate) fn exec(exe: &str) -> EventKind {
    EventKind::Exec(Exec {
        exe: exe.into(),
        argv: vec![exe.into()],
        origin: Origin::Image,
        ..Exec::default()
    })
}

/// A program that sleeps, to be started by that name. Not copied by this process: a child forked meanwhile
/// by another thread would hold it open for writing.
pub(crate) fn sleeper(to: &std::path::Path) {
    let copied = std::process::Command::new("cp")
        .arg("/bin/sleep")
        .arg(to)
        .status();
    assert!(copied.expect("run cp").success());
}
