//! The side of the protocol that asks: blocking, with a deadline, standard library only.

use crate::protocol::{
    self, Failure, Item, LineError, REPLY_BYTES_MAX, Reply, Request, read_line, request_line,
};
use std::io::{self, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Why the agent could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens there.
    #[error("no agent listens on {}", path.display())]
    NotRunning {
        /// The socket.
        path: PathBuf,
    },
    /// The socket may not be used by this user.
    #[error("not allowed to ask the agent on {}: run as root, or as a member of the socket's group", path.display())]
    Denied {
        /// The socket.
        path: PathBuf,
    },
    /// The socket could not be used.
    #[error("cannot use {}", path.display())]
    Socket {
        /// The socket.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// The agent did not answer in time.
    #[error(
        "the agent did not answer within {seconds} s: `plimsoll status` may tell why, its own log surely"
    )]
    Timeout {
        /// How long was waited.
        seconds: u64,
    },
    /// The answer makes no sense.
    #[error("the agent's answer is not understood ({why}): is it of the same release?")]
    BadReply {
        /// What is wrong with it.
        why: String,
    },
    /// The agent refused.
    #[error(transparent)]
    Refused(#[from] Failure),
}

impl ClientError {
    /// Nobody listens: reading the data directory is the way to go on.
    pub fn is_not_running(&self) -> bool {
        matches!(self, ClientError::NotRunning { .. })
    }
}

/// A connection to the agent.
pub struct Client {
    stream: BufReader<UnixStream>,
    path: PathBuf,
    timeout: Duration,
}

impl Client {
    /// Connects; each read and write may take at most `timeout`.
    ///
    /// # Errors
    /// When nobody listens, or this user may not ask.
    pub fn connect(path: &Path, timeout: Duration) -> Result<Self, ClientError> {
        let stream = UnixStream::connect(path).map_err(|e| connect_error(path, e))?;
        let socket = |source| ClientError::Socket {
            path: path.to_path_buf(),
            source,
        };
        stream.set_read_timeout(Some(timeout)).map_err(socket)?;
        stream.set_write_timeout(Some(timeout)).map_err(socket)?;
        Ok(Self {
            stream: BufReader::new(stream),
            path: path.to_path_buf(),
            timeout,
        })
    }

    /// Asks, hands each item to `each` as it arrives, and returns the agent's closing words.
    ///
    /// # Errors
    /// When the agent refuses, does not answer in time, or answers nonsense.
    pub fn ask_each(
        &mut self,
        request: &Request,
        mut each: impl FnMut(Item),
    ) -> Result<Option<String>, ClientError> {
        let line = request_line(request);
        self.stream
            .get_mut()
            .write_all(line.as_bytes())
            .map_err(|e| self.io_error(e))?;
        loop {
            match self.reply()? {
                Reply::Item { item } => each(item),
                Reply::End { message, .. } => return Ok(message),
                Reply::Error(failure) => return Err(failure.into()),
            }
        }
    }

    /// Asks and collects the items.
    ///
    /// # Errors
    /// As [`Client::ask_each`].
    pub fn ask(&mut self, request: &Request) -> Result<(Vec<Item>, Option<String>), ClientError> {
        let mut items = Vec::new();
        let message = self.ask_each(request, |item| items.push(item))?;
        Ok((items, message))
    }

    fn reply(&mut self) -> Result<Reply, ClientError> {
        let bad = |why: String| ClientError::BadReply { why };
        match read_line(&mut self.stream, REPLY_BYTES_MAX) {
            Ok(Some(line)) => protocol::parse_reply(&line).map_err(|e| bad(e.to_string())),
            Ok(None) => Err(bad("the connection ended".to_owned())),
            Err(LineError::Io(e)) => Err(self.io_error(e)),
            Err(e) => Err(bad(e.to_string())),
        }
    }

    fn io_error(&self, source: io::Error) -> ClientError {
        match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => ClientError::Timeout {
                seconds: self.timeout.as_secs(),
            },
            _ => ClientError::Socket {
                path: self.path.clone(),
                source,
            },
        }
    }
}

fn connect_error(path: &Path, source: io::Error) -> ClientError {
    let path = path.to_path_buf();
    match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            ClientError::NotRunning { path }
        }
        io::ErrorKind::PermissionDenied => ClientError::Denied { path },
        _ => ClientError::Socket { path, source },
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{FailureCode, REQUEST_BYTES_MAX, parse_request, write_reply};
    use std::os::unix::net::UnixListener;

    const SOON: Duration = Duration::from_millis(200);

    /// Answers one connection with `replies`, after reading one request.
    fn agent(
        replies: Vec<Reply>,
    ) -> (tempfile::TempDir, PathBuf, std::thread::JoinHandle<Request>) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.sock");
        let listener = UnixListener::bind(&path).unwrap();
        let served = std::thread::spawn(move || {
            let (stream, _) = listener.accept().unwrap();
            let mut stream = BufReader::new(stream);
            let line = read_line(&mut stream, REQUEST_BYTES_MAX).unwrap().unwrap();
            replies
                .iter()
                .for_each(|r| write_reply(stream.get_mut(), r).unwrap());
            // hold the connection until the client is done with it
            let _ = read_line(&mut stream, REQUEST_BYTES_MAX);
            parse_request(&line).unwrap()
        });
        (dir, path, served)
    }

    #[test]
    fn items_then_the_end() {
        let end = Reply::End {
            items: 1,
            message: Some("done".into()),
        };
        let (_dir, path, served) = agent(vec![
            Reply::Item {
                item: Item::Flushed { durable: 3 },
            },
            end,
        ]);
        let mut client = Client::connect(&path, SOON).unwrap();
        let answer = client.ask(&Request::Flush {}).unwrap();
        drop(client);
        assert_eq!(
            answer,
            (vec![Item::Flushed { durable: 3 }], Some("done".into()))
        );
        assert_eq!(served.join().unwrap(), Request::Flush {});
    }

    #[test]
    fn a_refusal_is_an_error_with_its_words() {
        let (_dir, path, _served) = agent(vec![Reply::Error(Failure::new(
            FailureCode::Denied,
            "only root may lock",
        ))]);
        let mut client = Client::connect(&path, SOON).unwrap();
        let error = client.ask(&Request::Status {}).unwrap_err();
        assert_eq!(error.to_string(), "only root may lock");
    }

    #[test]
    fn a_silent_agent_is_a_timeout_and_an_absent_one_is_not_running() {
        let (dir, path, _served) = agent(vec![]);
        let mut client = Client::connect(&path, SOON).unwrap();
        assert!(matches!(
            client.ask(&Request::Status {}),
            Err(ClientError::Timeout { .. })
        ));
        let nobody = Client::connect(&dir.path().join("none"), SOON);
        assert!(nobody.is_err_and(|e| e.is_not_running()));
    }
}
