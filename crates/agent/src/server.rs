//! The agent's Unix socket: who asks, how much, and for how long.
//!
//! Promises: the peer's uid is the kernel's word (`SO_PEERCRED`), never the request's. Only root
//! (the agent's own user) and members of the configured group are answered at all. Connections,
//! lines, waits and lifetimes are bounded. Left out: the answers ([`Answer`]), the protocol's form
//! (the `api` crate).

use plimsoll_api::protocol::{self, LineError};
use plimsoll_api::{Failure, FailureCode, Item, Reply, Request};
use plimsoll_model::Stamp;
use plimsoll_model::record::Decision;
use rustix::net::{Shutdown, shutdown};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Connections served at once.
pub const CONNECTIONS_MAX: usize = 16;
/// Requests on one connection.
pub const REQUESTS_MAX: usize = 10_000;
/// A connection that says nothing for this long is closed.
pub const IDLE_MAX: Duration = Duration::from_secs(30);
/// A peer that takes nothing for this long is given up.
pub const WRITE_MAX: Duration = Duration::from_secs(10);

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// Its user, as the kernel says.
    pub uid: u32,
    /// Its group, as the kernel says.
    pub gid: u32,
    /// Its process.
    pub pid: u32,
    /// Its login uid (`u32::MAX`: none).
    pub login_uid: u32,
}

impl Peer {
    /// A decision of this peer at `at`, for the journal.
    pub fn decides(&self, action: &str, subject: String, reason: String, at: Stamp) -> Decision {
        Decision {
            at,
            action: action.to_owned(),
            subject,
            reason,
            uid: self.uid,
            login_uid: self.login_uid,
            method: "socket".to_owned(),
        }
    }
}

/// Who may ask.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Access {
    /// The agent's own user (root).
    pub uid: u32,
    /// Members of this group too.
    pub group: Option<u32>,
}

/// What is answered.
pub trait Answer: Send + Sync {
    /// Carries a request out, or says why not.
    ///
    /// # Errors
    /// The refusal, for the peer.
    fn answer(&self, request: Request, peer: &Peer)
    -> Result<(Vec<Item>, Option<String>), Failure>;
}

/// Why there is no socket.
#[derive(Debug, thiserror::Error)]
#[error("cannot {doing} the socket {}", path.display())]
pub struct ServeError {
    /// What was tried.
    pub doing: &'static str,
    /// Which socket.
    pub path: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// The running server.
#[derive(Debug)]
pub struct Server {
    path: PathBuf,
    /// The file at `path` when it was made: device and inode.
    file: Option<(u64, u64)>,
    listener: Arc<UnixListener>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Listens on `path` and answers with `answer`.
    ///
    /// # Errors
    /// When the socket cannot be made, or another agent answers there.
    pub fn start(path: &Path, access: Access, answer: Arc<dyn Answer>) -> Result<Self, ServeError> {
        let listener = Arc::new(listen(path, access)?);
        let stop = Arc::new(AtomicBool::new(false));
        let (accepting, stopped) = (listener.clone(), stop.clone());
        let thread = std::thread::Builder::new()
            .name("socket".into())
            .spawn(move || accept(&accepting, access, &answer, &stopped))
            .map_err(|source| ServeError {
                doing: "serve",
                path: path.to_owned(),
                source,
            })?;
        Ok(Self {
            path: path.to_owned(),
            file: identity(path),
            listener,
            stop,
            thread: Some(thread),
        })
    }

    /// Stops listening; connections end by themselves.
    pub fn close(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // wakes the accepting thread, whoever has removed the file meanwhile
        let _ = shutdown(&*self.listener, Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
        // a file that somebody else put there since is not ours to remove
        if self.file.is_some() && identity(&self.path) == self.file {
            let _ = std::fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    let file = std::fs::symlink_metadata(path).ok()?;
    Some((file.dev(), file.ino()))
}

fn listen(path: &Path, access: Access) -> Result<UnixListener, ServeError> {
    let failed = |doing| {
        let path = path.to_owned();
        move |source| ServeError {
            doing,
            path,
            source,
        }
    };
    if let Some(dir) = path.parent()
        && !dir.exists()
    {
        std::fs::create_dir_all(dir).map_err(failed("make the directory of"))?;
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755))
            .map_err(failed("make the directory of"))?;
    }
    if UnixStream::connect(path).is_ok() {
        let busy = io::Error::new(io::ErrorKind::AddrInUse, "another agent answers there");
        return Err(failed("listen on")(busy));
    }
    // a socket that nobody answers on was left behind; anything else is not ours to remove
    if let Ok(found) = std::fs::symlink_metadata(path)
        && !found.file_type().is_socket()
    {
        let other = io::Error::new(io::ErrorKind::AlreadyExists, "something else lies there");
        return Err(failed("replace")(other));
    }
    // bound under a name of its own and renamed when nobody else may open it any more
    let temporary = path.with_extension("new");
    let _ = std::fs::remove_file(&temporary);
    let listener = UnixListener::bind(&temporary).map_err(failed("listen on"))?;
    let mode = if access.group.is_some() { 0o660 } else { 0o600 };
    std::fs::set_permissions(&temporary, std::fs::Permissions::from_mode(mode))
        .map_err(failed("restrict"))?;
    if let Some(gid) = access.group {
        std::os::unix::fs::chown(&temporary, None, Some(gid)).map_err(failed("restrict"))?;
    }
    std::fs::rename(&temporary, path).map_err(failed("listen on"))?;
    Ok(listener)
}

fn accept(listener: &UnixListener, access: Access, answer: &Arc<dyn Answer>, stop: &AtomicBool) {
    let served = Arc::new(AtomicUsize::new(0));
    for stream in listener.incoming() {
        if stop.load(Ordering::Relaxed) {
            return;
        }
        let Ok(stream) = stream else {
            // out of descriptors, most likely: others have to end first
            std::thread::sleep(Duration::from_millis(100));
            continue;
        };
        if served.load(Ordering::Relaxed) >= CONNECTIONS_MAX {
            let busy = Failure::new(FailureCode::Busy, "the agent serves 16 connections already");
            refuse(stream, busy);
            continue;
        }
        served.fetch_add(1, Ordering::Relaxed);
        let guard = Guard(served.clone());
        let answer = answer.clone();
        let spawned = std::thread::Builder::new()
            .name("connection".into())
            .spawn(move || {
                let _guard = guard;
                // the peer ended or stalled: there is nobody to tell
                let _ = serve(stream, access, &*answer);
            });
        drop(spawned);
    }
}

/// One place among the connections.
struct Guard(Arc<AtomicUsize>);
impl Drop for Guard {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

fn refuse(stream: UnixStream, failure: Failure) {
    let _ = stream.set_write_timeout(Some(Duration::from_millis(100)));
    let _ = protocol::write_reply(&mut &stream, &Reply::Error(failure));
}

fn serve(stream: UnixStream, access: Access, answer: &dyn Answer) -> io::Result<()> {
    stream.set_read_timeout(Some(IDLE_MAX))?;
    stream.set_write_timeout(Some(WRITE_MAX))?;
    let peer = peer_of(&stream)?;
    if !may_ask(&peer, access) {
        let denied = Failure::new(
            FailureCode::Denied,
            "only root and the agent's group may ask: see socket_group in the configuration",
        );
        refuse(stream, denied);
        return Ok(());
    }
    let mut out = BufWriter::new(stream.try_clone()?);
    let mut lines = BufReader::new(stream);
    for _ in 0..REQUESTS_MAX {
        let line = match protocol::read_line(&mut lines, protocol::REQUEST_BYTES_MAX) {
            Ok(Some(line)) => line,
            Ok(None) => return Ok(()),
            Err(LineError::TooLong { max }) => {
                let long = format!("the request is longer than {max} bytes");
                let failure = Failure::new(FailureCode::BadRequest, long);
                protocol::write_reply(&mut out, &Reply::Error(failure))?;
                return out.flush();
            }
            Err(_) => return Ok(()),
        };
        let answered =
            protocol::parse_request(&line).and_then(|request| answer.answer(request, &peer));
        match answered {
            Ok((items, message)) => {
                let count = items.len() as u64;
                for item in items {
                    protocol::write_reply(&mut out, &Reply::Item { item })?;
                }
                let end = Reply::End {
                    items: count,
                    message,
                };
                protocol::write_reply(&mut out, &end)?;
            }
            Err(failure) => protocol::write_reply(&mut out, &Reply::Error(failure))?,
        }
        out.flush()?;
    }
    Ok(())
}

fn peer_of(stream: &UnixStream) -> io::Result<Peer> {
    let cred = rustix::net::sockopt::socket_peercred(stream)?;
    let pid = cred.pid.as_raw_nonzero().get().unsigned_abs();
    Ok(Peer {
        uid: cred.uid.as_raw(),
        gid: cred.gid.as_raw(),
        pid,
        login_uid: login_uid(pid),
    })
}

fn login_uid(pid: u32) -> u32 {
    std::fs::read_to_string(format!("/proc/{pid}/loginuid"))
        .ok()
        .and_then(|t| t.trim().parse().ok())
        .unwrap_or(u32::MAX)
}

/// The socket's mode lets nobody else connect; this holds even if somebody changes that mode.
fn may_ask(peer: &Peer, access: Access) -> bool {
    peer.uid == 0
        || peer.uid == access.uid
        || access
            .group
            .is_some_and(|group| peer.gid == group || groups_of(peer.pid).contains(&group))
}

fn groups_of(pid: u32) -> Vec<u32> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("Groups:"))
        .map(|groups| {
            groups
                .split_whitespace()
                .filter_map(|g| g.parse().ok())
                .collect()
        })
        .unwrap_or_default()
}

/// The id of a group by its name, from `/etc/group`.
pub fn group_id(name: &str) -> Option<u32> {
    std::fs::read_to_string("/etc/group")
        .ok()?
        .lines()
        .find_map(|line| {
            let mut fields = line.split(':');
            (fields.next() == Some(name)).then(|| fields.nth(1)?.parse().ok())?
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use plimsoll_api::{Client, ClientError};

    struct Echo;
    impl Answer for Echo {
        fn answer(
            &self,
            request: Request,
            peer: &Peer,
        ) -> Result<(Vec<Item>, Option<String>), Failure> {
            match request {
                Request::Flush {} => Ok((
                    vec![Item::Flushed { durable: 3 }],
                    Some(format!("for uid {}", peer.uid)),
                )),
                _ => Err(Failure::new(FailureCode::Conflict, "not now")),
            }
        }
    }
    fn access() -> Access {
        Access {
            uid: rustix::process::geteuid().as_raw(),
            group: None,
        }
    }

    #[test]
    fn the_kernel_says_who_asks() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let server = Server::start(&path, access(), Arc::new(Echo)).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut client = Client::connect(&path, Duration::from_secs(60)).unwrap();
        let (items, message) = client.ask(&Request::Flush {}).unwrap();
        assert_eq!(items, [Item::Flushed { durable: 3 }]);
        let uid = rustix::process::getuid().as_raw();
        assert_eq!(message, Some(format!("for uid {uid}")));
        let refused = client.ask(&Request::Status {}).unwrap_err();
        assert_eq!(refused.to_string(), "not now");
        server.close();
        assert!(!path.exists());
    }

    #[test]
    fn a_second_agent_does_not_take_the_socket_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let server = Server::start(&path, access(), Arc::new(Echo)).unwrap();
        assert!(Server::start(&path, access(), Arc::new(Echo)).is_err());
        server.close();
        drop(UnixListener::bind(&path).unwrap());
        Server::start(&path, access(), Arc::new(Echo))
            .unwrap()
            .close();
        std::fs::write(&path, "somebody's file").unwrap();
        assert!(Server::start(&path, access(), Arc::new(Echo)).is_err());
    }

    #[test]
    fn it_closes_although_its_file_was_removed_and_leaves_what_is_there_instead() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let server = Server::start(&path, access(), Arc::new(Echo)).unwrap();
        std::fs::remove_file(&path).unwrap();
        server.close();
        let server = Server::start(&path, access(), Arc::new(Echo)).unwrap();
        std::fs::rename(&path, dir.path().join("elsewhere")).unwrap();
        std::fs::write(&path, "somebody's file").unwrap();
        server.close();
        assert!(path.exists());
    }

    #[test]
    fn connections_are_bounded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let server = Server::start(&path, access(), Arc::new(Echo)).unwrap();
        let ask = |c: &mut Client| c.ask(&Request::Flush {});
        let mut held: Vec<Client> = (0..CONNECTIONS_MAX)
            .map(|_| Client::connect(&path, Duration::from_secs(60)).unwrap())
            .collect();
        assert!(held.iter_mut().all(|c| ask(c).is_ok()));
        let mut one_more = Client::connect(&path, Duration::from_secs(60)).unwrap();
        match ask(&mut one_more) {
            Err(ClientError::Refused(f)) => assert_eq!(f.code, FailureCode::Busy),
            // the refusal may already have closed the connection when the request is written
            Err(_) => {}
            Ok(_) => panic!("one connection too many was served"),
        }
        server.close();
    }

    #[test]
    fn strangers_are_not_answered() {
        let me = Peer {
            uid: 1000,
            gid: 1000,
            pid: std::process::id(),
            login_uid: u32::MAX,
        };
        let root = Access {
            uid: 0,
            group: None,
        };
        assert!(!may_ask(&me, root));
        assert!(may_ask(&Peer { uid: 0, ..me }, root));
        assert!(may_ask(
            &me,
            Access {
                group: Some(1000),
                ..root
            }
        ));
    }
}
