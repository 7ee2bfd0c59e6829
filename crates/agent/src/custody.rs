//! Who did what with the evidence: reads, exports, holds and anchors become records.
//!
//! Promises: a hold is laid before its record says so, and released only behind the record; each
//! record carries uid and login uid of the peer, and is durable before the peer is answered.
//! Left out: reading itself (readers open the data directory), and what retention removes
//! ([`crate::ledger`]).

use crate::ledger::{Ledger, stored};
use crate::server::Peer;
use crate::shared::Shared;
use plimsoll_api::evidence::EvidenceAct;
use plimsoll_api::{Failure, FailureCode, storage};
use plimsoll_evidence::{Hold, HoldError, InstanceKey, Leaf};
use plimsoll_model::record::{Anchored, LakeFile, LakeSealed};
use plimsoll_model::{Record, RecordId, Stamp};
use sha2::{Digest as _, Sha256};
use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::time::Duration;

/// A file of the lake is not longer.
const LAKE_FILE_BYTES_MAX: u64 = 4 << 30;
/// How long the disk may take.
const PATIENCE: Duration = Duration::from_secs(10);

fn failed(error: impl std::fmt::Display) -> Failure {
    Failure::new(FailureCode::Failed, error.to_string())
}

/// Does what a peer asks, and says under which record it is written down.
pub fn act(
    shared: &Shared,
    act: EvidenceAct,
    reason: String,
    peer: &Peer,
) -> Result<String, Failure> {
    let at = shared.anchor.stamp(shared.clocks.boot());
    let decided = |action: &str, subject: String| {
        let decision = peer.decides(action, subject, reason.clone(), at);
        record(&shared.ledger, &Record::Decision(decision), at)
    };
    match act {
        EvidenceAct::Checkpoint {} => {
            let note = shared.ledger.checkpoint(PATIENCE).map_err(failed)?;
            String::from_utf8(note).map_err(failed)
        }
        EvidenceAct::Access { action, subject } if is_reading(&action) => {
            // Read often and by many: it goes with the next commit, nobody waits for the disk.
            let decision = peer.decides(&action, subject, reason, at);
            match shared.ledger.record(&Record::Decision(decision), at, None) {
                true => Ok(String::new()),
                false => Err(Failure::new(
                    FailureCode::Busy,
                    "the journal's queue is full",
                )),
            }
        }
        EvidenceAct::Access { action, subject } => decided(&action, subject),
        EvidenceAct::Anchored { size, target } => {
            let sealed = shared
                .ledger
                .status()
                .and_then(|s| s.health.seal)
                .map_or(0, |s| s.size);
            if size > sealed {
                let what = format!("no checkpoint of {size} records was made here");
                return Err(Failure::new(FailureCode::BadRequest, what));
            }
            let id = record(
                &shared.ledger,
                &Record::Anchored(Anchored { at, size, target }),
                at,
            )?;
            shared.anchoring.anchored(at.wall, size);
            Ok(id)
        }
        EvidenceAct::LakeSealed { first, end } => {
            let data_dir = shared.journal_dir.parent().unwrap_or(&shared.journal_dir);
            let files = lake_files(&storage::lake_dir(data_dir), first, end)?;
            let sealed = LakeSealed {
                at,
                first,
                end,
                files,
            };
            record(&shared.ledger, &Record::LakeSealed(sealed), at)
        }
        EvidenceAct::Hold {
            id,
            containers,
            leaves,
            subject,
        } => {
            let hold = Hold {
                containers: containers
                    .iter()
                    .map(|hex| key(hex))
                    .collect::<Result<_, _>>()?,
                leaves: leaves.into_iter().map(Leaf).collect(),
                wall_ns: at.wall.0,
                subject: subject.clone(),
                reason: reason.clone(),
                uid: peer.uid,
                id: id.clone(),
            };
            shared.ledger.hold(hold, PATIENCE).map_err(refused)?;
            decided("evidence.hold", format!("{id}: {subject}"))
        }
        EvidenceAct::Release { id } => {
            let written = decided("evidence.release", id.clone())?;
            shared.ledger.release(id, PATIENCE).map_err(refused)?;
            Ok(written)
        }
    }
}

/// What a reading command says it does: nothing leaves the machine, and nothing is changed.
fn is_reading(action: &str) -> bool {
    [
        "evidence.read",
        "evidence.query",
        "evidence.verify",
        "evidence.replay",
    ]
    .contains(&action)
}

/// Digests of what lies there, read by the agent itself: nobody can have another file named.
fn lake_files(dir: &Path, first: u64, end: u64) -> Result<Vec<LakeFile>, Failure> {
    let mut files = Vec::new();
    for name in storage::lake_files(first, end) {
        match digest(&dir.join(&name)) {
            Ok((bytes, sha256)) => files.push(LakeFile {
                name,
                bytes,
                sha256,
            }),
            // a table without rows has no file; a span without a seal is none
            Err(e) if e.kind() == io::ErrorKind::NotFound && !files.is_empty() => {}
            Err(e) => {
                let what = format!("cannot read {name} in the lake: {e}");
                return Err(Failure::new(FailureCode::BadRequest, what));
            }
        }
    }
    Ok(files)
}

fn digest(path: &Path) -> io::Result<(u64, [u8; 32])> {
    let mut file = File::open(path)?.take(LAKE_FILE_BYTES_MAX);
    let mut hash = Sha256::new();
    let mut buffer = vec![0; 64 << 10];
    let mut bytes = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok((bytes, hash.finalize().into())),
            n => {
                hash.update(&buffer[..n]);
                bytes += n as u64;
            }
        }
    }
}

fn record(ledger: &Ledger, record: &Record, at: Stamp) -> Result<String, Failure> {
    let leaf = ledger
        .durable(stored(record, at, None), PATIENCE)
        .map_err(failed)?;
    let id = RecordId {
        origin: ledger.origin().clone(),
        leaf: leaf.0,
    };
    Ok(format!("{}@{}", id.origin, id.leaf))
}

fn refused(error: HoldError) -> Failure {
    let code = match &error {
        HoldError::Unknown(_) => FailureCode::NotFound,
        HoldError::Exists(_) => FailureCode::Conflict,
        HoldError::Name | HoldError::TooMany(_) => FailureCode::BadRequest,
        _ => FailureCode::Failed,
    };
    Failure::new(code, error.to_string())
}

fn key(hex: &str) -> Result<InstanceKey, Failure> {
    let bad = || {
        Failure::new(
            FailureCode::BadRequest,
            "a container's key is 32 hex digits",
        )
    };
    if hex.len() != 32 || !hex.is_ascii() {
        return Err(bad());
    }
    let mut key = [0; 16];
    for (byte, at) in key.iter_mut().zip((0..32).step_by(2)) {
        *byte = u8::from_str_radix(&hex[at..at + 2], 16).map_err(|_| bad())?;
    }
    Ok(InstanceKey(key))
}
