//! What sealing costs and how fast a store verifies, on this disk.
//!
//! `cargo run --release -p plimsoll-evidence --example seal [RECORDS] [PAYLOAD_BYTES] [DIR]`
//!
//! Appends the same records without and with the hash tree and its checkpoints, in turn, and then
//! verifies the sealed store with one thread and with all. Every record is fsynced in batches.

use std::path::Path;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use plimsoll_evidence::{
    Durable, InstanceKey, Journal, JournalWriter, Options, QueueBounds, Record, RetentionClass,
    Sealing, SubmitError, VerifyOptions, verify,
};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let records: u64 = args.next().map_or(Ok(2_000_000), |text| text.parse())?;
    let payload_bytes: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let scratch = tempfile::tempdir()?;
    let dir = args.next().map_or(scratch.path().to_path_buf(), Into::into);
    let mut rates = [Vec::new(), Vec::new()];
    for round in 0..3 {
        for sealed in [false, true] {
            let at = dir.join(format!("{round}-{sealed}"));
            let took = append(&at, sealed, records, payload_bytes)?;
            rates[usize::from(sealed)].push(records as f64 / took.as_secs_f64());
        }
    }
    let [plain, sealed] = rates.map(median);
    println!("append, batched, durable, no tree: {plain:.0} records/s");
    println!(
        "append, batched, durable, tree and checkpoints: {sealed:.0} records/s ({:.2} x)",
        plain / sealed
    );
    let store = dir.join("2-true");
    for what in ["journal/leaves", "journal/payloads", "journal/tlog"] {
        println!(
            "{what}: {:.1} bytes a record",
            bytes_below(&store.join(what))? as f64 / records as f64
        );
    }
    let begun = Instant::now();
    drop(open(&store, true)?);
    println!(
        "open again: {:.1} ms",
        begun.elapsed().as_secs_f64() * 1000.0
    );
    for threads in [1, 0] {
        let options = VerifyOptions {
            threads,
            ..VerifyOptions::default()
        };
        let bytes = bytes_below(&store.join("journal/leaves"))?
            + bytes_below(&store.join("journal/payloads"))?;
        let (begun, cpu) = (Instant::now(), cpu_seconds());
        let report = verify(store.join("journal"), &options)?;
        assert!(report.is_whole(), "{:?}", report.problems);
        let (took, cpu) = (begun.elapsed().as_secs_f64(), cpu_seconds() - cpu);
        let name = if threads == 1 {
            "one thread"
        } else {
            "all processors"
        };
        println!(
            "verify, {name}: {} records, {:.2} GB of segments in {took:.2} s, {:.2} GB/s, {:.2} GB/s a core by processor time",
            report.records,
            bytes as f64 / 1e9,
            bytes as f64 / 1e9 / took,
            bytes as f64 / 1e9 / cpu
        );
    }
    // Removed only now: ext4 makes new inodes slowly while many were deleted a moment ago.
    for round in 0..3 {
        std::fs::remove_dir_all(dir.join(format!("{round}-false")))?;
        std::fs::remove_dir_all(dir.join(format!("{round}-true")))?;
    }
    Ok(())
}

fn open(dir: &Path, sealed: bool) -> Result<Journal, Failure> {
    let mut options = Options::new("bench");
    options.sealing = sealed.then(|| Sealing::new(dir.join("keys")));
    Ok(Journal::open(dir.join("journal"), options)?.0)
}

fn append(dir: &Path, sealed: bool, records: u64, bytes: usize) -> Result<Duration, Failure> {
    std::fs::create_dir_all(dir)?;
    let writer = JournalWriter::start(open(dir, sealed)?, QueueBounds::default())?;
    let begun = Instant::now();
    for n in 0..records {
        let mut key = [0; 16];
        key[..8].copy_from_slice(&(n / 1000 % 500).to_le_bytes());
        let mut record = Record::new(2, RetentionClass::OBSERVATION, vec![7; bytes])
            .about(InstanceKey(key))
            .at(i64::try_from(n)?, n);
        while let Err(SubmitError::Full(back)) = writer.submit(record) {
            record = *back;
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    let (told, last) = mpsc::channel();
    let ack = move |result: Result<Durable, _>| drop(told.send(result));
    writer.submit_durable(Record::new(1, RetentionClass::ALERT, vec![]), Box::new(ack))?;
    last.recv()??;
    Ok(begun.elapsed())
}

/// Processor time of this process: what counts where others use the machine, too.
fn cpu_seconds() -> f64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    t.tv_sec as f64 + t.tv_nsec as f64 / 1e9
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

fn bytes_below(dir: &Path) -> std::io::Result<u64> {
    let mut bytes = 0;
    for item in std::fs::read_dir(dir)? {
        let item = item?;
        let meta = item.metadata()?;
        bytes += if meta.is_dir() {
            bytes_below(&item.path())?
        } else {
            meta.len()
        };
    }
    Ok(bytes)
}
