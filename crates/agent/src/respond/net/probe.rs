//! Looks, from inside a network namespace, whether what was cut is cut.
//!
//! Promises: packets of ours only, a few, each with a bounded wait; the answer of the kernel to the
//! sender decides, not the silence of a peer. Runs on a thread that has entered the namespace.

use super::rules::Prefix;
use std::io::{self, ErrorKind};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream, UdpSocket};
use std::time::Duration;

/// The discard service: a packet that arrives does nothing.
const PORT: u16 = 9;
/// How long an allowed or forbidden address may take to answer.
const PATIENCE: Duration = Duration::from_millis(150);
/// Of the allowed addresses, so many are tried.
const TRIED_MAX: usize = 4;
/// Addresses that belong to nobody (RFC 5737, RFC 3849).
const NOBODY: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)),
];

/// Names of the interfaces here, but for loopback.
pub(super) fn interfaces() -> io::Result<Vec<String>> {
    let text = std::fs::read_to_string("/proc/thread-self/net/dev")?;
    // a name has neither colon nor space (dev_valid_name)
    let names = text
        .lines()
        .filter_map(|l| Some(l.split_once(':')?.0.trim()));
    Ok(names.filter(|n| *n != "lo").map(str::to_owned).collect())
}

/// A forbidden address must be out of reach, an allowed one not: what was found, or what is wrong.
pub(super) fn look(allow: &[Prefix]) -> Result<Vec<String>, String> {
    let forbidden: Vec<IpAddr> = gateway().into_iter().chain(NOBODY).collect();
    let forbidden = forbidden
        .into_iter()
        .filter(|a| !allow.iter().any(|p| holds(*p, *a)));
    let mut said = Vec::new();
    for address in forbidden {
        if passes(address) {
            return Err(format!("{address} could still be reached"));
        }
        if said.is_empty() {
            said.push(format!("{address} is out of reach"));
        }
    }
    let single = |p: &&Prefix| p.1 == if p.0.is_ipv4() { 32 } else { 128 };
    for (address, _) in allow.iter().filter(single).take(TRIED_MAX) {
        said.push(match answers(*address) {
            Some(true) => format!("{address} can be reached"),
            Some(false) => format!("{address} is let through, and did not answer"),
            None if !is_cut(*address) => format!("{address} is let through, and has no route"),
            None => return Err(format!("{address} is to be allowed, and was cut")),
        });
    }
    Ok(said)
}

/// Whether a packet to that address leaves: a rule that drops it is told to its sender at once.
pub(super) fn passes(address: IpAddr) -> bool {
    try_packet(address).is_ok()
}

/// Whether a rule refused it.
fn is_cut(address: IpAddr) -> bool {
    try_packet(address).is_err_and(|e| e.kind() == ErrorKind::PermissionDenied)
}

fn try_packet(address: IpAddr) -> io::Result<()> {
    let any: IpAddr = match address {
        IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
        IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
    };
    let socket = UdpSocket::bind((any, 0))?;
    socket.send_to(&[], (address, PORT)).map(drop)
}

/// `true`: somebody answered, if only with a refusal; `None`: the kernel would not even try.
fn answers(address: IpAddr) -> Option<bool> {
    match TcpStream::connect_timeout(&SocketAddr::new(address, PORT), PATIENCE) {
        Ok(_) => Some(true),
        Err(e) => match e.kind() {
            ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset => Some(true),
            ErrorKind::TimedOut | ErrorKind::WouldBlock => Some(false),
            _ => None,
        },
    }
}

/// The default gateway of IPv4, where there is one.
fn gateway() -> Option<IpAddr> {
    let text = std::fs::read_to_string("/proc/thread-self/net/route").ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (to, by) = (fields.get(1)?, fields.get(2)?);
        let address = u32::from_str_radix(by, 16).ok()?;
        // the kernel prints the four bytes as one number of this machine
        let address = Ipv4Addr::from(address.to_ne_bytes());
        (*to == "00000000" && !address.is_unspecified()).then_some(address.into())
    })
}

/// Whether the address is one of the prefix's.
pub(super) fn holds((prefix, length): Prefix, address: IpAddr) -> bool {
    let bits = |a: IpAddr| match a {
        IpAddr::V4(a) => u128::from(u32::from(a)) << 96,
        IpAddr::V6(a) => u128::from(a),
    };
    let rest = 128 - u32::from(length);
    prefix.is_ipv4() == address.is_ipv4()
        && (rest == 128 || bits(prefix) >> rest == bits(address) >> rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_holds_its_addresses_of_its_own_family() {
        let p = |text: &str| plimsoll_respond::parse_prefix(text).unwrap();
        let a = |text: &str| text.parse::<IpAddr>().unwrap();
        assert!(holds(p("10.0.0.0/8"), a("10.9.9.9")) && !holds(p("10.0.0.0/8"), a("11.0.0.1")));
        assert!(holds(p("0.0.0.0/0"), a("1.2.3.4")) && !holds(p("0.0.0.0/0"), a("::1")));
        assert!(holds(p("::1"), a("::1")) && !holds(p("::1"), a("::2")));
    }
}
