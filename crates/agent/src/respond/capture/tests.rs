//! Captures, held against what was there; hostile files and processes.

use super::*;
use std::fs;
use std::io::Read;
use std::process::{Child, Command, Stdio};

/// A program that was deleted after it was started, with a marker in its memory.
fn deleted_program(dir: &Path) -> (Child, Vec<u8>) {
    let path = dir.join("dropped");
    crate::testing::sleeper(&path);
    let bytes = fs::read(&path).expect("its bytes");
    let child = Command::new(&path)
        .arg("60")
        .env("MARKER", "plimsoll-marker-5319")
        .stdin(Stdio::null())
        .spawn()
        .expect("start it");
    fs::remove_file(&path).expect("delete it");
    (child, bytes)
}

pub(super) fn new_bundle(
    dir: &Path,
    recipients: &[String],
    seconds: u64,
    bytes: u64,
) -> (Bundle, Limits) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let limits = Limits {
        bytes,
        artefacts: 1000,
        end,
        room: free_room(),
    };
    (
        Bundle::create(dir, "test", recipients, limits).expect("create"),
        limits,
    )
}

#[test]
fn a_deleted_program_and_memory_are_kept_byte_for_byte_and_verify() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut child, bytes) = deleted_program(dir.path());
    let p = Process::now(child.id()).expect("it runs");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    sweep::sweep(&mut b, &[p], Some(&Masks::default())).expect("sweep");
    sweep::recover(&mut b, &[p], &mut Foreign::default()).expect("recover");
    memory::memory(&mut b, p).expect("memory");
    let sealed = b.seal(json!({})).expect("seal");
    let _ = child.kill();
    let _ = child.wait();
    let path = dir.path().join(&sealed.name);
    let manifest = verify(File::open(&path).expect("open")).expect("verifies");
    assert!(manifest["artefacts"].as_array().expect("a list").len() > 10);
    let (mut exe, mut marker) = (Vec::new(), false);
    for entry in tar::Archive::new(File::open(&path).expect("open"))
        .entries()
        .expect("tar")
    {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("read");
        if name.ends_with("recovered/exe") {
            exe = data;
        } else if name.contains("/memory/") {
            marker |= data.windows(20).any(|w| w == b"plimsoll-marker-5319");
        }
    }
    assert_eq!(exe, bytes, "the deleted program");
    assert!(marker, "memory of the process");
}

#[test]
fn a_changed_bundle_is_told_and_the_artefact_named() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 20);
    let origin = bundle::Origin {
        name: "a/b".into(),
        source: "x".into(),
        call: "read",
        process: None,
    };
    b.add(origin, b"what was there").expect("add");
    let sealed = b.seal(json!({})).expect("seal");
    let path = dir.path().join(&sealed.name);
    let mut bytes = fs::read(&path).expect("read");
    let digest = <sha2::Sha256 as sha2::Digest>::digest(&bytes);
    assert_eq!(sealed.sha256, bundle::hex(&digest), "what the journal says");
    assert!(verify(&bytes[..]).is_ok());
    bytes[512] ^= 1;
    assert!(verify(&bytes[..]).unwrap_err().to_string().contains("a/b"));
    assert!(verify(&bytes[..1024]).is_err(), "cut short");
    let twice = [&bytes[..1024], &bytes[..]].concat();
    assert!(verify(&twice[..]).is_err(), "a member that is there twice");
}

#[test]
fn a_bundle_is_byte_for_byte_what_one_stage_after_another_would_write() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    let long = "a-long-name/".repeat(12);
    let mut serial = tar::Builder::new(Vec::new());
    let mut beside = |name: &str, bytes: &[u8]| {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        let added = serial.append_data(&mut header, name, bytes);
        added.expect("append");
    };
    for (n, size) in [0, 1, 511, 512, 513, (1 << 20) - 1, (1 << 20) + 1, 9 << 20]
        .into_iter()
        .enumerate()
    {
        let bytes: Vec<u8> = (0..size).map(|i| (i * 7 + i / 251 + n) as u8).collect();
        let name = format!("{long}{n}");
        let origin = || bundle::Origin {
            name: name.clone(),
            source: String::new(),
            call: "read",
            process: None,
        };
        b.add(origin(), &bytes).expect("add");
        beside(&name, &bytes);
        // one that gives less than it said
        let (short, name) = (size + 1000, format!("{name}-short"));
        let mut from = origin();
        from.name = name.clone();
        b.stream(from, short as u64, &mut &bytes[..])
            .expect("stream");
        beside(&name, &[&bytes[..], &[0; 1000]].concat());
    }
    let sealed = b.seal(json!({})).expect("seal");
    let path = dir.path().join(&sealed.name);
    let (files, manifest) = members(&path);
    let errors = manifest["artefacts"].as_array().expect("a list").iter();
    let errors = errors.filter(|a| a["error"] == "it ended early");
    assert_eq!(errors.count(), 8);
    beside("manifest.json", &files["manifest.json"]);
    let whole = serial.into_inner().expect("a tar");
    let kept = fs::read(&path).expect("read");
    assert!(kept == whole, "{} beside {} bytes", kept.len(), whole.len());
}

#[test]
fn bounds_end_a_capture_and_are_noted() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 4);
    for name in ["one", "two"] {
        let origin = bundle::Origin {
            name: name.into(),
            source: String::new(),
            call: "read",
            process: None,
        };
        b.add(origin, b"123456").expect("add");
    }
    let sealed = b.seal(json!({})).expect("seal");
    assert_eq!((sealed.artefacts, sealed.bytes, sealed.gaps), (1, 4, 2));
}

#[test]
fn an_encrypted_bundle_opens_with_the_identity_only() {
    let dir = tempfile::tempdir().expect("a directory");
    let identity = age::x25519::Identity::generate();
    let to = vec![identity.to_public().to_string()];
    let (mut b, _) = new_bundle(dir.path(), &to, 60, 1 << 20);
    let origin = bundle::Origin {
        name: "secret".into(),
        source: String::new(),
        call: "read",
        process: None,
    };
    b.add(origin, b"hunter2").expect("add");
    let sealed = b.seal(json!({})).expect("seal");
    let bytes = fs::read(dir.path().join(&sealed.name)).expect("read");
    assert!(sealed.name.ends_with(".tar.age") && !bytes.windows(7).any(|w| w == b"hunter2"));
    let open = age::Decryptor::new(&bytes[..]).expect("age");
    let plain = open
        .decrypt(std::iter::once(&identity as &dyn age::Identity))
        .expect("decrypt");
    assert!(verify(plain).is_ok());
    let key = dir.path().join("key.txt");
    let secret = age::secrecy::ExposeSecret::expose_secret(&identity.to_string()).to_owned();
    fs::write(&key, format!("# a comment\n{secret}\n")).expect("write the key");
    let file = dir.path().join(&sealed.name);
    assert!(verify_file(&file, Some(&key)).is_ok());
    assert!(verify_file(&file, None).is_err(), "without the identity");
    let e = Bundle::create(dir.path(), "bad", &["age1nonsense".into()], bundle_limits());
    assert!(e.is_err(), "a recipient that is none");
}

fn bundle_limits() -> Limits {
    Limits {
        bytes: 1,
        artefacts: 1,
        end: Instant::now(),
        room: free_room(),
    }
}

/// No bound but the disk.
fn free_room() -> Room {
    Room {
        max_bytes: u64::MAX,
        min_free: 0,
    }
}

pub(super) type Members = std::collections::BTreeMap<String, Vec<u8>>;

/// All members of a bundle, and its manifest.
pub(super) fn members(path: &Path) -> (Members, serde_json::Value) {
    let manifest = verify(File::open(path).expect("open")).expect("verifies");
    let mut archive = tar::Archive::new(File::open(path).expect("open"));
    let mut all = Members::new();
    for entry in archive.entries().expect("tar") {
        let mut entry = entry.expect("an entry");
        let name = entry.path().expect("a name").to_string_lossy().into_owned();
        let mut data = Vec::new();
        entry.read_to_end(&mut data).expect("read");
        all.insert(name, data);
    }
    (all, manifest)
}

pub(super) fn gaps(manifest: &serde_json::Value) -> String {
    let all = manifest["gaps"].as_array().expect("a list").iter();
    all.filter_map(|g| g.as_str())
        .collect::<Vec<_>>()
        .join("\n")
}

/// Keeps a directory as if it were a writable layer.
fn kept(of: &Path, bounds: (usize, u64, u64)) -> (Members, serde_json::Value) {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    let tree = layer::Tree {
        prefix: "layer".to_owned(),
        source: "/tree".to_owned(),
        bounds,
        process: None,
    };
    let root = mounts::pin_directory(of.to_owned()).expect("the root");
    layer::keep(&mut b, root, &tree).expect("keep");
    let sealed = b.seal(json!({})).expect("seal");
    members(&dir.path().join(sealed.name))
}

#[test]
fn a_tree_is_listed_with_whiteouts_and_attributes_and_its_files_are_kept() {
    use rustix::fs::{FileType, Mode, XattrFlags, makedev, mknodat, setxattr};
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    fs::create_dir_all(at("etc/deep")).expect("make");
    fs::write(at("etc/deep/f|le %"), b"content").expect("write");
    fs::write(at("etc/empty"), b"").expect("write");
    setxattr(at("etc/deep"), "user.note", b"\x01n", XattrFlags::empty()).expect("an attribute");
    std::os::unix::fs::symlink("/etc/passwd", at("link")).expect("link");
    let device = makedev(0, 0);
    let made = mknodat(
        rustix::fs::CWD,
        at("gone"),
        FileType::CharacterDevice,
        Mode::empty(),
        device,
    );
    if made.is_err() {
        eprintln!("left out: making a whiteout, which needs root");
    }
    let (files, manifest) = kept(dir.path(), layer::LAYER);
    assert_eq!(files["layer/files/etc/deep/f%7Cle %25"], b"content");
    assert_eq!(files["layer/files/etc/empty"], b"");
    let list = String::from_utf8_lossy(&files["layer/list.jsonl-0"]).into_owned();
    let of = |path: &str| -> serde_json::Value {
        let line = |l: &&str| l.contains(&format!("\"path\":\"{path}\""));
        serde_json::from_str(list.lines().find(line).expect(path)).expect("JSON")
    };
    assert_eq!(of("etc/deep")["xattrs"]["user.note"], "016e");
    assert_eq!(of("link")["link"], "/etc/passwd");
    let body = String::from_utf8_lossy(&files["layer/bodyfile-0"]).into_owned();
    assert!(body.lines().all(|l| l.split('|').count() == 11), "{body}");
    assert!(body.contains("|/link -> /etc/passwd|"), "{body}");
    if made.is_ok() {
        assert_eq!(of("gone")["whiteout"], true);
        assert!(body.contains("w/w"), "{body}");
    }
    assert!(
        !files
            .keys()
            .any(|k| k.contains("link") || k.contains("gone")),
        "only regular files are read"
    );
    assert_eq!(gaps(&manifest), "");
}

#[test]
fn nothing_outside_a_hostile_tree_is_read_and_nothing_in_it_blocks() {
    let outside = tempfile::tempdir().expect("a directory");
    fs::write(outside.path().join("secret"), b"hunter2").expect("write");
    let dir = tempfile::tempdir().expect("a directory");
    let at = |name: &str| dir.path().join(name);
    std::os::unix::fs::symlink(outside.path(), at("way-out")).expect("link");
    std::os::unix::fs::symlink(outside.path().join("secret"), at("file-out")).expect("link");
    std::os::unix::fs::symlink("loop-b", at("loop-a")).expect("link");
    std::os::unix::fs::symlink("loop-a", at("loop-b")).expect("link");
    std::os::unix::fs::symlink(".", at("itself")).expect("link");
    let fifo = Command::new("mkfifo").arg(at("fifo")).status();
    assert!(fifo.expect("mkfifo").success());
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).expect("a socket");
    let mut deep = dir.path().to_owned();
    for _ in 0..tree::DEPTH_MAX + 10 {
        deep.push("d");
        fs::create_dir(&deep).expect("make");
    }
    fs::write(deep.join("too-deep"), b"x").expect("write");
    fs::write(at("last"), b"seen").expect("write");
    let (files, manifest) = kept(dir.path(), layer::LAYER);
    let hunter = |f: &Vec<u8>| f.windows(7).any(|w| w == b"hunter2");
    assert!(!files.values().any(hunter), "a link was followed");
    assert_eq!(files["layer/files/last"], b"seen");
    assert!(gaps(&manifest).contains("directories deep"));
    let list = String::from_utf8_lossy(&files["layer/list.jsonl-0"]).into_owned();
    for kind in ["fifo", "socket", "link"] {
        assert!(list.contains(&format!("\"kind\":\"{kind}\"")), "{kind}");
    }
}

#[test]
fn bounds_of_a_tree_are_kept_small_files_come_first_and_cuts_are_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let big = File::create(dir.path().join("a-big")).expect("create");
    big.set_len(1 << 40).expect("a sparse file of 1 TiB");
    for n in 0..50 {
        fs::write(dir.path().join(format!("small-{n:02}")), [n; 10]).expect("write");
    }
    let (files, manifest) = kept(dir.path(), (1000, 20 << 20, 16 << 20));
    assert_eq!(files["layer/files/small-49"], [49; 10]);
    assert_eq!(files["layer/files/a-big"].len(), 16 << 20);
    assert!(gaps(&manifest).contains("of 1099511627776 bytes"));
    let (files, manifest) = kept(dir.path(), (20, 1 << 20, 1 << 20));
    let list = String::from_utf8_lossy(&files["layer/list.jsonl-0"]).into_owned();
    assert_eq!(list.lines().count(), 20);
    assert!(gaps(&manifest).contains("the bound on entries (20)"));
}

#[test]
fn a_file_that_grows_while_it_is_read_is_told() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("log");
    fs::write(&path, vec![b'x'; 7 << 20]).expect("write");
    let stop = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let ended = stop.clone();
    let grower = std::thread::spawn(move || {
        use std::io::Write as _;
        let mut file = fs::OpenOptions::new()
            .append(true)
            .open(path)
            .expect("open");
        while !ended.load(std::sync::atomic::Ordering::Relaxed) {
            file.write_all(b"more").expect("append");
        }
    });
    let (files, manifest) = kept(dir.path(), layer::LAYER);
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    grower.join().expect("the writer");
    assert!(files["layer/files/log"].len() >= 7 << 20);
    assert!(gaps(&manifest).contains("it changed while it was read"));
}

#[test]
fn a_capture_beyond_the_room_says_what_bounds_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let (_, mut limits) = new_bundle(dir.path(), &[], 60, 1 << 30);
    limits.room = Room {
        max_bytes: 1 << 20,
        min_free: 0,
    };
    let origin = |name: &str| bundle::Origin {
        name: name.into(),
        source: String::new(),
        call: "read",
        process: None,
    };
    let mut b = Bundle::create(dir.path(), "bounded", &[], limits).expect("create");
    b.add(origin("large"), &vec![7; 4 << 20]).expect("add");
    b.add(origin("late"), b"x").expect("add");
    let sealed = b.seal(json!({})).expect("seal");
    let path = dir.path().join(sealed.name);
    assert!(fs::metadata(&path).expect("there").len() <= 1 << 20);
    let (_, manifest) = members(&path);
    assert!(gaps(&manifest).contains("max_bytes"), "{}", gaps(&manifest));
    let e = Bundle::create(dir.path(), "none", &[], limits).err();
    let e = e.expect("the directory is full");
    assert_eq!(e.kind(), io::ErrorKind::StorageFull);
    assert!(!dir.path().join("none.tar.part").exists());
}

#[test]
fn a_disk_that_fills_up_leaves_no_half_bundle() {
    let dir = tempfile::tempdir().expect("a directory");
    let mount = |args: &[&str]| {
        Command::new(args[0])
            .args(&args[1..])
            .arg(dir.path())
            .status()
    };
    let mounted = mount(&["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs"]);
    if !mounted.is_ok_and(|s| s.success()) {
        eprintln!("left out: a small file system cannot be mounted here");
        return;
    }
    let outcome = std::panic::catch_unwind(|| {
        let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
        let _ = fs::write(dir.path().join("neighbour"), vec![1; 2 << 20]);
        let origin = bundle::Origin {
            name: "big".into(),
            source: String::new(),
            call: "read",
            process: None,
        };
        let written = b.add(origin, &vec![7; 1 << 20]);
        let e = match written {
            Ok(()) => b.seal(json!({})).err().expect("no room for it"),
            Err(e) => {
                b.give_up(&e);
                e
            }
        };
        let names = fs::read_dir(dir.path()).expect("read").flatten();
        let names: Vec<_> = names.map(|n| n.file_name()).collect();
        (e.kind(), names)
    });
    let _ = mount(&["umount"]);
    let (kind, names) = outcome.expect("no panic");
    assert_eq!(kind, io::ErrorKind::StorageFull);
    assert_eq!(names, ["neighbour"]);
}

/// A shell that has said that it is ready; ended with the test.
struct Shell(Child);

impl Shell {
    fn start(script: &str) -> Option<Self> {
        let (shell, said) = Self::saying(script);
        (said == "ready").then_some(shell)
    }
    fn saying(script: &str) -> (Self, String) {
        let mut shell = Command::new("bash");
        let shell = shell.args(["-c", script]).stdin(Stdio::null());
        let mut child = shell.stdout(Stdio::piped()).spawn().expect("bash");
        let mut said = String::new();
        let out = child.stdout.as_mut().expect("its output");
        let _ = io::BufReader::new(out).read_line(&mut said);
        (Shell(child), said.trim().to_owned())
    }
    fn process(&self) -> Process {
        Process::now(self.0.id()).expect("it runs")
    }
}

impl Drop for Shell {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_deleted_file_is_found_among_a_hundred_thousand_open_files() {
    let dir = tempfile::tempdir().expect("a directory");
    // as many as a process may have here, 100,000 at most
    let script = format!(
        "ulimit -n 100100 2>/dev/null || ulimit -n $(ulimit -Hn); last=$(($(ulimit -n) - 20)); \
         cd '{}'; echo hidden >f; \
         for ((i = 10; i < last; i++)); do eval \"exec $i</dev/null\"; done; \
         eval \"exec $last<f\"; rm f; echo $last; exec sleep 600",
        dir.path().display()
    );
    let (shell, last) = Shell::saying(&script);
    let last: usize = last.parse().expect("a number");
    eprintln!("with {last} open files");
    let (mut b, _) = new_bundle(dir.path(), &[], 120, 1 << 30);
    let all = [shell.process()];
    sweep::sweep(&mut b, &all, None).expect("sweep");
    sweep::recover(&mut b, &all, &mut Foreign::default()).expect("recover");
    let sealed = b.seal(json!({})).expect("seal");
    let (files, manifest) = members(&dir.path().join(sealed.name));
    let name = format!("processes/{}/recovered/fd-{last}", all[0].pid);
    assert_eq!(files[&name], b"hidden\n");
    let cut = gaps(&manifest).contains("more than 4096 open files");
    assert_eq!(cut, last > sweep::FDS_MAX);
}

#[test]
fn a_process_with_thousands_of_threads_is_swept() {
    let wait = std::sync::Arc::new(std::sync::Barrier::new(2001));
    let threads: Vec<_> = (0..2000)
        .filter_map(|_| {
            let wait = wait.clone();
            let thread = std::thread::Builder::new().stack_size(64 << 10);
            thread.spawn(move || wait.wait()).ok()
        })
        .collect();
    assert_eq!(threads.len(), 2000, "threads");
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    let own = Process::now(std::process::id()).expect("this process");
    identity::keep(&mut b, &[own]).expect("identity");
    sweep::sweep(&mut b, &[own], None).expect("sweep");
    let sealed = b.seal(json!({})).expect("seal");
    wait.wait();
    let (files, _) = members(&dir.path().join(sealed.name));
    let map: serde_json::Value = serde_json::from_slice(&files["identity.json"]).expect("JSON");
    let threads: u64 = map["processes"][0]["threads"]
        .as_str()
        .and_then(|n| n.parse().ok())
        .expect("a number");
    assert!(threads > 2000, "{threads}");
}

#[test]
fn a_number_that_was_given_to_another_process_gives_nothing() {
    let dir = tempfile::tempdir().expect("a directory");
    let (mut child, _) = deleted_program(dir.path());
    let mut p = Process::now(child.id()).expect("it runs");
    p.start += 1;
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    sweep::recover(&mut b, &[p], &mut Foreign::default()).expect("recover");
    memory::memory(&mut b, p).expect("memory");
    let sealed = b.seal(json!({})).expect("seal");
    let _ = child.kill();
    let _ = child.wait();
    let (files, manifest) = members(&dir.path().join(sealed.name));
    assert!(
        !files.keys().any(|n| n.starts_with("processes")),
        "{files:?}"
    );
    // its program, the mapping of it, its memory
    assert_eq!(gaps(&manifest).matches("has ended").count(), 3);
}

/// In a process of its own only: nobody but root reads what this holds.
#[test]
fn helper_that_does_not_let_itself_be_read() {
    if std::env::var_os("PLIMSOLL_TEST_UNREADABLE").is_none() {
        return;
    }
    use rustix::process::{DumpableBehavior, set_dumpable_behavior};
    set_dumpable_behavior(DumpableBehavior::NotDumpable).expect("PR_SET_DUMPABLE");
    let marker = ["unreadable", "marker", "5320"].join("-");
    eprintln!("ready");
    std::thread::sleep(Duration::from_secs(600));
    drop(marker);
}

#[test]
fn a_process_that_does_not_let_itself_be_read_is_read_by_root() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("left out: reading such a process needs root");
        return;
    }
    let name = "respond::capture::tests::helper_that_does_not_let_itself_be_read";
    let mut helper = Command::new(std::env::current_exe().expect("this program"));
    helper.args(["--exact", name, "--nocapture"]);
    helper.env("PLIMSOLL_TEST_UNREADABLE", "1");
    let helper = helper.stdin(Stdio::null()).stdout(Stdio::null());
    let mut helper = helper.stderr(Stdio::piped()).spawn().expect("start it");
    let mut said = String::new();
    let out = helper.stderr.as_mut().expect("its words");
    io::BufReader::new(out).read_line(&mut said).expect("ready");
    let p = Process::now(helper.id()).expect("it runs");
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    sweep::sweep(&mut b, &[p], None).expect("sweep");
    memory::memory(&mut b, p).expect("memory");
    let sealed = b.seal(json!({})).expect("seal");
    let _ = helper.kill();
    let _ = helper.wait();
    let (files, manifest) = members(&dir.path().join(sealed.name));
    let marker = b"unreadable-marker-5320";
    let holds = |bytes: &Vec<u8>| bytes.windows(marker.len()).any(|w| w == marker);
    let mut memory = files.iter().filter(|(name, _)| name.contains("/memory/"));
    assert!(memory.any(|(_, bytes)| holds(bytes)), "{}", gaps(&manifest));
    assert!(files.keys().any(|n| n.ends_with("/links")));
}

#[test]
fn a_container_that_dies_meanwhile_gives_a_bundle_that_verifies_and_says_so() {
    let dir = tempfile::tempdir().expect("a directory");
    let shell = Shell::start("echo ready; exec sleep 600").expect("a shell");
    let all = [shell.process()];
    drop(shell);
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    identity::keep(&mut b, &all).expect("identity");
    sweep::sweep(&mut b, &all, None).expect("sweep");
    sweep::recover(&mut b, &all, &mut Foreign::default()).expect("recover");
    memory::memory(&mut b, all[0]).expect("memory");
    identity::programs(&mut b, &all, &mut Foreign::default()).expect("programs");
    layer::writable(&mut b, mounts::writable(&all)).expect("layer");
    let sealed = b.seal(json!({})).expect("seal");
    let (_, manifest) = members(&dir.path().join(sealed.name));
    let gaps = gaps(&manifest);
    assert!(gaps.contains("ended while it was read"), "{gaps}");
    assert!(gaps.contains("writable layer: "), "{gaps}");
}

#[test]
fn a_fuse_mount_that_hangs_holds_nothing_up() {
    let dir = tempfile::tempdir().expect("a directory");
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("hangs")).expect("make");
    fs::write(tree.join("z"), b"after it").expect("write");
    // its server never answers; it is gone when the shell is
    let script = format!(
        "exec 3<>/dev/fuse && mount -i -t fuse -o fd=3,rootmode=40000,user_id=0,group_id=0 none '{}' \
         && echo ready && exec sleep 600",
        tree.join("hangs").display()
    );
    let Some(shell) = Shell::start(&script) else {
        eprintln!("left out: FUSE cannot be mounted here");
        return;
    };
    let began = Instant::now();
    let (files, manifest) = kept(&tree, layer::LAYER);
    let gone = mounts::pin_directory(tree.join("hangs/below"));
    let (_, hung) = kept(&tree.join("hangs"), layer::LAYER);
    let took = began.elapsed();
    drop(shell);
    let _ = Command::new("umount")
        .arg("-l")
        .arg(tree.join("hangs"))
        .status();
    assert_eq!(files["layer/files/z"], b"after it");
    assert!(gaps(&manifest).contains("something is mounted there"));
    assert_eq!(gone.expect_err("it hangs").kind(), io::ErrorKind::TimedOut);
    assert!(gaps(&hung).contains("did not answer"), "{}", gaps(&hung));
    assert!(took < Duration::from_secs(60), "{took:?}");
}

#[test]
fn memory_that_was_reserved_and_never_touched_is_left_out() {
    let Some(shell) = Shell::start(
        "command -v python3 >/dev/null || exit; exec python3 -u -c \
         'import mmap,time; m = mmap.mmap(-1, 1 << 36, flags=0x4022); m[1 << 35:(1 << 35) + (1 << 20)] = bytes([7]) * (1 << 20); print(\"ready\"); time.sleep(600)'",
    ) else {
        eprintln!("left out: needs python3 and 64 GiB of address space");
        return;
    };
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 60, 1 << 30);
    memory::memory(&mut b, shell.process()).expect("memory");
    let sealed = b.seal(json!({})).expect("seal");
    assert!(sealed.bytes < 512 << 20, "{}", sealed.bytes);
    let (files, _) = members(&dir.path().join(sealed.name));
    let sevens = files.values().flatten().filter(|b| **b == 7).count();
    assert!(sevens >= 1 << 20, "what was touched: {sevens}");
}
