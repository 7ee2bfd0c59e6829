//! Both ends of a connection, as `fd.*` has them: client and server, local and remote.
//!
//! Leaves out: ports and addresses of UNIX sockets, which have none.

use super::view::{SOME_DESCRIPTOR, View};
use plimsoll_model::event::{DupTarget, Proto};
use plimsoll_model::{EventKind as Seen, SockAddr};
use plimsoll_rules::{Field, FieldRef, Value};
use std::net::IpAddr;

/// A socket's ends.
pub(super) struct Ends<'a> {
    proto: Proto,
    local: Option<&'a SockAddr>,
    remote: Option<&'a SockAddr>,
    is_server: bool,
    connected: bool,
    stream: Option<u32>,
    ips: Vec<IpAddr>,
    ports: Vec<u64>,
}

impl<'a> Ends<'a> {
    /// Of an event about a socket.
    pub(super) fn of(kind: &'a Seen) -> Option<Self> {
        let (proto, local, remote, is_server) = match kind {
            Seen::Connect(c) | Seen::Datagram(c) => {
                (c.proto, c.local.as_ref(), Some(&c.peer), false)
            }
            Seen::Dns(d) => (Proto::Udp, None, d.server.as_ref(), false),
            Seen::Accept(c) => (c.proto, c.local.as_ref(), Some(&c.peer), true),
            Seen::Listen { proto, local } | Seen::Bind { proto, local } => {
                (*proto, Some(local), None, true)
            }
            Seen::Dup {
                target: DupTarget::Inet,
                peer,
                ..
            } => (Proto::Tcp, None, peer.as_ref(), false),
            _ => return None,
        };
        let mut ends = Self {
            proto,
            local,
            remote,
            is_server,
            connected: !matches!(
                kind,
                Seen::Datagram(_) | Seen::Listen { .. } | Seen::Bind { .. }
            ),
            stream: match kind {
                Seen::Dup { stream, .. } => Some(*stream),
                _ => None,
            },
            ips: Vec::new(),
            ports: Vec::new(),
        };
        // client first, as Falco has them
        let both = [ends.client(), ends.server()];
        ends.ips = both.iter().filter_map(|e| ip(*e)).collect();
        ends.ports = both.iter().filter_map(|e| port(*e)).collect();
        Some(ends)
    }

    /// Whether the other side began it.
    pub(super) fn is_inbound(&self) -> bool {
        self.is_server
    }

    pub(super) fn is_unix(&self) -> bool {
        matches!(self.any(), Some(SockAddr::Unix(_)))
    }

    fn client(&self) -> Option<&'a SockAddr> {
        if self.is_server {
            self.remote
        } else {
            self.local
        }
    }

    fn server(&self) -> Option<&'a SockAddr> {
        if self.is_server {
            self.local
        } else {
            self.remote
        }
    }

    fn any(&self) -> Option<&'a SockAddr> {
        self.remote.or(self.local)
    }

    fn end(&self, which: u8) -> Option<&'a SockAddr> {
        match which {
            b'c' => self.client(),
            b's' => self.server(),
            b'l' => self.local,
            _ => self.remote,
        }
    }

    /// One of `fd.*`.
    pub(super) fn field<'v>(&'v self, view: &'v View<'_>, field: &FieldRef) -> Value<'v> {
        use Field as F;
        let which = field.field.name().as_bytes().get(3).copied().unwrap_or(0);
        match field.field {
            F::FdNum => match self.stream {
                Some(stream) => Value::Int(stream.into()),
                None => view.stand_in(SOME_DESCRIPTOR),
            },
            F::FdType | F::FdTypes => Value::Text(match self.any() {
                Some(SockAddr::Inet(IpAddr::V4(_), _)) => b"ipv4",
                Some(SockAddr::Inet(IpAddr::V6(_), _)) => b"ipv6",
                Some(SockAddr::Unix(_)) => b"unix",
                None => b"ipv4",
            }),
            F::FdTypechar => Value::Text(match self.any() {
                Some(SockAddr::Inet(IpAddr::V6(_), _)) => b"6",
                Some(SockAddr::Unix(_)) => b"u",
                _ => b"4",
            }),
            F::FdSockfamily => Value::Text(match self.any() {
                Some(SockAddr::Unix(_)) => b"unix",
                _ => b"ip",
            }),
            F::FdName | F::FdNameraw => view.text(self.name()),
            F::FdL4proto => Value::text(match self.proto {
                Proto::Tcp => Some(b"tcp"),
                Proto::Udp => Some(b"udp"),
                Proto::Raw => Some(b"raw"),
                Proto::Unix | Proto::Other => None,
            }),
            F::FdIsServer => Value::Bool(self.is_server),
            F::FdConnected => Value::Bool(self.connected),
            F::FdNameChanged => Value::Bool(true),
            F::FdIp | F::FdNet => list(&self.ips),
            F::FdPort | F::FdProto => list(&self.ports),
            F::FdCip
            | F::FdSip
            | F::FdLip
            | F::FdRip
            | F::FdCnet
            | F::FdSnet
            | F::FdLnet
            | F::FdRnet => ip(self.end(which)).map_or(Value::Absent, Value::Ip),
            F::FdCport | F::FdSport | F::FdLport | F::FdRport => {
                port(self.end(which)).map_or(Value::Absent, Value::UInt)
            }
            F::FdCproto | F::FdSproto | F::FdLproto | F::FdRproto => match port(self.end(which)) {
                Some(port) => view.text(port.to_string()),
                None => Value::Absent,
            },
            F::FdCipName | F::FdSipName | F::FdLipName | F::FdRipName => {
                let name = ip(self.end(which)).and_then(|ip| view.name_of(ip));
                Value::text(name.map(str::as_bytes))
            }
            F::FdFilename | F::FdDirectory => match self.any() {
                Some(SockAddr::Unix(path)) => unix_part(path.as_bytes(), field.field),
                _ => Value::Absent,
            },
            _ => Value::Absent,
        }
    }

    /// `client:port->server:port`, a listener's own address, or a UNIX path.
    pub(super) fn name(&self) -> String {
        let show = |end: Option<&SockAddr>| match end {
            Some(SockAddr::Inet(ip, port)) => format!("{ip}:{port}"),
            _ => String::new(),
        };
        match (self.any(), self.remote) {
            (Some(SockAddr::Unix(path)), _) => path.to_str_lossy().into_owned(),
            (_, Some(_)) => format!("{}->{}", show(self.client()), show(self.server())),
            (_, None) => show(self.local),
        }
    }
}

fn list<T: plimsoll_rules::AsValue>(items: &Vec<T>) -> Value<'_> {
    match items.is_empty() {
        true => Value::Absent,
        false => Value::List(items),
    }
}

fn ip(end: Option<&SockAddr>) -> Option<IpAddr> {
    match end {
        Some(SockAddr::Inet(ip, _)) => Some(*ip),
        _ => None,
    }
}

fn port(end: Option<&SockAddr>) -> Option<u64> {
    match end {
        Some(SockAddr::Inet(_, port)) => Some((*port).into()),
        _ => None,
    }
}

fn unix_part(path: &[u8], field: Field) -> Value<'_> {
    let slash = path.iter().rposition(|b| *b == b'/');
    match (field, slash) {
        (Field::FdFilename, Some(at)) => Value::Text(&path[at + 1..]),
        (Field::FdFilename, None) => Value::Text(path),
        (_, Some(at)) => Value::Text(&path[..at.max(1)]),
        (_, None) => Value::Absent,
    }
}
