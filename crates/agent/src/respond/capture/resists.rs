//! Processes that do not want to be looked at: on a file system that stops answering, with arguments
//! and mappings on it, traced by another, not to be dumped.

use super::fuse::{Hostile, MUTE, NO_FLUSH, compiled};
use super::tests::{gaps, members, new_bundle};
use super::*;
use plimsoll_workload::{Layout, Verdict, scan_proc};
use std::process::{Command, Stdio};

type Files = std::collections::BTreeMap<String, Vec<u8>>;

/// All that a capture reads of a process, as one; its members and what is missing.
fn everything_of(pid: u32) -> (Process, Files, String) {
    let p = Process::now(pid).expect("it runs");
    let dir = tempfile::tempdir().expect("a directory");
    let (mut b, _) = new_bundle(dir.path(), &[], 300, 1 << 30);
    let mut foreign = Foreign::default();
    identity::keep(&mut b, &[p]).expect("identity");
    let (places, left_out) = mounts::in_memory(&[p], "none");
    sweep::sweep(&mut b, &[p], None).expect("sweep");
    sweep::recover(&mut b, &[p], &mut foreign).expect("recover");
    memory::memory(&mut b, p).expect("memory");
    layer::in_memory(&mut b, places, left_out).expect("file systems in memory");
    identity::programs(&mut b, &[p], &mut foreign).expect("programs");
    layer::writable(&mut b, mounts::writable(&[p])).expect("layer");
    let sealed = b.seal(json!({})).expect("seal");
    let (files, manifest) = members(&dir.path().join(sealed.name));
    (p, files, gaps(&manifest))
}

fn holds(files: &Files, place: &str, words: &str) -> bool {
    let is = |(name, bytes): (&String, &Vec<u8>)| {
        name.contains(place) && bytes.windows(words.len()).any(|w| w == words.as_bytes())
    };
    files.iter().any(is)
}

/// Runs a deleted program of the mount, with that file and one of the node's disk open.
const DELETED: &str = "echo hidden >hidden
    until \"$MNT/program\" 0; do sleep 0.05; done
    \"$MNT/program\" 600 5<\"$MNT/program\" 6<\"$MNT/program\" 7<hidden &
    victim=$!
    until [ \"$(readlink /proc/$victim/exe)\" = \"$MNT/program\" ]; do sleep 0.05; done
    rm \"$MNT/program\" hidden";

#[test]
fn a_file_system_that_stops_answering_is_asked_once_and_everything_else_is_kept() {
    let Some(hostile) = Hostile::start(DELETED) else {
        return;
    };
    hostile.turn(MUTE);
    let (p, files, gaps) = everything_of(hostile.victim);
    let asked = gaps.matches("did not answer within").count();
    assert_eq!(asked, 1, "asked once: {gaps}");
    let spared = "not tried: its file system did not answer before";
    assert!(gaps.matches(spared).count() >= 2, "{gaps}");
    let name = format!("processes/{}/recovered/fd-7", p.pid);
    assert_eq!(files[&name], b"hidden\n", "{gaps}");
    let links = &files[&format!("processes/{}/links", p.pid)];
    let links = String::from_utf8_lossy(links);
    assert!(
        links.contains("fd/5 ") && links.contains("mnt/program (deleted)"),
        "{links}"
    );
    assert!(holds(&files, "/memory/", "MNT="), "its stack: {gaps}");
    assert!(holds(&files, "programs.jsonl", "did not answer before"));
}

#[test]
fn a_file_system_that_does_not_answer_to_a_close_holds_nothing_up() {
    let Some(hostile) = Hostile::start(DELETED) else {
        return;
    };
    hostile.turn(NO_FLUSH);
    let (p, files, gaps) = everything_of(hostile.victim);
    let program = std::fs::read("/bin/sleep").expect("its bytes");
    let name = format!("processes/{}/recovered/exe", p.pid);
    let kept = &files[&name];
    let differs = kept.iter().zip(&program).position(|(a, b)| a != b);
    assert!(
        *kept == program,
        "{} of {} bytes, {differs:?}: {gaps}",
        kept.len(),
        program.len()
    );
    let programs = String::from_utf8_lossy(&files["programs.jsonl"]);
    assert!(programs.contains("\"sha256\""), "{programs}");
}

/// Maps a file without touching it, and has its arguments in it.
const ARGUMENTS: &str = r#"
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>
int main(int argc, char **argv) {
    char *secret = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    sprintf(secret, "in-%s-%d", "memory", 5321);
    int fd = open(argv[1], O_RDONLY);
    char *page = mmap(0, 1 << 16, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    if (fd < 0 || page == MAP_FAILED) return 1;
    if (prctl(PR_SET_MM, PR_SET_MM_ARG_START, page + 8192, 0, 0)) return 2;
    if (prctl(PR_SET_MM, PR_SET_MM_ARG_END, page + 8292, 0, 0)) return 3;
    fclose(fopen("ready", "w"));
    pause();
}
"#;

#[test]
fn memory_that_never_comes_hangs_neither_a_capture_nor_the_start_of_the_agent() {
    let tools = tempfile::tempdir().expect("a directory");
    let Some(program) = compiled(tools.path(), ARGUMENTS) else {
        return;
    };
    let work = format!(
        "until \"$MNT/program\" 0; do sleep 0.05; done
         '{}' \"$MNT/program\" & victim=$!
         until [ -e ready ] || [ ! -e /proc/$victim ]; do sleep 0.05; done",
        program.display()
    );
    let Some(hostile) = Hostile::start(&work) else {
        return;
    };
    if !hostile.dir().join("ready").exists() {
        eprintln!("left out: a process cannot move its arguments here (CONFIG_CHECKPOINT_RESTORE)");
        return;
    }
    // what it has read ahead is known to the kernel already
    hostile.turn(MUTE);
    std::fs::write("/proc/sys/vm/drop_caches", "1").expect("forget what was read ahead");
    let (p, files, gaps) = everything_of(hostile.victim);
    let cmdline = format!("/proc/{}/cmdline: it did not answer", p.pid);
    assert!(gaps.contains(&cmdline), "{gaps}");
    assert!(
        gaps.contains("mnt/program did not answer: left out"),
        "{gaps}"
    );
    assert!(holds(&files, "/memory/", "in-memory-5321"), "{gaps}");

    let layout = Layout::detect(Path::new("/proc")).expect("cgroups");
    let scan = scan_proc(Path::new("/proc"), &layout, |_| Verdict::Undecided);
    let found = scan.processes.iter().find(|s| s.key.tgid == p.pid);
    let found = found.expect("it is known all the same");
    assert!(found.argv.is_empty() && found.exe.to_str_lossy().ends_with("made"));
}

/// A process that is traced by its parent and does not let itself be dumped.
const TRACED: &str = r#"
#include <stdio.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/wait.h>
#include <unistd.h>
static char secret[64];
int main(void) {
    int child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, 9);
        prctl(PR_SET_DUMPABLE, 0);
        sprintf(secret, "in-%s-%d", "memory", 5322);
        ptrace(PTRACE_TRACEME, 0, 0, 0);
        raise(19);
        for (;;) pause();
    }
    int status;
    waitpid(child, &status, 0);
    printf("%d\n", child);
    fflush(stdout);
    for (;;) pause();
}
"#;

#[test]
fn a_process_that_another_traces_and_that_forbids_it_is_read_all_the_same() {
    let dir = tempfile::tempdir().expect("a directory");
    let source = format!("#include <signal.h>\n{TRACED}");
    let Some(program) = compiled(dir.path(), &source) else {
        return;
    };
    let mut tracer = Command::new(program);
    let tracer = tracer.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut tracer = tracer.spawn().expect("start it");
    let mut said = String::new();
    let out = tracer.stdout.as_mut().expect("its output");
    io::BufReader::new(out).read_line(&mut said).expect("ready");
    let pid: u32 = said.trim().parse().expect("a number");
    let (_, files, gaps) = everything_of(pid);
    let _ = tracer.kill();
    let _ = tracer.wait();
    assert!(holds(&files, "/memory/", "in-memory-5322"), "{gaps}");
    let traced = format!("\"tracer\": \"{}\"", tracer.id());
    assert!(holds(&files, "identity.json", &traced));
}
