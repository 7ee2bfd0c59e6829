//! The few netlink messages that effects need, laid out by hand (`linux/netlink.h`,
//! `linux/netfilter/nfnetlink.h`, `linux/sock_diag.h`): one socket, one batch, one answer for each
//! message.
//!
//! Promises: every wait has an end; what the kernel answers is checked before it is used. Without
//! a library: none with a free licence writes nf_tables without linking C, and running `nft`
//! would make the effect depend on what is installed, and cost a process.

use rustix::fd::OwnedFd;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::net::{netlink, recv, send, socket_with, sockopt};
use std::io;
use std::time::Duration;

/// How long the kernel may take to answer (it does so before `send` returns).
const PATIENCE: Duration = Duration::from_secs(2);
/// Bytes of one batch at most (the default of `net.core.wmem_max` is 212,992).
const BATCH_BYTES_MAX: usize = 160 << 10;

/// `NLM_F_REQUEST | NLM_F_ACK`.
const REQUEST: u16 = 0x0005;
/// `NLM_F_CREATE`.
pub(super) const CREATE: u16 = 0x0400;
/// `NLM_F_APPEND`, for rules.
pub(super) const APPEND: u16 = 0x0800;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;
const BATCH_BEGIN: u16 = 0x10;
const BATCH_END: u16 = 0x11;
/// `NFNL_SUBSYS_NFTABLES`.
const NFTABLES: u16 = 10;

/// Attributes of a message or of an attribute.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Attributes(Vec<u8>);

impl Attributes {
    pub(super) fn bytes(mut self, kind: u16, value: &[u8]) -> Self {
        let length = (value.len() + 4) as u16;
        self.0.extend(length.to_ne_bytes());
        self.0.extend(kind.to_ne_bytes());
        self.0.extend(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
        self
    }
    /// nf_tables numbers are big endian.
    pub(super) fn number(self, kind: u16, value: u32) -> Self {
        self.bytes(kind, &value.to_be_bytes())
    }
    pub(super) fn text(self, kind: u16, value: &str) -> Self {
        let bytes: Vec<u8> = value.bytes().chain([0]).collect();
        self.bytes(kind, &bytes)
    }
    pub(super) fn nested(self, kind: u16, inner: Attributes) -> Self {
        const NESTED: u16 = 0x8000;
        self.bytes(kind | NESTED, &inner.0)
    }
}

/// Changes of nf_tables that the kernel makes all or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    bytes: Vec<u8>,
    messages: u32,
}

impl Batch {
    pub(super) fn new() -> Self {
        let mut this = Self {
            bytes: Vec::new(),
            messages: 0,
        };
        this.message(BATCH_BEGIN, 1, 0, NFTABLES, &Attributes::default());
        this
    }

    /// `kind`: a number of `enum nf_tables_msg_types`; `family`: `NFPROTO_…`.
    pub(super) fn add(&mut self, kind: u16, flags: u16, family: u8, attributes: &Attributes) {
        self.messages += 1;
        let kind = NFTABLES << 8 | kind;
        self.message(kind, REQUEST | flags, family, 0, attributes);
    }

    fn message(&mut self, kind: u16, flags: u16, family: u8, resource: u16, body: &Attributes) {
        let length = (HEADER + 4 + body.0.len()) as u32;
        self.bytes.extend(length.to_ne_bytes());
        self.bytes.extend(kind.to_ne_bytes());
        self.bytes.extend(flags.to_ne_bytes());
        self.bytes.extend(self.messages.to_ne_bytes());
        self.bytes.extend([0; 4]);
        self.bytes.extend([family, 0]);
        self.bytes.extend(resource.to_be_bytes());
        self.bytes.extend(&body.0);
    }

    /// Hands it to the kernel, in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The first that the kernel names.
    pub(super) fn commit(mut self) -> io::Result<()> {
        let expected = self.messages;
        self.message(BATCH_END, 1, 0, NFTABLES, &Attributes::default());
        if self.bytes.len() > BATCH_BYTES_MAX {
            return Err(io::Error::other("more rules than fit into one change"));
        }
        let socket = open(netlink::NETFILTER)?;
        send(&socket, &self.bytes, SendFlags::empty())?;
        answers(&socket, expected)
    }
}

/// A message outside a batch, answered with what is there or an error.
///
/// # Errors
/// The kernel's.
pub(super) fn exists(kind: u16, family: u8, attributes: &Attributes) -> io::Result<()> {
    let mut one = Batch {
        bytes: Vec::new(),
        messages: 0,
    };
    one.add(kind, 0, family, attributes);
    let socket = open(netlink::NETFILTER)?;
    send(&socket, &one.bytes, SendFlags::empty())?;
    answers(&socket, 1)
}

fn open(protocol: Protocol) -> io::Result<OwnedFd> {
    let (family, kind) = (AddressFamily::NETLINK, SocketType::RAW);
    let socket = socket_with(family, kind, SocketFlags::CLOEXEC, Some(protocol))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(PATIENCE))?;
    Ok(socket)
}

/// Waits for as many acknowledgements, or the first error.
fn answers(socket: &OwnedFd, expected: u32) -> io::Result<()> {
    let mut buffer = vec![0; 64 << 10];
    let mut acknowledged = 0;
    while acknowledged < expected {
        let (length, _) = recv(socket, &mut buffer[..], RecvFlags::empty())?;
        let errors = errors(&buffer[..length.min(buffer.len())])?;
        if let Some(e) = errors.iter().find(|e| **e != 0) {
            return Err(io::Error::from_raw_os_error(-e));
        }
        acknowledged += errors.len() as u32;
    }
    Ok(())
}

/// The numbers of all `NLMSG_ERROR` messages; 0 is an acknowledgement.
fn errors(bytes: &[u8]) -> io::Result<Vec<i32>> {
    let all = messages(bytes)?;
    let errors = all.iter().filter(|(kind, _)| *kind == NLMSG_ERROR);
    errors.map(|(_, body)| number(body)).collect()
}

/// Kind and body of each message.
fn messages(mut bytes: &[u8]) -> io::Result<Vec<(u16, &[u8])>> {
    let mut found = Vec::new();
    while bytes.len() >= HEADER {
        let length = u32::from_ne_bytes(bytes[..4].try_into().expect("four bytes")) as usize;
        if length < HEADER || length > bytes.len() {
            return Err(nonsense());
        }
        let kind = u16::from_ne_bytes([bytes[4], bytes[5]]);
        found.push((kind, &bytes[HEADER..length]));
        bytes = &bytes[length.next_multiple_of(4).min(bytes.len())..];
    }
    Ok(found)
}

/// The first number of a body.
fn number(body: &[u8]) -> io::Result<i32> {
    let four = body.first_chunk().ok_or_else(nonsense)?;
    Ok(i32::from_ne_bytes(*four))
}

fn nonsense() -> io::Error {
    io::Error::other("the kernel's answer is not understood")
}

// ---- sockets ----

/// A request to `NETLINK_SOCK_DIAG`.
#[derive(Clone, Debug)]
pub(super) struct Message(Vec<u8>);

impl Message {
    /// `kind`: `SOCK_DIAG_BY_FAMILY`, `SOCK_DESTROY`; `flags` beside `NLM_F_REQUEST`.
    pub(super) fn new(kind: u16, flags: u16, body: Vec<u8>) -> Self {
        const NLM_F_REQUEST: u16 = 1;
        let mut bytes = Vec::with_capacity(HEADER + body.len());
        bytes.extend(((HEADER + body.len()) as u32).to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend((NLM_F_REQUEST | flags).to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(body);
        bytes.resize(bytes.len().next_multiple_of(4), 0);
        Self(bytes)
    }
}

/// What knows the sockets of a network namespace: that in which this was opened.
#[derive(Debug)]
pub(super) struct Diag(OwnedFd);

impl Diag {
    pub(super) fn open() -> io::Result<Self> {
        Ok(Self(open(netlink::SOCK_DIAG)?))
    }

    /// Asks for a list; each entry's body.
    ///
    /// # Errors
    /// The kernel's, or of the socket.
    pub(super) fn dump(
        &self,
        kind: u16,
        flags: u16,
        body: &[u8],
        mut entry: impl FnMut(&[u8]),
    ) -> io::Result<()> {
        const NLMSG_DONE: u16 = 3;
        let message = Message::new(kind, flags, body.to_vec());
        send(&self.0, &message.0, SendFlags::empty())?;
        let mut buffer = vec![0; 64 << 10];
        loop {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            for (kind, body) in messages(&buffer[..length.min(buffer.len())])? {
                match kind {
                    NLMSG_DONE => return Ok(()),
                    NLMSG_ERROR => return Err(io::Error::from_raw_os_error(-number(body)?)),
                    _ => entry(body),
                }
            }
        }
    }

    /// Asks for several things at once; the error number of each, 0: done.
    ///
    /// # Errors
    /// Of the socket.
    pub(super) fn ask(&self, all: &[Message]) -> io::Result<Vec<i32>> {
        let bytes: Vec<u8> = all.iter().flat_map(|m| &m.0).copied().collect();
        send(&self.0, &bytes, SendFlags::empty())?;
        let mut buffer = vec![0; 64 << 10];
        let mut found = Vec::with_capacity(all.len());
        while found.len() < all.len() {
            let (length, _) = recv(&self.0, &mut buffer[..], RecvFlags::empty())?;
            found.extend(errors(&buffer[..length.min(buffer.len())])?);
        }
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_padded_and_say_their_length_without_padding() {
        let a = Attributes::default().text(1, "abcd").number(2, 1);
        assert_eq!(
            a.0,
            [
                9, 0, 1, 0, b'a', b'b', b'c', b'd', 0, 0, 0, 0, 8, 0, 2, 0, 0, 0, 0, 1
            ]
        );
        let nested = Attributes::default().nested(4, Attributes::default().number(1, 7));
        assert_eq!(nested.0, [12, 0, 4, 0x80, 8, 0, 1, 0, 0, 0, 0, 7]);
    }

    #[test]
    fn answers_that_are_cut_short_are_refused() {
        let mut answer = Vec::new();
        answer.extend(20u32.to_ne_bytes());
        answer.extend(NLMSG_ERROR.to_ne_bytes());
        answer.extend([0; 10]);
        answer.extend((-1i32).to_ne_bytes());
        assert_eq!(errors(&answer).unwrap(), [-1]);
        assert!(errors(&answer[..18]).is_err());
        answer[0] = 3;
        assert!(errors(&answer).is_err());
    }
}
