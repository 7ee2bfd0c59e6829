//! A journal on a disk whose power fails: the two halves of `tests/vm/power`.
//!
//! `power guest DIR DEVICE AT`   in a virtual machine: appends without end. What was acknowledged is
//!     printed (`ACK ALERT LEAF`), and written past the file system, to byte AT of the device: the alert's
//!     number, its leaf and the newest checkpoint, as somebody outside would have kept them.
//! `power check IMAGE AT`        on the host: what survived on a disk image.
//! `power crashes IMAGE LOG AT COUNT SEED`   the same at COUNT moments of a log of all writes
//!     (`blklogwrites` of QEMU), at each of which the power fails: everything before the last flush is there;
//!     of what came after it each write is there, missing, or there in part, as the dice have it.
//!
//! Promised, and checked each time: the journal opens without damage; every acknowledged alert is there
//! under its leaf, and all before it; the store verifies, also against the checkpoint that was kept.

use std::fs::{File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use plimsoll_evidence::{
    Durable, Filter, Journal, JournalWriter, Options, QueueBounds, Record, RetentionClass, Sealing,
    SubmitError, VerifyOptions, exported_key, verify,
};

type Failure = Box<dyn std::error::Error>;

/// Length of a mark, bytes.
const MARK: usize = 4096;
const MAGIC: &[u8; 8] = b"PLIMMARK";
const SECTOR: u64 = 512;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["guest", dir, device, at] => guest(Path::new(dir), Path::new(device), at.parse()?),
        ["check", image, at] => {
            println!("{}", check(Path::new(image), at.parse()?)?);
            Ok(())
        }
        ["crashes", image, log, at, count, seed] => crashes(
            Path::new(image),
            Path::new(log),
            at.parse()?,
            count.parse()?,
            seed.parse()?,
        ),
        _ => Err(
            "usage: power guest DIR DEVICE AT | check IMAGE AT | crashes IMAGE LOG AT COUNT SEED"
                .into(),
        ),
    }
}

fn options(dir: &Path) -> Options {
    let mut options = Options::new("node-1");
    options.subtree_leaves = 1024;
    options.emergency_bytes = 256 << 10;
    options.sealing = Some(Sealing {
        checkpoint_ms: 200,
        urgent_ms: 20,
        epoch_ms: 2_000,
        ..Sealing::new(dir.join("keys"))
    });
    options
}

fn text(alert: u64) -> Vec<u8> {
    format!("alert {alert}, told to somebody").into_bytes()
}

fn guest(dir: &Path, device: &Path, at: u64) -> Result<(), Failure> {
    let (journal, recovery) = Journal::open(dir.join("journal"), options(dir))?;
    if !recovery.damage.is_empty() {
        return Err(format!("damage: {:?}", recovery.damage).into());
    }
    // goes on behind the alerts of the machine before
    let first = alerts(dir)?.last().map_or(0, |(n, _)| n + 1);
    let (told, acks) = mpsc::channel::<(u64, u64)>();
    let bounds = QueueBounds {
        group_commit_ms: 1,
        ..QueueBounds::default()
    };
    let writer = JournalWriter::start(journal, bounds)?;
    let latest = dir.join("journal/tlog/checkpoint");
    let marks = OpenOptions::new()
        .write(true)
        .custom_flags(i32::try_from(rustix::fs::OFlags::DIRECT.bits())?)
        .open(device)?;
    std::thread::spawn(move || {
        while let Ok(mut newest) = acks.recv() {
            while let Ok(newer) = acks.try_recv() {
                newest = newer;
            }
            let note = std::fs::read(&latest).unwrap_or_default();
            mark(&marks, at, newest, &note).expect("the mark is written");
            println!("ACK {} {}", newest.0, newest.1);
        }
    });
    for n in first..u64::MAX {
        for _ in 0..3 {
            let noise = Record::new(2, RetentionClass::OBSERVATION, vec![7; 200]);
            drop(writer.submit(noise));
        }
        let mut alert = Record::new(1, RetentionClass::ALERT, text(n));
        loop {
            let told = told.clone();
            let ack = move |result: Result<Durable, _>| {
                if let Ok(durable) = result {
                    let _ = told.send((n, durable.leaf.0));
                }
            };
            match writer.submit_durable(alert, Box::new(ack)) {
                Ok(()) => break,
                Err(SubmitError::Full(back)) => alert = *back,
                Err(e) => return Err(e.into()),
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        // a few hundred alerts a second: what is checked afterwards is every record, many times over
        std::thread::sleep(Duration::from_millis(3));
    }
    Ok(())
}

/// Writes what was told to the outside where no file system is: unbuffered, and without a flush that would
/// make anything else durable.
fn mark(device: &File, at: u64, (alert, leaf): (u64, u64), note: &[u8]) -> std::io::Result<()> {
    let mut room = vec![0; 2 * MARK];
    let begin = room.as_ptr().align_offset(MARK);
    let block = &mut room[begin..begin + MARK];
    let note = &note[..note.len().min(MARK - 64)];
    block[..8].copy_from_slice(MAGIC);
    block[8..16].copy_from_slice(&alert.to_le_bytes());
    block[16..24].copy_from_slice(&leaf.to_le_bytes());
    block[24..32].copy_from_slice(&(note.len() as u64).to_le_bytes());
    block[64..64 + note.len()].copy_from_slice(note);
    device.write_all_at(block, at)
}

/// What somebody outside had been told: alert, leaf, checkpoint.
fn told(image: &Path, at: u64) -> Result<Option<(u64, u64, Vec<u8>)>, Failure> {
    let mut block = [0; MARK];
    File::open(image)?.read_exact_at(&mut block, at)?;
    let number = |i: usize| u64::from_le_bytes(block[i..i + 8].try_into().expect("eight bytes"));
    if &block[..8] != MAGIC {
        return Ok(None);
    }
    let len = usize::try_from(number(24))?;
    Ok(Some((number(8), number(16), block[64..64 + len].to_vec())))
}

/// Alerts of a store: number and leaf, in order.
fn alerts(dir: &Path) -> Result<Vec<(u64, u64)>, Failure> {
    let reader = plimsoll_evidence::Reader::open(dir.join("journal"))?;
    let of_alerts = Filter {
        kinds: vec![1],
        ..Filter::default()
    };
    let mut all = Vec::new();
    for entry in reader.scan(of_alerts)? {
        let entry = entry?;
        let bytes = entry.payload.bytes().ok_or("an alert without content")?;
        let shown = String::from_utf8_lossy(bytes).into_owned();
        let number = shown
            .strip_prefix("alert ")
            .and_then(|t| t.split(',').next());
        let number = number.and_then(|n| n.parse().ok());
        all.push((number.ok_or(shown.clone())?, entry.leaf.0));
    }
    Ok(all)
}

fn run(program: &str, args: &[&str], fine: &[i32]) -> Result<(), Failure> {
    let out = Command::new(program).args(args).output()?;
    match out.status.code() {
        Some(code) if fine.contains(&code) => Ok(()),
        _ => Err(format!(
            "{program} {args:?}: {}{}",
            String::from_utf8_lossy(&out.stdout),
            String::from_utf8_lossy(&out.stderr)
        )
        .into()),
    }
}

/// Repairs the file system as a machine that comes up would, takes the store out, and checks it.
fn check(image: &Path, at: u64) -> Result<String, Failure> {
    let scratch = tempfile::tempdir()?;
    let (shown, to) = (
        image.display().to_string(),
        scratch.path().display().to_string(),
    );
    // 1: errors were corrected, which a journal replay counts as
    run("e2fsck", &["-f", "-y", &shown], &[0, 1])?;
    run(
        "debugfs",
        &["-R", &format!("rdump /store {to}"), &shown],
        &[0],
    )?;
    let dir = scratch.path().join("store");
    let Some((last, leaf, note)) = told(image, at)? else {
        return Ok("nothing had been acknowledged".to_owned());
    };
    let (journal, recovery) = Journal::open(dir.join("journal"), options(&dir))?;
    if !recovery.damage.is_empty() || recovery.damage_omitted > 0 {
        return Err(format!("damage: {:?}", recovery.damage).into());
    }
    drop(journal);
    let there = alerts(&dir)?;
    for (n, (number, at)) in there
        .iter()
        .enumerate()
        .take_while(|(n, _)| *n as u64 <= last)
    {
        if *number != n as u64 || (*number == last && *at != leaf) {
            return Err(format!(
                "alert {n} is alert {number} at {at}, and {last} was acknowledged at {leaf}"
            )
            .into());
        }
    }
    if there.len() as u64 <= last {
        return Err(format!(
            "alert {last} was acknowledged, and {} are there",
            there.len()
        )
        .into());
    }
    let report = verify(
        dir.join("journal"),
        &VerifyOptions {
            key: Some(exported_key(&dir.join("keys"))?),
            kept: (!note.is_empty()).then_some(note),
            threads: 1,
        },
    )?;
    if !report.is_whole() {
        return Err(format!("it does not verify: {:#?}", report.problems).into());
    }
    Ok(format!(
        "{} alerts acknowledged, {} there, {} records verify",
        last + 1,
        there.len(),
        report.records
    ))
}

/// One entry of the log: where, what, and whether it is a flush.
struct Logged {
    at: u64,
    data: Vec<u8>,
    flush: bool,
}

/// Reads a log of writes (the form of dm-log-writes: a header, then entries with their data).
fn read_log(path: &Path) -> Result<Vec<Logged>, Failure> {
    let mut file = File::open(path)?;
    let mut header = [0; SECTOR as usize];
    file.read_exact(&mut header)?;
    let word =
        |b: &[u8], i: usize| u64::from_le_bytes(b[i..i + 8].try_into().expect("eight bytes"));
    if word(&header, 0) != 0x6a_7366_7773_6872 || word(&header, 8) != 1 {
        return Err("that is no log of writes".into());
    }
    let sector = u64::from(u32::from_le_bytes(header[24..28].try_into()?));
    file.seek(SeekFrom::Start(sector))?;
    let mut all = Vec::new();
    for _ in 0..word(&header, 16) {
        let mut entry = vec![0; usize::try_from(sector)?];
        if file.read_exact(&mut entry).is_err() {
            break; // killed while it was written
        }
        let (at, sectors, flags) = (word(&entry, 0), word(&entry, 8), word(&entry, 16));
        const FLUSH: u64 = 1;
        const DISCARD: u64 = 4;
        let bytes = if flags & DISCARD == 0 {
            sectors * sector
        } else {
            0
        };
        let mut data = vec![0; usize::try_from(bytes)?];
        if file.read_exact(&mut data).is_err() {
            break;
        }
        all.push(Logged {
            at: at * sector,
            data,
            flush: flags & FLUSH != 0,
        });
    }
    Ok(all)
}

/// Numbers that look random; the same for the same seed.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        (z ^ (z >> 31)) % n.max(1)
    }
}

fn crashes(image: &Path, log: &Path, at: u64, count: u64, seed: u64) -> Result<(), Failure> {
    println!("seed {seed}");
    let mut dice = Dice(seed);
    let log = read_log(log)?;
    let flushes = log.iter().filter(|e| e.flush).count();
    println!("{} writes and {flushes} flushes", log.len() - flushes);
    let is_mark = |e: &Logged| e.at == at && e.data.starts_with(MAGIC);
    let begun = log
        .iter()
        .position(is_mark)
        .ok_or("nothing was acknowledged in the log")?;
    let mut moments: Vec<usize> = (0..count)
        .map(|_| begun + usize::try_from(dice.below((log.len() - begun) as u64)).expect("fits"))
        .collect();
    moments.sort_unstable();
    let scratch = tempfile::tempdir()?;
    let (calm, cut) = (scratch.path().join("calm"), scratch.path().join("cut"));
    std::fs::copy(image, &calm)?;
    let mut flushed = 0;
    for moment in moments {
        let to = log[..moment].iter().rposition(|e| e.flush).unwrap_or(0);
        write(
            &calm,
            log[flushed..to.max(flushed)]
                .iter()
                .map(|e| (e.at, &e.data[..])),
        )?;
        flushed = to.max(flushed);
        std::fs::copy(&calm, &cut)?;
        let mut kept = Vec::new();
        for e in &log[flushed..moment] {
            let sectors = e.data.len() as u64 / SECTOR;
            // what was told to the outside stays told
            let there = match dice.below(3) {
                _ if is_mark(e) => sectors,
                0 => 0,
                1 => dice.below(sectors + 1),
                _ => sectors,
            };
            kept.push((e.at, &e.data[..usize::try_from(there * SECTOR)?]));
        }
        write(&cut, kept.into_iter())?;
        let said = check(&cut, at)
            .map_err(|e| format!("power cut at write {moment} (seed {seed}): {e}"))?;
        println!(
            "power cut at write {moment}, {} behind the last flush: {said}",
            moment - flushed
        );
    }
    Ok(())
}

fn write<'a>(image: &Path, writes: impl Iterator<Item = (u64, &'a [u8])>) -> Result<(), Failure> {
    let mut file = OpenOptions::new().write(true).open(image)?;
    for (at, data) in writes {
        file.seek(SeekFrom::Start(at))?;
        file.write_all(data)?;
    }
    Ok(())
}
