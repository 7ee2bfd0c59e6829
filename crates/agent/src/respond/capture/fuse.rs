//! A file system of the tests' own, whose server stops answering when it is told to.
//!
//! One file, `program`, with the bytes of `/bin/sleep`, in a mount namespace of its own. The server is
//! this program again ([`server`]), with `/dev/fuse` as its input. Wire format: `linux/fuse.h`, 7.31.

use std::io::{BufRead as _, Write as _};
use std::os::fd::AsFd as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A mount with a process that uses it; all is ended with the test, the server first.
pub(super) struct Hostile {
    shell: Child,
    server: u32,
    /// The process, by its number on the host.
    pub(super) victim: u32,
    dir: tempfile::TempDir,
}

/// Says nothing any more.
pub(super) const MUTE: &str = "mute";
/// Answers everything but the question that comes with a close.
pub(super) const NO_FLUSH: &str = "no-flush";

impl Hostile {
    /// Runs `work` beside the mount (`$MNT`); it sets `victim` to a process. `None`, said: no FUSE here.
    pub(super) fn start(work: &str) -> Option<Self> {
        let dir = tempfile::tempdir().expect("a directory");
        std::fs::create_dir(dir.path().join("mnt")).expect("make");
        let own = std::env::current_exe().expect("this program");
        let script = format!(
            "exec 3<&0; export MNT='{dir}/mnt'; cd '{dir}'
             mount -i -t fuse -o fd=0,rootmode=40000,user_id=0,group_id=0,default_permissions none \"$MNT\" || exit
             PLIMSOLL_TEST_FUSE='{dir}' '{own}' --exact respond::capture::fuse::server --nocapture <&3 >&2 &
             server=$!
             exec 3<&- 0</dev/null
             {work}
             echo $server $victim
             wait",
            dir = dir.path().display(),
            own = own.display(),
        );
        let mut open = std::fs::File::options();
        let Ok(fuse) = open.read(true).write(true).open("/dev/fuse") else {
            eprintln!("left out: there is no /dev/fuse to open here");
            return None;
        };
        let mut shell = Command::new("unshare");
        shell.args(["--mount", "bash", "-c", &script]);
        shell
            .stdin(fuse)
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut shell = shell.spawn().expect("unshare");
        let mut said = String::new();
        let out = shell.stdout.as_mut().expect("its output");
        std::io::BufReader::new(out)
            .read_line(&mut said)
            .expect("its words");
        let numbers: Vec<u32> = said.split(' ').flat_map(|n| n.trim().parse()).collect();
        let [server, victim] = numbers[..] else {
            let _ = shell.wait();
            eprintln!("left out: FUSE cannot be mounted here");
            return None;
        };
        Some(Self {
            shell,
            server,
            victim,
            dir,
        })
    }

    /// From now on the server behaves so ([`MUTE`], [`NO_FLUSH`]).
    pub(super) fn turn(&self, how: &str) {
        std::fs::write(self.dir.path().join(how), b"").expect("tell it");
    }

    /// A directory of the test's own.
    pub(super) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

impl Drop for Hostile {
    fn drop(&mut self) {
        // without a server whatever hangs returns
        for pid in [self.server, self.victim] {
            if let Some(pid) = rustix::process::Pid::from_raw(pid as i32) {
                let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL);
            }
        }
        let _ = self.shell.wait();
    }
}

const ROOT: u64 = 1;
const PROGRAM: u64 = 2;

/// Not a test: the server, in a process of its own.
#[test]
fn server() {
    let Some(dir) = std::env::var_os("PLIMSOLL_TEST_FUSE").map(PathBuf::from) else {
        return;
    };
    let program = std::fs::read("/bin/sleep").expect("its bytes");
    let stdin = std::io::stdin();
    let fuse = stdin.as_fd();
    let mut question = vec![0; 1 << 20];
    loop {
        // it is gone with its mount
        let Ok(n) = rustix::io::read(fuse, &mut question) else {
            return;
        };
        let told = |how: &str| dir.join(how).exists();
        if told(MUTE) {
            continue;
        }
        let Question { op, id, node, body } = Question::of(&question[..n]);
        const FLUSH: u32 = 25;
        if op == FLUSH && told(NO_FLUSH) {
            continue;
        }
        let Some(answer) = answer(op, node, body, &program) else {
            continue;
        };
        let (error, bytes) = match answer {
            Ok(bytes) => (0, bytes),
            Err(errno) => (-errno, Vec::new()),
        };
        let mut out = Vec::new();
        out.extend((16 + bytes.len() as u32).to_ne_bytes());
        out.extend(i32::to_ne_bytes(error));
        out.extend(id.to_ne_bytes());
        out.extend(bytes);
        // whoever asked may have gone
        let _ = rustix::io::write(fuse, &out);
    }
}

struct Question<'a> {
    op: u32,
    id: u64,
    node: u64,
    body: &'a [u8],
}

impl<'a> Question<'a> {
    fn of(bytes: &'a [u8]) -> Self {
        Self {
            op: number(bytes, 4) as u32,
            id: number(bytes, 8),
            node: number(bytes, 16),
            body: bytes.get(40..).unwrap_or_default(),
        }
    }
}

/// Eight bytes as a number; where only four are meant, the lower half.
fn number(bytes: &[u8], at: usize) -> u64 {
    let mut raw = [0; 8];
    let some = bytes.get(at..).unwrap_or_default();
    let n = some.len().min(8);
    raw[..n].copy_from_slice(&some[..n]);
    u64::from_ne_bytes(raw)
}

/// `None`: nobody waits for an answer.
fn answer(op: u32, node: u64, body: &[u8], program: &[u8]) -> Option<Result<Vec<u8>, i32>> {
    const ENOENT: i32 = 2;
    const ENOSYS: i32 = 38;
    let words = |all: &[u32]| {
        all.iter()
            .flat_map(|w| w.to_ne_bytes())
            .collect::<Vec<u8>>()
    };
    let size = program.len();
    Some(match op {
        // LOOKUP
        1 if body.strip_suffix(b"\0") == Some(b"program") => {
            let mut out = Vec::new();
            out.extend(PROGRAM.to_ne_bytes());
            out.extend([0; 8]);
            // known for an hour; its attributes are asked for each time
            out.extend(3600_u64.to_ne_bytes());
            out.extend([0; 16]);
            out.extend(attributes(PROGRAM, size));
            Ok(out)
        }
        1 => Err(ENOENT),
        // FORGET, INTERRUPT, BATCH_FORGET
        2 | 36 | 42 => return None,
        // GETATTR
        3 => Ok([vec![0; 16], attributes(node, size)].concat()),
        // UNLINK, RELEASE, FLUSH, RELEASEDIR
        10 | 18 | 25 | 29 => Ok(Vec::new()),
        // OPEN, OPENDIR
        14 | 27 => Ok(vec![0; 16]),
        // READ
        15 => {
            let from = (number(body, 8) as usize).min(size);
            let to = from
                .saturating_add(number(body, 16) as u32 as usize)
                .min(size);
            Ok(program[from..to].to_vec())
        }
        // STATFS
        17 => Ok(vec![0; 80]),
        // INIT: 7.31, nothing special, writes of 128 KiB
        26 => Ok([words(&[7, 31, 128 << 10, 0, 0, 128 << 10, 1]), vec![0; 36]].concat()),
        _ => Err(ENOSYS),
    })
}

fn attributes(node: u64, size: usize) -> Vec<u8> {
    let (mode, links, size) = match node {
        ROOT => (0o40755_u32, 2_u32, 0),
        _ => (0o100_755, 1, size as u64),
    };
    let mut out = Vec::new();
    // inode, size, blocks, three times; their nanoseconds
    for word in [node, size, size.div_ceil(512), 1, 1, 1] {
        out.extend(word.to_ne_bytes());
    }
    // nanoseconds of them, mode, links, uid, gid, device, block size, flags
    for word in [0, 0, 0, mode, links, 0, 0, 0, 4096, 0] {
        out.extend(u32::to_ne_bytes(word));
    }
    out
}

/// A program made from C, for what only the process itself can do to itself.
pub(super) fn compiled(dir: &Path, source: &str) -> Option<PathBuf> {
    let program = dir.join("made");
    let mut cc = Command::new("cc");
    cc.args(["-x", "c", "-", "-o"]).arg(&program);
    let Ok(mut cc) = cc.stdin(Stdio::piped()).spawn() else {
        eprintln!("left out: there is no C compiler here");
        return None;
    };
    let mut input = cc.stdin.take().expect("its input");
    input.write_all(source.as_bytes()).expect("write");
    drop(input);
    assert!(cc.wait().expect("cc").success(), "{source}");
    Some(program)
}
