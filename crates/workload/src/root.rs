//! Where the root of a container lies that is not the top of its mount namespace: the runtime itself ran
//! in a chroot, and pivoted there. The kernel side knows it of containers that it saw starting; of those
//! found running it is told from `/proc`.
//!
//! Promises: a chroot made inside a container is never taken for its root, because that would hide
//! where a file lies: the root has to be a mount of its own, at the very place where the root of
//! the process is that started the container. Where that cannot be told, paths start from the top of the
//! mount namespace.
//!
//! Left out: runtimes that change the root without pivoting; a runtime whose chroot this program shares.

use crate::scan::{MAX_STATUS_BYTES, link, parse_stat, read_bounded};
use plimsoll_model::Text;
use rustix::fs::{AtFlags, CWD, Statx, StatxFlags, readlinkat, statx};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

/// Ancestors looked at.
const MAX_ANCESTORS: usize = 64;

/// The root of a container, as seen from outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NestedRoot {
    /// Id of the mount that it is.
    pub mount: u32,
    /// Its path from the top of the mount namespace, without a slash behind it.
    pub path: Text,
}

impl NestedRoot {
    /// A path from the top of the mount namespace, as the container sees it.
    pub fn inside(&self, path: &Text) -> Text {
        let rest = path.as_bytes().strip_prefix(self.path.as_bytes());
        match rest {
            Some([]) => "/".into(),
            Some(rest) if rest.starts_with(b"/") => Text::from(rest),
            _ => path.clone(),
        }
    }
}

/// The root of the container that a process is in; `None`: the top of its mount namespace, or not told.
pub(crate) fn nested_root(proc_root: &Path, pid: u32, parent: u32) -> Option<NestedRoot> {
    let dir = |pid: u32| proc_root.join(pid.to_string());
    // nearly always: nothing more has to be read
    if link(&dir(pid).join("root"))? == Path::new("/") {
        return None;
    }
    let namespace = |pid: u32| std::fs::read_link(dir(pid).join("ns/mnt")).ok();
    let own = namespace(pid)?;
    // the process that came from outside, whose root is the one that it was given, and who started it
    let (mut entered, mut starter) = (pid, parent);
    for _ in 0..MAX_ANCESTORS {
        let of = namespace(starter)?;
        if of != own {
            break;
        }
        let stat = read_bounded(&dir(starter).join("stat"), MAX_STATUS_BYTES)?;
        (entered, starter) = (starter, parse_stat(&stat)?.0);
    }
    let path = link(&dir(entered).join("root"))?;
    let root = look(&dir(entered).join("root"))?;
    let above = look(&dir(entered).join("root/.."))?;
    let place = look(&dir(starter).join("root/.."))?;
    let is_mount = root.stx_mnt_id != above.stx_mnt_id;
    let is_there = same_directory(&above, &place) && !same_directory(&above, &root);
    (is_mount && is_there).then(|| NestedRoot {
        mount: root.stx_mnt_id as u32,
        path: path.as_os_str().as_bytes().into(),
    })
}

fn look(path: &PathBuf) -> Option<Statx> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let found = statx(CWD, path, AtFlags::empty(), wanted).ok()?;
    (found.stx_mask & wanted.bits() == wanted.bits()).then_some(found)
}

fn same_directory(a: &Statx, b: &Statx) -> bool {
    let of = |s: &Statx| (s.stx_dev_major, s.stx_dev_minor, s.stx_ino);
    of(a) == of(b)
}

/// Whether a process, by its directory in `/proc`, runs the program that its container has at `path`. The
/// link shows the path from the top of the mount namespace, the root of the process what may be above.
pub(crate) fn runs(process: impl AsFd, path: &[u8]) -> bool {
    let link = |name: &str| readlinkat(&process, name, Vec::new());
    let Ok(exe) = link("exe") else {
        return false;
    };
    let exe = exe.as_bytes();
    let exe = exe.strip_suffix(b" (deleted)").unwrap_or(exe);
    if exe == path {
        return true;
    }
    let Some(above) = exe.strip_suffix(path).filter(|_| path.starts_with(b"/")) else {
        return false;
    };
    link("root").is_ok_and(|root| match root.as_bytes().strip_prefix(above) {
        Some(rest) => rest.is_empty() || rest.starts_with(b"/"),
        None => false,
    })
}

/// [`runs`] of a process by its number.
pub fn runs_program(proc_root: &Path, pid: u32, path: &[u8]) -> bool {
    use rustix::fs::{Mode, OFlags, open};
    let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
    let dir: Result<OwnedFd, _> = open(proc_root.join(pid.to_string()), flags, Mode::empty());
    dir.is_ok_and(|dir| runs(dir, path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::io::{BufRead as _, BufReader};
    use std::process::{Child, Command, Stdio};

    #[test]
    fn a_path_from_the_top_is_one_from_the_root_or_stays() {
        let root = NestedRoot {
            mount: 7,
            path: "/srv/host".into(),
        };
        let inside = |path: &str| root.inside(&path.into()).to_string();
        assert_eq!(inside("/srv/host/bin/sh"), "/bin/sh");
        assert_eq!(inside("/srv/host"), "/");
        assert_eq!(inside("/srv/hostile/bin/sh"), "/srv/hostile/bin/sh");
        assert_eq!(inside("/bin/sh"), "/bin/sh");
    }

    #[test]
    fn a_program_is_known_below_the_root_of_its_process_and_nowhere_else() {
        let dir = tempfile::tempdir().unwrap();
        let process = |pid: u32, exe: &str, root: &str| {
            let p = dir.path().join(pid.to_string());
            fs::create_dir(&p).unwrap();
            std::os::unix::fs::symlink(exe, p.join("exe")).unwrap();
            std::os::unix::fs::symlink(root, p.join("root")).unwrap();
            runs_program(dir.path(), pid, b"/bin/sh")
        };
        assert!(process(1, "/bin/sh", "/"));
        assert!(process(2, "/bin/sh (deleted)", "/"));
        assert!(process(3, "/srv/host/bin/sh", "/srv/host"));
        // a chroot inside
        assert!(process(4, "/srv/host/bin/sh", "/srv/host/var"));
        assert!(!process(5, "/jail/bin/sh", "/"));
        assert!(!process(6, "/srv/host/bin/sh", "/srv/hostile"));
        assert!(!process(7, "/bin/other", "/"));
    }

    /// A program that waits, in a container that a runtime with `HOST` as its root made by pivoting; its
    /// process, and that of the runtime.
    struct Running(Child, u32);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    fn start(host: &Path, inside: &str) -> Running {
        let runtime = format!(
            "my $root = '{}'; chroot($root) && chdir('/root') or die;
             my $pid = fork; if (!$pid) {{
                 syscall(272, 0x20000) == 0 or die; # unshare, mount namespace
                 my $here = '.';
                 syscall(155, $here, $here) == 0 && syscall(166, $here, 2) == 0 or die;
                 chdir('/'); {inside} exec '/bin/sh', '-c', 'echo; read x';
             }}
             waitpid $pid, 0;",
            host.display()
        );
        let mounts = format!(
            "mount --bind {0} {0}; mount --bind {0}/root {0}/root; \
             mount --bind {0}/root/volume {0}/root/volume; exec perl -e \"$1\"",
            host.display()
        );
        let mut child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &mounts, "sh", &runtime])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let said = BufReader::new(child.stdout.take().unwrap()).read_line(&mut line);
        assert_eq!(said.unwrap(), 1, "the program runs");
        let id = child.id();
        let children = fs::read_to_string(format!("/proc/{id}/task/{id}/children")).unwrap();
        Running(child, children.trim().parse().unwrap())
    }

    /// Needs root, busybox, perl and x86-64 (`PLIMSOLL_HOST_TESTS=1`, set by `scripts/test`).
    #[test]
    fn the_root_of_a_runtime_in_a_chroot_is_told_and_a_chroot_inside_is_not_one() {
        if !std::env::var("PLIMSOLL_HOST_TESTS").is_ok_and(|v| v == "1") {
            return;
        }
        let dir = tempfile::tempdir().unwrap();
        let host = fs::canonicalize(dir.path()).unwrap();
        for place in ["root/bin", "root/volume/bin", "root/jail/bin"] {
            fs::create_dir_all(host.join(place)).unwrap();
            let busybox = ["/bin/busybox", "/usr/bin/busybox"];
            let busybox = busybox.iter().find(|p| Path::new(p).exists()).unwrap();
            fs::copy(busybox, host.join(place).join("sh")).unwrap();
        }
        let told = |inside: &str| {
            let running = start(&host, inside);
            let runtime = running.0.id();
            (nested_root(Path::new("/proc"), running.1, runtime), running)
        };
        let (root, running) = told("");
        let root = root.expect("it is told");
        assert_eq!(root.path, Text::from(host.as_os_str().as_bytes()));
        let fdinfo = fs::read_to_string(format!("/proc/{}/mountinfo", running.1)).unwrap();
        let own = fdinfo.lines().find(|l| l.split(' ').nth(4) == Some("/"));
        assert!(own.unwrap().starts_with(&format!("{} ", root.mount)));
        assert!(runs_program(Path::new("/proc"), running.1, b"/bin/sh"));
        // into a directory, and into a mount
        for jail in ["/jail", "/volume"] {
            let (root, running) = told(&format!("chroot('{jail}') && chdir('/') or die;"));
            assert_eq!(root, None, "{jail}");
            let path = format!("{jail}/bin/sh");
            assert!(runs_program(Path::new("/proc"), running.1, path.as_bytes()));
        }
        // nor is there anything to tell of this process
        assert_eq!(nested_root(Path::new("/proc"), std::process::id(), 1), None);
    }
}
