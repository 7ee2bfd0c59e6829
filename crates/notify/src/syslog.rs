//! Syslog: RFC 5424 messages with octet counting, over TCP (RFC 6587) or TLS (RFC 5425).
//!
//! Syslog has no answers: delivered means that the receiver's machine has taken the bytes and had
//! not closed the connection by then.

use crate::Tried;
use crate::config::Receiver;
use crate::words::{falco, fitting, now_ns, one_line, priority, severity};
use plimsoll_api::notify::Message;
use plimsoll_model::WallNs;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream, ToSocketAddrs as _};
use std::sync::Arc;
use std::time::Duration;

/// Facility "log audit" (RFC 5424, table 1).
const FACILITY: u8 = 13;
/// JSON of one message. rsyslog takes 8,096 bytes a message unless it is told otherwise, and reads the rest
/// as the next message, whose text would then be a container's own words: its arguments, for example.
const JSON_BYTES_MAX: usize = 7800;
/// Addresses of one name that are tried.
const ADDRESSES_MAX: usize = 4;
/// How long a receiver has to close the connection on what it does not take.
const OBJECTION: Duration = Duration::from_millis(200);

/// The message with its frame.
pub(crate) fn frame(message: &Message) -> String {
    let event = falco(message);
    let name = |key: &str| {
        let text = event[key].as_str().unwrap_or("-");
        let kept: String = text
            .chars()
            .filter(|c| c.is_ascii_graphic())
            .take(48)
            .collect();
        if kept.is_empty() {
            "-".to_owned()
        } else {
            kept
        }
    };
    let time = WallNs(now_ns()).rfc3339();
    // RFC 5424 allows six digits of a second
    let time = format!("{}Z", time.get(..26).unwrap_or(&time));
    let pri = FACILITY * 8 + severity(priority(message));
    let id: String = message
        .key
        .chars()
        .filter(char::is_ascii_graphic)
        .take(32)
        .collect();
    let text = format!(
        "<{pri}>1 {time} {} plimsoll {} {} - {}",
        name("hostname"),
        std::process::id(),
        if id.is_empty() { "-" } else { &id },
        fitting(event.clone(), JSON_BYTES_MAX)
    );
    format!("{} {text}", text.len())
}

/// Tries once.
pub(crate) fn send(receiver: &Receiver, message: &Message) -> Tried {
    match try_send(receiver, frame(message).as_bytes()) {
        Ok(()) => Tried::delivered("taken"),
        Err(why) => Tried::later(one_line(&why)),
    }
}

fn try_send(receiver: &Receiver, frame: &[u8]) -> Result<(), String> {
    let (host, port) = receiver.host_port()?;
    let words = |e: io::Error| e.to_string();
    let mut stream = connect(host, port, receiver.timeout()).map_err(words)?;
    stream
        .set_write_timeout(Some(receiver.timeout()))
        .map_err(words)?;
    stream
        .set_read_timeout(Some(receiver.timeout()))
        .map_err(words)?;
    if receiver.tls == "none" {
        stream.write_all(frame).map_err(words)?;
        return objected(&stream, &stream);
    }
    let name = ServerName::try_from(host.to_owned()).map_err(|e| e.to_string())?;
    let connection = ClientConnection::new(tls(receiver)?, name).map_err(|e| e.to_string())?;
    let mut tls = StreamOwned::new(connection, stream);
    tls.write_all(frame)
        .and_then(|()| tls.flush())
        .map_err(words)?;
    tls.conn.send_close_notify();
    tls.flush().map_err(words)?;
    let socket = tls.sock.try_clone().map_err(words)?;
    objected(&mut tls, &socket)
}

/// To the first address of the name that answers: where it has one of each version of IP, a receiver
/// may well listen on one only.
fn connect(host: &str, port: u16, timeout: Duration) -> io::Result<TcpStream> {
    let found: Vec<SocketAddr> = (host, port)
        .to_socket_addrs()?
        .take(ADDRESSES_MAX)
        .collect();
    let each = timeout / found.len().max(1) as u32;
    let mut last = io::Error::other("the name has no address");
    for address in found {
        match TcpStream::connect_timeout(&address, each) {
            Ok(stream) => return Ok(stream),
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// A reset, or an alert of TLS, within a moment is a refusal; silence and a proper end are not.
fn objected(mut from: impl Read, socket: &TcpStream) -> Result<(), String> {
    let words = |e: io::Error| e.to_string();
    socket.shutdown(Shutdown::Write).map_err(words)?;
    socket.set_read_timeout(Some(OBJECTION)).map_err(words)?;
    match from.read(&mut [0; 64]) {
        // an end, or words that syslog has no meaning for
        Ok(0 | 1..) => Ok(()),
        Err(e) => match e.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::UnexpectedEof => {
                Ok(())
            }
            _ => Err(e.to_string()),
        },
    }
}

fn tls(receiver: &Receiver) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match receiver.authorities()? {
        Some(pem) => {
            for certificate in CertificateDer::pem_slice_iter(&pem) {
                let certificate = certificate.map_err(|e| format!("ca_file: {e}"))?;
                roots
                    .add(certificate)
                    .map_err(|e| format!("ca_file: {e}"))?;
            }
        }
        None => roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned()),
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| e.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(Arc::new(config))
}
