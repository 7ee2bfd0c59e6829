//! The socket to the agent, and one thread for each receiver.

use crate::config::Config;
use plimsoll_api::notify::{FromSender, LINE_BYTES_MAX, Message, Receiver, ToSender, TryResult};
use plimsoll_api::protocol::read_line;
use std::collections::BTreeMap;
use std::io::{self, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};

/// Messages that wait for one receiver here; the agent has one under way at a time.
const WAITING: usize = 2;

/// Sends what the agent asks for, until it closes the socket.
///
/// # Errors
/// When the socket fails or says something that is not understood.
pub fn serve(stream: UnixStream, config: Config) -> io::Result<()> {
    let to = Arc::new(Mutex::new(stream.try_clone()?));
    let announced = config.receivers.iter().map(|r| Receiver {
        name: r.name.clone(),
        kind: format!("{:?}", r.kind).to_lowercase(),
        priority: r.priority.clone(),
        per_minute: r.per_minute,
    });
    let hello = FromSender::Hello {
        receivers: announced.collect(),
    };
    let mut lanes: BTreeMap<String, SyncSender<Message>> = BTreeMap::new();
    for receiver in config.receivers {
        let (lane, messages) = sync_channel::<Message>(WAITING);
        lanes.insert(receiver.name.clone(), lane);
        let to = to.clone();
        std::thread::Builder::new()
            .name("receiver".into())
            .spawn(move || {
                for message in messages {
                    let tried = crate::send(&receiver, &message);
                    let said = FromSender::Tried {
                        receiver: receiver.name.clone(),
                        key: message.key,
                        result: tried.result,
                        detail: tried.detail,
                    };
                    if say(&to, &said).is_err() {
                        return;
                    }
                }
            })?;
    }
    say(&to, &hello)?;
    let mut lines = BufReader::new(stream);
    loop {
        let line = read_line(&mut lines, LINE_BYTES_MAX).map_err(io::Error::other)?;
        let Some(line) = line else { return Ok(()) };
        let ToSender::Send { receiver, message } = serde_json::from_slice(&line)?;
        let key = message.key.clone();
        let taken = lanes.get(&receiver).map(|l| l.try_send(message).is_ok());
        if taken != Some(true) {
            let detail = match taken {
                None => "there is no such receiver",
                _ => "the receiver is busy with another message",
            };
            let said = FromSender::Tried {
                receiver,
                key,
                result: TryResult::Later {
                    retry_after_ms: None,
                },
                detail: detail.to_owned(),
            };
            say(&to, &said)?;
        }
    }
}

fn say(to: &Mutex<UnixStream>, what: &FromSender) -> io::Result<()> {
    let line = plimsoll_api::json::line(what) + "\n";
    let mut to = to.lock().unwrap_or_else(PoisonError::into_inner);
    to.write_all(line.as_bytes())
}
