//! Making the lake from the journal: what is missing, span by span; then fewer, larger files.
//!
//! Promises: a span is sealed only when all its leaves are durable; its seal is written last; what
//! a crash left half done is made again. Made twice from the same journal, a file is the same,
//! byte for byte.

use crate::LakeError;
use crate::fingerprints::{self, Containers, Merging};
use crate::journal::{Body, Journal, PIECE_LEAVES, SPAN_LEAVES};
use crate::merge::{Sorted, merged};
use crate::rows::{IDENTITIES, Known, Maker};
use crate::seal::{MERGED_SPANS, Seal, known_name, seal_name};
use crate::store::{Store, Whole, sha256};
use crate::tables::{LAYOUT_VERSION, Table};
use crate::write::{self, Writing};
use datafusion::arrow::array::RecordBatch;
use datafusion::parquet::arrow::arrow_reader::{
    ArrowReaderOptions, ParquetRecordBatchReaderBuilder,
};
use datafusion::parquet::file::reader::ChunkReader;
use std::collections::HashMap;
use std::ops::Range;

/// Rows that are read at once from each of the files that become one.
const READ_ROWS: usize = 8192;

/// Bytes of short tables that are in memory at once where files become one; the rest is sorted on
/// disk. Beside them are a few numbers for each behaviour.
const SORT_BYTES: usize = 32 << 20;

/// What one step made.
#[derive(Clone, Debug)]
pub enum Built {
    /// A span from the journal.
    Span(Seal),
    /// Several spans in one.
    Merged(Seal),
}

impl Built {
    /// What was sealed.
    pub fn seal(&self) -> &Seal {
        match self {
            Built::Span(seal) | Built::Merged(seal) => seal,
        }
    }
}

/// What the lake holds.
#[derive(Clone, Debug, Default)]
pub struct Contents {
    /// Seals that stand, by first leaf, none inside another.
    pub seals: Vec<Seal>,
    /// Seals or files that are damaged or missing, in words: their spans are made again.
    pub damage: Vec<String>,
    /// Names that no standing seal needs.
    pub(crate) rest: Vec<String>,
}

impl Contents {
    /// Leaves below `end` that no seal covers.
    pub fn holes(&self, end: u64) -> Vec<Range<u64>> {
        let mut holes = Vec::new();
        let mut at = 0;
        for seal in &self.seals {
            if seal.first > at {
                holes.push(at..seal.first.min(end));
            }
            at = seal.end;
        }
        if at < end {
            holes.push(at..end);
        }
        holes.retain(|hole| !hole.is_empty());
        holes
    }
}

/// Looks at seals and at sizes of files.
pub(crate) async fn contents(store: &Store, origin: &str) -> Result<Contents, LakeError> {
    let names = store.list("seals").await?;
    let mut files: HashMap<String, u64> = store.list("known").await?;
    for table in Table::ALL {
        files.extend(store.list(table.name()).await?);
    }
    let mut found = Contents::default();
    let mut seals = Vec::new();
    for name in names.keys() {
        let bytes = store.get(name).await?;
        match Seal::decode(&bytes).filter(|s| s.name() == *name && s.origin == origin) {
            None => {
                found
                    .damage
                    .push(format!("{name} is damaged or of another version"));
                found.rest.push(name.clone());
            }
            Some(seal) => match fault(&seal, &files) {
                Some(why) => {
                    found.damage.push(why);
                    found.rest.push(name.clone());
                }
                None => seals.push(seal),
            },
        }
    }
    // the larger first, so that a merged one stands over what it was made of
    seals.sort_by_key(|s| (s.first, std::cmp::Reverse(s.end)));
    let mut covered = 0;
    for seal in seals {
        if seal.end <= covered {
            found.rest.push(seal.name());
        } else {
            covered = seal.end;
            found.seals.push(seal);
        }
    }
    let needed: std::collections::HashSet<String> = found.seals.iter().flat_map(needs).collect();
    found
        .rest
        .extend(files.into_keys().filter(|name| !needed.contains(name)));
    Ok(found)
}

fn needs(seal: &Seal) -> Vec<String> {
    let tables = seal.files.iter().map(|f| seal.file_name(&f.table));
    tables.chain([known_name(seal.end)]).collect()
}

fn fault(seal: &Seal, files: &HashMap<String, u64>) -> Option<String> {
    seal.files.iter().find_map(|file| {
        let name = seal.file_name(&file.table);
        match files.get(&name) {
            None => Some(format!("{name} is missing")),
            Some(bytes) if *bytes != file.bytes => {
                Some(format!("{name} has {bytes} bytes, not {}", file.bytes))
            }
            Some(_) => None,
        }
    })
}

/// Reads every file and compares it with its seal; the names of those that differ.
pub(crate) async fn differing(store: &Store, seals: &[Seal]) -> Result<Vec<String>, LakeError> {
    let mut bad = Vec::new();
    for seal in seals {
        for file in &seal.files {
            let name = seal.file_name(&file.table);
            let same = store
                .get(&name)
                .await
                .is_ok_and(|b| sha256(&b) == file.sha256);
            if !same {
                bad.push(name);
                bad.push(seal.name());
            }
        }
    }
    Ok(bad)
}

/// What is done next, if anything.
enum Step {
    Span(Range<u64>),
    Merge(Vec<Seal>),
}

fn next(contents: &Contents, end: u64) -> Option<Step> {
    let sealed = end / PIECE_LEAVES * PIECE_LEAVES;
    if let Some(hole) = contents.holes(sealed).first() {
        let span = hole.start..hole.start + SPAN_LEAVES;
        let fits = hole.start.is_multiple_of(SPAN_LEAVES) && span.end <= hole.end;
        return Some(Step::Span(match fits {
            true => span,
            false => hole.start..hole.start + PIECE_LEAVES,
        }));
    }
    [1].iter()
        .chain(&MERGED_SPANS)
        .find_map(|spans| whole(contents, spans * SPAN_LEAVES))
        .map(Step::Merge)
}

/// Seals that together cover as many leaves as one merged file does, and begin where one does.
fn whole(contents: &Contents, leaves: u64) -> Option<Vec<Seal>> {
    contents.seals.iter().enumerate().find_map(|(at, seal)| {
        let small = seal.first.is_multiple_of(leaves) && seal.end - seal.first < leaves;
        let stop = seal.first + leaves;
        let parts: Vec<Seal> = contents.seals[at..]
            .iter()
            .take_while(|s| s.end <= stop)
            .cloned()
            .collect();
        (small && parts.last()?.end == stop).then_some(parts)
    })
}

/// Whether a step would find something to do.
pub(crate) fn is_due(journal: &dyn Journal, contents: &Contents) -> Result<bool, LakeError> {
    let end = journal.end().map_err(LakeError::Journal)?;
    Ok(!contents.rest.is_empty() || next(contents, end).is_some())
}

/// Does one step; `None`: nothing is left to do.
pub(crate) async fn step(
    store: &Store,
    journal: &dyn Journal,
    contents: &mut Contents,
) -> Result<Option<Built>, LakeError> {
    for name in std::mem::take(&mut contents.rest) {
        store.remove(&name).await?;
    }
    let end = journal.end().map_err(LakeError::Journal)?;
    let built = match next(contents, end) {
        None => return Ok(None),
        Some(Step::Span(leaves)) => Built::Span(span(store, journal, leaves).await?),
        Some(Step::Merge(parts)) => Built::Merged(merge(store, &parts).await?),
    };
    let made = built.seal();
    let outdated = contents
        .seals
        .extract_if(.., |s| made.first <= s.first && s.end <= made.end);
    let outdated: Vec<Seal> = outdated.collect();
    for seal in &outdated {
        // the seal first: a crash between must not leave one whose files are gone
        contents.rest.push(seal.name());
        contents
            .rest
            .extend(seal.files.iter().map(|f| seal.file_name(&f.table)));
        if seal.end != made.end {
            contents.rest.push(known_name(seal.end));
        }
    }
    contents.seals.push(made.clone());
    contents.seals.sort_by_key(|s| s.first);
    Ok(Some(built))
}

/// What is known before a leaf: as the span before left it, else from the journal's beginning.
pub(crate) async fn known_before(
    store: &Store,
    journal: &dyn Journal,
    leaf: u64,
) -> Result<Known, LakeError> {
    if leaf == 0 {
        return Ok(Known::default());
    }
    let kept = store.get(&known_name(leaf)).await.ok();
    if let Some(known) = kept.and_then(|bytes| Known::decode(&bytes)) {
        return Ok(known);
    }
    let mut known = Known::default();
    let learn = &mut |entry: crate::Entry| {
        if let Body::Record(record) = &entry.body {
            known.learn(entry.leaf, record);
        }
        Ok(())
    };
    journal
        .each(0..leaf, &IDENTITIES, learn)
        .map_err(LakeError::Journal)?;
    Ok(known)
}

async fn span(store: &Store, journal: &dyn Journal, leaves: Range<u64>) -> Result<Seal, LakeError> {
    let mut known = known_before(store, journal, leaves.start).await?;
    let mut seal = Seal {
        version: LAYOUT_VERSION,
        origin: journal.origin().to_owned(),
        first: leaves.start,
        end: leaves.end,
        files: Vec::new(),
        pruned: 0,
        unreadable: 0,
    };
    let mut maker = Maker::new(journal.origin(), Table::ALL, &mut known, journal.coder());
    let mut last = leaves.start;
    let take = &mut |entry: crate::Entry| {
        // leaves that are missing altogether are unreadable too
        seal.unreadable += entry.leaf.saturating_sub(last);
        last = entry.leaf + 1;
        match &entry.body {
            Body::Record(record) => maker.record(entry.leaf, entry.wall, record),
            Body::Pruned => seal.pruned += 1,
            Body::Unreadable => seal.unreadable += 1,
        }
        Ok(())
    };
    journal
        .each(leaves.clone(), &[], take)
        .map_err(LakeError::Journal)?;
    seal.unreadable += leaves.end.saturating_sub(last);
    let made = maker.take()?;
    // the next span begins anew, so that its files are the same whoever makes them
    let ends_here = leaves.end.is_multiple_of(SPAN_LEAVES);
    if !ends_here {
        maker.hand_over();
    }
    drop(maker);
    if ends_here {
        known.learned.clear();
    }
    for (table, rows) in made {
        match table {
            Table::Behaviours => {
                let split = fingerprints::split(&write::sorted(table, &rows)?)?;
                put(store, &mut seal, table, &split.rows).await?;
                let short = fingerprints::shortened(&split.fingerprints)?;
                put(store, &mut seal, Table::Fingerprints, &short).await?;
            }
            // made of the rows above
            Table::Fingerprints => {}
            table => put(store, &mut seal, table, &rows).await?,
        }
    }
    store
        .put(
            &known_name(leaves.end),
            known.encode(leaves.start / SPAN_LEAVES * SPAN_LEAVES),
        )
        .await?;
    store.put(&seal_name(&leaves), seal.encode()).await?;
    Ok(seal)
}

/// Rows of a table in any order.
async fn put(
    store: &Store,
    seal: &mut Seal,
    table: Table,
    rows: &RecordBatch,
) -> Result<(), LakeError> {
    let mut writing = writing(store, seal, table);
    writing.rows(&write::sorted(table, rows)?)?;
    seal.files.extend(writing.end().await?);
    Ok(())
}

fn writing(store: &Store, seal: &Seal, table: Table) -> Writing {
    Writing::new(store, seal.file_name(table.name()), table)
}

/// From the files, not from the journal, which may have let go of payloads since.
async fn merge(store: &Store, parts: &[Seal]) -> Result<Seal, LakeError> {
    let (first, last) = (&parts[0], &parts[parts.len() - 1]);
    let mut seal = Seal {
        version: LAYOUT_VERSION,
        origin: first.origin.clone(),
        first: first.first,
        end: last.end,
        files: Vec::new(),
        pruned: parts.iter().map(|p| p.pruned).sum(),
        unreadable: parts.iter().map(|p| p.unreadable).sum(),
    };
    for table in Table::ALL {
        match table {
            Table::Behaviours => merge_behaviours(store, parts, &mut seal).await?,
            Table::Fingerprints => {}
            table => {
                let mut inputs = Vec::new();
                for part in parts {
                    inputs.extend(read(store, part, *table).await?);
                }
                let mut writing = writing(store, &seal, *table);
                merged(*table, inputs, &mut |rows| writing.rows(&rows))?;
                seal.files.extend(writing.end().await?);
            }
        }
    }
    store.put(&seal.name(), seal.encode()).await?;
    Ok(seal)
}

async fn merge_behaviours(store: &Store, parts: &[Seal], seal: &mut Seal) -> Result<(), LakeError> {
    let table = Table::Behaviours;
    let mut short = Merging::new(&store.scratch(), SORT_BYTES)?;
    let mut long = Vec::new();
    let all = Table::Fingerprints.stored();
    for part in parts {
        let Some(rows) = read(store, part, table).await? else {
            continue;
        };
        let told = read(store, part, Table::Fingerprints).await?;
        let told = told.ok_or_else(|| LakeError::Damaged {
            what: format!("{} has no fingerprints", part.name()),
        })?;
        short.next_part();
        for rows in told {
            short.add(&fingerprints::restored(&rows?, &all)?)?;
        }
        long.push(rows);
    }
    let short = short.end()?;
    let inputs = long.into_iter().zip(&short.maps).map(|(rows, map)| {
        let renumbered = rows.map(move |r| r.and_then(|r| fingerprints::renumber(&r, map)));
        Box::new(renumbered) as Sorted<'_>
    });
    let mut containers = Containers::new(short.count);
    let mut rows = writing(store, seal, table);
    merged::<LakeError>(table, inputs.collect(), &mut |batch| {
        containers.add(&batch);
        rows.rows(&batch)
    })?;
    seal.files.extend(rows.end().await?);
    let mut told = writing(store, seal, Table::Fingerprints);
    short.each(containers.counts(), &mut |batch| {
        told.rows(&fingerprints::shortened(&batch)?)
    })?;
    seal.files.extend(told.end().await?);
    Ok(())
}

/// Rows of a file that is as its seal says; `None`: the span has none.
async fn read(
    store: &Store,
    seal: &Seal,
    table: Table,
) -> Result<Option<Sorted<'static>>, LakeError> {
    let Some(file) = seal.file(table) else {
        return Ok(None);
    };
    let name = seal.file_name(&file.table);
    Ok(Some(match store.whole(&name, &file.sha256).await? {
        Whole::File(file) => rows_of(file, table)?,
        Whole::Memory(bytes) => rows_of(bytes, table)?,
    }))
}

fn rows_of(file: impl ChunkReader + 'static, table: Table) -> Result<Sorted<'static>, LakeError> {
    let options = ArrowReaderOptions::new().with_schema(table.stored());
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(file, options)?;
    Ok(Box::new(builder.with_batch_size(READ_ROWS).build()?))
}
