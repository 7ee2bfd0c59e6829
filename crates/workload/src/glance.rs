//! What `/proc` shows of a process right after its exec: what the container calls its user, and,
//! where the record of the exec does not carry them, capabilities, login uid, process group and
//! environment.
//!
//! Promises: a process is taken for the one that executed only when its start and its program are
//! the same, looked up through one directory handle, so that a reused id is never another's; every
//! read is bounded. [`Place::look`] reads nothing that the process could make slow;
//! [`Place::environment`] and [`Place::user`] read its memory and its files, which it can, so they
//! are to be called where waiting hurts nobody.
//!
//! Left out: who needs it, how long is waited, and masking ([`crate::redact`]).

use crate::scan::{parse_stat, same_start, split_argv};
use plimsoll_model::event::Exec;
use plimsoll_model::{Glance, ProcessKey, Text};
use rustix::fs::{Mode, OFlags, ResolveFlags, openat, openat2};
use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;

/// Environment that is read of one process, bytes: as much as the kernel side copies at an exec.
pub const ENV_BYTES_MAX: usize = 3 * 4095;
/// Of that, what is kept of the variables that are wanted, bytes.
pub const ENV_KEPT_MAX: usize = 4096;
/// Arguments that are compared, bytes.
const ARGV_BYTES_MAX: u64 = 4096;
/// Bytes read of the small files of a process.
const SMALL_BYTES_MAX: u64 = 16 << 10;
/// Bytes read of a container's list of users.
const USERS_BYTES_MAX: u64 = 256 << 10;
/// Longest name of a user, bytes.
const USER_BYTES_MAX: usize = 64;

/// Which variables of environments are wanted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum EnvWanted {
    /// None.
    #[default]
    Nothing,
    /// Those of these names.
    Names(Vec<String>),
    /// All.
    All,
}

impl EnvWanted {
    fn wants(&self, variable: &[u8]) -> bool {
        match self {
            Self::Nothing => false,
            Self::All => true,
            Self::Names(names) => names.iter().any(|n| {
                let rest = variable.strip_prefix(n.as_bytes());
                rest.is_some_and(|r| r.starts_with(b"="))
            }),
        }
    }

    /// Keeps of an environment what is wanted, [`ENV_KEPT_MAX`] bytes of it. `true`: something that
    /// is wanted was cut.
    pub fn keep(&self, env: &mut Vec<Text>) -> bool {
        let mut room = ENV_KEPT_MAX;
        let mut cut = false;
        env.retain_mut(|variable| {
            if !self.wants(variable.as_bytes()) {
                return false;
            }
            if variable.len() > room {
                cut = true;
                *variable = Text::from(&variable.as_bytes()[..room]);
            }
            room -= variable.len();
            !variable.is_empty()
        });
        cut
    }
}

/// The directory of a process in `/proc`, found to be the one that executed.
#[derive(Debug)]
pub struct Place(OwnedFd);

impl Place {
    /// Opens the directory of the process that executed `exec`, and says what it shows. `None`: it
    /// has gone, or runs another program already.
    pub fn look(proc_root: &Path, key: ProcessKey, exec: &Exec) -> Option<(Self, Glance)> {
        let dir = proc_root.join(key.tgid.to_string());
        let flags = OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::RDONLY;
        let place = Self(rustix::fs::open(dir, flags, Mode::empty()).ok()?);
        let (_, start) = parse_stat(&place.read("stat", SMALL_BYTES_MAX)?)?;
        if !same_start(start, key.start) || !place.runs(exec) {
            return None;
        }
        let status = place.read("status", SMALL_BYTES_MAX)?;
        let glance = glance_of(&String::from_utf8_lossy(&status), place.login_uid())?;
        Some((place, glance))
    }

    /// Whether the program is still the one of the exec, as far as its path tells.
    fn runs(&self, exec: &Exec) -> bool {
        // what has no path, or a long one, is told by its arguments alone
        !exec.exe.as_bytes().starts_with(b"/") || crate::root::runs(&self.0, exec.exe.as_bytes())
    }

    fn login_uid(&self) -> Option<u32> {
        let text = self.read("loginuid", 32)?;
        let uid = std::str::from_utf8(&text).ok()?.trim().parse().ok()?;
        (uid != u32::MAX).then_some(uid)
    }

    /// The environment, as far as it is wanted, and whether it was cut. `None`: it cannot be read,
    /// or is that of a program that was executed since.
    pub fn environment(&self, exec: &Exec, wanted: &EnvWanted) -> Option<(Vec<Text>, bool)> {
        let before = self.read("cmdline", ARGV_BYTES_MAX)?;
        let bytes = self.read("environ", ENV_BYTES_MAX as u64 + 1)?;
        let same = before == self.read("cmdline", ARGV_BYTES_MAX)? && begins_alike(&before, exec);
        same.then(|| variables(&bytes, wanted))
    }

    /// What the container's own `/etc/passwd` calls a user. Its links lead nowhere but into the
    /// container.
    pub fn user(&self, uid: u32) -> Option<Text> {
        let root = openat(
            &self.0,
            "root",
            OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC,
            Mode::empty(),
        )
        .ok()?;
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
        let inside = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        let file = openat2(&root, "etc/passwd", flags, Mode::empty(), inside).ok()?;
        let file = File::from(file);
        if !file.metadata().ok()?.is_file() {
            return None;
        }
        name_of_user(&read(file, USERS_BYTES_MAX)?, uid)
    }

    fn read(&self, name: &str, most: u64) -> Option<Vec<u8>> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let file = openat(self.0.as_fd(), name, flags, Mode::empty()).ok()?;
        read(File::from(file), most)
    }
}

fn read(file: File, most: u64) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn glance_of(status: &str, login_uid: Option<u32>) -> Option<Glance> {
    let field = |name: &str| {
        let line = status.lines().find_map(|l| l.strip_prefix(name));
        line.map(|l| l.split_ascii_whitespace())
    };
    let mask = |name| u64::from_str_radix(field(name)?.next()?, 16).ok();
    // ids in each namespace, the outermost first
    let own = |name| field(name)?.next_back()?.parse().ok();
    Some(Glance {
        permitted: mask("CapPrm:")?,
        inheritable: mask("CapInh:")?,
        login_uid,
        vpid: own("NSpid:")?,
        vpgid: own("NSpgid:")?,
        vsid: own("NSsid:")?,
        ..Glance::default()
    })
}

/// Whether a command line is that of the exec, as far as both were read.
fn begins_alike(cmdline: &[u8], exec: &Exec) -> bool {
    let now = split_argv(cmdline);
    let mut pairs = now.iter().zip(&exec.argv).peekable();
    if pairs.peek().is_none() {
        return now.is_empty() && exec.argv.is_empty();
    }
    let last = now.len().min(exec.argv.len()) - 1;
    let alike = pairs.enumerate().all(|(i, (now, then))| {
        let (now, then) = (now.as_bytes(), then.as_bytes());
        // the last one may have been cut at either bound
        now == then || (i == last && (now.starts_with(then) || then.starts_with(now)))
    });
    let cut = exec.argv_bytes as u64 > ARGV_BYTES_MAX;
    alike && (cut || now.len() == exec.argv.len())
}

fn variables(bytes: &[u8], wanted: &EnvWanted) -> (Vec<Text>, bool) {
    let cut = bytes.len() > ENV_BYTES_MAX;
    let bytes = &bytes[..bytes.len().min(ENV_BYTES_MAX)];
    let all = bytes.split(|b| *b == 0).filter(|v| !v.is_empty());
    let mut all: Vec<Text> = all.map(Text::from).collect();
    let cut = wanted.keep(&mut all) | cut;
    (all, cut)
}

fn name_of_user(passwd: &[u8], uid: u32) -> Option<Text> {
    let uid = uid.to_string();
    passwd.split(|b| *b == b'\n').find_map(|line| {
        let mut parts = line.split(|b| *b == b':');
        let name = parts.next()?;
        let fits = parts.nth(1)? == uid.as_bytes();
        // whoever may write that file must not pass for root
        let fits = fits && (name != b"root" || uid == "0");
        let plain = name
            .iter()
            .all(|b| b.is_ascii_graphic() && !b"\\\"'".contains(b));
        (fits && plain && (1..=USER_BYTES_MAX).contains(&name.len())).then(|| Text::from(name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_model::BootNs;
    use std::process::{Child, Command, Stdio};

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    /// A process of ours with a known environment, and the exec that it began with.
    fn running() -> (Running, ProcessKey, Exec) {
        let mut command = Command::new("/bin/sleep");
        command.arg("60").env_clear().stdin(Stdio::null());
        command.envs([("HTTP_PROXY", "http://proxy"), ("EMPTY", ""), ("A", "1")]);
        let child = Running(command.spawn().unwrap());
        let pid = child.0.id();
        let proc_root = Path::new("/proc");
        let began = |file: &str, with: &[u8]| {
            std::fs::read(proc_root.join(format!("{pid}/{file}")))
                .is_ok_and(|b| b.starts_with(with))
        };
        // spawn may return before the new program is in place, and its arguments stand before its environment
        while !(began("cmdline", b"/bin/sleep\0") && began("environ", b"A=1\0EMPTY=\0HTTP_PROXY="))
        {
            std::thread::yield_now();
        }
        let stat = std::fs::read(proc_root.join(format!("{pid}/stat"))).unwrap();
        let exec = Exec {
            exe: std::fs::read_link(proc_root.join(format!("{pid}/exe")))
                .unwrap()
                .to_str()
                .unwrap()
                .into(),
            argv: vec!["/bin/sleep".into(), "60".into()],
            ..Exec::default()
        };
        let key = ProcessKey {
            tgid: pid,
            start: parse_stat(&stat).unwrap().1,
        };
        (child, key, exec)
    }

    #[test]
    fn a_process_shows_its_capabilities_groups_and_environment() {
        let (_child, key, exec) = running();
        let (place, glance) = Place::look(Path::new("/proc"), key, &exec).unwrap();
        assert_eq!(glance.vpid, glance.vpid.max(1));
        // a child has its parent's group and session; those begun outside of a pid namespace are 0 there
        let own = std::fs::read_to_string("/proc/self/status").unwrap();
        let own = glance_of(&own, None).unwrap();
        assert_eq!((glance.vpgid, glance.vsid), (own.vpgid, own.vsid));
        assert_eq!(glance.permitted, own.permitted);
        let (all, cut) = place.environment(&exec, &EnvWanted::All).unwrap();
        let mut all: Vec<String> = all.iter().map(|v| v.to_str_lossy().into_owned()).collect();
        all.sort();
        assert_eq!(all, ["A=1", "EMPTY=", "HTTP_PROXY=http://proxy"]);
        assert!(!cut);
        let one = EnvWanted::Names(vec!["A".into(), "HTTP".into()]);
        assert_eq!(place.environment(&exec, &one).unwrap().0, ["A=1".into()]);
        assert_eq!(place.user(0), Some("root".into()));
    }

    #[test]
    fn another_process_and_another_program_are_not_taken_for_it() {
        let (_child, key, exec) = running();
        let look = |key, exec: &Exec| Place::look(Path::new("/proc"), key, exec);
        let later = ProcessKey {
            start: BootNs(key.start.0 + 1_000_000_000),
            ..key
        };
        assert!(look(later, &exec).is_none());
        let other = Exec {
            exe: "/bin/other".into(),
            ..exec.clone()
        };
        assert!(look(key, &other).is_none());
        // the same program with other arguments: the environment is not that of this exec
        let again = Exec {
            argv: vec!["/bin/sleep".into(), "61".into()],
            ..exec.clone()
        };
        let (place, _) = look(key, &again).unwrap();
        assert_eq!(place.environment(&again, &EnvWanted::All), None);
        let nobody = ProcessKey { tgid: 0, ..key };
        assert!(look(nobody, &exec).is_none());
    }

    #[test]
    fn an_environment_is_read_up_to_its_bound() {
        let long = [b"A=".as_slice(), &[b'x'; 5000], b"\0B=1\0"].concat();
        let (kept, cut) = variables(&long, &EnvWanted::All);
        assert!(cut && kept.len() == 1 && kept[0].len() == ENV_KEPT_MAX);
        // what is not wanted takes no room from what is
        let b = EnvWanted::Names(vec!["B".into()]);
        assert_eq!(variables(&long, &b), (vec!["B=1".into()], false));
        let longer = [b"A=".as_slice(), &[b'x'; ENV_BYTES_MAX], b"\0B=1\0"].concat();
        assert_eq!(variables(&longer[..ENV_BYTES_MAX + 1], &b), (vec![], true));
        assert_eq!(variables(b"", &EnvWanted::All), (vec![], false));
    }

    #[test]
    fn arguments_are_compared_as_far_as_both_were_read() {
        let exec = |argv: &[&str], bytes| Exec {
            argv: argv.iter().map(|a| Text::from(*a)).collect(),
            argv_bytes: bytes,
            ..Exec::default()
        };
        assert!(begins_alike(b"a\0b\0", &exec(&["a", "b"], 4)));
        assert!(!begins_alike(b"a\0b\0", &exec(&["a"], 2)));
        assert!(!begins_alike(b"a\0c\0", &exec(&["a", "b"], 4)));
        assert!(!begins_alike(b"", &exec(&["a"], 2)));
        assert!(begins_alike(b"", &exec(&[], 0)));
        assert!(begins_alike(b"a\0bcd\0e\0", &exec(&["a", "bc"], 9000)));
    }

    #[test]
    fn users_are_found_by_number_and_a_hostile_name_is_none() {
        let passwd = b"root:x:0:0::/root:/bin/sh\nwww-data:x:33:33::/:/bin/sh\n:x:5:5:::\n\
            a\x1b[2J:x:6:6:::\nshort\nno\"good:x:7:7:::\nroot:x:8:8:::\n";
        assert_eq!(name_of_user(passwd, 33), Some("www-data".into()));
        for uid in [1, 5, 6, 7, 8] {
            assert_eq!(name_of_user(passwd, uid), None, "{uid}");
        }
        assert_eq!(name_of_user(&[0xff; 1 << 16], 0), None);
    }
}
