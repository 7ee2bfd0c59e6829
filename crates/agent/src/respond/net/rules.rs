//! Rules of nf_tables that cut a network namespace off, and that forbid addresses on a node.
//!
//! Promises: one table for each plan, made and taken away whole; no state is kept anywhere else.
//! Names and numbers: `linux/netfilter/nf_tables.h`. The functions that write rules are pure; they
//! act on the network namespace of the thread that calls them.
//!
//! A cut has two layers. Chains on input, output and forward, before connection tracking, so that
//! established connections end too. And, because a raw packet socket (Docker gives `CAP_NET_RAW`
//! to everybody) passes those by, a chain at the egress of every interface (Linux 5.16), which
//! believes only what is in the frame.

use super::netlink::{APPEND, Attributes, Batch, CREATE, exists};
use std::io;
use std::net::IpAddr;

/// Addresses of one list at most.
pub(super) const ADDRESSES_MAX: usize = 64;
/// Interfaces of one namespace at most.
pub(super) const INTERFACES_MAX: usize = 64;

/// An address and the length of its prefix.
pub(super) type Prefix = (IpAddr, u8);

const INET: u8 = 1;
const NETDEV: u8 = 5;
const NEW_TABLE: u16 = 0;
const GET_TABLE: u16 = 1;
const DELETE_TABLE: u16 = 2;
const NEW_CHAIN: u16 = 3;
const NEW_RULE: u16 = 6;
/// Before defragmentation (-400), connection tracking (-200) and every filter (0).
const PRIORITY: i32 = -450;
const DROP: u32 = 0;
const ACCEPT: u32 = 1;
/// Docker's own resolver answers there, inside the container's namespace, and asks the outside on
/// the container's behalf: a way out through names.
const DOCKER_DNS: Prefix = (IpAddr::V4(std::net::Ipv4Addr::new(127, 0, 0, 11)), 32);

/// Which way packets go at a hook.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Hook {
    Input = 1,
    Forward = 2,
    Output = 3,
}

impl Hook {
    const ALL: [Hook; 3] = [Hook::Input, Hook::Forward, Hook::Output];
    fn name(self) -> &'static str {
        match self {
            Hook::Input => "input",
            Hook::Forward => "forward",
            Hook::Output => "output",
        }
    }
}

/// The table of a plan.
pub(super) fn table_name(plan: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    let plan: String = plan.chars().take(64).map(plain).collect();
    format!("plimsoll_{plan}")
}

/// Cuts this network namespace off, but for loopback and `allow`; where connections are being ended
/// (`ending`), also but for the resets that tell their other ends.
///
/// # Errors
/// The kernel's; nothing has changed then.
pub(super) fn cut(table: &str, allow: &[Prefix], ending: bool) -> io::Result<()> {
    let mut batch = Batch::new();
    anew(&mut batch, INET, table);
    mark_ending(&mut batch, table, ending);
    for hook in Hook::ALL {
        chain(&mut batch, table, hook, DROP);
        let mut add = |parts: &[Attributes], verdict| {
            rule(&mut batch, INET, table, hook.name(), parts, verdict)
        };
        match hook {
            Hook::Input => add(&loopback(META_IN), ACCEPT),
            Hook::Output => {
                add(&address(DOCKER_DNS, true), DROP);
                add(&loopback(META_OUT), ACCEPT);
                if ending {
                    add(&reset(), ACCEPT);
                }
            }
            Hook::Forward => {}
        }
        for &prefix in allow {
            if hook != Hook::Output {
                add(&address(prefix, false), ACCEPT);
            }
            if hook != Hook::Input {
                add(&address(prefix, true), ACCEPT);
            }
        }
        if allow.iter().any(|(a, _)| a.is_ipv6()) && hook != Hook::Forward {
            // without them no neighbour has an address in IPv6
            for solicitation_or_advertisement in [135, 136] {
                add(&neighbour(solicitation_or_advertisement), ACCEPT);
            }
        }
    }
    batch.commit()
}

/// Cuts what raw packet sockets send through these interfaces.
///
/// # Errors
/// The kernel's (`EOPNOTSUPP`, `EINVAL`, `ENOENT` before Linux 5.16); nothing has changed then.
pub(super) fn cut_frames(table: &str, interfaces: &[String], allow: &[Prefix]) -> io::Result<()> {
    let mut batch = Batch::new();
    anew(&mut batch, NETDEV, table);
    for (i, interface) in interfaces.iter().enumerate() {
        let name = format!("egress{i}");
        const EGRESS: u32 = 1;
        let hook = Attributes::default()
            .number(1, EGRESS)
            .number(2, PRIORITY as u32)
            .text(3, interface);
        base_chain(&mut batch, NETDEV, table, &name, hook, DROP);
        let mut add = |parts: &[Attributes]| rule(&mut batch, NETDEV, table, &name, parts, ACCEPT);
        // ARP: who has the allowed address
        add(&frame(0x0806));
        for &prefix in allow {
            add(&frame_to(prefix));
        }
        if allow.iter().any(|(a, _)| a.is_ipv6()) {
            for solicitation_or_advertisement in [135, 136] {
                add(&frame_neighbour(solicitation_or_advertisement));
            }
        }
    }
    batch.commit()
}

/// Forbids addresses to everything that goes through this network namespace.
///
/// # Errors
/// The kernel's; nothing has changed then.
pub(super) fn forbid(table: &str, addresses: &[Prefix]) -> io::Result<()> {
    let mut batch = Batch::new();
    anew(&mut batch, INET, table);
    for hook in Hook::ALL {
        chain(&mut batch, table, hook, ACCEPT);
        for &prefix in addresses {
            let mut add = |to| {
                rule(
                    &mut batch,
                    INET,
                    table,
                    hook.name(),
                    &address(prefix, to),
                    DROP,
                )
            };
            if hook != Hook::Output {
                add(false);
            }
            if hook != Hook::Input {
                add(true);
            }
        }
    }
    batch.commit()
}

/// Takes the tables of a plan away; whether there was one.
///
/// # Errors
/// The kernel's.
pub(super) fn restore(table: &str) -> io::Result<bool> {
    let mut was_there = false;
    let ending = ending_name(table);
    for (name, family) in [(table, INET), (table, NETDEV), (ending.as_str(), INET)] {
        if !is_there_in(name, family)? {
            continue;
        }
        let mut batch = Batch::new();
        batch.add(
            DELETE_TABLE,
            0,
            family,
            &Attributes::default().text(1, name),
        );
        batch.commit()?;
        was_there = true;
    }
    Ok(was_there)
}

/// Whether the table that cuts is there, and lets no resets out any more.
///
/// # Errors
/// The kernel's.
pub(super) fn holds(table: &str) -> io::Result<bool> {
    Ok(is_there(table)? && !is_there(&ending_name(table))?)
}

/// Whether this kernel has nf_tables.
pub(super) fn are_available() -> bool {
    is_there("plimsoll").is_ok()
}

/// Whether an error says that the kernel has no nf_tables.
pub(super) fn are_missing(e: &io::Error) -> bool {
    const EINVAL: i32 = 22;
    const EPROTONOSUPPORT: i32 = 93;
    const EOPNOTSUPP: i32 = 95;
    matches!(
        e.raw_os_error(),
        Some(EPROTONOSUPPORT | EOPNOTSUPP | EINVAL)
    ) && !are_available()
}

/// An empty table beside it says that connections are being ended: who comes after a crash finds it.
fn ending_name(table: &str) -> String {
    format!("{table}_ending")
}

fn mark_ending(batch: &mut Batch, table: &str, ending: bool) {
    let name = Attributes::default().text(1, &ending_name(table));
    batch.add(NEW_TABLE, CREATE, INET, &name);
    if !ending {
        batch.add(DELETE_TABLE, 0, INET, &name);
    }
}

/// Whether the table that cuts or forbids is there.
///
/// # Errors
/// The kernel's.
pub(super) fn is_there(table: &str) -> io::Result<bool> {
    is_there_in(table, INET)
}

fn is_there_in(table: &str, family: u8) -> io::Result<bool> {
    const ENOENT: i32 = 2;
    match exists(GET_TABLE, family, &Attributes::default().text(1, table)) {
        Ok(()) => Ok(true),
        Err(e) if e.raw_os_error() == Some(ENOENT) => Ok(false),
        Err(e) => Err(e),
    }
}

// ---- tables, chains, rules ----

/// An empty table, whatever was there: made, so that it can be taken away, and made again.
fn anew(batch: &mut Batch, family: u8, table: &str) {
    let name = Attributes::default().text(1, table);
    batch.add(NEW_TABLE, CREATE, family, &name);
    batch.add(DELETE_TABLE, 0, family, &name);
    batch.add(NEW_TABLE, CREATE, family, &name);
}

fn chain(batch: &mut Batch, table: &str, hook: Hook, policy: u32) {
    let at = Attributes::default()
        .number(1, hook as u32)
        .number(2, PRIORITY as u32);
    base_chain(batch, INET, table, hook.name(), at, policy);
}

fn base_chain(
    batch: &mut Batch,
    family: u8,
    table: &str,
    name: &str,
    hook: Attributes,
    policy: u32,
) {
    let chain = Attributes::default()
        .text(1, table)
        .text(3, name)
        .nested(4, hook)
        .number(5, policy)
        .text(7, "filter");
    batch.add(NEW_CHAIN, CREATE, family, &chain);
}

fn rule(batch: &mut Batch, family: u8, table: &str, chain: &str, parts: &[Attributes], code: u32) {
    const LIST_ELEMENT: u16 = 1;
    let list = parts
        .iter()
        .chain([&verdict(code)])
        .fold(Attributes::default(), |list, part| {
            list.nested(LIST_ELEMENT, part.clone())
        });
    let rule = Attributes::default()
        .text(1, table)
        .text(2, chain)
        .nested(4, list);
    batch.add(NEW_RULE, CREATE | APPEND, family, &rule);
}

// ---- expressions ----

const REGISTER: u32 = 1;
const META_IN: u32 = 8;
const META_OUT: u32 = 9;
const META_FAMILY: u32 = 15;
const META_PROTOCOL: u32 = 16;
const LINK: u32 = 0;
const NETWORK: u32 = 1;
const TRANSPORT: u32 = 2;
const ICMPV6: u8 = 58;

fn expression(name: &str, data: Attributes) -> Attributes {
    Attributes::default().text(1, name).nested(2, data)
}
fn verdict(code: u32) -> Attributes {
    let verdict = Attributes::default().nested(2, Attributes::default().number(1, code));
    expression(
        "immediate",
        Attributes::default().number(1, 0).nested(2, verdict),
    )
}
fn meta(key: u32) -> Attributes {
    expression(
        "meta",
        Attributes::default().number(1, REGISTER).number(2, key),
    )
}
fn payload(base: u32, offset: u32, length: u32) -> Attributes {
    let data = Attributes::default().number(1, REGISTER).number(2, base);
    expression("payload", data.number(3, offset).number(4, length))
}
fn equals(value: &[u8]) -> Attributes {
    let value = Attributes::default().bytes(1, value);
    expression(
        "cmp",
        Attributes::default()
            .number(1, REGISTER)
            .number(2, 0)
            .nested(3, value),
    )
}
fn mask(mask: &[u8]) -> Attributes {
    let value = |bytes: &[u8]| Attributes::default().bytes(1, bytes);
    let data = Attributes::default()
        .number(1, REGISTER)
        .number(2, REGISTER)
        .number(3, mask.len() as u32)
        .nested(4, value(mask))
        .nested(5, value(&vec![0; mask.len()]));
    expression("bitwise", data)
}

/// The type of the interface, which nobody can change, as they can its name.
fn loopback(direction: u32) -> Vec<Attributes> {
    const ARPHRD_LOOPBACK: u16 = 772;
    vec![meta(direction), equals(&ARPHRD_LOOPBACK.to_ne_bytes())]
}

/// An IPv4 or IPv6 packet from or to these addresses.
fn address((address, length): Prefix, to: bool) -> Vec<Attributes> {
    let (family, offset) = match (address, to) {
        (IpAddr::V4(_), false) => (2, 12),
        (IpAddr::V4(_), true) => (2, 16),
        (IpAddr::V6(_), false) => (10, 8),
        (IpAddr::V6(_), true) => (10, 24),
    };
    let mut parts = vec![meta(META_FAMILY), equals(&[family])];
    parts.extend(at((address, length), NETWORK, offset));
    parts
}

/// A frame of this type, whatever its sender says beside it.
fn frame(ethertype: u16) -> Vec<Attributes> {
    vec![payload(LINK, 12, 2), equals(&ethertype.to_be_bytes())]
}
fn frame_to((address, length): Prefix) -> Vec<Attributes> {
    const ETHERNET: u32 = 14;
    let (ethertype, offset) = match address {
        IpAddr::V4(_) => (0x0800, 16),
        IpAddr::V6(_) => (0x86dd, 24),
    };
    let mut parts = frame(ethertype);
    parts.extend(at((address, length), LINK, ETHERNET + offset));
    parts
}

/// A TCP segment that ends its connection.
fn reset() -> Vec<Attributes> {
    const TCP: u8 = 6;
    const FLAGS: u32 = 13;
    const RST: u8 = 4;
    let mut parts = vec![meta(META_PROTOCOL), equals(&[TCP])];
    parts.extend([payload(TRANSPORT, FLAGS, 1), mask(&[RST]), equals(&[RST])]);
    parts
}

fn neighbour(kind: u8) -> Vec<Attributes> {
    let mut parts = vec![meta(META_PROTOCOL), equals(&[ICMPV6])];
    parts.extend([payload(TRANSPORT, 0, 1), equals(&[kind])]);
    parts
}
fn frame_neighbour(kind: u8) -> Vec<Attributes> {
    let mut parts = frame(0x86dd);
    parts.extend([payload(LINK, 14 + 6, 1), equals(&[ICMPV6])]);
    parts.extend([payload(LINK, 14 + 40, 1), equals(&[kind])]);
    parts
}

fn at((address, length): Prefix, base: u32, offset: u32) -> Vec<Attributes> {
    let bytes = match address {
        IpAddr::V4(a) => a.octets().to_vec(),
        IpAddr::V6(a) => a.octets().to_vec(),
    };
    let masked = mask_of(length, bytes.len());
    let wanted: Vec<u8> = bytes.iter().zip(&masked).map(|(a, m)| a & m).collect();
    let mut parts = vec![payload(base, offset, bytes.len() as u32)];
    if usize::from(length) < bytes.len() * 8 {
        parts.push(mask(&masked));
    }
    parts.push(equals(&wanted));
    parts
}

fn mask_of(length: u8, bytes: usize) -> Vec<u8> {
    let ones = |i: usize| usize::from(length).saturating_sub(i * 8).min(8) as u32;
    (0..bytes).map(|i| (0xff00_u16 >> ones(i)) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_as_many_ones_as_they_say() {
        assert_eq!(mask_of(0, 4), [0, 0, 0, 0]);
        assert_eq!(mask_of(20, 4), [255, 255, 240, 0]);
        assert_eq!(mask_of(32, 4), [255; 4]);
        assert_eq!(mask_of(121, 16)[14..], [255, 128]);
    }

    #[test]
    fn a_plans_table_has_a_name_that_nft_takes_too() {
        assert_eq!(table_name("P-20-a b"), "plimsoll_P_20_a_b");
    }
}
