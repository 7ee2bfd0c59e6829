//! Ends connections at once, for both ends: `SOCK_DESTROY` over `NETLINK_SOCK_DIAG`
//! (`linux/sock_diag.h`, `linux/inet_diag.h`; needs `CONFIG_INET_DIAG_DESTROY`).
//!
//! Promises: acts on the network namespace of the calling thread; a socket is named by the cookie
//! that the kernel gave it, so that a later one of the same addresses is never meant; listening
//! sockets, loopback and the allowed peers are left alone. Bounded by [`SOCKETS_MAX`].
//!
//! Left out: unconnected UDP sockets, raw and packet sockets, SCTP and MPTCP subflows, which have no
//! connection to end or none that this call knows; rules drop what they send.

use super::netlink::{Diag, Message};
use super::rules::Prefix;
use std::collections::HashSet;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Connections of one namespace that are ended at most.
pub(super) const SOCKETS_MAX: usize = 65_536;
/// Requests in one message to the kernel: its answers have to fit into the socket's buffer.
const AT_ONCE: usize = 64;

const BY_FAMILY: u16 = 20;
const DESTROY: u16 = 21;
/// `NLM_F_ROOT | NLM_F_MATCH`.
const DUMP: u16 = 0x0300;
const ACK: u16 = 0x0004;
const INET: u8 = 2;
const INET6: u8 = 10;
const TCP: u8 = 6;
const UDP: u8 = 17;
/// `struct inet_diag_sockid`: ports, addresses, interface, cookie.
const ID: usize = 48;
const EOPNOTSUPP: i32 = 95;

/// `struct inet_diag_msg`; attributes follow.
const MESSAGE: usize = 72;

/// `INET_DIAG_CGROUP_ID` (Linux 5.9) among the attributes of an answer.
fn cgroup(mut attributes: &[u8]) -> u64 {
    const CGROUP_ID: u16 = 21;
    while let Some(head) = attributes.first_chunk::<4>() {
        let length = usize::from(u16::from_ne_bytes([head[0], head[1]]));
        let Some(value) = attributes.get(4..length) else {
            return 0;
        };
        if u16::from_ne_bytes([head[2], head[3]]) == CGROUP_ID {
            return value.first_chunk().map_or(0, |v| u64::from_ne_bytes(*v));
        }
        attributes = attributes
            .get(length.next_multiple_of(4)..)
            .unwrap_or_default();
    }
    0
}

/// All states of TCP but `TIME_WAIT` (6), `CLOSE` (7) and `LISTEN` (10), as bits.
const TCP_STATES: u32 = 0x1fff & !(1 << 6 | 1 << 7 | 1 << 10 | 1);
/// `ESTABLISHED`: a UDP socket that is connected.
const UDP_STATES: u32 = 1 << 1;

/// A connection, as the kernel names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    family: u8,
    protocol: u8,
    id: [u8; ID],
    /// Of the cgroup (v2) in which its socket was made; 0: the kernel does not say.
    cgroup: u64,
}

/// The connections here that are neither loopback nor to an allowed address, [`SOCKETS_MAX`] at most;
/// where the network is not the container's alone, `only` those made in these cgroups.
///
/// # Errors
/// The kernel's, `ENOENT` where it has no `inet_diag`.
pub(super) fn connections(
    allow: &[Prefix],
    only: Option<&HashSet<u64>>,
) -> io::Result<Vec<Connection>> {
    let mut all = Vec::new();
    let diag = Diag::open()?;
    for (protocol, states) in [(TCP, TCP_STATES), (UDP, UDP_STATES)] {
        for family in [INET, INET6] {
            let body = request(family, protocol, states, &[0; ID]);
            diag.dump(BY_FAMILY, DUMP, &body, |answer| {
                let Some(found) = Connection::parse(protocol, answer) else {
                    return;
                };
                let is_meant = only.is_none_or(|cgroups| cgroups.contains(&found.cgroup));
                if is_meant && found.is_cut(allow, only.is_some()) && all.len() < SOCKETS_MAX {
                    all.push(found);
                }
            })?;
        }
    }
    Ok(all)
}

/// What came of ending some connections.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Ended {
    /// Ended now.
    pub(super) ended: usize,
    /// Had ended by themselves.
    pub(super) gone: usize,
    /// The kernel would not.
    pub(super) refused: usize,
}

/// Ends them, [`AT_ONCE`] at a time, until `enough` says so; those that are left.
///
/// # Errors
/// `Unsupported` where the kernel was built without this; others of the socket.
pub(super) fn end<'a>(
    mut all: &'a [Connection],
    ended: &mut Ended,
    enough: impl Fn() -> bool,
) -> io::Result<&'a [Connection]> {
    let diag = Diag::open()?;
    while !all.is_empty() && !enough() {
        let (now, rest) = all.split_at(all.len().min(AT_ONCE));
        let bodies = now.iter().map(|c| request(c.family, c.protocol, !0, &c.id));
        let messages: Vec<Message> = bodies.map(|b| Message::new(DESTROY, ACK, b)).collect();
        for answer in diag.ask(&messages)? {
            match answer {
                0 => ended.ended += 1,
                -2 | -116 => ended.gone += 1, // ENOENT, ESTALE
                e if e == -EOPNOTSUPP => {
                    let what = "this kernel cannot end connections (CONFIG_INET_DIAG_DESTROY)";
                    return Err(io::Error::new(io::ErrorKind::Unsupported, what));
                }
                _ => ended.refused += 1,
            }
        }
        all = rest;
    }
    Ok(all)
}

/// Whether this kernel can end connections: asked with the name of none.
pub(super) fn can_end() -> bool {
    let nothing = Connection {
        family: INET,
        protocol: TCP,
        id: [0; ID],
        cgroup: 0,
    };
    let mut ended = Ended::default();
    end(&[nothing], &mut ended, || false).is_ok()
}

/// `struct inet_diag_req_v2`.
fn request(family: u8, protocol: u8, states: u32, id: &[u8; ID]) -> Vec<u8> {
    let mut body = vec![family, protocol, 0, 0];
    body.extend(states.to_ne_bytes());
    body.extend(id);
    body
}

impl Connection {
    /// Of a `struct inet_diag_msg`.
    fn parse(protocol: u8, answer: &[u8]) -> Option<Self> {
        let family = *answer.first()?;
        let id: [u8; ID] = answer.get(4..4 + ID)?.try_into().ok()?;
        matches!(family, INET | INET6).then_some(Self {
            family,
            protocol,
            id,
            cgroup: cgroup(answer.get(MESSAGE..).unwrap_or_default()),
        })
    }

    fn address(&self, at: usize) -> IpAddr {
        let four: [u8; 4] = self.id[at..at + 4].try_into().expect("four bytes");
        let sixteen: [u8; 16] = self.id[at..at + 16].try_into().expect("sixteen bytes");
        match self.family {
            INET => Ipv4Addr::from(four).into(),
            _ => Ipv6Addr::from(sixteen).to_canonical(),
        }
    }

    /// What goes to an address of the namespace's own never leaves it, and matters only where others
    /// are in there, too.
    fn is_cut(&self, allow: &[Prefix], shared: bool) -> bool {
        let (from, to) = (self.address(4), self.address(20));
        let within = to.is_loopback() || from == to;
        (shared || !within)
            && !to.is_unspecified()
            && !allow.iter().any(|p| super::probe::holds(*p, to))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn connection(family: u8, from: IpAddr, to: IpAddr) -> Connection {
        let mut id = [0; ID];
        for (at, address) in [(4, from), (20, to)] {
            match address {
                IpAddr::V4(a) => id[at..at + 4].copy_from_slice(&a.octets()),
                IpAddr::V6(a) => id[at..at + 16].copy_from_slice(&a.octets()),
            }
        }
        let protocol = TCP;
        Connection {
            family,
            protocol,
            id,
            cgroup: 0,
        }
    }

    #[test]
    fn only_what_leaves_and_is_not_allowed_is_ended() {
        let a = |text: &str| text.parse::<IpAddr>().unwrap();
        let allow = [(a("10.0.0.0"), 24)];
        let of = |from: &str, to: &str| {
            let family = if a(to).is_ipv4() { INET } else { INET6 };
            connection(family, a(from), a(to)).is_cut(&allow, false)
        };
        assert!(of("172.17.0.2", "192.0.2.1") && of("2001:db8::2", "2001:db8::1"));
        assert!(!of("172.17.0.2", "10.0.0.9") && !of("127.0.0.1", "127.0.0.1"));
        assert!(!of("172.17.0.2", "172.17.0.2") && !of("::1", "::1"));
        // a socket of IPv6 that talks IPv4
        assert!(!of("::ffff:172.17.0.2", "::ffff:10.0.0.9"));
        assert!(of("::ffff:172.17.0.2", "::ffff:192.0.2.1"));
    }

    #[test]
    fn an_answer_that_is_cut_short_names_no_connection() {
        let mut answer = vec![INET, 1, 0, 0];
        answer.extend([7; ID]);
        assert!(Connection::parse(TCP, &answer).is_some());
        assert!((0..answer.len()).all(|n| Connection::parse(TCP, &answer[..n]).is_none()));
        answer.resize(MESSAGE, 0);
        answer.extend([6, 0, 1, 0, 9, 9, 0, 0, 12, 0, 21, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Connection::parse(TCP, &answer).unwrap().cgroup, 7);
        let cut = answer.len() - 1;
        assert_eq!(Connection::parse(TCP, &answer[..cut]).unwrap().cgroup, 0);
    }
}
