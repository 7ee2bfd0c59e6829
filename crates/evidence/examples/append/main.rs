//! Records a second through the journal on this disk, appended and read back.
//!
//! `cargo run --release -p plimsoll-evidence --example append [RECORDS] [PAYLOAD_BYTES] [DIR]`
//!
//! Every appended record is fsynced; batches are what the writer's queue makes of them.
//! Beside it: the disk's own fdatasync, one alert at a time, and alerts as an agent hands them over, with
//! where the time of the slowest of them went. With 0 records only these last are measured.

mod trace;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use plimsoll_evidence::{
    Durable, Filter, InstanceKey, Journal, JournalWriter, Options, QueueBounds, Reader, Record,
    RetentionClass, Sealing, SubmitError,
};

use trace::{TracedDisk, Way};

type Failure = Box<dyn std::error::Error>;

fn main() -> Result<(), Failure> {
    let mut args = std::env::args().skip(1);
    let records: u64 = args.next().map_or(Ok(1_000_000), |text| text.parse())?;
    let payload_bytes: usize = args.next().map_or(Ok(100), |text| text.parse())?;
    let scratch = tempfile::tempdir()?;
    let dir = args
        .next()
        .map_or(scratch.path().join("journal"), Into::into);
    if records > 0 {
        appended_and_read(&dir, records, payload_bytes)?;
    }

    let (sealed, keys) = (scratch.path().join("sealed"), scratch.path().join("keys"));
    let disk = Arc::new(TracedDisk::new());
    let mut options = Options::new("bench");
    options.sealing = Some(Sealing::new(keys));
    options.disk = disk.clone();
    let (journal, _) = Journal::open(&sealed, options)?;
    let probe = scratch.path().join("probe");
    let (mut ways, syncs) = alerts_beside(journal, 20_000, &disk, &probe)?;
    percentiles(
        "alert beside 20,000 ordinary records a second, sealed",
        ways.iter().map(Way::took).collect(),
    );
    percentiles("the disk's own fdatasync, between them", syncs);
    ways.sort_by_key(|way| std::cmp::Reverse(way.took()));
    println!("the slowest of them, and the median:");
    let median = ways.len() / 2;
    for way in ways[..ways.len().min(5)].iter().chain(ways.get(median)) {
        println!("  {}", way.words());
    }
    Ok(())
}

fn appended_and_read(dir: &Path, records: u64, payload_bytes: usize) -> Result<(), Failure> {
    let (journal, _) = Journal::open(dir, Options::new("bench"))?;
    let took = append_batched(journal, records, payload_bytes)?;
    rate("append, batched, durable", records, took);

    let reader = Reader::open(dir)?;
    let begun = Instant::now();
    let read = reader
        .scan(Filter::default())?
        .filter(Result::is_ok)
        .count();
    rate("read with payloads", read as u64, begun.elapsed());
    let begun = Instant::now();
    let read = reader.scan(Filter::default())?.headers().count();
    rate("read headers", read as u64, begun.elapsed());
    let begun = Instant::now();
    let one = Filter {
        containers: vec![container(records / 2)],
        ..Filter::default()
    };
    let found = reader.scan(one)?.count();
    println!(
        "one container's {found} records: {:.1} ms",
        ms(begun.elapsed())
    );

    let begun = Instant::now();
    let (mut journal, _) = Journal::open(dir, Options::new("bench"))?;
    println!("open again: {:.1} ms", ms(begun.elapsed()));
    let mut alerts = Vec::new();
    for n in 0..500 {
        let begun = Instant::now();
        journal.append_durable(Record::new(1, RetentionClass::ALERT, vec![7; 600]).at(n, 0))?;
        alerts.push(begun.elapsed());
    }
    percentiles("alert, durable, alone", alerts);
    let mut file = std::fs::File::create(dir.with_extension("probe"))?;
    let syncs = (0..500).map(|_| grow_and_sync(&mut file));
    percentiles("the disk's own fdatasync", syncs.collect::<Result<_, _>>()?);
    Ok(())
}

/// 500 alerts, one every 20 ms, each with its observation and its drift, beside `rate` ordinary records a
/// second; half-way between two of them a file grows and is synced, which waits for the same disk.
fn alerts_beside(
    journal: Journal,
    rate: u64,
    disk: &TracedDisk,
    probe: &Path,
) -> Result<(Vec<Way>, Vec<Duration>), Failure> {
    let writer = JournalWriter::start(journal, QueueBounds::default())?;
    let ended = AtomicBool::new(false);
    std::thread::scope(|s| {
        s.spawn(|| {
            let begun = Instant::now();
            let mut given = 0;
            while !ended.load(Ordering::Relaxed) {
                let due = begun.elapsed().as_micros() as u64 * rate / 1_000_000;
                for n in given..due {
                    // what finds no room is not what is measured here
                    let _ = writer.submit(observation(n, 400));
                }
                given = due;
                std::thread::sleep(Duration::from_millis(2));
            }
        });
        let (mut ways, mut syncs) = (Vec::new(), Vec::new());
        let mut file = std::fs::File::create(probe)?;
        for n in 0..500 {
            std::thread::sleep(Duration::from_millis(10));
            syncs.push(grow_and_sync(&mut file)?);
            std::thread::sleep(Duration::from_millis(10));
            let (told, durable) = mpsc::channel();
            let handed = Instant::now();
            let append = move |journal: &mut Journal| {
                let taken = Instant::now();
                let drifts = Record::new(5, RetentionClass::DRIFT, vec![7; 400]).at(n, 0);
                let alert = Record::new(1, RetentionClass::ALERT, vec![7; 600]).at(n, 0);
                let ack = move |result: Result<Durable, _>| {
                    drop(told.send(result.map(|_| (taken, Instant::now()))));
                };
                journal.append_with(observation(n.unsigned_abs(), 400), false, Box::new(drop));
                journal.append_with(drifts, true, Box::new(drop));
                journal.append_with(alert, true, Box::new(ack));
                None
            };
            writer.run_holding(4096, true, append)?;
            let (taken, durable) = durable.recv()??;
            let known = Instant::now();
            ways.push(Way {
                handed,
                taken,
                durable,
                known,
                ops: disk.since(handed),
            });
        }
        ended.store(true, Ordering::Relaxed);
        Ok((ways, syncs))
    })
}

fn observation(n: u64, bytes: usize) -> Record {
    Record::new(2, RetentionClass::OBSERVATION, vec![7; bytes])
        .about(container(n))
        .at(i64::try_from(n).unwrap_or(i64::MAX), n)
}

fn append_batched(journal: Journal, records: u64, bytes: usize) -> Result<Duration, Failure> {
    let writer = JournalWriter::start(journal, QueueBounds::default())?;
    let begun = Instant::now();
    for n in 0..records {
        let mut record = observation(n, bytes);
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

/// 500 containers that take turns of 1,000 records.
fn container(n: u64) -> InstanceKey {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&(n / 1000 % 500).to_le_bytes());
    InstanceKey(key)
}

fn grow_and_sync(file: &mut std::fs::File) -> Result<Duration, Failure> {
    use std::io::Write;
    let begun = Instant::now();
    file.write_all(&[7; 800])?;
    file.sync_data()?;
    Ok(begun.elapsed())
}

fn rate(what: &str, records: u64, took: Duration) {
    let per_second = records as f64 / took.as_secs_f64();
    println!(
        "{what}: {records} in {:.2} s, {per_second:.0} records/s",
        took.as_secs_f64()
    );
}

fn percentiles(what: &str, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |percent: usize| ms(times[(times.len() - 1) * percent / 100]);
    println!("{what}: p50 {:.2} ms, p99 {:.2} ms", at(50), at(99));
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}
