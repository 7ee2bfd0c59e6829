//! What the agent asks the machine about itself: names, boot, memory. Plain reads, no decisions.

use plimsoll_model::{BootId, NodeId};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;

/// The node's id: the machine id, else the host name, else `node`.
pub fn node_id() -> NodeId {
    ["/etc/machine-id", "/proc/sys/kernel/hostname"]
        .iter()
        .find_map(|path| NodeId::parse(read(path)?.as_str()).ok())
        .unwrap_or_else(|| NodeId::parse("node").expect("four letters are a node id"))
}

/// This boot's id.
pub fn boot_id() -> BootId {
    read("/proc/sys/kernel/random/boot_id")
        .and_then(|t| BootId::parse(&t).ok())
        .unwrap_or_else(|| BootId::parse("unknown").expect("seven letters are a boot id"))
}

/// The 16 bytes of a boot id written as a UUID; zero for anything else.
pub fn boot_bytes(id: &BootId) -> [u8; 16] {
    let hex: String = id.as_str().chars().filter(|c| *c != '-').collect();
    let mut bytes = [0; 16];
    if hex.len() == 32 && hex.is_ascii() {
        for (byte, pair) in bytes.iter_mut().zip(0..16) {
            *byte = u8::from_str_radix(&hex[pair * 2..pair * 2 + 2], 16).unwrap_or(0);
        }
    }
    bytes
}

/// The kernel's release.
pub fn kernel() -> String {
    read("/proc/sys/kernel/osrelease").unwrap_or_default()
}

/// Whether this process is in the pid namespace that the kernel's numbers of processes are of: elsewhere
/// `/proc` has others for the same processes. `root` is where `/proc` is; `None`: that cannot be told.
pub fn has_the_kernels_pids(root: &Path) -> Option<bool> {
    // PROC_PID_INIT_INO (include/linux/proc_ns.h)
    const INITIAL: &str = "pid:[4026531836]";
    let own = fs::read_link(root.join("proc/self/ns/pid")).ok()?;
    Some(own == Path::new(INITIAL))
}

/// What there is without them, what that costs, and what to do.
pub const OTHER_PIDS: [&str; 3] = [
    "a pid namespace of its own",
    "processes that it stops, captures or finds running are told wrongly or not at all",
    "start it in the host's (`docker run --pid=host`, `hostPID: true`)",
];

/// Resident memory of this process, bytes; without the kernel's maps that it reads through (rings,
/// recorder), which are the kernel side's memory wherever they are mapped.
pub fn resident_bytes() -> Option<u64> {
    let file = fs::File::open("/proc/self/smaps").ok()?;
    resident_in(BufReader::new(file))
}

/// The resident bytes of the mappings in a `/proc/PID/smaps` (proc(5)) but those of eBPF maps.
fn resident_in(smaps: impl BufRead) -> Option<u64> {
    let (mut kib, mut ours) = (0u64, true);
    for line in smaps.lines() {
        let line = line.ok()?;
        if let Some(size) = line.strip_prefix("Rss:").filter(|_| ours) {
            let size: u64 = size.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib = kib.saturating_add(size);
        } else if line.starts_with(|c: char| c.is_ascii_digit() || ('a'..='f').contains(&c)) {
            // the line that a mapping begins with: addresses, rights, offset, device, inode, name
            ours = !line.ends_with("anon_inode:bpf-map");
        }
    }
    Some(kib.saturating_mul(1024))
}

/// Processor time of this process, milliseconds.
pub fn cpu_ms() -> u64 {
    let t = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    (t.tv_sec * 1000 + t.tv_nsec / 1_000_000).unsigned_abs()
}

/// Free bytes (for root) on the disk of a path.
pub fn free_bytes(path: &Path) -> Option<u64> {
    let fs = rustix::fs::statvfs(path).ok()?;
    Some(fs.f_bfree.saturating_mul(fs.f_frsize))
}

/// Bytes of all files below a directory, two levels deep (the journal has no more).
pub fn bytes_below(dir: &Path) -> u64 {
    fn walk(dir: &Path, depth: u32) -> u64 {
        let Ok(entries) = fs::read_dir(dir) else {
            return 0;
        };
        entries
            .flatten()
            .filter_map(|e| Some((e.path(), e.metadata().ok()?)))
            .map(|(path, meta)| match meta.is_dir() {
                true if depth > 0 => walk(&path, depth - 1),
                true => 0,
                false => meta.len(),
            })
            .sum()
    }
    walk(dir, 2)
}

fn read(path: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_machine_knows_itself() {
        assert!(resident_bytes().is_some_and(|b| b > 100_000));
        assert!(free_bytes(Path::new("/")).is_some());
        assert!(!kernel().is_empty());
        assert!(!node_id().as_str().is_empty());
    }

    #[test]
    fn a_pid_namespace_of_its_own_is_told_from_the_kernels() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(has_the_kernels_pids(root.path()), None);
        let dir = root.path().join("proc/self/ns");
        fs::create_dir_all(&dir).unwrap();
        for (namespace, is) in [("pid:[4026531836]", true), ("pid:[4026532281]", false)] {
            let _ = fs::remove_file(dir.join("pid"));
            std::os::unix::fs::symlink(namespace, dir.join("pid")).unwrap();
            assert_eq!(has_the_kernels_pids(root.path()), Some(is), "{namespace}");
        }
    }

    #[test]
    fn the_kernels_maps_are_not_the_agents_memory() {
        let smaps = "\
7f0000000000-7f0000400000 r--s 00000000 00:10 11                         anon_inode:bpf-map
Size:               4096 kB
Rss:                4096 kB
Pss:                4096 kB
55d000000000-55d000001000 rw-p 00000000 00:00 0                          [heap]
Rss:                  12 kB
fff000000000-fff000001000 r-xp 00000000 fe:00 7                          /usr/bin/plimsoll
Rss:                   8 kB
";
        assert_eq!(resident_in(smaps.as_bytes()), Some(20 * 1024));
    }

    #[test]
    fn a_boot_id_has_16_bytes() {
        let id = BootId::parse("00112233-4455-6677-8899-aabbccddeeff").unwrap();
        assert_eq!(boot_bytes(&id)[..3], [0x00, 0x11, 0x22]);
        assert_eq!(boot_bytes(&id)[15], 0xff);
        assert_eq!(boot_bytes(&BootId::parse("unknown").unwrap()), [0; 16]);
    }
}
