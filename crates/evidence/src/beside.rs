//! What verification checks beside the records: headers of files, indexes, the head, the emergency
//! segment, tiles and tombstones.

use std::collections::BTreeSet;
use std::path::Path;

use crate::checkpoint::KeyChain;
use crate::disk::{self};
use crate::error::ReadError;
use crate::format::{
    EMERGENCY_MAGIC, FILE_HEADER_BYTES, FileHeader, HEAD_MAGIC, LEAF_MAGIC, PAYLOAD_MAGIC,
    PRUNED_MAGIC,
};
use crate::hold;
use crate::index::{self, Index};
use crate::merkle::{Hash, Nodes};
use crate::paths::{self, Name};
use crate::reader::Reader;
use crate::record::{Leaf, RetentionClass};
use crate::tiles::{self, Hashes, Prefer, TILE_HASHES};
use crate::tlog::Signers;
use crate::tombstone::Tombstone;
use crate::verify::{Fault, Problem, VerifyReport, Walk};

/// Every file of the store but the records themselves.
pub(crate) fn check_files(reader: &Reader, report: &mut VerifyReport) -> Result<(), ReadError> {
    let (_, paths, _) = reader.parts();
    check_header(reader, &paths.head(), HEAD_MAGIC, None, report);
    check_header(reader, &paths.emergency(), EMERGENCY_MAGIC, None, report);
    for dir in [&paths.leaves, &paths.payloads] {
        for (name, path) in names(reader, dir)? {
            match paths::parse(&name) {
                Name::Segment(first) => {
                    check_header(reader, &path, LEAF_MAGIC, Some((first, 0)), report)
                }
                Name::Payload(first, class) => {
                    check_header(
                        reader,
                        &path,
                        PAYLOAD_MAGIC,
                        Some((first, class.number())),
                        report,
                    );
                }
                Name::Pruned(first, class) => {
                    check_header(
                        reader,
                        &path,
                        PRUNED_MAGIC,
                        Some((first, class.number())),
                        report,
                    );
                }
                Name::Aside if name.ends_with(".idx") => check_index(reader, &name, &path, report),
                Name::Aside => {}
                Name::Foreign => report.add(
                    Problem::new(Fault::DamagedFile, "is not a file of a journal").in_file(&path),
                ),
            }
        }
    }
    Ok(())
}

fn names(reader: &Reader, dir: &Path) -> Result<BTreeSet<(String, std::path::PathBuf)>, ReadError> {
    let (disk, _, _) = reader.parts();
    match disk.list(dir) {
        Err(e) if disk::is_missing(&e) => Ok(BTreeSet::new()),
        Err(source) => Err(ReadError::Io {
            path: dir.to_path_buf(),
            source,
        }),
        Ok(items) => Ok(items
            .into_iter()
            .map(|item| (item.name.clone(), dir.join(item.name)))
            .collect()),
    }
}

/// A file that is absent or ends within its header is no fault here: what it held is missed elsewhere, and
/// after a power cut it may never have held anything (its name was durable before its first commit was).
fn check_header(
    reader: &Reader,
    path: &Path,
    magic: [u8; 8],
    named: Option<(u64, u8)>,
    report: &mut VerifyReport,
) {
    let (disk, _, meta) = reader.parts();
    let Ok(Some(bytes)) = disk::read_small(&**disk, path, FILE_HEADER_BYTES) else {
        return;
    };
    if bytes.len() < FILE_HEADER_BYTES {
        return;
    }
    let what = match FileHeader::decode(magic, &bytes) {
        Ok(header) if header.store != meta.store => "belongs to another store",
        Ok(header)
            if named
                .is_some_and(|(first, class)| (header.first, header.class) != (first, class)) =>
        {
            "is not where it belongs: its header names another place"
        }
        Ok(_) => return,
        Err(_) => "has a header that is altered",
    };
    report.add(Problem::new(Fault::DamagedFile, what).in_file(path));
}

fn check_index(reader: &Reader, name: &str, path: &Path, report: &mut VerifyReport) {
    let (disk, _, meta) = reader.parts();
    let first = name
        .strip_suffix(".idx")
        .and_then(|digits| digits.parse().ok());
    let bytes = disk::read_small(&**disk, path, index::bytes_max(meta.subtree_leaves) + 1);
    let whole = match (first, bytes) {
        (Some(first), Ok(Some(bytes))) => Index::decode(meta, first, &bytes).is_some(),
        _ => false,
    };
    if !whole {
        let what = "is an altered index: records could be skipped by it; it may be deleted";
        report.add(Problem::new(Fault::DamagedFile, what).in_file(path));
    }
}

/// Tiles against the hashes of the leaves. A missing tile is none: it can be made again.
pub(crate) fn check_tiles(reader: &Reader, walk: &Walk, report: &mut VerifyReport) {
    let signed = report.newest.as_ref().map_or(0, |c| c.size);
    // Where leaves and tiles differ the checkpoints have said which of them is right.
    let altered: BTreeSet<u64> = report
        .problems
        .iter()
        .filter(|p| matches!(p.fault, Fault::AlteredRecord | Fault::Forked))
        .flat_map(|p| p.leaf)
        .collect();
    if altered.is_empty() {
        for leaf in walk.differs.iter().filter(|leaf| **leaf < signed) {
            let ((disk, dir), number) = (reader.tlog(), leaf / TILE_HASHES as u64);
            let what = "a tile differs from the records, which are as signed; it may be deleted, all in it follows from the records";
            let path = tiles::stored_at(&**disk, dir, 0, number);
            let known =
                |p: &Problem| p.fault == Fault::DamagedTile && p.path.as_deref() == Some(&path);
            if !report.problems.iter().any(known) {
                report.add(Problem::new(Fault::DamagedTile, what).in_file(&path));
            }
        }
    }
    let mut row = walk.tiles.clone();
    for level in 1.. {
        if row.is_empty() {
            return;
        }
        for (number, tile) in (0_u64..).zip(row.chunks(TILE_HASHES)) {
            check_tile(reader, level, number, tile, report);
        }
        let whole = row.as_chunks::<TILE_HASHES>().0.iter();
        row = whole.map(|tile| tiles::root_of(tile)).collect();
    }
}

fn check_tile(reader: &Reader, level: u32, number: u64, right: &[Hash], report: &mut VerifyReport) {
    let (disk, dir) = reader.tlog();
    let widths = (1..=right.len()).rev();
    let stored = widths
        .filter_map(|width| tiles::read_tile(&**disk, dir, level, number, width))
        .next();
    if let Some(stored) = stored
        && stored[..] != right[..stored.len()]
    {
        let what = "a tile differs from the records; it may be deleted, all in it follows from the records";
        let path = tiles::stored_at(&**disk, dir, level, number);
        report.add(Problem::new(Fault::DamagedTile, what).in_file(&path));
    }
}

/// Whether every payload file that was removed has its record, and that record the right root.
pub(crate) fn check_tombstones(
    reader: &Reader,
    report: &mut VerifyReport,
) -> Result<(), ReadError> {
    let (disk, paths, meta) = reader.parts();
    let end = reader.end()?.0;
    for (name, path) in names(reader, &paths.payloads)? {
        let Name::Pruned(first, class) = paths::parse(&name) else {
            continue;
        };
        let stub = disk::read_small(&**disk, &path, FILE_HEADER_BYTES)
            .ok()
            .flatten()
            .unwrap_or_default();
        let Ok(stub) = FileHeader::decode(PRUNED_MAGIC, &stub) else {
            continue; // reported with the other headers
        };
        if let Err(what) =
            check_tombstone(reader, Leaf(stub.a), class, first, meta.subtree_leaves, end)?
        {
            report.add(
                Problem::new(Fault::BadTombstone, what)
                    .at(first)
                    .in_file(&path),
            );
        }
    }
    Ok(())
}

/// Whether what holds have kept is what was signed.
pub(crate) fn check_held(reader: &Reader, chain: &KeyChain, report: &mut VerifyReport) {
    let (disk, paths, meta) = reader.parts();
    if let Err(error) = reader.holds() {
        report.add(Problem::new(
            Fault::DamagedFile,
            error.to_string() + ": the hold is altered",
        ));
    }
    for (first, class) in hold::held_files(&**disk, &paths.root) {
        let path = hold::held_path(&paths.root, first, class);
        let Some((note, records)) = hold::read_held(&**disk, &paths.root, meta.store, first, class)
        else {
            report.add(
                Problem::new(Fault::DamagedFile, "copies for a hold are altered").in_file(&path),
            );
            continue;
        };
        let signed = Signers::of(chain)
            .checkpoint(&note)
            .map(|(checkpoint, _)| checkpoint);
        if signed.is_none() && !note.is_empty() {
            report.add(
                Problem::new(
                    Fault::BadCheckpoint,
                    "the checkpoint of copies for a hold is not signed by a key of this log",
                )
                .in_file(&path),
            );
        }
        for record in records {
            let proven = signed
                .as_ref()
                .is_none_or(|c| record.is_proven(c.size, &c.root));
            if !proven || !record.payload_matches() {
                report.add(
                    Problem::new(
                        Fault::AlteredRecord,
                        "its copy for a hold is not the record that was signed",
                    )
                    .at(record.leaf.0)
                    .in_file(&path),
                );
            }
        }
    }
}

fn check_tombstone(
    reader: &Reader,
    leaf: Leaf,
    class: RetentionClass,
    first: u64,
    subtree_leaves: u32,
    end: u64,
) -> Result<Result<(), String>, ReadError> {
    let entry = match reader.get(leaf) {
        Ok(Some(entry)) => entry,
        Ok(None) | Err(ReadError::DamagedLeaf { .. } | ReadError::MissingLeaves { .. }) => {
            return Ok(Err(format!(
                "contents of class {class} from record {first} on were removed, and the record {leaf} that should say so is not there"
            )));
        }
        Err(error) => return Err(error),
    };
    let Some(payload) = entry.payload.bytes() else {
        return Ok(Ok(())); // its own content has been removed since, behind another tombstone
    };
    let Some(tombstone) = Tombstone::decode(payload).filter(|t| t.covers(class, first)) else {
        return Ok(Err(format!(
            "contents of class {class} from record {first} on were removed, and record {leaf} does not say so"
        )));
    };
    let hashes = Hashes::new(reader, end, Prefer::Leaves);
    let root = hashes.node(
        subtree_leaves.trailing_zeros(),
        first / u64::from(subtree_leaves),
    )?;
    Ok(match tombstone.root {
        Some(stated) if stated != root => Err(format!(
            "the tombstone {leaf} names another root for records {first} to {}",
            tombstone.end - 1
        )),
        _ => Ok(()),
    })
}
